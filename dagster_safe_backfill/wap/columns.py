"""Columns: the computed ones as the live table keeps them, and whether those of a table changed."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from sqlglot import exp

from dagster_safe_backfill.errors import (
    ConfigurationError,
    SchemaMismatchError,
    StatementCancelledError,
    WarehouseError,
)
from dagster_safe_backfill.model.states import Staged
from dagster_safe_backfill.model.tables import Column, TableRef, TableSpec, names_of
from dagster_safe_backfill.sql import staging, terms
from dagster_safe_backfill.sql.slicing import RESERVED
from dagster_safe_backfill.sql.staging import StagedColumn
from dagster_safe_backfill.warehouses.base import Session


def reconciled(
    session: Session,
    source: exp.Table,
    found: Sequence[Column],
    live: Sequence[Column] | None,
    spec: TableSpec,
) -> list[StagedColumn]:
    """Return the computed columns as the live table has them, or will have them (`TableSpec.on_schema_change`).

    Raises:
        SchemaMismatchError: They differ from the table's in a way that isn't allowed, or the table's types would
            change values, such as 1.5 in an integer column.
    """
    if live is None:
        columns, problems = _new_columns(session, found)
    else:
        columns, problems = _matched_columns(session, found, live, spec)
    for column in found:
        if column.name.casefold().startswith(RESERVED):
            problems.append(f"{column.name} begins with {RESERVED}, as only the library's own columns do")
    if problems:
        raise SchemaMismatchError(
            f"{spec.table}: the computed columns differ from the table's, so nothing was written:"
            f" {'; '.join(problems)}",
            table=str(spec.table),
            problems=problems,
        )
    if live is not None and spec.on_schema_change == "sync":
        return [_widened(session, source, column) for column in columns]
    problems = _losses(session, source, columns)
    if problems:
        raise SchemaMismatchError(f"{spec.table}: {'; '.join(problems)}", table=str(spec.table), problems=problems)
    return columns


def _new_columns(session: Session, found: Sequence[Column]) -> tuple[list[StagedColumn], list[str]]:
    columns: list[StagedColumn] = []
    problems: list[str] = []
    for column in found:
        created = session.dialect.created_as(column.type)
        if created is None:
            problems.append(
                f"{column.name} holds nothing but NULL, which tells no type for a new column (cast it,"
                " or create the column first)"
            )
        else:
            columns.append(_on_its_way(column, Column(name=column.name, type=created)))
    return columns, problems


def _matched_columns(
    session: Session, found: Sequence[Column], live: Sequence[Column], spec: TableSpec
) -> tuple[list[StagedColumn], list[str]]:
    computed = dict(zip(map(str.casefold, names_of(found)), found, strict=True))
    columns: list[StagedColumn] = []
    problems: list[str] = []
    for target in live:
        source = computed.pop(target.name.casefold(), None)
        if source is None:
            if not _is_name(target.name, spec.updated_at_column) and spec.on_schema_change != "sync":
                problems.append(f"{target.name} is missing")
        elif session.dialect.fit(source=source.type, target=target.type) != "never":
            columns.append(_on_its_way(source, target))
        elif spec.on_schema_change == "sync":
            new, refused = _new_columns(session, [source])
            columns += [_on_its_way(source, Column(name=target.name, type=column.type)) for column in new]
            problems += refused
        else:
            problems.append(f"{target.name} is {source.type}, and {target.type} in the table")
    stamp = spec.updated_at_column
    if stamp is not None and not any(_is_name(target.name, stamp) for target in live):
        problems.append(f"{stamp}, the updated_at_column, is not in the table (add it, as TIMESTAMP WITH TIME ZONE)")
    if spec.on_schema_change == "raise":
        return columns, [*problems, *map("{} is not in the table".format, names_of(computed.values()))]
    added, refused = _new_columns(session, [*computed.values()])
    return [*columns, *added], [*problems, *refused]


def _widened(session: Session, source: exp.Table, column: StagedColumn) -> StagedColumn:
    """Return a column in the live table's type if that changes no value, else in the computed one's."""
    if not column.is_cast or not _losses(session, source, [column]):
        return column
    created = session.dialect.created_as(column.source_type) or column.type
    return StagedColumn(name=column.name, source=column.source, source_type=column.source_type, type=created)


def _on_its_way(source: Column, target: Column) -> StagedColumn:
    return StagedColumn(name=target.name, source=source.name, source_type=source.type, type=target.type)


def _is_name(name: str, other: str | None) -> bool:
    return other is not None and name.casefold() == other.casefold()


def lost_by_cast(session: Session, columns: Sequence[StagedColumn]) -> dict[str, exp.Expr]:
    """Return, by the columns' names, whether their cast would change or refuse a value."""
    return {
        column.name: session.dialect.is_lost(terms.column(column.source), source=column.source_type, target=column.type)
        for column in columns
    }


