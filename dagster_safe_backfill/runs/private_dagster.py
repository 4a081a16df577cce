"""The only module that uses Dagster's private modules and attributes."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime, timezone
from typing import Any

import dagster as dg
from dagster._core.definitions.data_version import DATA_VERSION_TAG
from dagster._core.definitions.partitions.context import partition_loading_context
from dagster._core.execution.context.metadata_logging import (
    AssetMetadataHandle,
    OutputMetadataAccumulator,
)

from dagster_safe_backfill.model.options import AssetOptions

_OPTIONS = "__safe_backfill_options__"


def add_partition_metadata(context: dg.AssetExecutionContext, metadata: Mapping[str, Mapping[str, Any]]) -> None:
    """Add metadata to each partition's materialization; `metadata` maps partition keys to it."""
    # context.add_asset_metadata takes one partition, and each call lists and copies the metadata of all partitions of
    # the run, which takes quadratic time. So all metadata is added in one step.
    step = context.get_step_execution_context()
    known = step._metadata_accumulator.per_output_metadata  # pyright: ignore[reportPrivateUsage]
    added: dict[AssetMetadataHandle, Mapping[str, Any]] = {}
    for key, values in metadata.items():
        handle = AssetMetadataHandle(asset_key=context.asset_key, partition_key=key)
        # The user's function may have called context.add_asset_metadata for the same partition.
        added[handle] = {**known.get(handle, {}), **values}
    step._metadata_accumulator = OutputMetadataAccumulator(  # pyright: ignore[reportPrivateUsage]
        per_output_metadata={**known, **added}
    )


def keep_options(function: Callable[..., object], options: AssetOptions) -> None:
    """Store an asset's options on the function that computes the asset, where `options_of` finds them."""
    # with_attributes and similar methods make new definitions around the same function, so the options stay with them.
    vars(function)[_OPTIONS] = options


def options_of(asset: dg.AssetsDefinition) -> AssetOptions | None:
    """Return the options that are stored on an asset's function; None if this library didn't make the asset."""
    # AssetsDefinition.node_def raises for an asset without a computation, such as an AssetSpec.
    node = asset.node_def if asset.is_executable else None
    function = getattr(getattr(node, "compute_fn", None), "decorated_fn", None)
    return getattr(function, _OPTIONS, None)


@contextmanager
def quiet_about_previews() -> Generator[None, None, None]:
    """Suppress Dagster's warnings about beta and preview features that this library uses, and not the user."""
    with warnings.catch_warnings():
        for category in (dg.BetaWarning, dg.PreviewWarning):
            warnings.simplefilter("ignore", category)
        yield


def newest_by_partition(instance: dg.DagsterInstance, asset: dg.AssetKey) -> Mapping[str, int]:
    """Return a mapping from each materialized partition of an asset to its newest materialization's storage id."""
    return instance.get_latest_storage_id_by_partition(asset, dg.DagsterEventType.ASSET_MATERIALIZATION)


def data_versions_by_partition(instance: dg.DagsterInstance, asset: dg.AssetKey) -> Mapping[str, str]:
    """Return a mapping from each observed partition of an asset to the data version of its newest observation."""
    found = instance.event_log_storage.get_latest_tags_by_partition(
        asset, dg.DagsterEventType.ASSET_OBSERVATION, [DATA_VERSION_TAG]
    )
    return {key: tags[DATA_VERSION_TAG] for key, tags in found.items()}


def is_loaded(asset: dg.AssetsDefinition, upstream: dg.AssetKey) -> bool:
    """Return True if Dagster loads the upstream asset before the step runs; a `deps=` is not loaded."""
    inputs = asset.node_def.input_dict
    return any(
        key == upstream and not inputs[name].dagster_type.is_nothing for name, key in asset.keys_by_input_name.items()
    )


def step_started_at(context: dg.AssetExecutionContext) -> datetime:
    """Return the time at which the run's step began, before its inputs were loaded."""
    key = context.get_step_execution_context().step.key
    kinds = {dg.DagsterEventType.STEP_START, dg.DagsterEventType.STEP_RESTARTED}
    started: list[float] = []
    for record in context.instance.get_records_for_run(context.run_id, of_type=kinds).records:
        if record.event_log_entry.step_key == key:
            started.append(record.event_log_entry.timestamp)
    # Without an event, nothing that was ever materialized counts as loaded.
    return datetime.fromtimestamp(max(started, default=0.0), timezone.utc)


