"""Reading the ledger as people do: what was published, rolled back and rejected, and what is staged and waits."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import get_args

from sqlglot import exp

from dagster_safe_backfill.model.events import CHANGES_OF_LIVE, Event, StagedEvent
from dagster_safe_backfill.model.tables import TableRef
from dagster_safe_backfill.sql import ledger, terms
from dagster_safe_backfill.sql.ledger_rows import LedgerRow
from dagster_safe_backfill.wap.ledger.history import RECORDED_COLUMNS, Recorded, known_ledger, recorded_fields
from dagster_safe_backfill.warehouses.base import Session

_WAITING: tuple[Event, ...] = ("staged", "audited", "approved")
"""The last events of partitions that are staged, and neither rejected nor published."""
_REJECTED: tuple[Event, ...] = ("rejected", "refused")
_DONE: tuple[Event, ...] = ("published", "rolled_back")

_COLUMNS = (*RECORDED_COLUMNS, "shadow", "failed_audits")


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry(Recorded):
    """What happened to one partition, whether or not it changed live rows.

    Attributes:
        shadow: The table with the rows that were staged; None of a change of the live table.
        failed_audits: The names of the audits that rejected the rows, with commas between; None if none did.
    """

    shadow: TableRef | None
    failed_audits: str | None


def has_ledger(session: Session, table: TableRef) -> bool:
    """Return True if there is a ledger, of this version or of an earlier one."""
    return known_ledger(session, table) is not None


def entries(
    session: Session, table: TableRef, *, keys: Sequence[str] | None = None, number: int | None = None
) -> list[Entry]:
    """Return what happened to a table, the oldest first: its changes, rejections, and what is staged and waits.

    Args:
        session: An open session; read-only is enough.
        table: The live table.
        keys: The partitions. Defaults to all.
        number: How many publications, or rejections, are looked at, the newest first. Defaults to all.
    """
    if not has_ledger(session, table):
        return []
    chosen = [] if keys is None else [terms.is_in(terms.column("partition_key"), map(terms.text, keys))]
    conditions = [ledger.is_event(*CHANGES_OF_LIVE, *_REJECTED), *chosen]
    if number is not None:
        newest = [name for (name,) in session.query(ledger.newest_groups(table, *conditions, number=number))]
        conditions.append(terms.is_in(terms.column("publication_id"), map(terms.text, newest)))
    found = session.query(ledger.rows_of(table, terms.columns(_COLUMNS), *conditions))
    rows = ledger.as_rows(table, _COLUMNS, found)
    rows += _waiting(session, table, chosen)
    return sorted((_entry(table, row) for row in rows), key=lambda one: one.recorded_at)


def _waiting(session: Session, table: TableRef, chosen: Sequence[exp.Expr]) -> list[LedgerRow]:
    """Return the rows of what is staged and neither rejected nor published, and whose shadow exists."""
    items = {name: terms.column(name) for name in _COLUMNS}
    events = ledger.is_event(*get_args(StagedEvent), "taken_up", *_DONE)
    newest = ledger.newest_by_partition(table, items, events, *chosen)
    names = {one.name.casefold() for one in session.tables.list(table.schema_beside, table.shadow_prefix)}
    waiting: list[LedgerRow] = []
    found = session.query(newest.where(ledger.is_event(*_WAITING)))
    for row in ledger.as_rows(table, _COLUMNS, found):
        shadow = row.optional_text("shadow")
        if shadow and table.shadow_named(shadow).name.casefold() in names:
            waiting.append(row)
    return waiting


def _entry(table: TableRef, row: LedgerRow) -> Entry:
    shadow = row.optional_text("shadow")
    return Entry(
        **recorded_fields(table, row),
        shadow=table.shadow_named(shadow) if shadow else None,
        failed_audits=row.optional_text("failed_audits"),
    )


def groups_of_backfill(session: Session, table: TableRef, backfill_id: str) -> Collection[str]:
    """Return the groups in which runs of a backfill staged or published rows."""
    is_of = terms.column("backfill_id").eq(terms.text(backfill_id))
    return {group for (group,) in session.query(ledger.rows_of(table, [ledger.group()], is_of).distinct())}
