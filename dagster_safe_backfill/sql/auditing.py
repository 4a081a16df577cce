"""Statements that measure audits on a batch of rows, all at once where SQL lets them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal

import sqlglot
from sqlglot import exp
from sqlglot.errors import SqlglotError
from typing_extensions import assert_never

from dagster_safe_backfill.audits.base import Value
from dagster_safe_backfill.audits.groups import Aggregate, Total
from dagster_safe_backfill.audits.rows import (
    AcceptedValues,
    FailingRows,
    InRange,
    NotNull,
    References,
    RowExpression,
    Unique,
)
from dagster_safe_backfill.audits.verdicts import SAMPLE_SIZE
from dagster_safe_backfill.errors import ConfigurationError
from dagster_safe_backfill.model.slices import TableSlice
from dagster_safe_backfill.model.tables import Column, TableRef, names_of
from dagster_safe_backfill.sql import terms
from dagster_safe_backfill.sql.dialect import Dialect
from dagster_safe_backfill.sql.slicing import PARTITION, ROWS, expression, positioned

ByCondition = NotNull | AcceptedValues | InRange | RowExpression | References
"""Audits that one scan of the rows counts together, looking into other tables where it has to."""
ByLookup = Unique
"""Audits that compare a row with the others, in a scan for each."""

SHADOW = "_sb_shadow"
_LIVE, _OTHER = "_sb_live", "_sb_other"
_BATCH_NAME, _LIVE_NAME = "batch", "live"
_EVERY_COLUMN = exp.Column(this=exp.Star(), table=exp.to_identifier(ROWS, quoted=True))


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditedRows:
    """What audits are measured on.

    Attributes:
        rows: The rows under audit, with the position of their partition: a shadow.
        table_slice: Their partitions of the live table.
        inside: The live rows of the slice, as a condition on bare columns.
        outside: The live rows outside the slice, likewise; None if there can't be any, or they don't count.
        has_live: Whether there is a live table.
        columns: The data columns.
        counts: How many of the rows each partition has, by key; a key without rows may be left out.
        added: Those that live lacks and gets at the publication, with what its rows will have in them.
        instants: Those that keep times with a zone.
        dialect: The warehouse's.
        sample_columns: The columns that samples of failing rows may show; all, if None.
    """

    rows: TableRef
    table_slice: TableSlice
    inside: exp.Expr
    outside: exp.Expr | None
    has_live: bool
    columns: tuple[Column, ...]
    counts: Mapping[str, int]
    added: Mapping[str, exp.Expr]
    instants: tuple[str, ...]
    dialect: Dialect
    sample_columns: tuple[str, ...] | None = None
    names: tuple[str, ...] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "names", names_of(self.columns))

    @property
    def live(self) -> TableRef:
        """The live table."""
        return self.table_slice.table

    @property
    def key(self) -> tuple[str, ...]:
        """The columns of the asset's unique key."""
        return self.table_slice.spec.unique_key


def shadow_rows(batch: AuditedRows) -> exp.Table | exp.Subquery:
    """Return the rows under audit as a relation with the column `PARTITION`."""
    return terms.rows(batch.rows, alias=SHADOW)


def live_rows(batch: AuditedRows) -> exp.Subquery:
    """Return the live rows of the slice as a relation with the column `PARTITION`."""
    rows = _all_live(batch).where(batch.inside.copy())
    return terms.subquery(positioned(rows, [_EVERY_COLUMN.copy()], batch.table_slice), _LIVE)


def _all_live(batch: AuditedRows) -> exp.Select:
    """Return all of live, with the columns that it will have: so what is new can be compared."""
    items: list[exp.Expr] = [exp.Star()]
    if batch.added:
        items += terms.named({name: value.copy() for name, value in batch.added.items()})
    return exp.select(*items).from_(terms.table(batch.live))


def grouped(expressions: Sequence[exp.Expr], rows: exp.Expr, *, is_overall: bool) -> exp.Select:
    """Return `(position, value of each aggregate…)`, and with `is_overall` a row of all, at position NULL."""
    position = terms.column(PARTITION)
    select = exp.select(position, *_numbered(expressions)).from_(rows.copy())
    if not is_overall:
        return select.group_by(position.copy())
    sets = [exp.Tuple(expressions=[position.copy()]), exp.Tuple()]
    select.set("group", exp.Group(grouping_sets=[exp.GroupingSets(expressions=sets)]))
    return select


