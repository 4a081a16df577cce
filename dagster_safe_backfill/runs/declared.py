"""The parts of an asset's definition that its runs need: the live asset, the user's function, and the I/O manager."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import dagster as dg

from dagster_safe_backfill.audits.base import Audit
from dagster_safe_backfill.errors import ConfigurationError, NotStagedError
from dagster_safe_backfill.model.options import AssetOptions, Merge
from dagster_safe_backfill.model.provenance import digest_of_text
from dagster_safe_backfill.model.slices import PartitionSlice
from dagster_safe_backfill.model.tables import TableRef, TableSpec
from dagster_safe_backfill.model.text import listed
from dagster_safe_backfill.runs.function.user_function import ComputeFunction
from dagster_safe_backfill.runs.partitions import order_of, slice_of_keys
from dagster_safe_backfill.runs.private_dagster import described_inputs, keep_value, kept_value

# Definitions import this module, and must not load SQLGlot, which warehouses/ needs.
if TYPE_CHECKING:
    from dagster_safe_backfill.warehouses.base import Session, Warehouse

_OPTIONS = "__safe_backfill_options__"
_COMPUTED = "__safe_backfill_computed__"

ROLLBACK_OF = "safe_backfill/rollback_of"
"""The metadata key of a rollback job that names its asset, so that `safe-backfill rollback` finds it by any name."""
RETENTION_OF = "safe_backfill/retention_of"
"""The same of a retention job, with a list of its assets."""
SHADOW_DAYS = "safe_backfill/shadow_days"
"""The metadata key of a retention job that says how long it keeps shadows."""
KEPT_UNKNOWN_DAYS = "safe_backfill/unknown_run_days"
"""The same of what runs made that Dagster doesn't know."""


class TableIO(ABC):
    """An I/O manager that keeps its assets' tables in one warehouse."""

    @abstractmethod
    def warehouse(self) -> Warehouse:
        """Return the database that the tables are in."""

    @abstractmethod
    def connected(
        self,
        table: TableRef,
        *,
        run_id: str | None,
        publication_id: str | None = None,
        read_only: bool = False,
        sample_columns: Sequence[str] | None = None,
    ) -> AbstractContextManager[Session]:
        """Open a session for a run's work on a table; the database's query history and errors name both.

        If `sample_columns` are given, errors and logs of the block show no value of another column.
        """

    @abstractmethod
    def table_of(self, key: dg.AssetKey, *, schema: str | None) -> TableRef:
        """Return the table of an asset's first key in this warehouse; `schema` is that of the asset's options."""

    def spec_of(self, key: dg.AssetKey, options: AssetOptions) -> TableSpec:
        """Return the specification of an asset's table in this warehouse."""
        first = first_key(key, options.table.former_keys)
        return options.table_spec(self.table_of(first, schema=options.table.schema))


def first_key(key: dg.AssetKey, former_keys: Sequence[str]) -> dg.AssetKey:
    """Return the key that an asset had first, by which its table is named."""
    return dg.AssetKey.from_user_string(former_keys[0]) if former_keys else key


def table_io_of(io_manager: object, asset_key: dg.AssetKey) -> TableIO:
    """Return an asset's I/O manager, which must be one of this library's.

    Raises:
        ConfigurationError: The I/O manager isn't a `TableIO`.
    """
    if not isinstance(io_manager, TableIO):
        raise ConfigurationError(
            f"{asset_key.to_user_string()}: its I/O manager is a {type(io_manager).__name__}, which has no warehouse"
            " for the asset's table. Give the asset one of this library's, such as RangeDuckDBIOManager(database=…)."
        )
    return io_manager


