"""Writing computed rows to a shadow, which readers don't see."""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
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
from dagster_safe_backfill.model.events import Fingerprint
from dagster_safe_backfill.model.provenance import Provenance
from dagster_safe_backfill.model.slices import PartitionSlice, TableSlice
from dagster_safe_backfill.model.states import Origin, Staged
from dagster_safe_backfill.model.tables import Column, Query, TableRef, TableSpec, names_of
from dagster_safe_backfill.model.text import listed
from dagster_safe_backfill.redaction import masked
from dagster_safe_backfill.sql import staging, terms
from dagster_safe_backfill.sql.sameness import Sameness
from dagster_safe_backfill.sql.slicing import expression, shown_value
from dagster_safe_backfill.wap.changes.fingerprints import live_fingerprints
from dagster_safe_backfill.wap.changes.moves import Moves, moves_of
from dagster_safe_backfill.wap.columns import data_columns, naming_generated, reconciled, respelled
from dagster_safe_backfill.wap.ledger.owner import check_writer
from dagster_safe_backfill.wap.ledger.record import create_ledger, record_intent, record_staged
from dagster_safe_backfill.wap.recovery import finish_interrupted_swap
from dagster_safe_backfill.wap.tables.slices import check_keys, live_rows, live_slice, table_slice
from dagster_safe_backfill.warehouses.base import Session
from dagster_safe_backfill.warehouses.frames import FrameError, NoColumnsError

_SAMPLE = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class LiveBefore:
    """The live table's columns and fingerprints, read before the user's function is called.

    The publication compares them with the live table, to find what changed while rows were computed.

    Attributes:
        at: The time at which they were read.
        columns: The names of the live table's columns; None if the table didn't exist.
        fingerprints: A mapping from partition key to the live partition's fingerprint; empty if the table didn't exist.
    """

    at: datetime
    columns: tuple[str, ...] | None = None
    fingerprints: Mapping[str, Fingerprint] = field(default_factory=dict[str, Fingerprint])


def live_before(session: Session, *, spec: TableSpec, partition_slice: PartitionSlice) -> LiveBefore:
    """Return the live table's columns and fingerprints as they are now.

    Args:
        session: An open session; read-only is enough.
        spec: How the live table is kept.
        partition_slice: The partitions.

    Raises:
        SliceError: A partition expression names a column that the table doesn't have, or doesn't tell the partitions
            apart.
    """
    # Taken first, so that a change during the reads below counts as later.
    at = datetime.now(timezone.utc)
    finish_interrupted_swap(session, spec.table)
    live = session.tables.writable_columns(spec.table)
    if live is None:
        return LiveBefore(at=at)
    names = names_of(live)
    with naming_generated(session, spec):
        recognised = live_slice(session, spec=spec, partition_slice=partition_slice, columns=live)
    # Before any work: a definition with ambiguous keys is refused without a call of the user's function.
    check_keys(session, recognised, live_rows(spec, names))
    if spec.on_moved_key == "move" and partition_slice.every is not None:
        # Only the rows will show which other partitions have their keys.
        recognised = replace(recognised, partition_slice=partition_slice.every)
    return LiveBefore(at=at, columns=names, fingerprints=live_fingerprints(session, recognised, live))


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
    made_by: Mapping[str, Provenance] | None = None,
) -> Staged:
    """Write a batch to a shadow, in one transaction with its ledger rows. The live table is unchanged.

    An earlier try of the same run may have left a shadow; it is replaced.

    Args:
        session: An open session, outside a transaction.
        data: A frame (pandas, polars, pyarrow or another type that supports Arrow) or a `Query`.
        spec: How the live table is kept.
        partition_slice: The partitions that the rows must belong to.
        origin: The run that writes, and the id of its publication.
        shadow: The shadow to write. Defaults to the run's own.
        like: The shadow of another batch of the same publication, whose columns these rows must have.
        before: The live table before the rows were computed. Defaults to the live table as it is now.
        made_by: A mapping from partition key to what made its rows. Without it, nobody reuses the staged rows.

    Raises:
        WriteError: The rows are not allowed in the table; the transaction is rolled back, and with it the shadow.
        OtherAssetError: The table belongs to another asset.
        SliceError: A partition expression names a column that the rows don't have, or doesn't tell the partitions
            apart.
    """
    target = shadow or spec.table.shadow(origin.run_id)

    def work() -> Staged:
        finish_interrupted_swap(session, spec.table)
        for schema in spec.table.schemas:
            session.tables.ensure_schema(schema)
        # Where DDL is part of transactions, `record_intent` does nothing, and no ledger may exist yet.
        create_ledger(session, spec.table)
        check_writer(session, spec.table, origin=origin, keys=partition_slice.keys)
        # A shadow's name holds the run's id, so an earlier try of this run has left it.
        is_left = session.tables.columns(target) is not None
        if is_left:
            session.tables.drop(target)
        staged = stage(session, source, spec=spec, partition_slice=partition_slice, shadow=target, like=like)
        staged = _fingerprinted(session, staged, before, origin=origin)
        staged = replace(staged, replaces_shadow=is_left, provenance=made_by or {})
        record_staged(session, "staged", staged, origin=origin)
        return staged

    # Loaded before the transaction: `attempt` may repeat that, and Snowflake's DDL to load a frame would commit it.
    with readable(session, data, spec=spec) as source:
        record_intent(session, spec.table, origin=origin, shadow=target)
        return session.attempt(work)


