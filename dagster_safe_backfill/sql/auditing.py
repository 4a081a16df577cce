"""Statements that measure audits on a batch of rows, as many audits in one scan as SQL allows."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from datetime import datetime
from decimal import Decimal
from typing import Literal

import sqlglot
from sqlglot import exp
from sqlglot.errors import SqlglotError
from typing_extensions import assert_never

from dagster_safe_backfill.audits.base import Value
from dagster_safe_backfill.audits.groups import Aggregate
from dagster_safe_backfill.audits.rows import (
    AcceptedValues,
    FailingRows,
    InRange,
    NotNull,
    References,
    RowExpression,
    Unique,
)
from dagster_safe_backfill.errors import ConfigurationError
from dagster_safe_backfill.model.tables import Column, TableRef
from dagster_safe_backfill.redaction import without_secrets
from dagster_safe_backfill.sql import terms
from dagster_safe_backfill.sql.audited_rows import (
    EVERY_COLUMN,
    LIVE,
    SHADOW,
    AuditedRows,
    all_live,
    shadow_rows,
)
from dagster_safe_backfill.sql.sameness import Sameness
from dagster_safe_backfill.sql.slicing import PARTITION, expression, identify_partitions, positioned

ByCondition = NotNull | AcceptedValues | InRange | RowExpression | References
"""Audits whose failing rows are counted together in one scan, with joins to other tables if needed."""
ByLookup = Unique
"""Audits that compare each row with all others. Each of them needs a scan of its own."""

_OTHER = "_sb_other"
_BATCH_NAME, _LIVE_NAME = "batch", "live"


def aggregated(aggregate: Aggregate | str, batch: AuditedRows, *, option: str) -> exp.Expr:
    """Return an aggregate as SQL over columns without a table name, so that it can also be measured on live rows.

    Raises:
        ConfigurationError: The aggregate's SQL isn't an expression. The message names `option`.
    """
    if isinstance(aggregate, str):
        aggregate = Aggregate(sql=aggregate)
    if aggregate.sql == "*":
        return exp.Count(this=exp.Star())
    if aggregate.of is None:
        return terms.parsed(aggregate.sql, dialect=batch.dialect.name, option=option)
    found = _value(aggregate.sql, batch, option, of=None)
    if aggregate.of == "distinct":
        return exp.Count(this=exp.Distinct(expressions=[*_exact(found, aggregate.sql, batch)]))
    return _percentile(found, aggregate.of) if not isinstance(aggregate.of, str) else _total(found, aggregate.of)


def _percentile(value: exp.Expr, share: float) -> exp.Expr:
    return exp.WithinGroup(
        this=exp.PercentileCont(this=terms.number(share)),
        expression=exp.Order(expressions=[exp.Ordered(this=value)]),
    )


def _total(value: exp.Expr, total: Literal["total", "mean", "median"]) -> exp.Expr:
    match total:
        case "total":
            return exp.Sum(this=value)
        case "mean":
            return exp.Avg(this=value)
        case "median":
            return _percentile(value, 0.5)
        case _:
            assert_never(total)


def fails(audit: ByCondition | ByLookup, batch: AuditedRows) -> exp.Expr:
    """Return a condition that is true for the rows of the shadow that break the audit's rule.

    Raises:
        ConfigurationError: The audit's SQL isn't an expression.
    """
    # NOT of a condition that is NULL is NULL, which no count includes. So NULL passes, as in SQL's CHECK.
    match audit:
        case NotNull():
            return has_null(audit.columns)
        case AcceptedValues():
            return _is_other(audit, batch)
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


def _is_other(audit: AcceptedValues, batch: AuditedRows) -> exp.Expr:
    value = _value(audit.column, batch, f"audit {audit.name}")
    values = [_literal(one, audit.column, batch) for one in audit.values]
    column = _column(audit.column, batch)
    here = _exact(value, audit.column, batch)
    if column is None or [*here] == [value]:
        return exp.not_(terms.is_in(value, values))
    accepted: list[exp.Expr] = []
    for one in values:
        typed = terms.typed(one.copy(), column.type, dialect=batch.dialect.name)
        accepted.append(_one([form.copy() for form in batch.dialect.exact(typed, column)]))
    # Equal, too: the cast to the column's type alone would make a short float of a long one, and accept it.
    is_accepted = exp.and_(terms.is_in(value, values), terms.is_in(_one(here), accepted))
    is_given = exp.not_(exp.Is(this=value.copy(), expression=exp.Null()))
    return exp.and_(is_given, exp.not_(is_accepted))


def _one(forms: Sequence[exp.Expr]) -> exp.Expr:
    return forms[0] if len(forms) == 1 else exp.Tuple(expressions=[*forms])


def _is_between(audit: InRange, batch: AuditedRows) -> exp.Expr:
    value = _value(audit.column, batch, f"audit {audit.name}")
    bounds: list[exp.Expr] = []
    if audit.least is not None:
        least = _literal(audit.least, audit.column, batch)
        bounds.append(exp.GTE(this=_ordered(value, audit, batch), expression=_ordered(least, audit, batch)))
    if audit.most is not None:
        most = _literal(audit.most, audit.column, batch)
        bounds.append(exp.LTE(this=_ordered(value, audit, batch), expression=_ordered(most, audit, batch)))
    return exp.paren(terms.all_of(bounds))


def _ordered(value: exp.Expr, audit: InRange, batch: AuditedRows) -> exp.Expr:
    """Return a value in the form whose order counts: texts that have a collation are ordered by their bytes."""
    column = _column(audit.column, batch)
    bounds = [bound for bound in (audit.least, audit.most) if bound is not None]
    if column is None or column.collation is None or not all(isinstance(bound, str) for bound in bounds):
        return value.copy()
    return batch.dialect.exact(value.copy(), column)[0]


def _column(name: str, batch: AuditedRows) -> Column | None:
    """Return the type and the collation of a column, or of an expression if they are known."""
    known = {column.name.casefold(): column for column in batch.columns}
    return known.get(name.casefold(), batch.expressions.get(name))


def _exact(value: exp.Expr, name: str, batch: AuditedRows) -> Sequence[exp.Expr]:
    """Return the value of a column or an expression in forms that are all equal only for identical values."""
    column = _column(name, batch)
    return (value,) if column is None else [form.copy() for form in batch.dialect.exact(value, column)]


def _value(column: str, batch: AuditedRows, option: str, *, of: str | None = SHADOW) -> exp.Expr:
    """Return the column named `column`, or if there is none, `column` parsed as an expression over a row."""
    known = {known.casefold(): known for known in batch.names}
    if column.casefold() in known:
        return terms.column(known[column.casefold()], of=of)
    return terms.parsed(column, dialect=batch.dialect.name, option=option)


def _literal(value: Value, column: str, batch: AuditedRows) -> exp.Expr:
    if isinstance(value, datetime):
        _check_zone(value, column, batch)
    if isinstance(value, float | Decimal) and math.isinf(value):
        # SQL has no literal for infinity. DuckDB and Snowflake cast these texts to it.
        text = "inf" if value > 0 else "-inf"
        return exp.cast(terms.text(text), exp.DataType.Type.DOUBLE)
    # Rendered and parsed again, because a date that exp.convert returns has no dialect of its own.
    return sqlglot.parse_one(exp.convert(value).sql(dialect=batch.dialect.name), dialect=batch.dialect.name)


def _check_zone(value: datetime, column: str, batch: AuditedRows) -> None:
    """Raise if one of two times has a zone and the other has none: the result would depend on the session's zone."""
    names = [name.casefold() for name in batch.names]
    is_instant = column.casefold() in [name.casefold() for name in batch.instants]
    if column.casefold() in names and is_instant != (value.tzinfo is not None):
        kind, other = ("with", "without") if is_instant else ("without", "with")
        raise ConfigurationError(
            f"the column {column} holds times {kind} a time zone, so it can't be compared with {value.isoformat()}."
            f" Give a time {kind} a time zone, not one {other}."
        )