def of_no_rows(expressions: Sequence[exp.Expr], rows: exp.Expr) -> exp.Select:
    """Return `(NULL, value of each aggregate…)` of no rows: 0 for counts, NULL for sums."""
    return exp.select(exp.Null(), *_numbered(expressions)).from_(rows.copy()).where(exp.false())


def _numbered(expressions: Sequence[exp.Expr]) -> list[exp.Expr]:
    items: list[exp.Expr] = []
    for number, one in enumerate(expressions):
        items.append(exp.alias_(one.copy(), f"_sb_{number}", quoted=True))
    return items


def aggregated(aggregate: Aggregate | str, batch: AuditedRows, *, option: str) -> exp.Expr:
    """Return an aggregate as SQL, of columns that both the rows under audit and live have.

    Raises:
        ConfigurationError: Its SQL isn't an expression; the message names `option`.
    """
    if isinstance(aggregate, str):
        aggregate = Aggregate(sql=aggregate)
    if aggregate.sql == "*":
        return exp.Count(this=exp.Star())
    if aggregate.of is None:
        return terms.parsed(aggregate.sql, dialect=batch.dialect.name, option=option)
    found = _value(aggregate.sql, batch, option, of=None)
    return _percentile(found, aggregate.of) if not isinstance(aggregate.of, str) else _total(found, aggregate.of)


def _percentile(value: exp.Expr, share: float) -> exp.Expr:
    return exp.WithinGroup(
        this=exp.PercentileCont(this=terms.number(share)),
        expression=exp.Order(expressions=[exp.Ordered(this=value)]),
    )


def _total(value: exp.Expr, total: Total) -> exp.Expr:
    match total:
        case "total":
            return exp.Sum(this=value)
        case "mean":
            return exp.Avg(this=value)
        case "distinct":
            return exp.Count(this=exp.Distinct(expressions=[value]))
        case "median":
            return _percentile(value, 0.5)
        case _:
            assert_never(total)


def fails(audit: ByCondition | ByLookup, batch: AuditedRows) -> exp.Expr:
    """Return the condition, over a row of the shadow, that breaks the audit's rule.

    Raises:
        ConfigurationError: The audit's SQL isn't an expression.
    """
    match audit:
        case NotNull():
            return has_null(audit.columns)
        case AcceptedValues():
            values = [_literal(value, audit.column, batch) for value in audit.values]
            return exp.not_(terms.is_in(_value(audit.column, batch, f"audit {audit.name}"), values))
        case InRange():
            return exp.not_(_is_between(audit, batch))
        case RowExpression():
            return exp.not_(terms.parsed(audit.sql, dialect=batch.dialect.name, option=f"audit {audit.name}"))
        case References():
            return _is_orphan(audit, batch)
        case Unique():
            return _is_repeated(audit, batch)
        case _:
            assert_never(audit)


def _is_between(audit: InRange, batch: AuditedRows) -> exp.Expr:
    value = _value(audit.column, batch, f"audit {audit.name}")
    bounds: list[exp.Expr] = []
    if audit.least is not None:
        bounds.append(exp.GTE(this=value.copy(), expression=_literal(audit.least, audit.column, batch)))
    if audit.most is not None:
        bounds.append(exp.LTE(this=value.copy(), expression=_literal(audit.most, audit.column, batch)))
    return exp.paren(terms.all_of(bounds))


def _value(column: str, batch: AuditedRows, option: str, *, of: str | None = SHADOW) -> exp.Expr:
    """Return a column by its name, or an expression over the row."""
    known = {known.casefold(): known for known in batch.names}
    if column.casefold() in known:
        return terms.column(known[column.casefold()], of=of)
    return terms.parsed(column, dialect=batch.dialect.name, option=option)


