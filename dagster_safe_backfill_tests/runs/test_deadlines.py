"""A batch that takes too long is stopped, and leaves nothing behind."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from itertools import count
from pathlib import Path
from typing import Any

import duckdb
import pytest
import sqlglot
from sqlglot import exp

import dagster_safe_backfill as sb
from dagster_safe_backfill.model.options import Merge
from dagster_safe_backfill.model.states import Audited, Origin
from dagster_safe_backfill.model.tables import TableRef
from dagster_safe_backfill.runs.limits.deadlines import Deadline
from dagster_safe_backfill.sql import terms
from dagster_safe_backfill.wap.audit import audit
from dagster_safe_backfill.wap.measure.compare import Sampler
from dagster_safe_backfill.wap.publish import publish
from dagster_safe_backfill.wap.write import write
from dagster_safe_backfill.warehouses.base import Session, Warehouse
from dagster_safe_backfill.warehouses.duckdb.names import Names
from dagster_safe_backfill.warehouses.duckdb.session import DuckDBWarehouse
from dagster_safe_backfill.warehouses.duckdb.tables import DuckDBTables
from dagster_safe_backfill_tests.harness.audited import slice_of
from dagster_safe_backfill_tests.harness.publications import Publications, day_rows

# A billion products: some seconds, so that without a watchdog a test fails, and ends.
LONG = "SELECT sum(a.range * b.range) AS x FROM range(40000) AS a CROSS JOIN range(25000) AS b"
T = TableRef(schema="main", name="t")
SOON = 0.2
# How much later than the deadline a stop may come: at once, but for other work that the machine has.
GRACE = 4


def run(connection: Session, sql: str) -> list[tuple[Any, ...]]:
    statement = sqlglot.parse_one(sql, dialect="duckdb")
    if isinstance(statement, exp.Query):
        return connection.query(statement)
    assert isinstance(statement, exp.Insert | exp.Update | exp.Delete)
    return [(connection.execute(statement),)]


@contextmanager
def stopped(*, after: float = SOON) -> Iterator[pytest.ExceptionInfo[sb.BatchTimeoutError]]:
    """Expect the time-out, at its time."""
    started = time.monotonic()
    with pytest.raises(sb.BatchTimeoutError) as caught:
        yield caught
    assert time.monotonic() - started < after + GRACE


@pytest.fixture
def table(warehouse: Warehouse) -> Warehouse:
    with warehouse.connect() as connection:
        one = exp.select(exp.alias_(terms.number(1), "x"))
        connection.tables.create(T, one, kind="live")
    return warehouse


WRITER = """
import sys, duckdb
with duckdb.connect(sys.argv[1]) as connection:
    connection.execute("INSERT INTO t VALUES (3)")
