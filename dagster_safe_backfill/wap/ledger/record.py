"""Writing to the ledger: each event of a partition is appended in the transaction in which it happens."""

from __future__ import annotations

import json
import logging
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timezone

from sqlglot import exp

from dagster_safe_backfill.audits.verdicts import AuditResult
from dagster_safe_backfill.errors import PublishError
from dagster_safe_backfill.model.events import ChangeEvent, Event, Fingerprint, RowCounts, StagedEvent
from dagster_safe_backfill.model.options import Strategy
from dagster_safe_backfill.model.states import Archive, Origin, Staged, StagedPartition
from dagster_safe_backfill.model.tables import Column, TableRef, names_of
from dagster_safe_backfill.sql import ledger, terms
from dagster_safe_backfill.wap.ledger.clock import AGREED, LedgerClock, ledger_clock, shown
from dagster_safe_backfill.wap.ledger.moves import text_of_fingerprints
from dagster_safe_backfill.warehouses.base import Session

_LOG = logging.getLogger(__name__)

Values = Mapping[str, object]
"""A row of the ledger; columns that it doesn't name are NULL."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NewChange:
    """A change of live partitions that is to be recorded.

    Attributes:
        event: `published` or `rolled_back`.
        strategy: How the slice was written.
        row_counts: A mapping from partition key to the row counts of the change.
        before: A mapping from partition key to the live partition's fingerprint before the change.
        after: A mapping from partition key to the live partition's fingerprint after the change.
        columns: The live table's columns after the change, over which `after` was computed.
        archive: The archive of the replaced rows.
        undone: A mapping from partition key to the publications that a rollback undid; empty for a publication.
        moved: A mapping from each partition that rows left to those that they moved to.
        left: The partitions that were not published, and of which only rows moved out.
    """

    event: ChangeEvent
    strategy: Strategy
    row_counts: Mapping[str, RowCounts]
    before: Mapping[str, Fingerprint]
    after: Mapping[str, Fingerprint]
    columns: Sequence[str]
    archive: Archive
    undone: Mapping[str, Sequence[str]] = field(default_factory=dict[str, "Sequence[str]"])
    moved: Mapping[str, Sequence[str]] = field(default_factory=dict[str, "Sequence[str]"])
    left: Collection[str] = ()


def create_ledger(session: Session, table: TableRef) -> None:
    """Create the ledger beside `table` if it doesn't exist, and add the columns that an older version didn't have."""
    session.tables.ensure_table(ledger.ledger_of(table), ledger.COLUMNS)


def upgrade_ledger(session: Session, table: TableRef) -> None:
    """Add the columns that a ledger of an earlier version doesn't have; without a ledger, none is created."""
    found = session.tables.columns(ledger.ledger_of(table))
    if found is not None and not {*map(str.casefold, names_of(found))} >= ledger.COLUMNS.keys():
        create_ledger(session, table)


def record(
    session: Session,
    event: Event,
    table: TableRef,
    rows: Sequence[Values],
    *,
    origin: Origin,
    at: datetime | None = None,
) -> None:
    """Append rows to the ledger, in the caller's transaction, dated `at`, by default by `time_of_next`."""
    if not rows:
        return
    name, target = str(table), ledger.ledger_of(table)
    common: Values = {
        "recorded_at": at or time_of_next(session, table),
        "event": event,
        "table_name": name,
        "publication_id": origin.publication_id,
        "run_id": origin.run_id,
        "backfill_id": origin.backfill_id,
        "code_version": origin.code_version,
        "asset_key": origin.asset_key,
        # The column keeps its first name, so that ledgers of earlier versions can be read.
        "scope": origin.group,
        "format": ledger.FORMAT,
    }
    # A row's own values win: `record_taken` names the group that had staged the partition.
    whole = [{**common, **row} for row in rows]
    # Most events have values for half of the columns, and DuckDB takes twice as long for all of them.
    names = [name for name in ledger.COLUMNS if any(row.get(name) is not None for row in whole)]
    # One statement for all rows: DuckDB's executemany took 7.9 s for 10,000 rows.
    session.append(target, names, [tuple(map(row.get, names)) for row in whole])


def time_of_next(session: Session, table: TableRef) -> datetime:
    """Return the time for the table's next rows, by the database's clock.

    It is later than in every earlier row that the session sees, even if the clocks of machines differ, so that it gives
    the order of events.
    """
    return ledger_clock(session, table).next_row


def record_staged(
    session: Session,
    event: StagedEvent,
    staged: Staged,
    *,
    origin: Origin,
    results: Sequence[AuditResult] = (),
    keys: Iterable[str] | None = None,
) -> None:
    """Record an event of a staged batch, or of some of its partitions."""
    blocking, warned = _failures(results)
    # JSON, because the name of a column may contain a comma.
    live = None if staged.live_columns is None else json.dumps(names_of(staged.live_columns))
    shadow, nothing = str(staged.shadow), Fingerprint()
    chosen, table = [*(staged.table_slice.keys if keys is None else keys)], staged.table_slice.spec.table
    if not chosen:
        return
    at = time_of_next(session, table)
    rows: list[Values] = []
    for key in chosen:
        values: Values = {
            "partition_key": key,
            "shadow": shadow,
            "rows_staged": staged.rows.get(key, 0),
            "failed_audits": ", ".join(blocking.get(key, ())) or None,
            "warned_audits": ", ".join(warned.get(key, ())) or None,
            "fingerprint": str(staged.fingerprints.get(key, nothing)),
            "fingerprinted_columns": live,
            # By this machine's clock, which may be ahead of the ledger's. No rows are younger than their record.
            "computed_at": min(staged.computed_at.get(key, at), at),
            "moved": text_of_fingerprints(staged.left.get(key)),
            **_made_by(staged, key, origin),
        }
        rows.append(values)
    record(session, event, table, rows, origin=origin, at=at)


