"""Two changes of one table at a time on the emulated Snowflake: one is held before each of its statements."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

from dagster_safe_backfill.warehouses.base import STATEMENTS
from dagster_safe_backfill_tests.harness.publications import Publications
from dagster_safe_backfill_tests.harness.snowflake.emulator import Emulator
from dagster_safe_backfill_tests.harness.snowflake_backend import SnowflakeBackend

HELD, OTHER = "held", "other"
PATIENCE = 60.0
"""Seconds after which a thread is taken to be stuck for good."""

Work = Callable[[Publications], object]


@dataclass(frozen=True, kw_only=True)
class Race:
    """How it went when one was held before its statement number `at`; what each returned or raised."""

    table: Publications
    at: int
    statement: str
    held: Any
    other: Any

    @property
    def outcomes(self) -> dict[str, Any]:
        return {HELD: self.held, OTHER: self.other}


class _Hold(logging.Filter):
    """Holds the thread HELD before its n-th statement."""

    def __init__(self, at: int) -> None:
        super().__init__()
        self.reached, self.goes_on = threading.Event(), threading.Event()
        self.statement = ""
        self._left = at

    def filter(self, record: logging.LogRecord) -> bool:
        if record.threadName == HELD:
            self._left -= 1
            if self._left == 0:
                self.statement = record.getMessage()
                self.reached.set()
                assert self.goes_on.wait(PATIENCE)
        return False


class _Runner(threading.Thread):
    def __init__(self, name: str, table: Publications, work: Work) -> None:
        super().__init__(name=name, daemon=True)
        self.outcome: Any = None
        self._table, self._work = table, work

    def run(self) -> None:
        try:
            self.outcome = self._work(self._table)
        except Exception as error:
            self.outcome = error

    def ended(self) -> Any:
        self.join(PATIENCE)
        assert not self.is_alive(), f"{self.name} is stuck"
        return self.outcome


@contextmanager
def fresh(emulator: Emulator, prepared: Publications) -> Generator[Publications, None, None]:
    """Yield a clone of a database, with sessions that wait for long."""
    assert isinstance(prepared.backend, SnowflakeBackend)
    backend = SnowflakeBackend(emulator)
    table = Publications(backend, live=None)
    table.spec = prepared.spec
    table.warehouse = backend.manager(lock_timeout=PATIENCE).warehouse()
    with backend.session() as connection, connection.cursor() as cursor:
        cursor.execute("DROP TABLE NOTES")
        for name in map(str.upper, prepared.tables()):
            kind = "TRANSIENT TABLE" if "__" in name else "TABLE"
            cursor.execute(f'CREATE {kind} "{name}" CLONE {prepared.backend.database}."MAIN"."{name}"')
    yield table
    emulator.drop(backend.database)


def races(
    emulator: Emulator,
    prepared: Publications,
    held: Work,
    other: Work,
    *,
    step: int = 1,
    until: Literal["it waits", "it ends"] = "it waits",
) -> Iterator[Race]:
    """Race once for each statement of the one that is held, or for each n-th, each time on a fresh clone.

    It is held until the other one has ended; or waits for a lock, unless the emulator aborts who is in the way.
    """
    at = 1
    while True:
        with fresh(emulator, prepared) as table:
            race = _raced(emulator, table, held, other, at=at, until=until)
            if race is None:
                return
            yield race
        at += step


def _raced(emulator: Emulator, table: Publications, held: Work, other: Work, *, at: int, until: str) -> Race | None:
    assert emulator.account is not None
    hold, level = _Hold(at), STATEMENTS.level
    first, second = _Runner(HELD, table, held), _Runner(OTHER, table, other)
    STATEMENTS.addFilter(hold)
    STATEMENTS.setLevel(logging.DEBUG)
    try:
        first.start()
        _wait(lambda: hold.reached.is_set() or not first.is_alive())
        if not hold.reached.is_set():
            assert not isinstance(first.outcome, Exception), first.outcome
            return None
        second.start()
        # One that waits for a lock goes on only when the other does.
        waiting = emulator.account.locks.waiting if until == "it waits" else set[int]()
        _wait(lambda: not second.is_alive() or bool(waiting))
        hold.goes_on.set()
        return Race(table=table, at=at, statement=hold.statement, held=first.ended(), other=second.ended())
    finally:
        hold.goes_on.set()
        STATEMENTS.removeFilter(hold)
        STATEMENTS.setLevel(level)


def _wait(is_so: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not is_so():
        assert time.monotonic() < deadline, "stuck"
        time.sleep(0.002)
