"""The handbook's third example: a metric mended, compared, published, archived, rolled back, and rolled forward.

A reader polls the table all along.
"""

from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import date
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from dagster_safe_backfill.warehouses.duckdb.session import DuckDBWarehouse
from dagster_safe_backfill_tests.harness.assets import failure_of, metadata_by_partition
from dagster_safe_backfill_tests.harness.shop import FOUR, IN_FOUR, ITEMS, ROWS_OF_FOUR, WEEK, Shop, failed_checks
from example_project import events
from example_project import orders as shop_assets
from example_project.dashboard import changes, quantities
from example_project.definitions import defs, published

DAYS_OF_FOUR = [*ROWS_OF_FOUR]
AGGREGATES = """
    SELECT order_date::VARCHAR, sum(quantity), count(DISTINCT order_id), median(quantity), quantile_cont(quantity, 0.95)
    FROM {} GROUP BY ALL"""

Rows = list[tuple[Any, ...]]


@pytest.fixture
def shop(tmp_path: Path, instance: dg.DagsterInstance) -> Shop:
    """A shop whose live items have the bug in four of eight days."""
    shop = Shop(tmp_path, instance)
    shop.deliver(shop_assets.order_items)
    result = shop.items(*WEEK, doubled=True)
    assert result.success, failure_of(result, "fact_order_items")
    return shop


@contextmanager
def polled(shop: Shop) -> Iterator[list[Mapping[date, int]]]:
    """Read the day's quantities again and again within the block; yield each that differs from the one before."""
    warehouse = DuckDBWarehouse(shop.database, lock_timeout=30)
    seen: list[Mapping[date, int]] = []
    ended = threading.Event()

    def poll() -> None:
        while not ended.is_set():
            found = quantities(warehouse)
            if not seen or found != seen[-1]:
                seen.append(found)
            time.sleep(0.005)

    reader = threading.Thread(target=poll)
    reader.start()
    try:
        yield seen
    finally:
        ended.set()
        reader.join()


def materialized(result: dg.ExecuteInProcessResult) -> dict[str, dict[str, Any]]:
    """Return the metadata of the materializations that a rollback logged, by partition."""
    return metadata_by_partition(result, "rollback_fact_order_items_op")


