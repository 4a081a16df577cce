"""The main job: a safe backfill of a month of real flights, and what it did as a table."""

from __future__ import annotations

import logging
import os
import sys
import time
import warnings
from collections.abc import Sequence

import dagster as dg
from rich import box
from rich.console import Console
from rich.table import Table

from example_project.definitions import (
    DAYS,
    airlines,
    airports,
    daily_delays,
    defs,
    flights,
    planes,
)
from example_project.warehouse import DATA, place

HOME = DATA / "dagster_home"
MONTH = DAYS.get_partition_keys()[:31]
_CONFIG = "telemetry: {enabled: false}\nnux: {enabled: false}\n"


def main() -> None:
    """Backfill January 2013, print what was staged, audited and published, and how to open it in the UI."""
    warnings.simplefilter("ignore", dg.BetaWarning)
    logging.disable(logging.INFO)
    console = Console()
    HOME.mkdir(parents=True, exist_ok=True)
    (HOME / "dagster.yaml").write_text(_CONFIG)
    os.environ["DAGSTER_HOME"] = str(HOME)
    started = time.monotonic()
    with dg.DagsterInstance.get() as instance:
        _materialize([airlines, airports, planes], instance)
        result = _materialize([flights, daily_delays], instance, keys=MONTH)
    console.print(_published(result))
    console.print(_audited(result))
    console.print(
        f"{len(MONTH)} days in {time.monotonic() - started:.1f} s; the warehouse is {place()}", soft_wrap=True
    )
    console.print("Open it in the UI at http://localhost:3000 with:")
    console.print(f"  DAGSTER_HOME={HOME} {sys.prefix}/bin/dagster dev", soft_wrap=True, highlight=False)


def _materialize(
    assets: Sequence[dg.AssetsDefinition], instance: dg.DagsterInstance, *, keys: Sequence[str] = ()
) -> dg.ExecuteInProcessResult:
    tags: dict[str, str] = {}
    if keys:
        tags = {"dagster/asset_partition_range_start": keys[0], "dagster/asset_partition_range_end": keys[-1]}
    return dg.materialize(list(assets), instance=instance, resources=defs.resources, tags=tags)


def _published(result: dg.ExecuteInProcessResult) -> Table:
    numbers = ("staged", "inserted", "updated", "deleted", "unchanged")
    table = _table("table", "days", *numbers, title="Rows published")
    for asset in (flights, daily_delays):
        found = result.asset_materializations_for_node(asset.op.name)
        sums = [sum(int(str(event.metadata[f"rows_{name}"].value)) for event in found) for name in numbers]
        table.add_row(f"nyc.{asset.op.name}", str(len(found)), *(f"{total:,}" for total in sums))
    return table


def _table(*names: str, title: str) -> Table:
    table = Table(title=title, box=box.SIMPLE_HEAD)
    for name in names:
        table.add_column(name, no_wrap=True)
    return table


def _failed_rows(check: dg.AssetCheckEvaluation) -> str:
    return f"{int(str(check.metadata['failed_rows'].value)):,}" if "failed_rows" in check.metadata else "no"


def _audited(result: dg.ExecuteInProcessResult) -> Table:
    table = _table("asset", "audit", "verdict", title="Audited before publishing")
    for check in result.get_asset_check_evaluations():
        verdict = "[green]passed" if check.passed else f"[yellow]a warning: {_failed_rows(check)} rows failed"
        table.add_row(check.asset_key.path[-1], check.check_name, verdict)
    return table
