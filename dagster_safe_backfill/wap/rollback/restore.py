"""restore: where the rows of partitions on their way back are, and the statements that put them back."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

from sqlglot import exp

from dagster_safe_backfill.errors import ArchiveNotFoundError
from dagster_safe_backfill.model.options import Strategy
from dagster_safe_backfill.model.slices import PartitionSlice
from dagster_safe_backfill.model.states import Changes, Fingerprint, Staged
from dagster_safe_backfill.model.tables import Column, TableRef, TableSpec
from dagster_safe_backfill.model.text import listed
from dagster_safe_backfill.sql import publishing, staging, terms
from dagster_safe_backfill.sql.slicing import ROWS, PartitionColumns, positioned, rows_of
from dagster_safe_backfill.wap.changes.plan import Plan, planned
from dagster_safe_backfill.wap.ledger.ledger import Entry
from dagster_safe_backfill.wap.recognition import columns_of
from dagster_safe_backfill.wap.rollback.histories import Way
from dagster_safe_backfill.warehouses.base import Connection

_VIEW = "_sb_restored"

Sources = Mapping[TableRef, Sequence[str]]
"""The tables that rows come back from, with the partitions for which they do."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Undoing:
    """One partition on its way back.

    Attributes:
        way: Which of its changes are undone.
        history: Those of its changes that changed rows, and all rollbacks; the oldest first.
    """

    way: Way
    history: Sequence[Entry]

    @property
    def restored(self) -> Entry:
        """The lowest layer that changed any row: what it replaced is restored."""
        return next(layer for layer in self.layers if layer.changes.touched)

    @property
    def is_needless(self) -> bool:
        """Whether no layer changed any row: a rollback that found everything in place."""
        return not any(layer.changes.touched for layer in self.layers)

    @property
    def newest(self) -> Entry:
        """The last change of the partition."""
        return self.history[-1]

    @property
    def layers(self) -> list[Entry]:
        """All changes that are undone, the lowest first."""
        return [self.history[i] for i in sorted((*self.way.undone, *self.way.over))]

    @property
    def is_changed_by_hand(self) -> bool:
        """Whether something that the ledger doesn't tell of changed rows on top of one of the layers."""
        layers = self.layers
        pairs = [(lower, upper, upper.replaced) for lower, upper in pairwise(layers)]
        if layers[-1] is not self.newest:
            pairs.append((layers[-1], self.newest, self.newest.fingerprint))
        return any(_differs(lower, upper, found) for lower, upper, found in pairs)


def _differs(lower: Entry, upper: Entry, found: Fingerprint | None) -> bool:
    """Return whether `found`, of the rows that `upper` saw, tells that they weren't those that `lower` left."""
    left = lower.fingerprint
    if left is None or found is None:
        return False
    # Over other columns the same rows hash otherwise.
    return not found.is_like(left) if lower.columns == upper.columns else found.rows != left.rows


@dataclass(frozen=True, slots=True, kw_only=True)
class WayBack:
    """What a rollback would do.

    Attributes:
        strategy: How rows are put back.
        sources: Where they come from.
        rows: How many come back, by partition key.
        plan: What changes, and the statements that do it; none where the whole table is put back.
        aside: Where the whole live table goes, if all of it is put back.
        view: The rows that come back, to be dropped at the end.
    """

    strategy: Strategy
    sources: Sources
    rows: Mapping[str, int]
    plan: Plan
    live: TableRef
    aside: TableRef | None = None
    view: TableRef | None = None

    @property
    def changes(self) -> Mapping[str, Changes]:
        """What each partition gets."""
        return self.plan.changes

    def run(self, connection: Connection) -> None:
        """Put the rows back, in the caller's transaction."""
        if self.aside is not None:
            (archive,) = self.sources
            connection.put_back(self.live, archive=archive, aside=self.aside)
        self.plan.run(connection)

    def close(self, connection: Connection) -> None:
        """Leave nothing behind in the session."""
        self.plan.close(connection)
        if self.view is not None:
            connection.forget(self.view)