def repetitions(audit: Unique, batch: AuditedRows) -> exp.Select:
    """Return `(position, number of rows whose values occur in another row too)`."""
    position = terms.column(PARTITION, of=SHADOW)
    select = exp.select(position, exp.Count(this=exp.Star())).from_(shadow_rows(batch))
    return select.where(_occurs_elsewhere(audit, batch)).group_by(position.copy())


def failing_rows(condition: exp.Expr, batch: AuditedRows) -> exp.Select:
    """Return the rows for which `condition` is true, in the order of their partitions."""
    select = exp.select(*terms.columns(batch.names, of=SHADOW)).from_(shadow_rows(batch)).where(condition.copy())
    return select.order_by(terms.column(PARTITION, of=SHADOW))


def as_published(select: exp.Query, batch: AuditedRows) -> exp.Query:
    """Return `select` with the live rows of the slice in place of the audited rows.

    It finds the same rows once the audited rows are published.
    """

    def published(node: exp.Expr) -> exp.Expr:
        is_batch = isinstance(node, exp.Table) and (node.db, node.name) == (batch.rows.schema, batch.rows.name)
        if not is_batch:
            return node
        # `failing_rows` orders by this column, which the live table doesn't have.
        items = [exp.Star(), *terms.named({PARTITION: terms.number(0)})]
        rows = exp.select(*items).from_(terms.table(batch.live)).where(batch.inside.copy())
        return terms.subquery(rows, node.alias or SHADOW)

    found = select.transform(published)
    assert isinstance(found, exp.Query)
    return found


