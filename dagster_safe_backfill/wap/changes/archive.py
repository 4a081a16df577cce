"""Archives: the rows that a change of the live table replaces, kept for a rollback."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta

from sqlglot import exp

from dagster_safe_backfill.model.slices import TableSlice
from dagster_safe_backfill.model.states import Archive
from dagster_safe_backfill.sql import terms
from dagster_safe_backfill.sql.slicing import inside
from dagster_safe_backfill.warehouses.base import Session


def archived(
    session: Session,
    replaced: TableSlice,
    names: Sequence[str],
    *,
    publication_id: str,
    keep_for: timedelta,
) -> Archive:
    """Copy the live rows of partitions that are about to change into an archive, in the caller's transaction.

    The archive has the columns `names`, and may also have rows of other partitions. A table of the same name is never
    overwritten; it raises.
    """
    rows = exp.select(*terms.columns(names)).from_(terms.table(replaced.table)).where(inside(replaced))
    table = replaced.table.archive(publication_id)
    # Snowflake clones the whole table instead of copying `rows`, because a clone copies no data.
    session.tables.archive(replaced.table, table, rows)
    return Archive(table=table, keys=replaced.keys, keep_for=keep_for)
