"""Snowflake's SQL: hashes, types, which types fit into which, and the values that a cast loses."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from sqlglot import exp

from dagster_safe_backfill.model.slices import ColumnType
from dagster_safe_backfill.model.tables import Column
from dagster_safe_backfill.sql import terms
from dagster_safe_backfill.sql.dialect import Dialect, Fit
from dagster_safe_backfill.warehouses.snowflake.generator import DIALECT
from dagster_safe_backfill.warehouses.snowflake.types import BYTES, DIGITS, UNTYPED, base, digits_of, spelled

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
"""A mapping from each of the driver's types to sqlglot's types for its synonyms."""
_TRIED = {
    *(_TYPES.VARCHAR, _TYPES.TEXT, _TYPES.BOOLEAN, _TYPES.DATE, _TYPES.TIME),
    *(_TYPES.TIMESTAMP, _TYPES.TIMESTAMPNTZ, _TYPES.TIMESTAMPLTZ, _TYPES.TIMESTAMPTZ),
}
"""The types besides numbers that TRY_CAST takes: https://docs.snowflake.com/en/sql-reference/functions/try_cast"""


class SnowflakeDialect(Dialect):
    """Snowflake's SQL, as `SafeSnowflake` generates it."""

    name = DIALECT
    # https://docs.snowflake.com/en/sql-reference/identifiers
    longest_name = 255
    widest_integer = "NUMBER(38,0)"
    known_values = (
        *("1", "CAST(1.25 AS NUMBER(18, 3))", "CAST(2.5 AS FLOAT)", "TRUE", "'a text'", "CAST('2024-02-29' AS DATE)"),
        *("CAST('12:34:56' AS TIME)", "CAST('2024-02-29 12:34:56' AS TIMESTAMP_NTZ)", "NULL"),
    )

    def row_hash(self, values: Sequence[exp.Expr], *, rare: Sequence[exp.Expr] = ()) -> exp.Expr:
        """See `Dialect.row_hash`."""
        if not rare:
            return _hashed(values)
        others = exp.Case().when(terms.is_any_rare(rare), _hashed(rare)).else_(terms.number(0))
        return exp.Add(this=_hashed(values), expression=others)

    def exact(self, value: exp.Expr, column: Column) -> Sequence[exp.Expr]:
        """See `Dialect.exact`."""
        if column.collation is not None:
            # Both sides of a comparison say it, so that two columns with different collations can be compared, too.
            # https://docs.snowflake.com/en/sql-reference/functions/collate
            return (without_collation(value),)
        match base(column.type):
            case "FLOAT":
                return (value, _text_where(_is_negative_zero(value), terms.text("-")))
            case "TIMESTAMP_TZ":
                # Equal instants with different offsets are equal.
                # https://docs.snowflake.com/en/sql-reference/data-types-datetime
                offset = offset_of(value)
                is_other = exp.and_(exp.not_(exp.Is(this=value.copy(), expression=exp.Null())), is_not_utc(offset))
                return (value, _text_where(is_other, offset.copy()))
            case "VARIANT" | "OBJECT" | "ARRAY" | "MAP":
                return (_content(value),)
            case _:
                return (value,)

    def is_overwritten(self, column: Column) -> bool:
        """See `Dialect.is_overwritten`."""
        # The documentation doesn't say what becomes of a -0.0 that is written over 0.0.
        return column.collation is not None or base(column.type) != "FLOAT"

    def found(self, rows: exp.Select, there: Sequence[exp.Expr], here: Sequence[exp.Expr]) -> exp.Expr:
        """See `Dialect.found`."""
        return terms.looked_up(rows, there, here)

    def fit(self, *, source: str, target: str) -> Fit:
        """See `Dialect.fit`."""
        if source == target:
            return "same"
        if source == UNTYPED:
            return "if_unchanged"
        alike = any(base(source) in family and base(target) in family for family in _FAMILIES)
        return "if_unchanged" if alike else "never"

    def is_lost(self, value: exp.Expr, *, source: str, target: str) -> exp.Expr:
        """See `Dialect.is_lost`."""
        # TRY_CAST accepts only texts. All other conditions must be written so that no cast in them fails.
        # https://docs.snowflake.com/en/sql-reference/functions/try_cast
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
                return _is_longer(value, digits_of(target))
            case _:
                there = terms.typed(value, target, dialect=DIALECT)
                return exp.NEQ(this=terms.typed(there, source, dialect=DIALECT), expression=value.copy())

    def created_as(self, source: str) -> str | None:
        """See `Dialect.created_as`."""
        match base(source):
            case '"NULL"':
                return None
            # A literal or a count has a type that is only wide enough for today's values, for example NUMBER(1,0).
            case "NUMBER":
                return f"NUMBER({DIGITS},{_scale(source)})"
            case "VARCHAR" | "BINARY" | "TIMESTAMP_NTZ" | "TIMESTAMP_LTZ" | "TIMESTAMP_TZ" | "TIME":
                return base(source)
            case _:
                return source

    def keeps(self, type_name: str) -> ColumnType | Literal["text", "other"]:
        """See `Dialect.keeps`."""
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

    def tried(self, value: exp.Expr, to: exp.DataType) -> exp.Expr:
        """See `Dialect.tried`."""
        if to.this not in _TRIED and to.this not in exp.DataType.NUMERIC_TYPES:
            return exp.cast(value, to)
        # Without `requires_string`, sqlglot writes a CAST, as it doesn't know that the value is a text.
        return exp.TryCast(this=value, to=to, requires_string=True)

    def is_type(self, type_name: str, wanted: str) -> bool:
        """See `Dialect.is_type`."""
        return plain(type_name) == plain(wanted)


