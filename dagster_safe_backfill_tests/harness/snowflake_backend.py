"""The emulated Snowflake as a backend of the suites, looked at in the DuckDB that it keeps its tables in."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import duckdb
import pyarrow as pa
import snowflake.connector

from dagster_safe_backfill import RangeSnowflakeIOManager
from dagster_safe_backfill_tests.harness.backends import Backend
from dagster_safe_backfill_tests.harness.snowflake.emulator import Emulator

_LOCK_TIMEOUT = 1
_CATALOG = re.compile(r"duckdb_(tables|columns|indexes|views)\(\)|information_schema\.tables")
_NAMES = {"tables": ["table_name"], "columns": ["table_name", "column_name"], "indexes": ["index_name"]}
_SCHEMA = "MAIN"
_PHYSICAL = "MAIN_"
"""What the emulator calls it."""


class SnowflakeBackend(Backend):
    """A fresh database of the emulator."""

    def __init__(self, emulator: Emulator) -> None:
        self.emulator = emulator
        self.database = emulator.database()
        self.io_manager = self.manager()
        with self.session() as connection:
            connection.cursor().execute(f'CREATE SCHEMA IF NOT EXISTS "{_SCHEMA}"')

    def manager(self, **options: Any) -> RangeSnowflakeIOManager:
        """Return an I/O manager, with some options of its own."""
        further = options.pop("additional_snowflake_connection_args", self.emulator.additional_connection_arguments())
        login = {name: further.pop(name) for name in ("login_timeout", "network_timeout") if name in further}
        defaults: dict[str, Any] = {"user": "tester", "schema": "main", "lock_timeout": _LOCK_TIMEOUT, **login}
        return RangeSnowflakeIOManager(
            account="emulated",
            password="none",
            database=self.database,
            additional_snowflake_connection_args=further,
            **{**defaults, **options},
        )

    @contextmanager
    def session(self, **others: Any) -> Iterator[snowflake.connector.SnowflakeConnection]:
        """Yield a session of somebody else."""
        arguments = self.emulator.connect_arguments(self.database, _SCHEMA, **others)
        with snowflake.connector.connect(**arguments) as connection:
            yield connection

    @contextmanager
    def _outside(self) -> Iterator[duckdb.DuckDBPyConnection]:
        assert self.emulator.account is not None
        with self.emulator.account.duck.cursor() as cursor:
            cursor.execute("SET python_enable_replacements = false")
            cursor.execute("SET TimeZone = 'UTC'")
            cursor.execute(f'USE "{self.database}"."{_PHYSICAL}"')
            yield cursor

    most_examples = 15

    @classmethod
    @contextmanager
    def fresh(cls, emulator: Emulator) -> Iterator[SnowflakeBackend]:
        """Yield a fresh database of an emulator. No DDL is ever to come in a transaction there."""
        made = cls(emulator)
        yield made
        in_transactions = emulator.ddl_in_transactions(made.database)
        emulator.drop(made.database)
        assert in_transactions == [], "DDL commits the transaction that it is in"

    @contextmanager
    def another(self) -> Iterator[Backend]:
        made = SnowflakeBackend(self.emulator)
        try:
            yield made
        finally:
            self.emulator.drop(made.database)

    def own(self, *, duckdb: str, snowflake: str) -> str:
        return snowflake

    def read(self, sql: str) -> list[tuple[Any, ...]]:
        """Run a query. Catalogs have the names of this database, in lower case where they are in upper."""
        with self._outside() as cursor:
            return cursor.execute(_CATALOG.sub(self._catalog, sql)).fetchall()

    def _catalog(self, found: re.Match[str]) -> str:
        kind = found.group(1) or "tables"
        names = ", ".join(
            f"CASE WHEN {name} = upper({name}) THEN lower({name}) ELSE {name} END AS {name}"
            for name in _NAMES.get(kind, [])
        )
        if kind == "tables":
            # The emulator keeps more than the comment there.
            names += ", json_extract_string(comment, '$.comment') AS comment"
        replaced = f"* REPLACE ({names})" if names else "*"
        where = f"database_name = '{self.database}' AND schema_name = '{_PHYSICAL}'"
        return f"(SELECT {replaced} FROM duckdb_{kind}() WHERE {where})"

    def change(self, *statements: str) -> None:
        """Run statements: what defines something as Snowflake's SQL, as its names then are in upper case."""
        for statement in statements:
            if statement.split(maxsplit=1)[0] in ("CREATE", "ALTER", "DROP", "COMMENT"):
                with self.session() as connection:
                    connection.cursor().execute(statement)
            else:
                with self._outside() as cursor:
                    cursor.execute(statement)
                assert self.emulator.account is not None
                self.emulator.account.touch()

    def create(self, name: str, rows: pa.Table) -> None:
        items = ", ".join(f'"{column}" AS "{column.upper()}"' for column in rows.column_names)
        with self._outside() as cursor:
            cursor.register("_rows", rows)
            cursor.execute(f'CREATE TABLE "{name.upper()}" AS SELECT {items} FROM _rows')
        assert self.emulator.account is not None
        self.emulator.account.touch()
