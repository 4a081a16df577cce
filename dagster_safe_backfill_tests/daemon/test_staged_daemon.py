"""Staged backfills with a real daemon and a process for each run: staged in many runs, audited and published once."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Any

import dagster as dg
import duckdb
import pytest
from dagster import DagsterRunStatus
from dagster._core.execution.backfill import PartitionBackfill

import dagster_safe_backfill
from dagster_safe_backfill_tests.assets import DAYS
from dagster_safe_backfill_tests.daemon.live import LiveDagster, live_dagster

KEYS = DAYS.get_partition_keys()
MODULE = "dagster_safe_backfill_tests.daemon.staged"
WORKSPACE = f"load_from:\n  - python_module: {MODULE}\n"
MORE_YAML = """
telemetry: {enabled: false}
run_coordinator:
  module: dagster.core.run_coordinator
  class: QueuedRunCoordinator
  config: {dequeue_interval_seconds: 1}
concurrency:
  pools: {granularity: run}
"""
SUCCESS, FAILURE = DagsterRunStatus.SUCCESS, DagsterRunStatus.FAILURE


@dataclass
class World:
    """A live Dagster, and the folder that its runs read and write."""

    dagster: LiveDagster
    folder: Path

    def tell(self, group: str, values: dict[str, int]) -> None:
        """Say what the days' values are; of the others, that of the key ""."""
        (self.folder / f"values_{group}.json").write_text(json.dumps(values))

    def hold(self, what: str) -> None:
        (self.folder / f"hold_{what}").touch()

    def let_go(self, what: str) -> None:
        (self.folder / f"hold_{what}").unlink()

    def allow(self, backfill_id: str) -> None:
        (self.folder / f"go_{backfill_id}").touch()

    def marks(self, group: str) -> list[tuple[str, list[str]]]:
        path = self.folder / f"calls_{group}"
        lines = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
        return [(mark, keys) for mark, *keys in lines]

    def calls(self, group: str) -> list[list[str]]:
        """Return the keys that each call of the function was for, in order of the keys."""
        return sorted(keys for mark, keys in self.marks(group) if mark == "begin")

    def forget_calls(self, group: str) -> None:
        (self.folder / f"calls_{group}").unlink()

    def at_once(self, group: str) -> list[int]:
        """Return how many runs were in the function, after each mark."""
        return list(accumulate(1 if mark == "begin" else -1 for mark, _ in self.marks(group)))

    def read(self, sql: str) -> list[tuple[Any, ...]]:
        with duckdb.connect(str(self.folder / "warehouse.duckdb"), read_only=True) as connection:
            return connection.execute(sql).fetchall()

    def live(self, group: str) -> dict[str, tuple[int, int]]:
        """Return the number of rows and the value of each live day; none if there is no table."""
        if not self.read(f"SELECT 1 FROM duckdb_tables() WHERE table_name = '{group}'"):
            return {}
        rows = self.read(f"SELECT strftime(day, '%Y-%m-%d'), count(*), min(value) FROM {group} GROUP BY 1")
        return {day: (count, value) for day, count, value in rows}

    def publications(self, group: str) -> dict[str, list[str]]:
        """Return the days of each publication of a table."""
        of_group = f"event = 'published' AND table_name = 'main.{group}'"
        rows = self.read(
            "SELECT publication_id, list(partition_key ORDER BY partition_key)"
            f" FROM _safe_backfill_ledger WHERE {of_group} GROUP BY 1"
        )
        return dict(rows)

    def shadows(self, group: str) -> list[str]:
        found = self.read(f"SELECT table_name FROM duckdb_tables() WHERE table_name LIKE '{group}\\_\\_%' ESCAPE '\\'")
        return [name for (name,) in found]

    def greens(self, group: str) -> tuple[set[str], set[str]]:
        """Return the green partitions of the shadow, and of the live asset."""
        return self.dagster.green(f"{group}__shadow"), self.dagster.green(group)

    def runs(self, backfill: PartitionBackfill, asset: str) -> list[dg.DagsterRun]:
        """Return the backfill's runs of one asset."""
        return [run for run in self.dagster.runs_of(backfill) if run.asset_selection == {dg.AssetKey(asset)}]

    def statuses(self, backfill: PartitionBackfill) -> dict[tuple[str, DagsterRunStatus], int]:
        """Return how many runs of each selection of assets ended how."""
        return dict(
            Counter(
                ("+".join(sorted(key.to_user_string() for key in run.asset_selection or ())), run.status)
                for run in self.dagster.runs_of(backfill)
            )
        )

    def failure(self, backfill: PartitionBackfill, asset: str) -> str:
        """Return the errors of the one run of an asset, the last cause first."""
        (run,) = self.runs(backfill, asset)
        logs = self.dagster.instance.all_logs(run.run_id, of_type=dg.DagsterEventType.STEP_FAILURE)
        (error,) = [one.get_dagster_event().step_failure_data.error for one in logs]
        text = error.to_string() if error else ""
        assert text
        return text


def three(group: str) -> list[str]:
    return [f"{group}__shadow", f"{group}__audit", group]


def fives(keys: Sequence[str]) -> list[list[str]]:
    return [list(keys[i : i + 5]) for i in range(0, len(keys), 5)]


def wait_for(condition: Callable[[], bool], *, timeout: float = 90) -> None:
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline, "it didn't happen"
        time.sleep(0.1)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    folder = tmp_path_factory.mktemp("staged")
    workspace = folder / "workspace.yaml"
    workspace.write_text(WORKSPACE)
    environment = {"DSB_TEST_FOLDER": str(folder)}
    with live_dagster(folder / "home", workspace, environment, dagster_yaml=MORE_YAML) as dagster:
        dagster.instance.event_log_storage.set_concurrency_slots("warehouse", 2)
        yield World(dagster, folder)


def test_a_backfill_of_many_runs_is_audited_and_published_once(world: World) -> None:
    keys = KEYS[:30]
    world.hold("compute_whole")
    launched = world.dagster.launch(three("whole"), keys)
    wait_for(lambda: len(world.dagster.instance.get_runs()) == 6 and world.at_once("whole") == [1, 2])
    waiting = [run.status for run in world.dagster.instance.get_runs()]
    assert waiting.count(DagsterRunStatus.QUEUED) == 4
    world.let_go("compute_whole")
    backfill = world.dagster.ended(launched)
    assert backfill.status.name == "COMPLETED_SUCCESS"
    assert (world.folder / "packages").read_text() == dagster_safe_backfill.__file__
    assert world.statuses(backfill) == {
        ("whole__shadow", SUCCESS): 6,
        ("whole__audit", SUCCESS): 1,
        ("whole", SUCCESS): 1,
    }
    assert world.calls("whole") == fives(keys)
    assert max(world.at_once("whole")) == 2
    assert world.publications("whole") == {launched: keys}
    assert world.live("whole") == dict.fromkeys(keys, (2, 1))
    assert world.shadows("whole") == []
    assert world.greens("whole") == (set(keys), set(keys))
