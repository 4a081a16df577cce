"""Statements that make a slice of the live table equal to the shadow."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from sqlglot import exp

from dagster_safe_backfill.model.slices import PartitionSlice
from dagster_safe_backfill.model.tables import TableRef
from dagster_safe_backfill.sql import terms
from dagster_safe_backfill.sql.slicing import PARTITION, PartitionColumns, positioned, rows_of
from dagster_safe_backfill.sql.staging import created_as

_LIVE, _SHADOW, _IS_NEW = "_sb_live", "_sb_shadow", "_sb_is_new"


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """What a publication does, in SQL's terms.

    Attributes:
        scope: Holds for the live rows of the slice; columns are bare.
        columns: All data columns of the shadow.
        key: The unique key; empty if there is none.
        stamp: The column that takes the publication's time, and that time; None if there is none,
            or if the shadow brings its values.
        unread: A column that doesn't count as a change by itself; the `updated_at` that the shadow brings.
    """

    live: TableRef
    shadow: TableRef
    scope: exp.Expr
    columns: tuple[str, ...]
    key: tuple[str, ...]
    stamp: tuple[str, exp.Expr] | None = None
    unread: str | None = None

    @property
    def compared(self) -> tuple[str, ...]:
        """The columns whose difference makes a row a changed one."""
        return tuple(name for name in self.columns if name not in (*self.key, self.unread))

    @property
    def written(self) -> dict[str, exp.Expr]:
        """What an inserted row consists of, by live column."""
        values: dict[str, exp.Expr] = {name: terms.column(name, of=_SHADOW) for name in self.columns}
        if self.stamp is not None:
            values[self.stamp[0]] = self.stamp[1].copy()
        return values


def create_live(change: Change) -> exp.Create:
    """Return CREATE TABLE AS of the live table from the whole shadow."""
    return created_as(change.live, _staged(change))


def insert_staged(change: Change) -> exp.Insert:
    """Return INSERT of the whole shadow."""
    return exp.Insert(this=_into(change), expression=_staged(change))


def copied(source: TableRef, target: TableRef, values: Mapping[str, exp.Expr], *, where: exp.Expr) -> exp.Insert:
    """Return INSERT INTO `target` of an expression over `source` for each named column, for the rows that `where`."""
    select = exp.select(*terms.named(values)).from_(terms.table(source)).where(where.copy())
    names = [exp.to_identifier(name, quoted=True) for name in values]
    return exp.Insert(this=exp.Schema(this=terms.table(target), expressions=names), expression=select)


def any_row(table: TableRef, *, where: exp.Expr) -> exp.Select:
    """Return one row if the table has some that `where`."""
    return exp.select(terms.number(1)).from_(terms.table(table)).where(where.copy()).limit(1)


def delete_scope(change: Change) -> exp.Delete:
    """Return DELETE of the slice."""
    return exp.delete(terms.table(change.live), where=change.scope.copy())


def rows_in_scope(change: Change, *, partition_slice: PartitionSlice | None, columns: PartitionColumns) -> exp.Select:
    """Return `(position, rows)` of the live rows in the slice."""
    return _by_partition(_positioned(change, partition_slice=partition_slice, columns=columns))


def rows_by_partition(table: TableRef, partition_slice: PartitionSlice, columns: PartitionColumns) -> exp.Select:
    """Return `(position, rows)` of the rows of any table in the slice."""
    rows = exp.select(exp.Star()).from_(terms.table(table)).where(rows_of(partition_slice, columns))
    return _by_partition(positioned(rows, [], partition_slice=partition_slice, columns=columns))


def count_in_scope(change: Change) -> exp.Select:
    """Return how many live rows the slice has."""
    return _count().from_(terms.table(change.live)).where(change.scope.copy())


def differing(change: Change) -> exp.Select:
    """Return the rows of the shadow that the slice lacks, or has with other values; and which of them are new.

    One comes several times just if the live table holds its key as often.
    """
    live = exp.select(*map(terms.column, change.columns)).from_(terms.table(change.live))
    live = live.where(change.scope.copy())
    is_new = _is_missing(change.key[0], of=_LIVE)
    items = [terms.column(name, of=_SHADOW) for name in (*change.columns, PARTITION)]
    join = exp.Join(this=terms.subquery(live, _LIVE), side="LEFT", on=_is_match(change))
    select = exp.select(*items, *terms.named({_IS_NEW: is_new}))
    select = select.from_(terms.rows(change.shadow, alias=_SHADOW)).join(join)
    return select.where(exp.or_(is_new.copy(), _is_changed(change)))


def differing_by_partition(table: TableRef) -> exp.Select:
    """Return `(position, rows, new rows)` of a table of `differing` rows."""
    position = terms.column(PARTITION)
    select = exp.select(position, exp.Count(this=exp.Star()), terms.count_where(terms.column(_IS_NEW)))
    return select.from_(terms.rows(table)).group_by(position.copy())


def gone_by_partition(
    change: Change, *, partition_slice: PartitionSlice | None, columns: PartitionColumns
) -> exp.Select:
    """Return `(position, rows)` of the live rows in the slice whose key the shadow lacks."""
    gone = _positioned(change, partition_slice=partition_slice, columns=columns)
    return _by_partition(gone).where(_is_gone(change))


def delete_gone(change: Change) -> exp.Delete:
    """Return DELETE of the slice's rows whose key the shadow lacks."""
    return exp.delete(
        terms.table(change.live, alias=_LIVE),
        where=exp.and_(terms.qualified(change.scope, _LIVE), _is_gone(change)),
    )


