"""Launching what a plan says, after a last look at whether it is still true."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from dagster_safe_backfill.cli.answers.answer import CommandError, refusal
from dagster_safe_backfill.cli.api.client import Dagster
from dagster_safe_backfill.cli.api.reading import ranges_to_launch
from dagster_safe_backfill.cli.api.values import BACKFILL_TAG, SHADOW, Backfill
from dagster_safe_backfill.cli.connection import Connection
from dagster_safe_backfill.cli.plans.confirming import Confirmed
from dagster_safe_backfill.cli.plans.making import Differences, Planning, checks_live, planning_of
from dagster_safe_backfill.cli.plans.overlap import Wanted, before, open_backfills, overlap_with
from dagster_safe_backfill.cli.plans.plan import Guard, Plan
from dagster_safe_backfill.model.plans import PLAN_TAG, Expected, tags_of


def check_still_true(plan: Plan, found: Differences) -> None:
    """Refuse a plan that is no longer as it was reviewed.

    Raises:
        CommandError: Code, definition or live rows changed since it was made.
    """
    if not found:
        return
    keys = [key for changed in found.values() for key in changed if key]
    changes = "; ".join(f"{asset}: {_in_words(changed)}" for asset, changed in found.items())
    raise refusal(
        "plan_no_longer_true",
        f"the plan {plan.id} is no longer true, so nothing was launched: {changes}",
        hint=f"make a new one: safe-backfill plan {' '.join(found)} …",
        partitions=keys,
    )


def check_guards(guards: Sequence[Guard], *, allows_overlap: bool) -> None:
    """Refuse a backfill that a guard refuses.

    Raises:
        CommandError: One does; the message has each of them.
    """
    broken = [one for one in guards if not one.holds and one.refuses and not (allows_overlap and one.name == "overlap")]
    if broken:
        raise _refused_by(broken)


def _refused_by(broken: Sequence[Guard]) -> CommandError:
    return refusal(
        f"guard_{broken[0].name}",
        "nothing was launched: " + "; ".join(one.message for one in broken),
        hint="; ".join(one.hint for one in broken if one.hint is not None) or None,
    )


def look_again(connection: Connection, planning: Planning, *, confirmed: Confirmed) -> Planning:
    """Return a plan with the guards as they are now; minutes may have passed since it was shown.

    Raises:
        CommandError: It is no longer true.
    """
    again, changed = planning_of(connection, planning.plan, confirmed=confirmed)
    check_still_true(planning.plan, changed)
    return replace(planning, guards=again.guards)


def launched_before(dagster: Dagster, plan: Plan) -> str | None:
    """Return a warning if a plan was carried out before; None if it wasn't.

    Raises:
        CommandError: A backfill of the plan hasn't ended.
    """
    for one in open_backfills(dagster):
        if one.tags.get(PLAN_TAG) == plan.id:
            raise _launched_already(plan, one.id)
    (run, *_) = dagster.runs(limit=1, tags={PLAN_TAG: plan.id}) or (None,)
    backfill_id = run and run.tags.get(BACKFILL_TAG)
    if not backfill_id:
        return None
    status = dagster.backfill(backfill_id, runs=0).status
    return f"the plan was carried out before, by backfill {backfill_id} ({status}), after which it is still true"


def _launched_already(plan: Plan, backfill_id: str) -> CommandError:
    return refusal(
        "already_launched",
        f"backfill {backfill_id} carries out the plan {plan.id} already, so it was not launched again",
        hint=f"safe-backfill watch {backfill_id}",
    )


def launch_alone(
    connection: Connection,
    plan: Plan,
    *,
    tags: Mapping[str, str],
    confirmed: Confirmed,
    allows_overlap: bool,
    in_process: bool,
) -> str:
    """Launch the backfill of a plan, and return its id, unless another call did the same at the same time.

    Raises:
        CommandError: Dagster refuses it, or can't be reached; or another backfill of the plan, or of the same
            partitions, was launched while the guards were looked at. Then this one is cancelled.
    """
    dagster = connection.dagster
    backfill_id = launch(dagster, plan, tags=tags, confirmed=confirmed)
    earlier = before(backfill_id, open_backfills(dagster))
    error = _why_not_beside(dagster, plan, earlier, allows_overlap=allows_overlap)
    if error is not None:
        take_back(connection, backfill_id, in_process=in_process)
        raise error
    return backfill_id


def _why_not_beside(
    dagster: Dagster, plan: Plan, earlier: Sequence[Backfill], *, allows_overlap: bool
) -> CommandError | None:
    """Return why a plan's backfill may not go on beside those that were stored before it; None if it may."""
    twin = next((one for one in earlier if one.tags.get(PLAN_TAG) == plan.id), None)
    if twin is not None:
        return _launched_already(plan, twin.id)
    if allows_overlap or not earlier:
        return None
    guard = overlap_with(dagster, earlier, _wanted(dagster, plan))
    return None if guard is None else _refused_by([guard])


