"""How far a backfill is, as values: each partition's state, what runs said, and the numbers of all together."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal

from dagster_safe_backfill.cli.answers.data.commands import CommandName
from dagster_safe_backfill.cli.answers.data.progress import Goal, State
from dagster_safe_backfill.cli.api.values import Backfill, Run

STATES: Sequence[State] = ("live", "staged", "rejected", "failed", "cancelled", "running", "queued")
"""The states, in the order in which they are shown."""
BAD: frozenset[State] = frozenset({"rejected", "failed", "cancelled"})
PENDING: frozenset[State] = frozenset({"running", "queued"})


@dataclass(frozen=True, slots=True)
class NextCommand:
    """A call of the command that can be made next.

    Attributes:
        name: A short name, as the JSON has it.
        to: What it is for.
        command: The call, as it is typed in a shell.
    """

    name: CommandName
    to: str
    command: str


@dataclass(frozen=True, slots=True, kw_only=True)
class FailedAudit:
    """An audit that didn't pass.

    Attributes:
        name: The name of its check.
        failed_rows: How many rows failed; None if it doesn't count rows, or wasn't measured.
        blocks: False if it only warns.
        message: What it said about the whole run, for people.
    """

    name: str
    failed_rows: int | None = None
    blocks: bool = True
    message: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class PartitionState:
    """How far one partition of an asset is.

    Attributes:
        partition: The key; None for an asset without partitions.
        run_id: The run that brought it there, or works on it.
        publication_id: The publication that made it live.
        rows: The counts of its rows, by the names of the metadata: `rows_staged`, `rows_inserted` and so on.
        seconds: How long its run took for all of its partitions.
        at: The time of its materialization, in seconds since the epoch.
        audits: The audits that didn't pass.
        note: What else is to be known of it, in a sentence.
        superseded_by: The run that materialized it since, where that isn't one of the backfill's.
    """

    partition: str | None
    state: State
    run_id: str | None = None
    publication_id: str | None = None
    rows: Mapping[str, int] = field(default_factory=dict[str, int])
    seconds: float | None = None
    at: float | None = None
    audits: Sequence[FailedAudit] = ()
    note: str | None = None
    superseded_by: str | None = None

    @property
    def row_count(self) -> int:
        """How many rows it has."""
        return self.rows.get("row_count", 0)


@dataclass(frozen=True, slots=True, kw_only=True)
class RunProgress:
    """How far a run is that works batch by batch.

    Attributes:
        done: How many of its partitions are computed and audited.
        rows: The rows of these.
    """

    run_id: str
    batch: int
    batches: int
    done: int
    rows: int


@dataclass(frozen=True, slots=True, kw_only=True)
class RunFailure:
    """Why a run failed, for one asset.

    Attributes:
        asset: The asset; None where the run failed outside of its steps.
        message: The error.
        shadows: The tables that have the rejected rows.
        audits: The audits that didn't pass, over all partitions of the run.
        is_rejection: True if audits blocked partitions.
    """

    run_id: str
    asset: str | None
    message: str
    shadows: Sequence[str] = ()
    audits: Sequence[FailedAudit] = ()
    is_rejection: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupAudit:
    """The audit of all that is staged together, by an `x__audit`.

    Attributes:
        state: How far it is; `live` once it has passed.
    """

    asset: str
    state: State
    run_id: str | None = None
    failed: Sequence[FailedAudit] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class AssetProgress:
    """How far a backfill is with one asset; `x__shadow`, `x__audit` and `x` count as `x`.

    Attributes:
        is_staged: True if it is of the staged shape.
        goal: The state that its partitions are to reach.
        audit: The audit of all that is staged; None if the backfill has none.
        failures: Why runs failed, the newest first.
    """

    asset: str
    partitions: Sequence[PartitionState]
    is_staged: bool = False
    goal: Goal = "live"
    audit: GroupAudit | None = None
    failures: Sequence[RunFailure] = ()

    @property
    def counts(self) -> dict[State, int]:
        """How many partitions are in each state, without those in which none is."""
        found = Counter(one.state for one in self.partitions)
        return {state: found[state] for state in STATES if found[state]}


@dataclass(frozen=True, kw_only=True)
class Progress:
    """How far a backfill is, or a run by itself.

    Attributes:
        id: Its id.
        backfill: The backfill; None for a run.
        runs: Its runs, the newest first.
        assets: Its assets.
        batches: How far its running runs are, where they tell.
        at: The time of this reading, in seconds since the epoch.
        warnings: What couldn't be read.
    """

    id: str
    backfill: Backfill | None
    runs: Sequence[Run]
    assets: Sequence[AssetProgress]
    batches: Sequence[RunProgress] = ()
    at: float
    warnings: Sequence[str] = ()

    @property
    def kind(self) -> Literal["backfill", "run"]:
        """What it is."""
        return "run" if self.backfill is None else "backfill"

    @property
    def status(self) -> str:
        """Dagster's status of it."""
        return self.runs[0].status if self.backfill is None else self.backfill.status

    @property
    def started_at(self) -> float | None:
        """The time when it was requested; of a run, when it started."""
        return self.runs[0].started_at if self.backfill is None else self.backfill.started_at

    @property
    def ended_at(self) -> float | None:
        """The time when it ended; None if it hasn't."""
        return self.runs[0].ended_at if self.backfill is None else self.backfill.ended_at

    @property
    def tags(self) -> Mapping[str, str]:
        """Its tags."""
        return self.runs[0].tags if self.backfill is None else self.backfill.tags

    @cached_property
    def counts(self) -> dict[State, int]:
        """How many partitions of its assets are in each state."""
        found: Counter[State] = Counter()
        for asset in self.assets:
            found.update(asset.counts)
        return {state: found[state] for state in STATES if found[state]}

    @cached_property
    def total(self) -> int:
        """How many partitions it covers, of all its assets."""
        return sum(self.counts.values())

    @cached_property
    def has_reached_all(self) -> bool:
        """True if every partition is where the backfill is to bring it."""
        return (
            self.total > 0
            and all(one.state == asset.goal for asset in self.assets for one in asset.partitions)
            and all(asset.audit is None or asset.audit.state == "live" for asset in self.assets)
        )

    @cached_property
    def is_over(self) -> bool:
        """True if nothing of it runs or will run.

        Dagster says so up to one tick of its daemon later than the runs; a backfill of a job counts as completed for
        Dagster once its runs are launched.
        """
        if any(run.is_open for run in self.runs):
            return False
        return self.backfill is None or not self.backfill.is_open or self.has_reached_all

    @property
    def waits_for_daemon(self) -> bool:
        """True if nothing runs, and Dagster's daemon is to start runs, or to say that it is over."""
        return not self.is_over and not any(run.is_open for run in self.runs)

    @cached_property
    def has_failed(self) -> bool:
        """True if partitions were rejected, failed or cancelled, or if it ended without reaching all."""
        if any(one.state in BAD for asset in self.assets for one in asset.partitions):
            return True
        return self.is_over and not self.has_reached_all

    @cached_property
    def computed(self) -> tuple[int, int]:
        """How many partitions are computed, and how many rows these have."""
        done = rows = 0
        in_runs: Counter[str | None] = Counter()
        for asset in self.assets:
            for one in asset.partitions:
                if one.state not in PENDING:
                    done += 1
                    rows += one.row_count
                    in_runs[one.run_id] += 1
        for run in self.batches:
            # Of a run that publishes each batch, the partitions that are live are counted already.
            already = in_runs[run.run_id]
            if run.done > already:
                done += run.done - already
                rows += round(run.rows * (run.done - already) / run.done)
        return done, rows

    @property
    def seconds(self) -> float | None:
        """Seconds since its first run started, to the end of its last one; None before."""
        began = min((run.started_at for run in self.runs if run.started_at is not None), default=None)
        if began is None:
            return None
        # Between two looks of Dagster's daemon no run may be open: that time is nobody's work.
        ended = max(self.at if run.is_open else run.ended_at or began for run in self.runs)
        return max(ended - began, 1e-9)

    @property
    def seconds_left(self) -> float | None:
        """Seconds until all partitions are computed, if each takes as long as those before; None if none is."""
        done, seconds = self.computed[0], self.seconds
        return None if not done or seconds is None or self.is_over else seconds / done * (self.total - done)
