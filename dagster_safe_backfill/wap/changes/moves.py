"""Moves: rows of a batch whose keys are live in other partitions, from which its publication deletes them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from dagster_safe_backfill.errors import KeyViolationError, PublishConflictError
from dagster_safe_backfill.model.events import Fingerprint, RowCounts
from dagster_safe_backfill.model.slices import TableSlice
from dagster_safe_backfill.model.states import Origin, Staged
from dagster_safe_backfill.model.text import listed
from dagster_safe_backfill.redaction import masked
from dagster_safe_backfill.sql import publishing
from dagster_safe_backfill.sql.audited_rows import sampled
from dagster_safe_backfill.sql.sameness import Sameness
from dagster_safe_backfill.sql.slicing import identify_partitions, shown_value
from dagster_safe_backfill.wap.ledger.history import Change, history
from dagster_safe_backfill.warehouses.base import Session


@dataclass(frozen=True, slots=True, kw_only=True)
class Moves:
    """The live rows outside a batch that have keys of the batch.

    Attributes:
        table_slice: The batch's partitions, followed by the partitions that rows leave.
        rows: A mapping from the partition that rows leave, and the one that they move to, to their number.
    """

    table_slice: TableSlice
    rows: Mapping[tuple[str, str], int] = field(default_factory=dict[tuple[str, str], int])

    @property
    def left(self) -> dict[str, int]:
        """A mapping from each partition that rows leave to their number."""
        left: dict[str, int] = {}
        for (was, _), count in self.rows.items():
            left[was] = left.get(was, 0) + count
        return left

    @property
    def links(self) -> dict[str, tuple[str, ...]]:
        """A mapping from each partition that rows leave to those that they move to."""
        return {key: tuple(now for was, now in self.rows if was == key) for key in self.left}

    def counted(self, row_counts: Mapping[str, RowCounts], before: Mapping[str, Fingerprint]) -> dict[str, RowCounts]:
        """Return row counts in which the rows that stay in the partitions that others leave are unchanged ones."""
        stay = {key: before[key].rows - count for key, count in self.left.items()}
        return {
            **row_counts,
            **{key: RowCounts(staged=rows, unchanged=rows, deleted=self.left[key]) for key, rows in stay.items()},
        }


def moves_of(session: Session, staged: Staged, *, origin: Origin) -> Moves:
    """Return the live rows that leave other partitions once a batch is published; if keys can't move, raise for them.

    Raises:
        PublishConflictError: `on_moved_key` doesn't allow that rows move.
        KeyViolationError: A key is live in no partition that the asset has, or in one that the same run or backfill
            published.
    """
    own, key = staged.table_slice, staged.spec.unique_key
    if not key or own.partition_slice is None or identify_partitions(key, own):
        return Moves(table_slice=own)
    may_move = staged.spec.on_moved_key == "move" and own.partition_slice.every is not None
    every = replace(own, partition_slice=own.partition_slice.every) if may_move else own
    sameness = Sameness.of(staged.columns, session.dialect)
    counts, nowhere = publishing.taken_elsewhere(staged.shadow, own, every, sameness)
    found = session.query(counts)
    if any(was is None for was, _, _ in found):
        rows = session.query(sampled(nowhere))
        raise _refused(staged, [*dict.fromkeys(own.keys[int(now)] for _, now, _ in found)], rows)
    pairs = {(every.keys[int(was)], own.keys[int(now)]): count for was, now, count in found}
    moves = Moves(
        table_slice=replace(own, partition_slice=own.partition_slice.beside(was for was, _ in pairs)), rows=pairs
    )
    _check_computed_once(session, staged, moves, origin=origin)
    return moves


def _refused(staged: Staged, keys: Sequence[str], rows: Sequence[Sequence[object]]) -> Exception:
    """Return the error for keys that are live outside the batch, in `rows` of keys and partition values."""
    spec, table = staged.spec, str(staged.spec.table)
    count = len(spec.unique_key)
    columns = staged.table_slice.columns.values()
    expressions = [column.sql for column in columns]
    rows = [(*map(masked, row, spec.unique_key), *map(shown_value, row[count:], columns)) for row in rows]
    shown = listed(
        [
            f"({', '.join(map(str, row[:count]))}) where"
            f" {' and '.join(f'{sql} is {value}' for sql, value in zip(expressions, row[count:], strict=True))}"
            for row in rows
        ]
    )
    what = f"{table}: rows of {listed(keys)} have a key ({', '.join(spec.unique_key)}) that is live"
    if spec.on_moved_key == "raise":
        return PublishConflictError(
            f"{what} in another partition since they were audited, for {shown}, so nothing was published; the rows are"
            f" in {staged.place}. Compute the partitions again: the audit of the key says what to do.",
            table=table,
            keys=keys,
            published_since=dict.fromkeys(keys),
        )
    return KeyViolationError(
        f"{what} in none of the partitions that the asset has, for {shown}, so these rows can't move and nothing was"
        " published. Delete the live rows, or add their partition to the partitions definition.",
        table=table,
        count=len(rows),
        sample=rows,
    )


def _check_computed_once(session: Session, staged: Staged, moves: Moves, *, origin: Origin) -> None:
    """Refuse keys that one run or backfill computes in two partitions: they would move at each run of the one or other.

    Raises:
        KeyViolationError: The partition that a row leaves was published by the same run or backfill.
    """
    last: dict[str, Change] = {}
    for change in history(session, staged.spec.table, [*moves.left]) if moves.left else ():
        if change.event != "moved":
            last[change.key] = change
    own = {key for key, change in last.items() if _is_of(change, origin)}
    if not own:
        return
    pairs = [pair for pair in moves.rows if pair[0] in own]
    raise KeyViolationError(
        f"{staged.spec.table}: {sum(map(moves.rows.__getitem__, pairs))} rows of {listed([now for _, now in pairs])}"
        f" have keys that the same run or backfill has published in {listed([was for was, _ in pairs])}, so it isn't"
        " known which partition they belong to, and nothing more was published. Compute each key in one partition.",
        table=str(staged.spec.table),
        count=len(pairs),
        sample=pairs,
    )


def _is_of(change: Change, origin: Origin) -> bool:
    is_of_backfill = origin.backfill_id is not None and change.backfill_id == origin.backfill_id
    return change.event == "published" and (change.run_id == origin.run_id or is_of_backfill)
