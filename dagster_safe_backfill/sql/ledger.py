"""Statements that read the ledger, the table in which the library records what it does to each partition."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, get_args

from sqlglot import exp

from dagster_safe_backfill.errors import LedgerError
from dagster_safe_backfill.model.events import CHANGES_OF_LIVE, Event, StagedEvent
from dagster_safe_backfill.model.tables import Column, TableRef, names_of
from dagster_safe_backfill.sql import terms
from dagster_safe_backfill.sql.dialect import Dialect
from dagster_safe_backfill.sql.ledger_rows import LedgerRow

LEDGER = "_safe_backfill_ledger"
# Columns are only added, never renamed: a ledger of an older version keeps its own and gets the missing ones by
# `Tables.ensure_table`, with NULL in its old rows.
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
    # fingerprint: of the live partition, when its rows were staged or after the live table was changed.
    # replaced_fingerprint: of the live partition before that change.
    "fingerprint": "TEXT",
    "fingerprinted_columns": "TEXT",
    "replaced_fingerprint": "TEXT",
    "archive": "TEXT",
    "archive_expires_at": "TIMESTAMPTZ",
    "undone_publications": "TEXT",
    # The group of the partitions that are staged and published together: a backfill, or a run.
    "scope": "TEXT",
    # When the rows were computed; of `clock`, what the clock said.
    "computed_at": "TIMESTAMPTZ",
    # What made the rows of the partition, and who: JSON of a `Provenance`, and the run that computed them.
    "provenance": "TEXT",
    "computed_by": "TEXT",
    "asset_key": "TEXT",
    # JSON: of staged rows, the fingerprints of the other partitions in which their keys were live; of a change, the
    # partitions to which rows of the partition moved.
    "moved": "TEXT",
    # The `FORMAT` of the release that wrote the row.
    "format": "BIGINT",
}

FORMAT = 3
"""The format of the rows that this release writes. Raise it with each change that an earlier release can't read."""

_ADDED = {"provenance": 2, "computed_by": 2, "asset_key": 2, "moved": 2, "format": 3}
"""The format that added a column. Ledgers of earlier formats don't have it until something is written to them."""

_KEEPS = {"TIMESTAMPTZ": "timestamptz", "TEXT": "text", "BIGINT": "other"}
"""What columns of the ledger's types keep, as `Dialect.keeps` names it."""

_RANK = "_sb_rank"

# The smallest difference that a TIMESTAMPTZ of DuckDB can hold.
TICK = timedelta(microseconds=1)


def ledger_of(table: TableRef) -> TableRef:
    """Return the name of the ledger of a table. All tables of a schema, or of a `wap_schema`, share one ledger."""
    return TableRef(schema=table.schema_beside, name=LEDGER)


def checked(found: Sequence[Column] | None, table: TableRef, dialect: Dialect) -> Sequence[Column] | None:
    """Return the columns of a table's ledger, of this format or of an earlier one; None if there is no ledger.

    Args:
        found: The columns of the table that has the ledger's name; None if there is none.
        table: The live table.
        dialect: The dialect of the warehouse.

    Raises:
        LedgerError: Columns are missing that every format has, or a column has another type.
    """
    if found is None:
        return None
    own = ledger_of(table)
    known = {*map(str.casefold, names_of(found))}
    missing = [name for name in COLUMNS if name not in known and name not in _ADDED]
    if missing:
        raise LedgerError(
            f"{own} is not a ledger of this library: it has no {', '.join(missing)}. Nothing was changed. Bring the"
            " columns back, or rename the table; a new ledger begins without the history, so that nothing of before can"
            " be rolled back.",
            table=str(own),
        )
    for column in found:
        expected = COLUMNS.get(column.name.casefold())
        if expected is not None and dialect.keeps(column.type) != _KEEPS[expected]:
            raise LedgerError(
                f"the ledger {own} is damaged: its column {column.name} is {column.type}, and not {expected}. Nothing"
                " was changed. Give the column its type back.",
                table=str(own),
            )
    return found


def check_format(newest: int, table: TableRef) -> None:
    """Refuse to go on with a ledger in which a newer release of this library has written.

    Raises:
        LedgerError: The ledger's newest format is later than this release's.
    """
    if newest > FORMAT:
        own = ledger_of(table)
        raise LedgerError(
            f"{own} has rows of format {newest}, and this release of dagster-safe-backfill knows formats up to"
            f" {FORMAT}. A newer release wrote them. Nothing was changed. Install that release here, too.",
            table=str(own),
        )


def as_rows(table: TableRef, names: Sequence[str], found: Iterable[Sequence[Any]]) -> list[LedgerRow]:
    """Return what a SELECT of some columns of a table's ledger found, in its order."""
    own = ledger_of(table)
    return [LedgerRow(own, dict(zip(names, row, strict=True))) for row in found]


def known_columns(names: Iterable[str], found: Iterable[Column]) -> dict[str, exp.Expr]:
    """Return a mapping from name to column of a ledger, or NULL for a column that its format doesn't have."""
    known = {*map(str.casefold, names_of(found))}
    items: dict[str, exp.Expr] = {}
    for name in names:
        items[name] = terms.column(name) if name in known else exp.cast(exp.null(), COLUMNS[name])
    return items


