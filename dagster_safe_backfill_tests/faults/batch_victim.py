"""The process that is killed in one of the batches of a run: a warm parent forks it, with Dagster's files on disk."""

from __future__ import annotations

import json
import logging
import os
import signal
import subprocess
import sys
import traceback
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, NoReturn

import dagster as dg
import pandas as pd
import sqlalchemy
from dagster._core.storage.event_log.sqlite import sqlite_event_log
from dagster._core.storage.runs.sqlite import sqlite_run_storage

import dagster_safe_backfill as sb
from dagster_safe_backfill.warehouses.base import STATEMENTS
from dagster_safe_backfill_tests.harness.assets import RANGE_END, RANGE_START

DAYS = dg.DailyPartitionsDefinition("2024-01-01", end_date="2024-04-10")
KEYS = DAYS.get_partition_keys()
ROWS = 4
_LONGEST = 60
"""Seconds after which a victim that hangs is ended."""

Phase = Literal["computing", "writing", "written", "auditing", "collecting", "collected", "publishing", "telling"]
PublishPer = Literal["run", "batch"]
"""What goes live at once: all of a run, or each of its batches."""
COMMIT_OF: Mapping[PublishPer, Mapping[Phase, int]] = {
    "run": {"writing": 1, "auditing": 2, "collecting": 3, "publishing": 5},
    "batch": {"writing": 1, "auditing": 2, "publishing": 3},
}
"""Phases that end by a COMMIT, right before which the kill comes: which one it is since the function was called."""
COMMIT_BEFORE: Mapping[Phase, int] = {"written": 1, "collected": 3}
"""Phases that begin after a COMMIT: the kill comes before the next statement."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Kill:
    """When a run is killed.

    Attributes:
        call: Counts the batches that are computed, from 1 on.
        phase: What it is at then.
    """

    call: int
    phase: Phase


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """A run of the asset.

    Attributes:
        folder: Holds the warehouse, Dagster's files and the file of calls.
        first: The first partition's number.
        last: The last's.
        parent: The failed run that it re-executes from failure, if it does.
        kill: When it is killed; never, if None.
    """

    folder: str
    publish_per: PublishPer
    first: int
    last: int
    parent: str | None = None
    kill: Kill | None = None

    @property
    def tags(self) -> dict[str, str]:
        """The tags of a run of the range."""
        return {RANGE_START: KEYS[self.first], RANGE_END: KEYS[self.last]}


class Killer(logging.Handler):
    """Hears of each call and statement right before it happens, and kills the process."""

    def __init__(self, kill: Kill | None, publish_per: PublishPer) -> None:
        super().__init__()
        self._kill = kill
        self._publish_per: PublishPer = publish_per
        self._calls = self._commits = 0

    def called(self) -> None:
        """Hear of a call of the function."""
        self._calls, self._commits = self._calls + 1, 0
        self._reached("computing", True)

    def told(self, green: int) -> None:
        """Hear of a partition that Dagster was told of."""
        self._reached("telling", green % 10 == 5)

    def emit(self, record: logging.LogRecord) -> None:
        """Hear of a statement."""
        for phase, commits in COMMIT_BEFORE.items():
            self._reached(phase, self._commits == commits)
        if record.getMessage() == "COMMIT":
            self._commits += 1
            for phase, commits in COMMIT_OF[self._publish_per].items():
                self._reached(phase, self._commits == commits)

    def _reached(self, phase: Phase, is_there: bool) -> None:
        if is_there and self._kill == Kill(call=self._calls, phase=phase):
            os.kill(os.getpid(), signal.SIGKILL)


_killer = Killer(None, "run")


def job(folder: str, publish_per: PublishPer) -> dg.JobDefinition:
    """Return the job of an asset that notes each call."""

    @sb.wap_asset(
        partitions_def=DAYS,
        partition_expr="day",
        unique_key=["day", "id"],
        audits=[sb.expression("value > 0"), sb.row_count_between(ROWS, ROWS)],
        backfill_policy=sb.single_run(),
        batches=sb.Batches(size=10, publish_each=publish_per == "batch"),
        # Each world has a folder of its own, which the function closes over.
        code_version="1",
    )
    def events(partitions: sb.PartitionSlice) -> pd.DataFrame:
        with Path(folder, "calls").open("a") as calls:
            calls.write(f"{partitions.keys[0]} {partitions.keys[-1]}\n")
        _killer.called()
        return pd.DataFrame(
            {"day": pd.Timestamp(key), "id": range(ROWS), "value": float(new_value(key))} for key in partitions.keys
        ).explode("id")

    manager = sb.RangeDuckDBIOManager(database=str(Path(folder, "warehouse.duckdb")), schema="main", lock_timeout=10)
    defs = dg.Definitions(
        assets=[events],
        jobs=[dg.define_asset_job("events_job", [events])],
        resources={"io_manager": manager},
        executor=dg.in_process_executor,
    )
    return defs.resolve_job_def("events_job")


def new_value(key: str) -> int:
    """Return the value that the run gives a day; a tenth of the days is as it was."""
    day = KEYS.index(key)
    return day + 1 if day % 10 == 0 else day + 1000


def _live_and_die(order: Order) -> NoReturn:
    signal.alarm(_LONGEST)
    try:
        _run(order)
    except BaseException:
        traceback.print_exc()
        os._exit(1)
    os._exit(0)


def _run(order: Order) -> None:
    global _killer  # noqa: PLW0603  # one victim is one process
    _killer = Killer(order.kill, order.publish_per)
    STATEMENTS.addHandler(_killer)
    STATEMENTS.setLevel(logging.DEBUG)
    reconstructable = dg.build_reconstructable_job(
        __name__, "job", reconstructable_args=(order.folder, order.publish_per)
    )
    options = None if order.parent is None else dg.ReexecutionOptions.from_failure(order.parent, _instance(order))
    with _instance(order) as instance:
        _listen(instance)
        result = dg.execute_job(reconstructable, instance, tags=order.tags, reexecution_options=options)
        assert result.success


def _instance(order: Order) -> dg.DagsterInstance:
    return dg.DagsterInstance.from_config(str(Path(order.folder, "home")))


def _listen(instance: dg.DagsterInstance) -> None:
    store, green = instance.event_log_storage.store_event, [0]

    def store_event(event: Any) -> None:
        if event.is_dagster_event and event.dagster_event.is_step_materialization:
            green[0] += 1
            _killer.told(green[0])
        store(event)

    vars(instance.event_log_storage)["store_event"] = store_event


class Victims:
    """A warm process that forks victims."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def run(self, order: Order) -> bool:
        """Run, and return whether the run was killed; else it has succeeded."""
        pipe_in, pipe_out = self._process.stdin, self._process.stdout
        assert pipe_in is not None
        assert pipe_out is not None
        pipe_in.write(f"{json.dumps(asdict(order))}\n")
        pipe_in.flush()
        status = json.loads(pipe_out.readline())
        assert status in (0, -signal.SIGKILL), f"{order} ended with {status}; its standard error says why"
        return status != 0


