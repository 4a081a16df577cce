"""Columns: the computed ones as the live table keeps them, and whether those of a table changed."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import filterfalse

from sqlglot import exp

from dagster_safe_backfill.errors import (
    ConfigurationError,
    OutOfResourcesError,
    SchemaMismatchError,
    SliceError,
    StatementCancelledError,
    WarehouseError,
)
from dagster_safe_backfill.model.states import Staged
from dagster_safe_backfill.model.tables import Column, TableRef, TableSpec, names_of
from dagster_safe_backfill.model.text import listed
from dagster_safe_backfill.redaction import masked
from dagster_safe_backfill.sql import staging, terms
from dagster_safe_backfill.sql.slicing import RESERVED
from dagster_safe_backfill.sql.staging import StagedColumn
from dagster_safe_backfill.warehouses.base import Session

_TEXT = "VARCHAR"


def reconciled(
    session: Session,
    source: exp.Table,
    found: Sequence[Column],
    live: Sequence[Column] | None,
    spec: TableSpec,
) -> list[StagedColumn]:
    """Return the computed columns with the names and types that the live table has, or gets with their publication.

    Raises:
        SchemaMismatchError: The columns differ from the table's in a way that `TableSpec.on_schema_change` refuses, or
            the table's types would change values, such as 1.5 in an integer column.
    """
    if live is None:
        columns, problems = _new_columns(session, found)
    else:
        found = _without_generated(session, found, live, spec)
        columns, problems = _matched_columns(session, found, live, spec)
    for column in found:
        if column.name.casefold().startswith(RESERVED):
            problems.append(f"{column.name} begins with {RESERVED}, which is reserved for the library's own columns")
    if problems:
        raise SchemaMismatchError(
            f"{spec.table}: the computed columns differ from the table's, so nothing was written:"
            f" {'; '.join(problems)}",
            table=str(spec.table),
            problems=problems,
        )
    # A swap can change the type of a column, so values that don't fit into it are no error.
    if live is not None and spec.on_schema_change == "sync":
        return [_widened(session, source, column) for column in columns]
    cast: list[StagedColumn] = []
    for column in columns:
        if column.is_cast:
            cast.append(column)
    problems = _losses(session, source, cast) if cast else []
    if problems:
        problems = _with_examples(session, source, cast, problems, spec)
        raise SchemaMismatchError(f"{spec.table}: {'; '.join(problems)}", table=str(spec.table), problems=problems)
    return columns


def _new_columns(session: Session, found: Sequence[Column]) -> tuple[list[StagedColumn], list[str]]:
    columns: list[StagedColumn] = []
    problems: list[str] = []
    for column in found:
        # DuckDB 2.0 would create a column of type "NULL" for a column of a frame that has only NULLs.
        created = session.dialect.created_as(column.type)
        if created is None:
            problems.append(
                f"{column.name} has only NULL values, so the type of the new column isn't known (cast it, or create the"
                " column first)"
            )
        else:
            columns.append(_on_its_way(column, Column(name=column.name, type=created)))
    return columns, problems


def _matched_columns(
    session: Session, found: Sequence[Column], live: Sequence[Column], spec: TableSpec
) -> tuple[list[StagedColumn], list[str]]:
    # DuckDB ignores the case of column names, and so does Snowflake for unquoted ones.
    computed = dict(zip(map(str.casefold, names_of(found)), found, strict=True))
    columns: list[StagedColumn] = []
    problems: list[str] = []
    for target in live:
        source = computed.pop(target.name.casefold(), None)
        if source is None:
            added, refused = _not_computed(session, target, spec)
            columns += added
            problems += refused
        elif session.dialect.fit(source=source.type, target=target.type) != "never":
            columns.append(_on_its_way(source, target))
        elif spec.on_schema_change == "sync":
            new, refused = _new_columns(session, [source])
            columns += [_on_its_way(source, Column(name=target.name, type=column.type)) for column in new]
            problems += refused
        else:
            problems.append(f"{target.name} is {source.type}, but {target.type} in the table")
    stamp = spec.updated_at_column
    if stamp is not None and not any(_is_name(target.name, stamp) for target in live):
        problems.append(f"{stamp}, the updated_at_column, is not in the table (add it, as TIMESTAMP WITH TIME ZONE)")
    if spec.on_schema_change == "raise":
        return columns, [*problems, *map("{} is not in the table".format, names_of(computed.values()))]
    added, refused = _new_columns(session, [*computed.values()])
    return [*columns, *added], [*problems, *refused]


def _without_generated(
    session: Session, found: Sequence[Column], live: Sequence[Column], spec: TableSpec
) -> Sequence[Column]:
    """Return the computed columns without those that the table generates itself."""
    known = {*map(str.casefold, names_of(live))}
    if known.issuperset(map(str.casefold, names_of(found))):
        return found
    generated = {*map(str.casefold, session.tables.generated(spec.table))}
    return [column for column in found if column.name.casefold() not in generated]


@contextmanager
def naming_generated(session: Session, spec: TableSpec) -> Generator[None, None, None]:
    """Explain an error of the block about a column that rows are told apart by, if the table generates that column.

    Raises:
        ConfigurationError: It does.
    """
    try:
        yield
    except (ConfigurationError, SliceError) as error:
        known = _identifying(session, spec)
        generated = [name for name in session.tables.generated(spec.table) if name.casefold() in known]
        if not generated:
            raise
        raise ConfigurationError(
            f"{spec.table}: {listed(generated)} is a column that the table generates from others, so computed rows"
            " don't have it, and partition_expr, unique_key and on_duplicate can't name it. Nothing was written. In"
            " partition_expr, write the expression that the column is generated by; in unique_key and on_duplicate,"
            " name the columns that it is generated from."
        ) from error


def _not_computed(session: Session, target: Column, spec: TableSpec) -> tuple[list[StagedColumn], list[str]]:
    """Return the values for a live column that isn't computed, or why it can't be left out.

    Neither is returned if the rows are inserted without the column.
    """
    # The publication sets updated_at_column, so the function needn't compute it. `sync` drops the column.
    if _is_name(target.name, spec.updated_at_column) or spec.on_schema_change == "sync":
        return [], []
    if target.default is not None:
        value = _parsed(target.default, dialect=session.dialect.name)
        # Other values, such as the time or the next number of a sequence, differ with each row or run, so an unchanged
        # row would look changed. They are left to the database, which evaluates them for inserted rows only.
        return ([], []) if value is None or not terms.is_constant(value) else ([_constant(target, value)], [])
    if spec.on_missing_column == "refuse":
        return [], [f'{target.name} is missing (on_missing_column="fill" would write NULL)']
    if target.name.casefold() in _identifying(session, spec):
        return [], [f"{target.name} is missing, and rows can't be identified without it"]
    if not target.is_nullable:
        return [], [f"{target.name} is missing, and has no default and can't be NULL in the table"]
    return [_constant(target, exp.null())], []


def _parsed(default: str, *, dialect: str) -> exp.Expr | None:
    """Return the expression of a column's default, or None if the catalog spells it in a way that isn't understood."""
    try:
        return terms.parsed(default, dialect=dialect, option="a column's default")
    except ConfigurationError:
        return None


def _constant(target: Column, value: exp.Expr) -> StagedColumn:
    return StagedColumn(name=target.name, source="", source_type="", type=target.type, constant=value)


def _identifying(session: Session, spec: TableSpec) -> set[str]:
    """Return the columns that tell rows and partitions apart, in lower case."""
    names = {*map(str.casefold, spec.unique_key)}
    if spec.keep_latest is not None:
        names.add(spec.keep_latest.casefold())
    for sql in spec.partition_expr.values():
        read = terms.of_row(sql, dialect=session.dialect.name, option=f"{spec.table}: partition_expr")
        names.update(column.name.casefold() for column in read.find_all(exp.Column))
    return names


def _widened(session: Session, source: exp.Table, column: StagedColumn) -> StagedColumn:
    """Return a column with the live table's type if that type changes no value, else with the computed type."""
    if not column.is_cast or not _losses(session, source, [column]):
        return column
    created = session.dialect.created_as(column.source_type) or column.type
    return replace(column, type=created)


