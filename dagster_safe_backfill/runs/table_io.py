"""`TableIO`: what a run needs of its asset's I/O manager, which is a session and how the table is kept."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any

import dagster as dg

from dagster_safe_backfill.errors import ConfigurationError
from dagster_safe_backfill.model.tables import TableRef, TableSpec

if TYPE_CHECKING:
    from dagster_safe_backfill.warehouses.base import Connection, Warehouse


class TableIO(ABC):
    """An I/O manager that keeps its assets' tables in one warehouse."""

    @abstractmethod
    def warehouse(self) -> Warehouse:
        """Return the database that the tables are in."""

    @abstractmethod
    def connected(
        self, table: TableRef, *, run_id: str | None, publication_id: str | None = None, read_only: bool = False
    ) -> AbstractContextManager[Connection]:
        """Open a session for the work of a run on a table, which the database's history and errors tell of."""

    @abstractmethod
    def table_spec(self, key: dg.AssetKey, metadata: Mapping[str, Any]) -> TableSpec:
        """Return how the table of an asset with this metadata is kept here."""

    def asset_spec(self, asset: dg.AssetsDefinition, key: dg.AssetKey) -> TableSpec:
        """Return how an asset's table is kept here."""
        return self.table_spec(key, asset.metadata_by_key[key])


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