def take_back(connection: Connection, backfill_id: str, *, in_process: bool) -> None:
    """Cancel a backfill that was just launched, and end its runs."""
    if in_process:
        with connection.daemon(backfill_id) as daemon:
            daemon.cancel()
        return
    dagster = connection.dagster
    dagster.cancel_backfill(backfill_id)
    dagster.terminate_runs([run.id for run in dagster.backfill(backfill_id).runs if run.is_open])


def _wanted(dagster: Dagster, plan: Plan) -> list[Wanted]:
    keys = {planned.key: frozenset(planned.keys) for planned in plan.assets}
    keys |= {f"{name}{SHADOW}": own for name, own in keys.items() if f"{name}{SHADOW}" in plan.launched}
    return [Wanted(asset=asset, keys=keys[asset.key]) for asset in dagster.assets([*keys])]


def launch(dagster: Dagster, plan: Plan, *, tags: Mapping[str, str], confirmed: Confirmed) -> str:
    """Launch the backfill of a plan, and return its id.

    Raises:
        CommandError: Dagster refuses it, or can't be reached.
    """
    ranges: dict[str, Sequence[tuple[str, str]]] = {}
    known = {asset.key: asset for asset in dagster.assets(plan.launched)}
    for planned in plan.assets:
        asset = known[planned.key]
        for name in (f"{planned.key}{SHADOW}", planned.key):
            if name in known and asset.kind is not None:
                ranges[name] = ranges_to_launch(asset, planned.keys)
    own = tags_of(
        plan=plan.id,
        expected=_expected(plan),
        owner=plan.owner,
        reason=plan.reason,
        newest_first=plan.newest_first,
    )
    own |= confirmed.tags([asset.key for asset in plan.assets])
    return dagster.launch_backfill(
        plan.launched,
        ranges,
        tags={**tags, **own},
        title=_title(plan),
        description=plan.reason,
        run_config=plan.run_config,
    )


def _title(plan: Plan) -> str:
    names = ", ".join(one.key for one in plan.assets)
    return f"{names}: {plan.partitions:,} partitions" if plan.partitions else names


def _expected(plan: Plan) -> Expected | None:
    """Return what the runs are to check: of code that the definitions told, and of live rows that could be read."""
    read = [asset for asset in plan.assets if asset.definition is not None and asset.keys]
    codes = {asset.live_asset: asset.code for asset in read if asset.code is not None}
    live = {asset.live_asset: asset.live for asset in read if asset.live and checks_live(plan)}
    return Expected.of(codes, live) if codes or live else None


def _in_words(changed: Mapping[str, str]) -> str:
    if "" in changed:
        return changed[""]
    keys = [*changed]
    more = f" and {len(keys) - 3:,} more" if len(keys) > 3 else ""
    return f"{', '.join(keys[:3])}{more}: {changed[keys[0]]}"


def pool_of(dagster: Dagster, plan: Plan) -> str:
    """Return the pool in which the steps of the plan's assets take slots.

    Raises:
        CommandError: The assets have no pool, or several.
    """
    pools = {pool for asset in dagster.assets(plan.launched) for pool in asset.pools}
    if len(pools) == 1:
        return pools.pop()
    named = f"they have {', '.join(sorted(pools))}" if pools else "they have none"
    raise refusal(
        "no_pool",
        f"--concurrency sets the limit of the pool of the assets, and {named}",
        hint='give the asset a pool (pool="…"), or limit runs by tag in dagster.yaml: concurrency.runs.'
        "tag_concurrency_limits on safe_backfill/plan",
    )
