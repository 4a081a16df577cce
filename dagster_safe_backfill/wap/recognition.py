"""How a slice is recognised in one table of one warehouse."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from sqlglot import exp

from dagster_safe_backfill.errors import ConfigurationError, PartitionColumnError, SliceError
from dagster_safe_backfill.model.slices import ColumnType, PartitionSlice, TimeDimension
from dagster_safe_backfill.model.states import Staged
from dagster_safe_backfill.model.tables import Column, TableRef, TableSpec
from dagster_safe_backfill.model.text import listed
from dagster_safe_backfill.sql import terms
from dagster_safe_backfill.sql.dialect import Dialect
from dagster_safe_backfill.sql.slicing import RESERVED, PartitionColumn, PartitionColumns, distinct_keys, rows_of
from dagster_safe_backfill.warehouses.base import Connection


def partition_expressions(
    spec: TableSpec, partition_slice: PartitionSlice, *, dialect: str
) -> dict[str | None, exp.Expr]:
    """Return the parsed partition expression of each of the slice's dimensions.

    Raises:
        ConfigurationError: One is missing, or isn't SQL.
    """
    expressions: dict[str | None, exp.Expr] = {}
    for dimension in partition_slice.dimensions:
        sql = spec.partition_expr.get(dimension.name)
        if sql is None:
            where = f" for its dimension {dimension.name!r}" if dimension.name else ""
            raise ConfigurationError(
                f"{spec.table} has partitions, but no partition_expr{where}: name the column that tells a row's"
                f" partition (partition_expr={_example(partition_slice)})"
            )
        parsed = terms.parsed(sql, dialect=dialect, option=f"{spec.table}: partition_expr")
        expressions[dimension.name] = terms.dotted(parsed)
    return expressions


def _example(partition_slice: PartitionSlice) -> str:
    names = [dimension.name for dimension in partition_slice.dimensions]
    if names == [None]:
        return '"a_column"'
    return "{" + ", ".join(f'"{name}": "a_column"' for name in names) + "}"


def partition_types(
    connection: Connection, rows: exp.Select, *, spec: TableSpec, partition_slice: PartitionSlice
) -> dict[str | None, str]:
    """Return the type of each partition expression over `rows`.

    Raises:
        PartitionColumnError: An expression names a column that the rows don't have.
    """
    expressions = partition_expressions(spec, partition_slice, dialect=connection.dialect)
    known = [column.name for column in connection.described(rows)]
    for expression in expressions.values():
        _check_columns(expression, known, spec)
    select = exp.select(*(expression.copy() for expression in expressions.values()))
    types = connection.described(select.from_(terms.subquery(rows, "_sb_rows")))
    return {name: column.type for name, column in zip(expressions, types, strict=True)}


def _check_columns(expression: exp.Expr, known: Iterable[str], spec: TableSpec) -> None:
    names = {name.casefold() for name in known}
    missing = [column.name for column in expression.find_all(exp.Column) if column.name.casefold() not in names]
    if missing:
        raise PartitionColumnError(
            f"{spec.table}: partition_expr names {', '.join(missing)}, which is no column of it; the columns are"
            f" {', '.join(known)}"
        )


def partition_columns(
    connection: Connection,
    *,
    spec: TableSpec,
    partition_slice: PartitionSlice | None,
    types: Mapping[str | None, str],
) -> PartitionColumns:
    """Return the partition expressions with what their types mean; none for an unpartitioned asset."""
    if partition_slice is None:
        return {}
    expressions = partition_expressions(spec, partition_slice, dialect=connection.dialect)
    return {
        name: PartitionColumn(
            name=f"{spec.table}, partition_expr {spec.partition_expr[name]}",
            expression=expression,
            type_name=types[name],
            keeps=connection.keeps(types[name]),
            timezone=spec.column_timezone,
            dialect=connection.dialect,
        )
        for name, expression in expressions.items()
    }


def columns_of(connection: Connection, staged: Staged) -> PartitionColumns:
    """Return the partition columns of a staged batch."""
    return partition_columns(
        connection, spec=staged.spec, partition_slice=staged.partition_slice, types=staged.partition_types
    )


def check_keys(connection: Connection, *, partition_slice: PartitionSlice, columns: PartitionColumns) -> None:
    """Refuse keys that are one value to their column, such as 1 and 01 in a column of integers.

    Raises:
        PartitionColumnError: Rows of such keys would belong to two partitions.
    """
    for dimension in partition_slice.dimensions:
        column = columns[dimension.name]
        if isinstance(dimension, TimeDimension) or column.keeps == "text":
            continue
        ((values,),) = connection.run(distinct_keys(dimension, column))
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
    expressions = partition_expressions(spec, partition_slice, dialect=dialect)
    columns: dict[str | None, PartitionColumn] = {}
    for dimension in partition_slice.dimensions:
        is_time = isinstance(dimension, TimeDimension)
        columns[dimension.name] = PartitionColumn(
            name=f"{spec.table}, column {expr[dimension.name]}",
            expression=expressions[dimension.name],
            type_name=column_type or "text",
            keeps=(column_type or "date") if is_time else "text",
            timezone=spec.column_timezone,
            dialect=dialect,
        )
    try:
        return rows_of(partition_slice, columns).sql(dialect=dialect)
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


def added_columns(columns: Sequence[Column], live: Sequence[Column] | None) -> tuple[Column, ...]:
    """Return those of the columns that the live table lacks; none, if there is no table."""
    if live is None:
        return ()
    known = {column.name for column in live}
    return tuple(column for column in columns if column.name not in known)


def data_columns(connection: Connection, shadow: TableRef) -> tuple[Column, ...]:
    """Return a shadow's columns without the library's own; none, if it isn't there."""
    found = connection.columns(shadow) or ()
    return tuple(column for column in found if not column.name.casefold().startswith(RESERVED))


def respelled(spec: TableSpec, names: Sequence[str]) -> TableSpec:
    """Return the spec with its columns spelled as the table spells them."""
    spelling = {name.casefold(): name for name in names}
    missing = [name for name in spec.unique_key if name.casefold() not in spelling]
    if missing:
        raise ConfigurationError(
            f"{spec.table}: unique_key names {', '.join(missing)}, which is no column of it; the columns are"
            f" {', '.join(names)}"
        )
    stamp, latest = spec.updated_at_column, spec.keep_latest
    if latest is not None and latest.casefold() not in spelling:
        raise ConfigurationError(f"{spec.table}: keep_latest names {latest}, which is no column of it")
    return replace(
        spec,
        unique_key=tuple(spelling[name.casefold()] for name in spec.unique_key),
        updated_at_column=spelling.get(stamp.casefold(), stamp) if stamp else None,
        keep_latest=spelling[latest.casefold()] if latest else None,
    )
