"""An I/O manager's outputs: who writes them, and the metadata of their events."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import dagster as dg

from dagster_safe_backfill.model.events import RowCounts
from dagster_safe_backfill.model.options import AssetOptions
from dagster_safe_backfill.model.states import Origin
from dagster_safe_backfill.model.tables import TableSpec
from dagster_safe_backfill.reports.events import changes_metadata, table_metadata


def run_id_of(context: dg.InputContext | dg.OutputContext) -> str | None:
    """Return the id of the run that reads or writes; None outside of runs, for example in `load_asset_value`."""
    try:
        return context.step_context.run_id
    except dg.DagsterInvariantViolationError:
        return None


def origin_of(context: dg.OutputContext, options: AssetOptions) -> Origin:
    """Return who writes an output; an op's output belongs to no asset."""
    run_id = run_id_of(context) or ""
    key = context.asset_key.to_user_string() if context.has_asset_key else None
    return Origin(run_id=run_id, publication_id=run_id, asset_key=key, former_keys=options.table.former_keys)


def write_metadata(context: dg.OutputContext, spec: TableSpec, changes: Mapping[str, RowCounts]) -> dict[str, Any]:
    """Return the metadata of a write: the table and the row counts."""
    total = sum(changes.values(), RowCounts())
    rows = "dagster/partition_row_count" if context.has_partition_key else "dagster/row_count"
    return {**table_metadata(spec.table), rows: total.staged, **changes_metadata(total)}
