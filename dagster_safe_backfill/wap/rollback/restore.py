"""Restorations: where the rows that a rollback restores are, and the statements that restore them."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace

from sqlglot import exp

from dagster_safe_backfill.errors import ArchiveNotFoundError, RollbackError
from dagster_safe_backfill.model.events import Fingerprint, RowCounts
from dagster_safe_backfill.model.options import Strategy
from dagster_safe_backfill.model.slices import TableSlice
from dagster_safe_backfill.model.tables import Column, Loss, TableRef, TableSpec, names_of
from dagster_safe_backfill.model.text import listed
from dagster_safe_backfill.sql import publishing, staging, terms
from dagster_safe_backfill.sql.sameness import Sameness
from dagster_safe_backfill.sql.slicing import ROWS, inside, outside, positioned
from dagster_safe_backfill.wap.changes.fingerprints import live_fingerprints
from dagster_safe_backfill.wap.changes.prepare import PreparedChange, prepare_change, slice_write
from dagster_safe_backfill.wap.columns import changed_columns
from dagster_safe_backfill.wap.rollback.undone import UndonePartition, archives_of
from dagster_safe_backfill.warehouses.base import Session

_VIEW = "_sb_restored"
_WIDER = "_sb_with_columns"

Sources = Mapping[TableRef, Sequence[str]]
"""A mapping from each archive to the keys of the partitions whose rows are restored from it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Restoration:
    """A prepared rollback.

    Attributes:
        strategy: How rows are restored.
        sources: The archives that the rows come from.
        rows: A mapping from partition key to the number of restored rows.
        prepared: The change of the live table; it has no statements if the whole table is put back.
        live: The partitions whose rows are restored, of the live table; None if no row is restored.
        table: The live table.
        aside: The new name of the live table, if another table takes its place: an archive, or a clone that doesn't
            have the columns `dropped`.
        dropped: The columns that are dropped.
        remaining: The names of the columns after the rollback.
        unchanged: A mapping from each partition whose rows stay as they are to their number.
        derived: The views of the session that the statements read, to be dropped at the end.
        may_lose: See `Swap.may_lose`.
    """

    strategy: Strategy
    sources: Sources
    rows: Mapping[str, int]
    prepared: PreparedChange
    live: TableSlice | None
    table: TableRef
    aside: TableRef | None = None
    dropped: tuple[str, ...] = ()
    remaining: tuple[str, ...] = ()
    unchanged: Mapping[str, int] = field(default_factory=dict[str, int])
    derived: tuple[TableRef, ...] = ()
    may_lose: tuple[Loss, ...] = ()

    @property
    def row_counts(self) -> Mapping[str, RowCounts]:
        """A mapping from partition key to the row counts of the rollback."""
        kept = {key: RowCounts(staged=count, unchanged=count) for key, count in self.unchanged.items()}
        return {**kept, **self.prepared.row_counts}

    def run(self, session: Session) -> None:
        """Restore the rows and columns, in the caller's transaction."""
        if self.aside is None:
            self.prepared.run(session)
        elif self.dropped:
            self._run_in_clone(session, self.aside)
        else:
            (archive,) = self.sources
            session.tables.put_back(self.table, archive=archive, aside=self.aside, may_lose=self.may_lose)

    def _run_in_clone(self, session: Session, aside: TableRef) -> None:
        """Replace the live table by a clone that doesn't have the dropped columns, and restore the rows in it."""
        kept = outside(inside(self.live)) if self.live is not None and self.prepared.rewrites else exp.true()
        with session.tables.replace(self.table, aside=aside, may_lose=self.may_lose) as new:
            session.tables.reshape(new.clone, dropped=self.dropped, retyped=(), added={})
            rows = exp.select(*terms.columns(self.remaining)).from_(terms.table(new.old)).where(kept)
            session.tables.copy(rows, into=new.clone, columns=self.remaining)
            self.prepared.run(session, clone=new.clone)

    def close(self, session: Session) -> None:
        """Remove derived rows and views from the session."""
        scratch = () if self.prepared.scratch is None else (self.prepared.scratch,)
        for derived in (*scratch, *self.derived):
            session.forget(derived)


