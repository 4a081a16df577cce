"""Snowflake's SQL as DuckDB's: fakesnow's transformations where they are true, and what they lack or get wrong.

Left out of fakesnow's are those that give up exactness: SUM as a float, and NUMBER(38,0) as a 64-bit integer.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import sqlglot
from fakesnow import macros as theirs
from fakesnow import transforms
from sqlglot import exp

from dagster_safe_backfill_tests.harness.snowflake import errors

Rule = Callable[[exp.Expression], exp.Expression]

TYPE = exp.DataType.Type

_MACROS = """
CREATE OR REPLACE TEMP MACRO _sf_canonical(x) AS
    CASE WHEN contains(typeof(x), 'INT') OR starts_with(typeof(x), 'DECIMAL') OR typeof(x) IN ('DOUBLE', 'FLOAT')
              OR (typeof(x) = 'JSON' AND regexp_full_match(x::VARCHAR, '-?[0-9]+([.][0-9]+)?'))
         THEN CASE WHEN contains(x::VARCHAR, '.')
                   THEN regexp_replace(rtrim(rtrim(x::VARCHAR, '0'), '.'), '^-?0?$', '0') ELSE x::VARCHAR END
         ELSE x::VARCHAR END;
CREATE OR REPLACE TEMP MACRO _sf_time_text(x) AS
    left(x::TIME_NS::VARCHAR || CASE WHEN contains(x::TIME_NS::VARCHAR, '.') THEN '' ELSE '.' END || '000000000', 18);
CREATE OR REPLACE TEMP MACRO _sf_typeof(x) AS
    CASE json_type(x::JSON) WHEN 'UBIGINT' THEN 'INTEGER' WHEN 'BIGINT' THEN 'INTEGER' WHEN 'HUGEINT' THEN 'INTEGER'
         WHEN 'NULL' THEN 'NULL_VALUE' ELSE json_type(x::JSON) END;
CREATE OR REPLACE TEMP MACRO _sf_signed(h) AS (h::HUGEINT - 9223372036854775808)::BIGINT;
CREATE OR REPLACE TEMP MACRO _sf_hash_agg(h) AS
    (coalesce(sum(h::HUGEINT), 0) % 18446744073709551616::HUGEINT - 9223372036854775808)::BIGINT;
CREATE OR REPLACE TEMP MACRO _sf_divided(a, b) AS CASE WHEN b = 0 THEN error('Division by zero') ELSE a / b END;
CREATE OR REPLACE TEMP MACRO _sf_timestamp(x) AS
    CASE WHEN contains(typeof(x), 'INT') OR starts_with(typeof(x), 'DECIMAL')
         THEN make_timestamp((TRY_CAST(x::VARCHAR AS DOUBLE) * 1000000)::BIGINT)
         ELSE TRY_CAST(x AS TIMESTAMP) END;
CREATE OR REPLACE TEMP MACRO _sf_instant(x) AS
    CASE WHEN contains(typeof(x), 'INT') OR starts_with(typeof(x), 'DECIMAL')
         THEN to_timestamp(TRY_CAST(x::VARCHAR AS DOUBLE)) ELSE TRY_CAST(x AS TIMESTAMPTZ) END;
"""


def macros() -> str:
    """Return what makes the macros of a session; a temporary one is found whatever schema is the current one."""
    return _MACROS + theirs.creation_sql("temp").replace("MACRO temp.", "TEMP MACRO ")


_PLAIN = {
    **dict.fromkeys((TYPE.INT, TYPE.BIGINT, TYPE.SMALLINT, TYPE.TINYINT, TYPE.MEDIUMINT), TYPE.BIGINT),
    **dict.fromkeys((TYPE.TIMESTAMPNTZ, TYPE.TIMESTAMP), TYPE.TIMESTAMP),
    TYPE.TIMESTAMPLTZ: TYPE.TIMESTAMPTZ,
    **dict.fromkeys((TYPE.VARCHAR, TYPE.TEXT, TYPE.CHAR, TYPE.NCHAR, TYPE.NVARCHAR), TYPE.VARCHAR),
    **dict.fromkeys((TYPE.BINARY, TYPE.VARBINARY), TYPE.BLOB),
}


def _types(node: exp.Expression) -> exp.Expression:
    """NUMBER is NUMBER(38,0), which only DuckDB's HUGEINT holds; the integers are that too, but 64 bits serve."""
    if not isinstance(node, exp.DataType):
        return node
    if node.this == TYPE.DECIMAL:
        precision = [param.name for param in node.expressions]
        if precision in ([], ["38"], ["38", "0"]):
            return exp.DataType(this=TYPE.INT128, nested=False)
        if len(precision) == 1:
            node.append("expressions", exp.DataTypeParam(this=exp.Literal.number(0)))
    if node.this == TYPE.TIME:
        return exp.DataType.build("TIME_NS", dialect="duckdb", udt=True)
    return exp.DataType(this=_PLAIN[node.this], nested=False) if node.this in _PLAIN else node


