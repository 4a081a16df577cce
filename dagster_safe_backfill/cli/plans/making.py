"""Making a plan, and finding out whether one is still true."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import mean
from typing import Any, TypeAlias

from dagster_safe_backfill.cli.answers.answer import refusal
from dagster_safe_backfill.cli.api.client import Dagster
from dagster_safe_backfill.cli.api.reading import ranges_of
from dagster_safe_backfill.cli.api.values import RANGE_END_TAG, RANGE_START_TAG, Asset, Materialization, Run
from dagster_safe_backfill.cli.connection import Connection
from dagster_safe_backfill.cli.plans.confirming import Confirmed
from dagster_safe_backfill.cli.plans.facts import Facts, facts_of
from dagster_safe_backfill.cli.plans.guards import guards_of
from dagster_safe_backfill.cli.plans.plan import Estimate, Guard, Plan, PlannedAsset, PlannedRun
from dagster_safe_backfill.cli.selection import Selection

_START_OF_A_RUN = 4.0
"""The seconds that a run takes at least, for its process to start and import (measured on Dagster 1.13.27)."""
_MOST_EXPECTED = 20_000
"""The number of partitions up to which runs check the live rows: tags of 160 KB, which each run has."""
_MOST_IN_ALL = 1_000_000
"""The number of partitions times that of runs, up to which they do: tags of 8 MB in Dagster's storage."""
_SAMPLE = 100
"""How many earlier partitions and runs an estimate is made from, at most."""


Differences: TypeAlias = Mapping[str, Mapping[str, str]]
"""For each asset a mapping from partition key to what changed; "" stands for the whole asset."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Planning:
    """A plan, what is in its way, and what it couldn't look at."""

    plan: Plan
    guards: Sequence[Guard]
    warnings: Sequence[str] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """What a call asks for besides partitions.

    Attributes:
        newest_first: True if batches are to begin with the newest partitions.
        owner: Who answers for the backfill.
        reason: Why it is done.
        run_config: The run configuration of its runs.
        confirmed: The numbers of partitions that a person confirmed.
    """

    newest_first: bool = False
    owner: str | None = None
    reason: str | None = None
    run_config: Mapping[str, Any] | None = None
    confirmed: Confirmed = field(default_factory=Confirmed)


def make_plan(connection: Connection, names: Sequence[str], selection: Selection, wish: Wish) -> Planning | None:
    """Return the plan of a backfill; None if no partition is as the selection wants them. It changes nothing.

    Raises:
        CommandError: An asset or partition is unknown, or Dagster or the warehouse can't be reached.
    """
    dagster = connection.dagster
    assets = dagster.assets([*dict.fromkeys(names)])
    found = [facts_of(connection, asset, selection) for asset in assets]
    found = [facts for facts in found if facts.keys or facts.asset.kind is None]
    if not found:
        return None
    launched = [*dict.fromkeys(name for facts in found for name in (*facts.asset.staging, facts.asset.key))]
    plan = Plan(
        created_at=round(time.time(), 3),
        dagster=dagster.place,
        assets=[_planned_asset(dagster, facts) for facts in found],
        launched=launched,
        outdated=_outdated(dagster, launched),
        newest_first=wish.newest_first,
        owner=wish.owner,
        reason=wish.reason,
        run_config=wish.run_config,
    )
    guards = guards_of(dagster, found, newest_first=wish.newest_first, confirmed=wish.confirmed)
    warnings = [*dict.fromkeys(text for facts in found for text in facts.warnings)]
    return Planning(plan=plan, guards=guards, warnings=warnings)


def _goes_live(facts: Facts) -> str:
    asset = facts.asset
    if asset.live_key != asset.key:
        return f"nothing goes live: {asset.live_key} is published by `approve`, or by its own launch"
    return facts.live.goes_live if facts.live else "rows go live as the asset's definition says"


def _planned_asset(dagster: Dagster, facts: Facts) -> PlannedAsset:
    asset, live = facts.asset, facts.live
    runs = planned_runs(facts.computed_by, facts.keys)
    return PlannedAsset(
        key=asset.key,
        live_asset=asset.live_key,
        table=live and live.table,
        reasons={key: [*reasons] for key, reasons in facts.reasons.items()},
        runs=runs,
        batch_size=live and live.batch_size,
        goes_live=_goes_live(facts),
        code=live.code if live else asset.code_version and f"code_version {asset.code_version}",
        definition=live and live.definition_of(facts.keys),
        live={key: live.fingerprints[key] for key in facts.keys} if live and live.held is None else {},
        live_unknown=live and live.held,
        newest={key: _mark_of(one) for key, one in facts.newest.items()},
        estimate=_estimate(dagster, facts, runs),
    )


def planned_runs(asset: Asset, keys: Sequence[str]) -> list[PlannedRun]:
    """Return the runs that Dagster makes of partitions: a range without gaps each, of at most the policy's number."""
    position = {key: number for number, key in enumerate(asset.keys)}
    runs: list[PlannedRun] = []
    for first, last in ranges_of(keys, asset.keys):
        every = asset.keys[position[first] : position[last] + 1]
        size = asset.partitions_per_run or len(every)
        for start in range(0, len(every), size):
            piece = every[start : start + size]
            runs.append(PlannedRun(first=piece[0], last=piece[-1], partition_count=len(piece)))
    return runs


