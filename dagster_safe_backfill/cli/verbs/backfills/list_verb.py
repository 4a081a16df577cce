"""`list`: the backfills that Dagster knows."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

import click

from dagster_safe_backfill.cli.answers.answer import Answer
from dagster_safe_backfill.cli.answers.data.backfills import AssetCountsData, ListData, ListedBackfillData
from dagster_safe_backfill.cli.answers.output import Output, clock
from dagster_safe_backfill.cli.api.values import OPEN, Backfill, Counts
from dagster_safe_backfill.cli.connection import Connection
from dagster_safe_backfill.cli.options import option, verb

if TYPE_CHECKING:
    from rich.console import Console

_TAGS = ("plan", "owner", "reason")
_FIRST_NUMBER = 4
"""The first column of numbers."""
_SEARCHED = 1000
"""Among how many of the newest backfills those of an asset are looked for."""


@verb(
    "list",
    option("--limit", type=click.IntRange(min=1), default=20, show_default=True, help="How many, the newest first."),
    option("--open", "only_open", is_flag=True, help="Only those that haven't ended."),
    option("--asset", metavar="ASSET", help="Only those of this asset."),
)
def command(
    connection: Connection, _output: Output, *, limit: int, only_open: bool, asset: str | None
) -> Answer[ListData]:
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
        data={"backfills": [_listed(one) for one in found]},
        show=partial(_show, found=found),
        brief="\n".join(one.id for one in found),
    )


def _listed(one: Backfill) -> ListedBackfillData:
    plan, owner, reason = (one.tags.get(f"safe_backfill/{name}") for name in _TAGS)
    return {
        "backfill_id": one.id,
        "status": one.status,
        "is_over": not one.is_open,
        "title": one.title,
        "job": one.job,
        "started_at": one.started_at,
        "ended_at": one.ended_at,
        "plan_id": plan,
        "owner": owner,
        "reason": reason,
        "parent_id": one.tags.get("dagster/parent_backfill_id"),
        "tags": dict(one.tags),
        "assets": [_asset_counts(key, counts) for key, counts in one.assets.items()],
    }


def _asset_counts(key: str, counts: Counts) -> AssetCountsData:
    return {
        "asset": key,
        "targeted": counts.targeted,
        "in_progress": counts.in_progress,
        "materialized": counts.materialized,
        "failed": counts.failed,
    }


def _show(screen: Console, found: Sequence[Backfill]) -> None:
    if not found:
        screen.print("no backfills")
        return
    lines: list[tuple[str, ...]] = [("id", "status", "started", "asset", "partitions", "done", "failed")]
    tags: dict[int, str] = {}
    for one in found:
        started = clock(one.started_at)
        lead = (one.id, one.status, started)
        for key, counts in one.assets.items() or [(f"job {one.job}", None)]:
            numbers = ("", "", "") if counts is None else (counts.targeted, counts.materialized, counts.failed)
            lines.append((*lead, key, *map(str, numbers)))
            lead = ("", "", "")
        shown = [f"{name}: {one.tags[tag]}" for name in _TAGS if (tag := f"safe_backfill/{name}") in one.tags]
        tags[len(lines) - 1] = "  ".join(shown)
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for number, line in enumerate(lines):
        cells = [
            cell.rjust(width) if position >= _FIRST_NUMBER else cell.ljust(width)
            for position, (cell, width) in enumerate(zip(line, widths, strict=True))
        ]
        # Never cropped: on a narrow terminal a line goes on below.
        screen.print("  ".join(cells).rstrip(), markup=False, soft_wrap=True, style="" if number else "bold")
        if tags.get(number):
            screen.print(f"{' ' * widths[0]}  {tags[number]}", markup=False, soft_wrap=True, style="bright_black")
