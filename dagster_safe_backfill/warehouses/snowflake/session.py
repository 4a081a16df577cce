"""Sessions with Snowflake. No DDL runs in a transaction, because it would commit the transaction."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

from sqlglot import exp

from dagster_safe_backfill.errors import ConfigurationError, TransactionConflictError
from dagster_safe_backfill.model.tables import Column, Query, TableRef, names_of
from dagster_safe_backfill.sql import terms
from dagster_safe_backfill.warehouses.backoff import Backoff
from dagster_safe_backfill.warehouses.base import DerivedKind, Row, Session, Warehouse
from dagster_safe_backfill.warehouses.frames import check_names, from_arrow
from dagster_safe_backfill.warehouses.snowflake.catalog import name_of, sql_of
from dagster_safe_backfill.warehouses.snowflake.dialect import SnowflakeDialect
from dagster_safe_backfill.warehouses.snowflake.driver import Connection, Connections
from dagster_safe_backfill.warehouses.snowflake.frames import (
    LoadedFrame,
    Reading,
    as_relation,
    by_bytes,
    one_select,
    out_of_range,
)
from dagster_safe_backfill.warehouses.snowflake.locks import take
from dagster_safe_backfill.warehouses.snowflake.tables import SnowflakeTables
from dagster_safe_backfill.warehouses.snowflake.transaction import BeginAnewError, Statements

if TYPE_CHECKING:
    from snowflake.connector import SnowflakeConnection as Driver

_DIALECT = SnowflakeDialect()
_SOURCE = "_sb_source"
_SCRATCH_SCHEMA = "PUBLIC"
_Result = TypeVar("_Result")

_INSTANT = "YYYY-MM-DD HH24:MI:SS.FF3 TZHTZM"

PINNED: Mapping[str, str | int | bool] = {
    # Otherwise statements outside of transactions would wait for a COMMIT that nobody sends.
    "AUTOCOMMIT": True,
    "TIMEZONE": "UTC",
    # Otherwise a COMMIT after a failed statement would keep the statements before it.
    "TRANSACTION_ABORT_ON_ERROR": True,
    # 0 turns array binding through a stage off: the connector creates the stage by DDL, which in Snowflake commits the
    # open transaction.
    "CLIENT_STAGE_ARRAY_BINDING_THRESHOLD": 0,
    "ERROR_ON_NONDETERMINISTIC_MERGE": True,
    "ERROR_ON_NONDETERMINISTIC_UPDATE": True,
    # True would read every quoted name in upper case.
    "QUOTED_IDENTIFIERS_IGNORE_CASE": False,
    # A number other than 0 would cut off results without an error.
    "ROWS_PER_RESULTSET": 0,
    "PYTHON_CONNECTOR_QUERY_RESULT_FORMAT": "ARROW",
    "MULTI_STATEMENT_COUNT": 1,
    "ABORT_DETACHED_QUERY": False,
    # How texts are read, and values are written as texts. All are Snowflake's defaults.
    "BINARY_INPUT_FORMAT": "HEX",
    "BINARY_OUTPUT_FORMAT": "HEX",
    "DATE_INPUT_FORMAT": "AUTO",
    "DATE_OUTPUT_FORMAT": "YYYY-MM-DD",
    "TIME_INPUT_FORMAT": "AUTO",
    "TIME_OUTPUT_FORMAT": "HH24:MI:SS",
    "TIMESTAMP_INPUT_FORMAT": "AUTO",
    "TIMESTAMP_OUTPUT_FORMAT": _INSTANT,
    # By default they are empty, which means the same.
    "TIMESTAMP_LTZ_OUTPUT_FORMAT": _INSTANT,
    "TIMESTAMP_NTZ_OUTPUT_FORMAT": "YYYY-MM-DD HH24:MI:SS.FF3",
    "TIMESTAMP_TZ_OUTPUT_FORMAT": _INSTANT,
    "TIMESTAMP_TYPE_MAPPING": "TIMESTAMP_NTZ",
    "CLIENT_TIMESTAMP_TYPE_MAPPING": "TIMESTAMP_NTZ",
    "TIMESTAMP_DAY_IS_ALWAYS_24H": False,
    "GEOGRAPHY_OUTPUT_FORMAT": "GeoJSON",
    "GEOMETRY_OUTPUT_FORMAT": "GeoJSON",
    "JSON_INDENT": 2,
    "STRICT_JSON_OUTPUT": False,
}
"""Session parameters on which rows depend. Every session sets them, whatever the user's or the account's are.

