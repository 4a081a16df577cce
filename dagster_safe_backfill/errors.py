"""Every error that the library raises.

```text
SafeBackfillError
├── ConfigurationError        a definition that can't work: raised when it is declared or first read
├── SliceError                the scope of a run
│   ├── EmptySliceError           no partition, or a range that runs backwards
│   ├── ScopeMismatchError        other partitions than the run's tags ask for
│   └── PartitionColumnError      the column can't tell the slice's partitions apart
├── WriteError                what was computed can't be written as it is
│   ├── EmptyFrameError           no rows at all
│   ├── SchemaMismatchError       columns or types differ from the table's
│   ├── RowsOutsideSliceError     rows of other partitions, or of none
│   └── KeyViolationError         NULL, duplicate or foreign values of the unique key
├── AuditFailedError          a blocking audit failed or could not be measured: nothing was published
├── PublishError              what was audited can't go live: the live table is as it was
│   ├── PublishConflictError      partitions changed since they were computed
│   ├── MixedVersionsError        one backfill's partitions were computed by several code versions
│   ├── NotStagedError            partitions aren't staged and audited
│   └── SwapError                 the table can't be replaced by a clone of itself
├── RollbackError             a publication can't be undone: the live table is as it is
│   ├── PublicationNotFoundError  the ledger knows no such publication
│   ├── RollbackConflictError     partitions changed since they were published
│   └── ArchiveNotFoundError      what the publication replaced isn't kept
├── BoundsError               a bound set for a run was reached: what isn't live yet stays as it is
│   ├── BatchTimeoutError         a batch took too long and was stopped
│   ├── OutsideAllowedHoursError  it isn't the time of day for it
│   └── TooManyPartitionsError    the run covers more partitions than it may
└── WarehouseError            the database refused a statement
    ├── TableNotFoundError        a table that isn't there
    ├── WarehouseLockedError      another process holds the database
    ├── WarehouseUnavailableError the database, or what it reads, can't be reached for now
    ├── StatementCancelledError   the statement was stopped from outside
    └── TransactionConflictError  another transaction changed the same rows
```

Messages say what happened, where (table and partitions) and what to do next; the same facts are attributes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any


class SafeBackfillError(Exception):
    """Root of the library's errors."""


class ConfigurationError(SafeBackfillError):
    """A definition that can't work, whatever the data."""


class SliceError(SafeBackfillError):
    """A run's scope can't be worked on."""


class EmptySliceError(SliceError):
    """The run covers no partition, so that there is nothing to write or audit."""


class ScopeMismatchError(SliceError):
    """The partitions that Dagster resolved aren't those that the run's tags ask for.

    Attributes:
        asked: What the run's tags name.
        resolved: The partition keys that Dagster made of it.
    """

    def __init__(self, message: str, *, asked: Sequence[str], resolved: Sequence[str]) -> None:
        super().__init__(message)
        self.asked = tuple(asked)
        self.resolved = tuple(resolved)


class PartitionColumnError(SliceError):
    """The partition column is missing, or its type can't tell the slice's partitions apart."""


class WriteError(SafeBackfillError):
    """What was computed can't be written. The live table is as it was.

    Attributes:
        table: The live table.
    """

    def __init__(self, message: str, *, table: str) -> None:
        super().__init__(message)
        self.table = table


class EmptyFrameError(WriteError):
    """The computed rows are none, which would empty every partition of the slice."""


class SchemaMismatchError(WriteError):
    """Computed columns differ from the table's in name or type.

    Attributes:
        problems: One sentence a column.
    """

    def __init__(self, message: str, *, table: str, problems: Sequence[str]) -> None:
        super().__init__(message, table=table)
        self.problems = tuple(problems)


class _SampledWriteError(WriteError):
    def __init__(self, message: str, *, table: str, count: int, sample: Sequence[Sequence[Any]]) -> None:
        super().__init__(message, table=table)
        self.count = count
        self.sample = tuple(tuple(row) for row in sample)


class RowsOutsideSliceError(_SampledWriteError):
    """Rows belong to no partition of the slice.

    Attributes:
        count: How many rows.
        sample: Up to ten values of the partition expression.
    """


class KeyViolationError(_SampledWriteError):
    """Rows share a unique key, have NULL in it, or have the key of a live row outside the slice.

    Attributes:
        count: How many rows.
        sample: Up to ten of the keys.
    """


class AuditFailedError(SafeBackfillError):
    """Blocking audits failed or could not be measured; nothing was published.

    Attributes:
        table: The live table, which is as it was.
        shadow: The table that holds the rejected rows.
        failures: `(audit, partition keys, failed rows)` for each blocking audit; the count is None if unmeasured.
    """

    def __init__(
        self,
        message: str,
        *,
        table: str,
        shadow: str,
        failures: Sequence[tuple[str, tuple[str, ...], int | None]],
    ) -> None:
        super().__init__(message)
        self.table = table
        self.shadow = shadow
        self.failures = tuple(failures)


class PublishError(SafeBackfillError):
    """What was audited can't go live. The live table is as it was, and the rows are in the shadow.

    Attributes:
        table: The live table.
    """

    def __init__(self, message: str, *, table: str) -> None:
        super().__init__(message)
        self.table = table


