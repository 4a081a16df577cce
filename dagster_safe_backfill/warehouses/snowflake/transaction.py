"""A transaction of Snowflake's, and what can't be done within it and is done before, beside or after it."""

from __future__ import annotations

import logging
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Protocol

from dagster_safe_backfill.errors import SafeBackfillError, TransactionConflictError, WarehouseError
from dagster_safe_backfill.model.tables import TableRef
from dagster_safe_backfill.warehouses.base import Row
from dagster_safe_backfill.warehouses.snowflake.catalog import name_of
from dagster_safe_backfill.warehouses.snowflake.driver import Connection, Connections

_LOG = logging.getLogger(__name__)


class BeginAnewError(TransactionConflictError):
    """What a transaction needed was done outside of it, so that it is to begin anew, now."""


class Swap(Protocol):
    """A table that is replaced in a transaction; see `swap.Swap`."""

    table: TableRef
    aside: TableRef
    is_begun: bool
    is_swapped: bool

    @property
    def comment_sql(self) -> str:
        """The statement that gives the live table its own comment again."""
        ...

    def undo(self, connection: Connection) -> None:
        """Swap back, if they were swapped, and drop the clone."""
        ...


@dataclass(slots=True, kw_only=True)
class Transaction:
    """DDL commits the transaction of its session: so tables are made and dropped outside of it.

    Attributes:
        has_begun: Whether BEGIN was sent: it waits for the first change, as each statement sees what was committed
            before it, in a transaction or not.
        has_changed: Whether there is something to commit.
        created: The tables that were made, which go if it is rolled back.
        dropped: The statements that drop tables once it is committed, by the tables' names.
        removed: The statements that remove what was the session's own, once it is over.
        swap: The table that is replaced in it, whose clone is changed outside of it until they are swapped.
        failure: What a statement of it raised.
        is_in_doubt: Whether COMMIT was sent, and its reply was not read: then the ledger tells, and nothing is undone.
        is_stuck: Whether ROLLBACK failed, so that DDL in this session would commit what is to be rolled back.
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
        """Send BEGIN, if it wasn't yet, and isn't to be: a clone is no reader's."""
        is_aside = self.swap is not None and not self.swap.is_swapped
        if not self.has_begun and not is_aside:
            # Also if its reply is lost: a ROLLBACK too many does no harm.
            self.has_begun = True
            self.own.execute("BEGIN TRANSACTION", is_stoppable=False)

    def commit(self) -> None:
        """Commit.

        Raises:
            WarehouseError: A statement of it failed, though somebody went on; Snowflake itself would commit the others.
        """
        if self.failure is not None:
            raise WarehouseError(
                f"a statement of the transaction failed, so nothing of it is committed: {self.failure}"
            ) from self.failure
        if self.has_begun:
            self.is_in_doubt = True
            self.own.execute("COMMIT", is_stoppable=False)
            self.is_in_doubt = self.has_begun = False

    def roll_back(self) -> None:
        """Undo all of it, as far as Snowflake can be reached; the rest is left to recovery and retention."""
        if self.has_begun:
            self.is_stuck = not quietly(self.own, "ROLLBACK")
            self.has_begun = False
        if self.is_stuck:
            return
        if self.is_in_doubt:
            _LOG.warning("whether the transaction was committed is to be read in the ledger; the next try will")
            return
        if self.swap is not None and self.swap.is_begun:
            try:
                self.swap.undo(self.own)
            except SafeBackfillError as error:
                _LOG.warning("%s is not swapped back: %s", self.swap.table, error)
        # What has been swapped may be the live table, whatever its name.
        swapped = name_of(self.swap.aside) if self.swap is not None and self.swap.is_begun else None
        for name in self.created:
            if name == swapped:
                continue
            quietly(self.own, f"DROP TABLE IF EXISTS {name}")

    def release(self) -> None:
        """Send ROLLBACK, to give up a lock before what would commit the transaction."""
        if self.has_begun:
            self.own.execute("ROLLBACK", is_stoppable=False)
            self.has_begun = False

    def close(self, *, is_committed: bool) -> None:
        """Remove what is needed no more; where that can't be done safely, the end of the session and retention do."""
        if self.is_stuck:
            return
        after = [*self.dropped.values()] if is_committed else []
        if self.swap is not None and is_committed:
            after.append(self.swap.comment_sql)
        for statement in [*self.removed, *after]:
            quietly(self.own, statement)


