"""Collecting staged partitions of several shadows in one, so that they are audited and published together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from itertools import count

from sqlglot import exp

from dagster_safe_backfill.errors import ConfigurationError, PublishConflictError, SchemaMismatchError, SliceError
from dagster_safe_backfill.model.slices import PartitionSlice, TableSlice
from dagster_safe_backfill.model.states import Origin, Staged, StagedPartition
from dagster_safe_backfill.model.tables import Column, TableRef, TableSpec, names_of
from dagster_safe_backfill.model.text import listed
from dagster_safe_backfill.sql import staging, terms
from dagster_safe_backfill.sql.sameness import with_collations
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
    """Copy staged partitions into one shadow, in one transaction with its ledger rows; the live table is unchanged.

    Their earlier shadows are dropped, except those that have other partitions to publish or belong to a running run.

    Args:
        session: An open session, outside a transaction.
        found: The staged partition for each key of the slice.
        spec: How the live table is kept.
        partition_slice: The partitions.
        into: The new shadow.
        origin: The run that collects, and the id of its publication.
        ended_runs: Those of the runs that staged the partitions that have ended.

    Raises:
        SchemaMismatchError: The shadows have different columns.
        PublishConflictError: The partitions were staged for different columns of the live table, or a shadow doesn't
            have the rows that were staged.
    """

    def work() -> Staged:
        # An earlier try of this run may have left a table of this name.
        session.tables.drop(into)
        staged = gathered(session, found, spec=spec, partition_slice=partition_slice, into=into)
        for shadow, run_id in emptied(session, spec.table, found).items():
            if shadow != into and run_id in ended_runs:
                session.tables.drop(shadow)
        # A running run keeps its partitions, and may be the first to publish them.
        moved = [one for one in found if one.run_id in ended_runs]
        record_taken(session, spec.table, moved, origin=origin)
        record_staged(session, "audited", staged, origin=origin)
        return staged

    # In a transaction of its own: on Snowflake a crash leaves created tables, which retention finds by this row.
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
    """Copy staged partitions into one table, in the caller's transaction; without `into`, into a scratch table.

    Raises:
        SchemaMismatchError: The shadows have different columns.
        PublishConflictError: The partitions were staged for different columns of the live table, or a shadow doesn't
            have the rows that were staged.
    """
    sources = _sources(spec, found)
    columns = _columns(session, spec, sources)
    names = names_of(columns)
    live_columns = _live_columns(session, spec, found, columns)
    columns = with_collations(columns, live_columns or ())
    recognised = _recognised(session, sources, spec=spec, partition_slice=partition_slice, columns=columns)
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
        left={one.key: one.left for one in found if one.left},
        copied_from=() if into else tuple(sources),
        computed_at={one.key: one.computed_at for one in found},
        computed_by={one.key: one.computed_by for one in found},
        provenance={one.key: one.provenance for one in found if one.provenance is not None},
    )


def why_unfit(
    session: Session,
    found: Sequence[StagedPartition],
    *,
    spec: TableSpec,
    partition_slice: PartitionSlice,
    like: Sequence[Column] | None = None,
) -> dict[str, str]:
    """Return a mapping from the key of each staged partition that can't be published with the others to the reason.

    A read-only session is enough. The rows are counted, so values that somebody changed are not noticed.

    Args:
        session: An open session.
        found: Staged partitions.
        spec: How the live table is kept.
        partition_slice: A slice that has all of their keys.
        like: The columns of the other rows. Defaults to the columns of the partition that was computed last.
    """
    why, columns = _why_columns_differ(session, found, spec, like)
    sources: dict[TableRef, list[str]] = {}
    for one in found:
        if one.key not in why and one.shadow is not None:
            sources.setdefault(one.shadow, []).append(one.key)
    if not sources:
        return why
    same = [one for one in found if one.key not in why]
    chosen = partition_slice.only(one.key for one in same)
    try:
        counted = _counted(session, sources, spec=spec, partition_slice=chosen, columns=columns)
    except (ConfigurationError, SliceError) as error:
        # The definition is the one that they were staged by, so somebody changed the shadows.
        return why | dict.fromkeys(chosen.keys, f"somebody changed their shadow ({error})")
    lost = "their shadow doesn't have the rows that were staged, so somebody changed it"
    return why | {one.key: lost for one in same if one.rows != counted.get(one.key, 0)}


def _why_columns_differ(
    session: Session, found: Sequence[StagedPartition], spec: TableSpec, like: Sequence[Column] | None
) -> tuple[dict[str, str], Sequence[Column]]:
    """Return the reason for each partition whose shadow has the wrong columns or is gone, and the right columns."""
    shadows = dict.fromkeys(one.shadow for one in found)
    of_shadow = {shadow: data_columns(session, shadow) for shadow in shadows if shadow is not None}
    live = session.tables.columns(spec.table)
    why: dict[str, str] = {}
    for one in sorted(found, key=lambda one: one.computed_at, reverse=True):
        columns = of_shadow[one.shadow] if one.shadow else ()
        problems = _problems_of_live(spec, one, columns, live)
        if not columns:
            why[one.key] = "their shadow was dropped"
        elif problems:
            why[one.key] = f"the live table has other columns than they were staged for ({'; '.join(problems)})"
        else:
            # The newest of them has the columns that the function returns, as far as this is known.
            like = like or columns
            change = changed_columns(like, columns)
            if change:
                why[one.key] = f"the columns of the other rows differ ({'; '.join(change.problems)})"
    return why, like or ()


def _problems_of_live(
    spec: TableSpec, one: StagedPartition, columns: Sequence[Column], live: Sequence[Column] | None
) -> Sequence[str]:
    """Return the columns with which the live table would refuse to publish a staged partition."""
    # A swap gives the live table the columns of the shadow, if it knows which ones the table had.
    if live is None or (spec.on_schema_change == "sync" and one.columns is not None):
        return ()
    known = one.columns
    added = () if known is None else [column for column in columns if column.name not in known]
    return changed_columns(columns, {*live, *added}, apart_from=spec.updated_at_column).problems


def _counted(
    session: Session,
    sources: Mapping[TableRef, Sequence[str]],
    *,
    spec: TableSpec,
    partition_slice: PartitionSlice,
    columns: Sequence[Column],
) -> dict[str, int]:
    """Return a mapping from partition key to the number of rows in the shadows."""
    recognised = _recognised(session, sources, spec=spec, partition_slice=partition_slice, columns=columns)
    rows = terms.Derived(schema="", name=_SCRATCH, select=_rows(sources, recognised, names_of(columns)))
    return staging.by_key(dict(session.query(staging.rows_by_partition(rows))), recognised.keys)


def scratch_shadow(session: Session) -> TableRef:
    """Return the name of the scratch table into which `gathered` copies partitions."""
    return session.scratch(_SCRATCH)


def free_shadow(table: TableRef, run_id: str, found: Sequence[StagedPartition]) -> TableRef:
    """Return the name of a shadow of the run that has none of the partitions."""
    taken = {one.shadow for one in found}
    names = (table.shadow(run_id, batch=number or None) for number in count())
    return next(name for name in names if name not in taken)


def stands_in(
    session: Session, table: TableRef, found: Sequence[StagedPartition], *, into: TableRef, origin: Origin
) -> tuple[Sequence[StagedPartition], TableRef]:
    """Return the staged partitions to collect, and the shadow to collect them in.

    If an earlier try collected them in `into` and failed afterwards, they are read from there and collected in another
    shadow.
    """
    keys = [one.key for one in found]
    own = staged_partitions(session, table, keys=keys, group=origin.group, assets=origin.assets)
    # Collecting is one transaction with its ledger rows, so it moved either all of these partitions or none.
    if {one.key for one in own if one.shadow == into} == set(keys):
        return own, free_shadow(table, origin.run_id, own)
    return found, into


def _conflict(spec: TableSpec, keys: Sequence[str], text: str) -> PublishConflictError:
    """Return the error for partitions whose shadows changed, although nobody has published them since."""
    return PublishConflictError(text, table=str(spec.table), keys=keys, published_since=dict.fromkeys(keys))


def _sources(spec: TableSpec, found: Sequence[StagedPartition]) -> Mapping[TableRef, Sequence[str]]:
    """Return a mapping from each shadow to the keys of the partitions that are read from it."""
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
            f"{spec.table}: {listed(gone)} are not staged any more, because another run took them over or published"
            " them. Run these partitions again.",
        )
    return sources


def _columns(session: Session, spec: TableSpec, sources: Mapping[TableRef, Sequence[str]]) -> tuple[Column, ...]:
    """Return the data columns, which must be the same in all shadows."""
    found = {shadow: data_columns(session, shadow) for shadow in sources}
    missing = [shadow for shadow, columns in found.items() if not columns]
    if missing:
        lost = [key for shadow in missing for key in sources[shadow]]
        raise _conflict(
            spec,
            lost,
            f"{spec.table}: {listed([*map(str, missing)])}, in which {listed(lost)} were staged, doesn't exist any"
            " more. Run these partitions again.",
        )
    first, *others = sources
    columns = found[first]
    for other in others:
        change = changed_columns(columns, found[other])
        if change:
            raise SchemaMismatchError(
                f"{spec.table}: {listed(sources[first])} and {listed(sources[other])} were staged with different"
                f" columns ({'; '.join(change.problems)}), so they can't be published together; their rows are in"
                f" {first} and {other}. Run these partitions again, in one backfill.",
                table=str(spec.table),
                problems=change.problems,
            )
    return columns


def _live_columns(
    session: Session, spec: TableSpec, found: Sequence[StagedPartition], columns: Sequence[Column]
) -> tuple[Column, ...] | None:
    """Return the live table's columns at the time of the staging, with their present types; None without a table."""
    names = next((one.columns for one in found if one.columns is not None), None)
    if names is None:
        return None
    keys = [one.key for one in found if not one.knows(names)]
    if keys:
        raise _conflict(
            spec,
            keys,
            f"{spec.table}: the table's columns changed between the staging of {listed(keys)} and of the other"
            " partitions. Stage all of them again, in one backfill.",
        )
    # The ledger records the names of the live columns, and not their types.
    known = {column.name: column for column in (*columns, *(session.tables.columns(spec.table) or ()))}
    return tuple([known.get(name, Column(name=name, type="")) for name in names])


