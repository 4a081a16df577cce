"""A dashboard: reads the quantities of `shop.fact_order_items` again and again, and prints what changed.

`python -m example_project.dashboard [reads a second]` until Ctrl-C. A DuckDB file has one writing process or several
reading ones, so each read opens the file, waits while a run writes, and closes it again.
"""

from __future__ import annotations

import signal
import sys
import time
from collections.abc import Iterator, Mapping
from datetime import date, datetime

import sqlglot

from dagster_safe_backfill.errors import TableNotFoundError
from dagster_safe_backfill.warehouses.base import Warehouse
from example_project.warehouse import io_manager

_QUANTITIES = sqlglot.parse_one(
    "SELECT order_date, CAST(sum(quantity) AS BIGINT) FROM shop.fact_order_items GROUP BY order_date",
    dialect="duckdb",
)


def quantities(warehouse: Warehouse) -> Mapping[date, int]:
    """Return the quantity sold on each day that is live; none, as long as there is no table."""
    try:
        with warehouse.connect(read_only=True) as connection:
            return dict(connection.query(_QUANTITIES))
    except TableNotFoundError:
        return {}


def changes(before: Mapping[date, int], after: Mapping[date, int]) -> Iterator[str]:
    """Yield a line for the new total, and one for each day that changed."""
    yield f"total {sum(after.values()):,} of {len(after)} days"
    for day in sorted({*before, *after}):
        if before.get(day) != after.get(day):
            yield f"    {day}  {before.get(day, 0):>6,} -> {after.get(day, 0):>6,}"


def main(reads_a_second: float = 5) -> None:
    """Print what changes, until Ctrl-C."""
    # Also where it was started in the background, as shells have such processes ignore Ctrl-C.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    warehouse = io_manager().warehouse()
    shown: Mapping[date, int] = {}
    reads = 0
    try:
        while True:
            found = quantities(warehouse)
            reads += 1
            if found != shown:
                print(f"{datetime.now().astimezone():%H:%M:%S}", "\n".join(changes(shown, found)), flush=True)
            shown = found
            time.sleep(1 / reads_a_second)
    except KeyboardInterrupt:
        print(f"read {reads:,} times", flush=True)


if __name__ == "__main__":
    main(*map(float, sys.argv[1:2]))
