"""Making slices from the partitions in Dagster's contexts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import dagster as dg

from dagster_safe_backfill.errors import EmptySliceError, ScopeMismatchError
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
    return _checked(name, definition, context.partition_keys, asked)


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
    return _checked(name, context.asset_partitions_def, keys, asked_keys(context.step_context.run_tags))


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


def slice_of_keys(definition: dg.PartitionsDefinition[Any], keys: Sequence[str]) -> PartitionSlice:
    """Return the slice of some of a definition's partition keys.

    Args:
        definition: A definition of time windows (hourly to monthly, cron, with exclusions), or a static, dynamic or
            multi-partitions definition.
        keys: The partition keys, in the definition's order.

    Raises:
        EmptySliceError: There are no keys.
    """
    if not isinstance(definition, dg.MultiPartitionsDefinition):
        dimensions = (_dimension(definition, keys, name=None),)
    else:
        parts = [_parts(definition, key) for key in keys]
        dimensions = tuple(
            _dimension(part.partitions_def, [key[part.name] for key in parts], name=part.name)
            for part in definition.partitions_defs
        )
    return PartitionSlice(keys=tuple(keys), dimensions=dimensions)


def order_of(definition: dg.PartitionsDefinition[Any], instance: dg.DagsterInstance) -> dict[str, int]:
    """Return a mapping from each partition key of a definition to its position."""
    # The keys of dynamic partitions are stored in the instance; other definitions ignore it.
    return {key: i for i, key in enumerate(definition.get_partition_keys(dynamic_partitions_store=instance))}


def _parts(definition: dg.MultiPartitionsDefinition, key: str) -> Mapping[str, str]:
    return definition.get_partition_key_from_str(key).keys_by_dimension


def _dimension(definition: dg.PartitionsDefinition[Any], keys: Sequence[str], *, name: str | None) -> Dimension:
    if not isinstance(definition, dg.TimeWindowPartitionsDefinition):
        return KeyDimension(values=tuple(keys), name=name)
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
    return slice_of_keys(definition, keys)
