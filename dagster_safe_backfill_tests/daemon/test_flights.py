"""The example's flights by a real daemon: a year in one run, and the same month three ways."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date
from pathlib import Path
from typing import Any

import dagster as dg
import duckdb
import pytest

from dagster_safe_backfill_tests.daemon.live import ROOT, LiveDagster, live_dagster
from example_project import nycflights
from example_project.definitions import DAYS

YEAR = DAYS.get_partition_keys()
JANUARY = YEAR[:31]
REFERENCES = ("airlines", "airports", "planes")


class Flights:
    """The example project on a warehouse of its own."""

    def __init__(self, dagster: LiveDagster, database: Path) -> None:
        self.dagster = dagster
        self._database = database

    def read(self, sql: str) -> list[tuple[Any, ...]]:
        with duckdb.connect(str(self._database), read_only=True) as connection:
            return connection.execute(sql).fetchall()

    def statuses(self, keys: list[str]) -> list[str]:
        """Backfill flights and return the status of each run."""
        backfill = self.dagster.backfill(["flights"], keys)
        return [run.status.value for run in self.dagster.runs_of(backfill)]

    def differences(self, first: str, after: str) -> list[tuple[Any, ...]]:
        """Return the rows that only the table or only the source has, with each one's number of copies."""
        source = nycflights.flights(date.fromisoformat(first), date.fromisoformat(after))
        with duckdb.connect(str(self._database), read_only=True) as connection:
            connection.register("source", source)
            names = ", ".join(f'"{name}"' for name in source.column_names)
            return connection.execute(
                f"(SELECT {names} FROM nyc.flights EXCEPT ALL SELECT {names} FROM source)"
                f" UNION ALL (SELECT {names} FROM source EXCEPT ALL SELECT {names} FROM nyc.flights)"
            ).fetchall()

    def changes(self) -> dict[str, int]:
        """Return the sums of what the newest publication changed."""
        names = ("inserted", "updated", "deleted", "unchanged")
        sums = ", ".join(f"CAST(sum(rows_{name}) AS BIGINT)" for name in names)
        newest = "SELECT publication_id FROM nyc._safe_backfill_ledger ORDER BY recorded_at DESC LIMIT 1"
        ((*found,),) = self.read(
            f"SELECT {sums} FROM nyc._safe_backfill_ledger WHERE event = 'published' AND publication_id = ({newest})"
        )
        return dict(zip(names, found, strict=True))


@contextmanager
def example(tmp_path: Path, module: str = "example_project.definitions") -> Iterator[Flights]:
    workspace = tmp_path / "workspace.yaml"
    workspace.write_text(f"load_from:\n  - python_module: {module}\n")
    database = tmp_path / "warehouse.duckdb"
    _materialize_references(database)
    with live_dagster(tmp_path / "home", workspace, {"SAFE_BACKFILL_DUCKDB": str(database)}) as dagster:
        yield Flights(dagster, database)


def _materialize_references(database: Path) -> None:
    from dagster_safe_backfill import RangeDuckDBIOManager
    from example_project.definitions import airlines, airports, planes

    io_manager = RangeDuckDBIOManager(database=str(database), schema="nyc")
    assert dg.materialize([airlines, airports, planes], resources={"io_manager": io_manager}).success


def test_a_year_in_one_run_and_again(tmp_path: Path) -> None:
    with example(tmp_path) as flights:
        assert flights.statuses(YEAR) == ["SUCCESS"]
        assert flights.differences("2013-01-01", "2014-01-01") == []
        assert flights.changes() == {"inserted": 336_776, "updated": 0, "deleted": 0, "unchanged": 0}
        assert flights.dagster.green("flights") == set(YEAR)
        assert flights.statuses(YEAR) == ["SUCCESS"]
        assert flights.changes() == {"inserted": 0, "updated": 0, "deleted": 0, "unchanged": 336_776}
        assert flights.differences("2013-01-01", "2014-01-01") == []


@pytest.mark.parametrize(
    ("module", "runs"),
    [("example_project.definitions", 1), ("dagster_safe_backfill_tests.daemon.flights_batched", 4)],
    ids=["single_run", "batched"],
)
def test_a_month_by_backfill(tmp_path: Path, module: str, runs: int) -> None:
    with example(tmp_path, module) as flights:
        assert flights.statuses(JANUARY) == ["SUCCESS"] * runs
        assert flights.differences("2013-01-01", "2013-02-01") == []
        assert flights.dagster.green("flights") == set(JANUARY)


def test_a_month_by_dagster_job_backfill(tmp_path: Path) -> None:
    with example(tmp_path) as flights:
        command = "job backfill -w workspace.yaml -j flights_job --from 2013-01-01 --to 2013-01-31 --noprompt"
        subprocess.run(
            [sys.executable, "-W", "ignore", "-m", "dagster", *command.split()],
            cwd=ROOT,
            env=dict(os.environ),
            check=True,
            capture_output=True,
        )
        runs = flights.dagster.wait_for_runs(31)
        assert {run.status.value for run in runs} == {"SUCCESS"}
        assert flights.differences("2013-01-01", "2013-02-01") == []
        assert flights.dagster.green("flights") == set(JANUARY) == flights.dagster.green("daily_delays")
        assert flights.read("SELECT sum(flights) FROM nyc.daily_delays") == flights.read(
            "SELECT count(*) FROM nyc.flights"
        )