def sources_of(session: Session, spec: TableSpec, undoing: Mapping[str, UndonePartition]) -> Sources:
    """Return the archives to restore from, with the partitions of each. Partitions that had no rows are in none.

    Raises:
        ArchiveNotFoundError: The replaced rows of a partition are not kept any more, or never were.
    """
    sources = archives_of(undoing)
    lost: list[str] = []
    for key, one in undoing.items():
        change = one.restored
        # `replaced` is None for changes that were recorded before the library made archives.
        if change.replaced is None or (change.replaced.rows and change.archive is None):
            lost.append(key)
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


def by_partitions(
    session: Session,
    live: TableSlice,
    columns: Sequence[Column],
    sources: Sources,
    *,
    added: Sequence[Column] = (),
    dropped: Collection[str] = (),
) -> Restoration:
    """Return the restoration of a slice only. Columns that are newer than an archive get their default.

    Args:
        session: An open session, in the caller's transaction.
        live: The partitions whose rows are restored.
        columns: The live table's columns after the rollback.
        sources: The archives of the partitions' rows.
        added: Those of the columns that the live table doesn't have, because this is a dry run.
        dropped: The columns that the rollback drops.

    Raises:
        RollbackError: An archive has a column that the live table doesn't have, or has in another type.
    """
    _check_columns(session, live, columns, sources, dropped=dropped)
    names = names_of(columns)
    wider = _with_columns(session, live, columns, added) if added else None
    rows = positioned(_rows(session, live, columns, sources, base=wider or live.table), terms.columns(names), live)
    view = session.derive(_VIEW, rows, kind="view")
    counted = staging.by_key(dict(session.query(staging.rows_by_partition(view))), live.keys)
    key = live.spec.unique_key
    # Archived rows may be older than the unique key, and a MERGE needs it.
    has_key = bool(key) and not session.query(staging.repeated_keys(view, key, Sameness.of(columns, session.dialect)))
    strategy: Strategy = "merge" if has_key else "replace"
    write = slice_write(session, live, shadow=view, columns=columns, clone=wider)
    return Restoration(
        strategy=strategy,
        sources=sources,
        rows=counted,
        prepared=prepare_change(session, write, counted, strategy=strategy, live_exists=True),
        live=live,
        table=live.table,
        remaining=names,
        derived=(view,) if wider is None else (view, wider),
        may_lose=live.spec.may_lose,
    )


def _check_columns(
    session: Session,
    live: TableSlice,
    columns: Sequence[Column],
    sources: Sources,
    *,
    dropped: Collection[str],
) -> None:
    """Refuse to restore rows without values that they had.

    Raises:
        RollbackError: An archive has a column that the live table doesn't have, or has in another type.
    """
    for source, keys in sources.items():
        problems: list[str] = []
        for column in changed_columns(session.tables.columns(source) or (), columns).gone:
            if column.name not in dropped:
                problems.append(f"{column.name} {column.type}")
        if problems:
            raise RollbackError(
                f"{live.table}: the rows of {listed(keys)} in {source} have columns that the table doesn't have any"
                f" more, or has in another type ({listed(sorted(problems))}), so nothing was rolled back. First roll"
                " back what changed the columns, or change them back by hand.",
                table=str(live.table),
                keys=keys,
            )


def _with_columns(session: Session, live: TableSlice, columns: Sequence[Column], added: Sequence[Column]) -> TableRef:
    """Return a view of the live rows as they are once columns are added."""
    values: dict[str, exp.Expr] = {column.name: terms.column(column.name) for column in columns}
    for column, default in staging.with_defaults(live.spec, added, dialect=session.dialect.name).items():
        values[column.name] = terms.typed(default or exp.null(), column.type, dialect=session.dialect.name)
    select = exp.select(*terms.named(values)).from_(terms.table(live.table))
    return session.derive(_WIDER, select, kind="view")