_FORMATS = {
    "YYYY": "%Y",
    "MM": "%m",
    "DD": "%d",
    "HH24": "%H",
    "MI": "%M",
    "SS": "%S",
    "FF6": "%f",
    # Sessions show instants in UTC here, so all have that offset; strftime would shorten it.
    "FF3": "%g",
    "TZHTZM": "+0000",
}


def _formatted(node: exp.Expression) -> exp.Expression:
    """TO_CHAR of a time with a format."""
    written = node.args.get("format")
    if not isinstance(node, exp.ToChar) or not isinstance(written, exp.Literal):
        return node
    if written.name.upper() == "HH24:MI:SS.FF9":
        return exp.Anonymous(this="_sf_time_text", expressions=[node.this])
    pattern = re.sub("|".join(_FORMATS), lambda found: _FORMATS[found[0]], written.name.upper()).replace('"', "")
    return exp.Anonymous(this="strftime", expressions=[node.this, exp.Literal.string(pattern)])


def collation(specification: str) -> str | None:
    """Return DuckDB's name of a collation, or None if the texts are compared by their bytes.

    A locale alone changes the order only. What ignores punctuation or blanks, DuckDB hasn't.
    """
    parts = specification.lower().split("-")
    if {"pi", "trim", "ltrim", "rtrim"}.intersection(parts):
        raise errors.unsupported(f"the collation {specification} in the emulator")
    known = [name for name, marks in _COLLATIONS.items() if marks.intersection(parts)]
    return ".".join(known) or None


_COLLATIONS = {"NOCASE": {"ci", "upper", "lower"}, "NOACCENT": {"ai"}}


def _collated(node: exp.Expression) -> exp.Expression:
    """COLLATE(x, 'utf8') compares bytes, whatever the column does."""
    if not isinstance(node, exp.Collate) or not isinstance(node.expression, exp.Literal):
        return node
    return exp.paren(exp.Collate(this=node.this, expression=exp.Var(this=collation(node.expression.name) or "C")))


def _typeof(node: exp.Expression) -> exp.Expression:
    """TYPEOF is of what a VARIANT holds."""
    return exp.Anonymous(this="_sf_typeof", expressions=[node.this]) if isinstance(node, exp.Typeof) else node


def _division(node: exp.Expression) -> exp.Expression:
    """A division by zero is an error, not infinity."""
    if isinstance(node, exp.Div):
        return exp.Anonymous(this="_sf_divided", expressions=[node.left.copy(), node.right.copy()])
    return node


def _hash(node: exp.Expression) -> exp.Expression:
    """HASH is signed, tells a NULL from the rest, and is the same for equal numbers of different types."""
    is_aggregate = isinstance(node, exp.HashAgg)
    if not is_aggregate and not (isinstance(node, exp.Anonymous) and node.name.upper() == "HASH"):
        return node
    given = [node.this, *node.expressions] if is_aggregate else node.expressions
    if len(given) == 1 and given[0].is_star:
        arguments: list[exp.Expression] = [exp.Var(this="*COLUMNS(*)")]
    else:
        arguments = [exp.Anonymous(this="_sf_canonical", expressions=[argument.copy()]) for argument in given]
    hashed = exp.Anonymous(this="hash", expressions=arguments)
    # HASH_AGG counts duplicates, and doesn't depend on the order.
    return exp.Anonymous(this="_sf_hash_agg" if is_aggregate else "_sf_signed", expressions=[hashed])


def _timestamps(node: exp.Expression) -> exp.Expression:
    """TO_TIMESTAMP_NTZ and its kin, of a number of seconds or of what can be cast."""
    if isinstance(node, exp.UnixToTime) and not node.args.get("scale"):
        return exp.cast(exp.Anonymous(this="_sf_timestamp", expressions=[node.this]), "TIMESTAMP")
    if not isinstance(node, exp.Anonymous):
        return node
    name = node.name.upper().removeprefix("TRY_")
    if name in {"TO_TIMESTAMP", "TO_TIMESTAMP_NTZ"} and len(node.expressions) == 1:
        return exp.Anonymous(this="_sf_timestamp", expressions=node.expressions)
    if name in {"TO_TIMESTAMP_LTZ", "TO_TIMESTAMP_TZ"} and len(node.expressions) == 1:
        return exp.Anonymous(this="_sf_instant", expressions=node.expressions)
    return node


def context_functions(values: dict[str, Any]) -> Rule:
    """CURRENT_SESSION() and the like as what they are in this session."""

    def rule(node: exp.Expression) -> exp.Expression:
        name = ""
        if isinstance(node, exp.Anonymous) and not node.expressions:
            name = node.name.upper()
        elif isinstance(node, exp.Func) and not isinstance(node, exp.Cast):
            name = node.sql_names()[0] if node.sql_names() else ""
        return exp.convert(values[name]) if name in values else node

    return rule


