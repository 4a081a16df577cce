"""What the ledger records: events, what they were about in numbers, and what is known of the runs that wrote them."""

from __future__ import annotations

from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from typing import Literal

StagedEvent = Literal["staged", "audited", "rejected", "approved", "refused"]
"""The ledger's events of staged rows. An audit of a whole group approves or refuses them."""

ChangeEvent = Literal["published", "rolled_back", "moved"]
"""The ledger's events that change live rows. Rows have `moved` out of a partition if others that were published got
their keys."""
CHANGES_OF_LIVE: tuple[ChangeEvent, ...] = ("published", "rolled_back", "moved")

OtherEvent = Literal["intended", "taken_up", "expired", "discarded", "stored", "altered", "clock"]
"""The ledger's other events. A plain asset that wrote has `stored` its table; a change of its columns `altered` it. A
retention run that can't tell whether its clock is right notes it as `clock`."""

Event = StagedEvent | ChangeEvent | OtherEvent
"""The ledger's events."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fingerprint:
    """The number of a partition's rows and a digest of them; it doesn't depend on the rows' order.

    Partitions with different rows have different fingerprints, except for collisions of the hash.

    Attributes:
        rows: The number of rows.
        digest: The sum of the rows' hashes; empty if there are no rows.
        algorithm: The name of the hash, which changes if the database hashes rows in another way after an upgrade; see
            `Dialect.known_values`. Digests of different algorithms can't be compared.
    """

    rows: int = 0
    digest: str = ""
    algorithm: str = ""

    def __str__(self) -> str:
        return f"{self.rows}:{self.algorithm}:{self.digest}"

    def is_like(self, other: Fingerprint) -> bool:
        """Return True unless the numbers of rows differ, or the digests of one algorithm do."""
        if self.rows != other.rows:
            return False
        # Digests of two algorithms can't be compared, so equal numbers of rows have to suffice.
        return self.algorithm != other.algorithm or self.digest == other.digest

    @classmethod
    def parse(cls, text: str) -> Fingerprint:
        """Parse the text that `str` returned."""
        rows, algorithm, digest = text.split(":")
        return cls(rows=int(rows), digest=digest, algorithm=algorithm)


@dataclass(frozen=True, slots=True, kw_only=True)
class RowCounts:
    """The numbers of rows of one partition that a change of the live table inserts, updates, deletes and leaves.

    `staged` is `inserted + updated + unchanged`.
    """

    staged: int = 0
    inserted: int = 0
    updated: int = 0
    deleted: int = 0
    unchanged: int = 0

    @property
    def touched(self) -> int:
        """The number of rows that were inserted, updated or deleted."""
        return self.inserted + self.updated + self.deleted

    def __add__(self, other: RowCounts) -> RowCounts:
        return RowCounts(
            staged=self.staged + other.staged,
            inserted=self.inserted + other.inserted,
            updated=self.updated + other.updated,
            deleted=self.deleted + other.deleted,
            unchanged=self.unchanged + other.unchanged,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class KnownRuns:
    """What a Dagster says of some runs; the others go on.

    Attributes:
        ended: Those that have ended.
        unknown: Those that it doesn't know: they were deleted, or are of another Dagster, where they may go on.
    """

    ended: AbstractSet[str] = frozenset()
    unknown: AbstractSet[str] = frozenset()
