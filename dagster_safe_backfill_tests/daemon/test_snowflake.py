"""A month of the example's flights on the emulator of Snowflake: by a real daemon, in processes of their own."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import closing
from datetime import date
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from dagster_safe_backfill_tests.daemon.live import LiveDagster, live_dagster
from example_project import nycflights
from example_project.definitions import DAYS

pytest.importorskip("fakesnow", reason="fakesnow wants Python 3.11")

from dagster_safe_backfill_tests.harness.snowflake import shapes
from dagster_safe_backfill_tests.harness.snowflake.emulator import Emulator, spawn

JANUARY = DAYS.get_partition_keys()[:31]
DATABASE = "SAFE_BACKFILL_EXAMPLE"
MODULE = "dagster_safe_backfill_tests.daemon.flights_snowflake"


class Flights:
    """The example's flights in Snowflake, and a daemon that backfills them."""

    def __init__(self, dagster: LiveDagster, emulator: Emulator, change: Path) -> None:
        self.dagster = dagster
        self.emulator = emulator
        self._change = change

    def sql(self, sql: str) -> list[tuple[Any, ...]]:
        import snowflake.connector

        options = self.emulator.connect_arguments(DATABASE)
        with closing(snowflake.connector.connect(**options)) as session, session.cursor() as cursor:
            found: Any = cursor.execute(sql)
            return found.fetchall()

    def backfill(self, change: str | None = None) -> tuple[str, list[str]]:
        """Backfill January with one day changed, or none, and return the backfill's id and the status of each run."""
        self._change.unlink(missing_ok=True)
        if change is not None:
            self._change.write_text(change)
        backfill = self.dagster.backfill(["flights"], JANUARY)
        return backfill.backfill_id, sorted(run.status.value for run in self.dagster.runs_of(backfill))

    def roll_back(self, backfill_id: str) -> str:
        """Undo a backfill by the rollback job, and return the status of its run."""
        config = {"ops": {"rollback_flights_op": {"config": {"backfill_id": backfill_id}}}}
        run_id = self.dagster.launch_job("rollback_flights", config=config)
        return self.dagster.ended_run(run_id).status.value

    def by_day(self) -> dict[str, tuple[int, int]]:
        """Return the flights and the miles of each day that is live."""
        rows = self.sql(
            "SELECT TO_CHAR(flight_date, 'YYYY-MM-DD'), COUNT(*), SUM(distance) FROM nyc.flights GROUP BY 1 ORDER BY 1"
        )
        return {day: (int(count), int(miles)) for day, count, miles in rows}

    def left(self) -> list[str]:
        rows = self.sql("SELECT table_name FROM information_schema.tables WHERE table_schema = 'NYC' ORDER BY 1")
        return [name for (name,) in rows if "__SHADOW_" in name or name.startswith("_SB_")]


@pytest.fixture
def flights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Flights]:
    workspace = tmp_path / "workspace.yaml"
    workspace.write_text(f"load_from:\n  - python_module: {MODULE}\n")
    change = tmp_path / "change"
    with spawn() as emulator:
        emulator.database(DATABASE)
        login = emulator.connect_arguments(DATABASE)
        names = ("account", "user", "password", "database", "host", "port", "protocol")
        settings = {f"SNOWFLAKE_{name.upper()}": str(login[name]) for name in names}
        settings |= {"SAFE_BACKFILL_WAREHOUSE": "snowflake", "DSB_FLIGHTS_CHANGE": str(change)}
        for name, value in settings.items():
            monkeypatch.setenv(name, value)
        _materialize_references()
        with live_dagster(tmp_path / "home", workspace, settings) as dagster:
            yield Flights(dagster, emulator, change)


def _materialize_references() -> None:
    from example_project.definitions import airlines, airports, planes
    from example_project.warehouse import io_manager

    assert os.environ["SAFE_BACKFILL_WAREHOUSE"] == "snowflake"
    assert dg.materialize([airlines, airports, planes], resources={"io_manager": io_manager()}).success


def _of_source() -> dict[str, tuple[int, int]]:
    rows = nycflights.flights(date(2013, 1, 1), date(2013, 2, 1))
    counted = rows.group_by("flight_date").aggregate([("distance", "sum"), ([], "count_all")]).to_pylist()
    return {str(row["flight_date"]): (row["count_all"], row["distance_sum"]) for row in counted}


def test_a_month_a_rejection_and_a_rollback(flights: Flights) -> None:
    source = _of_source()
    first, statuses = flights.backfill()
    assert statuses == ["SUCCESS"] * 4
    assert flights.by_day() == source
    assert sum(count for count, _ in source.values()) == 27_004
    assert flights.dagster.green("flights") == set(JANUARY)
    assert flights.left() == []

    # 0 miles: an audit rejects the run of that day, and the other three find nothing changed.
    _, statuses = flights.backfill("2013-01-15 distance 0")
    assert statuses == ["FAILURE", *["SUCCESS"] * 3]
    assert flights.by_day() == source
    assert len(flights.left()) == 1

    # Twice the miles: no audit minds, so it goes live, and is taken back; and then the first backfill is as well.
    doubled, statuses = flights.backfill("2013-01-15 distance 2")
    assert statuses == ["SUCCESS"] * 4
    count, miles = source["2013-01-15"]
    assert flights.by_day() == source | {"2013-01-15": (count, 2 * miles)}
    assert flights.roll_back(doubled) == "SUCCESS"
    assert flights.by_day() == source
    assert flights.roll_back(first) == "SUCCESS"
    assert flights.by_day() == {}
    assert flights.emulator.ddl_in_transactions(DATABASE) == []
    shapes.check(shapes.of_the_library(flights.emulator.history(DATABASE)))
