"""A DuckDB connection that leaves no result half read: DuckDB 2 refuses other work while one is."""

from __future__ import annotations

from typing import Any

import duckdb


class Rows:
    """All rows of a result."""

    def __init__(self, rows: list[tuple[Any, ...]]) -> None:
        self._rows = rows

    def fetchall(self) -> list[tuple[Any, ...]]:
        return self._rows

    def fetchone(self) -> tuple[Any, ...] | None:
        return self._rows[0] if self._rows else None


class Duck:
    """One connection of the emulator's DuckDB."""

    def __init__(self, connection: duckdb.DuckDBPyConnection) -> None:
        self._connection = connection
        self.sql = connection.sql
        self.register = connection.register
        self.unregister = connection.unregister
        self.interrupt = connection.interrupt
        self.close = connection.close

    def execute(self, sql: str, values: list[Any] | None = None) -> Rows:
        done = self._connection.execute(sql, values) if values else self._connection.execute(sql)
        return Rows(done.fetchall() if done.description else [])
