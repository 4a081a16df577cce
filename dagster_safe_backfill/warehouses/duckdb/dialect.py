"""DuckDB's SQL: hashes, exact comparisons, the values that a cast loses, and ASOF joins."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from sqlglot import exp

from dagster_safe_backfill.model.slices import ColumnType
from dagster_safe_backfill.model.tables import Column
from dagster_safe_backfill.sql import terms
from dagster_safe_backfill.sql.dialect import Dialect, Fit
from dagster_safe_backfill.warehouses.duckdb.types import (
    INSTANT,
    INSTANT_NS,
    TEXTS,
    UNTYPED,
    WALL_CLOCKS,
    fits,
    is_cast_back,
    parsed,
)

_FLOATS = frozenset({exp.DataType.Type.FLOAT, exp.DataType.Type.DOUBLE})
_INEXACT = ("FLOAT", "DOUBLE", "INTERVAL", "VARIANT")
"""Words in the names of the types of which DuckDB calls values equal that differ."""


class DuckDBDialect(Dialect):
    """The SQL of DuckDB 1.4 and later."""

    name = "duckdb"
    # DuckDB itself has no limit, but EXPORT DATABASE writes one file per table, and file systems limit file names.
    longest_name = 240
    widest_integer = "HUGEINT"

    @property
    def hash_algorithm(self) -> str:
        """See `Dialect.hash_algorithm`. DuckDB's hashes may change with its version."""
        import duckdb

        return f"duckdb-{duckdb.__version__}"

    def row_hash(self, values: Sequence[exp.Expr], *, rare: Sequence[exp.Expr] = ()) -> exp.Expr:
        """See `Dialect.row_hash`."""
        usual = exp.func("hash", *values, dialect=self.name)
        if not rare:
            return usual
        none = terms.typed(terms.number(0), "UBIGINT", dialect=self.name)
        others = exp.Case().when(terms.is_any_text(rare), exp.func("hash", *rare, dialect=self.name)).else_(none)
        # Not a sum, which would overflow the 64 bits.
        return exp.func("xor", usual, others, dialect=self.name)

    def found(self, rows: exp.Select, there: Sequence[exp.Expr], here: Sequence[exp.Expr]) -> exp.Expr:
        """See `Dialect.found`."""
        if all(isinstance(value, exp.Column) for value in here):
            return terms.looked_up(rows, there, here)
        # For EXISTS, DuckDB looks up each distinct value of the columns of `here` once, and 0.0 and -0.0 aren't
        # distinct then. IN looks up the expressions.
        values = [one.copy() for one in here]
        select = rows.select(*(one.copy() for one in there), append=False)
        # A NULL there would make IN be NULL instead of false.
        select = select.where(*(exp.not_(exp.Is(this=one.copy(), expression=exp.Null())) for one in there))
        value = values[0] if len(values) == 1 else exp.Tuple(expressions=values)
        is_in = exp.In(this=value, query=select.subquery())
        return exp.Coalesce(this=exp.paren(is_in), expressions=[exp.false()])

    def exact(self, value: exp.Expr, column: Column) -> Sequence[exp.Expr]:
        """See `Dialect.exact`."""
        if column.collation is not None:
            # A hash join of the bytes takes no longer than one of the texts.
            return (exp.Encode(this=value, charset=terms.text("utf-8")),)
        # Most types are exact, and this spares sqlglot to parse them.
        if not any(name in column.type for name in _INEXACT):
            return (value,)
        kind = terms.data_type(column.type, dialect=self.name)
        # Intervals are equal if they are equally long, with 30 days in a month and 24 hours in a day.
        if kind.this == exp.DataType.Type.INTERVAL:
            return (_shown(value),)
        return (value, *_hidden(value, kind))

    def fit(self, *, source: str, target: str) -> Fit:
        """See `Dialect.fit`."""
        if source == target:
            return "same"
        # `in`, because a list or a struct of NULLs has a nested type, such as "NULL"[].
        if UNTYPED in source:
            return "if_unchanged"
        return "if_unchanged" if fits(parsed(source), parsed(target)) else "never"

    def is_lost(self, value: exp.Expr, *, source: str, target: str) -> exp.Expr:
        """See `Dialect.is_lost`. DuckDB's TRY_CAST accepts values of any type."""
        kept = self._tried(value, target)
        hidden = self.exact(value, Column(name="", type=source))[1:]
        back = self.exact(self._tried(kept.copy(), source), Column(name="", type=source))[1:]
        if UNTYPED not in source and is_cast_back(target):
            # DuckDB compares an integer with a float as floats, so 2**53 + 1 would equal the float nearest to it.
            kept = self._tried(kept, source)
        # A value that can't be cast is not compared: DuckDB would cast it again for the comparison, and raise.
        is_given = exp.not_(exp.Is(this=value.copy(), expression=exp.Null()))
        is_changed = exp.NullSafeNEQ(this=kept.copy(), expression=value.copy())
        if hidden:
            # An integer and a decimal have no -0.0.
            is_changed = exp.or_(is_changed, exp.not_(terms.equal(hidden, back)))
        is_refused = exp.Is(this=kept, expression=exp.Null())
        return exp.Case().when(is_refused, is_given).else_(is_changed)

    def _tried(self, value: exp.Expr, type_name: str) -> exp.TryCast:
        return exp.TryCast(this=value, to=exp.DataType.build(type_name, dialect=self.name, udt=True))

    def created_as(self, source: str) -> str | None:
        """See `Dialect.created_as`. Frames have no ENUM, so one is that of a query and stays one."""
        if UNTYPED in source:
            return None
        return INSTANT if source == INSTANT_NS else source

    def keeps(self, type_name: str) -> ColumnType | Literal["text", "other"]:
        """See `Dialect.keeps`."""
        base = parsed(type_name).name
        if base == "DATE":
            return "date"
        if base in WALL_CLOCKS:
            return "timestamp"
        if base == INSTANT:
            return "timestamptz"
        return "text" if base in TEXTS else "other"

    def join_partitions(
        self, partitions: exp.Expr, *, matches: Sequence[exp.Expr], ends: Sequence[exp.Expr], position: exp.Expr
    ) -> tuple[exp.Join, exp.Expr]:
        """See `Dialect.join_partitions`. An ASOF join takes one pass over sorted windows."""
        # An ASOF join allows only one inequality, so two dimensions of windows need a range join.
        if len(ends) != 1:
            return super().join_partitions(partitions, matches=matches, ends=ends, position=position)
        # ASOF finds the last window that starts before the row. The row may still be after its end, in a gap.
        join = exp.Join(this=partitions, method="ASOF", side="LEFT", on=exp.and_(*matches))
        return join, exp.Case().when(ends[0], position)


