"""Snowflake: everything is pushed down, and no DDL is ever run in a transaction, which it would commit."""

from __future__ import annotations

import logging
import uuid
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

import sqlglot
from sqlglot import exp
from sqlglot.errors import SqlglotError

from dagster_safe_backfill.domain.slices import ColumnType
from dagster_safe_backfill.domain.tables import SHADOW_INFIX, Column, Query, TableRef
from dagster_safe_backfill.errors import ConfigurationError, SafeBackfillError, TransactionConflictError, WarehouseError
from dagster_safe_backfill.sql import terms
from dagster_safe_backfill.sql.snowflake_dialect import DIALECT
from dagster_safe_backfill.sql.staging import Kind
from dagster_safe_backfill.warehouses import snowflake_tables as tables
from dagster_safe_backfill.warehouses import snowflake_types as types
from dagster_safe_backfill.warehouses.base import Connection, Fit, Row, Warehouse
from dagster_safe_backfill.warehouses.frames import check_names, from_arrow
from dagster_safe_backfill.warehouses.snowflake_frames import LoadedFrame
from dagster_safe_backfill.warehouses.snowflake_sessions import Session, Sessions

if TYPE_CHECKING:
    from snowflake.connector import SnowflakeConnection as Driver

_LOG = logging.getLogger(__name__)
_SOURCE = "_sb_source"
_ROWS = "_sb_rows"
_NEVER = 2**63 - 1
"""More than RANDOM() returns."""
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


@dataclass(slots=True)
class _Transaction:
    """What is to be done at the end of a transaction.

    Attributes:
        has_begun: Whether BEGIN was sent: it waits for the first change, as each statement sees what was committed
            before it, in a transaction or not.
        created: The tables that were made beside it, which go if it is rolled back.
        dropped: The statements that drop tables once it is committed, by the tables' names.
        removed: The statements that remove what was the session's own, once it is over.
        failure: What a statement of it raised.
    """

    has_begun: bool = False
    created: list[str] = field(default_factory=list[str])
    dropped: dict[str, str] = field(default_factory=dict[str, str])
    removed: list[str] = field(default_factory=list[str])
    failure: SafeBackfillError | None = None


