"""What the runs of a planned backfill check: that code and live rows are still what the plan was made from.

The tags of a backfill reach all of its runs and re-executions. One of them holds what the plan expects, as a set of
short digests: one for the code of each asset, one for the live rows of each partition. A run looks up its own.
"""

from __future__ import annotations

import json
from base64 import b64decode, urlsafe_b64encode
from binascii import Error
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from hashlib import sha256

PLAN_TAG = "safe_backfill/plan"
"""The tag with the id of the plan."""
REASON_TAG = "safe_backfill/reason"
"""The tag that says why a backfill was launched."""
OWNER_TAG = "safe_backfill/owner"
"""The tag that says who answers for it."""
CONFIRMED_TAG = "safe_backfill/confirmed_partitions"
"""The tag with the exact number of partitions that a person confirmed, or with that of each asset as JSON; see
`Limits.max_partitions`."""
ORDER_TAG = "safe_backfill/order"
"""The tag by which the batches of a run are worked on in another order."""
NEWEST_FIRST = "newest_first"
"""The value of `ORDER_TAG` for the newest partitions first."""
EXPECTED_TAG = ".dagster/safe_backfill_plan"
"""The beginning of the tags with what a plan expects; a number follows. Dagster's UI shows none of this prefix."""

_LONGEST_TAG = 2_400
"""PostgreSQL, in which Dagster indexes tags, takes 2,704 bytes of key and value (dagster-io/dagster#7875)."""

_BYTES = 6
"""Of each digest: a change goes unnoticed once in 2**48 / n, for a plan of n partitions."""


@dataclass(frozen=True, slots=True)
class Expected:
    """What a plan expects to find: a set of digests, about eight characters a partition in the tags of its runs."""

    digests: frozenset[bytes]

    @classmethod
    def of(cls, codes: Mapping[str, str], live: Mapping[str, Mapping[str, str]]) -> Expected:
        """Return what a plan expects.

        Args:
            codes: A mapping from asset key to the digest of the asset's code, for assets whose code can be compared.
            live: A mapping from asset key to a mapping from partition key to the fingerprint of the live partition.
        """
        digests = {_digest("code", asset, code) for asset, code in codes.items()}
        # By which a run knows that the plan can tell other code, or looked at live rows, at all.
        digests |= {_digest("codes", asset) for asset in codes}
        for asset, fingerprints in live.items():
            digests |= {_digest("live", asset, key, text) for key, text in fingerprints.items()}
            digests.add(_digest("looked", asset))
        return cls(frozenset(digests))

    @classmethod
    def parse(cls, tags: Mapping[str, str]) -> Expected | None:
        """Return what the tags of a run say that `tags` returned; None if they say nothing of a plan.

        Raises:
            ValueError: A plan didn't write them.
        """
        parts: list[str] = []
        while (part := tags.get(f"{EXPECTED_TAG}_{len(parts) + 1}")) is not None:
            parts.append(part)
        if not parts:
            return None
        try:
            raw = b64decode("".join(parts).encode(), altchars=b"-_", validate=True)
        except Error as error:
            raise ValueError(f"{EXPECTED_TAG}_1 is not what a plan writes") from error
        if len(raw) % _BYTES:
            raise ValueError(f"{EXPECTED_TAG}_{len(parts)} is cut off")
        return cls(frozenset(raw[start : start + _BYTES] for start in range(0, len(raw), _BYTES)))

    @property
    def tags(self) -> dict[str, str]:
        """The digests as tags, each short enough for every storage of Dagster."""
        text = urlsafe_b64encode(b"".join(sorted(self.digests))).decode()
        starts = range(0, len(text), _LONGEST_TAG)
        return {f"{EXPECTED_TAG}_{i}": text[start : start + _LONGEST_TAG] for i, start in enumerate(starts, 1)}

    def is_code(self, asset: str, code: str) -> bool:
        """Return True if the plan was made from this code of an asset."""
        return _digest("code", asset, code) in self.digests

    def knows_code(self, asset: str) -> bool:
        """Return True if the plan says what the code of an asset is."""
        return _digest("codes", asset) in self.digests

    def knows_live(self, asset: str) -> bool:
        """Return True if the plan says what the live rows of an asset are."""
        return _digest("looked", asset) in self.digests

    def changed(self, asset: str, fingerprints: Mapping[str, str]) -> list[str]:
        """Return the keys of the partitions whose live rows aren't those of the plan, or that the plan doesn't have."""
        return [key for key, text in fingerprints.items() if _digest("live", asset, key, text) not in self.digests]


def _digest(*parts: str) -> bytes:
    # Lengths keep ("a", "bc") and ("ab", "c") apart.
    return sha256("".join(f"{len(part)}:{part}" for part in parts).encode()).digest()[:_BYTES]


def tags_of(
    *, plan: str, expected: Expected | None, owner: str | None, reason: str | None, newest_first: bool
) -> dict[str, str]:
    """Return the tags of a planned backfill."""
    tags = {PLAN_TAG: plan}
    given: Iterable[tuple[str, str | None]] = (
        *(expected.tags.items() if expected is not None else ()),
        (OWNER_TAG, owner),
        (REASON_TAG, reason),
        (ORDER_TAG, NEWEST_FIRST if newest_first else None),
    )
    return tags | {name: value for name, value in given if value is not None}


def confirmed_tags(counts: Mapping[str, int]) -> dict[str, str]:
    """Return the tag that confirms exact numbers of partitions: of one asset the number, of several JSON."""
    if not counts:
        return {}
    only = [*counts.values()]
    return {CONFIRMED_TAG: str(only[0]) if len(only) == 1 else json.dumps(dict(counts), separators=(",", ":"))}


def is_confirmed(tags: Mapping[str, str], asset: str, count: int) -> bool:
    """Return True if the tags of a run confirm exactly this number of partitions of an asset."""
    text = tags.get(CONFIRMED_TAG, "")
    if not text.startswith("{"):
        return text == str(count)
    try:
        counts: Mapping[str, object] = json.loads(text)
    except ValueError:
        return False
    return counts.get(asset) == count
