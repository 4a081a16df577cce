"""rollback: what publications replaced goes live again, in one transaction that is itself a publication."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from functools import partial

from sqlglot import exp

from dagster_safe_backfill.errors import PublicationNotFoundError, RollbackConflictError, RollbackError
from dagster_safe_backfill.model.slices import PartitionSlice
from dagster_safe_backfill.model.states import Fingerprint, Origin, RolledBack, Staged
from dagster_safe_backfill.model.tables import TableSpec
from dagster_safe_backfill.model.text import listed
from dagster_safe_backfill.sql import terms
from dagster_safe_backfill.wap.changes.archive import Archive, archived, expiry
from dagster_safe_backfill.wap.changes.fingerprints import live_fingerprints
from dagster_safe_backfill.wap.ledger import ledger
from dagster_safe_backfill.wap.ledger.intents import record_intent
from dagster_safe_backfill.wap.ledger.ledger import Entry
from dagster_safe_backfill.wap.recognition import columns_of, partition_types
from dagster_safe_backfill.wap.recovery import finish_interrupted_swap
from dagster_safe_backfill.wap.rollback.histories import way_back
from dagster_safe_backfill.wap.rollback.restore import Undoing, WayBack, by_partitions, is_reshaped, sources_of, whole
from dagster_safe_backfill.wap.transactions import in_transaction
from dagster_safe_backfill.warehouses.base import Connection


@dataclass(frozen=True, slots=True, kw_only=True)
class Chosen:
    """Which publications are undone, and in which partitions; all that they published, if `keys` are none.

    Give one of the ids; without, it is the newest publication of the table that is no rollback.
    """

    publication_id: str | None = None
    backfill_id: str | None = None
    keys: tuple[str, ...] = ()


def rollback(
    connection: Connection,
    chosen: Chosen,
    *,
    spec: TableSpec,
    slice_of: Callable[[Sequence[str]], PartitionSlice],
    origin: Origin,
    archive_for: timedelta,
    force: bool = False,
    dry_run: bool = False,
) -> RolledBack:
    """Undo publications in one transaction; what is live now is archived, so that this can be undone as well.

    Partitions in which they are undone already are left as they are, so that it can be repeated.

    Args:
        connection: An open session, outside a transaction.
        chosen: What is undone.
        spec: How the live table is kept.
        slice_of: Returns the slice of some partition keys.
        origin: Who does it, and the rollback's own id.
        archive_for: How long what is live now is kept.
        force: Undo also what was published on top, and changes by hand.
        dry_run: Only say what would change.

    Raises:
        PublicationNotFoundError: There is no such publication, or it has no such partitions.
        RollbackConflictError: The partitions changed since, and `force` isn't set.
        ArchiveNotFoundError: What was replaced isn't kept, or not any more.
    """
    step = _Rollback(
        connection=connection,
        spec=spec,
        slice_of=slice_of,
        origin=origin,
        archive_for=archive_for,
        force=force,
        dry_run=dry_run,
    )
    if not dry_run:
        record_intent(connection, spec.table, origin=origin, archive=spec.table.archive(origin.publication_id))
    return in_transaction(connection, partial(step.run, chosen))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Rollback:
    connection: Connection
    spec: TableSpec
    slice_of: Callable[[Sequence[str]], PartitionSlice]
    origin: Origin
    archive_for: timedelta
    force: bool
    dry_run: bool

    def run(self, chosen: Chosen) -> RolledBack:
        table = self.spec.table
        finish_interrupted_swap(self.connection, table)
        with self.connection.hold(table) as committed:
            if not ledger.exists(committed, table):
                raise self._not_found("its ledger knows of no publication that could be undone")
            repeated = self._repeated()
            if repeated is not None:
                return repeated
            published = self._published(chosen)
            ways = self._ways(published)
            result = self._nothing(published, ways)
            settled = {*result.already, *result.untouched}
            undoing = {key: one for key, one in ways.items() if key not in settled}
            if not undoing:
                return result
            self._check_covered(undoing)
            staged = self._staged(self.slice_of(list(undoing)))
            now = self._now(committed, staged, undoing)
        back = self._way_back(staged, undoing, result.undone)
        archive, removed = self._applied(back, staged, undoing, now)
        return replace(
            result, changes=back.changes, removed=removed, archive=archive.table, expires_at=archive.expires_at
        )

    def _nothing(self, published: Mapping[str, Sequence[str]], ways: Mapping[str, Undoing]) -> RolledBack:
        """Return what is to be said where nothing is to be done."""
        already = {key: one.newest.publication_id for key, one in ways.items() if one.way.standing == "already"}
        needless = {key for key, one in ways.items() if key not in already and one.is_needless}
        return RolledBack(
            table=self.spec.table,
            publication_id=self.origin.publication_id,
            undone=tuple(dict.fromkeys(name for names in published.values() for name in names)),
            already=already,
            untouched=tuple(key for key in published if key not in ways or key in needless),
            is_dry=self.dry_run,
        )

    def _way_back(self, staged: Staged, undoing: Mapping[str, Undoing], publications: Sequence[str]) -> WayBack:
        sources = sources_of(self.connection, self.spec, undoing)
        if not is_reshaped(self.connection, staged, sources):
            return by_partitions(self.connection, staged, sources, slice_of=self.slice_of)
        self._check_untouched(undoing, publications)
        archive = self.spec.table.archive(self.origin.publication_id)
        return whole(self.connection, staged, sources, archive=archive)

    def _not_found(self, what: str, keys: Sequence[str] = ()) -> PublicationNotFoundError:
        table = str(self.spec.table)
        return PublicationNotFoundError(f"{table}: {what}", table=table, keys=keys)

    def _repeated(self) -> RolledBack | None:
        """Return what an earlier try of the same run did, if it committed."""
        entries = ledger.changes_by(self.connection, self.spec.table, self.origin.publication_id)
        if not entries:
            return None
        return RolledBack(
            table=self.spec.table,
            publication_id=self.origin.publication_id,
            undone=tuple(dict.fromkeys(name for entry in entries for name in entry.undone)),
            changes={entry.key: entry.changes for entry in entries},
            removed=tuple(entry.key for entry in entries if not (entry.fingerprint or Fingerprint()).rows),
            archive=next((entry.archive for entry in entries if entry.archive), None),
            expires_at=next((entry.expires_at for entry in entries if entry.expires_at), None),
        )

    def _published(self, chosen: Chosen) -> dict[str, list[str]]:
        """Return the partitions that are undone, those named or all that were published, with what published them.

        Raises:
            PublicationNotFoundError: It isn't in the ledger, or has no such partitions.
        """
        entries = self._chosen(chosen)
        published: dict[str, list[str]] = {}
        for entry in entries:
            published.setdefault(entry.key, []).append(entry.publication_id)
        unknown = [key for key in chosen.keys if key not in published]
        if unknown:
            names = listed([*dict.fromkeys(entry.publication_id for entry in entries)])
            raise self._not_found(f"{names} did not publish {listed(unknown)}, but {listed([*published])}", unknown)
        wanted = set(chosen.keys or published)
        return {key: names for key, names in published.items() if key in wanted}

    def _chosen(self, chosen: Chosen) -> list[Entry]:
        table = self.spec.table
        if chosen.backfill_id is not None:
            entries = ledger.changes_by_backfill(self.connection, table, chosen.backfill_id)
            what = f"no publication of backfill {chosen.backfill_id} is in its ledger"
        else:
            publication = chosen.publication_id or ledger.newest_publication(self.connection, table)
            entries = [] if publication is None else ledger.changes_by(self.connection, table, publication)
            what = "its ledger knows of no publication that could be undone"
            if publication is not None and not entries:
                # A run whose batches were publications of their own.
                entries = ledger.changes_in(self.connection, table, publication)
                what = f"no publication or rollback {publication} is in its ledger"
        if not entries:
            raise self._not_found(what)
        return entries

    def _ways(self, published: Mapping[str, Sequence[str]]) -> dict[str, Undoing]:
        """Return how each partition goes back in which the publications changed any row."""
        chosen = {name for names in published.values() for name in names}
        histories: dict[str, list[Entry]] = {key: [] for key in published}
        for entry in ledger.history(self.connection, self.spec.table, [*published]):
            if entry.changes.touched or entry.undone:
                histories[entry.key].append(entry)
        return {
            key: Undoing(way=way_back(entries, chosen), history=entries)
            for key, entries in histories.items()
            if any(entry.publication_id in chosen for entry in entries)
        }

    def _check_covered(self, ways: Mapping[str, Undoing]) -> None:
        covered = [key for key, one in ways.items() if one.way.standing == "covered"]
        if not covered or self.force:
            return
        since = {key: ways[key].newest for key in covered}
        shown = listed(
            [
                f"{key}: {entry.publication_id} at {entry.recorded_at:%Y-%m-%d %H:%M:%S %Z}"
                for key, entry in since.items()
            ]
        )
        raise RollbackConflictError(
            f"{self.spec.table}: {len(covered)} partitions were published again since ({shown}), so nothing was rolled"
            " back. Roll those back first, name the other partitions, or set force to undo them as well",
            table=str(self.spec.table),
            keys=covered,
        )

    def _staged(self, partition_slice: PartitionSlice) -> Staged:
        """Return live as what the restored rows are to be staged for."""
        live = self.connection.columns(self.spec.table)
        if live is None:
            raise RollbackError(
                f"{self.spec.table} isn't there any more; its archives are, and its ledger names them",
                table=str(self.spec.table),
            )
        names = [column.name for column in live]
        rows = exp.select(*map(terms.column, names)).from_(terms.table(self.spec.table))
        types = partition_types(self.connection, rows, spec=self.spec, partition_slice=partition_slice)
        return Staged(
            spec=_as_archived(self.spec),
            partition_slice=partition_slice,
            shadow=self.spec.table,
            columns=live,
            partition_types=types,
            rows={},
            dropped=0,
            live_columns=live,
        )

    def _now(self, committed: Connection, staged: Staged, undoing: Mapping[str, Undoing]) -> Mapping[str, Fingerprint]:
        """Return the live partitions' fingerprints.

        Raises:
            RollbackConflictError: Some aren't as their last change left them.
        """
        by_columns: dict[tuple[str, ...], list[str]] = {}
        for key, one in undoing.items():
            by_columns.setdefault(one.newest.columns, []).append(key)
        changed = {key for key, one in undoing.items() if one.is_changed_by_hand}
        names = tuple(column.name for column in staged.columns)
        now: dict[str, Fingerprint] = {}
        for columns, keys in by_columns.items():
            if not set(names).issuperset(columns) or not columns:
                changed.update(keys)
                continue
            found = self._fingerprints(committed, staged, keys, columns)
            changed.update(key for key in keys if found[key] != undoing[key].newest.fingerprint)
            if columns == names:
                now |= found
        if changed and not self.force:
            raise RollbackConflictError(
                f"{staged.spec.table}: {listed(sorted(changed))} changed since the last publication there, by hand"
                " or by another version of the database, so nothing was rolled back. Look at what changed; force"
                " replaces it, and archives it",
                table=str(staged.spec.table),
                keys=sorted(changed),
            )
        others = [key for key in undoing if key not in now]
        return now | self._fingerprints(committed, staged, others, names) if others else now

    def _fingerprints(
        self, connection: Connection, staged: Staged, keys: Sequence[str], names: Sequence[str]
    ) -> dict[str, Fingerprint]:
        return live_fingerprints(
            connection,
            spec=staged.spec,
            partition_slice=self.slice_of(keys),
            types=staged.partition_types,
            names=names,
        )

    def _check_untouched(self, undoing: Mapping[str, Undoing], publications: Sequence[str]) -> None:
        """Refuse to put a whole table back if more, or less, than what was asked would go with it."""
        history = ledger.history(self.connection, self.spec.table)
        last = history[-1].publication_id
        partitions = {entry.key for entry in history if entry.publication_id in publications}
        if last in publications and partitions == set(undoing) and len(publications) == 1:
            return
        raise RollbackConflictError(
            f"{self.spec.table}: {listed(publications)} changed the table's columns, so it can only be undone whole,"
            f" with all of its partitions, and as long as nothing was published on top; the last publication is {last}."
            " Roll back first what came later",
            table=str(self.spec.table),
            keys=[*undoing],
        )

    def _applied(
        self,
        back: WayBack,
        staged: Staged,
        undoing: Mapping[str, Undoing],
        now: Mapping[str, Fingerprint],
    ) -> tuple[Archive, tuple[str, ...]]:
        """Do it, unless it is a dry run; return the archive, and the partitions that have no rows now."""
        archive = Archive()
        if not self.dry_run:
            archive = self._archive(back, staged, now)
            back.run(self.connection)
            self._record(back, staged, undoing, now, archive)
        back.close(self.connection)
        return archive, tuple(key for key in staged.keys if now[key].rows and not back.rows.get(key))

    def _archive(self, back: WayBack, staged: Staged, now: Mapping[str, Fingerprint]) -> Archive:
        if back.aside is not None:
            return Archive(table=back.aside, keys=staged.keys, expires_at=expiry(self.archive_for))
        return archived(
            self.connection,
            spec=staged.spec,
            partition_slice=staged.partitions,
            columns=columns_of(self.connection, staged),
            names=[column.name for column in staged.columns],
            changes=back.changes,
            before=now,
            publication_id=self.origin.publication_id,
            keep_for=self.archive_for,
        )

    def _record(
        self,
        back: WayBack,
        staged: Staged,
        undoing: Mapping[str, Undoing],
        now: Mapping[str, Fingerprint],
        archive: Archive,
    ) -> None:
        names = [column.name for column in self.connection.columns(self.spec.table) or ()]
        after = self._fingerprints(self.connection, staged, staged.keys, names)
        for source, keys in back.sources.items():
            columns = [column.name for column in self.connection.columns(source) or ()]
            found = after if columns == names else self._fingerprints(self.connection, staged, keys, columns)
            self._check_restored({key: found[key] for key in keys}, undoing)
        ledger.record_change(
            self.connection,
            "rolled_back",
            self.spec.table,
            origin=self.origin,
            strategy=back.strategy,
            changes=back.changes,
            before=now,
            after=after,
            columns=names,
            archive=archive.table,
            archived=archive.keys,
            expires_at=archive.expires_at,
            undone={key: [layer.publication_id for layer in one.layers] for key, one in undoing.items()},
        )

    def _check_restored(self, found: Mapping[str, Fingerprint], undoing: Mapping[str, Undoing]) -> None:
        """Refuse, and so undo, what did not become what was there before: an archive that somebody changed."""
        was = {key: undoing[key].restored.replaced for key in found}
        wrong = [key for key, before in was.items() if before is not None and not before.is_like(found[key])]
        if wrong and not self.force:
            raise RollbackError(
                f"{self.spec.table}: the archive of {listed(wrong)} doesn't hold what was replaced, so nothing was"
                " rolled back; force takes what it holds",
                table=str(self.spec.table),
                keys=wrong,
            )


def _as_archived(spec: TableSpec) -> TableSpec:
    """Return the spec by which rows come back as they were, with the times at which they had been changed."""
    return replace(spec, updated_at_column=None, keep_latest=None)
