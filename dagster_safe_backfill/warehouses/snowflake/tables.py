"""Snowflake's tables: made, changed and replaced outside of the transaction that needs them, and undone with it."""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager

from sqlglot import exp

from dagster_safe_backfill.errors import TransactionConflictError, WarehouseError
from dagster_safe_backfill.model.tables import Column, TableRef
from dagster_safe_backfill.sql import terms
from dagster_safe_backfill.warehouses.base import Replacement, Session, TableKind, Tables
from dagster_safe_backfill.warehouses.snowflake import catalog
from dagster_safe_backfill.warehouses.snowflake.catalog import name_of, sql_of
from dagster_safe_backfill.warehouses.snowflake.swap import begun, half_done
from dagster_safe_backfill.warehouses.snowflake.transaction import BeginAnewError, Statements

_ROWS = "_sb_rows"
# What is not yet published needs no history.
_KINDS: Mapping[TableKind, str] = {"live": "TABLE", "shadow": "TRANSIENT TABLE", "scratch": "TEMPORARY TABLE"}


class SnowflakeTables(Tables):
    """The tables of a session.

    DDL commits the transaction of its connection. So tables are made at once, before BEGIN or beside the transaction,
    and are dropped again if it is rolled back; and they are dropped once it is committed.

    Args:
        statements: Runs them.
        beside: Returns the session that commits each statement.
    """

    def __init__(self, statements: Statements, *, beside: Callable[[], Session]) -> None:
        self._statements = statements
        self._beside = beside

    def columns(self, table: TableRef) -> tuple[Column, ...] | None:
        """See `Tables.columns`."""
        return catalog.columns_of(self._statements.own, table)

    def list(self, schema: str, prefix: str) -> tuple[TableRef, ...]:
        """See `Tables.list`."""
        return catalog.named(self._statements.own, schema, prefix)

    def ensure_schema(self, schema: str) -> None:
        """See `Tables.ensure_schema`."""
        self._statements.define(f"CREATE SCHEMA IF NOT EXISTS {catalog.schema_of(schema)}")

    def ensure_table(self, table: TableRef, columns: Mapping[str, str]) -> None:
        """See `Tables.ensure_table`."""
        known = self.columns(table)
        names = {column.name.casefold() for column in known or ()}
        missing = [
            exp.ColumnDef(this=exp.to_identifier(name, quoted=True), kind=exp.DataType.build(kind))
            for name, kind in columns.items()
            if name.casefold() not in names
        ]
        definitions = ", ".join(map(sql_of, missing))
        if known is None:
            self._statements.define(f"CREATE TABLE IF NOT EXISTS {name_of(table)} ({definitions})")
        elif missing:
            self._statements.define(f"ALTER TABLE {name_of(table)} ADD COLUMN {definitions}")

    def create(self, table: TableRef, rows: exp.Query, *, kind: TableKind) -> None:
        """See `Tables.create`.

        Raises:
            BeginAnewError: It is a live one, and is there without rows now, so that it can be held and filled.
        """
        name, what, transaction = name_of(table), _KINDS[kind], self._statements.transaction
        if transaction is None:
            self._statements.define(f"CREATE {what} {name} AS {sql_of(rows)}")
            return
        if kind == "live":
            none = exp.select(exp.Star()).from_(terms.subquery(rows.copy(), _ROWS)).where(exp.false())
            # Another session may make it at the same moment. It stays, whatever comes: others may have filled it.
            self._statements.define(f"CREATE {what} IF NOT EXISTS {name} AS {sql_of(none)}")
            raise BeginAnewError(f"{name} was made, and is to be filled")
        replace = "OR REPLACE " if transaction.dropped.pop(name, None) is not None else ""
        self._statements.define(f"CREATE {replace}{what} {name} AS {sql_of(rows)}")
        transaction.created.append(name)

    def copy(self, rows: exp.Select, *, into: TableRef, columns: Sequence[str]) -> None:
        """See `Tables.copy`."""
        names = ", ".join(sql_of(terms.column(name)) for name in columns)
        self._statements.change(f"INSERT INTO {name_of(into)} ({names}) {sql_of(rows)}")

    def drop(self, table: TableRef) -> None:
        """See `Tables.drop`. In a transaction it is dropped once that is committed."""
        name = name_of(table)
        sql = f"DROP TABLE IF EXISTS {name}"
        if self._statements.transaction is None:
            self._statements.define(sql)
        else:
            self._statements.transaction.dropped[name] = sql

    def add_columns(self, table: TableRef, columns: Mapping[Column, exp.Expr | None]) -> None:
        """See `Tables.add_columns`. A column that is there before its rows harms no reader."""
        transaction = self._statements.transaction
        is_late = transaction is not None and transaction.has_begun
        if transaction is not None and is_late:
            transaction.release()
        catalog.add_columns(self._statements.own, table, columns)
        if is_late:
            names = ", ".join(column.name for column in columns)
            raise BeginAnewError(f"{table} gained {names}, and is to be looked at anew")

    def reshape(
        self,
        table: TableRef,
        *,
        dropped: Sequence[str],
        retyped: Sequence[Column],
        added: Mapping[Column, exp.Expr | None],
    ) -> None:
        """See `Tables.reshape`."""
        catalog.reshape(self._statements.own, table, dropped=dropped, retyped=retyped)
        self.add_columns(table, added)

    def archive(self, table: TableRef, archive: TableRef, rows: exp.Select) -> None:  # noqa: ARG002 - it has them all
        """See `Tables.archive`. A clone shares its rows with the table, and so holds all of them at no cost."""
        name = name_of(archive)
        # `record_first` told of its name: what has it now was left by an earlier try.
        self._statements.define(f"CREATE OR REPLACE TRANSIENT TABLE {name} CLONE {name_of(table)}")
        if self._statements.transaction is not None:
            self._statements.transaction.created.append(name)

    @contextmanager
    def hold(self, table: TableRef) -> Generator[Session, None, None]:
        """See `Tables.hold`. An INSERT of another is not kept off: only what changes or deletes rows locks."""
        columns = self.columns(table)
        if columns:
            self._statements.begin()
            self._statements.own.execute(sql_of(catalog.locking(table, columns[0].name)))
        yield self._beside()

    @contextmanager
    def replace(
        self, table: TableRef, *, aside: TableRef, kept: exp.Expr | None = None
    ) -> Generator[Replacement, None, None]:
        """See `Tables.replace`. The clone is `aside` until they are swapped, and shares its rows with the table."""
        with self._replaced(table, aside=aside, source=table, is_empty=kept is None):
            if kept is not None and kept != exp.true():
                delete = exp.delete(terms.table(aside), where=exp.not_(exp.paren(kept.copy())))
                self._statements.change(sql_of(delete))
            yield Replacement(clone=aside, old=table)

    def put_back(self, table: TableRef, *, archive: TableRef, aside: TableRef) -> None:
        """See `Tables.put_back`."""
        with self._replaced(table, aside=aside, source=archive):
            pass

    @contextmanager
    def _replaced(
        self, table: TableRef, *, aside: TableRef, source: TableRef, is_empty: bool = False
    ) -> Generator[None, None, None]:
        """Make a clone, which is changed within the block, and swap it in at its end."""
        transaction = self._statements.transaction
        if transaction is None or transaction.has_changed:
            raise WarehouseError(f"{table} is swapped in a transaction that has changed nothing yet, and in no other")
        # Before the lock is given up, so that the clone is of what was looked at.
        beside, created = self._statements.beside, transaction.created
        swap = begun(beside, table, aside=aside, source=source, is_empty=is_empty, created=created)
        transaction.release()
        transaction.swap = swap
        yield
        swap.run(self._statements.own)

    def recover(self, table: TableRef, *, is_recorded: Callable[[TableRef], bool]) -> str | None:
        """See `Tables.recover`."""
        found = half_done(self._statements.own, table)
        if found is None:
            return None
        if is_recorded(found.aside):
            found.finish(self._statements.own)
            return f"its swap with {found.aside} was recorded, and is finished"
        found.discard(self._statements.own)
        return f"its swap with {found.aside} was not recorded, and is undone"

    def record_first(self, record: Callable[[], None]) -> None:
        """See `Tables.record_first`. A crash leaves the tables that were made for its transaction."""
        with self._statements.in_transaction():
            record()

    def explain_more_rows(self, table: TableRef, *, partitions: str) -> None:
        """See `Tables.explain_more_rows`."""
        raise TransactionConflictError(f"another session inserted rows into {table}: {partitions}")
