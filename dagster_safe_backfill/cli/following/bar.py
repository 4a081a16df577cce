"""The progress of a backfill while it runs: a bar on a terminal, a line for each change elsewhere; both on stderr."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from datetime import datetime
from typing import TYPE_CHECKING, Any

from typing_extensions import override

from dagster_safe_backfill.cli.answers.output import Output, duration
from dagster_safe_backfill.cli.following.screen import STYLES, counted
from dagster_safe_backfill.cli.following.states import STATES, Progress

if TYPE_CHECKING:
    from rich.console import RenderableType

_BAR = 60


class View(ABC):
    """Shows how far a backfill is."""

    @abstractmethod
    def show(self, progress: Progress, waits_for: Sequence[str]) -> None:
        """Show a reading, and what the backfill waits for."""

    @abstractmethod
    def note(self, text: str) -> None:
        """Show a sentence that stays."""


class _Lines(View):
    """A line whenever something changed: for pipes, logs and CI."""

    def __init__(self, output: Output) -> None:
        self._output = output
        self._shown: object = None
        self._noted: set[str] = set()

    @override
    def show(self, progress: Progress, waits_for: Sequence[str]) -> None:
        state = progress.counts, progress.computed
        if state != self._shown:
            self._shown = state
            self.note(f"{datetime.now().astimezone():%H:%M:%S}  {progress.id}: {'; '.join(_words(progress))}")
        for one in waits_for:
            if one not in self._noted:
                self._noted.add(one)
                self.note(one)

    @override
    def note(self, text: str) -> None:
        # On stderr, so it may stand beside the JSON on stdout.
        if not self._output.is_quiet:
            self._output.log.print(text, highlight=False, markup=False, soft_wrap=True)


class _Bar(View):
    """A bar that is drawn anew."""

    def __init__(self, output: Output, live: Any) -> None:
        self._output = output
        self._live = live

    @override
    def show(self, progress: Progress, waits_for: Sequence[str]) -> None:
        self._live.update(_drawn(progress, waits_for), refresh=True)

    @override
    def note(self, text: str) -> None:
        self._output.note(text)


@contextmanager
def view_of(output: Output) -> Generator[View, None, None]:
    """Open what shows a backfill's progress: a bar on a terminal, else lines."""
    if not output.log.is_terminal or output.is_quiet or output.as_json:
        yield _Lines(output)
        return
    from rich.live import Live

    with Live(console=output.log, transient=True, auto_refresh=False) as live:
        yield _Bar(output, live)


def _words(progress: Progress) -> list[str]:
    """Return the counts, the rows, the rates and the time that is left."""
    done, rows = progress.computed
    found = [counted(progress.counts) or progress.status]
    seconds = progress.seconds
    if done and seconds is not None:
        found.append(f"{rows:,} rows, {rows / seconds:,.0f} rows/s, {60 * done / seconds:,.1f} partitions/min")
    running = [one for one in progress.batches if one.batches > 1]
    if running:
        found.append(", ".join(f"run {one.run_id[:8]}: batch {one.batch:,} of {one.batches:,}" for one in running[:3]))
    if progress.seconds_left is not None and done < progress.total:
        found.append(f"about {duration(progress.seconds_left)} left")
    return found


def _drawn(progress: Progress, waits_for: Sequence[str]) -> RenderableType:
    from rich.console import Group
    from rich.text import Text

    done, _rows = progress.computed
    names = ", ".join(one.asset for one in progress.assets[:4])
    title = Text(f"{progress.kind} {progress.id} of {names or '…'}  {progress.status}")
    if progress.seconds is not None:
        title.append(f"  {duration(progress.seconds)}", style="bright_black")
    bar = _segments(progress)
    bar.append(f" {done:,}/{progress.total:,}")
    if progress.total:
        bar.append(f"  {100 * done // progress.total} %")
    lines: list[RenderableType] = [title, bar, _legend(progress)]
    lines += [Text(line, style="bright_black") for line in _words(progress)[1:]]
    if progress.waits_for_daemon and not waits_for:
        lines.append(Text("waiting for Dagster's daemon, which looks every half minute", style="bright_black"))
    lines += [Text(line, style="yellow") for line in waits_for]
    lines.append(Text("Ctrl-C detaches; the backfill goes on", style="bright_black"))
    return Group(*lines)


def _segments(progress: Progress) -> Any:
    """Return the bar: a segment for each state, in their order; a state in which any is has a cell at least."""
    from rich.text import Text

    bar = Text()
    if not progress.total:
        return bar.append("░" * _BAR, style=STYLES["queued"])
    widths = {state: max(1, round(_BAR * count / progress.total)) for state, count in progress.counts.items()}
    while sum(widths.values()) != _BAR:
        largest = max(widths, key=widths.__getitem__)
        widths[largest] += 1 if sum(widths.values()) < _BAR else -1
    for state in STATES:
        if state in widths:
            bar.append(
                ("░" if state == "queued" else "▒" if state == "running" else "█") * widths[state], STYLES[state]
            )
    return bar


def _legend(progress: Progress) -> Any:
    from rich.text import Text

    found = Text()
    for state, count in progress.counts.items():
        found.append("■ ", style=STYLES[state])
        found.append(f"{count:,} {state}   ")
    return found