def _on_its_way(source: Column, target: Column) -> StagedColumn:
    collation = target.collation or source.collation
    return StagedColumn(
        name=target.name, source=source.name, source_type=source.type, type=target.type, collation=collation
    )


def _is_name(name: str, other: str | None) -> bool:
    return other is not None and name.casefold() == other.casefold()


def lost_by_cast(session: Session, columns: Sequence[StagedColumn]) -> dict[str, exp.Expr]:
    """Return a mapping from column name to the condition that its cast changes or refuses the value."""
    return {
        column.name: session.dialect.is_lost(terms.column(column.source), source=column.source_type, target=column.type)
        for column in columns
    }


def _losses(session: Session, source: exp.Table, columns: Sequence[StagedColumn]) -> list[str]:
    """Return a sentence for each column whose cast would change or refuse values."""
    try:
        (counts,) = session.query(staging.values_lost_by_cast(source, lost_by_cast(session, columns)))
    # A statement that was stopped at the time limit says nothing about the values.
    # Neither does one that had no room.
    except (StatementCancelledError, OutOfResourcesError):
        raise
    except WarehouseError as error:
        # Some types have no cast that returns NULL instead of an error, so counting the lost values fails itself.
        return [f"values of {', '.join(column.name for column in columns)} don't fit their columns: {error}"]
    return [
        f"{count} values of {column.name} ({column.source_type}) don't fit {column.type} unchanged"
        for column, count in zip(columns, counts, strict=True)
        if count
    ]


