"""`list`: the backfills that Dagster knows."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from functools import partial
from typing import TYPE_CHECKING, Any

import click

from dagster_safe_backfill.cli.answers import Answer
from dagster_safe_backfill.cli.api.values import OPEN, Backfill
from dagster_safe_backfill.cli.connection import Connection
from dagster_safe_backfill.cli.options import option, verb
from dagster_safe_backfill.cli.output import Output

if TYPE_CHECKING:
    from rich.console import Console

_TAGS = ("plan", "owner", "reason")
_SEARCHED = 1000
"""Among how many of the newest backfills those of an asset are looked for."""


@verb(
    "list",
    option("--limit", type=click.IntRange(min=1), default=20, show_default=True, help="How many, the newest first."),
    option("--open", "only_open", is_flag=True, help="Only those that haven't ended."),
    option("--asset", metavar="ASSET", help="Only those of this asset."),
)
def command(connection: Connection, _output: Output, *, limit: int, only_open: bool, asset: str | None) -> Answer:
    """List the backfills that Dagster knows: those that haven't ended first, then the newest."""
    statuses = sorted(OPEN)
    # Those that are open come first, however old they are.
    found = connection.dagster.backfills(limit=_SEARCHED if asset else limit, statuses=statuses)
    if not only_open:
        known = {one.id for one in found}
        newest = connection.dagster.backfills(limit=_SEARCHED if asset else limit)
        found += [one for one in newest if one.id not in known]
    if asset is not None:
        # Of an asset that is unknown, it would say that there are none.
        connection.dagster.assets([asset])
        found = [one for one in found if asset in one.assets]
    found = found[:limit]
    return Answer(
        data={"backfills": [_told(one) for one in found]},
        show=partial(_show, found=found),
        brief="\n".join(one.id for one in found),
    )


def _told(one: Backfill) -> dict[str, Any]:
    return {
        "id": one.id,
        "status": one.status,
        "is_open": one.is_open,
        "title": one.title,
        "job": one.job,
        "started_at": one.started_at,
        "ended_at": one.ended_at,
        **{name: one.tags.get(f"safe_backfill/{name}") for name in _TAGS},
        "parent_id": one.tags.get("dagster/parent_backfill_id"),
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
    # Where no backfill has such a tag, there is no column for it.
    tags = [name for name in _TAGS if any(f"safe_backfill/{name}" in one.tags for one in found)]
    numbers = ("partitions", "done", "failed")
    for name in ("id", "status", "started", "asset", *numbers, *tags):
        is_wrapped = name in {"asset", "reason"}
        table.add_column(name, justify="right" if name in numbers else "left", overflow="fold", no_wrap=not is_wrapped)
    for one in found:
        started = f"{datetime.fromtimestamp(one.started_at).astimezone():%Y-%m-%d %H:%M}"
        for number, (key, counts) in enumerate(one.assets.items() or [(f"job {one.job}", None)]):
            told = ("", "", "") if counts is None else (counts.targeted, counts.materialized, counts.failed)
            lead, last = ("", "", ""), [""] * len(tags)
            if number == 0:
                lead = (one.id, one.status, started)
                last = [one.tags.get(f"safe_backfill/{name}", "") for name in tags]
            table.add_row(*lead, key, *map(str, told), *last)
    screen.print(table)