def sources_of(connection: Connection, spec: TableSpec, undoing: Mapping[str, Undoing]) -> Sources:
    """Return where each partition's rows come back from; those that get no rows are in none.

    Raises:
        ArchiveNotFoundError: What some had was not kept.
    """
    sources: dict[TableRef, list[str]] = {}
    lost: list[str] = []
    for key, one in undoing.items():
        entry = one.restored
        if entry.replaced is None or (entry.replaced.rows and entry.archive is None):
            lost.append(key)
        elif entry.replaced.rows and entry.archive is not None:
            sources.setdefault(entry.archive, []).append(key)
    for table in [*sources]:
        if connection.columns(table) is None:
            lost += sources.pop(table)
    if lost:
        raise ArchiveNotFoundError(
            f"{spec.table}: what was replaced in {listed(lost)} isn't kept any more, or never was (archive_days says"
            " for how long), so nothing was rolled back; compute these partitions anew",
            table=str(spec.table),
            keys=lost,
        )
    return sources


def is_reshaped(connection: Connection, staged: Staged, sources: Sources) -> bool:
    """Return whether live has lost columns of an archive since, or changed their types."""
    live = set(staged.columns)
    return any(not live.issuperset(connection.columns(source) or ()) for source in sources)


def by_partitions(
    connection: Connection,
    staged: Staged,
    sources: Sources,
    *,
    slice_of: Callable[[Sequence[str]], PartitionSlice],
) -> WayBack:
    """Return the way back of just the slice; columns that an archive is older than get their default."""
    columns = columns_of(connection, staged)
    rows = _rows(connection, staged, sources, columns, slice_of)
    items = [terms.column(column.name) for column in staged.columns]
    select = positioned(rows, items, partition_slice=staged.partition_slice, columns=columns)
    view = connection.derived(_VIEW, select, kind="VIEW")
    counted = staging.by_key(connection.run(staging.rows_by_partition(view)), staged.keys)
    staged = replace(staged, shadow=view, rows=counted)
    strategy: Strategy = "merge" if staged.spec.unique_key and _has_key(connection, staged) else "replace"
    return WayBack(
        strategy=strategy,
        sources=sources,
        rows=counted,
        plan=planned(connection, staged, strategy=strategy, live_exists=True),
        live=staged.spec.table,
        view=view,
    )


def _rows(
    connection: Connection,
    staged: Staged,
    sources: Sources,
    columns: PartitionColumns,
    slice_of: Callable[[Sequence[str]], PartitionSlice],
) -> exp.Select:
    """Return the rows of all sources, with live's columns."""
    live = exp.select(*(terms.column(column.name) for column in staged.columns)).from_(terms.table(staged.spec.table))
    rows: exp.Query = live.where(exp.false())
    for source, keys in sources.items():
        known = {column.name for column in connection.columns(source) or ()}
        values = {
            column.name: terms.column(column.name) if column.name in known else _default(connection, staged, column)
            for column in staged.columns
        }
        part = exp.select(*terms.named(values)).from_(terms.table(source)).where(rows_of(slice_of(keys), columns))
        rows = exp.union(rows, part, distinct=False)
    return exp.select(exp.Star()).from_(terms.subquery(rows, ROWS))


def _default(connection: Connection, staged: Staged, column: Column) -> exp.Expr:
    sql = {name.casefold(): text for name, text in staged.spec.column_defaults.items()}.get(column.name.casefold())
    option = f"{staged.spec.table}: column_defaults"
    value = exp.null() if sql is None else terms.parsed(sql, dialect=connection.dialect, option=option)
    return terms.typed(value, column.type, dialect=connection.dialect)


def _has_key(connection: Connection, staged: Staged) -> bool:
    """Return whether the rows that come back have the unique key, as older rows need not."""
    return not connection.run(staging.repeated_keys(staged.shadow, staged.spec.unique_key))


def whole(connection: Connection, staged: Staged, sources: Sources, *, archive: TableRef) -> WayBack:
    """Return the way back of a whole table whose columns were other ones."""
    columns = columns_of(connection, staged)
    (source,) = sources
    counts = [
        staging.by_key(connection.run(publishing.rows_by_partition(table, staged.partitions, columns)), staged.keys)
        for table in (source, staged.spec.table)
    ]
    back, now = counts
    changes = {
        key: Changes(staged=back.get(key, 0), inserted=back.get(key, 0), deleted=now.get(key, 0)) for key in staged.keys
    }
    return WayBack(
        strategy="swap",
        sources=sources,
        rows=back,
        plan=Plan(changes=changes, statements=[]),
        live=staged.spec.table,
        aside=archive,
    )
