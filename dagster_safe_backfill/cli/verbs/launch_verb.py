"""`launch`: a backfill is started, of a plan or of what `plan` takes."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import click

from dagster_safe_backfill.cli.answers.answer import Answer, refusal, usage_error
from dagster_safe_backfill.cli.answers.output import Output
from dagster_safe_backfill.cli.api.completion import complete_asset
from dagster_safe_backfill.cli.connection import Connection
from dagster_safe_backfill.cli.following.here import check_here, launched
from dagster_safe_backfill.cli.options import argument, in_process_option, option, verb, yes_option
from dagster_safe_backfill.cli.plans.asked import OPTIONS, asked_of
from dagster_safe_backfill.cli.plans.launching import (
    check_guards,
    check_still_true,
    checks_live,
    launch,
    pool_of,
)
from dagster_safe_backfill.cli.plans.making import Planning, Wish, make_plan, planning_of
from dagster_safe_backfill.cli.plans.plan import load, path_of
from dagster_safe_backfill.cli.plans.screen import nothing_to_do, planned_answer, show_plan
from dagster_safe_backfill.cli.selection import Selection


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
) -> Answer:
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
    planning = _planning(connection, targets, selection, wish)
    if planning is None:
        return nothing_to_do(targets)
    if dry_run:
        return planned_answer(planning, None)
    check_guards(planning.guards, allows_overlap=allow_overlap)
    _confirm(output, planning, yes=yes)
    plan, dagster = planning.plan, connection.dagster
    pool = None if concurrency is None else pool_of(dagster, plan)
    backfill_id = launch(dagster, plan, tags=given, confirmed=wish.confirmed)
    if pool is not None and concurrency is not None:
        dagster.set_pool_limit(pool, concurrency)
        output.note(f"pool {pool} now has {concurrency} slots, for all of its assets")
    # What has no partitions, or only stages, publishes nothing that could be taken back.
    assets = [asset.key for asset in plan.assets if asset.keys and asset.live_asset == asset.key]
    said = f"backfill {backfill_id}"
    answer = launched(
        connection,
        output,
        backfill_id,
        said,
        assets=assets,
        data={"plan": plan.id, "dagster": dagster.place},
        watch=watch,
        in_process=in_process,
        timeout=timeout,
    )
    return replace(answer, warnings=[*_warnings(planning, in_process=in_process), *answer.warnings])


def _planning(connection: Connection, names: tuple[str, ...], selection: Selection, wish: Wish) -> Planning | None:
    path = path_of(names[0]) if len(names) == 1 else None
    if path is None and len(names) == 1 and names[0].endswith(".json"):
        raise usage_error("unknown_plan", f"there is no plan {names[0]}", hint="`safe-backfill plan` makes one")
    if path is None:
        return make_plan(connection, names, selection, wish)
    # What was reviewed is carried out: only the confirmation of its size may be added.
    if selection.names_partitions or replace(wish, confirmed=None) != Wish():
        raise usage_error("contradiction", f"{path} says already what is done; give either a plan, or options")
    planning, changed = planning_of(connection, load(path), confirmed=wish.confirmed)
    check_still_true(planning.plan, changed)
    return planning


def _confirm(output: Output, planning: Planning, *, yes: bool) -> None:
    if yes:
        return
    if not output.is_interactive:
        raise refusal(
            "not_confirmed", "nothing was launched: nobody can be asked here", hint="--yes launches without a question"
        )
    show_plan(output.log, planning, None)
    if not click.confirm("Launch it?", err=True):
        raise refusal("not_confirmed", "nothing was launched")


def _tag(text: str) -> tuple[str, str]:
    key, is_given, value = text.partition("=")
    if not is_given or not key:
        raise usage_error("bad_tag", f"--tag {text} is not KEY=VALUE")
    return key, value


def _warnings(planning: Planning, *, in_process: bool = False) -> list[str]:
    broken = [one for one in planning.guards if not one.holds and not (in_process and one.name == "daemon")]
    found = [*planning.warnings, *(f"{one.name}: {one.message}" for one in broken)]
    if not checks_live(planning.plan):
        found.append("its runs don't check whether live rows changed after the plan")
    return found
