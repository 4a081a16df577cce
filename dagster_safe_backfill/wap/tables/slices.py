"""How the rows of a slice are recognised in one table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from sqlglot import exp

from dagster_safe_backfill.errors import ConfigurationError, PartitionColumnError, SliceError
from dagster_safe_backfill.model.slices import (
    ColumnType,
    PartitionColumn,
    PartitionSlice,
    TableSlice,
    TimeDimension,
)
from dagster_safe_backfill.model.tables import TableSpec
from dagster_safe_backfill.model.text import listed
from dagster_safe_backfill.sql import terms
from dagster_safe_backfill.sql.dialect import Dialect
from dagster_safe_backfill.sql.slicing import distinct_keys, inside
from dagster_safe_backfill.warehouses.base import Session


def table_slice(
    session: Session,
    rows: exp.Select,
    *,
    spec: TableSpec,
    partition_slice: PartitionSlice | None,
    names: Sequence[str],
) -> TableSlice:
    """Return a slice with its partition expressions, and the types that these have over given rows.

    Args:
        session: An open session; read-only is enough.
        rows: Rows of the table, or rows that are to be written to it.
        spec: How the table is kept.
        partition_slice: The partitions; None for an unpartitioned asset.
        names: The columns of the rows.

    Raises:
        ConfigurationError: A dimension has no partition expression, or the expression isn't SQL.
        PartitionColumnError: An expression names a column that the rows don't have.
    """
    if partition_slice is None:
        return TableSlice(spec=spec, partition_slice=None)
    expressions = expressions_of(spec, partition_slice, dialect=session.dialect.name)
    known = {*map(str.casefold, names)}
    items: list[exp.Expr] = []
    for expression in expressions.values():
        # `terms.of_row` caches its result, and an expression that is put into a SELECT gets a parent.
        items.append(expression.copy())
        for column in expression.find_all(exp.Column):
            if column.name.casefold() not in known:
                raise PartitionColumnError(
                    f"{spec.table}: partition_expr names {column.name}, which the table doesn't have. Its columns are"
                    f" {', '.join(names)}."
                )
    select = exp.select(*items).from_(terms.subquery(rows, "_sb_rows"))
    columns: dict[str | None, PartitionColumn] = {}
    for name, described in zip(expressions, session.describe(select), strict=True):
        columns[name] = PartitionColumn(
            name=f"{spec.table}, partition_expr {spec.partition_expr[name]}",
            sql=spec.partition_expr[name],
            type_name=described.type,
            keeps=session.dialect.keeps(described.type),
            timezone=spec.column_timezone,
            dialect=session.dialect,
        )
    return TableSlice(spec=spec, partition_slice=partition_slice, columns=columns)


def live_slice(
    session: Session, *, spec: TableSpec, partition_slice: PartitionSlice | None, names: Sequence[str]
) -> TableSlice:
    """Return the slice as `table_slice` does, over the rows of the live table, whose columns are `names`."""
    rows = exp.select(*terms.columns(names)).from_(terms.table(spec.table))
    return table_slice(session, rows, spec=spec, partition_slice=partition_slice, names=names)


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


def check_keys(session: Session, recognised: TableSlice) -> None:
    """Refuse partition keys that are the same value in their column's type, such as 1 and 01 in a column of integers.

    Raises:
        PartitionColumnError: Two keys are the same value, so that rows would belong to two partitions.
    """
    dimensions = () if recognised.partition_slice is None else recognised.partition_slice.dimensions
    for dimension in dimensions:
        column = recognised.columns[dimension.name]
        # Keys that differ are different texts, but may be one value of another type, such as 1 and 01 of INTEGER.
        if isinstance(dimension, TimeDimension) or column.keeps == "text":
            continue
        ((values,),) = session.query(distinct_keys(dimension, column))
        if values < len(set(dimension.values)):
            raise PartitionColumnError(
                f"{column.name}: some of the partition keys {listed(dimension.values)} are the same value of type"
                f" {column.type_name}, so rows would belong to two partitions. Set a partition_expr that returns text."
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
