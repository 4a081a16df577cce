"""A table that is held: who holds it, for how long, what is read meanwhile, and how its transaction ended."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as FutureTimeoutError
from contextlib import ExitStack
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from typing import Any

import dagster as dg
import pytest

pytest.importorskip("fakesnow", reason="fakesnow needs Python 3.11")

from snowflake.connector.errors import ProgrammingError
from sqlglot import exp

import dagster_safe_backfill as sb
from dagster_safe_backfill.model.options import Strategy
from dagster_safe_backfill.model.states import Audited, Origin, Published
from dagster_safe_backfill.model.tables import TableRef
from dagster_safe_backfill.sql import terms
from dagster_safe_backfill.wap.ledger import record
from dagster_safe_backfill.wap.publish import publish
from dagster_safe_backfill.wap.rollback.rollback import Chosen, rollback
from dagster_safe_backfill.warehouses.base import Session
from dagster_safe_backfill.warehouses.snowflake.errors import translated
from dagster_safe_backfill.warehouses.snowflake.locks import transaction_name
from dagster_safe_backfill_tests.harness.assets import Source, events, failure_of, run_range
from dagster_safe_backfill_tests.harness.audited import slice_of
from dagster_safe_backfill_tests.harness.publications import STRATEGIES, Publications, day_rows, publish_rules
from dagster_safe_backfill_tests.harness.snowflake.emulator import Emulator, serve
from dagster_safe_backfill_tests.harness.snowflake.proxy import FOREVER, Proxy
from dagster_safe_backfill_tests.harness.snowflake_backend import SnowflakeBackend
from dagster_safe_backfill_tests.warehouses.snowflake.conftest import Run

T = TableRef(schema="main", name="t")
OLD = [*day_rows(0, 1.0), *day_rows(1, 1.0)]
RUN = "3f1c9a52-7d2e-4a53-9a57-0c4d8a1b2e6f"


@pytest.fixture
def table(account: SnowflakeBackend) -> Publications:
    return Publications(account, live=OLD)


def published_in(
    session: Session, audited: Audited, run: str, *, strategy: Strategy = "merge", **rules: Any
) -> Published:
    """Publish in a session that is open already."""
    return publish(
        session, audited, rules=publish_rules(strategy, **rules), origin=Origin(run_id=run, publication_id=run)
    )


# Who holds it


@pytest.fixture
def killed(account: SnowflakeBackend) -> Iterator[Callable[[str], int]]:
    """Return what leaves a table held, as the process of a run does that is killed: nobody tells Snowflake."""
    left = ExitStack()

    def leave(run_id: str) -> int:
        session = left.enter_context(account.warehouse.connect())
        left.enter_context(session.transaction())
        left.enter_context(session.tables.hold(T, run_id=run_id))
        (holder,) = [one for one in account.emulator.sessions() if one["locks"]]
        number: int = holder["session"]
        return number

    yield leave
    with pytest.raises(sb.SafeBackfillError):
        left.close()


def test_who_waits_in_vain_says_who_held_the_table(
    table: Publications, account: SnowflakeBackend, killed: Callable[[str], int]
) -> None:
    staged = table.stage(day_rows(0, 2.0), [0], "1")
    session = killed(RUN)
    with pytest.raises(sb.TransactionConflictError, match=f"transaction [0-9]+ of run {RUN}") as caught:
        table.publish(staged, "1")
    said = str(caught.value)
    assert f"(user tester, session {session}), begun at 20" in said
    assert "SELECT SYSTEM$ABORT_TRANSACTION(" in said
    assert "raise lock_timeout" in said
    assert table.values() == {0: [1.0] * 3, 1: [1.0] * 3}
    account.emulator.end_session(session)


def test_the_transaction_of_a_run_that_has_ended_is_aborted(
    table: Publications, killed: Callable[[str], int], caplog: pytest.LogCaptureFixture
) -> None:
    staged = table.stage(day_rows(0, 2.0), [0], "1")
    killed(RUN)
    asked: list[str] = []

    def has_ended(run_id: str) -> bool:
        asked.append(run_id)
        return True

    with table.warehouse.connect() as session:
        session.run_has_ended = has_ended
        published_in(session, staged, "1")
    assert asked == [RUN]
    assert f"of run {RUN}" in caplog.text
    assert "because its run has ended" in caplog.text
    assert table.values() == {0: [2.0] * 3, 1: [1.0] * 3}


def test_the_transaction_of_an_earlier_try_of_the_same_run_is_aborted(
    table: Publications, killed: Callable[[str], int], caplog: pytest.LogCaptureFixture
) -> None:
    """Its session was lost, and the run goes on, so that Dagster never says that it has ended."""
    staged = table.stage(day_rows(0, 2.0), [0], RUN)
    killed(RUN)
    with table.warehouse.connect() as session:
        session.run_has_ended = lambda run_id: False
        published_in(session, staged, RUN)
    assert "because it is that of an earlier try of this run" in caplog.text
    assert table.values() == {0: [2.0] * 3, 1: [1.0] * 3}


def test_a_run_waits_for_its_own_transactions_before_it_aborts_them(
    account: SnowflakeBackend, killed: Callable[[str], int], caplog: pytest.LogCaptureFixture
) -> None:
    """Two ops of a run may write one table."""
    patient = account.manager(lock_timeout=20).warehouse()
    killed(RUN)
    (session,) = [one for one in account.emulator.sessions() if one["locks"]]
    with ThreadPoolExecutor(1) as pool, patient.connect() as other:
        other.run_has_ended = lambda run_id: False

        def wait() -> None:
            with other.transaction(), other.tables.hold(T, run_id=RUN):
                pass

        waiting = pool.submit(wait)
        assert not waits_less_than(waiting, 1.0)
        assert session in account.emulator.sessions()
        account.emulator.end_session(session["session"])
        waiting.result(timeout=30)
    assert "aborted" not in caplog.text


def waits_less_than(waiting: Future[None], seconds: float) -> bool:
    try:
        waiting.result(timeout=seconds)
    except FutureTimeoutError:
        return False
    return True


def test_names_of_transactions_tell_tables_and_runs_apart() -> None:
    assert transaction_name(T, RUN) != transaction_name(TableRef(schema="main", name="u"), RUN)
    assert transaction_name(T, RUN) != transaction_name(T, "another")


@pytest.mark.parametrize("is_known", [True, False])
def test_dagster_knows_which_runs_have_ended(
    is_known: bool, account: SnowflakeBackend, instance: dg.DagsterInstance
) -> None:
    """A run that this instance doesn't know may be one of another deployment's, at work."""
    source = Source()
    asset = events(source, limits=sb.Limits(max_retries=0))

    def ran() -> dg.ExecuteInProcessResult:
        return run_range([asset], "2024-01-01", "2024-01-02", io_manager=account.io_manager, instance=instance)

    holder = ran().run_id if is_known else RUN
    source.rows_per_day = 4
    with account.warehouse.connect() as session, ExitStack() as stack:
        if is_known:
            stack.enter_context(pytest.raises(sb.TransactionConflictError, match="aborted from outside"))
        with session.transaction(), session.tables.hold(TableRef(schema="main", name="events"), run_id=holder):
            again = ran()
            assert again.success == is_known
    if not is_known:
        assert f"of run {RUN}" in failure_of(again, "events")


def test_the_wait_is_longer_than_the_server_keeps_an_idle_transaction(
    table: Publications, account: SnowflakeBackend, killed: Callable[[str], int]
) -> None:
    assert sb.RangeSnowflakeIOManager(user="x", database="y").lock_timeout > 2 * 300
    staged = table.stage(day_rows(0, 2.0), [0], "1")
    killed(RUN)
    table.warehouse = account.manager(lock_timeout=20).warehouse()
    account.emulator.abort_idle_after(0.3)
    try:
        table.publish(staged, "1")
    finally:
        account.emulator.abort_idle_after(300)
    assert table.values() == {0: [2.0] * 3, 1: [1.0] * 3}


def test_another_users_transaction_is_named_and_left_alone(table: Publications, account: SnowflakeBackend) -> None:
    staged = table.stage(day_rows(0, 2.0), [0], "1")
    table.published(day_rows(1, 1.0), [1], "0")
    with account.session(user="somebody") as other:
        cursor = other.cursor()
        cursor.execute(f"BEGIN TRANSACTION NAME {transaction_name(T, RUN)}")
        cursor.execute("UPDATE t__lock SET run_id = 'x'")
        with table.warehouse.connect() as session:
            session.run_has_ended = lambda run_id: True
            with pytest.raises(sb.TransactionConflictError, match=r"transaction [0-9]+ \(user somebody, session"):
                published_in(session, staged, "1")
        assert cursor.execute("SELECT CURRENT_TRANSACTION()").fetchone() != (None,)  # type: ignore[union-attr]


def test_a_lock_without_its_row_is_not_taken_for_one(table: Publications) -> None:
    staged = table.stage(day_rows(0, 2.0), [0], "1")
    table.published(day_rows(1, 1.0), [1], "0")
    table.do("DELETE FROM t__lock")
    with pytest.raises(sb.WarehouseError, match=r"the table main\.t__lock, has no row.*Drop main\.t__lock"):
        table.publish(staged, "1")
    table.do("DROP TABLE t__lock")
    table.publish(staged, "1")
    assert table.values() == {0: [2.0] * 3, 1: [1.0] * 3}


def test_tables_of_a_schema_do_not_wait_for_each_other(table: Publications) -> None:
    other = TableRef(schema="main", name="u")
    with table.warehouse.connect() as session, session.transaction(), session.tables.hold(other, run_id=RUN):
        table.published(day_rows(0, 2.0), [0], "1")
    assert table.values() == {0: [2.0] * 3, 1: [1.0] * 3}


# How its transaction ended


def test_an_abort_of_what_runs_is_a_conflict(run: Run, other: Run) -> None:
    aborted = ProgrammingError("Transaction '17' was aborted, SQL execution canceled.", errno=615)
    assert isinstance(translated(aborted, "UPDATE t"), sb.TransactionConflictError)
    run("CREATE TABLE s AS SELECT 1 AS k UNION ALL SELECT 2")
    for _ in range(11):
        run("INSERT INTO s SELECT k + (SELECT max(k) FROM s) FROM s")
    run("CREATE TABLE t (k INT)")
    run("BEGIN")
    ((number,),) = run("SELECT CURRENT_TRANSACTION()")
    timer = threading.Timer(0.5, other, [f"SELECT SYSTEM$ABORT_TRANSACTION({number})"])
    timer.start()
    with pytest.raises(ProgrammingError) as raised:
        run("INSERT INTO t SELECT count(*) FROM s AS a JOIN s AS b ON a.k <> b.k + 1 JOIN s AS c ON c.k <> a.k + b.k")
    timer.join()
    assert raised.value.errno == 615
    assert other(f"DESCRIBE TRANSACTION {number}")[0][4] == "rolled back"
    assert run("SELECT CURRENT_TRANSACTION()") == [(None,)]


def test_after_an_abort_statements_commit_one_by_one(run: Run, other: Run) -> None:
    """So it is on the emulator, at least: nothing says that it isn't on Snowflake."""
    run("CREATE TABLE t (k INT)")
    run("BEGIN TRANSACTION NAME mine")
    run("INSERT INTO t SELECT 1")
    ((number, _, _, name, *_),) = other("SHOW TRANSACTIONS")
    assert name == "mine"
    other(f"SELECT SYSTEM$ABORT_TRANSACTION({number})")
    run("INSERT INTO t SELECT 2")
    assert other("SELECT k FROM t") == [(2,)]


