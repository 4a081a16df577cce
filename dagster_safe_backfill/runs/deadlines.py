"""deadlines: a batch that takes too long is stopped, in the warehouse or in the user's function."""

from __future__ import annotations

import math
import signal
import threading
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Any, NoReturn

from dagster_safe_backfill.errors import BatchTimeoutError, ConfigurationError, StatementCancelledError
from dagster_safe_backfill.warehouses.base import Session

_AGAIN_AFTER = 0.05
_AT_ONCE = 1e-6
"""A timer of 0 would be none."""


class Deadline:
    """A budget of time for one batch, which starts when this is made and goes on over all of its blocks.

    Args:
        seconds: How much it is; None for no end, which costs nothing.
        what: What runs, for the error's message; with its table and partitions.

    Raises:
        ConfigurationError: The seconds aren't a positive number.
    """

    def __init__(self, seconds: float | None, what: str) -> None:
        if seconds is not None and not 0 < seconds < math.inf:
            raise ConfigurationError(f"timeout_seconds is {seconds}, and must be above 0; leave it out for no limit")
        self._seconds = seconds
        self._what = what
        self._started = time.monotonic()

    @contextmanager
    def over(self, connection: Session) -> Generator[None, None, None]:
        """Stop the statements of a block once the time is over.

        A thread cancels the statement that runs then, and after it each one that it meets, until the block ends. No
        COMMIT and no ROLLBACK is cancelled: a transaction that reaches its COMMIT in time or late is whole and stays,
        each other is undone. A block that ends by itself, though late, is a success. Python code between the
        statements is not stopped.

        Raises:
            BatchTimeoutError: A statement was stopped; caused by its `StatementCancelledError`.
        """
        if self._seconds is None:
            yield
            return
        ended = threading.Event()
        watchdog = threading.Thread(
            target=self._watch, args=(connection, ended), name="dagster-safe-backfill deadline", daemon=True
        )
        watchdog.start()
        try:
            yield
        except StatementCancelledError as error:
            # One that came before was not this deadline's.
            if self._left() > 0:
                raise
            raise self._error() from error
        finally:
            ended.set()
            watchdog.join()

    @contextmanager
    def over_python(self) -> Generator[None, None, None]:
        """Stop the user's function in the block once the time is over.

        In the process's main thread, by SIGALRM, whose handler raises in the middle of the function. Whoever had a
        handler and a timer before gets them back; a timer of theirs that ends first is left alone. In other threads,
        on Windows, and if the function swallows the error, it is raised when the function has returned.

        What runs in C is stopped only where it asks for signals; else the error comes when its call returns, as from
        numpy, polars and most drivers. DuckDB asks between the pieces of a statement, but since 2.0 of joins, writes
        and `df()` only at their end; a `Query` that the function returns is run, and stopped, by the library. What
        the function had begun in a database of its own is its own to undo, as after any error.

        Raises:
            BatchTimeoutError: The time was over before the function returned.
        """
        if self._seconds is None:
            yield
            return
        alarm = _Alarm(self._raise)
        try:
            alarm.set(max(self._left(), _AT_ONCE))
            yield
        except BatchTimeoutError:
            raise
        except Exception as error:
            # What runs in C may raise something else for what the handler raised.
            if alarm.has_rung:
                raise self._error() from error
            raise
        finally:
            alarm.stop()
        if self._left() <= 0:
            self._raise()

    def _watch(self, connection: Session, ended: threading.Event) -> None:
        wait = self._left()
        while not ended.wait(wait):
            connection.cancel()
            # What falls between two statements meets none of them.
            wait = _AGAIN_AFTER

    def _left(self) -> float:
        assert self._seconds is not None
        return self._started + self._seconds - time.monotonic()

    def _error(self) -> BatchTimeoutError:
        assert self._seconds is not None
        elapsed = time.monotonic() - self._started
        return BatchTimeoutError(
            f"{self._what} was stopped after {elapsed:.1f} s, as timeout_seconds is {self._seconds:g}; nothing of it is"
            " live. Raise timeout_seconds, or make the batches smaller with batches=…",
            seconds=self._seconds,
            what=self._what,
        )

    def _raise(self) -> NoReturn:
        raise self._error()


class _Alarm:
    """The process's one timer, borrowed. Where it can't be had, it doesn't ring.

    It gives the timer back before it rings, since it may ring anywhere: also on the way to being stopped.

    Attributes:
        has_rung: Whether it did.
    """

    def __init__(self, ring: Callable[[], None]) -> None:
        self._ring = ring
        self._is_set = False
        self.has_rung = False

    def set(self, seconds: float) -> None:
        if not hasattr(signal, "setitimer") or threading.current_thread() is not threading.main_thread():
            return
        # A handler that isn't of Python can't be given back.
        if signal.getsignal(signal.SIGALRM) is None or 0 < signal.getitimer(signal.ITIMER_REAL)[0] <= seconds:
            return
        # Theirs is stopped first, lest it rings for this one.
        self._their_delay, self._their_interval = signal.setitimer(signal.ITIMER_REAL, 0)
        self._set_at = time.monotonic()
        self._their_handler = signal.signal(signal.SIGALRM, self._on_signal)
        self._is_set = True
        signal.setitimer(signal.ITIMER_REAL, seconds)

    def stop(self) -> None:
        if not self._is_set:
            return
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, self._their_handler)
        self._is_set = False
        if self._their_delay:
            left = self._their_delay - (time.monotonic() - self._set_at)
            signal.setitimer(signal.ITIMER_REAL, max(left, _AT_ONCE), self._their_interval)

    def _on_signal(self, _signal: int, _frame: Any) -> None:
        self.stop()
        self.has_rung = True
        self._ring()
