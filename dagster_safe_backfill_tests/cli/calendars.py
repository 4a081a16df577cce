"""Definitions of all kinds of partitions, for the choice of partitions: calendars, time zones, texts, dimensions."""

from __future__ import annotations

import os
from datetime import datetime, timezone
from pathlib import Path

import dagster as dg
import pandas as pd

import dagster_safe_backfill as sb

FOLDER = Path(os.environ.get("SALES_FOLDER", "."))

_WEEKDAYS = dg.TimeWindowPartitionsDefinition(
    start="2024-01-01", end="2024-02-01", cron_schedule="0 0 * * 1-5", fmt="%Y-%m-%d"
)
_WORKDAYS = dg.DailyPartitionsDefinition(
    "2024-01-01", end_date="2024-01-16", exclusions=[datetime(2024, 1, 4, tzinfo=timezone.utc), "0 0 * * 0"]
)


def _hourly(day: str, timezone: str) -> dg.HourlyPartitionsDefinition:
    return dg.HourlyPartitionsDefinition(f"{day}-00:00", end_date=f"{day}-06:00", timezone=timezone)


PARTITIONS: dict[str, dg.PartitionsDefinition] = {
    "weekdays": _WEEKDAYS,
    "workdays": _WORKDAYS,
    "new_york_spring": _hourly("2024-03-10", "America/New_York"),
    "new_york_autumn": _hourly("2024-11-03", "America/New_York"),
    "berlin_spring": _hourly("2024-03-31", "Europe/Berlin"),
    "berlin_autumn": _hourly("2024-10-27", "Europe/Berlin"),
    "sao_paulo": dg.DailyPartitionsDefinition("2018-11-02", end_date="2018-11-07", timezone="America/Sao_Paulo"),
    "cairo": dg.DailyPartitionsDefinition("2024-04-24", end_date="2024-04-29", timezone="Africa/Cairo"),
    "tokyo": dg.DailyPartitionsDefinition("2024-01-01", end_date="2024-01-06", timezone="Asia/Tokyo"),
    "weekly": dg.WeeklyPartitionsDefinition("2024-01-01", end_date="2024-03-01"),
    "monthly": dg.MonthlyPartitionsDefinition("2024-01-01", end_date="2024-07-01"),
    "american": dg.DailyPartitionsDefinition("12/30/2023", end_date="01/03/2024", fmt="%m/%d/%Y"),
    "texts": dg.StaticPartitionsDefinition(["Paris, France", "New York", "New York, NY", "NY", "Zürich"]),
    "dates": dg.StaticPartitionsDefinition(["2024-01-10", "2024-01-05", "2023-12-31"]),
    "by_region": dg.MultiPartitionsDefinition(
        {"day": dg.DailyPartitionsDefinition("2024-01-01", end_date="2024-01-06"),
         "region": dg.StaticPartitionsDefinition(["eu", "us west"])}
    ),
    "customers": dg.DynamicPartitionsDefinition(name="customers"),
}  # fmt: skip


def _asset(name: str, partitions: dg.PartitionsDefinition) -> dg.AssetsDefinition:
    expression: dict[str, str] | str = "begins" if isinstance(partitions, dg.TimeWindowPartitionsDefinition) else "name"

    @sb.wap_asset(
        name=name,
        partitions_def=partitions,
        partition_expr={"day": "begins", "region": "name"} if name == "by_region" else expression,
        backfill_policy=sb.single_run(),
    )
    def rows(partitions: sb.PartitionSlice) -> pd.DataFrame:
        """A row of each partition: when it begins, and what it is called last."""
        found: dict[str, list[object]] = {
            "key": [*partitions.keys],
            "name": [one.split("|")[-1] for one in partitions.keys],
        }
        for dimension in partitions.dimensions:
            if hasattr(dimension, "windows"):
                found["begins"] = [window.start for window in dimension.windows]
        return pd.DataFrame(found)

    return rows


defs = dg.Definitions(
    assets=[_asset(name, one) for name, one in PARTITIONS.items()],
    executor=dg.in_process_executor,
    resources={"io_manager": sb.RangeDuckDBIOManager(database=str(FOLDER / "warehouse.duckdb"), schema="shop")},
)