def without_collation(value: exp.Expr) -> exp.Expr:
    """Return a text that is compared by its bytes."""
    return exp.Anonymous(this="COLLATE", expressions=[value, terms.text(BYTES)])


def _text_where(condition: exp.Expr, text: exp.Expr) -> exp.Expr:
    return exp.Case().when(condition, text).else_(terms.text(""))


def _is_negative_zero(value: exp.Expr) -> exp.Expr:
    # HASH is the same for both zeros, and the documentation doesn't say how a zero is shown as text. The arc tangent
    # of IEEE 754 tells them apart.
    shown = exp.cast(value.copy(), _TYPES.VARCHAR)
    is_below = exp.LT(this=exp.func("ATAN2", value.copy(), terms.number(-1)), expression=terms.number(0))
    sign = exp.or_(exp.func("STARTSWITH", shown, terms.text("-")), is_below)
    return exp.and_(value.copy().eq(0), exp.paren(sign))


def offset_of(value: exp.Expr) -> exp.Expr:
    """Return the offset of a TIMESTAMP_TZ as a text, such as +0200."""
    return exp.func("TO_CHAR", value.copy(), terms.text("TZHTZM"), dialect=DIALECT)


def is_not_utc(offset: exp.Expr) -> exp.Expr:
    """Return a condition that is true if an offset isn't UTC's."""
    return exp.NEQ(this=offset.copy(), expression=terms.text("+0000"))


def _content(value: exp.Expr) -> exp.Expr:
    """Return a semi-structured value as a text that is NULL only for NULL.

    It has the value's type, because the JSON of a date and of a text are alike; its hash, which is another one for a
    date than for a text within an object; and its JSON, because equal numbers have equal hashes.
    https://docs.snowflake.com/en/sql-reference/functions/hash
    """
    variant = exp.cast(value.copy(), _TYPES.VARIANT)
    parts = [
        exp.func("TYPEOF", variant, dialect=DIALECT),
        exp.cast(exp.func("HASH", variant.copy(), dialect=DIALECT), _TYPES.VARCHAR),
        # The documentation leaves open whether the JSON of a JSON null is NULL.
        exp.Coalesce(this=exp.func("TO_JSON", variant.copy(), dialect=DIALECT), expressions=[terms.text("")]),
    ]
    first, *others = parts
    text: exp.Expr = first
    for part in others:
        text = exp.DPipe(this=exp.DPipe(this=text, expression=terms.text(" ")), expression=part)
    return text


def _hashed(values: Sequence[exp.Expr]) -> exp.Expr:
    # HASH returns a signed integer of 64 bits. Adding 2**63 makes it non-negative, and NUMBER(38,0) holds the sums.
    # https://docs.snowflake.com/en/sql-reference/functions/hash
    signed = terms.typed(exp.func("HASH", *values, dialect=DIALECT), "NUMBER(38,0)", dialect=DIALECT)
    return exp.Add(this=signed, expression=exp.Literal.number(2**63))


def plain(type_name: str) -> str:
    """Return a type as this library spells it, for any name that Snowflake has for it."""
    found = terms.data_type(type_name, dialect=DIALECT)
    kind = next((kind for kind, synonyms in _SYNONYMS.items() if found.this in synonyms), None)
    if kind is None:
        return found.sql(dialect=DIALECT)
    first, second, *_ = [*(int(size.name) for size in found.expressions), None, None]
    # CHAR without a length is VARCHAR(1). https://docs.snowflake.com/en/sql-reference/data-types-text
    length = first or (1 if found.this in (_TYPES.CHAR, _TYPES.NCHAR) else None)
    return spelled(kind, length=length, precision=first, scale=second if kind == "FIXED" else first)


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
    # In digits: compared with a float such as 1e16, the number 9999999999999999.99 would be rounded to it.
    digits = precision - scale
    limit = "1" + "0" * digits if digits < DIGITS else f"1e{digits}"
    too_large = exp.GTE(this=exp.Abs(this=_round(value, scale)), expression=exp.Literal.number(limit))
    if base(source) == "NUMBER" and _precision(source) - _scale(source) <= precision - scale:
        too_large = exp.false()
    changed = exp.NEQ(this=_round(value, scale), expression=value.copy())
    if base(source) == "FLOAT":
        # A number has no -0.0.
        changed = exp.or_(changed, _is_negative_zero(value))
    # NaN needs no condition: in Snowflake it equals itself and is larger than any number, so it counts as too large.
    return exp.or_(too_large, changed)


def _is_lost_in_float(value: exp.Expr, *, source: str) -> exp.Expr:
    """Return a condition that is true if a large integer isn't equal to the float that is nearest to it."""
    if base(source) == "FLOAT":
        return exp.false()
    there = exp.cast(value.copy(), exp.DataType.Type.DOUBLE)
    is_large = exp.GT(this=exp.Abs(this=value.copy()), expression=terms.number(int(_WIDEST_EXACT)))
    # Only large integers are compared. Most decimal fractions have no exact float, and users expect them to be rounded.
    back = terms.typed(there, f"NUMBER({DIGITS},0)", dialect=DIALECT)
    return exp.and_(is_large, exp.NEQ(this=back, expression=value.copy()))


def _round(value: exp.Expr, scale: int) -> exp.Expr:
    return exp.func("ROUND", value.copy(), terms.number(scale), dialect=DIALECT)


def _precision(type_name: str) -> int:
    return (digits_of(type_name) or (DIGITS,))[0]


def _scale(type_name: str) -> int:
    return [*digits_of(type_name), 0, 0][1]
