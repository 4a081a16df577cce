"""Measuring audits on live rows."""

from __future__ import annotations

from collections.abc import Sequence

from sqlglot import exp

from dagster_safe_backfill.audits.base import Audit
from dagster_safe_backfill.audits.verdicts import AuditResult
from dagster_safe_backfill.errors import TableNotFoundError
from dagster_safe_backfill.model.slices import PartitionSlice
from dagster_safe_backfill.model.states import LiveRows
from dagster_safe_backfill.model.tables import TableSpec, names_of
from dagster_safe_backfill.sql import staging, terms
from dagster_safe_backfill.sql.slicing import inside, positioned
from dagster_safe_backfill.wap.measure.measure import measure
from dagster_safe_backfill.wap.measure.rows import live_rows
from dagster_safe_backfill.wap.tables.slices import check_keys, table_slice
from dagster_safe_backfill.warehouses.base import Session

_VIEW = "_sb_live_rows"


def measure_live(
    session: Session,
    audits: Sequence[Audit],
    *,
    spec: TableSpec,
    partition_slice: PartitionSlice | None,
    sample_columns: Sequence[str] | None = None,
) -> tuple[AuditResult, ...]:
    """Measure audits on the live rows of a slice, or on the whole table if the slice is None.

    A read-only session is enough.

    Raises:
        TableNotFoundError: The table doesn't exist.
        PartitionColumnError: A partition expression names a column that the table doesn't have, or doesn't tell
            the partitions apart.
    """
    columns = session.tables.columns(spec.table)
    if columns is None:
        raise TableNotFoundError(
            f"{spec.table}: the table doesn't exist, so it can't be audited. Materialize its asset first."
        )
    names = names_of(columns)
    rows = exp.select(*terms.columns(names)).from_(terms.table(spec.table))
    recognised = table_slice(session, rows, spec=spec, partition_slice=partition_slice, columns=columns)
    check_keys(session, recognised, rows)
    if partition_slice is not None:
        rows = rows.where(inside(recognised))
    view = session.derive(_VIEW, positioned(rows, terms.columns(names), recognised), kind="view")
    try:
        counted = dict(session.query(staging.rows_by_partition(view)))
        counts = staging.by_key(counted, recognised.keys)
        live = LiveRows(table_slice=recognised, columns=columns, view=view, rows=counts)
        # The audited rows are the live rows, so they aren't counted a second time.
        return measure(session, live_rows(session, live, sample_columns), audits, counts_live=False).results
    finally:
        session.forget(view)
