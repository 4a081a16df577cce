"""What bounds a run, each bound through `@wap_asset`: time, retries, hours, and how much at once."""

from __future__ import annotations

import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from datetime import datetime, timezone
from typing import Any

import dagster as dg
import pandas as pd
import pytest

import dagster_safe_backfill as sb
from dagster_safe_backfill.runs.limits import allowed as bounds
from dagster_safe_backfill.runs.limits.allowed import CONFIRMED_TAG
from dagster_safe_backfill.runs.run import Run
from dagster_safe_backfill_tests.conftest import Read
from dagster_safe_backfill_tests.harness.assets import (
    DAYS,
    RANGE_END,
    RANGE_START,
    Source,
    events,
    failure_of,
    green,
    run_range,
)
from dagster_safe_backfill_tests.harness.backends import DuckDBBackend
from dagster_safe_backfill_tests.runs.test_batches import FIVES, TWELVE, Runs, counts, shadows

ENDLESS = "SELECT sum(hash(range)) FROM range(1000000000000)"
SOON = 3.0
GRACE = 2.5
"""How much later than its deadline a batch may be stopped."""


@pytest.fixture
def runs(io_manager: sb.RangeIOManager, instance: dg.DagsterInstance) -> Runs:
    return Runs(io_manager, instance)


def no_table(read: Read) -> bool:
    return read("SELECT count(*) FROM duckdb_tables() WHERE table_name = 'events'") == [(0,)]


# timeout_seconds

WRITER = """
import sys, duckdb
with duckdb.connect(sys.argv[1]) as connection:
    connection.execute("CREATE TABLE others AS SELECT 1 AS x")
"""


class Slow:
    """An asset whose last batch takes for ever, as a query or in Python."""

    def __init__(self, hang: Callable[[], object] | None) -> None:
        self.calls: list[tuple[str, ...]] = []
        self.hang = hang
        self.is_mended = False

    def asset(self, **options: Any) -> dg.AssetsDefinition:
        @sb.wap_asset(
            partitions_def=DAYS,
            partition_expr="day",
            unique_key=["day", "id"],
            backfill_policy=sb.single_run(),
            batches=5,
            code_version="1",
            **options,
        )
        def events(partitions: sb.PartitionSlice) -> sb.Query:
            self.calls.append(partitions.keys)
            value = "1"
            if TWELVE[10] in partitions.keys and not self.is_mended:
                if self.hang is not None:
                    self.hang()
                value = f"({ENDLESS})"
            days = ", ".join(f"DATE '{key}'" for key in partitions.keys)
            return sb.Query(f"SELECT unnest([{days}]) AS day, 1 AS id, {value} AS value")

        return events


def spin() -> None:
    while True:
        pass


def sleep() -> None:
    time.sleep(60)


@pytest.mark.parametrize("hang", [None, sleep, spin], ids=["query", "sleep", "loop"])
def test_a_batch_that_takes_too_long_is_stopped(
    backend: DuckDBBackend, instance: dg.DagsterInstance, hang: Callable[[], None] | None
) -> None:
    slow = Slow(hang)

    def run(again: dg.DagsterRun | None = None, **options: Any) -> dg.ExecuteInProcessResult:
        asset, io_manager = slow.asset(**options), backend.io_manager
        return run_range([asset], TWELVE[0], TWELVE[-1], io_manager=io_manager, instance=instance, again=again)

    failed = run(limits=sb.Limits(timeout_seconds=SOON, max_retries=0))
    message = failure_of(failed, "events")
    (seconds,) = re.findall(r"took longer than timeout_seconds=3, so it was stopped after ([\d.]+) s", message)
    assert SOON - 0.1 < float(seconds) < SOON + GRACE
    assert slow.calls == FIVES
    assert no_table(backend.read)
    assert green(instance, "events") == set()
    assert len(shadows(backend.read)) == 2
    subprocess.run([sys.executable, "-c", WRITER, backend.path], check=True, timeout=60)

    slow.calls.clear()
    slow.is_mended = True
    assert run(again=failed.dagster_run, limits=sb.Limits(timeout_seconds=60)).success
    assert slow.calls == FIVES[2:]
    assert counts(backend.read) == dict.fromkeys(TWELVE, 1)
    assert shadows(backend.read) == []


# max_retries


class Flaky(Source):
    """A source that fails some times, and then has the rows."""

    def __init__(self, failures: int, error: Callable[[], Exception]) -> None:
        super().__init__()
        self.left = failures
        self.failure = error

    def frame(self, keys: Any) -> pd.DataFrame:
        frame = super().frame(keys)
        if self.left:
            self.left -= 1
            raise self.failure()
        return frame


