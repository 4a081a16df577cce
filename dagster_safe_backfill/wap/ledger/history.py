"""Reading from the ledger how live partitions changed, and which shadows and archives belong to a table."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from sqlglot import exp

from dagster_safe_backfill.model.events import CHANGES_OF_LIVE, ChangeEvent, Event, Fingerprint, RowCounts
from dagster_safe_backfill.model.slices import TableSlice
from dagster_safe_backfill.model.states import Origin
from dagster_safe_backfill.model.tables import Column, TableRef
from dagster_safe_backfill.sql import ledger, terms
from dagster_safe_backfill.sql.ledger_rows import LedgerRow
from dagster_safe_backfill.warehouses.base import Session

RECORDED_COLUMNS = (
    *("recorded_at", "event", "partition_key", "publication_id", "run_id", "backfill_id", "code_version"),
    *("rows_staged", "rows_inserted", "rows_updated", "rows_deleted", "rows_unchanged"),
    *("archive", "archive_expires_at", "undone_publications", "strategy"),
)
"""The columns of the ledger that a `Recorded` is read from; those of a kind of it come after."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Recorded:
    """What happened to one partition.

    Attributes:
        archive: The archive of the rows that a change replaced. None if there were none, if none changed, or if none
            are kept.
        undone: The publications that a rollback undid in this partition; empty for all else.
    """

    recorded_at: datetime
    event: Event
    key: str
    publication_id: str
    run_id: str
    backfill_id: str | None
    code_version: str | None
    row_counts: RowCounts
    archive: TableRef | None
    expires_at: datetime | None
    undone: tuple[str, ...]
    strategy: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Change(Recorded):
    """A publication or rollback of one live partition, or a move of rows out of it, as the ledger records it.

    Attributes:
        fingerprint: The partition's fingerprint after the change. None if the library's version that wrote the row had
            no archives yet.
        columns: The columns over which the fingerprint was computed.
        replaced: The partition's fingerprint before the change; None in the same case.
    """

    event: ChangeEvent
    fingerprint: Fingerprint | None
    columns: tuple[str, ...]
    replaced: Fingerprint | None

    def __str__(self) -> str:
        what = {"rolled_back": "rolled back", "moved": "left by rows that were published"}.get(self.event, "published")
        return f"{what} by {self.publication_id} at {self.recorded_at:%Y-%m-%d %H:%M:%S %Z}"


_COLUMNS = (*RECORDED_COLUMNS, "fingerprint", "fingerprinted_columns", "replaced_fingerprint")


def known_ledger(session: Session, table: TableRef) -> Sequence[Column] | None:
    """Return the columns of a table's ledger, of this format or of an earlier one; None if there is no ledger.

    Raises:
        LedgerError: The ledger is damaged.
    """
    return ledger.checked(session.tables.columns(ledger.ledger_of(table)), table, session.dialect)


def changes_by(session: Session, table: TableRef, *publication_ids: str) -> list[Change]:
    """Return the changes of the publications or rollbacks with these ids, one for each partition, the oldest first."""
    return _changes(session, table, terms.is_in(terms.column("publication_id"), map(terms.text, publication_ids)))


def changes_in(session: Session, table: TableRef, group: str) -> list[Change]:
    """Return the changes of the publications of one group, the oldest first."""
    return _changes(session, table, ledger.group().eq(terms.text(group)))


def changes_by_backfill(session: Session, table: TableRef, backfill_id: str) -> list[Change]:
    """Return the changes of the publications of one backfill, the oldest first."""
    return _changes(session, table, terms.column("backfill_id").eq(terms.text(backfill_id)))


def history(session: Session, table: TableRef, keys: Sequence[str] | None = None) -> list[Change]:
    """Return all changes of some of a table's partitions, or of all partitions, the oldest first."""
    if keys is None:
        return _changes(session, table)
    # `is_in` splits long lists, because Snowflake takes at most 16,384 values in one IN.
    return _changes(session, table, terms.is_in(terms.column("partition_key"), map(terms.text, keys)))


def partition_keys(session: Session, table: TableRef) -> tuple[str, ...]:
    """Return the keys of all partitions that were ever changed; empty if there is no ledger."""
    if known_ledger(session, table) is None:
        return ()
    select = ledger.rows_of(table, [terms.column("partition_key")], ledger.is_event(*CHANGES_OF_LIVE)).distinct()
    return tuple([key for (key,) in session.query(select)])


def publication_of_batch(session: Session, table: TableRef, origin: Origin) -> Origin:
    """Return the origin of the publication of one batch, whose id is the group's name with the next number."""
    return replace(origin, publication_id=f"{origin.group}.{_publications(session, table, origin.group) + 1}")


