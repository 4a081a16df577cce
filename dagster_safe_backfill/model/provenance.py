"""Provenance: what made the rows of a partition, as parts that can be compared one by one.

Rows of a partition with the same key may be other rows: the partition's window, the code or an input may have changed.
So the ledger records for each staged partition what made it, and a run compares that with what would make it now.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256

INPUT = "input "
"""The prefix of the names of the parts that describe inputs; an upstream asset's key follows."""

AUDITS = "audits"
"""The name of the part that describes the audits that approved a staged partition; a run that computes ignores it."""

_DIGITS = 16

_WORDS = {
    "asset": "they belong to the asset {before}, not to {after}",
    "partition": "the partition was {before}, and is {after} now",
    "code": "the code changed from {before} to {after}",
    "table": "the table's options changed",
    "upstream": "the asset reads other upstream assets, or other partitions of them",
    "config": "the run's config changed",
    "resources": "the configuration of the resources changed",
}


@dataclass(frozen=True, slots=True)
class Provenance:
    """What made the rows of one partition.

    Attributes:
        parts: A mapping from the name of a part to a text that changes with it. None stands for a part that can't be
            known, which counts as changed. The parts are `asset` (its key), `partition` (its windows or values, and the
            time zone), `table` (a digest of the table's options), `upstream` (a digest of the upstream
            assets' keys and partition mappings), `code`, `config`, `resources`, and an `input …` for each upstream
            asset.
    """

    parts: Mapping[str, str | None]

    def __str__(self) -> str:
        return json.dumps(dict(self.parts), sort_keys=True, separators=(",", ":"))

    def judged_by(self, audits: str | None) -> Provenance:
        """Return the provenance with the part `audits`: a digest of the audits that the partition has to pass."""
        return Provenance({**self.parts, AUDITS: audits})

    def why_defined_otherwise(self, now: Provenance) -> str | None:
        """Return how the parts that `now` has differ from these; None if they don't."""
        return Provenance({name: self.parts.get(name) for name in now.parts}).why_changed(now)

    def why_changed(self, now: Provenance) -> str | None:
        """Return how this provenance differs from that of the rows that would be made now; None if it doesn't.

        Only the parts of `now` are compared, and the inputs of both.
        """
        inputs = {name for name in self.parts if name.startswith(INPUT)}
        names = [*now.parts, *sorted(inputs - now.parts.keys())]
        reasons: list[str] = []
        for name in names:
            before, after = self.parts.get(name), now.parts.get(name)
            if before is None or before != after:
                reasons.append(_changed(name, before, after))
        return ", and ".join(reasons) or None


def _changed(name: str, before: str | None, after: str | None) -> str:
    """Return in words that a part changed."""
    if name.startswith(INPUT):
        upstream = name.removeprefix(INPUT)
        if before is None or after is None:
            return f"it can't be known which {upstream} they were computed from"
        return f"{upstream} changed since"
    if before is None or after is None:
        return f"their {name} can't be compared"
    return _WORDS[name].format(before=before, after=after)


def digest_of_text(text: str) -> str:
    """Return a short digest of a text."""
    return sha256(text.encode()).hexdigest()[:_DIGITS]