def _fingerprinted(session: Session, staged: Staged, before: LiveBefore | None, *, origin: Origin) -> Staged:
    """Add the live partitions' fingerprints before the rows were computed, so that the publication can find changes.

    Also those of other partitions, from which rows move.

    Raises:
        KeyViolationError: A key that is live in another partition can't move. See `moves_of`.
    """
    if before is not None:
        staged = replace(staged, computed_at=dict.fromkeys(staged.keys, before.at))
    if staged.live_columns is None or staged.table_slice.partition_slice is None:
        return staged
    can_move = staged.spec.on_moved_key == "move"
    moves = moves_of(session, staged, origin=origin) if can_move else Moves(table_slice=staged.table_slice)
    seen = _fingerprints(session, moves.table_slice, staged.live_columns, before)
    left: dict[str, dict[str, Fingerprint]] = {}
    for was, now in moves.rows:
        left.setdefault(now, {})[was] = seen[was]
    return replace(staged, fingerprints={key: seen[key] for key in staged.keys}, left=left)


def _fingerprints(
    session: Session, table_slice: TableSlice, live: Sequence[Column], before: LiveBefore | None
) -> dict[str, Fingerprint]:
    """Return the fingerprints of live partitions before rows were computed, over the columns `live`."""
    keys, names, nothing = table_slice.keys, names_of(live), Fingerprint()
    if before is not None and before.columns == names:
        return {key: before.fingerprints.get(key, nothing) for key in keys}
    now = live_fingerprints(session, table_slice, live)
    if before is None:
        return now
    # Equal rows have other hashes over other columns. Fingerprints over the earlier columns show which partitions
    # changed.
    known = before.columns or ()
    is_part = bool(known) and set(known) <= {*names}
    then = live_fingerprints(session, table_slice, live, known) if is_part else now
    was = {key: before.fingerprints.get(key, nothing) for key in keys}
    return {key: now[key] if then[key] == was[key] else was[key] for key in keys}


@contextmanager
def readable(session: Session, data: object, *, spec: TableSpec) -> Generator[exp.Table, None, None]:
    """Make computed rows readable as a relation within the block.

    A frame without columns is empty. If empty frames are allowed, it is read as zero rows of the live table.

    Raises:
        ConfigurationError: The data is neither a frame nor a query of one SELECT.
        EmptyFrameError: The frame has no columns, and empty frames are refused or there is no table whose columns it
            could have.
        SchemaMismatchError: The frame can't be converted to an Arrow table.
    """
    # A frame without columns is replaced by a query, and whichever was loaded stays open for the block.
    with ExitStack() as stack:
        try:
            source = stack.enter_context(session.load(data))
        except NoColumnsError as error:
            if spec.on_empty == "refuse":
                raise _empty_error(spec, "this run") from error
            if session.tables.columns(spec.table) is None:
                raise EmptyFrameError(
                    f"{spec.table}: the frame has no columns, and the table doesn't exist yet, so its columns aren't"
                    " known. Return an empty frame with typed columns.",
                    table=str(spec.table),
                ) from error
            source = stack.enter_context(session.load(_no_rows(session, spec.table)))
        except FrameError as error:
            raise SchemaMismatchError(f"{spec.table}: {error}", table=str(spec.table), problems=[str(error)]) from error
        names = () if isinstance(data, Query) else _names_if_empty(session, source, spec)
        if names:
            stack.close()
            source = stack.enter_context(session.load(_no_rows(session, spec.table, names)))
        yield source


def _names_if_empty(session: Session, source: exp.Table, spec: TableSpec) -> Sequence[str]:
    """Return the live names of the columns if there are no rows, which have no types, and that is allowed."""
    if spec.on_empty == "refuse" or not _is_empty(session, source):
        return ()
    live = {name.casefold(): name for name in names_of(session.tables.columns(spec.table) or ())}
    found = names_of(session.describe(exp.select(exp.Star()).from_(source.copy())))
    known = [live[name.casefold()] for name in found if name.casefold() in live]
    # Another name is an error, and a new column may be added: both need the types.
    return known if len(known) == len(found) else ()


def _is_empty(session: Session, source: exp.Table) -> bool:
    return not session.query(exp.select(exp.Literal.number(1)).from_(source.copy()).limit(1))


def _no_rows(session: Session, table: TableRef, names: Sequence[str] = ()) -> Query:
    items = terms.columns(names) or [exp.Star()]
    select = exp.select(*items).from_(terms.table(table)).where(exp.false())
    return Query(select.sql(dialect=session.dialect.name))


