"""The one place that reaches into Dagster's private modules."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import dagster as dg


def add_partition_metadata(
    context: dg.AssetExecutionContext, metadata: Mapping[str, Mapping[str, Any]]
) -> None:
    """Give each partition's materialization numbers of its own; `metadata` is by partition key."""
    for key, values in metadata.items():
        context.add_asset_metadata(values, partition_key=key)
