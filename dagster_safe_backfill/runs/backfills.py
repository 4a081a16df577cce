"""Reading runs and backfills from Dagster: the group of a run, and the earlier runs whose work a run continues."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Literal

import dagster as dg
from typing_extensions import assert_never

from dagster_safe_backfill.model.events import KnownRuns
from dagster_safe_backfill.model.transient import INTERRUPTIONS

BACKFILL_TAG = "dagster/backfill"
_ROOT_BACKFILL_TAG = "dagster/root_backfill_id"
_ROOT_RUN_TAG = "dagster/root_run_id"


Ending = Literal["interrupted", "failed", "succeeded", "running"]
"""How the step of a run ended. An interrupted one was killed, timed out, lost its database, or ran out of hours."""

_RUNS_AT_ONCE = 500
"""How many runs Dagster's storage is asked for by one statement; SQLite takes 32,766 values."""

_ENDS = {dg.DagsterEventType.STEP_SUCCESS, dg.DagsterEventType.STEP_FAILURE}


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


def why_not_reused(
    run: dg.DagsterRun,
    instance: dg.DagsterInstance,
    earlier_run_id: str,
    *,
    step_key: str,
    is_rejected: bool,
    resume: bool | Literal["always"],
) -> str | None:
    """Return why a run computes again what an earlier run had staged; None if it continues with that.

    - A retry of the run's step continues.
    - A re-execution from failure continues: that is what it is asked for. If the run that it re-executes was itself to
      compute all again, it continues only with what that run computed.
    - If the earlier run was interrupted, any later run continues, also a new launch.
    - If it failed, or audits rejected some of its rows, somebody may have fixed the source of all its rows since.

    Args:
        run: The run.
        instance: The instance that knows the earlier run.
        earlier_run_id: The run that staged or computed the rows.
        step_key: The key of the asset's step in both runs.
        is_rejected: True if audits rejected rows of the table after these were computed, or in the same run.
        resume: See `Batches.resume`.
    """
    if earlier_run_id == run.run_id:
        return None
    earlier = instance.get_run_by_id(earlier_run_id)
    if earlier is None:
        return f"run {earlier_run_id}, which staged them, isn't known to this Dagster"
    is_family = is_same_family(run, earlier)
    reason: str | None = None
    ending = how_ended(instance, earlier, step_key)
    is_asked = resume == "always" or (is_family and _continues(run, earlier, instance))
    match ending:
        case "succeeded":
            reason = f"run {earlier_run_id}, which staged them, succeeded"
        case "running":
            # Its process may be gone: Dagster learns of a killed process only if run monitoring is on.
            if not is_family:
                reason = f"run {earlier_run_id}, which staged them, has not ended"
            elif is_rejected and not is_asked:
                reason = "audits rejected rows of the table after these were computed"
        case "interrupted" | "failed":
            if is_rejected and not is_asked:
                reason = "audits rejected rows of the table after these were computed"
            elif ending == "failed" and not is_asked:
                reason = f"run {earlier_run_id}, which staged them, failed"
        case _:
            assert_never(ending)
    return reason


def why_not_continued(
    run: dg.DagsterRun, instance: dg.DagsterInstance, earlier_run_id: str, *, step_key: str
) -> str | None:
    """Return why a run publishes again what an earlier run had published; None if that is part of the same work.

    It is for a retry of the run's step, and for a re-execution of a run or backfill that didn't succeed.
    """
    if earlier_run_id == run.run_id:
        return None
    earlier = instance.get_run_by_id(earlier_run_id)
    if earlier is None or not is_same_family(run, earlier):
        return f"another launch, run {earlier_run_id}, published them"
    is_success = how_ended(instance, earlier, step_key) == "succeeded"
    return f"run {earlier_run_id}, which published them, succeeded" if is_success else None


def how_ended(instance: dg.DagsterInstance, run: dg.DagsterRun, step_key: str) -> Ending:
    """Return how a step of a run ended."""
    entries = [record.event_log_entry for record in instance.get_records_for_run(run.run_id, of_type=_ENDS).records]
    events: list[Any] = [entry.dagster_event for entry in entries if entry.step_key == step_key]
    if any(event.is_step_success for event in events):
        return "succeeded"
    if events:
        return "interrupted" if _is_interruption(events[-1].step_failure_data.error) else "failed"
    if not run.is_finished:
        return "running"
    # Who cancels a run may do so because of what it computes.
    return "failed" if run.status is dg.DagsterRunStatus.CANCELED else "interrupted"


