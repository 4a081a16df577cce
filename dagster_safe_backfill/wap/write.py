"""write: computed rows into a shadow, where no reader sees them."""

from __future__ import annotations

from collections.abc import Generator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime, timezone

from sqlglot import exp

from dagster_safe_backfill.errors import (
    EmptyFrameError,
    KeyViolationError,
    RowsOutsideSliceError,
    SchemaMismatchError,
)
from dagster_safe_backfill.model.slices import PartitionSlice, TableSlice
from dagster_safe_backfill.model.states import Fingerprint, Origin, Staged
from dagster_safe_backfill.model.tables import Column, Query, TableRef, TableSpec, names_of
from dagster_safe_backfill.model.text import listed
from dagster_safe_backfill.sql import staging, terms
from dagster_safe_backfill.wap.changes.fingerprints import live_fingerprints
from dagster_safe_backfill.wap.columns import data_columns, reconciled, respelled
from dagster_safe_backfill.wap.ledger.record import create_ledger, record_intent, record_staged
from dagster_safe_backfill.wap.recovery import finish_interrupted_swap
from dagster_safe_backfill.wap.tables.slices import check_keys, live_slice, table_slice
from dagster_safe_backfill.warehouses.base import Session
from dagster_safe_backfill.warehouses.frames import FrameError, NoColumnsError

_SAMPLE = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class LiveBefore:
    """What live was before rows were computed for it: what changes from then on, they don't know of.

    Attributes:
        at: When that was.
        columns: Live's; None if there was no table.
        fingerprints: Those of its partitions, by key; empty if there was no table.
    """

    at: datetime
    columns: tuple[str, ...] | None = None
    fingerprints: Mapping[str, Fingerprint] = field(default_factory=dict[str, Fingerprint])


def live_before(session: Session, *, spec: TableSpec, partition_slice: PartitionSlice) -> LiveBefore:
    """Return what live is now.

    Args:
        session: An open session; read-only is enough.
        spec: How the live table is kept.
        partition_slice: The partitions.

    Raises:
        SliceError: The partition column is missing or can't tell the partitions.
    """
    at = datetime.now(timezone.utc)
    finish_interrupted_swap(session, spec.table)
    live = session.tables.columns(spec.table)
    if live is None:
        return LiveBefore(at=at)
    names = names_of(live)
    recognised = live_slice(session, spec=spec, partition_slice=partition_slice, names=names)
    return LiveBefore(at=at, columns=names, fingerprints=live_fingerprints(session, recognised, names))


