"""What docs/isolation.md tells to run on DuckDB, run."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import duckdb
import pandas as pd
import pytest

import dagster_safe_backfill as sb
from dagster_safe_backfill.model.events import KnownRuns
from dagster_safe_backfill.model.options import Strategy
from dagster_safe_backfill.model.states import Origin
from dagster_safe_backfill.model.tables import TableRef
from dagster_safe_backfill.wap.retention import RetentionRules, owners, retire
from dagster_safe_backfill_tests.harness.assets import DAYS, metadata_by_partition, run_range

PAGE = Path(__file__).parents[2] / "docs" / "isolation.md"
PIN, PIN_AFTERWARDS, UNPIN, *_ = re.findall(r"```sql\n(.*?)```", PAGE.read_text(), re.DOTALL)
ON_DASHBOARD = "SELECT * FROM nyc.flights_on_dashboard ORDER BY ALL"
LIVE = "SELECT * FROM nyc.flights ORDER BY ALL"
KEYS = DAYS.get_partition_keys()
ONE_AS_IT_WAS_TWO_CHANGED_ONE_NEW = {0: [1, 2], 1: [2, 3], 2: [3], 3: [1]}


class Flights:
    """A table `nyc.flights`, published again and again."""

    def __init__(self, folder: Path, instance: dg.DagsterInstance) -> None:
        self.io_manager = sb.RangeDuckDBIOManager(database=str(folder / "warehouse.duckdb"), schema="nyc")
        self._instance = instance

    def publish(self, flights_by_day: Mapping[int, Sequence[int]], **options: Any) -> str:
        """Publish the flights of days that follow each other, and return the publication's id."""
        first, *_, last = *flights_by_day, max(flights_by_day)

        @sb.wap_asset(partitions_def=DAYS, partition_expr="flight_date", backfill_policy=sb.single_run(), **options)
        def flights(partitions: sb.PartitionSlice) -> pd.DataFrame:
            days = [(pd.Timestamp(key).date(), flights_by_day[KEYS.index(key)]) for key in partitions.keys]
            rows = [(day, flight) for day, numbers in days for flight in numbers]
            return pd.DataFrame(rows, columns=["flight_date", "flight"])

        result = run_range([flights], KEYS[first], KEYS[last], io_manager=self.io_manager, instance=self._instance)
        assert result.success
        return metadata_by_partition(result, "flights")[KEYS[first]]["publication_id"]

    def do(self, sql: str, *, publication: str = "") -> list[tuple[Any, ...]]:
        """Run statements of the page, on the archive of a publication instead of the page's."""
        sql = re.sub(r"6efb3cdd-[0-9a-f-]+", publication, sql)
        sql = re.sub(r"6efb3cdd9[0-9a-f]+", publication.replace("-", ""), sql)
        with duckdb.connect(self.io_manager.database) as connection:
            return connection.execute(sql).fetchall()


@pytest.fixture
def flights(tmp_path: Path, instance: dg.DagsterInstance) -> Flights:
    flights = Flights(tmp_path, instance)
    flights.publish({day: [1, 2] for day in range(3)})
    return flights


@pytest.mark.parametrize("publish", ["merge", "replace", "swap"])
def test_a_dashboard_that_was_pinned_before(flights: Flights, publish: Strategy) -> None:
    before = flights.do(LIVE)
    flights.do(PIN)
    flights.publish(ONE_AS_IT_WAS_TWO_CHANGED_ONE_NEW, **options(publish))
    assert flights.do(ON_DASHBOARD) == before != flights.do(LIVE)
    flights.do(UNPIN)
    assert flights.do(ON_DASHBOARD) == flights.do(LIVE)


@pytest.mark.parametrize("publish", ["merge", "replace"])
def test_a_dashboard_that_is_pinned_afterwards(flights: Flights, publish: Strategy) -> None:
    before = flights.do(LIVE)
    publication = flights.publish(ONE_AS_IT_WAS_TWO_CHANGED_ONE_NEW, **options(publish))
    assert flights.do(LIVE) != before
    flights.do(PIN_AFTERWARDS, publication=publication)
    assert flights.do(ON_DASHBOARD) == before
    flights.do(UNPIN)
    assert flights.do(ON_DASHBOARD) == flights.do(LIVE)


def test_a_view_of_the_archive_fails_once_it_is_dropped(flights: Flights) -> None:
    publication = flights.publish({1: [3]}, publish=sb.Replace(archive_days=1e-9))
    flights.do(PIN_AFTERWARDS, publication=publication)
    copied = flights.do(ON_DASHBOARD)
    archive = f"nyc.flights__archive_{publication.replace('-', '')}"
    flights.do(f"CREATE VIEW nyc.careless AS SELECT * FROM {archive}")
    assert len(flights.do("SELECT * FROM nyc.careless")) == 2
    with flights.io_manager.warehouse().connect() as connection:
        table = TableRef(schema="nyc", name="flights")
        retire(
            connection,
            table,
            rules=RetentionRules(runs=KnownRuns(ended=owners(connection, table)), shadows_for=timedelta(0)),
            origin=Origin(run_id="retention", publication_id="retention"),
        )
    with pytest.raises(duckdb.CatalogException, match="does not exist"):
        flights.do("SELECT * FROM nyc.careless")
    assert flights.do(ON_DASHBOARD) == copied


def options(publish: str) -> dict[str, Any]:
    keys = {"unique_key": ["flight_date", "flight"]} if publish == "merge" else {}
    return {"publish": publish, **keys}
