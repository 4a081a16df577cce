"""The states of a batch, as types: a transition takes the one before and returns the next.

```text
compute ──write──▶ Staged ──audit──▶ Audited ──publish──▶ Published
                                └──▶ Rejected
```
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from dagster_safe_backfill.domain.slices import PartitionSlice
from dagster_safe_backfill.domain.tables import Column, TableRef, TableSpec
from dagster_safe_backfill.domain.verdicts import AuditResult

Strategy = Literal["merge", "replace"]

WHOLE_TABLE = "*"
"""Stands for the key of an asset without partitions."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """Who writes, and for which publication: recorded in every row of the ledger."""

    run_id: str
    publication_id: str
    backfill_id: str | None = None
    code_version: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Changes:
    """What a publication does to one partition, in rows. Staged = inserted + updated + unchanged."""

    staged: int = 0
    inserted: int = 0
    updated: int = 0
    deleted: int = 0
    unchanged: int = 0

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
        live_exists: Whether there was a live table when the rows were staged.
    """

    spec: TableSpec
    partition_slice: PartitionSlice | None
    shadow: TableRef
    columns: tuple[Column, ...]
    partition_types: Mapping[str | None, str]
    rows: Mapping[str, int]
    dropped: int
    live_exists: bool

    @property
    def keys(self) -> tuple[str, ...]:
        """The partition keys, at their positions in the slice; `WHOLE_TABLE` for an unpartitioned asset."""
        return self.partition_slice.keys if self.partition_slice else (WHOLE_TABLE,)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Judged:
    """A staged batch with the verdicts on it.

    Attributes:
        staged: What was audited.
        results: A result for each audit.
        live_rows: How many rows live had of each partition then, by key; None if they could not be counted.
    """

    staged: Staged
    results: Sequence[AuditResult]
    live_rows: Mapping[str, int] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Audited(_Judged):
    """A staged batch that every blocking audit passed, in every partition."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rejected(_Judged):
    """A staged batch that may not be published; its rows stay in the shadow."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Published:
    """A publication: one atomic change of the live table, by partition key."""

    audited: Audited
    publication_id: str
    strategy: Strategy
    changes: Mapping[str, Changes]

    @property
    def results(self) -> Sequence[AuditResult]:
        """What the audits said before it was published."""
        return self.audited.results
