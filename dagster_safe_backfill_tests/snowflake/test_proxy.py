"""What a client sees of the proxy's faults, and what the database holds after them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("fakesnow", reason="fakesnow wants Python 3.11")

import pyarrow as pa
import snowflake.connector
from snowflake.connector.errors import Error, OperationalError, ProgrammingError, ServiceUnavailableError

from dagster_safe_backfill_tests.snowflake.proxied import ProxiedBackend, login, proxied
from dagster_safe_backfill_tests.snowflake.proxy import IMPATIENT, SESSION_GONE, Fault, Proxy

INSERT = "INSERT INTO t VALUES (2)"
Connect = Callable[..., "snowflake.connector.SnowflakeConnection"]


@pytest.fixture(scope="module")
def running() -> Iterator[Proxy]:
    with proxied() as proxy:
        yield proxy


@pytest.fixture
def proxy(running: Proxy) -> Proxy:
    running.forget()
    return running


@pytest.fixture
def database(proxy: Proxy) -> ProxiedBackend:
    found = ProxiedBackend(proxy)
    found.create("t", pa.table({"a": [1]}))
    return found


@pytest.fixture
def connect(proxy: Proxy, database: ProxiedBackend) -> Iterator[Connect]:
    opened: list[snowflake.connector.SnowflakeConnection] = []

    def connected(**options: Any) -> snowflake.connector.SnowflakeConnection:
        opened.append(snowflake.connector.connect(**{**login(proxy, database.database), **options}))
        return opened[-1]

    yield connected
    for connection in opened:
        connection.close()


def run(connection: Any, *statements: str) -> list[tuple[Any, ...]]:
    with connection.cursor() as cursor:
        for statement in statements:
            cursor.execute(statement)
        return cursor.fetchall()


def held(database: ProxiedBackend) -> list[int]:
    return [value for (value,) in database.read("SELECT a FROM t ORDER BY 1")]


def test_statements_are_written_down(proxy: Proxy, connect: Connect) -> None:
    first, second = connect(), connect()
    run(first, "SELECT 1")
    run(second, "SELECT 2")
    with first.cursor() as cursor:
        cursor.describe("SELECT 3")
    with pytest.raises(ProgrammingError):
        run(first, "SELECT * FROM nowhere")
    found = proxy.statements
    assert [one.sql for one in found] == ["SELECT 1", "SELECT 2", "SELECT 3", "SELECT * FROM nowhere"]
    assert [one.number for one in found] == [0, 1, 2, 3]
    assert [one.session - found[0].session for one in found] == [0, 1, 0, 0]
    assert [one.is_described for one in found] == [False, False, True, False]
    assert [one.error for one in found] == [None, None, None, 2003]
    assert len({one.request_id for one in found}) == 4
    assert all((one.tries, one.runs, one.fault) == (1, 1, None) for one in found)
    assert all(one.bytes_up > 0 and one.bytes_down > 0 for one in found)
    assert proxy.bytes_up > sum(one.bytes_up for one in found)
    assert proxy.bytes_down > sum(one.bytes_down for one in found)


def test_files_pass_too(proxy: Proxy, connect: Connect, tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_text("2\n" * 50_000)
    run(connect(), "CREATE TEMPORARY STAGE s", f"PUT file://{path} @s AUTO_COMPRESS=FALSE")
    assert proxy.bytes_up > path.stat().st_size > sum(one.bytes_up for one in proxy.statements)


@pytest.mark.parametrize("times", [1, 3])
def test_what_is_refused_for_a_while_is_run_by_a_retry(
    proxy: Proxy, database: ProxiedBackend, connect: Connect, times: int
) -> None:
    proxy.fail(Fault(kind="refused", pattern="^INSERT", times=times))
    run(connect(), INSERT)
    assert held(database) == [1, 2]
    (insert,) = proxy.statements
    assert (insert.tries, insert.runs, insert.fault) == (times + 1, 1, "refused")


def test_what_is_refused_for_good_is_never_run(proxy: Proxy, database: ProxiedBackend, connect: Connect) -> None:
    proxy.fail(Fault(kind="refused", pattern="^INSERT", times=None))
    with pytest.raises(ServiceUnavailableError, match="503"):
        run(connect(network_timeout=1), INSERT)
    assert held(database) == [1]
    (insert,) = proxy.statements
    assert insert.tries > 2
    assert insert.runs == 0


def test_a_retry_after_a_lost_reply_gets_the_firsts_answer(
    proxy: Proxy, database: ProxiedBackend, connect: Connect
) -> None:
    proxy.fail(Fault(kind="reply lost", pattern="^INSERT"))
    assert run(connect(), INSERT) == [(1,)]
    assert held(database) == [1, 2]
    (insert,) = proxy.statements
    assert (insert.tries, insert.runs, insert.fault) == (2, 1, "reply lost")


def test_a_retry_gets_the_firsts_error(proxy: Proxy, connect: Connect) -> None:
    connection = connect()
    run(connection, "CREATE TABLE u (a INT)")
    proxy.fail(Fault(kind="reply lost", pattern="DROP"))
    run(connection, "DROP TABLE u")
    proxy.fail(Fault(kind="reply lost", pattern="FROM u"))
    with pytest.raises(ProgrammingError) as caught:
        run(connection, "SELECT * FROM u")
    assert caught.value.errno == 2003
    assert [(one.tries, one.runs) for one in proxy.statements] == [(1, 1), (2, 1), (2, 1)]


def test_what_has_lost_its_reply_for_good_was_run_once(
    proxy: Proxy, database: ProxiedBackend, connect: Connect
) -> None:
    proxy.fail(Fault(kind="reply lost", pattern="^INSERT", times=None))
    with pytest.raises(OperationalError) as caught:
        run(connect(network_timeout=1), INSERT)
    assert caught.value.errno == 250003
    assert held(database) == [1, 2]
    (insert,) = proxy.statements
    assert insert.tries > 2
    assert insert.runs == 1


@pytest.mark.parametrize("kind", ["refused", "reply lost"])
def test_an_impatient_client_gets_the_same_error_at_once(proxy: Proxy, connect: Connect, kind: Any) -> None:
    proxy.fail(Fault(kind=kind, times=None))
    errors: list[Error] = []
    for connection in (connect(network_timeout=1), connect(**IMPATIENT)):
        with pytest.raises(Error) as caught:
            run(connection, INSERT)
        errors.append(caught.value)
    patient, impatient = errors
    assert type(impatient) is type(patient)
    assert (impatient.errno, impatient.sqlstate) == (patient.errno, patient.sqlstate)
    assert impatient.msg == patient.msg
    assert proxy.statements[0].tries > proxy.statements[1].tries == 1


def test_a_fault_befalls_each_statement_as_often(proxy: Proxy, database: ProxiedBackend, connect: Connect) -> None:
    proxy.fail(Fault(kind="reply lost"))
    run(connect(), "BEGIN", INSERT, INSERT, "COMMIT")
    assert held(database) == [1, 2, 2]
    assert [(one.tries, one.runs) for one in proxy.statements] == [(2, 1)] * 4


def test_a_lost_reply_of_a_commit_leaves_it_committed(proxy: Proxy, database: ProxiedBackend, connect: Connect) -> None:
    connection = connect(**IMPATIENT)
    run(connection, "BEGIN", INSERT)
    with proxy.failing(Fault(kind="reply lost", pattern="COMMIT", times=None)), pytest.raises(OperationalError):
        run(connection, "COMMIT")
    assert held(database) == [1, 2]


def test_a_refused_commit_leaves_the_transaction_open(proxy: Proxy, database: ProxiedBackend, connect: Connect) -> None:
    connection = connect(**IMPATIENT)
    run(connection, "BEGIN", INSERT)
    with proxy.failing(Fault(kind="refused", pattern="COMMIT", times=None)), pytest.raises(ServiceUnavailableError):
        run(connection, "COMMIT")
    assert held(database) == [1]
    run(connection, "COMMIT")
    assert held(database) == [1, 2]


def test_a_lost_sessions_transaction_is_rolled_back(proxy: Proxy, database: ProxiedBackend, connect: Connect) -> None:
    lost, other = connect(), connect()
    run(lost, "BEGIN", "UPDATE t SET a = 3", INSERT)
    with pytest.raises(ProgrammingError, match="locked"):
        run(other, "UPDATE t SET a = 5")
    proxy.fail(Fault(kind="session lost", pattern="COMMIT"))
    for sql in ("COMMIT", "SELECT 1"):
        with pytest.raises(ProgrammingError) as caught:
            run(lost, sql)
        assert caught.value.errno == SESSION_GONE
    assert held(database) == [1]
    run(other, "UPDATE t SET a = 5")
    assert held(database) == [5]
    assert [one.runs for one in proxy.statements if one.sql == "COMMIT"] == [0]


def test_when_all_is_cut_off_sessions_stay_until_they_are_ended(
    proxy: Proxy, database: ProxiedBackend, connect: Connect
) -> None:
    cut, other = connect(**IMPATIENT), connect(**IMPATIENT)
    run(cut, "BEGIN", "UPDATE t SET a = 3")
    with proxy.failing(Fault(kind="cut off", pattern="INSERT")):
        for connection, sql in ((cut, INSERT), (cut, "ROLLBACK"), (other, "SELECT 1")):
            with pytest.raises(OperationalError):
                run(connection, sql)
        cut.close()
        with pytest.raises(OperationalError):
            connect(**IMPATIENT)
    with pytest.raises(ProgrammingError, match="locked"):
        run(other, "UPDATE t SET a = 5")
    proxy.end_sessions()
    run(connect(), "UPDATE t SET a = a + 1")
    assert held(database) == [2]


def test_a_closed_sessions_transaction_is_rolled_back(database: ProxiedBackend, connect: Connect) -> None:
    closed = connect()
    run(closed, "BEGIN", "UPDATE t SET a = 3")
    closed.close()
    run(connect(), "UPDATE t SET a = a + 1")
    assert held(database) == [2]


def test_a_fault_is_for_one_statement(proxy: Proxy, database: ProxiedBackend, connect: Connect) -> None:
    connection = connect(**IMPATIENT)
    proxy.fail(Fault(kind="refused", number=1, times=None))
    run(connection, INSERT)
    with pytest.raises(ServiceUnavailableError):
        run(connection, INSERT)
    run(connection, INSERT)
    assert held(database) == [1, 2, 2]
    assert [one.fault for one in proxy.statements] == [None, "refused", None]


def test_what_is_healed_or_forgotten_fails_no_more(proxy: Proxy, connect: Connect) -> None:
    connection = connect(**IMPATIENT)
    with proxy.failing(Fault(kind="refused", times=None)), pytest.raises(ServiceUnavailableError):
        run(connection, "SELECT 1")
    run(connection, "SELECT 1")
    proxy.fail(Fault(kind="refused", times=None))
    proxy.forget()
    run(connection, "SELECT 1")
    assert [one.number for one in proxy.statements] == [0]
