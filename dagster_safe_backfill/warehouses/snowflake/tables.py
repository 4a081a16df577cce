"""Snowflake's tables: created, changed and replaced outside the transaction that needs them, and undone with it."""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from sqlglot import exp

from dagster_safe_backfill.errors import TransactionConflictError, WarehouseError
from dagster_safe_backfill.model.tables import Column, Loss, TableRef
from dagster_safe_backfill.sql import terms
from dagster_safe_backfill.warehouses.base import Replacement, Session, TableKind, Tables, reshaping
from dagster_safe_backfill.warehouses.snowflake import catalog
from dagster_safe_backfill.warehouses.snowflake.catalog import name_of, sql_of
from dagster_safe_backfill.warehouses.snowflake.driver import Connection
from dagster_safe_backfill.warehouses.snowflake.swap import begun, half_done
from dagster_safe_backfill.warehouses.snowflake.transaction import BeginAnewError, Statements

if TYPE_CHECKING:
    from dagster_safe_backfill.warehouses.snowflake.session import SnowflakeSession

_ROWS = "_sb_rows"
_RETYPED = "_sb_retyped"
# A transient table has no fail-safe, which would cost storage. A shadow's rows can be computed again.
_KINDS: Mapping[TableKind, str] = {"live": "TABLE", "shadow": "TRANSIENT TABLE", "scratch": "TEMPORARY TABLE"}


