"""The only module that uses Dagster's private modules and attributes."""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import datetime, timezone
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import dagster as dg
from dagster._core.definitions.data_version import DATA_VERSION_IS_USER_PROVIDED_TAG, DATA_VERSION_TAG
from dagster._core.definitions.partitions.context import partition_loading_context
from dagster._core.execution.context.metadata_logging import (
    AssetMetadataHandle,
    OutputMetadataAccumulator,
    OutputMetadataHandle,
)
from dagster._core.libraries import DagsterLibraryRegistry

from dagster_safe_backfill.errors import ConfigurationError

_FUNCTION = "__safe_backfill_function__"

# Dagster then says which version of this library a code location has; `safe-backfill doctor` compares it.
with suppress(PackageNotFoundError):
    DagsterLibraryRegistry.register("dagster-safe-backfill", version("dagster-safe-backfill"), is_dagster_package=False)


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


@contextmanager
def default_output(context: dg.AssetExecutionContext) -> Generator[None, None, None]:
    """Let `context.add_output_metadata` without an output's name mean the asset; the checks are outputs, too.

    The step's method is replaced while the block runs, because every kind of context calls it.
    """
    step = context.get_step_execution_context()
    add = step.add_output_metadata
    asset_output = _output_of(context)

    def add_output_metadata(
        metadata: Mapping[str, Any], output_name: str | None = None, mapping_key: str | None = None
    ) -> None:
        add(metadata=metadata, output_name=output_name or asset_output, mapping_key=mapping_key)

    vars(step)["add_output_metadata"] = add_output_metadata
    try:
        yield
    finally:
        del vars(step)["add_output_metadata"]


def take_metadata(context: dg.AssetExecutionContext, keys: Iterable[str]) -> dict[str, dict[str, Any]]:
    """Return the metadata that was added to the asset, by partition, and take it out of the context.

    What was added for a partition wins over what was added for the asset, and that over what was added to its output.
    """
    step = context.get_step_execution_context()
    known = dict(step._metadata_accumulator.per_output_metadata)  # pyright: ignore[reportPrivateUsage]
    of_output = known.pop(OutputMetadataHandle(output_name=_output_of(context), mapping_key=None), {})
    of_asset = known.pop(AssetMetadataHandle(asset_key=context.asset_key, partition_key=None), {})
    taken: dict[str, dict[str, Any]] = {}
    for key in keys:
        of_partition = known.pop(AssetMetadataHandle(asset_key=context.asset_key, partition_key=key), {})
        taken[key] = {**of_output, **of_asset, **of_partition}
    step._metadata_accumulator = OutputMetadataAccumulator(per_output_metadata=known)  # pyright: ignore[reportPrivateUsage]
    return taken


def _output_of(context: dg.AssetExecutionContext) -> str:
    return context.assets_def.get_output_name_for_asset_key(context.asset_key)


def version_tags(version: dg.DataVersion | None) -> dict[str, str]:
    """Return the tags by which Dagster knows the data version that a function returned."""
    return {} if version is None else {DATA_VERSION_TAG: version.value, DATA_VERSION_IS_USER_PROVIDED_TAG: "true"}


def without_version(tags: Mapping[str, str]) -> tuple[dict[str, str], dg.DataVersion | None]:
    """Return tags without those of the data version, and the data version."""
    others = {**tags}
    version = others.pop(DATA_VERSION_TAG, None)
    others.pop(DATA_VERSION_IS_USER_PROVIDED_TAG, None)
    return others, None if version is None else dg.DataVersion(version)


class WapAssetsDefinition(dg.AssetsDefinition):
    """The definition of an asset of this library. Called like a function, it says how to call the user's function."""

    @staticmethod
    def dagster_internal_init(**attributes: Any) -> dg.AssetsDefinition:  # pyright: ignore[reportIncompatibleMethodOverride]: its signature is private
        """Return a changed copy, as `with_attributes` makes it."""
        return as_wap_asset(dg.AssetsDefinition.dagster_internal_init(**attributes))

    def __call__(self, *_args: object, **_kwargs: object) -> object:
        """Refuse to be called.

        Raises:
            ConfigurationError: Always.
        """
        raise ConfigurationError(
            f"{self.key.to_user_string()} can't be called: its run writes to a warehouse. To test the function that"
            " computes its rows, call sb.compute_function(asset) with the function's own arguments, among them a"
            " sb.PartitionSlice."
        )


def as_wap_asset(asset: dg.AssetsDefinition) -> dg.AssetsDefinition:
    """Return the same definition as a `WapAssetsDefinition`."""
    asset.__class__ = WapAssetsDefinition
    return asset


def keep_function(function: Callable[..., object], of_user: Callable[..., object]) -> None:
    """Store the user's function on the function that computes its asset, where `function_of` finds it."""
    keep_value(function, _FUNCTION, of_user)


def function_of(asset: dg.AssetsDefinition) -> Callable[..., object] | None:
    """Return the user's function that is stored on an asset's function; None if this library didn't make the asset."""
    return kept_value(asset, _FUNCTION)


def keep_value(function: Callable[..., object], name: str, value: object) -> None:
    """Store a value on the function that computes an asset, where `kept_value` finds it."""
    # with_attributes and similar methods make new definitions around the same function, so the value stays with them.
    vars(function)[name] = value


def kept_value(asset: dg.AssetsDefinition, name: str) -> Any:
    """Return the value that is stored under a name on an asset's function; None if there is none."""
    # AssetsDefinition.node_def raises for an asset without a computation, such as an AssetSpec.
    node = asset.node_def if asset.is_executable else None
    return getattr(getattr(getattr(node, "compute_fn", None), "decorated_fn", None), name, None)


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


def loaded_into(asset: dg.AssetsDefinition, upstream: dg.AssetKey) -> dict[str, dg.InputDefinition]:
    """Return a mapping from each parameter that Dagster loads an upstream asset into, before the step, to its input.

    It is empty for an asset that is only in `deps=`.
    """
    names = sorted(name for name, key in asset.keys_by_input_name.items() if key == upstream)
    inputs = {name: asset.node_def.input_dict[name] for name in names}
    return {name: one for name, one in inputs.items() if not one.dagster_type.is_nothing}


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


def described_inputs(asset: dg.AssetsDefinition) -> dict[str, str]:
    """Return a mapping from each upstream asset to a text that describes how it is read.

    That is the partition mapping, if one was given, and for each parameter that it is loaded into, the name, the
    annotation and the metadata, which decide what is loaded.
    """
    texts: dict[str, str] = {}
    for upstream in sorted(asset.asset_deps[asset.key]):
        parts: list[object] = [asset.get_partition_mapping(upstream)]
        for name, definition in loaded_into(asset, upstream).items():
            parts += [name, definition.dagster_type.typing_type, sorted(definition.metadata.items())]
        # The default repr names an address, which differs in each process.
        texts[upstream.to_user_string()] = re.sub(r" at 0x[0-9a-fA-F]+", "", repr(parts))
    return texts


def upstream_of(context: dg.AssetExecutionContext) -> list[dg.AssetKey]:
    """Return the upstream assets of a run's asset, itself included if it reads its own earlier partitions."""
    return sorted(context.assets_def.asset_deps[context.asset_key])


def own_input_of(context: dg.AssetExecutionContext) -> str | None:
    """Return the parameter that takes rows of the asset's own earlier partitions; None if there is none."""
    return next(iter(loaded_into(context.assets_def, context.asset_key)), None)


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
