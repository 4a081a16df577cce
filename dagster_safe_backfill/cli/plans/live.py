"""What the definitions, the ledger and the live table say of an asset's partitions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from dagster_safe_backfill.model.provenance import digest_of_text


@dataclass(frozen=True, slots=True, kw_only=True)
class ComputedFrom:
    """What a partition was computed from, as its newest publication records it.

    Attributes:
        at: When it was computed, in seconds since the epoch.
        upstream: A mapping from upstream asset to its partitions that were read; None for the whole asset.
        versioned: The upstream assets of which it also recorded data versions.
    """

    at: float
    upstream: Mapping[str, Sequence[str] | None] = field(default_factory=dict[str, "Sequence[str] | None"])
    versioned: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True, kw_only=True)
class LiveFacts:
    """What the definitions, the ledger and the live table say of some partitions.

    Attributes:
        asset: The key of the live asset.
        table: The table's name.
        code: The digest of the asset's code.
        meanings: A mapping from partition key to what it stands for: its window or its value.
        rules: How the table is kept.
        fingerprints: A mapping from partition key to the fingerprint of its live rows; empty if `held` says why.
        rows: A mapping from partition key to the number of rows of its newest publication.
        changed: A mapping from partition key to what changed since its newest publication; what is unchanged is left
            out.
        batch_size: The number of partitions of a batch.
        goes_live: When partitions go live, in words.
        limit: The largest number of partitions of a backfill that needs no confirmation; None for any.
        hours: The allowed hours, as a text, and True if it is one of them now; None if any are.
        reads_itself: True if its partitions are computed from earlier ones of it.
        held: Who holds the warehouse's file, so that neither the ledger nor the live table could be read; None if they
            were.
        computed_from: What each partition was computed from, where only the Dagster of a URL knows what changed since.
    """

    asset: str
    table: str
    code: str | None
    meanings: Mapping[str, str]
    rules: str
    fingerprints: Mapping[str, str]
    rows: Mapping[str, int]
    changed: Mapping[str, Sequence[str]]
    batch_size: int | None
    goes_live: str
    limit: int | None
    hours: tuple[str, bool] | None
    reads_itself: bool
    held: str | None = None
    computed_from: Mapping[str, ComputedFrom] = field(default_factory=dict[str, ComputedFrom])

    def definition_of(self, keys: Sequence[str]) -> str:
        """Return the digest of what some of the partition keys stand for, and how the table is kept."""
        return digest_of_text(repr(({key: self.meanings[key] for key in sorted(keys)}, self.rules)))
