"""`watch`: follow a backfill until it ends."""

from __future__ import annotations

import click

from dagster_safe_backfill.cli.answers.answer import Answer
from dagster_safe_backfill.cli.answers.data.progress import StatusData
from dagster_safe_backfill.cli.answers.output import Output
from dagster_safe_backfill.cli.connection import Connection
from dagster_safe_backfill.cli.following.watching import PATIENCE, follow
from dagster_safe_backfill.cli.options import argument, option, verb

_SECONDS = click.FloatRange(min=0)


@verb(
    "watch",
    argument("backfill_id", metavar="ID"),
    option("--timeout", type=_SECONDS, metavar="SECONDS", help="Stop watching after that long, with exit code 6."),
    option(
        "--interval",
        type=click.FloatRange(min=0.1),
        metavar="SECONDS",
        default=2.0,
        show_default=True,
        help="How often to look.",
    ),
    option(
        "--patience",
        type=_SECONDS,
        metavar="SECONDS",
        default=PATIENCE,
        show_default=True,
        help="How long to ask a Dagster again that went away.",
    ),
)
def command(
    connection: Connection,
    output: Output,
    *,
    backfill_id: str,
    timeout: float | None,
    interval: float,
    patience: float,
) -> Answer[StatusData | None]:
    """Follow a backfill until it ends. Ctrl-C detaches; the backfill goes on.

    ID is that of a backfill, or of a run with partitions, or its beginning. On a terminal a bar on stderr shows the
    progress; elsewhere a line is written whenever something changed. The exit code is 0 if all partitions are live (or
    staged, where the backfill publishes nothing), 1 if some were rejected, failed or cancelled, 5 if Dagster went away,
    6 if the time is up and it still runs, and 130 if you detached.
    """
    return follow(connection, output, backfill_id, timeout=timeout, interval=interval, patience=patience)
