"""collect: staged partitions of several shadows into one, which can be audited and published as one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from itertools import count

from sqlglot import exp

from dagster_safe_backfill.errors import PublishConflictError, SchemaMismatchError
from dagster_safe_backfill.model.slices import PartitionSlice, TableSlice
from dagster_safe_backfill.model.states import Origin, Staged, StagedPartition
from dagster_safe_backfill.model.tables import Column, TableRef, TableSpec, names_of
from dagster_safe_backfill.model.text import listed
from dagster_safe_backfill.sql import staging, terms
from dagster_safe_backfill.sql.slicing import inside, positioned
from dagster_safe_backfill.wap.columns import changed_columns, data_columns, respelled
from dagster_safe_backfill.wap.ledger.record import record_intent, record_staged, record_taken
from dagster_safe_backfill.wap.ledger.waiting import emptied, staged_partitions
from dagster_safe_backfill.wap.tables.slices import table_slice
from dagster_safe_backfill.warehouses.base import Session

_SCRATCH = "_sb_collected"


def collect(
    session: Session,
    found: Sequence[StagedPartition],
    *,
    spec: TableSpec,
    partition_slice: PartitionSlice,
    into: TableRef,
    origin: Origin,
    ended_runs: AbstractSet[str],
) -> Staged:
    """Move staged partitions into one shadow, in one transaction with its ledger rows; live isn't touched.

    A shadow that they leave is dropped, unless it holds other partitions that wait, or a run that goes on owns it.

    Args:
        session: An open session, outside a transaction.
        found: Where each partition of the slice stands, one a key.
        spec: How the live table is kept.
        partition_slice: The partitions.
        into: The new shadow.
        origin: Who collects.
        ended_runs: Those of the runs that staged them which have ended.

    Raises:
        SchemaMismatchError: The shadows have different columns.
        PublishConflictError: They were staged for different columns of live.
    """

    def work() -> Staged:
        session.tables.drop(into)
        staged = gathered(session, found, spec=spec, partition_slice=partition_slice, into=into)
        for shadow, run_id in emptied(session, spec.table, found).items():
            if shadow != into and run_id in ended_runs:
                session.tables.drop(shadow)
        # A run that goes on keeps what it has staged, and may be the first to publish it.
        moved = [one for one in found if one.run_id in ended_runs]
        record_taken(session, spec.table, moved, origin=origin)
        record_staged(session, "audited", staged, origin=origin)
        return staged

    record_intent(session, spec.table, origin=origin, shadow=into)
    return session.attempt(work)


def gathered(
    session: Session,
    found: Sequence[StagedPartition],
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
    columns = _columns(session, spec, sources)
    names = names_of(columns)
    rows = exp.select(*terms.columns(names)).from_(terms.table(next(iter(sources))))
    recognised = table_slice(session, rows, spec=respelled(spec, names), partition_slice=partition_slice, names=names)
    live_columns = _live_columns(session, spec, found, columns)
    shadow = into or scratch_shadow(session)
    kind = "scratch" if into is None else "shadow"
    session.tables.create(shadow, _rows(sources, recognised, names), kind=kind)
    counted = staging.by_key(dict(session.query(staging.rows_by_partition(shadow))), recognised.keys)
    _check_rows(spec, found, counted)
    return Staged(
        table_slice=recognised,
        shadow=shadow,
        columns=columns,
        rows=counted,
        live_columns=live_columns,
        fingerprints={one.key: one.fingerprint for one in found},
        copied_from=() if into else tuple(sources),
        computed_at={one.key: one.computed_at for one in found},
    )


def scratch_shadow(session: Session) -> TableRef:
    """Return the name of the table of a session in which partitions are gathered."""
    return session.scratch(_SCRATCH)


def free_shadow(table: TableRef, run_id: str, found: Sequence[StagedPartition]) -> TableRef:
    """Return a shadow of a run in which none of the partitions stands."""
    taken = {one.shadow for one in found}
    names = (table.shadow(run_id, batch=number or None) for number in count())
    return next(name for name in names if name not in taken)


def stands_in(
    session: Session, table: TableRef, found: Sequence[StagedPartition], *, into: TableRef, origin: Origin
) -> tuple[Sequence[StagedPartition], TableRef]:
    """Return where partitions that are to be collected stand, and a shadow to collect them in.

    An earlier try may have collected them in `into`, and failed afterwards: then they stand there, in the run's group.
    """
    keys = [one.key for one in found]
    own = staged_partitions(session, table, keys=keys, group=origin.group)
    if {one.key for one in own if one.shadow == into} == set(keys):
        return own, free_shadow(table, origin.run_id, own)
    return found, into


def _conflict(spec: TableSpec, keys: Sequence[str], text: str) -> PublishConflictError:
    """Return the error of partitions that aren't as they were staged, though nobody has published them since."""
    return PublishConflictError(text, table=str(spec.table), keys=keys, published_since=dict.fromkeys(keys))