def _estimate(dagster: Dagster, facts: Facts, runs: Sequence[PlannedRun]) -> Estimate:
    """Return what to expect, from the rows of the ledger and the newest runs of the asset that computes."""
    asset, keys = facts.computed_by, facts.keys
    rows_of: Mapping[str, int] = facts.live.rows if facts.live else {}
    known = [rows_of[key] for key in keys if key in rows_of]
    rows = round(sum(known) + mean(known) * (len(keys) - len(known))) if known else None
    earlier = [key for key in asset.keys if key in facts.statuses.materialized][-_SAMPLE:]
    newest = (facts.newest if asset == facts.asset else None) or dagster.newest(asset, earlier)
    run_ids = [*dict.fromkeys(one.run_id for one in newest.values())][:_SAMPLE]
    done = [run for run in dagster.runs_by_id(run_ids) if run.started_at is not None and run.ended_at is not None]
    partitions = sum(_partitions_of(run, asset) for run in done)
    if not partitions:
        return Estimate(row_count=rows, partition_count=len(known))
    per_partition = sum((run.ended_at or 0) - (run.started_at or 0) for run in done) / partitions
    seconds = sum(max(_START_OF_A_RUN, run.partition_count * per_partition) for run in runs)
    return Estimate(row_count=rows, seconds=round(seconds, 1), partition_count=len(newest))


def _partitions_of(run: Run, asset: Asset) -> int:
    first, last = run.tags.get(RANGE_START_TAG), run.tags.get(RANGE_END_TAG)
    if first in asset.keys and last in asset.keys:
        return asset.keys.index(last) - asset.keys.index(first) + 1
    return 1


def _outdated(dagster: Dagster, launched: Sequence[str]) -> list[str]:
    """Return the assets downstream of those that are launched, near ones first."""
    edges, seen = dagster.edges(), dict.fromkeys(launched)
    waiting = [*launched]
    while waiting:
        for name in edges.get(waiting.pop(0), ()):
            if name not in seen:
                seen[name] = None
                waiting.append(name)
    return [name for name in seen if name not in launched]


def planning_of(connection: Connection, plan: Plan, *, confirmed: Confirmed) -> tuple[Planning, Differences]:
    """Return a plan that was made before with the guards as they are now, and what is no longer as it found it.

    Raises:
        CommandError: An asset is unknown now, or Dagster or the warehouse can't be reached.
    """
    dagster, found, changed = connection.dagster, list[Facts](), dict[str, Mapping[str, str]]()
    for planned, asset in zip(plan.assets, dagster.assets([one.key for one in plan.assets]), strict=True):
        known = {*asset.keys}
        gone = {key: f"it is no longer a partition of {asset.key}" for key in planned.keys if key not in known}
        if gone:
            changed[asset.key] = gone
            continue
        facts = facts_of(connection, asset, Selection(keys=tuple(planned.keys)))
        found.append(facts)
        if differences := _differences(plan, planned, facts):
            changed[asset.key] = differences
    guards = guards_of(dagster, found, newest_first=plan.newest_first, confirmed=confirmed)
    warnings = [] if plan.dagster == dagster.place else [f"the plan was made with {plan.dagster}, not {dagster.place}"]
    warnings += [*dict.fromkeys(_uncompared(plan, facts) for facts in found if facts.live and facts.live.held)]
    return Planning(plan=plan, guards=guards, warnings=warnings), changed


def _uncompared(plan: Plan, facts: Facts) -> str:
    """Return what a held file means for a plan that is to be carried out."""
    held, name = facts.live and facts.live.held, facts.asset.key
    if not any(one.live for one in plan.assets if one.key == name):
        return f"{held} The plan has no fingerprints of live rows of {name} either, so nothing compares them"
    if checks_live(plan):
        return (
            f"{held} So whether live rows of {name} are still as the plan found them isn't compared now; its runs"
            " compare them before they compute, and refuse"
        )
    return (
        f"{held} So whether live rows of {name} are still as the plan found them isn't compared, only whether Dagster"
        " recorded a materialization since; the plan is too large for its runs to compare them"
    )


def checks_live(plan: Plan) -> bool:
    """Return True if the runs check that live rows are still those of the plan."""
    runs = sum(len(asset.runs) for asset in plan.assets)
    is_small = plan.partitions <= _MOST_EXPECTED and plan.partitions * runs <= _MOST_IN_ALL
    return is_small and any(asset.live for asset in plan.assets)


def _differences(plan: Plan, planned: PlannedAsset, facts: Facts) -> dict[str, str]:
    asset, now = facts.asset, facts.live
    if planned.live and now is None:
        raise refusal(
            "needs_code",
            f"the plan was made with the definitions, and only they tell whether {asset.key} is still as it was",
            hint="name them by -m, -f or -w, beside --url",
        )
    changed = _definition_changed(planned, facts)
    if planned.live and now is not None and now.held is None:
        moved = [key for key, fingerprint in planned.live.items() if now.fingerprints[key] != fingerprint]
        return changed | dict.fromkeys(moved, "its live rows changed")
    # The runs compare rows, of which another materialization may have the same.
    if planned.live and checks_live(plan):
        return changed
    newest = {key: _mark_of(one) for key, one in facts.newest.items()}
    # An asset without partitions has one entry, under "".
    moved = [key for key in planned.keys or [""] if newest.get(key) != planned.newest.get(key)]
    return changed | dict.fromkeys(moved, "it was materialized")


def _definition_changed(planned: PlannedAsset, facts: Facts) -> dict[str, str]:
    asset, now = facts.asset, facts.live
    if planned.definition is not None and now is not None:
        if now.code != planned.code:
            return {"": f"the code of {asset.key} changed"}
        if now.definition_of(planned.keys) != planned.definition:
            return {"": f"the partitions definition or the table's options of {asset.key} changed"}
    elif asset.code_version and planned.code not in {None, f"code_version {asset.code_version}"}:
        return {"": f"the code_version of {asset.key} changed"}
    return {}


def _mark_of(one: Materialization) -> str:
    return f"{one.run_id} at {one.at:.3f}"
