"""Restorations: where the rows of partitions on their way back are, and the statements that put them back."""

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
from dagster_safe_backfill.sql.slicing import ROWS, inside, positioned
from dagster_safe_backfill.wap.changes.prepare import PreparedChange, prepare_change, slice_write
from dagster_safe_backfill.wap.columns import changed_columns
from dagster_safe_backfill.wap.ledger.history import Change
from dagster_safe_backfill.wap.rollback.histories import RollbackPath
from dagster_safe_backfill.warehouses.base import Session

_VIEW = "_sb_restored"

Sources = Mapping[TableRef, Sequence[str]]
"""The tables that rows come back from, with the partitions for which they do."""


@dataclass(frozen=True, slots=True, kw_only=True)
class UndonePartition:
    """One partition on its way back.

    Attributes:
        path: Which of its changes are undone.
        history: Those of its changes that changed rows, and all rollbacks; the oldest first.
    """

    path: RollbackPath
    history: Sequence[Change]

    @property
    def restored(self) -> Change:
        """The lowest layer that changed any row: what it replaced is restored."""
        return next(layer for layer in self.layers if layer.row_counts.touched)

    @property
    def is_needless(self) -> bool:
        """Whether no layer changed any row: a rollback that found everything in place."""
        return not any(layer.row_counts.touched for layer in self.layers)

    @property
    def newest(self) -> Change:
        """The last change of the partition."""
        return self.history[-1]

    @property
    def layers(self) -> list[Change]:
        """All changes that are undone, the lowest first."""
        return [self.history[i] for i in sorted((*self.path.undone, *self.path.over))]

    @property
    def is_changed_by_hand(self) -> bool:
        """Whether something that the ledger doesn't tell of changed rows on top of one of the layers."""
        layers = self.layers
        pairs = [(lower, upper, upper.replaced) for lower, upper in pairwise(layers)]
        if layers[-1] is not self.newest:
            pairs.append((layers[-1], self.newest, self.newest.fingerprint))
        return any(_differs(lower, upper, found) for lower, upper, found in pairs)


def _differs(lower: Change, upper: Change, found: Fingerprint | None) -> bool:
    """Return whether `found`, of the rows that `upper` saw, tells that they weren't those after `lower`."""
    was = lower.fingerprint
    if was is None or found is None:
        return False
    # Over other columns the same rows hash otherwise.
    return not found.is_like(was) if lower.columns == upper.columns else found.rows != was.rows


@dataclass(frozen=True, slots=True, kw_only=True)
class Restoration:
    """What a rollback would do.

    Attributes:
        strategy: How rows are put back.
        sources: Where they come from.
        rows: How many come back, by partition key.
        prepared: What changes, and the statements that do it; none where the whole table is put back.
        live: The live table.
        aside: Where the whole live table goes, if all of it is put back.
        view: The rows that come back, to be dropped at the end.
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
        """What each partition gets."""
        return self.prepared.row_counts

    def run(self, session: Session) -> None:
        """Put the rows back, in the caller's transaction."""
        if self.aside is not None:
            (archive,) = self.sources
            session.tables.put_back(self.live, archive=archive, aside=self.aside)
        self.prepared.run(session)

    def close(self, session: Session) -> None:
        """Leave nothing behind in the session."""
        self.prepared.close(session)
        if self.view is not None:
            session.forget(self.view)


def sources_of(session: Session, spec: TableSpec, undoing: Mapping[str, UndonePartition]) -> Sources:
    """Return where each partition's rows come back from; those that get no rows are in none.

    Raises:
        ArchiveNotFoundError: What some had was not kept.
    """
    sources: dict[TableRef, list[str]] = {}
    lost: list[str] = []
    for key, one in undoing.items():
        change = one.restored
        if change.replaced is None or (change.replaced.rows and change.archive is None):
            lost.append(key)
        elif change.replaced.rows and change.archive is not None:
            sources.setdefault(change.archive, []).append(key)
    for table in [*sources]:
        if session.tables.columns(table) is None:
            lost += sources.pop(table)
    if lost:
        raise ArchiveNotFoundError(
            f"{spec.table}: what was replaced in {listed(lost)} isn't kept any more, or never was (archive_days says"
            " for how long), so nothing was rolled back; compute these partitions anew",
            table=str(spec.table),
            keys=lost,
        )
    return sources


def is_reshaped(session: Session, live: Sequence[Column], sources: Sources) -> bool:
    """Return whether live has lost columns of an archive since, or changed their types."""
    return any(changed_columns(session.tables.columns(source) or (), live).gone for source in sources)


def by_partitions(
    session: Session, table_slice: TableSlice, columns: Sequence[Column], sources: Sources
) -> Restoration:
    """Return how just the slice is restored; columns that an archive is older than get their default.

    Args:
        session: An open session, in the caller's transaction.
        table_slice: The partitions that go back.
        columns: The live table's.
        sources: Where their rows are.
    """
    names = names_of(columns)
    rows = _rows(session, table_slice, columns, sources)
    view = session.derive(_VIEW, positioned(rows, terms.columns(names), table_slice), kind="view")
    counted = staging.by_key(dict(session.query(staging.rows_by_partition(view))), table_slice.keys)
    key = table_slice.spec.unique_key
    # Older rows need not have the unique key.
    has_key = bool(key) and not session.query(staging.repeated_keys(view, key))
    strategy: Strategy = "merge" if has_key else "replace"
    write = slice_write(session, table_slice, shadow=view, names=names)
    return Restoration(
        strategy=strategy,
        sources=sources,
        rows=counted,
        prepared=prepare_change(session, write, counted, strategy=strategy, live_exists=True),
        live=table_slice.table,
        view=view,
    )


def _rows(session: Session, table_slice: TableSlice, columns: Sequence[Column], sources: Sources) -> exp.Select:
    """Return the rows of all sources, with live's columns."""
    names = names_of(columns)
    live = exp.select(*terms.columns(names)).from_(terms.table(table_slice.table))
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
    """Return how a whole table is restored whose columns were other ones."""
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
