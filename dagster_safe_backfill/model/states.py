"""The states of a batch, as types: each transition takes one state and returns the next.

```text
compute ──write──▶ Staged ──audit──▶ Audited ──publish──▶ Published ──rollback──▶ RolledBack
                                └──▶ Rejected
```

`LiveRows` is not such a state: it describes rows that are live already, which audits and rollbacks read.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import InitVar, dataclass, field
from datetime import datetime, timedelta
from typing import Final

from dagster_safe_backfill.audits.verdicts import AuditResult
from dagster_safe_backfill.errors import PublishError
from dagster_safe_backfill.model.events import Event, Fingerprint, RowCounts
from dagster_safe_backfill.model.provenance import Provenance
from dagster_safe_backfill.model.slices import PartitionSlice, TableSlice
from dagster_safe_backfill.model.tables import Column, TableRef, TableSpec, names_of
from dagster_safe_backfill.model.text import listed


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """The run, publication and code that wrote a row of the ledger; recorded in every row.

    Attributes:
        run_id: The id of the run.
        publication_id: The id of the publication that the run makes.
        backfill_id: The id of the run's backfill; None if it has none.
        code_version: The asset's `code_version`.
        asset_key: The key of the asset that works on the table; None if no asset does, as for the output of an op.
        former_keys: The keys that the asset had before. Their rows in the ledger count as the asset's own.
        group: The id of the backfill or run whose partitions are published together. Defaults to `publication_id`.
    """

    run_id: str
    publication_id: str
    backfill_id: str | None = None
    code_version: str | None = None
    asset_key: str | None = None
    former_keys: tuple[str, ...] = ()
    group: str = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "group", self.group or self.publication_id)

    @property
    def assets(self) -> tuple[str, ...]:
        """All keys of the asset, present and former; empty if no asset works on the table."""
        return () if self.asset_key is None else (self.asset_key, *self.former_keys)


@dataclass(frozen=True, slots=True, kw_only=True)
class Archive:
    """The table in which the rows that a change replaced are kept.

    Attributes:
        table: The archive, with at least the previous rows of `keys`; None if no rows are kept.
        keys: The keys of the partitions whose previous rows are in the archive.
        keep_for: How long the archive is kept after the change was recorded.
    """

    table: TableRef | None = None
    keys: tuple[str, ...] = ()
    keep_for: timedelta = timedelta()


@dataclass(frozen=True, slots=True, kw_only=True)
class StagedPartition:
    """The newest row of the ledger for one partition in one group.

    Attributes:
        key: The partition key.
        event: The event of that row. After a change of the live table, or once another group has reused the rows,
            nothing is staged any longer.
        group: See `Origin.group`.
        shadow: The table that holds the staged rows; None if nothing is staged any longer.
        run_id: The id of the run that recorded the event.
        code_version: The asset's `code_version` at that time.
        asset_key: The key of the asset that staged or published; None if a version that didn't record it did.
        provenance: What made the rows; None if it isn't recorded.
        computed_by: The id of the run that computed the rows.
        fingerprint: The fingerprint of the live partition when the rows were staged.
        columns: The names of the live table's columns when the rows were staged; None if there was no live table.
        rows: The number of staged rows.
        left: A mapping from each other partition in which a key of the rows was live to its fingerprint before they
            were computed, if keys may move.
        publication_id: The id of the publication that the rows were staged for, or of the change of the live table.
        recorded_at: The time of the event.
        computed_at: The time when the computation of the rows began. Ledgers of earlier versions have only the time
            when it ended.
    """

    key: str
    event: Event
    group: str
    shadow: TableRef | None
    run_id: str
    code_version: str | None
    asset_key: str | None
    provenance: Provenance | None
    computed_by: str
    fingerprint: Fingerprint
    columns: tuple[str, ...] | None
    rows: int
    publication_id: str
    recorded_at: datetime
    computed_at: datetime
    left: Mapping[str, Fingerprint] = field(default_factory=dict[str, Fingerprint])

    def knows(self, names: tuple[str, ...] | None) -> bool:
        """Return True if the rows were staged for a live table with these columns; `names` is None if there is none.

        Also True if there was no live table then, because a table that was created since has no rows of the partition.
        """
        return self.columns is None or self.columns == names


@dataclass(frozen=True, slots=True, kw_only=True)
class Staged:
    """A batch whose rows are in the shadow, which readers of the live table don't see.

    The columns fit the live table, and every row belongs to a partition of the batch.

    Attributes:
        table_slice: The batch's partitions of the live table. Column names are spelled as in the live table.
        shadow: The table that holds the rows.
        columns: The shadow's data columns, as the live table has or will have them.
        rows: A mapping from partition key to the number of staged rows. The key of an unpartitioned asset is
            `WHOLE_TABLE`.
        live_columns: The live table's columns when the rows were staged; None if there was no live table.
        dropped: The number of rows outside the slice that were left out, with `on_outside="drop"`.
        duplicates: The number of rows that were left out for a later row of the same key, with `keep_latest`.
        replaces_shadow: True if an earlier attempt of the same run had left a shadow, which was discarded.
        fingerprints: A mapping from partition key to the fingerprint of the live partition before the rows were
            computed; empty if there was no live table.
        left: A mapping from partition key to `StagedPartition.left`, without keys for which no row moves.
        copied_from: The shadows that hold the rows, if `shadow` is a copy for the session.
        moved: The staged partitions that no longer wait once these rows are published.
        rest: If the batch is a part of another one, the shadow that keeps the other partitions, and the positions in
            it of the partitions that are removed from it once this part is published.
        computed_at: A mapping from partition key to the time when its computation began, where that is known.
        computed_by: A mapping from partition key to the id of the run that computed it, if that isn't the staging run.
        provenance: A mapping from partition key to what made its rows, where that is known.
        spec: The `TableSpec` of the live table.
        partition_slice: The partitions of the batch; None for an unpartitioned asset, whose whole table is staged.
        keys: The partition keys, in the order of the slice; `WHOLE_TABLE` alone for an unpartitioned asset.
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
    left: Mapping[str, Mapping[str, Fingerprint]] = field(default_factory=dict[str, "Mapping[str, Fingerprint]"])
    copied_from: tuple[TableRef, ...] = ()
    moved: tuple[StagedPartition, ...] = ()
    rest: tuple[TableRef, tuple[int, ...]] | None = None
    computed_at: Mapping[str, datetime] = field(default_factory=dict[str, datetime])
    computed_by: Mapping[str, str] = field(default_factory=dict[str, str])
    provenance: Mapping[str, Provenance] = field(default_factory=dict[str, Provenance])
    spec: TableSpec = field(init=False)
    partition_slice: PartitionSlice | None = field(init=False)
    keys: tuple[str, ...] = field(init=False)

    def __post_init__(self) -> None:
        # Set once, because loops over partitions read them.
        object.__setattr__(self, "spec", self.table_slice.spec)
        object.__setattr__(self, "partition_slice", self.table_slice.partition_slice)
        object.__setattr__(self, "keys", self.table_slice.keys)

    @property
    def place(self) -> str:
        """The names of the tables in which users find the rows."""
        return listed([*self.copied_from] or [self.shadow])

    @property
    def is_partial(self) -> bool:
        """True if the live table has columns, apart from `updated_at_column`, that the rows don't have."""
        names = {*names_of(self.columns), self.spec.updated_at_column}
        return not names.issuperset(names_of(self.live_columns or ()))

    @property
    def added(self) -> tuple[Column, ...]:
        """The columns that the live table doesn't have yet; publishing the rows adds them."""
        if self.live_columns is None or names_of(self.columns) == names_of(self.live_columns):
            return ()
        known = {*names_of(self.live_columns)}
        return tuple([column for column in self.columns if column.name not in known])


