"""The pool of docs/isolation.md, set as that page says: never more than two runs in the warehouse at once."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from collections.abc import Callable
from itertools import accumulate
from pathlib import Path

from dagster import DagsterRunStatus

from dagster_safe_backfill_tests.daemon.live import ROOT, live_dagster

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
        assert dagster.backfill(["free"], KEYS[:1]).status.name == "COMPLETED_SUCCESS"
        assert marks.at_once() == [1, 2]
        statuses = [run.status for run in dagster.runs_of(dagster.instance.get_backfill(limited))]
        assert statuses.count(DagsterRunStatus.QUEUED) == 2
        marks.let_go()
        dagster.ended(limited)
        assert len(marks.at_once()) == 8
        assert max(marks.at_once()) == 2


def _wait_for(condition: Callable[[], bool], *, timeout: float = 90) -> None:
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline, "it didn't happen"
        time.sleep(0.1)