"""


def test_a_statement_is_stopped_and_its_transaction_undone(table: Warehouse, backend: Any) -> None:
    with table.connect() as connection:
        with stopped() as caught, Deadline(SOON, "a batch of main.t").over(connection), connection.transaction():
            run(connection, "DELETE FROM t")
            run(connection, f"INSERT INTO t {LONG}")
        assert isinstance(caught.value.__cause__, sb.StatementCancelledError)
        # The session is still open, and has nothing that is in another's way.
        assert backend.read("SELECT x FROM t") == [(1,)]
        backend.read("INSERT INTO t VALUES (2)")
        with connection.transaction():
            run(connection, "UPDATE t SET x = x + 10")
    subprocess.run([sys.executable, "-c", WRITER, backend.path], check=True, timeout=20)
    assert backend.read("SELECT x FROM t ORDER BY x") == [(3,), (11,), (12,)]


def test_the_error_says_what_ran_and_what_to_do(table: Warehouse) -> None:
    deadline = Deadline(SOON, "batch 2 of 3 (2024-01-01) of main.t")
    with table.connect() as connection, stopped() as caught, deadline.over(connection):
        run(connection, LONG)
    assert (caught.value.seconds, caught.value.what) == (SOON, "batch 2 of 3 (2024-01-01) of main.t")
    said = str(caught.value)
    assert said.startswith("batch 2 of 3 (2024-01-01) of main.t took longer than timeout_seconds=0.2, so it was")
    assert all(part in said for part in ("nothing of it is live", "Limits(timeout_seconds=…)", "Batches(size=…)"))


def test_a_statement_of_the_second_session_is_stopped_too(table: Warehouse) -> None:
    with table.connect() as connection:
        with (
            stopped(),
            Deadline(SOON, "it").over(connection),
            connection.transaction(),
            connection.tables.hold(T) as committed,
        ):
            run(committed, LONG)
        with connection.transaction(), connection.tables.hold(T) as committed:
            assert run(committed, "SELECT x FROM t") == [(1,)]


def test_rows_that_are_being_fetched_are_stopped(table: Warehouse) -> None:
    with table.connect() as connection, stopped(), Deadline(SOON, "it").over(connection):
        run(connection, "SELECT range AS a, range + 1 AS b FROM range(20000000)")


def test_what_ends_late_has_ended_well(table: Warehouse, read: Callable[[str], Any]) -> None:
    with table.connect() as connection, Deadline(0.5, "it").over(connection), connection.transaction():
        run(connection, "UPDATE t SET x = 2")
        time.sleep(0.7)
    assert read("SELECT x FROM t") == [(2,)]


def test_what_is_stopped_before_the_deadline_is_not_its_doing(table: Warehouse) -> None:
    with table.connect() as connection:
        timer = threading.Timer(SOON, connection.cancel)
        timer.start()
        with pytest.raises(sb.StatementCancelledError), Deadline(60, "it").over(connection):
            run(connection, LONG)
        timer.join()


def test_the_time_is_one_for_all_blocks(table: Warehouse) -> None:
    with table.connect() as connection, stopped(after=1):
        deadline = Deadline(1, "it")
        with deadline.over_python():
            time.sleep(0.9)
        with deadline.over(connection):
            started = time.monotonic()
            with suppress(sb.StatementCancelledError):
                run(connection, LONG)
            assert time.monotonic() - started < 0.9
            run(connection, LONG)


def test_no_limit_costs_nothing(table: Warehouse) -> None:
    deadline = Deadline(None, "it")
    threads = threading.enumerate()
    with table.connect() as connection, deadline.over(connection), deadline.over_python():
        assert threading.enumerate() == threads
        assert signal.getsignal(signal.SIGALRM) is signal.SIG_DFL
        assert run(connection, "SELECT x FROM t") == [(1,)]


@pytest.mark.parametrize("seconds", [0, -1, float("nan"), float("inf")])
def test_a_limit_that_is_none_is_refused(seconds: float) -> None:
    with pytest.raises(sb.ConfigurationError, match="timeout_seconds is"):
        Deadline(seconds, "it")


@contextmanager
def storm(connection: Session, *, pause: float) -> Iterator[None]:
    """Cancel whatever runs, again and again."""
    calm = threading.Event()

    def rage() -> None:
        while not calm.is_set():
            connection.cancel()
            time.sleep(pause)

    thread = threading.Thread(target=rage)
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    thread.start()
    try:
        yield
    finally:
        calm.set()
        thread.join()
        sys.setswitchinterval(interval)


def test_no_cancel_leaves_a_transaction_open_or_half_done(table: Warehouse, backend: Any) -> None:
    class UndoneError(Exception):
        pass

    counts = {"committed": 0, "cancelled": 0, "undone": 0}
    with table.connect() as connection, duckdb.connect(backend.path) as other:
        for n in count():
            # A busy machine may take longer until each has been seen.
            if n >= (160 if all(counts.values()) else 5000):
                break
            (before,) = other.execute("SELECT x FROM t").fetchall()
            try:
                with storm(connection, pause=n % 3 * 5e-4), connection.transaction():
                    run(connection, "UPDATE t SET x = x + 1")
                    if n % 2:
                        raise UndoneError
                outcome = "committed"
            except sb.StatementCancelledError:
                outcome = "cancelled"
            except UndoneError:
                outcome = "undone"
            counts[outcome] += 1
            (after,) = other.execute("SELECT x FROM t").fetchall()
            assert after[0] - before[0] == (outcome == "committed")
            with pytest.raises(duckdb.TransactionException, match="no transaction is active"):
                connection._driver.execute("ROLLBACK")
    assert all(counts.values()), counts


def test_a_cancel_of_nothing_is_forgotten(table: Warehouse) -> None:
    with table.connect() as connection:
        for _ in range(3):
            connection.cancel()
            assert run(connection, "SELECT x FROM t") == [(1,)]
    connection.cancel()


def test_no_cancel_leaves_a_source_behind(table: Warehouse) -> None:
    query = sb.Query("SELECT 1 AS a")
    with table.connect() as connection:
        for _ in range(100):
            with suppress(sb.StatementCancelledError), storm(connection, pause=0), connection.load(query) as source:
                connection.query(exp.select("a").from_(source))
        with connection.load(query) as source:
            assert connection.query(exp.select("a").from_(source)) == [(1,)]


SLOW = f"value + ({LONG}) > 0"
"""True of every row, after a while."""


@pytest.fixture
def live(tmp_path: Path) -> Publications:
    """Return a table with a day that is published."""
    bench = Publications(tmp_path, live=day_rows(0, 1.0))
    bench.published(day_rows(0, 2.0), [0], "first")
    return bench


ORIGIN = Origin(run_id="late", publication_id="late")


def test_a_batch_that_is_stopped_while_it_is_written_leaves_no_shadow(live: Publications) -> None:
    before = live.live(), live.tables(), live.events()
    query = sb.Query(f"SELECT day, id, x AS value, note FROM t, ({LONG}) AS long")
    with live.warehouse.connect() as connection, stopped(), Deadline(SOON, "it").over(connection):
        write(connection, query, spec=live.spec, partition_slice=slice_of([0]), origin=ORIGIN)
    assert (live.live(), live.tables(), live.events()) == before


@pytest.mark.parametrize(
    "slow",
    [
        sb.expression(SLOW),
        sb.failing_rows(f"SELECT * FROM batch WHERE NOT ({SLOW})", name="failing"),
        sb.aggregate_drift(f"value + ({LONG})", "total", max_change=1),
    ],
    ids=lambda audit: audit.name[:12],
)
def test_an_audit_that_is_stopped_is_not_unmeasured(live: Publications, slow: sb.Audit) -> None:
    staged = live.stage(day_rows(0, 3.0), [0], "late").staged
    before = live.live(), live.events()
    with live.warehouse.connect() as connection, stopped(), Deadline(SOON, "it").over(connection):
        audit(connection, staged, [slow], origin=ORIGIN, gate="run")
    assert (live.live(), live.events()) == before


def test_a_sample_that_is_stopped_is_not_left_out(live: Publications) -> None:
    with live.warehouse.connect() as connection, stopped(), Deadline(SOON, "it").over(connection):
        Sampler(session=connection, shown=None).unmasked(sqlglot.parse_one(LONG, dialect="duckdb"))


def test_columns_whose_change_is_stopped_may_be_changed_later() -> None:
    def stop(sql: str, parameters: object) -> list[tuple[Any, ...]]:
        raise sb.StatementCancelledError("stopped")

    with pytest.raises(sb.StatementCancelledError):
        DuckDBTables(stop, nullcontext, Names("t")).reshape(T, dropped=["x"], retyped=[], added={})


def test_a_batch_that_was_stopped_is_published_by_the_next_try(live: Publications) -> None:
    staged = live.stage(day_rows(0, 3.0), [0], "late").staged
    with live.warehouse.connect() as connection:
        with stopped(), Deadline(SOON, "it").over(connection):
            audit(connection, staged, [sb.expression(SLOW)], origin=ORIGIN, gate="run")
        with Deadline(60, "it").over(connection):
            found = audit(connection, staged, [sb.expression("value > 0")], origin=ORIGIN, gate="run")
            assert isinstance(found, Audited)
            publish(connection, found, rules=Merge(), origin=ORIGIN)
    assert live.values() == {0: [3.0] * 3}


def test_a_session_of_another_warehouse_file_is_left_alone(tmp_path: Path, table: Warehouse) -> None:
    elsewhere = DuckDBWarehouse(str(tmp_path / "other.duckdb"))
    with elsewhere.connect() as other, table.connect() as connection, Deadline(0.01, "it").over(other):
        assert run(connection, LONG.replace("40000", "2000"))


# The user's function


def spin(seconds: float) -> None:
    ends = time.monotonic() + seconds
    while time.monotonic() < ends:
        pass


@pytest.fixture
def no_timer() -> Iterator[None]:
    """Look that handler and timer are as they were."""
    yield
    assert signal.getsignal(signal.SIGALRM) is signal.SIG_DFL
    assert signal.getitimer(signal.ITIMER_REAL) == (0, 0)


@pytest.mark.usefixtures("no_timer")
@pytest.mark.parametrize("work", [time.sleep, spin])
def test_a_function_is_stopped(work: Callable[[float], None]) -> None:
    with stopped(), Deadline(SOON, "it").over_python():
        work(5)


@pytest.mark.usefixtures("no_timer")
def test_a_statement_that_a_function_runs_itself_is_stopped() -> None:
    with duckdb.connect() as own, stopped() as caught, Deadline(SOON, "it").over_python():
        own.execute("SELECT count(*) FROM range(4000000000)").fetchall()
    assert isinstance(caught.value.__cause__, RuntimeError)


@pytest.mark.usefixtures("no_timer")
def test_a_function_that_ends_in_time_has_its_own_results_and_errors() -> None:
    with Deadline(60, "it").over_python():
        pass
    with pytest.raises(KeyError), Deadline(60, "it").over_python():
        raise KeyError
    with pytest.raises(KeyError), Deadline(0.5, "it").over_python():
        raise KeyError
    time.sleep(0.6)


@pytest.mark.usefixtures("no_timer")
def test_a_function_that_swallows_the_error_is_late_all_the_same() -> None:
    with stopped(after=0.3), Deadline(SOON, "it").over_python():
        with suppress(Exception):
            time.sleep(5)
        time.sleep(0.1)


@pytest.mark.usefixtures("no_timer")
def test_a_function_that_wraps_the_error_is_late_all_the_same() -> None:
    with stopped() as caught, Deadline(SOON, "it").over_python():
        try:
            time.sleep(5)
        except Exception as error:
            raise RuntimeError("wrapped") from error
    assert isinstance(caught.value.__cause__, RuntimeError)


def test_elsewhere_than_in_the_main_thread_it_is_raised_once_the_function_returns() -> None:
    found: list[object] = []

    def work() -> None:
        try:
            with Deadline(0.05, "it").over_python():
                time.sleep(0.2)
                found.append("returned")
        except sb.BatchTimeoutError as error:
            found.append(error.what)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert found == ["returned", "it"]


@pytest.mark.usefixtures("no_timer")
def test_the_outer_of_two_deadlines_goes_on_after_the_inner() -> None:
    with stopped(after=0.4) as caught, Deadline(0.4, "outer").over_python():
        with stopped() as inner, Deadline(SOON, "inner").over_python():
            time.sleep(5)
        assert inner.value.what == "inner"
        with Deadline(60, "in time").over_python():
            pass
        time.sleep(5)
    assert caught.value.what == "outer"


@pytest.mark.usefixtures("no_timer")
def test_the_outer_of_two_deadlines_may_end_first() -> None:
    with stopped() as caught, Deadline(SOON, "outer").over_python(), Deadline(60, "inner").over_python():
        time.sleep(5)
    assert caught.value.what == "outer"


@pytest.fixture
def rung() -> Iterator[list[float]]:
    """Have a handler of one's own for alarms, which notes when they come."""
    times: list[float] = []
    before = signal.signal(signal.SIGALRM, lambda *_: times.append(time.monotonic()))
    yield times
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, before)


