"""The statement that hashes the rows of each live partition, so that any change to them is detected."""

from __future__ import annotations

from sqlglot import exp

from dagster_safe_backfill.model.slices import TableSlice
from dagster_safe_backfill.sql import terms
from dagster_safe_backfill.sql.dialect import Dialect
from dagster_safe_backfill.sql.slicing import PARTITION, inside, positioned

_HASH, _HASHED = "_sb_hash", "_sb_hashed"


def known_hash(dialect: Dialect) -> exp.Expr:
    """Return the hash of the dialect's `known_values`."""
    # A Var is written as it is, so that the values cost no time to render.
    return dialect.row_hash([exp.var(value) for value in dialect.known_values])


def fingerprints(table_slice: TableSlice, row_hash: exp.Expr, dialect: Dialect) -> exp.Select:
    """Return `(position, number of rows, sum of the rows' hashes, known_hash)` of each live partition with rows."""
    # A sum doesn't depend on the order of rows. Unlike in an exclusive or, equal rows don't cancel each other out.
    rows = exp.select(exp.Star()).from_(terms.table(table_slice.table)).where(inside(table_slice), copy=False)
    hashed = positioned(rows, terms.named({_HASH: row_hash}), table_slice)
    position = terms.column(PARTITION)
    total = exp.Sum(this=terms.column(_HASH))
    return (
        exp.select(position, exp.Count(this=exp.Star()), total, known_hash(dialect))
        .from_(terms.subquery(hashed, _HASHED), copy=False)
        .group_by(position.copy(), copy=False)
    )