def _hidden(value: exp.Expr, kind: exp.DataType) -> list[exp.Expr]:
    """Return texts that differ for values of a type that DuckDB calls equal and that aren't. They are mostly empty."""
    inner = [part.args["kind"] if isinstance(part, exp.ColumnDef) else part for part in kind.expressions]
    if kind.this in _FLOATS:
        is_negative = exp.and_(value.copy().eq(0), exp.func("signbit", value.copy(), dialect="duckdb"))
        return [_text_where(is_negative, terms.text("-"))]
    if kind.this == exp.DataType.Type.STRUCT:
        return [
            text
            for part, of in zip(kind.expressions, inner, strict=True)
            for text in _hidden(exp.func("struct_extract", value.copy(), terms.text(part.name), dialect="duckdb"), of)
        ]
    leaves = {found.this for found in kind.find_all(exp.DataType)}
    if exp.DataType.Type.INTERVAL in leaves or exp.DataType.Type.VARIANT in leaves:
        return [exp.Coalesce(this=_shown(value), expressions=[terms.text("")])]
    if not leaves & _FLOATS:
        return []
    # Of values that are equal, only the texts of 0.0 and -0.0 differ.
    is_rare = exp.func("contains", _shown(value), terms.text("-0.0"), dialect="duckdb")
    if kind.this in (exp.DataType.Type.ARRAY, exp.DataType.Type.LIST) and inner[0].this in _FLOATS:
        # Vectors are long, and few have a zero: a search of one is much cheaper than the vector's text.
        has_zero = exp.func("list_contains", value.copy(), terms.number(0), dialect="duckdb")
        shown = _text_where(is_rare, _shown(value))
        return [_text_where(has_zero, shown)]
    return [_text_where(is_rare, _shown(value))]


def _text_where(condition: exp.Expr, text: exp.Expr) -> exp.Expr:
    return exp.Case().when(condition, text).else_(terms.text(""))


def _shown(value: exp.Expr) -> exp.Expr:
    return exp.cast(value.copy(), exp.DataType.Type.TEXT)
