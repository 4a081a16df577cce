"""Statements that sum up the rows of each partition, so that any change of them shows."""

from __future__ import annotations

from sqlglot import exp

from dagster_safe_backfill.model.slices import PartitionSlice
from dagster_safe_backfill.model.tables import TableRef
from dagster_safe_backfill.sql import terms
from dagster_safe_backfill.sql.slicing import PARTITION, PartitionColumns, positioned, rows_of

_HASH, _HASHED = "_sb_hash", "_sb_hashed"


def fingerprints(
    table: TableRef, row_hash: exp.Expr, *, partition_slice: PartitionSlice, columns: PartitionColumns
) -> exp.Select:
    """Return `(position, rows, sum of the rows' hashes)` of the partitions of the slice that have rows.

    A sum doesn't depend on the rows' order, and, unlike an exclusive or, rows that come twice don't cancel out.
    """
    rows = exp.select(exp.Star()).from_(terms.table(table)).where(rows_of(partition_slice, columns))
    items = terms.named({_HASH: row_hash})
    hashed = positioned(rows, items, partition_slice=partition_slice, columns=columns)
    position = terms.column(PARTITION)
    total = exp.Sum(this=terms.column(_HASH))
    return (
        exp.select(position, exp.Count(this=exp.Star()), total)
        .from_(terms.subquery(hashed, _HASHED))
        .group_by(position.copy())
    )
