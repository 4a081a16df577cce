"""Statements that fill a shadow and look at what is in it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from sqlglot import exp

from dagster_safe_backfill.domain.slices import PartitionSlice
from dagster_safe_backfill.domain.tables import TableRef
from dagster_safe_backfill.sql import terms
from dagster_safe_backfill.sql.partitioning import PARTITION, PartitionColumns, positioned


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
    items = {column.name: column.expression(dialect=dialect) for column in columns}
    return exp.select(*terms.named(items)).from_(source.copy())


_NUMBERS = exp.DataType.NUMERIC_TYPES


def _try_cast(value: exp.Expr, type_name: str, *, dialect: str) -> exp.TryCast:
    return exp.TryCast(this=value, to=exp.DataType.build(type_name, dialect=dialect, udt=True))


def values_lost_by_cast(source: exp.Table, columns: Sequence[StagedColumn], *, dialect: str) -> exp.Select:
    """Return, for each column, how many values its cast would change or refuse."""

    def lost(column: StagedColumn) -> exp.Expr:
        value = terms.column(column.source)
        kept = _try_cast(value, column.type, dialect=dialect)
        if exp.DataType.build(column.type, dialect=dialect, udt=True).this in _NUMBERS:
            # Compared as they are, a large integer and the float nearest to it would be equal.
            kept = _try_cast(kept, column.source_type, dialect=dialect)
        # A value that can't be cast is not compared, as that would take the same cast.
        is_given = exp.not_(exp.Is(this=value.copy(), expression=exp.Null()))
        is_changed = exp.NullSafeNEQ(this=kept.copy(), expression=value.copy())
        is_refused = exp.Is(this=kept, expression=exp.Null())
        return terms.count_where(exp.Case().when(is_refused, is_given).else_(is_changed))

    items = {column.name: lost(column) for column in columns}
    return exp.select(*terms.named(items)).from_(source.copy())


def fill(
    shadow: TableRef,
    rows: exp.Select,
    *,
    names: Sequence[str],
    partition_slice: PartitionSlice | None,
    columns: PartitionColumns,
    is_scratch: bool,
) -> exp.Create:
    """Return CREATE TABLE AS of the rows and of each one's position in the slice (0 without partitions)."""
    items = [terms.column(name) for name in names]
    select = positioned(rows, items, partition_slice=partition_slice, columns=columns)
    return created_as(shadow, select, is_scratch=is_scratch)


Kind = Literal["TABLE", "VIEW"]


def created_as(table: TableRef, select: exp.Select, *, kind: Kind = "TABLE", is_scratch: bool = False) -> exp.Create:
    """Return CREATE TABLE (or VIEW) AS; a scratch one lives in the session only."""
    scratch = exp.Properties(expressions=[exp.TemporaryProperty()]) if is_scratch else None
    return exp.Create(this=terms.table(table), kind=kind, expression=select, properties=scratch)


def dropped(table: TableRef, *, kind: Kind = "TABLE") -> exp.Drop:
    """Return DROP TABLE (or VIEW) IF EXISTS."""
    return exp.Drop(tables=[terms.table(table)], kind=kind, exists=True)


def rows_by_partition(shadow: TableRef) -> exp.Select:
    """Return `(position, rows)` of a shadow; rows outside the slice are at position NULL."""
    return (
        exp.select(terms.column(PARTITION), exp.Count(this=exp.Star()))
        .from_(terms.table(shadow))
        .group_by(terms.column(PARTITION))
    )


def by_key(rows: Sequence[tuple[Any, ...]], keys: Sequence[str]) -> dict[str, int]:
    """Return the counts of `rows_by_partition` by partition key; rows outside the slice are left out."""
    return {keys[int(position)]: count for position, count in rows if position is not None}


def outside_sample(shadow: TableRef, columns: PartitionColumns, *, size: int) -> exp.Select:
    """Return some rows' partition values that are in no partition of the slice."""
    values = [column.expression.copy() for column in columns.values()]
    return exp.select(*values).from_(terms.table(shadow)).where(_is_outside()).distinct().limit(size)


def delete_outside(shadow: TableRef) -> exp.Delete:
    """Return DELETE of the shadow's rows that are in no partition of the slice."""
    return exp.delete(terms.table(shadow), where=_is_outside())


def _is_outside() -> exp.Expr:
    return exp.Is(this=terms.column(PARTITION), expression=exp.Null())
