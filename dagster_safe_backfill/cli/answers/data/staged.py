"""The data of `approve`."""

from __future__ import annotations

from typing import Literal

from typing_extensions import TypedDict

from dagster_safe_backfill.cli.answers.data.progress import LaunchedData

AuditVerdict = Literal["passed", "warned", "failed"]
PartitionVerdict = Literal["passed", "warned", "blocked"]


class AuditOutcomeData(TypedDict):
    """What one audit found.

    Attributes:
        audit: Its name.
        verdict: What it came to.
        failed_rows: How many rows failed; None if it doesn't count rows.
        message: What it says, for people.
    """

    audit: str
    verdict: AuditVerdict
    failed_rows: int | None
    message: str | None


class AuditData(TypedDict):
    """The newest audit of all that is staged together.

    Attributes:
        run_id: Its run.
        audited_at: When it ended.
        audits: What each audit found.
    """

    run_id: str
    audited_at: float
    audits: list[AuditOutcomeData]


class StagedPartitionData(TypedDict):
    """A partition that waits to be published.

    Attributes:
        partition: Its key.
        verdict: What the audits of each partition came to; None if the audit's report has no room for it.
        message: The audits that it didn't pass, for people; None if it passed all, or the report has no room for it.
        staged_row_count: How many rows are staged; None if the report doesn't say.
        live_row_count: How many rows are live now; None if the report doesn't say.
        aggregates: What audits measured, such as `sum(amount), shadow` and `sum(amount), live`, as texts.
    """

    partition: str
    verdict: PartitionVerdict | None
    message: str | None
    staged_row_count: int | None
    live_row_count: int | None
    aggregates: dict[str, str]


class ApproveData(LaunchedData):
    """What is published, or waits for it.

    Attributes:
        asset: The asset's key.
        partitions: The partitions that are published, or wait for a yes; empty if none wait.
        other_staged_partitions: The keys of those that are staged besides, and stay so.
        staged_by: The backfills, or runs by themselves, that staged them.
        audit: The audit on whose word they are published; None if none wait.
    """

    asset: str
    partitions: list[StagedPartitionData]
    other_staged_partitions: list[str]
    staged_by: list[str]
    audit: AuditData | None
