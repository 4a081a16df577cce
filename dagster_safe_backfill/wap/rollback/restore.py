"""Restorations: where the rows that a rollback restores are, and the statements that restore them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from sqlglot import exp

from dagster_safe_backfill.errors import ArchiveNotFoundError
from dagster_safe_backfill.model.options import Strategy
from dagster_safe_backfill.model.slices import TableSlice
from dagster_safe_backfill.model.states import Fingerprint, RowCounts
from dagster_safe_backfill.model.tables import Column, TableRef, TableSpec, names_of
from dagster_safe_backfill.model.text import listed
from dagster_safe_backfill.sql import publishing, staging, terms
from dagster_safe_backfill.sql.sameness import Sameness
from dagster_safe_backfill.sql.slicing import ROWS, inside, positioned
from dagster_safe_backfill.wap.changes.prepare import PreparedChange, prepare_change, slice_write
from dagster_safe_backfill.wap.columns import changed_columns
from dagster_safe_backfill.wap.ledger.history import Change
from dagster_safe_backfill.wap.rollback.histories import RollbackPath
from dagster_safe_backfill.warehouses.base import Session

_VIEW = "_sb_restored"

Sources = Mapping[TableRef, Sequence[str]]
"""A mapping from each archive to the keys of the partitions whose rows are restored from it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class UndonePartition:
    """A partition that is rolled back.

    Attributes:
        path: The changes to undo.
        history: The partition's changes that changed rows, and all its rollbacks; the oldest first.
    """

    path: RollbackPath
    history: Sequence[Change]

    @property
    def restored(self) -> Change:
        """The oldest undone change that changed any row; the rows that it replaced are restored."""
        # A layer that changed no row replaced none, so it has no archive.
        return next(layer for layer in self.layers if layer.row_counts.touched)

    @property
    def is_needless(self) -> bool:
        """True if no undone change changed any row, such as a rollback whose rows were already in place."""
        return not any(layer.row_counts.touched for layer in self.layers)

    @property
    def newest(self) -> Change:
        """The last change of the partition."""
        return self.history[-1]

    @property
    def layers(self) -> list[Change]:
        """All changes that are undone, the oldest first."""
        return [self.history[i] for i in sorted((*self.path.undone, *self.path.over))]

    @property
    def is_changed_by_hand(self) -> bool:
        """True if something that the ledger doesn't record changed rows after one of the undone changes."""
        layers = self.layers
        pairs = [(lower, upper, upper.replaced) for lower, upper in pairwise(layers)]
        if layers[-1] is not self.newest:
            pairs.append((layers[-1], self.newest, self.newest.fingerprint))
        return any(_differs(lower, upper, found) for lower, upper, found in pairs)


def _differs(lower: Change, upper: Change, found: Fingerprint | None) -> bool:
    """Return True if `found`, the fingerprint before `upper`, shows other rows than those after `lower`."""
    was = lower.fingerprint
    if was is None or found is None:
        return False
    # Equal rows have other hashes over other columns, so only their numbers can be compared.
    return not found.is_like(was) if lower.columns == upper.columns else found.rows != was.rows


@dataclass(frozen=True, slots=True, kw_only=True)
class Restoration:
    """A prepared rollback.

    Attributes:
        strategy: How rows are restored.
        sources: The archives that the rows come from.
        rows: A mapping from partition key to the number of restored rows.
        prepared: The change of the live table; it has no statements if the whole table is put back.
        live: The live table.
        aside: The new name of the live table, if an archive takes its place.
        view: A view of the restored rows, to be dropped at the end.
    """

    strategy: Strategy
    sources: Sources
    rows: Mapping[str, int]
    prepared: PreparedChange
    live: TableRef
    aside: TableRef | None = None
    view: TableRef | None = None

    @property
    def row_counts(self) -> Mapping[str, RowCounts]:
        """A mapping from partition key to the row counts of the rollback."""
        return self.prepared.row_counts

    def run(self, session: Session) -> None:
        """Restore the rows, in the caller's transaction."""
        if self.aside is not None:
            (archive,) = self.sources
            session.tables.put_back(self.live, archive=archive, aside=self.aside)
        self.prepared.run(session)

    def close(self, session: Session) -> None:
        """Remove derived rows and the view from the session."""
        for derived in (self.prepared.scratch, self.view):
            if derived is not None:
                session.forget(derived)


