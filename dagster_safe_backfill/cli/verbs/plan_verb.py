"""`plan`: what a backfill would do, saved as a file; nothing is touched."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from dagster_safe_backfill.cli.answers.answer import Answer
from dagster_safe_backfill.cli.answers.data.plans import PlanData
from dagster_safe_backfill.cli.answers.output import Output
from dagster_safe_backfill.cli.api.completion import complete_asset
from dagster_safe_backfill.cli.connection import Connection
from dagster_safe_backfill.cli.following import place
from dagster_safe_backfill.cli.options import argument, option, verb
from dagster_safe_backfill.cli.plans.asked import OPTIONS, asked_of
from dagster_safe_backfill.cli.plans.making import make_plan
from dagster_safe_backfill.cli.plans.screen import nothing_to_do, planned_answer


@verb(
    "plan",
    argument("assets", nargs=-1, required=True, metavar="ASSET...", shell_complete=complete_asset),
    *OPTIONS,
    option("--out", type=str, metavar="FILE", help="Where to save the plan. [default: backfills/<id>.json]"),
    option("--dry-run", is_flag=True, help="Don't save it."),
)
def command(
    connection: Connection, _output: Output, *, assets: tuple[str, ...], out: str | None, dry_run: bool, **asked: Any
) -> Answer[PlanData]:
    """Say what a backfill of ASSETs would do, partition by partition, and save it as a plan.

    Nothing is touched. The plan holds which partitions are computed and why, in which runs and batches, when they go
    live, what to expect, and what becomes outdated downstream. `launch` carries it out as long as it is true.
    """
    selection, wish = asked_of(**asked)
    planning = make_plan(connection, assets, selection, wish)
    if planning is None:
        return nothing_to_do(assets)
    path = None if dry_run else planning.plan.save(None if out is None else Path(out))
    return planned_answer(planning, path, next_call=place.command(connection, "launch", str(path)))
