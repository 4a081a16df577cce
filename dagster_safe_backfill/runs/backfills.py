"""Reading runs and backfills from Dagster: the group of a run, and the earlier runs whose work a run continues."""

from __future__ import annotations

from typing import Any

import dagster as dg

BACKFILL_TAG = "dagster/backfill"
_ROOT_BACKFILL_TAG = "dagster/root_backfill_id"
_ROOT_RUN_TAG = "dagster/root_run_id"


def group_of(context: dg.AssetExecutionContext) -> str:
    """Return the id of a run's group: its backfill of assets or, without one, the run.

    For a re-execution, the id is that of the first backfill or run. In a backfill of a job, each run is its own group.
    """
    tags = context.run.tags
    # A backfill of a job runs all steps for one partition at a time, so no other run of it waits to be published.
    if _targets(context) is not None:
        # A re-executed backfill has a new id. Its root id finds the partitions that the first backfill staged.
        return tags.get(_ROOT_BACKFILL_TAG) or tags[BACKFILL_TAG]
    return _root(context.run)


def targeted_keys(context: dg.AssetExecutionContext) -> list[str]:
    """Return the partitions of the asset that the run's backfill covers; empty without a backfill of assets."""
    targets = _targets(context)
    if targets is None or context.asset_key not in targets:
        return []
    return list(targets[context.asset_key].get_partition_keys())


def _targets(context: dg.AssetExecutionContext) -> Any:
    """Return the partitions of each asset that the run's backfill of assets covers; None without such a backfill."""
    backfill_id = context.run.tags.get(BACKFILL_TAG)
    backfill = None if backfill_id is None else context.instance.get_backfill(backfill_id)
    # Dagster records asset_backfill_data only for backfills of assets, not for `dagster job backfill`.
    if backfill is None or backfill.asset_backfill_data is None:
        return None
    return backfill.asset_backfill_data.target_subset.partitions_subsets_by_asset_key


def why_not_resumed(run: dg.DagsterRun, instance: dg.DagsterInstance, earlier_run_id: str) -> str | None:
    """Return the reason why a run computes partitions again that an earlier run has staged; None if it reuses them.

    A run reuses partitions that it has staged itself, before a retry. It also reuses those of a run that didn't
    succeed, if it re-executes that run or belongs to a re-execution of that run's backfill. A run that was deleted
    from Dagster counts as another launch.
    """
    # A retry of a step has the same run id. A retry of the run has a new one.
    if earlier_run_id == run.run_id:
        return None
    earlier = instance.get_run_by_id(earlier_run_id)
    if earlier is None or _family(run).isdisjoint(_family(earlier)):
        return f"another launch, run {earlier_run_id}, staged them"
    # A run that succeeded didn't crash: whoever re-executes it wants its partitions to be computed again.
    return f"run {earlier_run_id}, which staged them, succeeded" if earlier.is_success else None


def _family(run: dg.DagsterRun) -> set[str]:
    """Return the ids of the first run and the first backfill of which a run is a re-execution."""
    # A run of a re-executed backfill of assets has no root run, so the root backfill is compared as well.
    backfill_id = run.tags.get(_ROOT_BACKFILL_TAG) or run.tags.get(BACKFILL_TAG)
    return {_root(run)} if backfill_id is None else {_root(run), backfill_id}


def _root(run: dg.DagsterRun) -> str:
    # A run that `dagster.execute_job` re-executes has no tag for its root run, only the attribute.
    return run.root_run_id or run.tags.get(_ROOT_RUN_TAG) or run.run_id


def is_over(instance: dg.DagsterInstance, run_id: str) -> bool:
    """Return True if a run has ended or was deleted from Dagster."""
    run = instance.get_run_by_id(run_id)
    # Dagster reports no further status of a deleted run, so its shadows would be kept forever.
    return run is None or run.is_finished