def sources_of(session: Session, spec: TableSpec, undoing: Mapping[str, UndonePartition]) -> Sources:
    """Return the archives to restore from, with the partitions of each. Partitions that had no rows are in none.

    Raises:
        ArchiveNotFoundError: The replaced rows of a partition are not kept any more, or never were.
    """
    sources: dict[TableRef, list[str]] = {}
    lost: list[str] = []
    for key, one in undoing.items():
        change = one.restored
        # `replaced` is None for changes that were recorded before the library made archives.
        if change.replaced is None or (change.replaced.rows and change.archive is None):
            lost.append(key)
        elif change.replaced.rows and change.archive is not None:
            sources.setdefault(change.archive, []).append(key)
    # A copy, because the loop removes archives that were dropped after they had expired, or by hand.
    for table in [*sources]:
        if session.tables.columns(table) is None:
            lost += sources.pop(table)
    if lost:
        raise ArchiveNotFoundError(
            f"{spec.table}: the replaced rows of {listed(lost)} are not kept any more, or never were (archive_days sets"
            " for how long), so nothing was rolled back. Compute these partitions again.",
            table=str(spec.table),
            keys=lost,
        )
    return sources


def is_reshaped(session: Session, live: Sequence[Column], sources: Sources) -> bool:
    """Return True if the live table has lost a column that an archive has, or changed its type."""
    return any(changed_columns(session.tables.columns(source) or (), live).gone for source in sources)


def by_partitions(
    session: Session, table_slice: TableSlice, columns: Sequence[Column], sources: Sources
) -> Restoration:
    """Return the restoration of the slice only. Columns that are newer than an archive get their default.

    Args:
        session: An open session, in the caller's transaction.
        table_slice: The partitions to roll back.
        columns: The live table's columns.
        sources: The archives of the partitions' rows.
    """
    names = names_of(columns)
    rows = _rows(session, table_slice, columns, sources)
    view = session.derive(_VIEW, positioned(rows, terms.columns(names), table_slice), kind="view")
    counted = staging.by_key(dict(session.query(staging.rows_by_partition(view))), table_slice.keys)
    key = table_slice.spec.unique_key
    # Archived rows may be older than the unique key, and a MERGE needs it.
    has_key = bool(key) and not session.query(staging.repeated_keys(view, key, Sameness.of(columns, session.dialect)))
    strategy: Strategy = "merge" if has_key else "replace"
    write = slice_write(session, table_slice, shadow=view, columns=columns)
    return Restoration(
        strategy=strategy,
        sources=sources,
        rows=counted,
        prepared=prepare_change(session, write, counted, strategy=strategy, live_exists=True),
        live=table_slice.table,
        view=view,
    )


def _rows(session: Session, table_slice: TableSlice, columns: Sequence[Column], sources: Sources) -> exp.Select:
    """Return a SELECT of the rows of all archives, with the live table's columns."""
    names = names_of(columns)
    live = exp.select(*terms.columns(names)).from_(terms.table(table_slice.table))
    # The live table gives the columns and types, even if no archive has rows to restore.
    rows: exp.Query = live.where(exp.false())
    for source, keys in sources.items():
        known = {*names_of(session.tables.columns(source) or ())}
        defaults = staging.with_defaults(table_slice.spec, columns, dialect=session.dialect.name)
        values = {
            column.name: terms.column(column.name)
            if column.name in known
            else terms.typed(default or exp.null(), column.type, dialect=session.dialect.name)
            for column, default in defaults.items()
        }
        part = exp.select(*terms.named(values)).from_(terms.table(source)).where(inside(table_slice.only(keys)))
        rows = exp.union(rows, part, distinct=False)
    return exp.select(exp.Star()).from_(terms.subquery(rows, ROWS))


def of_table(session: Session, table_slice: TableSlice, sources: Sources, *, archive: TableRef) -> Restoration:
    """Return the restoration of a whole table, for a rollback that changes its columns back."""
    (source,) = sources
    back, now = (
        staging.by_key(dict(session.query(publishing.rows_by_partition(table, table_slice))), table_slice.keys)
        for table in (source, table_slice.table)
    )
    row_counts = {
        key: RowCounts(staged=back.get(key, 0), inserted=back.get(key, 0), deleted=now.get(key, 0))
        for key in table_slice.keys
    }
    return Restoration(
        strategy="swap",
        sources=sources,
        rows=back,
        prepared=PreparedChange(row_counts=row_counts),
        live=table_slice.table,
        aside=archive,
    )
