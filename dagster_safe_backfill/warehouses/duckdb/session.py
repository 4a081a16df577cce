"""Sessions with a DuckDB file, which only one process at a time can write."""

from __future__ import annotations

import logging
import threading
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from sqlglot import exp

from dagster_safe_backfill.errors import ConfigurationError, WarehouseError
from dagster_safe_backfill.model.tables import Column, Query, TableRef
from dagster_safe_backfill.redaction import foreign_text, statement_text
from dagster_safe_backfill.sql import terms
from dagster_safe_backfill.warehouses.base import STATEMENTS, DerivedKind, Row, Session, Warehouse
from dagster_safe_backfill.warehouses.duckdb.definitions import collations_of
from dagster_safe_backfill.warehouses.duckdb.dialect import DuckDBDialect
from dagster_safe_backfill.warehouses.duckdb.errors import translated
from dagster_safe_backfill.warehouses.duckdb.files import DatabaseFile
from dagster_safe_backfill.warehouses.duckdb.names import TEMPORARY, Names, quoted
from dagster_safe_backfill.warehouses.duckdb.reading import reading, too_large
from dagster_safe_backfill.warehouses.duckdb.tables import DuckDBTables
from dagster_safe_backfill.warehouses.duckdb.types import INSTANT_NS, UNTYPED
from dagster_safe_backfill.warehouses.frames import (
    FrameError,
    as_arrow,
    check_names,
    finer_instant,
    from_arrow,
    library_of,
    untyped_columns,
)

if TYPE_CHECKING:
    import duckdb

_LOG = logging.getLogger(__name__)
_DIALECT = DuckDBDialect()
_SOURCE, _PROBE = "_sb_source", "_sb_probe"


class DuckDBWarehouse(Warehouse):
    """One DuckDB file.

    Args:
        database: The file's path. `:memory:` is refused, because its tables would be lost with each connection.
        lock_timeout: Seconds to wait for a file that another process holds. Also each session's `conflict_timeout`.
        config: DuckDB's settings, such as `memory_limit`.
    """

    dialect = _DIALECT

    def __init__(self, database: str, *, lock_timeout: float = 60.0, config: Mapping[str, Any] | None = None) -> None:
        if database.startswith(":memory:") or not database:
            raise ConfigurationError(
                "an in-memory DuckDB is lost when its connection closes, and each step opens its own connection."
                " Give the path of a file."
            )
        if "default_collation" in (config or {}):
            raise ConfigurationError(
                "config sets default_collation, by which partition keys that differ would be equal in all tables, also"
                " in the library's own. Give columns a collation instead, as in VARCHAR COLLATE NOCASE."
            )
        self._file = DatabaseFile(path=database, lock_timeout=lock_timeout, config=dict(config or {}))

    @contextmanager
    def connect(self, *, read_only: bool = False) -> Generator[DuckDBSession, None, None]:
        """See `Warehouse.connect`. A read-only session works while this process has the file open for writing."""
        driver = self._file.open(read_only=read_only)
        try:
            # DuckDB prints its progress bar to standard output, so it would be in the logs of runs and in piped output.
            driver.execute("SET enable_progress_bar = false")
            # Otherwise DuckDB reads a table name that it doesn't know from a Python variable of the calling code.
            driver.execute("SET python_enable_replacements = false")
            # DuckDB takes the database's name from that of the file.
            ((database,),) = driver.execute("SELECT current_database()").fetchall()
            timeout = self._file.lock_timeout
            yield DuckDBSession(driver, names=Names(database), read_only=read_only, conflict_timeout=timeout)
        finally:
            driver.close()