def attempt(
    source: Source, io_manager: sb.RangeIOManager, instance: dg.DagsterInstance, **options: Any
) -> dg.ExecuteInProcessResult:
    asset = events(source, **{"limits": sb.Limits(retry_wait=0.0), **options})
    return run_range([asset], TWELVE[0], TWELVE[4], io_manager=io_manager, instance=instance)


def test_a_connection_that_breaks_twice(
    io_manager: sb.RangeIOManager, instance: dg.DagsterInstance, read: Read, capfd: pytest.CaptureFixture[str]
) -> None:
    source = Flaky(2, lambda: ConnectionError("reset by peer"))
    assert attempt(source, io_manager, instance, limits=sb.Limits(retry_wait=0.0, max_retries=2)).success
    assert source.calls == [FIVES[0]] * 3
    assert counts(read) == dict.fromkeys(FIVES[0], 3)
    told = capfd.readouterr().err
    assert "retry 1 of 2 in 0.0 s, after ConnectionError: reset by peer" in told
    assert "retry 2 of 2" in told

    source = Flaky(3, lambda: ConnectionError("reset by peer"))
    assert "reset by peer" in failure_of(
        attempt(source, io_manager, instance, limits=sb.Limits(retry_wait=0.0, max_retries=2)), "events"
    )
    assert len(source.calls) == 3


HOLDER = """
import sys, duckdb
with duckdb.connect(sys.argv[1]):
    print("held", flush=True)
    sys.stdin.readline()
"""


class Holder:
    """A process that holds a file until the second retry."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._process: subprocess.Popen[str] | None = None
        self.attempts: list[int] = []

    def hold(self) -> None:
        command = [sys.executable, "-c", HOLDER, self._path]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == "held\n"

    def retried(self, attempt: int) -> None:
        self.attempts.append(attempt)
        if attempt == 2:
            self.let_go()

    def let_go(self) -> None:
        if self._process is not None:
            self._process.communicate("\n")
            self._process = None


@pytest.fixture
def holder(backend: DuckDBBackend, monkeypatch: pytest.MonkeyPatch) -> Iterator[Holder]:
    holder = Holder(backend.path)
    log = Run._log_retry

    def log_and_let_go(self: Run, error: BaseException, attempt: int, seconds: float) -> None:
        log(self, error, attempt, seconds)
        holder.retried(attempt)

    monkeypatch.setattr(Run, "_log_retry", log_and_let_go)
    yield holder
    holder.let_go()


@pytest.mark.parametrize("is_before", [True, False], ids=["before the run", "while it computes"])
def test_a_file_that_another_process_holds_for_a_moment(
    backend: DuckDBBackend, instance: dg.DagsterInstance, holder: Holder, is_before: bool
) -> None:
    io_manager = sb.RangeDuckDBIOManager(database=backend.path, schema="main", lock_timeout=0.05)
    source = Source()

    class Locking(Source):
        def frame(self, keys: Any) -> pd.DataFrame:
            holder.hold()
            return source.frame(keys)

    if is_before:
        backend.read("CREATE TABLE others AS SELECT 1 AS x")
        holder.hold()
    assert attempt(source if is_before else Locking(), io_manager, instance).success
    assert holder.attempts == [1, 2]
    assert source.calls == [FIVES[0]]
    assert counts(backend.read) == dict.fromkeys(FIVES[0], 3)


def rejected() -> Source:
    source = Source()
    source.spoiled[TWELVE[0], 0] = -1.0
    return source


class Widened(Source):
    def frame(self, keys: Any) -> pd.DataFrame:
        return super().frame(keys).assign(surprise=1)


class Nonsense(Source):
    def frame(self, keys: Any) -> Any:
        super().frame(keys)
        return 1


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (rejected(), "positive: 1 row failed"),
        (Widened(), "surprise"),
        (Nonsense(), "a int is neither a frame"),
    ],
    ids=["audit", "schema", "configuration"],
)
def test_what_would_fail_again_is_not_tried_again(
    io_manager: sb.RangeIOManager, instance: dg.DagsterInstance, source: Source, message: str
) -> None:
    assert attempt(Source(), io_manager, instance).success
    source.calls.clear()
    failed = attempt(source, io_manager, instance, retry_policy=dg.RetryPolicy(max_retries=2))
    assert message in failure_of(failed, "events")
    assert len(source.calls) == 1


@pytest.mark.parametrize("error", [ConnectionError, ValueError, sb.WarehouseUnavailableError])
def test_dagsters_retries_stay_for_what_can_pass(
    io_manager: sb.RangeIOManager, instance: dg.DagsterInstance, error: type[Exception]
) -> None:
    source = Flaky(2, lambda: error("for now"))
    policy = dg.RetryPolicy(max_retries=2)
    assert attempt(source, io_manager, instance, limits=sb.Limits(max_retries=0), retry_policy=policy).success
    assert len(source.calls) == 3


# allowed_hours


class Clock:
    """The time that a run sees; it moves on when a batch is computed."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.hour = 22

        monkeypatch.setattr(bounds, "_now", lambda: datetime(2024, 6, 1, self.hour, 30, tzinfo=timezone.utc))