class SnowflakeConnection(Connection):
    """A session with Snowflake, and a second one for what can't be done within the first one's transaction.

    DDL commits the transaction of its session. So tables are made at once, before BEGIN or beside the transaction, and
    are dropped again if it is rolled back; and they are dropped once it is committed.
    """

    dialect = DIALECT
    window_join = "range"

    def __init__(
        self, own: Session, sessions: Sessions, *, schema: str, read_only: bool, conflict_timeout: float
    ) -> None:
        self._own = own
        self._sessions = sessions
        self._read_only = read_only
        self._schema = schema
        self.conflict_timeout = conflict_timeout
        self._transaction: _Transaction | None = None
        self._loaded: LoadedFrame | None = None

    @contextmanager
    def transaction(self) -> Generator[None, None, None]:
        """See `Connection.transaction`."""
        self._transaction = transaction = _Transaction()
        try:
            yield
            self._commit(transaction)
        except BaseException:
            self._roll_back(transaction)
            raise
        finally:
            self._transaction = None
            for statement in transaction.removed:
                _quietly(self._own, statement)
        for statement in transaction.dropped.values():
            _quietly(self._own, statement)

    def _commit(self, transaction: _Transaction) -> None:
        if transaction.failure is not None:
            raise WarehouseError(
                f"a statement of the transaction failed, so nothing of it is committed: {transaction.failure}"
            ) from transaction.failure
        if transaction.has_begun:
            # A reply that is lost is not asked for again: whether it was committed is in the ledger.
            self._own.execute("COMMIT", is_stoppable=False)

    def _roll_back(self, transaction: _Transaction) -> None:
        if transaction.has_begun:
            _quietly(self._own, "ROLLBACK")
            transaction.has_begun = False
        for name in transaction.created:
            _quietly(self._own, f"DROP TABLE IF EXISTS {name}")

    def cancel(self) -> None:
        """See `Connection.cancel`."""
        self._sessions.cancel()

    def run(self, statement: exp.Expr) -> list[Row]:
        """See `Connection.run`."""
        with self._noting_failure():
            if isinstance(statement, exp.Query):
                return self._own.execute(tables.sql_of(statement))
            self._check_writable(statement)
            match statement:
                case exp.Create():
                    return self._create(statement)
                case exp.Drop():
                    return self._drop(statement)
                case exp.Alter():
                    return self._define(tables.sql_of(statement))
                case _:
                    return self._change(tables.sql_of(statement))

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
        return self._own.execute(sql)

    def _begin(self) -> None:
        transaction = self._transaction
        if transaction is not None and not transaction.has_begun:
            self._own.execute("BEGIN TRANSACTION", is_stoppable=False)
            transaction.has_begun = True

    def _define(self, sql: str) -> list[Row]:
        """Run DDL at once: before BEGIN, or beside the transaction."""
        transaction = self._transaction
        is_beside = transaction is not None and transaction.has_begun
        return (self._sessions.beside if is_beside else self._own).execute(sql)

    def _create(self, statement: exp.Create) -> list[Row]:
        """Create a table, outside the transaction. Live is made empty, and is filled in the transaction."""
        rows = statement.expression
        if self._transaction is None or not isinstance(rows, exp.Query):
            return self._define(tables.sql_of(statement))
        statement = statement.copy()
        name = tables.sql_of(statement.this)
        if self._transaction.dropped.pop(name, None) is not None:
            statement.set("replace", True)
        is_scratch = statement.find(exp.TemporaryProperty) is not None
        is_shadow = tables.is_named(statement.this, SHADOW_INFIX)
        if is_shadow:
            # What is not yet published needs no history.
            statement.set("properties", exp.Properties(expressions=[exp.TransientProperty()]))
        if not is_scratch and not is_shadow:
            none = exp.select(exp.Star()).from_(terms.subquery(rows.copy(), _ROWS)).where(exp.false())
            statement.set("expression", none)
        found = self._define(tables.sql_of(statement))
        self._transaction.created.append(name)
        if is_scratch or is_shadow:
            return found
        columns = [exp.to_identifier(column.name, quoted=True) for column in self.described(rows)]
        into = exp.Schema(this=statement.this.copy(), expressions=columns)
        return self._change(tables.sql_of(exp.Insert(this=into, expression=rows.copy())))

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
            first = terms.column(columns[0].name)
            # Nothing that the compiler can tell to be false, as it would leave the statement, and so the lock, out.
            random = exp.func("RANDOM", dialect=DIALECT)
            never = exp.and_(
                exp.Is(this=first.copy(), expression=exp.Null()), exp.GT(this=random, expression=terms.number(_NEVER))
            )
            self.run(exp.update(terms.table(table), {columns[0].name: first}, where=never))
        yield SnowflakeConnection(
            self._sessions.beside,
            self._sessions,
            schema=self._schema,
            read_only=True,
            conflict_timeout=self.conflict_timeout,
        )

    def columns(self, table: TableRef) -> tuple[Column, ...] | None:
        """See `Connection.columns`."""
        return tables.columns_of(self._own, table)

    def tables(self, schema: str, prefix: str) -> tuple[TableRef, ...]:
        """See `Connection.tables`."""
        return tables.named(self._own, schema, prefix)

    def add_columns(self, table: TableRef, columns: Mapping[Column, exp.Expr | None]) -> None:
        """See `Connection.add_columns`. A column that is there before its rows harms no reader."""
        transaction = self._transaction
        is_late = transaction is not None and transaction.has_begun
        if transaction is not None and is_late:
            self._roll_back(transaction)
        tables.add_columns(self._own, table, columns)
        if is_late:
            names = ", ".join(column.name for column in columns)
            raise TransactionConflictError(f"{table} gained {names}, and is to be looked at anew")

    def described(self, select: exp.Query) -> tuple[Column, ...]:
        """See `Connection.described`."""
        found = self._own.described(tables.sql_of(select))
        source = select.args.get("from_")
        if self._loaded is None or not select.is_star or not isinstance(source, exp.From):
            return found
        return self._loaded.columns if source.this.name == self._loaded.table.name else found

    @contextmanager
    def source(self, data: object) -> Generator[exp.Table, None, None]:
        """See `Connection.source`. A query isn't run: where it is read, its text stands."""
        if isinstance(data, Query):
            select = _one_select(data)
            check_names([column.name for column in self._own.described(select)], of="the query")
            yield exp.Table(this=exp.Var(this=f"(\n{select}\n)"), alias=_alias(_SOURCE))
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
            _quietly(self._own, sql)

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
        self._define(f"CREATE TRANSIENT TABLE {name} CLONE {tables.name_of(table)}")
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
        return from_arrow(self._own.arrow(tables.sql_of(select)), load_type)

    @property
    def hash_algorithm(self) -> str:
        """See `Connection.hash_algorithm`."""
        return "snowflake-hash"

    def row_hash(self, values: Sequence[exp.Expr]) -> exp.Expr:
        """See `Connection.row_hash`. Snowflake's is an integer of 64 bits with a sign."""
        signed = exp.cast(
            exp.func("HASH", *values, dialect=DIALECT), exp.DataType.build("NUMBER(38, 0)", dialect=DIALECT)
        )
        return exp.Add(this=signed, expression=exp.Literal.number(2**63))

    def fit(self, *, source: str, target: str) -> Fit:
        """See `Connection.fit`."""
        return types.fit(source=source, target=target)

    def is_lost(self, value: exp.Expr, *, source: str, target: str) -> exp.Expr:
        """See `Connection.is_lost`."""
        return types.is_lost(value, source=source, target=target)

    def created_as(self, source: str) -> str | None:
        """See `Connection.created_as`."""
        return types.created_as(source)

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
        raise NotImplementedError

    def cloned(self, table: TableRef, *, aside: TableRef) -> AbstractContextManager[None]:
        """See `Connection.cloned`."""
        raise NotImplementedError

    def put_back(self, table: TableRef, *, archive: TableRef, aside: TableRef) -> None:
        """See `Connection.put_back`."""
        raise NotImplementedError


def _one_select(query: Query) -> str:
    """Return the query's text if it is just one SELECT; it is sent as it was written."""
    try:
        found = [one for one in sqlglot.parse(query.sql, dialect=DIALECT) if one is not None]
    except SqlglotError as error:
        raise WarehouseError(f"the query can't be read: {error}") from error
    if len(found) != 1 or not isinstance(found[0], exp.Query):
        kinds = " and ".join(one.key.upper() for one in found)
        raise ConfigurationError(f"a Query is one SELECT, not {kinds or 'nothing'}: {query.sql!r}")
    return query.sql.strip().removesuffix(";")


def _alias(name: str) -> exp.TableAlias:
    return exp.TableAlias(this=exp.to_identifier(name, quoted=True))


def _quietly(session: Session, sql: str) -> None:
    """Run what cleans up; that it fails is no news, or is left to retention."""
    try:
        session.execute(sql, is_stoppable=False)
    except SafeBackfillError as error:
        _LOG.warning("%s: %s", sql, error)
