"""Sessions: what they are tagged with, how long they wait, and what comes of one that is stopped or lost."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from itertools import count
from typing import Any

import dagster as dg
import pandas as pd
import pyarrow as pa
import pytest
import sqlglot
from sqlglot import exp

import dagster_safe_backfill as sb
from dagster_safe_backfill.model.tables import TableRef
from dagster_safe_backfill.warehouses.base import STATEMENTS, Session
from dagster_safe_backfill_tests.harness.assets import Source, events, failure_of, run_range
from dagster_safe_backfill_tests.harness.publications import STRATEGIES, Publications, day_rows
from dagster_safe_backfill_tests.harness.snowflake.emulator import Emulator
from dagster_safe_backfill_tests.harness.snowflake_backend import SnowflakeBackend
from dagster_safe_backfill_tests.runs.test_staged import Shop

FIRST, LAST = "2024-01-01", "2024-01-04"
T = TableRef(schema="main", name="t")
LONG = "SELECT count(*) AS x FROM s AS a JOIN s AS b ON a.k <> b.k + 1 JOIN s AS c ON c.k <> a.k + b.k"
"""Some seconds, at least."""


@pytest.fixture
def slow(account: SnowflakeBackend) -> SnowflakeBackend:
    """Have a table of which LONG takes long."""
    account.create("s", pa.table({"k": [*range(3000)]}))
    return account


# Tags


class Told:
    """The tags of an account's statements since it was last asked."""

    def __init__(self, account: SnowflakeBackend) -> None:
        self._account = account
        self._seen = 0

    def tags(self) -> list[dict[str, str]]:
        """Return each tag once, the library's own statements only."""
        history = self._account.emulator.history(self._account.database)
        found = [one["query_tag"] for one in history[self._seen :]]
        self._seen = len(history)
        return [json.loads(tag) for tag in dict.fromkeys(found) if tag]


def tag(run_id: str, publication_id: str | None = None, *, table: str = "main.events") -> dict[str, str]:
    found = {"tool": "dagster-safe-backfill", "table": table, "run_id": run_id}
    return found if publication_id is None else {**found, "publication_id": publication_id}


def test_every_statement_of_a_run_is_tagged(account: SnowflakeBackend, instance: dg.DagsterInstance) -> None:
    told, asset = Told(account), events(Source(), batches=2)
    run = run_range([asset], FIRST, LAST, io_manager=account.io_manager, instance=instance, raise_on_error=True)
    assert told.tags() == [tag(run.run_id, run.run_id)]
    back = sb.build_rollback_job(asset).execute_in_process(resources={"io_manager": account.io_manager})
    assert told.tags() == [tag(back.run_id, back.run_id)]
    schedule = sb.build_retention_schedule([asset])
    assert isinstance(schedule.job, dg.JobDefinition)
    retention = schedule.job.execute_in_process(resources={"io_manager": account.io_manager})
    assert told.tags() == [tag(retention.run_id)]
    checks = sb.build_audit_checks(asset, [sb.not_null("value")], last=2)
    checked = dg.materialize(
        [asset, checks],
        selection=dg.AssetSelection.checks(checks),
        resources={"io_manager": account.io_manager},
        instance=instance,
    )
    assert told.tags() == [tag(checked.run_id)]


def test_batches_that_are_publications_of_their_own_are_tagged_with_the_run(
    account: SnowflakeBackend, instance: dg.DagsterInstance
) -> None:
    asset = events(Source(), batches=sb.Batches(size=2, publish_each=True))
    run = run_range([asset], FIRST, LAST, io_manager=account.io_manager, instance=instance, raise_on_error=True)
    assert Told(account).tags() == [tag(run.run_id)]


def test_staged_assets_are_tagged_with_their_backfill(account: SnowflakeBackend, instance: dg.DagsterInstance) -> None:
    told, shop = Told(account), Shop(account.io_manager, instance)
    staged = shop.stage(FIRST, LAST)
    assert told.tags() == [tag(staged.run_id)]
    audited = shop.audit()
    assert told.tags() == [tag(audited.run_id)]
    published = shop.publish(FIRST, LAST)
    assert published.success
    assert told.tags() == [tag(published.run_id, published.run_id)]


