"""What a rollback would bring back: the dry run of the engine, and what stands in its way."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from typing import Any

from dagster_safe_backfill.cli.answers.answer import Problem, usage_error
from dagster_safe_backfill.cli.answers.data.publications import ConflictData, KnownPublicationData, RollbackData
from dagster_safe_backfill.cli.api.client import Dagster
from dagster_safe_backfill.cli.definitions import LoadedAsset
from dagster_safe_backfill.cli.following.place import Place, command
from dagster_safe_backfill.cli.upkeep.jobs import Ran
from dagster_safe_backfill.cli.upkeep.tables import in_words, ranges, row_counts, seconds, still_there
from dagster_safe_backfill.errors import PublicationNotFoundError, RollbackConflictError
from dagster_safe_backfill.model.events import RowCounts
from dagster_safe_backfill.model.states import Origin, RolledBack
from dagster_safe_backfill.model.tables import TableRef
from dagster_safe_backfill.runs.partitions import slice_of_keys
from dagster_safe_backfill.wap.ledger.entries import has_ledger
from dagster_safe_backfill.wap.ledger.history import Change, changes_by_backfill, history, partition_keys
from dagster_safe_backfill.wap.measure.sides import published_changes
from dagster_safe_backfill.wap.rollback.rollback import rollback
from dagster_safe_backfill.wap.rollback.undone import Chosen, digest_of_live
from dagster_safe_backfill.warehouses.base import Session

_FORCED = "--force undoes these as well"
_NOTHING = RolledBack(table=TableRef(schema="", name=""), publication_id="", undone=())


@dataclass(frozen=True, slots=True, kw_only=True)
class Preview:
    """What a rollback would do.

    Attributes:
        asset: The asset's key.
        table: Its live table.
        publications: The ids of the publications that would be undone.
        published: When the newest of them was published, in seconds since the epoch.
        keys: The partitions that were chosen, as ranges; empty for all of the publications.
        done: What would change; with conflicts, what `--force` would change. None if it can't be told.
        conflicts: What was changed since, by partition.
        problem: Why the rollback is refused; None if it isn't.
        known: What Dagster knows, if the warehouse can't be reached.
    """

    asset: str
    table: str
    publications: Sequence[str]
    published: float | None
    keys: Sequence[str]
    done: RolledBack | None
    conflicts: Sequence[ConflictData]
    problem: Problem | None
    known: Sequence[KnownPublicationData] = ()

    @property
    def is_needed(self) -> bool:
        """True if anything would change."""
        return self.done is None or bool(self.done.row_counts)

    def as_data(self, *, job: str | None, ran: Ran | None) -> RollbackData:
        """Return it as the data of the answer; `ran` is what did it, and None if nothing was done."""
        done = self.done or _NOTHING
        return {
            "dry_run": ran is None,
            "asset": self.asset,
            "table": self.table,
            "publication_ids": [*self.publications],
            "published_at": self.published,
            "rows": row_counts(sum(done.row_counts.values(), RowCounts())),
            "partitions": [
                {"partition": key, "rows": row_counts(counts), "removed": key in done.removed}
                for key, counts in done.row_counts.items()
            ],
            "already": dict(done.already),
            "untouched": [*done.untouched],
            "columns": {
                "dropped": [*done.dropped_columns],
                "kept": [*done.kept_columns],
                "restored": [*done.restored_columns],
            },
            "also_undone": [name for name in done.layers if name not in self.publications],
            "conflicts": [*self.conflicts],
            "known": [*self.known],
            "job": job,
            "run_id": None if ran is None else ran.run_id,
            "status": None if ran is None else ran.status,
        }

    def config(self, *, force: bool) -> dict[str, Any]:
        """Return the configuration of the job: the very publications of the dry run, and no newer one."""
        # An earlier version of the library in the code location knows one id only.
        ids = {"publication_ids": [*self.publications]}
        if len(self.publications) == 1:
            ids = {"publication_id": self.publications[0]}
        # What was shown is what may be undone, also if more is published or changed by hand before the run starts.
        shown: dict[str, Any] = {}
        if force and self.done is not None and self.done.layers:
            shown = {"shown_publications": [*self.done.layers], "shown_live": digest_of_live(self.done.replaced)}
        some = {"partitions": [*self.keys]} if self.keys else {}
        return {**ids, **some, "force": force, **shown}


def preview(
    loaded: LoadedAsset,
    place: Place,
    *,
    publication: str | None,
    backfill_id: str | None,
    keys: Sequence[str] | None,
    force: bool,
) -> Preview:
    """Return what a rollback would do; nothing is changed. Errors name calls of the command on `place`.

    Raises:
        CommandError: There is no such publication, or the warehouse can't be reached.
        RollbackError: The publications can't be rolled back at all.
    """
    changes = loaded.read_soon(lambda session: _changes(loaded, session, place, publication, backfill_id), default=[])
    if not changes:
        raise usage_error("unknown_publication", f"{loaded.spec.table}: nothing was published yet")
    ids = [*dict.fromkeys(change.publication_id for change in changes)]
    chosen = _chosen_keys(loaded, changes, keys)
    conflicts, done, problem = list[ConflictData](), None, None
    try:
        done = _dry(loaded, place.dagster, ids, chosen, force=False)
    except RollbackConflictError as error:
        changed = error.keys
        conflicts = loaded.read_soon(lambda session: _conflicts(session, loaded, changed, ids), default=[])
        done = _forced(loaded, place.dagster, ids, chosen)
        if not force or done is None:
            hint = None if force else _FORCED
            problem = Problem(code="rollback_conflict", message=str(error), hint=hint, partitions=changed)
    return Preview(
        asset=loaded.name,
        table=str(loaded.spec.table),
        publications=ids,
        published=seconds(max(change.recorded_at for change in changes)),
        keys=chosen,
        done=done,
        conflicts=conflicts,
        problem=problem,
    )


def unknown(loaded: LoadedAsset, known: Sequence[KnownPublicationData]) -> Preview:
    """Return what is known while the warehouse can't be reached: not what a rollback would do."""
    return Preview(
        asset=loaded.name,
        table=str(loaded.spec.table),
        publications=(),
        published=None,
        keys=(),
        done=None,
        conflicts=(),
        problem=None,
        known=known,
    )


