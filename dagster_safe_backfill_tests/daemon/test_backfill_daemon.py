"""What the backfill daemon does with a published, and with a rejected, range."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb
import pytest
from dagster import DagsterRunStatus

from dagster_safe_backfill_tests.daemon.live import LiveDagster, live_dagster
from dagster_safe_backfill_tests.harness.assets import DAYS

KEYS = DAYS.get_partition_keys()
TEN, FIVE, THIRTY = KEYS[:10], [*KEYS[20:23], *KEYS[25:27]], KEYS[:30]
WORKSPACE = "load_from:\n  - python_module: dagster_safe_backfill_tests.daemon.definitions\n"


@dataclass
class World:
    """A live Dagster and the folder that its assets read and write."""

    dagster: LiveDagster
    folder: Path

    def spoil(self, *days: str) -> None:
        (self.folder / "bad_days.json").write_text(json.dumps(days))

    def calls(self) -> list[tuple[str, ...]]:
        """Return the first and the last partition of each call for `readings` since the last time."""
        path = self.folder / "calls"
        calls = [tuple(line.split()) for line in path.read_text().splitlines()]
        path.unlink()
        return calls

    def read(self, sql: str) -> list[tuple[Any, ...]]:
        with duckdb.connect(str(self.folder / "warehouse.duckdb"), read_only=True) as connection:
            return connection.execute(sql).fetchall()


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """Share one daemon: each test has assets or days of its own."""
    tmp_path = tmp_path_factory.mktemp("world")
    workspace = tmp_path / "workspace.yaml"
    workspace.write_text(WORKSPACE)
    with live_dagster(tmp_path / "home", workspace, {"DSB_TEST_FOLDER": str(tmp_path)}) as dagster:
        yield World(dagster, tmp_path)


def test_one_bad_day_of_ten_stops_the_backfill_and_all_that_follows(world: World) -> None:
    world.spoil()
    world.dagster.backfill(["events", "totals"], TEN[:4])
    before = [world.read(f"SELECT * FROM {table} ORDER BY ALL") for table in ("events", "totals")]

    world.spoil(TEN[6])
    rejected = world.dagster.backfill(["events", "totals"], TEN)
    assert [run.status for run in world.dagster.runs_of(rejected)] == [DagsterRunStatus.FAILURE]
    assert world.dagster.green("events") & set(TEN) == set(TEN[:4])
    assert world.dagster.green("totals") == set(TEN[:4])
    assert [world.read(f"SELECT * FROM {table} ORDER BY ALL") for table in ("events", "totals")] == before

    world.spoil()
    mended = world.dagster.backfill(["events", "totals"], TEN)
    # The daemon may look while Dagster still logs the partitions of `events`, and then asks for `totals` in parts.
    assert {run.status for run in world.dagster.runs_of(mended)} == {DagsterRunStatus.SUCCESS}
    assert world.dagster.green("events") & set(TEN) == set(TEN) == world.dagster.green("totals")
    assert world.read(f"SELECT count(*), sum(value) FROM events WHERE day <= '{TEN[-1]}'") == [(30, 60)]
    assert world.read("SELECT count(*), sum(value) FROM totals") == [(10, 60)]


def test_a_selection_with_gaps_is_a_run_for_each_contiguous_range(world: World) -> None:
    world.spoil()
    backfill = world.dagster.backfill(["events"], FIVE)
    assert [run.status for run in world.dagster.runs_of(backfill)] == [DagsterRunStatus.SUCCESS] * 2
    assert world.dagster.green("events") - set(TEN) == set(FIVE)
    days = world.read(f"SELECT DISTINCT strftime(day, '%Y-%m-%d') FROM events WHERE day > '{TEN[-1]}' ORDER BY 1")
    assert days == [(key,) for key in FIVE]


def test_three_bad_days_of_thirty_keep_nobody_else_waiting(world: World) -> None:
    bad = [KEYS[12], KEYS[17], KEYS[29]]
    good = [key for key in THIRTY if key not in bad]
    world.spoil(*bad)
    broken = world.dagster.backfill(["readings", "reading_totals"], THIRTY)
    assert world.calls() == [(KEYS[0], KEYS[9]), (KEYS[10], KEYS[19]), (KEYS[20], KEYS[29])]
    assert world.dagster.green("readings") == set(good) == world.dagster.green("reading_totals")
    for table in ("readings", "reading_totals"):
        days = world.read(f"SELECT DISTINCT strftime(day, '%Y-%m-%d') FROM {table} ORDER BY 1")
        assert days == [(key,) for key in good]

    world.spoil()
    mended = world.dagster.ended(world.dagster.reexecute_from_failure(broken.backfill_id))
    assert {run.status for run in world.dagster.runs_of(mended)} == {DagsterRunStatus.SUCCESS}
    assert sorted(world.calls()) == [(key, key) for key in bad]
    assert world.dagster.green("readings") == set(THIRTY) == world.dagster.green("reading_totals")
    assert world.read("SELECT count(*), sum(value) FROM readings") == [(90, 180)]
    assert world.read("SELECT count(*), sum(value) FROM reading_totals") == [(30, 180)]
