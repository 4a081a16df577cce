"""What the definition of an asset gives its runs: the live asset, its user function, and its I/O manager."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import dagster as dg

from dagster_safe_backfill.audits.base import Audit
from dagster_safe_backfill.errors import ConfigurationError, NotStagedError
from dagster_safe_backfill.model.options import AssetOptions
from dagster_safe_backfill.model.slices import PartitionSlice
from dagster_safe_backfill.model.tables import TableRef, TableSpec
from dagster_safe_backfill.model.text import listed
from dagster_safe_backfill.runs.partitions import order_of, slice_of_keys
from dagster_safe_backfill.runs.user_function import ComputeFunction

if TYPE_CHECKING:
    from dagster_safe_backfill.warehouses.base import Session, Warehouse


class TableIO(ABC):
    """An I/O manager that keeps its assets' tables in one warehouse."""

    @abstractmethod
    def warehouse(self) -> Warehouse:
        """Return the database that the tables are in."""

    @abstractmethod
    def connected(
        self, table: TableRef, *, run_id: str | None, publication_id: str | None = None, read_only: bool = False
    ) -> AbstractContextManager[Session]:
        """Open a session for the work of a run on a table, which the database's history and errors tell of."""

    @abstractmethod
    def table_of(self, key: dg.AssetKey, *, schema: str | None) -> TableRef:
        """Return an asset's table here; `schema` is the one that its options name."""

    def spec_of(self, key: dg.AssetKey, options: AssetOptions) -> TableSpec:
        """Return how the table of an asset with these options is kept here."""
        return options.table_spec(self.table_of(key, schema=options.table.schema))


def table_io_of(io_manager: object, asset_key: dg.AssetKey) -> TableIO:
    """Return an asset's I/O manager, which has to be one of this library's.

    Raises:
        ConfigurationError: It isn't.
    """
    if not isinstance(io_manager, TableIO):
        raise ConfigurationError(
            f"{asset_key.to_user_string()}: its table is kept in a warehouse, and its I/O manager, a"
            f" {type(io_manager).__name__}, holds none; give it RangeDuckDBIOManager(database=…)"
        )
    return io_manager


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
