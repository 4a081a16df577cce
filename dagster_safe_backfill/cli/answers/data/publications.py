"""The data of `history` and `rollback`."""

from __future__ import annotations

from typing import Literal

from typing_extensions import TypedDict

from dagster_safe_backfill.cli.answers.data.rows import RowCountsData

HistoryEvent = Literal["published", "rolled_back", "moved", "staged", "rejected"]
Undone = Literal["no", "partly", "yes"]
ConflictKind = Literal["later_publication", "changed_by_hand"]


class KnownPublicationData(TypedDict):
    """The newest publication of some partitions, as far as Dagster's events show it without the ledger.

    Attributes:
        recorded_at: When it was recorded, of the last of the partitions.
        publication_id: The publication, rollback or rejection; None if Dagster, without the ledger, doesn't say.
        run_id: The run that did it.
        partition_count: How many partitions it happened to.
        ranges: These partitions, as pairs of a first and a last key, both included.
        row_count: How many rows they have, as Dagster's events say; None if they don't, or if the ledger was read.
    """

    recorded_at: float
    publication_id: str | None
    run_id: str
    partition_count: int
    ranges: list[list[str]]
    row_count: int | None


class HistoryEntryData(KnownPublicationData):
    """What happened to some partitions at once.

    Attributes:
        event: What happened.
        backfill_id: The run's backfill; None if it had none, or if that isn't known.
        code_version: The asset's `code_version` then; None if it had none, or if that isn't known.
        strategy: How the rows went live: `merge`, `replace` or `swap`; None if they didn't, or if that isn't known.
        moved_from: The keys of partitions that only lost rows, which moved to these.
        rows: How many rows it touched; None without the ledger.
        archive: The table with the rows that it replaced; None if there is none, or if that isn't known.
        archive_expires_at: Until when that is kept; None likewise.
        archive_exists: True if that is still there; None without the ledger.
        undone: Whether it was undone since; None without the ledger.
        undoes: The publications that it undid, if it is a rollback.
        rejected_by: The names of the audits that rejected it.
    """

    event: HistoryEvent
    backfill_id: str | None
    code_version: str | None
    strategy: str | None
    moved_from: list[str]
    rows: RowCountsData | None
    archive: str | None
    archive_expires_at: float | None
    archive_exists: bool | None
    undone: Undone | None
    undoes: list[str]
    rejected_by: list[str]


class HistoryData(TypedDict):
    """What was published, rolled back, rejected and staged.

    Attributes:
        asset: The asset's key.
        table: Its table.
        partition: The partition that was asked for; None for all.
        source: `dagster` if the warehouse can't be reached: then there is only the newest of each partition.
        has_ledger: True if there is a ledger; None if the warehouse can't be reached.
        entries: What happened, the newest first.
    """

    asset: str
    table: str
    partition: str | None
    source: Literal["ledger", "dagster"]
    has_ledger: bool | None
    entries: list[HistoryEntryData]


class RolledBackPartitionData(TypedDict):
    """What a rollback changes in one partition.

    Attributes:
        partition: Its key.
        rows: How many rows it touches.
        removed: True if the partition had no rows before the publication, so that none are left.
    """

    partition: str
    rows: RowCountsData
    removed: bool


class RolledBackColumnsData(TypedDict):
    """What a rollback changes in the columns.

    Attributes:
        dropped: Columns that the publication added, and that go.
        kept: Columns that it added, and that stay, because other rows use them.
        restored: Columns that it dropped, and that come back.
    """

    dropped: list[str]
    kept: list[str]
    restored: list[str]


class ConflictData(TypedDict):
    """What was changed since in a partition.

    Attributes:
        partition: Its key.
        kind: How.
        publication_id: The later publication; None if it was changed by hand.
        published_at: When that was; None likewise.
    """

    partition: str
    kind: ConflictKind
    publication_id: str | None
    published_at: float | None


class RollbackData(TypedDict):
    """What a rollback changes, or would change.

    Attributes:
        dry_run: True if nothing was done.
        asset: The asset's key.
        table: Its table.
        publication_ids: The publications that are undone.
        published_at: When the newest of them was.
        rows: How many rows it touches, over all partitions; with conflicts, those that `--force` would touch.
        partitions: The same of each partition.
        already: A mapping from the key of each partition that was undone before to the rollback that did it.
        untouched: The keys of partitions of which the publications changed no row.
        columns: What it changes in the columns.
        conflicts: What was changed since; without `--force`, nothing is done then.
        also_undone: The publications that `--force` undoes besides.
        known: What Dagster knows while the warehouse can't be reached, the newest first; then nothing is known of what
            a rollback changes. Empty if it can be reached.
        job: The asset's rollback job; None if the definitions have none.
        run_id: The run of that job; None if nothing was done.
        status: Dagster's status of that run; None if nothing was done.
    """

    dry_run: bool
    asset: str
    table: str
    publication_ids: list[str]
    published_at: float | None
    rows: RowCountsData
    partitions: list[RolledBackPartitionData]
    already: dict[str, str]
    untouched: list[str]
    columns: RolledBackColumnsData
    conflicts: list[ConflictData]
    also_undone: list[str]
    known: list[KnownPublicationData]
    job: str | None
    run_id: str | None
    status: str | None
