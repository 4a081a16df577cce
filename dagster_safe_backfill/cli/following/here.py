"""What follows a launch: the backfill is told, or followed, or carried out in this process, where no daemon runs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from dagster_safe_backfill.cli.answers.answer import Answer, CommandError, Exit, Problem, refusal, usage_error
from dagster_safe_backfill.cli.answers.data.progress import LaunchedData, StatusData
from dagster_safe_backfill.cli.answers.output import Output
from dagster_safe_backfill.cli.connection import Connection
from dagster_safe_backfill.cli.following.next_steps import announce, launched_answer
from dagster_safe_backfill.cli.following.place import command
from dagster_safe_backfill.cli.following.watching import follow

if TYPE_CHECKING:
    from rich.console import Console

_DAEMON = "BACKFILL"


def check_here(connection: Connection) -> None:
    """Refuse to do the daemon's work beside a daemon, or on an instance that isn't here.

    Raises:
        CommandError: There is a URL, or a daemon that runs.
    """
    if connection.url is not None:
        raise usage_error("contradiction", "--in-process works on the instance of DAGSTER_HOME, not on that of --url")
    if connection.dagster.has_daemon(_DAEMON):
        raise refusal(
            "daemon_runs",
            "Dagster's daemon is running on this instance, and two can't work on one backfill",
            hint="leave out --in-process; the daemon takes it up",
        )


def launched(
    connection: Connection,
    output: Output,
    backfill_id: str,
    summary: str,
    *,
    assets: Sequence[str],
    watch: bool,
    in_process: bool,
    timeout: float | None,
) -> Answer[LaunchedData]:
    """Return what became of a backfill that was just launched, if it is to be followed; else that it was launched.

    Args:
        connection: Where it was launched.
        output: How the call prints.
        backfill_id: Its id.
        summary: What was launched, in a sentence.
        assets: The assets whose rows it publishes.
        watch: True to follow it.
        in_process: True to carry it out here, and follow it.
        timeout: The seconds after which it is no longer followed; None to wait until it ends.
    """
    answer = launched_answer(connection, backfill_id, summary, assets=assets)
    if not (watch or in_process):
        return answer
    announce(output, connection, backfill_id, summary, assets=assets)
    try:
        followed = (follow_here if in_process else follow)(connection, output, backfill_id, timeout=timeout)
    except CommandError as error:
        # It runs, whatever happened to the watching, so its id isn't lost.
        return replace(answer, show=_nothing_more, exit_code=error.exit_code, errors=[error.problem])
    progress = followed.data
    commands = answer.data["commands"] if progress is None else progress["commands"]
    return followed.with_data({"backfill_id": backfill_id, "progress": progress, "commands": commands})


def _nothing_more(_screen: Console) -> None:
    """Print nothing: what can be done next is on stderr already."""


def follow_here(
    connection: Connection, output: Output, backfill_id: str, *, timeout: float | None
) -> Answer[StatusData | None]:
    """Carry a backfill out, and return how it ended; if the time is up, or Ctrl-C was pressed, it is cancelled."""
    with connection.daemon(backfill_id) as daemon:
        answer = follow(connection, output, backfill_id, timeout=timeout, interval=0.5)
        if answer.exit_code not in {Exit.RUNNING, Exit.DETACHED}:
            return answer
        output.note("stopping it, and its runs")
        daemon.cancel()
    why = "the time is up" if answer.exit_code is Exit.RUNNING else "interrupted"
    again = command(connection, "retry", backfill_id, "--in-process")
    stopped = Problem(
        code="stopped", message=f"{why}, so backfill {backfill_id} was cancelled", hint=f"go on by: {again}"
    )
    return replace(answer, errors=[stopped])