def rows_of(table: TableRef, items: Iterable[exp.Expr], *conditions: exp.Expr) -> exp.Select:
    """Return `items` of the ledger's rows of one table for which all conditions are true."""
    is_of_table = terms.column("table_name").eq(terms.text(str(table)))
    select = exp.select(*items).from_(terms.table(ledger_of(table)), copy=False)
    return select.where(is_of_table, *conditions, copy=False)


def changes_of(table: TableRef, names: Iterable[str], *conditions: exp.Expr) -> exp.Select:
    """Return some columns of the ledger's changes of a live table, the oldest first."""
    select = rows_of(table, terms.columns(names), is_event(*CHANGES_OF_LIVE), *conditions)
    return select.order_by(terms.column("recorded_at"), copy=False)


def newest_by_partition(table: TableRef, items: Mapping[str, exp.Expr], *conditions: exp.Expr) -> exp.Select:
    """Return named expressions of the newest row of each partition in each group, the oldest first."""
    at = terms.column("recorded_at")
    order = exp.Order(expressions=[exp.Ordered(this=at, desc=True, nulls_first=False)])
    rank = exp.Window(this=exp.RowNumber(), partition_by=[group(), terms.column("partition_key")], order=order)
    ranked = rows_of(table, terms.named({**items, "scope": group(), _RANK: rank}), *conditions)
    select = exp.select(*terms.columns(items)).from_(terms.subquery(ranked, "_sb_events"))
    return select.where(terms.column(_RANK).eq(terms.number(1))).order_by(at.copy())


def newest_row(table: TableRef, *, until: datetime) -> exp.Select:
    """Return event, time and the time that it notes of the newest row of any table, of those dated no later."""
    at = terms.column("recorded_at")
    items = [terms.column("event"), at, terms.column("computed_at")]
    select = exp.select(*items).from_(terms.table(ledger_of(table))).where(at.copy() <= terms.instant(until))
    return select.order_by(at.copy().desc()).limit(1)


def newest_groups(table: TableRef, *conditions: exp.Expr, number: int) -> exp.Select:
    """Return the publication ids of the newest of the ledger's rows for which all conditions are true."""
    select = rows_of(table, [terms.column("publication_id")], *conditions).group_by(terms.column("publication_id"))
    return select.order_by(exp.Max(this=terms.column("recorded_at")).desc()).limit(number)


def schemas_that_know(table: TableRef, ledgers: Sequence[TableRef]) -> exp.Query:
    """Return a query for the schemas of those of some ledgers that have rows of a table."""
    selects: list[exp.Query] = [
        exp.select(terms.text(one.schema)).from_(terms.table(one)).where(_is_of_table(table)).distinct()
        for one in ledgers
    ]
    return selects[0] if len(selects) == 1 else exp.union(*selects, distinct=False)


def last_writer(table: TableRef, own: Iterable[str], *, run_id: str) -> exp.Select:
    """Return asset key and event of the newest row that says which asset writes a table.

    That is a change of the live table by any asset, or what an asset outside `own` has staged in the same run: shadows
    are named by run, so two assets would write one shadow.
    """
    asset = terms.column("asset_key")
    is_other = exp.not_(terms.is_in(asset, map(terms.text, own)))
    is_in_run = terms.column("run_id").eq(terms.text(run_id))
    is_change = is_event(*CHANGES_OF_LIVE, "stored")
    of_run = exp.and_(is_in_run, is_event(*get_args(StagedEvent), "intended"), is_other)
    select = exp.select(asset.copy(), terms.column("event")).from_(terms.table(ledger_of(table)))
    select = select.where(_is_of_table(table), is_given("asset_key"), exp.or_(is_change, of_run))
    return select.order_by(terms.column("recorded_at").desc()).limit(1)


def _is_of_table(table: TableRef) -> exp.Expr:
    # DuckDB ignores the case of a table's name, and so does Snowflake here: other spellings are the same table.
    return exp.Lower(this=terms.column("table_name")).eq(exp.Lower(this=terms.text(str(table))))


def is_of_asset(assets: Iterable[str]) -> exp.Expr:
    """Return a condition that is true for the rows of these assets, and for those of versions without asset keys."""
    asset = terms.column("asset_key")
    is_unknown = exp.Is(this=asset.copy(), expression=exp.Null())
    return exp.or_(is_unknown, terms.is_in(asset, map(terms.text, assets)))


def is_event(*events: Event) -> exp.Expr:
    """Return a condition that is true if a row records one of `events`."""
    if len(events) == 1:
        return terms.column("event").eq(terms.text(events[0]))
    return terms.column("event").isin(*map(terms.text, events))


def is_given(name: str) -> exp.Expr:
    """Return a condition that is true if a column isn't NULL."""
    return exp.not_(exp.Is(this=terms.column(name), expression=exp.Null()))


def group() -> exp.Expr:
    """Return the group of a row. Rows of versions without groups have none; there it is the publication."""
    return exp.Coalesce(this=terms.column("scope"), expressions=[terms.column("publication_id")])
