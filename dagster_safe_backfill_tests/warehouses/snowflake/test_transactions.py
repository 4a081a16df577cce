"""Transactions and locks: READ COMMITTED, failures, waiting, sessions that are lost."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest
from snowflake.connector.errors import DatabaseError, Error, ProgrammingError

from dagster_safe_backfill_tests.harness.snowflake.emulator import Emulator
from dagster_safe_backfill_tests.warehouses.snowflake.conftest import Run, runner

if TYPE_CHECKING:
    from snowflake.connector import SnowflakeConnection

pytest.importorskip("fakesnow", reason="fakesnow needs Python 3.11")

COUNT = "SELECT count(*) FROM t"


@pytest.fixture(autouse=True)
def table(run: Run) -> None:
    run("CREATE TABLE t (k INT, v VARCHAR)")
    run("INSERT INTO t SELECT 1, 'one' UNION ALL SELECT 2, 'two'")


def test_merge_in_a_transaction_rolls_back(run: Run, other: Run) -> None:
    merge = (
        "MERGE INTO t USING (SELECT 2 AS k, 'zwei' AS v UNION ALL SELECT 3, 'drei') AS s ON EQUAL_NULL(t.k, s.k)"
        " WHEN MATCHED THEN UPDATE SET t.v = s.v WHEN NOT MATCHED THEN INSERT (k, v) VALUES (s.k, s.v)"
    )
    run("BEGIN")
    assert run(merge) == [(1, 1)]
    assert run("SELECT k, v FROM t ORDER BY k") == [(1, "one"), (2, "zwei"), (3, "drei")]
    assert other("SELECT k, v FROM t ORDER BY k") == [(1, "one"), (2, "two")]
    run("ROLLBACK")
    assert run("SELECT k, v FROM t ORDER BY k") == [(1, "one"), (2, "two")]


def test_a_statement_sees_what_others_committed_before_it(run: Run, other: Run) -> None:
    run("BEGIN")
    assert run(COUNT) == [(2,)]
    other("INSERT INTO t SELECT 3, 'three'")
    assert run(COUNT) == [(3,)]
    run("ROLLBACK")


def test_also_after_it_has_written_itself(run: Run, other: Run) -> None:
    run("BEGIN")
    run("DELETE FROM t WHERE k >= 2")
    run("UPDATE t SET v = 'eins' WHERE k = 1")
    run("INSERT INTO t SELECT 20, 'own'")
    other("INSERT INTO t SELECT 3, 'theirs'")
    rows = [(1, "eins"), (3, "theirs"), (20, "own")]
    assert run("SELECT k, v FROM t ORDER BY k") == rows
    other("INSERT INTO t SELECT 4, 'theirs'")
    # The row that came in between is not one that this transaction had deleted.
    run("UPDATE t SET v = 'all' WHERE k < 4")
    run("COMMIT")
    assert other("SELECT k, v FROM t ORDER BY k") == [(1, "all"), (3, "all"), (4, "theirs"), (20, "own")]


def test_again_and_again(run: Run, other: Run) -> None:
    run("CREATE TABLE empty (k INT)")
    run("BEGIN")
    run("INSERT INTO empty SELECT 0")
    for number in range(1, 4):
        other(f"INSERT INTO empty SELECT {number}")
        other(f"INSERT INTO empty SELECT {number * 10}")
        assert run("SELECT count(*) FROM empty") == [(number + 2,)]
        # Rows that came since this transaction began are deleted by it, too, and stay so.
        run(f"DELETE FROM empty WHERE k = {number}")
    run("COMMIT")
    assert other("SELECT k FROM empty ORDER BY k") == [(0,), (10,), (20,), (30,)]


def test_a_table_made_beside_a_transaction_is_seen_in_it(run: Run, other: Run) -> None:
    run("BEGIN")
    run("INSERT INTO t SELECT 3, 'three'")
    other("CREATE TABLE beside CLONE t")
    assert run("SELECT count(*) FROM beside") == [(2,)]
    run("INSERT INTO beside SELECT k, v FROM t WHERE k = 3")
    run("ROLLBACK")
    assert other("SELECT count(*) FROM beside") == [(2,)]


def test_many_sessions_at_once_lose_nothing(connect: Callable[..., SnowflakeConnection], run: Run) -> None:
    """Transactions that insert and delete beside each other, each of them with the lock when it needs it."""
    run("CREATE TABLE sums (session INT, amount INT)")

    def work(session: int) -> None:
        mine = runner(connect())
        for amount in range(1, 6):
            mine("BEGIN")
            mine(f"INSERT INTO sums SELECT {session}, {amount}")
            mine(f"DELETE FROM sums WHERE session = {session} AND amount < {amount}")
            mine("ROLLBACK" if amount == 3 else "COMMIT")

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(work, range(4)))
    assert run("SELECT session, amount FROM sums ORDER BY 1, 2") == [(session, 5) for session in range(4)]


def test_a_lock_taken_by_a_change_of_no_row_keeps_the_snapshot_fresh(run: Run, other: Run) -> None:
    run("BEGIN")
    assert run("UPDATE t SET k = k WHERE k < 0") == [(0, 0)]
    other("INSERT INTO t SELECT 3, 'three'")
    assert run(COUNT) == [(3,)]
    other("ALTER SESSION SET LOCK_TIMEOUT = 0")
    with pytest.raises(ProgrammingError):
        other("DELETE FROM t")
    run("COMMIT")


def test_a_failed_statement_leaves_the_transaction_open(run: Run, other: Run) -> None:
    run("BEGIN")
    run("INSERT INTO t SELECT 3, 'three'")
    with pytest.raises(Error):
        run("INSERT INTO t SELECT CAST('x' AS INT), 'x'")
    with pytest.raises(Error):
        run("SELECT missing FROM t")
    run("INSERT INTO t SELECT 4, 'four'")
    assert run(COUNT) == [(4,)]
    assert other(COUNT) == [(2,)]
    run("COMMIT")
    assert other(COUNT) == [(4,)]


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE t SET v = 'x' WHERE k = 1",
        "DELETE FROM t WHERE k = 1",
        "MERGE INTO t USING (SELECT 1 AS k) AS s ON t.k = s.k WHEN MATCHED THEN DELETE",
        "ALTER TABLE t ADD COLUMN w INT",
        "DROP TABLE t",
    ],
)
def test_changes_wait_for_the_lock_and_give_up(run: Run, other: Run, change: str) -> None:
    run("BEGIN")
    run("UPDATE t SET v = 'held' WHERE k = 2")
    other("ALTER SESSION SET LOCK_TIMEOUT = 0")
    with pytest.raises(ProgrammingError, match="has locked table 'T'") as raised:
        other(change)
    assert raised.value.errno == 625
    assert raised.value.sqlstate == "57014"
    run("ROLLBACK")
    other(change)


def test_inserts_and_reads_do_not_wait(run: Run, other: Run) -> None:
    run("BEGIN")
    run("DELETE FROM t")
    other("INSERT INTO t SELECT 3, 'three'")
    assert other(COUNT) == [(3,)]
    run("COMMIT")
    assert other("SELECT k FROM t") == [(3,)]


def test_a_change_goes_on_when_the_lock_is_released(run: Run, other: Run, emulator: Emulator) -> None:
    run("BEGIN")
    run("UPDATE t SET v = 'first' WHERE k = 1")
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(other, "UPDATE t SET v = v || ', second' WHERE k = 1")
        time.sleep(0.2)
        assert not waiting.done()
        run("COMMIT")
        assert waiting.result(timeout=10) == [(1, 0)]
    assert run("SELECT v FROM t WHERE k = 1") == [("first, second",)]


def test_an_ended_session_is_rolled_back_and_its_locks_released(run: Run, other: Run, emulator: Emulator) -> None:
    run("BEGIN")
    run("DELETE FROM t")
    ours = next(one for one in emulator.sessions() if one["in_transaction"])
    assert [table.rsplit(".", 1)[-1] for table in ours["locks"]] == ["T"]
    emulator.end_session(ours["session"])
    other("UPDATE t SET v = 'x'")
    assert other(COUNT) == [(2,)]
    with pytest.raises(DatabaseError) as raised:
        run(COUNT)
    assert raised.value.errno == 390111


def test_a_closed_connection_is_rolled_back(connect: Callable[..., SnowflakeConnection], run: Run) -> None:
    connection = connect()
    theirs = runner(connection)
    theirs("BEGIN")
    theirs("DELETE FROM t")
    connection.close()
    assert run("DELETE FROM t") == [(2,)]


def test_an_idle_transaction_that_blocks_is_aborted_in_time(run: Run, other: Run, emulator: Emulator) -> None:
    """On Snowflake after five minutes: nothing tells it that a client was killed."""
    run("BEGIN")
    run("DELETE FROM t")
    emulator.abort_idle_after(0.2)
    try:
        assert other("UPDATE t SET v = 'x'") == [(2, 0)]
    finally:
        emulator.abort_idle_after(300)


def test_without_autocommit_a_change_begins_a_transaction(
    connect: Callable[..., SnowflakeConnection], run: Run
) -> None:
    connection = connect(autocommit=False)
    theirs = runner(connection)
    theirs("INSERT INTO t SELECT 3, 'three'")
    assert run(COUNT) == [(2,)]
    connection.commit()
    assert run(COUNT) == [(3,)]


def test_begin_in_a_transaction_and_commit_without_one_are_ignored(run: Run) -> None:
    run("COMMIT")
    run("BEGIN")
    run("DELETE FROM t WHERE k = 1")
    run("BEGIN TRANSACTION")
    run("ROLLBACK")
    run("ROLLBACK")
    assert run(COUNT) == [(2,)]


def test_a_swap_is_atomic_for_readers(run: Run, other: Run) -> None:
    """Read all the time while tables change places: never none, never a mixture."""
    run("CREATE TABLE u (k INT, v VARCHAR)")
    seen: set[int] = set()
    stop = threading.Event()

    def read() -> None:
        while not stop.is_set():
            seen.add(other(COUNT)[0][0])

    with ThreadPoolExecutor(1) as pool:
        reading = pool.submit(read)
        for _ in range(20):
            run("ALTER TABLE t SWAP WITH u")
        stop.set()
        reading.result(timeout=10)
    assert seen <= {0, 2}
    assert run(COUNT) == [(2,)]


SLOW = "SELECT count(*) FROM s AS a JOIN s AS b ON a.k <> b.k + 1 JOIN s AS c ON c.k <> a.k + b.k"


@pytest.fixture
def slow(run: Run) -> str:
    run("CREATE TABLE s AS SELECT 1 AS k UNION ALL SELECT 2")
    for _ in range(11):
        run("INSERT INTO s SELECT k + (SELECT max(k) FROM s) FROM s")
    return SLOW


def test_a_statement_runs_out_of_its_time(run: Run, slow: str) -> None:
    run("ALTER SESSION SET STATEMENT_TIMEOUT_IN_SECONDS = 1")
    with pytest.raises(ProgrammingError) as raised:
        run(slow)
    assert raised.value.errno == 630
    assert run("SELECT 1") == [(1,)]


def test_a_wait_for_a_lock_is_a_statement_that_runs_out_of_its_time(run: Run, other: Run) -> None:
    run("BEGIN")
    run("DELETE FROM t")
    other("ALTER SESSION SET STATEMENT_TIMEOUT_IN_SECONDS = 1")
    with pytest.raises(ProgrammingError) as raised:
        other("DELETE FROM t")
    assert raised.value.errno == 630


def test_the_connectors_timeout_cancels(connect: Callable[..., SnowflakeConnection], slow: str) -> None:
    cursor = connect().cursor()
    with pytest.raises(ProgrammingError) as raised:
        cursor.execute(slow, timeout=1)
    assert raised.value.errno == 604
    assert cursor.execute("SELECT 1").fetchall() == [(1,)]  # type: ignore[union-attr]


def test_a_query_is_aborted_by_its_id(
    connect: Callable[..., SnowflakeConnection], emulator: Emulator, database: str, slow: str
) -> None:
    running, aborting = connect().cursor(), connect().cursor()
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(running.execute, slow)
        query_id = None
        while query_id is None:
            query_id = next((one["query_id"] for one in emulator.history(database) if one["sql"] == slow), None)
        time.sleep(0.2)
        assert aborting.abort_query(query_id)
        with pytest.raises(ProgrammingError) as raised:
            waiting.result(timeout=10)
    assert raised.value.errno == 604
