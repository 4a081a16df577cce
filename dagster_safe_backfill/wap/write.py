"""write: computed rows into a shadow, where no reader sees them."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import partial

from sqlglot import exp

from dagster_safe_backfill.errors import EmptyFrameError, RowsOutsideSliceError, SchemaMismatchError
from dagster_safe_backfill.model.slices import PartitionSlice
from dagster_safe_backfill.model.states import Fingerprint, Origin, Staged
from dagster_safe_backfill.model.tables import Column, Query, TableRef, TableSpec
from dagster_safe_backfill.model.text import listed
from dagster_safe_backfill.sql import staging, terms
from dagster_safe_backfill.sql.slicing import PartitionColumns
from dagster_safe_backfill.wap.changes.fingerprints import LiveBefore, live_fingerprints
from dagster_safe_backfill.wap.columns import reconciled
from dagster_safe_backfill.wap.deduplicate import deduplicated
from dagster_safe_backfill.wap.ledger import ledger
from dagster_safe_backfill.wap.ledger.intents import record_intent
from dagster_safe_backfill.wap.recognition import (
    added_columns,
    check_keys,
    data_columns,
    partition_columns,
    partition_types,
    respelled,
)
from dagster_safe_backfill.wap.recovery import finish_interrupted_swap
from dagster_safe_backfill.wap.transactions import in_transaction
from dagster_safe_backfill.warehouses.base import Connection
from dagster_safe_backfill.warehouses.frames import FrameError, NoColumnsError

_SAMPLE = 10


def write(
    connection: Connection,
    data: object,
    *,
    spec: TableSpec,
    partition_slice: PartitionSlice,
    origin: Origin,
    shadow: TableRef | None = None,
    like: TableRef | None = None,
    before: LiveBefore | None = None,
) -> Staged:
    """Write a batch to a shadow, in one transaction with its ledger rows; live isn't touched.

    A shadow that an earlier try of the same run left is replaced.

    Args:
        connection: An open session, outside a transaction.
        data: A frame (pandas, polars, pyarrow: anything that speaks Arrow) or a `Query`.
        spec: How the live table is kept.
        partition_slice: The partitions that the rows must belong to.
        origin: Who writes, and for which publication.
        shadow: Where to; the run's own, if None.
        like: The shadow of another batch of the same publication, whose columns these rows must have.
        before: What live was before the rows were computed; if None, that it was as it is now.

    Raises:
        WriteError: The rows can't be written as they are; no shadow is left.
        SliceError: The partition column is missing or can't tell the partitions.
    """
    target = shadow or spec.table.shadow(origin.run_id)

    def work() -> Staged:
        finish_interrupted_swap(connection, spec.table)
        connection.ensure_schema(spec.table.schema)
        ledger.create(connection, spec.table)
        is_left = connection.columns(target) is not None
        connection.run(staging.dropped(target))
        staged = stage(connection, source, spec=spec, partition_slice=partition_slice, shadow=target, like=like)
        staged = replace(_fingerprinted(connection, staged, before), replaces_shadow=is_left)
        ledger.record_staged(connection, "staged", staged, origin=origin)
        return staged

    with readable(connection, data, spec=spec) as source:
        record_intent(connection, spec.table, origin=origin, shadow=target)
        return in_transaction(connection, work)


def _fingerprinted(connection: Connection, staged: Staged, before: LiveBefore | None) -> Staged:
    """Note what live was before the rows were computed, so that the publication can tell whether it changed since."""
    if before is not None:
        staged = replace(staged, computed_at=dict.fromkeys(staged.keys, before.at))
    if staged.live_columns is None or staged.partition_slice is None:
        return staged
    names = tuple(column.name for column in staged.live_columns)
    if before is not None and before.columns == names:
        return replace(staged, fingerprints=before.fingerprints)
    of_live = partial(
        live_fingerprints,
        connection,
        spec=staged.spec,
        partition_slice=staged.partition_slice,
        types=staged.partition_types,
    )
    now = of_live(names=names)
    if before is None:
        return replace(staged, fingerprints=now)
    # Over other columns the same rows hash otherwise: over those that there were, it shows which rows are others now.
    known = before.columns or ()
    then = of_live(names=known) if known and set(known) <= {*names} else now
    changed = {key for key in staged.keys if then[key] != before.fingerprints.get(key, Fingerprint())}
    kept = {key: before.fingerprints.get(key, Fingerprint()) for key in changed}
    return replace(staged, fingerprints=now | kept)


@contextmanager
def readable(connection: Connection, data: object, *, spec: TableSpec) -> Generator[exp.Table, None, None]:
    """Make computed rows readable as a relation within the block.

    A frame without columns is an empty one: where that is allowed, it is read as no rows of the live table.

    Raises:
        ConfigurationError: It is neither a frame nor a query that is one SELECT.
        EmptyFrameError: The frame has no columns, and empty frames are refused or there is no table to take the
            columns from.
        SchemaMismatchError: The frame can't be made an Arrow table.
    """
    with ExitStack() as stack:
        try:
            source = stack.enter_context(connection.source(data))
        except NoColumnsError as error:
            if spec.on_empty == "refuse":
                raise _empty_error(spec, "this run") from error
            if connection.columns(spec.table) is None:
                raise EmptyFrameError(
                    f"{spec.table}: the frame has no columns, and there is no table yet to take them from; return the"
                    " frame with its columns, typed and without rows",
                    table=str(spec.table),
                ) from error
            source = stack.enter_context(connection.source(_no_rows(connection, spec.table)))
        except FrameError as error:
            raise SchemaMismatchError(f"{spec.table}: {error}", table=str(spec.table), problems=[str(error)]) from error
        yield source


def _no_rows(connection: Connection, table: TableRef) -> Query:
    select = exp.select(exp.Star()).from_(terms.table(table)).where(exp.false())
    return Query(select.sql(dialect=connection.dialect))


def _empty_error(spec: TableSpec, scope: str) -> EmptyFrameError:
    return EmptyFrameError(
        f"{spec.table}: no rows were computed for {scope}, which would empty what is live there; if that is"
        ' meant, set on_empty="allow"',
        table=str(spec.table),
    )


def stage(
    connection: Connection,
    source: exp.Table,
    *,
    spec: TableSpec,
    partition_slice: PartitionSlice | None,
    shadow: TableRef,
    is_scratch: bool = False,
    like: TableRef | None = None,
) -> Staged:
    """Create `shadow` (for the session only, if scratch) from computed rows; check schema, scope and emptiness.

    Runs in the caller's transaction, which must be rolled back if this raises.

    Raises:
        WriteError: The rows can't be written as they are.
        SliceError: The partition column is missing or can't tell the partitions.
    """
    live = connection.columns(spec.table)
    found = connection.described(exp.select(exp.Star()).from_(source.copy()))
    pattern = () if like is None else data_columns(connection, like)
    if pattern:
        columns = reconciled(connection, source, found, pattern, _as_in_batch(spec))
    else:
        columns = reconciled(connection, source, found, live, spec)
    spec = respelled(spec, [column.name for column in columns])
    rows = staging.typed_rows(source, columns, dialect=connection.dialect)
    types: dict[str | None, str] = {}
    if partition_slice is not None:
        types = partition_types(connection, rows, spec=spec, partition_slice=partition_slice)
    recognised = partition_columns(connection, spec=spec, partition_slice=partition_slice, types=types)
    if partition_slice is not None:
        check_keys(connection, partition_slice=partition_slice, columns=recognised)
    names = [column.name for column in columns]
    connection.run(
        staging.fill(
            shadow,
            rows,
            names=names,
            partition_slice=partition_slice,
            columns=recognised,
            is_scratch=is_scratch,
            key=spec.unique_key,
            latest=spec.keep_latest,
        )
    )
    staged_columns = tuple(Column(name=column.name, type=column.type) for column in columns)
    staged = Staged(
        spec=spec,
        partition_slice=partition_slice,
        shadow=shadow,
        columns=staged_columns,
        partition_types=types,
        rows={},
        dropped=0,
        live_columns=live,
        added=added_columns(staged_columns, live),
    )
    if spec.keep_latest is not None:
        staged = deduplicated(connection, staged)
    return _counted(connection, staged, recognised)


def _as_in_batch(spec: TableSpec) -> TableSpec:
    """Return the spec by which rows get the columns of a batch before them, no others."""
    return replace(spec, on_schema_change="raise", column_defaults={}, updated_at_column=None)


def _counted(connection: Connection, staged: Staged, columns: PartitionColumns) -> Staged:
    """Count the shadow's rows by partition, and judge emptiness and rows outside the slice."""
    counted = connection.run(staging.rows_by_partition(staged.shadow))
    rows = staging.by_key(counted, staged.keys)
    outside = sum(count for position, count in counted if position is None)
    if outside:
        if staged.spec.on_outside == "refuse":
            raise _outside_error(connection, staged, columns, outside)
        connection.run(staging.delete_outside(staged.shadow))
    if not rows and staged.spec.on_empty == "refuse":
        raise _empty_error(staged.spec, _scope_of(staged))
    return replace(staged, rows=rows, dropped=outside)


def _scope_of(staged: Staged) -> str:
    return "the whole table" if staged.partition_slice is None else str(staged.partition_slice)


def _outside_error(
    connection: Connection, staged: Staged, columns: PartitionColumns, count: int
) -> RowsOutsideSliceError:
    sample = connection.run(staging.outside_sample(staged.shadow, columns, size=_SAMPLE))
    values = listed([", ".join(map(str, row)) for row in sample])
    expressions = ", ".join(staged.spec.partition_expr.values())
    return RowsOutsideSliceError(
        f"{staged.spec.table}: {count} of the computed rows belong to none of {_scope_of(staged)} by"
        f" {expressions} (found {values}); compute the slice's rows only, or set"
        ' on_outside="drop" to leave such rows out',
        table=str(staged.spec.table),
        count=count,
        sample=sample,
    )
