"""Snowflake's types, as this library spells them."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pyarrow as pa

UNTYPED = '"NULL"'
"""The type of a frame's column that holds only NULL."""

BYTES = "utf8"
"""The collation that compares texts by their bytes, as texts without a collation are."""

DIGITS = 38
"""The most digits of a NUMBER."""
# Times have nanoseconds by default. https://docs.snowflake.com/en/sql-reference/data-types-datetime
_FRACTIONS = 9
# A VARCHAR without a length is described with the default length (16 MB) or with the largest one (128 MB).
# https://docs.snowflake.com/en/sql-reference/data-types-text
_LONGEST_TEXTS = (None, 16_777_216, 134_217_728)


def spelled(kind: str, *, length: int | None, precision: int | None, scale: int | None) -> str:
    """Return a type as this library spells it, from the driver's description of a column."""
    match kind:
        case "FIXED":
            return f"NUMBER({precision or DIGITS},{scale or 0})"
        case "REAL":
            return "FLOAT"
        case "TEXT":
            return "VARCHAR" if length in _LONGEST_TEXTS else f"VARCHAR({length})"
        case "TIMESTAMP_NTZ" | "TIMESTAMP_LTZ" | "TIMESTAMP_TZ" | "TIME":
            return kind if scale in (None, _FRACTIONS) else f"{kind}({scale})"
        case _:
            return kind


_DESCRIBED = re.compile(r"(?P<name>\w+)(?:\((?P<sizes>[\d, ]+)\))?.*?(?: COLLATE '(?P<collation>.*)')?$", re.DOTALL)
_KINDS = {"NUMBER": "FIXED", "VARCHAR": "TEXT", "FLOAT": "REAL"}


def described(text: str) -> tuple[str, str | None]:
    """Return a type as this library spells it, and its collation, from the text of DESCRIBE TABLE.

    The collation is None if texts are compared by their bytes.
    """
    found = _DESCRIBED.match(text)
    if found is None:
        return text, None
    first, second, *_ = [
        *map(int, (found["sizes"] or "").replace(" ", "").split(",") if found["sizes"] else ()),
        None,
        None,
    ]
    kind = _KINDS.get(found["name"], found["name"])
    scale = second if kind == "FIXED" else first
    collation = found["collation"] or ""
    return spelled(kind, length=first, precision=first, scale=scale), None if collation in ("", BYTES) else collation


def of_arrow(kind: pa.DataType) -> str | None:
    """Return the type of a column for values of an Arrow type, or None if Snowflake has no such type."""
    import pyarrow as pa

    types = pa.types
    if types.is_dictionary(kind):
        return of_arrow(kind.value_type)
    if types.is_decimal(kind):
        return f"NUMBER({kind.precision},{kind.scale})" if kind.precision <= DIGITS and kind.scale >= 0 else None
    if types.is_timestamp(kind):
        return "TIMESTAMP_NTZ" if kind.tz is None else "TIMESTAMP_TZ"
    named: list[tuple[Any, str]] = [
        (types.is_null, "VARCHAR"),
        (types.is_integer, f"NUMBER({DIGITS},0)"),
        (types.is_floating, "FLOAT"),
        (types.is_boolean, "BOOLEAN"),
        (types.is_string, "VARCHAR"),
        (types.is_large_string, "VARCHAR"),
        (types.is_string_view, "VARCHAR"),
        (types.is_date, "DATE"),
        (types.is_time, "TIME"),
        (types.is_binary, "BINARY"),
        (types.is_large_binary, "BINARY"),
        (types.is_binary_view, "BINARY"),
        (types.is_fixed_size_binary, "BINARY"),
        (types.is_list, "ARRAY"),
        (types.is_large_list, "ARRAY"),
        (types.is_fixed_size_list, "ARRAY"),
        (types.is_struct, "OBJECT"),
        (types.is_map, "OBJECT"),
    ]
    return next((name for is_one, name in named if is_one(kind)), None)


def digits_of(type_name: str) -> tuple[int, ...]:
    """Return the numbers in the parentheses of a type: NUMBER(10,2) has 10 and 2."""
    return tuple(map(int, re.findall(r"\d+", type_name.partition("(")[2])))


def base(type_name: str) -> str:
    """Return a type without its parameters: NUMBER(10,2) is NUMBER."""
    return type_name.partition("(")[0]
