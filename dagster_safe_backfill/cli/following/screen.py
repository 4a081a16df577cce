"""How far a backfill is, as a screen that stays readable with thousands of partitions."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING

from dagster_safe_backfill.cli.answers.output import clock, duration
from dagster_safe_backfill.cli.following.states import (
    STATES,
    AssetProgress,
    FailedAudit,
    NextCommand,
    PartitionState,
    Progress,
    RunFailure,
    State,
)

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

STYLES: Mapping[State, str] = {
    "live": "green",
    "staged": "cyan",
    "rejected": "red",
    "failed": "bold red",
    "cancelled": "magenta",
    "running": "yellow",
    "queued": "bright_black",
}
_RANGES = 30
"""How many ranges of partitions of one asset are shown; those that are neither live nor staged come first."""
_FAILURES = 8
_TABLES = 5
_CUT = 600
_RANGE_WORDS = " to "
_ROWS = {"rows": "row_count", "new": "rows_inserted", "changed": "rows_updated", "gone": "rows_deleted"}


@dataclass(frozen=True, slots=True, kw_only=True)
class _Range:
    """Partitions of equal state that follow each other."""

    partitions: Sequence[PartitionState]

    @property
    def state(self) -> State:
        return self.partitions[0].state

    @property
    def name(self) -> str:
        first, last = self.partitions[0].partition, self.partitions[-1].partition
        return (first or "-") if first == last else f"{first}{_RANGE_WORDS}{last}"


def show(screen: Console, progress: Progress, commands: Sequence[NextCommand]) -> None:
    """Print how far a backfill is."""
    screen.print(_headline(progress), markup=False, soft_wrap=True)
    for asset in progress.assets:
        _show_asset(screen, asset)
    if not progress.assets:
        screen.print("nothing of it is known yet")
    show_commands(screen, commands)


def show_commands(screen: Console, commands: Sequence[NextCommand]) -> None:
    """Print what can be done next."""
    if not commands:
        return
    screen.print()
    for one in commands:
        screen.print(f"to {one.to}:", markup=False)
        # Not wrapped, so that it can be copied.
        screen.print(f"  {one.command}", markup=False, soft_wrap=True, style="bold")


def show_launched(screen: Console, *, summary: str, commands: Sequence[NextCommand]) -> None:
    """Print what was launched, and what can be done next."""
    screen.print(summary, markup=False, soft_wrap=True)
    show_commands(screen, commands)


def counted(counts: Mapping[State, int]) -> str:
    """Return how many partitions are in which state, in words."""
    return ", ".join(f"{counts[state]:,} {state}" for state in STATES if state in counts)


def _partitions(count: int) -> str:
    return "1 partition" if count == 1 else f"{count:,} partitions"


def _headline(progress: Progress) -> str:
    parts = [f"{progress.kind} {progress.id}", progress.status]
    if progress.started_at is not None:
        parts.append(f"since {clock(progress.started_at, seconds=True)}")
        if progress.ended_at is not None:
            parts.append(f"took {duration(progress.ended_at - progress.started_at)}")
    if progress.is_over and progress.ended_at is None:
        parts.append("(all done; Dagster's daemon says so at its next look)")
    named = [(name, progress.tags.get(f"safe_backfill/{name}")) for name in ("plan", "owner", "reason")]
    tags = "  ".join(f"{name}: {value}" for name, value in named if value)
    return "  ".join(parts) + (f"\n{tags}" if tags else "")


def _show_asset(screen: Console, asset: AssetProgress) -> None:
    screen.print()
    screen.print(f"{asset.asset}: {_partitions(len(asset.partitions))}, {counted(asset.counts)}", markup=False)
    if asset.audit is not None:
        screen.print(f"audit of all together: {_audit_words(asset)}", markup=False, soft_wrap=True)
    ranges = [*_ranges(asset.partitions)]
    shown = _chosen(ranges)
    if shown:
        screen.print(_table(shown))
    if len(shown) < len(ranges):
        screen.print(
            f"  and {len(ranges) - len(shown):,} more ranges; --json has every partition", style="bright_black"
        )
    _show_failures(screen, asset)
    for note, count in _notes(asset).items():
        _line(screen, f"  {_partitions(count)} {note}", indent=4)


def _audit_words(asset: AssetProgress) -> str:
    audit = asset.audit
    if audit is None or audit.run_id is None:
        return "not run"
    state = "passed" if audit.state == "live" else audit.state
    return f"{state}, run {audit.run_id[:8]}"


def _ranges(partitions: Sequence[PartitionState]) -> Iterator[_Range]:
    for _state, group in groupby(partitions, key=lambda one: one.state):
        yield _Range(partitions=[*group])


def _chosen(ranges: Sequence[_Range]) -> list[_Range]:
    """Return the ranges that there is room for, in their order; those that went well are left out first."""
    if len(ranges) <= _RANGES:
        return [*ranges]
    # sorted() is stable, so that the earliest are chosen among equals.
    worst = sorted(range(len(ranges)), key=lambda number: _IMPORTANCE.index(ranges[number].state))[:_RANGES]
    return [ranges[number] for number in sorted(worst)]


_IMPORTANCE: Sequence[State] = ("failed", "rejected", "cancelled", "running", "staged", "live", "queued")


def _table(ranges: Sequence[_Range]) -> Table:
    from rich.table import Table
    from rich.text import Text

    columns: dict[str, Sequence[str | Text]] = {
        "  partitions": [f"  {one.name}" for one in ranges],
        "count": [f"{len(one.partitions):,}" for one in ranges],
        "state": [Text(one.state, style=STYLES[one.state]) for one in ranges],
    }
    for title, name in _ROWS.items():
        columns[title] = [_sum(one, name) for one in ranges]
    columns["run"] = [_few([part.run_id[:8] for part in one.partitions if part.run_id], "runs") for one in ranges]
    columns["publication"] = [
        _few([_short(part.publication_id) for part in one.partitions if part.publication_id], "publications")
        for one in ranges
    ]
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    filled = {title: cells for title, cells in columns.items() if any(cells)}
    for title in filled:
        is_number = title == "count" or title in _ROWS
        table.add_column(title, justify="right" if is_number else "left", overflow="fold", no_wrap=not is_number)
    for cells in zip(*filled.values(), strict=True):
        table.add_row(*cells)
    return table


def _sum(part: _Range, name: str) -> str:
    """Return a sum over the partitions of a range; "at least" where not all of them say it, empty where none does."""
    known = [one.rows[name] for one in part.partitions if name in one.rows]
    if not known:
        return ""
    return f"{'' if len(known) == len(part.partitions) else '≥ '}{sum(known):,}"


def _few(ids: Sequence[str], noun: str) -> str:
    found = list(dict.fromkeys(ids))
    return ", ".join(found) if len(found) <= 2 else f"{len(found):,} {noun}"


def _short(publication: str) -> str:
    """Return the beginning of a publication's id; that of a batch keeps its number."""
    lead, dot, number = publication.partition(".")
    return f"{lead[:8]}{dot}{number}"


