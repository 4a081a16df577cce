"""The errors that the library raises.

```text
SafeBackfillError
├── ConfigurationError        a definition that can't work, raised when it is made or first read
├── SliceError                the run's partitions can't be processed
│   ├── EmptySliceError           the run has no partition, for example because its range is reversed
│   ├── ScopeMismatchError        Dagster resolved other partitions than the run's tags name
│   ├── PartitionColumnError      the partition column can't identify the rows of each partition
│   └── PartitionsChangedError    partitions of the run were deleted, or reordered, while it computed
├── OtherAssetError           the table belongs to another asset; nothing was changed
├── PlanChangedError          code or live rows aren't those that the run's plan was made from; nothing was computed
├── LedgerError               the ledger is damaged, or a newer release wrote to it; nothing was changed
├── WriteError                the computed rows can't be written
│   ├── EmptyFrameError           there are no rows at all
│   ├── SchemaMismatchError       columns or types differ from the table's
│   ├── RowsOutsideSliceError     rows belong to other partitions, or to none
│   └── KeyViolationError         a unique key is NULL, occurs twice, or belongs to a live row outside the slice
├── ReadError                 a column of an input can't be loaded as it is
├── AuditFailedError          a blocking audit failed or could not be measured; rejected rows stay in the shadow
├── PublishError              audited rows can't be published; the live table is unchanged
│   ├── PublishConflictError      live partitions changed after their rows were computed
│   ├── MixedVersionsError        several code versions computed the partitions of one backfill
│   ├── NotStagedError            partitions aren't staged, or their audits haven't passed
│   └── SwapError                 the table can't be replaced by a clone of itself
├── RollbackError             a publication can't be rolled back; the live table is unchanged
│   ├── PublicationNotFoundError  the ledger has no such publication, or the asset no such partition
│   ├── RollbackConflictError     live partitions changed after they were published
│   └── ArchiveNotFoundError      the rows that the publication replaced are no longer kept
├── BoundsError               a limit of the run was reached; published partitions stay published
│   ├── BatchTimeoutError         a batch took too long and was stopped
│   ├── OutsideAllowedHoursError  the run isn't allowed to work at this time of day
│   └── TooManyPartitionsError    the backfill or run has more partitions than allowed
└── WarehouseError            the database refused a statement
    ├── TableNotFoundError        the table doesn't exist
    ├── WarehouseLockedError      another process holds the database
    ├── WarehouseUnavailableError the database, or a file that it reads, can't be reached at the moment
    ├── OutOfResourcesError       the database has too little memory or disk for a statement
    ├── StatementCancelledError   the statement was cancelled from outside
    └── TransactionConflictError  another transaction changed the same rows
```

A message says what happened, where, and what to do next. The same facts are attributes of the error.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any


class SafeBackfillError(Exception):
    """Base class of all errors that the library raises."""


class ConfigurationError(SafeBackfillError):
    """A definition can't work with any data."""


class SliceError(SafeBackfillError):
    """The partitions of a run can't be processed."""


# Dagster 1.13 resolves a reversed range to no partition at all, runs the asset once and reports success.
class EmptySliceError(SliceError):
    """The slice has no partition, so there is nothing to write or audit."""


# Dagster 1.13 runs one of six partitions of a job backfill of a multi-partitioned single_run asset, and reports
# success.
class ScopeMismatchError(SliceError):
    """Dagster resolved other partitions than the run's tags name.

    Attributes:
        asked: The partition keys that the run's tags name.
        resolved: The partition keys that Dagster resolved from the tags.
    """

    def __init__(self, message: str, *, asked: Sequence[str], resolved: Sequence[str]) -> None:
        super().__init__(message)
        self.asked = tuple(asked)
        self.resolved = tuple(resolved)


class PartitionColumnError(SliceError):
    """The partition column is missing, or its type can't distinguish the slice's partitions."""


# Dagster 1.13 resolves a run's range again for each event, and doesn't see that it has other partitions than before.
class PartitionsChangedError(SliceError):
    """Partitions of the run were deleted from its dynamic partitions, or reordered, so Dagster can't record them.

    Attributes:
        keys: The keys of the partitions that Dagster can't record.
        published: A mapping from those of these keys whose partitions are live already to the ids of their
            publications; empty if nothing of the run went live.
    """

    def __init__(self, message: str, *, keys: Sequence[str], published: Mapping[str, str]) -> None:
        super().__init__(message)
        self.keys = tuple(keys)
        self.published = dict(published)


