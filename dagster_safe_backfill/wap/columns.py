"""reconcile: the computed columns against the live table's, by name and without regard to case."""

from __future__ import annotations

from collections.abc import Sequence

from sqlglot import exp

from dagster_safe_backfill.errors import SchemaMismatchError, StatementCancelledError, WarehouseError
from dagster_safe_backfill.model.tables import Column, TableSpec
from dagster_safe_backfill.sql import staging, terms
from dagster_safe_backfill.sql.slicing import RESERVED
from dagster_safe_backfill.sql.staging import StagedColumn
from dagster_safe_backfill.warehouses.base import Connection


def reconciled(
    connection: Connection,
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
        columns, problems = _new_columns(connection, found)
    else:
        columns, problems = _matched_columns(connection, found, live, spec)
    problems += [
        f"{column.name} begins with {RESERVED}, as only the library's own columns do"
        for column in found
        if column.name.casefold().startswith(RESERVED)
    ]
    if problems:
        raise SchemaMismatchError(
            f"{spec.table}: the computed columns differ from the table's, so nothing was written:"
            f" {'; '.join(problems)}",
            table=str(spec.table),
            problems=problems,
        )
    if live is not None and spec.on_schema_change == "sync":
        return [_widened(connection, source, column) for column in columns]
    _check_casts(connection, source, columns, spec)
    return columns


def _new_columns(connection: Connection, found: Sequence[Column]) -> tuple[list[StagedColumn], list[str]]:
    columns: list[StagedColumn] = []
    problems: list[str] = []
    for column in found:
        created = connection.created_as(column.type)
        if created is None:
            problems.append(
                f"{column.name} holds nothing but NULL, which tells no type for a new column (cast it,"
                " or create the column first)"
            )
        else:
            columns.append(_on_its_way(column, Column(name=column.name, type=created)))
    return columns, problems


def _matched_columns(
    connection: Connection, found: Sequence[Column], live: Sequence[Column], spec: TableSpec
) -> tuple[list[StagedColumn], list[str]]:
    computed = {column.name.casefold(): column for column in found}
    columns: list[StagedColumn] = []
    problems: list[str] = []
    for target in live:
        source = computed.pop(target.name.casefold(), None)
        if source is None:
            if not _is_name(target.name, spec.updated_at_column) and spec.on_schema_change != "sync":
                problems.append(f"{target.name} is missing")
        elif connection.fit(source=source.type, target=target.type) != "never":
            columns.append(_on_its_way(source, target))
        elif spec.on_schema_change == "sync":
            new, refused = _new_columns(connection, [source])
            columns += [_on_its_way(source, Column(name=target.name, type=column.type)) for column in new]
            problems += refused
        else:
            problems.append(f"{target.name} is {source.type}, and {target.type} in the table")
    stamp = spec.updated_at_column
    if stamp is not None and not any(_is_name(target.name, stamp) for target in live):
        problems.append(f"{stamp}, the updated_at_column, is not in the table (add it, as TIMESTAMP WITH TIME ZONE)")
    if spec.on_schema_change == "raise":
        return columns, [*problems, *(f"{column.name} is not in the table" for column in computed.values())]
    added, refused = _new_columns(connection, [*computed.values()])
    return [*columns, *added], [*problems, *refused]


def _widened(connection: Connection, source: exp.Table, column: StagedColumn) -> StagedColumn:
    """Return a column in the live table's type if that changes no value, else in the computed one's."""
    if not column.is_cast or not _losses(connection, source, [column]):
        return column
    created = connection.created_as(column.source_type) or column.type
    return StagedColumn(name=column.name, source=column.source, source_type=column.source_type, type=created)


def _on_its_way(source: Column, target: Column) -> StagedColumn:
    return StagedColumn(name=target.name, source=source.name, source_type=source.type, type=target.type)


def _is_name(name: str, other: str | None) -> bool:
    return other is not None and name.casefold() == other.casefold()


def _check_casts(connection: Connection, source: exp.Table, columns: Sequence[StagedColumn], spec: TableSpec) -> None:
    problems = _losses(connection, source, columns)
    if problems:
        raise SchemaMismatchError(f"{spec.table}: {'; '.join(problems)}", table=str(spec.table), problems=problems)


def lost_by_cast(connection: Connection, columns: Sequence[StagedColumn]) -> dict[str, exp.Expr]:
    """Return, by the columns' names, whether their cast would change or refuse a value."""
    return {
        column.name: connection.is_lost(terms.column(column.source), source=column.source_type, target=column.type)
        for column in columns
    }


def _losses(connection: Connection, source: exp.Table, columns: Sequence[StagedColumn]) -> list[str]:
    """Return what the casts of columns would change or refuse, a sentence each."""
    cast = [column for column in columns if column.is_cast]
    if not cast:
        return []
    try:
        (counts,) = connection.run(staging.values_lost_by_cast(source, lost_by_cast(connection, cast)))
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
