"""The states of a batch, as types: a transition takes the one before and returns the next.

```text
compute ──write──▶ Staged ──audit──▶ Audited ──publish──▶ Published ──rollback──▶ RolledBack
                                └──▶ Rejected
```

`LiveRows` are none of them: what is live already, as audits and rollbacks read it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import InitVar, dataclass, field
from datetime import datetime
from typing import Final, Literal

from dagster_safe_backfill.audits.verdicts import AuditResult
from dagster_safe_backfill.errors import PublishError
from dagster_safe_backfill.model.slices import PartitionSlice, TableSlice
from dagster_safe_backfill.model.tables import Column, TableRef, TableSpec, names_of
from dagster_safe_backfill.model.text import listed

StagedEvent = Literal["staged", "audited", "rejected", "approved", "refused"]
"""What happens to rows that aren't live: the last two by an audit of all that is staged together."""

ChangeEvent = Literal["published", "rolled_back"]
"""What changes live."""
CHANGES_OF_LIVE: tuple[ChangeEvent, ...] = ("published", "rolled_back")

Event = StagedEvent | ChangeEvent | Literal["intended", "taken_up", "expired", "discarded"]
"""What the ledger records."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """Who writes, and for which publication: recorded in every row of the ledger.

    Attributes:
        run_id: The run.
        publication_id: What it publishes.
        backfill_id: The backfill that the run belongs to.
        code_version: The asset's.
        code: What computes the rows, in words: the code version, or a digest of the function, and one of its
            configuration. Rows that other code computed aren't taken up.
        group: What is staged and published together: a backfill, or a run. If empty, it is the publication.
    """

    run_id: str
    publication_id: str
    backfill_id: str | None = None
    code_version: str | None = None
    code: str | None = None
    group: str = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "group", self.group or self.publication_id)


@dataclass(frozen=True, slots=True, kw_only=True)
class Fingerprint:
    """What the rows of a partition come to: equal for the same rows in any order, and practically only for them.

    Attributes:
        rows: How many there are.
        digest: The sum of their hashes; empty without rows.
        algorithm: What hashed them; digests of different ones can't be compared.
    """

    rows: int = 0
    digest: str = ""
    algorithm: str = ""

    def __str__(self) -> str:
        return f"{self.rows}:{self.algorithm}:{self.digest}"

    def is_like(self, other: Fingerprint) -> bool:
        """Return whether the rows may be the same: as many, and hashed alike where that can be compared."""
        if self.rows != other.rows:
            return False
        return self.algorithm != other.algorithm or self.digest == other.digest

    @classmethod
    def parse(cls, text: str) -> Fingerprint:
        """Read what `str` wrote."""
        rows, algorithm, digest = text.split(":")
        return cls(rows=int(rows), digest=digest, algorithm=algorithm)


@dataclass(frozen=True, slots=True, kw_only=True)
class Archive:
    """Where replaced rows are kept.

    Attributes:
        table: Has the live table's columns, and at least its rows of `keys` as they were. None if nothing is to be
            kept.
        keys: The partitions whose rows are in it.
        expires_at: When it may be dropped.
    """

    table: TableRef | None = None
    keys: tuple[str, ...] = ()
    expires_at: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class RowCounts:
    """How many rows a change of live touches in one partition. Staged = inserted + updated + unchanged."""

    staged: int = 0
    inserted: int = 0
    updated: int = 0
    deleted: int = 0
    unchanged: int = 0

    @property
    def touched(self) -> int:
        """How many rows of live are not as they were."""
        return self.inserted + self.updated + self.deleted

    def __add__(self, other: RowCounts) -> RowCounts:
        return RowCounts(
            staged=self.staged + other.staged,
            inserted=self.inserted + other.inserted,
            updated=self.updated + other.updated,
            deleted=self.deleted + other.deleted,
            unchanged=self.unchanged + other.unchanged,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class StagedPartition:
    """The last that the ledger says of one partition in one group.

    Attributes:
        key: The partition.
        event: What happened last. After a change of live, or once another group took it up, nothing is staged any more.
        group: What it was staged with.
        shadow: Where the rows stand; None once nothing is staged.
        run_id: The run that recorded it.
        code_version: The asset's then.
        code: What computed them.
        fingerprint: Of the live partition when they were staged.
        columns: The live columns then; None if there was no live table.
        rows: How many there are.
        publication_id: What they were staged for, or what changed live.
        recorded_at: When it happened.
        computed_at: When its computation began; in a ledger of before that was noted, when it had ended.
    """

    key: str
    event: Event
    group: str
    shadow: TableRef | None
    run_id: str
    code_version: str | None
    code: str | None
    fingerprint: Fingerprint
    columns: tuple[str, ...] | None
    rows: int
    publication_id: str
    recorded_at: datetime
    computed_at: datetime

    def knows(self, names: tuple[str, ...] | None) -> bool:
        """Return whether it was staged for a live table of these columns; None are those of no table.

        Where there was no table, it knows any: a table that was created since has no rows of the partition.
        """
        return self.columns is None or self.columns == names


@dataclass(frozen=True, slots=True, kw_only=True)
class Staged:
    """A batch whose rows stand in the shadow, checked for schema and scope, in no reader's way.

    Attributes:
        table_slice: Its partitions of the live table; column names are spelled as the table spells them.
        shadow: Where the rows stand.
        columns: The shadow's data columns, as the live table has or will have them.
        rows: Rows staged, by partition key; by `WHOLE_TABLE` for an unpartitioned asset.
        live_columns: The live table's columns when the rows were staged; None if there was no table.
        dropped: Rows outside the slice that were left out, as asked.
        duplicates: Rows that were left out for a later one of the same key, as asked.
        replaces_shadow: Whether an earlier try of the same run had left a shadow, which was discarded.
        fingerprints: The live partitions before the rows were computed, by partition key; empty if there was no table.
        copied_from: The shadows that the rows stand in, if `shadow` is a copy for the session.
        moved: The staged partitions that wait no more once these rows are published.
        rest: The shadow that keeps the other partitions of a batch of which this is a part, and the positions there of
            those that leave it once these are published.
        computed_at: When the computation of each partition began, by its key, where that is known.
        spec: How the live table is kept.
        partition_slice: The partitions; None for an unpartitioned asset, of which the whole table is staged.
        keys: The partition keys, at their positions in the slice; `WHOLE_TABLE` for an unpartitioned asset.
    """

    table_slice: TableSlice
    shadow: TableRef
    columns: tuple[Column, ...]
    rows: Mapping[str, int]
    live_columns: tuple[Column, ...] | None
    dropped: int = 0
    duplicates: int = 0
    replaces_shadow: bool = False
    fingerprints: Mapping[str, Fingerprint] = field(default_factory=dict[str, Fingerprint])
    copied_from: tuple[TableRef, ...] = ()
    moved: tuple[StagedPartition, ...] = ()
    rest: tuple[TableRef, tuple[int, ...]] | None = None
    computed_at: Mapping[str, datetime] = field(default_factory=dict[str, datetime])
    spec: TableSpec = field(init=False)
    partition_slice: PartitionSlice | None = field(init=False)
    keys: tuple[str, ...] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "spec", self.table_slice.spec)
        object.__setattr__(self, "partition_slice", self.table_slice.partition_slice)
        object.__setattr__(self, "keys", self.table_slice.keys)

    @property
    def place(self) -> str:
        """Where a person finds the rows."""
        return listed([*self.copied_from] or [self.shadow])

    @property
    def added(self) -> tuple[Column, ...]:
        """Those of `columns` that the live table lacked, and gets when the rows are published."""
        if self.live_columns is None or names_of(self.columns) == names_of(self.live_columns):
            return ()
        known = {*names_of(self.live_columns)}
        return tuple([column for column in self.columns if column.name not in known])


@dataclass(frozen=True, slots=True, kw_only=True)
class LiveRows:
    """Live rows of some partitions, as they are.

    Attributes:
        table_slice: The partitions of the live table.
        columns: The live table's.
        view: The rows, with the position of each one's partition; for the session.
        rows: How many each partition has, by key.
    """

    table_slice: TableSlice
    columns: tuple[Column, ...]
    view: TableRef
    rows: Mapping[str, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """A staged batch with the verdicts on it.

    Attributes:
        staged: What was audited.
        results: A result for each audit.
        live_rows: How many rows live had of each partition then, by key; None if they could not be counted.
    """

    staged: Staged
    results: Sequence[AuditResult]
    live_rows: Mapping[str, int] | None = None

    @property
    def blocked(self) -> tuple[str, ...]:
        """The partitions that some audit forbids to publish, in the slice's order."""
        keys: set[str] = set()
        for result in self.results:
            keys.update(result.blocking_keys)
        return tuple(filter(keys.__contains__, self.staged.keys))


