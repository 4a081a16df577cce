"""Backfills as the daemon keeps them, moved by hand."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence

import dagster as dg
from dagster._core.definitions.assets.graph.asset_graph_subset import AssetGraphSubset
from dagster._core.execution.asset_backfill import AssetBackfillData
from dagster._core.execution.backfill import BulkActionStatus, PartitionBackfill

BACKFILL = "dagster/backfill"
Targets = Mapping[str, Sequence[str] | None]
"""Partition keys by asset; None for an unpartitioned one."""


class OpenBackfill:
    """A backfill of assets in an instance, requested and not yet ended."""

    def __init__(
        self,
        instance: dg.DagsterInstance,
        assets: Sequence[dg.AssetsDefinition | dg.AssetSpec],
        targets: Targets,
        *,
        backfill_id: str = "backfill",
    ) -> None:
        self._instance = instance
        self._graph = dg.Definitions(assets=assets).resolve_asset_graph()
        self.id = backfill_id
        instance.add_backfill(
            PartitionBackfill(
                backfill_id=backfill_id,
                status=BulkActionStatus.REQUESTED,
                from_failure=False,
                tags={},
                backfill_timestamp=time.time(),
                asset_selection=[dg.AssetKey(asset) for asset in targets],
                asset_backfill_data=AssetBackfillData.empty(self._subset(targets), time.time(), instance),
            )
        )

    def done(self, targets: Targets) -> None:
        """Let the daemon have seen that these are materialized."""
        backfill, data = self._read()
        materialized = data.materialized_subset | self._subset(targets)
        self._write(backfill, data._replace(materialized_subset=materialized))

    def failed(self, targets: Targets) -> None:
        """Let the daemon have seen that these have failed."""
        backfill, data = self._read()
        failed = data.failed_and_downstream_subset | self._subset(targets)
        self._write(backfill, data._replace(failed_and_downstream_subset=failed))

    def end(self, status: BulkActionStatus = BulkActionStatus.COMPLETED_SUCCESS) -> None:
        backfill, _ = self._read()
        self._instance.update_backfill(backfill.with_status(status))

    def _read(self) -> tuple[PartitionBackfill, AssetBackfillData]:
        backfill = self._instance.get_backfill(self.id)
        assert backfill is not None
        return backfill, backfill.get_asset_backfill_data(self._graph)

    def _write(self, backfill: PartitionBackfill, data: AssetBackfillData) -> None:
        self._instance.update_backfill(backfill.with_asset_backfill_data(data, self._instance, self._graph))

    def _subset(self, targets: Targets) -> AssetGraphSubset:
        partitioned = {}
        for asset, keys in targets.items():
            key = dg.AssetKey(asset)
            definition = self._graph.get(key).partitions_def
            if keys is not None and definition is not None:
                partitioned[key] = definition.subset_with_partition_keys(keys)
        unpartitioned = {dg.AssetKey(asset) for asset, keys in targets.items() if keys is None}
        return AssetGraphSubset(partitions_subsets_by_asset_key=partitioned, non_partitioned_asset_keys=unpartitioned)
