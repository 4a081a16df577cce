"""fakesnow's server in this process, with what it answers wrongly put right, as far as the library's SQL needs it."""

from __future__ import annotations

import itertools
import re
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

import duckdb
import fakesnow
import fakesnow.arrow
import fakesnow.conn
import fakesnow.cursor
import fakesnow.info_schema
import fakesnow.transforms
import pyarrow as pa
import snowflake.connector.errors
import uvicorn
from fakesnow.server import app, shared_fs
from sqlglot import exp

from dagster_safe_backfill import RangeSnowflakeIOManager
from dagster_safe_backfill_tests.backends import Backend

_LOCK_TIMEOUT = 1
_MAIN = "MAIN_"
_NUMBERS = itertools.count(1)

ddl_in_transactions: list[str] = []
statements: list[str] = []

_locks: dict[str, object] = {}
_changed = threading.Condition()


def _error(number: int, state: str, message: str) -> Exception:
    return snowflake.connector.errors.ProgrammingError(msg=message, errno=number, sqlstate=state)


class _Cursor:
    """What stands around fakesnow's own methods."""

    execute_before = fakesnow.cursor.FakeSnowflakeCursor.execute
    transform_before = fakesnow.cursor.FakeSnowflakeCursor._transform
    run_before = fakesnow.cursor.FakeSnowflakeCursor._execute


def _execute(self: Any, command: str, *args: Any, **kwargs: Any) -> Any:
    conn = self._conn
    # DuckDB has a schema of this name in every database, in lower case, which fakesnow then doesn't find.
    command = command.replace('"MAIN"', f'"{_MAIN}"').replace("'MAIN'", f"'{_MAIN}'")
    if command.startswith("DESCRIBE "):
        return _Cursor.execute_before(self, command, *args, **kwargs)
    statements.append(command)
    found = re.match(r"CREATE TEMPORARY TABLE (\S+)", command)
    if found:
        conn.temporary = [*getattr(conn, "temporary", []), found.group(1)]
        command = command.replace("CREATE TEMPORARY TABLE", "CREATE TABLE", 1)
    word = command.split(maxsplit=1)[0].upper()
    if getattr(conn, "is_in_transaction", False) and word in ("CREATE", "DROP", "ALTER", "COMMENT", "TRUNCATE"):
        ddl_in_transactions.append(command)
        _Cursor.execute_before(self, "COMMIT")
        _release(conn)
    if word in ("UPDATE", "DELETE", "MERGE"):
        _lock(conn, command)
    try:
        result = _Cursor.execute_before(self, command, *args, **kwargs)
    finally:
        if not getattr(conn, "is_in_transaction", False):
            _release(conn)
    if word == "BEGIN":
        conn.is_in_transaction = True
    if word in ("COMMIT", "ROLLBACK"):
        _release(conn)
    return result


def _lock(conn: Any, command: str) -> None:
    found = re.match(r'(?:UPDATE|DELETE FROM|MERGE INTO)\s+("[^"]*"(?:\."[^"]*")?|\S+)', command)
    assert found, command
    name = f"{conn.database}.{found.group(1)}"
    deadline = time.monotonic() + _LOCK_TIMEOUT
    with _changed:
        while _locks.get(name, conn) is not conn:
            if not _changed.wait(max(0.0, deadline - time.monotonic())) and time.monotonic() >= deadline:
                raise _error(625, "57014", f"Statement has locked table '{name}' in a transaction of another session")
        _locks[name] = conn


def _release(conn: Any) -> None:
    conn.is_in_transaction = False
    with _changed:
        for name in [name for name, holder in _locks.items() if holder is conn]:
            del _locks[name]
        _changed.notify_all()


def _transform(self: Any, expression: Any, params: Any) -> Any:
    transformed = _Cursor.transform_before(self, expression, params)
    for node in list(transformed.find_all(exp.Func)):
        if node.sql("duckdb").upper().startswith("HASH("):
            wide = exp.cast(node.copy(), exp.DataType.Type.INT128)
            signed = exp.paren(exp.Sub(this=wide, expression=exp.Literal.number(2**63)))
            node.replace(exp.cast(signed, exp.DataType.Type.BIGINT))
    return transformed


def _run(self: Any, transformed: Any, params: Any = None) -> None:
    try:
        _Cursor.run_before(self, transformed, params)
    except duckdb.TransactionException as error:
        if "aborted" in str(error):
            raise _error(90232, "25000", str(error)) from error
        raise _error(625, "57014", f"Statement was aborted because of another's lock: {error}") from error
    except snowflake.connector.errors.Error:
        raise
    except duckdb.Error as error:
        raise _error(100038, "22018", str(error)) from error
    if isinstance(transformed, exp.Merge):
        count = (
            self._duck_conn.fetchall()[0][0] if self._arrow_table is None else self._arrow_table.column(0)[0].as_py()
        )
        self._duck_conn.execute(f'SELECT {count} AS "number of rows inserted", 0 AS "number of rows updated"')
        self._arrow_table = self._duck_conn.to_arrow_table()
        self._last_sql = f'SELECT {count} AS "number of rows inserted", 0 AS "number of rows updated"'
        self._last_params = None


