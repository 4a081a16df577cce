"""The example's shop: margins of three months with traps in the costs, and four days of doubled quantities."""

from __future__ import annotations

import shutil
from datetime import date, timedelta
from pathlib import Path

import dagster as dg
import duckdb
import pytest

import dagster_safe_backfill as sb
from dagster_safe_backfill_tests.harness.assets import failure_of, metadata_by_partition
from dagster_safe_backfill_tests.harness.shop import FOUR, IN_FOUR, ITEMS, ROWS_OF_FOUR, WEEK, Shop, failed_checks
from example_project import order_data
from example_project import orders as shop_assets
from example_project.definitions import defs

FACTS = "SELECT * FROM shop.fact_orders_daily ORDER BY ALL"


@pytest.fixture(scope="module")
def delivered(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a shop with all staging tables, costs with traps among them."""
    folder = tmp_path_factory.mktemp("delivered")
    with dg.DagsterInstance.ephemeral() as instance:
        Shop(folder, instance).deliver(shop_assets.order_items, shop_assets.orders, shop_assets.costs)
    return folder


@pytest.fixture
def shop(delivered: Path, tmp_path: Path, instance: dg.DagsterInstance) -> Shop:
    shutil.copytree(delivered, tmp_path, dirs_exist_ok=True)
    return Shop(tmp_path, instance)


@pytest.fixture(scope="module")
def spoiled(delivered: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a shop whose live items have the bug in four of eight days."""
    folder = tmp_path_factory.mktemp("spoiled")
    shutil.copytree(delivered, folder, dirs_exist_ok=True)
    with dg.DagsterInstance.ephemeral() as instance:
        result = Shop(folder, instance).items(*WEEK, doubled=True)
    assert result.success, failure_of(result, "fact_order_items")
    return folder


@pytest.fixture
def doubled(spoiled: Path, tmp_path: Path, instance: dg.DagsterInstance) -> Shop:
    shutil.copytree(spoiled, tmp_path, dirs_exist_ok=True)
    return Shop(tmp_path, instance)


def days(window: tuple[date, date]) -> list[str]:
    """Return the partition keys of a half-open window."""
    start, end = window
    return [str(start + timedelta(days=d)) for d in range((end - start).days)]


def edges(window: tuple[date, date]) -> list[str]:
    return days(window)[:: len(days(window)) - 1]


def neighbours(window: tuple[date, date]) -> list[str]:
    start, end = window
    return [str(start - timedelta(days=1)), str(end)]


# The data


@pytest.mark.parametrize(
    ("query", "rows", "digest"),
    [
        (order_data.order_items(), 36_479, "8084c2e928496fe295c530c5008ca98a"),
        (order_data.orders(), 18_257, "976e51a69645187743bb7908832748fc"),
        (order_data.costs(mended=False), 120, "b7450eb756c5b1b0a11ec06488011184"),
    ],
    ids=["order_items", "orders", "costs"],
)
def test_the_data_is_the_same_each_time(query: sb.Query, rows: int, digest: str) -> None:
    """Also with other threads, and with DuckDB 1.4, which the digests were compared with."""
    text = f"SELECT count(*), md5(string_agg(row::VARCHAR, chr(10) ORDER BY row::VARCHAR)) FROM ({query.sql}) AS row"
    for threads in (1, 4):
        with duckdb.connect(config={"threads": threads}) as connection:
            assert connection.execute(text).fetchall() == [(rows, digest)]


def test_the_orders_are_those_of_their_items(shop: Shop) -> None:
    assert shop.sql("SELECT count(DISTINCT order_date), min(order_date), max(order_date) FROM staging.orders") == [
        (91, date(2024, 1, 1), date(2024, 3, 31))
    ]
    assert shop.sql("SELECT count(DISTINCT (order_date, sku)) FROM staging.orders") == [(91 * 40,)]
    per_day = "SELECT count(*) AS orders FROM staging.orders GROUP BY order_date"
    assert shop.sql(f"SELECT min(orders), max(orders) FROM ({per_day})") == [(181, 220)]
    sums = """
        SELECT order_id, order_date, sku, sum(quantity)::INTEGER AS quantity, sum(quantity * price) AS total
        FROM staging.order_items GROUP BY ALL"""
    discounts = f"""
        SELECT DISTINCT round(100 * (1 - revenue / total)) FROM staging.orders
        FULL JOIN ({sums}) USING (order_id, order_date, sku, quantity) ORDER BY ALL"""
    assert shop.sql(discounts) == [(0,), (5,), (10,)]
    per_day = "SELECT sum(quantity) AS total FROM staging.order_items GROUP BY order_date"
    assert shop.sql(f"SELECT min(total), max(total) FROM ({per_day})") == [(837, 1149)]


def test_the_costs_have_just_the_two_traps(shop: Shop) -> None:
    without_one_cost = """
        SELECT sku, order_date::VARCHAR,
               (SELECT count(*) FROM staging.costs AS c WHERE c.sku = o.sku AND effective_from <= order_date
                AND coalesce(order_date < effective_to, TRUE)) AS found
        FROM (SELECT DISTINCT sku, order_date FROM staging.orders) AS o WHERE found <> 1 ORDER BY ALL"""
    overlaps = [(order_data.OVERLAPPING_SKU, day, 2) for day in days(order_data.OVERLAP)]
    gaps = [(order_data.GAPPY_SKU, day, 0) for day in days(order_data.GAP)]
    assert shop.sql(without_one_cost) == overlaps + gaps
    changes = shop.deliver(shop_assets.costs, mended=True)
    assert (changes["rows_updated"], changes["rows_unchanged"]) == (2, 118)
    assert shop.sql(without_one_cost) == []


# Margins with the costs of the day


def expected(*keys: str) -> str:
    """Return SQL for the facts of some days by another way: the newest cost that has begun, whatever its end."""
    return f"""
        SELECT order_id, order_date, o.sku, quantity, revenue, (quantity * unit_cost)::DECIMAL(12, 2) AS cost,
               (revenue - cost) / revenue AS margin
        FROM staging.orders AS o ASOF JOIN staging.costs AS c ON o.sku = c.sku AND order_date >= effective_from
        WHERE order_date::VARCHAR IN {(*keys, "")}
        ORDER BY ALL"""


def test_clean_days_are_published(shop: Shop) -> None:
    chosen = ["2024-01-01", *neighbours(order_data.OVERLAP), *neighbours(order_data.GAP), "2024-03-31"]
    for key in chosen:
        result = shop.margins(key)
        assert result.success, failure_of(result, "fact_orders_daily")
    assert shop.green("fact_orders_daily") == set(chosen)
    published = shop.sql(FACTS)
    assert published == shop.sql(expected(*chosen))
    assert {str(row[1]) for row in published} == set(chosen)
    assert all(0.17 < row[-1] < 0.56 for row in published)


@pytest.mark.parametrize(
    ("trap", "sku", "audit", "rows_an_order"),
    [
        (order_data.OVERLAP, order_data.OVERLAPPING_SKU, "unique_key", 2),
        (order_data.GAP, order_data.GAPPY_SKU, "not_null_cost", 1),
    ],
    ids=["overlap", "gap"],
)
def test_days_in_a_trap_are_rejected_until_the_costs_are_mended(
    shop: Shop, trap: tuple[date, date], sku: str, audit: str, rows_an_order: int
) -> None:
    neighbour, first, last = neighbours(trap)[0], *edges(trap)
    assert shop.margins(neighbour).success
    before = shop.sql(FACTS)
    for key in (first, last):
        result = shop.margins(key)
        assert not result.success
        ((name, metadata),) = failed_checks(result).items()
        ((orders,),) = shop.sql(f"SELECT count(*) FROM staging.orders WHERE order_date = '{key}' AND sku = '{sku}'")
        assert (name, metadata["failed_rows"]) == (audit, orders * rows_an_order)
        assert f"in 1 of 1 partition ({key})" in failure_of(result, "fact_orders_daily")
    assert shop.sql(FACTS) == before
    assert shop.green("fact_orders_daily") == {neighbour}

    shop.deliver(shop_assets.costs, mended=True)
    assert shop.margins(first).success
    assert shop.margins(last).success
    published = shop.sql(FACTS)
    assert published == shop.sql(expected(neighbour, first, last))
    assert shop.green("fact_orders_daily") == {neighbour, first, last}

    shop.deliver(shop_assets.costs)
    assert failed_checks(shop.margins(first)).keys() == {audit}
    assert shop.sql(FACTS) == published, "a day that is live stays when wrong costs come after it"


def test_an_order_below_its_cost_is_rejected(shop: Shop) -> None:
    shop.sql("UPDATE staging.orders SET revenue = 0.01 WHERE order_id = 1000")
    assert failed_checks(shop.margins("2024-01-01")).keys() == {"revenue_covers_cost", "in_range_margin"}


def test_a_backfill_of_margins_takes_one_day_a_run_in_its_pool() -> None:
    asset = shop_assets.fact_orders_daily
    assert asset.backfill_policy == sb.per_partition()
    assert asset.op.pool == "orders"
    job = defs.resolve_job_def("orders_job")
    assert job.partitions_def is not None
    keys = job.partitions_def.get_partition_keys()
    assert (keys[0], keys[-1], len(keys)) == ("2024-01-01", "2024-03-31", 91)


# The mini challenge: four days of doubled quantities


def test_the_bug_doubles_four_days(doubled: Shop) -> None:
    both = """
        SELECT order_date::VARCHAR, live.quantity / staged.quantity AS times, count(*)
        FROM shop.fact_order_items AS live JOIN staging.order_items AS staged USING (order_id, item_id, order_date)
        GROUP BY ALL"""
    found = {day: (times, rows) for day, times, rows in doubled.sql(both)}
    assert len(doubled.sql(both)) == len(found) == 8
    assert {day: rows for day, (times, rows) in found.items() if times == 2} == ROWS_OF_FOUR
    assert sum(times == 1 for times, _ in found.values()) == 4


@pytest.mark.parametrize("scope", [FOUR, WEEK], ids=["four days", "and their neighbours"])
def test_a_backfill_repairs_the_four_days_and_touches_no_other_row(doubled: Shop, scope: tuple[str, str]) -> None:
    others = f"SELECT * FROM shop.fact_order_items WHERE NOT ({IN_FOUR}) ORDER BY ALL"
    before = doubled.sql(others)
    result = doubled.items(*scope)
    assert result.success, failure_of(result, "fact_order_items")
    assert doubled.sql(others) == before

    staged = "SELECT order_id, item_id, order_date, sku, quantity, price FROM staging.order_items"
    live = doubled.sql("SELECT * EXCLUDE (updated_at) FROM shop.fact_order_items ORDER BY ALL")
    assert live == doubled.sql(f"{staged} WHERE order_date BETWEEN '{WEEK[0]}' AND '{WEEK[1]}' ORDER BY ALL")

    found = metadata_by_partition(result, "fact_order_items")
    assert {key: values["rows_updated"] for key, values in found.items() if values["rows_updated"]} == ROWS_OF_FOUR
    assert {values["rows_inserted"] + values["rows_deleted"] for values in found.values()} == {0}
    unchanged = len(before) if scope == WEEK else 0
    assert sum(values["rows_unchanged"] for values in found.values()) == unchanged
    (compared,) = [check for check in result.get_asset_check_evaluations() if check.check_name == "compare"]
    assert compared.passed
    counted = f"0 rows added, 0 removed, 1,511 changed (quantity in 1,511), {unchanged:,} unchanged"
    assert counted in str(compared.description)


def test_a_repair_that_doubles_once_more_is_rejected(doubled: Shop) -> None:
    before = doubled.sql(ITEMS)
    doubled.sql(f"UPDATE staging.order_items SET quantity = 2 * quantity WHERE {IN_FOUR}")
    failed = failed_checks(doubled.items(*FOUR, doubled=True))
    assert failed.keys() == {"total_quantity", "total_drift_quantity"}
    assert all(metadata["failed_partition_keys"] == list(ROWS_OF_FOUR) for metadata in failed.values())
    assert doubled.sql(ITEMS) == before


def test_a_negative_quantity_is_rejected(doubled: Shop) -> None:
    doubled.sql(
        f"UPDATE staging.order_items SET quantity = -quantity WHERE item_id = 3 AND sku = 'SKU-00' AND {IN_FOUR}"
    )
    assert failed_checks(doubled.items(*FOUR)).keys() == {"in_range_quantity"}


def test_the_bug_is_rejected_when_it_comes_back_after_the_repair(doubled: Shop) -> None:
    assert doubled.items(*FOUR).success
    before = doubled.sql(ITEMS)
    assert failed_checks(doubled.items(*WEEK, doubled=True)).keys() == {"total_drift_quantity"}
    assert doubled.sql(ITEMS) == before


def test_a_repair_that_loses_rows_of_one_day_is_rejected_for_all_four(doubled: Shop) -> None:
    before = doubled.sql(ITEMS)
    lose = "DELETE FROM staging.order_items WHERE (order_id, item_id) IN ({})"
    of_the_day = "SELECT (order_id, item_id) FROM shop.fact_order_items WHERE order_date = '2024-02-10' ORDER BY ALL"
    doubled.sql(lose.format(f"{of_the_day} LIMIT 5"))
    failed = failed_checks(doubled.items(*FOUR))
    assert failed.keys() == {"row_count_drift"}
    assert failed["row_count_drift"]["failed_partition_keys"] == ["2024-02-10"]
    assert doubled.sql(ITEMS) == before
    assert doubled.green("fact_order_items") == set()
