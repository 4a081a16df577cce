"""The example's flights in runs of eight days, which a file's text may spoil or change: see `DSB_FLIGHTS_CHANGE`."""

import os
from pathlib import Path

import dagster as dg
import pyarrow as pa
import pyarrow.compute as pc

import dagster_safe_backfill as sb
from example_project import definitions as example
from example_project import nycflights

CHANGE = "DSB_FLIGHTS_CHANGE"
"""Names a file of `day field factor`: the field is multiplied on that day."""


@sb.wap_asset(
    partitions_def=example.DAYS,
    partition_expr="flight_date",
    unique_key=["flight_date", "carrier", "flight", "origin"],
    audits=[
        sb.unique(),
        sb.not_null("origin", "dest"),
        sb.expression("distance > 0"),
        sb.references("carrier", table="nyc.airlines", column="carrier"),
        sb.row_count_drift(max_change=0.02),
    ],
    backfill_policy=sb.batched(8),
)
def flights(partitions: sb.PartitionSlice) -> pa.Table:
    rows = nycflights.flights(partitions.start.date(), partitions.end.date())
    path = Path(os.environ[CHANGE])
    if not path.exists():
        return rows
    day, field, factor = path.read_text().split()
    here = pc.equal(rows["flight_date"].cast(pa.string()), day)
    changed = pc.if_else(here, pc.multiply(rows[field], int(factor)), rows[field])
    return rows.set_column(rows.column_names.index(field), field, changed)


defs = dg.Definitions(
    assets=[example.airlines, example.airports, example.planes, flights],
    jobs=[sb.build_rollback_job(flights)],
    resources=example.defs.resources,
    executor=dg.in_process_executor,
)
