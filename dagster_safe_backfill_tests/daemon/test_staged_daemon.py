"""Staged backfills with a real daemon and a process for each run: staged in many runs, audited and published once."""

from __future__ import annotations

import json
import os
import subprocess
import sys
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
from dagster_safe_backfill_tests.daemon.live import ROOT, LiveDagster, live_dagster
from dagster_safe_backfill_tests.harness.assets import DAYS

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
PATIENCE = 400  # seconds, for a machine that is busy with others
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

    def begun(self, asset: str) -> list[dg.DagsterRun]:
        """Return the runs of an asset that have begun and not ended: where it is held, they wait for leave."""
        started = self.dagster.instance.get_runs(dg.RunsFilter(statuses=[DagsterRunStatus.STARTED]))
        return [run for run in started if run.asset_selection == {dg.AssetKey(asset)}]

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


def pieces(keys: Sequence[str], size: int) -> list[list[str]]:
    return [list(keys[i : i + size]) for i in range(0, len(keys), size)]


def wait_for(condition: Callable[[], bool], *, timeout: float = PATIENCE) -> None:
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
    of_backfill = dg.RunsFilter(tags={"dagster/backfill": launched})
    wait_for(lambda: len(world.dagster.instance.get_runs(of_backfill)) == 6 and world.at_once("whole") == [1, 2])
    # The queue, which has room for ten, has passed over those that wait for the pool.
    waiting = [run.status for run in world.dagster.instance.get_runs(of_backfill)]
    assert waiting.count(DagsterRunStatus.QUEUED) == 4
    world.let_go("compute_whole")
    backfill = world.dagster.ended(launched, timeout=PATIENCE)
    assert backfill.status.name == "COMPLETED_SUCCESS"
    assert (world.folder / "packages").read_text() == dagster_safe_backfill.__file__
    assert world.statuses(backfill) == {
        ("whole__shadow", SUCCESS): 6,
        ("whole__audit", SUCCESS): 1,
        ("whole", SUCCESS): 1,
    }
    assert world.calls("whole") == pieces(keys, 5)
    assert max(world.at_once("whole")) == 2
    assert world.publications("whole") == {launched: keys}
    assert world.live("whole") == dict.fromkeys(keys, (2, 1))
    assert world.shadows("whole") == []
    assert world.greens("whole") == (set(keys), set(keys))


def test_a_target_with_gaps_is_published_by_the_first_run_for_all(world: World) -> None:
    keys = [*KEYS[:3], *KEYS[5:7], KEYS[9]]
    backfill = world.dagster.backfill(three("gaps"), keys, timeout=PATIENCE)
    assert backfill.status.name == "COMPLETED_SUCCESS"
    assert world.statuses(backfill) == {
        ("gaps__shadow", SUCCESS): 3,
        ("gaps__audit", SUCCESS): 1,
        ("gaps", SUCCESS): 3,
    }
    assert world.calls("gaps") == [keys[:3], keys[3:5], keys[5:]]
    assert world.publications("gaps") == {backfill.backfill_id: keys}
    assert world.live("gaps") == dict.fromkeys(keys, (2, 1))
    assert world.shadows("gaps") == []
    assert world.greens("gaps") == (set(keys), set(keys))


def test_one_bad_day_publishes_nothing_and_mended_only_it_is_computed_again(world: World) -> None:
    keys = KEYS[:30]
    world.tell("mended", {keys[12]: -1})
    rejected = world.dagster.backfill(three("mended"), keys, timeout=PATIENCE)
    assert rejected.status.name == "COMPLETED_FAILED"
    assert world.statuses(rejected) == {("mended__shadow", SUCCESS): 2, ("mended__shadow", FAILURE): 1}
    assert world.greens("mended") == ({*keys} - {keys[12]}, set())
    assert world.live("mended") == {}
    assert world.calls("mended") == pieces(keys, 10)

    world.tell("mended", {})
    world.forget_calls("mended")
    again = world.dagster.ended(world.dagster.reexecute_from_failure(rejected.backfill_id), timeout=PATIENCE)
    assert again.status.name == "COMPLETED_SUCCESS"
    assert world.statuses(again) == {
        ("mended__shadow", SUCCESS): 1,
        ("mended__audit", SUCCESS): 1,
        ("mended", SUCCESS): 1,
    }
    assert world.calls("mended") == [[keys[12]]]
    assert world.publications("mended") == {rejected.backfill_id: keys}
    assert world.live("mended") == dict.fromkeys(keys, (2, 1))
    assert world.shadows("mended") == []
    assert world.greens("mended") == (set(keys), set(keys))


