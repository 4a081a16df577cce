"""What Dagster knows of runs and backfills: what is staged together, and which run goes on with another's work."""

from __future__ import annotations

from typing import Any

import dagster as dg

BACKFILL_TAG = "dagster/backfill"
_ROOT_BACKFILL_TAG = "dagster/root_backfill_id"
_ROOT_RUN_TAG = "dagster/root_run_id"


def group_of(context: dg.AssetExecutionContext) -> str:
    """Return what a run's rows are staged and published with: its backfill or, without one, the run.

    Of a re-execution it is the first one.

    A backfill of a job runs all steps for each partition, so there each run is on its own.
    """
    tags = context.run.tags
    if _targets(context) is not None:
        return tags.get(_ROOT_BACKFILL_TAG) or tags[BACKFILL_TAG]
    return _root(context.run)


def targeted_keys(context: dg.AssetExecutionContext) -> list[str]:
    """Return the partitions of the asset that the run's backfill is for; none, if it belongs to none."""
    targets = _targets(context)
    if targets is None or context.asset_key not in targets:
        return []
    return list(targets[context.asset_key].get_partition_keys())


def _targets(context: dg.AssetExecutionContext) -> Any:
    """Return the partitions of each asset that the run's backfill of assets is for; None if it belongs to none."""
    backfill_id = context.run.tags.get(BACKFILL_TAG)
    backfill = None if backfill_id is None else context.instance.get_backfill(backfill_id)
    if backfill is None or backfill.asset_backfill_data is None:
        return None
    return backfill.asset_backfill_data.target_subset.partitions_subsets_by_asset_key


def why_not_resumed(run: dg.DagsterRun, instance: dg.DagsterInstance, earlier_run_id: str) -> str | None:
    """Return why a run computes again what an earlier one had staged; None if it goes on with that.

    A retry of a run goes on with what it had begun, and so does a re-execution of one that didn't succeed, also in a
    backfill that was executed again, which has new runs. Of a run that Dagster has forgotten, that isn't known.
    """
    if earlier_run_id == run.run_id:
        return None
    earlier = instance.get_run_by_id(earlier_run_id)
    if earlier is None or _family(run).isdisjoint(_family(earlier)):
        return f"another launch, run {earlier_run_id}, staged them"
    return f"run {earlier_run_id}, which staged them, succeeded" if earlier.is_success else None


def _family(run: dg.DagsterRun) -> set[str]:
    """Return the first run, and the first backfill, that a run is an execution of."""
    backfill_id = run.tags.get(_ROOT_BACKFILL_TAG) or run.tags.get(BACKFILL_TAG)
    return {_root(run)} if backfill_id is None else {_root(run), backfill_id}


def _root(run: dg.DagsterRun) -> str:
    # Of a re-execution from Python, `dagster.execute_job`, no tag tells it.
    return run.root_run_id or run.tags.get(_ROOT_RUN_TAG) or run.run_id


def is_over(instance: dg.DagsterInstance, run_id: str) -> bool:
    """Return whether a run has ended."""
    run = instance.get_run_by_id(run_id)
    return run is None or run.is_finished