def found_rows(audit: FailingRows, batch: AuditedRows) -> exp.Select:
    """Return a user's SELECT, in which `batch` and `live` are defined.

    Raises:
        ConfigurationError: The SQL isn't one SELECT.
    """
    try:
        statements = sqlglot.parse(audit.sql, dialect=batch.dialect.name)
    except SqlglotError as error:
        raise ConfigurationError(
            f"audit {audit.name}: this is not a SELECT: {without_secrets(audit.sql)!r}."
        ) from error
    select = statements[0] if len(statements) == 1 else None
    if not isinstance(select, exp.Query):
        raise ConfigurationError(f"audit {audit.name}: this is not one SELECT: {without_secrets(audit.sql)!r}.")
    rows = exp.select(*terms.columns(batch.names)).from_(terms.rows(batch.rows))
    # Without a live table, `live` is empty and has the columns of the batch, so that the same query can run.
    live = all_live(batch) if batch.has_live else rows.where(exp.false())
    # The definitions are outside the user's SELECT, so its own CTEs of these names take precedence.
    found = exp.select(exp.Star()).from_(terms.subquery(select, _OTHER))
    return found.with_(_BATCH_NAME, as_=rows).with_(_LIVE_NAME, as_=live)


def found_by_partition(found: exp.Query, batch: AuditedRows) -> exp.Select:
    """Return `(position, number of rows)` of a user's SELECT. Rows outside the slice have the position NULL."""
    every = exp.select(exp.Star()).from_(terms.subquery(found, _OTHER))
    rows = positioned(every, [EVERY_COLUMN.copy()], batch.table_slice)
    position = terms.column(PARTITION)
    select = exp.select(position, exp.Count(this=exp.Star())).from_(terms.subquery(rows, SHADOW))
    return select.group_by(position.copy())


def has_null(names: Sequence[str]) -> exp.Expr:
    """Return a condition that is true if at least one of the columns is NULL."""
    conditions: list[exp.Expr] = []
    for name in names:
        conditions.append(exp.Is(this=terms.column(name, of=SHADOW), expression=exp.Null()))
    return terms.any_of(conditions)


def _is_orphan(audit: References, batch: AuditedRows) -> exp.Expr:
    # An EXISTS that is counted, not a NOT EXISTS in WHERE: all audits share one scan, and on DuckDB it takes a third of
    # the time (docs/decisions/2026-11-21-audits-in-one-scan.md).
    others = exp.select(terms.number(1)).from_(_referenced(audit, batch))
    sameness = _of_references(audit, batch)
    own = sameness.all_forms(audit.columns, of=SHADOW)
    spelled = dict(zip(audit.columns, audit.referenced, strict=True))
    found = sameness.found(others, sameness.all_forms(audit.columns, of=_OTHER, spelled=spelled), own)
    return exp.and_(exp.not_(has_null(audit.columns)), exp.not_(found))


def _of_references(audit: References, batch: AuditedRows) -> Sameness:
    """Return how the audit's columns are compared with the referenced ones, whose collations count too."""
    there = {column.name.casefold(): column.collation for column in batch.references.get(audit.table, ())}
    referenced = zip(audit.columns, audit.referenced, strict=True)
    collations = {own.casefold(): there.get(other.casefold()) for own, other in referenced}
    columns = [
        Column(name=name, type=column.type, collation=column.collation or collations[name.casefold()])
        for name in audit.columns
        for column in batch.columns
        if column.name.casefold() == name.casefold()
    ]
    return Sameness.of(columns, batch.dialect)


def _referenced(audit: References, batch: AuditedRows) -> exp.Expr:
    """Return the referenced table under the alias `_OTHER`.

    If it is the asset's own table, return its rows as they will be after the publication.
    """
    table = TableRef.parse(audit.table, default_schema=batch.live.schema)
    # Both warehouses find a table by its name in any case.
    if str(table).casefold() != str(batch.live).casefold():
        return terms.table(table, alias=_OTHER)
    rows: exp.Query = exp.select(*terms.columns(audit.referenced)).from_(terms.rows(batch.rows))
    stays = _stays(batch)
    if stays is not None:
        others = exp.select(*terms.columns(audit.referenced)).from_(terms.table(batch.live, alias=LIVE))
        rows = exp.union(rows, others.where(stays), distinct=False)
    return terms.subquery(rows, _OTHER)


