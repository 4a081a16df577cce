"""Readers that look at a table's totals again and again while somebody else publishes."""

from __future__ import annotations

import multiprocessing
import threading
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

import duckdb
import sqlglot

from dagster_safe_backfill.errors import WarehouseLockedError
from dagster_safe_backfill.warehouses.duckdb.session import DuckDBWarehouse

if TYPE_CHECKING:
    from multiprocessing.queues import SimpleQueue
    from multiprocessing.synchronize import Event

TOTALS = "SELECT count(*), min(value), max(value), sum(value) FROM t"
_PATIENCE = 0.2
_BREATH = 0.01
"""Seconds between two reads, in which a writer gets hold of the file, or of the interpreter."""

Totals = tuple[int, float, float, float]


class Flag(Protocol):
    """Says that it's over: an event of threads or of processes."""

    def is_set(self) -> bool:
        """Return whether it is."""


@dataclass(kw_only=True, slots=True)
class Seen:
    """What was read.

    Attributes:
        totals: What each read found.
        kept_out: What DuckDB said when its lock kept a plain connection out.
        waited: How often the library's reader then got in by waiting.
        refused: The processes that it named where it had waited for as long as it may.
        error: What should not have happened.
    """

    totals: list[Totals] = field(default_factory=list[Totals])
    kept_out: list[str] = field(default_factory=list[str])
    waited: int = 0
    refused: list[int | None] = field(default_factory=list["int | None"])
    error: str | None = None


@contextmanager
def reading_process(path: str) -> Generator[tuple[Seen, Callable[..., bool]], None, None]:
    """Read in another process during the block; what it saw is there after it.

    Beside it comes what waits until the process has read once more, or for some seconds in vain.
    """
    context = multiprocessing.get_context("spawn")
    is_over, again, found = context.Event(), context.Event(), context.SimpleQueue()
    process = context.Process(target=_read_in_turns, args=(path, is_over, again, found))
    process.start()
    seen = Seen()

    def reads_again(seconds: float = 60) -> bool:
        again.clear()
        return again.wait(seconds)

    try:
        assert reads_again()
        yield seen, reads_again
    finally:
        is_over.set()
        last: Seen = found.get()
        process.join()
        for name in Seen.__slots__:
            setattr(seen, name, getattr(last, name))


def _read_in_turns(path: str, is_over: Event, again: Event, found: SimpleQueue[Seen]) -> None:
    seen = Seen()
    try:
        while not is_over.is_set():
            if _read_once(path, seen):
                again.set()
            time.sleep(_BREATH)
    except Exception as error:
        seen.error = repr(error)
    found.put(seen)


def _read_once(path: str, seen: Seen) -> bool:
    """Read by a plain connection; if the file is locked, by the library's reader, which waits for a while."""
    try:
        with duckdb.connect(path, read_only=True) as plain:
            seen.totals.append(plain.execute(TOTALS).fetchall()[0])
            return True
    except duckdb.IOException as error:
        seen.kept_out.append(str(error))
    try:
        with DuckDBWarehouse(path, lock_timeout=_PATIENCE).connect(read_only=True) as connection:
            seen.totals.append(connection.query(sqlglot.parse_one(TOTALS, dialect="duckdb"))[0])
            seen.waited += 1
            return True
    except WarehouseLockedError as error:
        seen.refused.append(error.pid)
        return False


@contextmanager
def reading_thread(read: Callable[[], Totals]) -> Generator[Seen, None, None]:
    """Read in a thread of this process during the block."""
    seen, is_over = Seen(), threading.Event()
    thread = threading.Thread(target=_read_on, args=(read, is_over, seen))
    thread.start()
    try:
        yield seen
    finally:
        is_over.set()
        thread.join()


def _read_on(read: Callable[[], Totals], is_over: Flag, seen: Seen) -> None:
    try:
        while not is_over.is_set():
            seen.totals.append(read())
            # Two of these without a pause leave the publisher a third of the interpreter.
            time.sleep(_BREATH)
    except Exception as error:
        seen.error = repr(error)
