"""Arrow tables as polars frames."""

from __future__ import annotations

from typing import Any

from dagster_safe_backfill.redaction import foreign_text, masked
from dagster_safe_backfill.warehouses.frames.errors import UnreadableError
from dagster_safe_backfill.warehouses.frames.exact import leaves
from dagster_safe_backfill.warehouses.frames.libraries import arrow, polars


def polars_of(table: Any) -> Any:
    """Return an Arrow table as a polars frame with the same values. Intervals without months and days are durations.

    Raises:
        UnreadableError: A column has values that no type of polars holds.
    """
    pl = polars()
    pa = arrow()
    fields: list[Any] = []
    columns: list[Any] = []
    schema: Any = table.schema
    for field, column in zip(schema, table.columns, strict=True):
        columns.append(_readable(field.name, column))
        fields.append(field.with_type(columns[-1].type))
    readable = pa.Table.from_arrays(columns, schema=pa.schema(fields))
    try:
        return pl.DataFrame(readable)
    except pl.exceptions.PolarsError as error:
        raise _unreadable_column(readable, error) from error


def _readable(name: str, column: Any) -> Any:
    pa = arrow()
    types = pa.types
    if types.is_interval(column.type):
        return _durations(name, column)
    for _, values in leaves(name, column):
        if types.is_time(values.type) and _has_midnight(values):
            raise UnreadableError(name, "polars", "no time of 24:00")
    # Polars ends the process of a nested column of such a type, instead of raising an error.
    if any(types.is_union(values.type) or types.is_interval(values.type) for _, values in leaves(name, column)):
        raise UnreadableError(name, "polars", "no type for it")
    return column


def _has_midnight(times: Any) -> bool:
    """Return True if one of the times is the end of the day, which polars would read as NULL."""
    pa = arrow()
    compute = arrow().compute
    latest = compute.max(times.cast(pa.int64())).as_py()
    return latest is not None and latest >= 86_400 * (10**9 if times.type.unit == "ns" else 10**6)


def _durations(name: str, column: Any) -> Any:
    pa = arrow()
    values = column.to_pylist()
    for value in values:
        if value is not None and (value.months or value.days):
            parts = f"{value.months} months, {value.days} days"
            raise UnreadableError(name, "polars", f"no type for months and days beside seconds ({masked(parts, name)})")
    counts = [value and value.nanoseconds // 1000 for value in values]
    return pa.chunked_array([pa.array(counts, type=pa.int64()).cast(pa.duration("us"))])


def _unreadable_column(table: Any, error: Exception) -> Exception:
    """Return the error about the column that polars refuses."""
    pl = polars()
    for name in table.column_names:
        try:
            pl.DataFrame(table.select([name]))
        except pl.exceptions.PolarsError as found:
            return UnreadableError(name, "polars", f"no type for it ({foreign_text(found, names=[name])})")
    return error
