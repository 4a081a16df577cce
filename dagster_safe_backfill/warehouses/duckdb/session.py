"""DuckDB: one file, one writing process at a time."""

from __future__ import annotations

import logging
import random
import re
import threading
import time
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Literal

from sqlglot import exp

from dagster_safe_backfill.errors import (
    ConfigurationError,
    TableNotFoundError,
    WarehouseError,
    WarehouseLockedError,
)
from dagster_safe_backfill.model.slices import ColumnType
from dagster_safe_backfill.model.tables import Column, Query, TableRef
from dagster_safe_backfill.sql import publishing, staging, terms
from dagster_safe_backfill.warehouses.base import STATEMENTS, Connection, Fit, Row, Warehouse
from dagster_safe_backfill.warehouses.duckdb.errors import is_lock, is_own_lock, translated
from dagster_safe_backfill.warehouses.duckdb.tables import DuckDBTables
from dagster_safe_backfill.warehouses.frames import (
    FrameError,
    as_arrow,
    check_names,
    from_arrow,
    library_of,
    untyped_columns,
)

if TYPE_CHECKING:
    import duckdb

_LOG = logging.getLogger(__name__)

_SOURCE = "_sb_source"
_FIRST_PAUSE, _LONGEST_PAUSE = 0.02, 0.2

_NUMBERS = (
    *("TINYINT", "SMALLINT", "INTEGER", "BIGINT", "HUGEINT"),
    *("UTINYINT", "USMALLINT", "UINTEGER", "UBIGINT", "UHUGEINT"),
    *("FLOAT", "DOUBLE", "DECIMAL"),
)
_WALL_CLOCKS = ("TIMESTAMP_S", "TIMESTAMP_MS", "TIMESTAMP", "TIMESTAMP_NS")
_INSTANT = "TIMESTAMP WITH TIME ZONE"
_INSTANT_NS = "TIMESTAMPTZ_NS"
"""What Arrow's nanosecond instants are since DuckDB 2.0, which compares them with nothing and has few functions."""
_TEXTS = ("VARCHAR", "ENUM")
_FAMILIES = (_NUMBERS, ("DATE", *_WALL_CLOCKS), (_INSTANT, _INSTANT_NS), (*_TEXTS, "JSON", "UUID"))
_UNTYPED = '"NULL"'
"""The type of an Arrow column that holds nothing but NULL."""


class DuckDBWarehouse(Warehouse):
    """One DuckDB file.

    Args:
        database: The file's path; `:memory:` would lose its tables with each connection and is refused.
        lock_timeout: Seconds to wait for a file that another process holds.
        config: DuckDB's own settings, such as `memory_limit`.
    """

    dialect = "duckdb"

    def __init__(self, database: str, *, lock_timeout: float = 60.0, config: Mapping[str, Any] | None = None) -> None:
        if database.startswith(":memory:") or not database:
            raise ConfigurationError(
                "an in-memory DuckDB is gone when its connection closes, and each step opens its own; name a file"
            )
        self._database = database
        self._lock_timeout = lock_timeout
        self._config = dict(config or {})

    @contextmanager
    def connect(self, *, read_only: bool = False) -> Generator[DuckDBConnection, None, None]:
        """See `Warehouse.connect`. Where this process has the file open for writing, so is a reader's session."""
        driver = self._opened(read_only=read_only)
        try:
            # Its bar goes to standard output, where it would stand in the logs of runs and in piped output.
            driver.execute("SET enable_progress_bar = false")
            # A query's unknown tables must not become this library's own variables.
            driver.execute("SET python_enable_replacements = false")
            yield DuckDBConnection(driver, read_only=read_only, conflict_timeout=self._lock_timeout)
        finally:
            driver.close()

    def _opened(self, *, read_only: bool) -> duckdb.DuckDBPyConnection:
        import duckdb

        deadline = time.monotonic() + self._lock_timeout
        pause = _FIRST_PAUSE
        while True:
            try:
                return self._open_once(read_only=read_only)
            except duckdb.Error as error:
                if not is_lock(error):
                    raise translated(error, "opening the database") from error
                if time.monotonic() + pause >= deadline:
                    raise self._locked(error) from error
            time.sleep(pause * random.uniform(0.5, 1.0))
            pause = min(2 * pause, _LONGEST_PAUSE)

    def _open_once(self, *, read_only: bool) -> duckdb.DuckDBPyConnection:
        import duckdb

        try:
            return duckdb.connect(self._database, read_only=read_only, config=self._config)
        except duckdb.ConnectionException:
            # One process can open a file in one mode only. A reader joins the writer, and its transactions
            # stay read-only; a writer has to wait until this process has closed its readers.
            if not read_only:
                raise
            return duckdb.connect(self._database, read_only=False, config=self._config)
        except duckdb.IOException as error:
            if read_only and "does not exist" in str(error):
                raise TableNotFoundError(
                    f"there is no database at {self._database}; materialize what is read first"
                ) from error
            raise

    def _locked(self, error: Exception) -> WarehouseLockedError:
        found = re.search(r"\(PID (\d+)\)", str(error))
        pid = int(found.group(1)) if found else None
        holder = "this process, in another session" if is_own_lock(error) else "another process"
        return WarehouseLockedError(
            f"{self._database} is locked by {f'the process with PID {pid}' if pid else holder}, and was for all of"
            f" the {self._lock_timeout:g} s of lock_timeout; end or close what holds it, or raise lock_timeout",
            database=self._database,
            pid=pid,
        )


