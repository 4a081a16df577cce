"""What is done again, how often, and after which waits."""

from __future__ import annotations

import socket
import subprocess
import sys
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import dagster as dg
import duckdb
import pytest
import requests
from hypothesis import given
from hypothesis import strategies as st

import dagster_safe_backfill as sb
from dagster_safe_backfill.model.transient import is_transient
from dagster_safe_backfill.runs.run import Retries
from dagster_safe_backfill.warehouses.duckdb.errors import translated
from dagster_safe_backfill.warehouses.duckdb.session import DuckDBWarehouse

T = TypeVar("T")


def caused(error: BaseException, cause: BaseException) -> BaseException:
    error.__cause__ = cause
    return error


def its_own_cause() -> BaseException:
    error = ValueError("a")
    return caused(error, caused(ValueError("b"), error))


LOCKED = sb.WarehouseLockedError("locked", database="x", pid=None)
AUDITED = sb.AuditFailedError("no", table="t", shadow="s", failures=[])
TIMEOUT = sb.BatchTimeoutError("late", seconds=1.0, what="it")


@pytest.mark.parametrize(
    ("error", "passes"),
    [
        (LOCKED, True),
        (sb.TransactionConflictError("conflict"), True),
        (sb.WarehouseUnavailableError("gone"), True),
        (ConnectionResetError(), True),
        (BrokenPipeError(), True),
        (TimeoutError(), True),
        (caused(RuntimeError("client"), ConnectionRefusedError()), True),
        (caused(RuntimeError("client"), caused(RuntimeError("pool"), LOCKED)), True),
        (caused(RuntimeError("client"), caused(TIMEOUT, ConnectionError())), False),
        (caused(AUDITED, ConnectionError()), False),
        (caused(sb.StatementCancelledError("stopped"), TimeoutError()), False),
        (sb.SchemaMismatchError("no", table="t", problems=[]), False),
        (sb.ConfigurationError("no"), False),
        (sb.WarehouseError("no"), False),
        (sb.TableNotFoundError("no"), False),
        (TIMEOUT, False),
        (caused(dg.Failure("no", allow_retries=False), ConnectionError()), False),
        (FileNotFoundError(), False),
        (ValueError(), False),
        (KeyboardInterrupt(), False),
        (its_own_cause(), False),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else str(value),
)
def test_what_can_pass(error: BaseException, passes: bool) -> None:
    assert is_transient(error) == passes


def closed_port() -> str:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{server.getsockname()[1]}"


@pytest.mark.parametrize("get", [requests.get, urllib.request.urlopen], ids=["requests", "urllib"])
def test_a_server_that_is_not_there_can_pass_whatever_client_says_so(get: Callable[[str], Any]) -> None:
    with pytest.raises(OSError) as caught:  # noqa: PT011
        get(closed_port())
    assert not isinstance(caught.value, ConnectionError | TimeoutError)
    assert is_transient(caught.value)


def test_what_breaks_while_another_error_is_handled_is_judged_by_itself() -> None:
    def fallback() -> None:
        try:
            raise ConnectionError
        except ConnectionError:
            {}["a"]

    with pytest.raises(KeyError) as caught:
        fallback()
    assert not is_transient(caught.value)


def of_status(status: int) -> duckdb.Error:
    error = duckdb.HTTPException("HTTP Error: refused")
    error.status_code = status
    return error


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (duckdb.IOException("IO Error: Could not establish connection error for HTTP HEAD to 'x'"), True),
        (duckdb.IOException("IO Error: Timeout was reached error for HTTP GET to 'x'"), True),
        (duckdb.IOException('IO Error: Could not read from file "x": Input/output error'), True),
        (duckdb.HTTPException("HTTP Error: HTTP GET error on 'x' (HTTP 500)"), True),
        (duckdb.HTTPException("HTTP Error: HTTP GET error on 'x' (HTTP 404)"), False),
        (of_status(503), True),
        (of_status(429), True),
        (of_status(403), False),
        (duckdb.IOException('IO Error: No files found that match the pattern "x"'), False),
        (duckdb.IOException('IO Error: Cannot open file "x": No such file or directory'), False),
        (duckdb.IOException("IO Error: it is not a valid DuckDB database file!"), False),
        (duckdb.ConnectionException("Connection Error: Connection already closed!"), False),
    ],
    ids=str,
)
def test_which_of_duckdbs_faults_can_pass(error: duckdb.Error, expected: bool) -> None:
    assert isinstance(translated(error, "SELECT 1"), sb.WarehouseUnavailableError) == expected