class PublishConflictError(PublishError):
    """Live partitions changed between the staging and the publication.

    Attributes:
        keys: Their partition keys.
        published_since: The publication or rollback that changed each, by key; None if the ledger knows of none.
    """

    def __init__(
        self, message: str, *, table: str, keys: Sequence[str], published_since: Mapping[str, str | None]
    ) -> None:
        super().__init__(message, table=table)
        self.keys = tuple(keys)
        self.published_since = dict(published_since)


class NotStagedError(PublishError):
    """Partitions can't be audited or published, as they aren't staged, or their audits have not passed.

    Attributes:
        keys: Their partition keys.
    """

    def __init__(self, message: str, *, table: str, keys: Sequence[str]) -> None:
        super().__init__(message, table=table)
        self.keys = tuple(keys)


class MixedVersionsError(PublishError):
    """Partitions of one backfill were computed by several versions of the code.

    Attributes:
        versions: The code versions, this run's last; None where an asset had none.
    """

    def __init__(self, message: str, *, table: str, versions: Sequence[str | None]) -> None:
        super().__init__(message, table=table)
        self.versions = tuple(versions)


class SwapError(PublishError):
    """The table can't be replaced by a clone of itself, for instance as other tables refer to it."""


class RollbackError(SafeBackfillError):
    """A publication can't be undone. The live table is as it was before the try.

    Attributes:
        table: The live table.
        keys: The partitions that stand in the way.
    """

    def __init__(self, message: str, *, table: str, keys: Sequence[str] = ()) -> None:
        super().__init__(message)
        self.table = table
        self.keys = tuple(keys)


class PublicationNotFoundError(RollbackError):
    """The ledger knows no such publication, or it has no such partitions."""


class RollbackConflictError(RollbackError):
    """Partitions changed since the publication that would be undone."""


class ArchiveNotFoundError(RollbackError):
    """What the publication replaced was not kept, or has expired and been dropped."""


class BoundsError(SafeBackfillError):
    """A bound that was set for the run is reached. What was live stays, and what had been published stays so."""


class BatchTimeoutError(BoundsError):
    """A batch took longer than `timeout_seconds` and was stopped; nothing of it is live.

    Attributes:
        seconds: How long it might have taken.
        what: What ran.
    """

    def __init__(self, message: str, *, seconds: float, what: str) -> None:
        super().__init__(message)
        self.seconds = seconds
        self.what = what


class OutsideAllowedHoursError(BoundsError):
    """It isn't the time of day at which this may run.

    Attributes:
        opens_at: The next instant at which it may, aware.
    """

    def __init__(self, message: str, *, opens_at: datetime) -> None:
        super().__init__(message)
        self.opens_at = opens_at


class TooManyPartitionsError(BoundsError):
    """The run covers more partitions than one may.

    Attributes:
        count: How many it covers.
        allowed: How many it may.
    """

    def __init__(self, message: str, *, count: int, allowed: int) -> None:
        super().__init__(message)
        self.count = count
        self.allowed = allowed


class WarehouseError(SafeBackfillError):
    """The database refused a statement; the driver's error is the cause."""


class TableNotFoundError(WarehouseError):
    """A table that is read doesn't exist."""


class StatementCancelledError(WarehouseError):
    """The statement was stopped from outside; its transaction is rolled back whole."""


class WarehouseUnavailableError(WarehouseError):
    """The database, or a file that it reads, can't be reached for now; it may be in a moment."""


class TransactionConflictError(WarehouseError):
    """Another transaction changed the same rows first; this one was rolled back whole."""


class WarehouseLockedError(WarehouseError):
    """Another process holds the database for longer than `lock_timeout`.

    Attributes:
        database: The database's path.
        pid: The process that holds it, if the driver says.
    """

    def __init__(self, message: str, *, database: str, pid: int | None) -> None:
        super().__init__(message)
        self.database = database
        self.pid = pid


_TRANSIENT = (
    ConnectionError,
    TimeoutError,
    TransactionConflictError,
    WarehouseLockedError,
    WarehouseUnavailableError,
)


def is_transient(error: BaseException) -> bool:
    """Return whether what failed may succeed if it is only done again.

    So it is with a database that is locked, can't be reached or saw a conflict, and with Python's own ConnectionError
    and TimeoutError, also as the cause of another error, since a client's library wraps them in its own. Of the
    library's other errors none is, whatever caused it: no audit, schema or timeout. An error whose `allow_retries` is
    False, as a `dagster.Failure` may say, is believed.
    """
    for link in _chain(error):
        if isinstance(link, _TRANSIENT):
            return True
        if isinstance(link, SafeBackfillError) or getattr(link, "allow_retries", None) is False:
            return False
    return False


def _chain(error: BaseException) -> Iterator[BaseException]:
    """Yield an error and what caused it, down to the first."""
    seen: set[int] = set()
    link: BaseException | None = error
    while link is not None and id(link) not in seen:
        yield link
        seen.add(id(link))
        # requests and urllib raise an OSError of theirs while they handle the socket's, and name no cause.
        is_wrapped = isinstance(link, OSError) and not link.__suppress_context__
        link = link.__cause__ or (link.__context__ if is_wrapped else None)