@contextmanager
def victims() -> Generator[Victims, None, None]:
    """Start the process that forks victims; it ends with the block."""
    # Arrow's own allocator has a thread, and who forks should have one.
    environment = {**os.environ, "ARROW_DEFAULT_MEMORY_POOL": "system"}
    command = [sys.executable, "-W", "ignore", "-c", f"from {__name__} import serve; serve()"]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
    ) as process:
        yield Victims(process)
        assert process.stdin is not None
        process.stdin.close()


def _quick_engines() -> Callable[..., sqlalchemy.Engine]:
    """Return what makes one engine of each file, that keeps what it compiled, and doesn't wait for the disk.

    Most of a small run's time is Dagster's, which makes an engine for each event.
    """
    engines: dict[str, sqlalchemy.Engine] = {}

    def create_engine(url: str, **options: Any) -> sqlalchemy.Engine:
        if url not in engines:
            engines[url] = sqlalchemy.create_engine(url, **options)
            # What a process has written stays, though it is killed.
            sqlalchemy.event.listen(
                engines[url], "connect", lambda driver, _: driver.execute("PRAGMA synchronous = OFF")
            )
        return engines[url]

    return create_engine


def serve() -> None:
    """Fork a victim for each order on standard input."""
    for module in (sqlite_event_log, sqlite_run_storage):
        vars(module)["create_engine"] = _quick_engines()
    for line in sys.stdin:
        pid = os.fork()
        if pid == 0:
            order = json.loads(line)
            _live_and_die(Order(**{**order, "kill": order["kill"] and Kill(**order["kill"])}))
        sys.stdout.write(f"{os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])}\n")
        sys.stdout.flush()
