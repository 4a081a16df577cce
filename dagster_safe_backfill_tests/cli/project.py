"""A small project that the command is tried on. What its source delivers is told by files in its folder."""

from __future__ import annotations

import os
from pathlib import Path

import dagster as dg
import pandas as pd

import dagster_safe_backfill as sb

FOLDER = Path(os.environ["SALES_FOLDER"])
"""Files in it: `bad` names days whose amounts are negative, `broken` days that can't be read, `slow` is how many
seconds a day takes, `version` is the `code_version`; `computed` gets a line for each asset and day that is computed."""

DAYS = dg.DailyPartitionsDefinition("2024-01-01", end_date="2024-02-01")
SHOPS = dg.StaticPartitionsDefinition(["eu", "us"])


def _told(name: str, default: str = "") -> str:
    file = FOLDER / name
    return file.read_text().strip() if file.exists() else default


def _rows(partitions: sb.PartitionSlice, asset: str) -> pd.DataFrame:
    import time

    # Asked again and again, so that a test can let it go on.
    started = time.monotonic()
    while time.monotonic() - started < float(_told("slow") or "0") * len(partitions):
        time.sleep(0.05)
    bad, broken = _told("bad").split(), _told("broken").split()
    for day in partitions.keys:
        if day in broken:
            raise ValueError(f"the source has no {day}")
    with (FOLDER / "computed").open("a") as file:
        file.writelines(f"{asset} {day}\n" for day in partitions.keys)
    days = [day for day in partitions.keys for _ in range(3)]
    amounts = [-1.0 if day in bad else 10.0 * (number % 3 + 1) for number, day in enumerate(days)]
    return pd.DataFrame(
        {
            "day": pd.to_datetime(days),
            "item": [number % 3 for number in range(len(days))],
            "amount": amounts,
        }
    )


@dg.asset
def prices() -> pd.DataFrame:
    return pd.DataFrame({"item": [0, 1, 2], "price": [10.0, 20.0, 30.0]})


@sb.wap_asset(
    partitions_def=DAYS,
    partition_expr="day",
    unique_key=["day", "item"],
    audits=[sb.expression("amount >= 0", name="amount_positive")],
    backfill_policy=sb.single_run(),
    deps=[prices],
    code_version=_told("version", "1"),
)
def sales(partitions: sb.PartitionSlice) -> pd.DataFrame:
    return _rows(partitions, "sales")


@sb.wap_asset(
    partitions_def=DAYS,
    partition_expr="day",
    unique_key=["day", "item"],
    audits=[sb.expression("amount >= 0", name="amount_positive")],
    backfill_policy=sb.single_run(),
    batches=sb.Batches(size=1, publish_each=True),
    limits=sb.Limits(max_partitions=20),
)
def batched(partitions: sb.PartitionSlice) -> pd.DataFrame:
    return _rows(partitions, "batched")


@sb.wap_asset(partitions_def=DAYS, partition_expr="day", unique_key=["day", "item"], deps=[sales])
def by_day(partitions: sb.PartitionSlice) -> pd.DataFrame:
    """One run for each partition."""
    return _rows(partitions, "by_day")


def _staged_rows(partitions: sb.PartitionSlice) -> pd.DataFrame:
    return _rows(partitions, "staged")


staged = sb.build_staged_wap_assets(
    _staged_rows,
    name="staged",
    partitions_def=DAYS,
    partition_expr="day",
    unique_key=["day", "item"],
    audits=[sb.expression("amount >= 0", name="amount_positive")],
    backfill_policy=sb.batched(5),
)


@sb.wap_asset(
    partitions_def=dg.MultiPartitionsDefinition({"day": DAYS, "shop": SHOPS}),
    partition_expr={"day": "day", "shop": "shop"},
    backfill_policy=sb.per_partition(),
)
def by_shop(partitions: sb.PartitionSlice) -> pd.DataFrame:
    day, shop = partitions.keys[0].split("|")
    return pd.DataFrame({"day": pd.to_datetime([day]), "shop": [shop], "amount": [1.0]})


@sb.wap_asset(partitions_def=dg.DynamicPartitionsDefinition(name="regions"), partition_expr="region")
def by_region(partitions: sb.PartitionSlice) -> pd.DataFrame:
    return pd.DataFrame({"region": list(partitions.keys), "amount": [1.0] * len(partitions)})


sales_job = dg.define_asset_job("sales_job", [sales])
by_day_job = dg.define_asset_job("by_day_job", [by_day])

_LIVE = [sales, batched, by_day, staged.published, by_shop]

defs = dg.Definitions(
    assets=[prices, sales, batched, by_day, *staged, by_shop, by_region],
    jobs=[sales_job, by_day_job, *(sb.build_rollback_job(asset) for asset in _LIVE[:-1])],
    schedules=[sb.build_retention_schedule([sales, staged.published])],
    executor=dg.in_process_executor,
    resources={
        "io_manager": sb.RangeDuckDBIOManager(
            database=str(FOLDER / "warehouse.duckdb"), schema="shop", lock_timeout=float(_told("lock_timeout", "20"))
        )
    },
)