def test_assets_of_the_io_manager_are_tagged_and_with_the_users_own_pairs(account: SnowflakeBackend) -> None:
    @dg.asset
    def one() -> pd.DataFrame:
        return pd.DataFrame({"a": [1]})

    @dg.asset
    def two(one: pd.DataFrame) -> pd.DataFrame:
        return one

    manager = account.manager(query_tag={"team": "growth", "tool": "mine"})
    run = dg.materialize([one, two], resources={"io_manager": manager})
    own = {"team": "growth"}
    assert Told(account).tags() == [own | tag(run.run_id, table=f"main.{name}") for name in ("one", "two")]
    with manager.warehouse().connect() as connection:
        connection.tables.columns(T)
    assert Told(account).tags()[-1] == {**own, "tool": "dagster-safe-backfill"}


def test_a_tag_that_is_too_long_is_refused_before_anything_is_done(account: SnowflakeBackend) -> None:
    manager = account.manager(query_tag={"text": "x" * 2000})
    with (
        pytest.raises(sb.ConfigurationError, match=r"Snowflake accepts 2000\. Shorten it"),
        manager.warehouse().connect(),
    ):
        pass


# Waits


def test_waits_are_passed_on(account: SnowflakeBackend, monkeypatch: pytest.MonkeyPatch) -> None:
    import snowflake.connector

    given: list[dict[str, Any]] = []
    connect = snowflake.connector.connect

    def noting(**options: Any) -> Any:
        given.append(options)
        return connect(**options)

    monkeypatch.setattr(snowflake.connector, "connect", noting)
    manager = account.manager(lock_timeout=7, login_timeout=11, network_timeout=13, statement_timeout=17)
    with manager.warehouse().connect() as connection:
        connection.tables.columns(T)
        assert connection.conflict_timeout == 7
    assert (given[0]["login_timeout"], given[0]["network_timeout"]) == (11, 13)
    last = account.emulator.history(account.database)[-1]["parameters"]
    assert (last["LOCK_TIMEOUT"], last["STATEMENT_TIMEOUT_IN_SECONDS"]) == (7, 17)


def test_a_wait_that_is_less_than_a_second_is_one(account: SnowflakeBackend) -> None:
    with account.manager(lock_timeout=0.2).warehouse().connect() as connection:
        connection.tables.columns(T)
    assert account.emulator.history(account.database)[-1]["parameters"]["LOCK_TIMEOUT"] == 1


def test_a_lock_that_is_held_for_too_long_says_what_to_do(account: SnowflakeBackend) -> None:
    table = Publications(account, live=day_rows(0, 1.0))
    staged = table.stage(day_rows(0, 2.0), [0], "1")
    with account.session() as other:
        other.cursor().execute("BEGIN")
        other.cursor().execute("UPDATE t SET value = 9")
        with pytest.raises(sb.TransactionConflictError, match=r"for all of lock_timeout\. SHOW LOCKS") as caught:
            table.publish(staged, "1")
        other.cursor().execute("ROLLBACK")
    assert "raise lock_timeout" in str(caught.value)
    assert table.values() == {0: [1.0] * 3}
    assert locks(account) == []
    table.publish(staged, "1")
    assert table.values() == {0: [2.0] * 3}


def locks(account: SnowflakeBackend) -> list[str]:
    """Return what sessions of the account have locked, and those in a transaction."""
    found = [one for one in account.emulator.sessions() if one["database"] == account.database]
    return [str(one) for one in found if one["locks"] or one["in_transaction"]]


# Cancelled


def run(connection: Session, sql: str) -> list[tuple[Any, ...]]:
    statement = sqlglot.parse_one(sql, dialect="snowflake")
    if isinstance(statement, exp.Query):
        return connection.query(statement)
    assert isinstance(statement, exp.Insert | exp.Update | exp.Delete)
    return [(connection.execute(statement),)]


