"""A run of a backfill, and which partitions of which assets it covers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product

from dagster_safe_backfill.cli.api.reading import between
from dagster_safe_backfill.cli.api.values import Asset, Run

_PARTITION = "dagster/partition"
_FIRST = "dagster/asset_partition_range_start"
_LAST = "dagster/asset_partition_range_end"


@dataclass(frozen=True, slots=True, kw_only=True)
class OwnRun:
    """A run of what is followed.

    Attributes:
        assets: The assets that it is to materialize; of a job that doesn't say it, those that it has.
        created_at: The time when it was made, in seconds since the epoch.
        keys: The partitions that it covers, none without partitions; None before they are known.
        has_news: True if it changed since its materializations were read.
    """

    run: Run
    assets: Sequence[str]
    created_at: float
    keys: frozenset[str] | None = None
    has_news: bool = True

    def covers(self, asset: str, key: str | None) -> bool:
        """Return True if it is to materialize a partition of an asset."""
        return asset in self.assets and (key is None or key in (self.keys or ()))

    def of(self, asset: Asset | None) -> OwnRun:
        """Return it with the partitions that its tags name, of an asset that it materializes."""
        return replace(self, keys=frozenset(_keys(self.run.tags, asset)))

    def with_assets(self, assets: Sequence[str], keys: frozenset[str]) -> OwnRun:
        """Return it with what it has materialized."""
        return replace(self, assets=assets, keys=keys)

    def told(self, *, has_news: bool) -> OwnRun:
        """Return it as one whose materializations are, or aren't, to be read."""
        return replace(self, has_news=has_news)


def _keys(tags: Mapping[str, str], asset: Asset | None) -> Sequence[str]:
    """Return the keys that a run's tags name."""
    first, last = tags.get(_FIRST), tags.get(_LAST)
    if first is None or last is None:
        return [tags[_PARTITION]] if _PARTITION in tags else []
    if first == last or asset is None:
        return [first]
    if asset.kind != "multi":
        return _between(asset.keys, first, last)
    # A range of multi-partitions is a rectangle: a range in each dimension.
    parts = [key.split("|") for key in asset.keys]
    ranges = [
        _between([*dict.fromkeys(part[number] for part in parts)], start, end)
        for number, (start, end) in enumerate(zip(first.split("|"), last.split("|"), strict=True))
    ]
    return ["|".join(parts) for parts in product(*ranges)]


def _between(keys: Sequence[str], first: str, last: str) -> Sequence[str]:
    return between(keys, {key: number for number, key in enumerate(keys)}, first, last)
