"""The events that the ledger records, and what is known of the runs that wrote them."""

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

Event = (
    StagedEvent | ChangeEvent | Literal["intended", "taken_up", "expired", "discarded", "stored", "altered", "clock"]
)
"""The ledger's events. A plain asset that wrote has `stored` its table; what changed its columns has `altered` it. A
retention run that can't tell whether its clock is right notes it as `clock`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class KnownRuns:
    """What a Dagster says of some runs; the others go on.

    Attributes:
        ended: Those that have ended.
        unknown: Those that it doesn't know: they were deleted, or are of another Dagster, where they may go on.
    """

    ended: AbstractSet[str] = frozenset()
    unknown: AbstractSet[str] = frozenset()
