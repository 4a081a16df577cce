"""Reading from the ledger how live partitions changed, and which shadows and archives belong to a table."""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from functools import partial
from typing import Any

from sqlglot import exp

from dagster_safe_backfill.model.events import CHANGES_OF_LIVE, ChangeEvent, Event
from dagster_safe_backfill.model.provenance import Provenance
from dagster_safe_backfill.model.slices import TableSlice
from dagster_safe_backfill.model.states import Fingerprint, Origin, RowCounts
from dagster_safe_backfill.model.tables import TableRef
from dagster_safe_backfill.sql import ledger, terms
from dagster_safe_backfill.warehouses.base import Row, Session

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
    # A ledger of an earlier version lacks columns until the next run writes to it; readers can't add them.
    if not ledger.is_readable(session.tables.columns(ledger.ledger_of(table))):
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Owner:
    """Who made a shadow or an archive, and when it was last used.

    Attributes:
        run_id: The id of the run that made it.
        last_used: The time of the last ledger row that names it.
        asset_key: The key of the run's asset; None if the ledger doesn't name it.
    """

    run_id: str
    last_used: datetime
    asset_key: str | None = None


def shadow_owners(session: Session, table: TableRef) -> dict[str, Owner]:
    """Return a mapping from the name, in lower case, of each shadow that the table ever had to its owner."""
    columns = session.tables.columns(ledger.ledger_of(table)) or ()
    items = ledger.known_columns(["shadow", "run_id", "recorded_at", "asset_key"], columns)
    select = ledger.rows_of(table, terms.named(items), ledger.is_given("shadow"))
    found = session.query(select.distinct().order_by(terms.column("recorded_at")))
    return {
        # The column `shadow` holds `schema.name`. Rows come in order of time, so the last one of a shadow counts.
        table.shadow_named(name).name.casefold(): Owner(run_id=run_id, last_used=at, asset_key=asset)
        for name, run_id, at, asset in found
    }


def archives(session: Session, table: TableRef) -> dict[TableRef, datetime]:
    """Return a mapping from each archive that the table ever had to the time at which it expires."""
    archive, expiry = terms.column("archive"), terms.column("archive_expires_at")
    items = [archive, exp.Max(this=expiry)]
    select = ledger.rows_of(table, items, ledger.is_event(*CHANGES_OF_LIVE), ledger.is_given("archive"))
    found = session.query(select.group_by(archive.copy()))
    return {table.archive_named(name): at for name, at in found}


def kept_archives(session: Session, table: TableRef) -> set[str]:
    """Return the names, in lower case, of the archives of a table that exist."""
    found: set[str] = set()
    for place in table.archives(""):
        found |= {one.name.casefold() for one in session.tables.list(place.schema, place.name)}
    return found


def unrecorded_archives(session: Session, table: TableRef) -> dict[TableRef, Owner]:
    """Return a mapping from each archive that was intended, but that no change of the table names, to its owner."""
    items = terms.columns(["archive", "run_id", "recorded_at"])
    found = session.query(ledger.rows_of(table, items, ledger.is_event("intended"), ledger.is_given("archive")))
    recorded = archives(session, table)
    named = {table.archive_named(name): Owner(run_id=run_id, last_used=at) for name, run_id, at in found}
    return {one: owner for one, owner in named.items() if one not in recorded}


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
    return list(map(partial(_change, table), session.query(ledger.changes_of(table, _COLUMNS, *conditions))))


def recorded_fields(table: TableRef, row: Row) -> dict[str, Any]:
    """Return the fields of a `Recorded` of a table from a row that begins with `RECORDED_COLUMNS`."""
    of = dict(zip(RECORDED_COLUMNS, row, strict=False))
    kinds = ("staged", "inserted", "updated", "deleted", "unchanged")
    return {
        "recorded_at": of["recorded_at"],
        "event": of["event"],
        "key": of["partition_key"],
        "publication_id": of["publication_id"],
        "run_id": of["run_id"],
        "backfill_id": of["backfill_id"],
        "code_version": of["code_version"],
        "row_counts": RowCounts(**{kind: of[f"rows_{kind}"] or 0 for kind in kinds}),
        "archive": table.archive_named(of["archive"]) if of["archive"] else None,
        "expires_at": of["archive_expires_at"],
        "undone": tuple(json.loads(of["undone_publications"] or "[]")),
        "strategy": of["strategy"],
    }


def _change(table: TableRef, row: Row) -> Change:
    fingerprint, columns, replaced = row[len(RECORDED_COLUMNS) :]
    return Change(
        **recorded_fields(table, row),
        fingerprint=Fingerprint.parse(fingerprint) if fingerprint else None,
        columns=tuple(json.loads(columns or "[]")),
        replaced=Fingerprint.parse(replaced) if replaced else None,
    )


def cause_of_change(session: Session, live: TableSlice, keys: Collection[str]) -> str:
    """Return in words why live partitions differ from their last publication, as far as the ledger shows it.

    If a partition's window changed with the partitions definition, other rows belong to it now, though nobody changed
    them.
    """
    columns = session.tables.columns(ledger.ledger_of(live.table)) or ()
    items = ledger.known_columns(["partition_key", "provenance", "recorded_at"], columns)
    is_one = terms.is_in(terms.column("partition_key"), map(terms.text, sorted(keys)))
    newest = session.query(ledger.newest_by_partition(live.table, items, ledger.is_event("published"), is_one))
    assert live.partition_slice is not None
    now = live.partition_slice.meanings
    for key, made_by in {key: made_by for key, made_by, _at in newest}.items():
        before = None if made_by is None else Provenance.parse(made_by).parts.get("partition")
        if before is not None and before != now[key]:
            return f"as its partitions definition changed: {key} was {before}, and is {now[key]} now"
    return "by hand or by another version of the database"