def _losses(session: Session, source: exp.Table, columns: Sequence[StagedColumn]) -> list[str]:
    """Return what the casts of columns would change or refuse, a sentence each."""
    cast = [column for column in columns if column.is_cast]
    if not cast:
        return []
    try:
        (counts,) = session.query(staging.values_lost_by_cast(source, lost_by_cast(session, cast)))
    except StatementCancelledError:
        raise
    except WarehouseError as error:
        # Some casts raise even where they are only tried.
        return [f"values of {', '.join(column.name for column in cast)} don't fit their columns: {error}"]
    return [
        f"{count} values of {column.name} ({column.source_type}) don't fit {column.type} unchanged"
        for column, count in zip(cast, counts, strict=True)
        if count
    ]


@dataclass(frozen=True, slots=True, kw_only=True)
class ColumnsChange:
    """How the columns of a table differ from those of before, or of another table.

    Attributes:
        gone: Those that aren't there any more, or have another type.
        new: Those that weren't there, or had another type.
    """

    gone: frozenset[Column]
    new: frozenset[Column]

    def __bool__(self) -> bool:
        return bool(self.gone or self.new)

    @property
    def problems(self) -> list[str]:
        """Each column that differs, with its type."""
        return sorted({f"{column.name} {column.type}" for column in self.gone | self.new})


def changed_columns(
    before: Iterable[Column], after: Iterable[Column], *, apart_from: str | None = None
) -> ColumnsChange:
    """Return whether columns changed, and how; `apart_from` is one that doesn't count. Their order doesn't."""
    old, now = frozenset(before), frozenset(after)
    change = ColumnsChange(gone=old - now, new=now - old)
    if apart_from is None or not change:
        return change
    return ColumnsChange(
        gone=frozenset([one for one in change.gone if one.name != apart_from]),
        new=frozenset([one for one in change.new if one.name != apart_from]),
    )


def add_columns(session: Session, staged: Staged, *, clone: TableRef | None = None) -> None:
    """Add the columns that the shadow brings and live, or the clone that takes its place, still lacks.

    Raises:
        SchemaMismatchError: Live isn't what the rows were staged for, for instance altered by hand since.
    """
    missing = lacking(session, staged, clone=clone)
    if missing:
        defaults = staging.with_defaults(staged.spec, missing, dialect=session.dialect.name)
        session.tables.add_columns(clone or staged.spec.table, defaults)


def lacking(session: Session, staged: Staged, *, clone: TableRef | None = None) -> Sequence[Column]:
    """Return, in their order, the columns that the shadow brings and live still lacks; none, if there is no live table.

    Raises:
        SchemaMismatchError: Live isn't what the rows were staged for.
    """
    live = session.tables.columns(clone or staged.spec.table)
    if live is None:
        return ()
    missing = [column for column in staged.added if column not in live] if staged.added else []
    check_unchanged(staged.spec, staged.columns, {*live, *missing}, apart_from=staged.spec.updated_at_column)
    return missing


def check_unchanged(
    spec: TableSpec, expected: Iterable[Column], live: Iterable[Column], *, apart_from: str | None = None
) -> None:
    """Refuse a live table that isn't what rows were staged for.

    Raises:
        SchemaMismatchError: It isn't.
    """
    change = changed_columns(expected, live, apart_from=apart_from)
    if change:
        raise SchemaMismatchError(
            f"{spec.table} changed since its rows were staged ({'; '.join(change.problems)}); run again",
            table=str(spec.table),
            problems=change.problems,
        )


def data_columns(session: Session, shadow: TableRef) -> tuple[Column, ...]:
    """Return a shadow's columns without the library's own; none, if it isn't there."""
    found = session.tables.columns(shadow) or ()
    return tuple(column for column in found if not column.name.casefold().startswith(RESERVED))


def respelled(spec: TableSpec, names: Sequence[str]) -> TableSpec:
    """Return the spec with its columns spelled as the table spells them."""
    spelling = dict(zip(map(str.casefold, names), names, strict=True))
    missing = {*map(str.casefold, spec.unique_key)}.difference(spelling)
    if missing:
        missing = [name for name in spec.unique_key if name.casefold() in missing]
        raise ConfigurationError(
            f"{spec.table}: unique_key names {', '.join(missing)}, which is no column of it; the columns are"
            f" {', '.join(names)}"
        )
    stamp, latest = spec.updated_at_column, spec.keep_latest
    if latest is not None and latest.casefold() not in spelling:
        raise ConfigurationError(f"{spec.table}: keep_latest names {latest}, which is no column of it")
    return replace(
        spec,
        unique_key=tuple(map(spelling.__getitem__, map(str.casefold, spec.unique_key))),
        updated_at_column=spelling.get(stamp.casefold(), stamp) if stamp else None,
        keep_latest=spelling[latest.casefold()] if latest else None,
    )
