"""The small parts of statements: identifiers, literals, and what a user wrote as SQL."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache, partial

import sqlglot
from sqlglot import exp
from sqlglot.errors import SqlglotError

from dagster_safe_backfill.errors import ConfigurationError
from dagster_safe_backfill.model.tables import TableRef

IS_LOOKUP = "_sb_is_lookup"
"""Marks an EXISTS that the library wrote, as a lookup of a row's values in another relation."""

LONGEST_LIST = 16_000
"""What a list of literals may hold; each warehouse takes as many."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Derived(TableRef):
    """Rows that are no table: wherever they are read, the SELECT stands."""

    select: exp.Query = field(compare=False, repr=False)


def table(ref: TableRef, *, alias: str | None = None) -> exp.Table:
    """Return a quoted table name."""
    named = exp.table_(ref.name, db=ref.schema or None, quoted=True)
    if alias is not None:
        named.set("alias", exp.TableAlias(this=exp.to_identifier(alias, quoted=True)))
    return named


def rows(ref: TableRef, *, alias: str | None = None) -> exp.Table | exp.Subquery:
    """Return what is read under a name: a table, or a SELECT."""
    if isinstance(ref, Derived):
        return subquery(ref.select.copy(), alias or ref.name)
    return table(ref, alias=alias)


def relation(name: str) -> exp.Table:
    """Return a quoted name without a schema, as sources have."""
    return exp.table_(name, quoted=True)


def subquery(select: exp.Query, alias: str) -> exp.Subquery:
    """Return a select as a relation under a quoted name."""
    return select.subquery(exp.to_identifier(alias, quoted=True))


def column(name: str, *, of: str | None = None) -> exp.Column:
    """Return a quoted column, of the relation `of` if given."""
    return exp.column(name, table=of, quoted=True)


def columns(names: Iterable[str], *, of: str | None = None) -> list[exp.Column]:
    """Return quoted columns, of the relation `of` if given."""
    return list(map(partial(exp.column, table=of, quoted=True), names))


def text(value: str) -> exp.Expr:
    """Return a string literal."""
    return exp.Literal.string(value)


def number(value: float) -> exp.Expr:
    """Return a number literal."""
    return exp.Literal.number(value)


def typed(value: exp.Expr, type_name: str, *, dialect: str) -> exp.Expr:
    """Return `value` cast to a type in the warehouse's own spelling."""
    return exp.cast(value, data_type(type_name, dialect=dialect))


def data_type(type_name: str, *, dialect: str) -> exp.DataType:
    """Return a type, equal for all spellings of it."""
    return exp.DataType.build(type_name, dialect=dialect, udt=True)


def parsed(sql: str, *, dialect: str, option: str) -> exp.Expr:
    """Parse an expression that a user wrote, so that nothing but an expression can come of it.

    Raises:
        ConfigurationError: It isn't one SQL expression; the message names `option`.
    """
    try:
        expressions = sqlglot.parse(f"SELECT {sql}", dialect=dialect)
    except SqlglotError as error:
        raise ConfigurationError(
            f"{option} is not a SQL expression: {sql!r} (quote a column that is named like a keyword)"
        ) from error
    select = expressions[0] if len(expressions) == 1 else None
    if not _is_bare_select(select):
        raise ConfigurationError(f"{option} is not one SQL expression: {sql!r}")
    assert isinstance(select, exp.Select)
    found = select.expressions[0]
    if isinstance(found, exp.Alias | exp.Aliases):
        raise ConfigurationError(f"{option}: {sql!r} is read as an expression and a name for it; quote a column's name")
    return found if isinstance(found, exp.Column) else exp.paren(found, copy=False)


@lru_cache(maxsize=256)
def of_row(sql: str, *, dialect: str, option: str) -> exp.Expr:
    """Return `parsed` with `a.b` read as the field b of the column a, not as the column b of a table.

    It is read once, however many statements it stands in: to be copied before it is changed.
    """

    def read(node: exp.Expr) -> exp.Expr:
        if not isinstance(node, exp.Column) or not node.table:
            return node
        first, *fields = node.parts
        return exp.Dot.build([exp.Column(this=first.copy()), *(field.copy() for field in fields)])

    return parsed(sql, dialect=dialect, option=option).transform(read)


def _is_bare_select(select: exp.Expr | None) -> bool:
    if not isinstance(select, exp.Select) or len(select.expressions) != 1:
        return False
    if select.expressions[0].is_star:
        return False
    clauses = {name for name, value in select.args.items() if value}
    return clauses <= {"expressions", "kind"}


def all_of(conditions: Iterable[exp.Expr]) -> exp.Expr:
    """Return the conjunction of `conditions`; TRUE if there are none."""
    return exp.and_(*conditions) if (conditions := list(conditions)) else exp.true()


def any_of(conditions: Iterable[exp.Expr]) -> exp.Expr:
    """Return the disjunction of `conditions`; FALSE if there are none."""
    return exp.or_(*conditions) if (conditions := list(conditions)) else exp.false()


def is_in(value: exp.Expr, listed: Iterable[exp.Expr]) -> exp.Expr:
    """Return whether a value is one of those listed, in as many lists as it takes; FALSE if there are none."""
    items = list(listed)
    parts: list[exp.Expr] = []
    for i in range(0, len(items), LONGEST_LIST):
        parts.append(exp.In(this=value.copy(), expressions=items[i : i + LONGEST_LIST]))
    return any_of(parts)


def count_where(condition: exp.Expr) -> exp.Expr:
    """Return the number of rows for which `condition` is true, in SQL that every dialect has."""
    return exp.Count(this=exp.Case().when(condition, number(1)))


def looked_up(
    other_rows: exp.Select, names: Iterable[str], *, other: str, own: str, others: Iterable[str] | None = None
) -> exp.Expr:
    """Return whether the relation `other` holds this row's values, under the names `others` if they are given."""
    there = names if others is None else others
    exists = exp.Exists(this=other_rows.where(same(there, left=other, right=own, others=names)))
    exists.meta[IS_LOOKUP] = True
    return exists


def same(names: Iterable[str], *, left: str, right: str, others: Iterable[str] | None = None) -> exp.Expr:
    """Return whether columns are equal in two relations (never, where one is NULL); `others` are the right's names."""
    here = columns(names, of=left)
    there = columns(names if others is None else others, of=right)
    return all_of(map(exp.Column.eq, here, there))


def differ(names: Iterable[str], *, left: str, right: str) -> exp.Expr:
    """Return whether some column differs in two relations, NULL being equal to NULL."""
    unequal: list[exp.Expr] = []
    for name in names:
        unequal.append(exp.NullSafeNEQ(this=column(name, of=left), expression=column(name, of=right)))
    return any_of(unequal)


def qualified(expression: exp.Expr, relation_name: str) -> exp.Expr:
    """Return `expression` with its bare columns bound to one relation."""
    result = expression.copy()
    for found in result.find_all(exp.Column):
        if not found.table:
            found.set("table", exp.to_identifier(relation_name, quoted=True))
    return result


def named(items: Mapping[str, exp.Expr]) -> list[exp.Expr]:
    """Return select items, each expression under its quoted name."""
    return list(map(partial(exp.alias_, quoted=True), items.values(), items))
