"""Rollback: the rows that publications replaced go live again, in one transaction that can itself be rolled back."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from dagster_safe_backfill.errors import PublicationNotFoundError, RollbackConflictError, RollbackError
from dagster_safe_backfill.model.events import Fingerprint
from dagster_safe_backfill.model.slices import PartitionSlice, TableSlice
from dagster_safe_backfill.model.states import Archive, Origin, RolledBack
from dagster_safe_backfill.model.tables import Column, TableSpec, names_of
from dagster_safe_backfill.model.text import listed
from dagster_safe_backfill.sql import staging
from dagster_safe_backfill.wap.changes.archive import archived
from dagster_safe_backfill.wap.changes.conflicts import check_meanwhile, check_replaced
from dagster_safe_backfill.wap.changes.fingerprints import live_fingerprints
from dagster_safe_backfill.wap.ledger.alterations import alterations
from dagster_safe_backfill.wap.ledger.history import (
    Change,
    changes_by,
    changes_by_backfill,
    changes_in,
    history,
    known_ledger,
    newest_publication,
)
from dagster_safe_backfill.wap.ledger.owner import check_owner
from dagster_safe_backfill.wap.ledger.record import (
    NewChange,
    record_alteration,
    record_change,
    record_intent,
    upgrade_ledger,
)
from dagster_safe_backfill.wap.recovery import finish_interrupted_swap
from dagster_safe_backfill.wap.rollback.columns import ColumnsBack, check_alterable, columns_back
from dagster_safe_backfill.wap.rollback.conflicts import check_unchanged, check_uncompared, live_state
from dagster_safe_backfill.wap.rollback.histories import rollback_path
from dagster_safe_backfill.wap.rollback.moves import check_moves
from dagster_safe_backfill.wap.rollback.restore import (
    Restoration,
    by_partitions,
    check_restored,
    of_columns,
    of_table,
    sources_of,
)
from dagster_safe_backfill.wap.rollback.undone import Chosen, UndonePartition, check_shown, layers_of
from dagster_safe_backfill.wap.tables.slices import live_slice
from dagster_safe_backfill.warehouses.base import Session


def rollback(
    session: Session,
    chosen: Chosen,
    *,
    spec: TableSpec,
    partition_slice: PartitionSlice | None,
    origin: Origin,
    archive_for: timedelta,
    force: bool = False,
    dry_run: bool = False,
) -> RolledBack:
    """Undo publications in one transaction, and archive the live rows, so that the rollback can be undone too.

    Partitions in which the publications are already undone stay unchanged, so that a rollback can be repeated.

    Args:
        session: An open session, outside a transaction.
        chosen: The publications to undo.
        spec: How the live table is kept.
        partition_slice: All partitions that were ever changed and that the asset still has; None if there are none.
        origin: The run that rolls back, and the rollback's own id.
        archive_for: How long the present live rows are kept.
        force: True to undo later publications and changes by hand as well.
        dry_run: True to return what would change, without changing it.

    Raises:
        OtherAssetError: The table belongs to another asset.
        PublicationNotFoundError: The publication or, in it or the asset, a partition doesn't exist.
        RollbackConflictError: The partitions changed after the publication, and `force` isn't set.
        ArchiveNotFoundError: The replaced rows are not kept any more, or never were.
        RollbackError: The table doesn't exist any more, or an archive doesn't have the rows that were replaced.
    """
    step = _Rollback(
        session=session,
        spec=spec,
        partition_slice=partition_slice,
        origin=origin,
        archive_for=archive_for,
        force=force,
        dry_run=dry_run,
    )
    check_owner(session, spec.table, origin=origin, keys=chosen.keys)
    if not dry_run:
        record_intent(session, spec.table, origin=origin, archives=spec.table.archives(origin.publication_id))
    return session.attempt(lambda: step.run(chosen))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Rollback:
    session: Session
    spec: TableSpec
    partition_slice: PartitionSlice | None
    origin: Origin
    archive_for: timedelta
    force: bool
    dry_run: bool

    def run(self, chosen: Chosen) -> RolledBack:
        table = self.spec.table
        finish_interrupted_swap(self.session, table)
        upgrade_ledger(self.session, table)
        # This locks the live table, so that no other session changes what is read from here on.
        with self.session.tables.hold(table, run_id=self.origin.run_id) as committed:
            if known_ledger(committed, table) is None:
                raise self._not_found("its ledger has no publication that could be rolled back")
            check_owner(committed, table, origin=self.origin, keys=chosen.keys)
            repeated = self._repeated()
            if repeated is not None:
                return repeated
            published = self._published(chosen)
            altered = alterations(self.session.reader, table)
            paths = self._paths(published, altered)
            result = self._nothing(published, paths)
            settled = {*result.already, *result.untouched}
            undoing = {key: one for key, one in paths.items() if key not in settled}
            if not undoing:
                return result
            self._check_covered(undoing)
            check_moves(self.session, table, undoing)
            live, columns = self._live(undoing)
            state = live_state(committed, live, columns, undoing, altered)
            if not self.force:
                check_unchanged(self.session.reader, live, state)
            now = state.fingerprints
            check_shown(chosen.shown, table, undoing, now)
        back = columns_back(self.session, live, columns, undoing, altered)
        check_alterable(self.session, table, back)
        restoration = self._restoration(live, back, undoing)
        if not self.force:
            check_uncompared(live, state, undoing, {} if back.whole else restoration.row_counts)
        kept = {key: now[key].rows for key, one in undoing.items() if not one.has_rows}
        restoration = replace(restoration, unchanged=kept)
        archive, expires_at = Archive(), None
        if not self.dry_run:
            archive, expires_at = self._applied(restoration, live, columns, back, undoing, now=now)
        restoration.close(self.session)
        return replace(
            result,
            layers=layers_of(undoing),
            replaced=now,
            row_counts=restoration.row_counts,
            removed=tuple(key for key in live.keys if now[key].rows and not restoration.row_counts[key].staged),
            dropped_columns=back.dropped,
            kept_columns=back.kept,
            restored_columns=names_of(back.restored),
            archive=archive.table,
            expires_at=expires_at,
        )

    def _nothing(self, published: Mapping[str, Sequence[str]], paths: Mapping[str, UndonePartition]) -> RolledBack:
        """Return the result of a rollback that has nothing to do."""
        already = {key: one.newest.publication_id for key, one in paths.items() if one.path.standing == "already"}
        needless = {key for key, one in paths.items() if key not in already and one.is_needless}
        return RolledBack(
            table=self.spec.table,
            publication_id=self.origin.publication_id,
            undone=tuple(dict.fromkeys(name for names in published.values() for name in names)),
            already=already,
            untouched=tuple(key for key in published if key not in paths or key in needless),
            is_dry=self.dry_run,
        )

    def _restoration(self, live: TableSlice, back: ColumnsBack, undoing: Mapping[str, UndonePartition]) -> Restoration:
        reader, aside = self.session.reader, self.spec.table.aside(self.origin.publication_id)
        if back.whole is not None:
            return of_table(reader, live, back.whole, aside=aside)
        with_rows = {key: one for key, one in undoing.items() if one.has_rows}
        sources = sources_of(self.session, self.spec, with_rows)
        added = back.missing
        if added and not self.dry_run:
            # On Snowflake this begins the transaction again, and the next attempt finds the columns.
            defaults = staging.with_defaults(self.spec, added, dialect=self.session.dialect.name)
            self.session.tables.add_columns(self.spec.table, defaults)
            added = ()
        if with_rows:
            only = live.only([*with_rows])
            restoration = by_partitions(reader, only, back.remaining, sources, added=added, dropped=back.dropped)
        else:
            restoration = of_columns(live, back.remaining)
        return replace(restoration, strategy="swap", dropped=back.dropped, aside=aside) if back.dropped else restoration

    def _not_found(self, what: str, keys: Sequence[str] = ()) -> PublicationNotFoundError:
        table = str(self.spec.table)
        return PublicationNotFoundError(f"{table}: {what}", table=table, keys=keys)

    def _repeated(self) -> RolledBack | None:
        """Return the result of an earlier try of the same run, if it committed."""
        done = changes_by(self.session.reader, self.spec.table, self.origin.publication_id)
        if not done:
            return None
        return RolledBack(
            table=self.spec.table,
            publication_id=self.origin.publication_id,
            undone=tuple(dict.fromkeys(name for change in done for name in change.undone)),
            row_counts={change.key: change.row_counts for change in done},
            removed=tuple(change.key for change in done if not (change.fingerprint or Fingerprint()).rows),
            archive=next((change.archive for change in done if change.archive), None),
            expires_at=next((change.expires_at for change in done if change.expires_at), None),
        )

    def _published(self, chosen: Chosen) -> dict[str, list[str]]:
        """Return a mapping from the key of each partition to undo to the ids of the publications that published it.

        Raises:
            PublicationNotFoundError: A publication isn't in the ledger, or did not publish a partition that was named.
        """
        changes = self._chosen(chosen)
        published: dict[str, list[str]] = {}
        for change in changes:
            published.setdefault(change.key, []).append(change.publication_id)
        unknown = [key for key in chosen.keys if key not in published]
        if unknown:
            names = listed([*dict.fromkeys(change.publication_id for change in changes)])
            raise self._not_found(f"{names} did not publish {listed(unknown)}, but {listed([*published])}", unknown)
        wanted = set(chosen.keys or published)
        return {key: names for key, names in published.items() if key in wanted}

    def _chosen(self, chosen: Chosen) -> list[Change]:
        table = self.spec.table
        if chosen.publication_ids:
            changes = changes_by(self.session.reader, table, *chosen.publication_ids)
            what = f"no publication or rollback {listed(chosen.publication_ids)} is in its ledger"
        elif chosen.backfill_id is not None:
            changes = changes_by_backfill(self.session.reader, table, chosen.backfill_id)
            what = f"no publication of backfill {chosen.backfill_id} is in its ledger"
        else:
            publication = chosen.publication_id or newest_publication(self.session.reader, table)
            changes = [] if publication is None else changes_by(self.session.reader, table, publication)
            what = "its ledger has no publication that could be rolled back"
            if publication is not None and not changes:
                # With Batches(publish_each=True), the id names a run, and each of its batches has its own publication.
                changes = changes_in(self.session.reader, table, publication)
                what = f"no publication or rollback {publication} is in its ledger"
        if not changes:
            raise self._not_found(what)
        return changes

    def _paths(self, published: Mapping[str, Sequence[str]], altered: Collection[str]) -> dict[str, UndonePartition]:
        """Return the partitions in which the publications changed any row or column, with the changes to undo."""
        chosen = {name for names in published.values() for name in names}
        histories: dict[str, list[Change]] = {key: [] for key in published}
        for change in history(self.session.reader, self.spec.table, [*published]):
            # A publication that changed no row of a partition doesn't stand in the way of a rollback of that partition.
            if change.row_counts.touched or change.undone or change.publication_id in altered:
                histories[change.key].append(change)
        return {
            key: UndonePartition(path=rollback_path(changes, chosen), history=changes, altered=altered)
            for key, changes in histories.items()
            if any(change.publication_id in chosen for change in changes)
        }

    def _check_covered(self, paths: Mapping[str, UndonePartition]) -> None:
        covered = [key for key, one in paths.items() if one.path.standing == "covered"]
        if not covered or self.force:
            return
        since = {key: paths[key].newest for key in covered}
        shown = listed(
            [
                f"{key}: {change.publication_id} at {change.recorded_at:%Y-%m-%d %H:%M:%S %Z}"
                for key, change in since.items()
            ]
        )
        raise RollbackConflictError(
            f"{self.spec.table}: {len(covered)} partitions were published again since ({shown}), so nothing was rolled"
            " back. Roll those back first, name the other partitions, or set force to undo them as well.",
            table=str(self.spec.table),
            keys=covered,
        )

    def _live(self, undoing: Mapping[str, UndonePartition]) -> tuple[TableSlice, tuple[Column, ...]]:
        """Return the slice of the partitions to roll back, and the live table's columns."""
        known = () if self.partition_slice is None else self.partition_slice.keys
        unknown = [key for key in undoing if key not in set(known)]
        if unknown or self.partition_slice is None:
            raise self._not_found(
                f"the asset has no partitions {listed(unknown)} any more, so it isn't known which rows belong to them."
                " Name the other partitions, or add these to its partitions definition again.",
                unknown,
            )
        columns = self.session.tables.columns(self.spec.table)
        if columns is None:
            raise RollbackError(
                f"{self.spec.table}: the table doesn't exist any more, so nothing was rolled back. The ledger names its"
                " archives, from which it can be restored by hand.",
                table=str(self.spec.table),
            )
        # Rows are restored with the values that `updated_at_column` had, and not with the time of the rollback.
        spec = replace(self.spec, updated_at_column=None, keep_latest=None)
        partitions = self.partition_slice.only(undoing)
        live = live_slice(self.session, spec=spec, partition_slice=partitions, columns=columns)
        return live, columns

    def _applied(
        self,
        restoration: Restoration,
        live: TableSlice,
        every: Sequence[Column],
        back: ColumnsBack,
        undoing: Mapping[str, UndonePartition],
        *,
        now: Mapping[str, Fingerprint],
    ) -> tuple[Archive, datetime | None]:
        """Run the restoration, and return the archive of the rows that it replaced, and until when it is kept."""
        session, table = self.session, self.spec.table
        archive = self._archived(restoration, live, back, now)
        restoration.run(session)
        if restoration.aside is not None:
            check_replaced(session, live, restoration.aside, every, now)
        elif restoration.prepared.statements:
            check_meanwhile(session, live, every, now)
        if restoration.aside is not None and archive.table is None:
            session.tables.drop(restoration.aside)
        columns = session.tables.columns(table) or ()
        after = live_fingerprints(session, live, columns)
        check_restored(session, live, restoration, undoing, after, columns=columns, force=self.force)
        change = NewChange(
            event="rolled_back",
            strategy=restoration.strategy,
            row_counts=restoration.row_counts,
            before=now,
            after=after,
            columns=names_of(columns),
            archive=archive,
            moved=restoration.prepared.moved,
            undone={key: [layer.publication_id for layer in one.layers] for key, one in undoing.items()},
        )
        expires_at = record_change(session, table, change, origin=self.origin)
        record_alteration(session, table, before=back.before, after=columns, origin=self.origin)
        return archive, expires_at

    def _archived(
        self, restoration: Restoration, live: TableSlice, back: ColumnsBack, now: Mapping[str, Fingerprint]
    ) -> Archive:
        if not self.archive_for:
            return Archive()
        if restoration.aside is not None:
            return Archive(table=restoration.aside, keys=live.keys, keep_for=self.archive_for)
        replaced = restoration.prepared.replaced(now)
        if not replaced:
            return Archive()
        return archived(
            self.session,
            live.only(replaced),
            back.present,
            publication_id=self.origin.publication_id,
            keep_for=self.archive_for,
        )
