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

from dagster_safe_backfill_tests.assets import DAYS
from dagster_safe_backfill_tests.daemon.live import LiveDagster, live_dagster

TEN = DAYS.get_partition_keys()[:10]
WORKSPACE = "load_from:\n  - python_module: dagster_safe_backfill_tests.daemon.definitions\n"


@dataclass
class World:
    """A live Dagster and the folder that its assets read and write."""

    dagster: LiveDagster
    folder: Path

    def spoil(self, *days: str) -> None:
        (self.folder / "bad_days.json").write_text(json.dumps(days))

    def read(self, sql: str) -> list[tuple[Any, ...]]:
        with duckdb.connect(str(self.folder / "warehouse.duckdb"), read_only=True) as connection:
            return connection.execute(sql).fetchall()


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
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
    assert world.dagster.green("events") == set(TEN[:4])
    assert world.dagster.green("totals") == set(TEN[:4])
    assert [world.read(f"SELECT * FROM {table} ORDER BY ALL") for table in ("events", "totals")] == before

    world.spoil()
    mended = world.dagster.backfill(["events", "totals"], TEN)
    # The daemon may look while Dagster still logs the partitions of `events`, and then asks for `totals` in parts.
    assert {run.status for run in world.dagster.runs_of(mended)} == {DagsterRunStatus.SUCCESS}
    assert world.dagster.green("events") == set(TEN) == world.dagster.green("totals")
    assert world.read("SELECT count(*), sum(value) FROM events") == [(30, 60)]
    assert world.read("SELECT count(*), sum(value) FROM totals") == [(10, 60)]


def test_a_selection_with_gaps_is_a_run_for_each_contiguous_range(world: World) -> None:
    world.spoil()
    keys = [*TEN[:3], *TEN[5:7]]
    backfill = world.dagster.backfill(["events"], keys)
    assert [run.status for run in world.dagster.runs_of(backfill)] == [DagsterRunStatus.SUCCESS] * 2
    assert world.dagster.green("events") == set(keys)
    assert world.read("SELECT DISTINCT strftime(day, '%Y-%m-%d') FROM events ORDER BY 1") == [(key,) for key in keys]
