"""Public files with what is wrong in them: small samples in their shape, live, run again and rolled back."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from io import StringIO
from typing import Any

import dagster as dg
import pandas as pd
import pytest

import dagster_safe_backfill as sb
from dagster_safe_backfill.model.options import Strategy
from dagster_safe_backfill_tests.harness.assets import failure_of, run_range
from dagster_safe_backfill_tests.harness.backends import Backend
from dagster_safe_backfill_tests.harness.publications import STRATEGIES

EARLY = """Province/State,Country/Region,Last Update,Confirmed,Deaths
Hubei,Mainland China,2020-03-20T07:43:02,67800,3133
,Italy,2020-03-20T17:43:03,47021,4032
"""
LATE = """FIPS,Admin2,Province_State,Country_Region,Last_Update,Lat,Confirmed,Deaths,Active
,,Hubei,China,2020-03-23 23:19:21,30.97,67800,3144,5000
45001,Abbeville,South Carolina,US,2020-03-23 23:19:34,34.22,1,0,1
,,,Italy,2020-03-23 23:19:21,41.87,63927,6077,50418
"""
RENAMED = {
    "Province/State": "province",
    "Province_State": "province",
    "Country/Region": "country",
    "Country_Region": "country",
    "Last Update": "updated",
    "Last_Update": "updated",
    "Admin2": "county",
    "Lat": "latitude",
}
REPORTS = {"2020-03-20": EARLY, "2020-03-23": LATE}


class Files:
    """Files that are read by a run, and the warehouse that it writes to."""

    def __init__(self, backend: Backend) -> None:
        self.backend = backend
        self.instance = dg.DagsterInstance.ephemeral()

    def run(self, asset: dg.AssetsDefinition, first: str, last: str | None = None) -> dg.ExecuteInProcessResult:
        io_manager = self.backend.io_manager
        return run_range([asset], first, last or first, io_manager=io_manager, instance=self.instance)

    def roll_back(self, asset: dg.AssetsDefinition) -> None:
        job = sb.build_rollback_job(asset)
        resources = {"io_manager": self.backend.io_manager}
        assert job.execute_in_process(resources=resources, instance=self.instance).success

    def live(self, table: str, columns: str = "*") -> list[tuple[Any, ...]]:
        return self.backend.read(f"SELECT {columns} FROM {table} ORDER BY ALL")


@pytest.fixture
def files(backend: Backend) -> Files:
    return Files(backend)


def changed(result: dg.ExecuteInProcessResult, asset: str) -> int:
    """Return how many rows a run inserted, updated or deleted."""
    total = 0
    for event in result.asset_materializations_for_node(asset):
        counts: Mapping[str, Any] = {name: value.value for name, value in event.metadata.items()}
        total += sum(counts.get(name, 0) for name in ("rows_inserted", "rows_updated", "rows_deleted"))
    return total


def report(text: str, day: str) -> pd.DataFrame:
    """Return a daily report under the present names; each has a row for a place, and its own columns."""
    rows = pd.read_csv(StringIO(text), dtype={"FIPS": "string"}).rename(columns=RENAMED)
    rows = rows.rename(columns=str.lower)
    rows["updated"] = pd.to_datetime(rows["updated"]).astype("datetime64[us]")
    for name in ("province", "county"):
        rows[name] = rows[name].fillna("").astype(str) if name in rows else ""
    rows["day"] = pd.Timestamp(day).as_unit("us")
    return rows


def cases(read: Callable[[str], str], **options: Any) -> dg.AssetsDefinition:
    arguments: dict[str, Any] = {
        "partitions_def": dg.DailyPartitionsDefinition("2020-03-20", end_date="2020-03-25"),
        "partition_expr": "day",
        "unique_key": ["day", "country", "province", "county"],
        "code_version": "1",
    }

    @sb.wap_asset(**(arguments | options))
    def cases(partitions: sb.PartitionSlice) -> pd.DataFrame:
        return pd.concat([report(read(day), day) for day in partitions.keys])

    return cases


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_daily_reports_whose_columns_were_renamed_and_came_later(files: Files, strategy: Strategy) -> None:
    publish = {"merge": sb.Merge, "replace": sb.Replace, "swap": sb.Swap}[strategy](on_schema_change="add_columns")
    refusing = cases(REPORTS.__getitem__, publish=publish)
    filling = cases(REPORTS.__getitem__, publish=publish, table=sb.TableOptions(on_missing_column="fill"))
    # The newest first, as one does who wants to see something soon.
    assert files.run(filling, "2020-03-23").success
    newest = files.live("cases")
    result = files.run(refusing, "2020-03-20")
    assert 'latitude is missing (on_missing_column="fill" would write NULL)' in failure_of(result, "cases")
    assert files.live("cases") == newest
    assert files.run(filling, "2020-03-20").success
    names = "day::DATE::VARCHAR, country, province, county, confirmed, latitude, active, fips"
    assert files.live("cases", names) == [
        ("2020-03-20", "Italy", "", "", 47021, None, None, None),
        ("2020-03-20", "Mainland China", "Hubei", "", 67800, None, None, None),
        ("2020-03-23", "China", "Hubei", "", 67800, 30.97, 5000, None),
        ("2020-03-23", "Italy", "", "", 63927, 41.87, 50418, None),
        ("2020-03-23", "US", "South Carolina", "Abbeville", 1, 34.22, 1, "45001"),
    ]
    both = files.live("cases")
    files.roll_back(filling)
    assert files.live("cases") == newest
    for _ in range(2):
        again = files.run(filling, "2020-03-20")
        assert again.success
        assert files.live("cases") == both
    if strategy != "replace":
        assert changed(again, "cases") == 0


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_the_oldest_report_first_adds_columns_and_its_rollback_takes_them(files: Files, strategy: Strategy) -> None:
    publish = {"merge": sb.Merge, "replace": sb.Replace, "swap": sb.Swap}[strategy](on_schema_change="add_columns")
    asset = cases(REPORTS.__getitem__, publish=publish)
    assert files.run(asset, "2020-03-20").success
    before = files.live("cases")
    assert files.run(asset, "2020-03-23").success
    assert len(files.live("cases")) == 5
    files.roll_back(asset)
    assert files.live("cases") == before


# Taxi trips by month: each file holds some trips of other months, or of a clock that was never set.


def taxi_file(month: str, wrong: Sequence[str] = ()) -> pd.DataFrame:
    start = pd.Timestamp(f"{month}-01")
    times = [start + pd.Timedelta(hours=7 * n) for n in range(5)]
    times += [(start + pd.offsets.MonthBegin(1)) - pd.Timedelta(seconds=1), *map(pd.Timestamp, wrong)]
    return pd.DataFrame(
        {
            "picked_up": pd.to_datetime(times).as_unit("us"),
            "vendor": [1 + n % 2 for n in range(len(times))],
            "distance": [float(n) for n in range(len(times))],
            # The files spell a missing number of passengers as NaN, which makes the column one of floats.
            "passengers": [1.0, None, *[2.0] * (len(times) - 2)],
        }
    )


WRONG = {
    "2019-01": ["2018-12-31 23:59:58", "2019-02-01 00:00:00", "2088-01-24 00:25:39", "2001-01-01 00:01:48"],
    "2019-02": ["2019-01-31 23:59:59"],
}


def taxi(**options: Any) -> dg.AssetsDefinition:
    arguments: dict[str, Any] = {
        "partitions_def": dg.MonthlyPartitionsDefinition("2019-01-01", end_date="2019-04-01"),
        "partition_expr": "picked_up",
        "unique_key": ["picked_up", "vendor"],
        "code_version": "1",
    }

    @sb.wap_asset(**(arguments | options))
    def taxi(partitions: sb.PartitionSlice) -> pd.DataFrame:
        months = [key[:7] for key in partitions.keys]
        return pd.concat([taxi_file(month, WRONG.get(month, ())) for month in months])

    return taxi


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_taxi_file_with_rows_of_the_wrong_month(files: Files, strategy: Strategy) -> None:
    key: list[str] = ["picked_up", "vendor"]
    refused = files.run(taxi(publish=strategy), "2019-01-01")
    message = failure_of(refused, "taxi")
    assert "4 of the computed rows belong to none of" in message
    assert "2088-01-24" in message
    asset = taxi(publish=strategy, table=sb.TableOptions(on_outside="drop"), unique_key=key)
    assert files.run(asset, "2019-02-01").success
    february = files.live("taxi")
    assert len(february) == 6
    assert files.run(asset, "2019-01-01").success
    months = "SELECT strftime(picked_up, '%Y-%m'), count(*) FROM taxi GROUP BY 1 ORDER BY 1"
    assert files.backend.read(months) == [("2019-01", 6), ("2019-02", 6)]
    # The second of February that January's file has is February's own, and was not touched.
    assert files.live("taxi")[6:] == february
    files.roll_back(asset)
    assert files.live("taxi") == february
    whole = files.run(asset, "2019-01-01", "2019-02-01")
    assert whole.success
    # In one run, January's file has rows of February, and February's of January: both are in the slice.
    assert files.backend.read(months) == [("2019-01", 7), ("2019-02", 7)]
    again = files.run(asset, "2019-01-01", "2019-02-01")
    assert again.success
    if strategy != "replace":
        assert changed(again, "taxi") == 0


# A sensor's readings, of which some were sent twice: in the hour that a clock is set back, and after a reconnection.

READINGS = """measured,sensor,value,received
2023-10-29 01:00:00,a,1.0,2023-10-29 01:00:05
2023-10-29 02:00:00,a,2.0,2023-10-29 02:00:05
2023-10-29 02:00:00,a,2.5,2023-10-29 03:00:05
2023-10-29 03:00:00,a,3.0,2023-10-29 04:00:05
2023-10-29 03:00:00,b,9.0,2023-10-29 04:00:05
"""


def readings(text: str, **options: Any) -> dg.AssetsDefinition:
    arguments: dict[str, Any] = {
        "partitions_def": dg.DailyPartitionsDefinition("2023-10-29", end_date="2023-11-02"),
        "partition_expr": "measured",
        "unique_key": ["measured", "sensor"],
        "code_version": "1",
    }

    @sb.wap_asset(**(arguments | options))
    def readings(partitions: sb.PartitionSlice) -> pd.DataFrame:
        rows = pd.read_csv(StringIO(text))
        for name in ("measured", "received"):
            rows[name] = pd.to_datetime(rows[name]).astype("datetime64[us]")
        return rows

    return readings


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_file_with_duplicate_times(files: Files, strategy: Strategy) -> None:
    day = "2023-10-29"
    result = files.run(readings(READINGS, publish=strategy), day)
    assert "unique_key: 2 rows failed in 1 of 1 partition" in failure_of(result, "readings")
    latest = sb.TableOptions(on_duplicate=sb.keep_latest("received"))
    asset = readings(READINGS, publish=strategy, table=latest)
    assert files.run(asset, day).success
    live = files.live("readings", "strftime(measured, '%H'), sensor, value")
    assert live == [("01", "a", 1.0), ("02", "a", 2.5), ("03", "a", 3.0), ("03", "b", 9.0)]
    again = files.run(asset, day)
    assert again.success
    if strategy != "replace":
        assert changed(again, "readings") == 0
    # A second copy of a row with the same time of receipt leaves no way to choose.
    tied = READINGS + "2023-10-29 03:00:00,b,8.0,2023-10-29 04:00:05\n"
    refused = files.run(readings(tied, publish=strategy, table=latest, code_version="2"), day)
    assert "occur twice with the same latest received" in failure_of(refused, "readings")
    assert files.live("readings", "strftime(measured, '%H'), sensor, value") == live
    corrected = READINGS.replace("9.0", "7.0")
    assert files.run(readings(corrected, publish=strategy, table=latest, code_version="3"), day).success
    assert files.live("readings", "value")[-1] == (7.0,)
    files.roll_back(asset)
    assert files.live("readings", "strftime(measured, '%H'), sensor, value") == live


# Without a key, all rows of a file count, the equal ones too.


def test_equal_rows_of_a_file_without_a_key_all_count(files: Files) -> None:
    asset = readings(READINGS + READINGS.splitlines()[1] + "\n", unique_key=[])
    for _ in range(2):
        assert files.run(asset, "2023-10-29").success
        assert len(files.live("readings")) == 6
