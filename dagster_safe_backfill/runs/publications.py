"""What of the staged partitions of a run is live, and what may go live."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from dagster_safe_backfill.model.states import Published
from dagster_safe_backfill.reports.events import changes_by_partition, partition_metadata, publication_metadata

if TYPE_CHECKING:
    from dagster_safe_backfill.wap.ledger.history import Change


@dataclass(frozen=True, slots=True, kw_only=True)
class Publications:
    """What a run found, and made, live.

    Attributes:
        now: The publication that it made, if it made one.
        before: The changes that had published other partitions before, by key.
    """

    now: Sequence[Published]
    before: Mapping[str, Change]

    def numbers(self, key: str) -> dict[str, Any]:
        """Return the numbers of one partition's materialization."""
        for one in self.now:
            if key in one.row_counts:
                return {**changes_by_partition([one])[key], **publication_metadata(one)}
        change = self.before[key]
        return {**partition_metadata(change.row_counts), "publication_id": change.publication_id}
