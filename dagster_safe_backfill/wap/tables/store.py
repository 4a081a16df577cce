"""Storing the rows of a plain asset or op directly in its table, in one transaction with all checks."""

from __future__ import annotations

from collections.abc import Mapping

from dagster_safe_backfill.errors import ConfigurationError, KeyViolationError, WarehouseError
from dagster_safe_backfill.model.events import RowCounts
from dagster_safe_backfill.model.slices import PartitionSlice
from dagster_safe_backfill.model.states import Origin, Staged
from dagster_safe_backfill.model.tables import TableSpec
from dagster_safe_backfill.model.text import listed
from dagster_safe_backfill.wap.changes.conflicts import check_seen
from dagster_safe_backfill.wap.changes.prepare import prepare_change, slice_write
from dagster_safe_backfill.wap.columns import add_columns
from dagster_safe_backfill.wap.ledger.owner import check_owner
from dagster_safe_backfill.wap.ledger.record import create_ledger, record
from dagster_safe_backfill.wap.measure.measure import key_result
from dagster_safe_backfill.wap.recovery import finish_interrupted_swap
from dagster_safe_backfill.wap.write import readable, stage
from dagster_safe_backfill.warehouses.base import Session

_SCRATCH = "_sb_staged"


def store(
    session: Session,
    data: object,
    *,
    spec: TableSpec,
    partition_slice: PartitionSlice | None,
    origin: Origin,
) -> Mapping[str, RowCounts]:
    """Replace the rows of a slice, or of the whole table, with computed rows.

    With a unique key, only rows that differ are written. An asset's first write of the table is recorded in the ledger,
    so that no other asset writes the table.

    Returns:
        A mapping from partition key, or `WHOLE_TABLE`, to the row counts.

    Raises:
        OtherAssetError: The table belongs to another asset.
        WriteError: The rows are not allowed in the table, which is unchanged.
        SliceError: A partition expression names a column that the rows don't have, or doesn't tell the partitions
            apart.
        WarehouseError: The database refused a statement; the table is unchanged.
    """
    if spec.on_schema_change == "sync":
        raise ConfigurationError(
            f'{spec.table}: on_schema_change="sync" rewrites the whole table, which only'
            ' @wap_asset(publish=Swap(on_schema_change="sync")) does.'
        )
    shadow = session.scratch(_SCRATCH)
    keys = () if partition_slice is None else partition_slice.keys

    def work() -> Mapping[str, RowCounts]:
        # Before a swap is undone that only the ledger of another schema records.
        owner = check_owner(session, spec.table, origin=origin, keys=keys)
        finish_interrupted_swap(session, spec.table)
        for schema in spec.table.schemas:
            session.tables.ensure_schema(schema)
        staged = stage(session, source, spec=spec, partition_slice=partition_slice, shadow=shadow, is_scratch=True)
        is_first = owner != origin.asset_key
        if is_first:
            create_ledger(session, spec.table)
        # Others that write the table wait here, or begin again: two that insert don't see each other's rows.
        with session.tables.hold(spec.table, run_id=origin.run_id) as committed:
            if is_first:
                check_owner(committed, spec.table, origin=origin, keys=keys)
            check_seen(session, committed, shadow, staged.table_slice, staged.live_columns or ())
        if staged.spec.unique_key:
            # A plain asset or op has no audits, so the unique key is checked here.
            _check_key(session, staged)
        add_columns(session, staged)
        write = slice_write(
            session, staged.table_slice, shadow=shadow, columns=staged.columns, is_partial=staged.is_partial
        )
        prepared = prepare_change(
            session,
            write,
            staged.rows,
            strategy="merge" if staged.spec.unique_key else "replace",
            live_exists=staged.live_columns is not None,
        )
        prepared.run(session)
        if is_first:
            record(session, "stored", spec.table, [{}], origin=origin)
        session.tables.drop(shadow)
        return prepared.row_counts

    # Loaded before the transaction: `attempt` may repeat that, and Snowflake's DDL to load a frame would commit it.
    with readable(session, data, spec=spec) as source:
        return session.attempt(work)


def _check_key(session: Session, staged: Staged) -> None:
    result = key_result(session, staged)
    if result.problem is not None:
        raise WarehouseError(
            f"{staged.spec.table}: the unique key can't be checked, so nothing was written: {result.problem}"
        )
    if result.passed:
        return
    key = staged.spec.unique_key
    sample = [tuple(row[name] for name in key) for row in result.sample]
    count = result.failed_rows or 0
    raise KeyViolationError(
        f"{staged.spec.table}: {count} of the computed rows have a unique key ({', '.join(key)}) that is NULL, or that"
        f" another computed row or a live row outside the slice also has ({listed(sample)}), so nothing was written."
        f" Compute each key once.{f' {result.finding}' if result.finding else ''}",
        table=str(staged.spec.table),
        count=count,
        sample=sample,
    )