@pytest.mark.parametrize("at", [1, 2, 3])
def test_a_transaction_that_was_aborted_commits_nothing(at: int, account: SnowflakeBackend) -> None:
    account.change("CREATE TABLE t AS SELECT 1 AS x")
    done: list[int] = []

    def work(session: Session) -> None:
        for number in (1, 2, 3):
            if number == at and not done:
                done.append(number)
                for one in account.emulator.sessions():
                    if one["in_transaction"]:
                        abort(account.emulator, one["session"])
            session.append(T, ["x"], [(number * 10,)])
            session.query(exp.select("x").from_(terms.table(T)))

    with account.warehouse.connect() as session:
        session.attempt(lambda: work(session))
    assert account.read("SELECT x FROM t ORDER BY x") == [(1,), (10,), (20,), (30,)]


def abort(emulator: Emulator, session: int) -> None:
    assert emulator.account is not None
    emulator.account.by_number(session).abort()


@pytest.mark.parametrize("strategy", ["merge", "replace"])
def test_a_lost_reply_to_commit_is_settled_at_once(
    emulator: Emulator, proxy: Proxy, strategy: Strategy, caplog: pytest.LogCaptureFixture
) -> None:
    account = SnowflakeBackend(replace(emulator, port=proxy.port))
    table = Publications(account, live=OLD)
    staged = table.stage(day_rows(0, 2.0), [0], "1")
    table.warehouse = account.manager(network_timeout=1).warehouse()
    proxy.fail(when="^COMMIT", how="lose reply", times=FOREVER)
    published = table.publish(staged, "1", strategy=strategy)
    proxy.heal()
    assert not published.is_repeated
    assert "Snowflake says that transaction" in caplog.text
    assert table.values() == {0: [2.0] * 3, 1: [1.0] * 3}
    assert [event for event, _, _ in table.events()].count("published") == 1
    assert table.tables("__shadow_") == []
    table.rollback("1")
    assert table.values() == {0: [1.0] * 3, 1: [1.0] * 3}
    emulator.drop(account.database)


