"""`on_missing_column`: where it is checked, and that every kind of asset follows it."""

from __future__ import annotations

from typing import Any

import dagster as dg
import pandas as pd
import pytest

import dagster_safe_backfill as sb
from dagster_safe_backfill_tests.harness.assets import DAYS, failure_of, run_range
from dagster_safe_backfill_tests.harness.backends import Backend

pytestmark = pytest.mark.every_warehouse

FIRST = "2024-01-01"
ARGUMENTS: dict[str, Any] = {
    "partitions_def": DAYS,
    "partition_expr": "day",
    "unique_key": ["day", "id"],
    "backfill_policy": sb.single_run(),
}


def rows(key: str) -> pd.DataFrame:
    return pd.DataFrame({"day": pd.to_datetime([key]).as_unit("us"), "id": [1], "value": [2.0]})


def wap(table: sb.TableOptions) -> list[dg.AssetsDefinition]:
    @sb.wap_asset(table=table, **ARGUMENTS)
    def events(partitions: sb.PartitionSlice) -> pd.DataFrame:
        return rows(partitions.keys[0])

    return [events]


def staged(table: sb.TableOptions) -> list[dg.AssetsDefinition]:
    def events(partitions: sb.PartitionSlice) -> pd.DataFrame:
        return rows(partitions.keys[0])

    return [*sb.build_staged_wap_assets(events, table=table, **ARGUMENTS)]


def plain(table: sb.TableOptions) -> list[dg.AssetsDefinition]:
    metadata = {"partition_expr": "day", "unique_key": ["day", "id"], "on_missing_column": table.on_missing_column}

    @dg.asset(partitions_def=DAYS, metadata=metadata, backfill_policy=sb.single_run())
    def events(context) -> pd.DataFrame:
        return rows(context.partition_key)

    return [events]


@pytest.mark.parametrize("make", [wap, staged, plain])
def test_every_kind_of_asset_fills_if_it_is_asked_to(backend: Backend, make: Any) -> None:
    backend.change(
        "CREATE TABLE events (day TIMESTAMP, id BIGINT, value DOUBLE, note VARCHAR)",
        "INSERT INTO events VALUES ('2024-01-02', 1, 1.0, 'n')",
    )
    instance = dg.DagsterInstance.ephemeral()
    refused = run_range(make(sb.TableOptions()), FIRST, FIRST, io_manager=backend.io_manager, instance=instance)
    step = "events__shadow" if make is staged else "events"
    assert 'note is missing (on_missing_column="fill" would write NULL)' in failure_of(refused, step)
    assets = make(sb.TableOptions(on_missing_column="fill"))
    for _ in range(2):
        assert run_range(assets, FIRST, FIRST, io_manager=backend.io_manager, instance=instance).success
        found = backend.read("SELECT id, value, note FROM events ORDER BY day")
        assert found == [(1, 2.0, None), (1, 1.0, "n")]


def test_a_wrong_value_is_refused_where_it_is_written() -> None:
    with pytest.raises(sb.ConfigurationError, match='on_missing_column must be "refuse" or "fill"'):
        sb.TableOptions(on_missing_column="null")  # pyright: ignore[reportArgumentType]
    with pytest.raises(sb.ConfigurationError, match='did you mean "fill"'):
        sb.TableOptions(on_missing_column="Fill")  # pyright: ignore[reportArgumentType]


def test_columns_are_not_both_dropped_and_filled() -> None:
    with pytest.raises(sb.ConfigurationError, match='"sync" drops them'):

        @sb.wap_asset(
            partitions_def=DAYS,
            partition_expr="day",
            publish=sb.Swap(on_schema_change="sync"),
            table=sb.TableOptions(on_missing_column="fill"),
        )
        def events(partitions: sb.PartitionSlice) -> pd.DataFrame:
            return rows(partitions.keys[0])


def test_a_misspelt_name_in_metadata_is_refused(backend: Backend) -> None:
    @dg.asset(metadata={"on_missing_colum": "fill"})
    def events() -> pd.DataFrame:
        return rows(FIRST)

    with pytest.raises(sb.ConfigurationError, match="did you mean 'on_missing_column'"):
        dg.materialize([events], resources={"io_manager": backend.io_manager})