def test_a_person_says_yes(world: World) -> None:
    keys = KEYS[:10]
    staged = world.dagster.backfill(["asked__shadow"], keys, timeout=PATIENCE)
    assert world.statuses(staged) == {("asked__shadow", SUCCESS): 2}
    assert world.live("asked") == {}
    assert len(world.shadows("asked")) == 2

    audit = world.dagster.launch_job("__ASSET_JOB", assets=["asked__audit"])
    assert world.dagster.ended_run(audit, timeout=PATIENCE).status is SUCCESS
    assert world.live("asked") == {}
    assert len(world.shadows("asked")) == 1
    assert world.greens("asked") == (set(keys), set())

    published = world.dagster.backfill(["asked"], keys, timeout=PATIENCE)
    assert published.status.name == "COMPLETED_SUCCESS"
    assert world.statuses(published) == {("asked", SUCCESS): 1}
    assert world.calls("asked") == pieces(keys, 5)
    assert world.publications("asked") == {published.backfill_id: keys}
    assert world.live("asked") == dict.fromkeys(keys, (2, 1))
    assert world.shadows("asked") == []
    assert world.greens("asked") == (set(keys), set(keys))


def test_of_two_backfills_that_overlap_the_second_is_refused_and_a_daily_run_passes_by(world: World) -> None:
    first_days, second_days, other_day = KEYS[:6], KEYS[3:9], KEYS[12]
    world.hold("rivals__audit")
    world.tell("rivals", {"": 1})
    first = world.dagster.launch(three("rivals"), first_days)
    wait_for(lambda: len(world.marks("rivals")) == 4)
    world.tell("rivals", {"": 2})
    second = world.dagster.launch(three("rivals"), second_days)
    wait_for(lambda: len(world.begun("rivals__audit")) == 2)

    world.tell("rivals", {"": 3})
    daily = world.dagster.launch_job("daily_rivals", tags={"dagster/partition": other_day})
    assert world.dagster.ended_run(daily, timeout=PATIENCE).status is SUCCESS
    assert world.publications("rivals") == {daily: [other_day]}

    world.allow(first)
    assert world.dagster.ended(first, timeout=PATIENCE).status.name == "COMPLETED_SUCCESS"
    assert world.publications("rivals") == {daily: [other_day], first: first_days}
    ones = dict.fromkeys(first_days, (2, 1))
    assert world.live("rivals") == {**ones, other_day: (2, 3)}

    world.allow(second)
    refused = world.dagster.ended(second, timeout=PATIENCE)
    assert refused.status.name == "COMPLETED_FAILED"
    assert world.statuses(refused) == {
        ("rivals__shadow", SUCCESS): 2,
        ("rivals__audit", SUCCESS): 1,
        ("rivals", FAILURE): 1,
    }
    message = world.failure(refused, "rivals")
    assert "PublishConflictError" in message
    assert "3 of the 6 partitions changed since they were computed" in message
    for key in first_days[3:]:
        assert f"{key}: published by {first} at" in message
    assert world.live("rivals") == {**ones, other_day: (2, 3)}
    assert world.greens("rivals")[1] == {*first_days, other_day}
    assert world.calls("rivals") == sorted(
        [first_days[:3], first_days[3:], second_days[:3], second_days[3:], [other_day]]
    )
    assert (
        world.read(f"SELECT DISTINCT event FROM _safe_backfill_ledger WHERE scope = '{second}' AND event = 'taken_up'")
        == []
    )
    assert len(world.shadows("rivals")) == 1


def test_a_backfill_of_a_job_puts_each_day_live_by_itself(world: World) -> None:
    keys = KEYS[:3]
    before = {run.run_id for run in world.dagster.instance.get_runs()}
    command = ["job", "backfill", "-m", MODULE, "-j", "daily_alone", "--noprompt"]
    subprocess.run(
        [sys.executable, "-W", "ignore", "-m", "dagster", *command, "--from", keys[0], "--to", keys[-1]],
        env=dict(os.environ),
        cwd=ROOT,
        check=True,
        capture_output=True,
    )
    runs = world.dagster.wait_for_runs(len(before) + 3, timeout=PATIENCE)
    ours = {run.tags["dagster/partition"]: run for run in runs if run.run_id not in before}
    assert {key: run.status for key, run in ours.items()} == dict.fromkeys(keys, SUCCESS)
    assert world.calls("alone") == [[key] for key in keys]
    assert world.publications("alone") == {ours[key].run_id: [key] for key in keys}
    assert world.live("alone") == dict.fromkeys(keys, (2, 1))
    assert world.shadows("alone") == []
    assert world.greens("alone") == (set(keys), set(keys))
