"""How far a backfill is: the data of `status` and `watch`, and part of that of `launch`, `retry` and `approve`."""

from __future__ import annotations

from typing import Literal

from typing_extensions import TypedDict

from dagster_safe_backfill.cli.answers.data.commands import Commands
from dagster_safe_backfill.cli.answers.data.rows import RowCountsData

State = Literal["live", "staged", "rejected", "failed", "cancelled", "running", "queued"]
Goal = Literal["live", "staged"]
AuditState = Literal["passed", "rejected", "failed", "cancelled", "running", "queued"]


class StateCountsData(TypedDict):
    """How many partitions are in each state.

    Attributes:
        live: Published.
        staged: Computed and audited, and not published.
        rejected: Blocked by an audit.
        failed: Not computed, because of an error.
        cancelled: Not computed, because the backfill or the run was cancelled.
        running: A run works on them.
        queued: No run works on them yet.
    """

    live: int
    staged: int
    rejected: int
    failed: int
    cancelled: int
    running: int
    queued: int


class FailedAuditData(TypedDict):
    """An audit that didn't pass.

    Attributes:
        audit: Its name.
        failed_rows: How many rows failed; None if it doesn't count rows, or if that isn't known.
        blocks: False if it only warns.
        message: What it says, for people.
    """

    audit: str
    failed_rows: int | None
    blocks: bool
    message: str | None


class PartitionProgressData(TypedDict):
    """How far one partition is.

    Attributes:
        partition: Its key; None for an asset without partitions.
        state: How far it is.
        run_id: The run that brought it there, or works on it; None before.
        publication_id: The publication that made it live; None if none did, or if that isn't known.
        row_count: How many rows it has; None if that isn't known.
        rows: How many rows were staged, and what became of them; None if that isn't known.
        seconds: How long its run took for all of its partitions; None if that isn't known.
        materialized_at: When Dagster recorded it; None before.
        failed_audits: The audits that it didn't pass; those that block first.
        note: What else is to be known of it, for people.
        superseded_by: The run, not of this backfill, that materialized it since.
    """

    partition: str | None
    state: State
    run_id: str | None
    publication_id: str | None
    row_count: int | None
    rows: RowCountsData | None
    seconds: float | None
    materialized_at: float | None
    failed_audits: list[FailedAuditData]
    note: str | None
    superseded_by: str | None


class GroupAuditData(TypedDict):
    """The audit of all that is staged together, by an `x__audit`.

    Attributes:
        asset: The key of the `x__audit`.
        state: How far it is.
        run_id: Its run; None before.
        failed_audits: The audits that didn't pass; those that block first.
    """

    asset: str
    state: AuditState
    run_id: str | None
    failed_audits: list[FailedAuditData]


class RunFailureData(TypedDict):
    """Why a run failed.

    Attributes:
        run_id: The run.
        message: The error.
        is_rejection: True if audits blocked partitions.
        shadows: The tables that have the rejected rows.
        failed_audits: The audits that didn't pass, over all partitions of the run.
    """

    run_id: str
    message: str
    is_rejection: bool
    shadows: list[str]
    failed_audits: list[FailedAuditData]


class AssetProgressData(TypedDict):
    """How far a backfill is with one asset; `x__shadow`, `x__audit` and `x` count as `x`.

    Attributes:
        asset: The asset's key.
        is_staged: True if it is of the staged shape.
        goal: The state to which the backfill is to bring its partitions.
        counts: How many of its partitions are in each state.
        audit: The audit of all that is staged; None if the backfill has none.
        failures: Why runs failed, the newest first.
        partitions: Its partitions, in order.
    """

    asset: str
    is_staged: bool
    goal: Goal
    counts: StateCountsData
    audit: GroupAuditData | None
    failures: list[RunFailureData]
    partitions: list[PartitionProgressData]


class RunData(TypedDict):
    """A run of a backfill.

    Attributes:
        run_id: Its id.
        status: Dagster's status, such as `STARTED` or `SUCCESS`.
        started_at: When it started; None before.
        ended_at: When it ended; None before.
    """

    run_id: str
    status: str
    started_at: float | None
    ended_at: float | None


class ComputedData(TypedDict):
    """What is computed until now, and how fast.

    Attributes:
        partition_count: How many partitions are computed, whatever became of them.
        row_count: How many rows these have.
        seconds: Seconds since the first run started, up to the end of the last one; None before.
        rows_per_second: Rows in a second; None before.
        partitions_per_minute: Partitions in a minute; None before.
        seconds_left: Seconds until all are computed, at this speed; None if that isn't known, or it is over.
    """

    partition_count: int
    row_count: int
    seconds: float | None
    rows_per_second: float | None
    partitions_per_minute: float | None
    seconds_left: float | None


class StatusData(TypedDict):
    """How far a backfill is, or a run by itself.

    Attributes:
        backfill_id: The backfill; None for a run by itself.
        run_id: The run; None for a backfill.
        status: Dagster's status of it, such as `REQUESTED`, `COMPLETED_SUCCESS` or `COMPLETED_FAILED`.
        is_over: True if nothing of it runs or will run.
        title: The backfill's title, if it has one.
        error: With what Dagster gave the backfill up; None if it didn't.
        started_at: When it was requested; of a run, when it started.
        ended_at: When it ended, as Dagster says; None before.
        read_at: When this was read.
        tags: Its tags.
        partition_count: How many partitions it covers, of all of its assets.
        counts: How many of them are in each state.
        computed: What is computed until now, and how fast.
        assets: Its assets.
        runs: Its runs, the newest first.
        commands: What can be done next.
    """

    backfill_id: str | None
    run_id: str | None
    status: str
    is_over: bool
    title: str | None
    error: str | None
    started_at: float | None
    ended_at: float | None
    read_at: float
    tags: dict[str, str]
    partition_count: int
    counts: StateCountsData
    computed: ComputedData
    assets: list[AssetProgressData]
    runs: list[RunData]
    commands: Commands


class LaunchedData(TypedDict):
    """What `launch`, `retry` and `approve` all say of what they launched.

    Attributes:
        backfill_id: The backfill; None if nothing was launched.
        progress: How far it was at last; None if it wasn't followed (`--watch`, `--in-process`).
        commands: What can be done next.
    """

    backfill_id: str | None
    progress: StatusData | None
    commands: Commands
