"""archive: what a change of live replaces, kept for the way back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone

from sqlglot import exp

from dagster_safe_backfill.model.slices import PartitionSlice
from dagster_safe_backfill.model.states import Changes, Fingerprint
from dagster_safe_backfill.model.tables import TableRef, TableSpec
from dagster_safe_backfill.sql import terms
from dagster_safe_backfill.sql.slicing import PartitionColumns, rows_of
from dagster_safe_backfill.warehouses.base import Connection


@dataclass(frozen=True, slots=True, kw_only=True)
class Archive:
    """Where replaced rows are kept.

    Attributes:
        table: Has the live table's columns, and at least its rows of `keys` as they were. None if nothing is to be
            kept.
        keys: The partitions whose rows are in it.
        expires_at: When it may be dropped.
    """

    table: TableRef | None = None
    keys: tuple[str, ...] = ()
    expires_at: datetime | None = None


def archived(
    connection: Connection,
    *,
    spec: TableSpec,
    partition_slice: PartitionSlice,
    columns: PartitionColumns,
    names: Sequence[str],
    changes: Mapping[str, Changes],
    before: Mapping[str, Fingerprint],
    publication_id: str,
    keep_for: timedelta,
) -> Archive:
    """Keep the live rows of the partitions that are about to change, in the caller's transaction.

    The archive has the columns `names`, and may have other partitions' rows too. Partitions without rows need no copy.
    An archive is never overwritten: that its name is taken is an error.
    """
    positions = [i for i, key in enumerate(partition_slice.keys) if changes[key].touched and before[key].rows]
    if not positions or not keep_for:
        return Archive()
    chosen = partition_slice.chosen(positions)
    rows = exp.select(*map(terms.column, names)).from_(terms.table(spec.table)).where(rows_of(chosen, columns))
    table = spec.table.archive(publication_id)
    connection.keep(spec.table, table, rows)
    return Archive(table=table, keys=chosen.keys, expires_at=expiry(keep_for))


def expiry(keep_for: timedelta) -> datetime:
    """Return when what is archived now may be dropped."""
    return datetime.now(timezone.utc) + keep_for