def is_of_key(audit: Unique, batch: AuditedRows) -> bool:
    """Return True if the columns of an audit are the asset's unique key. A column of the key can't be NULL."""
    return set(audit.columns or batch.key) == set(batch.key)


def _is_repeated(audit: Unique, batch: AuditedRows) -> exp.Expr:
    occurs_elsewhere = _occurs_elsewhere(audit, batch)
    return exp.or_(occurs_elsewhere, has_null(batch.key)) if is_of_key(audit, batch) else occurs_elsewhere


def repeated_values(audit: Unique, batch: AuditedRows) -> exp.Select:
    """Return the number of values that occur in more than one row. It is usually 0, and cheaper than `repetitions`."""
    return exp.select(exp.Count(this=exp.Star())).from_(terms.subquery(_repeated(audit, batch), _OTHER))


def live_elsewhere(audit: Unique, batch: AuditedRows) -> exp.Select | None:
    """Return the values and partition values of live rows outside the slice whose values an audited row has too.

    None if there can be no such rows.
    """
    names = audit.columns or batch.key
    stays = _stays(batch)
    if stays is None or identify_partitions(names, batch.table_slice):
        return None
    items = [expression(column).copy() for column in batch.table_slice.columns.values()]
    partitions = terms.named({f"{_OTHER}_{i}": terms.qualified(item, LIVE) for i, item in enumerate(items)})
    taken = _taken(names, batch, stays).select(*terms.columns(names, of=LIVE), *partitions, append=False)
    return taken.order_by(*(terms.qualified(item, LIVE) for item in items))


def _occurs_elsewhere(audit: Unique, batch: AuditedRows) -> exp.Expr:
    rows = exp.select(terms.number(1)).from_(terms.subquery(_repeated(audit, batch), _OTHER))
    forms = batch.sameness.named(audit.columns or batch.key, of=SHADOW)
    return batch.sameness.found(rows, terms.columns(forms, of=_OTHER), [*forms.values()])


def _repeated(audit: Unique, batch: AuditedRows) -> exp.Query:
    """Return the values that occur in several audited rows, or in an audited row and a live row outside the slice."""
    names = audit.columns or batch.key
    # GROUP BY treats NULLs as equal, but the lookup by `=` doesn't find them: NULL passes, as in SQL's UNIQUE.
    forms = batch.sameness.named(names)
    counted = exp.select(*_listed(forms)).from_(terms.rows(batch.rows))
    counted = counted.group_by(*(form.copy() for form in forms.values()))
    twice = counted.having(exp.GT(this=exp.Count(this=exp.Star()), expression=terms.number(1)))
    stays = _stays(batch)
    # No row stays that has the key of an audited row, if these rows move.
    if stays is None or identify_partitions(names, batch.table_slice) or (batch.moves_keys and is_of_key(audit, batch)):
        return twice
    return exp.union(twice, _taken(names, batch, stays), distinct=False)


def _stays(batch: AuditedRows) -> exp.Expr | None:
    """Return a condition that is true for the live rows, `LIVE`, that stay beside the audited rows; None if none do."""
    if batch.outside is None:
        return None
    stays = terms.qualified(batch.outside, LIVE)
    if not batch.moves_keys:
        return stays
    mine = exp.select(terms.number(1)).from_(terms.rows(batch.rows, alias=SHADOW))
    forms = [batch.sameness.all_forms(batch.key, of=side) for side in (SHADOW, LIVE)]
    return exp.and_(stays, exp.not_(batch.sameness.found(mine, *forms)))


def _taken(names: Sequence[str], batch: AuditedRows, stays: exp.Expr) -> exp.Select:
    """Return the values of live rows for which `stays` is true that the shadow has too."""
    # A lookup of the shadow's few keys keeps the many keys of the live table out of memory.
    mine = exp.select(terms.number(1)).from_(terms.rows(batch.rows, alias=SHADOW))
    forms = batch.sameness.named(names, of=LIVE)
    is_taken = batch.sameness.found(mine, batch.sameness.all_forms(names, of=SHADOW), [*forms.values()])
    live = exp.select(*_listed(forms)).from_(terms.table(batch.live, alias=LIVE))
    return live.where(stays).where(is_taken)


def _listed(forms: Mapping[str, exp.Expr]) -> list[exp.Expr]:
    """Return the items of a SELECT; columns that are listed as they are need no alias."""
    items: list[exp.Expr] = []
    for name, form in forms.items():
        items.append(form.copy() if isinstance(form, exp.Column) else exp.alias_(form.copy(), name, quoted=True))
    return items
