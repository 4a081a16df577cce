"""Where the rows are that a person compares: of staged partitions, or of what a publication changed."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace

from dagster_safe_backfill.errors import ArchiveNotFoundError, PublicationNotFoundError
from dagster_safe_backfill.model.events import Fingerprint
from dagster_safe_backfill.model.slices import PartitionSlice
from dagster_safe_backfill.model.states import StagedPartition
from dagster_safe_backfill.model.tables import TableRef, TableSpec, names_of
from dagster_safe_backfill.model.text import listed
from dagster_safe_backfill.wap.changes.fingerprints import live_fingerprints
from dagster_safe_backfill.wap.ledger.belongings import archive_names
from dagster_safe_backfill.wap.ledger.history import (
    Change,
    changes_by,
    changes_by_backfill,
    changes_in,
    history,
    newest_publication,
)
from dagster_safe_backfill.wap.measure.differences import Sides
from dagster_safe_backfill.wap.tables.slices import live_slice
from dagster_safe_backfill.warehouses.base import Session

_NEWEST = "newest"


def staged_sides(session: Session, table: TableRef, found: Sequence[StagedPartition]) -> Sides:
    """Return the sides of staged partitions: live before, and their shadows after."""
    shadows: dict[TableRef, list[str]] = {}
    for one in found:
        if one.shadow is not None:
            shadows.setdefault(one.shadow, []).append(one.key)
    has_live = session.tables.columns(table) is not None
    keys = [key for keys in shadows.values() for key in keys]
    return Sides(before={table: keys} if has_live and keys else {}, after=shadows)


def published_changes(session: Session, table: TableRef, publication_id: str) -> list[Change]:
    """Return the changes of a publication or rollback, of a group's publications, or of the `newest` publication.

    Raises:
        PublicationNotFoundError: The ledger has none.
    """
    name = newest_publication(session, table) if publication_id == _NEWEST else publication_id
    if name is not None:
        # Of a backfill, or of a run with Batches(publish_each=True), the id names several publications.
        for read in (changes_by, changes_in, changes_by_backfill):
            changes = read(session, table, name)
            if changes:
                return changes
    what = "no publication" if name is None or name == _NEWEST else f"no publication or rollback {name}"
    raise PublicationNotFoundError(f"{table}: {what} is in its ledger", table=str(table), keys=())


def published_sides(
    session: Session,
    changes: Sequence[Change],
    *,
    spec: TableSpec,
    slice_of: Callable[[Sequence[str]], PartitionSlice],
) -> Sides:
    """Return the sides of what publications changed: the rows that they replaced, and those that they wrote.

    The rows that they wrote are live, or in the archive of the next change of their partition. If neither is so, as
    somebody changed them by hand, or that archive was dropped, the live rows are compared, and `Sides.since` says why.

    Args:
        session: An open session; read-only is enough.
        changes: The changes of these publications.
        spec: How the live table is kept.
        slice_of: Returns the slice of some of their keys.

    Raises:
        ArchiveNotFoundError: Replaced rows are not kept any more, or never were.
    """
    chosen = {change.publication_id for change in changes}
    by_key: dict[str, list[Change]] = {}
    for change in history(session, spec.table, [*dict.fromkeys(change.key for change in changes)]):
        by_key.setdefault(change.key, []).append(change)
    kept = archive_names(session, spec.table)
    spans = {key: _Span.of(key, all_of_key, chosen) for key, all_of_key in by_key.items()}
    _check_kept(spec.table, [key for key, span in spans.items() if span.is_lost(kept)])
    before: dict[TableRef, list[str]] = {}
    after: dict[TableRef, list[str]] = {}
    since: dict[str, str] = {}
    for key, span in spans.items():
        now = span.after(kept, since) or _Kept(table=spec.table)
        if now.has_rows:
            after.setdefault(now.table, []).append(key)
        # Where no row changed, the rows are before what they are after.
        was = now if span.first is None else span.before
        if was.has_rows:
            before.setdefault(was.table, []).append(key)
    if session.tables.columns(spec.table) is None:
        before.pop(spec.table, None)
        after.pop(spec.table, None)
    live = {key: spans[key].newest for key in after.get(spec.table, ()) if key not in since}
    return Sides(before=before, after=after, since=since | _changed_by_hand(session, spec, slice_of, live))


def _check_kept(table: TableRef, lost: Sequence[str]) -> None:
    if lost:
        raise ArchiveNotFoundError(
            f"{table}: the replaced rows of {listed(lost)} are not kept any more, or never were (archive_days sets for"
            " how long), so they can't be compared.",
            table=str(table),
            keys=lost,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Kept:
    """The table that has rows of a partition as they were, or that would have them if the partition had any."""

    table: TableRef
    has_rows: bool = True


_NONE = _Kept(table=TableRef(schema="", name=""), has_rows=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Span:
    """A partition's changes by the chosen publications, those between them, and those after them."""

    key: str
    within: Sequence[Change]
    later: Sequence[Change]

    @classmethod
    def of(cls, key: str, changes: Sequence[Change], chosen: Collection[str]) -> _Span:
        places = [i for i, change in enumerate(changes) if change.publication_id in chosen]
        return cls(key=key, within=changes[places[0] : places[-1] + 1], later=changes[places[-1] + 1 :])

    @property
    def newest(self) -> Change:
        return (*self.within, *self.later)[-1]

    @property
    def first(self) -> Change | None:
        """The first change that changed rows: its archive has the rows that the span began with."""
        return next((change for change in self.within if change.row_counts.touched), None)

    def is_lost(self, kept: Collection[str]) -> bool:
        first = self.first
        return first is not None and _replaced_by(first, kept) is None

    @property
    def before(self) -> _Kept:
        first = self.first
        return _NONE if first is None or first.archive is None else _Kept(table=first.archive)

    def after(self, kept: Collection[str], since: dict[str, str]) -> _Kept | None:
        """Return where the rows are that the span ended with; None for live. `since` is told if they are others."""
        following = next((change for change in self.later if change.row_counts.touched), None)
        if following is None:
            return None
        found, last = _replaced_by(following, kept), self.within[-1]
        if found is None:
            since[self.key] = f"{following}, and what that replaced isn't kept"
        # Over other columns, equal rows have other fingerprints.
        elif last.columns == following.columns and not _is_like(last.fingerprint, following.replaced):
            since[self.key] = f"changed by hand before it was {following}"
        return found


