"""The ledger's entries of a table as publications, rollbacks, rejections, and what is staged."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from dagster_safe_backfill.cli.answers.data.publications import HistoryEntryData, HistoryEvent, Undone
from dagster_safe_backfill.cli.upkeep.tables import ranges, row_counts, seconds
from dagster_safe_backfill.model.events import RowCounts
from dagster_safe_backfill.wap.ledger.entries import Entry
from dagster_safe_backfill.wap.rollback.histories import undone

_EVENTS: Mapping[str, HistoryEvent] = {
    "published": "published",
    "rolled_back": "rolled_back",
    "moved": "moved",
    "rejected": "rejected",
    "refused": "rejected",
}
WORDS: Mapping[HistoryEvent, str] = {
    "published": "published",
    "rolled_back": "rolled back",
    "moved": "moved away",
    "staged": "staged",
    "rejected": "rejected",
}
"""What happened, as the screen says it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Happening:
    """One thing that happened to some partitions: a publication, a rollback, a rejection, or that they were staged.

    Attributes:
        event: What happened.
        entries: The ledger's entry of each partition.
        is_undone: Whether the changes were undone since: in all partitions whose rows they changed, or in some.
        left: The partitions of which only rows moved out, to those that were published.
    """

    event: HistoryEvent
    entries: Sequence[Entry]
    is_undone: Undone = "no"
    left: Sequence[str] = ()

    @property
    def newest(self) -> Entry:
        """The entry of the partition that it happened to last."""
        return self.entries[-1]

    @property
    def at(self) -> datetime:
        """When it happened to the last of its partitions."""
        return self.newest.recorded_at

    @property
    def keys(self) -> list[str]:
        """Its partitions, without those that rows only moved out of."""
        return [*dict.fromkeys(one.key for one in self.entries if one.key not in self.left)]

    @property
    def row_counts(self) -> RowCounts:
        """The numbers of rows, over all partitions."""
        return sum((one.row_counts for one in self.entries), RowCounts())

    @property
    def failed_audits(self) -> list[str]:
        """The names of the audits that rejected rows."""
        names = (name.strip() for one in self.entries for name in (one.failed_audits or "").split(","))
        return [*dict.fromkeys(filter(None, names))]

    @property
    def undoes(self) -> list[str]:
        """The publications that a rollback undid."""
        return [*dict.fromkeys(name for one in self.entries for name in one.undone)]

    def as_data(self, every: Sequence[str], kept: Iterable[str]) -> HistoryEntryData:
        """Return it as JSON; `kept` are the names, in lower case, of the archives that exist."""
        newest = self.newest
        archive = next((one for one in self.entries if one.archive is not None), None)
        is_kept = archive is not None and archive.archive is not None and archive.archive.name.casefold() in kept
        return {
            "event": self.event,
            "recorded_at": seconds(self.at),
            "publication_id": newest.publication_id,
            "run_id": newest.run_id,
            "backfill_id": newest.backfill_id,
            "code_version": newest.code_version,
            "strategy": newest.strategy,
            "partition_count": len(self.keys),
            "ranges": [[*one] for one in ranges(self.keys, every)],
            "moved_from": [*self.left],
            "row_count": None,
            "rows": row_counts(self.row_counts),
            "archive": str(archive.archive) if archive is not None else None,
            "archive_expires_at": seconds(archive.expires_at) if archive is not None else None,
            "archive_exists": is_kept,
            "undone": self.is_undone,
            "undoes": self.undoes,
            "rejected_by": self.failed_audits,
        }


def happenings(found: Sequence[Entry], *, by_partition: bool) -> list[Happening]:
    """Return entries, which come with the oldest first, as happenings with the newest first.

    Args:
        found: The entries.
        by_partition: True for one happening of each entry.
    """
    gone = _undone(found)
    groups: dict[tuple[object, ...], list[int]] = {}
    for position, one in enumerate(found):
        # Rows that moved out of a partition belong to the publication that they moved to.
        kind = "change" if one.event in ("published", "rolled_back", "moved") else _EVENTS.get(one.event, "staged")
        name = (kind, one.publication_id, one.run_id) + ((position,) if by_partition else ())
        groups.setdefault(name, []).append(position)
    made = [_happening([found[i] for i in positions], [i in gone for i in positions]) for positions in groups.values()]
    return sorted(made, key=lambda one: one.at, reverse=True)


def _happening(found: Sequence[Entry], gone: Sequence[bool]) -> Happening:
    moved = [one.key for one in found if one.event == "moved"]
    main = next((one for one in reversed(found) if one.event != "moved"), found[-1])
    touched = [is_gone for one, is_gone in zip(found, gone, strict=True) if one.row_counts.touched]
    return Happening(
        event=_EVENTS.get(main.event, "staged"),
        entries=found,
        is_undone="no" if not any(touched) else "yes" if all(touched) else "partly",
        left=moved if len(moved) < len(found) else (),
    )


def _undone(found: Sequence[Entry]) -> set[int]:
    """Return the positions of the changes that are not in effect any more."""
    histories: dict[str, list[int]] = {}
    for position, one in enumerate(found):
        # A publication that changed no row of a partition leaves nothing to be undone there.
        if one.event in ("published", "rolled_back", "moved") and (one.row_counts.touched or one.undone):
            histories.setdefault(one.key, []).append(position)
    gone: set[int] = set()
    for positions in histories.values():
        gone |= {positions[i] for i in undone([found[i] for i in positions])}
    return gone
