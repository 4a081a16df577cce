"""A month, two days at a time, killed in the middle and resumed: `python -m example_project.killed`.

Backfills `sku_revenue` for January in a process of its own, kills that process with SIGKILL once five batches are done,
and re-executes the run that was killed. The ledger then tells how many days each run computed.
`python -m example_project.killed --again RUN_ID` is that re-execution, which the UI calls *Re-execute*.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import dagster as dg
import sqlglot

from example_project.definitions import defs
from example_project.environment import ROOT
from example_project.warehouse import DATA, io_manager

_PYTHON = (sys.executable, "-W", "ignore", "-m")
_MATERIALIZE = (*_PYTHON, "dagster", "asset", "materialize", "-m", "example_project.definitions", "--select")
_MONTH = (*_MATERIALIZE, "sku_revenue", "--partition-range", "2024-01-01...2024-01-31")
_AGAIN = (*_PYTHON, "example_project.killed", "--again")
_CONFIG = "telemetry: {enabled: false}\nnux: {enabled: false}\n"
_COMPUTED = sqlglot.parse_one(
    "SELECT run_id, CAST(count(*) AS INTEGER) FROM shop._safe_backfill_ledger"
    " WHERE table_name = 'shop.sku_revenue' AND event = 'staged' GROUP BY run_id ORDER BY min(recorded_at)",
    dialect="duckdb",
)


def backfill_month(home: Path, *, kill_at: str | None = None, again: str | None = None) -> list[str]:
    """Backfill the month in a process; return what it logged of its batches.

    Args:
        home: Dagster's files.
        kill_at: Kill the process once it logs this.
        again: The run to re-execute; a new one, if None.
    """
    logged: list[str] = []
    command = _MONTH if again is None else (*_AGAIN, again)
    with subprocess.Popen(command, cwd=ROOT, env=_environment(home), stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        for line in process.stderr:
            if "reusing" in line or " - batch " in line:
                logged.append(line.split(" - sku_revenue - ")[-1].strip())
            if kill_at is not None and kill_at in line:
                process.kill()
                break
    if kill_at is None and process.returncode != 0:
        raise SystemExit("the backfill failed; the run's log says why")
    return logged


def report_killed(home: Path) -> str:
    """Tell Dagster that the last run has ended, as `dagster dev` finds out by itself of those that it has launched.

    Returns:
        The run's id.
    """
    started = dg.RunsFilter(statuses=[dg.DagsterRunStatus.STARTED])
    with dg.DagsterInstance.from_config(str(home)) as instance:
        # A run that `dagster dev` has launched meanwhile belongs to a code location, and goes on.
        killed = next(run for run in instance.get_runs(started) if run.remote_job_origin is None)
        instance.report_run_failed(killed, "its process was killed")
    return killed.run_id


def month_job() -> dg.JobDefinition:
    """Return the job of the asset."""
    job = dg.define_asset_job("sku_revenue_job", ["sku_revenue"])
    return dg.Definitions.merge(defs, dg.Definitions(jobs=[job])).resolve_job_def(job.name)


def re_execute(run_id: str) -> None:
    """Re-execute a run from its failure, for the same assets and partitions."""
    with dg.DagsterInstance.get() as instance:
        run = instance.get_run_by_id(run_id)
        if run is None:
            raise SystemExit(f"Dagster knows no run {run_id}")
        options = dg.ReexecutionOptions.from_failure(run_id, instance)
        job = dg.reconstructable(month_job)
        if not dg.execute_job(job, instance, tags=run.tags, reexecution_options=options).success:
            raise SystemExit(1)


def _environment(home: Path) -> dict[str, str]:
    return {**os.environ, "DAGSTER_HOME": str(home)}


def computed() -> Mapping[str, int]:
    """Return how many days each run has computed, the oldest run first."""
    with io_manager().warehouse().connect(read_only=True) as connection:
        return dict(connection.query(_COMPUTED))


def main(home: Path = DATA / "dagster_home") -> None:
    """Kill a backfill, resume it, and print what each run computed."""
    home.mkdir(parents=True, exist_ok=True)
    (home / "dagster.yaml").write_text(_CONFIG)
    subprocess.run([*_MATERIALIZE, "orders"], cwd=ROOT, env=_environment(home), stderr=subprocess.DEVNULL, check=True)
    print("the run", *backfill_month(home, kill_at="batch 5 of"), "killed", sep="\n    ", flush=True)
    print("re-executed", *backfill_month(home, again=report_killed(home)), sep="\n    ")
    for run_id, days in computed().items():
        print(f"run {run_id[:8]} computed {days} days")


if __name__ == "__main__":
    if sys.argv[1:2] == ["--again"]:
        re_execute(sys.argv[2])
    else:
        main()
