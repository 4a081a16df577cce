"""The states of a batch, as types: a transition takes the one before and returns the next.

```text
compute ──write──▶ Staged ──audit──▶ Audited ──publish──▶ Published ──rollback──▶ RolledBack
                                └──▶ Rejected
```
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from dagster_safe_backfill.audits.verdicts import AuditResult
from dagster_safe_backfill.errors import SliceError
from dagster_safe_backfill.model.slices import PartitionSlice
from dagster_safe_backfill.model.tables import Column, TableRef, TableSpec
from dagster_safe_backfill.model.text import listed

WHOLE_TABLE = "*"
"""Stands for the key of an asset without partitions."""


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
        scope: What is staged together; the publication's id, if None. See `staged_for`.
    """

    run_id: str
    publication_id: str
    backfill_id: str | None = None
    code_version: str | None = None
    code: str | None = None
    scope: str | None = None

    @property
    def staged_for(self) -> str:
        """The scope that is recorded in the ledger."""
        return self.scope or self.publication_id


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
class Changes:
    """What a publication does to one partition, in rows. Staged = inserted + updated + unchanged."""

    staged: int = 0
    inserted: int = 0
    updated: int = 0
    deleted: int = 0
    unchanged: int = 0

    @property
    def touched(self) -> int:
        """How many rows of live are not as they were."""
        return self.inserted + self.updated + self.deleted

    def __add__(self, other: Changes) -> Changes:
        return Changes(
            staged=self.staged + other.staged,
            inserted=self.inserted + other.inserted,
            updated=self.updated + other.updated,
            deleted=self.deleted + other.deleted,
            unchanged=self.unchanged + other.unchanged,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Staged:
    """A batch whose rows stand in the shadow, checked for schema and scope, in no reader's way.

    Attributes:
        spec: How the live table is kept; its column names are spelled as the table spells them.
        partition_slice: None for an unpartitioned asset, of which the whole table is staged.
        shadow: Where the rows stand.
        columns: The shadow's data columns, as the live table has or will have them.
        partition_types: The types of the partition expressions, by dimension name.
        rows: Rows staged, by partition key; by `WHOLE_TABLE` for an unpartitioned asset.
        dropped: Rows outside the slice that were left out, as asked.
        live_columns: The live table's columns when the rows were staged; None if there was no table.
        added: Those of `columns` that the live table lacks and gets when the rows are published.
        duplicates: Rows that were left out for a later one of the same key, as asked.
        replaces_shadow: Whether an earlier try of the same run had left a shadow, which was discarded.
        fingerprints: The live partitions before the rows were computed, by partition key; empty if there was no table.
        copied_from: The shadows that the rows stand in, if `shadow` is a copy for the session.
        computed_at: When the computation of each partition began, by its key, where that is known.
    """

    spec: TableSpec
    partition_slice: PartitionSlice | None
    shadow: TableRef
    columns: tuple[Column, ...]
    partition_types: Mapping[str | None, str]
    rows: Mapping[str, int]
    dropped: int
    live_columns: tuple[Column, ...] | None
    added: tuple[Column, ...] = ()
    duplicates: int = 0
    replaces_shadow: bool = False
    fingerprints: Mapping[str, Fingerprint] = field(default_factory=dict[str, Fingerprint])
    copied_from: tuple[TableRef, ...] = ()
    computed_at: Mapping[str, datetime] = field(default_factory=dict[str, datetime])

    @property
    def place(self) -> str:
        """Where a person finds the rows."""
        return listed([*self.copied_from] or [self.shadow])

    @property
    def live_exists(self) -> bool:
        """Whether there was a live table when the rows were staged."""
        return self.live_columns is not None

    @property
    def partitions(self) -> PartitionSlice:
        """The slice.

        Raises:
            SliceError: The asset has no partitions.
        """
        if self.partition_slice is None:
            raise SliceError(f"{self.spec.table} has no partitions, so it can't be published or rolled back by them")
        return self.partition_slice

    @property
    def keys(self) -> tuple[str, ...]:
        """The partition keys, at their positions in the slice; `WHOLE_TABLE` for an unpartitioned asset."""
        return self.partition_slice.keys if self.partition_slice else (WHOLE_TABLE,)


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
        keys = {key for result in self.results for key in result.blocking_keys}
        return tuple(key for key in self.staged.keys if key in keys)


@dataclass(frozen=True, slots=True, kw_only=True)
class Audited(Judged):
    """A staged batch that every blocking audit passed, in every partition."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rejected(Judged):
    """A staged batch that may not be published; its rows stay in the shadow."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Published:
    """A publication: one atomic change of the live table, by partition key.

    Attributes:
        audited: What was published.
        publication_id: Its id in the ledger.
        changes: What it changed, by partition key.
        archive: Where what it replaced is kept; None if it replaced nothing, or nothing is kept.
        expires_at: Until when the archive is kept.
        is_repeated: Whether an earlier try of the same run had published it, so that this one changed nothing.
    """

    audited: Audited
    publication_id: str
    changes: Mapping[str, Changes]
    archive: TableRef | None = None
    expires_at: datetime | None = None
    is_repeated: bool = False

    @property
    def results(self) -> Sequence[AuditResult]:
        """What the audits said before it was published."""
        return self.audited.results


@dataclass(frozen=True, slots=True, kw_only=True)
class RolledBack:
    """A rollback: what publications replaced is live again.

    Attributes:
        table: The live table.
        publication_id: The rollback's own id in the ledger, by which it can be undone.
        undone: The publications that it undid.
        changes: What it changed, by partition key.
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
    changes: Mapping[str, Changes] = field(default_factory=dict[str, Changes])
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
