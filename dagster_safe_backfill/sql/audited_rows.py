"""The rows that audits are measured on, and the live rows that they are compared with, as relations."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

from sqlglot import exp

from dagster_safe_backfill.audits.verdicts import SAMPLE_SIZE
from dagster_safe_backfill.model.slices import TableSlice
from dagster_safe_backfill.model.tables import Column, TableRef, names_of
from dagster_safe_backfill.sql import terms
from dagster_safe_backfill.sql.dialect import Dialect
from dagster_safe_backfill.sql.sameness import Sameness
from dagster_safe_backfill.sql.slicing import PARTITION, ROWS, positioned

SHADOW, LIVE = "_sb_shadow", "_sb_live"
EVERY_COLUMN = exp.Column(this=exp.Star(), table=exp.to_identifier(ROWS, quoted=True))


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditedRows:
    """The rows that audits are measured on, and the live rows that they are compared with.

    Attributes:
        rows: The audited rows, with the position of each row's partition: a shadow, or a view of live rows.
        table_slice: The partitions of the audited rows.
        inside: A condition that is true for the live rows of the slice. Its columns have no table name.
        outside: A condition that is true for the live rows outside the slice. None if there are no such rows, or if the
            audits don't look at them.
        moves_keys: True if the publication deletes live rows outside the slice that have a key of the audited rows.
        has_live: True if the live table exists.
        columns: The data columns of the audited rows.
        counts: The number of audited rows by partition key. Keys without rows may be missing.
        added: The columns that the publication adds to the live table, with the values that its existing rows get.
        instants: The names of the columns that hold times with a zone.
        dialect: The dialect of the warehouse.
        sample_columns: The columns that samples of failing rows may show. None for all columns.
        references: A mapping from the tables of reference audits, as these name them, to the columns of the tables.
        expressions: A mapping from the SQL expressions that audits compare to their types and collations.
        sameness: How the columns are compared.
        names: The names of `columns`.
        live: The live table.
        key: The columns of the asset's unique key.
    """

    rows: TableRef
    table_slice: TableSlice
    inside: exp.Expr
    outside: exp.Expr | None
    has_live: bool
    columns: tuple[Column, ...]
    counts: Mapping[str, int]
    added: Mapping[str, exp.Expr]
    instants: tuple[str, ...]
    dialect: Dialect
    sample_columns: tuple[str, ...] | None = None
    moves_keys: bool = False
    references: Mapping[str, Sequence[Column]] = field(default_factory=dict[str, Sequence[Column]])
    expressions: Mapping[str, Column] = field(default_factory=dict[str, Column])
    sameness: Sameness = field(init=False)
    names: tuple[str, ...] = field(init=False)
    live: TableRef = field(init=False)
    key: tuple[str, ...] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "sameness", Sameness.of(self.columns, self.dialect))
        object.__setattr__(self, "names", names_of(self.columns))
        object.__setattr__(self, "live", self.table_slice.spec.table)
        object.__setattr__(self, "key", self.table_slice.spec.unique_key)


def shadow_rows(batch: AuditedRows) -> exp.Table | exp.Subquery:
    """Return the audited rows as a relation with the column `PARTITION`."""
    return terms.rows(batch.rows, alias=SHADOW)


def live_rows(batch: AuditedRows) -> exp.Subquery:
    """Return the live rows of the slice as a relation with the column `PARTITION`.

    They have the columns that the publication adds, so that audits can compare these too.
    """
    rows = all_live(batch).where(batch.inside.copy())
    # A qualified star: `positioned` may join the partitions, whose columns an unqualified star would include.
    return terms.subquery(positioned(rows, [EVERY_COLUMN.copy()], batch.table_slice), LIVE)


def all_live(batch: AuditedRows) -> exp.Select:
    """Return all live rows, with the columns that the publication adds, so that audits can compare these too."""
    items: list[exp.Expr] = [exp.Star()]
    if batch.added:
        items += terms.named({name: value.copy() for name, value in batch.added.items()})
    return exp.select(*items).from_(terms.table(batch.live))


def sampled(select: exp.Query) -> exp.Query:
    """Return `select`, limited to the size of a sample."""
    return select.limit(SAMPLE_SIZE)


def kept_names(select: exp.Query, names: Sequence[str]) -> tuple[str, ...]:
    """Return those of the column names that a user's SELECT has for these columns alone, or for values of them.

    A SELECT may give a column's name to values of another one, as in `SELECT tax_number AS day`. Where that can't be
    ruled out, the name is left out.
    """
    if select.find(exp.SetOperation, exp.Pivot, exp.Lateral, exp.Unnest) is not None:
        return ()
    kept = {*map(str.casefold, names)}
    identifiers = [one for one in select.find_all(exp.Identifier) if one.name.casefold() in kept]
    while lost := {one.name.casefold() for one in identifiers if _is_other(one, kept)} & kept:
        kept -= lost
    return tuple(sorted(kept))


def _is_other(name: exp.Identifier, kept: Collection[str]) -> bool:
    """Return True if an identifier names neither a column that is read nor values of `kept` columns."""
    place = name.parent
    if isinstance(place, exp.Alias):
        read = {column.name.casefold() for column in place.this.find_all(exp.Column)}
        return not read or not read <= {*kept} or place.this.find(exp.Star) is not None
    return not isinstance(place, exp.Column) or name.arg_key != "this" or isinstance(place.parent, exp.Dot)


def grouped(expressions: Sequence[exp.Expr], rows: exp.Expr, *, is_overall: bool) -> exp.Select:
    """Return `(position, value of each aggregate…)` by partition; with `is_overall` also over all rows, at NULL."""
    position = terms.column(PARTITION)
    select = exp.select(position, *_numbered(expressions)).from_(rows.copy())
    if not is_overall:
        return select.group_by(position.copy())
    # The empty set measures all rows in the same scan: the median of all rows doesn't follow from those of partitions.
    sets = [exp.Tuple(expressions=[position.copy()]), exp.Tuple()]
    select.set("group", exp.Group(grouping_sets=[exp.GroupingSets(expressions=sets)]))
    return select


def of_no_rows(expressions: Sequence[exp.Expr], rows: exp.Expr) -> exp.Select:
    """Return `(NULL, value of each aggregate…)` of no rows: 0 for counts, NULL for sums."""
    # No GROUP BY: over no rows it would return no row, and a partition without rows would have no values.
    return exp.select(exp.Null(), *_numbered(expressions)).from_(rows.copy()).where(exp.false())


def _numbered(expressions: Sequence[exp.Expr]) -> list[exp.Expr]:
    """Return expressions as items of a SELECT, each under a name of its own."""
    return terms.named({f"_sb_{i}": one for i, one in enumerate(expressions)})