class SnowflakeTables(Tables):
    """The tables of a session.

    DDL commits the transaction of its connection. So a table is created at once, before BEGIN or by the second
    connection, and dropped again if the transaction is rolled back. A table that is to be dropped is dropped after the
    transaction is committed.

    Args:
        statements: Runs the statements, in the transaction or outside of it.
        session: The session.
    """

    def __init__(self, statements: Statements, *, session: SnowflakeSession) -> None:
        self._statements = statements
        self._session = session
        self._facts: dict[str, catalog.Facts | None] = {}
        self._seen: set[str] = set()

    def columns(self, table: TableRef) -> tuple[Column, ...] | None:
        """See `Tables.columns`."""
        return catalog.columns_of(self._statements.own, table)

    def generated(self, table: TableRef) -> tuple[str, ...]:
        """See `Tables.generated`."""
        return catalog.virtual_columns(self._statements.own, table)

    def writable_columns(self, table: TableRef) -> tuple[Column, ...] | None:
        """See `Tables.writable_columns`. The kind is only asked for if `recover` wasn't called for the table before."""
        self._check_writable(table)
        return self.columns(table)

    def _check_writable(self, table: TableRef) -> None:
        name = name_of(table)
        if name not in self._facts:
            self._facts[name] = catalog.facts_of(self._statements.own, table)
        facts = self._facts[name]
        if facts is not None and name not in self._seen:
            facts.check_writable(table)
            catalog.check_seen(self._statements.own, table, facts)
            self._seen.add(name)

    def list(self, schema: str, prefix: str) -> tuple[TableRef, ...]:
        """See `Tables.list`."""
        return catalog.named(self._statements.own, schema, prefix)

    def find(self, name: str) -> tuple[TableRef, ...]:
        """See `Tables.find`."""
        return catalog.in_any_schema(self._statements.own, name)

    def ensure_schema(self, schema: str) -> None:
        """See `Tables.ensure_schema`."""
        self._statements.ensure_schema(schema)

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
            BeginAnewError: A live table now exists without rows. The next attempt holds and fills it.
        """
        name, what, transaction = name_of(table), _KINDS[kind], self._statements.transaction
        if transaction is None:
            self._statements.define(f"CREATE {what} {name} AS {sql_of(rows)}")
            return
        if kind == "live":
            none = exp.select(exp.Star()).from_(terms.subquery(rows.copy(), _ROWS)).where(exp.false())
            # DDL would commit the transaction. Another session may create the table at the same moment, so it isn't
            # dropped by a rollback, because others may have filled it.
            transaction.release()
            self._statements.define(f"CREATE {what} IF NOT EXISTS {name} AS {sql_of(none)}")
            raise BeginAnewError(f"{name} was created without rows, and the next attempt fills it")
        # A table that this transaction dropped still exists until COMMIT, though its name must be free at once.
        replace = "OR REPLACE " if transaction.dropped.pop(name, None) is not None else ""
        self._statements.define(f"CREATE {replace}{what} {name} AS {sql_of(rows)}")
        transaction.created.append(name)

    def copy(self, rows: exp.Select, *, into: TableRef, columns: Sequence[str]) -> None:
        """See `Tables.copy`."""
        names = ", ".join(sql_of(terms.column(name)) for name in columns)
        self._statements.change(f"INSERT INTO {name_of(into)} ({names}) {sql_of(rows)}")

    def drop(self, table: TableRef) -> None:
        """See `Tables.drop`. In a transaction, the table is dropped after COMMIT."""
        name = name_of(table)
        sql = f"DROP TABLE IF EXISTS {name}"
        if self._statements.transaction is None:
            self._statements.define(sql)
        else:
            self._statements.transaction.dropped[name] = sql

    def add_columns(self, table: TableRef, columns: Mapping[Column, exp.Expr | None]) -> None:
        """See `Tables.add_columns`. Readers may see the columns before their rows."""
        transaction = self._statements.transaction
        is_late = transaction is not None and transaction.has_begun
        # ALTER TABLE would commit the transaction and wait for its lock, so the transaction is given up first.
        if transaction is not None and is_late:
            transaction.release()
        swap = None if transaction is None else transaction.swap
        is_clone = swap is not None and swap.aside == table
        catalog.add_columns(self._statements.own, table, columns, is_clone=is_clone)
        if is_late:
            names = ", ".join(column.name for column in columns)
            raise BeginAnewError(f"{table} gained {names}, and the next attempt reads it again")

    def reshape(
        self,
        table: TableRef,
        *,
        dropped: Sequence[str],
        retyped: Sequence[Column],
        added: Mapping[Column, exp.Expr | None],
    ) -> None:
        """See `Tables.reshape`."""
        _reshape(self._statements.own, table, dropped=dropped, retyped=retyped)
        self.add_columns(table, added)

    def archive(self, table: TableRef, archive: TableRef, rows: exp.Select) -> None:  # noqa: ARG002 - it has them all
        """See `Tables.archive`. The archive is a clone with all rows, because a clone copies no data."""
        name = name_of(archive)
        # OR REPLACE: `record_first` reserved the name, so a table of that name is left from an earlier attempt.
        self._statements.define(f"CREATE OR REPLACE TRANSIENT TABLE {name} CLONE {name_of(table)}")
        if self._statements.transaction is not None:
            self._statements.transaction.created.append(name)

    @contextmanager
    def hold(self, table: TableRef, *, run_id: str = "") -> Generator[Session, None, None]:
        """See `Tables.hold`. Only this library waits for the lock. What others change, `reread` shows."""
        self._check_writable(table)
        yield self._session.holding(table, run_id=run_id)

    def reread(self) -> Session | None:
        """See `Tables.reread`. It is another new session: the one that `hold` opened may miss what came after it."""
        return self._session.renewed_reader()

    @contextmanager
    def replace(
        self, table: TableRef, *, aside: TableRef, kept: exp.Expr | None = None, may_lose: Sequence[Loss] = ()
    ) -> Generator[Replacement, None, None]:
        """See `Tables.replace`. Until the swap, the clone is named `aside`."""
        with self._replaced(table, aside=aside, source=table, is_empty=kept is None, may_lose=may_lose):
            # The clone starts with all rows, because a clone copies no data. Only rows that aren't kept cost a DELETE.
            if kept is not None and kept != exp.true():
                delete = exp.delete(terms.table(aside), where=exp.not_(exp.paren(kept.copy())))
                self._statements.change(sql_of(delete))
            yield Replacement(clone=aside, old=table)

    def put_back(self, table: TableRef, *, archive: TableRef, aside: TableRef, may_lose: Sequence[Loss] = ()) -> None:
        """See `Tables.put_back`."""
        with self._replaced(table, aside=aside, source=archive, may_lose=may_lose):
            pass

    @contextmanager
    def _replaced(
        self,
        table: TableRef,
        *,
        aside: TableRef,
        source: TableRef,
        may_lose: Sequence[Loss],
        is_empty: bool = False,
    ) -> Generator[None, None, None]:
        """Create a clone, which the caller changes within the block, and swap it in at the end of the block."""
        transaction = self._statements.transaction
        if transaction is None or transaction.has_changed:
            raise WarehouseError(f"{table} can only be swapped in a transaction that has changed nothing yet.")
        # The clone is made by the second connection while this transaction still holds the lock, so the clone has the
        # rows that the conflict check read.
        beside, created = self._statements.beside, transaction.created
        swap = begun(beside, table, aside=aside, source=source, is_empty=is_empty, created=created, may_lose=may_lose)
        transaction.release()
        transaction.swap = swap
        yield
        swap.run(self._statements.own)

    def recover(self, table: TableRef, *, is_recorded: Callable[[TableRef], bool]) -> str | None:
        """See `Tables.recover`."""
        facts = catalog.facts_of(self._statements.own, table)
        self._facts[name_of(table)] = facts
        found = None if facts is None else half_done(facts, table)
        if found is None:
            return None if facts is None else catalog.filled(self._statements.own, table, facts)
        if is_recorded(found.aside):
            found.finish(self._statements.own)
            return f"its swap with {found.aside} was recorded, and is completed"
        found.discard(self._statements.own)
        return f"its swap with {found.aside} was not recorded, and is undone"

    def interrupted(self, table: TableRef) -> TableRef | None:
        """See `Tables.interrupted`."""
        facts = catalog.facts_of(self._statements.own, table)
        found = None if facts is None else half_done(facts, table)
        return None if found is None else found.aside

    def record_first(self, record: Callable[[], None]) -> None:
        """See `Tables.record_first`. A crash leaves behind the tables that were created for its transaction."""
        with self._statements.in_transaction():
            record()

    def explain_more_rows(self, table: TableRef, *, partitions: str) -> None:
        """See `Tables.explain_more_rows`."""
        raise TransactionConflictError(f"another session inserted rows into {table}: {partitions}")


def _reshape(connection: Connection, table: TableRef, *, dropped: Sequence[str], retyped: Sequence[Column]) -> None:
    """Drop columns of an empty table, and replace columns whose type changes by new ones at the end of the table.

    Raises:
        SwapError: The table can't be altered.
    """
    alter = f"ALTER TABLE {name_of(table)}"
    with reshaping(table):
        # ALTER COLUMN only lengthens a VARCHAR or changes the precision of a NUMBER, so the column is replaced.
        # https://docs.snowflake.com/en/sql-reference/sql/alter-table-column
        for column in retyped:
            name, aside = sql_of(terms.column(column.name)), sql_of(terms.column(_RETYPED))
            connection.execute(f"{alter} ADD COLUMN {aside} {column.type}")
            connection.execute(f"{alter} DROP COLUMN {name}")
            connection.execute(f"{alter} RENAME COLUMN {aside} TO {name}")
        for name in dropped:
            connection.execute(f"{alter} DROP COLUMN {sql_of(terms.column(name))}")
