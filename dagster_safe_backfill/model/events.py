"""The events that the ledger records."""

from __future__ import annotations

from typing import Literal

StagedEvent = Literal["staged", "audited", "rejected", "approved", "refused"]
"""The ledger's events of staged rows. An audit of a whole group approves or refuses them."""

ChangeEvent = Literal["published", "rolled_back", "moved"]
"""The ledger's events that change live rows. Rows have `moved` out of a partition if others that were published got
their keys."""
CHANGES_OF_LIVE: tuple[ChangeEvent, ...] = ("published", "rolled_back", "moved")

Event = StagedEvent | ChangeEvent | Literal["intended", "taken_up", "expired", "discarded", "stored", "altered"]
"""The ledger's events. A plain asset that wrote has `stored` its table; what changed its columns has `altered` it."""