class DuckDBConnection(Connection):
    """A session with a DuckDB file."""

    dialect = "duckdb"

    def __init__(self, driver: duckdb.DuckDBPyConnection, *, read_only: bool, conflict_timeout: float) -> None:
        self._driver = driver
        self.conflict_timeout = conflict_timeout
        self._tables = DuckDBTables(self._execute)
        self._untyped: frozenset[str] = frozenset()
        self._begin = "BEGIN TRANSACTION READ ONLY" if read_only else "BEGIN TRANSACTION"
        self._second: DuckDBConnection | None = None
        self._is_stoppable = False
        self._stopping = threading.Lock()

    @contextmanager
    def transaction(self) -> Generator[None, None, None]:
        """See `Connection.transaction`."""
        self._unstoppably(self._begin)
        try:
            yield
            self._unstoppably("COMMIT")
        except BaseException:
            # COMMIT after a failed statement returns as if all were well, and a failed COMMIT leaves nothing
            # to roll back: so ROLLBACK is always tried and its own complaint is no news.
            self._quietly("ROLLBACK")
            raise

    def cancel(self) -> None:
        """See `Connection.cancel`."""
        second = self._second
        if second is not None:
            second.cancel()
        # Under the lock that a statement begins and ends with: an interrupt must neither meet the next one, which may
        # be a ROLLBACK and then leaves its transaction open, nor a session that is being closed.
        with self._stopping:
            if self._is_stoppable:
                self._driver.interrupt()

    def run(self, statement: exp.Expr) -> list[Row]:
        """See `Connection.run`."""
        return self._execute(statement.sql(dialect=self.dialect))

    def columns(self, table: TableRef) -> tuple[Column, ...] | None:
        """See `Connection.columns`."""
        return self._tables.columns(table)

    def tables(self, schema: str, prefix: str) -> tuple[TableRef, ...]:
        """See `Connection.tables`."""
        return self._tables.named(schema, prefix)

    def add_columns(self, table: TableRef, columns: Mapping[Column, exp.Expr | None]) -> None:
        """See `Connection.add_columns`."""
        self._tables.add_columns(table, columns)

    def reshape(
        self,
        table: TableRef,
        *,
        dropped: Sequence[str],
        retyped: Sequence[Column],
        added: Mapping[Column, exp.Expr | None],
    ) -> None:
        """See `Connection.reshape`."""
        self._tables.reshape(table, dropped=dropped, retyped=retyped)
        self._tables.add_columns(table, added)

    @contextmanager
    def cloned(self, table: TableRef, *, aside: TableRef, kept: exp.Expr | None = None) -> Generator[None, None, None]:
        """See `Connection.cloned`. DuckDB's DDL is part of the transaction."""
        columns = self.columns(table) or ()
        with self._tables.cloned(table, aside=aside):
            # After an INSERT of no rows and one of many in a transaction, DuckDB 2.0.0 finds none in the table.
            if kept is not None and self.run(publishing.any_row(aside, where=kept)):
                self.run(publishing.copied(aside, table, {c.name: terms.column(c.name) for c in columns}, where=kept))
            yield

    def put_back(self, table: TableRef, *, archive: TableRef, aside: TableRef) -> None:
        """See `Connection.put_back`."""
        self._tables.put_back(table, archive=archive, aside=aside)

    @contextmanager
    def hold(self, table: TableRef) -> Generator[Connection, None, None]:
        """See `Connection.hold`. A transaction of DuckDB sees what was committed when it began."""
        self._tables.hold(table)
        cursor = self._driver.cursor()
        self._second = DuckDBConnection(cursor, read_only=True, conflict_timeout=self.conflict_timeout)
        try:
            yield self._second
        finally:
            self._second = None
            cursor.close()

    @property
    def hash_algorithm(self) -> str:
        """See `Connection.hash_algorithm`. DuckDB doesn't promise that its hashes outlive a version."""
        import duckdb

        return f"duckdb-{duckdb.__version__}"

    def row_hash(self, values: Sequence[exp.Expr]) -> exp.Expr:
        """See `Connection.row_hash`."""
        return exp.func("hash", *values, dialect=self.dialect)

    def described(self, select: exp.Query) -> tuple[Column, ...]:
        """See `Connection.described`."""
        rows = self._execute(f"DESCRIBE {select.sql(dialect=self.dialect)}")
        # Before 2.0, DuckDB describes a column without a type as one of integers.
        is_source = bool(select.is_star) and _reads(select, _SOURCE)
        untyped: frozenset[str] = self._untyped if is_source else frozenset()
        return tuple(Column(name=row[0], type=_UNTYPED if row[0] in untyped else row[1]) for row in rows)

    @contextmanager
    def source(self, data: object) -> Generator[exp.Table, None, None]:
        """See `Connection.source`."""
        if isinstance(data, Query):
            select = self._one_select(data)
            check_names([row[0] for row in self._execute(f"DESCRIBE {select}")], of="the query")
            self._unstoppably(f'CREATE TEMP VIEW "{_SOURCE}" AS {select}')
            remove = f'DROP VIEW IF EXISTS "{_SOURCE}"'
        else:
            self._register(data)
            remove = None
        try:
            yield terms.relation(_SOURCE)
        finally:
            self._untyped = frozenset()
            if remove is None:
                self._driver.unregister(_SOURCE)
            else:
                self._quietly(remove)

    def _register(self, frame: object) -> None:
        import duckdb

        table = as_arrow(frame)
        self._untyped = untyped_columns(table)
        try:
            self._driver.register(_SOURCE, table)
        except duckdb.Error as error:
            columns = " ".join(str(table.schema.remove_metadata()).split())
            raise FrameError(f"DuckDB can't read the frame ({columns}): {error}") from error

    def ensure_schema(self, schema: str) -> None:
        """See `Connection.ensure_schema`."""
        self._execute(f"CREATE SCHEMA IF NOT EXISTS {exp.to_identifier(schema, quoted=True).sql(self.dialect)}")

    def scratch(self, name: str, *, kind: Literal["TABLE", "VIEW"] = "TABLE") -> TableRef:
        """See `Connection.scratch`. `temp` is DuckDB's name of the session's own catalog, for views only since 2.0."""
        return TableRef(schema="temp" if kind == "TABLE" else "", name=name)

    def derived(self, name: str, select: exp.Query, *, kind: Literal["TABLE", "VIEW"] = "TABLE") -> TableRef:
        """See `Connection.derived`."""
        found = self.scratch(name, kind=kind)
        self.run(staging.created_as(found, select, kind=kind, is_scratch=True))
        return found

    def forget(self, derived: TableRef, *, kind: Literal["TABLE", "VIEW"] = "TABLE") -> None:
        """See `Connection.forget`."""
        self.run(staging.dropped(derived, kind=kind))

    def keep(self, table: TableRef, archive: TableRef, rows: exp.Select) -> None:  # noqa: ARG002 - they name it
        """See `Connection.keep`."""
        self.run(staging.created_as(archive, rows))

    def append(self, table: TableRef, columns: Sequence[str], rows: Sequence[Row]) -> None:
        """See `Connection.append`. The values go in as a list a column, which is quick and needs no Arrow."""
        names = ", ".join(terms.column(name).sql(self.dialect) for name in columns)
        lists = ", ".join(f"unnest(${place})" for place in range(1, len(columns) + 1))
        values = [list(column) for column in zip(*rows, strict=True)]
        self._execute(f"INSERT INTO {terms.table(table).sql(self.dialect)} ({names}) SELECT {lists}", values)

    def fetch(self, select: exp.Query, load_type: type) -> object:
        """See `Connection.fetch`."""
        with self._translating(sql := select.sql(dialect=self.dialect)):
            STATEMENTS.debug(sql)
            result = self._driver.sql(sql)
            if library_of(load_type) == "pandas":
                return result.df()
            return from_arrow(result.to_arrow_table(), load_type)

    def fit(self, *, source: str, target: str) -> Fit:
        """See `Connection.fit`."""
        if source == target:
            return "same"
        if _UNTYPED in source:
            return "if_unchanged"
        bases = _base(source), _base(target)
        alike = any(all(base in family for base in bases) for family in _FAMILIES)
        return "if_unchanged" if alike else "never"

    def is_lost(self, value: exp.Expr, *, source: str, target: str) -> exp.Expr:
        """See `Connection.is_lost`."""
        return staging.lost_by_try_cast(value, source=source, target=target, dialect=self.dialect)

    def created_as(self, source: str) -> str | None:
        """See `Connection.created_as`. An ENUM would refuse the values that later frames bring."""
        if _UNTYPED in source:
            return None
        return {"ENUM": "VARCHAR", _INSTANT_NS: _INSTANT}.get(_base(source), source)

    def keeps(self, type_name: str) -> ColumnType | Literal["text", "other"]:
        """See `Connection.keeps`."""
        base = _base(type_name)
        if base == "DATE":
            return "date"
        if base in _WALL_CLOCKS:
            return "timestamp"
        if base == _INSTANT:
            return "timestamptz"
        return "text" if base in _TEXTS else "other"

    def _one_select(self, query: Query) -> str:
        """Return the query's text if DuckDB's own parser finds just one SELECT in it."""
        with self._translating(query.sql):
            found = self._driver.extract_statements(query.sql)
        kinds = [statement.type.name for statement in found]
        if kinds != ["SELECT"]:
            raise ConfigurationError(f"a Query is one SELECT, not {' and '.join(kinds) or 'nothing'}: {query.sql!r}")
        return found[0].query.strip().removesuffix(";")

    def _execute(
        self, sql: str, parameters: Mapping[str, Any] | Sequence[Any] | None = None, *, is_stoppable: bool = True
    ) -> list[Row]:
        STATEMENTS.debug(sql)
        with self._translating(sql, is_stoppable=is_stoppable):
            return self._driver.execute(sql, parameters).fetchall()

    def _unstoppably(self, sql: str) -> None:
        """Run what must not be cancelled. Before 2.0, DuckDB says of a COMMIT that it was, though it is done."""
        self._execute(sql, is_stoppable=False)

    @contextmanager
    def _translating(self, doing: str, *, is_stoppable: bool = True) -> Generator[None, None, None]:
        import duckdb

        with self._stopping:
            self._is_stoppable = is_stoppable
        try:
            yield
        except duckdb.Error as error:
            raise translated(error, doing) from error
        finally:
            with self._stopping:
                self._is_stoppable = False

    def _quietly(self, sql: str) -> None:
        try:
            self._unstoppably(sql)
        except WarehouseError as error:
            _LOG.debug("%s: %s", sql, error)


def _reads(select: exp.Query, name: str) -> bool:
    source = select.args.get("from_")
    return isinstance(source, exp.From) and source.this.name == name


def _base(type_name: str) -> str:
    """Return a type without its parameters: DECIMAL(10,2) is DECIMAL."""
    return type_name.partition("(")[0]
