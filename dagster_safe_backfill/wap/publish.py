"""publish: the slice of the live table becomes what the shadow holds, in one transaction."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence

from dagster_safe_backfill.errors import (
    MixedVersionsError,
    PublishConflictError,
    PublishError,
    TransactionConflictError,
)
from dagster_safe_backfill.model.options import Publish
from dagster_safe_backfill.model.states import Audited, Fingerprint, Origin, Published, Staged
from dagster_safe_backfill.model.tables import TableRef
from dagster_safe_backfill.model.text import listed
from dagster_safe_backfill.sql import staging
from dagster_safe_backfill.wap.changes.archive import Archive, archived
from dagster_safe_backfill.wap.changes.fingerprints import live_fingerprints
from dagster_safe_backfill.wap.changes.plan import Plan, add_columns, planned
from dagster_safe_backfill.wap.changes.swap import swapped
from dagster_safe_backfill.wap.ledger import ledger
from dagster_safe_backfill.wap.ledger.intents import record_intent
from dagster_safe_backfill.wap.ledger.ledger import Entry
from dagster_safe_backfill.wap.recognition import columns_of
from dagster_safe_backfill.wap.recovery import finish_interrupted_swap
from dagster_safe_backfill.wap.transactions import in_transaction
from dagster_safe_backfill.warehouses.base import Connection

_LOG = logging.getLogger(__name__)


def publish(
    connection: Connection,
    audited: Audited,
    *,
    rules: Publish,
    origin: Origin,
    sources: Sequence[TableRef] = (),
    taken: Sequence[tuple[str, str]] = (),
) -> Published:
    """Make what was audited live, archive what that replaces, record it and drop the shadow, all in one transaction.

    Publishing the same publication again changes nothing: it returns what the first time did.

    Args:
        connection: An open session, outside a transaction.
        audited: What goes live.
        rules: How.
        origin: Who publishes, and under which id.
        sources: Other shadows that the rows came from, to be dropped with it.
        taken: The scopes and partition keys that were staged for others, and wait no more.

    Raises:
        PublishConflictError: Partitions changed since they were computed, or the publication was rolled back since.
        MixedVersionsError: Other code versions staged partitions of the same backfill.
        SwapError: The table can't be swapped.
        SchemaMismatchError: The live table's columns changed since the rows were staged.
        WarehouseError: The database refused; the live table and the shadow are as they were.
    """
    table = audited.staged.spec.table

    def work() -> Published:
        finish_interrupted_swap(connection, table)
        # Live is held by the first statement, and so the others come after it.
        published = _publish(connection, audited, rules=rules, origin=origin)
        ledger.record_taken(connection, table, taken, origin=origin)
        for shadow in (audited.staged.shadow, *sources):
            connection.run(staging.dropped(shadow))
        return published

    record_intent(connection, table, origin=origin, archive=table.archive(origin.publication_id))
    return in_transaction(connection, work)


def _publish(connection: Connection, audited: Audited, *, rules: Publish, origin: Origin) -> Published:
    staged = audited.staged
    table = staged.spec.table
    with connection.hold(table) as committed:
        seen = [column.name for column in committed.columns(table) or ()]
        shared = _shared(staged, seen)
        then = _of_slice(committed, staged, shared) if shared else {key: Fingerprint() for key in staged.keys}
        before = then if seen in (shared, []) else _of_slice(committed, staged, seen)
        live_exists = committed.columns(table) is not None
    if live_exists and connection.columns(table) is None:
        # What isn't there can't be held; in the next try it can.
        raise TransactionConflictError(f"another transaction made {table} since this one began")
    found = _repeated(audited, ledger.changes_by(connection, table, origin.publication_id), connection)
    if found is not None:
        return found
    if not rules.allow_mixed_versions:
        check_versions(connection, staged, origin=origin)
    if rules.on_conflict == "raise":
        _check_conflict(connection, staged, then, origin=origin)
    if rules.strategy == "swap" and live_exists:
        plan, archive = swapped(connection, staged, publication_id=origin.publication_id, keep_for=rules.archive_for)
    else:
        add_columns(connection, staged)
        plan = planned(connection, staged, strategy=rules.strategy, live_exists=live_exists)
        archive = (
            _archived(connection, staged, plan, before, seen, rules=rules, origin=origin) if live_exists else Archive()
        )
        plan.run(connection)
    names = [column.name for column in connection.columns(table) or ()]
    after = _of_slice(connection, staged, names)
    _check_written(connection, staged, after)
    ledger.record_change(
        connection,
        "published",
        table,
        origin=origin,
        strategy=rules.strategy,
        changes=plan.changes,
        before=before,
        after=after,
        columns=names,
        archive=archive.table,
        archived=archive.keys,
        expires_at=archive.expires_at,
    )
    return Published(
        audited=audited,
        publication_id=origin.publication_id,
        changes=plan.changes,
        archive=archive.table,
        expires_at=archive.expires_at,
    )


def check_versions(connection: Connection, staged: Staged, *, origin: Origin) -> None:
    """Refuse to publish beside other partitions of the same backfill that another code version computed.

    Raises:
        MixedVersionsError: There are some.
    """
    others = ledger.other_versions(connection, staged.spec.table, origin)
    if not others:
        return
    versions = [*others, origin.code_version]
    raise MixedVersionsError(
        f"{staged.spec.table}: backfill {origin.backfill_id} has published partitions of code_version"
        f" {listed(others)}, and this run is of {origin.code_version}: the code changed while it ran. Roll the backfill"
        " back and launch it anew, or set allow_mixed_versions=True",
        table=str(staged.spec.table),
        versions=versions,
    )


def _shared(staged: Staged, seen: Sequence[str]) -> list[str]:
    """Return the live columns that there were when the rows were staged, and still are."""
    then = staged.live_columns if staged.live_columns is not None else staged.columns
    return [column.name for column in then if column.name in set(seen)]


def _of_slice(connection: Connection, staged: Staged, names: Sequence[str]) -> dict[str, Fingerprint]:
    return live_fingerprints(
        connection,
        spec=staged.spec,
        partition_slice=staged.partitions,
        types=staged.partition_types,
        names=names,
    )


def _archived(
    connection: Connection,
    staged: Staged,
    plan: Plan,
    before: Mapping[str, Fingerprint],
    names: Sequence[str],
    *,
    rules: Publish,
    origin: Origin,
) -> Archive:
    return archived(
        connection,
        spec=staged.spec,
        partition_slice=staged.partitions,
        columns=columns_of(connection, staged),
        names=names,
        changes=plan.changes,
        before=before,
        publication_id=origin.publication_id,
        keep_for=rules.archive_for,
    )


def _check_conflict(connection: Connection, staged: Staged, now: Mapping[str, Fingerprint], *, origin: Origin) -> None:
    nothing = Fingerprint()
    changed = [key for key in staged.keys if now[key] != staged.fingerprints.get(key, nothing)]
    if not changed:
        return
    table = staged.spec.table
    since = {entry.key: entry for entry in ledger.history(connection, table, changed)}
    staged_at = ledger.staged_at(connection, table, origin.staged_for)
    names = tuple(column.name for column in staged.live_columns or staged.columns)
    by = {
        key: entry
        for key, entry in since.items()
        # Over other columns the same rows hash otherwise.
        if entry.fingerprint == now[key]
        or (entry.columns != names and (staged_at is None or entry.recorded_at > staged_at))
    }
    who = listed([f"{key}: {_who(by[key]) if key in by else 'by no publication, so by hand'}" for key in changed])
    raise PublishConflictError(
        f"{table}: {len(changed)} of the {len(staged.keys)} partitions changed since they were computed ({who}), so"
        f" nothing was published; the rows are in {staged.place}. Look at what changed, then have the partitions"
        ' computed again. on_conflict="overwrite" would replace what changed, and archive it',
        table=str(table),
        keys=changed,
        published_since={key: by[key].publication_id if key in by else None for key in changed},
    )


def _check_written(connection: Connection, staged: Staged, after: Mapping[str, Fingerprint]) -> None:
    """Refuse, and so undo, a publication after which live has other rows than were staged: nothing is left to luck."""
    wrong = {key: after[key].rows for key in staged.keys if after[key].rows != staged.rows.get(key, 0)}
    is_more = all(rows > staged.rows.get(key, 0) for key, rows in wrong.items())
    if wrong and is_more and not connection.holds_off_inserts:
        raise TransactionConflictError(f"another session inserted rows into {staged.spec.table}: {listed([*wrong])}")
    if wrong:
        shown = listed([f"{key}: {rows} and not {staged.rows.get(key, 0)}" for key, rows in wrong.items()])
        raise PublishError(
            f"{staged.spec.table}: after the publication live had other numbers of rows than were staged ({shown}), so"
            f" it was undone; the rows are in {staged.place}. Report this, please",
            table=str(staged.spec.table),
        )


def _who(entry: Entry) -> str:
    what = "rolled back" if entry.event == "rolled_back" else "published"
    return f"{what} by {entry.publication_id} at {entry.recorded_at:%Y-%m-%d %H:%M:%S %Z}"


def _repeated(audited: Audited, entries: Sequence[Entry], connection: Connection) -> Published | None:
    """Return the publication that the entries tell of; None if there are none.

    Raises:
        PublishConflictError: Something else has changed its partitions since.
    """
    if not entries:
        return None
    staged = audited.staged
    newest = {entry.key: entry for entry in ledger.history(connection, staged.spec.table, [e.key for e in entries])}
    lost = [entry.key for entry in entries if newest[entry.key].publication_id != entry.publication_id]
    missing = [key for key in staged.keys if key not in newest]
    if lost or missing:
        raise PublishConflictError(
            f"{staged.spec.table}: an earlier try of this run was published, and {listed(lost or missing)} changed"
            " since; nothing was published again. Launch a new run if the partitions are to be computed anew",
            table=str(staged.spec.table),
            keys=lost or missing,
            published_since={key: newest[key].publication_id if key in newest else None for key in lost or missing},
        )
    _LOG.warning("%s: %s was published by an earlier try of this run", staged.spec.table, entries[0].publication_id)
    return Published(
        audited=audited,
        publication_id=entries[0].publication_id,
        changes={entry.key: entry.changes for entry in entries},
        archive=next((entry.archive for entry in entries if entry.archive), None),
        expires_at=next((entry.expires_at for entry in entries if entry.expires_at), None),
        is_repeated=True,
    )
