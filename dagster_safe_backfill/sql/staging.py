"""Statements that fill a shadow, count its rows and delete some of them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from sqlglot import exp

from dagster_safe_backfill.model.slices import TableSlice
from dagster_safe_backfill.model.tables import Column, TableRef, TableSpec
from dagster_safe_backfill.sql import terms
from dagster_safe_backfill.sql.sameness import Sameness
from dagster_safe_backfill.sql.slicing import PARTITION, expression, positioned

_RANK, _TIES = "_sb_rank", "_sb_ties"


@dataclass(frozen=True, slots=True, kw_only=True)
class StagedColumn:
    """A computed column and the live column that it is written to, or a value for a column that isn't computed.

    Attributes:
        name: The name of the live column.
        source: The name of the computed column.
        source_type: The type of the computed column.
        type: The type of the live column.
        constant: The value of a column that isn't computed; None if it is computed.
        collation: The collation of the live or of the computed column. A comparison of the two follows either.
    """

    name: str
    source: str
    source_type: str
    type: str
    constant: exp.Expr | None = None
    collation: str | None = None

    @property
    def staged(self) -> Column:
        """The column of the shadow, and of the live table once the shadow is published."""
        return Column(name=self.name, type=self.type, collation=self.collation)

    @property
    def is_cast(self) -> bool:
        """True if the two types differ, so that the values are cast."""
        return self.constant is None and self.type != self.source_type

    def expression(self, *, dialect: str) -> exp.Expr:
        """Return the value, cast to the type of the live column."""
        if self.constant is not None:
            return terms.typed(self.constant.copy(), self.type, dialect=dialect)
        value = terms.column(self.source)
        return terms.typed(value, self.type, dialect=dialect) if self.is_cast else value


def typed_rows(source: exp.Table, columns: Sequence[StagedColumn], *, dialect: str) -> exp.Select:
    """Return the computed rows with the names and types of the live columns."""
    items: dict[str, exp.Expr] = {}
    for column in columns:
        items[column.name] = column.expression(dialect=dialect)
    return exp.select(*terms.named(items)).from_(source.copy())


def with_defaults(spec: TableSpec, columns: Iterable[Column], *, dialect: str) -> dict[Column, exp.Expr | None]:
    """Return a mapping from each new column to the value that existing rows get in it. None stands for NULL.

    Raises:
        ConfigurationError: A value of `column_defaults` isn't a SQL expression.
    """
    # Both warehouses ignore the case of a column's name.
    sql_of = {name.casefold(): sql for name, sql in spec.column_defaults.items()}
    defaults: dict[Column, exp.Expr | None] = {}
    for column in columns:
        sql = sql_of.get(column.name.casefold())
        option = f"{spec.table}: column_defaults"
        defaults[column] = None if sql is None else terms.parsed(sql, dialect=dialect, option=option)
    return defaults


def values_lost_by_cast(source: exp.Table, lost: Mapping[str, exp.Expr]) -> exp.Select:
    """Return the number of rows for which each condition of `lost` is true, under the condition's name."""
    items = {name: terms.count_where(condition) for name, condition in lost.items()}
    return exp.select(*terms.named(items)).from_(source.copy())


def shadow_rows(rows: exp.Select, *, names: Sequence[str], table_slice: TableSlice, sameness: Sameness) -> exp.Select:
    """Return the rows of a shadow: computed rows with the position of each row's partition.

    With `keep_latest`, each row also gets its rank among the rows of its key, the largest value first, and the number
    of those rows that have the same value.
    """
    items = terms.columns(names)
    latest = table_slice.spec.keep_latest
    if latest is not None:
        items += terms.named(_ranks(table_slice.spec.unique_key, latest, sameness))
    return positioned(rows, items, table_slice)


def _ranks(key: Sequence[str], latest: str, sameness: Sameness) -> dict[str, exp.Expr]:
    by_key = [
        sameness.sorted_by(form.name) if isinstance(form, exp.Column) else form for form in sameness.all_forms(key)
    ]
    by_latest = sameness.sorted_by(latest)
    # Spelled out, because DuckDB has a setting (default_null_order) for the place of NULLs.
    is_null = exp.Ordered(this=exp.Is(this=terms.column(latest), expression=exp.Null()))
    order = exp.Order(expressions=[is_null, exp.Ordered(this=by_latest, desc=True, nulls_first=False)])
    # ROW_NUMBER, not RANK, so that exactly one row of each key has rank 1; equal latest values are counted as ties.
    rank = exp.Window(this=exp.RowNumber(), partition_by=by_key, order=order)
    # Rows with NULL in their key aren't duplicates of each other: the audit of the unique key rejects them later.
    has_key = exp.not_(terms.any_of(exp.Is(this=column.copy(), expression=exp.Null()) for column in terms.columns(key)))
    same = exp.Window(
        this=exp.Count(this=exp.Star()), partition_by=[*(form.copy() for form in by_key), by_latest.copy()]
    )
    one = terms.number(1)
    return {
        _RANK: exp.Case().when(has_key, rank).else_(one),
        _TIES: exp.Case().when(has_key.copy(), same).else_(one.copy()),
    }


