"""Sessions with Snowflake. No DDL runs in a transaction, because it would commit the transaction."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Generator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import TYPE_CHECKING, TypeVar

from sqlglot import exp

from dagster_safe_backfill.errors import TransactionConflictError
from dagster_safe_backfill.model.tables import Column, Query, TableRef
from dagster_safe_backfill.sql import terms
from dagster_safe_backfill.warehouses.backoff import Backoff
from dagster_safe_backfill.warehouses.base import DerivedKind, Row, Session, Warehouse
from dagster_safe_backfill.warehouses.frames import check_names, from_arrow
from dagster_safe_backfill.warehouses.snowflake.catalog import name_of, schema_of, sql_of
from dagster_safe_backfill.warehouses.snowflake.dialect import SnowflakeDialect
from dagster_safe_backfill.warehouses.snowflake.driver import Connection, Connections
from dagster_safe_backfill.warehouses.snowflake.loading import LoadedFrame, as_relation, one_select
from dagster_safe_backfill.warehouses.snowflake.tables import SnowflakeTables
from dagster_safe_backfill.warehouses.snowflake.transaction import BeginAnewError, Statements

if TYPE_CHECKING:
    from snowflake.connector import SnowflakeConnection as Driver

_DIALECT = SnowflakeDialect()
_SOURCE = "_sb_source"
_SCRATCH_SCHEMA = "PUBLIC"
_Result = TypeVar("_Result")


class SnowflakeWarehouse(Warehouse):
    """One database of a Snowflake account.

    Args:
        connect: Opens a session with autocommit, the time zone UTC, bindings by question mark, and `lock_timeout` as
            its LOCK_TIMEOUT.
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
            check_names([column.name for column in self._own.described(select)], of="the query")
            yield as_relation(select, _SOURCE)
            return
        frame = LoadedFrame(data, schema=self._schema)
        # On the transaction's own connection, and so before BEGIN: only this session sees its temporary table.
        self._statements.before(f"CREATE SCHEMA IF NOT EXISTS {schema_of(self._schema)}")
        with frame.loaded(self._statements.before, self._statements.remove) as table:
            self._loaded = frame
            try:
                yield table
            finally:
                self._loaded = None

    def fetch(self, select: exp.Query, load_type: type) -> object:
        """See `Session.fetch`."""
        self._statements.send_pending()
        return from_arrow(self._own.arrow(sql_of(select)), load_type)

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
