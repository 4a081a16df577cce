"""Statements over the ledger: the table beside the data that says what happened to each partition, and when."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from sqlglot import exp

from dagster_safe_backfill.model.states import CHANGES_OF_LIVE, Event
from dagster_safe_backfill.model.tables import Column, TableRef, names_of
from dagster_safe_backfill.sql import terms

LEDGER = "_safe_backfill_ledger"
COLUMNS: Mapping[str, str] = {
    "recorded_at": "TIMESTAMPTZ",
    "event": "TEXT",
    "table_name": "TEXT",
    "partition_key": "TEXT",
    "publication_id": "TEXT",
    "shadow": "TEXT",
    "run_id": "TEXT",
    "backfill_id": "TEXT",
    "code_version": "TEXT",
    "strategy": "TEXT",
    "rows_staged": "BIGINT",
    "rows_inserted": "BIGINT",
    "rows_updated": "BIGINT",
    "rows_deleted": "BIGINT",
    "rows_unchanged": "BIGINT",
    "failed_audits": "TEXT",
    "warned_audits": "TEXT",
    # Of live: when the rows were staged, or after it was changed; and what the change replaced.
    "fingerprint": "TEXT",
    "fingerprinted_columns": "TEXT",
    "replaced_fingerprint": "TEXT",
    "archive": "TEXT",
    "archive_expires_at": "TIMESTAMPTZ",
    "undone_publications": "TEXT",
    "code": "TEXT",
    # The group of what is staged and published together.
    "scope": "TEXT",
    "computed_at": "TIMESTAMPTZ",
}

_RANK = "_sb_rank"


def ledger_of(table: TableRef) -> TableRef:
    """Return the ledger's name for the tables of one schema."""
    return TableRef(schema=table.schema, name=LEDGER)


def is_complete(found: Iterable[Column] | None) -> bool:
    """Return whether these are the columns of a ledger as this version keeps it; None are those of no table."""
    return found is not None and {*map(str.casefold, names_of(found))} >= COLUMNS.keys()


def rows_of(table: TableRef, items: Iterable[exp.Expr], *conditions: exp.Expr) -> exp.Select:
    """Return what the ledger says of a table, where all conditions hold."""
    is_of_table = terms.column("table_name").eq(terms.text(str(table)))
    return exp.select(*items).from_(terms.table(ledger_of(table))).where(is_of_table, *conditions)


def changes_of(table: TableRef, names: Iterable[str], *conditions: exp.Expr) -> exp.Select:
    """Return columns of the changes of a live table, the oldest first."""
    select = rows_of(table, terms.columns(names), is_event(*CHANGES_OF_LIVE), *conditions)
    return select.order_by(terms.column("recorded_at"))


def newest_by_partition(table: TableRef, names: Sequence[str], *conditions: exp.Expr) -> exp.Select:
    """Return columns of the last row of each partition in each group, the oldest first."""
    at = terms.column("recorded_at")
    order = exp.Order(expressions=[exp.Ordered(this=at, desc=True, nulls_first=False)])
    rank = exp.Window(this=exp.RowNumber(), partition_by=[group(), terms.column("partition_key")], order=order)
    items = dict(zip(names, terms.columns(names), strict=True))
    ranked = rows_of(table, terms.named({**items, "scope": group(), _RANK: rank}), *conditions)
    select = exp.select(*terms.columns(names)).from_(terms.subquery(ranked, "_sb_events"))
    return select.where(terms.column(_RANK).eq(terms.number(1))).order_by(at.copy())


def is_event(*events: Event) -> exp.Expr:
    """Return whether a row tells of one of some events."""
    if len(events) == 1:
        return terms.column("event").eq(terms.text(events[0]))
    return terms.column("event").isin(*map(terms.text, events))


def is_named(name: str, *values: str) -> exp.Expr:
    """Return whether a column holds one of some texts."""
    return terms.column(name).isin(*map(terms.text, values))


def is_given(name: str) -> exp.Expr:
    """Return whether a column isn't NULL."""
    return exp.not_(exp.Is(this=terms.column(name), expression=exp.Null()))


def group() -> exp.Expr:
    """Return a row's group; before there were groups, it was the publication."""
    return exp.Coalesce(this=terms.column("scope"), expressions=[terms.column("publication_id")])
