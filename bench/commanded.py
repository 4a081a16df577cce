"""What the command is measured on: an asset of a year of days, and one of 2,407 days, in one DuckDB file."""

from __future__ import annotations

import os

import dagster as dg

import dagster_safe_backfill as sb


def _asset(name: str, end: str) -> dg.AssetsDefinition:
    @sb.wap_asset(
        name=name,
        partitions_def=dg.DailyPartitionsDefinition("2018-01-01", end_date=end),
        partition_expr="day",
        unique_key=["day", "n"],
        audits=[sb.not_null("n")],
        backfill_policy=sb.single_run(),
    )
    def days(partitions: sb.PartitionSlice) -> sb.Query:
        """Three rows a day."""
        days = "unnest(generate_series(DATE '2018-01-01', DATE '2024-12-31', INTERVAL 1 DAY))::DATE AS day"
        return sb.Query(f"SELECT day, n FROM (SELECT {days}), range(3) AS t (n) WHERE {partitions.where('day')}")

    return days


defs = dg.Definitions(
    assets=[_asset("year", "2019-01-01"), _asset("long", "2024-08-04")],
    executor=dg.in_process_executor,
    resources={"io_manager": sb.RangeDuckDBIOManager(database=os.environ["BENCH_WAREHOUSE"], schema="bench")},
)
