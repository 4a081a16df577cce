"""Assets for the daemon's tests; what they compute, and where, comes from files named by the environment."""

import json
import os
from pathlib import Path

import dagster as dg
import pandas as pd

import dagster_safe_backfill as sb

FOLDER = Path(os.environ["DSB_TEST_FOLDER"])
DAYS = dg.DailyPartitionsDefinition("2024-01-01", end_date="2024-03-01")


def _rows(partitions: sb.PartitionSlice) -> pd.DataFrame:
    """Return three rows a day; those of the bad days are negative."""
    bad = json.loads((FOLDER / "bad_days.json").read_text())
    return pd.DataFrame(
        {"day": pd.Timestamp(key), "id": i, "value": -1 if key in bad else i + 1}
        for key in partitions.keys
        for i in range(3)
    )


@sb.wap_asset(
    partitions_def=DAYS,
    partition_expr="day",
    unique_key=["day", "id"],
    audits=[sb.expression("value > 0", name="positive")],
    backfill_policy=sb.single_run(),
)
def events(partitions: sb.PartitionSlice) -> pd.DataFrame:
    """What goes live as a whole."""
    return _rows(partitions)


@sb.wap_asset(
    partitions_def=DAYS,
    partition_expr="day",
    unique_key=["day"],
    deps=[events],
    backfill_policy=sb.batched(20),  # another policy, so that the daemon starts it in a run of its own
)
def totals(partitions: sb.PartitionSlice) -> sb.Query:
    """Each day's sum."""
    return sb.Query(f"SELECT day, sum(value) AS value FROM main.events WHERE {partitions.where()} GROUP BY day")


@sb.wap_asset(
    partitions_def=DAYS,
    partition_expr="day",
    unique_key=["day", "id"],
    audits=[sb.expression("value > 0", name="positive")],
    backfill_policy=sb.single_run(),
    batches=sb.Batches(size=10, publish_each=True),
)
def readings(partitions: sb.PartitionSlice) -> pd.DataFrame:
    """What goes live batch by batch."""
    with (FOLDER / "calls").open("a") as calls:
        calls.write(f"{partitions.keys[0]} {partitions.keys[-1]}\n")
    return _rows(partitions)


@sb.wap_asset(
    partitions_def=DAYS,
    partition_expr="day",
    unique_key=["day"],
    deps=[readings],
    backfill_policy=sb.batched(20),
)
def reading_totals(partitions: sb.PartitionSlice) -> sb.Query:
    """Each day's sum."""
    return sb.Query(f"SELECT day, sum(value) AS value FROM main.readings WHERE {partitions.where()} GROUP BY day")


defs = dg.Definitions(
    assets=[events, totals, readings, reading_totals],
    resources={"io_manager": sb.RangeDuckDBIOManager(database=str(FOLDER / "warehouse.duckdb"), schema="main")},
    executor=dg.in_process_executor,
)
