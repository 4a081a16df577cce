"""Swap: a clone of the live table takes its place, with the slice replaced in it; the old table is the archive."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta

from sqlglot import exp

from dagster_safe_backfill.errors import SchemaMismatchError, SwapError
from dagster_safe_backfill.model.states import Archive, Staged
from dagster_safe_backfill.model.tables import Column, TableRef
from dagster_safe_backfill.sql import staging, terms
from dagster_safe_backfill.sql.slicing import expression, inside, outside
from dagster_safe_backfill.sql.staging import StagedColumn
from dagster_safe_backfill.wap.changes.prepare import PreparedChange, prepare_change, slice_write
from dagster_safe_backfill.wap.columns import (
    add_columns,
    changed_columns,
    check_unchanged,
    lacking,
    lost_by_cast,
)
from dagster_safe_backfill.warehouses.base import Session


def swapped(
    session: Session, staged: Staged, *, publication_id: str, keep_for: timedelta
) -> tuple[PreparedChange, Archive]:
    """Swap the live table in the caller's transaction; if no row and no column would change, do nothing.

    Raises:
        SwapError: The table can't be swapped.
        SchemaMismatchError: The rows outside the slice don't fit the new columns, or the live table's columns changed
            after the rows were staged.
    """
    table = staged.spec.table
    aside = table.aside(publication_id)
    live = session.tables.columns(table) or ()
    change = changed_columns(live, staged.columns, apart_from=staged.spec.updated_at_column)
    if staged.spec.on_schema_change == "sync" and change.gone:
        prepared = _reshape(session, staged, live, aside=aside)
        keys = staged.keys
    else:
        prepared = None
        if not lacking(session, staged):
            prepared = _prepared(session, staged)
            if not any(counts.touched for counts in prepared.row_counts.values()):
                return prepared, Archive()
        # The prepared change would delete the rows of the slice, so they are not copied into the clone.
        is_rewritten = prepared is not None and prepared.rewrites
        kept = outside(inside(staged.table_slice)) if is_rewritten else exp.true()
        with session.tables.replace(table, aside=aside, kept=kept, may_lose=staged.spec.may_lose) as new:
            # In the clone: on Snowflake, readers of the live table would see the new columns before the swap.
            add_columns(session, staged, clone=new.clone)
            # A change that was prepared for the table also fits its clone, unless columns were added to the clone.
            prepared = prepared or _prepared(session, staged, clone=new.clone)
            prepared.run(session, clone=new.clone)
        keys = tuple(key for key, counts in prepared.row_counts.items() if counts.touched)
    if not keep_for or not keys:
        session.tables.drop(aside)
        return prepared, Archive()
    return prepared, Archive(table=aside, keys=keys, keep_for=keep_for)


def _prepared(session: Session, staged: Staged, *, clone: TableRef | None = None) -> PreparedChange:
    write = slice_write(
        session,
        staged.table_slice,
        shadow=staged.shadow,
        columns=staged.columns,
        clone=clone,
        is_partial=staged.is_partial,
    )
    return prepare_change(session, write, staged.rows, strategy="swap", live_exists=True)


def _reshape(session: Session, staged: Staged, live: Sequence[Column], *, aside: TableRef) -> PreparedChange:
    """Swap in a clone that has the computed columns; refuse it if a cast would change a value outside the slice."""
    spec = staged.spec
    check_unchanged(spec, staged.live_columns or (), live)
    computed = {column.name: column for column in staged.columns}
    kept = [column for column in live if column.name in computed or column.name == spec.updated_at_column]
    moved = [
        StagedColumn(
            name=column.name,
            source=column.name,
            source_type=column.type,
            type=computed.get(column.name, column).type,
        )
        for column in kept
    ]
    others = outside(inside(staged.table_slice))
    _check_values(session, staged, moved, where=others)
    write = slice_write(session, staged.table_slice, shadow=staged.shadow, columns=staged.columns)
    prepared = prepare_change(session, write, staged.rows, strategy="replace", live_exists=True)
    added = staging.with_defaults(spec, staged.added, dialect=session.dialect.name)
    with session.tables.replace(spec.table, aside=aside, may_lose=spec.may_lose) as new:
        session.tables.reshape(
            new.clone,
            dropped=[column.name for column in live if column not in kept],
            retyped=[Column(name=column.name, type=column.type) for column in moved if column.is_cast],
            added=added,
        )
        values = {column.name: column.expression(dialect=session.dialect.name) for column in moved}
        values |= {column.name: value.copy() for column, value in added.items() if value is not None}
        rows = exp.select(*terms.named(values)).from_(terms.table(new.old)).where(others)
        session.tables.copy(rows, into=new.clone, columns=[*values])
        prepared.run(session, clone=new.clone)
    return prepared


def _check_values(session: Session, staged: Staged, columns: Sequence[StagedColumn], *, where: exp.Expr) -> None:
    table = staged.spec.table
    cast = [column for column in columns if column.is_cast]
    if not cast:
        return
    expressions = [expression(column) for column in staged.table_slice.columns.values()]
    key_names = {found.name.casefold() for one in expressions for found in one.find_all(exp.Column)}
    fixed = [column.name for column in cast if column.name.casefold() in key_names]
    if fixed:
        raise SwapError(
            f"{table}: partition_expr reads {', '.join(fixed)}, so a publication of partitions can't change the type of"
            " that column, and nothing was published. Compute the column in the type that the table has.",
            table=str(table),
        )
    select = staging.values_lost_by_cast(terms.table(table), lost_by_cast(session, cast))
    (counts,) = session.query(select.where(where.copy()))
    problems = [
        f"{count} values of {column.name} ({column.source_type}) in other partitions don't fit {column.type} unchanged"
        for column, count in zip(cast, counts, strict=True)
        if count
    ]
    if problems:
        raise SchemaMismatchError(
            f"{table}: {'; '.join(problems)}, so nothing was published", table=str(table), problems=problems
        )
