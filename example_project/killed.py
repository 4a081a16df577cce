"""A month, two days at a time, killed in the middle and resumed: `python -m example_project.killed`.

Backfills `sku_revenue` for January in a process of its own, kills that process with SIGKILL once five batches are done,
and backfills the month again. The ledger then tells how many days each run computed.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from datetime import datetime, timezone
from pathlib import Path

import dagster as dg
import sqlglot

from example_project.environment import ROOT
from example_project.warehouse import DATA, io_manager

_MONTH = ("sku_revenue", "--partition-range", "2024-01-01...2024-01-31")
_COMMAND = (
    sys.executable,
    "-W",
    "ignore",
    "-m",
    "dagster",
    "asset",
    "materialize",
    "-m",
    "example_project.definitions",
)
_CONFIG = "telemetry: {enabled: false}\nnux: {enabled: false}\n"
_COMPUTED = sqlglot.parse_one(
    "SELECT run_id, CAST(count(*) AS INTEGER) FROM shop._safe_backfill_ledger"
    " WHERE table_name = 'shop.sku_revenue' AND event = 'staged' GROUP BY run_id ORDER BY min(recorded_at)",
    dialect="duckdb",
)


def backfill_month(home: Path, *, kill_at: str | None = None) -> list[str]:
    """Backfill the month in a process, and kill it once it logs `kill_at`; return what it logged of its batches."""
    told: list[str] = []
    begun = datetime.now(timezone.utc)
    environment = {**os.environ, "DAGSTER_HOME": str(home)}
    command = [*_COMMAND, "--select", *_MONTH]
    with subprocess.Popen(command, cwd=ROOT, env=environment, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        for line in process.stderr:
            if "taking up" in line or " - batch " in line:
                told.append(line.split(" - sku_revenue - ")[-1].strip())
            if kill_at is not None and kill_at in line:
                process.kill()
                break
    if kill_at is not None:
        _report_killed(home, since=begun)
    elif process.returncode != 0:
        raise SystemExit("the backfill failed; the run's log says why")
    return told


def _report_killed(home: Path, *, since: datetime) -> None:
    """Tell Dagster that a run has ended, as `dagster dev` finds out by itself of runs that it has launched."""
    started = dg.RunsFilter(statuses=[dg.DagsterRunStatus.STARTED], created_after=since)
    with dg.DagsterInstance.from_config(str(home)) as instance:
        # A run that `dagster dev` has launched meanwhile belongs to a code location, and goes on.
        for run in instance.get_runs(started):
            if run.remote_job_origin is not None:
                continue
            instance.report_run_failed(run, "its process was killed")


def computed() -> Mapping[str, int]:
    """Return how many days each run has computed, the oldest run first."""
    with io_manager().warehouse().connect(read_only=True) as connection:
        return dict(connection.run(_COMPUTED))


def main(home: Path = DATA / "dagster_home") -> None:
    """Kill a backfill, resume it, and print what each run computed."""
    home.mkdir(parents=True, exist_ok=True)
    (home / "dagster.yaml").write_text(_CONFIG)
    environment = {**os.environ, "DAGSTER_HOME": str(home)}
    subprocess.run([*_COMMAND, "--select", "orders"], cwd=ROOT, env=environment, stderr=subprocess.DEVNULL, check=True)
    print("the first run", *backfill_month(home, kill_at="batch 5 of"), "killed", sep="\n    ", flush=True)
    print("the second run", *backfill_month(home), sep="\n    ")
    for run_id, days in computed().items():
        print(f"run {run_id[:8]} computed {days} days")


if __name__ == "__main__":
    main()