class Statements:
    """Runs statements in the transaction of a session, before it, or beside it in a connection of their own.

    Args:
        own: The connection of the transactions.
        connections: All of the session.
        read_only: Whether to refuse what changes something, as Snowflake has no such sessions.

    Attributes:
        transaction: The one that is going on.
    """

    def __init__(self, own: Connection, connections: Connections, *, read_only: bool) -> None:
        self.own = own
        self.transaction: Transaction | None = None
        self._connections = connections
        self._read_only = read_only

    @property
    def beside(self) -> Connection:
        """The connection that commits each statement."""
        return self._connections.beside

    @contextmanager
    def in_transaction(self) -> Generator[None, None, None]:
        """Commit at the end of the block, or undo all of it."""
        transaction = Transaction(own=self.own)
        is_committed = False
        self.transaction = transaction
        try:
            yield
            transaction.commit()
            is_committed = True
        except BaseException:
            transaction.own = self._connections.alive(self.own)
            transaction.roll_back()
            raise
        finally:
            self.transaction = None
            transaction.close(is_committed=is_committed)

    def query(self, sql: str) -> list[Row]:
        """Run what changes nothing."""
        with self._noting_failure():
            return self.own.execute(sql)

    def change(self, sql: str) -> Row:
        """Run what changes rows, in the transaction, and return the numbers of rows that it tells."""
        with self._noting_failure():
            self._check_writable(sql)
            self.begin()
            found = self.own.execute(sql)
            if self.transaction is not None:
                self.transaction.has_changed = True
            return found[0]

    def insert(self, sql: str, rows: Sequence[Row]) -> None:
        """Run an INSERT of placeholders in the transaction."""
        with self._noting_failure():
            self._check_writable(sql)
            self.begin()
            self.own.insert(sql, rows)

    def define(self, sql: str) -> None:
        """Run DDL at once: before BEGIN, or beside the transaction."""
        with self._noting_failure():
            self._check_writable(sql)
            is_beside = self.transaction is not None and self.transaction.has_begun
            (self.beside if is_beside else self.own).execute(sql)

    def before(self, sql: str) -> None:
        """Run what is the session's own, and would end a transaction.

        Raises:
            WarehouseError: One has begun.
        """
        if self.transaction is not None and self.transaction.has_begun:
            raise WarehouseError(f"this can't be run once a transaction has changed something: {sql[:300]}")
        self.own.execute(sql)

    def remove(self, sql: str) -> None:
        """Remove what is the session's own, at once or when the transaction is over."""
        if self.transaction is not None and self.transaction.has_begun:
            self.transaction.removed.append(sql)
        else:
            quietly(self.own, sql)

    def begin(self) -> None:
        """Begin the transaction that is going on."""
        if self.transaction is not None:
            self.transaction.begin()

    def _check_writable(self, sql: str) -> None:
        if self._read_only:
            raise WarehouseError(f"this session is for reading only: {sql[:300]}")

    @contextmanager
    def _noting_failure(self) -> Generator[None, None, None]:
        """Keep a transaction from being committed once a statement of it failed, which Snowflake itself doesn't."""
        try:
            yield
        except SafeBackfillError as error:
            if self.transaction is not None:
                self.transaction.failure = error
            raise


def quietly(connection: Connection, sql: str) -> bool:
    """Run what cleans up, and return whether it could be; that it fails is no news, or is left to retention."""
    try:
        connection.execute(sql, is_stoppable=False)
    except SafeBackfillError as error:
        _LOG.warning("%s: %s", sql, error)
        return False
    return True
