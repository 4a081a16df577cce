"""`cancel`: stop a backfill."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

import click

from dagster_safe_backfill.cli.answers.answer import Answer, Exit, Problem, refusal
from dagster_safe_backfill.cli.answers.data.backfills import CancelData
from dagster_safe_backfill.cli.answers.output import Output
from dagster_safe_backfill.cli.api.client import Dagster
from dagster_safe_backfill.cli.api.values import OPEN, RUNS_OPEN, Backfill, Run
from dagster_safe_backfill.cli.connection import Connection
from dagster_safe_backfill.cli.following.here import check_here
from dagster_safe_backfill.cli.following.next_steps import as_data
from dagster_safe_backfill.cli.following.place import Place, find_to_change
from dagster_safe_backfill.cli.following.place import command as call
from dagster_safe_backfill.cli.following.reading.reader import Reader
from dagster_safe_backfill.cli.following.screen import counted, show_commands
from dagster_safe_backfill.cli.following.states import NextCommand, Progress
from dagster_safe_backfill.cli.following.status_data import state_counts
from dagster_safe_backfill.cli.options import argument, in_process_option, option, verb

if TYPE_CHECKING:
    from rich.console import Console

_OPEN_RUNS = """
query ($id: String!) {
  partitionBackfillOrError(backfillId: $id) {
    ... on PartitionBackfill { unfinishedRuns(limit: 5000) { runId status } }
  }
}
"""
_LOOKS, _MOST_LOOKS = 4, 20
_PAUSE = 0.5
"""How often, and after how many seconds each, it is looked for runs that the daemon was about to start; the most, while
there are runs that Dagster can't end yet, as their processes only start."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Stopped:
    """What became of it.

    Attributes:
        was_over: True if there was nothing to stop.
        status: Dagster's status now.
        ended: The runs that were asked to end.
        refused: A mapping from each run that couldn't be ended, and still runs, to what Dagster said.
        is_late: True if the time to wait was up before it had ended.
    """

    was_over: bool
    status: str
    ended: Sequence[str] = ()
    refused: Mapping[str, str] = field(default_factory=dict[str, str])
    is_late: bool = False


@dataclass(kw_only=True)
class Ending:
    """Ends the runs of a backfill, or one run, as often as it is asked: Dagster's daemon may start others meanwhile.

    Attributes:
        ended: The runs that were asked to end.
        refused: A mapping from each run that couldn't be ended, and still runs, to what Dagster said.
    """

    dagster: Dagster
    subject: Backfill | Run
    ended: dict[str, None] = field(default_factory=dict[str, None])
    refused: dict[str, str] = field(default_factory=dict[str, str])

    def end_what_runs(self) -> bool:
        """Ask what runs now to end; return True if there was something."""
        running = _open_runs(self.dagster, self.subject)
        # A run that was ended while it was queued can be started nevertheless, so what ended once is asked again.
        found = [run_id for run_id, status in running.items() if status != "CANCELING"]
        refused = self.dagster.terminate_runs(found)
        self.ended |= {run_id: None for run_id in found if run_id not in refused}
        # A launcher may call a run CANCELING before it notices that it can't end it.
        known = {run_id: said for run_id, said in self.refused.items() if run_id in running and run_id not in found}
        self.refused = known | refused
        return bool(found)

    def stopped(self, status: str, *, is_late: bool = False) -> _Stopped:
        """Return what became of it until now."""
        return _Stopped(was_over=False, status=status, ended=[*self.ended], refused=dict(self.refused), is_late=is_late)


@verb(
    "cancel",
    argument("backfill_id", metavar="ID"),
    option("--now", is_flag=True, help="End its runs, too, as they are. Without it, runs that have started go on."),
    option("--wait", is_flag=True, help="Wait until Dagster says that it is cancelled and its runs have ended."),
    option(
        "--timeout",
        type=click.FloatRange(min=0),
        metavar="SECONDS",
        default=300.0,
        show_default=True,
        help="Wait for at most that long; then the exit code is 6.",
    ),
    in_process_option,
)
def command(
    connection: Connection,
    output: Output,
    *,
    backfill_id: str,
    now: bool,
    wait: bool,
    timeout: float,
    in_process: bool,
) -> Answer[CancelData]:
    """Stop a backfill: it starts no further runs.

    What is live stays live, and what is staged stays staged; `retry` goes on from there. With the id of a run, the run
    is ended. A backfill that has ended, or is cancelled, is left as it is, and the exit code is 0. If runs couldn't be
    ended, it is 1. ID is the whole id of a backfill or a run, or at least 6 characters of a backfill's.

    Dagster can start runs that were queued for some half a minute more: with --now, --wait ends these, too.
    """
    if in_process:
        check_here(connection)
    dagster = connection.dagster
    subject = find_to_change(dagster, backfill_id)
    ending = Ending(dagster=dagster, subject=subject)
    stopped = _stop(ending, now=now)
    if in_process and isinstance(subject, Backfill) and not stopped.was_over:
        # Only a daemon closes a backfill that is being cancelled.
        with connection.daemon(subject.id):
            wait = True
    if wait and not stopped.was_over:
        output.note(f"waiting until {subject.id} has ended; Ctrl-C stops the waiting only")
        stopped = _waited(ending, until=time.monotonic() + timeout, now=now)
    progress = None if isinstance(subject, Run) else Reader(dagster=dagster, subject=subject).read()
    commands = _commands(connection, subject, stopped, progress, now=now, wait=wait)
    return Answer(
        data={
            "backfill_id": None if isinstance(subject, Run) else subject.id,
            "run_id": subject.id if isinstance(subject, Run) else None,
            "status": stopped.status,
            "was_over": stopped.was_over,
            "ended_run_ids": [*stopped.ended],
            "not_ended_run_ids": [*stopped.refused],
            "counts": None if progress is None else state_counts(progress.counts),
            "commands": as_data(commands),
        },
        show=partial(_show, subject=subject, stopped=stopped, progress=progress, commands=commands),
        brief=stopped.status,
        exit_code=Exit.FAILED if stopped.refused else Exit.RUNNING if stopped.is_late else Exit.DONE,
        errors=_problems(subject.id, stopped, timeout),
    )


