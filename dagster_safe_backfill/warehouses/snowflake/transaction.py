"""A transaction of Snowflake, and the statements that must run before it, beside it or after it."""

from __future__ import annotations

import logging
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Protocol

from dagster_safe_backfill.errors import SafeBackfillError, TransactionConflictError, WarehouseError
from dagster_safe_backfill.model.tables import TableRef
from dagster_safe_backfill.warehouses.base import Row
from dagster_safe_backfill.warehouses.snowflake.catalog import create_schema, has_schema, name_of
from dagster_safe_backfill.warehouses.snowflake.driver import Connection, Connections

_LOG = logging.getLogger(__name__)


class BeginAnewError(TransactionConflictError):
    """A change that a transaction needs was made outside of it. `attempt` starts the transaction again at once."""


class Swap(Protocol):
    """A table that is replaced in a transaction. See `swap.Swap`."""

    table: TableRef
    aside: TableRef
    is_begun: bool
    is_swapped: bool

    @property
    def comment_sql(self) -> str:
        """The statement that restores the live table's own comment."""
        ...

    def undo(self, connection: Connection) -> None:
        """Swap back if the tables were swapped, and drop the clone."""
        ...


@dataclass(slots=True, kw_only=True)
class Transaction:
    """A transaction, and the tables that are created and dropped for it.

    DDL commits the transaction of its session, so tables are created and dropped outside the transaction.

    Attributes:
        own: The connection of the transaction.
        has_begun: True once BEGIN was sent. It is sent before the first change: each statement sees the rows that were
            committed before it, in a transaction or not.
        has_changed: True if there is something to commit.
        created: The tables that were created. A rollback drops them.
        dropped: A mapping from table name to the statement that drops the table after COMMIT.
        removed: The statements that remove the session's own tables after the transaction has ended.
        swap: The table that is replaced in the transaction. Its clone is changed before BEGIN.
        failure: The error of a statement that failed.
        is_in_doubt: True if COMMIT was sent and its reply was not read. Then nothing is undone, and the next attempt
            reads in the ledger whether the transaction was committed.
        is_stuck: True if ROLLBACK failed. Then DDL in this session would commit the changes that should be undone.
    """

    own: Connection
    has_begun: bool = False
    has_changed: bool = False
    created: list[str] = field(default_factory=list[str])
    dropped: dict[str, str] = field(default_factory=dict[str, str])
    removed: list[str] = field(default_factory=list[str])
    swap: Swap | None = None
    failure: SafeBackfillError | None = None
    is_in_doubt: bool = False
    is_stuck: bool = False

    def begin(self) -> None:
        """Send BEGIN, unless it was sent. Changes of a clone that isn't swapped in yet need no transaction."""
        is_aside = self.swap is not None and not self.swap.is_swapped
        if not self.has_begun and not is_aside:
            # Set before the statement, in case its reply is lost: a ROLLBACK without a transaction does nothing.
            self.has_begun = True
            self.own.execute("BEGIN TRANSACTION", is_stoppable=False)

    def commit(self) -> None:
        """Commit.

        Raises:
            WarehouseError: A statement of the transaction failed, even if its error was caught.
        """
        # Snowflake leaves a transaction open after a failed statement, and COMMIT would commit the other statements.
        if self.failure is not None:
            raise WarehouseError(
                f"a statement of the transaction failed, so none of its changes were committed: {self.failure}"
            ) from self.failure
        if self.has_begun:
            self.is_in_doubt = True
            self.own.execute("COMMIT", is_stoppable=False)
            self.is_in_doubt = self.has_begun = False

    def roll_back(self) -> None:
        """Undo all changes. If Snowflake can't be reached, recovery and the retention schedule undo the rest later."""
        if self.has_begun:
            self.is_stuck = not quietly(self.own, "ROLLBACK")
            self.has_begun = False
        # The statements below are DDL, which would commit the changes that couldn't be rolled back.
        if self.is_stuck:
            return
        if self.is_in_doubt:
            _LOG.warning("no reply to COMMIT was received; the next attempt reads in the ledger if it took place")
            return
        if self.swap is not None and self.swap.is_begun:
            try:
                self.swap.undo(self.own)
            except SafeBackfillError as error:
                _LOG.warning("%s could not be swapped back: %s", self.swap.table, error)
        # Once SWAP WITH was sent, the table named `aside` may be the old live table.
        swapped = name_of(self.swap.aside) if self.swap is not None and self.swap.is_begun else None
        for name in self.created:
            if name == swapped:
                continue
            quietly(self.own, f"DROP TABLE IF EXISTS {name}")

    def release(self) -> None:
        """Send ROLLBACK, to give up the lock before DDL that would commit the transaction."""
        if self.has_begun:
            self.own.execute("ROLLBACK", is_stoppable=False)
            self.has_begun = False

    def close(self, *, is_committed: bool) -> None:
        """Drop the tables that aren't needed any more.

        If ROLLBACK failed, they are dropped at the end of the session or by the retention schedule.
        """
        if self.is_stuck:
            return
        after = [*self.dropped.values()] if is_committed else []
        # The mark is removed only after COMMIT: until then, `recover` needs it to see that the tables were swapped.
        if self.swap is not None and is_committed:
            after.append(self.swap.comment_sql)
        for statement in [*self.removed, *after]:
            quietly(self.own, statement)


