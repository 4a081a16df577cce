"""Assets for the daemon's tests; what they compute, and where, comes from files named by the environment."""

import json
import os
from pathlib import Path

import dagster as dg
import pandas as pd

import dagster_safe_backfill as sb

FOLDER = Path(os.environ["DSB_TEST_FOLDER"])
DAYS = dg.DailyPartitionsDefinition("2024-01-01", end_date="2024-03-01")


def _bad_days() -> list[str]:
    return json.loads((FOLDER / "bad_days.json").read_text())


@sb.wap_asset(
    partitions_def=DAYS,
    partition_expr="day",
    unique_key=["day", "id"],
    audits=[sb.expression("value > 0", name="positive")],
    backfill_policy=sb.single_run(),
)
def events(partitions: sb.PartitionSlice) -> pd.DataFrame:
    """Three rows a day; those of the bad days are negative."""
    bad = _bad_days()
    return pd.DataFrame(
        {"day": pd.Timestamp(key), "id": i, "value": -1 if key in bad else i + 1}
        for key in partitions.keys
        for i in range(3)
    )


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


defs = dg.Definitions(
    assets=[events, totals],
    resources={"io_manager": sb.RangeDuckDBIOManager(database=str(FOLDER / "warehouse.duckdb"), schema="main")},
)
