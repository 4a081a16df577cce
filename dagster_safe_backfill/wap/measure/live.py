"""live: audits on what is published."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from sqlglot import exp

from dagster_safe_backfill.audits.base import Audit
from dagster_safe_backfill.audits.verdicts import AuditResult
from dagster_safe_backfill.errors import TableNotFoundError
from dagster_safe_backfill.model.slices import PartitionSlice
from dagster_safe_backfill.model.states import Staged
from dagster_safe_backfill.model.tables import TableSpec
from dagster_safe_backfill.sql import staging, terms
from dagster_safe_backfill.sql.slicing import positioned, rows_of
from dagster_safe_backfill.wap.audit import subject_of
from dagster_safe_backfill.wap.measure.measure import measure
from dagster_safe_backfill.wap.recognition import check_keys, partition_columns, partition_types
from dagster_safe_backfill.warehouses.base import Connection

_VIEW = "_sb_live_rows"


def measure_live(
    connection: Connection,
    audits: Sequence[Audit],
    *,
    spec: TableSpec,
    partition_slice: PartitionSlice | None,
    sample_columns: Sequence[str] | None = None,
) -> tuple[AuditResult, ...]:
    """Measure audits on the live rows of a slice, of all if None; changes nothing, a read-only session is enough.

    Raises:
        TableNotFoundError: There is no such table.
        PartitionColumnError: The partition column is missing or can't tell the partitions.
    """
    found = connection.columns(spec.table)
    if found is None:
        raise TableNotFoundError(f"there is no table {spec.table} to audit; materialize the asset that it belongs to")
    names = [column.name for column in found]
    rows = exp.select(*map(terms.column, names)).from_(terms.table(spec.table))
    types: dict[str | None, str] = {}
    if partition_slice is not None:
        types = partition_types(connection, rows, spec=spec, partition_slice=partition_slice)
    columns = partition_columns(connection, spec=spec, partition_slice=partition_slice, types=types)
    if partition_slice is not None:
        check_keys(connection, partition_slice=partition_slice, columns=columns)
    if partition_slice is not None:
        rows = rows.where(rows_of(partition_slice, columns))
    items = [terms.column(name) for name in names]
    positioned_rows = positioned(rows, items, partition_slice=partition_slice, columns=columns)
    view = connection.derived(_VIEW, positioned_rows, kind="VIEW")
    staged = Staged(
        spec=spec,
        partition_slice=partition_slice,
        shadow=view,
        columns=found,
        partition_types=types,
        rows={},
        dropped=0,
        live_columns=found,
    )
    staged = replace(staged, rows=staging.by_key(connection.run(staging.rows_by_partition(view)), staged.keys))
    try:
        return measure(connection, subject_of(connection, staged, sample_columns), audits, counts_live=False).results
    finally:
        connection.forget(view)