def test_a_commit_that_did_not_take_place_leaves_no_lock(emulator: Emulator, proxy: Proxy) -> None:
    account = SnowflakeBackend(replace(emulator, port=proxy.port))
    table = Publications(account, live=OLD)
    staged = table.stage(day_rows(0, 2.0), [0], "1")
    table.warehouse = account.manager(network_timeout=1).warehouse()
    proxy.fail(when="^COMMIT", how="refuse", times=FOREVER)
    with pytest.raises(sb.WarehouseUnavailableError):
        table.publish(staged, "1")
    proxy.heal()
    assert [one["locks"] for one in emulator.sessions() if one["locks"]] == []
    assert not table.publish(staged, "1").is_repeated
    assert table.values() == {0: [2.0] * 3, 1: [1.0] * 3}
    emulator.drop(account.database)


# What is read meanwhile


@pytest.fixture(scope="module")
def late() -> Iterator[Emulator]:
    """A Snowflake whose sessions see what others commit only as of their login, or of their own last commit."""
    with serve(direct=True) as emulator:
        emulator.switch(is_stale=True)
        yield emulator


@pytest.fixture
def far(late: Emulator) -> Iterator[Publications]:
    account = SnowflakeBackend(late)
    yield Publications(account, live=OLD)
    late.drop(account.database)


