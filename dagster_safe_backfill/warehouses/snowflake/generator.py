"""sqlglot's generator of Snowflake's SQL: names in upper case and quoted, EXISTS only where Snowflake allows it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlglot import exp
from sqlglot.dialects.snowflake import Snowflake

from dagster_safe_backfill.sql import terms

if TYPE_CHECKING:
    from sqlglot._typing import GeneratorArgs
    from typing_extensions import Unpack

DIALECT = "safesnowflake"
"""The dialect's name in sqlglot, which is the lower-cased name of the class `SafeSnowflake`."""

_FOUND = "_sb_found_"
# Without a suffix, the parameter TIMESTAMP_TYPE_MAPPING of the account decides which type a TIMESTAMP is.
_TYPES = {
    exp.DataType.Type.TIMESTAMP: "TIMESTAMP_NTZ",
    exp.DataType.Type.TIMESTAMPNTZ: "TIMESTAMP_NTZ",
    exp.DataType.Type.TIMESTAMPTZ: "TIMESTAMP_TZ",
    exp.DataType.Type.TIMESTAMPLTZ: "TIMESTAMP_LTZ",
}


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

    The tree is changed before Snowflake's own generator gets it: the generator of sqlglot[c] can't be derived from.
    """

    def generate(self, expression: exp.Expr, copy: bool = True, **opts: Unpack[GeneratorArgs]) -> str:
        """See sqlglot's `Dialect.generate`."""
        prepared = with_joined_lookups(expression.copy() if copy else expression)
        for node in prepared.walk():
            if isinstance(node, exp.Identifier):
                _store(node)
            elif isinstance(node, exp.DataType) and node.this in _TYPES:
                node.set("kind", _TYPES[node.this])
                node.set("this", exp.DataType.Type.USERDEFINED)
        return super().generate(prepared, copy=False, **opts)


def _store(name: exp.Identifier) -> None:
    """Change one of the library's own names to what Snowflake stores."""
    # sqlglot notes the position of a name that it parsed, so a name with a "start" was written by the user.
    if name.args.get("quoted") and "start" not in name.meta:
        written: str = name.this
        name.set("this", written.upper() if isinstance(name.parent, exp.Table) else stored(written))


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
