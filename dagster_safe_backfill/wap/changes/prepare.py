"""Prepared changes: the statements that make a slice of the live table equal to given rows, and their row counts."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timezone

from sqlglot import exp
from typing_extensions import assert_never

from dagster_safe_backfill.errors import TransactionConflictError, WriteError
from dagster_safe_backfill.model.events import Fingerprint, RowCounts
from dagster_safe_backfill.model.options import Strategy
from dagster_safe_backfill.model.slices import TableSlice
from dagster_safe_backfill.model.tables import Column, TableRef, names_of
from dagster_safe_backfill.sql import publishing, terms
from dagster_safe_backfill.sql.publishing import SliceWrite
from dagster_safe_backfill.sql.sameness import Sameness
from dagster_safe_backfill.sql.slicing import identify_partitions, inside
from dagster_safe_backfill.warehouses.base import Session

_DIFFERING = "_sb_differing"

Build = Callable[[SliceWrite], exp.Insert | exp.Delete | exp.Merge]


@dataclass(frozen=True, slots=True, kw_only=True)
class PreparedChange:
    """A change of live partitions that was prepared, and can run in the same transaction.

    Attributes:
        row_counts: A mapping from partition key to the row counts of the change.
        statements: The statements in their order, each as the function that builds it and that function's argument.
        created: The name and the rows of the live table, if it doesn't exist yet.
        rewrites: True if the statements delete all rows of the slice and insert them again.
        scratch: Derived rows that the statements read.
        moved: A mapping from each partition that rows leave for another of the slice to those others, as far as it is
            known.
        deletes: The numbers of rows that the DELETE statements must delete, in their order. Another number shows that
            another session changed rows in between.
    """

    row_counts: Mapping[str, RowCounts]
    statements: Sequence[tuple[Build, SliceWrite]] = ()
    created: tuple[TableRef, exp.Select] | None = None
    rewrites: bool = False
    scratch: TableRef | None = None
    deletes: Sequence[int] = ()
    moved: Mapping[str, Sequence[str]] = field(default_factory=dict[str, "Sequence[str]"])

    def run(self, session: Session, *, clone: TableRef | None = None) -> None:
        """Run the statements, and remove the derived rows that they read from the session.

        Args:
            session: The session that prepared the change.
            clone: The table to change in place of the live table. It may have fewer rows to delete.

        Raises:
            TransactionConflictError: Another session changed rows after the change was prepared.
        """
        if self.created is not None:
            table, rows = self.created
            # On Snowflake this creates the empty table and raises; the next attempt holds it and fills it.
            session.tables.create(table, rows, kind="live")
        deletes = iter(self.deletes)
        for build, write in self.statements:
            statement = build(write if clone is None else replace(write, clone=clone))
            count = session.execute(statement)
            expected = next(deletes, None) if isinstance(statement, exp.Delete) else None
            # Snowflake's lock doesn't stop INSERTs: a DELETE would remove rows that nobody has counted or archived.
            if expected not in (None, count) and clone is None:
                raise TransactionConflictError(
                    f"{write.table}: another session changed rows: {expected} rows were to be deleted, and {count}"
                    " were deleted"
                )
        if self.scratch is not None:
            session.forget(self.scratch)

    def replaced(self, before: Mapping[str, Fingerprint]) -> list[str]:
        """Return the partitions that had rows before the change and are changed by it."""
        keys: list[str] = []
        for key, counts in self.row_counts.items():
            if before[key].rows and counts.touched:
                keys.append(key)
        return keys


def slice_write(
    session: Session,
    table_slice: TableSlice,
    *,
    shadow: TableRef,
    columns: Sequence[Column],
    clone: TableRef | None = None,
    is_partial: bool = False,
) -> SliceWrite:
    """Return how the data columns of a shadow are written to a slice of the live table, or of its clone.

    `is_partial` is True if the live table has other columns as well.
    """
    stamp = table_slice.spec.updated_at_column
    names = names_of(columns)
    predicate = inside(table_slice)
    return SliceWrite(
        table_slice=table_slice,
        inside=predicate if table_slice.partition_slice is None else exp.paren(predicate),
        shadow=shadow,
        columns=names,
        sameness=Sameness.of(columns, session.dialect),
        stamp=(stamp, _now(session, clone or table_slice.table, stamp)) if stamp and stamp not in names else None,
        unread=stamp,
        clone=clone,
        is_partial=is_partial,
    )


def prepare_change(
    session: Session, write: SliceWrite, rows: Mapping[str, int], *, strategy: Strategy, live_exists: bool
) -> PreparedChange:
    """Return the change that makes the slice of the live table equal to the shadow.

    `merge` changes only the rows that differ by the unique key. If most rows differ, or if a key occurs twice in the
    live slice, it deletes and inserts all rows of the slice; the result is the same.

    Args:
        session: An open session, in the caller's transaction.
        write: The slice and the shadow.
        rows: A mapping from partition key to the number of rows in the shadow.
        strategy: How the slice is written.
        live_exists: True if the live table exists.
    """
    if not live_exists:
        created = write.table, publishing.staged_rows(write)
        return PreparedChange(row_counts=_all_inserted(write, rows, deleted={}), created=created)
    match strategy:
        case "merge":
            return _merge(session, write, rows)
        case "swap":
            # A merge counts the rows that differ, so that a swap without any isn't made.
            return _merge(session, write, rows) if write.key else _replace(session, write, rows)
        case "replace":
            return _replace(session, write, rows)
        case _:
            assert_never(strategy)


def _now(session: Session, table: TableRef, stamp: str) -> exp.Expr:
    """Return the current time as a literal of the stamp column's type; wall-clock columns get the time in UTC."""
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
    # The rows that differ are kept, because two statements read them: one counts them, and the MERGE writes them.
    scratch = session.derive(_DIFFERING, publishing.differing(write))
    differing, fresh, alike = 0, 0, 0
    by_position: dict[int, tuple[int, int]] = {}
    for position, count, new, *others in session.query(publishing.differing_by_partition(scratch, write)):
        by_position[position] = (count, new)
        differing, fresh, alike = differing + count, fresh + new, alike + sum(others)
    ((live,),) = session.query(publishing.count_inside(write))
    live += write.moving
    matched = sum(rows.values()) - fresh
    # If no live row is unmatched, the search for missing keys is skipped: it would find none.
    gone: dict[int, int] = dict(session.query(publishing.gone_by_partition(write))) if live > matched else {}
    missing = sum(gone.values())
    if live - missing > matched:
        # A key occurs twice in the live slice, so a MERGE would not make it equal to the shadow.
        session.forget(scratch)
        return _replace(session, write, rows)
    row_counts: dict[str, RowCounts] = {}
    for position, key in enumerate(write.table_slice.keys):
        staged = rows.get(key, 0)
        count, new = by_position.get(position, (0, 0))
        row_counts[key] = RowCounts(
            staged=staged, inserted=new, updated=count - new, deleted=gone.get(position, 0), unchanged=staged - count
        )
    moved: dict[str, list[str]] = {}
    if differing > fresh and not identify_partitions(write.key, write.table_slice):
        moved = _count_moved(session, replace(write, shadow=scratch), row_counts)
    replaced = differing - fresh + missing
    # Measured on DuckDB: a MERGE is faster if few rows change, DELETE and INSERT if most do. But rows that don't change
    # keep their time in `updated_at_column`, and their values in columns that aren't computed, only if they are not
    # inserted again; and rows that a foreign key refers to can't be deleted.
    is_better = fresh + replaced and 2 * replaced >= live
    keeps_rows = write.stamp is not None or write.unread is not None or write.is_partial
    is_referenced = bool(replaced) and session.tables.is_referenced(write.table)
    if is_better and not keeps_rows and not is_referenced:
        session.forget(scratch)
        return replace(_rewrite(write, row_counts, deletes=live), moved=moved)
    statements: list[tuple[Build, SliceWrite]] = []
    deletes: list[int] = []
    if gone:
        statements.append((publishing.delete_gone, write))
        deletes.append(missing)
    if not differing:
        session.forget(scratch)
        return PreparedChange(row_counts=row_counts, statements=statements, deletes=deletes)
    merged = replace(write, shadow=scratch)
    if alike:
        _check_deletable(write, is_referenced=is_referenced)
        statements.append((publishing.delete_alike, merged))
        deletes.append(alike)
    merges = _by_column(session, merged) if is_referenced and write.compared else [merged]
    statements += [(publishing.merge_changed, one) for one in merges]
    return PreparedChange(row_counts=row_counts, statements=statements, scratch=scratch, deletes=deletes, moved=moved)


