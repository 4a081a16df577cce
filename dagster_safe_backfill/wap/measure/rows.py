"""The rows that audits are measured on: the rows of a staged batch, or live rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from sqlglot import exp

from dagster_safe_backfill.model.slices import TableSlice
from dagster_safe_backfill.model.states import LiveRows, Staged
from dagster_safe_backfill.model.tables import Column, TableRef
from dagster_safe_backfill.sql import staging, terms
from dagster_safe_backfill.sql.audited_rows import AuditedRows
from dagster_safe_backfill.sql.slicing import identify_partitions, inside, outside
from dagster_safe_backfill.warehouses.base import Session


def staged_rows(
    session: Session,
    staged: Staged,
    sample_columns: Sequence[str] | None = None,
    *,
    looks_outside: bool = True,
) -> AuditedRows:
    """Return the rows under audit of a staged batch.

    If `looks_outside`, audits of repeated values also look at the live rows outside the slice.
    """
    added: dict[str, exp.Expr] = {}
    if staged.added:
        live = session.tables.columns(staged.spec.table) or ()
        # Another publication may have added some of these columns after the rows were staged.
        lacking = [column for column in staged.added if column not in live]
        for column, value in staging.with_defaults(staged.spec, lacking, dialect=session.dialect.name).items():
            added[column.name] = terms.typed(value or exp.Null(), column.type, dialect=session.dialect.name)
    return _audited_rows(
        session,
        staged.table_slice,
        staged.shadow,
        columns=staged.columns,
        counts=staged.rows,
        added=added,
        moves_keys=staged.spec.on_moved_key == "move" and bool(staged.spec.unique_key),
        has_live=staged.live_columns is not None,
        looks_outside=looks_outside and staged.live_columns is not None,
        sample_columns=sample_columns,
    )


def live_rows(session: Session, live: LiveRows, sample_columns: Sequence[str] | None = None) -> AuditedRows:
    """Return the rows under audit of live partitions."""
    return _audited_rows(
        session,
        live.table_slice,
        live.view,
        columns=live.columns,
        counts=live.rows,
        added={},
        moves_keys=False,
        has_live=True,
        looks_outside=True,
        sample_columns=sample_columns,
    )


def _audited_rows(
    session: Session,
    table_slice: TableSlice,
    rows: TableRef,
    *,
    columns: Sequence[Column],
    counts: Mapping[str, int],
    added: Mapping[str, exp.Expr],
    moves_keys: bool,
    has_live: bool,
    looks_outside: bool,
    sample_columns: Sequence[str] | None,
) -> AuditedRows:
    is_inside = inside(table_slice)
    is_whole = table_slice.partition_slice is None
    instants: list[str] = []
    for column in columns:
        if session.dialect.keeps(column.type) == "timestamptz":
            instants.append(column.name)
    return AuditedRows(
        rows=rows,
        table_slice=table_slice,
        inside=is_inside if is_whole else exp.paren(is_inside),
        outside=outside(is_inside) if looks_outside and not is_whole else None,
        has_live=has_live,
        columns=tuple(columns),
        counts=counts,
        added=added,
        moves_keys=moves_keys and not identify_partitions(table_slice.spec.unique_key, table_slice),
        instants=tuple(instants),
        dialect=session.dialect,
        sample_columns=None if sample_columns is None else tuple(sample_columns),
    )
