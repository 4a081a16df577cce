"""A user's query, which is sent as it was written; and the statement that locks a table."""

from __future__ import annotations

import sqlglot
from sqlglot import TokenType, exp
from sqlglot.errors import SqlglotError

from dagster_safe_backfill.errors import ConfigurationError, WarehouseError
from dagster_safe_backfill.model.tables import Query, TableRef
from dagster_safe_backfill.sql import terms
from dagster_safe_backfill.warehouses.snowflake.dialect import DIALECT

_NEVER = 2**63 - 1
"""More than RANDOM() returns."""


def one_select(query: Query) -> str:
    """Return the query's text if it is just one SELECT.

    Raises:
        ConfigurationError: It is something else.
        WarehouseError: It can't be read.
    """
    try:
        # A comment after a semicolon is one of its own.
        parsed = sqlglot.parse(query.sql, dialect=DIALECT)
        found = [one for one in parsed if one is not None and not isinstance(one, exp.Semicolon)]
    except SqlglotError as error:
        raise WarehouseError(f"the query can't be read: {error}") from error
    if len(found) != 1 or not isinstance(found[0], exp.Query):
        kinds = " and ".join(one.key.upper() for one in found)
        raise ConfigurationError(f"a Query is one SELECT, not {kinds or 'nothing'}: {query.sql!r}")
    return _without_semicolon(query.sql)


def _without_semicolon(sql: str) -> str:
    tokens = sqlglot.tokenize(sql, read=DIALECT)
    if tokens[-1].token_type != TokenType.SEMICOLON:
        return sql.strip()
    last = next(token for token in reversed(tokens) if token.token_type != TokenType.SEMICOLON)
    return sql[: last.end + 1].strip()


def as_relation(select: str, name: str) -> exp.Table:
    """Return a query's text as a relation, wherever it is read."""
    alias = exp.TableAlias(this=exp.to_identifier(name, quoted=True))
    # On lines of its own, as it may end with a comment.
    return exp.Table(this=exp.Var(this=f"(\n{select}\n)"), alias=alias)


def locking(table: TableRef, column: str) -> exp.Update:
    """Return an UPDATE that changes no row, and locks the table all the same until its transaction ends."""
    value = terms.column(column)
    # Nothing that the compiler can tell to be false, as it would leave the statement, and so the lock, out.
    random = exp.GT(this=exp.func("RANDOM", dialect=DIALECT), expression=terms.number(_NEVER))
    never = exp.and_(exp.Is(this=value.copy(), expression=exp.Null()), random)
    return exp.update(terms.table(table), {column: value}, where=never)
