"""The audit's report on what waits to be published, in short, as a screen and as JSON."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from dagster_safe_backfill.cli.answers.data.progress import LaunchedData
from dagster_safe_backfill.cli.answers.data.staged import ApproveData, AuditData, AuditVerdict, StagedPartitionData
from dagster_safe_backfill.cli.answers.output import clock
from dagster_safe_backfill.cli.api.reading import ranges_of
from dagster_safe_backfill.cli.following.reading.failures import CheckOutcome
from dagster_safe_backfill.cli.following.waiting import AuditReport, Waiting

if TYPE_CHECKING:
    from rich.console import Console

_DIFFERENCES = 5
_RANGES = 6
_COLUMNS = frozenset({"partition", "verdict", "audits that did not pass", "shadow rows", "live rows", "difference"})
"""The columns of the audit's report besides aggregates."""


def show_report(screen: Console, waiting: Waiting, report: AuditReport) -> None:
    """Print what the audit says of what waits to be published."""
    from rich.table import Table

    name = waiting.assets.live.key
    screen.print(f"{name}: {len(waiting.keys):,} partitions wait to be published, {_ranges(waiting)}", markup=False)
    when = clock(report.at, seconds=True)
    staged_by = ", ".join(waiting.staged_by[:3])
    screen.print(f"staged by {staged_by}; audited together {when} by run {report.run_id[:8]}", markup=False)
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for title in ("  audit", "verdict", ""):
        table.add_column(title)
    for one in report.checks:
        table.add_row(f"  {one.name}", verdict_of(one), one.message or "")
    screen.print(table)
    for line in _compared(report):
        screen.print(line, markup=False, soft_wrap=True)


def approve_data(waiting: Waiting, launched: LaunchedData) -> ApproveData:
    """Return what waits to be published, and what was launched, as the data of `approve`."""
    report = waiting.report
    rows = {row["partition"]: row for row in report.rows} if report is not None else {}
    return {
        **launched,
        "asset": waiting.assets.live.key,
        "partitions": [_partition(key, rows.get(key, {})) for key in waiting.keys],
        "other_staged_partitions": [*waiting.others],
        "staged_by": [*waiting.staged_by],
        "audit": None if report is None else _audit(report),
    }


def _partition(key: str, row: Mapping[str, Any]) -> StagedPartitionData:
    return {
        "partition": key,
        "verdict": row.get("verdict"),
        "message": row.get("audits that did not pass") or None,
        "staged_row_count": row.get("shadow rows"),
        "live_row_count": row.get("live rows"),
        "aggregates": {name: value for name, value in row.items() if name not in _COLUMNS},
    }


def _audit(report: AuditReport) -> AuditData:
    return {
        "run_id": report.run_id,
        "audited_at": report.at,
        "audits": [
            {"audit": one.name, "verdict": verdict_of(one), "failed_rows": one.total, "message": one.message}
            for one in report.checks
        ],
    }


def verdict_of(check: CheckOutcome) -> AuditVerdict:
    """Return what a check came to: passed, warned or failed."""
    if check.passed:
        return "passed"
    return "failed" if check.blocks else "warned"


def _ranges(waiting: Waiting) -> str:
    found = ranges_of(waiting.keys, waiting.assets.live.keys)
    shown = [first if first == last else f"{first} to {last}" for first, last in found[:_RANGES]]
    return ", ".join(shown) + (f" and {len(found) - _RANGES:,} more ranges" if len(found) > _RANGES else "")


def _compared(report: AuditReport) -> Sequence[str]:
    """Return how the staged rows differ from the live ones, in sentences."""
    if not report.rows:
        return ()
    found = [f"verdicts: {', '.join(f'{count:,} {verdict}' for verdict, count in _verdicts(report.rows).items())}"]
    compared = [row for row in report.rows if "live rows" in row]
    if not compared:
        return found
    shadow, live = (sum(row[name] for row in compared) for name in ("shadow rows", "live rows"))
    found.append(f"rows: {shadow:,} staged, {live:,} live now ({shadow - live:+,})")
    differing = sorted((row for row in compared if row["difference"]), key=lambda row: -abs(row["difference"]))
    if differing and live:
        largest = ", ".join(f"{row['partition']} {row['difference']:+,}" for row in differing[:_DIFFERENCES])
        found.append(f"{len(differing):,} partitions have another number of rows than live; the largest: {largest}")
    return found


def _verdicts(rows: Sequence[Mapping[str, Any]]) -> Mapping[str, int]:
    return Counter(row["verdict"] for row in rows)