def publication_of_group(session: Session, table: TableRef, origin: Origin) -> Origin:
    """Return the origin of the publication of a group.

    Its id is the group's name, or the name with the next number if the group was published before.
    """
    before = _publications(session, table, origin.group)
    return replace(origin, publication_id=f"{origin.group}.{before + 1}" if before else origin.group)


def _publications(session: Session, table: TableRef, group: str) -> int:
    """Return the number of publications and rollbacks of one group."""
    return len({change.publication_id for change in changes_in(session, table, group)})


def staged_at(session: Session, table: TableRef, group: str) -> datetime | None:
    """Return the time at which a group last staged rows."""
    latest = exp.Max(this=terms.column("recorded_at"))
    is_in_group = ledger.group().eq(terms.text(group))
    ((found,),) = session.query(ledger.rows_of(table, [latest], ledger.is_event("staged"), is_in_group))
    return found


def rejections(session: Session, table: TableRef) -> dict[str, datetime]:
    """Return a mapping from each run whose audits blocked partitions of the table to the time of the last one."""
    run, latest = terms.column("run_id"), exp.Max(this=terms.column("recorded_at"))
    select = ledger.rows_of(table, [run, latest], ledger.is_event("rejected", "refused"))
    return dict(session.query(select.group_by(run)))


def newest_publication(session: Session, table: TableRef) -> str | None:
    """Return the id of the last publication of a table; rollbacks don't count."""
    # Not of rollbacks: a rollback job that is launched twice without an id would undo and then redo a publication.
    select = ledger.rows_of(table, [terms.column("publication_id")], ledger.is_event("published"))
    found = session.query(select.order_by(terms.column("recorded_at").desc()).limit(1))
    return found[0][0] if found else None


def other_versions(session: Session, table: TableRef, origin: Origin) -> list[str | None]:
    """Return the other code versions with which the run's backfill has published partitions of the table."""
    if origin.backfill_id is None:
        return []
    version = terms.column("code_version")
    own = exp.null() if origin.code_version is None else terms.text(origin.code_version)
    select = ledger.rows_of(
        table,
        [version],
        terms.column("backfill_id").eq(terms.text(origin.backfill_id)),
        ledger.is_event("published"),
        # `<>` is never true for NULL, which stands for an asset without a code_version.
        exp.NullSafeNEQ(this=version.copy(), expression=own),
    )
    return [row[0] for row in session.query(select.distinct())]


def _changes(session: Session, table: TableRef, *conditions: exp.Expr) -> list[Change]:
    found = session.query(ledger.changes_of(table, _COLUMNS, *conditions))
    return [_change(table, row) for row in ledger.as_rows(table, _COLUMNS, found)]


def recorded_fields(table: TableRef, row: LedgerRow) -> dict[str, Any]:
    """Return the fields of a `Recorded` of a table from a row that has the `RECORDED_COLUMNS`."""
    archive = row.optional_text("archive")
    return {
        "recorded_at": row.time("recorded_at"),
        "event": row.event(),
        "key": row.text("partition_key"),
        "publication_id": row.text("publication_id"),
        "run_id": row.text("run_id"),
        "backfill_id": row.optional_text("backfill_id"),
        "code_version": row.optional_text("code_version"),
        "row_counts": row.row_counts(),
        "archive": table.archive_named(archive) if archive else None,
        "expires_at": row.optional_time("archive_expires_at"),
        "undone": row.texts("undone_publications"),
        "strategy": row.optional_text("strategy"),
    }


def _change(table: TableRef, row: LedgerRow) -> Change:
    return Change(
        **recorded_fields(table, row),
        fingerprint=row.fingerprint("fingerprint"),
        columns=row.texts("fingerprinted_columns"),
        replaced=row.fingerprint("replaced_fingerprint"),
    )


def cause_of_change(session: Session, live: TableSlice, keys: Collection[str]) -> str:
    """Return in words why live partitions differ from their last publication, as far as the ledger shows it.

    If a partition's window changed with the partitions definition, other rows belong to it now, though nobody changed
    them.
    """
    columns = session.tables.columns(ledger.ledger_of(live.table)) or ()
    names = ("partition_key", "provenance", "recorded_at")
    items = ledger.known_columns(names, columns)
    is_one = terms.is_in(terms.column("partition_key"), map(terms.text, sorted(keys)))
    newest = ledger.newest_by_partition(live.table, items, ledger.is_event("published"), is_one)
    rows = ledger.as_rows(live.table, names, session.query(newest))
    made_by = {row.text("partition_key"): row.provenance() for row in rows}
    assert live.partition_slice is not None
    now = live.partition_slice.meanings
    for key, provenance in made_by.items():
        before = None if provenance is None else provenance.parts.get("partition")
        if before is not None and before != now[key]:
            return f"as its partitions definition changed: {key} was {before}, and is {now[key]} now"
    return "by hand or by another program"