Source: https://docs.snowflake.com/en/sql-reference/parameters
"""

UNLESS_GIVEN: Mapping[str, str | int | bool] = {
    "WEEK_START": 0,
    "WEEK_OF_YEAR_POLICY": 0,
    "TWO_DIGIT_CENTURY_START": 1970,
}
"""Session parameters on which only users' SQL depends. They are Snowflake's defaults unless the resource sets them."""


def session_parameters(
    given: Mapping[str, Any], *, lock_timeout: float, statement_timeout: int | None, query_tag: str
) -> dict[str, Any]:
    """Return the parameters of a session: those on which rows depend, the library's own, and the user's others.

    Raises:
        ConfigurationError: The user's parameters contradict those on which rows depend.
    """
    theirs = {name.upper(): value for name, value in given.items()}
    for name, value in PINNED.items():
        if str(theirs.get(name, value)).upper() != str(value).upper():
            raise ConfigurationError(
                f"session_parameters sets {name} to {theirs[name]!r}. Rows depend on it, so this library sets it to"
                f" {value!r}. Leave it out."
            )
    own: dict[str, Any] = {
        # 0 would turn waiting for locks off (Snowflake's documentation of LOCK_TIMEOUT).
        "LOCK_TIMEOUT": max(1, round(lock_timeout)),
        "QUERY_TAG": query_tag,
    }
    if statement_timeout is not None:
        own["STATEMENT_TIMEOUT_IN_SECONDS"] = statement_timeout
    return {**UNLESS_GIVEN, **theirs, **PINNED, **own}


class SnowflakeWarehouse(Warehouse):
    """One database of a Snowflake account.

    Args:
        connect: Opens a session with the parameters `PINNED`, bindings by question mark, and `lock_timeout` as its
            LOCK_TIMEOUT.
        schema: The schema of the sessions' temporary tables. Defaults to the session's current schema.
        lock_timeout: Seconds for which a transaction that lost against another one is repeated.
    """

    dialect = _DIALECT

    def __init__(self, connect: Callable[[], Driver], *, schema: str | None = None, lock_timeout: float = 60.0) -> None:
        self._connect = connect
        self._schema = schema
        self._lock_timeout = lock_timeout

    @contextmanager
    def connect(self, *, read_only: bool = False) -> Generator[SnowflakeSession, None, None]:
        """See `Warehouse.connect`."""
        connections = Connections(self._connect)
        try:
            own = connections.opened()
            yield SnowflakeSession(
                own,
                connections,
                schema=self._schema or own.schema or _SCRATCH_SCHEMA,
                # Snowflake has no read-only sessions, so the library itself refuses to write in one.
                read_only=read_only,
                conflict_timeout=self._lock_timeout,
            )
        finally:
            connections.close()


class SnowflakeSession(Session):
    """A session with one connection for transactions, and a second one for statements outside of them."""

    dialect = _DIALECT

    def __init__(
        self, own: Connection, connections: Connections, *, schema: str, read_only: bool, conflict_timeout: float
    ) -> None:
        self._own = own
        self._connections = connections
        self._schema = schema
        self._statements = Statements(own, connections, read_only=read_only)
        self.conflict_timeout = conflict_timeout
        self.tables = SnowflakeTables(self._statements, session=self)
        self._reader: SnowflakeSession | None = None
        self._scratch: set[str] = set()
        self._loaded: LoadedFrame | None = None

    def transaction(self) -> AbstractContextManager[None]:
        """See `Session.transaction`."""
        return self._statements.in_transaction()

    def attempt(self, work: Callable[[], _Result]) -> _Result:
        """See `Session.attempt`. After `BeginAnewError` the transaction starts again at once."""
        backoff = Backoff(self.conflict_timeout)
        while True:
            try:
                with self.transaction():
                    return work()
            # Nobody is in the way: what the transaction needed exists now, so there is nothing to wait for.
            except BeginAnewError:
                continue
            except TransactionConflictError:
                if not backoff.sleep():
                    raise

    def cancel(self) -> None:
        """See `Session.cancel`."""
        self._connections.cancel()

    def query(self, select: exp.Query) -> list[Row]:
        """See `Session.query`."""
        return self._statements.query(sql_of(select))

    def execute(self, statement: exp.Insert | exp.Update | exp.Delete | exp.Merge) -> int:
        """See `Session.execute`."""
        counts = self._statements.change(sql_of(statement))
        # A MERGE returns the numbers of inserted, updated and deleted rows. The second number of an UPDATE counts rows
        # with several matches, which aren't changes.
        return sum(counts) if isinstance(statement, exp.Merge) else counts[0]

    def append(self, table: TableRef, columns: Sequence[str], rows: Sequence[Row]) -> None:
        """See `Session.append`."""
        names = ", ".join(sql_of(terms.column(name)) for name in columns)
        places = ", ".join("?" for _ in columns)
        self._statements.insert(f"INSERT INTO {name_of(table)} ({names}) VALUES ({places})", rows)

    def describe(self, select: exp.Query) -> tuple[Column, ...]:
        """See `Session.describe`."""
        source = select.args.get("from_")
        frame = self._loaded if select.is_star and isinstance(source, exp.From) else None
        if frame is not None and source is not None and source.this.name == frame.table.name:
            # The temporary table has a type for each column, so it can't tell which of them hold only NULL.
            return frame.columns
        return self._own.described(sql_of(select))

    @contextmanager
    def load(self, data: object) -> Generator[exp.Table, None, None]:
        """See `Session.load`. A query isn't run here: statements that read it contain its text."""
        if isinstance(data, Query):
            select = one_select(data)
            columns = self._own.described(select)
            check_names(names_of(columns), of="the query")
            yield as_relation(by_bytes(select, columns), _SOURCE)
            return
        frame = LoadedFrame(data, schema=self._schema)
        # On the transaction's own connection, and so before BEGIN: only this session sees its temporary table.
        self._statements.ensure_schema(self._schema)
        with frame.loaded(self._statements.before, self._statements.remove) as table:
            self._loaded = frame
            try:
                yield table
            finally:
                self._loaded = None

    def fetch(self, select: exp.Query, load_type: type) -> object:
        """See `Session.fetch`."""
        self._statements.send_pending()
        reading = Reading(self._own.described(sql_of(select)))
        try:
            rows = self._own.arrow(sql_of(reading.select(select)))
        except OverflowError as error:
            raise out_of_range(reading.columns, error) from error
        table, kinds = reading.exact(rows)
        return from_arrow(table, load_type, kinds=kinds, types=reading.types)

    def scratch(self, name: str) -> TableRef:
        """See `Session.scratch`."""
        # A temporary table is in an ordinary schema and would hide a table of the same name there.
        # https://docs.snowflake.com/en/user-guide/tables-temp-transient
        table = TableRef(schema=self._schema, name=f"{name}_{uuid.uuid4().hex}")
        self._scratch.add(table.name)
        return table

    def is_scratch(self, table: TableRef) -> bool:
        """See `Session.is_scratch`."""
        return table.name in self._scratch

    def derive(self, name: str, select: exp.Query, *, kind: DerivedKind = "rows") -> TableRef:  # noqa: ARG002 - no object
        """See `Session.derive`. The rows aren't stored: a table would need DDL, which ends the transaction."""
        return terms.Derived(schema="", name=name, select=select)

    def forget(self, derived: TableRef) -> None:
        """See `Session.forget`."""

    @property
    def reader(self) -> Session:
        """See `Session.reader`."""
        transaction = self._statements.transaction
        return self._reader if transaction is not None and transaction.is_held and self._reader is not None else self

    def holding(self, table: TableRef, *, run_id: str) -> SnowflakeSession:
        """Hold a table, and return the session that reads it. See `Tables.hold`."""
        timeout, has_ended = self.conflict_timeout, self.run_has_ended
        take(self._statements, table, run_id=run_id, timeout=timeout, has_ended=has_ended)
        # A session that was opened before may miss what was committed by those who held the table before.
        return self.renewed_reader()

    def renewed_reader(self) -> SnowflakeSession:
        """Log in anew, and return a session that sees all that is committed by now."""
        self._reader = SnowflakeSession(
            self._statements.renew_beside(),
            self._connections,
            schema=self._schema,
            read_only=True,
            conflict_timeout=self.conflict_timeout,
        )
        return self._reader
