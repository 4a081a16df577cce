"""Record: what happens to a table's partitions is appended to its ledger, in the transaction in which it happens."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone

from sqlglot import exp

from dagster_safe_backfill.audits.verdicts import AuditResult
from dagster_safe_backfill.errors import PublishError
from dagster_safe_backfill.model.options import Strategy
from dagster_safe_backfill.model.states import (
    Archive,
    ChangeEvent,
    Event,
    Fingerprint,
    Origin,
    RowCounts,
    Staged,
    StagedEvent,
    StagedPartition,
)
from dagster_safe_backfill.model.tables import TableRef, names_of
from dagster_safe_backfill.sql import ledger, terms
from dagster_safe_backfill.warehouses.base import Session

_TICK = timedelta(microseconds=1)

Values = Mapping[str, object]
"""A row of the ledger; what isn't named is NULL."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NewChange:
    """A change of live that is to be recorded.

    Attributes:
        event: What it is.
        strategy: How the slice was written.
        row_counts: What it did, by partition key.
        before: The live partitions' fingerprints before.
        after: And after it.
        columns: The columns of live after it, which `after` is of.
        archive: Where what it replaced is kept.
        undone: The publications that a rollback undid, by partition key; empty for a publication.
    """

    event: ChangeEvent
    strategy: Strategy
    row_counts: Mapping[str, RowCounts]
    before: Mapping[str, Fingerprint]
    after: Mapping[str, Fingerprint]
    columns: Sequence[str]
    archive: Archive
    undone: Mapping[str, Sequence[str]] = field(default_factory=dict[str, "Sequence[str]"])


def create_ledger(session: Session, table: TableRef) -> None:
    """Create the ledger beside `table` if there is none; one that an older version made gets the newer columns."""
    session.tables.ensure_table(ledger.ledger_of(table), ledger.COLUMNS)


def record(session: Session, event: Event, table: TableRef, rows: Sequence[Values], *, origin: Origin) -> None:
    """Append rows to the ledger, if there are any; they commit with the caller's transaction.

    The moments never go back, so that they order what happened even where the machines' clocks don't agree.
    """
    if not rows:
        return
    latest = exp.Max(this=terms.column("recorded_at"))
    ((last,),) = session.query(ledger.rows_of(table, [latest]))
    now = datetime.now(timezone.utc)
    common: Values = {
        "recorded_at": now if last is None else max(now, last + _TICK),
        "event": event,
        "table_name": str(table),
        "publication_id": origin.publication_id,
        "run_id": origin.run_id,
        "backfill_id": origin.backfill_id,
        "code_version": origin.code_version,
        "code": origin.code,
        "scope": origin.group,
    }
    tuples = [tuple(map({**common, **row}.get, ledger.COLUMNS)) for row in rows]
    session.append(ledger.ledger_of(table), list(ledger.COLUMNS), tuples)


def record_staged(
    session: Session,
    event: StagedEvent,
    staged: Staged,
    *,
    origin: Origin,
    results: Sequence[AuditResult] = (),
    keys: Iterable[str] | None = None,
) -> None:
    """Record what happened to a batch that isn't live yet, or to some of its partitions."""
    blocking, warned = _failures(results)
    live = staged.live_columns
    rows: list[Values] = []
    for key in staged.keys if keys is None else keys:
        values: Values = {
            "partition_key": key,
            "shadow": str(staged.shadow),
            "rows_staged": staged.rows.get(key, 0),
            "failed_audits": ", ".join(blocking.get(key, ())) or None,
            "warned_audits": ", ".join(warned.get(key, ())) or None,
            "fingerprint": str(staged.fingerprints.get(key, Fingerprint())),
            "fingerprinted_columns": None if live is None else json.dumps(names_of(live)),
            "computed_at": staged.computed_at.get(key),
        }
        rows.append(values)
    record(session, event, staged.spec.table, rows, origin=origin)


def record_taken(session: Session, table: TableRef, found: Iterable[StagedPartition], *, origin: Origin) -> None:
    """Record that partitions which were staged in other groups stand in this one now, or are live."""
    rows = [{"partition_key": one.key, "scope": one.group} for one in found if one.group != origin.group]
    record(session, "taken_up", table, rows, origin=origin)


def record_change(session: Session, table: TableRef, change: NewChange, *, origin: Origin) -> None:
    """Record a change of live partitions, in the transaction that makes it."""
    archive, kept = change.archive, {*change.archive.keys}
    rows: list[Values] = []
    for key, counts in change.row_counts.items():
        is_kept = archive.table is not None and key in kept
        values: Values = {
            "partition_key": key,
            "strategy": change.strategy,
            "rows_staged": counts.staged,
            "rows_inserted": counts.inserted,
            "rows_updated": counts.updated,
            "rows_deleted": counts.deleted,
            "rows_unchanged": counts.unchanged,
            "fingerprint": str(change.after[key]),
            "fingerprinted_columns": json.dumps([*change.columns]),
            "replaced_fingerprint": str(change.before[key]),
            "archive": archive.table.name if archive.table and is_kept else None,
            "archive_expires_at": archive.expires_at if is_kept else None,
            "undone_publications": json.dumps([*change.undone[key]]) if change.undone else None,
        }
        rows.append(values)
    record(session, change.event, table, rows, origin=origin)


def record_intent(
    session: Session,
    table: TableRef,
    *,
    origin: Origin,
    shadow: TableRef | None = None,
    archive: TableRef | None = None,
) -> None:
    """Tell of a table before it is made, where no transaction would undo that: a crash leaves none that nobody knows.

    See `Tables.record_first`. An archive is intended once.

    Raises:
        PublishError: The archive's name is taken by a table that no try of this publication made.
    """

    def intend() -> None:
        session.tables.ensure_schema(table.schema)
        create_ledger(session, table)
        if archive is not None:
            is_known = ledger.is_named("archive", archive.name)
            if session.query(ledger.rows_of(table, [terms.number(1)], is_known).limit(1)):
                return
            if session.tables.columns(archive) is not None:
                raise PublishError(
                    f"{table}: {archive}, which is to keep what this publication replaces, is there already, and was"
                    " made by none; an archive is never overwritten, so rename that table",
                    table=str(table),
                )
        values: Values = {
            "shadow": None if shadow is None else str(shadow),
            "archive": None if archive is None else archive.name,
        }
        record(session, "intended", table, [values], origin=origin)

    session.tables.record_first(intend)


def _failures(results: Iterable[AuditResult]) -> tuple[dict[str, list[str]], dict[str, list[str]]]:
    """Return the names of the audits that block each partition, and of those that only warn of it."""
    blocking: dict[str, list[str]] = {}
    warned: dict[str, list[str]] = {}
    for result in results:
        for key in result.failed_keys:
            is_blocking = result.is_blocking(result.verdicts[key])
            (blocking if is_blocking else warned).setdefault(key, []).append(result.audit.name)
    return blocking, warned
