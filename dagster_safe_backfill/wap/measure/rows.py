"""The rows that audits are measured on: the rows of a staged batch, or live rows."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace

from sqlglot import exp

from dagster_safe_backfill.audits.base import Audit
from dagster_safe_backfill.audits.rows import References
from dagster_safe_backfill.errors import ConfigurationError, WarehouseError
from dagster_safe_backfill.model.slices import TableSlice
from dagster_safe_backfill.model.states import LiveRows, Staged
from dagster_safe_backfill.model.tables import Column, TableRef
from dagster_safe_backfill.sql import audited_rows, staging, terms
from dagster_safe_backfill.sql.audited_rows import AuditedRows
from dagster_safe_backfill.sql.sameness import collation_of
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


def with_columns(
    session: Session, batch: AuditedRows, audits: Sequence[Audit], *, expressions: Iterable[str]
) -> AuditedRows:
    """Add the types and collations of what the audits compare, besides columns: `expressions`, and other tables."""
    return _with_expressions(session, _with_references(session, batch, audits), expressions)


def _with_references(session: Session, batch: AuditedRows, audits: Sequence[Audit]) -> AuditedRows:
    """Add the columns of the tables that texts of the rows are looked up in: their collations count too."""
    texts = {column.name.casefold() for column in batch.columns if session.dialect.keeps(column.type) == "text"}
    tables: dict[str, Sequence[Column]] = {}
    for audit in audits:
        if isinstance(audit, References) and audit.table not in tables and texts & {*map(str.casefold, audit.columns)}:
            # A name that isn't one is the problem of its audit alone, which will say so.
            with suppress(ConfigurationError):
                table = TableRef.parse(audit.table, default_schema=batch.live.schema)
                tables[audit.table] = session.tables.columns(table) or ()
    return replace(batch, references=tables) if tables else batch


def _with_expressions(session: Session, batch: AuditedRows, expressions: Iterable[str]) -> AuditedRows:
    """Add the types and collations of expressions."""
    found: dict[str, Column] = {}
    known = {column.name.casefold(): column for column in batch.columns}
    for sql in sorted(expressions):
        # An expression that isn't one, or names no column, is the problem of its audit alone, which will say so.
        with suppress(ConfigurationError, WarehouseError):
            expression = terms.parsed(sql, dialect=batch.dialect.name, option="audit")
            (described,) = session.describe(exp.select(expression.copy()).from_(audited_rows.shadow_rows(batch)))
            read = [known.get(one.name.casefold()) for one in expression.find_all(exp.Column)]
            found[sql] = replace(described, collation=collation_of(described, read, expression, batch.dialect))
    return replace(batch, expressions=found) if found else batch
