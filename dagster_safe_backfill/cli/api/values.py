"""What Dagster answers, as values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

PartitionsKind = Literal["time", "static", "dynamic", "multi"]

SHADOW, AUDIT = "__shadow", "__audit"
"""The endings of the assets that stage and audit an asset of the staged shape."""
PARTITION_TAG = "dagster/partition"
RANGE_START_TAG = "dagster/asset_partition_range_start"
RANGE_END_TAG = "dagster/asset_partition_range_end"
BACKFILL_TAG = "dagster/backfill"
"""Dagster's tags of runs. `runs/` has them too, and imports Dagster, which a call by URL doesn't."""
OPEN = frozenset({"REQUESTED", "CANCELING", "FAILING"})
"""The statuses of a backfill that hasn't ended."""
RUNS_OPEN = frozenset({"QUEUED", "NOT_STARTED", "MANAGED", "STARTING", "STARTED", "CANCELING"})
"""The statuses of a run that hasn't ended."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Asset:
    """An asset as Dagster knows it.

    Attributes:
        key: The asset's key, as `a/b`.
        location: The name of its code location.
        repository: The name of its repository.
        kind: The kind of its partitions; None without partitions.
        dimensions: The names of the dimensions of multi-partitions, in Dagster's order.
        keys: The partition keys, in order.
        partitions_per_run: How many partitions a run of a backfill takes; None for all of a range.
        code_version: Its `code_version`.
        upstream: The keys of the assets that it reads.
        downstream: The keys of the assets that read it.
        metadata: The metadata of its definition, as texts.
        jobs: The names of the jobs that can run it.
        pools: The pools in which its runs take slots.
    """

    key: str
    location: str
    repository: str
    kind: PartitionsKind | None
    dimensions: Sequence[str] = ()
    keys: Sequence[str] = ()
    partitions_per_run: int | None = 1
    code_version: str | None = None
    upstream: Sequence[str] = ()
    downstream: Sequence[str] = ()
    metadata: Mapping[str, str] = field(default_factory=dict[str, str])
    jobs: Sequence[str] = ()
    pools: Sequence[str] = ()

    @property
    def path(self) -> list[str]:
        """The parts of the key."""
        return self.key.split("/")

    @property
    def staging(self) -> list[str]:
        """The keys of its `x__shadow` and `x__audit`; empty if it isn't of the staged shape."""
        beside = [f"{self.key}{SHADOW}", f"{self.key}{AUDIT}"]
        return beside if {*beside} <= {*self.upstream} else []

    @property
    def live_key(self) -> str:
        """The key of the asset whose table it is: of `x__shadow` and `x__audit` that of `x`, else its own."""
        for ending in (SHADOW, AUDIT):
            live = self.key.removesuffix(ending)
            if live != self.key and live in self.downstream:
                return live
        return self.key


@dataclass(frozen=True, slots=True, kw_only=True)
class Statuses:
    """The statuses of an asset's partitions in Dagster's catalog, as sets of keys."""

    materialized: frozenset[str] = frozenset()
    failed: frozenset[str] = frozenset()
    materializing: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True, kw_only=True)
class Materialization:
    """The newest materialization of one partition, or of an asset without partitions.

    Attributes:
        partition: The partition key; None without one.
        run_id: The run that logged it.
        at: The time, in seconds since the epoch.
        metadata: The metadata: numbers as numbers, all else as text.
    """

    partition: str | None
    run_id: str
    at: float
    metadata: Mapping[str, object] = field(default_factory=dict[str, object])


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """A run.

    Attributes:
        started_at: The time when it started, in seconds since the epoch; None if it hasn't.
        ended_at: The same of its end.
    """

    id: str
    status: str
    job: str
    tags: Mapping[str, str]
    started_at: float | None = None
    ended_at: float | None = None

    @property
    def is_open(self) -> bool:
        """True if it hasn't ended."""
        return self.status in RUNS_OPEN


@dataclass(frozen=True, slots=True, kw_only=True)
class Counts:
    """How many partitions of one asset a backfill covers, and what became of them; 1 for an unpartitioned asset."""

    targeted: int = 0
    in_progress: int = 0
    materialized: int = 0
    failed: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Backfill:
    """A backfill of assets, or of a job.

    Attributes:
        assets: A mapping from each asset's key to its counts; empty for a backfill of a job.
        started_at: The time when it was requested, in seconds since the epoch.
        ended_at: The same of its end; None if it hasn't ended.
        error: The message of the error with which Dagster gave it up.
        runs: Its runs, the newest first, up to the number asked for.
        is_of_assets: False for a backfill of a job.
        job: The name of that job.
    """

    id: str
    status: str
    tags: Mapping[str, str]
    title: str | None
    started_at: float
    ended_at: float | None
    error: str | None
    assets: Mapping[str, Counts]
    runs: Sequence[Run] = ()
    is_of_assets: bool = True
    job: str | None = None

    @property
    def is_open(self) -> bool:
        """True if it hasn't ended."""
        return self.status in OPEN


@dataclass(frozen=True, slots=True, kw_only=True)
class DaemonState:
    """One of Dagster's daemons.

    Attributes:
        heartbeat_at: The time of its last heartbeat, in seconds since the epoch; None if there was none.
    """

    name: str
    is_required: bool
    is_healthy: bool
    heartbeat_at: float | None