def duplicates(shadow: TableRef) -> exp.Select:
    """Return `(number of rows that aren't the latest of their key, number of keys with several latest rows)`."""
    # Only ties of the latest value matter: rows with an earlier value are deleted anyway.
    is_tie = exp.and_(terms.column(_RANK).eq(1), exp.GT(this=terms.column(_TIES), expression=terms.number(1)))
    counts = [terms.count_where(_is_duplicate()), terms.count_where(is_tie)]
    return exp.select(*counts).from_(terms.table(shadow))


def tied_keys(shadow: TableRef, key: Sequence[str], *, size: int) -> exp.Select:
    """Return at most `size` keys that have several latest rows."""
    is_tie = exp.GT(this=terms.column(_TIES), expression=terms.number(1))
    select = exp.select(*terms.columns(key)).from_(terms.table(shadow))
    return select.where(terms.column(_RANK).eq(1), is_tie).limit(size)


def repeated_keys(shadow: TableRef, key: Sequence[str], sameness: Sameness) -> exp.Select:
    """Return one key that occurs more than once, or no row if every key is unique."""
    forms = sameness.all_forms(key)
    select = exp.select(*forms).from_(terms.rows(shadow)).group_by(*(form.copy() for form in forms))
    return select.having(exp.GT(this=exp.Count(this=exp.Star()), expression=terms.number(1))).limit(1)


def delete_duplicates(shadow: TableRef) -> exp.Delete:
    """Return a DELETE of the rows that aren't the latest of their key."""
    return exp.delete(terms.table(shadow), where=_is_duplicate())


def _is_duplicate() -> exp.Expr:
    return exp.GT(this=terms.column(_RANK), expression=terms.number(1))


def rows_by_partition(shadow: TableRef) -> exp.Select:
    """Return `(position, number of rows)` of a shadow. Rows outside the slice have the position NULL."""
    return (
        exp.select(terms.column(PARTITION), exp.Count(this=exp.Star()))
        .from_(terms.rows(shadow))
        .group_by(terms.column(PARTITION))
    )


def sizes(tables: Sequence[TableRef]) -> exp.Query:
    """Return `(position, number of rows)` of each of some tables."""
    selects: list[exp.Query] = [
        exp.select(terms.number(place), exp.Count(this=exp.Star())).from_(terms.table(one))
        for place, one in enumerate(tables)
    ]
    return selects[0] if len(selects) == 1 else exp.union(*selects, distinct=False)


def by_key(counts: Mapping[int | None, int], keys: Sequence[str]) -> dict[str, int]:
    """Return a mapping from partition key to number of rows, without the rows outside the slice.

    `counts` maps positions to numbers of rows, as `rows_by_partition` returns them.
    """
    by_name: dict[str, int] = {}
    for position, count in counts.items():
        if position is not None:
            by_name[keys[int(position)]] = count
    return by_name


def outside_sample(shadow: TableRef, table_slice: TableSlice, *, size: int) -> exp.Select:
    """Return at most `size` distinct partition values of the rows outside the slice."""
    values = [expression(column).copy() for column in table_slice.columns.values()]
    return exp.select(*values).from_(terms.table(shadow)).where(_is_outside()).distinct().limit(size)


def delete_outside(shadow: TableRef) -> exp.Delete:
    """Return a DELETE of the shadow's rows outside the slice."""
    return exp.delete(terms.table(shadow), where=_is_outside())


def delete_positions(shadow: TableRef, positions: Sequence[int]) -> exp.Delete:
    """Return a DELETE of the shadow's rows in the partitions at `positions`."""
    return exp.delete(terms.table(shadow), where=terms.is_in(terms.column(PARTITION), map(terms.number, positions)))


def _is_outside() -> exp.Expr:
    return exp.Is(this=terms.column(PARTITION), expression=exp.Null())
