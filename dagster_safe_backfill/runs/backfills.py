"""What is staged together: all of a backfill's runs, or a run's own; and what Dagster knows of it and its runs."""

from __future__ import annotations

from typing import Any

import dagster as dg

from dagster_safe_backfill.runs.private_dagster import backfills_since

BACKFILL_TAG = "dagster/backfill"
_ROOT_BACKFILL_TAG = "dagster/root_backfill_id"
_ROOT_RUN_TAG = "dagster/root_run_id"
_ABANDONED = ("CANCELED", "FAILED", "COMPLETED_FAILED")


def scope_of(context: dg.AssetExecutionContext) -> str:
    """Return the scope of a run: its backfill or, if there is none, the run; of a re-execution, the first one.

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


def is_abandoned(instance: dg.DagsterInstance, scope: str) -> bool:
    """Return whether what was staged in a scope waits for nobody.

    Then its backfill, or run, has ended and not succeeded, and no re-execution of it goes on, or succeeded.
    """
    backfill = instance.get_backfill(scope)
    if backfill is not None:
        # Found by time, as Dagster's filter by tags knows no backfill before its first run in an older database.
        since = backfills_since(instance, backfill.backfill_timestamp)
        tries = [backfill, *(one for one in since if one.tags.get(_ROOT_BACKFILL_TAG) == scope)]
        return all(one.status.value in _ABANDONED for one in tries)
    run = instance.get_run_by_id(scope)
    runs = [run] if run is not None else []
    runs += instance.get_runs(dg.RunsFilter(tags={_ROOT_RUN_TAG: scope}))
    return all(one.is_finished and not one.is_success for one in runs)


def is_again(run: dg.DagsterRun, instance: dg.DagsterInstance, earlier_run_id: str) -> bool:
    """Return whether a run goes on with what an earlier one had begun: a retry of it, or a re-execution.

    So does a run of a backfill that was executed again, which has new runs. Of a run that Dagster has forgotten, it
    isn't known.
    """
    if earlier_run_id == run.run_id:
        return True
    earlier = instance.get_run_by_id(earlier_run_id)
    return earlier is not None and not _family(run).isdisjoint(_family(earlier))


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
