"""Snowflake: everything is pushed down, and no DDL is ever run in a transaction, which it would commit."""

from __future__ import annotations

import logging
import uuid
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Literal

from sqlglot import exp

from dagster_safe_backfill.errors import SafeBackfillError, WarehouseError
from dagster_safe_backfill.model.slices import ColumnType
from dagster_safe_backfill.model.tables import SHADOW_INFIX, Column, Query, TableRef
from dagster_safe_backfill.sql import terms
from dagster_safe_backfill.sql.staging import Kind
from dagster_safe_backfill.warehouses.base import BeginAnewError, Connection, Fit, Row, Warehouse
from dagster_safe_backfill.warehouses.frames import check_names, from_arrow
from dagster_safe_backfill.warehouses.snowflake import tables, types
from dagster_safe_backfill.warehouses.snowflake.dialect import DIALECT
from dagster_safe_backfill.warehouses.snowflake.driver import Session, Sessions
from dagster_safe_backfill.warehouses.snowflake.loading import LoadedFrame
from dagster_safe_backfill.warehouses.snowflake.queries import as_relation, locking, one_select
from dagster_safe_backfill.warehouses.snowflake.swap import begun, half_done, hashed
from dagster_safe_backfill.warehouses.snowflake.transaction import Transaction, quietly

if TYPE_CHECKING:
    from snowflake.connector import SnowflakeConnection as Driver

_LOG = logging.getLogger(__name__)
_SOURCE = "_sb_source"
_ROWS = "_sb_rows"
_SCRATCH_SCHEMA = "PUBLIC"


class SnowflakeWarehouse(Warehouse):
    """One database of a Snowflake account.

    Args:
        connect: Opens a session that commits each statement, keeps UTC and binds by question mark. What its
            LOCK_TIMEOUT is, is `lock_timeout`.
        schema: Where the sessions' temporary tables go; the session's current schema, if None.
        lock_timeout: Seconds for which a change that lost against another transaction's is tried again.
    """

    dialect = DIALECT

    def __init__(self, connect: Callable[[], Driver], *, schema: str | None = None, lock_timeout: float = 60.0) -> None:
        self._connect = connect
        self._schema = schema
        self._lock_timeout = lock_timeout

    @contextmanager
    def connect(self, *, read_only: bool = False) -> Generator[SnowflakeConnection, None, None]:
        """See `Warehouse.connect`. Snowflake has no sessions for reading only; the library refuses to write in one."""
        sessions = Sessions(self._connect)
        try:
            own = sessions.opened()
            yield SnowflakeConnection(
                own,
                sessions,
                schema=self._schema or own.schema or _SCRATCH_SCHEMA,
                read_only=read_only,
                conflict_timeout=self._lock_timeout,
            )
        finally:
            sessions.close()