class _TableError(SafeBackfillError):
    def __init__(self, message: str, *, table: str) -> None:
        super().__init__(message)
        self.table = table


class LedgerError(_TableError):
    """The ledger is damaged, or a newer release of this library wrote to it; nothing was changed.

    Attributes:
        table: The ledger.
    """


# Not a WriteError or PublishError, because rollbacks and retention raise it, too.
class OtherAssetError(_TableError):
    """Another asset writes the table, so this asset changes nothing in it.

    Attributes:
        table: The live table.
        asset: The key of the asset that was refused.
        other: The key of the asset that last wrote the table.
        keys: The keys of the partitions that were to be changed; empty for a whole table.
    """

    def __init__(self, message: str, *, table: str, asset: str, other: str, keys: Sequence[str] = ()) -> None:
        super().__init__(message, table=table)
        self.asset = asset
        self.other = other
        self.keys = tuple(keys)


class PlanChangedError(SafeBackfillError):
    """The code or live rows changed after the plan of the run's backfill was made.

    Attributes:
        plan: The plan's id.
        keys: The keys of the partitions that it is about.
    """

    def __init__(self, message: str, *, plan: str, keys: Sequence[str]) -> None:
        super().__init__(message)
        self.plan = plan
        self.keys = tuple(keys)


class WriteError(_TableError):
    """The computed rows can't be written; the live table is unchanged.

    Attributes:
        table: The live table.
    """


class EmptyFrameError(WriteError):
    """No rows were computed; writing them would empty every partition of the slice."""


class SchemaMismatchError(WriteError):
    """Computed columns differ from the table's in name or type.

    Attributes:
        problems: One description for each column that differs.
    """

    def __init__(self, message: str, *, table: str, problems: Sequence[str]) -> None:
        super().__init__(message, table=table)
        self.problems = tuple(problems)


class ReadError(SafeBackfillError):
    """A column of a table can't be loaded with the same values as the type that the input's annotation names.

    Attributes:
        column: The name of the column.
        type: The type of the column.
    """

    def __init__(self, message: str, *, column: str, type: str) -> None:  # noqa: A002 - as in `Column`
        super().__init__(message)
        self.column = column
        self.type = type


class _SampledWriteError(WriteError):
    def __init__(self, message: str, *, table: str, count: int, sample: Sequence[Sequence[Any]]) -> None:
        super().__init__(message, table=table)
        self.count, self.sample = count, tuple(tuple(row) for row in sample)


class RowsOutsideSliceError(_SampledWriteError):
    """Computed rows belong to no partition of the slice.

    Attributes:
        count: The number of such rows.
        sample: At most ten of their values of the partition expression.
    """


class KeyViolationError(_SampledWriteError):
    """Computed rows share a unique key, have NULL in it, or have the key of a live row outside the slice.

    Attributes:
        count: The number of such rows.
        sample: At most ten of their keys.
    """


class AuditFailedError(_TableError):
    """Blocking audits failed or could not be measured, so the rejected partitions were not published.

    Attributes:
        table: The live table.
        shadow: The table that holds the rejected rows.
        failures: `(audit, partition keys, failed rows)` for each blocking audit. The number of rows is None if the
            audit could not be measured.
    """

    def __init__(
        self,
        message: str,
        *,
        table: str,
        shadow: str,
        failures: Sequence[tuple[str, tuple[str, ...], int | None]],
    ) -> None:
        super().__init__(message, table=table)
        self.shadow = shadow
        self.failures = tuple(failures)


class PublishError(_TableError):
    """Audited rows can't be published; the live table is unchanged, and the rows stay in the shadow.

    Attributes:
        table: The live table.
    """


class PublishConflictError(PublishError):
    """Live partitions changed after their new rows were computed and before they were published.

    Attributes:
        keys: The keys of the partitions that changed.
        published_since: A mapping from partition key to the id of the publication or rollback that changed the
            partition; None if the ledger has no record of one.
    """

    def __init__(
        self, message: str, *, table: str, keys: Sequence[str], published_since: Mapping[str, str | None]
    ) -> None:
        super().__init__(message, table=table)
        self.keys = tuple(keys)
        self.published_since = dict(published_since)


