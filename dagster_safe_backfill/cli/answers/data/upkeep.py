"""The data of `retention` and `doctor`."""

from __future__ import annotations

from typing import Literal

from typing_extensions import TypedDict

TableKind = Literal["archive", "shadow"]
DropState = Literal["would_drop", "dropped", "requested", "failed"]
KeptReason = Literal["not_expired", "recent", "run_goes_on", "run_unknown", "of_another_asset", "clock"]
CheckVerdict = Literal["ok", "warning", "problem"]


class DroppedTableData(TypedDict):
    """A table that is over.

    Attributes:
        table: Its name.
        kind: What it is.
        row_count: How many rows it has, or had; None if that isn't known.
    """

    table: str
    kind: TableKind
    row_count: int | None


class KeptTableData(DroppedTableData):
    """A table that is kept.

    Attributes:
        why: Why it is kept.
        expires_at: Until when it is kept; None if that isn't known yet.
        run_id: The run that made it; None if that isn't known.
    """

    why: KeptReason
    expires_at: float | None
    run_id: str | None


class AssetRetentionData(TypedDict):
    """What retention drops and keeps of one asset.

    Attributes:
        asset: The asset's key.
        table: Its table.
        job: The job of its retention schedule; None if there is none.
        shadow_days: For how many days the shadows of ended runs are kept.
        unknown_run_days: For how many days what runs made is kept that this Dagster doesn't know.
        clock_problem: Why the clock isn't trusted, so that nothing is dropped; None if it is.
        state: What became of `drops`; `requested`: a run is to drop them, and hasn't ended; None if there are none.
        drops: The tables that are over.
        keeps: The tables that are kept.
    """

    asset: str
    table: str
    job: str | None
    shadow_days: float
    unknown_run_days: float
    clock_problem: str | None
    state: DropState | None
    drops: list[DroppedTableData]
    keeps: list[KeptTableData]


class RetentionRunData(TypedDict):
    """A run of a retention job.

    Attributes:
        job: The job.
        run_id: Its run.
        status: Dagster's status of that run.
        assets: The keys of the assets whose tables it drops.
    """

    job: str
    run_id: str
    status: str
    assets: list[str]


class RetentionData(TypedDict):
    """What is dropped, and what is kept.

    Attributes:
        dry_run: True if nothing was done.
        includes_unknown_runs: True if what runs made that this Dagster doesn't know is dropped, too.
        assets: The assets.
        runs: The runs of jobs that drop them; empty of a dry run, or if this process does it.
    """

    dry_run: bool
    includes_unknown_runs: bool
    assets: list[AssetRetentionData]
    runs: list[RetentionRunData]


class CheckData(TypedDict):
    """What one check found.

    Attributes:
        check: A short name that doesn't change.
        asset: The asset that it is about; None for Dagster, or for a whole warehouse.
        verdict: Whether it is as it should be.
        message: What was found, for people.
        hint: What to do; None if there is nothing to do.
    """

    check: str
    asset: str | None
    verdict: CheckVerdict
    message: str
    hint: str | None


class CheckCountsData(TypedDict):
    """How many checks came to which verdict.

    Attributes:
        ok: As it should be.
        warning: It works, and may not be meant so.
        problem: It doesn't work.
    """

    ok: int
    warning: int
    problem: int


class DoctorData(TypedDict):
    """What `doctor` found.

    Attributes:
        checks: The checks.
        counts: How many came to which verdict.
    """

    checks: list[CheckData]
    counts: CheckCountsData