def _by_column(session: Session, merged: SliceWrite) -> list[SliceWrite]:
    """Return a write of each column that changes, so that each sets its column only in the rows that differ in it.

    To set a column with an index, a list or a struct, even to the value that it has, DuckDB deletes the row and inserts
    it again, which a foreign key forbids. https://duckdb.org/docs/stable/sql/indexes#constraint-checking-in-update-statements
    """
    (counts,) = session.query(publishing.changes_by_column(merged))
    changed = [name for name, count in zip(merged.compared, counts, strict=True) if count]
    return [replace(merged, updated=(name,)) for name in changed] or [replace(merged, updated=())]


def _check_deletable(write: SliceWrite, *, is_referenced: bool) -> None:
    """Refuse to replace rows by a DELETE and an INSERT if that would lose values, or if it isn't possible.

    Raises:
        WriteError: The rows differ only in values that the database calls equal, so its UPDATE would not write them.
    """
    if write.is_partial or is_referenced:
        why, advice = "they have values in columns that aren't computed", "Compute all columns"
        if is_referenced:
            why, advice = "a foreign key refers to the table", "Drop the foreign key"
        raise WriteError(
            f"{write.table}: rows changed only in values that the database calls equal, such as 0.0 and -0.0, which it"
            f" writes only by a DELETE and an INSERT. These rows can't be deleted, because {why}. Nothing was"
            f" published. {advice} for this publication, or compute values that the database tells apart.",
            table=str(write.table),
        )