def merge_changed(change: Change) -> exp.Merge:
    """Return MERGE that updates just the rows that differ, and inserts the new ones."""
    written = change.written
    update = exp.Update(
        expressions=[
            exp.EQ(this=exp.column(name, quoted=True), expression=value.copy())
            for name, value in written.items()
            if name not in change.key
        ]
    )
    insert = exp.Insert(
        this=exp.Tuple(expressions=[exp.column(name, quoted=True) for name in written]),
        expression=exp.Tuple(expressions=[value.copy() for value in written.values()]),
    )
    whens = [exp.When(matched=False, then=insert)]
    if change.compared:
        whens.insert(0, exp.When(matched=True, condition=_is_changed(change), then=update))
    return exp.Merge(
        this=terms.table(change.live, alias=_LIVE),
        using=terms.rows(change.shadow, alias=_SHADOW),
        on=exp.and_(_is_match(change), terms.qualified(change.scope, _LIVE)),
        whens=exp.Whens(expressions=whens),
    )


def _staged(change: Change) -> exp.Select:
    shadow = terms.rows(change.shadow, alias=_SHADOW)
    return exp.select(*terms.named(change.written)).from_(shadow)


def _into(change: Change) -> exp.Schema:
    names = [exp.to_identifier(name, quoted=True) for name in change.written]
    return exp.Schema(this=terms.table(change.live), expressions=names)


def _positioned(change: Change, *, partition_slice: PartitionSlice | None, columns: PartitionColumns) -> exp.Select:
    rows = exp.select(exp.Star()).from_(terms.table(change.live)).where(change.scope.copy())
    items = [terms.column(name) for name in change.key]
    return positioned(rows, items, partition_slice=partition_slice, columns=columns)


def _by_partition(positioned: exp.Select) -> exp.Select:
    position = terms.column(PARTITION, of=_LIVE)
    source = terms.subquery(positioned, _LIVE)
    return exp.select(position, exp.Count(this=exp.Star())).from_(source).group_by(position.copy())


def _count() -> exp.Select:
    return exp.select(exp.Count(this=exp.Star()))


def _is_match(change: Change) -> exp.Expr:
    return terms.same(change.key, left=_LIVE, right=_SHADOW)


def _is_changed(change: Change) -> exp.Expr:
    return terms.differ(change.compared, left=_LIVE, right=_SHADOW)


def _is_missing(name: str, *, of: str) -> exp.Expr:
    return exp.Is(this=terms.column(name, of=of), expression=exp.Null())


def _is_gone(change: Change) -> exp.Expr:
    shadow = exp.select(terms.number(1)).from_(terms.rows(change.shadow, alias=_SHADOW))
    return exp.not_(exp.Exists(this=shadow.where(_is_match(change))))