@dataclass(frozen=True, slots=True, kw_only=True)
class LiveRows:
    """The current live rows of some partitions.

    Attributes:
        table_slice: The partitions of the live table.
        columns: The live table's columns.
        view: A relation of the session with the rows, and the position of each row's partition in the slice.
        rows: A mapping from partition key to the number of live rows.
    """

    table_slice: TableSlice
    columns: tuple[Column, ...]
    view: TableRef
    rows: Mapping[str, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """A staged batch and the results of its audits.

    Attributes:
        staged: The batch that was audited.
        results: The results, one for each audit.
        live_rows: A mapping from partition key to the number of live rows at the time of the audit; None if they could
            not be counted.
    """

    staged: Staged
    results: Sequence[AuditResult]
    live_rows: Mapping[str, int] | None = None

    @property
    def blocked(self) -> tuple[str, ...]:
        """The keys of the partitions that an audit forbids to publish, in the order of the slice."""
        blocking = {key for result in self.results for key in result.blocking_keys}
        return tuple(filter(blocking.__contains__, self.staged.keys))


class Seal:
    """The proof that an audit made an `Audited`."""


AUDIT_SEAL: Final = Seal()
"""Only wap/audit.py imports it; a test of the imports checks that."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Audited(Judged):
    """A staged batch that passed every blocking audit in every partition; only wap/audit.py makes it.

    Raises:
        PublishError: `seal` isn't `AUDIT_SEAL`, or an audit forbids to publish a partition.
    """

    # An InitVar isn't stored, so `dataclasses.replace` of an Audited raises, too, unless it is given the seal.
    seal: InitVar[Seal | None] = None

    def __post_init__(self, seal: Seal | None) -> None:
        table = self.staged.table_slice.table
        # Compared by identity, so that another `Seal()` is refused.
        if seal is not AUDIT_SEAL:
            raise PublishError(f"{table}: only an audit can make an Audited", table=str(table))
        if self.blocked:
            raise PublishError(f"{table}: audits forbid to publish {listed(self.blocked)}", table=str(table))


@dataclass(frozen=True, slots=True, kw_only=True)
class Rejected(Judged):
    """A staged batch that an audit forbids to publish; its rows stay in the shadow."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Published:
    """A publication: one atomic change of partitions of the live table.

    Attributes:
        audited: The batch that was published.
        publication_id: The publication's id in the ledger.
        row_counts: A mapping from partition key to row counts: of the batch, then of what rows left for it.
        archive: The table that keeps the replaced rows; None if no rows were replaced, or none are kept.
        expires_at: The time until which the archive is kept.
        is_repeated: True if an earlier attempt of the run had published the batch, so that this one changed nothing.
        select: The SQL of a SELECT of the batch's live rows.
    """

    audited: Audited
    publication_id: str
    row_counts: Mapping[str, RowCounts]
    archive: TableRef | None = None
    expires_at: datetime | None = None
    is_repeated: bool = False
    select: str = ""

    @property
    def left(self) -> Mapping[str, RowCounts]:
        """The row counts of the partitions that rows left for the batch."""
        return {key: self.row_counts[key] for key in self.row_counts if key not in self.audited.staged.keys}


@dataclass(frozen=True, slots=True, kw_only=True)
class RolledBack:
    """A rollback: the rows that publications replaced are live again.

    Attributes:
        table: The live table.
        publication_id: The rollback's own id in the ledger, with which it can be rolled back.
        undone: The ids of the publications that were rolled back.
        layers: The ids of all changes that were undone: with `force`, also of those on top of these publications.
        replaced: A mapping from partition key to the fingerprint of the live rows before the rollback.
        row_counts: A mapping from partition key to the numbers of rows that changed.
        already: A mapping from the keys of partitions that were already rolled back to the id of that rollback.
        untouched: The keys of the partitions in which the publications had changed nothing.
        removed: The keys of the partitions that have no rows now because they had none before the publications.
        dropped_columns: The columns that the publications had added, and that the rollback dropped.
        kept_columns: The columns that the publications had added, and that stay because other partitions use them.
        restored_columns: The columns that the publications had dropped or changed, and that are back.
        archive: The table that keeps the rows that the rollback replaced; None if it replaced none.
        expires_at: The time until which the archive is kept.
        is_dry: True if the rollback was only simulated.
    """

    table: TableRef
    publication_id: str
    undone: tuple[str, ...]
    layers: tuple[str, ...] = ()
    replaced: Mapping[str, Fingerprint] = field(default_factory=dict[str, Fingerprint])
    row_counts: Mapping[str, RowCounts] = field(default_factory=dict[str, RowCounts])
    already: Mapping[str, str] = field(default_factory=dict[str, str])
    untouched: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()
    dropped_columns: tuple[str, ...] = ()
    kept_columns: tuple[str, ...] = ()
    restored_columns: tuple[str, ...] = ()
    archive: TableRef | None = None
    expires_at: datetime | None = None
    is_dry: bool = False
