"""What a rollback undoes: the publications that are chosen, and the partitions with their changes."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from dagster_safe_backfill.errors import RollbackConflictError
from dagster_safe_backfill.model.events import Fingerprint
from dagster_safe_backfill.model.provenance import digest_of_text
from dagster_safe_backfill.model.tables import TableRef
from dagster_safe_backfill.model.text import listed
from dagster_safe_backfill.wap.ledger.alterations import Alteration
from dagster_safe_backfill.wap.ledger.history import Change
from dagster_safe_backfill.wap.rollback.histories import RollbackPath


@dataclass(frozen=True, slots=True, kw_only=True)
class Shown:
    """What a dry run showed to whoever decided on a rollback; a rollback of more than that is refused.

    Attributes:
        publications: The ids of all changes that it would undo; see `RolledBack.layers`.
        live: The digest of the live rows that it would replace; see `digest_of_live`.
    """

    publications: tuple[str, ...]
    live: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Chosen:
    """The publications to undo, and the partitions in which they are undone; without `keys`, all their partitions.

    Set at most one of the ids. Without an id, the newest publication of the table is undone; rollbacks don't count.
    `shown` limits what `force` may undo besides.
    """

    publication_id: str | None = None
    backfill_id: str | None = None
    publication_ids: tuple[str, ...] = ()
    keys: tuple[str, ...] = ()
    shown: Shown | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class UndonePartition:
    """A partition that is rolled back.

    Attributes:
        path: The changes to undo.
        history: The partition's changes that changed rows or columns, and all its rollbacks; the oldest first.
        altered: The publications and rollbacks that changed the table's columns.
    """

    path: RollbackPath
    history: Sequence[Change]
    altered: Collection[str] = ()

    @property
    def restored(self) -> Change:
        """The oldest undone change that changed any row; the rows that it replaced are restored."""
        # A layer that changed no row replaced none, so it has no archive.
        return next(layer for layer in self.layers if layer.row_counts.touched)

    @property
    def is_needless(self) -> bool:
        """True if no undone change changed any row or column, such as a rollback whose rows were already in place."""
        return not self.has_rows and not any(layer.publication_id in self.altered for layer in self.layers)

    @property
    def has_rows(self) -> bool:
        """True if an undone change changed rows; otherwise the partition's rows stay as they are."""
        return any(layer.row_counts.touched for layer in self.layers)

    @property
    def newest(self) -> Change:
        """The last change of the partition."""
        return self.history[-1]

    @property
    def lowest(self) -> int:
        """The position of the oldest undone change in the history."""
        return min((*self.path.undone, *self.path.over))

    @property
    def layers(self) -> list[Change]:
        """All changes that are undone, the oldest first."""
        return [self.history[i] for i in sorted((*self.path.undone, *self.path.over))]

    @property
    def is_changed_by_hand(self) -> bool:
        """True if something that the ledger doesn't record changed rows after one of the undone changes."""
        layers = self.layers
        for lower, upper in pairwise(layers):
            is_same = lower.columns == upper.columns and upper.publication_id not in self.altered
            if _differs(lower.fingerprint, upper.replaced, is_same=is_same):
                return True
        top, newest = layers[-1], self.newest
        return top is not newest and _differs(
            top.fingerprint, newest.fingerprint, is_same=top.columns == newest.columns
        )


def _differs(was: Fingerprint | None, found: Fingerprint | None, *, is_same: bool) -> bool:
    """Return True if two fingerprints show other rows; `is_same` is True if they are over the same columns."""
    if was is None or found is None:
        return False
    # Equal rows have other hashes over other columns, so only their numbers can be compared.
    return not found.is_like(was) if is_same else found.rows != was.rows


def archives_of(undoing: Mapping[str, UndonePartition]) -> dict[TableRef, list[str]]:
    """Return a mapping from each archive that has replaced rows to the keys of their partitions."""
    archives: dict[TableRef, list[str]] = {}
    for key, one in undoing.items():
        change = one.restored if one.has_rows else None
        if change is not None and change.archive is not None and change.replaced is not None and change.replaced.rows:
            archives.setdefault(change.archive, []).append(key)
    return archives


def is_dropped(
    gone: Collection[str], found: Fingerprint, undone: UndonePartition, altered: Mapping[str, Alteration]
) -> bool:
    """Return True if columns are gone because a later publication or rollback dropped them, and no row is missing."""
    newest = undone.newest
    dropped: set[str] = set()
    for alteration in altered.values():
        if alteration.recorded_at > newest.recorded_at:
            dropped.update(alteration.dropped)
    is_recorded = bool(gone) and dropped.issuperset(gone)
    return is_recorded and newest.fingerprint is not None and found.rows == newest.fingerprint.rows


def layers_of(undoing: Mapping[str, UndonePartition]) -> tuple[str, ...]:
    """Return the ids of all changes that are undone in any partition."""
    return tuple(dict.fromkeys(layer.publication_id for one in undoing.values() for layer in one.layers))


def digest_of_live(live: Mapping[str, Fingerprint]) -> str:
    """Return a digest of the live rows of some partitions, by their fingerprints."""
    return digest_of_text(repr(sorted((key, str(one)) for key, one in live.items())))


def check_shown(
    shown: Shown | None, table: TableRef, undoing: Mapping[str, UndonePartition], live: Mapping[str, Fingerprint]
) -> None:
    """Refuse a rollback that would undo more than was shown to whoever decided on it.

    Raises:
        RollbackConflictError: It would undo other publications as well, or replace other rows.
    """
    if shown is None:
        return
    more = [name for name in layers_of(undoing) if name not in shown.publications]
    keys = [key for key, one in undoing.items() if any(layer.publication_id in more for layer in one.layers)]
    what = f"{listed(more)} would be undone as well, published in {listed(keys)} since that was shown" if more else ""
    if not more and digest_of_live(live) != shown.live:
        keys, what = [*undoing], f"the live rows of {listed([*undoing])} are no longer those that were shown"
    if what:
        raise RollbackConflictError(
            f"{table}: {what}, so nothing was rolled back. Look at what a rollback would undo now, and decide again.",
            table=str(table),
            keys=keys,
        )