class SnowflakeConnection(Connection):
    """A session with Snowflake, and a second one for what can't be done within the first one's transaction.

    DDL commits the transaction of its session. So tables are made at once, before BEGIN or beside the transaction, and
    are dropped again if it is rolled back; and they are dropped once it is committed.
    """

    dialect = DIALECT
    window_join = "range"
    ddl_is_transactional = False
    holds_off_inserts = False

    def __init__(
        self, own: Session, sessions: Sessions, *, schema: str, read_only: bool, conflict_timeout: float
    ) -> None:
        self._own = own
        self._sessions = sessions
        self._read_only = read_only
        self._schema = schema
        self.conflict_timeout = conflict_timeout
        self._transaction: Transaction | None = None
        self._loaded: LoadedFrame | None = None

    @contextmanager
    def transaction(self) -> Generator[None, None, None]:
        """See `Connection.transaction`."""
        transaction = Transaction(own=self._own)
        is_committed = False
        self._transaction = transaction
        try:
            yield
            transaction.commit()
            is_committed = True
        except BaseException:
            transaction.own = self._sessions.alive(self._own)
            transaction.roll_back()
            raise
        finally:
            self._transaction = None
            transaction.close(is_committed=is_committed)

    def cancel(self) -> None:
        """See `Connection.cancel`."""
        self._sessions.cancel()

    def run(self, statement: exp.Expr) -> list[Row]:
        """See `Connection.run`."""
        with self._noting_failure():
            if isinstance(statement, exp.Query):
                return self._own.execute(self._sql(statement))
            self._check_writable(statement)
            match statement:
                case exp.Create():
                    return self._create(statement)
                case exp.Drop():
                    return self._drop(statement)
                case exp.Alter():
                    return self._define(tables.sql_of(statement))
                case _:
                    return self._change(self._sql(statement))

    def _check_writable(self, statement: exp.Expr) -> None:
        if self._read_only:
            raise WarehouseError(f"this session is for reading only: {tables.sql_of(statement)[:300]}")

    @contextmanager
    def _noting_failure(self) -> Generator[None, None, None]:
        """Keep a transaction from being committed once a statement of it failed, which Snowflake itself doesn't."""
        try:
            yield
        except SafeBackfillError as error:
            if self._transaction is not None:
                self._transaction.failure = error
            raise

    def _change(self, sql: str) -> list[Row]:
        self._begin()
        found = self._own.execute(sql)
        if self._transaction is not None:
            self._transaction.has_changed = True
        return found

    def _begin(self) -> None:
        if self._transaction is not None:
            self._transaction.begin()

    def _sql(self, statement: exp.Expr) -> str:
        swap = None if self._transaction is None else self._transaction.swap
        return tables.sql_of(statement if swap is None else swap.applied(statement))

    def _named(self, table: TableRef) -> TableRef:
        swap = None if self._transaction is None else self._transaction.swap
        return table if swap is None else swap.named(table)

    def _define(self, sql: str) -> list[Row]:
        """Run DDL at once: before BEGIN, or beside the transaction."""
        is_beside = self._transaction is not None and self._transaction.has_begun
        return (self._sessions.beside if is_beside else self._own).execute(sql)

    def _create(self, statement: exp.Create) -> list[Row]:
        """Create a table, outside the transaction.

        Raises:
            BeginAnewError: It is a live one, and is there without rows now, so that it can be held and filled.
        """
        rows = statement.expression
        if self._transaction is None or not isinstance(rows, exp.Query):
            return self._define(tables.sql_of(statement))
        statement = statement.copy()
        name = tables.sql_of(statement.this)
        if statement.find(exp.TemporaryProperty) is None and not tables.is_named(statement.this, SHADOW_INFIX):
            none = exp.select(exp.Star()).from_(terms.subquery(rows.copy(), _ROWS)).where(exp.false())
            statement.set("expression", none)
            # Another session may make it at the same moment. It stays, whatever comes: others may have filled it.
            statement.set("exists", True)
            self._define(tables.sql_of(statement))
            raise BeginAnewError(f"{name} was made, and is to be filled")
        if statement.find(exp.TemporaryProperty) is None:
            # What is not yet published needs no history.
            statement.set("properties", exp.Properties(expressions=[exp.TransientProperty()]))
        if self._transaction.dropped.pop(name, None) is not None:
            statement.set("replace", True)
        found = self._define(tables.sql_of(statement))
        self._transaction.created.append(name)
        return found

    def _drop(self, statement: exp.Drop) -> list[Row]:
        sql = tables.sql_of(statement)
        if self._transaction is None:
            return self._define(sql)
        self._transaction.dropped[tables.sql_of(statement.args["tables"][0])] = sql
        return []

    @contextmanager
    def hold(self, table: TableRef) -> Generator[Connection, None, None]:
        """See `Connection.hold`. An INSERT of another is not kept off: only what changes or deletes rows locks."""
        columns = self.columns(table)
        if columns:
            self._begin()
            self._own.execute(tables.sql_of(locking(table, columns[0].name)))
        yield SnowflakeConnection(
            self._sessions.beside,
            self._sessions,
            schema=self._schema,
            read_only=True,
            conflict_timeout=self.conflict_timeout,
        )

    def columns(self, table: TableRef) -> tuple[Column, ...] | None:
        """See `Connection.columns`."""
        return tables.columns_of(self._own, self._named(table))

    def tables(self, schema: str, prefix: str) -> tuple[TableRef, ...]:
        """See `Connection.tables`."""
        return tables.named(self._own, schema, prefix)

    def add_columns(self, table: TableRef, columns: Mapping[Column, exp.Expr | None]) -> None:
        """See `Connection.add_columns`. A column that is there before its rows harms no reader."""
        transaction = self._transaction
        is_late = transaction is not None and transaction.has_begun
        if transaction is not None and is_late:
            transaction.release()
        tables.add_columns(self._own, self._named(table), columns)
        if is_late:
            names = ", ".join(column.name for column in columns)
            raise BeginAnewError(f"{table} gained {names}, and is to be looked at anew")

    def described(self, select: exp.Query) -> tuple[Column, ...]:
        """See `Connection.described`."""
        source = select.args.get("from_")
        frame = self._loaded if select.is_star and isinstance(source, exp.From) else None
        if frame is not None and source is not None and source.this.name == frame.table.name:
            # What was loaded needs no asking.
            return frame.columns
        return self._own.described(self._sql(select))

    @contextmanager
    def source(self, data: object) -> Generator[exp.Table, None, None]:
        """See `Connection.source`. A query isn't run: where it is read, its text stands."""
        if isinstance(data, Query):
            select = one_select(data)
            check_names([column.name for column in self._own.described(select)], of="the query")
            yield as_relation(select, _SOURCE)
            return
        frame = LoadedFrame(data, schema=self._schema)
        self.ensure_schema(self._schema)
        with frame.loaded(self._outside, self._remove) as table:
            self._loaded = frame
            try:
                yield table
            finally:
                self._loaded = None

    def _outside(self, sql: str) -> None:
        """Run what would end a transaction.

        Raises:
            WarehouseError: One has begun.
        """
        if self._transaction is not None and self._transaction.has_begun:
            raise WarehouseError(f"this can't be run once a transaction has changed something: {sql[:300]}")
        self._own.execute(sql)

    def _remove(self, sql: str) -> None:
        """Remove what is the session's own, at once or when the transaction is over."""
        if self._transaction is not None and self._transaction.has_begun:
            self._transaction.removed.append(sql)
        else:
            quietly(self._own, sql)

    def ensure_schema(self, schema: str) -> None:
        """See `Connection.ensure_schema`."""
        name = exp.to_identifier(schema.upper(), quoted=True).sql(dialect=DIALECT)
        self._define(f"CREATE SCHEMA IF NOT EXISTS {name}")

    def scratch(self, name: str, *, kind: Kind = "TABLE") -> TableRef:  # noqa: ARG002 - one schema holds both
        """See `Connection.scratch`. A temporary table hides one of its name, and so has one of its own."""
        return TableRef(schema=self._schema, name=f"{name}_{uuid.uuid4().hex}")

    def derived(self, name: str, select: exp.Query, *, kind: Kind = "TABLE") -> TableRef:  # noqa: ARG002 - no object
        """See `Connection.derived`. A table would take DDL."""
        return terms.Derived(schema="", name=name, select=select)

    def forget(self, derived: TableRef, *, kind: Kind = "TABLE") -> None:
        """See `Connection.forget`."""

    def keep(self, table: TableRef, archive: TableRef, rows: exp.Select) -> None:  # noqa: ARG002 - it has them all
        """See `Connection.keep`. A clone shares its rows with the table, and so holds all of them at no cost."""
        name = tables.name_of(archive)
        # Its name was intended for it: what has it now was left by an earlier try.
        self._define(f"CREATE OR REPLACE TRANSIENT TABLE {name} CLONE {tables.name_of(table)}")
        if self._transaction is not None:
            self._transaction.created.append(name)

    def append(self, table: TableRef, columns: Sequence[str], rows: Sequence[Row]) -> None:
        """See `Connection.append`. The values are bound, a list a column."""
        names = ", ".join(tables.sql_of(terms.column(name)) for name in columns)
        places = ", ".join("?" for _ in columns)
        with self._noting_failure():
            self._begin()
            self._own.insert(f"INSERT INTO {tables.name_of(table)} ({names}) VALUES ({places})", rows)

    def fetch(self, select: exp.Query, load_type: type) -> object:
        """See `Connection.fetch`."""
        return from_arrow(self._own.arrow(self._sql(select)), load_type)

    @property
    def hash_algorithm(self) -> str:
        """See `Connection.hash_algorithm`."""
        return "snowflake-hash"

    def row_hash(self, values: Sequence[exp.Expr]) -> exp.Expr:
        """See `Connection.row_hash`."""
        return hashed([*values])

    def fit(self, *, source: str, target: str) -> Fit:
        """See `Connection.fit`."""
        return types.fit(source=source, target=target)

    def is_lost(self, value: exp.Expr, *, source: str, target: str) -> exp.Expr:
        """See `Connection.is_lost`."""
        return types.is_lost(value, source=source, target=target)

    def created_as(self, source: str) -> str | None:
        """See `Connection.created_as`."""
        return types.created_as(source)

    def is_type(self, type_name: str, wanted: str) -> bool:
        """See `Connection.is_type`."""
        return types.plain(type_name) == types.plain(wanted)

    def keeps(self, type_name: str) -> ColumnType | Literal["text", "other"]:
        """See `Connection.keeps`."""
        return types.keeps(type_name)

    def reshape(
        self,
        table: TableRef,
        *,
        dropped: Sequence[str],
        retyped: Sequence[Column],
        added: Mapping[Column, exp.Expr | None],
    ) -> None:
        """See `Connection.reshape`."""
        tables.reshape(self._own, self._named(table), dropped=dropped, retyped=retyped)
        self.add_columns(table, added)

    @contextmanager
    def cloned(self, table: TableRef, *, aside: TableRef, kept: exp.Expr | None = None) -> Generator[None, None, None]:
        """See `Connection.cloned`. The clone shares its rows with the table until they are changed."""
        with self._replaced(table, aside=aside, source=table, is_empty=kept is None):
            if kept is not None and kept != exp.true():
                self.run(exp.delete(terms.table(table), where=exp.not_(exp.paren(kept.copy()))))
            yield

    def put_back(self, table: TableRef, *, archive: TableRef, aside: TableRef) -> None:
        """See `Connection.put_back`."""
        with self._replaced(table, aside=aside, source=archive):
            pass

    @contextmanager
    def _replaced(
        self, table: TableRef, *, aside: TableRef, source: TableRef, is_empty: bool = False
    ) -> Generator[None, None, None]:
        """Make a clone, which is changed under the table's name within the block, and swap it in at its end."""
        transaction = self._transaction
        if transaction is None or transaction.has_changed:
            raise WarehouseError(f"{table} is swapped in a transaction that has changed nothing yet, and in no other")
        # Before the lock is given up, so that the clone is of what was looked at.
        beside, created = self._sessions.beside, transaction.created
        swap = begun(beside, table, aside=aside, source=source, is_empty=is_empty, created=created)
        transaction.release()
        transaction.swap = swap
        yield
        swap.run(self._own)

    def recover(self, table: TableRef, *, is_recorded: Callable[[TableRef], bool]) -> str | None:
        """See `Connection.recover`."""
        found = half_done(self._own, table)
        if found is None:
            return None
        if is_recorded(found.aside):
            found.finish(self._own)
            return f"its swap with {found.aside} was recorded, and is finished"
        found.discard(self._own)
        return f"its swap with {found.aside} was not recorded, and is undone"
