"""The ledger: an append-only table beside the data that says what happened to each partition, and when."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from typing import Literal

from sqlglot import exp

from dagster_safe_backfill.audits.verdicts import AuditResult
from dagster_safe_backfill.model.options import Strategy
from dagster_safe_backfill.model.states import Changes, Fingerprint, Origin, Staged
from dagster_safe_backfill.model.tables import TableRef
from dagster_safe_backfill.sql import terms
from dagster_safe_backfill.warehouses.base import Connection, Row

StageEvent = Literal["staged", "audited", "rejected", "approved", "refused"]
"""What happens to rows that aren't live: the last two by an audit of all that is staged together."""

Event = StageEvent | Literal["intended", "taken_up", "published", "rolled_back", "expired", "discarded"]
CHANGES_OF_LIVE: tuple[Event, ...] = ("published", "rolled_back")
"""The events that tell what stands in a partition."""

LEDGER = "_safe_backfill_ledger"
_COLUMNS = {
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
    "scope": "TEXT",
    "computed_at": "TIMESTAMPTZ",
}
_TICK = timedelta(microseconds=1)

Values = Mapping[str, object]
"""A row of the ledger; what isn't named is NULL."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """What the ledger says of one change of one live partition.

    Attributes:
        fingerprint: The partition's after the change; None in a ledger of before there were archives.
        columns: Those that the fingerprint is of.
        replaced: The partition's fingerprint before; None likewise.
        archive: Where the replaced rows are kept; None if there were none, none changed, or none are kept.
        undone: The publications that a rollback undid here; empty for a publication.
    """

    recorded_at: datetime
    event: Event
    key: str
    publication_id: str
    run_id: str
    backfill_id: str | None
    code_version: str | None
    changes: Changes
    fingerprint: Fingerprint | None
    columns: tuple[str, ...]
    replaced: Fingerprint | None
    archive: TableRef | None
    expires_at: datetime | None
    undone: tuple[str, ...]
    strategy: str | None


_ENTRY = (
    *("recorded_at", "event", "partition_key", "publication_id", "run_id", "backfill_id", "code_version"),
    *("rows_staged", "rows_inserted", "rows_updated", "rows_deleted", "rows_unchanged"),
    *("fingerprint", "fingerprinted_columns", "replaced_fingerprint", "archive", "archive_expires_at"),
    *("undone_publications", "strategy"),
)


def ledger_of(table: TableRef) -> TableRef:
    """Return the ledger's name for the tables of one schema."""
    return TableRef(schema=table.schema, name=LEDGER)


def create(connection: Connection, table: TableRef) -> None:
    """Create the ledger beside `table` if there is none; one that an older version made gets the newer columns."""
    ledger = ledger_of(table)
    found = connection.columns(ledger)
    columns = [
        exp.ColumnDef(this=exp.to_identifier(name, quoted=True), kind=exp.DataType.build(kind))
        for name, kind in _COLUMNS.items()
    ]
    if found is None:
        schema = exp.Schema(this=terms.table(ledger), expressions=columns)
        connection.run(exp.Create(this=schema, kind="TABLE", exists=True))
        return
    known = {column.name.casefold() for column in found}
    for column in columns:
        if column.name.casefold() not in known:
            connection.run(exp.Alter(this=terms.table(ledger), kind="TABLE", actions=[column]))


def exists(connection: Connection, table: TableRef) -> bool:
    """Return whether there is a ledger beside `table`, with all its columns."""
    found = connection.columns(ledger_of(table))
    return found is not None and {column.name.casefold() for column in found} >= set(_COLUMNS)


def record(connection: Connection, event: Event, table: TableRef, rows: Sequence[Values], *, origin: Origin) -> None:
    """Append rows to the ledger; they commit with the caller's transaction.

    The moments never go back, so that they order what happened even where the machines' clocks don't agree.
    """
    common: Values = {
        "recorded_at": _now(connection, table),
        "event": event,
        "table_name": str(table),
        "publication_id": origin.publication_id,
        "run_id": origin.run_id,
        "backfill_id": origin.backfill_id,
        "code_version": origin.code_version,
        "code": origin.code,
        "scope": origin.staged_for,
    }
    tuples = [tuple({**common, **row}.get(name) for name in _COLUMNS) for row in rows]
    connection.append(ledger_of(table), list(_COLUMNS), tuples)


def record_staged(
    connection: Connection,
    event: StageEvent,
    staged: Staged,
    *,
    origin: Origin,
    results: Sequence[AuditResult] = (),
    keys: Iterable[str] | None = None,
) -> None:
    """Record what happened to a batch that isn't live yet, or to some of its partitions."""
    blocking = _names({result.audit.name: result.blocking_keys for result in results})
    others = {result.audit.name: set(result.failed_keys) - set(result.blocking_keys) for result in results}
    warned = _names(others)
    live = staged.live_columns
    rows: list[Values] = [
        {
            "partition_key": key,
            "shadow": str(staged.shadow),
            "rows_staged": staged.rows.get(key, 0),
            "failed_audits": blocking.get(key),
            "warned_audits": warned.get(key),
            "fingerprint": str(staged.fingerprints.get(key, Fingerprint())),
            "fingerprinted_columns": None if live is None else json.dumps([column.name for column in live]),
            "computed_at": staged.computed_at.get(key),
        }
        for key in (staged.keys if keys is None else keys)
    ]
    if rows:
        record(connection, event, staged.spec.table, rows, origin=origin)


