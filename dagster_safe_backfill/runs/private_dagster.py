"""The one place that reaches into Dagster's private modules."""

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
    """Give each partition's materialization numbers of its own; `metadata` is by partition key.

    `context.add_asset_metadata` takes one partition a call, and lists and copies those of the whole run each
    time, which is quadratic. So all are put in its place at once.
    """
    step = context.get_step_execution_context()
    known = step._metadata_accumulator.per_output_metadata  # pyright: ignore[reportPrivateUsage]
    added: dict[AssetMetadataHandle, Mapping[str, Any]] = {}
    for key, values in metadata.items():
        handle = AssetMetadataHandle(asset_key=context.asset_key, partition_key=key)
        added[handle] = {**known.get(handle, {}), **values}
    step._metadata_accumulator = OutputMetadataAccumulator(  # pyright: ignore[reportPrivateUsage]
        per_output_metadata={**known, **added}
    )


def keep_options(function: Callable[..., object], options: AssetOptions) -> None:
    """Keep an asset's options on the function that computes it, where `options_of` finds them."""
    vars(function)[_OPTIONS] = options


def options_of(asset: dg.AssetsDefinition) -> AssetOptions | None:
    """Return the options that an asset's function keeps; None of an asset that isn't made by this library.

    Whatever changes an asset's key, metadata or resources makes another definition around the same function.
    """
    node = asset.node_def if asset.is_executable else None
    function = getattr(getattr(node, "compute_fn", None), "decorated_fn", None)
    return getattr(function, _OPTIONS, None)


@contextmanager
def quiet_about_previews() -> Generator[None, None, None]:
    """Keep Dagster from warning users of features in beta or preview that this library chose to use."""
    with warnings.catch_warnings():
        for category in (dg.BetaWarning, dg.PreviewWarning):
            warnings.simplefilter("ignore", category)
        yield