def _recognised(
    session: Session,
    sources: Mapping[TableRef, Sequence[str]],
    *,
    spec: TableSpec,
    partition_slice: PartitionSlice,
    columns: Sequence[Column],
) -> TableSlice:
    """Return the slice of the shadows' rows, which have the columns `columns`."""
    names = names_of(columns)
    # All shadows have these columns, so any of them gives the expressions' types.
    rows = exp.select(*terms.columns(names)).from_(terms.table(next(iter(sources))))
    return table_slice(session, rows, spec=respelled(spec, names), partition_slice=partition_slice, columns=columns)


def _rows(sources: Mapping[TableRef, Sequence[str]], recognised: TableSlice, names: Sequence[str]) -> exp.Select:
    """Return a SELECT of the partitions' rows from all shadows, with each row's position in the slice."""
    parts: list[exp.Select] = []
    for source, keys in sources.items():
        rows = exp.select(*terms.columns(names)).from_(terms.table(source))
        parts.append(rows.where(inside(recognised.only(keys))))
    # UNION ALL, because a table without a unique key may have equal rows.
    rows = exp.union(*parts, distinct=False) if len(parts) > 1 else parts[0]
    return positioned(rows, terms.columns(names), recognised)


def _check_rows(spec: TableSpec, found: Sequence[StagedPartition], counted: Mapping[str, int]) -> None:
    """Refuse shadows that don't have the numbers of rows that were staged."""
    # The ledger has fingerprints of live rows only, so of staged rows the numbers are compared.
    wrong = [one.key for one in found if one.rows != counted.get(one.key, 0)]
    if wrong:
        raise _conflict(
            spec,
            wrong,
            f"{spec.table}: the shadow of {listed(wrong)} doesn't have the rows that were staged, so somebody changed"
            " it. Run these partitions again.",
        )