def _empty_error(spec: TableSpec, partitions: str) -> EmptyFrameError:
    return EmptyFrameError(
        f"{spec.table}: no rows were computed for {partitions}, so nothing was written: these partitions would become"
        ' empty. If that is intended, set on_empty="allow".',
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
    """Create `shadow` from computed rows, and check their columns, their partitions, and that there are rows.

    Runs in the caller's transaction, which must be rolled back if this raises. A scratch shadow lasts as long as the
    session.

    Raises:
        WriteError: The rows are not allowed in the table.
        SliceError: A partition expression names a column that the rows don't have, or doesn't tell the partitions
            apart.
    """
    live = session.tables.writable_columns(spec.table)
    found = session.describe(exp.select(exp.Star()).from_(source.copy()))
    # All batches of a publication must have the same columns, since their shadows are copied into one.
    of_batch = () if like is None else data_columns(session, like)
    if of_batch:
        # A shadow has the updated_at_column only if the function computes it, so it can't be required here.
        strict = replace(spec, on_schema_change="raise", column_defaults={}, updated_at_column=None)
        # The live table's columns say what default they have.
        known = {column: column for column in live or ()}
        expected, rules = [known.get(column, column) for column in of_batch], strict
    else:
        expected, rules = live, spec
    try:
        columns = reconciled(session, source, found, expected, rules)
    except SchemaMismatchError as error:
        # Columns of no rows have no types that could differ: what is wrong is that there are none.
        if spec.on_empty == "refuse" and _is_empty(session, source):
            raise _empty_error(spec, str(partition_slice or spec.table)) from error
        raise
    staged_columns: list[Column] = []
    for column in columns:
        staged_columns.append(column.staged)
    names = names_of(staged_columns)
    rows = staging.typed_rows(source, columns, dialect=session.dialect.name)
    with naming_generated(session, spec):
        spec = respelled(spec, names)
        recognised = table_slice(session, rows, spec=spec, partition_slice=partition_slice, columns=staged_columns)
    # The collation is that of the live table, which may lack a column that its publication adds.
    is_kept = _has_partition(live, recognised)
    check_keys(session, recognised, live_rows(spec, names_of(live or ())) if is_kept else rows)
    select = staging.shadow_rows(
        rows, names=names, table_slice=recognised, sameness=Sameness.of(staged_columns, session.dialect)
    )
    session.tables.create(shadow, select, kind="scratch" if is_scratch else "shadow")
    # Before rows are counted, so that the counts of partitions are those of the rows that remain.
    duplicates = 0 if spec.keep_latest is None else _delete_duplicates(session, shadow, spec)
    counts, dropped = _counted(session, shadow, recognised)
    return Staged(
        table_slice=recognised,
        shadow=shadow,
        columns=tuple(staged_columns),
        rows=counts,
        live_columns=live,
        dropped=dropped,
        duplicates=duplicates,
    )


def _has_partition(live: Sequence[Column] | None, recognised: TableSlice) -> bool:
    """Return True if a live table has all columns that the partition expressions read."""
    names = {*map(str.casefold, names_of(live or ()))}
    read = [one.name for column in recognised.columns.values() for one in expression(column).find_all(exp.Column)]
    return live is not None and names.issuperset(map(str.casefold, read))


def _delete_duplicates(session: Session, shadow: TableRef, spec: TableSpec) -> int:
    """Delete the shadow's rows whose key has another row with a later value, and return the number of deleted rows.

    Raises:
        KeyViolationError: Two rows of one key have the latest value.
    """
    ((duplicates, ties),) = session.query(staging.duplicates(shadow))
    if ties:
        sample = session.query(staging.tied_keys(shadow, spec.unique_key, size=_SAMPLE))
        shown = [tuple(map(masked, row, spec.unique_key)) for row in sample]
        raise KeyViolationError(
            f"{spec.table}: {ties} keys occur twice with the same latest {spec.keep_latest} ({listed(shown)}), so it"
            " isn't known which row to keep, and nothing was written. Compute each of these keys once, or name another"
            " column in keep_latest.",
            table=str(spec.table),
            count=ties,
            sample=shown,
        )
    if duplicates:
        session.execute(staging.delete_duplicates(shadow))
    return duplicates


def _counted(session: Session, shadow: TableRef, recognised: TableSlice) -> tuple[dict[str, int], int]:
    """Delete the shadow's rows outside the slice; return the row count of each partition and of the deleted rows.

    Raises:
        RowsOutsideSliceError: There are rows outside the slice, and `on_outside` refuses them.
        EmptyFrameError: There are no rows inside the slice, and `on_empty` refuses that.
    """
    spec = recognised.spec
    counted = dict(session.query(staging.rows_by_partition(shadow)))
    # `PARTITION` is NULL for rows outside the slice.
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
    found = session.query(staging.outside_sample(shadow, recognised, size=_SAMPLE))
    sample = [tuple(map(shown_value, row, recognised.columns.values())) for row in found]
    values = listed([*dict.fromkeys(", ".join(map(str, row)) for row in sample)])
    expressions = ", ".join(spec.partition_expr.values())
    return RowsOutsideSliceError(
        f"{spec.table}: {count} of the computed rows belong to none of {recognised} by {expressions} (found {values}),"
        ' so nothing was written. Compute only rows of the slice, or set on_outside="drop" to leave such rows out.',
        table=str(spec.table),
        count=count,
        sample=sample,
    )
