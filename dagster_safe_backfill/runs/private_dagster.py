"""The only module that uses Dagster's private modules and attributes."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from typing import Any

import dagster as dg
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
