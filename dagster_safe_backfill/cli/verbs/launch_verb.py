"""`launch`: a backfill is started, of a plan or of what `plan` takes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from dagster_safe_backfill.cli.answers.answer import Answer, usage_error
from dagster_safe_backfill.cli.answers.data.plans import LaunchData
from dagster_safe_backfill.cli.answers.output import Output
from dagster_safe_backfill.cli.api.completion import complete_asset
from dagster_safe_backfill.cli.connection import Connection
from dagster_safe_backfill.cli.following.here import check_here, launched
from dagster_safe_backfill.cli.following.next_steps import NOTHING_LAUNCHED
from dagster_safe_backfill.cli.options import argument, in_process_option, option, verb, yes_option
from dagster_safe_backfill.cli.plans.asked import OPTIONS, asked_of
from dagster_safe_backfill.cli.plans.confirming import Confirmed
from dagster_safe_backfill.cli.plans.launching import (
    check_guards,
    check_still_true,
    launch_alone,
    launched_before,
    look_again,
    pool_of,
)
from dagster_safe_backfill.cli.plans.making import Planning, Wish, checks_live, make_plan, planning_of
from dagster_safe_backfill.cli.plans.plan import Plan, keep, load, path_of
from dagster_safe_backfill.cli.plans.screen import nothing_to_do, plan_data, planned_answer, show_plan
from dagster_safe_backfill.cli.selection import Selection

if TYPE_CHECKING:
    pass


@verb(
    "launch",
    argument("targets", nargs=-1, required=True, metavar="PLAN | ASSET...", shell_complete=complete_asset),
    *OPTIONS,
    option("--tag", "tags", multiple=True, metavar="KEY=VALUE", help="A tag of the backfill and its runs."),
    option(
        "--concurrency",
        type=click.IntRange(min=1),
        metavar="N",
        help="Let N of its runs work at a time, by the pool's limit.",
    ),
    option("--allow-overlap", is_flag=True, help="Launch though another backfill covers some of the partitions."),
    option("--dry-run", is_flag=True, help="Only say what would be done, as `plan` does."),
    option("--watch", is_flag=True, help="Follow it until it ends."),
    option("--timeout", type=click.FloatRange(min=0), metavar="SECONDS", help="Follow it for at most that long."),
    in_process_option,
    yes_option,
)
def command(
    connection: Connection,
    output: Output,
    *,
    targets: tuple[str, ...],
    tags: tuple[str, ...],
    concurrency: int | None,
    allow_overlap: bool,
    dry_run: bool,
    watch: bool,
    timeout: float | None,
    in_process: bool,
    yes: bool,
    **asked: Any,
) -> Answer[LaunchData]:
    """Start a backfill: of a PLAN that `plan` saved, or of ASSETs with the options of `plan`.

    A plan is checked once more: if the code, the definition or the live rows changed since it was made, it is refused.
    The runs check this again before they compute. Prints the id, and how to watch, stop and undo it, before anything
    else.
    """
    if in_process:
        check_here(connection)
    if timeout is not None and not (watch or in_process):
        raise usage_error(
            "contradiction", "--timeout is for --watch and --in-process; without them nothing is followed"
        )
    given = dict(map(_tag, tags))
    selection, wish = asked_of(**asked)
    path = _path(targets)
    planning = _planning(connection, targets, path, selection, wish)
    if planning is None:
        nothing = nothing_to_do(targets)
        return nothing.with_data({**nothing.data, **NOTHING_LAUNCHED, "dry_run": dry_run})
    if dry_run:
        shown = planned_answer(planning, None)
        return shown.with_data({**plan_data(planning, path), **NOTHING_LAUNCHED, "dry_run": True})
    check_guards(planning.guards, allows_overlap=allow_overlap)
    if not yes:
        planning = _agreed(connection, output, planning, wish, allows_overlap=allow_overlap)
    plan, dagster = planning.plan, connection.dagster
    pool = None if concurrency is None else pool_of(dagster, plan)
    path = path or _kept(output, plan)
    backfill_id = launch_alone(
        connection,
        plan,
        tags=given,
        confirmed=wish.confirmed,
        allows_overlap=allow_overlap,
        in_process=in_process,
    )
    if pool is not None and concurrency is not None:
        dagster.set_pool_limit(pool, concurrency)
        output.note(f"pool {pool} now has {concurrency} slots, for all of its assets")
    summary, assets = f"backfill {backfill_id}", _published(plan)
    answer = launched(
        connection,
        output,
        backfill_id,
        summary,
        assets=assets,
        watch=watch,
        in_process=in_process,
        timeout=timeout,
    )
    warned = replace(answer, warnings=[*_warnings(planning, in_process=in_process), *answer.warnings])
    return warned.with_data({**plan_data(planning, path), **answer.data, "dry_run": False})


def _published(plan: Plan) -> list[str]:
    """Return the assets of which a plan publishes rows that could be taken back.

    An asset without partitions has none such, and neither has an `x__shadow` or `x__audit` by itself.
    """
    return [asset.key for asset in plan.assets if asset.keys and asset.key == asset.live_asset]


def _path(names: tuple[str, ...]) -> Path | None:
    """Return the file of the plan that a call names; None if it names assets."""
    path = path_of(names[0]) if len(names) == 1 else None
    if path is None and len(names) == 1 and names[0].endswith(".json"):
        raise usage_error("unknown_plan", f"there is no plan {names[0]}", hint="`safe-backfill plan` makes one")
    return path


def _planning(
    connection: Connection, names: tuple[str, ...], path: Path | None, selection: Selection, wish: Wish
) -> Planning | None:
    if path is None:
        return make_plan(connection, names, selection, wish)
    # What was reviewed is carried out: only the confirmation of its size may be added.
    if selection.names_partitions or replace(wish, confirmed=Confirmed()) != Wish():
        raise usage_error("contradiction", f"{path} says already what is done; give either a plan, or options")
    plan = load(path)
    again = launched_before(connection.dagster, plan)
    planning, changed = planning_of(connection, plan, confirmed=wish.confirmed)
    check_still_true(planning.plan, changed)
    return replace(planning, warnings=[*planning.warnings, *([] if again is None else [again])])


def _agreed(
    connection: Connection, output: Output, planning: Planning, wish: Wish, *, allows_overlap: bool
) -> Planning:
    """Return what a person agreed to, if that is still as it was shown: minutes may have passed."""
    output.ask(
        "Launch it?",
        show=lambda screen: show_plan(screen, planning, None),
        otherwise="nothing was launched",
        warnings=planning.warnings,
    )
    again = look_again(connection, planning, confirmed=wish.confirmed)
    check_guards(again.guards, allows_overlap=allows_overlap)
    return again


def _kept(output: Output, plan: Plan) -> Path | None:
    path = keep(plan)
    if path is not None:
        output.note(f"its plan is saved as {path}")
    return path


def _tag(text: str) -> tuple[str, str]:
    key, is_given, value = text.partition("=")
    if not is_given or not key:
        raise usage_error("bad_tag", f"--tag {text} is not KEY=VALUE")
    return key, value


def _warnings(planning: Planning, *, in_process: bool = False) -> list[str]:
    broken = [one for one in planning.guards if not one.holds and not (in_process and one.name == "daemon")]
    found = [*planning.warnings, *(f"{one.name}: {one.message}" for one in broken)]
    if not checks_live(planning.plan) and not any(asset.live_unknown for asset in planning.plan.assets):
        found.append("its runs don't check whether live rows changed after the plan")
    return found