class Seal:
    """Says that an audit has passed what it is on."""


AUDIT_SEAL: Final = Seal()
"""For wap/audit.py alone, which is what a test of the imports holds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Audited(Judged):
    """A staged batch that every blocking audit passed, in every partition. Made in wap/audit.py, and nowhere else.

    Raises:
        PublishError: It is made without the audit's seal, or something blocks it.
    """

    seal: InitVar[Seal | None] = None

    def __post_init__(self, seal: Seal | None) -> None:
        table = self.staged.table_slice.table
        if seal is not AUDIT_SEAL:
            raise PublishError(f"{table}: nothing but an audit can say that rows are audited", table=str(table))
        if self.blocked:
            raise PublishError(f"{table}: {listed(self.blocked)} are blocked by audits", table=str(table))


@dataclass(frozen=True, slots=True, kw_only=True)
class Rejected(Judged):
    """A staged batch that may not be published; its rows stay in the shadow."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Published:
    """A publication: one atomic change of the live table, by partition key.

    Attributes:
        audited: What was published.
        publication_id: Its id in the ledger.
        row_counts: What it changed, by partition key.
        archive: Where what it replaced is kept; None if it replaced nothing, or nothing is kept.
        expires_at: Until when the archive is kept.
        is_repeated: Whether an earlier try of the same run had published it, so that this one changed nothing.
    """

    audited: Audited
    publication_id: str
    row_counts: Mapping[str, RowCounts]
    archive: TableRef | None = None
    expires_at: datetime | None = None
    is_repeated: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class RolledBack:
    """A rollback: what publications replaced is live again.

    Attributes:
        table: The live table.
        publication_id: The rollback's own id in the ledger, by which it can be undone.
        undone: The publications that it undid.
        row_counts: What it changed, by partition key.
        already: The partitions in which the publications were undone already, with the rollback that stands there.
        untouched: The partitions in which the publications had changed nothing.
        removed: The partitions that have no rows now, as they had none before.
        archive: Where what it replaced is kept; None if it replaced nothing.
        expires_at: Until when the archive is kept.
        is_dry: Whether it only says what it would do.
    """

    table: TableRef
    publication_id: str
    undone: tuple[str, ...]
    row_counts: Mapping[str, RowCounts] = field(default_factory=dict[str, RowCounts])
    already: Mapping[str, str] = field(default_factory=dict[str, str])
    untouched: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()
    archive: TableRef | None = None
    expires_at: datetime | None = None
    is_dry: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Retired:
    """What was dropped of a table's archives and shadows.

    Attributes:
        table: The live table.
        archives: Those that had expired.
        shadows: Those whose runs had ended.
        kept_shadows: Those of runs that go on, or that ended not long ago.
        is_dry: Whether they are only said to be dropped.
    """

    table: TableRef
    archives: tuple[TableRef, ...] = ()
    shadows: tuple[TableRef, ...] = ()
    kept_shadows: tuple[TableRef, ...] = ()
    is_dry: bool = False