def test_a_statement_is_stopped_from_outside_and_its_transaction_undone(slow: SnowflakeBackend) -> None:
    slow.change("CREATE TABLE t AS SELECT 1 AS x")
    with slow.warehouse.connect() as connection:
        timer = threading.Timer(0.5, connection.cancel)
        timer.start()
        started = time.monotonic()
        with pytest.raises(sb.StatementCancelledError, match="was stopped from outside"), connection.transaction():
            run(connection, "UPDATE t SET x = 2")
            run(connection, f"INSERT INTO t {LONG}")
        timer.join()
        assert time.monotonic() - started < 4
        assert locks(slow) == []
        connection.cancel()
        assert run(connection, "SELECT x FROM t") == [(1,)]
    history = slow.emulator.history(slow.database)
    (cancelled,) = [one for one in history if one["error"]]
    assert cancelled["error"].startswith("000604")
    (by,) = [one for one in history if "SYSTEM$CANCEL_ALL_QUERIES" in one["sql"]]
    assert by["session"] != cancelled["session"], "a session that runs something can't be asked for anything else"


def test_no_cancel_meets_what_ends_a_transaction(account: SnowflakeBackend) -> None:
    account.change("CREATE TABLE t AS SELECT 1 AS x")
    calm = threading.Event()
    outcomes = {"committed": 0, "cancelled": 0}
    with account.warehouse.connect() as connection:

        def rage() -> None:
            while not calm.wait(0.005):
                connection.cancel()

        thread = threading.Thread(target=rage)
        thread.start()
        for _ in range(40):
            ((before,),) = account.read("SELECT x FROM t")
            try:
                with connection.transaction():
                    run(connection, "UPDATE t SET x = x + 1")
                outcome = "committed"
            except sb.StatementCancelledError:
                outcome = "cancelled"
            outcomes[outcome] += 1
            ((after,),) = account.read("SELECT x FROM t")
            assert after - before == (outcome == "committed")
            assert locks(account) == []
        calm.set()
        thread.join()
    assert outcomes["committed"], outcomes
    ended = [
        one for one in account.emulator.history(account.database) if one["kind"] in ("begin", "commit", "rollback")
    ]
    assert {one["kind"] for one in ended} >= {"begin", "commit"}
    assert [one for one in ended if one["error"]] == []


def test_a_batch_that_takes_too_long_is_cancelled_and_what_was_staged_is_kept(
    slow: SnowflakeBackend, instance: dg.DagsterInstance
) -> None:
    source = Source()

    def asset(**options: Any) -> dg.AssetsDefinition:
        return events(source, **{"batches": 2, "limits": sb.Limits(retry_wait=0.0), **options})

    def ran(assets: dg.AssetsDefinition, last: str = LAST) -> dg.ExecuteInProcessResult:
        return run_range([assets], FIRST, last, io_manager=slow.io_manager, instance=instance)

    assert ran(asset(), last=FIRST).success
    before = slow.read("SELECT * FROM events")
    # Of the third day: the second batch.
    late = f"day < '2024-01-03' OR ({LONG}) > 0"
    failed = ran(asset(audits=[sb.expression(late, name="late")], limits=sb.Limits(retry_wait=0.0, timeout_seconds=3)))
    assert not failed.success
    said = failure_of(failed, "events")
    assert "BatchTimeoutError" in said
    assert "took longer than timeout_seconds=3, so it was stopped" in said
    assert slow.read("SELECT * FROM events") == before
    assert locks(slow) == []
    history = slow.emulator.history(slow.database)
    assert [one["error"] for one in history if one["error"] and one["error"].startswith("000604")]
    assert not [one for one in history if one["error"] and one["kind"] in ("commit", "rollback")]
    source.calls.clear()
    audits = [sb.expression("value > 0", name="positive")]
    assert ran(asset(audits=audits)).success
    assert slow.read("SELECT count(*), count(DISTINCT day) FROM events") == [(12, 4)]


def test_a_statement_that_its_own_timeout_stops_says_what_to_raise(slow: SnowflakeBackend) -> None:
    manager = slow.manager(statement_timeout=1)
    with manager.warehouse().connect() as connection:
        with pytest.raises(sb.StatementCancelledError, match="Raise statement_timeout") as caught:
            run(connection, LONG)
        assert "batches" in str(caught.value)
        assert run(connection, "SELECT 1 AS one") == [(1,)]


