"""What earlier runs have staged and audited, and a run needs not compute again."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

import dagster as dg

from dagster_safe_backfill.model.states import StagedPartition
from dagster_safe_backfill.model.text import listed
from dagster_safe_backfill.runs.backfills import is_again, is_over
from dagster_safe_backfill.runs.partitions import order_of

if TYPE_CHECKING:
    from dagster_safe_backfill.wap.ledger.checkpoints import Checkpoints

_PAGE = 1000


def kept_checkpoints(
    context: dg.AssetExecutionContext, found: Checkpoints, *, may_take: Callable[[str], bool]
) -> Sequence[StagedPartition]:
    """Return what can be taken up of a run's partitions, and log what is, and what isn't and why.

    Just a retry, or a re-execution, of the run that had staged them takes them up: who launches anew wants them anew.

    Args:
        context: Of the run.
        found: What the warehouse has of the run's partitions.
        may_take: Whether what was staged in a scope may be taken up.
    """
    runs = {stage.run_id for stage in found.kept}
    again = {run_id for run_id in runs if is_again(context.run, context.instance, run_id)}
    scopes = {scope for scope in {stage.group for stage in found.kept} if may_take(scope)}
    outdated = list(found.outdated)
    outdated += (
        (stage, f"another launch, run {stage.run_id}, staged them") for stage in found.kept if stage.run_id not in again
    )
    kept = [stage for stage in found.kept if stage.run_id in again and stage.group in scopes]
    computed_at = {stage.key: stage.computed_at for stage in kept}
    stale = changed_since(context.assets_def, context.asset_key, computed_at, instance=context.instance)
    outdated += ((stage, stale[stage.key]) for stage in kept if stage.key in stale)
    for reason in dict.fromkeys(reason for _, reason in outdated):
        keys = [stage.key for stage, why in outdated if why == reason]
        context.log.warning(f"{listed(keys)} were staged and audited, and are computed anew: {reason}")
    kept = [stage for stage in kept if stage.key not in stale]
    if kept:
        runs = list(dict.fromkeys(stage.run_id for stage in kept))
        context.log.info(
            f"taking up {len(kept)} partitions that run {listed(runs)} has staged and audited"
            f" ({listed([stage.key for stage in kept])}); resume=False would compute them anew"
        )
        _tell_who_goes_on(context, runs)
    return kept


def _tell_who_goes_on(context: dg.AssetExecutionContext, runs: Sequence[str]) -> None:
    going_on = [run_id for run_id in runs if run_id != context.run_id and not is_over(context.instance, run_id)]
    if going_on:
        context.log.warning(
            f"run {listed(going_on)} goes on, for all that Dagster knows, and so keeps what it has staged; if its"
            " process is gone, terminate it in Dagster, and retention drops its shadows"
        )


def changed_since(
    assets: dg.AssetsDefinition,
    asset_key: dg.AssetKey,
    computed_at: Mapping[str, datetime],
    *,
    instance: dg.DagsterInstance,
) -> dict[str, str]:
    """Return the partitions whose upstream assets have been materialized since, each with the reason.

    A materialization of a partition with the same key counts for that partition; of any other upstream partition, where
    the two assets have the same partitions, for none. Where that can't be told, it counts for all. What isn't an asset
    can't be known.

    Args:
        assets: The definition of the asset.
        asset_key: The asset.
        computed_at: When the computation of each partition began, by its key.
        instance: What knows of the materializations.
    """
    stale: dict[str, str] = {}
    if not computed_at:
        return stale
    oldest = min(computed_at.values())
    definition: dg.PartitionsDefinition[Any] | None = assets.partitions_def
    known = set(order_of(definition, instance)) if definition else set[str]()
    for upstream in sorted(assets.asset_deps[asset_key]):
        if upstream == asset_key:
            continue
        reason = f"{upstream.to_user_string()} was materialized since"
        is_by_key = _is_by_key(assets.get_partition_mapping(upstream))
        for partition, at in _materialized(instance, upstream, oldest):
            # Another partition of the same definition is read by none of these.
            is_told = is_by_key and partition in known
            readers = [key for key in computed_at if key == partition] if is_told else [*computed_at]
            stale |= {key: reason for key in readers if computed_at[key].timestamp() < at}
    return stale


def _materialized(
    instance: dg.DagsterInstance, asset: dg.AssetKey, after: datetime
) -> Iterator[tuple[str | None, float]]:
    """Yield the partition and the time of each materialization after a moment."""
    records_filter = dg.AssetRecordsFilter(asset_key=asset, after_timestamp=after.timestamp())
    cursor: str | None = None
    while True:
        page = instance.fetch_materializations(records_filter, limit=_PAGE, cursor=cursor)
        yield from ((record.partition_key, record.timestamp) for record in page.records)
        if not page.has_more:
            return
        cursor = page.cursor


def _is_by_key(mapping: dg.PartitionMapping | None) -> bool:
    """Return whether a partition reads just the one with its own key."""
    if isinstance(mapping, dg.TimeWindowPartitionMapping):
        return mapping.start_offset == 0 == mapping.end_offset
    return mapping is None or isinstance(mapping, dg.IdentityPartitionMapping)
