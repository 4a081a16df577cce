"""Prepared changes: the statements that make a slice of live equal to given rows, and what each partition gets."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timezone

from sqlglot import exp
from typing_extensions import assert_never

from dagster_safe_backfill.errors import TransactionConflictError
from dagster_safe_backfill.model.options import Strategy
from dagster_safe_backfill.model.slices import TableSlice
from dagster_safe_backfill.model.states import Fingerprint, RowCounts
from dagster_safe_backfill.model.tables import TableRef
from dagster_safe_backfill.sql import publishing, terms
from dagster_safe_backfill.sql.publishing import SliceWrite
from dagster_safe_backfill.sql.slicing import inside
from dagster_safe_backfill.warehouses.base import Session

_DIFFERING = "_sb_differing"

Build = Callable[[SliceWrite], exp.Insert | exp.Delete | exp.Merge]


@dataclass(frozen=True, slots=True, kw_only=True)
class PreparedChange:
    """What would be done.

    Attributes:
        row_counts: What it does, by partition key.
        statements: What to run, in order, in the transaction in which it was prepared: how it is built, and of what.
        created: The rows that the live table is made of, where there is none.
        rewrites: Whether they delete the whole slice, and insert it anew.
        scratch: Derived rows that they read.
        deletes: How many rows their DELETE finds, if nobody changes any in between.
    """

    row_counts: Mapping[str, RowCounts]
    statements: Sequence[tuple[Build, SliceWrite]] = ()
    created: tuple[TableRef, exp.Select] | None = None
    rewrites: bool = False
    scratch: TableRef | None = None
    deletes: int | None = None

    def run(self, session: Session, *, clone: TableRef | None = None) -> None:
        """Run the statements, and leave nothing behind in the session.

        Args:
            session: The session in which it was prepared.
            clone: What is changed in place of live, if it may lack rows that would be deleted.

        Raises:
            TransactionConflictError: Another session changed rows since they were prepared.
        """
        if self.created is not None:
            table, rows = self.created
            session.tables.create(table, rows, kind="live")
        for build, write in self.statements:
            statement = build(write if clone is None else replace(write, clone=clone))
            count = session.execute(statement)
            is_delete = isinstance(statement, exp.Delete) and self.deletes is not None and clone is None
            if is_delete and count != self.deletes:
                raise TransactionConflictError(
                    f"another session changed rows: {self.deletes} were to be deleted, and {count} were"
                )
        self.close(session)

    def close(self, session: Session) -> None:
        """Leave nothing behind in the session; to be called where the statements aren't run."""
        if self.scratch is not None:
            session.forget(self.scratch)

    def replaced(self, before: Mapping[str, Fingerprint]) -> list[str]:
        """Return the partitions that had rows, and change."""
        return [key for key, counts in self.row_counts.items() if counts.touched and before[key].rows]


def slice_write(
    session: Session,
    table_slice: TableSlice,
    *,
    shadow: TableRef,
    names: tuple[str, ...],
    clone: TableRef | None = None,
) -> SliceWrite:
    """Return what writing the rows of a shadow, of the columns `names`, to a slice of live is, or of its clone."""
    stamp = table_slice.spec.updated_at_column
    scope = inside(table_slice)
    return SliceWrite(
        table_slice=table_slice,
        inside=scope if table_slice.partition_slice is None else exp.paren(scope),
        shadow=shadow,
        columns=names,
        stamp=(stamp, _now(session, clone or table_slice.table, stamp)) if stamp and stamp not in names else None,
        unread=stamp,
        clone=clone,
    )


def prepare_change(
    session: Session, write: SliceWrite, rows: Mapping[str, int], *, strategy: Strategy, live_exists: bool
) -> PreparedChange:
    """Return what makes the slice equal to the shadow, which has so many rows of each partition.

    `merge` touches just the rows that differ by the unique key, unless that is most of them or the live slice
    holds a key twice; then the slice is deleted and inserted whole, which comes to the same rows.
    """
    if not live_exists:
        created = write.table, publishing.staged_rows(write)
        return PreparedChange(row_counts=_all_inserted(write, rows, deleted={}), created=created)
    match strategy:
        case "merge":
            return _merge(session, write, rows)
        case "swap":
            return _merge(session, write, rows) if write.key else _replace(session, write, rows)
        case "replace":
            return _replace(session, write, rows)
        case _:
            assert_never(strategy)


