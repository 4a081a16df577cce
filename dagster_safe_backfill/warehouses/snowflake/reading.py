"""How the rows of a SELECT are read as a frame, so that each value comes back the same when it is written again.

The connector makes Arrow of what Snowflake sends. It cuts times to microseconds and forgets the offsets of TIMESTAMP_TZ
without an error, and it gives integers the narrowest type that holds the values at hand.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sqlglot import exp

from dagster_safe_backfill.errors import ReadError
from dagster_safe_backfill.model.tables import Column
from dagster_safe_backfill.sql import terms
from dagster_safe_backfill.warehouses.frames.of_pandas import Kind
from dagster_safe_backfill.warehouses.snowflake.dialect import is_not_utc, offset_of
from dagster_safe_backfill.warehouses.snowflake.generator import DIALECT
from dagster_safe_backfill.warehouses.snowflake.types import base, digits_of

if TYPE_CHECKING:
    import pyarrow as pa

_ROWS, _OFFSET = "_sb_rows", "_sb_offset_"
_MICROSECONDS = 6


@dataclass(frozen=True, slots=True)
class Reading:
    """How columns are read.

    Attributes:
        columns: The columns, with their types.
    """

    columns: Sequence[Column]

    @property
    def types(self) -> Mapping[str, str]:
        """A mapping from the name of each column to its type."""
        return {column.name: column.type for column in self.columns}

    def select(self, rows: exp.Query) -> exp.Query:
        """Return a SELECT of the same rows that loses nothing of their values."""
        offsets = [column for column in self.columns if _has_offset(column)]
        if not offsets and not any(map(_is_fine_time, self.columns)):
            return rows
        items: dict[str, exp.Expr] = {}
        for column in self.columns:
            value = terms.column(column.name)
            items[column.name] = _time_text(value) if _is_fine_time(column) else value
        for i, column in enumerate(offsets):
            offset = offset_of(terms.column(column.name))
            items[f"{_OFFSET}{i}"] = exp.Case().when(is_not_utc(offset), offset.copy())
        return exp.select(*terms.named(items)).from_(terms.subquery(rows.copy(), _ROWS))

    def exact(self, table: pa.Table) -> tuple[pa.Table, Mapping[str, Kind]]:
        """Return the rows with types that depend on the columns only, and what some values are, for `from_arrow`.

        Raises:
            ReadError: A TIMESTAMP_TZ has another offset than UTC's.
        """
        import pyarrow

        found: Any = pyarrow
        arrays: list[Any] = list(table.columns)
        names = table.column_names[: len(self.columns)]
        with_offset = [column for column in self.columns if _has_offset(column)]
        for column, offsets in zip(with_offset, arrays[len(names) :], strict=True):
            _check_offsets(column, offsets)
        made = [_array(array, column) for column, array in zip(self.columns, arrays, strict=False)]
        kinds: dict[str, Kind] = {}
        for name, column, array in zip(names, self.columns, made, strict=True):
            if base(column.type) == "NUMBER" and not digits_of(column.type)[1] and found.types.is_decimal(array.type):
                kinds[name] = "integer"
        return found.Table.from_arrays(made, names=names), kinds


def _has_offset(column: Column) -> bool:
    return base(column.type) == "TIMESTAMP_TZ"


def _is_fine_time(column: Column) -> bool:
    return base(column.type) == "TIME" and (digits_of(column.type) or (9,))[0] > _MICROSECONDS


def _time_text(value: exp.Expr) -> exp.Expr:
    return exp.func("TO_CHAR", value, terms.text("HH24:MI:SS.FF9"), dialect=DIALECT)


def _check_offsets(column: Column, offsets: Any) -> None:
    other = next((offset for offset in offsets.to_pylist() if offset is not None), None)
    if other is None:
        return
    raise ReadError(
        f"the column {column.name} ({column.type}) can't be read, because it has a time with the offset {other}, and a"
        f" frame would keep only the instant. Read a view with CONVERT_TIMEZONE('UTC', {column.name}) instead, or cast"
        ' it to TIMESTAMP_LTZ there; or name the other columns in the metadata "columns" of the input.',
        column=column.name,
        type=column.type,
    )


def _array(array: Any, column: Column) -> Any:
    """Return a column's values in the type of Arrow that its type has, as far as it depends on the values."""
    import pyarrow

    found: Any = pyarrow
    wanted = _arrow_type(column)
    if not len(array):
        # Without rows, the connector has types of its own, such as int64 for decimals.
        return found.chunked_array([], type=wanted)
    kind = base(column.type)
    if _is_fine_time(column):
        nanoseconds = [None if text is None else _nanoseconds(text) for text in array.to_pylist()]
        return found.chunked_array([found.array(nanoseconds, type=found.int64()).cast(wanted)])
    if kind == "NUMBER" and found.types.is_decimal(array.type):
        # A number of more than 64 bits makes decimals of a column of integers.
        return array.cast(found.decimal128(*digits_of(column.type)))
    return array.cast(wanted) if kind in ("NUMBER", "TIME") else array


def _arrow_type(column: Column) -> Any:
    import pyarrow

    found: Any = pyarrow
    sizes = digits_of(column.type)
    fine = "ns" if not sizes or sizes[0] > _MICROSECONDS else "us"
    match base(column.type):
        case "NUMBER":
            return found.decimal128(*sizes) if sizes[1] else found.int64()
        case "TIME":
            return found.time64(fine)
        case "TIMESTAMP_NTZ":
            return found.timestamp(fine)
        case "TIMESTAMP_LTZ" | "TIMESTAMP_TZ":
            return found.timestamp(fine, tz="UTC")
        case other:
            named = {"FLOAT": "float64", "BOOLEAN": "bool_", "DATE": "date32", "BINARY": "binary"}
            return getattr(found, named.get(other, "string"))()


def _nanoseconds(text: str) -> int:
    clock, _, fraction = text.partition(".")
    hours, minutes, seconds = map(int, clock.split(":"))
    return ((hours * 60 + minutes) * 60 + seconds) * 10**9 + int(fraction.ljust(9, "0"))


def out_of_range(columns: Sequence[Column], error: OverflowError) -> ReadError:
    """Return the error about times that the connector can't convert: finer than microseconds, and centuries away."""
    fine = [column for column in columns if base(column.type).startswith("TIMESTAMP")]
    named = ", ".join(f"{column.name} ({column.type})" for column in fine)
    first = fine[0] if fine else Column(name="", type="")
    return ReadError(
        f"one of the columns {named} can't be read, because it has a time before 1677 or after 2262 beside nanoseconds,"
        " which 64 bits don't hold. Read a view that casts it to 6 digits, as in TIMESTAMP_NTZ(6), or name the other"
        f' columns in the metadata "columns" of the input: {error}',
        column=first.name,
        type=first.type,
    )