def _literal(value: Value, column: str, batch: AuditedRows) -> exp.Expr:
    if isinstance(value, datetime):
        _check_zone(value, column, batch)
    if isinstance(value, float | Decimal) and math.isinf(value):
        text = "inf" if value > 0 else "-inf"
        return exp.cast(terms.text(text), exp.DataType.Type.DOUBLE)
    # Rendered and read again, since a converted date knows no dialect of its own.
    return sqlglot.parse_one(exp.convert(value).sql(dialect=batch.dialect.name), dialect=batch.dialect.name)


def _check_zone(value: datetime, column: str, batch: AuditedRows) -> None:
    """Refuse to compare a time with a zone and one without, which the session's own zone would decide."""
    names = [name.casefold() for name in batch.names]
    is_instant = column.casefold() in [name.casefold() for name in batch.instants]
    if column.casefold() in names and is_instant != (value.tzinfo is not None):
        kind = "a time with a zone" if is_instant else "a time without one"
        raise ConfigurationError(f"{column} is {kind}, and can't be compared with {value.isoformat()}")


def repetitions(audit: Unique, batch: AuditedRows) -> exp.Select:
    """Return `(position, rows whose values stand in another row too)`, in a scan of its own."""
    position = terms.column(PARTITION, of=SHADOW)
    select = exp.select(position, exp.Count(this=exp.Star())).from_(shadow_rows(batch))
    return select.where(_stands_elsewhere(audit, batch)).group_by(position.copy())


def failing_rows(condition: exp.Expr, batch: AuditedRows) -> exp.Select:
    """Return all failing rows, in the order of their partitions."""
    select = exp.select(*terms.columns(batch.names, of=SHADOW)).from_(shadow_rows(batch)).where(condition.copy())
    return select.order_by(terms.column(PARTITION, of=SHADOW))


def as_published(select: exp.Query, batch: AuditedRows) -> exp.Query:
    """Return a SELECT over the rows under audit as one over live, for when they have been published."""

    def published(node: exp.Expr) -> exp.Expr:
        is_batch = isinstance(node, exp.Table) and (node.db, node.name) == (batch.rows.schema, batch.rows.name)
        if not is_batch:
            return node
        items = [exp.Star(), *terms.named({PARTITION: terms.number(0)})]
        rows = exp.select(*items).from_(terms.table(batch.live)).where(batch.inside.copy())
        return terms.subquery(rows, node.alias or SHADOW)

    found = select.transform(published)
    assert isinstance(found, exp.Query)
    return found


def sampled(select: exp.Query) -> exp.Query:
    """Return the first rows of a select."""
    return select.limit(SAMPLE_SIZE)


def found_rows(audit: FailingRows, batch: AuditedRows) -> exp.Select:
    """Return a user's SELECT, around it the meaning of `batch` and `live`: the innermost of a name counts, as ever.

    Raises:
        ConfigurationError: It isn't one SELECT.
    """
    try:
        statements = sqlglot.parse(audit.sql, dialect=batch.dialect.name)
    except SqlglotError as error:
        raise ConfigurationError(f"audit {audit.name} is not a SELECT: {audit.sql!r}") from error
    select = statements[0] if len(statements) == 1 else None
    if not isinstance(select, exp.Query):
        raise ConfigurationError(f"audit {audit.name} is not one SELECT: {audit.sql!r}")
    rows = exp.select(*terms.columns(batch.names)).from_(terms.rows(batch.rows))
    live = _all_live(batch) if batch.has_live else rows.where(exp.false())
    found = exp.select(exp.Star()).from_(terms.subquery(select, _OTHER))
    return found.with_(_BATCH_NAME, as_=rows).with_(_LIVE_NAME, as_=live)


def found_by_partition(found: exp.Query, batch: AuditedRows) -> exp.Select:
    """Return `(position, rows)` of what a user's SELECT finds; rows of no partition are at NULL."""
    every = exp.select(exp.Star()).from_(terms.subquery(found, _OTHER))
    rows = positioned(every, [_EVERY_COLUMN.copy()], batch.table_slice)
    position = terms.column(PARTITION)
    select = exp.select(position, exp.Count(this=exp.Star())).from_(terms.subquery(rows, SHADOW))
    return select.group_by(position.copy())


