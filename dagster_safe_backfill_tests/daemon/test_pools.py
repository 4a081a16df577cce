"""The pool of docs/isolation.md, set as that page says: never more than two runs in the warehouse at once."""

from __future__ import annotations

import math
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable
from itertools import accumulate
from pathlib import Path

import dagster as dg
from dagster import DagsterRunStatus

from dagster_safe_backfill_tests.backfills import BACKFILL
from dagster_safe_backfill_tests.daemon.live import ROOT, LiveDagster, live_dagster

KEYS = "abcd"
WORKSPACE = "load_from:\n  - python_module: dagster_safe_backfill_tests.daemon.pooled\n"
PAGE = (ROOT / "docs" / "isolation.md").read_text()
# What the page doesn't speak of: a quick queue, and room for more runs than the pool has.
MORE_YAML = """
telemetry: {enabled: false}
run_coordinator:
  module: dagster.core.run_coordinator
  class: QueuedRunCoordinator
  config: {dequeue_interval_seconds: 1}
"""


class Marks:
    """What the runs have noted."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def at_once(self) -> list[int]:
        """Return how many runs were in the asset's function, after each mark."""
        path = self._folder / "marks"
        marks = path.read_text().split() if path.exists() else []
        return list(accumulate(1 if mark == "begin" else -1 for mark in marks))

    def let_go(self) -> None:
        (self._folder / "go").touch()

    def clear(self) -> None:
        for name in ("go", "marks"):
            (self._folder / name).unlink()


def test_two_at_a_time(tmp_path: Path) -> None:
    workspace = tmp_path / "workspace.yaml"
    workspace.write_text(WORKSPACE)
    marks = Marks(tmp_path)
    (yaml,) = re.findall(r"```yaml\n(concurrency:.*?)```", PAGE, re.DOTALL)
    (limit,) = re.findall(r"\$ dagster (instance concurrency set .*)", PAGE)
    environment = {"DSB_TEST_FOLDER": str(tmp_path)}
    with live_dagster(tmp_path / "home", workspace, environment, dagster_yaml=MORE_YAML + yaml) as dagster:
        unlimited = dagster.launch(["pooled"], KEYS[:3])
        _wait_for(lambda: marks.at_once() == [1, 2, 3])
        marks.let_go()
        dagster.ended(unlimited)
        marks.clear()

        subprocess.run(
            [sys.executable, "-W", "ignore", "-m", "dagster", *limit.split()], env=dict(os.environ), check=True
        )
        limited = dagster.launch(["pooled"], KEYS)
        _wait_for(lambda: len(dagster.instance.get_runs()) == 7 and marks.at_once() == [1, 2])
        # A run that was queued behind all of them gets through: so the queue has passed over those that wait.
        free = dagster.launch(["free"], KEYS[:1])
        _wait_for(lambda: len(marks.at_once()) > 2 or _starts(dagster, free) not in ([], [math.inf]))
        assert marks.at_once() == [1, 2]
        statuses = [run.status for run in dagster.instance.get_runs(dg.RunsFilter(tags={BACKFILL: limited}))]
        assert statuses.count(DagsterRunStatus.QUEUED) == 2

        urgent = dagster.launch(["pooled"], KEYS[:1], tags={"dagster/priority": "1"})
        _wait_for(lambda: len(_starts(dagster, urgent)) == 1)
        marks.let_go()
        dagster.ended(limited)
        dagster.ended(urgent)
        assert len(marks.at_once()) == 10
        assert max(marks.at_once()) == 2
        first, second, *later = _starts(dagster, limited)
        assert first < second < _starts(dagster, urgent)[0] < min(later)


def _starts(dagster: LiveDagster, backfill_id: str) -> list[float]:
    """Return when a backfill's runs have started, those that haven't as infinite."""
    records = dagster.instance.get_run_records(dg.RunsFilter(tags={BACKFILL: backfill_id}))
    return sorted(record.start_time or math.inf for record in records)


def _wait_for(condition: Callable[[], bool], *, timeout: float = 180) -> None:
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline, "it didn't happen"
        time.sleep(0.1)