def test_a_cancel_that_fails_is_tried_again(
    slow: SnowflakeBackend, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    from dagster_safe_backfill.runs.limits.deadlines import Deadline
    from dagster_safe_backfill.warehouses.snowflake.driver import Connections

    cancel, tries = Connections._cancel, count()

    def failing_once(self: Connections, ids: Any) -> None:
        if next(tries) == 0:
            raise sb.WarehouseUnavailableError("no answer")
        cancel(self, ids)

    monkeypatch.setattr(Connections, "_cancel", failing_once)
    with (
        slow.warehouse.connect() as connection,
        pytest.raises(sb.BatchTimeoutError),
        Deadline(0.3, "it").over(connection),
    ):
        run(connection, LONG)
    assert "could not be stopped: no answer" in caplog.text


# Lost


class Losing:
    """Ends the sessions of an account before the n-th statement that the library logs, once."""

    def __init__(self, account: SnowflakeBackend, at: int) -> None:
        self._account = account
        self._left = at
        self.statement = ""

    def __call__(self, record: Any) -> bool:
        self._left -= 1
        if self._left == 0:
            self.statement = record.getMessage()
            for session in self._account.emulator.sessions():
                if session["database"] == self._account.database:
                    self._account.emulator.end_session(session["session"])
        return True


@pytest.fixture
def losing(account: SnowflakeBackend, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[int], Losing]]:
    level = STATEMENTS.level
    STATEMENTS.setLevel("DEBUG")
    made: list[Losing] = []

    def lose(at: int) -> Losing:
        made.append(Losing(account, at))
        STATEMENTS.addFilter(made[-1])
        return made[-1]

    yield lose
    STATEMENTS.setLevel(level)
    for one in made:
        STATEMENTS.removeFilter(one)


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_whichever_statement_loses_its_session_live_is_old_or_new(
    strategy: Any, emulator: Emulator, losing: Callable[[int], Losing]
) -> None:
    """The next try, as of `max_retries`, reconciles. Of every third statement; `test_faults.py` has others."""
    old, new = {0: [1.0] * 3, 1: [1.0] * 3}, {0: [2.0] * 3, 1: [1.0] * 3}
    for at in count(1, step=3):
        account = SnowflakeBackend(emulator)
        table = Publications(account, live=[*day_rows(0, 1.0), *day_rows(1, 1.0)])
        staged = table.stage(day_rows(0, 2.0), [0], "1")
        lost = losing(at)
        lost._account = account
        with suppress(sb.WarehouseUnavailableError):
            table.publish(staged, "1", strategy=strategy)
        if not lost.statement:
            assert at > 12
            break
        assert table.values() in (old, new), lost.statement
        assert locks(account) == [], lost.statement
        table.publish(staged, "1", strategy=strategy)
        assert table.values() == new, lost.statement
        assert [event for event, _, _ in table.events()].count("published") == 1, lost.statement
        table.rollback("1")
        assert table.values() == old, lost.statement
        emulator.drop(account.database)


@pytest.mark.parametrize("at", [10, 17, 24])
def test_a_run_whose_session_is_lost_is_tried_again(
    at: int, account: SnowflakeBackend, instance: dg.DagsterInstance, losing: Callable[[int], Losing]
) -> None:
    lost = losing(at)
    asset = events(Source(), limits=sb.Limits(retry_wait=0.0))
    result = run_range([asset], FIRST, LAST, io_manager=account.io_manager, instance=instance)
    assert lost.statement
    assert result.success
    assert account.read("SELECT count(*), count(DISTINCT day) FROM events") == [(12, 4)]
    assert locks(account) == []


def test_without_retries_the_error_says_what_was_lost(
    account: SnowflakeBackend, instance: dg.DagsterInstance, losing: Callable[[int], Losing]
) -> None:
    lost = losing(28)
    asset = events(Source(), limits=sb.Limits(max_retries=0))
    result = run_range([asset], FIRST, LAST, io_manager=account.io_manager, instance=instance)
    assert lost.statement
    said = failure_of(result, "events")
    assert "WarehouseUnavailableError: main.events: the session with Snowflake was lost" in said
    assert "390111" in said
    assert locks(account) == []