def _with_examples(
    session: Session, source: exp.Table, columns: Sequence[StagedColumn], problems: Sequence[str], spec: TableSpec
) -> list[str]:
    """Add to each sentence of `_losses` an example and its partition, and what to do."""
    examples: list[str] = []
    expressions, dialect = [*spec.partition_expr.values()], session.dialect.name
    for name, condition in lost_by_cast(session, columns).items():
        found = next(column for column in columns if column.name == name)
        items = [terms.typed(terms.column(found.source), _TEXT, dialect=dialect)]
        items += [terms.parsed(sql, dialect=dialect, option="partition_expr") for sql in expressions]
        try:
            rows = session.query(exp.select(*items).from_(source.copy()).where(condition).limit(1))
        except (WarehouseError, ConfigurationError):
            continue
        for value, *partition in rows:
            pairs = zip(partition, expressions, strict=True)
            shown = [str(terms.masked_value(one, sql, dialect=dialect)) for one, sql in pairs]
            where = f" where {', '.join(expressions)} is {', '.join(shown)}" if shown else ""
            examples.append(f"{name}: {masked(value, found.source)}{where}")
    if not examples:
        return [*problems]
    advice = "round or convert them in the function, or change the type of the column"
    return [*problems, f"for example {'; '.join(examples)} ({advice})"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ColumnsChange:
    """The difference between two sets of columns, in which the order of columns doesn't count.

    Attributes:
        gone: The earlier columns that are missing now, or have another type now.
        new: The present columns that were missing before, or had another type before.
    """

    gone: frozenset[Column]
    new: frozenset[Column]

    def __bool__(self) -> bool:
        return bool(self.gone or self.new)

    @property
    def problems(self) -> list[str]:
        """The name and type of each column that differs."""
        return sorted({f"{column.name} {column.type}" for column in self.gone | self.new})


def changed_columns(
    before: Iterable[Column], after: Iterable[Column], *, apart_from: str | None = None
) -> ColumnsChange:
    """Return the difference between two sets of columns; the column `apart_from` is ignored."""
    old, now = frozenset(before), frozenset(after)
    change = ColumnsChange(gone=old - now, new=now - old)
    if apart_from is None or not change:
        return change
    return ColumnsChange(
        gone=frozenset([one for one in change.gone if one.name != apart_from]),
        new=frozenset([one for one in change.new if one.name != apart_from]),
    )


def add_columns(session: Session, staged: Staged, *, clone: TableRef | None = None) -> None:
    """Add the columns that the shadow has and the live table, or its clone, still needs.

    Raises:
        SchemaMismatchError: The live table's columns changed after the rows were staged, for example by hand.
    """
    missing = lacking(session, staged, clone=clone)
    if missing:
        defaults = staging.with_defaults(staged.spec, missing, dialect=session.dialect.name)
        session.tables.add_columns(clone or staged.spec.table, defaults)


def lacking(session: Session, staged: Staged, *, clone: TableRef | None = None) -> Sequence[Column]:
    """Return, in their order, the columns that the shadow has and the live table needs; empty without a live table.

    Raises:
        SchemaMismatchError: The live table's columns changed after the rows were staged.
    """
    spec = staged.table_slice.spec
    live = session.tables.columns(clone or spec.table)
    if live is None:
        return ()
    # Another publication may have added some of these columns after the rows were staged.
    missing = list(filterfalse(live.__contains__, staged.added))
    names = {*names_of(staged.columns)}
    # Rows are inserted without a column that had a default when they were staged, unless it was computed.
    left_out = [column for column in staged.live_columns or () if column.name not in names]
    check_unchanged(spec, (*staged.columns, *left_out), {*live, *missing}, apart_from=spec.updated_at_column)
    return missing


def check_unchanged(
    spec: TableSpec, expected: Iterable[Column], live: Iterable[Column], *, apart_from: str | None = None
) -> None:
    """Refuse a live table whose columns changed after rows were staged for it.

    Raises:
        SchemaMismatchError: The columns changed.
    """
    change = changed_columns(expected, live, apart_from=apart_from)
    if change:
        raise SchemaMismatchError(
            f"{spec.table}: the table's columns changed after the rows were staged ({'; '.join(change.problems)}), so"
            " nothing was published. Run the partitions again.",
            table=str(spec.table),
            problems=change.problems,
        )


def check_kept(staged: Staged, live: Iterable[Column]) -> None:
    """Refuse a live table that has lost a column since rows were staged for it.

    Raises:
        SchemaMismatchError: A column is gone.
    """
    expected = staged.live_columns or ()
    names = {*names_of(live)}
    check_unchanged(staged.spec, expected, [column for column in expected if column.name in names])


def data_columns(session: Session, shadow: TableRef) -> tuple[Column, ...]:
    """Return a shadow's columns without the library's own; empty if the shadow doesn't exist."""
    found = session.tables.columns(shadow) or ()
    return tuple(column for column in found if not column.name.casefold().startswith(RESERVED))


def respelled(spec: TableSpec, names: Sequence[str]) -> TableSpec:
    """Return the spec with its columns spelled as the table spells them.

    Raises:
        ConfigurationError: The spec names a column that the table doesn't have.
    """
    spelling = dict(zip(map(str.casefold, names), names, strict=True))
    missing = {*map(str.casefold, spec.unique_key)}.difference(spelling)
    if missing:
        missing = [name for name in spec.unique_key if name.casefold() in missing]
        raise ConfigurationError(
            f"{spec.table}: unique_key names {', '.join(missing)}, which the table doesn't have. Its columns are"
            f" {', '.join(names)}."
        )
    stamp, latest = spec.updated_at_column, spec.keep_latest
    if latest is not None and latest.casefold() not in spelling:
        raise ConfigurationError(
            f"{spec.table}: keep_latest names {latest}, which the table doesn't have. Its columns are"
            f" {', '.join(names)}."
        )
    return replace(
        spec,
        unique_key=tuple(map(spelling.__getitem__, map(str.casefold, spec.unique_key))),
        updated_at_column=spelling.get(stamp.casefold(), stamp) if stamp else None,
        keep_latest=spelling[latest.casefold()] if latest else None,
    )