def _timestamps(ts: Any) -> Any:
    if isinstance(ts, pa.ChunkedArray):
        ts = ts.combine_chunks()
    found = _timestamps_before(ts.fill_null(0) if ts.null_count else ts)
    return pa.StructArray.from_arrays(found.flatten(), fields=list(found.type), mask=ts.is_null())


_timestamps_before = fakesnow.arrow.timestamp_to_sf_struct


def _lengths(catalog: str, schema: str, table: str, text_lengths: list[tuple[str, int]]) -> str:
    quoted = [(name.replace("'", "''"), size) for name, size in text_lengths]
    return _lengths_before(catalog, schema, table.replace("'", "''"), quoted)


_lengths_before = fakesnow.info_schema.insert_text_lengths_sql
_close_before = fakesnow.conn.FakeSnowflakeConnection.close


@cache
def _patched() -> None:
    cursor: Any = fakesnow.cursor.FakeSnowflakeCursor
    cursor.execute, cursor._transform, cursor._execute = _execute, _transform, _run
    fakesnow.arrow.timestamp_to_sf_struct = _timestamps
    fakesnow.info_schema.insert_text_lengths_sql = _lengths
    fakesnow.transforms.numeric_agg_implicit_cast = lambda expression: expression
    fakesnow.transforms.merge = lambda expression: [expression]


@cache
def _server() -> dict[str, Any]:
    """Start the server, which ends with the process."""
    _patched()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    server = uvicorn.Server(uvicorn.Config(app, port=port, log_level="error"))
    threading.Thread(target=server.run, name="snowflake", daemon=True).start()
    while not server.started:
        time.sleep(0.01)
    return {
        "user": "fake",
        "password": "snow",
        "account": "fakesnow",
        "host": "127.0.0.1",
        "port": port,
        "protocol": "http",
        "session_parameters": {"CLIENT_OUT_OF_BAND_TELEMETRY_ENABLED": False},
    }


_CATALOG = re.compile(r"(duckdb_(tables|columns|indexes|views)\(\))|information_schema\.tables")
_NAMES = {"tables": ["table_name"], "columns": ["table_name", "column_name"], "indexes": ["index_name"]}


class SnowflakeBackend(Backend):
    """A fresh database of the emulator, looked at in the DuckDB that it keeps it in."""

    def __init__(self) -> None:
        self.database = f"T{next(_NUMBERS)}"
        login = dict(_server())
        names = ("user", "password", "account")
        further = {name: value for name, value in login.items() if name not in names}
        shared_fs.connect(self.database, _MAIN).close()
        self.io_manager = RangeSnowflakeIOManager(
            **{name: login[name] for name in names},
            database=self.database,
            schema="main",
            lock_timeout=_LOCK_TIMEOUT,
            additional_snowflake_connection_args=further,
        )

    @contextmanager
    def _outside(self) -> Iterator[duckdb.DuckDBPyConnection]:
        with shared_fs.duck_conn.cursor() as cursor:
            cursor.execute("SET python_enable_replacements = false")
            cursor.execute(f'USE "{self.database}"."{_MAIN}"')
            yield cursor

    def read(self, sql: str) -> list[tuple[Any, ...]]:
        """Run a query. Catalogs have the names of this database, in lower case where they are in upper."""
        with self._outside() as cursor:
            return cursor.execute(_CATALOG.sub(self._catalog, sql)).fetchall()

    def _catalog(self, found: re.Match[str]) -> str:
        kind = found.group(2) or "tables"
        names = ", ".join(
            f"CASE WHEN {name} = upper({name}) THEN lower({name}) ELSE {name} END AS {name}"
            for name in _NAMES.get(kind, [])
        )
        replaced = f"* REPLACE ({names})" if names else "*"
        where = f"database_name = '{self.database}' AND schema_name = '{_MAIN}'"
        return f"(SELECT {replaced} FROM duckdb_{kind}() WHERE {where})"

    def change(self, *statements: str) -> None:
        """Run statements: what defines something as Snowflake's SQL, as its names then are in upper case."""
        with self._outside() as cursor, shared_fs.connect(self.database, _MAIN) as connection:
            for statement in statements:
                if statement.split(maxsplit=1)[0] in ("CREATE", "ALTER", "DROP", "COMMENT"):
                    connection.cursor().execute(statement)
                else:
                    cursor.execute(statement)

    def create(self, name: str, rows: pa.Table) -> None:
        items = ", ".join(f'"{column}" AS "{column.upper()}"' for column in rows.column_names)
        with self._outside() as cursor:
            cursor.register("_rows", rows)
            cursor.execute(f'CREATE TABLE "{name.upper()}" AS SELECT {items} FROM _rows')
