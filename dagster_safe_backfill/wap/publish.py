"""Publishing: the live partitions of a slice get the rows of the shadow, in one transaction."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from sqlglot import exp
from typing_extensions import assert_never

from dagster_safe_backfill.errors import (
    MixedVersionsError,
    NotStagedError,
    PublishConflictError,
    TransactionConflictError,
)
from dagster_safe_backfill.model.events import Fingerprint
from dagster_safe_backfill.model.options import Merge, Publish, Replace, Swap
from dagster_safe_backfill.model.states import Archive, Audited, Origin, Published, StagedPartition
from dagster_safe_backfill.model.tables import Column, TableRef, names_of
from dagster_safe_backfill.model.text import listed
from dagster_safe_backfill.sql import staging
from dagster_safe_backfill.sql.slicing import inside
from dagster_safe_backfill.wap.changes.archive import archived
from dagster_safe_backfill.wap.changes.conflicts import (
    check_conflict,
    check_meanwhile,
    check_replaced,
    check_written,
    reader_of,
    seeing,
)
from dagster_safe_backfill.wap.changes.fingerprints import live_fingerprints
from dagster_safe_backfill.wap.changes.moves import Moves, moves_of
from dagster_safe_backfill.wap.changes.prepare import PreparedChange, prepare_change, slice_write
from dagster_safe_backfill.wap.changes.swap import swapped
from dagster_safe_backfill.wap.columns import add_columns, check_kept
from dagster_safe_backfill.wap.ledger.history import Change, changes_by, history, other_versions
from dagster_safe_backfill.wap.ledger.owner import check_owner, check_writer
from dagster_safe_backfill.wap.ledger.record import (
    NewChange,
    record_alteration,
    record_change,
    record_intent,
    record_taken,
)
from dagster_safe_backfill.wap.ledger.waiting import emptied, newest, staged_partitions
from dagster_safe_backfill.wap.recovery import finish_interrupted_swap
from dagster_safe_backfill.wap.tables.read import text_of_slice
from dagster_safe_backfill.warehouses.base import Session

_LOG = logging.getLogger(__name__)

_STANDINGS: Mapping[str, str] = {
    "staged": "staged, and its audits have not ended",
    "audited": "staged, and not yet audited with the others",
    "rejected": "rejected by an audit",
    "refused": "refused by an audit of all partitions that were staged with it",
    "rolled_back": "rolled back, and not staged again since",
    "taken_up": "taken over by another backfill",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class ToPublish:
    """The partitions to publish, and those that are live already.

    Attributes:
        approved: The partitions that an audit of their whole group has approved.
        published: A mapping from the key of each other partition to the change that published it.
    """

    approved: tuple[StagedPartition, ...]
    published: Mapping[str, Change]


def to_publish(session: Session, table: TableRef, keys: Sequence[str], *, origin: Origin) -> ToPublish:
    """Return the partitions to publish: those that the run's own group staged, else those staged last by any group.

    Raises:
        NotStagedError: Partitions are neither approved nor live.
        OtherAssetError: The table belongs to another asset.
    """
    check_owner(session, table, origin=origin, keys=keys)
    chosen = _chosen(staged_partitions(session, table, keys=keys, assets=origin.assets), group=origin.group)
    live = {key: one for key, one in chosen.items() if one.event == "published"}
    approved = [chosen[key] for key in keys if key in chosen and chosen[key].event == "approved"]
    refused: dict[str, str] = {}
    for key in keys:
        if key not in chosen:
            refused[key] = "not staged"
        elif chosen[key].event in _STANDINGS:
            refused[key] = _STANDINGS[chosen[key].event]
    if refused:
        shown = listed([f"{key}: {text}" for key, text in refused.items()])
        raise NotStagedError(
            f"{table}: {len(refused)} of {len(keys) - len(live)} partitions can't be published ({shown}), so none was"
            f" published. Materialize them in {table.name}__shadow, then in {table.name}__audit, and publish again.",
            table=str(table),
            keys=[*refused],
        )
    ids = {one.publication_id for one in live.values()}
    before = changes_by(session, table, *ids) if ids else []
    published = {change.key: change for change in before if change.key in live}
    return ToPublish(approved=tuple(approved), published=published)


def _chosen(found: Sequence[StagedPartition], *, group: str) -> dict[str, StagedPartition]:
    """Return a mapping from each partition key to the staged partition to publish.

    A partition of the group that was published and then rolled back is not live any more. A partition that another
    group took over no longer belongs to this group, unless it is live already.
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
    """Make audited rows live: write them, archive the rows they replace, record the change, and drop the shadow.

    All of this is one transaction. Publishing the same publication again changes nothing and returns the
    result of the first try.

    Args:
        session: An open session, outside a transaction.
        audited: The rows to publish.
        rules: How they are published.
        origin: The run that publishes, and the id of the publication.

    Raises:
        OtherAssetError: The table belongs to another asset.
        PublishConflictError: Partitions changed after their rows were computed, or after an earlier try published them;
            or a key became live in another partition.
        KeyViolationError: A key that is live in another partition can't move. See `moves_of`.
        MixedVersionsError: Other code versions published partitions of the same backfill.
        SwapError: The table can't be swapped.
        SchemaMismatchError: The live table's columns changed after the rows were staged.
        WarehouseError: The database refused a statement; the live table and the shadow are unchanged.
    """
    table = audited.staged.table_slice.spec.table
    publication = _Publication(session=session, audited=audited, rules=rules, origin=origin)
    # In a transaction of its own: on Snowflake a crash leaves the archive, which retention finds by this row.
    archive = table.aside(origin.publication_id) if isinstance(rules, Swap) else table.archive(origin.publication_id)
    record_intent(session, table, origin=origin, archives=[archive])
    return session.attempt(publication.run)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Found:
    """What a publication finds in the live table.

    Attributes:
        live: The live table's columns; None if it doesn't exist.
        moves: The partitions, and the rows that move into them from others.
        before: The fingerprints of all these partitions.
        compared: The same, over the columns that the table had when the rows were staged.
    """

    live: Sequence[Column] | None
    moves: Moves
    before: Mapping[str, Fingerprint]
    compared: Mapping[str, Fingerprint]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Publication:
    session: Session
    audited: Audited
    rules: Publish
    origin: Origin

    def run(self) -> Published:
        """Publish in the caller's transaction."""
        session, rules, origin, staged = self.session, self.rules, self.origin, self.audited.staged
        table = staged.spec.table
        # Snowflake's SWAP WITH is its own inverse, so a swap whose reply was lost is settled before the table is read.
        finish_interrupted_swap(session, table)
        # This locks the live table. All reads come after it, so no other session can change what they return.
        with session.tables.hold(table, run_id=origin.run_id) as committed:
            # Before the look-up of `done`: another asset may have published in the same run, under the same id.
            check_writer(committed, table, origin=origin, keys=staged.keys)
            live = committed.tables.columns(table)
            if live is not None and session.tables.columns(table) is None:
                # A table that doesn't exist can't be locked; the next attempt can lock it.
                raise TransactionConflictError(f"{table}: another transaction created the table after this one began")
            # If the reply to COMMIT was lost, only the ledger shows whether an earlier try has published.
            done = changes_by(session.reader, table, origin.publication_id)
            found = None if done else self._look(committed, live)
        if found is None:
            published = self._repeated(done)
            # On Snowflake, tables are dropped after COMMIT, so the earlier try may not have dropped its shadow.
            self._clean_up()
            return published
        # After the ledger's look-up: the rows that an earlier try of this run published are no conflict.
        self._check(found.compared)
        prepared, archive = self._write(found)
        # Read again, because the write may have created the table, or added or dropped columns.
        columns = session.tables.columns(table) or ()
        is_unchanged = not prepared.statements and live is not None and {*columns} == {*live}
        after = found.before if is_unchanged else live_fingerprints(session, found.moves.table_slice, columns)
        # Snowflake's lock doesn't stop the INSERT of another session, so the numbers are checked before COMMIT.
        check_written(session, staged, after, {key: one.staged for key, one in prepared.row_counts.items()})
        change = NewChange(
            event="published",
            strategy=rules.strategy,
            row_counts=prepared.row_counts,
            before=found.before,
            after=after,
            columns=names_of(columns),
            archive=archive,
            moved={**prepared.moved, **found.moves.links},
            left=found.moves.left,
        )
        expires_at = record_change(session, table, change, origin=origin, staged=staged)
        if live is not None:
            # Snowflake adds columns before the transaction, so they may be in the table that this attempt has found.
            earlier = [column for column in live if column not in staged.added]
            record_alteration(session, table, before=earlier, after=columns, origin=origin)
        self._clean_up()
        return Published(
            audited=self.audited,
            select=text_of_slice(self.audited.staged.table_slice),
            publication_id=origin.publication_id,
            row_counts=prepared.row_counts,
            archive=archive.table,
            expires_at=expires_at,
        )

    def _look(self, committed: Session, live: Sequence[Column] | None) -> _Found:
        """Return what the publication finds in the live table, whose columns are given.

        Raises:
            SchemaMismatchError: The live table has lost columns.
            PublishConflictError: A key became live in another partition.
            KeyViolationError: A key that is live in another partition can't move.
        """
        staged = self.audited.staged
        if live is None:
            nothing = dict.fromkeys(staged.keys, Fingerprint())
            return _Found(live=live, moves=Moves(table_slice=staged.table_slice), before=nothing, compared=nothing)
        # Before the conflicts: without these columns, rows that nobody changed look different.
        check_kept(staged, live)
        # Only the transaction's session sees scratch tables. `reader_of` checks later that it sees the live rows, too.
        moves = moves_of(seeing(self.session, staged.shadow), staged, origin=self.origin)
        names = names_of(live)
        before = live_fingerprints(committed, moves.table_slice, live)
        # Equal rows have other hashes over other columns: compare only the columns that existed at the staging.
        shared = tuple(filter({*names}.__contains__, names_of(staged.live_columns or staged.columns)))
        compared = before
        if shared != names:
            compared = live_fingerprints(committed, moves.table_slice, live, shared) if shared else {}
        return _Found(live=live, moves=moves, before=before, compared=compared)

    def _check(self, now: Mapping[str, Fingerprint]) -> None:
        """Refuse other code versions of the backfill, and live partitions that changed since the staging.

        Raises:
            MixedVersionsError: Other code versions published partitions of the same backfill.
            PublishConflictError: Live partitions changed after their rows were computed.
        """
        session, rules, origin, staged = self.session, self.rules, self.origin, self.audited.staged
        table = staged.table_slice.spec.table
        others = () if rules.allow_mixed_versions else other_versions(session.reader, table, origin)
        if others:
            raise MixedVersionsError(
                f"{table}: backfill {origin.backfill_id} has published partitions of code_version {listed(others)}, and"
                f" this run has code_version {origin.code_version}: the code changed while the backfill was running."
                " Roll the backfill back and launch it again, or set"
                f" publish={type(rules).__name__}(allow_mixed_versions=True).",
                table=str(table),
                versions=[*others, origin.code_version],
            )
        if rules.on_conflict == "raise":
            check_conflict(session.reader, staged, now, origin=origin)

    def _write(self, found: _Found) -> tuple[PreparedChange, Archive]:
        """Write the rows to the live table; return the change, and the archive of the replaced rows."""
        session, rules, staged = self.session, self.rules, self.audited.staged
        moves, before, live_exists = found.moves, found.before, found.live is not None
        publication_id = self.origin.publication_id
        match rules:
            case Swap() if live_exists:
                done = swapped(session, staged, publication_id=publication_id, keep_for=rules.archive_for)
                # Without statements, the rows are as they were, and the table wasn't swapped.
                if done[0].statements:
                    aside = staged.spec.table.aside(publication_id)
                    check_replaced(session, staged.table_slice, aside, found.live or (), before)
                return done
            # The first publication of a swap has no table to clone, so it creates one as the others do.
            case Merge() | Replace() | Swap():
                pass
            case _:
                assert_never(rules)
        # Before any row is written: on Snowflake, DDL commits the transaction, so it is begun again after it.
        add_columns(session, staged)
        reader = reader_of(session, staged.shadow, moves.table_slice, found.live or (), before)
        write = slice_write(
            reader, staged.table_slice, shadow=staged.shadow, columns=staged.columns, is_partial=staged.is_partial
        )
        if moves.left:
            elsewhere = exp.paren(inside(moves.table_slice.only(moves.left)))
            write = replace(write, table_slice=moves.table_slice, elsewhere=elsewhere, moving=sum(moves.rows.values()))
        prepared = prepare_change(reader, write, staged.rows, strategy=rules.strategy, live_exists=live_exists)
        prepared = replace(prepared, row_counts=moves.counted(prepared.row_counts, before))
        archive = Archive()
        replaced = prepared.replaced(before)
        if replaced and rules.archive_for:
            of_replaced = moves.table_slice.only(replaced)
            keep_for = rules.archive_for
            archive = archived(
                session, of_replaced, names_of(found.live or ()), publication_id=publication_id, keep_for=keep_for
            )
        prepared.run(session)
        if found.live and prepared.statements:
            check_meanwhile(session, moves.table_slice, found.live, before)
        return prepared, archive

    def _clean_up(self) -> None:
        """Drop the shadows that the published rows leave empty, and record the partitions of other groups as taken."""
        session, staged = self.session, self.audited.staged
        shadows = [staged.shadow]
        if staged.moved:
            table = staged.spec.table
            record_taken(session, table, staged.moved, origin=self.origin)
            shadows += emptied(session, table, staged.moved)
        for shadow in shadows:
            session.tables.drop(shadow)
        if staged.rest is not None:
            shadow, positions = staged.rest
            session.execute(staging.delete_positions(shadow, positions))

    def _repeated(self, done: Sequence[Change]) -> Published:
        """Return the publication that an earlier try of this run committed.

        Raises:
            PublishConflictError: Its partitions have changed since.
        """
        staged = self.audited.staged
        table, publication_id = staged.spec.table, done[0].publication_id
        last = {change.key: change for change in history(self.session.reader, table, [one.key for one in done])}
        own = [change.key for change in done if change.event != "moved"]
        lost = [key for key in own if last[key].publication_id != publication_id]
        changed = lost or [key for key in staged.keys if key not in last]
        if changed:
            raise PublishConflictError(
                f"{table}: an earlier try of this run published its partitions, and {listed(changed)} changed since,"
                " so nothing was published again. To compute these partitions again, launch a new run.",
                table=str(table),
                keys=changed,
                published_since={key: last[key].publication_id if key in last else None for key in changed},
            )
        _LOG.warning("%s: an earlier try of this run published %s", table, publication_id)
        return Published(
            audited=self.audited,
            select=text_of_slice(self.audited.staged.table_slice),
            publication_id=publication_id,
            row_counts={change.key: change.row_counts for change in done},
            archive=next((change.archive for change in done if change.archive), None),
            expires_at=next((change.expires_at for change in done if change.expires_at), None),
            is_repeated=True,
        )
