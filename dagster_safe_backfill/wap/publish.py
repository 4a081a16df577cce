"""publish: the slice of the live table becomes what the shadow holds, in one transaction."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from dagster_safe_backfill.errors import (
    MixedVersionsError,
    NotStagedError,
    PublishConflictError,
    TransactionConflictError,
)
from dagster_safe_backfill.model.options import Publish
from dagster_safe_backfill.model.states import (
    Archive,
    Audited,
    Fingerprint,
    Origin,
    Published,
    Staged,
    StagedPartition,
)
from dagster_safe_backfill.model.tables import TableRef, names_of
from dagster_safe_backfill.model.text import listed
from dagster_safe_backfill.sql import staging
from dagster_safe_backfill.wap.changes.archive import archived
from dagster_safe_backfill.wap.changes.conflicts import check_conflict, check_written
from dagster_safe_backfill.wap.changes.fingerprints import live_fingerprints
from dagster_safe_backfill.wap.changes.prepare import PreparedChange, prepare_change, slice_write
from dagster_safe_backfill.wap.changes.swap import swapped
from dagster_safe_backfill.wap.columns import add_columns
from dagster_safe_backfill.wap.ledger.history import Change, changes_by, history, other_versions
from dagster_safe_backfill.wap.ledger.record import NewChange, record_change, record_intent, record_taken
from dagster_safe_backfill.wap.ledger.waiting import emptied, newest, staged_partitions
from dagster_safe_backfill.wap.recovery import finish_interrupted_swap
from dagster_safe_backfill.warehouses.base import Session

_LOG = logging.getLogger(__name__)

_STANDINGS: Mapping[str, str] = {
    "staged": "staged, its audits have not ended",
    "audited": "staged, and not yet audited with the others",
    "rejected": "rejected by an audit",
    "refused": "refused by an audit of all that was staged with it",
    "rolled_back": "rolled back, and not staged since",
    "taken_up": "taken up by another backfill",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class ToPublish:
    """Which partitions are to go live, and which are live already.

    Attributes:
        approved: Those that an audit of all that was staged together has approved.
        published: What published the others, by key.
    """

    approved: tuple[StagedPartition, ...]
    published: Mapping[str, Change]


def to_publish(session: Session, table: TableRef, keys: Sequence[str], *, group: str) -> ToPublish:
    """Return what is to be published of partitions: of the run's own group, else the newest of all.

    Raises:
        NotStagedError: Some of them are neither approved nor live.
    """
    chosen = _chosen(staged_partitions(session, table, keys=keys), group=group)
    live = {key: one for key, one in chosen.items() if one.event == "published"}
    approved = [chosen[key] for key in keys if key in chosen and chosen[key].event == "approved"]
    said: dict[str, str] = {}
    for key in keys:
        if key not in chosen:
            said[key] = "not staged"
        elif chosen[key].event in _STANDINGS:
            said[key] = _STANDINGS[chosen[key].event]
    if said:
        shown = listed([f"{key}: {text}" for key, text in said.items()])
        raise NotStagedError(
            f"{table}: {len(said)} of {len(keys) - len(live)} partitions can't be published ({shown}), so none was."
            f" Materialize them in {table.name}__shadow, then {table.name}__audit, and publish then",
            table=str(table),
            keys=[*said],
        )
    ids = {one.publication_id for one in live.values()}
    before = changes_by(session, table, *ids) if ids else []
    published = {change.key: change for change in before if change.key in live}
    return ToPublish(approved=tuple(approved), published=published)


def _chosen(found: Sequence[StagedPartition], *, group: str) -> dict[str, StagedPartition]:
    """Return what is to be published of each partition.

    What the group had published is live no more once it was rolled back. What another group took up is not this one's,
    unless it is live already.
    """
    chosen = newest(found)
    for key, own in newest(one for one in found if one.group == group).items():
        last = chosen[key]
        is_undone = own.event == "published" and last.event == "rolled_back"
        is_live_elsewhere = own.event == "taken_up" and last.event == "published"
        if not (is_undone or is_live_elsewhere):
            chosen[key] = own
    return chosen


def publish(session: Session, audited: Audited, *, rules: Publish, origin: Origin) -> Published:
    """Make what was audited live, archive what that replaces, record it and drop the shadow, all in one transaction.

    Publishing the same publication again changes nothing: it returns what the first time did.

    Args:
        session: An open session, outside a transaction.
        audited: What goes live.
        rules: How.
        origin: Who publishes, and under which id.

    Raises:
        PublishConflictError: Partitions changed since they were computed, or the publication was rolled back since.
        MixedVersionsError: Other code versions staged partitions of the same backfill.
        SwapError: The table can't be swapped.
        SchemaMismatchError: The live table's columns changed since the rows were staged.
        WarehouseError: The database refused; the live table and the shadow are as they were.
    """
    staged = audited.staged
    table = staged.spec.table

    def work() -> Published:
        finish_interrupted_swap(session, table)
        # Live is held by the first statement, and so the others come after it.
        published = _publish(session, audited, rules=rules, origin=origin)
        record_taken(session, table, staged.moved, origin=origin)
        for shadow in (staged.shadow, *(emptied(session, table, staged.moved) if staged.moved else ())):
            session.tables.drop(shadow)
        if staged.rest is not None:
            shadow, positions = staged.rest
            session.execute(staging.delete_positions(shadow, positions))
        return published

    record_intent(session, table, origin=origin, archive=table.archive(origin.publication_id))
    return session.attempt(work)


def _publish(session: Session, audited: Audited, *, rules: Publish, origin: Origin) -> Published:
    staged, table_slice = audited.staged, audited.staged.table_slice
    table = table_slice.table
    with session.tables.hold(table) as committed:
        live = committed.tables.columns(table)
        names = names_of(live or ())
        then, before = _fingerprints(committed, staged, names)
    if live is not None and session.tables.columns(table) is None:
        # What isn't there can't be held; in the next try it can.
        raise TransactionConflictError(f"another transaction made {table} since this one began")
    repeated = _repeated(audited, changes_by(session, table, origin.publication_id), session)
    if repeated is not None:
        return repeated
    if not rules.allow_mixed_versions:
        _check_versions(session, table, origin=origin)
    if rules.on_conflict == "raise":
        check_conflict(session, staged, then, origin=origin)
    if rules.strategy == "swap" and live is not None:
        prepared, archive = swapped(session, staged, publication_id=origin.publication_id, keep_for=rules.archive_for)
    else:
        prepared = _prepared(session, staged, rules=rules, live_exists=live is not None)
        archive = Archive()
        replaced = prepared.replaced(before)
        if replaced and rules.archive_for:
            archive = archived(
                session,
                table_slice.only(replaced),
                names,
                publication_id=origin.publication_id,
                keep_for=rules.archive_for,
            )
        prepared.run(session)
    names = names_of(session.tables.columns(table) or ())
    after = live_fingerprints(session, table_slice, names)
    check_written(session, staged, after)
    change = NewChange(
        event="published",
        strategy=rules.strategy,
        row_counts=prepared.row_counts,
        before=before,
        after=after,
        columns=names,
        archive=archive,
    )
    record_change(session, table, change, origin=origin)
    return Published(
        audited=audited,
        publication_id=origin.publication_id,
        row_counts=prepared.row_counts,
        archive=archive.table,
        expires_at=archive.expires_at,
    )


def _fingerprints(
    session: Session, staged: Staged, names: Sequence[str]
) -> tuple[Mapping[str, Fingerprint], Mapping[str, Fingerprint]]:
    """Return live's fingerprints over the columns that there were at the staging and still are, and over all."""
    then = staged.columns if staged.live_columns is None else staged.live_columns
    shared = tuple([name for name in names_of(then) if name in set(names)])
    table_slice = staged.table_slice
    nothing = dict.fromkeys(staged.keys, Fingerprint())
    of_shared = live_fingerprints(session, table_slice, shared) if shared else nothing
    if not names or shared == tuple(names):
        return of_shared, of_shared
    return of_shared, live_fingerprints(session, table_slice, names)