class Statements:
    """Runs statements in the transaction of a session, before it, or beside it on a second connection.

    Args:
        own: The connection of the transactions.
        connections: All connections of the session.
        read_only: True to refuse statements that change something.

    Attributes:
        transaction: The open transaction, or None.
    """

    def __init__(self, own: Connection, connections: Connections, *, read_only: bool) -> None:
        self.own = own
        self.transaction: Transaction | None = None
        self._connections = connections
        self._read_only = read_only
        self._schemas: set[str] = set()

    @property
    def beside(self) -> Connection:
        """The connection that commits each statement."""
        return self._connections.beside

    @contextmanager
    def in_transaction(self) -> Generator[None, None, None]:
        """Commit at the end of the block, or undo all changes if it raises."""
        transaction = Transaction(own=self.own)
        is_committed = False
        self.transaction = transaction
        try:
            yield
            transaction.commit()
            is_committed = True
        except BaseException:
            # Tables that were created beside a lost session must be dropped too, by a new session.
            transaction.own = self._connections.alive(self.own)
            transaction.roll_back()
            raise
        finally:
            self.transaction = None
            transaction.close(is_committed=is_committed)

    def query(self, sql: str) -> list[Row]:
        """Run a statement that changes nothing."""
        with self._noting_failure():
            return self.own.execute(sql)

    def change(self, sql: str) -> Row:
        """Run a statement that changes rows, in the transaction, and return Snowflake's numbers of rows."""
        with self._noting_failure():
            self._check_writable(sql)
            self.begin()
            found = self.own.execute(sql)
            if self.transaction is not None:
                self.transaction.has_changed = True
            return found[0]

    def insert(self, sql: str, rows: Sequence[Row]) -> None:
        """Run an INSERT with placeholders in the transaction."""
        with self._noting_failure():
            self._check_writable(sql)
            self.begin()
            self.own.insert(sql, rows)

    def define(self, sql: str) -> None:
        """Run DDL at once: on the own connection before BEGIN, else on the second one."""
        with self._noting_failure():
            self._check_writable(sql)
            is_beside = self.transaction is not None and self.transaction.has_begun
            (self.beside if is_beside else self.own).execute(sql)

    def ensure_schema(self, schema: str) -> None:
        """Create a schema if it doesn't exist. It is looked for first: CREATE needs a privilege even if it exists."""
        with self._noting_failure():
            if schema not in self._schemas and not has_schema(self.own, schema):
                # A new schema becomes the current one of its session, and users' SQL may have names without a schema.
                with self._connections.apart() as connection:
                    create_schema(connection, schema)
            self._schemas.add(schema)

    def before(self, sql: str) -> None:
        """Run DDL for a table of this session only, before its transaction begins.

        Raises:
            WarehouseError: The transaction has begun, and the statement would commit it.
        """
        if self.transaction is not None and self.transaction.has_begun:
            raise WarehouseError(f"this statement can't run after the transaction has changed something: {sql[:300]}")
        self.own.execute(sql)

    def remove(self, sql: str) -> None:
        """Drop a table of this session only, at once or after the transaction has ended."""
        if self.transaction is not None and self.transaction.has_begun:
            self.transaction.removed.append(sql)
        else:
            quietly(self.own, sql)

    def begin(self) -> None:
        """Send BEGIN for the open transaction, unless it was sent."""
        if self.transaction is not None:
            self.transaction.begin()

    def _check_writable(self, sql: str) -> None:
        if self._read_only:
            raise WarehouseError(f"this session is read-only and can't run: {sql[:300]}")

    @contextmanager
    def _noting_failure(self) -> Generator[None, None, None]:
        """Note the error of a statement that fails, so that its transaction can't be committed."""
        try:
            yield
        except SafeBackfillError as error:
            if self.transaction is not None:
                self.transaction.failure = error
            raise


def quietly(connection: Connection, sql: str) -> bool:
    """Run a clean-up statement and return True if it succeeded. Log an error instead of raising it."""
    try:
        connection.execute(sql, is_stoppable=False)
    except SafeBackfillError as error:
        _LOG.warning("%s: %s", sql, error)
        return False
    return True