def _show_failures(screen: Console, asset: AssetProgress) -> None:
    rejected = [one for one in asset.partitions if one.state == "rejected" and one.audits]
    if rejected:
        screen.print()
        screen.print("  rejected by audits", style="bold")
    for one in rejected[:_RANGES]:
        _line(screen, f"    {one.partition}  {'; '.join(map(_audit_said, one.audits))}", indent=6)
    if len(rejected) > _RANGES:
        screen.print(f"    and {len(rejected) - _RANGES:,} more; --json has all", style="bright_black")
    shadows = list(dict.fromkeys(shadow for one in asset.failures if one.is_rejection for shadow in one.shadows))
    if shadows:
        rest = f", and {len(shadows) - _TABLES:,} more tables" if len(shadows) > _TABLES else ""
        _line(screen, f"  the rejected rows are in {', '.join(shadows[:_TABLES])}{rest}", indent=4)
    others = [one for one in asset.failures if not one.is_rejection]
    for one in others[:_FAILURES]:
        _line(screen, f"  run {one.run_id[:8]}: {_cut(one)}", indent=4)
    if len(others) > _FAILURES:
        screen.print(f"  and {len(others) - _FAILURES:,} more runs failed; --json has all", style="bright_black")


def _line(screen: Console, text: str, *, indent: int) -> None:
    """Print a sentence; where it is longer than the screen, it goes on below, indented."""
    from textwrap import fill

    lead = text[: len(text) - len(text.lstrip())]
    wrapped = fill(
        text.strip(),
        max(screen.width, 40),
        initial_indent=lead,
        subsequent_indent=" " * indent,
        break_long_words=False,
        break_on_hyphens=False,
    )
    screen.print(wrapped, markup=False, soft_wrap=True)


def _audit_said(one: FailedAudit) -> str:
    rows = one.message
    if one.failed_rows is not None:
        rows = "1 row" if one.failed_rows == 1 else f"{one.failed_rows:,} rows"
    return f"{one.name}{f': {rows}' if rows else ''}{'' if one.blocks else ' (warning)'}"


def _cut(one: RunFailure) -> str:
    return one.message if len(one.message) <= _CUT else f"{one.message[:_CUT]}…"


def _notes(asset: AssetProgress) -> dict[str, int]:
    found: dict[str, int] = {}
    for one in asset.partitions:
        if one.note is not None:
            found[one.note] = found.get(one.note, 0) + 1
    return found
