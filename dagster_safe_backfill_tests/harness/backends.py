"""The warehouses that behaviour is tried on, each with eyes and hands that the library doesn't know of."""

from __future__ import annotations

import tempfile
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa

from dagster_safe_backfill import RangeDuckDBIOManager, RangeIOManager
from dagster_safe_backfill.warehouses.base import Warehouse
from dagster_safe_backfill_tests.harness import outsider

_KINDS = {"date32[day]": "DATE", "int64": "BIGINT", "double": "DOUBLE", "string": "VARCHAR"}


class Backend(ABC):
    """A fresh warehouse with the schema `main`, which is named where no schema is."""

    io_manager: RangeIOManager
    most_examples = 1000
    """How many examples of a property it takes no long time to try."""

    @property
    def warehouse(self) -> Warehouse:
        return self.io_manager.warehouse()

    @abstractmethod
    def another(self) -> AbstractContextManager[Backend]:
        """Return another fresh one, which goes at the end of the block."""

    @abstractmethod
    def manager(self, **options: Any) -> RangeIOManager:
        """Return an I/O manager, with some options of its own."""

    @abstractmethod
    def own(self, *, duckdb: str, snowflake: str) -> str:
        """Return what is this one's SQL, of two that mean the same."""

    @abstractmethod
    def read(self, sql: str) -> list[tuple[Any, ...]]:
        """Run a query of DuckDB's on a connection that shares nothing with the library's."""

    @abstractmethod
    def change(self, *statements: str) -> None:
        """Run statements likewise."""

    @abstractmethod
    def create(self, name: str, rows: pa.Table) -> None:
        """Make a table of rows."""


class DuckDBBackend(Backend):
    """A fresh DuckDB file."""

    def __init__(self, folder: Path | str, *, name: str = "warehouse.duckdb", lock_timeout: float = 5) -> None:
        self.path = str(Path(folder, name))
        self._lock_timeout = lock_timeout
        self.io_manager = self.manager()

    def manager(self, **options: Any) -> RangeIOManager:
        return RangeDuckDBIOManager(
            database=self.path, **{"schema": "main", "lock_timeout": self._lock_timeout, **options}
        )

    @contextmanager
    def another(self) -> Iterator[Backend]:
        with tempfile.TemporaryDirectory() as folder:
            yield DuckDBBackend(folder)

    def own(self, *, duckdb: str, snowflake: str) -> str:
        return duckdb

    def read(self, sql: str) -> list[tuple[Any, ...]]:
        return outsider.read(self.path, sql)

    def change(self, *statements: outsider.Statement) -> None:
        outsider.change(self.path, *statements)

    def create(self, name: str, rows: pa.Table) -> None:
        self.change(*filled(name, rows))


def filled(name: str, rows: pa.Table) -> list[outsider.Statement]:
    """Return the statements that create a table, and put rows into it."""
    kinds = [_KINDS[str(field.type)] for field in rows.schema]
    columns = ", ".join(f"{column} {kind}" for column, kind in zip(rows.column_names, kinds, strict=True))
    values = ", ".join(f"unnest(?::{kind}[])" for kind in kinds)
    return [
        f"CREATE TABLE {name} ({columns})",
        (f"INSERT INTO {name} SELECT {values}", [column.to_pylist() for column in rows.columns]),
    ]
