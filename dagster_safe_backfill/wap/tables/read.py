"""Reading a slice of a live table as a frame."""

from __future__ import annotations

from collections.abc import Sequence

from sqlglot import exp

from dagster_safe_backfill.errors import TableNotFoundError
from dagster_safe_backfill.model.slices import PartitionSlice, TableSlice
from dagster_safe_backfill.model.tables import TableSpec
from dagster_safe_backfill.sql import terms
from dagster_safe_backfill.sql.dialect import Dialect
from dagster_safe_backfill.sql.slicing import inside
from dagster_safe_backfill.wap.tables.slices import live_slice
from dagster_safe_backfill.warehouses.base import Session


def read(
    session: Session,
    *,
    spec: TableSpec,
    partition_slice: PartitionSlice | None,
    columns: Sequence[str],
    load_type: type,
    is_empty: bool = False,
) -> object:
    """Return a table's rows in the slice, or all rows without a slice, as a frame of `load_type`.

    Args:
        session: An open session; read-only is enough.
        spec: How the table is kept.
        partition_slice: The partitions to read. If None, all rows are read.
        columns: The columns to read. If empty, all columns are read.
        load_type: A frame type of pandas, polars or pyarrow.
        is_empty: True to read no rows, for an input whose partition mapping returns no partition.

    Raises:
        TableNotFoundError: The table doesn't exist.
        PartitionColumnError: A partition expression names a column that the table doesn't have, or doesn't tell the
            partitions apart.
    """
    return session.fetch(
        _select(session, spec, None if is_empty else partition_slice, columns, is_empty=is_empty), load_type
    )


def select_text(session: Session, *, spec: TableSpec, partition_slice: PartitionSlice | None) -> str:
    """Return the SQL of a SELECT of a table's rows in the slice, or of all rows without a slice.

    Raises:
        TableNotFoundError: The table doesn't exist.
    """
    return _select(session, spec, partition_slice, ()).sql(dialect=session.dialect.name)


def text_of_slice(table_slice: TableSlice) -> str:
    """Return the SQL of a SELECT of the slice's rows, without a look at the table."""
    select = exp.select(exp.Star()).from_(terms.table(table_slice.table)).where(inside(table_slice))
    dialect: Dialect | None = next((column.dialect for column in table_slice.columns.values()), None)
    return select.sql(dialect=None if dialect is None else dialect.name)


def _select(
    session: Session,
    spec: TableSpec,
    partition_slice: PartitionSlice | None,
    columns: Sequence[str],
    *,
    is_empty: bool = False,
) -> exp.Select:
    found = session.tables.columns(spec.table)
    if found is None:
        raise TableNotFoundError(
            f"{spec.table}: the table doesn't exist, so it can't be read. Materialize its asset first."
        )
    items = terms.columns(columns) or [exp.Star()]
    select = exp.select(*items).from_(terms.table(spec.table))
    if is_empty:
        # The table is still queried, so that the empty frame has its columns and types.
        select = select.where(exp.false())
    elif partition_slice is not None:
        recognised = live_slice(session, spec=spec, partition_slice=partition_slice, columns=found)
        select = select.where(inside(recognised))
    return select