class NotStagedError(PublishError):
    """Partitions can't be audited or published because they aren't staged, or their audits haven't passed.

    Attributes:
        keys: The keys of these partitions.
    """

    def __init__(self, message: str, *, table: str, keys: Sequence[str]) -> None:
        super().__init__(message, table=table)
        self.keys = tuple(keys)


class MixedVersionsError(PublishError):
    """Several code versions computed the partitions of one backfill.

    Attributes:
        versions: The code versions; that of the current run is the last. None stands for an asset without one.
    """

    def __init__(self, message: str, *, table: str, versions: Sequence[str | None]) -> None:
        super().__init__(message, table=table)
        self.versions = tuple(versions)


# DuckDB 2.0 can't rename a table that a foreign key refers to (DependencyException).
class SwapError(PublishError):
    """The table can't be replaced by a clone of itself, for example because other tables refer to it."""


class RollbackError(_TableError):
    """A publication can't be rolled back; the live table is unchanged.

    Attributes:
        table: The live table.
        keys: The keys of the partitions that can't be rolled back.
    """

    def __init__(self, message: str, *, table: str, keys: Sequence[str] = ()) -> None:
        super().__init__(message, table=table)
        self.keys = tuple(keys)


class PublicationNotFoundError(RollbackError):
    """The ledger has no such publication, or the publication or the asset doesn't have the named partitions."""


class RollbackConflictError(RollbackError):
    """Live partitions changed after the publication that would be rolled back."""


class ArchiveNotFoundError(RollbackError):
    """The rows that the publication replaced were not archived, or their archive has expired and was dropped."""


# Not a WarehouseError or TimeoutError, because a limit that someone set must not be retried like a fault.
class BoundsError(SafeBackfillError):
    """A limit that was set for the run was reached; partitions that were already published stay published."""


class BatchTimeoutError(BoundsError):
    """A batch took longer than `Limits(timeout_seconds=…)` and was stopped; none of its rows are live.

    Attributes:
        seconds: The limit, in seconds.
        what: A description of the batch or audit that was stopped.
    """

    def __init__(self, message: str, *, seconds: float, what: str) -> None:
        super().__init__(message)
        self.seconds = seconds
        self.what = what


class OutsideAllowedHoursError(BoundsError):
    """The run isn't allowed to start a batch at this time of day.

    Attributes:
        opens_at: The next instant within the allowed hours, as an aware datetime.
    """

    def __init__(self, message: str, *, opens_at: datetime) -> None:
        super().__init__(message)
        self.opens_at = opens_at


class TooManyPartitionsError(BoundsError):
    """A backfill or run has more partitions than `Limits(max_partitions=…)` allows without confirmation.

    Attributes:
        count: The number of its partitions.
        allowed: The number of partitions that is allowed.
    """

    def __init__(self, message: str, *, count: int, allowed: int) -> None:
        super().__init__(message)
        self.count = count
        self.allowed = allowed


class WarehouseError(SafeBackfillError):
    """The database refused a statement; the driver's error is `__cause__`, unless it may quote what isn't shown."""


class TableNotFoundError(WarehouseError):
    """A table that a statement reads doesn't exist."""


class OutOfResourcesError(WarehouseError):
    """The database has too little memory, or too little room on a disk, for a statement; it was undone."""


# Code that treats a WarehouseError as a finding, such as a refused cast, must re-raise this one: a stopped statement
# says nothing about the data.
class StatementCancelledError(WarehouseError):
    """The statement was cancelled from outside; its whole transaction was rolled back."""


class WarehouseUnavailableError(WarehouseError):
    """The database, or a file that it reads, can't be reached at the moment; a later attempt may succeed."""


# `Session.attempt` repeats a transaction after this error only.
class TransactionConflictError(WarehouseError):
    """Another transaction changed the same rows first; this whole transaction was rolled back."""


class WarehouseLockedError(WarehouseError):
    """Another process held the database for longer than the I/O manager's `lock_timeout`.

    Attributes:
        database: The database's path.
        pid: The id of the process that holds it; None if the driver doesn't report it.
    """

    def __init__(self, message: str, *, database: str, pid: int | None) -> None:
        super().__init__(message)
        self.database = database
        # DuckDB reports the process id only in the text of its IO Error, as "(PID 123)".
        self.pid = pid