def test_a_session_may_miss_what_others_commit(late: Emulator, far: Publications) -> None:
    assert isinstance(far.backend, SnowflakeBackend)
    with far.backend.session() as one, far.backend.session() as other:
        reading, writing = one.cursor(), other.cursor()
        writing.execute("INSERT INTO t VALUES ('2024-01-01', 9, 9, NULL)")
        assert reading.execute("SELECT count(*) FROM t").fetchone() == (6,)  # type: ignore[union-attr]
        with far.backend.session() as newer:
            assert newer.cursor().execute("SELECT count(*) FROM t").fetchone() == (7,)  # type: ignore[union-attr]
        reading.execute("UPDATE t SET value = 8 WHERE id = 9")
        assert reading.execute("SELECT count(*) FROM t").fetchone() == (7,)  # type: ignore[union-attr]


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_what_another_session_published_in_between_is_seen(far: Publications, strategy: Strategy) -> None:
    """In the second batch of a session, whose connections were opened before."""
    first, second = far.stage(day_rows(0, 2.0), [0], "1"), far.stage(day_rows(1, 2.0), [1], "2")
    theirs = far.stage(day_rows(1, 3.0), [1], "3")
    with far.warehouse.connect() as session:
        published_in(session, first, "1", strategy=strategy)
        far.publish(theirs, "3", strategy=strategy)
        with pytest.raises(sb.PublishConflictError, match="published by 3"):
            published_in(session, second, "2", strategy=strategy)
    assert far.values() == {0: [2.0] * 3, 1: [3.0] * 3}


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_what_is_overwritten_is_archived_as_it_was(far: Publications, strategy: Strategy) -> None:
    mine, theirs = far.stage(day_rows(0, 2.0), [0], "1"), far.stage(day_rows(0, 3.0, 4), [0], "2")
    with far.warehouse.connect() as session:
        far.publish(theirs, "2", strategy=strategy)
        published_in(session, mine, "1", strategy=strategy, on_conflict="overwrite")
    assert far.values() == {0: [2.0] * 3, 1: [1.0] * 3}
    assert {value for (value,) in far.read("SELECT value FROM t__archive_1 WHERE day = '2024-01-01'")} == {3.0}
    far.rollback("1")
    assert far.values() == {0: [3.0] * 4, 1: [1.0] * 3}


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_an_earlier_try_that_was_published_is_seen(far: Publications, strategy: Strategy) -> None:
    audited = far.stage(day_rows(0, 2.0), [0], "1")
    with far.warehouse.connect() as session:
        far.publish(audited, "1", strategy=strategy)
        assert published_in(session, audited, "1", strategy=strategy).is_repeated
    assert far.values() == {0: [2.0] * 3, 1: [1.0] * 3}
    assert [event for event, _, _ in far.events()].count("published") == 1