def _now(session: Session, table: TableRef, stamp: str) -> exp.Expr:
    """Return the time as a literal of the stamp column's type; wall-clock columns take UTC."""
    columns = session.tables.columns(table) or ()
    types = {column.name.casefold(): column.type for column in columns}
    now = datetime.now(timezone.utc)
    type_name = types.get(stamp.casefold())
    if type_name is None:
        return exp.cast(terms.text(now.isoformat(sep=" ")), exp.DataType.Type.TIMESTAMPTZ)
    if session.dialect.keeps(type_name) != "timestamptz":
        now = now.replace(tzinfo=None)
    return terms.typed(terms.text(now.isoformat(sep=" ")), type_name, dialect=session.dialect.name)


def _merge(session: Session, write: SliceWrite, rows: Mapping[str, int]) -> PreparedChange:
    # The rows that differ are put aside once: they are counted, and, being few, quickly merged.
    scratch = session.derive(_DIFFERING, publishing.differing(write))
    prepared = _merge_of(session, write, rows, scratch)
    if prepared.scratch is None:
        session.forget(scratch)
    return prepared


def _merge_of(session: Session, write: SliceWrite, rows: Mapping[str, int], scratch: TableRef) -> PreparedChange:
    differing, fresh = 0, 0
    by_position: dict[int, tuple[int, int]] = {}
    for position, count, new in session.query(publishing.differing_by_partition(scratch)):
        by_position[position] = (count, new)
        differing, fresh = differing + count, fresh + new
    ((live,),) = session.query(publishing.count_inside(write))
    matched = sum(rows.values()) - fresh
    gone: dict[int, int] = dict(session.query(publishing.gone_by_partition(write))) if live > matched else {}
    missing = sum(gone.values())
    if live - missing > matched:
        # The live slice holds a key twice.
        return _replace(session, write, rows)
    row_counts: dict[str, RowCounts] = {}
    for position, key in enumerate(write.table_slice.keys):
        staged = rows.get(key, 0)
        count, new = by_position.get(position, (0, 0))
        row_counts[key] = RowCounts(
            staged=staged, inserted=new, updated=count - new, deleted=gone.get(position, 0), unchanged=staged - count
        )
    replaced = differing - fresh + missing
    # A row's stamp only survives in place.
    if write.stamp is None and write.unread is None and fresh + replaced and 2 * replaced >= live:
        return _rewrite(write, row_counts, deletes=live)
    statements: list[tuple[Build, SliceWrite]] = []
    if gone:
        statements.append((publishing.delete_gone, write))
    if differing:
        statements.append((publishing.merge_changed, replace(write, shadow=scratch)))
    return PreparedChange(
        row_counts=row_counts, statements=statements, scratch=scratch if differing else None, deletes=missing
    )


def _rewrite(write: SliceWrite, row_counts: Mapping[str, RowCounts], *, deletes: int) -> PreparedChange:
    statements: list[tuple[Build, SliceWrite]] = [(publishing.delete_inside, write), (publishing.insert_staged, write)]
    return PreparedChange(row_counts=row_counts, statements=statements, rewrites=True, deletes=deletes)


def _replace(session: Session, write: SliceWrite, rows: Mapping[str, int]) -> PreparedChange:
    live: dict[int, int] = dict(session.query(publishing.rows_inside(write)))
    return _rewrite(write, _all_inserted(write, rows, deleted=live), deletes=sum(live.values()))


def _all_inserted(write: SliceWrite, rows: Mapping[str, int], *, deleted: Mapping[int, int]) -> dict[str, RowCounts]:
    return {
        key: RowCounts(staged=rows.get(key, 0), inserted=rows.get(key, 0), deleted=deleted.get(position, 0))
        for position, key in enumerate(write.table_slice.keys)
    }
