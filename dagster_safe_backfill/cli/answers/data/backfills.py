"""The data of `list`, `cancel` and `retry`."""

from __future__ import annotations

from typing_extensions import TypedDict

from dagster_safe_backfill.cli.answers.data.commands import Commands
from dagster_safe_backfill.cli.answers.data.progress import LaunchedData, StateCountsData


class AssetCountsData(TypedDict):
    """How many partitions of one asset a backfill covers, as Dagster counts them; 1 for an asset without partitions.

    Attributes:
        asset: The asset's key.
        targeted: How many it covers.
        in_progress: How many runs work on.
        materialized: How many are done.
        failed: How many failed.
    """

    asset: str
    targeted: int
    in_progress: int
    materialized: int
    failed: int


class ListedBackfillData(TypedDict):
    """A backfill that Dagster knows.

    Attributes:
        backfill_id: Its id.
        status: Dagster's status of it, such as `REQUESTED`, `COMPLETED_SUCCESS` or `COMPLETED_FAILED`.
        is_over: True if it has ended, as Dagster says.
        title: Its title, if it has one.
        job: The job, of a backfill of a job; else None.
        started_at: When it was requested.
        ended_at: When it ended; None before.
        plan_id: The plan that was launched, if it was one.
        owner: Who answers for it, if that was said.
        reason: Why it is done, if that was said.
        parent_id: The backfill with which this one goes on, if it does.
        tags: Its tags.
        assets: Its assets; empty for a backfill of a job.
    """

    backfill_id: str
    status: str
    is_over: bool
    title: str | None
    job: str | None
    started_at: float
    ended_at: float | None
    plan_id: str | None
    owner: str | None
    reason: str | None
    parent_id: str | None
    tags: dict[str, str]
    assets: list[AssetCountsData]


class ListData(TypedDict):
    """The backfills that Dagster knows.

    Attributes:
        backfills: Those that haven't ended first, then the newest.
    """

    backfills: list[ListedBackfillData]


class CancelData(TypedDict):
    """What was stopped.

    Attributes:
        backfill_id: The backfill; None for a run by itself.
        run_id: The run; None for a backfill.
        status: Dagster's status of it now.
        was_over: True if there was nothing to stop.
        ended_run_ids: The runs that were asked to end.
        not_ended_run_ids: The runs that couldn't be ended, and still run.
        counts: How many partitions are in each state; None for a run.
        commands: What can be done next.
    """

    backfill_id: str | None
    run_id: str | None
    status: str
    was_over: bool
    ended_run_ids: list[str]
    not_ended_run_ids: list[str]
    counts: StateCountsData | None
    commands: Commands


class RetryData(LaunchedData):
    """What goes on with a backfill.

    Attributes:
        parent_id: The backfill with which it goes on.
        partition_count: How many partitions of it weren't live, with which it goes on; 0 if all of it was done.
    """

    parent_id: str
    partition_count: int