def _rows(
    session: Session, live: TableSlice, columns: Sequence[Column], sources: Sources, *, base: TableRef
) -> exp.Select:
    """Return a SELECT of the rows of all archives, with the columns and types of `base`."""
    # `base` gives the columns and types, even if no archive has rows to restore.
    rows: exp.Query = exp.select(*terms.columns(names_of(columns))).from_(terms.rows(base)).where(exp.false())
    for source, keys in sources.items():
        known = {*names_of(session.tables.columns(source) or ())}
        defaults = staging.with_defaults(live.spec, columns, dialect=session.dialect.name)
        values = {
            column.name: terms.column(column.name)
            if column.name in known
            else terms.typed(default or exp.null(), column.type, dialect=session.dialect.name)
            for column, default in defaults.items()
        }
        part = exp.select(*terms.named(values)).from_(terms.table(source)).where(inside(live.only(keys)))
        rows = exp.union(rows, part, distinct=False)
    return exp.select(exp.Star()).from_(terms.subquery(rows, ROWS))


def of_columns(live: TableSlice, columns: Sequence[Column]) -> Restoration:
    """Return the restoration of a rollback that changes columns only."""
    return Restoration(
        strategy="replace",
        sources={},
        rows={},
        prepared=PreparedChange(row_counts={}),
        live=None,
        table=live.table,
        may_lose=live.spec.may_lose,
        remaining=names_of(columns),
    )


def of_table(session: Session, live: TableSlice, archive: TableRef, *, aside: TableRef) -> Restoration:
    """Return the restoration of a whole table from an archive, for a rollback that puts columns back."""
    back, now = (
        staging.by_key(dict(session.query(publishing.rows_by_partition(table, live))), live.keys)
        for table in (archive, live.table)
    )
    row_counts = {
        key: RowCounts(staged=back.get(key, 0), inserted=back.get(key, 0), deleted=now.get(key, 0)) for key in live.keys
    }
    return Restoration(
        strategy="swap",
        sources={archive: live.keys},
        rows=back,
        prepared=PreparedChange(row_counts=row_counts),
        live=live,
        table=live.table,
        aside=aside,
        may_lose=live.spec.may_lose,
    )


def check_restored(
    session: Session,
    live: TableSlice,
    restoration: Restoration,
    undoing: Mapping[str, UndonePartition],
    after: Mapping[str, Fingerprint],
    *,
    columns: Sequence[Column],
    force: bool,
) -> None:
    """Raise, so that the transaction is rolled back, if restored partitions differ from the replaced rows.

    Args:
        session: An open session, in the rollback's transaction.
        live: The partitions that are rolled back.
        restoration: The restoration, which has run.
        undoing: The changes that are undone.
        after: The fingerprints of the partitions, over the columns `columns`.
        columns: The live table's columns.
        force: True to accept an archive that somebody changed.

    Raises:
        RollbackError: A partition differs.
    """
    wrong: list[str] = []
    names = names_of(columns)
    for source, keys in restoration.sources.items():
        archived = names_of(session.tables.columns(source) or ())
        # Equal rows have other hashes over other columns, and the archive may have fewer than the live table.
        common = tuple(name for name in archived if name in names)
        found = after if common == names else live_fingerprints(session, live.only(keys), columns, common)
        if common != archived:
            # On Snowflake, an archive may have columns that were added for its publication, and are dropped now.
            found = {key: replace(found[key], algorithm="") for key in keys}
        was = {key: undoing[key].restored.replaced for key in keys if undoing[key].has_rows}
        wrong += [key for key, before in was.items() if before is not None and not before.is_like(found[key])]
    if wrong and not force:
        raise RollbackError(
            f"{live.table}: the archive of {listed(wrong)} doesn't hold what was replaced, so nothing was rolled back."
            " With force, the rollback restores the rows that the archive holds.",
            table=str(live.table),
            keys=wrong,
        )