class Flaky:
    """Fails some times, then returns."""

    def __init__(self, failures: int, error: Exception = LOCKED) -> None:
        self.left = failures
        self.error = error
        self.calls = 0

    def __call__(self) -> str:
        self.calls += 1
        if self.left:
            self.left -= 1
            raise self.error
        return "done"


def retried(work: Callable[[], T], retries: Retries, **options: Any) -> T:
    """Return the result of work that is repeated."""
    for attempt in retries.attempts(**options):
        with attempt:
            return work()
    raise AssertionError("the last attempt returns or raises")


@given(
    failures=st.integers(0, 8),
    max_retries=st.integers(0, 6),
    first=st.floats(0, 100),
    longest=st.floats(0, 100),
)
def test_the_waits(failures: int, max_retries: int, first: float, longest: float) -> None:
    retries = Retries(max_retries=max_retries, first_wait=first, longest_wait=longest)
    work = Flaky(failures)
    told: list[tuple[BaseException, int, float]] = []
    slept: list[float] = []

    def on_retry(*news: Any) -> None:
        assert len(slept) == len(told), "told before the wait"
        told.append(news)

    def call() -> str:
        return retried(work, retries, on_retry=on_retry, sleep=slept.append)

    if failures > max_retries:
        with pytest.raises(sb.WarehouseLockedError):
            call()
    else:
        assert call() == "done"
    count = min(failures, max_retries)
    assert work.calls == count + 1
    assert [(error, attempt) for error, attempt, _ in told] == [(LOCKED, n) for n in range(1, count + 1)]
    assert [seconds for *_, seconds in told] == slept
    assert all(0 <= wait <= min(longest, first * 2**n) for n, wait in enumerate(slept))


def test_the_jitter_is_full() -> None:
    waits: list[list[float]] = []
    for _ in range(400):
        slept: list[float] = []
        retried(Flaky(4), Retries(max_retries=4, longest_wait=4), on_retry=lambda *_: None, sleep=slept.append)
        waits.append(slept)
    for bound, seen in zip([1, 2, 4, 4], zip(*waits, strict=True), strict=True):
        assert min(seen) < 0.1 * bound
        assert max(seen) > 0.9 * bound
        assert 0.4 * bound < sum(seen) / len(seen) < 0.6 * bound


def test_very_many_retries_have_a_longest_wait() -> None:
    slept: list[float] = []
    retries = Retries(max_retries=3000)
    assert retried(Flaky(3000), retries, on_retry=lambda *_: None, sleep=slept.append) == "done"
    assert max(slept) <= 30


def test_what_cannot_pass_is_not_done_again() -> None:
    for error in (TIMEOUT, AUDITED, ValueError()):
        work = Flaky(1, error)
        with pytest.raises(type(error)):
            retried(work, Retries(), on_retry=lambda *_: pytest.fail("told"), sleep=lambda _: pytest.fail("slept"))
        assert work.calls == 1


@pytest.mark.parametrize("value", [-1, float("nan"), float("inf")])
@pytest.mark.parametrize("name", ["max_retries", "first_wait", "longest_wait"])
def test_negative_numbers_are_refused(name: str, value: float) -> None:
    with pytest.raises(sb.ConfigurationError, match=f"{name} is {value}"):
        Retries(**{name: value})  # type: ignore[arg-type]


HOLDER = """
import sys, duckdb
with duckdb.connect(sys.argv[1]):
    print("held", flush=True)
    sys.stdin.readline()
"""


def test_a_lock_of_another_process_is_waited_for_though_lock_timeout_is_short(tmp_path: Path) -> None:
    path = str(tmp_path / "warehouse.duckdb")
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, path], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdout
        assert holder.stdout.readline() == "held\n"
        told: list[BaseException] = []

        def on_retry(error: BaseException, attempt: int, seconds: float) -> None:
            told.append(error)
            if attempt == 2:
                holder.communicate("\n")

        def work() -> bool:
            with DuckDBWarehouse(path, lock_timeout=0.05).connect() as connection, connection.transaction():
                return True

        assert retried(work, Retries(first_wait=0.05), on_retry=on_retry)
    assert [type(error) for error in told] == [sb.WarehouseLockedError] * 2
    assert f"PID {holder.pid}" in str(told[0])
