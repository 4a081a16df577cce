"""collect: staged partitions of several shadows into one, which can be audited and published as one."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from itertools import count

from sqlglot import exp

from dagster_safe_backfill.errors import PublishConflictError, SchemaMismatchError
from dagster_safe_backfill.model.slices import PartitionSlice
from dagster_safe_backfill.model.states import Origin, Staged
from dagster_safe_backfill.model.tables import Column, TableRef, TableSpec
from dagster_safe_backfill.model.text import listed
from dagster_safe_backfill.sql import publishing, staging, terms
from dagster_safe_backfill.sql.slicing import PARTITION, PartitionColumns, positioned, rows_of
from dagster_safe_backfill.wap.ledger import ledger
from dagster_safe_backfill.wap.ledger.intents import record_intent
from dagster_safe_backfill.wap.ledger.waiting import WAITING, Stage, stages
from dagster_safe_backfill.wap.recognition import (
    added_columns,
    data_columns,
    partition_columns,
    partition_types,
    respelled,
)
from dagster_safe_backfill.wap.transactions import in_transaction
from dagster_safe_backfill.warehouses.base import Connection

_SCRATCH = "_sb_collected"


def collect(
    connection: Connection,
    found: Sequence[Stage],
    *,
    spec: TableSpec,
    partition_slice: PartitionSlice,
    into: TableRef,
    origin: Origin,
    is_over: Callable[[str], bool],
) -> Staged:
    """Move staged partitions into one shadow, in one transaction with its ledger rows; live isn't touched.

    A shadow that they leave is dropped, unless it holds other partitions that wait, or a run that goes on owns it.

    Args:
        connection: An open session, outside a transaction.
        found: Where each partition of the slice stands: a stage a key.
        spec: How the live table is kept.
        partition_slice: The partitions.
        into: The new shadow.
        origin: Who collects.
        is_over: Whether the run of an id has ended.

    Raises:
        SchemaMismatchError: The shadows have different columns.
        PublishConflictError: They were staged for different columns of live.
    """

    def work() -> Staged:
        connection.run(staging.dropped(into))
        staged = gathered(connection, found, spec=spec, partition_slice=partition_slice, into=into)
        for shadow in left(connection, spec.table, found, is_over=is_over):
            if shadow != into:
                connection.run(staging.dropped(shadow))
        # A run that goes on keeps what it has staged, and may be the first to publish it.
        taken = [(one.scope, one.key) for one in found if is_over(one.run_id)]
        ledger.record_taken(connection, spec.table, taken, origin=origin)
        ledger.record_staged(connection, "audited", staged, origin=origin)
        return staged

    record_intent(connection, spec.table, origin=origin, shadow=into)
    return in_transaction(connection, work)


def gathered(
    connection: Connection,
    found: Sequence[Stage],
    *,
    spec: TableSpec,
    partition_slice: PartitionSlice,
    into: TableRef | None = None,
) -> Staged:
    """Copy staged partitions into one table, for the session only if none is named; in the caller's transaction.

    Raises:
        SchemaMismatchError: The shadows have different columns.
        PublishConflictError: They were staged for different columns of live.
    """
    sources = _sources(spec, found)
    columns = _columns(connection, spec, sources)
    names = [column.name for column in columns]
    spec = respelled(spec, names)
    live = connection.columns(spec.table)
    shadow = into or scratch_shadow(connection)
    rows = exp.select(*map(terms.column, names)).from_(terms.table(next(iter(sources))))
    types = partition_types(connection, rows, spec=spec, partition_slice=partition_slice)
    staged = Staged(
        spec=spec,
        partition_slice=partition_slice,
        shadow=shadow,
        columns=columns,
        partition_types=types,
        rows={},
        dropped=0,
        live_columns=_live_columns(spec, found, live, columns),
        fingerprints={stage.key: stage.fingerprint for stage in found},
        copied_from=() if into else tuple(sources),
        computed_at={stage.key: stage.computed_at for stage in found},
    )
    staged = replace(staged, added=added_columns(columns, staged.live_columns))
    recognised = partition_columns(connection, spec=spec, partition_slice=partition_slice, types=types)
    _copy(connection, sources, staged, recognised, is_scratch=into is None)
    counted = staging.by_key(connection.run(staging.rows_by_partition(shadow)), staged.keys)
    _check_rows(spec, found, counted)
    return replace(staged, rows=counted)


def scratch_shadow(connection: Connection) -> TableRef:
    """Return the name of the table of a session in which partitions are gathered."""
    return connection.scratch(_SCRATCH)


def free_shadow(table: TableRef, run_id: str, found: Sequence[Stage]) -> TableRef:
    """Return a shadow of a run in which none of the partitions stands."""
    taken = {stage.shadow for stage in found}
    names = (table.shadow(run_id, batch=number or None) for number in count())
    return next(name for name in names if name not in taken)


def left(
    connection: Connection, table: TableRef, found: Sequence[Stage], *, is_over: Callable[[str], bool]
) -> list[TableRef]:
    """Return the shadows that nothing is left in once these partitions are taken out of them."""
    moved = {(stage.scope, stage.key) for stage in found}
    others = {
        stage.shadow
        for stage in stages(connection, table)
        if stage.event in WAITING and (stage.scope, stage.key) not in moved
    }
    owners = {stage.shadow: stage.run_id for stage in found if stage.shadow is not None}
    return [shadow for shadow, run_id in owners.items() if shadow not in others and is_over(run_id)]


def _conflict(spec: TableSpec, keys: Sequence[str], text: str) -> PublishConflictError:
    """Return the error of partitions that aren't as they were staged, though nobody has published them since."""
    return PublishConflictError(text, table=str(spec.table), keys=keys, published_since=dict.fromkeys(keys))