def upstream_partitions(
    context: dg.AssetExecutionContext, upstream: dg.AssetKey, keys: Iterable[str]
) -> dict[str, Sequence[str] | None]:
    """Return a mapping from partition key of the run's asset to the partitions of an upstream asset that it reads.

    None stands for the whole upstream asset: it has no partitions, or the run's job doesn't know them.
    """
    graph = context.job_def.asset_layer.asset_graph
    here = context.assets_def.partitions_def
    there = graph.get(upstream).partitions_def if graph.has(upstream) else None
    if there is None or here is None:
        return dict.fromkeys(keys)
    mapping = graph.get_partition_mapping(context.asset_key, upstream)
    is_shifted = isinstance(mapping, dg.TimeWindowPartitionMapping) and (mapping.start_offset or mapping.end_offset)
    is_by_key = isinstance(mapping, dg.IdentityPartitionMapping | dg.TimeWindowPartitionMapping) and not is_shifted
    if is_by_key and here == there:
        return {key: (key,) for key in keys}
    read: dict[str, Sequence[str] | None] = {}
    with partition_loading_context(dynamic_partitions_store=context.instance):
        for key in keys:
            found = mapping.get_upstream_mapped_partitions_result_for_partitions(
                here.subset_with_partition_keys([key]), here, there, dynamic_partitions_store=context.instance
            )
            read[key] = tuple(sorted(found.partitions_subset.get_partition_keys()))
    return read


def kind_of_partitions(context: dg.AssetExecutionContext, upstream: dg.AssetKey) -> str:
    """Return a text that changes if the keys of an upstream asset's partitions come to mean other partitions."""
    graph = context.job_def.asset_layer.asset_graph
    return _kind(graph.get(upstream).partitions_def) if graph.has(upstream) else ""


def _kind(definition: dg.PartitionsDefinition[Any] | None) -> str:
    if isinstance(definition, dg.TimeWindowPartitionsDefinition):
        return f"{definition.cron_schedule} {definition.timezone}"
    if isinstance(definition, dg.MultiPartitionsDefinition):
        return ", ".join(f"{part.name}: {_kind(part.partitions_def)}" for part in definition.partitions_defs)
    return "" if definition is None else type(definition).__name__


def partition_mappings(asset: dg.AssetsDefinition, key: dg.AssetKey) -> dict[str, str]:
    """Return a mapping from each upstream asset to a text that describes the partition mapping, if one was given."""
    texts: dict[str, str] = {}
    for upstream in sorted(asset.asset_deps[key]):
        mapping = asset.get_partition_mapping(upstream)
        text = "" if mapping is None else repr(mapping)
        # The default repr names an address, which differs in each process.
        texts[upstream.to_user_string()] = type(mapping).__qualname__ if " at 0x" in text else text
    return texts


def upstream_of(context: dg.AssetExecutionContext) -> list[dg.AssetKey]:
    """Return the upstream assets of a run's asset, itself included if it reads its own earlier partitions."""
    return sorted(context.assets_def.asset_deps[context.asset_key])


def own_input_of(context: dg.AssetExecutionContext) -> str | None:
    """Return the parameter that takes rows of the asset's own earlier partitions; None if there is none."""
    asset = context.assets_def
    for name, key in asset.keys_by_input_name.items():
        if key == context.asset_key and not asset.node_def.input_dict[name].dagster_type.is_nothing:
            return name
    return None


def resource_config(context: dg.AssetExecutionContext) -> Mapping[str, object]:
    """Return a mapping from the key of each resource that the step takes to its resolved configuration."""
    resolved = context.get_step_execution_context().resolved_run_config.resources
    return {key: config.config for key, config in resolved.items()}


def consuming_assets(context: dg.InputContext) -> set[dg.AssetKey]:
    """Return the assets that an input is loaded for; empty outside of runs."""
    try:
        step = context.step_context
    except dg.DagsterInvariantViolationError:
        return set()
    keys = step.job_def.asset_layer.get_selected_entity_keys_for_node(step.node_handle)
    return {key for key in keys if isinstance(key, dg.AssetKey)}
