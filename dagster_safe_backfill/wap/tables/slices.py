"""How the rows of a slice are recognised in one table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from sqlglot import exp

from dagster_safe_backfill.errors import ConfigurationError, PartitionColumnError, SliceError
from dagster_safe_backfill.model.slices import (
    ColumnType,
    KeyDimension,
    PartitionColumn,
    PartitionSlice,
    TableSlice,
    TimeDimension,
)
from dagster_safe_backfill.model.tables import Column, TableSpec, names_of
from dagster_safe_backfill.sql import terms
from dagster_safe_backfill.sql.dialect import Dialect
from dagster_safe_backfill.sql.sameness import collation_of
from dagster_safe_backfill.sql.slicing import ambiguous_keys, inside
from dagster_safe_backfill.warehouses.base import Session


def table_slice(
    session: Session,
    rows: exp.Select,
    *,
    spec: TableSpec,
    partition_slice: PartitionSlice | None,
    columns: Sequence[Column],
) -> TableSlice:
    """Return a slice with its partition expressions, and the types that these have over given rows.

    Args:
        session: An open session; read-only is enough.
        rows: Rows of the table, or rows that are to be written to it.
        spec: How the table is kept.
        partition_slice: The partitions; None for an unpartitioned asset.
        columns: The columns of the rows, with the collations that either these or the live rows have.

    Raises:
        ConfigurationError: A dimension has no partition expression, or the expression isn't SQL.
        PartitionColumnError: An expression names a column that the rows don't have.
    """
    if partition_slice is None:
        return TableSlice(spec=spec, partition_slice=None)
    expressions = expressions_of(spec, partition_slice, dialect=session.dialect.name)
    known = {column.name.casefold(): column for column in columns}
    items: list[exp.Expr] = []
    for expression in expressions.values():
        # `terms.of_row` caches its result, and an expression that is put into a SELECT gets a parent.
        items.append(expression.copy())
        for column in expression.find_all(exp.Column):
            if column.name.casefold() not in known:
                raise PartitionColumnError(
                    f"{spec.table}: partition_expr names {column.name}, which the table doesn't have. Its columns are"
                    f" {', '.join(names_of(columns))}."
                )
    select = exp.select(*items).from_(terms.subquery(rows, "_sb_rows"))
    found: dict[str | None, PartitionColumn] = {}
    for name, described in zip(expressions, session.describe(select), strict=True):
        read = [known[column.name.casefold()] for column in expressions[name].find_all(exp.Column)]
        found[name] = PartitionColumn(
            name=f"{spec.table}, partition_expr {spec.partition_expr[name]}",
            sql=spec.partition_expr[name],
            type_name=described.type,
            keeps=session.dialect.keeps(described.type),
            timezone=spec.column_timezone,
            dialect=session.dialect,
            collation=collation_of(described, read, expressions[name], session.dialect),
        )
    return TableSlice(spec=spec, partition_slice=partition_slice, columns=found)


def live_slice(
    session: Session, *, spec: TableSpec, partition_slice: PartitionSlice | None, columns: Sequence[Column]
) -> TableSlice:
    """Return the slice as `table_slice` does, over the rows of the live table, whose columns are given."""
    rows = live_rows(spec, names_of(columns))
    return table_slice(session, rows, spec=spec, partition_slice=partition_slice, columns=columns)


def live_rows(spec: TableSpec, names: Sequence[str]) -> exp.Select:
    """Return a SELECT of the columns `names` of the live table."""
    return exp.select(*terms.columns(names)).from_(terms.table(spec.table))


def expressions_of(spec: TableSpec, partition_slice: PartitionSlice, *, dialect: str) -> dict[str | None, exp.Expr]:
    """Return the parsed partition expression of each of the slice's dimensions.

    Raises:
        ConfigurationError: A dimension has no expression, or the expression isn't SQL or names no column.
    """
    expressions: dict[str | None, exp.Expr] = {}
    for dimension in partition_slice.dimensions:
        sql = spec.partition_expr.get(dimension.name)
        if sql is None:
            which = f" for its dimension {dimension.name!r}" if dimension.name else ""
            raise ConfigurationError(
                f"{spec.table}: the asset has partitions, but no partition_expr{which}. Name the column that has a"
                f" row's partition, as in partition_expr={_example(partition_slice)}."
            )
        expression = terms.of_row(sql, dialect=dialect, option=f"{spec.table}: partition_expr")
        if expression.find(exp.Column) is None:
            raise ConfigurationError(
                f"{spec.table}: partition_expr {sql} names no column, so it is the same for all rows, or for none, and"
                " can't tell which partition a row belongs to. Name the column that has a row's partition, as in"
                f" partition_expr={_example(partition_slice)}."
            )
        expressions[dimension.name] = expression
    return expressions


def _example(partition_slice: PartitionSlice) -> str:
    names = [dimension.name for dimension in partition_slice.dimensions]
    if names == [None]:
        return '"a_column"'
    return "{" + ", ".join(f'"{name}": "a_column"' for name in names) + "}"


def check_keys(session: Session, recognised: TableSlice, rows: exp.Select) -> None:
    """Refuse partition keys that don't stand for exactly one value of their column each.

    Two keys may be one value: 1 and 01 in a column of integers, a and A in a column whose collation ignores case. All
    known keys of the partitions definition are compared, because a run of one of them replaces the rows of the other.
    A key that the column's type can't hold is refused only if it is in the slice, since it can't harm the others.

    Args:
        session: An open session; read-only is enough.
        recognised: The slice.
        rows: Rows of the table, of which none is read.

    Raises:
        PartitionColumnError: Two known keys are the same value, or the column can't hold a key of the slice.
    """
    dimensions: list[tuple[KeyDimension, PartitionColumn]] = []
    for dimension in () if recognised.partition_slice is None else recognised.partition_slice.dimensions:
        if isinstance(dimension, KeyDimension):
            dimensions.append((dimension, recognised.columns[dimension.name]))
    if not dimensions:
        return
    found = session.query(ambiguous_keys(dimensions, rows))
    for place, _first, _last, unfit in found:
        dimension, column = dimensions[int(place)]
        if unfit is not None and unfit in dimension.values:
            raise PartitionColumnError(
                f"{column.name}: the type {column.type_name} can't hold the partition key {unfit} unchanged, so no row"
                " can belong to that partition. Correct the key, or set a partition_expr that returns text."
            )
    for place, first, last, unfit in found:
        column = dimensions[int(place)][1]
        if unfit is None:
            same = f"the same value of type {column.type_name}"
            if column.keeps == "text":
                same = "equal in the collation of the column"
            raise PartitionColumnError(
                f"{column.name}: the partition keys {first} and {last} are {same}, so rows would belong to two"
                " partitions. Keep one of the keys, or set a partition_expr with a type and collation that tells them"
                " apart, such as text."
            )


def where(
    partition_slice: PartitionSlice,
    column: str | Mapping[str, str] | None,
    column_type: ColumnType | None,
    *,
    spec: TableSpec,
    dialect: Dialect,
) -> str:
    """Return a slice's predicate as SQL text, for `PartitionSlice.where`.

    Raises:
        SliceError: The column doesn't tell the slice's partitions apart, or a dimension has no column.
    """
    expr = spec.partition_expr if column is None else _by_dimension(column, partition_slice)
    spec = TableSpec(table=spec.table, partition_expr=expr, column_timezone=spec.column_timezone)
    # Called for its checks: each dimension needs a column, and that must be one SQL expression.
    expressions_of(spec, partition_slice, dialect=dialect.name)
    columns: dict[str | None, PartitionColumn] = {}
    for dimension in partition_slice.dimensions:
        is_time = isinstance(dimension, TimeDimension)
        columns[dimension.name] = PartitionColumn(
            name=f"{spec.table}, column {expr[dimension.name]}",
            sql=expr[dimension.name],
            type_name=column_type or "text",
            # The user's function asks for the text before any query runs, so the column's type can't be looked up.
            keeps=(column_type or "date") if is_time else "text",
            timezone=spec.column_timezone,
            dialect=dialect,
        )
    try:
        recognised = TableSlice(spec=spec, partition_slice=partition_slice, columns=columns)
        return inside(recognised).sql(dialect=dialect.name)
    except PartitionColumnError:
        # Without a type, the column was taken for a DATE, which can't hold partitions that begin within a day.
        if column_type is not None:
            raise
        return where(partition_slice, column, "timestamp", spec=spec, dialect=dialect)


def _by_dimension(column: str | Mapping[str, str], partition_slice: PartitionSlice) -> dict[str | None, str]:
    if not isinstance(column, str):
        return {**column}
    names = [dimension.name for dimension in partition_slice.dimensions]
    if len(names) > 1:
        raise SliceError(
            f"these partitions have several dimensions; pass a mapping from each of {', '.join(map(str, names))} to a"
            " column"
        )
    return {names[0]: column}
