"""A transaction of Snowflake, and the statements that must run before it, beside it or after it."""

from __future__ import annotations

import logging
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Protocol

from dagster_safe_backfill.errors import (
    SafeBackfillError,
    TransactionConflictError,
    WarehouseError,
    WarehouseUnavailableError,
)
from dagster_safe_backfill.model.tables import TableRef
from dagster_safe_backfill.redaction import statement_text
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

    def closing(self, *, is_archived: bool) -> list[str]:
        """Return the statements that complete the swap after it was recorded."""
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
        elsewhere: Opens another session, which can tell how the transaction has ended.
        id: Snowflake's id of the transaction, once it was asked for.
        is_held: True if a table is held in the transaction.
        pending: An INSERT that wasn't sent. If no other statement follows, it is committed by itself: no abort from
            outside can part it from its COMMIT.
        has_begun: True once BEGIN was sent. It is sent before the first change: each statement sees the rows that were
            committed before it, in a transaction or not.
        has_changed: True if there is something to commit.
        created: The tables that were created. A rollback drops them.
        dropped: A mapping from table name to the statement that drops the table after COMMIT.
        removed: The statements that remove the session's own tables after the transaction has ended.
        swap: The table that is replaced in the transaction. Its clone is changed before BEGIN.
        failure: The error of a statement that failed.
        is_in_doubt: True if COMMIT was sent, its reply was not read, and Snowflake can't be asked how it ended. Then
            nothing is undone, and the next attempt reads in the ledger whether the transaction was committed.
        is_stuck: True if ROLLBACK failed. Then DDL in this session would commit the changes that should be undone.
    """

    own: Connection
    elsewhere: Callable[[], Connection]
    id: str | None = None
    is_held: bool = False
    pending: tuple[str, Sequence[Row]] | None = None
    has_begun: bool = False
    has_changed: bool = False
    created: list[str] = field(default_factory=list[str])
    dropped: dict[str, str] = field(default_factory=dict[str, str])
    removed: list[str] = field(default_factory=list[str])
    swap: Swap | None = None
    failure: SafeBackfillError | None = None
    is_in_doubt: bool = False
    is_stuck: bool = False

    @property
    def is_aside(self) -> bool:
        """True while only a clone is changed that isn't swapped in yet, which needs no transaction."""
        return self.swap is not None and not self.swap.is_swapped

    def begin(self, name: str = "") -> None:
        """Send BEGIN, unless it was sent, and then the INSERT that is pending.

        A transaction with a name is one that is to hold a table: it is identified once it does.

        Without autocommit, statements that follow when the server has aborted the transaction are not committed one by
        one. They begin another transaction, which `commit` finds and rolls back.
        """
        if self.is_aside:
            self.own.set_autocommit(True)
        elif not self.has_begun:
            self.own.set_autocommit(False)
            # Set before the statement, in case its reply is lost: a ROLLBACK without a transaction does nothing.
            self.has_begun, self.id = True, None
            self.own.execute(f"BEGIN TRANSACTION{f' NAME {name}' if name else ''}", is_stoppable=False)
            if not name:
                self.identify()
        if self.pending is not None:
            (sql, rows), self.pending = self.pending, None
            self.own.insert(sql, rows)

    def identify(self) -> None:
        """Ask for the transaction's id, and check that it is the one that this object has begun.

        Raises:
            TransactionConflictError: The server has aborted the transaction, or it is another one.
        """
        ((now,),) = self.own.execute("SELECT CURRENT_TRANSACTION()", is_stoppable=False)
        if now is None or self.id not in (None, str(now)):
            raise TransactionConflictError(
                "the transaction was aborted from outside, so its changes are undone. Snowflake aborts transactions"
                " that are idle for five minutes while they block another one, and users can do it with"
                " SYSTEM$ABORT_TRANSACTION"
            )
        self.id = str(now)

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
        if self.pending is not None:
            self._commit_pending(*self.pending)
        elif self.has_begun:
            self.identify()
            self._commit()
            self.is_in_doubt = self.has_begun = False

    def _commit_pending(self, sql: str, rows: Sequence[Row]) -> None:
        self.own.set_autocommit(True)
        self.is_in_doubt = True
        try:
            self.own.insert(sql, rows, is_stoppable=False)
        except SafeBackfillError as error:
            self.is_in_doubt = isinstance(error, WarehouseUnavailableError)
            raise
        self.pending, self.is_in_doubt = None, False

    def _commit(self) -> None:
        """Send COMMIT, and ask how the transaction has ended: COMMIT doesn't fail if there is no transaction any more.

        Raises:
            WarehouseUnavailableError: It isn't known that the transaction was committed.
            TransactionConflictError: The server aborted the transaction before COMMIT.
        """
        self.is_in_doubt = True
        try:
            self.own.execute("COMMIT", is_stoppable=False)
        except WarehouseUnavailableError:
            if not self._is_settled():
                raise
            return
        try:
            state = self.own.ending_of(self.id)
        except SafeBackfillError as error:
            _LOG.debug("%s", error)
            return
        if state == "rolled back":
            self.is_in_doubt = self.has_begun = False
            raise TransactionConflictError("the transaction was aborted from outside just before COMMIT")

    def _is_settled(self) -> bool:
        """Ask in another session whether the transaction was committed.

        It is aborted first, so that a COMMIT which is still on its way can't take place after the answer. This doesn't
        change a transaction that has ended.
        """
        try:
            other = self.elsewhere()
            other.execute(f"SELECT SYSTEM$ABORT_TRANSACTION({self.id})", is_stoppable=False)
            state = other.ending_of(self.id)
        except SafeBackfillError as error:
            _LOG.warning("it is not known whether transaction %s was committed: %s", self.id, error)
            return False
        _LOG.warning("the reply to COMMIT was lost; Snowflake says that transaction %s is %s", self.id, state)
        if state != "committed":
            return False
        self.own = other
        return True

    def roll_back(self) -> None:
        """Undo all changes. If Snowflake can't be reached, recovery and the retention schedule undo the rest later."""
        if self.has_begun:
            self.is_stuck = not quietly(self.own, "ROLLBACK")
            self.id = None
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
            self.has_begun, self.id = False, None

    def close(self, *, is_committed: bool) -> None:
        """Drop the tables that aren't needed any more.

        If ROLLBACK failed, they are dropped at the end of the session or by the retention schedule.
        """
        if self.is_stuck:
            return
        after = [*self.dropped.values()] if is_committed else []
        # The mark is removed only after COMMIT: until then, `recover` needs it to see that the tables were swapped.
        if self.swap is not None and is_committed:
            after += self.swap.closing(is_archived=name_of(self.swap.aside) not in self.dropped)
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
        transaction = Transaction(own=self.own, elsewhere=self._connections.renewed)
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
            self.send_pending()
            return self.own.execute(sql)

    def send_pending(self) -> None:
        """Send the INSERT that is pending, for a statement that may read its rows."""
        if self.transaction is not None and self.transaction.pending is not None:
            self.transaction.begin()

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
            transaction = self.transaction
            is_first = transaction is not None and not (transaction.has_begun or transaction.pending)
            if transaction is not None and is_first and not transaction.is_aside:
                transaction.pending = sql, rows
                return
            self.begin()
            self.own.insert(sql, rows)

    def define(self, sql: str) -> None:
        """Run DDL at once: on the own connection before BEGIN, else on the second one."""
        with self._noting_failure():
            self._check_writable(sql)
            self.send_pending()
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
        # COPY INTO changes rows.
        self.own.set_autocommit(True)
        self.own.execute(sql)

    def remove(self, sql: str) -> None:
        """Drop a table of this session only, at once or after the transaction has ended."""
        if self.transaction is not None and self.transaction.has_begun:
            self.transaction.removed.append(sql)
        else:
            quietly(self.own, sql)

    def begin(self, *, name: str = "") -> None:
        """Send BEGIN for the open transaction, unless it was sent. Without one, each statement is committed."""
        if self.transaction is not None:
            self.transaction.begin(name)
        else:
            self.own.set_autocommit(True)

    def release(self) -> None:
        """Send ROLLBACK for the open transaction, which has changed nothing."""
        if self.transaction is not None:
            self.transaction.release()

    def identify(self) -> None:
        """Ask for the id of the open transaction, which now holds a table."""
        if self.transaction is not None:
            self.transaction.identify()
            self.transaction.is_held = True

    def renew_beside(self) -> Connection:
        """Open the second connection anew, which then sees all that is committed."""
        return self._connections.renewed()

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
        _LOG.warning("%s: %s", statement_text(sql), error)
        return False
    return True