def record_taken(
    connection: Connection, table: TableRef, scopes_and_keys: Iterable[tuple[str, str]], *, origin: Origin
) -> None:
    """Record that partitions which were staged in other scopes stand in this one now, or are live."""
    scope = origin.staged_for
    rows: list[Values] = [{"partition_key": key, "scope": one} for one, key in scopes_and_keys if one != scope]
    if rows:
        record(connection, "taken_up", table, rows, origin=origin)


def record_change(
    connection: Connection,
    event: Literal["published", "rolled_back"],
    table: TableRef,
    *,
    origin: Origin,
    strategy: Strategy,
    changes: Mapping[str, Changes],
    before: Mapping[str, Fingerprint],
    after: Mapping[str, Fingerprint],
    columns: Sequence[str],
    archive: TableRef | None,
    archived: Iterable[str],
    expires_at: datetime | None,
    undone: Mapping[str, Sequence[str]] | None = None,
) -> None:
    """Record a change of live partitions, in the transaction that makes it."""
    kept = set(archived)
    rows: list[Values] = [
        {
            "partition_key": key,
            "strategy": strategy,
            "rows_staged": change.staged,
            "rows_inserted": change.inserted,
            "rows_updated": change.updated,
            "rows_deleted": change.deleted,
            "rows_unchanged": change.unchanged,
            "fingerprint": str(after[key]),
            "fingerprinted_columns": json.dumps([*columns]),
            "replaced_fingerprint": str(before[key]),
            "archive": archive.name if archive and key in kept else None,
            "archive_expires_at": expires_at if archive and key in kept else None,
            "undone_publications": json.dumps([*undone[key]]) if undone else None,
        }
        for key, change in changes.items()
    ]
    record(connection, event, table, rows, origin=origin)


def changes_by(connection: Connection, table: TableRef, *publication_ids: str) -> list[Entry]:
    """Return what publications or rollbacks of these ids changed, by partition, the oldest first."""
    return _entries(connection, table, [terms.column("publication_id").isin(*map(terms.text, publication_ids))])


def changes_in(connection: Connection, table: TableRef, scope: str) -> list[Entry]:
    """Return what the publications of what was staged in one scope changed, the oldest first."""
    return _entries(connection, table, [scope_column().eq(terms.text(scope))])


def publications_in(connection: Connection, table: TableRef, scope: str) -> int:
    """Return how many publications and rollbacks there are of what was staged in one scope."""
    return len({entry.publication_id for entry in changes_in(connection, table, scope)})


def changes_by_backfill(connection: Connection, table: TableRef, backfill_id: str) -> list[Entry]:
    """Return what the publications of one backfill changed, the oldest first."""
    return _entries(connection, table, [terms.column("backfill_id").eq(terms.text(backfill_id))])


def history(connection: Connection, table: TableRef, keys: Sequence[str] | None = None) -> list[Entry]:
    """Return all changes of some of a table's partitions, or of all, the oldest first."""
    if keys is None:
        return _entries(connection, table, [])
    return _entries(connection, table, [terms.is_in(terms.column("partition_key"), map(terms.text, keys))])


def staged_at(connection: Connection, table: TableRef, scope: str) -> datetime | None:
    """Return when rows were last staged in a scope."""
    select = exp.select(exp.Max(this=terms.column("recorded_at"))).from_(terms.table(ledger_of(table)))
    is_staged = terms.column("event").eq(terms.text("staged"))
    ((found,),) = connection.run(select.where(is_of(table), is_staged, scope_column().eq(terms.text(scope))))
    return found


def rejected_runs(connection: Connection, table: TableRef, run_ids: Iterable[str]) -> set[str]:
    """Return those of the runs in which an audit blocked a partition of the table."""
    run_id, events = terms.column("run_id"), map(terms.text, ("rejected", "refused"))
    select = exp.select(run_id).distinct().from_(terms.table(ledger_of(table)))
    is_one = terms.is_in(run_id.copy(), map(terms.text, run_ids))
    return {row[0] for row in connection.run(select.where(is_of(table), terms.column("event").isin(*events), is_one))}


def scope_column() -> exp.Expr:
    """Return a row's scope; before there were scopes, it was the publication."""
    return exp.Coalesce(this=terms.column("scope"), expressions=[terms.column("publication_id")])