def test_a_run_stops_before_its_next_batch_once_its_hours_are_over(
    runs: Runs, read: Read, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock(monkeypatch)
    frame = runs.source.frame

    def frame_until_morning(keys: Any) -> pd.DataFrame:
        if tuple(keys) == FIVES[1]:
            clock.hour = 7
        return frame(keys)

    monkeypatch.setattr(runs.source, "frame", frame_until_morning)
    message = runs.fail(limits=sb.Limits(retry_wait=0.0, allowed_hours="22:00-06:00 UTC"))
    assert runs.source.calls == FIVES[:2]
    assert "22:00-06:00 UTC, and it is 07:30 there" in message
    assert "at 2024-06-01 22:00 UTC or later" in message
    assert no_table(read)
    assert len(shadows(read)) == 2

    runs.fail(limits=sb.Limits(retry_wait=0.0, allowed_hours="22:00-06:00 UTC"), again=runs.last)
    assert runs.source.calls == []

    clock.hour = 22
    assert runs.rerun(limits=sb.Limits(retry_wait=0.0, allowed_hours="22:00-06:00 UTC")).success
    assert runs.source.calls == FIVES[2:]
    assert counts(read) == dict.fromkeys(TWELVE, 3)
    assert shadows(read) == []


# max_partitions


def test_more_partitions_than_allowed_must_be_confirmed(
    io_manager: sb.RangeIOManager, instance: dg.DagsterInstance, read: Read
) -> None:
    source = Source()
    asset = events(source, limits=sb.Limits(max_partitions=4))

    def run(**tags: str) -> dg.ExecuteInProcessResult:
        return dg.materialize(
            [asset],
            tags={RANGE_START: TWELVE[0], RANGE_END: TWELVE[4], **tags},
            resources={"io_manager": io_manager},
            instance=instance,
            raise_on_error=False,
        )

    message = failure_of(run(), "events")
    assert "5 partitions were requested, but the limit of one backfill is Limits(max_partitions=4)" in message
    assert source.calls == []
    assert no_table(read)
    assert not run(**{CONFIRMED_TAG: "6"}).success
    assert source.calls == []
    assert run(**{CONFIRMED_TAG: "5"}).success
    assert source.calls == [FIVES[0]]


@pytest.mark.parametrize(
    ("argument", "value"),
    [
        *(("size", value) for value in (0, -1, True, 2.5, "10")),
        *(("max_partitions", value) for value in (0, -1, True, 2.5, "10")),
        *(("timeout_seconds", value) for value in (0, -1, float("nan"), float("inf"), True, "10")),
        *(("max_retries", value) for value in (-1, True, 2.5, float("inf"), None, "3")),
        *(("retry_wait", value) for value in (-1, float("nan"), float("inf"), True, None, "1")),
        *(("allowed_hours", value) for value in ("", "22-6 UTC", "22:00-06:00", "22:00-06:00 Mars/Base", 22)),
        *(("publish_each", value) for value in ("runs", "partition", None)),
    ],
)
def test_bad_values_are_refused_when_the_asset_is_declared(argument: str, value: object) -> None:
    with pytest.raises(sb.ConfigurationError, match=argument):
        if argument in ("size", "publish_each"):
            events(Source(), batches=sb.Batches(**{argument: value}))
        else:
            events(Source(), limits=sb.Limits(**{argument: value}))


def test_good_values_are_taken() -> None:
    events(
        Source(),
        batches=sb.Batches(size=1, publish_each=True),
        limits=sb.Limits(
            max_partitions=1,
            timeout_seconds=1,
            max_retries=0,
            retry_wait=0,
            allowed_hours="00:00-00:01 UTC",
        ),
    )
