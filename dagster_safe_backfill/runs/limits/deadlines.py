"""Stopping a batch that takes too long, in the warehouse or in the user's function."""

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
"""`signal.setitimer` switches the timer off if it gets 0."""


class Deadline:
    """The time limit of one batch. It starts when the object is made, and all blocks share it.

    Args:
        seconds: The limit in seconds. If None, there is no limit, and no thread or timer is started.
        what: A description of the work for the error's message, with its table and partitions.

    Raises:
        ConfigurationError: `seconds` isn't a positive number.
    """

    def __init__(self, seconds: float | None, what: str) -> None:
        # NaN compares as False, so this form refuses it as well.
        if seconds is not None and not 0 < seconds < math.inf:
            raise ConfigurationError(
                f"timeout_seconds is {seconds}, but must be a finite number above 0. Leave it out for no limit."
            )
        self._seconds = seconds
        self._what = what
        # time.monotonic() isn't affected by changes of the system clock (Python docs, time).
        self._started = time.monotonic()

    @contextmanager
    def over(self, connection: Session) -> Generator[None, None, None]:
        """Cancel the statements of a block when the time limit is reached.

        A thread cancels the running statement, and then every further statement, until the block ends. It never
        cancels a COMMIT or a ROLLBACK: a transaction that reaches its COMMIT is committed, even after the limit, and
        every other transaction is rolled back. A block that ends by itself after the limit succeeds. Python code
        between the statements is not stopped.

        Raises:
            BatchTimeoutError: A statement was cancelled. Its cause is the statement's `StatementCancelledError`.
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
            # Before the limit, somebody else cancelled the statement, which is a different error.
            if self._left() > 0:
                raise
            raise self._error() from error
        finally:
            ended.set()
            watchdog.join()

    @contextmanager
    def over_python(self) -> Generator[None, None, None]:
        """Stop the user's function in the block when the time limit is reached.

        In the main thread of the process, the handler of SIGALRM raises the error in the middle of the function. An
        earlier handler and its timer are restored afterwards; an earlier timer that ends before the limit is left
        alone. In other threads, on Windows, and if the function catches the error, it is raised when the function
        returns.

        Code in C is stopped only where it checks for signals. Otherwise the error is raised when its call returns, as
        with numpy, polars and most drivers. DuckDB checks between the chunks of a statement, but since 2.0 it checks
        joins, writes and `df()` only at their end. A `Query` that the function returns is run, and stopped, by the
        library. If the function has begun a transaction in another database, it must roll that back itself.

        Raises:
            BatchTimeoutError: The limit was reached before the function returned.
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
            # Code in C may replace the handler's error by its own: DuckDB 2.0 raises RuntimeError.
            if alarm.has_rung:
                raise self._error() from error
            raise
        finally:
            alarm.stop()
        # No alarm was set (another thread, Windows), or the function caught the error.
        if self._left() <= 0:
            self._raise()

    def _watch(self, connection: Session, ended: threading.Event) -> None:
        wait = self._left()
        while not ended.wait(wait):
            connection.cancel()
            # A cancel between two statements has no effect on the next one, so it is repeated.
            wait = _AGAIN_AFTER

    def _left(self) -> float:
        assert self._seconds is not None
        return self._started + self._seconds - time.monotonic()

    def _error(self) -> BatchTimeoutError:
        assert self._seconds is not None
        elapsed = time.monotonic() - self._started
        return BatchTimeoutError(
            f"{self._what} took longer than timeout_seconds={self._seconds:g}, so it was stopped after {elapsed:.1f} s,"
            " and nothing of it is live. Raise Limits(timeout_seconds=…), or make the batches smaller with"
            " Batches(size=…).",
            seconds=self._seconds,
            what=self._what,
        )

    def _raise(self) -> NoReturn:
        raise self._error()


class _Alarm:
    """An alarm on the timer of the process, of which there is only one; it never rings where the timer can't be used.

    It restores the earlier timer before it rings, because it can ring at any moment, even while `stop` is called.

    Attributes:
        has_rung: True if the alarm has rung.
    """

    def __init__(self, ring: Callable[[], None]) -> None:
        self._ring = ring
        self._is_set = False
        self.has_rung = False

    def set(self, seconds: float) -> None:
        # Windows has no setitimer, and only the main thread can set signal handlers (Python docs, signal).
        if not hasattr(signal, "setitimer") or threading.current_thread() is not threading.main_thread():
            return
        # getsignal() returns None for a handler that wasn't installed from Python, which can't be restored. An earlier
        # alarm that is due first must not be delayed.
        if signal.getsignal(signal.SIGALRM) is None or 0 < signal.getitimer(signal.ITIMER_REAL)[0] <= seconds:
            return
        # Stop the earlier timer before the handler changes, so that it can't ring in this alarm's handler.
        self._their_delay, self._their_interval = signal.setitimer(signal.ITIMER_REAL, 0)
        self._set_at = time.monotonic()
        self._their_handler = signal.signal(signal.SIGALRM, self._on_signal)
        self._is_set = True
        signal.setitimer(signal.ITIMER_REAL, seconds)

    def stop(self) -> None:
        if not self._is_set:
            return
        # Stop the timer before the handler changes: the default action of SIGALRM ends the process.
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, self._their_handler)
        self._is_set = False
        if self._their_delay:
            # An earlier alarm that became due in the meantime rings at once.
            left = self._their_delay - (time.monotonic() - self._set_at)
            signal.setitimer(signal.ITIMER_REAL, max(left, _AT_ONCE), self._their_interval)

    def _on_signal(self, _signal: int, _frame: Any) -> None:
        self.stop()
        self.has_rung = True
        self._ring()