def write(
    session: Session,
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
        session: An open session, outside a transaction.
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
        finish_interrupted_swap(session, spec.table)
        session.tables.ensure_schema(spec.table.schema)
        create_ledger(session, spec.table)
        is_left = session.tables.columns(target) is not None
        session.tables.drop(target)
        staged = stage(session, source, spec=spec, partition_slice=partition_slice, shadow=target, like=like)
        staged = replace(_fingerprinted(session, staged, before), replaces_shadow=is_left)
        record_staged(session, "staged", staged, origin=origin)
        return staged

    with readable(session, data, spec=spec) as source:
        record_intent(session, spec.table, origin=origin, shadow=target)
        return session.attempt(work)


def _fingerprinted(session: Session, staged: Staged, before: LiveBefore | None) -> Staged:
    """Note what live was before the rows were computed, so that the publication can tell whether it changed since."""
    if before is not None:
        staged = replace(staged, computed_at=dict.fromkeys(staged.keys, before.at))
    if staged.live_columns is None or staged.partition_slice is None:
        return staged
    names = names_of(staged.live_columns)
    if before is not None and before.columns == names:
        return replace(staged, fingerprints=before.fingerprints)
    now = live_fingerprints(session, staged.table_slice, names)
    if before is None:
        return replace(staged, fingerprints=now)
    # Over other columns the same rows hash otherwise: over those that there were, it shows which rows are others now.
    known = before.columns or ()
    is_part = bool(known) and set(known) <= {*names}
    then = live_fingerprints(session, staged.table_slice, known) if is_part else now
    changed = {key for key in staged.keys if then[key] != before.fingerprints.get(key, Fingerprint())}
    kept = {key: before.fingerprints.get(key, Fingerprint()) for key in changed}
    return replace(staged, fingerprints=now | kept)


@contextmanager
def readable(session: Session, data: object, *, spec: TableSpec) -> Generator[exp.Table, None, None]:
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
            source = stack.enter_context(session.load(data))
        except NoColumnsError as error:
            if spec.on_empty == "refuse":
                raise _empty_error(spec, "this run") from error
            if session.tables.columns(spec.table) is None:
                raise EmptyFrameError(
                    f"{spec.table}: the frame has no columns, and there is no table yet to take them from; return the"
                    " frame with its columns, typed and without rows",
                    table=str(spec.table),
                ) from error
            source = stack.enter_context(session.load(_no_rows(session, spec.table)))
        except FrameError as error:
            raise SchemaMismatchError(f"{spec.table}: {error}", table=str(spec.table), problems=[str(error)]) from error
        yield source


def _no_rows(session: Session, table: TableRef) -> Query:
    select = exp.select(exp.Star()).from_(terms.table(table)).where(exp.false())
    return Query(select.sql(dialect=session.dialect.name))


def _empty_error(spec: TableSpec, partitions: str) -> EmptyFrameError:
    return EmptyFrameError(
        f"{spec.table}: no rows were computed for {partitions}, which would empty what is live there; if that is"
        ' meant, set on_empty="allow"',
        table=str(spec.table),
    )


def stage(
    session: Session,
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
    live = session.tables.columns(spec.table)
    found = session.describe(exp.select(exp.Star()).from_(source.copy()))
    # The columns of a batch before this one are those of this one, too: no more, and no others.
    of_batch = () if like is None else data_columns(session, like)
    if of_batch:
        strict = replace(spec, on_schema_change="raise", column_defaults={}, updated_at_column=None)
        columns = reconciled(session, source, found, of_batch, strict)
    else:
        columns = reconciled(session, source, found, live, spec)
    staged_columns = tuple([Column(name=column.name, type=column.type) for column in columns])
    names = names_of(staged_columns)
    spec = respelled(spec, names)
    rows = staging.typed_rows(source, columns, dialect=session.dialect.name)
    recognised = table_slice(session, rows, spec=spec, partition_slice=partition_slice, names=names)
    check_keys(session, recognised)
    session.tables.create(
        shadow,
        staging.shadow_rows(rows, names=names, table_slice=recognised),
        kind="scratch" if is_scratch else "shadow",
    )
    duplicates = 0 if spec.keep_latest is None else _delete_duplicates(session, shadow, spec)
    counts, dropped = _counted(session, shadow, recognised)
    return Staged(
        table_slice=recognised,
        shadow=shadow,
        columns=staged_columns,
        rows=counts,
        live_columns=live,
        dropped=dropped,
        duplicates=duplicates,
    )


def _delete_duplicates(session: Session, shadow: TableRef, spec: TableSpec) -> int:
    """Delete the shadow's rows whose key comes again with a later value, and return how many they were.

    Raises:
        KeyViolationError: Two rows of a key are the latest.
    """
    ((duplicates, ties),) = session.query(staging.duplicates(shadow))
    if ties:
        sample = session.query(staging.tied_keys(shadow, spec.unique_key, size=_SAMPLE))
        raise KeyViolationError(
            f"{spec.table}: {ties} keys come twice with the same latest {spec.keep_latest}, so nothing tells which row"
            f" is right ({listed(sample)}); compute such a key once, or name a column in keep_latest that tells",
            table=str(spec.table),
            count=ties,
            sample=sample,
        )
    if duplicates:
        session.execute(staging.delete_duplicates(shadow))
    return duplicates


def _counted(session: Session, shadow: TableRef, recognised: TableSlice) -> tuple[dict[str, int], int]:
    """Return how many rows the shadow has of each partition, and how many outside the slice, which are deleted.

    Raises:
        RowsOutsideSliceError: There are some, and they are refused.
        EmptyFrameError: There are no others, and that is refused.
    """
    spec = recognised.spec
    counted = dict(session.query(staging.rows_by_partition(shadow)))
    dropped = counted.pop(None, 0)
    if dropped:
        if spec.on_outside == "refuse":
            raise _outside_error(session, shadow, recognised, dropped)
        session.execute(staging.delete_outside(shadow))
    if not counted and spec.on_empty == "refuse":
        raise _empty_error(spec, str(recognised))
    return staging.by_key(counted, recognised.keys), dropped


def _outside_error(session: Session, shadow: TableRef, recognised: TableSlice, count: int) -> RowsOutsideSliceError:
    spec = recognised.spec
    sample = session.query(staging.outside_sample(shadow, recognised, size=_SAMPLE))
    values = listed([", ".join(map(str, row)) for row in sample])
    expressions = ", ".join(spec.partition_expr.values())
    return RowsOutsideSliceError(
        f"{spec.table}: {count} of the computed rows belong to none of {recognised} by"
        f" {expressions} (found {values}); compute the slice's rows only, or set"
        ' on_outside="drop" to leave such rows out',
        table=str(spec.table),
        count=count,
        sample=sample,
    )
