"""Archives: what a change of live replaces, kept for the way back."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta, timezone

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
    """Keep the live rows of partitions that are about to change, in the caller's transaction.

    The archive has the columns `names`, and may have other partitions' rows too. It is never overwritten: that its name
    is taken is an error.
    """
    rows = exp.select(*terms.columns(names)).from_(terms.table(replaced.table)).where(inside(replaced))
    table = replaced.table.archive(publication_id)
    session.tables.archive(replaced.table, table, rows)
    return Archive(table=table, keys=replaced.keys, expires_at=expiry(keep_for))


def expiry(keep_for: timedelta) -> datetime:
    """Return when what is archived now may be dropped."""
    return datetime.now(timezone.utc) + keep_for
