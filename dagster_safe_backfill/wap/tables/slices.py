"""How a slice is recognised in one table of one warehouse."""

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
    """Return a slice as it is recognised in rows of a table, by the types that its partition expressions have there.

    Args:
        session: An open session; read-only is enough.
        rows: Rows of the table, or rows that it is to have.
        spec: How the table is kept.
        partition_slice: The partitions; None for an unpartitioned asset.
        names: The columns of the rows.

    Raises:
        ConfigurationError: A dimension has no partition expression, or it isn't SQL.
        PartitionColumnError: An expression names a column that the rows don't have.
    """
    if partition_slice is None:
        return TableSlice(spec=spec, partition_slice=None)
    expressions = _expressions(spec, partition_slice, dialect=session.dialect.name)
    known = {*map(str.casefold, names)}
    for expression in expressions.values():
        missing = [one.name for one in expression.find_all(exp.Column) if one.name.casefold() not in known]
        if missing:
            raise PartitionColumnError(
                f"{spec.table}: partition_expr names {', '.join(missing)}, which is no column of it; the columns are"
                f" {', '.join(names)}"
            )
    select = exp.select(*[one.copy() for one in expressions.values()]).from_(terms.subquery(rows, "_sb_rows"))
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
    """Return `table_slice` of the live table, of which `names` are the columns."""
    rows = exp.select(*terms.columns(names)).from_(terms.table(spec.table))
    return table_slice(session, rows, spec=spec, partition_slice=partition_slice, names=names)


def _expressions(spec: TableSpec, partition_slice: PartitionSlice, *, dialect: str) -> dict[str | None, exp.Expr]:
    """Return the parsed partition expression of each of the slice's dimensions."""
    expressions: dict[str | None, exp.Expr] = {}
    for dimension in partition_slice.dimensions:
        sql = spec.partition_expr.get(dimension.name)
        if sql is None:
            which = f" for its dimension {dimension.name!r}" if dimension.name else ""
            raise ConfigurationError(
                f"{spec.table} has partitions, but no partition_expr{which}: name the column that tells a row's"
                f" partition (partition_expr={_example(partition_slice)})"
            )
        expressions[dimension.name] = terms.of_row(sql, dialect=dialect, option=f"{spec.table}: partition_expr")
    return expressions


def _example(partition_slice: PartitionSlice) -> str:
    names = [dimension.name for dimension in partition_slice.dimensions]
    if names == [None]:
        return '"a_column"'
    return "{" + ", ".join(f'"{name}": "a_column"' for name in names) + "}"


def check_keys(session: Session, recognised: TableSlice) -> None:
    """Refuse keys that are one value to their column, such as 1 and 01 in a column of integers.

    Raises:
        PartitionColumnError: Rows of such keys would belong to two partitions.
    """
    dimensions = () if recognised.partition_slice is None else recognised.partition_slice.dimensions
    for dimension in dimensions:
        column = recognised.columns[dimension.name]
        if isinstance(dimension, TimeDimension) or column.keeps == "text":
            continue
        ((values,),) = session.query(distinct_keys(dimension, column))
        if values < len(set(dimension.values)):
            raise PartitionColumnError(
                f"{column.name}: some of the partition keys {listed(dimension.values)} are the same {column.type_name};"
                " give a partition_expr that returns text"
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
        SliceError: The column can't tell the slice's partitions, or a dimension has no column.
    """
    expr = spec.partition_expr if column is None else _by_dimension(column, partition_slice)
    spec = TableSpec(table=spec.table, partition_expr=expr, column_timezone=spec.column_timezone)
    _expressions(spec, partition_slice, dialect=dialect.name)
    columns: dict[str | None, PartitionColumn] = {}
    for dimension in partition_slice.dimensions:
        is_time = isinstance(dimension, TimeDimension)
        columns[dimension.name] = PartitionColumn(
            name=f"{spec.table}, column {expr[dimension.name]}",
            sql=expr[dimension.name],
            type_name=column_type or "text",
            keeps=(column_type or "date") if is_time else "text",
            timezone=spec.column_timezone,
            dialect=dialect,
        )
    try:
        recognised = TableSlice(spec=spec, partition_slice=partition_slice, columns=columns)
        return inside(recognised).sql(dialect=dialect.name)
    except PartitionColumnError:
        if column_type is not None:
            raise
        return where(partition_slice, column, "timestamp", spec=spec, dialect=dialect)


def _by_dimension(column: str | Mapping[str, str], partition_slice: PartitionSlice) -> dict[str | None, str]:
    if not isinstance(column, str):
        return {**column}
    names = [dimension.name for dimension in partition_slice.dimensions]
    if len(names) > 1:
        raise SliceError(f"these partitions need a mapping from each of {', '.join(map(str, names))} to a column")
    return {names[0]: column}
