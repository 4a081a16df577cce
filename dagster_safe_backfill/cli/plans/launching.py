"""Launching what a plan says, after a last look at whether it is still true."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from dagster_safe_backfill.cli.answers.answer import refusal
from dagster_safe_backfill.cli.api.client import Dagster
from dagster_safe_backfill.cli.api.reading import ranges_to_launch
from dagster_safe_backfill.cli.api.values import SHADOW
from dagster_safe_backfill.cli.plans.making import Differences
from dagster_safe_backfill.cli.plans.plan import Guard, Plan
from dagster_safe_backfill.model.plans import CONFIRMED_TAG, Expected, tags_of

_MOST_EXPECTED = 20_000
"""The number of partitions up to which runs check the live rows: tags of 160 KB, which each run has."""
_MOST_IN_ALL = 1_000_000
"""The number of partitions times that of runs, up to which they do: tags of 8 MB in Dagster's storage."""


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
        raise refusal(
            f"guard_{broken[0].name}",
            "nothing was launched: " + "; ".join(one.message for one in broken),
            hint="; ".join(one.hint for one in broken if one.hint is not None) or None,
        )


def launch(dagster: Dagster, plan: Plan, *, tags: Mapping[str, str], confirmed: int | None) -> str:
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
    if confirmed is not None:
        own[CONFIRMED_TAG] = str(confirmed)
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
    if not any(asset.live for asset in plan.assets):
        return None
    codes = {asset.live_asset: asset.code for asset in plan.assets if asset.code is not None and asset.live}
    live = {asset.live_asset: asset.live for asset in plan.assets if asset.live and checks_live(plan)}
    return Expected.of(codes, live)


def checks_live(plan: Plan) -> bool:
    """Return True if the runs check that live rows are still those of the plan."""
    runs = sum(len(asset.runs) for asset in plan.assets)
    is_small = plan.partitions <= _MOST_EXPECTED and plan.partitions * runs <= _MOST_IN_ALL
    return is_small and any(asset.live for asset in plan.assets)


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
