"""Statements that fill a shadow and look at what is in it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from sqlglot import exp

from dagster_safe_backfill.model.slices import TableSlice
from dagster_safe_backfill.model.tables import Column, TableRef, TableSpec
from dagster_safe_backfill.sql import terms
from dagster_safe_backfill.sql.slicing import PARTITION, expression, positioned

_RANK, _TIES = "_sb_rank", "_sb_ties"


@dataclass(frozen=True, slots=True, kw_only=True)
class StagedColumn:
    """A column on its way from the computed rows to the shadow.

    Attributes:
        name: Its name in the live table.
        source: Its name in the computed rows.
        source_type: Its type there.
        type: Its type in the live table.
    """

    name: str
    source: str
    source_type: str
    type: str

    @property
    def is_cast(self) -> bool:
        """Whether the values change their type."""
        return self.type != self.source_type

    def expression(self, *, dialect: str) -> exp.Expr:
        """Return the column's value as the live table keeps it."""
        value = terms.column(self.source)
        return terms.typed(value, self.type, dialect=dialect) if self.is_cast else value


def typed_rows(source: exp.Table, columns: Sequence[StagedColumn], *, dialect: str) -> exp.Select:
    """Return the computed rows with the live table's names and types."""
    items: dict[str, exp.Expr] = {}
    for column in columns:
        items[column.name] = column.expression(dialect=dialect)
    return exp.select(*terms.named(items)).from_(source.copy())


def with_defaults(spec: TableSpec, columns: Iterable[Column], *, dialect: str) -> dict[Column, exp.Expr | None]:
    """Return columns with what rows have in them that are older than the columns; None, where that is NULL.

    Raises:
        ConfigurationError: A default isn't SQL.
    """
    sql_of = {name.casefold(): sql for name, sql in spec.column_defaults.items()}
    defaults: dict[Column, exp.Expr | None] = {}
    for column in columns:
        sql = sql_of.get(column.name.casefold())
        option = f"{spec.table}: column_defaults"
        defaults[column] = None if sql is None else terms.parsed(sql, dialect=dialect, option=option)
    return defaults


def values_lost_by_cast(source: exp.Table, lost: Mapping[str, exp.Expr]) -> exp.Select:
    """Return, for each named condition on a value, how many values fulfil it."""
    items = {name: terms.count_where(condition) for name, condition in lost.items()}
    return exp.select(*terms.named(items)).from_(source.copy())


def shadow_rows(rows: exp.Select, *, names: Sequence[str], table_slice: TableSlice) -> exp.Select:
    """Return what a shadow holds: rows, and each one's position in the slice (0 without partitions).

    Where the latest row of a key is kept, each row also gets its rank among those of its key, the largest value first,
    and how many share its value.
    """
    items = terms.columns(names)
    latest = table_slice.spec.keep_latest
    if latest is not None:
        items += terms.named(_ranks(table_slice.spec.unique_key, latest))
    return positioned(rows, items, table_slice)


def _ranks(key: Sequence[str], latest: str) -> dict[str, exp.Expr]:
    by_key = terms.columns(key)
    # Spelled out, as where NULLs are put is a setting.
    is_null = exp.Ordered(this=exp.Is(this=terms.column(latest), expression=exp.Null()))
    order = exp.Order(expressions=[is_null, exp.Ordered(this=terms.column(latest), desc=True, nulls_first=False)])
    rank = exp.Window(this=exp.RowNumber(), partition_by=by_key, order=order)
    # Rows without a key of their own aren't each other's duplicates: they are refused later on.
    has_key = exp.not_(terms.any_of(exp.Is(this=column.copy(), expression=exp.Null()) for column in by_key))
    same = exp.Window(
        this=exp.Count(this=exp.Star()), partition_by=[*(column.copy() for column in by_key), terms.column(latest)]
    )
    one = terms.number(1)
    return {
        _RANK: exp.Case().when(has_key, rank).else_(one),
        _TIES: exp.Case().when(has_key.copy(), same).else_(one.copy()),
    }


def duplicates(shadow: TableRef) -> exp.Select:
    """Return `(rows that aren't the latest of their key, keys with several latest)` of a shadow with ranks."""
    is_tie = exp.and_(terms.column(_RANK).eq(1), exp.GT(this=terms.column(_TIES), expression=terms.number(1)))
    counts = [terms.count_where(_is_duplicate()), terms.count_where(is_tie)]
    return exp.select(*counts).from_(terms.table(shadow))


def tied_keys(shadow: TableRef, key: Sequence[str], *, size: int) -> exp.Select:
    """Return some of the keys with several latest rows."""
    is_tie = exp.GT(this=terms.column(_TIES), expression=terms.number(1))
    select = exp.select(*terms.columns(key)).from_(terms.table(shadow))
    return select.where(terms.column(_RANK).eq(1), is_tie).limit(size)


def repeated_keys(shadow: TableRef, key: Sequence[str]) -> exp.Select:
    """Return one of the keys that come twice, if any does."""
    select = exp.select(*terms.columns(key)).from_(terms.rows(shadow)).group_by(*terms.columns(key))
    return select.having(exp.GT(this=exp.Count(this=exp.Star()), expression=terms.number(1))).limit(1)


def delete_duplicates(shadow: TableRef) -> exp.Delete:
    """Return DELETE of the rows that aren't the latest of their key."""
    return exp.delete(terms.table(shadow), where=_is_duplicate())


def _is_duplicate() -> exp.Expr:
    return exp.GT(this=terms.column(_RANK), expression=terms.number(1))


def rows_by_partition(shadow: TableRef) -> exp.Select:
    """Return `(position, rows)` of a shadow; rows outside the slice are at position NULL."""
    return (
        exp.select(terms.column(PARTITION), exp.Count(this=exp.Star()))
        .from_(terms.rows(shadow))
        .group_by(terms.column(PARTITION))
    )


def by_key(counts: Mapping[int | None, int], keys: Sequence[str]) -> dict[str, int]:
    """Return the counts of `rows_by_partition`, a mapping, by partition key; rows outside the slice are left out."""
    by_name: dict[str, int] = {}
    for position, count in counts.items():
        if position is not None:
            by_name[keys[int(position)]] = count
    return by_name


def outside_sample(shadow: TableRef, table_slice: TableSlice, *, size: int) -> exp.Select:
    """Return some rows' partition values that are in no partition of the slice."""
    values = [expression(column).copy() for column in table_slice.columns.values()]
    return exp.select(*values).from_(terms.table(shadow)).where(_is_outside()).distinct().limit(size)


def delete_outside(shadow: TableRef) -> exp.Delete:
    """Return DELETE of the shadow's rows that are in no partition of the slice."""
    return exp.delete(terms.table(shadow), where=_is_outside())


def delete_positions(shadow: TableRef, positions: Sequence[int]) -> exp.Delete:
    """Return DELETE of the shadow's rows of some partitions."""
    return exp.delete(terms.table(shadow), where=terms.is_in(terms.column(PARTITION), map(terms.number, positions)))


def _is_outside() -> exp.Expr:
    return exp.Is(this=terms.column(PARTITION), expression=exp.Null())