def newest_publication(connection: Connection, table: TableRef) -> str | None:
    """Return the id of the last publication of a table that is no rollback."""
    is_published = terms.column("event").eq(terms.text("published"))
    select = exp.select(terms.column("publication_id")).from_(terms.table(ledger_of(table)))
    select = select.where(is_of(table), is_published).order_by(terms.column("recorded_at").desc()).limit(1)
    found = connection.run(select)
    return found[0][0] if found else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Owner:
    """Who made a shadow, and when the ledger last told of it."""

    run_id: str
    last_used: datetime


def shadows(connection: Connection, table: TableRef) -> dict[str, Owner]:
    """Return the owners of all shadows that the table ever had, by the shadow's name in lower case."""
    shadow, at = terms.column("shadow"), terms.column("recorded_at")
    select = exp.select(shadow, terms.column("run_id"), at).from_(terms.table(ledger_of(table)))
    select = select.where(is_of(table), exp.not_(exp.Is(this=shadow.copy(), expression=exp.Null())))
    select = select.distinct().order_by(at.copy())
    return {
        name.casefold().removeprefix(f"{table.schema.casefold()}."): Owner(run_id=run_id, last_used=last_used)
        for name, run_id, last_used in connection.run(select)
    }


def archives(connection: Connection, table: TableRef) -> dict[TableRef, datetime]:
    """Return all archives that the table ever had, with the moments at which they expire."""
    archive, expiry = terms.column("archive"), terms.column("archive_expires_at")
    select = exp.select(archive, exp.Max(this=expiry)).from_(terms.table(ledger_of(table)))
    is_change = terms.column("event").isin(*map(terms.text, CHANGES_OF_LIVE))
    is_kept = exp.not_(exp.Is(this=archive.copy(), expression=exp.Null()))
    select = select.where(is_of(table), is_change, is_kept).group_by(archive.copy())
    return {TableRef(schema=table.schema, name=name): at for name, at in connection.run(select)}


def other_versions(connection: Connection, table: TableRef, origin: Origin) -> list[str | None]:
    """Return the code versions other than this run's under which its backfill has staged partitions of the table."""
    if origin.backfill_id is None:
        return []
    version = terms.column("code_version")
    own = exp.null() if origin.code_version is None else terms.text(origin.code_version)
    select = exp.select(version).distinct().from_(terms.table(ledger_of(table)))
    select = select.where(
        is_of(table),
        terms.column("backfill_id").eq(terms.text(origin.backfill_id)),
        terms.column("event").eq(terms.text("published")),
        exp.NullSafeNEQ(this=version.copy(), expression=own),
    )
    return [row[0] for row in connection.run(select)]


def _entries(connection: Connection, table: TableRef, conditions: Sequence[exp.Expr]) -> list[Entry]:
    select = exp.select(*map(terms.column, _ENTRY)).from_(terms.table(ledger_of(table)))
    is_change = terms.column("event").isin(*map(terms.text, CHANGES_OF_LIVE))
    select = select.where(is_of(table), is_change, *conditions).order_by(terms.column("recorded_at"))
    return [_entry(row, table) for row in connection.run(select)]


def is_of(table: TableRef) -> exp.Expr:
    """Return whether a row of the ledger is of a table."""
    return terms.column("table_name").eq(terms.text(str(table)))


def _entry(row: Row, table: TableRef) -> Entry:
    at, event, key, publication, run, backfill, version, *numbers = row[:12]
    fingerprint, columns, replaced, archive, expires_at, undone, strategy = row[12:]
    staged, inserted, updated, deleted, unchanged = (number or 0 for number in numbers)
    return Entry(
        recorded_at=at,
        event=event,
        key=key,
        publication_id=publication,
        run_id=run,
        backfill_id=backfill,
        code_version=version,
        changes=Changes(staged=staged, inserted=inserted, updated=updated, deleted=deleted, unchanged=unchanged),
        fingerprint=Fingerprint.parse(fingerprint) if fingerprint else None,
        columns=tuple(json.loads(columns or "[]")),
        replaced=Fingerprint.parse(replaced) if replaced else None,
        archive=TableRef(schema=table.schema, name=archive) if archive else None,
        expires_at=expires_at,
        undone=tuple(json.loads(undone or "[]")),
        strategy=strategy,
    )


def _now(connection: Connection, table: TableRef) -> datetime:
    """Return the time, or the moment after the last one that the ledger knows of the table."""
    latest = exp.Max(this=terms.column("recorded_at"))
    ((last,),) = connection.run(exp.select(latest).from_(terms.table(ledger_of(table))).where(is_of(table)))
    now = datetime.now(timezone.utc)
    return now if last is None else max(now, last + _TICK)


def _names(keys_by_audit: Mapping[str, Iterable[str]]) -> dict[str, str]:
    """Return the names of the audits that each key is listed for."""
    names: dict[str, list[str]] = {}
    for name, keys in keys_by_audit.items():
        for key in keys:
            names.setdefault(key, []).append(name)
    return {key: ", ".join(found) for key, found in names.items()}
