"""What session parameters that aren't the defaults do to a statement. Implicit casts of texts are left out."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

import pyarrow as pa
from sqlglot import exp

from dagster_safe_backfill_tests.harness.snowflake import refusals

MACROS = """
CREATE OR REPLACE TEMP MACRO _sf_read(x, form, plain) AS
    CASE WHEN typeof(x) = 'VARCHAR' THEN strptime(CAST(x AS VARCHAR), form)
         ELSE TRY_CAST(CAST(plain AS VARCHAR) AS TIMESTAMP) END;
CREATE OR REPLACE TEMP MACRO _sf_shown(x, day_form, time_form) AS
    CASE WHEN typeof(x) = 'DATE' THEN strftime(TRY_CAST(CAST(x AS VARCHAR) AS DATE), day_form)
         WHEN starts_with(typeof(x), 'TIMESTAMP') THEN strftime(TRY_CAST(CAST(x AS VARCHAR) AS TIMESTAMP), time_form)
         ELSE CAST(x AS VARCHAR) END;
"""
_TYPE = exp.DataType.Type
_TIMES = (_TYPE.TIMESTAMP, _TYPE.TIMESTAMPNTZ, _TYPE.TIMESTAMPLTZ, _TYPE.TIMESTAMPTZ)
_TEXTS = (_TYPE.VARCHAR, _TYPE.TEXT)
_PARTS = {"YYYY": "%Y", "MM": "%m", "DD": "%d", "HH24": "%H", "MI": "%M", "SS": "%S"}
_STATEMENT = ("DATE_INPUT_FORMAT", "TIMESTAMP_INPUT_FORMAT", "DATE_OUTPUT_FORMAT", "TIMESTAMP_NTZ_OUTPUT_FORMAT")
_FORMS = (*_STATEMENT, "TIMESTAMP_TYPE_MAPPING", "WEEK_START")


def of(session: Any) -> dict[str, Any]:
    """Return the parameters of a session that change how statements are read, if they aren't the defaults."""
    defaults = session.account.defaults
    return {name: value for name in _FORMS if (value := session.parameter(name)) != defaults[name]}


def folded(sql: str) -> str:
    """Return a statement as QUOTED_IDENTIFIERS_IGNORE_CASE reads it."""
    return refusals.QUOTED.sub(lambda found: found[0].upper() if found[0].startswith('"') else found[0], sql)


def applied(tree: exp.Expression, odd: Mapping[str, Any], defaults: Mapping[str, Any]) -> exp.Expression:
    """Return a statement as a session with such parameters reads it."""
    found = {**defaults, **odd}
    rules: list[Callable[[exp.Expression], exp.Expression]] = []
    if "TIMESTAMP_TYPE_MAPPING" in odd:
        mapped = exp.DataType.build(str(odd["TIMESTAMP_TYPE_MAPPING"]).replace("_", ""), dialect="snowflake")
        rules.append(lambda node: mapped.copy() if _is_type(node, _TYPE.TIMESTAMP) else node)
    if "WEEK_START" in odd:
        rules.append(_weeks(int(odd["WEEK_START"])))
    if any(name in odd for name in _STATEMENT):
        rules.append(lambda node: _cast(node, found))
    for rule in rules:
        tree = tree.transform(rule, copy=False)
    return tree


def _is_type(node: exp.Expression, *kinds: Any) -> bool:
    return isinstance(node, exp.DataType) and node.this in kinds


def _cast(node: exp.Expression, found: Mapping[str, Any]) -> exp.Expression:
    if not isinstance(node, exp.Cast) or node.meta.get("odd"):
        return node
    value = node.this
    if node.to.this == _TYPE.DATE or node.to.this in _TIMES:
        form = found["DATE_INPUT_FORMAT" if node.to.this == _TYPE.DATE else "TIMESTAMP_INPUT_FORMAT"]
        if form == "AUTO":
            return node
        node.set("this", _call("_sf_read", value.copy(), _pattern(form), value.copy()))
        node.meta["odd"] = True
    elif node.to.this in _TEXTS and not node.to.expressions:
        forms = _pattern(found["DATE_OUTPUT_FORMAT"]), _pattern(found["TIMESTAMP_NTZ_OUTPUT_FORMAT"])
        return _call("_sf_shown", value.copy(), *forms)
    return node


def _call(name: str, *given: exp.Expression) -> exp.Expression:
    return exp.Anonymous(this=name, expressions=[*given])


def _pattern(form: str) -> exp.Expression:
    text = re.sub("|".join(_PARTS), lambda part: _PARTS[part[0]], form.upper().removesuffix(".FF3"))
    return exp.Literal.string(text)


def _weeks(start: int) -> Callable[[exp.Expression], exp.Expression]:
    """Let weeks begin on another day than Monday; 7 is Sunday."""
    days = exp.Literal.number(8 - start)

    def rule(node: exp.Expression) -> exp.Expression:
        is_week = isinstance(node, exp.TimestampTrunc | exp.DateTrunc) and node.text("unit").upper() == "WEEK"
        if not is_week or node.meta.get("odd"):
            return node
        node.meta["odd"] = True
        days_of = exp.Interval(this=exp.Literal.string(days.name), unit=exp.var("DAY"))
        node.set("this", exp.Add(this=node.this.copy(), expression=days_of))
        return exp.paren(exp.Sub(this=node.copy(), expression=days_of.copy()))

    return rule


def cut(table: pa.Table, most: int) -> pa.Table:
    """Return the rows that ROWS_PER_RESULTSET leaves; 0 leaves all."""
    return table.slice(0, most) if most else table
