"""Statements that measure audits on a shadow, all of a batch at once where SQL lets them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sqlglot import exp
from typing_extensions import assert_never

from dagster_safe_backfill.domain.audits import (
    SAMPLE_SIZE,
    NotNull,
    References,
    RowExpression,
    Unique,
)
from dagster_safe_backfill.domain.tables import TableRef
from dagster_safe_backfill.sql import terms
from dagster_safe_backfill.sql.partitioning import PARTITION

RowAudit = Unique | NotNull | RowExpression | References
"""Audits that count rows which break a rule."""

_SHADOW, _LIVE, _OTHER = "_sb_shadow", "_sb_live", "_sb_other"


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """What audits are measured on.

    Attributes:
        outside: The live rows outside the slice, as a condition on bare columns of `live`; None if there can't be
            any.
        partition_names: The columns (case-folded) whose values alone tell a row's partition; None where it takes
            more than columns.
        key: The columns of the asset's unique key.
    """

    shadow: TableRef
    live: TableRef
    outside: exp.Expr | None
    partition_names: tuple[str, ...] | None
    columns: tuple[str, ...]
    key: tuple[str, ...]
    dialect: str


def fails(audit: RowAudit, batch: Batch) -> exp.Expr:
    """Return the condition, over a row of the shadow, that breaks the audit's rule.

    Raises:
        ConfigurationError: The audit's SQL isn't an expression.
    """
    match audit:
        case NotNull():
            return _has_null(audit.columns)
        case RowExpression():
            holds = terms.parsed(audit.sql, dialect=batch.dialect, option=f"audit {audit.name}")
            return exp.not_(holds)
        case References():
            return _is_orphan(audit, batch)
        case Unique():
            return _is_repeated(audit, batch)
        case _:
            assert_never(audit)


def is_row_by_row(audit: RowAudit) -> bool:
    """Return whether a row alone shows if it fails, so that one scan can count it with others."""
    return isinstance(audit, NotNull | RowExpression)


def failures_together(conditions: Mapping[str, exp.Expr], batch: Batch) -> exp.Select:
    """Return `(position, failing rows by condition…)`, in one scan of the shadow."""
    counts = {name: terms.count_where(condition) for name, condition in conditions.items()}
    position = terms.column(PARTITION, of=_SHADOW)
    select = exp.select(position, *terms.named(counts)).from_(_shadow(batch))
    return select.group_by(position.copy())


def failures(condition: exp.Expr, batch: Batch) -> exp.Select:
    """Return `(position, failing rows)`, in a scan of its own."""
    position = terms.column(PARTITION, of=_SHADOW)
    select = exp.select(position, exp.Count(this=exp.Star())).from_(_shadow(batch))
    return select.where(condition).group_by(position.copy())


def failing_rows(condition: exp.Expr, batch: Batch) -> exp.Select:
    """Return all failing rows, in the order of their partitions."""
    items = [terms.column(name, of=_SHADOW) for name in batch.columns]
    select = exp.select(*items).from_(_shadow(batch)).where(condition.copy())
    return select.order_by(terms.column(PARTITION, of=_SHADOW))


def sampled(select: exp.Select) -> exp.Select:
    """Return the first rows of a select."""
    return select.limit(SAMPLE_SIZE)


def _shadow(batch: Batch) -> exp.Table:
    return terms.table(batch.shadow, alias=_SHADOW)


def _has_null(names: Sequence[str]) -> exp.Expr:
    return terms.any_of(exp.Is(this=terms.column(name, of=_SHADOW), expression=exp.Null()) for name in names)


def _exists(rows: exp.Select, pairs: Mapping[str, str]) -> exp.Expr:
    """Return whether `rows`, aliased `_OTHER`, hold this row's values; `pairs` maps own to other columns."""
    on = terms.all_of(terms.column(other, of=_OTHER).eq(terms.column(own, of=_SHADOW)) for own, other in pairs.items())
    return exp.Exists(this=rows.where(on))


def _is_orphan(audit: References, batch: Batch) -> exp.Expr:
    table = TableRef.parse(audit.table, default_schema=batch.live.schema)
    rows = exp.select(terms.number(1)).from_(terms.table(table, alias=_OTHER))
    found = _exists(rows, dict(zip(audit.columns, audit.referenced, strict=True)))
    return exp.and_(exp.not_(_has_null(audit.columns)), exp.not_(found))


def _is_repeated(audit: Unique, batch: Batch) -> exp.Expr:
    names = audit.columns or batch.key
    repeated: exp.Query = _twice(names, batch)
    if batch.outside is not None and not _tell_partitions(names, batch):
        repeated = exp.union(repeated, _taken(names, batch, batch.outside), distinct=False)
    rows = exp.select(terms.number(1)).from_(terms.subquery(repeated, _OTHER))
    conditions = [_exists(rows, {name: name for name in names})]
    if set(names) == set(batch.key):
        conditions.append(_has_null(names))
    return terms.any_of(conditions)


def _tell_partitions(names: Sequence[str], batch: Batch) -> bool:
    """Return whether rows that are equal in `names` are of one partition, so that none outside the slice can be."""
    own = {name.casefold() for name in names}
    return batch.partition_names is not None and own.issuperset(batch.partition_names)


def _twice(names: Sequence[str], batch: Batch) -> exp.Select:
    """Return the values that stand in more than one row of the shadow."""
    columns = [terms.column(name) for name in names]
    counted = exp.select(*columns).from_(terms.table(batch.shadow)).group_by(*(c.copy() for c in columns))
    return counted.having(exp.GT(this=exp.Count(this=exp.Star()), expression=terms.number(1)))


def _taken(names: Sequence[str], batch: Batch, outside: exp.Expr) -> exp.Select:
    """Return the values of live rows outside the slice that the shadow has too.

    Looking for the shadow's few keys in live first keeps the many keys of live out of memory.
    """
    mine = exp.select(terms.number(1)).from_(terms.table(batch.shadow, alias=_SHADOW))
    same = terms.same(names, left=_SHADOW, right=_LIVE)
    items = [terms.column(name, of=_LIVE) for name in names]
    live = exp.select(*items).from_(terms.table(batch.live, alias=_LIVE))
    return live.where(terms.qualified(outside, _LIVE)).where(exp.Exists(this=mine.where(same)))
