"""A table, and two that read it by automation: one that waits for backfills, and one that doesn't."""

import os
import time
from pathlib import Path

import dagster as dg

import dagster_safe_backfill as sb

FOLDER = Path(os.environ["DSB_TEST_FOLDER"])
KEYS = ("a", "b")


@dg.asset(partitions_def=dg.StaticPartitionsDefinition(KEYS), backfill_policy=sb.per_partition())
def table(context: dg.AssetExecutionContext) -> None:
    """Partitions that each wait to be let go."""
    while not (FOLDER / f"go_{context.partition_key}").exists():
        time.sleep(0.1)


@dg.asset(deps=[table], automation_condition=dg.AutomationCondition.any_deps_updated())
def hasty() -> None:
    """The control: asked for at each change."""


@dg.asset(deps=[table], automation_condition=sb.pause_during_backfill(dg.AutomationCondition.any_deps_updated()))
def patient() -> None:
    """What is tested."""


defs = dg.Definitions(
    assets=[table, hasty, patient],
    sensors=[
        dg.AutomationConditionSensorDefinition(
            "automation",
            target=dg.AssetSelection.all(),
            default_status=dg.DefaultSensorStatus.RUNNING,
            minimum_interval_seconds=1,
        )
    ],
    executor=dg.in_process_executor,
)
