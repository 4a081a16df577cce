"""`sb.partition_slice`: a plain asset that reads and writes by itself, as in Dagster's own guide on backfills."""

# No `from __future__ import annotations`: Dagster reads the annotations of the assets' contexts.

import importlib
from pathlib import Path

import dagster as dg
import duckdb
import pytest

import dagster_safe_backfill as sb
from dagster_safe_backfill.assets import slices
from dagster_safe_backfill_tests.harness.assets import RANGE_END, RANGE_START

DAYS = dg.DailyPartitionsDefinition("2024-03-01", end_date="2024-04-01", timezone="America/New_York")


def _events(database: Path, definition: dg.PartitionsDefinition[str], column: str, **arguments: str):
    @dg.asset(partitions_def=definition, backfill_policy=sb.single_run())
    def events(context: dg.AssetExecutionContext) -> None:
        partitions = sb.partition_slice(context, **arguments)  # pyright: ignore[reportArgumentType]: some are wrong
        with duckdb.connect(str(database)) as connection:
            connection.execute("BEGIN")
            connection.execute(f"DELETE FROM events WHERE {partitions.where(column)}")
            for key in partitions.keys:
                connection.execute("INSERT INTO events SELECT $day, 'new'", {"day": key})
            connection.execute("COMMIT")

    return events


@pytest.fixture
def database(tmp_path: Path) -> Path:
    file = tmp_path / "events.duckdb"
    with duckdb.connect(str(file)) as connection:
        days = "range(DATE '2024-03-01', DATE '2024-04-01', INTERVAL 1 DAY) days(day)"
        connection.execute(f"CREATE TABLE events AS SELECT day::DATE AS day, 'old' AS version FROM {days}")
    return file


def _new(database: Path) -> list[str]:
    with duckdb.connect(str(database)) as connection:
        found = connection.execute("SELECT day::VARCHAR FROM events WHERE version = 'new' ORDER BY 1").fetchall()
        assert connection.execute("SELECT count(*) FROM events").fetchall() == [(31,)]
    return [day for (day,) in found]


def test_a_range_of_days(database: Path) -> None:
    tags = {RANGE_START: "2024-03-09", RANGE_END: "2024-03-11"}
    assert dg.materialize([_events(database, DAYS, "day")], tags=tags).success
    assert _new(database) == ["2024-03-09", "2024-03-10", "2024-03-11"]


def test_one_day(database: Path) -> None:
    assert dg.materialize([_events(database, DAYS, "day")], partition_key="2024-03-10").success
    assert _new(database) == ["2024-03-10"]


def test_the_window_of_a_range_that_spans_a_change_of_clocks() -> None:
    seen: list[sb.PartitionSlice] = []

    @dg.asset(partitions_def=DAYS)
    def watched(context: dg.AssetExecutionContext) -> None:
        seen.append(sb.partition_slice(context))

    dg.materialize([watched], partition_key="2024-03-10")
    (partitions,) = seen
    ((start, end),) = [(window.start, window.end) for window in partitions.windows]
    assert (end - start).total_seconds() == 23 * 3600
    assert partitions.where("at", column_type="timestamptz").count("2024-03-1") == 2


def test_snowflakes_sql() -> None:
    seen: list[str] = []

    @dg.asset(partitions_def=DAYS)
    def watched(context: dg.AssetExecutionContext) -> None:
        seen.append(sb.partition_slice(context, dialect="snowflake").where("at", column_type="timestamptz"))

    dg.materialize([watched], partition_key="2024-03-10")
    assert "TIMESTAMP_TZ" in seen[0].upper() or "TIMESTAMPTZ" in seen[0].upper()


def test_multi_partitions_take_a_column_for_each_dimension() -> None:
    shops = dg.MultiPartitionsDefinition({"day": DAYS, "shop": dg.StaticPartitionsDefinition(["eu", "us"])})
    seen: list[str] = []

    @dg.asset(partitions_def=shops)
    def watched(context: dg.AssetExecutionContext) -> None:
        seen.append(sb.partition_slice(context).where({"day": "d", "shop": "s"}))

    dg.materialize([watched], partition_key=dg.MultiPartitionKey({"day": "2024-03-10", "shop": "eu"}))
    assert "eu" in seen[0]
    assert "us" not in seen[0]


def test_a_reversed_range_is_refused(database: Path) -> None:
    tags = {RANGE_START: "2024-03-11", RANGE_END: "2024-03-09"}
    done = dg.materialize([_events(database, DAYS, "day")], tags=tags, raise_on_error=False)
    assert not done.success
    assert _new(database) == []


@pytest.mark.parametrize(
    ("arguments", "said"),
    [({"dialect": "duckbd"}, 'did you mean "duckdb"'), ({"column_timezone": "Mars/Base"}, "Mars/Base")],
)
def test_bad_arguments(database: Path, arguments: dict[str, str], said: str) -> None:
    with pytest.raises(sb.ConfigurationError, match=said):
        dg.materialize([_events(database, DAYS, "day", **arguments)], partition_key="2024-03-10")


def test_a_predicate_needs_a_column(database: Path) -> None:
    @dg.asset(partitions_def=DAYS)
    def watched(context: dg.AssetExecutionContext) -> None:
        sb.partition_slice(context).where()

    with pytest.raises(sb.SafeBackfillError, match="column"):
        dg.materialize([watched], partition_key="2024-03-10")


def test_the_names_of_the_dialects_exist() -> None:
    for name, kind in slices._DIALECTS.items():
        made = getattr(importlib.import_module(f"dagster_safe_backfill.warehouses.{name}.dialect"), kind)()
        assert made.name.endswith(name)
