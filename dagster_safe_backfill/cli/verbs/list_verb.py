"""`list`: the backfills that Dagster knows."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

from dagster_safe_backfill.cli.answers import Answer
from dagster_safe_backfill.cli.api.values import OPEN, Backfill
from dagster_safe_backfill.cli.connection import Connection
from dagster_safe_backfill.cli.options import option, verb
from dagster_safe_backfill.cli.output import Output

if TYPE_CHECKING:
    from rich.console import Console


@verb(
    "list",
    option("--limit", type=int, default=20, show_default=True, help="How many, the newest first."),
    option("--open", "only_open", is_flag=True, help="Only those that haven't ended."),
)
def command(connection: Connection, _output: Output, *, limit: int, only_open: bool) -> Answer:
    """List the backfills that Dagster knows, the newest first."""
    found = connection.dagster.backfills(limit=limit, statuses=sorted(OPEN) if only_open else ())
    return Answer(
        data={"backfills": [_told(one) for one in found]},
        show=lambda screen: _show(screen, found),
        brief="\n".join(one.id for one in found),
    )


def _told(one: Backfill) -> dict[str, Any]:
    return {
        "id": one.id,
        "status": one.status,
        "title": one.title,
        "started_at": one.started_at,
        "ended_at": one.ended_at,
        "tags": dict(one.tags),
        "assets": {
            key: {
                "targeted": counts.targeted,
                "in_progress": counts.in_progress,
                "materialized": counts.materialized,
                "failed": counts.failed,
            }
            for key, counts in one.assets.items()
        },
    }


def _show(screen: Console, found: Sequence[Backfill]) -> None:
    from rich.table import Table

    if not found:
        screen.print("no backfills")
        return
    table = Table(box=None, pad_edge=False)
    for name in ("id", "status", "started", "asset", "partitions", "live", "failed"):
        table.add_column(name, justify="right" if name in {"partitions", "live", "failed"} else "left")
    for one in found:
        started = f"{datetime.fromtimestamp(one.started_at).astimezone():%Y-%m-%d %H:%M}"
        for number, (key, counts) in enumerate(one.assets.items() or [("", None)]):
            numbers = ("", "", "") if counts is None else (counts.targeted, counts.materialized, counts.failed)
            lead = (one.id, one.status, started) if number == 0 else ("", "", "")
            table.add_row(*lead, key, *map(str, numbers))
    screen.print(table)
