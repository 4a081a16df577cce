"""The example project, with its flights backfilled in runs of ten days."""

import dagster as dg

import dagster_safe_backfill as sb
from example_project import definitions as example

flights = example.flights.with_attributes(backfill_policy=sb.batched(10))

defs = dg.Definitions(
    assets=[example.airlines, example.airports, example.planes, flights],
    resources=example.defs.resources,
    executor=dg.in_process_executor,
)