def has_null(names: Sequence[str]) -> exp.Expr:
    """Return whether one of the columns is NULL."""
    conditions: list[exp.Expr] = []
    for name in names:
        conditions.append(exp.Is(this=terms.column(name, of=SHADOW), expression=exp.Null()))
    return terms.any_of(conditions)


def _is_orphan(audit: References, batch: AuditedRows) -> exp.Expr:
    others = exp.select(terms.number(1)).from_(_referenced(audit, batch))
    found = terms.looked_up(others, audit.columns, other=_OTHER, own=SHADOW, others=audit.referenced)
    return exp.and_(exp.not_(has_null(audit.columns)), exp.not_(found))


def _referenced(audit: References, batch: AuditedRows) -> exp.Expr:
    """Return the other table, aliased `_OTHER`; of the asset's own table, as it will be once it is published."""
    table = TableRef.parse(audit.table, default_schema=batch.live.schema)
    if str(table).casefold() != str(batch.live).casefold():
        return terms.table(table, alias=_OTHER)
    rows: exp.Query = exp.select(*terms.columns(audit.referenced)).from_(terms.rows(batch.rows))
    if batch.outside is not None:
        others = exp.select(*terms.columns(audit.referenced)).from_(terms.table(batch.live))
        rows = exp.union(rows, others.where(batch.outside.copy()), distinct=False)
    return terms.subquery(rows, _OTHER)


def is_of_key(audit: Unique, batch: AuditedRows) -> bool:
    """Return whether an audit is of the asset's unique key, of which no column may be NULL."""
    return set(audit.columns or batch.key) == set(batch.key)


def _is_repeated(audit: Unique, batch: AuditedRows) -> exp.Expr:
    stands_elsewhere = _stands_elsewhere(audit, batch)
    return exp.or_(stands_elsewhere, has_null(batch.key)) if is_of_key(audit, batch) else stands_elsewhere


def repeated_values(audit: Unique, batch: AuditedRows) -> exp.Select:
    """Return how many values stand in more than one row: cheaper than to find the rows, and mostly 0."""
    return exp.select(exp.Count(this=exp.Star())).from_(terms.subquery(_repeated(audit, batch), _OTHER))


def _stands_elsewhere(audit: Unique, batch: AuditedRows) -> exp.Expr:
    rows = exp.select(terms.number(1)).from_(terms.subquery(_repeated(audit, batch), _OTHER))
    return terms.looked_up(rows, audit.columns or batch.key, other=_OTHER, own=SHADOW)


def _repeated(audit: Unique, batch: AuditedRows) -> exp.Query:
    """Return the values that stand in several rows of the batch, or in a live row outside the slice too."""
    names = audit.columns or batch.key
    counted = exp.select(*terms.columns(names)).from_(terms.rows(batch.rows)).group_by(*terms.columns(names))
    twice = counted.having(exp.GT(this=exp.Count(this=exp.Star()), expression=terms.number(1)))
    if batch.outside is None or _tell_partitions(names, batch):
        return twice
    return exp.union(twice, _taken(names, batch, batch.outside), distinct=False)


def _tell_partitions(names: Sequence[str], batch: AuditedRows) -> bool:
    """Return whether rows that are equal in `names` are of one partition, so that none outside the slice can be."""
    own = {*map(str.casefold, names)}
    for column in batch.table_slice.columns.values():
        told_by = expression(column)
        if not isinstance(told_by, exp.Column) or told_by.name.casefold() not in own:
            return False
    return bool(batch.table_slice.columns)


def _taken(names: Sequence[str], batch: AuditedRows, outside: exp.Expr) -> exp.Select:
    """Return the values of live rows outside the slice that the shadow has too.

    Looking for the shadow's few keys in live first keeps the many keys of live out of memory.
    """
    mine = exp.select(terms.number(1)).from_(terms.rows(batch.rows, alias=SHADOW))
    same = terms.same(names, left=SHADOW, right=_LIVE)
    live = exp.select(*terms.columns(names, of=_LIVE)).from_(terms.table(batch.live, alias=_LIVE))
    return live.where(terms.qualified(outside, _LIVE)).where(exp.Exists(this=mine.where(same)))
