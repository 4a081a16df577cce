"""Which partitions of which assets a backfill covers, and each of its runs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from dagster_safe_backfill.cli.api import documents
from dagster_safe_backfill.cli.api.client import Dagster
from dagster_safe_backfill.cli.api.reading import asset_of, keys_of_tags
from dagster_safe_backfill.cli.api.values import Asset, Backfill, Run
from dagster_safe_backfill.cli.following.reading.documents import JOB


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
        return replace(self, keys=frozenset(keys_of_tags(self.run.tags, asset)))

    def with_assets(self, assets: Sequence[str], keys: frozenset[str] | None = None) -> OwnRun:
        """Return it with the assets and partitions that it covers."""
        return replace(self, assets=assets, keys=keys)

    def with_news(self, *, has_news: bool) -> OwnRun:
        """Return it as one whose materializations are, or aren't, to be read."""
        return replace(self, has_news=has_news)


@dataclass(kw_only=True)
class Targets:
    """The partitions that a backfill or a run covers, asked for once.

    Attributes:
        dagster: The Dagster that knows it.
        assets: A mapping from key to the definition of each asset.
        partitions: A mapping from asset to its partitions, in the asset's order; None stands for an asset without
            partitions. Of a backfill of a job, the job stands for its assets.
        job: The job of a backfill of a job.
    """

    dagster: Dagster
    assets: dict[str, Asset] = field(default_factory=dict[str, Asset])
    partitions: dict[str, Sequence[str | None]] = field(default_factory=dict[str, "Sequence[str | None]"])
    job: str | None = None
    _undefined: dict[str, None] = field(default_factory=dict[str, None])

    @property
    def warnings(self) -> list[str]:
        """What can't be told."""
        return [f"{name} isn't defined any more, so its partitions can't be told" for name in self._undefined]

    def define(self, names: Sequence[str]) -> None:
        """Read the definitions of assets that aren't known yet."""
        known = {*self.assets, *self._undefined, self.job}
        missing = [name for name in dict.fromkeys(names) if name not in known]
        if not missing:
            return
        keys = [{"path": name.split("/")} for name in missing]
        found = map(asset_of, self.dagster.ask(documents.ASSETS, keys=keys)["assetNodes"])
        self.assets |= {one.key: one for one in found}
        self._undefined |= dict.fromkeys(name for name in missing if name not in self.assets)

    def partitioned(self, names: Sequence[str]) -> Asset | None:
        """Return the first of some assets that has partitions: all of a run that have some have the same.

        The job of a backfill of a job stands for its assets.
        """
        if self.job is not None:
            keys = tuple(key for key in self.partitions[self.job] if key is not None)
            return Asset(key=self.job, location="", repository="", kind="static", keys=keys)
        return next((self.assets[name] for name in names if name in self.assets and self.assets[name].kind), None)

    def read(self, backfill: Backfill) -> None:
        """Read what a backfill covers, unless it is known."""
        if self.partitions:
            return
        if not backfill.is_of_assets:
            answer = self.dagster.ask(JOB, id=backfill.id)["partitionBackfillOrError"]
            self.job = backfill.job or "the job"
            self.partitions = {self.job: answer["partitionNames"] or ()}
            return
        self.define([*backfill.assets])
        defined = [self.assets[name] for name in backfill.assets if name in self.assets]
        for one in defined:
            self.partitions[one.key] = (None,) if one.kind is None else self.dagster.targeted(backfill.id, one)

    def read_run(self, run: OwnRun) -> None:
        """Take over what a run covers."""
        for name in run.assets:
            if name in self.assets:
                asset, keys = self.assets[name], run.keys or ()
                own = [key for key in asset.keys if key in keys]
                self.partitions[name] = (None,) if asset.kind is None else own