def _commands(
    place: Place, subject: Backfill | Run, stopped: _Stopped, progress: Progress | None, *, now: bool, wait: bool
) -> list[NextCommand]:
    if stopped.was_over:
        return []
    commands: list[NextCommand] = []
    if not wait:
        to = "wait until all has ended, and end what starts meanwhile" if now else "wait until all has ended"
        flags = ("--now", "--wait") if now else ("--wait",)
        commands.append(NextCommand("wait", to, call(place, "cancel", subject.id, *flags)))
    if progress is not None and not progress.has_reached_all:
        commands.append(NextCommand("retry", "go on from there later", call(place, "retry", subject.id)))
    return commands


def _stop(ending: Ending, *, now: bool) -> _Stopped:
    dagster, subject = ending.dagster, ending.subject
    running = _open_runs(dagster, subject)
    # Cancelling a backfill that has ended would make Dagster 1.13.27 call it CANCELED from then on.
    if not subject.is_open and not running:
        return _Stopped(was_over=True, status=subject.status)
    if isinstance(subject, Run):
        ending.end_what_runs()
        return ending.stopped(_status(dagster, subject))
    if not subject.is_open and not now:
        raise refusal(
            "runs_only",
            f"backfill {subject.id} has started all of its runs, and {len(running):,} of them haven't ended",
            hint="--now ends them",
        )
    if subject.is_open and subject.status != "CANCELING":
        dagster.cancel_backfill(subject.id)
    if now:
        _end_runs(ending)
    return ending.stopped(_status(dagster, subject))


def _end_runs(ending: Ending) -> None:
    """End the runs of a backfill, also those that Dagster's daemon was about to start."""
    for look in range(_MOST_LOOKS):
        if look:
            time.sleep(_PAUSE)
        has_found = ending.end_what_runs()
        if look and (not has_found or (look >= _LOOKS - 1 and not ending.refused)):
            return


def _status(dagster: Dagster, subject: Backfill | Run) -> str:
    if isinstance(subject, Run):
        return dagster.run(subject.id).status
    return dagster.backfill(subject.id, runs=0).status


def _open_runs(dagster: Dagster, subject: Backfill | Run) -> dict[str, str]:
    """Return a mapping from each run that hasn't ended to its status."""
    if isinstance(subject, Run):
        statuses = {subject.id: _status(dagster, subject)}
    else:
        backfill = dagster.ask(_OPEN_RUNS, id=subject.id)["partitionBackfillOrError"]
        statuses = {one["runId"]: one["status"] for one in backfill["unfinishedRuns"]}
    return {run_id: status for run_id, status in statuses.items() if status in RUNS_OPEN}


def _waited(ending: Ending, *, until: float, now: bool) -> _Stopped:
    """Wait until it has ended, or the time is up; return what became of it."""
    dagster, subject = ending.dagster, ending.subject
    while True:
        status = _status(dagster, subject)
        if now or isinstance(subject, Run):
            ending.end_what_runs()
        is_over = status not in OPEN | RUNS_OPEN and not _open_runs(dagster, subject)
        if is_over:
            ending.refused.clear()
        if is_over or time.monotonic() >= until:
            return ending.stopped(status, is_late=not is_over)
        time.sleep(_PAUSE)


def _problems(subject_id: str, stopped: _Stopped, timeout: float) -> list[Problem]:
    problems: list[Problem] = []
    if stopped.refused:
        ids = [*stopped.refused]
        shown = ", ".join(ids[:5]) + (f" and {len(ids) - 5:,} more" if len(ids) > 5 else "")
        problems.append(
            Problem(
                code="not_ended",
                message=f"{len(ids):,} runs couldn't be ended: {shown} ({stopped.refused[ids[0]]})",
                hint="call it again; Dagster's UI can mark a run as ended whose process is gone (force terminate)",
            )
        )
    if stopped.is_late:
        problems.append(
            Problem(
                code="time_is_up",
                message=f"after {timeout:.0f} s {subject_id} has not ended ({stopped.status})",
                hint="Dagster's daemon ends it; `safe-backfill doctor` tells if it is alive",
            )
        )
    return problems


def _show(
    screen: Console,
    *,
    subject: Backfill | Run,
    stopped: _Stopped,
    progress: Progress | None,
    commands: Sequence[NextCommand],
) -> None:
    kind = "run" if isinstance(subject, Run) else "backfill"
    if stopped.was_over:
        screen.print(f"{kind} {subject.id} had ended already ({stopped.status}); nothing to do")
    else:
        runs = f", {len(stopped.ended):,} runs were asked to end" if stopped.ended else ""
        screen.print(f"{kind} {subject.id} is cancelled ({stopped.status}){runs}")
    if progress is not None and progress.counts:
        screen.print(f"of {progress.total:,} partitions: {counted(progress.counts)}")
        if not stopped.was_over:
            screen.print("what is live stays live, and what is staged stays staged")
    show_commands(screen, commands)
