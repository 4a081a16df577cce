"""store: a plain asset's or op's rows straight into its table, all checks and the write in one transaction."""

from __future__ import annotations

from collections.abc import Mapping

from dagster_safe_backfill.errors import ConfigurationError, KeyViolationError, WarehouseError
from dagster_safe_backfill.model.slices import PartitionSlice
from dagster_safe_backfill.model.states import RowCounts, Staged
from dagster_safe_backfill.model.tables import TableSpec, names_of
from dagster_safe_backfill.model.text import listed
from dagster_safe_backfill.wap.changes.prepare import prepare_change, slice_write
from dagster_safe_backfill.wap.columns import add_columns
from dagster_safe_backfill.wap.measure.measure import key_result
from dagster_safe_backfill.wap.write import readable, stage
from dagster_safe_backfill.warehouses.base import Session

_SCRATCH = "_sb_staged"


def store(
    session: Session,
    data: object,
    *,
    spec: TableSpec,
    partition_slice: PartitionSlice | None,
) -> Mapping[str, RowCounts]:
    """Replace a slice of a table (or all of it) by computed rows; with a unique key, touch only what differs.

    Returns:
        What changed, by partition key, or by `WHOLE_TABLE`.

    Raises:
        WriteError: The rows can't be written as they are. The table is as it was.
        SliceError: The partition column is missing or can't tell the partitions.
        WarehouseError: The database refused. The table is as it was.
    """
    if spec.on_schema_change == "sync":
        raise ConfigurationError(
            f'{spec.table}: on_schema_change="sync" rewrites the whole table; only @wap_asset(publish="swap") does that'
        )
    shadow = session.scratch(_SCRATCH)

    def work() -> Mapping[str, RowCounts]:
        session.tables.ensure_schema(spec.table.schema)
        staged = stage(
            session,
            source,
            spec=spec,
            partition_slice=partition_slice,
            shadow=shadow,
            is_scratch=True,
        )
        if staged.spec.unique_key:
            _check_key(session, staged)
        add_columns(session, staged)
        write = slice_write(session, staged.table_slice, shadow=shadow, names=names_of(staged.columns))
        prepared = prepare_change(
            session,
            write,
            staged.rows,
            strategy="merge" if staged.spec.unique_key else "replace",
            live_exists=staged.live_columns is not None,
        )
        prepared.run(session)
        session.tables.drop(shadow)
        return prepared.row_counts

    with readable(session, data, spec=spec) as source:
        return session.attempt(work)


def _check_key(session: Session, staged: Staged) -> None:
    result = key_result(session, staged)
    if result.problem is not None:
        raise WarehouseError(f"{staged.spec.table}: its unique key can't be checked: {result.problem}")
    if result.passed:
        return
    key = staged.spec.unique_key
    sample = [tuple(row[name] for name in key) for row in result.sample]
    count = result.failed_rows or 0
    raise KeyViolationError(
        f"{staged.spec.table}: {count} of the computed rows have no unique key of their own: NULL in"
        f" ({', '.join(key)}), the key of another computed row, or that of a live row outside the slice"
        f" ({listed(sample)}); compute each key once",
        table=str(staged.spec.table),
        count=count,
        sample=sample,
    )
