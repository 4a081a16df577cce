"""swap: a clone of the live table takes its place, with the slice replaced in it; the old table is the archive."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import timedelta

from sqlglot import exp

from dagster_safe_backfill.errors import SchemaMismatchError, SwapError
from dagster_safe_backfill.model.states import Staged
from dagster_safe_backfill.model.tables import Column, TableRef
from dagster_safe_backfill.sql import publishing, staging, terms
from dagster_safe_backfill.sql.slicing import rows_of
from dagster_safe_backfill.sql.staging import StagedColumn
from dagster_safe_backfill.wap.changes.archive import Archive, expiry
from dagster_safe_backfill.wap.changes.plan import Plan, add_columns, lacking, planned, with_defaults
from dagster_safe_backfill.wap.columns import lost_by_cast
from dagster_safe_backfill.wap.recognition import columns_of
from dagster_safe_backfill.warehouses.base import Connection


def swapped(
    connection: Connection, staged: Staged, *, publication_id: str, keep_for: timedelta
) -> tuple[Plan, Archive]:
    """Swap the live table in the caller's transaction; if no row and no column would change, do nothing.

    Raises:
        SwapError: The table can't be swapped.
        SchemaMismatchError: The rows outside the slice don't fit the new columns, or live changed since staging.
    """
    table = staged.spec.table
    aside = table.archive(publication_id)
    live = connection.columns(table) or ()
    if is_reshaped(live, staged):
        plan = _reshape(connection, staged, live, aside=aside)
        keys = staged.keys
    else:
        plan = None
        if not lacking(connection, staged):
            plan = planned(connection, staged, strategy="swap", live_exists=True)
            if not any(changes.touched for changes in plan.changes.values()):
                return plan, Archive()
        # Rows that would be deleted next aren't copied.
        kept = _outside(connection, staged) if plan is not None and plan.rewrites else exp.true()
        with connection.cloned(table, aside=aside, kept=kept):
            add_columns(connection, staged)
            # What was planned for the table holds for its clone, unless that has more columns.
            plan = plan or planned(connection, staged, strategy="swap", live_exists=True)
            # What would be deleted may not have been copied.
            replace(plan, deletes=None).run(connection)
        keys = tuple(key for key, changes in plan.changes.items() if changes.touched)
    return plan, _kept(connection, aside, keys, keep_for=keep_for)


def is_reshaped(live: Sequence[Column], staged: Staged) -> bool:
    """Return whether columns of live go, or change their type."""
    computed = {column.name: column for column in staged.columns}
    others = [column for column in live if column.name != staged.spec.updated_at_column]
    return staged.spec.on_schema_change == "sync" and any(computed.get(column.name) != column for column in others)


def _kept(connection: Connection, aside: TableRef, keys: tuple[str, ...], *, keep_for: timedelta) -> Archive:
    if not keep_for or not keys:
        connection.run(staging.dropped(aside))
        return Archive()
    return Archive(table=aside, keys=keys, expires_at=expiry(keep_for))


def _reshape(connection: Connection, staged: Staged, live: Sequence[Column], *, aside: TableRef) -> Plan:
    """Swap in a clone with the computed columns; the rows outside the slice are cast, which may change no value."""
    spec = staged.spec
    if {*live} != {*(staged.live_columns or ())}:
        raise SchemaMismatchError(
            f"{spec.table} changed since its rows were staged; run again", table=str(spec.table), problems=[]
        )
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
    outside = _outside(connection, staged)
    _check_values(connection, staged, moved, outside=outside)
    plan = replace(planned(connection, staged, strategy="replace", live_exists=True), deletes=None)
    with connection.cloned(spec.table, aside=aside):
        connection.reshape(
            spec.table,
            dropped=[column.name for column in live if column not in kept],
            retyped=[Column(name=column.name, type=column.type) for column in moved if column.is_cast],
            added=with_defaults(staged, set(staged.added), dialect=connection.dialect),
        )
        values = {column.name: column.expression(dialect=connection.dialect) for column in moved}
        values |= {
            column.name: value.copy()
            for column, value in with_defaults(staged, set(staged.added), dialect=connection.dialect).items()
            if value is not None
        }
        _copy(connection, aside, spec.table, values, where=outside)
        plan.run(connection)
    return plan


def _outside(connection: Connection, staged: Staged) -> exp.Expr:
    """Return the condition of the rows outside the slice; one without a partition value is outside too."""
    inside = rows_of(staged.partitions, columns_of(connection, staged))
    return exp.not_(exp.Coalesce(this=exp.paren(inside), expressions=[exp.false()]))


def _check_values(
    connection: Connection, staged: Staged, columns: Sequence[StagedColumn], *, outside: exp.Expr
) -> None:
    table = staged.spec.table
    cast = [column for column in columns if column.is_cast]
    if not cast:
        return
    key_names = {name.casefold() for name in _partition_names(connection, staged)}
    fixed = [column.name for column in cast if column.name.casefold() in key_names]
    if fixed:
        raise SwapError(
            f"{table}: the type of {', '.join(fixed)} tells the partitions, and can't change with them",
            table=str(table),
        )
    select = staging.values_lost_by_cast(terms.table(table), lost_by_cast(connection, cast))
    (counts,) = connection.run(select.where(outside.copy()))
    problems = [
        f"{count} values of {column.name} ({column.source_type}) in other partitions don't fit {column.type} unchanged"
        for column, count in zip(cast, counts, strict=True)
        if count
    ]
    if problems:
        raise SchemaMismatchError(f"{table}: {'; '.join(problems)}", table=str(table), problems=problems)


def _partition_names(connection: Connection, staged: Staged) -> list[str]:
    expressions = [column.expression for column in columns_of(connection, staged).values()]
    return [column.name for expression in expressions for column in expression.find_all(exp.Column)]


def _copy(
    connection: Connection, source: TableRef, target: TableRef, values: Mapping[str, exp.Expr], *, where: exp.Expr
) -> None:
    """Copy rows, if there are any.

    After an INSERT of no rows and one of many in the same transaction, DuckDB 2.0.0 finds no rows in the table until
    the file is opened anew.
    """
    if connection.run(publishing.any_row(source, where=where)):
        connection.run(publishing.copied(source, target, values, where=where))