def _changes(
    loaded: LoadedAsset, session: Session, place: Place, publication: str | None, backfill_id: str | None
) -> Sequence[Change]:
    table = loaded.spec.table
    if not has_ledger(session, table):
        return []
    if backfill_id is not None:
        found = changes_by_backfill(session, table, backfill_id)
        if found:
            return found
        raise usage_error("unknown_backfill", f"{table}: no publication of backfill {backfill_id} is in its ledger")
    try:
        return published_changes(session, table, publication or "newest")
    except PublicationNotFoundError as error:
        hint = f"`{command(place, 'history', loaded.name)}` names them"
        raise usage_error("unknown_publication", str(error), hint=hint) from error


def _chosen_keys(loaded: LoadedAsset, changes: Sequence[Change], keys: Sequence[str] | None) -> list[str]:
    """Return the partitions to roll back; empty for all of the publications.

    Raises:
        CommandError: They published none of the chosen ones.
    """
    if keys is None:
        return []
    published = {change.key for change in changes}
    found = [key for key in keys if key in published]
    if not found:
        there = in_words(ranges(published, loaded.keys))
        raise usage_error("not_published", f"it did not publish {in_words(ranges(keys, loaded.keys))}, but {there}")
    return found


def _dry(loaded: LoadedAsset, dagster: Dagster, ids: Sequence[str], keys: Sequence[str], *, force: bool) -> RolledBack:
    spec, definition, run_id = loaded.spec, loaded.definition.partitions_def, f"dry_{uuid.uuid4().hex}"
    own = loaded.options.table.former_keys
    origin = Origin(run_id=run_id, publication_id=run_id, asset_key=loaded.name, former_keys=own)
    with loaded.soon.connected(run_id=run_id) as session:
        # By the Dagster that is asked: that of a URL isn't the instance here.
        session.run_has_ended = partial(_has_ended, dagster)
        known, _gone = still_there(partition_keys(session, spec.table), loaded.keys)
        return rollback(
            session,
            Chosen(publication_ids=tuple(ids), keys=tuple(keys)),
            spec=spec,
            # As of the job: the rollback itself refuses partitions that the asset hasn't any more.
            partition_slice=slice_of_keys(definition, known) if known and definition is not None else None,
            origin=origin,
            archive_for=timedelta(days=30),
            force=force,
            dry_run=True,
        )


def _has_ended(dagster: Dagster, run_id: str) -> bool:
    return any(not run.is_open for run in dagster.runs_by_id([run_id]))


def _forced(loaded: LoadedAsset, dagster: Dagster, ids: Sequence[str], keys: Sequence[str]) -> RolledBack | None:
    """Return what `--force` would change; None if that is refused as well."""
    try:
        return _dry(loaded, dagster, ids, keys, force=True)
    except RollbackConflictError:
        return None


def _conflicts(session: Session, loaded: LoadedAsset, keys: Sequence[str], ids: Sequence[str]) -> list[ConflictData]:
    """Return what happened to partitions after their publications, of each the last."""
    newest = {change.key: change for change in history(session, loaded.spec.table, keys)}
    return [_conflict(key, newest.get(key), ids) for key in keys]


def _conflict(key: str, newest: Change | None, ids: Sequence[str]) -> ConflictData:
    if newest is None or newest.publication_id in ids or newest.undone:
        return {"partition": key, "kind": "changed_by_hand", "publication_id": None, "published_at": None}
    return {
        "partition": key,
        "kind": "later_publication",
        "publication_id": newest.publication_id,
        "published_at": seconds(newest.recorded_at),
    }
