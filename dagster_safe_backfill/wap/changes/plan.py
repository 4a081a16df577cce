"""changes: the statements that make a slice of live equal to given rows, and what each partition gets by them."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timezone

from sqlglot import exp

from dagster_safe_backfill.errors import SchemaMismatchError, TransactionConflictError
from dagster_safe_backfill.model.options import Strategy
from dagster_safe_backfill.model.states import Changes, Staged
from dagster_safe_backfill.model.tables import Column, TableRef
from dagster_safe_backfill.sql import publishing, terms
from dagster_safe_backfill.sql.publishing import Change
from dagster_safe_backfill.sql.slicing import PartitionColumns, rows_of
from dagster_safe_backfill.wap.recognition import columns_of
from dagster_safe_backfill.warehouses.base import Connection

_DIFFERING = "_sb_differing"


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What would be done.

    Attributes:
        changes: What it does, by partition key.
        statements: What to run, in order, in the transaction in which it was planned.
        rewrites: Whether they delete the whole slice, and insert it anew.
        scratch: Derived rows that they read.
        deletes: How many rows their DELETE finds, if nobody changes any in between.
    """

    changes: Mapping[str, Changes]
    statements: Sequence[exp.Expr]
    rewrites: bool = False
    scratch: TableRef | None = None
    deletes: int | None = None

    def run(self, connection: Connection) -> None:
        """Run the statements, and leave nothing behind in the session.

        Raises:
            TransactionConflictError: Another session changed rows since they were planned.
        """
        for statement in self.statements:
            found = connection.run(statement)
            if isinstance(statement, exp.Delete) and self.deletes is not None and found[0][0] != self.deletes:
                raise TransactionConflictError(
                    f"another session changed rows: {self.deletes} were to be deleted, and {found[0][0]} were"
                )
        self.close(connection)

    def close(self, connection: Connection) -> None:
        """Leave nothing behind in the session; to be called where the statements aren't run."""
        if self.scratch is not None:
            connection.forget(self.scratch)


def apply(connection: Connection, staged: Staged, *, strategy: Strategy) -> Mapping[str, Changes]:
    """Make the slice equal to the shadow, in the caller's transaction, and return what that changed by partition."""
    add_columns(connection, staged)
    plan = planned(connection, staged, strategy=strategy, live_exists=staged.live_exists)
    plan.run(connection)
    return plan.changes


def add_columns(connection: Connection, staged: Staged) -> None:
    """Add the columns that the shadow brings and live still lacks.

    Raises:
        SchemaMismatchError: Live isn't what the rows were staged for, for instance altered by hand since.
    """
    missing = lacking(connection, staged)
    if missing:
        connection.add_columns(staged.spec.table, with_defaults(staged, missing, dialect=connection.dialect))


def lacking(connection: Connection, staged: Staged) -> set[Column]:
    """Return the columns that the shadow brings and live still lacks; none, if there is no live table.

    Raises:
        SchemaMismatchError: Live isn't what the rows were staged for.
    """
    live = connection.columns(staged.spec.table)
    if live is None:
        return set()
    missing = {column for column in staged.added if column not in live}
    _check_live(staged, {*live, *missing})
    return missing


def with_defaults(staged: Staged, columns: Collection[Column], *, dialect: str) -> dict[Column, exp.Expr | None]:
    """Return columns that live gets, in the shadow's order, with what its rows have in them."""
    spec = staged.spec
    defaults = {
        name.casefold(): terms.parsed(sql, dialect=dialect, option=f"{spec.table}: column_defaults")
        for name, sql in spec.column_defaults.items()
    }
    return {column: defaults.get(column.name.casefold()) for column in staged.columns if column in columns}


def planned(connection: Connection, staged: Staged, *, strategy: Strategy, live_exists: bool) -> Plan:
    """Return what makes the slice equal to the shadow.

    `merge` touches just the rows that differ by the unique key, unless that is most of them or the live slice
    holds a key twice; then the slice is deleted and inserted whole, which comes to the same rows.
    """
    change = _change(connection, staged)
    if not live_exists:
        return Plan(changes=_all_inserted(staged, deleted={}), statements=[publishing.create_live(change)])
    columns = columns_of(connection, staged)
    if strategy == "merge" or (strategy == "swap" and change.key):
        return _merge(connection, staged, change, columns)
    return _replace(connection, staged, change, columns)


def _change(connection: Connection, staged: Staged) -> Change:
    """Return the change that publishing a staged batch makes, in SQL's terms."""
    spec = staged.spec
    columns = tuple(column.name for column in staged.columns)
    scope: exp.Expr = exp.true()
    if staged.partition_slice is not None:
        scope = exp.paren(rows_of(staged.partition_slice, columns_of(connection, staged)))
    stamp = spec.updated_at_column
    return Change(
        live=spec.table,
        shadow=staged.shadow,
        scope=scope,
        columns=columns,
        key=spec.unique_key,
        stamp=(stamp, _now(connection, staged, stamp)) if stamp and stamp not in columns else None,
        unread=stamp,
    )


