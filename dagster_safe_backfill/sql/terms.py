"""The parts of statements: identifiers, literals, conditions, and expressions that users write as SQL."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from functools import lru_cache, partial
from typing import Any

import sqlglot
from sqlglot import exp
from sqlglot.errors import SqlglotError

from dagster_safe_backfill.errors import ConfigurationError
from dagster_safe_backfill.model.tables import TableRef
from dagster_safe_backfill.redaction import masked, without_secrets

IS_LOOKUP = "_sb_is_lookup"
"""The key in an expression's `meta` that marks an EXISTS of `looked_up`, which a warehouse may rewrite as a join."""

LONGEST_LIST = 16_000
"""The most literals in one list. Snowflake takes 16,384 in an IN or VALUES, and the other warehouses take more."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Derived(TableRef):
    """The result of a SELECT, under a name. Statements that read it contain the SELECT."""

    select: exp.Query = field(compare=False, repr=False)


def table(ref: TableRef, *, alias: str | None = None) -> exp.Table:
    """Return a table with its name quoted."""
    named = exp.table_(ref.name, db=ref.schema or None, quoted=True)
    if alias is not None:
        named.set("alias", exp.TableAlias(this=exp.to_identifier(alias, quoted=True)))
    return named


def rows(ref: TableRef, *, alias: str | None = None) -> exp.Table | exp.Subquery:
    """Return the relation that a name stands for: a table, or the SELECT of a `Derived`."""
    # A copy, because several statements read the same SELECT.
    if isinstance(ref, Derived):
        return subquery(ref.select.copy(), alias or ref.name)
    return table(ref, alias=alias)


def subquery(select: exp.Query, alias: str) -> exp.Subquery:
    """Return a SELECT, which becomes part of it, as a relation with a quoted alias."""
    return select.subquery(exp.to_identifier(alias, quoted=True), copy=False)


def column(name: str, *, of: str | None = None) -> exp.Column:
    """Return a column with its name quoted, qualified by the relation `of` if given."""
    return exp.column(name, table=of, quoted=True)


def columns(names: Iterable[str], *, of: str | None = None) -> list[exp.Column]:
    """Return several `column`s."""
    return list(map(partial(exp.column, table=of, quoted=True), names))


text = exp.Literal.string
"""Return a string literal."""

number = exp.Literal.number
"""Return a number literal."""


def typed(value: exp.Expr, type_name: str, *, dialect: str) -> exp.Expr:
    """Return a cast of `value` to a type, named as the warehouse spells it."""
    return exp.cast(value, data_type(type_name, dialect=dialect))


def data_type(type_name: str, *, dialect: str) -> exp.DataType:
    """Return a type. Synonyms such as TEXT and VARCHAR give equal types."""
    # Without `udt`, sqlglot raises for a type that it doesn't know, such as DuckDB's TIMESTAMPTZ_NS.
    return exp.DataType.build(type_name, dialect=dialect, udt=True)


def parsed(sql: str, *, dialect: str, option: str) -> exp.Expr:
    """Parse SQL that a user wrote as one expression, so that it can't add clauses or statements.

    Raises:
        ConfigurationError: The SQL isn't one expression. The message names `option`.
    """
    try:
        expressions = sqlglot.parse(f"SELECT {sql}", dialect=dialect)
    except SqlglotError as error:
        raise ConfigurationError(
            f"{option} is not a SQL expression: {without_secrets(sql)!r}. Quote a column whose name is a keyword."
        ) from error
    select = expressions[0] if len(expressions) == 1 else None
    if not _is_bare_select(select):
        raise ConfigurationError(f"{option} is not one SQL expression: {without_secrets(sql)!r}.")
    assert isinstance(select, exp.Select)
    found = select.expressions[0]
    if isinstance(found, exp.Alias | exp.Aliases):
        raise ConfigurationError(
            f"{option}: {without_secrets(sql)!r} is an expression with an alias. If that is the name of a column, quote"
            " it."
        )
    # sqlglot adds no parentheses around the operands of a comparison: `a OR b` would become part of `a OR b = 1`.
    return found if isinstance(found, exp.Column) else exp.paren(found, copy=False)


@lru_cache(maxsize=256)
def of_row(sql: str, *, dialect: str, option: str) -> exp.Expr:
    """Return `parsed`, in which `a.b` is the field b of the column a, not the column b of a table a.

    The result is cached, so copy it before you change it.
    """

    def read(node: exp.Expr) -> exp.Expr:
        if not isinstance(node, exp.Column) or not node.table:
            return node
        first, *fields = node.parts
        return exp.Dot.build([exp.Column(this=first.copy()), *(field.copy() for field in fields)])

    return parsed(sql, dialect=dialect, option=option).transform(read)


def now() -> exp.Expr:
    """Return the time by the database's own clock: of an embedded one, that of this machine."""
    return exp.CurrentTimestamp()


def instant(at: datetime) -> exp.Expr:
    """Return a time with a zone as a literal."""
    return exp.cast(text(at.isoformat(sep=" ")), exp.DataType.Type.TIMESTAMPTZ)