def is_same_family(run: dg.DagsterRun, earlier: dg.DagsterRun) -> bool:
    """Return True if both are executions of the same run, or belong to executions of the same backfill."""
    return not _family(run).isdisjoint(_family(earlier))


def _family(run: dg.DagsterRun) -> set[str]:
    backfill_id = run.tags.get(_ROOT_BACKFILL_TAG) or run.tags.get(BACKFILL_TAG)
    return {_root(run)} if backfill_id is None else {_root(run), backfill_id}


def _is_interruption(error: Any) -> bool:
    names = {cls.__name__ for base in INTERRUPTIONS for cls in (base, *base.__subclasses__())}
    while error is not None:
        if error.cls_name in names:
            return True
        error = error.cause
    return False


def _continues(run: dg.DagsterRun, earlier: dg.DagsterRun, instance: dg.DagsterInstance) -> bool:
    """Return True if a run re-executes only what failed, and so do those between it and an earlier run."""
    seen: set[str] = set()
    between: dg.DagsterRun | None = run
    while between is not None and between.run_id not in (earlier.run_id, *seen):
        if not _is_from_failure(between, instance):
            return False
        seen.add(between.run_id)
        parent_id = between.parent_run_id or between.tags.get("dagster/parent_run_id")
        # The runs of a backfill that is re-executed have no parent.
        if parent_id is None:
            return True
        between = instance.get_run_by_id(parent_id)
    # What a run was asked for that was deleted from Dagster isn't known.
    return between is not None


def _is_from_failure(run: dg.DagsterRun, instance: dg.DagsterInstance) -> bool:
    """Return True if a run re-executes only what failed: Dagster's "re-execute from failure", or an automatic retry.

    A backfill of assets that was re-executed doesn't say how. It was from failure if it left out what the first one
    had materialized. If that was nothing, the two ways can't be told apart, and it counts as a re-execution of all.
    """
    if "true" in {run.tags.get("dagster/is_resume_retry"), run.tags.get("dagster/is_asset_resume_retry")}:
        return True
    parent_id, own_id = run.tags.get("dagster/parent_backfill_id"), run.tags.get(BACKFILL_TAG)
    parent: Any = None if parent_id is None else instance.get_backfill(parent_id)
    own: Any = None if own_id is None else instance.get_backfill(own_id)
    if parent is None or own is None or parent.asset_backfill_data is None or own.asset_backfill_data is None:
        return False
    done, targets = parent.asset_backfill_data.materialized_subset, own.asset_backfill_data.target_subset
    return bool(done.num_partitions_and_non_partitioned_assets) and not (
        (targets & done).num_partitions_and_non_partitioned_assets
    )


def _root(run: dg.DagsterRun) -> str:
    """Return the id of the first run of which a run is a re-execution; its own id if it is none."""
    # A run that `dagster.execute_job` re-executes has no tag for its root run, only the attribute.
    return run.root_run_id or run.tags.get(_ROOT_RUN_TAG) or run.run_id


def known_runs(instance: dg.DagsterInstance, run_ids: Iterable[str]) -> KnownRuns:
    """Return which of some runs have ended, and which this Dagster doesn't know."""
    ids = sorted({*run_ids})
    known: dict[str, dg.DagsterRun] = {}
    for first in range(0, len(ids), _RUNS_AT_ONCE):
        some = instance.get_runs(dg.RunsFilter(run_ids=ids[first : first + _RUNS_AT_ONCE]))
        known |= {run.run_id: run for run in some}
    return KnownRuns(ended={one for one, run in known.items() if run.is_finished}, unknown={*ids} - known.keys())


def has_ended(instance: dg.DagsterInstance, run_id: str) -> bool:
    """Return True if Dagster knows that a run has ended. A run that it doesn't know may be another deployment's."""
    run = instance.get_run_by_id(run_id)
    return run is not None and run.is_finished
