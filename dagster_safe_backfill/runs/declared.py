"""What the definition of an asset tells its runs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import dagster as dg

from dagster_safe_backfill.audits.base import Audit
from dagster_safe_backfill.errors import NotStagedError
from dagster_safe_backfill.model.options import AssetOptions
from dagster_safe_backfill.model.slices import PartitionSlice
from dagster_safe_backfill.model.text import listed
from dagster_safe_backfill.runs.partitions import order_of, slice_of_keys
from dagster_safe_backfill.runs.user_function import ComputeFunction


@dataclass(frozen=True, slots=True, kw_only=True)
class LiveAsset:
    """The asset whose table runs work on: also those of its `__shadow` and its `__audit`."""

    key: dg.AssetKey
    options: AssetOptions
    partitions_def: dg.PartitionsDefinition[str]

    def slice_of(self, instance: dg.DagsterInstance, keys: Sequence[str]) -> PartitionSlice:
        """Return the slice of keys in any order.

        Raises:
            NotStagedError: The asset does not have some of them any more.
        """
        definition: dg.PartitionsDefinition[Any] = self.partitions_def
        order = order_of(definition, instance)
        unknown = [key for key in keys if key not in order]
        if unknown:
            raise NotStagedError(
                f"{self.key.to_user_string()} has no partitions {listed(unknown)} any more", table="", keys=unknown
            )
        return slice_of_keys(definition, sorted(keys, key=order.__getitem__))


@dataclass(frozen=True, slots=True, kw_only=True)
class ComputedAsset:
    """An asset whose runs compute rows: a `@wap_asset`, or an `x__shadow`.

    Attributes:
        live: The asset whose table they are for.
        compute: The user's function.
        audits: What is tested of them.
        logs_by_partition: Whether its checks have a status for each partition, of which a range run logs each.
    """

    live: LiveAsset
    compute: ComputeFunction
    audits: Sequence[Audit]
    logs_by_partition: bool