def _now(connection: Connection, staged: Staged, stamp: str) -> exp.Expr:
    """Return the time as a literal of the stamp column's type; wall-clock columns take UTC."""
    columns = connection.columns(staged.spec.table) or ()
    types = {column.name.casefold(): column.type for column in columns}
    now = datetime.now(timezone.utc)
    type_name = types.get(stamp.casefold())
    if type_name is None:
        return exp.cast(terms.text(now.isoformat(sep=" ")), exp.DataType.Type.TIMESTAMPTZ)
    if connection.keeps(type_name) != "timestamptz":
        now = now.replace(tzinfo=None)
    return terms.typed(terms.text(now.isoformat(sep=" ")), type_name, dialect=connection.dialect)


def _check_live(staged: Staged, live: set[Column]) -> None:
    stamp = staged.spec.updated_at_column
    here = {column for column in live if column.name != stamp}
    expected = {column for column in staged.columns if column.name != stamp}
    if here != expected:
        problems = sorted(f"{column.name} {column.type}" for column in here ^ expected)
        raise SchemaMismatchError(
            f"{staged.spec.table} changed since its rows were staged ({'; '.join(problems)}); run again",
            table=str(staged.spec.table),
            problems=problems,
        )


def _merge(connection: Connection, staged: Staged, change: Change, columns: PartitionColumns) -> Plan:
    # The rows that differ are put aside once: they are counted, and, being few, quickly merged.
    scratch = connection.derived(_DIFFERING, publishing.differing(change))
    plan = _merge_of(connection, staged, change, columns, scratch)
    if plan.scratch is None:
        connection.forget(scratch)
    return plan


def _merge_of(
    connection: Connection, staged: Staged, change: Change, columns: PartitionColumns, scratch: TableRef
) -> Plan:
    found = {row[0]: row[1:] for row in connection.run(publishing.differing_by_partition(scratch))}
    differing, fresh = (sum(counts[i] for counts in found.values()) for i in (0, 1))
    ((live,),) = connection.run(publishing.count_in_scope(change))
    matched = sum(staged.rows.values()) - fresh
    gone: dict[int, int] = {}
    if live > matched:
        gone = dict(
            connection.run(
                publishing.gone_by_partition(change, partition_slice=staged.partition_slice, columns=columns)
            )
        )
    if live - sum(gone.values()) > matched:
        # The live slice holds a key twice.
        return _replace(connection, staged, change, columns)
    changes = {
        key: _merged_changes(staged.rows.get(key, 0), found.get(i, (0, 0)), gone.get(i, 0))
        for i, key in enumerate(staged.keys)
    }
    replaced = differing - fresh + sum(gone.values())
    # A row's stamp only survives in place.
    if change.stamp is None and change.unread is None and fresh + replaced and 2 * replaced >= live:
        return _rewrite(change, changes, deletes=live)
    statements = _in_place(change, scratch, is_merged=bool(differing), is_gone=bool(gone))
    scratch_read = scratch if differing else None
    return Plan(changes=changes, statements=statements, scratch=scratch_read, deletes=sum(gone.values()))


def _merged_changes(staged: int, differing: tuple[int, ...], gone: int) -> Changes:
    rows, inserted = differing
    return Changes(staged=staged, inserted=inserted, updated=rows - inserted, deleted=gone, unchanged=staged - rows)


def _rewrite(change: Change, changes: Mapping[str, Changes], *, deletes: int) -> Plan:
    statements = [publishing.delete_scope(change), publishing.insert_staged(change)]
    return Plan(changes=changes, statements=statements, rewrites=True, deletes=deletes)


def _in_place(change: Change, scratch: TableRef, *, is_merged: bool, is_gone: bool) -> Sequence[exp.Expr]:
    statements: list[exp.Expr] = []
    if is_gone:
        statements.append(publishing.delete_gone(change))
    if is_merged:
        statements.append(publishing.merge_changed(replace(change, shadow=scratch)))
    return statements


def _replace(connection: Connection, staged: Staged, change: Change, columns: PartitionColumns) -> Plan:
    found = connection.run(publishing.rows_in_scope(change, partition_slice=staged.partition_slice, columns=columns))
    live: dict[int, int] = dict(found)
    return _rewrite(change, _all_inserted(staged, deleted=live), deletes=sum(live.values()))


def _all_inserted(staged: Staged, *, deleted: Mapping[int, int]) -> dict[str, Changes]:
    return {
        key: Changes(
            staged=staged.rows.get(key, 0),
            inserted=staged.rows.get(key, 0),
            deleted=deleted.get(i, 0),
        )
        for i, key in enumerate(staged.keys)
    }
