"""The assets of the example: a year of flights with reference tables and delays, a shop's orders, a site's events."""

import dagster as dg
import pandas as pd
import pyarrow as pa

import dagster_safe_backfill as sb
from example_project import events, nycflights, orders
from example_project.warehouse import io_manager

DAYS = dg.DailyPartitionsDefinition("2013-01-01", end_date="2014-01-01")


@dg.asset(group_name="reference")
def airlines() -> pd.DataFrame:
    """The airlines, by carrier code."""
    return nycflights.table("airlines").to_pandas()


@dg.asset(group_name="reference")
def airports() -> pd.DataFrame:
    """The airports, by FAA code."""
    return nycflights.table("airports").to_pandas()


@dg.asset(group_name="reference")
def planes() -> pa.Table:
    """The planes, by tail number; year and seats stay whole numbers where some are missing."""
    return nycflights.table("planes")


@sb.wap_asset(
    partitions_def=DAYS,
    partition_expr="flight_date",
    unique_key=["flight_date", "carrier", "flight", "origin"],
    audits=[
        sb.unique(),
        sb.not_null("origin", "dest"),
        sb.expression("distance > 0"),
        sb.references("carrier", table="nyc.airlines", column="carrier"),
        sb.references("dest", table="nyc.airports", column="faa", severity="WARN"),
        sb.references("tailnum", table="nyc.planes", severity="WARN"),
        sb.row_count_drift(max_change=0.02),
    ],
    backfill_policy=sb.single_run(),
    deps=[airlines, airports, planes],
    group_name="flights",
    code_version="1",
)
def flights(partitions: sb.PartitionSlice) -> pa.Table:
    """Every flight that left New York, by its day there."""
    return nycflights.flights(partitions.start.date(), partitions.end.date())


@sb.wap_asset(
    partitions_def=DAYS,
    partition_expr="flight_date",
    unique_key=["flight_date", "carrier"],
    audits=[sb.unique(), sb.expression("cancelled <= flights", name="cancelled_at_most_all")],
    backfill_policy=sb.single_run(),
    deps=[flights],
    group_name="flights",
    code_version="1",
)
def daily_delays(partitions: sb.PartitionSlice) -> sb.Query:
    """Each day's flights, cancellations and mean delay, by carrier; computed inside the warehouse."""
    return sb.Query(f"""
        SELECT flight_date, carrier, count(*) AS flights, count(CASE WHEN dep_time IS NULL THEN 1 END) AS cancelled,
               avg(dep_delay) AS mean_departure_delay, avg(arr_delay) AS mean_arrival_delay
        FROM nyc.flights
        WHERE {partitions.where("flight_date")}
        GROUP BY flight_date, carrier
    """)


flights_job = dg.define_asset_job("flights_job", [flights, daily_delays])
orders_job = dg.define_asset_job("orders_job", [orders.fact_orders_daily])


published = (
    *(flights, daily_delays),
    *(orders.fact_orders_daily, orders.fact_order_items, orders.sku_revenue),
    events.staged.published,
)
"""The assets whose publications are archived, and can be undone."""

defs = dg.Definitions(
    assets=[
        *(airlines, airports, planes, flights, daily_delays),
        *(orders.order_items, orders.orders, orders.costs, orders.fact_orders_daily, orders.fact_order_items),
        *(orders.sku_revenue, events.staging_events, *events.staged, events.daily_traffic),
    ],
    jobs=[flights_job, orders_job, *(sb.build_rollback_job(asset) for asset in published)],
    schedules=[sb.build_retention_schedule(published)],
    # DuckDB has one writing process at a time, so a process for each step would only wait for the others.
    executor=dg.in_process_executor,
    resources={"io_manager": io_manager()},
)