def columns_read(sql: str, *, dialect: str) -> list[str]:
    """Return the names of the columns that a user's expression over a row reads."""
    found = of_row(sql, dialect=dialect, option="expression").find_all(exp.Column)
    return [column.name for column in found]


def masked_value(value: Any, sql: str, *, dialect: str) -> Any:
    """Return a value of a user's expression over a row, masked unless all columns that it reads may be shown."""
    return masked(value, *columns_read(sql, dialect=dialect))


def database_version() -> exp.Select:
    """Return a SELECT of the database's version."""
    return exp.select(exp.CurrentVersion())


_CONSTANT = (
    exp.Literal,
    exp.Boolean,
    exp.Null,
    exp.Cast,
    exp.DataType,
    exp.DataTypeParam,
    exp.Neg,
    exp.Paren,
    exp.Interval,
    exp.Var,
)


def is_constant(expression: exp.Expr) -> bool:
    """Return True if an expression is a literal, a negated or a cast one, whose value is always the same."""
    return all(isinstance(node, _CONSTANT) for node in expression.walk())


def _is_bare_select(select: exp.Expr | None) -> bool:
    if not isinstance(select, exp.Select) or len(select.expressions) != 1:
        return False
    if select.expressions[0].is_star:
        return False
    clauses = {name for name, value in select.args.items() if value}
    return clauses <= {"expressions", "kind"}


def all_of(conditions: Iterable[exp.Expr]) -> exp.Expr:
    """Return a condition that is true if all `conditions` are, and TRUE if there are none."""
    # sqlglot's `and_` and `or_` raise without operands. To copy these took a third of a run's time in Python. A node
    # may be part of several trees, because each statement is generated from a copy of its own.
    return exp.and_(*conditions, copy=False) if (conditions := list(conditions)) else exp.true()


def any_of(conditions: Iterable[exp.Expr]) -> exp.Expr:
    """Return a condition that is true if any of `conditions` is, and FALSE if there are none."""
    return exp.or_(*conditions, copy=False) if (conditions := list(conditions)) else exp.false()


def is_in(value: exp.Expr, listed: Iterable[exp.Expr]) -> exp.Expr:
    """Return a condition that is true if `value` is one of `listed`. Long lists are split by `LONGEST_LIST`."""
    items = list(listed)
    parts: list[exp.Expr] = []
    for i in range(0, len(items), LONGEST_LIST):
        parts.append(exp.In(this=value.copy(), expressions=items[i : i + LONGEST_LIST]))
    return any_of(parts)


def count_where(condition: exp.Expr) -> exp.Expr:
    """Return the number of rows for which `condition` is true."""
    # Not COUNT(*) FILTER or COUNT_IF, which only some dialects have.
    return exp.Count(this=exp.Case().when(condition, number(1), copy=False))


def equal(here: Iterable[exp.Expr], there: Iterable[exp.Expr]) -> exp.Expr:
    """Return a condition that is true if each of some values equals the other of its pair."""
    pairs = zip(here, there, strict=True)
    return all_of([exp.EQ(this=one.copy(), expression=other.copy()) for one, other in pairs])


def same(one: exp.Expr, other: exp.Expr) -> exp.Expr:
    """Return a condition that is true if two values are equal. NULL equals NULL. It is never NULL."""
    return exp.NullSafeEQ(this=one.copy(), expression=other.copy())


def unequal(one: exp.Expr, other: exp.Expr) -> exp.Expr:
    """Return a condition that is true if two values aren't equal. NULL equals NULL. It is never NULL."""
    return exp.NullSafeNEQ(this=one.copy(), expression=other.copy())


def any_unequal(here: Iterable[exp.Expr], there: Iterable[exp.Expr]) -> exp.Expr:
    """Return a condition that is true if one of some values isn't equal to the other of its pair. It is never NULL."""
    return any_of([unequal(*pair) for pair in zip(here, there, strict=True)])


def looked_up(other_rows: exp.Select, there: Iterable[exp.Expr], here: Iterable[exp.Expr]) -> exp.Expr:
    """Return an EXISTS that is true if a row of `other_rows` has the values of this row.

    Args:
        other_rows: A SELECT from another relation.
        there: The values of a row of the other relation.
        here: The values of this row.
    """
    exists = exp.Exists(this=other_rows.where(equal(there, here)))
    exists.meta[IS_LOOKUP] = True
    return exists


def is_any_rare(forms: Iterable[exp.Expr]) -> exp.Expr:
    """Return a condition that is true if the condition of at least one CASE is. See `Dialect.exact`."""
    return any_of([form.args["ifs"][0].this.copy() for form in forms])


def qualified(expression: exp.Expr, relation_name: str) -> exp.Expr:
    """Return a copy of `expression` in which each column without a table name is of the relation `relation_name`."""
    result = expression.copy()
    for found in result.find_all(exp.Column):
        if not found.table:
            found.set("table", exp.to_identifier(relation_name, quoted=True))
    return result


def named(items: Mapping[str, exp.Expr]) -> list[exp.Expr]:
    """Return the items of a SELECT: each expression with its name as a quoted alias."""
    return list(map(partial(exp.alias_, quoted=True, copy=False), items.values(), items))
