"""Statements that write a shadow's rows to a slice of the live table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import filterfalse

from sqlglot import exp

from dagster_safe_backfill.model.slices import TableSlice
from dagster_safe_backfill.model.tables import TableRef
from dagster_safe_backfill.sql import terms
from dagster_safe_backfill.sql.sameness import Sameness
from dagster_safe_backfill.sql.slicing import PARTITION, expression, inside, outside, positioned

_LIVE, _SHADOW = "_sb_live", "_sb_shadow"
_VALUE = "_sb_value_"
_IS_NEW, _IS_ALIKE = "_sb_is_new", "_sb_is_alike"


@dataclass(frozen=True, slots=True, kw_only=True)
class SliceWrite:
    """A write of a shadow's rows to a slice of the live table.

    Attributes:
        table_slice: The slice. Its table may have no unique key.
        clone: A table that is written instead of the live table, and replaces it later. None to write the live table.
        inside: A predicate that is true for the live rows of the slice. Its columns have no table name.
        elsewhere: A predicate that is true for the live rows of other partitions, from which rows of the shadow's keys
            move. None if no row moves. `table_slice` has these partitions, too, after those of the shadow.
        moving: The number of the rows that move.
        shadow: The table that holds the rows to write.
        columns: All data columns of the shadow.
        stamp: The column that stores the time of the publication, and that time. None if the asset has no such column
            or computes its values itself.
        unread: The `updated_at_column`, whether or not it is computed. A difference in it alone doesn't make a row a
            changed one.
        is_partial: True if the live table has columns that the shadow doesn't have, so that rows which are updated keep
            their values in them, and inserted rows get the columns' defaults.
        updated: The columns that are compared and set in rows which exist; None for all of `compared`. The stamp and
            `unread` are always set.
        sameness: How the columns are compared.
        compared: The columns in which a difference makes a row a changed one.
        table: The table that is read and written.
        key: The columns of the unique key. Empty if there is none.
    """

    table_slice: TableSlice
    inside: exp.Expr
    shadow: TableRef
    columns: tuple[str, ...]
    elsewhere: exp.Expr | None = None
    moving: int = 0
    stamp: tuple[str, exp.Expr] | None = None
    unread: str | None = None
    clone: TableRef | None = None
    is_partial: bool = False
    updated: tuple[str, ...] | None = None
    sameness: Sameness = field(default_factory=Sameness)
    compared: tuple[str, ...] = field(init=False)
    table: TableRef = field(init=False)
    key: tuple[str, ...] = field(init=False)

    def __post_init__(self) -> None:
        key = self.table_slice.spec.unique_key
        compared = filterfalse({*key, self.unread}.__contains__, self.columns)
        object.__setattr__(self, "key", key)
        object.__setattr__(self, "compared", tuple(compared))
        object.__setattr__(self, "table", self.clone or self.table_slice.table)

    @property
    def matched(self) -> exp.Expr:
        """A predicate that is true for the live rows that are replaced, if they have a key of the shadow."""
        return self.inside.copy() if self.elsewhere is None else exp.paren(exp.or_(self.inside, self.elsewhere))

    @property
    def written(self) -> dict[str, exp.Expr]:
        """A mapping from each live column to the value that an inserted row gets."""
        values: dict[str, exp.Expr] = {name: terms.column(name, of=_SHADOW) for name in self.columns}
        if self.stamp is not None:
            values[self.stamp[0]] = self.stamp[1].copy()
        return values


def staged_rows(write: SliceWrite) -> exp.Select:
    """Return all rows of the shadow, with the columns of the live table."""
    return exp.select(*terms.named(write.written)).from_(terms.rows(write.shadow, alias=_SHADOW))


def insert_staged(write: SliceWrite) -> exp.Insert:
    """Return an INSERT of all rows of the shadow."""
    names = [exp.to_identifier(name, quoted=True) for name in write.written]
    # Columns are named: an INSERT by position would write to wrong columns if the live table has them in another order.
    into = exp.Schema(this=terms.table(write.table), expressions=names)
    return exp.Insert(this=into, expression=staged_rows(write))


def delete_inside(write: SliceWrite) -> exp.Delete:
    """Return a DELETE of the rows of the slice."""
    return exp.delete(terms.table(write.table), where=write.inside.copy())


def delete_moving(write: SliceWrite) -> exp.Delete:
    """Return a DELETE of the rows of other partitions whose keys are in the shadow."""
    assert write.elsewhere is not None
    # Not a part of `delete_inside`: Snowflake may refuse an EXISTS within OR.
    has_key = _is_in(write, write.sameness.all_forms(write.key, of=_LIVE))
    is_moving = exp.and_(terms.qualified(write.elsewhere, _LIVE), has_key)
    return exp.delete(terms.table(write.table, alias=_LIVE), where=is_moving)


def rows_inside(write: SliceWrite) -> exp.Select:
    """Return `(position, number of live rows)` for each partition that has rows."""
    return _by_partition(_positioned(write, _live_rows(write, write.inside.copy())))


def rows_by_partition(table: TableRef, table_slice: TableSlice) -> exp.Select:
    """Return `(position, number of rows)` for each partition of the slice that has rows in `table`."""
    rows = exp.select(exp.Star()).from_(terms.table(table)).where(inside(table_slice))
    return _by_partition(positioned(rows, [], table_slice))


def count_inside(write: SliceWrite) -> exp.Select:
    """Return the number of live rows in the slice."""
    count = exp.select(exp.Count(this=exp.Star()))
    return count.from_(terms.rows(write.table)).where(write.inside.copy())


def differing(write: SliceWrite) -> exp.Select:
    """Return the new and the changed rows of the shadow, with a column that says which are new.

    If columns may have values that differ although the database calls them equal, another column says in which rows.
    A row is returned more than once only if the live table has several rows with its key.
    """
    # These rows are stored once, and are counted and merged from there, so that shadow and slice aren't joined twice.
    live = exp.select(*terms.columns(write.columns)).from_(terms.rows(write.table))
    live = live.where(write.matched)
    # A NULL key equals nothing, so NULL in the live key means that the join found no live row.
    is_new = exp.Is(this=terms.column(write.key[0], of=_LIVE), expression=exp.Null())
    items = terms.columns([*write.columns, PARTITION], of=_SHADOW)
    join = exp.Join(
        this=terms.subquery(live, _LIVE), side="LEFT", on=write.sameness.same(write.key, left=_LIVE, right=_SHADOW)
    )
    marks: dict[str, exp.Expr] = {_IS_NEW: is_new}
    alike = write.sameness.alike(write.compared, left=_LIVE, right=_SHADOW)
    if alike is not None:
        marks[_IS_ALIKE] = exp.and_(exp.not_(is_new.copy()), exp.paren(alike))
    select = exp.select(*items, *terms.named(marks))
    select = select.from_(terms.rows(write.shadow, alias=_SHADOW)).join(join)
    return select.where(exp.or_(is_new.copy(), write.sameness.differ(write.compared, left=_LIVE, right=_SHADOW)))


def changes_by_column(write: SliceWrite) -> exp.Select:
    """Return the number of live rows that each of the columns `compared` differs in from the row of the same key."""
    sameness = write.sameness
    counts = [terms.count_where(sameness.differ([name], left=_LIVE, right=_SHADOW)) for name in write.compared]
    on = sameness.same(write.key, left=_LIVE, right=_SHADOW)
    join = exp.Join(this=terms.rows(write.table, alias=_LIVE), on=on)
    select = exp.select(*counts).from_(terms.rows(write.shadow, alias=_SHADOW)).join(join)
    return select.where(terms.qualified(write.matched, _LIVE))


def differing_by_partition(table: TableRef, write: SliceWrite) -> exp.Select:
    """Return `(position, rows, new rows, alike rows)`, numbers of rows, from a table that holds `differing` rows.

    A row is alike if the database calls values equal that differ. There is no such number if it can't.
    """
    position = terms.column(PARTITION)
    marks = [_IS_NEW, _IS_ALIKE] if _may_be_alike(write) else [_IS_NEW]
    select = exp.select(position, exp.Count(this=exp.Star()))
    select = select.select(*(terms.count_where(terms.column(mark)) for mark in marks))
    return select.from_(terms.rows(table)).group_by(position.copy())


def moved_by_partition(write: SliceWrite) -> exp.Select:
    """Return `(position in the live table, position in the shadow, number of rows)` of the rows that move.

    The shadow is a table that holds `differing` rows. A row moves if its key is live in another partition of the slice.
    """
    rows = terms.subquery(_positioned(write, _live_rows(write, write.matched)), _LIVE)
    was, now = terms.column(PARTITION, of=_LIVE), terms.column(PARTITION, of=_SHADOW)
    is_same = write.sameness.same(write.key, left=_LIVE, right=_SHADOW)
    select = exp.select(was, now, exp.Count(this=exp.Star())).from_(terms.rows(write.shadow, alias=_SHADOW))
    select = select.join(exp.Join(this=rows, on=is_same)).where(exp.NEQ(this=was.copy(), expression=now.copy()))
    return select.group_by(was.copy(), now.copy())


def gone_by_partition(write: SliceWrite) -> exp.Select:
    """Return `(position, number of live rows whose key isn't in the shadow)` for each partition that has such rows."""
    return _by_partition(_positioned(write, _live_rows(write, write.inside.copy()))).where(_is_gone(write))


def _may_be_alike(write: SliceWrite) -> bool:
    return write.sameness.alike(write.compared, left=_LIVE, right=_SHADOW) is not None


def delete_alike(write: SliceWrite) -> exp.Delete:
    """Return a DELETE of the live rows for which the MERGE of `differing` rows, the shadow here, would do nothing.

    DuckDB's UPDATE doesn't write a value that it calls equal to the present one, such as -0.0 over 0.0. After this, the
    MERGE inserts these rows.
    """
    return exp.delete(
        terms.table(write.table, alias=_LIVE),
        where=exp.and_(
            terms.qualified(write.matched, _LIVE),
            _is_in(write, write.sameness.all_forms(write.key, of=_LIVE), where=terms.column(_IS_ALIKE, of=_SHADOW)),
        ),
    )


def delete_gone(write: SliceWrite) -> exp.Delete:
    """Return a DELETE of the slice's rows whose key isn't in the shadow."""
    # Not a part of the MERGE: Snowflake has no NOT MATCHED BY SOURCE.
    # https://docs.snowflake.com/en/sql-reference/sql/merge
    return exp.delete(
        terms.table(write.table, alias=_LIVE),
        where=exp.and_(terms.qualified(write.inside, _LIVE), _is_gone(write)),
    )


def merge_changed(write: SliceWrite) -> exp.Merge:
    """Return a MERGE of `differing` rows, the shadow here: it updates those that are live and inserts the new ones."""
    written = write.written
    compared = write.compared if write.updated is None else write.updated
    unset = {*write.key, *write.compared}.difference(compared)
    update = exp.Update(
        expressions=[
            exp.EQ(this=exp.column(name, quoted=True), expression=value.copy())
            for name, value in written.items()
            if name not in unset
        ]
    )
    insert = exp.Insert(
        this=exp.Tuple(expressions=terms.columns(written)),
        expression=exp.Tuple(expressions=[value.copy() for value in written.values()]),
    )
    whens = [exp.When(matched=False, then=insert)]
    if compared:
        # All rows differ, and to compare them again takes as long as to update them. But one of several MERGEs, each of
        # which sets some columns, leaves the rows alone that don't differ in these.
        condition = write.sameness.differ(compared, left=_LIVE, right=_SHADOW) if write.updated is not None else None
        whens.insert(0, exp.When(matched=True, condition=condition, then=update))
    # The shadow's keys were checked before: for a key that occurs twice, DuckDB 2.0 and Snowflake raise, and DuckDB 1.x
    # updates twice. The limits of the slice are literals in ON, so that Snowflake reads only their micro-partitions.
    return exp.Merge(
        this=terms.table(write.table, alias=_LIVE),
        using=terms.rows(write.shadow, alias=_SHADOW),
        on=exp.and_(write.sameness.same(write.key, left=_LIVE, right=_SHADOW), terms.qualified(write.matched, _LIVE)),
        whens=exp.Whens(expressions=whens),
    )


def taken_elsewhere(
    shadow: TableRef, table_slice: TableSlice, every: TableSlice, sameness: Sameness
) -> tuple[exp.Select, exp.Select]:
    """Return SELECTs of the live rows outside a slice that have a key of its shadow.

    Args:
        shadow: The rows of the slice.
        table_slice: The slice.
        every: All partitions of the asset.
        sameness: How the key is compared.

    Returns:
        `(position in every, position in the slice, number of rows)`, and the keys and partition values of the rows that
        are in none of the partitions.
    """
    key = table_slice.spec.unique_key
    here = exp.select(terms.number(1)).from_(terms.rows(shadow, alias=_SHADOW))
    forms = sameness.all_forms(key, of=_SHADOW)
    # Only the rows that are found are matched with partitions, of which there may be many.
    live = exp.select(exp.Star()).from_(terms.table(table_slice.table, alias=_LIVE))
    live = live.where(terms.qualified(outside(inside(table_slice)), _LIVE))
    live = live.where(sameness.found(here, forms, sameness.all_forms(key, of=_LIVE)))
    values = [expression(column).copy() for column in every.columns.values()]
    names = [f"{_VALUE}{i}" for i in range(len(values))]
    items = [*terms.columns(key), *terms.named(dict(zip(names, values, strict=True)))]
    found = terms.subquery(positioned(live, items, every), _LIVE)
    was, now = terms.column(PARTITION, of=_LIVE), terms.column(PARTITION, of=_SHADOW)
    is_same = sameness.same(key, left=_LIVE, right=_SHADOW)
    counts = exp.select(was, now, exp.Count(this=exp.Star())).from_(terms.rows(shadow, alias=_SHADOW))
    counts = counts.join(exp.Join(this=found, on=is_same)).group_by(was.copy(), now.copy())
    nowhere = exp.select(*terms.columns([*key, *names], of=_LIVE)).from_(found.copy())
    return counts, nowhere.where(exp.Is(this=was.copy(), expression=exp.Null()))


def _live_rows(write: SliceWrite, where: exp.Expr) -> exp.Select:
    return exp.select(exp.Star()).from_(terms.rows(write.table)).where(where)


def _positioned(write: SliceWrite, rows: exp.Select) -> exp.Select:
    return positioned(rows, terms.columns(write.key), write.table_slice)


def _by_partition(rows: exp.Select) -> exp.Select:
    position = terms.column(PARTITION, of=_LIVE)
    source = terms.subquery(rows, _LIVE)
    return exp.select(position, exp.Count(this=exp.Star())).from_(source).group_by(position.copy())


def _is_gone(write: SliceWrite) -> exp.Expr:
    return exp.not_(_is_in(write, write.sameness.all_forms(write.key, of=_LIVE)))


def _is_in(write: SliceWrite, key: Sequence[exp.Expr], where: exp.Expr | None = None) -> exp.Expr:
    select = exp.select(terms.number(1)).from_(terms.rows(write.shadow, alias=_SHADOW))
    select = select if where is None else select.where(where)
    return write.sameness.found(select, write.sameness.all_forms(write.key, of=_SHADOW), key)
