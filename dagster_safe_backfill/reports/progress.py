"""The progress of a run of several batches."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any

import dagster as dg

from dagster_safe_backfill.model.states import Audited, Rejected
from dagster_safe_backfill.model.text import listed


@dataclass(slots=True, kw_only=True)
class Progress:
    """Counts the partitions and rows that a run has audited.

    Attributes:
        asset: The asset that is computed.
        partitions: The number of partitions of the run.
        done: The number of partitions that are audited.
        rows: The number of rows in the audited partitions.
    """

    asset: dg.AssetKey
    partitions: int
    done: int = 0
    rows: int = 0
    _started: float = field(default_factory=time.monotonic)

    def add(self, judged: Audited | Rejected, *, number: int, batches: int, seconds: float) -> str:
        """Add a batch to the counts, and return a sentence about it."""
        staged = judged.staged
        self.done += len(staged.keys)
        self.rows += sum(staged.rows.values())
        verdict = "audited" if isinstance(judged, Audited) else f"rejected, {listed(judged.blocked)}"
        return f"batch {number} of {batches}, {staged.partition_slice}: {verdict}, in {seconds:.1f} s"

    @property
    def seconds(self) -> float:
        """Seconds since the run began; above 0."""
        # time.monotonic() may not advance between two calls (on Windows its steps are 15.6 ms, PEP 418), and the rates
        # divide by this.
        return max(time.monotonic() - self._started, 1e-9)

    @property
    def seconds_left(self) -> float:
        """Seconds until the end, if each remaining partition takes as long as the average so far."""
        return self.seconds / self.done * (self.partitions - self.done) if self.done else 0.0

    def __str__(self) -> str:
        return (
            f"{self.done} of {self.partitions} partitions done, {self.rows:,} rows,"
            f" {self.rows / self.seconds:,.0f} rows/s, about {self.seconds_left:,.0f} s left"
        )

    def observation(self, what: str, *, number: int, batches: int) -> dg.AssetObservation:
        """Return the observation of a batch, whose numbers the asset's page plots."""
        metadata: dict[str, Any] = {
            "batch": number,
            "batches": batches,
            "partitions_done": self.done,
            "partitions": self.partitions,
            "rows_staged": self.rows,
            "rows_per_second": round(self.rows / self.seconds, 1),
            "seconds_left": round(self.seconds_left, 1),
        }
        return dg.AssetObservation(asset_key=self.asset, description=what, metadata=metadata)