# fakesnow's rules in fakesnow's order, each with the nodes that it is about, so that a statement of many literals
# isn't walked thirty times.
_RULES: tuple[tuple[Any, tuple[type, ...]], ...] = (
    (transforms.semi_structured_types, (exp.DataType,)),
    (transforms.try_parse_json, (exp.Anonymous,)),
    (transforms.split, (exp.Split,)),
    (transforms.trim_cast_varchar, (exp.Trim,)),
    (transforms.indices_to_json_extract, (exp.Bracket,)),
    (transforms.json_extract_cast_as_varchar, (exp.JSONExtract,)),
    (transforms.json_extract_cased_as_varchar, (exp.JSONExtract,)),
    (transforms.json_extract_precedence, (exp.JSONExtract, exp.JSONExtractScalar)),
    (transforms.flatten_value_cast_as_varchar, (exp.Explode,)),
    (transforms.flatten, (exp.Explode,)),
    (transforms.regex_replace, (exp.RegexpReplace,)),
    (transforms.regex_substr, (exp.RegexpExtract,)),
    (transforms.values_columns, (exp.Values,)),
    (transforms.to_date, (exp.Anonymous,)),
    (transforms.timestamp_offsets, (exp.Cast,)),
    (transforms.to_decimal, (exp.ToNumber,)),
    (_timestamps, (exp.UnixToTime, exp.Anonymous)),
    (transforms.to_variant, (exp.ToVariant,)),
    (transforms.object_construct, (exp.StarMap, exp.Struct, exp.JSONObject)),
    (transforms.float_to_double, (exp.DataType,)),
    (_types, (exp.DataType,)),
    (transforms.sample, (exp.TableSample,)),
    (transforms.array_size, (exp.ArraySize,)),
    (transforms.random, (exp.Rand,)),
    (transforms.array_agg_within_group, (exp.WithinGroup,)),
    (transforms.array_agg, (exp.ArrayAgg,)),
    (transforms.object_agg, (exp.ObjectAgg,)),
    (transforms.array_construct_etc, (exp.Array, exp.ArrayConcat, exp.ArrayConstructCompact)),
    (transforms.dateadd_date_cast, (exp.DateAdd,)),
    (transforms.dateadd_string_literal_timestamp_cast, (exp.DateAdd,)),
    (transforms.datediff_string_literal_timestamp_cast, (exp.DateDiff,)),
    (transforms.hex_string, (exp.HexString,)),
    (transforms.sha256, (exp.SHA2, exp.SHA2Digest, exp.Anonymous)),
    (_division, (exp.Div,)),
    (_formatted, (exp.ToChar,)),
    (_collated, (exp.Collate,)),
    (_typeof, (exp.Typeof,)),
    (_hash, (exp.Anonymous, exp.HashAgg)),
)


_LITERAL = r"(?:-?\d+(?:\.\d+)?|'(?:[^'\\]|'')*'|CAST\('[^'\\]*' AS \w+\)|DATE '[^'\\]*'|'[^'\\]*'::\w+)"
_VALUE = rf"(?:NULL|{_LITERAL})"
_ROWS = re.compile(rf"(?<=\bVALUES )\({_VALUE}(?:, {_VALUE})*\)(?:, \({_VALUE}(?:, {_VALUE})*\))*$")
_LONG_LIST = re.compile(rf"\(\s*{_LITERAL}(?:\s*,\s*{_LITERAL}){{200,}}\s*\)", re.IGNORECASE)


def shortened(sql: str) -> tuple[str, list[str], int]:
    """Return a statement with a mark for each long list of literals, and for the rows of an INSERT of literals.

    And the lists, as parsing them takes seconds, and the length of the longest.
    """
    lists: list[str] = []
    lengths = [0]

    def mark(found: re.Match[str]) -> str:
        lists.append(found[0])
        lengths.append(found[0].count("), (" if found.re is _ROWS else ",") + 1)
        return f"('_sf_list_{len(lists) - 1}')"

    if sql.startswith("INSERT"):
        sql = _ROWS.sub(mark, sql)
    return _LONG_LIST.sub(mark, sql), lists, max(lengths)


def lengthened(sql: str, lists: list[str]) -> str:
    """Put the lists back."""
    return re.sub(r"\('_sf_list_(\d+)'\)", lambda found: lists[int(found[1])], sql) if lists else sql


def to_duckdb(tree: exp.Expression, values: dict[str, Any]) -> str:
    """Return DuckDB's text of a statement whose names are resolved already; the tree is used up."""
    present = {type(node) for node in tree.walk()}
    for rule, about in _RULES:
        if present.intersection(about) or any(issubclass(kind, about) for kind in present):
            tree = tree.transform(rule, copy=False)
    if present & {exp.Anonymous} or any(issubclass(kind, exp.Func) for kind in present):
        tree = tree.transform(context_functions(values), copy=False)
    try:
        return tree.sql(dialect="duckdb", unsupported_level=sqlglot.ErrorLevel.RAISE, copy=False)
    except sqlglot.UnsupportedError as error:
        raise errors.unsupported(f"{error} in the emulator") from error


def fold_identifiers(identifiers: list[exp.Identifier]) -> None:
    """Unquoted identifiers are upper-case; all are quoted from here on."""
    for node in identifiers:
        if not node.args.get("quoted") and isinstance(node.this, str):
            node.set("this", node.this.upper())
        node.set("quoted", True)