def test_the_metric_is_mended_rolled_back_and_rolled_forward_while_a_dashboard_reads(shop: Shop) -> None:
    untouched = f"SELECT * FROM shop.fact_order_items WHERE NOT ({IN_FOUR}) ORDER BY ALL"
    buggy, others = shop.sql(ITEMS), shop.sql(untouched)
    with polled(shop) as seen:
        repair = shop.items(*FOUR)
        assert repair.success, failure_of(repair, "fact_order_items")
        mended = shop.read(ITEMS)

        dry = shop.roll_back(publication_id=repair.run_id, dry_run=True)
        assert shop.read(ITEMS) == mended
        assert not materialized(dry)
        back = shop.roll_back(publication_id=repair.run_id)
        assert shop.read(ITEMS) == buggy
        forward = shop.roll_back(publication_id=back.run_id)
        assert shop.read(ITEMS) == mended
        time.sleep(0.1)
    assert shop.sql(ITEMS) == mended
    assert shop.sql(untouched) == others
    for result, undone in ((back, repair), (forward, back)):
        found = materialized(result)
        assert [*found] == DAYS_OF_FOUR
        assert {(row["rollback_of"], row["publication_id"]) for row in found.values()} == {
            (undone.run_id, result.run_id)
        }
        assert {key: row["rows_updated"] for key, row in found.items()} == ROWS_OF_FOUR

    doubled = seen[0]
    right = {day: total // 2 if str(day) in ROWS_OF_FOUR else total for day, total in doubled.items()}
    assert len(doubled) == 8
    assert seen == [doubled, right, doubled, right], "a reader saw something between"


def test_the_report_compares_the_days(shop: Shop) -> None:
    before = {day: values for day, *values in shop.sql(AGGREGATES.format("shop.fact_order_items"))}
    wanted = {day: values for day, *values in shop.sql(AGGREGATES.format("staging.order_items"))}
    repair = shop.items(*FOUR)
    report = metadata_by_partition(repair, "fact_order_items")[DAYS_OF_FOUR[-1]]["report"]
    names = (
        *("total of quantity", "number of distinct values of order_id"),
        *("median of quantity", "percentile 0.95 of quantity"),
    )
    rows = {row["partition"]: row for row in [record.data for record in report.records]}
    assert [*rows] == DAYS_OF_FOUR
    for day, row in rows.items():
        assert [float(row[f"{name}, shadow"].replace(",", "")) for name in names] == wanted[day]
        assert [float(row[f"{name}, live"].replace(",", "")) for name in names] == before[day]
        assert (row["shadow rows"], row["live rows"]) == (ROWS_OF_FOUR[day],) * 2
        assert row["verdict"] == "warned"
    assert not failed_checks(repair)
    warned = {check.check_name for check in repair.get_asset_check_evaluations() if not check.passed}
    assert warned == {"total_drift_quantity", "median_drift_quantity", "p95_drift_quantity"}


def test_what_the_repair_replaced_is_archived_and_kept(shop: Shop) -> None:
    of_four = "SELECT order_id, item_id, order_date, sku, quantity, price, updated_at FROM {} WHERE {} ORDER BY ALL"
    before = shop.sql(of_four.format("shop.fact_order_items", IN_FOUR))
    found = metadata_by_partition(shop.items(*FOUR), "fact_order_items")
    (archive,) = {row["archive"] for row in found.values()}
    assert shop.sql(of_four.format(archive, "TRUE")) == before
    retention = shop.execute("safe_backfill_retention_job", "safe_backfill_retention_op")
    assert retention.success
    assert shop.sql(of_four.format(archive, "TRUE")) == before


def test_a_single_day_can_be_rolled_back(shop: Shop) -> None:
    buggy = shop.sql(ITEMS)
    repair = shop.items(*FOUR)
    mended = shop.sql(ITEMS)
    back = shop.roll_back(publication_id=repair.run_id, partitions=["2024-02-11"])
    day = date(2024, 2, 11)
    assert shop.sql(ITEMS) == sorted([row for row in buggy if day in row] + [row for row in mended if day not in row])
    assert [*materialized(back)] == ["2024-02-11"]


@pytest.mark.cold  # of a file that is closed
def test_a_copy_of_the_warehouse_is_a_sandbox(shop: Shop, tmp_path: Path, instance: dg.DagsterInstance) -> None:
    (tmp_path / "sandbox").mkdir()
    shutil.copy(shop.database, tmp_path / "sandbox")
    before = shop.sql(ITEMS)
    sandbox = Shop(tmp_path / "sandbox", instance)
    result = sandbox.items("2024-01-01", "2024-03-31")
    assert result.success, failure_of(result, "fact_order_items")
    both = "SELECT sum(quantity), count(*) FROM {}"
    assert sandbox.sql(both.format("shop.fact_order_items")) == sandbox.sql(both.format("staging.order_items"))
    assert shop.sql(ITEMS) == before


def test_every_published_table_has_a_way_back_and_a_retention() -> None:
    checked = {asset.key for asset in defs.assets or () if isinstance(asset, dg.AssetsDefinition) if asset.check_specs}
    # Of staged assets, the shadow and its audit have the checks, and the third is the table.
    wap_assets = {*checked, events.staged.published.key} - {events.staged.shadow.key, events.staged.audit.key}
    assert {asset.key for asset in published} == wap_assets
    jobs = {f"rollback_{key.to_python_identifier()}" for key in wap_assets}
    assert jobs < {job.name for job in defs.jobs or ()}
    assert [schedule.name for schedule in defs.schedules or ()] == ["safe_backfill_retention"]


def test_the_dashboard_tells_what_changed(tmp_path: Path) -> None:
    assert quantities(DuckDBWarehouse(str(tmp_path / "none.duckdb"))) == {}
    one, two, three = date(2024, 2, 9), date(2024, 2, 10), date(2024, 2, 11)
    assert [*changes({one: 1, two: 2_078}, {one: 1, two: 1_039, three: 5})] == [
        "total 1,045 of 3 days",
        "    2024-02-10   2,078 ->  1,039",
        "    2024-02-11       0 ->      5",
    ]
