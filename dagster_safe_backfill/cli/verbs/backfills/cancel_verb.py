"""`cancel`: stop a backfill."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import click

from dagster_safe_backfill.cli.answers import Answer, Exit, Problem, refusal
from dagster_safe_backfill.cli.api.client import Dagster
from dagster_safe_backfill.cli.api.values import OPEN, RUNS_OPEN, Backfill, Run
from dagster_safe_backfill.cli.connection import Connection
from dagster_safe_backfill.cli.following.next_steps import as_json
from dagster_safe_backfill.cli.following.place import command as call
from dagster_safe_backfill.cli.following.place import find
from dagster_safe_backfill.cli.following.reading.reader import Reader
from dagster_safe_backfill.cli.following.screen import counted, show_commands
from dagster_safe_backfill.cli.following.states import NextCommand, Progress
from dagster_safe_backfill.cli.options import argument, option, verb
from dagster_safe_backfill.cli.output import Output

if TYPE_CHECKING:
    from rich.console import Console

_OPEN_RUNS = """
query ($id: String!) {
  partitionBackfillOrError(backfillId: $id) {
    ... on PartitionBackfill { unfinishedRuns(limit: 5000) { runId status } }
  }
}
"""
_LOOKS = 4
_PAUSE = 0.5
"""How often, and after how many seconds each, it is looked for runs that the daemon was about to start."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Stopped:
    """What became of it.

    Attributes:
        was_over: True if there was nothing to stop.
        run_ids: The runs that were asked to end.
        status: Dagster's status now.
    """

    was_over: bool
    run_ids: Sequence[str]
    status: str


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
)
def command(
    connection: Connection, output: Output, *, backfill_id: str, now: bool, wait: bool, timeout: float
) -> Answer:
    """Stop a backfill: it starts no further runs.

    What is live stays live, and what is staged stays staged; `retry` goes on from there. With the id of a run, the run
    is ended. A backfill that has ended, or is cancelled, is left as it is, and the exit code is 0.
    """
    dagster = connection.dagster
    subject = find(dagster, backfill_id)
    stopped = _stop(dagster, subject, now=now)
    if wait and not stopped.was_over:
        stopped, is_late = _waited(dagster, subject, stopped, output, until=time.monotonic() + timeout, now=now)
        errors = [_late(subject.id, stopped, timeout)] if is_late else []
    else:
        errors = list[Problem]()
    progress = None if isinstance(subject, Run) else Reader(dagster=dagster, subject=subject).read()
    commands: list[NextCommand] = []
    if progress is not None and not progress.has_reached_all and not stopped.was_over:
        commands.append(NextCommand("retry", "go on from there later", call(connection, "retry", subject.id)))
    return Answer(
        data={
            "id": subject.id,
            "kind": "run" if isinstance(subject, Run) else "backfill",
            "status": stopped.status,
            "was_over": stopped.was_over,
            "runs_ended": [*stopped.run_ids],
            "counts": {} if progress is None else dict(progress.counts),
            "commands": as_json(commands),
        },
        show=partial(_show, subject=subject, stopped=stopped, progress=progress, commands=commands),
        brief=stopped.status,
        exit_code=Exit.RUNNING if errors else Exit.DONE,
        errors=errors,
    )


def _stop(dagster: Dagster, subject: Backfill | Run, *, now: bool) -> _Stopped:
    if isinstance(subject, Run):
        if subject.is_open:
            dagster.terminate_runs([subject.id])
        run_ids = [subject.id] if subject.is_open else []
        return _Stopped(was_over=not subject.is_open, run_ids=run_ids, status=dagster.run(subject.id).status)
    running = _open_runs(dagster, subject.id)
    # Cancelling a backfill that has ended would make Dagster 1.13.27 call it CANCELED from then on.
    if not subject.is_open and not running:
        return _Stopped(was_over=True, run_ids=(), status=subject.status)
    if not subject.is_open and not now:
        raise refusal(
            "runs_only",
            f"backfill {subject.id} has started all of its runs, and {len(running):,} of them haven't ended",
            hint="--now ends them",
        )
    if subject.is_open and subject.status != "CANCELING":
        dagster.cancel_backfill(subject.id)
    run_ids = _end_runs(dagster, subject.id) if now else []
    return _Stopped(was_over=False, run_ids=run_ids, status=dagster.backfill(subject.id, runs=0).status)


def _end_runs(dagster: Dagster, backfill_id: str) -> list[str]:
    """End the runs of a backfill, also those that Dagster's daemon was about to start; return their ids."""
    ended: dict[str, None] = {}
    for look in range(_LOOKS):
        if look:
            time.sleep(_PAUSE)
        found = [run_id for run_id in _open_runs(dagster, backfill_id) if run_id not in ended]
        dagster.terminate_runs(found)
        ended |= dict.fromkeys(found)
        if look and not found:
            break
    return [*ended]


def _open_runs(dagster: Dagster, backfill_id: str) -> list[str]:
    told = dagster.ask(_OPEN_RUNS, id=backfill_id)["partitionBackfillOrError"]
    return [one["runId"] for one in told["unfinishedRuns"] if one["status"] in RUNS_OPEN]


def _waited(
    dagster: Dagster, subject: Backfill | Run, stopped: _Stopped, output: Output, *, until: float, now: bool
) -> tuple[_Stopped, bool]:
    """Wait until it has ended; return what became of it, and whether the time was up before."""
    ended = dict.fromkeys(stopped.run_ids)
    output.note(f"waiting until {subject.id} has ended; Ctrl-C stops the waiting only")
    while True:
        if isinstance(subject, Run):
            status = dagster.run(subject.id).status
            is_over = status not in RUNS_OPEN
        else:
            status = dagster.backfill(subject.id, runs=0).status
            running = _open_runs(dagster, subject.id)
            is_over = status not in OPEN and not running
            if now:
                dagster.terminate_runs([run_id for run_id in running if run_id not in ended])
                ended |= dict.fromkeys(running)
        now_stopped = _Stopped(was_over=False, run_ids=[*ended], status=status)
        if is_over or time.monotonic() >= until:
            return now_stopped, not is_over
        time.sleep(_PAUSE)


def _late(subject_id: str, stopped: _Stopped, timeout: float) -> Problem:
    return Problem(
        code="time_is_up",
        message=f"after {timeout:.0f} s {subject_id} has not ended ({stopped.status})",
        hint="Dagster's daemon ends it; `safe-backfill doctor` tells if it is alive",
    )


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
        said = f", {len(stopped.run_ids):,} runs were asked to end" if stopped.run_ids else ""
        screen.print(f"{kind} {subject.id} is cancelled ({stopped.status}){said}")
    if progress is not None and progress.counts:
        screen.print(f"of {progress.total:,} partitions: {counted(progress.counts)}")
        if not stopped.was_over:
            screen.print("what is live stays live, and what is staged stays staged")
    show_commands(screen, commands)
