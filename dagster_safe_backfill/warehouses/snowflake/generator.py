"""sqlglot's generator of Snowflake's SQL: names in upper case and quoted, EXISTS only where Snowflake allows it."""

from __future__ import annotations

from typing import ClassVar

from sqlglot import exp
from sqlglot.dialects.snowflake import Snowflake

from dagster_safe_backfill.sql import terms

DIALECT = "safesnowflake"
"""The dialect's name in sqlglot, which is the lower-cased name of the class `SafeSnowflake`."""

_FOUND = "_sb_found_"


def stored(name: str) -> str:
    """Return a name as Snowflake stores it. A name without capital letters counts as unquoted."""
    return name.upper() if name == name.lower() else name


def shown(name: str) -> str:
    """Return a stored name as the library's users spell it."""
    return name.lower() if name == name.upper() else name


class SafeSnowflake(Snowflake):
    """Parses as Snowflake does. Names that a user wrote stay as they are; the library's own names are upper-cased.

    A table's name is always upper-cased, as Snowflake does with an unquoted name. A column's name is upper-cased only
    if it has no capital letters, because some tables have columns with quoted names.
    """

    class Generator(Snowflake.Generator):
        """Generates the SQL."""

        TYPE_MAPPING: ClassVar = {
            **Snowflake.Generator.TYPE_MAPPING,
            # Without a suffix, the parameter TIMESTAMP_TYPE_MAPPING of the account decides which type a TIMESTAMP is.
            exp.DataType.Type.TIMESTAMP: "TIMESTAMP_NTZ",
            exp.DataType.Type.TIMESTAMPNTZ: "TIMESTAMP_NTZ",
            exp.DataType.Type.TIMESTAMPTZ: "TIMESTAMP_TZ",
            exp.DataType.Type.TIMESTAMPLTZ: "TIMESTAMP_LTZ",
        }

        def preprocess(self, expression: exp.Expr) -> exp.Expr:
            """See sqlglot's `Generator.preprocess`."""
            return super().preprocess(with_joined_lookups(expression))

        def identifier_sql(self, expression: exp.Identifier) -> str:
            """Return a name as SQL."""
            # sqlglot notes the position of a name that it parsed, so a name with a "start" was written by the user.
            if expression.args.get("quoted") and "start" not in expression.meta:
                name: str = expression.this
                name = name.upper() if isinstance(expression.parent, exp.Table) else stored(name)
                expression = exp.to_identifier(name, quoted=True)
            return super().identifier_sql(expression)


def with_joined_lookups(statement: exp.Expr) -> exp.Expr:
    """Return a statement in which lookups by EXISTS are replaced by joins where Snowflake refuses an EXISTS.

    Snowflake allows a correlated EXISTS only as a conjunct of WHERE, not within OR, CASE or an aggregate. Source:
    https://docs.snowflake.com/en/sql-reference/operators-subquery
    """
    lookups = [found for found in statement.find_all(exp.Exists) if found.meta.get(terms.IS_LOOKUP)]
    misplaced = [found for found in lookups if not _is_conjunct(found)]
    for number, found in enumerate(misplaced):
        select = found.parent_select
        # A fragment of a statement has no SELECT to join. Fragments are only compared as texts, never run.
        if isinstance(select, exp.Select):
            _join(found, select, f"{_FOUND}{number}")
    return statement


def _is_conjunct(found: exp.Exists) -> bool:
    node = found.parent
    while isinstance(node, exp.Not | exp.And | exp.Paren):
        node = node.parent
    return isinstance(node, exp.Where)


def _join(found: exp.Exists, select: exp.Select, alias: str) -> None:
    """Replace one lookup, whose conditions all compare a column of the other relation with one of this row."""
    lookup = found.this
    assert isinstance(lookup, exp.Select)
    equalities = list(_equalities(lookup.args["where"].this))
    names = [f"{alias}_{i}" for i in range(len(equalities))]
    keys = {name: equality.left.copy() for name, equality in zip(names, equalities, strict=True)}
    # DISTINCT, so that the join finds at most one row and the statement's counts stay the same.
    rows = exp.select(*terms.named(keys)).distinct().from_(lookup.args["from_"].this.copy())
    on = [
        exp.EQ(this=terms.column(name, of=alias), expression=equality.right.copy())
        for name, equality in zip(names, equalities, strict=True)
    ]
    select.join(terms.subquery(rows, alias), on=terms.all_of(on), join_type="LEFT", copy=False)
    # A NULL means that the join found no row: a NULL in the other relation equals nothing, so it never joins.
    is_missing = exp.Is(this=terms.column(names[0], of=alias), expression=exp.Null())
    found.replace(exp.paren(exp.not_(is_missing)))


def _equalities(condition: exp.Expr) -> list[exp.EQ]:
    parts = condition.flatten() if isinstance(condition, exp.And) else [condition]
    return [part for part in parts if isinstance(part, exp.EQ)]
