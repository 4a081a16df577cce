"""A transaction of Snowflake's, and what can't be done within it and is done before, beside or after it."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field

from dagster_safe_backfill.errors import SafeBackfillError, WarehouseError
from dagster_safe_backfill.warehouses.snowflake_sessions import Session
from dagster_safe_backfill.warehouses.snowflake_swaps import Swap, undo
from dagster_safe_backfill.warehouses.snowflake_tables import name_of

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
    """

    own: Session
    has_begun: bool = False
    has_changed: bool = False
    created: list[str] = field(default_factory=list[str])
    dropped: dict[str, str] = field(default_factory=dict[str, str])
    removed: list[str] = field(default_factory=list[str])
    swap: Swap | None = None
    failure: SafeBackfillError | None = None

    def begin(self) -> None:
        """Send BEGIN, if it wasn't yet, and isn't to be: a clone is no reader's."""
        is_aside = self.swap is not None and not self.swap.is_swapped
        if not self.has_begun and not is_aside:
            self.own.execute("BEGIN TRANSACTION", is_stoppable=False)
            self.has_begun = True

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
            # A reply that is lost is not asked for again: whether it was committed is in the ledger.
            self.own.execute("COMMIT", is_stoppable=False)
            self.has_begun = False

    def roll_back(self) -> None:
        """Undo all of it, as far as Snowflake can be reached; the rest is left to recovery and retention."""
        self.release()
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
        """Send ROLLBACK, if there is something to roll back or a lock to give up."""
        if self.has_begun:
            quietly(self.own, "ROLLBACK")
            self.has_begun = False

    def close(self, *, is_committed: bool) -> None:
        """Remove what is needed no more."""
        after = [*self.dropped.values()] if is_committed else []
        if self.swap is not None and is_committed:
            after.append(self.swap.comment_sql)
        for statement in [*self.removed, *after]:
            quietly(self.own, statement)


def quietly(session: Session, sql: str) -> None:
    """Run what cleans up; that it fails is no news, or is left to retention."""
    try:
        session.execute(sql, is_stoppable=False)
    except SafeBackfillError as error:
        _LOG.warning("%s: %s", sql, error)
