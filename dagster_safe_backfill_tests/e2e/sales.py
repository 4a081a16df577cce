"""Definitions for the browser: sales whose code has a bug while the file that SPOILED names exists."""

import os
from pathlib import Path

import dagster as dg

import dagster_safe_backfill as sb

_RIGHT = "SELECT day, id, id * 1.5 AS amount FROM days, range(20) AS r (id)"
_SPOILED = """SELECT day, id, CASE WHEN day = DATE '2024-01-05' THEN -1 ELSE 1 END * (id + 1) * 1.5 AS amount
    FROM days, range(20) AS r (id) WHERE NOT (day = DATE '2024-01-08' AND id % 2 = 0)"""


_DAYS = dg.DailyPartitionsDefinition("2024-01-01", end_date="2024-01-31")


@sb.wap_asset(
    partitions_def=_DAYS,
    partition_expr="day",
    unique_key=["day", "id"],
    audits=[sb.in_range("amount", 0), sb.row_count_drift(max_change=0.1), sb.compare()],
    backfill_policy=sb.single_run(),
    checks=sb.Checks(sample_columns=["day", "id"]),
)
def sales(partitions: sb.PartitionSlice) -> sb.Query:
    days = ", ".join(f"(DATE '{key}')" for key in partitions.keys)
    sql = _SPOILED if Path(os.environ["SPOILED"]).exists() else _RIGHT
    return sb.Query(f"WITH days AS (SELECT * FROM (VALUES {days}) AS d (day)) {sql}")


def takings(partitions: sb.PartitionSlice) -> sb.Query:
    days = ", ".join(f"(DATE '{key}', {key[-2:]}.0)" for key in partitions.keys)
    return sb.Query(f"SELECT * FROM (VALUES {days}) AS d (day, amount)")


staged = sb.build_staged_wap_assets(
    takings,
    partitions_def=_DAYS,
    partition_expr="day",
    unique_key=["day"],
    audits=[sb.in_range("amount", 0), sb.row_count_between(5, 5, over="run")],
    backfill_policy=sb.batched(2),
)

defs = dg.Definitions(
    assets=[sales, *staged],
    resources={"io_manager": sb.RangeDuckDBIOManager(database=os.environ["SAFE_BACKFILL_DUCKDB"], schema="shop")},
)
