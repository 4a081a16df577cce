"""An asset of the pool `warehouse` that notes its begin and end and waits to be let go; and one of no pool."""

import os
import time
from pathlib import Path

import dagster as dg

import dagster_safe_backfill as sb

FOLDER = Path(os.environ["DSB_TEST_FOLDER"])
PARTITIONS = dg.StaticPartitionsDefinition(list("abcd"))


def note(mark: str) -> None:
    with (FOLDER / "marks").open("a") as file:  # lines of several processes stay whole, in the order of their writing
        file.write(f"{mark}\n")


@dg.asset(partitions_def=PARTITIONS, backfill_policy=sb.per_partition(), pool="warehouse")
def pooled() -> None:
    """What is limited."""
    note("begin")
    while not (FOLDER / "go").exists():
        time.sleep(0.05)
    note("end")


@dg.asset(partitions_def=PARTITIONS, backfill_policy=sb.per_partition())
def free() -> None:
    """What passes those that wait for the pool."""


defs = dg.Definitions(assets=[pooled, free], executor=dg.in_process_executor)