def _replaced_by(change: Change, kept: Collection[str]) -> _Kept | None:
    """Return where the rows are that a change replaced; None if they aren't kept."""
    if change.replaced is not None and not change.replaced.rows:
        return _NONE
    if change.replaced is None or change.archive is None or change.archive.name.casefold() not in kept:
        return None
    return _Kept(table=change.archive)


def _is_like(one: Fingerprint | None, other: Fingerprint | None) -> bool:
    return one is None or other is None or one.is_like(other)


def _changed_by_hand(
    session: Session,
    spec: TableSpec,
    slice_of: Callable[[Sequence[str]], PartitionSlice],
    newest: Mapping[str, Change],
) -> dict[str, str]:
    """Return the partitions whose live rows are not those of their newest change, with a text that says so."""
    columns = session.tables.columns(spec.table) or ()
    names = names_of(columns)
    by_columns: dict[tuple[str, ...], list[str]] = {}
    for key, change in newest.items():
        # With other columns than then, equal rows have other fingerprints.
        if change.columns and {*change.columns} <= {*names}:
            by_columns.setdefault(change.columns, []).append(key)
    found: dict[str, str] = {}
    for known, keys in by_columns.items():
        unstamped = replace(spec, updated_at_column=None, keep_latest=None)
        live = live_slice(session, spec=unstamped, partition_slice=slice_of(keys), columns=columns)
        now = live_fingerprints(session, live, columns, known)
        found |= {key: "changed by hand since" for key in keys if not _is_like(newest[key].fingerprint, now[key])}
    return found