def _sources(spec: TableSpec, found: Sequence[StagedPartition]) -> Mapping[TableRef, Sequence[str]]:
    """Return the shadows, with the partitions that each is read for."""
    sources: dict[TableRef, list[str]] = {}
    gone: list[str] = []
    for one in found:
        if one.shadow is None:
            gone.append(one.key)
        else:
            sources.setdefault(one.shadow, []).append(one.key)
    if gone:
        raise _conflict(
            spec,
            gone,
            f"{spec.table}: {listed(gone)} are not staged any more: another run took them up or published them; run the"
            " partitions again",
        )
    return sources


def _columns(session: Session, spec: TableSpec, sources: Mapping[TableRef, Sequence[str]]) -> tuple[Column, ...]:
    """Return the data columns that all shadows have."""
    found = {shadow: data_columns(session, shadow) for shadow in sources}
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
        change = changed_columns(columns, found[other])
        if change:
            raise SchemaMismatchError(
                f"{spec.table}: {first} and {other} were staged with different columns ({'; '.join(change.problems)}),"
                " so they can't be published together; stage their partitions again, together",
                table=str(spec.table),
                problems=change.problems,
            )
    return columns


def _live_columns(
    session: Session, spec: TableSpec, found: Sequence[StagedPartition], columns: Sequence[Column]
) -> tuple[Column, ...] | None:
    """Return the live columns that there were when the partitions were staged, with the types that they have now."""
    names = next((one.columns for one in found if one.columns is not None), None)
    if names is None:
        return None
    keys = [one.key for one in found if not one.knows(names)]
    if keys:
        raise _conflict(
            spec,
            keys,
            f"{spec.table} was altered between the staging of {listed(keys)} and of the other partitions; stage them"
            " again, together",
        )
    types = {column.name: column.type for column in (*columns, *(session.tables.columns(spec.table) or ()))}
    return tuple([Column(name=name, type=types.get(name, "")) for name in names])


def _rows(sources: Mapping[TableRef, Sequence[str]], recognised: TableSlice, names: Sequence[str]) -> exp.Select:
    """Return the rows of all sources, each of its own partitions, as a shadow holds them."""
    parts: list[exp.Select] = []
    for source, keys in sources.items():
        rows = exp.select(*terms.columns(names)).from_(terms.table(source))
        parts.append(rows.where(inside(recognised.only(keys))))
    rows = exp.union(*parts, distinct=False, copy=False) if len(parts) > 1 else parts[0]
    return positioned(rows, terms.columns(names), recognised)


def _check_rows(spec: TableSpec, found: Sequence[StagedPartition], counted: Mapping[str, int]) -> None:
    """Refuse shadows that aren't as they were staged: somebody changed them by hand."""
    wrong = [one.key for one in found if one.rows != counted.get(one.key, 0)]
    if wrong:
        raise _conflict(
            spec,
            wrong,
            f"{spec.table}: the shadow of {listed(wrong)} has other rows than were staged, so somebody changed it;"
            " stage these partitions again",
        )
