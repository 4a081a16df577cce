"""A transaction of Snowflake's, and what can't be done within it and is done before, beside or after it."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field

from dagster_safe_backfill.errors import SafeBackfillError, WarehouseError
from dagster_safe_backfill.warehouses.snowflake.driver import Session
from dagster_safe_backfill.warehouses.snowflake.swap import Swap, undo
from dagster_safe_backfill.warehouses.snowflake.tables import name_of

_LOG = logging.getLogger(__name__)


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

    own: Session
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
                undo(self.own, self.swap.table, self.swap.aside)
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


def quietly(session: Session, sql: str) -> bool:
    """Run what cleans up, and return whether it could be; that it fails is no news, or is left to retention."""
    try:
        session.execute(sql, is_stoppable=False)
    except SafeBackfillError as error:
        _LOG.warning("%s: %s", sql, error)
        return False
    return True
