"""`status`: how far a backfill is, partition by partition."""

from __future__ import annotations

from dagster_safe_backfill.cli.answers.answer import Answer
from dagster_safe_backfill.cli.answers.data.progress import StatusData
from dagster_safe_backfill.cli.answers.output import Output
from dagster_safe_backfill.cli.connection import Connection
from dagster_safe_backfill.cli.following.place import find
from dagster_safe_backfill.cli.following.reading.reader import Reader
from dagster_safe_backfill.cli.following.watching import answer_of
from dagster_safe_backfill.cli.options import argument, verb


@verb("status", argument("backfill_id", metavar="ID"))
def command(connection: Connection, _output: Output, *, backfill_id: str) -> Answer[StatusData]:
    """Show how far a backfill is, partition by partition.

    ID is that of a backfill, or of a run with partitions, or its beginning. The exit code is 0 if it runs or has done
    all that it was to do, and 1 if partitions were rejected, failed or were cancelled, whether or not it still runs.
    """
    dagster = connection.dagster
    return answer_of(Reader(dagster=dagster, subject=find(dagster, backfill_id)).read(), connection)