def test_whoever_had_an_alarm_has_it_again(rung: list[float]) -> None:
    handler = signal.getsignal(signal.SIGALRM)
    signal.setitimer(signal.ITIMER_REAL, 30, 7)
    with Deadline(20, "it").over_python():
        time.sleep(0.1)
    with stopped(), Deadline(SOON, "it").over_python():
        time.sleep(5)
    left, interval = signal.getitimer(signal.ITIMER_REAL)
    assert signal.getsignal(signal.SIGALRM) is handler
    assert 15 < left < 29.75
    assert interval == 7
    assert rung == []


def test_an_alarm_that_was_due_meanwhile_comes_at_once(rung: list[float]) -> None:
    signal.setitimer(signal.ITIMER_REAL, 0.15)
    with suppress(sb.BatchTimeoutError), Deadline(0.1, "it").over_python():
        with suppress(Exception):
            time.sleep(5)
        time.sleep(0.1)
    assert len(rung) == 1


def test_an_alarm_of_another_that_is_due_first_is_left_to_them(rung: list[float]) -> None:
    signal.setitimer(signal.ITIMER_REAL, 0.1)
    with stopped(after=0.3), Deadline(SOON, "it").over_python():
        time.sleep(0.3)
    assert len(rung) == 1


@pytest.mark.usefixtures("no_timer")
def test_the_alarm_is_given_back_wherever_it_rings() -> None:
    late = 0
    for n in range(1000):
        try:
            with Deadline(2e-4, "it").over_python():
                spin(2e-4 - (n % 50) * 2e-6)
        except sb.BatchTimeoutError:
            late += 1
        assert signal.getsignal(signal.SIGALRM) is signal.SIG_DFL
        assert signal.getitimer(signal.ITIMER_REAL) == (0, 0)
    assert 0 < late < 1000
