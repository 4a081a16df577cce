"""Table locks, as UPDATE, DELETE and MERGE take them on Snowflake: until the transaction ends."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from dagster_safe_backfill_tests.harness.snowflake import errors


@dataclass(frozen=True)
class Waiter:
    """Who asks for a lock, how long it waits, and how it learns that it need wait no more."""

    session: int
    transaction: int
    query_id: str
    patience: float
    check: Callable[[], None]
    """Raises if the statement was cancelled, or ran out of its time."""


@dataclass
class _Held:
    session: int
    transaction: int
    query_id: str


class TableLocks:
    """Which session holds which table."""

    def __init__(self) -> None:
        self._held: dict[str, _Held] = {}
        self._written: dict[str, dict[int, _Held]] = {}
        self._changed = threading.Condition()
        self.waiting: set[int] = set()
        """The sessions that wait for a lock now."""

    def acquire(self, table: str, waiter: Waiter, *, on_blocked: Callable[[int], None], alone: bool = False) -> None:
        """Take the lock of a table, or wait for it as long as LOCK_TIMEOUT allows.

        `on_blocked` is told the session in the way, time and again, so that an idle one can be aborted. With `alone`,
        for DDL, rows that another session has inserted and not committed are in the way, too.
        """
        deadline = time.monotonic() + waiter.patience
        try:
            self._acquire(table, waiter, deadline, on_blocked, alone=alone)
        finally:
            self.waiting.discard(waiter.session)

    def _acquire(
        self, table: str, waiter: Waiter, deadline: float, on_blocked: Callable[[int], None], *, alone: bool
    ) -> None:
        while True:
            with self._changed:
                held = self._in_the_way(table, waiter.session, alone=alone)
                if held is None:
                    self._held.setdefault(table, _Held(waiter.session, waiter.transaction, waiter.query_id))
                    return
                left = deadline - time.monotonic()
                if left <= 0:
                    name = table.rsplit(".", 1)[-1]
                    raise errors.lock_not_released(
                        held.query_id, name, held.transaction, waiter.query_id, waiter.patience
                    )
                self.waiting.add(waiter.session)
                self._changed.wait(min(left, 0.05))
            waiter.check()
            on_blocked(held.session)

    def _in_the_way(self, table: str, session: int, *, alone: bool) -> _Held | None:
        held = self._held.get(table)
        if held is not None and held.session != session:
            return held
        writers = self._written.get(table, {}) if alone else {}
        return next((one for number, one in writers.items() if number != session), None)

    def wrote(self, table: str, session: int, transaction: int, query_id: str) -> None:
        """Note rows that a session has written and not committed."""
        with self._changed:
            self._written.setdefault(table, {})[session] = _Held(session, transaction, query_id)

    def has(self, table: str, session: int) -> bool:
        with self._changed:
            held = self._held.get(table)
            return held is not None and held.session == session

    def release_one(self, table: str, session: int) -> None:
        """Give up the lock of one table, as a statement that has changed no row has taken none."""
        with self._changed:
            held = self._held.get(table)
            if held is not None and held.session == session:
                del self._held[table]
            self._changed.notify_all()

    def release(self, session: int) -> None:
        with self._changed:
            self._held = {table: held for table, held in self._held.items() if held.session != session}
            for writers in self._written.values():
                writers.pop(session, None)
            self._changed.notify_all()

    def held_by(self, session: int) -> frozenset[str]:
        return frozenset(table for table, holder in self.held().items() if holder == session)

    def transactions(self) -> dict[str, int]:
        """Return the transaction that holds each locked table."""
        with self._changed:
            return {table: held.transaction for table, held in self._held.items()}

    def held(self) -> dict[str, int]:
        """Return the session that holds each locked table."""
        with self._changed:
            return {table: held.session for table, held in self._held.items()}