def _count_moved(session: Session, changed: SliceWrite, row_counts: dict[str, RowCounts]) -> dict[str, list[str]]:
    """Count the rows that move within the slice as deleted from one partition and inserted into the other.

    Otherwise the partition that they leave would count as unchanged, and would not be archived. Return a mapping from
    each such partition to those that its rows move to.
    """
    keys = changed.table_slice.keys
    moved: dict[str, list[str]] = {}
    if len(keys) == 1:
        return moved
    for was, now, count in session.query(publishing.moved_by_partition(changed)):
        source, target = keys[int(was)], keys[int(now)]
        left, entered = row_counts[source], row_counts[target]
        row_counts[source] = replace(left, deleted=left.deleted + count)
        row_counts[target] = replace(entered, updated=entered.updated - count, inserted=entered.inserted + count)
        moved.setdefault(source, []).append(target)
    return moved


def _rewrite(write: SliceWrite, row_counts: Mapping[str, RowCounts], *, deletes: int) -> PreparedChange:
    builds: list[Build] = [publishing.delete_inside, publishing.insert_staged]
    counts = [deletes]
    if write.moving:
        builds.insert(1, publishing.delete_moving)
        counts = [deletes - write.moving, write.moving]
    statements = [(build, write) for build in builds]
    return PreparedChange(row_counts=row_counts, statements=statements, rewrites=True, deletes=counts)


def _replace(session: Session, write: SliceWrite, rows: Mapping[str, int]) -> PreparedChange:
    live: dict[int, int] = dict(session.query(publishing.rows_inside(write)))
    return _rewrite(write, _all_inserted(write, rows, deleted=live), deletes=sum(live.values()) + write.moving)


def _all_inserted(write: SliceWrite, rows: Mapping[str, int], *, deleted: Mapping[int, int]) -> dict[str, RowCounts]:
    return {
        key: RowCounts(staged=rows.get(key, 0), inserted=rows.get(key, 0), deleted=deleted.get(position, 0))
        for position, key in enumerate(write.table_slice.keys)
    }