def _made_by(staged: Staged, key: str, origin: Origin) -> Values:
    made_by = staged.provenance.get(key)
    return {
        "provenance": None if made_by is None else str(made_by),
        "computed_by": staged.computed_by.get(key, origin.run_id),
    }


def record_taken(session: Session, table: TableRef, found: Iterable[StagedPartition], *, origin: Origin) -> None:
    """Record that this group has taken over partitions that other groups staged, or has published them."""
    rows = [{"partition_key": one.key, "scope": one.group} for one in found if one.group != origin.group]
    record(session, "taken_up", table, rows, origin=origin)


def record_change(
    session: Session, table: TableRef, change: NewChange, *, origin: Origin, staged: Staged | None = None
) -> datetime | None:
    """Record a change of live partitions, in the transaction that makes it; `staged` is what it publishes.

    Return the time until which its archive is kept. It counts from the time that is recorded: by a clock that is
    behind, the archive would be over at once.
    """
    # This is the first of the transaction's rows, so none of its own is to be seen.
    clock = ledger_clock(session.reader, table)
    _warn_of_clocks(table, clock)
    archive, kept = change.archive, {*change.archive.keys}
    expires_at = None if archive.table is None else clock.next_row + archive.keep_for
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
            "archive_expires_at": expires_at if is_kept else None,
            "undone_publications": json.dumps([*change.undone[key]]) if change.undone else None,
            "moved": json.dumps([*change.moved[key]]) if key in change.moved else None,
            **(_made_by(staged, key, origin) if staged is not None else {}),
        }
        if key in change.left:
            values = {**values, "event": "moved"}
        rows.append(values)
    record(session, change.event, table, rows, origin=origin, at=clock.next_row)
    return expires_at


def _warn_of_clocks(table: TableRef, clock: LedgerClock) -> None:
    """Log that the clock and the ledger, or the clocks of this machine and the database, are more than a day apart."""
    if clock.why_behind is not None:
        _LOG.warning("%s: %s", table, clock.why_behind)
    here = datetime.now(timezone.utc)
    if abs(here - clock.now) > AGREED:
        _LOG.warning("%s: this machine's clock says %s, and the database's %s", table, shown(here), shown(clock.now))


def record_intent(
    session: Session,
    table: TableRef,
    *,
    origin: Origin,
    shadow: TableRef | None = None,
    archives: Sequence[TableRef] = (),
) -> None:
    """Record the name of a shadow or an archive before the table is created, on warehouses whose DDL isn't undone.

    After a crash, `retire` finds the table by this row. See `Tables.record_first`. An archive is recorded once.

    Args:
        session: An open session, outside a transaction.
        table: The live table.
        origin: The run that creates the table.
        shadow: The name of the shadow.
        archives: The names of which the archive gets one.

    Raises:
        PublishError: A table with an archive's name exists, and no try of this publication made it.
    """

    def intend() -> None:
        for schema in table.schemas:
            session.tables.ensure_schema(schema)
        create_ledger(session, table)
        if archives:
            named = terms.is_in(terms.column("archive"), [terms.text(one.name) for one in archives])
            known = ledger.rows_of(table, [terms.number(1)], named).limit(1)
            # An earlier try of this publication recorded the archive, and may have created it.
            if session.query(known):
                return
            if any(_is_taken(session, table, one, known) for one in archives):
                return
        values: list[Values] = [{"archive": one.name} for one in archives]
        record(session, "intended", table, values or [{"shadow": str(shadow)}], origin=origin)

    session.tables.record_first(intend)


def _is_taken(session: Session, table: TableRef, archive: TableRef, known: exp.Select) -> bool:
    """Return True if an earlier try of this publication has recorded its archive meanwhile; refuse others' tables."""
    if session.tables.columns(archive) is None:
        return False
    # On Snowflake, a session may see what another one created before the row that it committed.
    latest = session.tables.reread()
    if latest is not None and latest.query(known):
        return True
    raise PublishError(
        f"{table}: the table {archive} exists, but no publication made it. This publication needs its name"
        " for its archive, and archives are never overwritten, so nothing was published. Rename it.",
        table=str(table),
    )


def _failures(results: Iterable[AuditResult]) -> tuple[dict[str, list[str]], dict[str, list[str]]]:
    """Return mappings from partition key to the names of the audits that block it, and of those that only warn."""
    blocking: dict[str, list[str]] = {}
    warned: dict[str, list[str]] = {}
    for result in results:
        for key in result.failed_keys:
            is_blocking = result.is_blocking(result.verdicts[key])
            (blocking if is_blocking else warned).setdefault(key, []).append(result.audit.name)
    return blocking, warned


def record_alteration(
    session: Session, table: TableRef, *, before: Sequence[Column], after: Sequence[Column], origin: Origin
) -> None:
    """Record a change of the live table's columns, in the transaction that makes it; if there is none, do nothing.

    `alterations` reads it.
    """
    if {*before} == {*after}:
        return
    told = {name: [(one.name, one.type) for one in columns] for name, columns in (("before", before), ("after", after))}
    record(session, "altered", table, [{"fingerprinted_columns": json.dumps(told)}], origin=origin)