@dataclass(frozen=True, slots=True, kw_only=True)
class LiveAsset:
    """The asset whose table a run works on; runs of `x__shadow` and `x__audit` work on the table of `x`."""

    key: dg.AssetKey
    options: AssetOptions
    partitions_def: dg.PartitionsDefinition[str]

    def slice_of(self, instance: dg.DagsterInstance, keys: Sequence[str]) -> PartitionSlice:
        """Return the slice of keys, which may be in any order.

        Raises:
            NotStagedError: The asset no longer has some of the keys.
        """
        definition: dg.PartitionsDefinition[Any] = self.partitions_def
        order = order_of(definition, instance)
        # A partition may be staged, and then be deleted from dynamic partitions or left out by a changed definition.
        unknown = [key for key in keys if key not in order]
        if unknown:
            raise NotStagedError(
                f"{self.key.to_user_string()}: the asset no longer has the partitions {listed(unknown)}",
                table="",
                keys=unknown,
            )
        # The ledger returns keys by time, and a slice needs them in the definition's order.
        found = slice_of_keys(definition, sorted(keys, key=order.__getitem__), instance=instance)
        return self.with_every(found, instance)

    def with_every(self, partition_slice: PartitionSlice, instance: dg.DagsterInstance) -> PartitionSlice:
        """Return a slice that knows all partitions of the asset, if rows may move between them."""
        publish = self.options.publish
        if not isinstance(publish, Merge) or publish.on_moved_key == "raise":
            return partition_slice
        definition: dg.PartitionsDefinition[Any] = self.partitions_def
        keys = [*order_of(definition, instance)]
        return replace(partition_slice, every=slice_of_keys(definition, keys, instance=instance))


def keep_options(function: Callable[..., object], options: AssetOptions) -> None:
    """Store an asset's options on the function that computes the asset, where `options_of` finds them."""
    keep_value(function, _OPTIONS, options)


def options_of(asset: dg.AssetsDefinition) -> AssetOptions | None:
    """Return the options that are stored on an asset's function; None if this library didn't make the asset."""
    return kept_value(asset, _OPTIONS)


@dataclass(frozen=True, slots=True, kw_only=True)
class ComputedAsset:
    """An asset whose runs compute rows: a `@wap_asset`, or an `x__shadow`.

    Attributes:
        live: The asset whose table gets the rows.
        compute: The user's function.
        audits: The audits of the rows.
        logs_by_partition: True if the asset's checks have a status for each partition, which a range run must log.
    """

    live: LiveAsset
    compute: ComputeFunction
    audits: Sequence[Audit]
    logs_by_partition: bool

    def provenance(self, spec: TableSpec, *, computed_by: dg.AssetsDefinition) -> dict[str, str | None]:
        """Return the parts of a provenance that the definition says: `asset`, `table`, `upstream` and `code`.

        The code is the `code_version` or, without one, a digest of the function and the values that it works with.

        Args:
            spec: How the table is kept.
            computed_by: The definition whose runs compute the asset: its own, or that of its `x__shadow`.
        """
        version = computed_by.code_versions_by_key.get(computed_by.key)
        # A renamed asset is the same asset: its first key names it.
        first = first_key(self.live.key, self.live.options.table.former_keys)
        inputs = described_inputs(computed_by)
        return {
            "asset": first.to_user_string(),
            "table": digest_of_text(spec.rules),
            "upstream": digest_of_text(json.dumps(inputs)),
            "code": self.compute.digest() if version is None else f"code_version {version}",
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class StagedAsset:
    """The asset `x` of the staged shape, and its `x__shadow`, which computes what the others audit and publish.

    Attributes:
        computed: What the runs of `x__shadow` compute.
        shadow: Returns the definition of `x__shadow`, which is made after the runs' functions.
    """

    computed: ComputedAsset
    shadow: Callable[[], dg.AssetsDefinition]

    @property
    def live(self) -> LiveAsset:
        """The asset whose table it is."""
        return self.computed.live


def keep_computed(function: Callable[..., object], computed: ComputedAsset) -> None:
    """Store what an asset's runs compute on the function that computes the asset, where `computed_of` finds it."""
    keep_value(function, _COMPUTED, computed)


def computed_of(asset: dg.AssetsDefinition) -> ComputedAsset | None:
    """Return what the runs of an asset compute; None if the asset computes no rows for this library."""
    return kept_value(asset, _COMPUTED)
