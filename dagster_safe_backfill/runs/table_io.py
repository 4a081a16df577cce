"""`TableIO`: what a run needs of its asset's I/O manager, which is a session and how the table is kept."""

from __future__ import annotations

from abc import ABC, abstractmethod
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING

import dagster as dg

from dagster_safe_backfill.errors import ConfigurationError
from dagster_safe_backfill.model.options import AssetOptions
from dagster_safe_backfill.model.tables import TableRef, TableSpec

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