def test_a_rollback_sees_what_was_published_in_between(far: Publications) -> None:
    far.published(day_rows(0, 2.0), [0], "1")
    theirs = far.stage(day_rows(0, 3.0), [0], "2")

    def undo(session: Session, publication: str, run: str) -> Any:
        return rollback(
            session,
            Chosen(publication_id=publication),
            spec=far.spec,
            partition_slice=slice_of(),
            origin=Origin(run_id=run, publication_id=run),
            archive_for=timedelta(days=1),
        )

    with far.warehouse.connect() as session:
        far.publish(theirs, "2")
        with pytest.raises(sb.RollbackConflictError, match="published again since"):
            undo(session, "1", "back")
        undo(session, "2", "back2")
    assert far.values() == {0: [2.0] * 3, 1: [1.0] * 3}


def test_the_ledger_keeps_its_order_though_clocks_differ(far: Publications, monkeypatch: pytest.MonkeyPatch) -> None:
    class Ahead(datetime):
        @classmethod
        def now(cls, tz: Any = None) -> datetime:  # type: ignore[override]
            return datetime.now(tz or timezone.utc) + timedelta(hours=1)

    mine, theirs = far.stage(day_rows(0, 2.0), [0], "1"), far.stage(day_rows(0, 3.0), [0], "2")
    with far.warehouse.connect() as session:
        with monkeypatch.context() as patch:
            patch.setattr(record, "datetime", Ahead)
            far.publish(theirs, "2")
        published_in(session, mine, "1", on_conflict="overwrite")
    assert [publication for event, _, publication in far.events() if event == "published"] == ["2", "1"]
    far.rollback()
    assert far.values() == {0: [3.0] * 3, 1: [1.0] * 3}


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_sessions_are_few(late: Emulator, strategy: Strategy, instance: dg.DagsterInstance) -> None:
    """A login takes about a second. A batch has two, one when it holds the table, and one to look again."""
    account = SnowflakeBackend(late)
    assert late.account is not None
    source = Source()
    asset = events(source, publish=strategy, batches=sb.Batches(size=1, publish_each=True))
    counts: list[int] = []
    for last in ("2024-01-02", "2024-01-01", "2024-01-02"):
        before = late.account.logins
        late.account.most_sessions.clear()
        assert run_range([asset], "2024-01-01", last, io_manager=account.io_manager, instance=instance).success
        counts.append(late.account.logins - before)
        assert late.account.most_sessions[account.database] <= 2
        source.rows_per_day += 1
    sys.stdout.write(f"{strategy}: {counts[2] - counts[1]} logins a batch, {counts[1]} for a run of one\n")
    assert counts[2] - counts[1] <= 4
    late.drop(account.database)
