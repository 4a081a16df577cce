"""The proxy: refusals, lost replies and ended sessions, as the unmodified connector lives through them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import snowflake.connector
from snowflake.connector.errors import DatabaseError, Error, OperationalError, ServiceUnavailableError

from dagster_safe_backfill_tests.harness.snowflake.emulator import Emulator
from dagster_safe_backfill_tests.harness.snowflake.proxy import FOREVER, How, Proxy, not_again, quick_backoff
from dagster_safe_backfill_tests.warehouses.snowflake.conftest import Run, runner

if TYPE_CHECKING:
    from snowflake.connector import SnowflakeConnection

pytest.importorskip("fakesnow", reason="fakesnow needs Python 3.11")

INSERT = "INSERT INTO t SELECT 1"
COUNT = "SELECT count(*) FROM t"


@pytest.fixture
def through(proxy: Proxy, database: str) -> Iterator[SnowflakeConnection]:
    connection = snowflake.connector.connect(**proxy.connect_arguments(database))
    connection.cursor().execute("CREATE TABLE t (a INT)")
    yield connection
    proxy.heal()
    connection.close()


@pytest.mark.parametrize("how", ["refuse", "lose reply"])
@pytest.mark.parametrize("times", [1, 3])
def test_the_connector_gets_over_it_and_it_runs_once(
    proxy: Proxy, through: SnowflakeConnection, run: Run, how: How, times: int
) -> None:
    proxy.fail(when="^INSERT", how=how, times=times)
    assert runner(through)(INSERT) == [(1,)]
    assert run(COUNT) == [(1,)]
    assert proxy.statements[-1].attempts == times + 1
    assert proxy.statements[-1].faults == [how] * times


def test_the_server_runs_a_request_id_once(
    proxy: Proxy, through: SnowflakeConnection, emulator: Emulator, database: str
) -> None:
    proxy.fail(when="^INSERT", how="lose reply")
    runner(through)(INSERT)
    (record,) = [one for one in emulator.history(database) if one["sql"] == INSERT]
    assert record["repeated"] == 1


def test_refused_for_good_it_never_ran(proxy: Proxy, through: SnowflakeConnection, run: Run) -> None:
    proxy.fail(when="^INSERT", how="refuse", times=FOREVER)
    with pytest.raises(ServiceUnavailableError):
        runner(through)(INSERT)
    assert run(COUNT) == [(0,)]


def test_its_reply_lost_for_good_it_ran_and_the_client_does_not_know(
    proxy: Proxy, through: SnowflakeConnection, run: Run
) -> None:
    proxy.fail(when="^INSERT", how="lose reply", times=FOREVER)
    with pytest.raises(OperationalError):
        runner(through)(INSERT)
    assert run(COUNT) == [(1,)]


def test_a_lost_commit_has_committed(proxy: Proxy, through: SnowflakeConnection, run: Run) -> None:
    session = runner(through)
    session("BEGIN")
    session(INSERT)
    proxy.fail(when="^COMMIT", how="lose reply", times=FOREVER)
    with pytest.raises(OperationalError):
        session("COMMIT")
    assert run(COUNT) == [(1,)]


def test_a_swap_whose_reply_was_lost_has_swapped(proxy: Proxy, through: SnowflakeConnection, run: Run) -> None:
    session = runner(through)
    session("CREATE TABLE u AS SELECT 1 AS a")
    proxy.fail(when="SWAP WITH", how="lose reply", times=FOREVER)
    with pytest.raises(OperationalError):
        session("ALTER TABLE t SWAP WITH u")
    assert run(COUNT) == [(1,)]
    # Its own inverse: a retry by the user un-publishes.
    session("ALTER TABLE t SWAP WITH u")
    assert run(COUNT) == [(0,)]


def test_an_ended_session_rolls_back(proxy: Proxy, through: SnowflakeConnection, run: Run) -> None:
    session = runner(through)
    session("BEGIN")
    session(INSERT)
    proxy.fail(when="^COMMIT", how="end session")
    with pytest.raises(DatabaseError) as raised:
        session("COMMIT")
    assert raised.value.errno == 390111
    assert run(COUNT) == [(0,)]


def test_a_fault_is_for_one_statement(proxy: Proxy, through: SnowflakeConnection, run: Run) -> None:
    proxy.fail(when="^INSERT", how="refuse", times=FOREVER)
    with pytest.raises(ServiceUnavailableError):
        runner(through)(INSERT)
    assert runner(through)("INSERT INTO t SELECT 2") == [(1,)]


def test_a_statement_is_chosen_by_its_ordinal(proxy: Proxy, through: SnowflakeConnection, run: Run) -> None:
    proxy.forget()
    proxy.fail(when=2, how="refuse", times=FOREVER)
    session = runner(through)
    session("INSERT INTO t SELECT 1")
    with pytest.raises(ServiceUnavailableError):
        session("INSERT INTO t SELECT 2")
    session("INSERT INTO t SELECT 3")
    assert run("SELECT a FROM t ORDER BY a") == [(1,), (3,)]
    assert [one.sql for one in proxy.statements] == [f"INSERT INTO t SELECT {number}" for number in (1, 2, 3)]


def test_bytes_are_counted_in_both_directions(proxy: Proxy, through: SnowflakeConnection, tmp_path: Path) -> None:
    session = runner(through)
    pq.write_table(pa.table({"a": list(range(100_000))}), tmp_path / "a.parquet", compression="none")
    session("CREATE TEMPORARY STAGE st")
    session(f"PUT 'file://{tmp_path}/a.parquet' @st AUTO_COMPRESS = FALSE")
    assert proxy.uploaded == (tmp_path / "a.parquet").stat().st_size
    session(
        "COPY INTO t FROM @st FILE_FORMAT = (TYPE = PARQUET USE_LOGICAL_TYPE = TRUE)"
        " MATCH_BY_COLUMN_NAME = CASE_INSENSITIVE"
    )
    session("CREATE TABLE u AS SELECT a FROM t")
    session("SELECT a FROM t")
    assert proxy.bytes_to_client("^CREATE TABLE u") < 2_000
    assert proxy.bytes_to_client("^SELECT") > 400_000


def test_sessions_are_told_apart(proxy: Proxy, through: SnowflakeConnection, database: str) -> None:
    runner(through)(COUNT)
    with snowflake.connector.connect(**proxy.connect_arguments(database)) as connection:
        runner(connection)(COUNT)
    counts = [one for one in proxy.statements if one.sql == COUNT]
    assert len({one.session for one in counts}) == 2


@pytest.mark.parametrize("how", ["refuse", "lose reply"])
def test_a_client_that_does_not_retry_hears_the_same(proxy: Proxy, database: str, how: How) -> None:
    errors: list[Error] = []
    for number, policy in enumerate((quick_backoff, not_again), 1):
        proxy.fail(when="^SELECT", how=how, times=FOREVER)
        with snowflake.connector.connect(**proxy.connect_arguments(database, backoff_policy=policy)) as connection:
            with pytest.raises(Error) as raised:
                runner(connection)(f"SELECT {number}")
            errors.append(raised.value)
        proxy.heal()
    waiting, giving_up = errors
    assert type(giving_up) is type(waiting)
    assert (giving_up.errno, giving_up.sqlstate, giving_up.msg) == (waiting.errno, waiting.sqlstate, waiting.msg)
    assert [one.attempts == 1 for one in proxy.statements] == [False, True]


def test_cut_off_sessions_stay_until_the_server_ends_them(
    proxy: Proxy, emulator: Emulator, database: str, run: Run
) -> None:
    run("CREATE TABLE t AS SELECT 1 AS a")
    arguments = proxy.connect_arguments(database, backoff_policy=not_again)
    cut, other = (snowflake.connector.connect(**arguments) for _ in range(2))
    runner(cut)("BEGIN")
    runner(cut)("UPDATE t SET a = 2")
    proxy.fail(when="^COMMIT", how="cut off", times=FOREVER)
    for connection, sql in ((cut, "COMMIT"), (cut, "ROLLBACK"), (other, "SELECT 1")):
        with pytest.raises(OperationalError):
            runner(connection)(sql)
    with pytest.raises(OperationalError):
        snowflake.connector.connect(**arguments)
    cut.close()
    proxy.heal()
    (left,) = [one for one in emulator.sessions() if one["database"] == database and one["in_transaction"]]
    assert runner(other)("SELECT a FROM t") == [(1,)]
    emulator.end_session(left["session"])
    runner(other)("UPDATE t SET a = a + 2")
    assert runner(other)("SELECT a FROM t") == [(3,)]
    other.close()
