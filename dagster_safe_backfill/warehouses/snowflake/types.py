"""Snowflake's types: how they are spelled, what goes into what, and what a cast would lose."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

from sqlglot import exp

from dagster_safe_backfill.model.slices import ColumnType
from dagster_safe_backfill.sql import terms
from dagster_safe_backfill.warehouses.base import Fit
from dagster_safe_backfill.warehouses.snowflake.dialect import DIALECT

if TYPE_CHECKING:
    import pyarrow as pa

UNTYPED = '"NULL"'
"""The type of a frame's column that holds nothing but NULL."""

_DIGITS = 38
_FRACTIONS = 9
_LONGEST_TEXTS = (None, 16_777_216, 134_217_728)
_INSTANTS = ("TIMESTAMP_LTZ", "TIMESTAMP_TZ")
_FAMILIES = (("NUMBER", "FLOAT"), ("DATE", "TIMESTAMP_NTZ"), _INSTANTS, ("VARCHAR",), ("BINARY",), ("TIME",))
_WIDEST_EXACT = 2.0**53
_TYPES = exp.DataType.Type
_SYNONYMS = {
    "FIXED": (_TYPES.DECIMAL, _TYPES.INT, _TYPES.BIGINT, _TYPES.SMALLINT, _TYPES.TINYINT, _TYPES.INT128),
    "REAL": (_TYPES.FLOAT, _TYPES.DOUBLE),
    "TEXT": (_TYPES.VARCHAR, _TYPES.TEXT, _TYPES.CHAR, _TYPES.NCHAR, _TYPES.NVARCHAR),
    "BINARY": (_TYPES.BINARY, _TYPES.VARBINARY),
    "TIMESTAMP_NTZ": (_TYPES.TIMESTAMPNTZ, _TYPES.TIMESTAMP, _TYPES.DATETIME),
    "TIMESTAMP_LTZ": (_TYPES.TIMESTAMPLTZ,),
    "TIMESTAMP_TZ": (_TYPES.TIMESTAMPTZ,),
    "TIME": (_TYPES.TIME,),
}
"""sqlglot's types of each of the driver's."""


def spelled(kind: str, *, length: int | None, precision: int | None, scale: int | None) -> str:
    """Return a type as this library spells it, from what the driver says of a column."""
    match kind:
        case "FIXED":
            return f"NUMBER({precision or _DIGITS},{scale or 0})"
        case "REAL":
            return "FLOAT"
        case "TEXT":
            return "VARCHAR" if length in _LONGEST_TEXTS else f"VARCHAR({length})"
        case "TIMESTAMP_NTZ" | "TIMESTAMP_LTZ" | "TIMESTAMP_TZ" | "TIME":
            return kind if scale in (None, _FRACTIONS) else f"{kind}({scale})"
        case _:
            return kind


def plain(type_name: str) -> str:
    """Return a type as this library spells it, of whatever name Snowflake takes for it."""
    found = terms.data_type(type_name, dialect=DIALECT)
    kind = next((kind for kind, synonyms in _SYNONYMS.items() if found.this in synonyms), None)
    if kind is None:
        return found.sql(dialect=DIALECT)
    first, second, *_ = [*(int(size.name) for size in found.expressions), None, None]
    length = first or (1 if found.this in (_TYPES.CHAR, _TYPES.NCHAR) else None)
    return spelled(kind, length=length, precision=first, scale=second if kind == "FIXED" else first)


def of_arrow(kind: pa.DataType) -> str | None:
    """Return the type of a column for Arrow's values; None if they have none here."""
    import pyarrow as pa

    types = pa.types
    if types.is_dictionary(kind):
        return of_arrow(kind.value_type)
    if types.is_decimal(kind):
        return f"NUMBER({kind.precision},{kind.scale})" if kind.precision <= _DIGITS and kind.scale >= 0 else None
    if types.is_timestamp(kind):
        return "TIMESTAMP_NTZ" if kind.tz is None else "TIMESTAMP_TZ"
    named: list[tuple[Any, str]] = [
        (types.is_null, "VARCHAR"),
        (types.is_integer, f"NUMBER({_DIGITS},0)"),
        (types.is_floating, "FLOAT"),
        (types.is_boolean, "BOOLEAN"),
        (types.is_string, "VARCHAR"),
        (types.is_large_string, "VARCHAR"),
        (types.is_string_view, "VARCHAR"),
        (types.is_date, "DATE"),
        (types.is_time, "TIME"),
        (types.is_binary, "BINARY"),
        (types.is_large_binary, "BINARY"),
        (types.is_fixed_size_binary, "BINARY"),
        (types.is_list, "ARRAY"),
        (types.is_large_list, "ARRAY"),
        (types.is_fixed_size_list, "ARRAY"),
        (types.is_struct, "OBJECT"),
        (types.is_map, "OBJECT"),
    ]
    return next((name for is_one, name in named if is_one(kind)), None)


