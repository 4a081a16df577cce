"""A DuckDB connection that leaves no result half read: DuckDB 2 refuses other work while one is."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import duckdb
import pyarrow as pa

_AT_ONCE = 131_072
"""DuckDB's own number of rows in a batch of Arrow."""


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
        # What a relation of DuckDB 2 asks for its rows; to make the relation first takes as long again.
        self._submit = getattr(connection, "_submit", None)
        self.register = connection.register
        self.unregister = connection.unregister
        self._stopping = threading.Lock()
        self._is_sheltered = False
        self._timezone = ""

    @classmethod
    def hasty(cls, database: duckdb.DuckDBPyConnection) -> Duck:
        """Return a connection of its own, which finds few rows sooner than it would find out how to find them best."""
        made = cls(database.cursor())
        # Snowflake, too, doesn't compute what nobody asked for, so that a cast in it can't fail.
        names = [name for (name,) in made.execute("FROM duckdb_optimizers()").fetchall() if name != "unused_columns"]
        made.execute(f"SET disabled_optimizers = '{','.join(names)}'")
        return made

    def another(self) -> Duck:
        """Return the same for another to use, whose statements nobody can interrupt by this one."""
        with self._stopping:
            self._is_sheltered = True
        made = Duck(self._connection)
        made._timezone = self._timezone
        return made

    def set_timezone(self, name: str) -> None:
        """Let times be shown in a time zone."""
        if name != self._timezone:
            literal = name.replace("'", "''")
            self.execute(f"SET TimeZone = '{literal}'")
            self._timezone = name

    def interrupt(self) -> None:
        """Stop what runs now, from another thread, unless it is sheltered."""
        with self._stopping:
            if not self._is_sheltered:
                self._connection.interrupt()

    @contextmanager
    def sheltered(self, *, shelter: bool = True) -> Iterator[None]:
        """Let no interrupt meet what runs in the block, such as a ROLLBACK; without a shelter, let it again."""
        with self._stopping:
            before, self._is_sheltered = self._is_sheltered, shelter
        try:
            yield
        finally:
            with self._stopping:
                self._is_sheltered = before

    def execute(self, sql: str, values: list[Any] | None = None) -> Rows:
        done = self._connection.execute(sql, values) if values else self._connection.execute(sql)
        return Rows(done.fetchall() if done.description else [])

    def query(self, sql: str) -> tuple[list[tuple[str, str]], pa.Table]:
        """Return the columns of a query, each with its type, and the rows."""
        if self._submit is None:
            relation = self.sql(sql)
            return self.columns(sql), relation.to_arrow_table()
        result = self._submit(sql, None, "arrow", _AT_ONCE)
        return [(name, str(kind)) for name, kind, *_ in result.description], result.arrow_table()

    def columns(self, sql: str) -> list[tuple[str, str]]:
        """Return the columns of a query, each with its type."""
        relation = self.sql(sql)
        return [(name, str(kind)) for name, kind in zip(relation.columns, relation.types, strict=True)]
