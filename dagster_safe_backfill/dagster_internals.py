"""The one place that reaches into Dagster's private modules."""

from __future__ import annotations

import warnings
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from typing import Any

import dagster as dg


def add_partition_metadata(
    context: dg.AssetExecutionContext, metadata: Mapping[str, Mapping[str, Any]]
) -> None:
    """Give each partition's materialization numbers of its own; `metadata` is by partition key."""
    for key, values in metadata.items():
        context.add_asset_metadata(values, partition_key=key)


@contextmanager
def quiet_about_previews() -> Generator[None, None, None]:
    """Keep Dagster from warning users of features in beta or preview that this library chose to use."""
    with warnings.catch_warnings():
        for category in (dg.BetaWarning, dg.PreviewWarning):
            warnings.simplefilter("ignore", category)
        yield