def _prepared(session: Session, staged: Staged, *, rules: Publish, live_exists: bool) -> PreparedChange:
    add_columns(session, staged)
    write = slice_write(session, staged.table_slice, shadow=staged.shadow, names=names_of(staged.columns))
    return prepare_change(session, write, staged.rows, strategy=rules.strategy, live_exists=live_exists)


def _check_versions(session: Session, table: TableRef, *, origin: Origin) -> None:
    """Refuse to publish beside other partitions of the same backfill that another code version computed.

    Raises:
        MixedVersionsError: There are some.
    """
    others = other_versions(session, table, origin)
    if not others:
        return
    versions = [*others, origin.code_version]
    raise MixedVersionsError(
        f"{table}: backfill {origin.backfill_id} has published partitions of code_version"
        f" {listed(others)}, and this run has {origin.code_version}, so its rows are not published. Roll the"
        " backfill back and launch it again, or write publish=Merge(allow_mixed_versions=True) (or Replace, or Swap).",
        table=str(table),
        versions=versions,
    )


def _repeated(audited: Audited, done: Sequence[Change], session: Session) -> Published | None:
    """Return the publication that changes tell of; None if there are none.

    Raises:
        PublishConflictError: Something else has changed its partitions since.
    """
    if not done:
        return None
    staged = audited.staged
    last = {change.key: change for change in history(session, staged.spec.table, [one.key for one in done])}
    lost = [change.key for change in done if last[change.key].publication_id != change.publication_id]
    missing = [key for key in staged.keys if key not in last]
    if lost or missing:
        raise PublishConflictError(
            f"{staged.spec.table}: an earlier try of this run was published, and {listed(lost or missing)} changed"
            " since; nothing was published again. Launch a new run if the partitions are to be computed anew",
            table=str(staged.spec.table),
            keys=lost or missing,
            published_since={key: last[key].publication_id if key in last else None for key in lost or missing},
        )
    _LOG.warning("%s: %s was published by an earlier try of this run", staged.spec.table, done[0].publication_id)
    return Published(
        audited=audited,
        publication_id=done[0].publication_id,
        row_counts={change.key: change.row_counts for change in done},
        archive=next((change.archive for change in done if change.archive), None),
        expires_at=next((change.expires_at for change in done if change.expires_at), None),
        is_repeated=True,
    )
