"""Making slices from the partitions in Dagster's contexts."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import dagster as dg

from dagster_safe_backfill.errors import EmptySliceError, PartitionsChangedError, ScopeMismatchError
from dagster_safe_backfill.model.slices import (
    Dimension,
    KeyDimension,
    PartitionSlice,
    TimeDimension,
    TimeWindow,
)
from dagster_safe_backfill.model.text import listed

PARTITION_TAG = "dagster/partition"
RANGE_START_TAG = "dagster/asset_partition_range_start"
RANGE_END_TAG = "dagster/asset_partition_range_end"

_ADVICE = (
    "A range whose ends are swapped, or a multi-partition selection that isn't a rectangle, resolves to no partitions:"
    " put the earlier key first, or launch one run for each rectangle."
)

_ADD_AGAIN = (
    "Add a deleted key again in Dagster's UI, or with instance.add_dynamic_partitions. It then comes last, so a range"
    " may no longer include it"
)


def slice_of_run(context: dg.AssetExecutionContext) -> PartitionSlice:
    """Return the partitions of a run, checked against its tags.

    Raises:
        EmptySliceError: The run has no partitions.
        ScopeMismatchError: Dagster resolved the tags to other partitions than they name.
    """
    name = context.asset_key.to_user_string()
    asked = asked_keys(context.run.tags)
    definition = context.assets_def.partitions_def
    if definition is None or not asked:
        raise EmptySliceError(f"{name}: the run has no partitions. Select partitions in the launch dialog.")
    # Not context.partition_time_window: for a range it covers the days that the definition excludes (Dagster 1.13.27).
    return _checked(name, definition, context.partition_keys, asked, instance=context.instance)


def slice_of_output(context: dg.OutputContext) -> PartitionSlice | None:
    """Return the partitions that an output is written for; None for an op or an unpartitioned asset.

    Raises:
        EmptySliceError: The run has no partitions.
        ScopeMismatchError: Dagster resolved the tags to other partitions than they name.
    """
    if not context.has_asset_partitions:
        return None
    keys = context.asset_partition_keys
    name = context.asset_key.to_user_string()
    step = context.step_context
    return _checked(name, context.asset_partitions_def, keys, asked_keys(step.run_tags), instance=step.instance)


def slice_of_input(context: dg.InputContext) -> PartitionSlice | None:
    """Return the upstream partitions that an input is read from; None for an unpartitioned upstream asset.

    Raises:
        EmptySliceError: The partition mapping found no partitions. Call `reads_nothing` first.
    """
    if not context.has_asset_partitions:
        return None
    return slice_of_keys(context.asset_partitions_def, context.asset_partition_keys)


def reads_nothing(context: dg.InputContext) -> bool:
    """Return True if an input's partition mapping found no upstream partitions, for example before the first one."""
    return context.has_asset_partitions and not context.asset_partition_keys


def asked_keys(tags: Mapping[str, str]) -> tuple[str, ...]:
    """Return the partition, or the first and last of the range, that a run's tags name; empty if they name none."""
    asked: list[str] = []
    # Dagster 1.13.27 tags a range run with both ends even if the range has one partition.
    for name in (PARTITION_TAG,) if PARTITION_TAG in tags else (RANGE_START_TAG, RANGE_END_TAG):
        if name in tags:
            asked.append(tags[name])
    return tuple(asked)


def slice_of_keys(
    definition: dg.PartitionsDefinition[Any], keys: Sequence[str], *, instance: dg.DagsterInstance | None = None
) -> PartitionSlice:
    """Return the slice of some of a definition's partition keys.

    Args:
        definition: A definition of time windows (hourly to monthly, cron, with exclusions), or a static, dynamic or
            multi-partitions definition.
        keys: The partition keys, in the definition's order.
        instance: Knows the keys of dynamic partitions. Without it, the slice knows no others than `keys`.

    Raises:
        EmptySliceError: There are no keys.
    """
    if not isinstance(definition, dg.MultiPartitionsDefinition):
        dimensions = (_dimension(definition, keys, name=None, instance=instance),)
    else:
        parts = [_parts(definition, key) for key in keys]
        dimensions = tuple(
            _dimension(part.partitions_def, [key[part.name] for key in parts], name=part.name, instance=instance)
            for part in definition.partitions_defs
        )
    return PartitionSlice(keys=tuple(keys), dimensions=dimensions)


def order_of(definition: dg.PartitionsDefinition[Any], instance: dg.DagsterInstance) -> dict[str, int]:
    """Return a mapping from each partition key of a definition to its position."""
    # The keys of dynamic partitions are stored in the instance; other definitions ignore it.
    return {key: i for i, key in enumerate(definition.get_partition_keys(dynamic_partitions_store=instance))}


def unrecordable(context: dg.AssetExecutionContext, keys: Sequence[str]) -> list[str]:
    """Return the partitions in which Dagster's record of a run would differ from the run's own partitions.

    Dagster 1.13.27 resolves the run's tags again for its events. Dynamic partitions may have been deleted since, or
    deleted and added again, which changes their order. Then Dagster raises, or it leaves partitions out, or records
    others that lie in the range now, or an event without a partition. Partitions of other definitions don't change
    while a process runs.

    Args:
        context: The context of the run.
        keys: The partitions that the run works on.
    """
    definition = context.assets_def.partitions_def
    if definition is None or not _may_change(definition):
        return []
    try:
        now = set(context.partition_keys)
    except dg.DagsterError:
        now = set[str]()
    return sorted(now.symmetric_difference(keys))


