"""The differences between two sets of rows of the same partitions: staged, archived or live ones."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from sqlglot import exp

from dagster_safe_backfill.audits.comparison import Differences
from dagster_safe_backfill.model.slices import PartitionSlice, TableSlice
from dagster_safe_backfill.model.tables import Column, TableRef, TableSpec, names_of
from dagster_safe_backfill.sql import audited_rows, comparing, terms
from dagster_safe_backfill.sql.comparing import Kind, Pairing, WholeRows
from dagster_safe_backfill.sql.sameness import Sameness
from dagster_safe_backfill.sql.slicing import inside, positioned
from dagster_safe_backfill.wap.columns import data_columns
from dagster_safe_backfill.wap.measure.compare import Sampler, different_values
from dagster_safe_backfill.wap.tables.slices import table_slice
from dagster_safe_backfill.warehouses.base import Row, Session

Tables = Mapping[TableRef, Sequence[str]]
"""A mapping from table to the keys of the partitions whose rows are read from it."""

_AFTER, _BEFORE = "_sb_after", "_sb_before"


@dataclass(frozen=True, slots=True, kw_only=True)
class Sides:
    """Where the rows are that are compared. A partition that is in no table of a side has no rows there.

    Attributes:
        before: The tables of the earlier rows.
        after: The tables of the later rows.
        since: A mapping from each partition whose later rows are not those of the change in question, as live changed
            since, to the reason.
    """

    before: Tables
    after: Tables
    since: Mapping[str, str] = field(default_factory=dict[str, str])


@dataclass(frozen=True, slots=True, kw_only=True)
class DifferentRow:
    """A row that differs.

    Attributes:
        kind: `added`, `removed` or `changed`.
        key: The values that identify the row; empty if rows are compared as a whole.
        before: The earlier values: of a changed row, those that differ. None of an added row.
        after: The later values, likewise; None of a removed row.
        times: How much more often one side has the row.
    """

    kind: Kind
    key: Mapping[str, Any]
    before: Mapping[str, Any] | None
    after: Mapping[str, Any] | None
    times: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Compared:
    """The differences between two sets of rows.

    Attributes:
        by_key: A mapping from each partition to the numbers of its rows that differ.
        matched_by: The columns by which rows were matched; empty if they were compared as whole rows.
        why_whole: Why they were, if there is a unique key.
        added: The columns that only the later rows have. Their values are not compared.
        dropped: The columns that only the earlier rows have, likewise.
        retyped: The columns that have another type in some of the tables, likewise.
        aggregates: A mapping from each aggregate's SQL to its values before and after, by partition, and of all rows
            at None.
        sample: Rows that differ, up to ten of each kind.
    """

    by_key: Mapping[str, Differences]
    matched_by: tuple[str, ...] = ()
    why_whole: str | None = None
    added: tuple[str, ...] = ()
    dropped: tuple[str, ...] = ()
    retyped: tuple[str, ...] = ()
    aggregates: Mapping[str, Mapping[str | None, tuple[Any, Any]]] = field(
        default_factory=dict[str, "Mapping[str | None, tuple[Any, Any]]"]
    )
    sample: Sequence[DifferentRow] = ()

    @property
    def is_different(self) -> bool:
        """True if any row or column differs."""
        rows = any(one.added or one.removed or one.changed for one in self.by_key.values())
        return rows or bool(self.added or self.dropped or self.retyped)


def compared_sides(
    session: Session,
    sides: Sides,
    *,
    spec: TableSpec,
    partition_slice: PartitionSlice,
    aggregates: Sequence[str] = (),
    samples: bool = False,
    shown: tuple[str, ...] | None = None,
) -> Compared:
    """Compare the rows of two sides by partition; a read-only session is enough.

    Rows are matched by the unique key. Without one, or if a key is NULL or occurs twice, they are compared as whole
    rows. The number of statements doesn't depend on the number of partitions.

    Args:
        session: An open session.
        sides: Where the rows are.
        spec: How the live table is kept.
        partition_slice: The partitions.
        aggregates: Aggregates in the warehouse's SQL, such as `sum(amount)`, that are measured on both sides.
        samples: True to return rows that differ.
        shown: The columns whose values samples may show; None for all.

    Raises:
        ConfigurationError: An aggregate isn't one SQL expression.
        PartitionColumnError: The two sides have no column in common by which partitions are recognised.
        WarehouseError: The database refused a statement.
    """
    columns = {one: data_columns(session, one) for one in dict.fromkeys((*sides.before, *sides.after))}
    nothing = {key: Differences(changed_by_column={}) for key in partition_slice.keys}
    if not columns:
        return Compared(by_key=nothing)
    work = _Work.of(session, sides, columns, spec=spec, partition_slice=partition_slice)
    # Before the rows are compared, which takes longer than to refuse an aggregate.
    values = work.aggregated(aggregates) if aggregates else {}
    result = work.counted()
    added, dropped, retyped = _columns_apart(sides, columns, work.columns, spec)
    return replace(
        result,
        by_key={**nothing, **result.by_key},
        added=added,
        dropped=dropped,
        retyped=retyped,
        aggregates=values,
        sample=work.sampled(result, Sampler(session=session, shown=shown)) if samples else (),
    )


def _columns_apart(
    sides: Sides, columns: Mapping[TableRef, Sequence[Column]], common: Sequence[Column], spec: TableSpec
) -> tuple[tuple[str, ...], ...]:
    """Return the names of the columns that only the later rows have, only the earlier ones, and all other uncommon."""
    before, after = (
        dict.fromkeys(name for one in side for name in names_of(columns[one])) for side in (sides.before, sides.after)
    )
    if not before or not after:
        return (), (), ()
    apart = {*names_of(common), spec.updated_at_column}
    return (
        tuple(name for name in after if name not in before and name not in apart),
        tuple(name for name in before if name not in after and name not in apart),
        tuple(name for name in before if name in after and name not in apart),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Work:
    """Attributes: `columns` are those that all tables have, with the same type, and `source` is one of the tables."""

    session: Session
    sides: Sides
    recognised: TableSlice
    columns: tuple[Column, ...]
    source: TableRef

    @classmethod
    def of(
        cls,
        session: Session,
        sides: Sides,
        columns: Mapping[TableRef, Sequence[Column]],
        *,
        spec: TableSpec,
        partition_slice: PartitionSlice,
    ) -> _Work:
        source, *others = columns
        common = [one for one in columns[source] if all(one in columns[other] for other in others)]
        collations = {one.name: one.collation for other in others for one in columns[other] if one.collation}
        # A comparison of two columns follows the collation of either.
        common = [replace(one, collation=one.collation or collations.get(one.name)) for one in common]
        rows = exp.select(*terms.columns(names_of(common))).from_(terms.table(source))
        recognised = table_slice(session, rows, spec=spec, partition_slice=partition_slice, columns=common)
        return cls(session=session, sides=sides, recognised=recognised, columns=tuple(common), source=source)

    @property
    def compared(self) -> tuple[Column, ...]:
        """The columns whose values are compared: each publication sets `updated_at_column`, so that is no change."""
        return tuple(one for one in self.columns if one.name != self.recognised.spec.updated_at_column)

    def rows(self, tables: Tables) -> exp.Select:
        """Return the rows of a side, with the position of each row's partition."""
        names = names_of(self.columns)
        parts: list[exp.Select] = []
        for table, keys in tables.items():
            rows = exp.select(*terms.columns(names)).from_(terms.table(table))
            parts.append(rows.where(inside(self.recognised.only(keys))))
        if not parts:
            parts = [comparing.no_rows(self.source, names)]
        # UNION ALL, because a table without a unique key may have equal rows.
        rows = exp.union(*parts, distinct=False) if len(parts) > 1 else parts[0]
        return positioned(rows, terms.columns(names), self.recognised)

    def pairing(self) -> Pairing | None:
        """Return how rows are matched; None without a unique key that both sides have."""
        spelled = {one.name.casefold(): one.name for one in self.columns}
        key = [spelled.get(name.casefold()) for name in self.recognised.spec.unique_key]
        names = [name for name in key if name is not None]
        if not names or len(names) < len(key):
            return None
        return Pairing(
            here=terms.Derived(schema="", name=_AFTER, select=self.rows(self.sides.after)),
            there=terms.subquery(self.rows(self.sides.before), _BEFORE),
            key=tuple(names),
            compared=tuple(one for one in self.compared if one.name not in names),
            absolute_tolerance=0,
            relative_tolerance=0,
            dialect=self.session.dialect,
            sameness=self.sameness,
        )

    @property
    def sameness(self) -> Sameness:
        return Sameness.of(self.columns, self.session.dialect)

    def whole(self) -> WholeRows:
        return WholeRows(
            here=self.rows(self.sides.after),
            there=self.rows(self.sides.before),
            names=names_of(self.compared),
            sameness=self.sameness,
        )

    def counted(self) -> Compared:
        pairing = self.pairing()
        key = ", ".join(self.recognised.spec.unique_key)
        if pairing is None:
            why = f"the tables have not all the columns of the unique key ({key})" if key else None
            return self._counted_whole(why)
        ((after, before),) = self.session.query(comparing.broken_keys(pairing))
        # A join would pair each row of a repeated key with all rows of that key.
        if after or before:
            found = f"{before:,} before and {after:,} after"
            return self._counted_whole(f"values of the unique key ({key}) are NULL or occur twice: {found}")
        names = names_of(pairing.compared)
        found = {
            self._key(position): Differences(
                added=added,
                removed=removed,
                changed=changed,
                unchanged=unchanged,
                changed_by_column=dict(zip(names, by_column, strict=True)),
            )
            for position, added, removed, changed, unchanged, *by_column in self.session.query(
                comparing.differences(pairing)
            )
            if position is not None
        }
        return Compared(by_key=found, matched_by=pairing.key)

    def _counted_whole(self, why: str | None) -> Compared:
        found = {
            self._key(position): Differences(
                added=int(added), removed=int(removed), unchanged=int(unchanged), changed_by_column={}
            )
            for position, added, removed, unchanged in self.session.query(comparing.whole_differences(self.whole()))
            if position is not None
        }
        return Compared(by_key=found, why_whole=why)

    def _key(self, position: Any) -> str:
        return self.recognised.keys[int(position)]

    def aggregated(self, aggregates: Sequence[str]) -> dict[str, Mapping[str | None, tuple[Any, Any]]]:
        """Return a mapping from each aggregate to its values before and after, by partition, and of all rows."""
        dialect = self.session.dialect.name
        expressions = [terms.parsed(one, dialect=dialect, option="an aggregate") for one in aggregates]
        sides: list[dict[str | None, Row]] = []
        for tables in (self.sides.before, self.sides.after):
            rows = terms.subquery(self.rows(tables), _AFTER)
            select = audited_rows.grouped([one.copy() for one in expressions], rows, is_overall=True)
            found = self.session.query(select)
            sides.append({None if at is None else self._key(at): tuple(values) for at, *values in found})
        empty = terms.subquery(self.rows({}), _AFTER)
        ((_, *nothing),) = self.session.query(audited_rows.of_no_rows([one.copy() for one in expressions], empty))
        every: Iterable[str | None] = (*self.recognised.keys, None)
        before, after = ({key: side.get(key, tuple(nothing)) for key in every} for side in sides)
        return {
            one: {key: (before[key][number], after[key][number]) for key in every}
            for number, one in enumerate(aggregates)
        }

    def sampled(self, result: Compared, sampler: Sampler) -> list[DifferentRow]:
        """Return rows that differ, up to ten of each kind."""
        found: list[DifferentRow] = []
        pairing = self.pairing() if result.matched_by else None
        total = {
            "added": sum(one.added for one in result.by_key.values()),
            "removed": sum(one.removed for one in result.by_key.values()),
            "changed": sum(one.changed for one in result.by_key.values()),
        }
        kinds: tuple[Kind, ...] = ("added", "removed", "changed")
        for kind in kinds:
            if not total[kind]:
                continue
            if pairing is not None:
                rows = sampler.tuples(comparing.different_rows(pairing, kind))
                found += [_matched(row, pairing, sampler) for row in rows]
            elif kind != "changed":
                rows = sampler.tuples(comparing.different_whole_rows(self.whole(), kind))
                found += [self._whole_row(row, kind, sampler) for row in rows]
        return found

    def _whole_row(self, row: Row, kind: Kind, sampler: Sampler) -> DifferentRow:
        times, *values = row
        names = names_of(self.compared)
        shown = {name: sampler.masked(name, value) for name, value in zip(names, values, strict=True)}
        is_added = kind == "added"
        return DifferentRow(
            kind=kind, key={}, before=None if is_added else shown, after=shown if is_added else None, times=int(times)
        )


def _matched(row: Row, pairing: Pairing, sampler: Sampler) -> DifferentRow:
    """Return a row that `different_rows` found."""
    count = len(pairing.key)
    kind: Kind = row[count]
    pairs = different_values(row, pairing)
    after, before = ({name: sampler.masked(name, pair[i]) for name, pair in pairs.items()} for i in (0, 1))
    return DifferentRow(
        kind=kind,
        key={name: sampler.masked(name, value) for name, value in zip(pairing.key, row[:count], strict=True)},
        before=None if kind == "added" else before,
        after=None if kind == "removed" else after,
    )