class DuckDBSession(Session):
    """A session with a DuckDB file."""

    dialect = _DIALECT

    def __init__(
        self, driver: duckdb.DuckDBPyConnection, *, names: Names, read_only: bool, conflict_timeout: float
    ) -> None:
        self._driver = driver
        self.conflict_timeout = conflict_timeout
        self._names = names
        self.tables = self._tables = DuckDBTables(self._execute, self._beside, self._names)
        self._untyped: frozenset[str] = frozenset()
        self._collations: Mapping[str, str] = {}
        self._begin = "BEGIN TRANSACTION READ ONLY" if read_only else "BEGIN TRANSACTION"
        self._second: DuckDBSession | None = None
        self._is_stoppable = False
        self._stopping = threading.Lock()

    @contextmanager
    def transaction(self) -> Generator[None, None, None]:
        """See `Session.transaction`."""
        # None of the three is cancelled: DuckDB leaves a transaction open if its ROLLBACK is interrupted, and before
        # 2.0 it reports a COMMIT as cancelled although it is done.
        self._execute(self._begin, is_stoppable=False)
        try:
            with self._tables.unchanging():
                yield
            self._execute("COMMIT", is_stoppable=False)
        except BaseException:
            # A COMMIT after a failed statement succeeds and loses everything, so ROLLBACK is sent instead. After a
            # failed COMMIT there is nothing to roll back, so an error of ROLLBACK is ignored.
            self._quietly("ROLLBACK")
            raise

    def cancel(self) -> None:
        """See `Session.cancel`."""
        second = self._second
        if second is not None:
            second.cancel()
        # A statement begins and ends under this lock. Otherwise the interrupt could hit the next statement, for example
        # a ROLLBACK, which would leave its transaction open, or a session that is being closed.
        with self._stopping:
            if self._is_stoppable:
                self._driver.interrupt()

    def query(self, select: exp.Query) -> list[Row]:
        """See `Session.query`."""
        return self._execute(self._names.sql(select))

    def execute(self, statement: exp.Insert | exp.Update | exp.Delete | exp.Merge) -> int:
        """See `Session.execute`."""
        ((count,),) = self._execute(self._names.sql(statement))
        return count

    def append(self, table: TableRef, columns: Sequence[str], rows: Sequence[Row]) -> None:
        """See `Session.append`."""
        names = ", ".join(map(quoted, columns))
        # One list per column in one statement: `executemany` takes 8 s for 10,000 rows.
        lists = ", ".join(["unnest(?)"] * len(columns))
        values = list(map(list, zip(*rows, strict=True)))
        self._execute(f"INSERT INTO {self._names.of(table)} ({names}) SELECT {lists}", values)

    def describe(self, select: exp.Query) -> tuple[Column, ...]:
        """See `Session.describe`."""
        rows = self._execute(f"DESCRIBE {self._names.sql(select)}")
        read = select.args.get("from_")
        is_source = bool(select.is_star) and isinstance(read, exp.From) and read.this.name == _SOURCE
        columns: list[Column] = []
        for name, type_name, *_ in rows:
            # DuckDB before 2.0 describes a column that holds only NULL as INTEGER.
            is_untyped = is_source and name in self._untyped
            collation = self._collations.get(name) if is_source else None
            columns.append(Column(name=name, type=UNTYPED if is_untyped else type_name, collation=collation))
        return tuple(columns)

    @contextmanager
    def load(self, data: object) -> Generator[exp.Table, None, None]:
        """See `Session.load`."""
        import duckdb

        if isinstance(data, Query):
            select = self._one_select(data)
            described = self._execute(f"DESCRIBE {select}")
            check_names([row[0] for row in described], of="the query")
            has_texts = any("VARCHAR" in row[1] for row in described)
            # Not stoppable: a view whose CREATE was interrupted after it took effect would not be dropped below.
            self._execute(f'CREATE TEMP VIEW "{_SOURCE}" AS {select}', is_stoppable=False)
            remove = f'DROP VIEW IF EXISTS "{_SOURCE}"'
        else:
            table = as_arrow(data)
            self._untyped = untyped_columns(table)
            self._check_instants(table)
            try:
                self._driver.register(_SOURCE, table)
            except duckdb.Error as error:
                columns = " ".join(str(table.schema.remove_metadata()).split())
                raise FrameError(f"DuckDB can't read the frame ({columns}): {foreign_text(error)}") from error
            remove, has_texts = None, False
        try:
            self._collations = self._collations_of_source() if has_texts else {}
            yield terms.table(TableRef(schema="", name=_SOURCE))
        finally:
            self._untyped, self._collations = frozenset(), {}
            if remove is None:
                self._driver.unregister(_SOURCE)
            else:
                self._quietly(remove)

    def fetch(self, select: exp.Query, load_type: type) -> object:
        """See `Session.fetch`."""
        sql = self._names.sql(select)
        found = reading(self.describe(select), library_of(load_type))
        if found.checks:
            (values,) = self._execute(found.check_sql(sql))
            for column, value in zip(found.checks, values, strict=True):
                if value is not None:
                    raise too_large(column, value)
        rows = self._execute(found.sql(sql), in_arrow=True)
        return from_arrow(rows, load_type, kinds=found.kinds, types=found.types)

    def scratch(self, name: str) -> TableRef:
        """See `Session.scratch`. `temp` is DuckDB's name for the session's own catalog."""
        return TableRef(schema=TEMPORARY, name=name)

    def derive(self, name: str, select: exp.Query, *, kind: DerivedKind = "rows") -> TableRef:
        """See `Session.derive`."""
        # `forget` recognises a view by its empty schema.
        derived = TableRef(schema=TEMPORARY if kind == "rows" else "", name=name)
        what = "TABLE" if kind == "rows" else "VIEW"
        self._execute(f"CREATE TEMPORARY {what} {self._names.of(derived)} AS {self._names.sql(select)}")
        return derived

    def forget(self, derived: TableRef) -> None:
        """See `Session.forget`."""
        what = "TABLE" if derived.schema else "VIEW"
        self._execute(f"DROP {what} IF EXISTS {self._names.of(derived)}")

    @contextmanager
    def _beside(self) -> Generator[Session, None, None]:
        """Open a second session, outside this session's transaction."""
        # A cursor is a connection of its own with the same open file: it sees what is committed now.
        cursor = self._driver.cursor()
        self._second = DuckDBSession(cursor, names=self._names, read_only=True, conflict_timeout=self.conflict_timeout)
        try:
            yield self._second
        finally:
            self._second = None
            cursor.close()

    def _one_select(self, query: Query) -> str:
        """Return the query's text without its last semicolon if DuckDB's parser finds exactly one SELECT in it."""
        import duckdb

        try:
            found = self._driver.extract_statements(query.sql)
        except duckdb.Error as error:
            raise translated(error, query.sql) from error
        kinds = [statement.type.name for statement in found]
        if kinds != ["SELECT"]:
            raise ConfigurationError(
                f"a Query is one SELECT, not {' and '.join(kinds) or 'nothing'}: {statement_text(query.sql)!r}."
            )
        return found[0].query.strip().removesuffix(";")

    def _check_instants(self, table: Any) -> None:
        """Refuse times that DuckDB before 2.0, without a type for them, would cut to microseconds without an error."""
        error = finer_instant(table)
        if error is None:
            return
        ((is_known,),) = self._execute(
            "SELECT count(*) > 0 FROM duckdb_types() WHERE lower(type_name) = lower($1)", (INSTANT_NS,)
        )
        if not is_known:
            raise error

    def _collations_of_source(self) -> dict[str, str]:
        """Return a mapping from column name to collation of the rows of the loaded query."""
        # DESCRIBE doesn't show them, but the definition of a table with these columns does. The table has no rows, and
        # stays until the session ends.
        probe = f'CREATE OR REPLACE TEMP TABLE "{_PROBE}" AS SELECT * FROM "{_SOURCE}" LIMIT 0'
        self._execute(probe, is_stoppable=False)
        found = self._execute("SELECT sql FROM duckdb_tables() WHERE temporary AND table_name = $1", (_PROBE,))
        return collations_of(found[0][0]) if found else {}

    def _execute(
        self, sql: str, parameters: Sequence[Any] = (), *, in_arrow: bool = False, is_stoppable: bool = True
    ) -> Any:
        """Run a statement and return its rows, as an Arrow table if `in_arrow`. `cancel` stops it if `is_stoppable`."""
        import duckdb

        STATEMENTS.debug(sql)
        with self._stopping:
            self._is_stoppable = is_stoppable
        try:
            if in_arrow:
                # DuckDB 2.0 copies the rows of `execute` once more, and warns about it.
                return self._driver.sql(sql).to_arrow_table()
            return self._driver.execute(sql, parameters or None).fetchall()
        except duckdb.Error as error:
            raise translated(error, sql) from error
        finally:
            with self._stopping:
                self._is_stoppable = False

    def _quietly(self, sql: str) -> None:
        """Run a clean-up statement, and log an error instead of raising it."""
        try:
            self._execute(sql, is_stoppable=False)
        except WarehouseError as error:
            _LOG.debug("%s: %s", statement_text(sql), error)
