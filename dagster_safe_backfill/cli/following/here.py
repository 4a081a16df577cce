"""Carrying a backfill out in this process, where no daemon runs, and following it."""

from __future__ import annotations

from dataclasses import replace

from dagster_safe_backfill.cli.answers import Answer, Exit, Problem, refusal, usage_error
from dagster_safe_backfill.cli.connection import Connection
from dagster_safe_backfill.cli.following.place import command
from dagster_safe_backfill.cli.following.watching import follow
from dagster_safe_backfill.cli.output import Output

_DAEMON = "BACKFILL"


def check_here(connection: Connection) -> None:
    """Refuse to do the daemon's work beside a daemon, or on an instance that isn't here.

    Raises:
        CommandError: There is a URL, or a daemon that runs.
    """
    if connection.url is not None:
        raise usage_error("contradiction", "--in-process works on the instance of DAGSTER_HOME, not on that of --url")
    if any(one.name == _DAEMON and one.is_healthy for one in connection.dagster.daemons()):
        raise refusal(
            "daemon_runs",
            "Dagster's daemon is running on this instance, and two can't work on one backfill",
            hint="leave out --in-process; the daemon takes it up",
        )


def follow_here(connection: Connection, output: Output, backfill_id: str, *, timeout: float | None) -> Answer:
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