def _sources(spec: TableSpec, found: Sequence[Stage]) -> Mapping[TableRef, Sequence[str]]:
    """Return the shadows, with the partitions that each is read for."""
    sources: dict[TableRef, list[str]] = {}
    gone: list[str] = []
    for stage in found:
        if stage.shadow is None:
            gone.append(stage.key)
        else:
            sources.setdefault(stage.shadow, []).append(stage.key)
    if gone:
        raise _conflict(
            spec,
            gone,
            f"{spec.table}: {listed(gone)} are not staged any more: another run took them up or published them; run the"
            " partitions again",
        )
    return sources


def _columns(connection: Connection, spec: TableSpec, sources: Mapping[TableRef, Sequence[str]]) -> tuple[Column, ...]:
    """Return the data columns that all shadows have."""
    found = {shadow: data_columns(connection, shadow) for shadow in sources}
    missing = [shadow for shadow, columns in found.items() if not columns]
    if missing:
        lost = [key for shadow in missing for key in sources[shadow]]
        raise _conflict(
            spec,
            lost,
            f"{spec.table}: {listed([*map(str, missing)])}, in which {listed(lost)} were staged, is not there any more:"
            " somebody dropped it; run these partitions again",
        )
    first, *others = sources
    columns = found[first]
    for other in others:
        different = sorted({f"{column.name} {column.type}" for column in {*found[other]} ^ {*columns}})
        if different:
            raise SchemaMismatchError(
                f"{spec.table}: {first} and {other} were staged with different columns ({'; '.join(different)}), so"
                " they can't be published together; stage their partitions again, together",
                table=str(spec.table),
                problems=different,
            )
    return columns


def _live_columns(
    spec: TableSpec, found: Sequence[Stage], live: Sequence[Column] | None, columns: Sequence[Column]
) -> tuple[Column, ...] | None:
    """Return the live columns that there were when the partitions were staged, with the types that they have now."""
    names = next((stage.columns for stage in found if stage.columns is not None), None)
    if names is None:
        return None
    # Where there was no table yet, the partition had no rows, whatever the columns are.
    keys = [stage.key for stage in found if stage.columns not in (None, names)]
    if keys:
        raise _conflict(
            spec,
            keys,
            f"{spec.table} was altered between the staging of {listed(keys)} and of the other partitions; stage them"
            " again, together",
        )
    types = {column.name: column.type for column in (*columns, *(live or ()))}
    return tuple(Column(name=name, type=types.get(name, "")) for name in names)


def _copy(
    connection: Connection,
    sources: Mapping[TableRef, Sequence[str]],
    staged: Staged,
    columns: PartitionColumns,
    *,
    is_scratch: bool,
) -> None:
    """Fill the table; the sources that have rows come first.

    After a table was filled with no rows and then with many in the same transaction, DuckDB 2.0.0 finds no rows in it.
    """
    has_rows: dict[TableRef, bool] = {}
    for source, keys in sources.items():
        inside = rows_of(staged.partitions.only(keys), columns)
        has_rows[source] = bool(connection.run(publishing.any_row(source, where=inside)))
    first, *others = sorted(sources, key=lambda source: not has_rows[source])
    select = partial(_selected, staged, columns)
    connection.run(staging.created_as(staged.shadow, select(first, sources[first]), is_scratch=is_scratch))
    names = [exp.to_identifier(name, quoted=True) for name in (*(column.name for column in staged.columns), PARTITION)]
    target = exp.Schema(this=terms.table(staged.shadow), expressions=names)
    for source in others:
        if has_rows[source]:
            connection.run(exp.Insert(this=target.copy(), expression=select(source, sources[source])))


def _selected(staged: Staged, columns: PartitionColumns, source: TableRef, keys: Sequence[str]) -> exp.Select:
    items = [terms.column(column.name) for column in staged.columns]
    rows = exp.select(*(item.copy() for item in items)).from_(terms.table(source))
    rows = rows.where(rows_of(staged.partitions.only(keys), columns))
    return positioned(rows, items, partition_slice=staged.partition_slice, columns=columns)


def _check_rows(spec: TableSpec, found: Sequence[Stage], counted: Mapping[str, int]) -> None:
    """Refuse shadows that aren't as they were staged: somebody changed them by hand."""
    wrong = [stage.key for stage in found if stage.rows != counted.get(stage.key, 0)]
    if wrong:
        raise _conflict(
            spec,
            wrong,
            f"{spec.table}: the shadow of {listed(wrong)} has other rows than were staged, so somebody changed it;"
            " stage these partitions again",
        )
