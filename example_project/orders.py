"""The shop's assets: three staging tables, and facts by day that are backfilled a run a day, in one run, or in batches.

`fact_orders_daily` recomputes the gross margin of three months with the costs valid on each order's day.
`fact_order_items` is repaired after a bug doubled the quantities of four days.
`sku_revenue` is backfilled for a month, two days at a time, and goes on where it was killed.
"""

from datetime import date
from typing import Any

import dagster as dg
from pydantic import Field

import dagster_safe_backfill as sb
from example_project import order_data
from example_project.warehouse import made_up

DAYS = dg.DailyPartitionsDefinition(str(order_data.FIRST_DAY), end_date=str(order_data.END_DAY))
DOUBLED = (date(2024, 2, 10), date(2024, 2, 14))
"""The days of the bug in `fact_order_items`, half-open."""


class CostsConfig(dg.Config):
    """Which costs are delivered."""

    mended: bool = Field(default=False, description="Whether each cost ends where the next begins; two don't, if not.")


class ItemsConfig(dg.Config):
    """Which version of the code runs."""

    doubled: bool = Field(default=False, description="Whether the bug is in it: 2024-02-10 to 13 get twice as many.")


@dg.asset(group_name="shop", metadata={"schema": "staging", "unique_key": ["order_id", "item_id"]})
def order_items() -> Any:
    """The items of the orders."""
    return made_up(order_data.order_items())


@dg.asset(group_name="shop", metadata={"schema": "staging", "unique_key": ["order_id"]})
def orders() -> Any:
    """The orders of three months, some 200 a day."""
    return made_up(order_data.orders())


@dg.asset(group_name="shop", metadata={"schema": "staging", "unique_key": ["sku", "effective_from"]})
def costs(config: CostsConfig) -> Any:
    """What a unit of each SKU costs from `effective_from` to before `effective_to`; two costs have wrong ends."""
    return made_up(order_data.costs(mended=config.mended))


@sb.wap_asset(
    partitions_def=DAYS,
    partition_expr="order_date",
    unique_key=["order_id"],
    audits=[
        # An order in two windows comes twice, and one in none has no cost: so the join is LEFT, that none is lost.
        sb.unique(),
        sb.not_null("cost"),
        sb.expression("revenue >= cost AND cost >= 0", name="revenue_covers_cost"),
        sb.in_range("margin", 0, 1.5),
    ],
    backfill_policy=sb.per_partition(),
    # A run is one day here; if the pool has a limit of 1, a backfill computes one day at a time.
    pool="orders",
    deps=[orders, costs],
    table=sb.TableOptions(schema="shop"),
    group_name="shop",
    code_version="1",
)
def fact_orders_daily(partitions: sb.PartitionSlice) -> sb.Query:
    """Each order with its cost, as valid on its day, and its margin as a share of revenue."""
    return sb.Query(f"""
        SELECT o.order_id, o.order_date, o.sku, o.quantity, o.revenue,
               CAST(o.quantity * c.unit_cost AS DECIMAL(12, 2)) AS cost, (o.revenue - cost) / o.revenue AS margin
        FROM staging.orders AS o
        LEFT JOIN staging.costs AS c
            ON o.sku = c.sku AND o.order_date >= c.effective_from
            AND (c.effective_to IS NULL OR o.order_date < c.effective_to)
        WHERE {partitions.where("o.order_date")}
    """)


@sb.wap_asset(
    partitions_def=DAYS,
    partition_expr="order_date",
    unique_key=["order_id", "item_id"],
    audits=[
        sb.unique(),
        sb.in_range("quantity", 0),
        sb.row_count_drift(max_change=0.01),
        # A day sells 837 to 1,149. The bounds are wide, and a doubled day that is new passes: so the bug went live.
        sb.aggregate_between("sum(quantity)", 700, 2_500, name="total_quantity"),
        # What the repair should change is shown, and too much of it blocks: it halves a day's total, a change of 0.5;
        # to double one is a change of 1. Orders it should neither gain nor lose.
        sb.aggregate_drift("quantity", "total", warn_above=0.05, error_above=0.6),
        sb.aggregate_drift("order_id", "distinct", max_change=0.01),
        sb.aggregate_drift("quantity", "median", warn_above=0.05),
        sb.aggregate_drift("quantity", 0.95, warn_above=0.05),
        sb.compare(),
    ],
    # The days that are repaired together go live together.
    backfill_policy=sb.single_run(),
    table=sb.TableOptions(schema="shop", updated_at_column="updated_at"),
    deps=[order_items],
    group_name="shop",
    code_version="1",
)
def fact_order_items(config: ItemsConfig, partitions: sb.PartitionSlice) -> sb.Query:
    """The items of the orders; with the bug, four days have each quantity doubled."""
    start, end = DOUBLED
    is_doubled = f"order_date >= DATE '{start}' AND order_date < DATE '{end}'" if config.doubled else "false"
    return sb.Query(f"""
        SELECT order_id, item_id, order_date, sku,
               CASE WHEN {is_doubled} THEN 2 * quantity ELSE quantity END AS quantity, price
        FROM staging.order_items
        WHERE {partitions.where()}
    """)


@sb.wap_asset(
    partitions_def=DAYS,
    partition_expr="order_date",
    unique_key=["order_date", "sku"],
    audits=[sb.unique(), sb.in_range("revenue", 0), sb.row_count_between(1, 40)],
    backfill_policy=sb.single_run(),
    # Two days at a time: what is staged and audited isn't computed again, should the run be killed.
    batches=2,
    table=sb.TableOptions(schema="shop"),
    deps=[orders],
    group_name="shop",
    code_version="1",
)
def sku_revenue(partitions: sb.PartitionSlice) -> sb.Query:
    """Each day's orders and revenue, by SKU."""
    return sb.Query(f"""
        SELECT order_date, sku, count(*) AS orders, CAST(sum(revenue) AS DECIMAL(12, 2)) AS revenue
        FROM staging.orders
        WHERE {partitions.where()}
        GROUP BY order_date, sku
    """)