def base(type_name: str) -> str:
    """Return a type without its parameters: NUMBER(10,2) is NUMBER."""
    return type_name.partition("(")[0]


def fit(*, source: str, target: str) -> Fit:
    """See `Connection.fit`."""
    if source == target:
        return "same"
    if source == UNTYPED:
        return "if_unchanged"
    alike = any(base(source) in family and base(target) in family for family in _FAMILIES)
    return "if_unchanged" if alike else "never"


def created_as(source: str) -> str | None:
    """See `Connection.created_as`. The type of a literal or a count is just wide enough for those of today."""
    match base(source):
        case '"NULL"':
            return None
        case "NUMBER":
            return f"NUMBER({_DIGITS},{_scale(source)})"
        case "VARCHAR" | "BINARY" | "TIMESTAMP_NTZ" | "TIMESTAMP_LTZ" | "TIMESTAMP_TZ" | "TIME":
            return base(source)
        case _:
            return source


def keeps(type_name: str) -> ColumnType | Literal["text", "other"]:
    """See `Connection.keeps`."""
    match base(type_name):
        case "DATE":
            return "date"
        case "TIMESTAMP_NTZ":
            return "timestamp"
        case "TIMESTAMP_LTZ" | "TIMESTAMP_TZ":
            return "timestamptz"
        case "VARCHAR":
            return "text"
        case _:
            return "other"


def is_lost(value: exp.Expr, *, source: str, target: str) -> exp.Expr:
    """See `Connection.is_lost`. Snowflake's TRY_CAST takes nothing but text, so that no cast may fail here."""
    if source == UNTYPED:
        return exp.false()
    if base(source) == "VARCHAR" and base(target) != "VARCHAR":
        return _is_lost_of_text(value, target=target)
    match base(target):
        case "NUMBER":
            return _is_lost_in_number(value, source=source, target=target)
        case "FLOAT":
            return _is_lost_in_float(value, source=source)
        case "VARCHAR" | "BINARY":
            return _is_longer(value, _parameters(target))
        case _:
            there = terms.typed(value, target, dialect=DIALECT)
            return exp.NEQ(this=terms.typed(there, source, dialect=DIALECT), expression=value.copy())


def _is_lost_of_text(value: exp.Expr, *, target: str) -> exp.Expr:
    tried = exp.TryCast(this=value.copy(), to=terms.data_type(target, dialect=DIALECT))
    is_given = exp.not_(exp.Is(this=value.copy(), expression=exp.Null()))
    return exp.and_(is_given, exp.Is(this=tried, expression=exp.Null()))


def _is_longer(value: exp.Expr, longest: Sequence[int]) -> exp.Expr:
    if not longest:
        return exp.false()
    return exp.GT(this=exp.func("LENGTH", value, dialect=DIALECT), expression=terms.number(longest[0]))


def _is_lost_in_number(value: exp.Expr, *, source: str, target: str) -> exp.Expr:
    precision, scale = _precision(target), _scale(target)
    too_large = exp.GTE(
        this=exp.Abs(this=_round(value, scale)), expression=exp.Literal.number(f"1e{precision - scale}")
    )
    if base(source) == "NUMBER" and _precision(source) - _scale(source) <= precision - scale:
        too_large = exp.false()
    changed = exp.NEQ(this=_round(value, scale), expression=value.copy())
    # NaN equals itself here, and is larger than any number.
    return exp.or_(too_large, changed)


def _is_lost_in_float(value: exp.Expr, *, source: str) -> exp.Expr:
    """Return whether a number isn't the float that is nearest to it, as far as both are exact."""
    if base(source) == "FLOAT":
        return exp.false()
    there = exp.cast(value.copy(), exp.DataType.Type.DOUBLE)
    is_large = exp.GT(this=exp.Abs(this=value.copy()), expression=terms.number(int(_WIDEST_EXACT)))
    # Large integers only: what has a fraction is not exact as a float, and is meant to be none.
    back = terms.typed(there, f"NUMBER({_DIGITS},0)", dialect=DIALECT)
    return exp.and_(is_large, exp.NEQ(this=back, expression=value.copy()))


def _round(value: exp.Expr, scale: int) -> exp.Expr:
    return exp.func("ROUND", value.copy(), terms.number(scale), dialect=DIALECT)


def _parameters(type_name: str) -> list[int]:
    return [int(number) for number in re.findall(r"\d+", type_name.partition("(")[2])]


def _precision(type_name: str) -> int:
    return (_parameters(type_name) or [_DIGITS])[0]


def _scale(type_name: str) -> int:
    return [*_parameters(type_name), 0, 0][1]
