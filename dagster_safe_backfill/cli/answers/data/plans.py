"""The data of `plan` and `launch`; and a plan, as its file has it."""

from __future__ import annotations

from typing import Literal

from typing_extensions import TypedDict

from dagster_safe_backfill.cli.answers.data.progress import LaunchedData

GuardName = Literal["count", "hours", "overlap", "daemon", "order"]


class PlannedRunData(TypedDict):
    """A run that Dagster will launch.

    Attributes:
        first: The key of its first partition.
        last: The key of its last partition, which is included.
        partition_count: How many partitions it has.
    """

    first: str
    last: str
    partition_count: int


class EstimateData(TypedDict):
    """What to expect, from earlier publications and runs.

    Attributes:
        row_count: How many rows; None if nothing is known.
        seconds: How long, with the runs one after the other; None if nothing is known.
        partition_count: From how many earlier partitions it was made.
    """

    row_count: int | None
    seconds: float | None
    partition_count: int


class PlannedAssetData(TypedDict):
    """One asset of a plan.

    Attributes:
        asset: The asset's key.
        live_asset: The key of the asset whose table it is: of `x__shadow` and `x__audit` that of `x`.
        table: Its table; None without the definitions.
        reasons: A mapping from each partition key, in order, to why it is computed.
        runs: The runs that Dagster will launch.
        batch_size: How many partitions a batch has; None if a run is one batch, or if that isn't known.
        goes_live: When the partitions go live, for people.
        code: A digest of what computes the rows; None if that isn't known.
        definition: A digest of what the keys stand for and how the table is kept; None if that isn't known.
        live: A mapping from partition key to the fingerprint of its live rows; empty without the definitions, and while
            the warehouse can't be read.
        live_unknown: Who held the warehouse's file when the plan was made, so that its runs don't check live rows, for
            people; None if nobody did.
        newest: A mapping from partition key to a text that changes with each materialization.
        estimate: What to expect.
    """

    asset: str
    live_asset: str
    table: str | None
    reasons: dict[str, list[str]]
    runs: list[PlannedRunData]
    batch_size: int | None
    goes_live: str
    code: str | None
    definition: str | None
    live: dict[str, str]
    live_unknown: str | None
    newest: dict[str, str]
    estimate: EstimateData


class PlanContent(TypedDict):
    """What a plan says, from which its id is made.

    Attributes:
        created_at: When it was made.
        dagster: The Dagster with which it was made: its URL, or that it is that of `DAGSTER_HOME`.
        assets: The assets whose partitions were chosen.
        launched: The keys of all assets that are launched: for a staged asset also `x__shadow` and `x__audit`.
        outdated: The keys of the assets downstream that become outdated.
        newest_first: True if batches begin with the newest partitions.
        owner: Who answers for it.
        reason: Why it is done.
        run_config: The run configuration; None if there is none.
    """

    created_at: float
    dagster: str
    assets: list[PlannedAssetData]
    launched: list[str]
    outdated: list[str]
    newest_first: bool
    owner: str | None
    reason: str | None
    run_config: dict[str, object] | None


class PlanFile(PlanContent):
    """A plan, as its file has it.

    Attributes:
        schema: The version of the file's format.
        plan_id: Its id: the day (in UTC), the first asset's name, and a digest of all else.
    """

    schema: Literal["safe-backfill/plan/1"]
    plan_id: str


class GuardData(TypedDict):
    """A condition that `launch` looks at before it launches.

    Attributes:
        name: Which it is.
        holds: True if nothing is in the way.
        message: What was found, for people.
        hint: What to do about it.
        refuses: False if it only warns.
    """

    name: GuardName
    holds: bool
    message: str
    hint: str | None
    refuses: bool


class PlanData(TypedDict):
    """What a backfill would do.

    Attributes:
        plan: The plan; None if no partition is as it was asked for, so that there is nothing to do.
        path: The file of the plan; None if it isn't saved.
        guards: What `launch` looks at; empty if there is nothing to do.
    """

    plan: PlanFile | None
    path: str | None
    guards: list[GuardData]


class LaunchData(PlanData, LaunchedData):
    """What was launched.

    Attributes:
        dry_run: True if nothing was to be launched (`--dry-run`).
    """

    dry_run: bool
