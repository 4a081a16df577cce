"""Statements that make a slice of the live table equal to the shadow."""

from __future__ import annotations

from dataclasses import dataclass, field

from sqlglot import exp

from dagster_safe_backfill.model.slices import TableSlice
from dagster_safe_backfill.model.tables import TableRef
from dagster_safe_backfill.sql import terms
from dagster_safe_backfill.sql.slicing import PARTITION, inside, positioned

_LIVE, _SHADOW, _IS_NEW = "_sb_live", "_sb_shadow", "_sb_is_new"


@dataclass(frozen=True, slots=True, kw_only=True)
class SliceWrite:
    """What is written to a slice of the live table, in SQL's terms.

    Attributes:
        table_slice: The slice, whose key may be empty.
        clone: The table that is written in place of live, and then takes its place; None for live itself.
        inside: Holds for the live rows of the slice; columns are bare.
        shadow: The rows that the slice is to have.
        columns: All data columns of the shadow.
        stamp: The column that takes the publication's time, and that time; None if there is none,
            or if the shadow brings its values.
        unread: A column that doesn't count as a change by itself; the `updated_at` that the shadow brings.
        compared: The columns whose difference makes a row a changed one.
    """

    table_slice: TableSlice
    inside: exp.Expr
    shadow: TableRef
    columns: tuple[str, ...]
    stamp: tuple[str, exp.Expr] | None = None
    unread: str | None = None
    clone: TableRef | None = None
    compared: tuple[str, ...] = field(init=False)

    def __post_init__(self) -> None:
        apart = {*self.key, self.unread}
        object.__setattr__(self, "compared", tuple([name for name in self.columns if name not in apart]))

    @property
    def table(self) -> TableRef:
        """The table that is read and written."""
        return self.clone or self.table_slice.table

    @property
    def key(self) -> tuple[str, ...]:
        """The unique key; empty if there is none."""
        return self.table_slice.spec.unique_key

    @property
    def written(self) -> dict[str, exp.Expr]:
        """What an inserted row consists of, by live column."""
        values: dict[str, exp.Expr] = {name: terms.column(name, of=_SHADOW) for name in self.columns}
        if self.stamp is not None:
            values[self.stamp[0]] = self.stamp[1].copy()
        return values


def staged_rows(write: SliceWrite) -> exp.Select:
    """Return the whole shadow, with live's columns."""
    return exp.select(*terms.named(write.written)).from_(terms.rows(write.shadow, alias=_SHADOW))


def insert_staged(write: SliceWrite) -> exp.Insert:
    """Return INSERT of the whole shadow."""
    names = [exp.to_identifier(name, quoted=True) for name in write.written]
    into = exp.Schema(this=terms.table(write.table), expressions=names)
    return exp.Insert(this=into, expression=staged_rows(write))


def delete_inside(write: SliceWrite) -> exp.Delete:
    """Return DELETE of the slice."""
    return exp.delete(terms.table(write.table), where=write.inside.copy())


def rows_inside(write: SliceWrite) -> exp.Select:
    """Return `(position, rows)` of the live rows in the slice."""
    return _by_partition(_positioned(write))


def rows_by_partition(table: TableRef, table_slice: TableSlice) -> exp.Select:
    """Return `(position, rows)` of the rows of any table in the slice."""
    rows = exp.select(exp.Star()).from_(terms.table(table)).where(inside(table_slice))
    return _by_partition(positioned(rows, [], table_slice))


def count_inside(write: SliceWrite) -> exp.Select:
    """Return how many live rows the slice has."""
    count = exp.select(exp.Count(this=exp.Star()))
    return count.from_(terms.table(write.table)).where(write.inside.copy())


def differing(write: SliceWrite) -> exp.Select:
    """Return the rows of the shadow that the slice lacks, or has with other values; and which of them are new.

    One comes several times just if the live table holds its key as often.
    """
    live = exp.select(*terms.columns(write.columns)).from_(terms.table(write.table))
    live = live.where(write.inside.copy())
    is_new = exp.Is(this=terms.column(write.key[0], of=_LIVE), expression=exp.Null())
    items = terms.columns([*write.columns, PARTITION], of=_SHADOW)
    join = exp.Join(this=terms.subquery(live, _LIVE), side="LEFT", on=_is_match(write))
    select = exp.select(*items, *terms.named({_IS_NEW: is_new}))
    select = select.from_(terms.rows(write.shadow, alias=_SHADOW)).join(join)
    return select.where(exp.or_(is_new.copy(), terms.differ(write.compared, left=_LIVE, right=_SHADOW)))


def differing_by_partition(table: TableRef) -> exp.Select:
    """Return `(position, rows, new rows)` of a table of `differing` rows."""
    position = terms.column(PARTITION)
    select = exp.select(position, exp.Count(this=exp.Star()), terms.count_where(terms.column(_IS_NEW)))
    return select.from_(terms.rows(table)).group_by(position.copy())


def gone_by_partition(write: SliceWrite) -> exp.Select:
    """Return `(position, rows)` of the live rows in the slice whose key the shadow lacks."""
    return _by_partition(_positioned(write)).where(_is_gone(write))


def delete_gone(write: SliceWrite) -> exp.Delete:
    """Return DELETE of the slice's rows whose key the shadow lacks."""
    return exp.delete(
        terms.table(write.table, alias=_LIVE),
        where=exp.and_(terms.qualified(write.inside, _LIVE), _is_gone(write)),
    )


def merge_changed(write: SliceWrite) -> exp.Merge:
    """Return MERGE that updates just the rows that differ, and inserts the new ones."""
    written = write.written
    update = exp.Update(
        expressions=[
            exp.EQ(this=exp.column(name, quoted=True), expression=value.copy())
            for name, value in written.items()
            if name not in write.key
        ]
    )
    insert = exp.Insert(
        this=exp.Tuple(expressions=terms.columns(written)),
        expression=exp.Tuple(expressions=[value.copy() for value in written.values()]),
    )
    whens = [exp.When(matched=False, then=insert)]
    if write.compared:
        is_changed = terms.differ(write.compared, left=_LIVE, right=_SHADOW)
        whens.insert(0, exp.When(matched=True, condition=is_changed, then=update))
    return exp.Merge(
        this=terms.table(write.table, alias=_LIVE),
        using=terms.rows(write.shadow, alias=_SHADOW),
        on=exp.and_(_is_match(write), terms.qualified(write.inside, _LIVE)),
        whens=exp.Whens(expressions=whens),
    )


def _positioned(write: SliceWrite) -> exp.Select:
    rows = exp.select(exp.Star()).from_(terms.table(write.table)).where(write.inside.copy())
    return positioned(rows, terms.columns(write.key), write.table_slice)


def _by_partition(rows: exp.Select) -> exp.Select:
    position = terms.column(PARTITION, of=_LIVE)
    source = terms.subquery(rows, _LIVE)
    return exp.select(position, exp.Count(this=exp.Star())).from_(source).group_by(position.copy())


def _is_match(write: SliceWrite) -> exp.Expr:
    return terms.same(write.key, left=_LIVE, right=_SHADOW)


def _is_gone(write: SliceWrite) -> exp.Expr:
    shadow = exp.select(terms.number(1)).from_(terms.rows(write.shadow, alias=_SHADOW))
    return exp.not_(exp.Exists(this=shadow.where(_is_match(write))))