def check_recordable(context: dg.AssetExecutionContext, keys: Sequence[str], *, what: str) -> None:
    """Refuse to go on with partitions that Dagster can't record; `what` says in which state they stay.

    Raises:
        PartitionsChangedError: Some of a run's partitions were deleted or reordered since it began.
    """
    lost = unrecordable(context, keys)
    if lost:
        raise PartitionsChangedError(
            f"{_why_unrecordable(context, keys, lost)}, so {what}. {_ADD_AGAIN}. Then launch these partitions again.",
            keys=lost,
            published={},
        )


def check_recorded(
    context: dg.AssetExecutionContext,
    keys: Sequence[str],
    *,
    published: Mapping[str, str],
    events: Iterable[dg.AssetMaterialization],
) -> None:
    """Record live partitions one by one, and fail the run, if Dagster can't record them by itself.

    Args:
        context: The context of the run.
        keys: The partitions that the run works on.
        published: A mapping from partition key to the id of the publication that made the partition live.
        events: The materializations of the partitions that aren't recorded yet.

    Raises:
        PartitionsChangedError: Some of the partitions were deleted or reordered after they were published.
    """
    lost = unrecordable(context, keys)
    if not lost:
        return
    # Without a look at the definition, unlike for the run's own result: they are green once their keys are back.
    for event in events:
        context.log_event(event)
    live = {key: published[key] for key in keys if key in published}
    ids = listed([*dict.fromkeys(live.values())])
    raise PartitionsChangedError(
        f"{_why_unrecordable(context, keys, lost)}, but {listed([*live])} are live, published by {ids}. Each of them is"
        " recorded as materialized, and Dagster shows that once the deleted keys are added again. To undo it, add the"
        f" keys again and roll {ids} back. {_ADD_AGAIN}.",
        keys=lost,
        published={key: live[key] for key in lost if key in live},
    )


def _why_unrecordable(context: dg.AssetExecutionContext, keys: Sequence[str], lost: Sequence[str]) -> str:
    known = order_of(context.assets_def.partitions_def, context.instance) if context.assets_def.partitions_def else {}
    deleted = [key for key in keys if key not in known]
    name = context.asset_key.to_user_string()
    if deleted:
        return f"{name}: the dynamic partitions {listed(deleted)} were deleted while the run worked on them"
    return (
        f"{name}: dynamic partitions were deleted and added again while the run worked on them, so its range doesn't"
        f" stand for the same partitions any more (it differs in {listed(lost)})"
    )


def _may_change(definition: dg.PartitionsDefinition[Any]) -> bool:
    """Return True if partitions of a definition can disappear while a process runs."""
    if isinstance(definition, dg.MultiPartitionsDefinition):
        return any(_may_change(dimension.partitions_def) for dimension in definition.partitions_defs)
    return not isinstance(definition, dg.TimeWindowPartitionsDefinition | dg.StaticPartitionsDefinition)


def _parts(definition: dg.MultiPartitionsDefinition, key: str) -> Mapping[str, str]:
    return definition.get_partition_key_from_str(key).keys_by_dimension


def _dimension(
    definition: dg.PartitionsDefinition[Any],
    keys: Sequence[str],
    *,
    name: str | None,
    instance: dg.DagsterInstance | None,
) -> Dimension:
    if not isinstance(definition, dg.TimeWindowPartitionsDefinition):
        is_known = instance is not None or isinstance(definition, dg.StaticPartitionsDefinition)
        known = definition.get_partition_keys(dynamic_partitions_store=instance) if is_known else ()
        return KeyDimension(values=tuple(keys), name=name, known=tuple(known))
    windows: dict[str, TimeWindow] = {}
    for key in keys:
        # In multi-partitions, each key of this dimension occurs once for every key of the other one.
        if key not in windows:
            window = definition.time_window_for_partition_key(key)
            windows[key] = TimeWindow(start=window.start, end=window.end)
    return TimeDimension(windows=tuple(map(windows.__getitem__, keys)), timezone=definition.timezone, name=name)


def _checked(
    name: str,
    definition: dg.PartitionsDefinition[Any],
    keys: Sequence[str],
    asked: Sequence[str],
    *,
    instance: dg.DagsterInstance,
) -> PartitionSlice:
    shown = " to ".join(asked)
    # Dagster 1.13.27 lets a run without partitions succeed: it records one unpartitioned materialization.
    if not keys:
        raise EmptySliceError(f"{name}: the run asks for {shown}, which resolves to no partitions. {_ADVICE}")
    resolved = set(keys)
    if not resolved.issuperset(asked) or (len(asked) == 1 and len(resolved) > 1):
        raise ScopeMismatchError(
            f"{name}: the run asks for {shown}, which Dagster resolved to {listed(keys)}. {_ADVICE}",
            asked=asked,
            resolved=keys,
        )
    return slice_of_keys(definition, keys, instance=instance)
