"""DuckDB's SQL: hashes, exact comparisons, the values that a cast loses, and ASOF joins."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
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
_INEXACT_LEAVES = _FLOATS | {exp.DataType.Type.INTERVAL, exp.DataType.Type.VARIANT}
_PARTS = ("year", "month", "day")
_INEXACT = ("FLOAT", "DOUBLE", "INTERVAL", "VARIANT")
"""Words in the names of the types of which DuckDB calls values equal that differ."""

_NESTED = ("[", "STRUCT", "MAP", "UNION")
"""Parts of the names of nested types."""
_SHAPES = {
    exp.DataType.Type.ARRAY: "len",
    exp.DataType.Type.MAP: "cardinality",
    exp.DataType.Type.UNION: "union_tag",
}
"""The function that tells values of a nested type apart whose elements are the same scalars."""


class DuckDBDialect(Dialect):
    """The SQL of DuckDB 1.4 and later."""

    name = "duckdb"
    # DuckDB itself has no limit, but EXPORT DATABASE writes one file per table, and file systems limit file names.
    longest_name = 240
    widest_integer = "HUGEINT"
    # DuckDB 1.3 to 2.0 hash them alike, and 1.2 hashed texts in another way.
    known_values = (
        *(
            "1",
            "170141183460469231731687303715884105727",
            "2.5",
            "2.5e0",
            "TRUE",
            "DATE '2024-02-29'",
            "INTERVAL 1 MONTH",
        ),
        *("'short'", "'a text of more than twelve bytes'", "[1, 2]", "{'a': 1}", "MAP {'a': 1}", "NULL"),
    )

    def row_hash(self, values: Sequence[exp.Expr], *, rare: Sequence[exp.Expr] = ()) -> exp.Expr:
        """See `Dialect.row_hash`."""
        usual = exp.func("hash", *values, dialect=self.name)
        if not rare:
            return usual
        # Not a sum, which would overflow the 64 bits.
        both = exp.BitwiseXor(this=usual.copy(), expression=exp.func("hash", *rare, dialect=self.name))
        exact = _case(terms.is_any_rare(rare), both, usual.copy())
        # First what holds for most rows: DuckDB copies all values of a chunk whose rows aren't all in the first branch.
        return _case(_is_usual(rare), usual, exact)

    def differ(self, pairs: Sequence[tuple[exp.Expr, exp.Expr, Column]]) -> exp.Expr:
        """See `Dialect.differ`."""
        kinds = [terms.data_type(column.type, dialect=self.name) for _, _, column in pairs]
        floats = [(one, other) for (one, other, _), kind in zip(pairs, kinds, strict=True) if kind.this in _FLOATS]
        others = [(*pair[:2], kind) for pair, kind in zip(pairs, kinds, strict=True) if kind.this not in _FLOATS]
        return terms.any_of([*([_floats_differ(floats)] if floats else []), *(_differ(*other) for other in others)])

    def sorted_by(self, value: exp.Expr) -> exp.Expr:
        """See `Dialect.sorted_by`. DuckDB before 2.0 makes 0.0 of the -0.0 in a column by which it sorts."""
        return exp.func("list_value", value, dialect=self.name)

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
        return (value, *_hidden(value, terms.data_type(column.type, dialect=self.name)))

    def hashed(self, value: exp.Expr, column: Column) -> Sequence[exp.Expr]:
        """See `Dialect.hashed`. DuckDB hashes `NULL`, `[]` and `[NULL]` alike, and `[[1], [2]]` as `[[1, 2]]`."""
        forms = self.exact(value, column)
        if not any(name in column.type for name in _NESTED):
            return forms
        return (*forms, *_shape(value, terms.data_type(column.type, dialect=self.name)))

    def alike(self, one: exp.Expr, other: exp.Expr, column: Column) -> exp.Expr:
        """See `Dialect.alike`."""
        if column.collation is not None:
            return super().alike(one, other, column)
        # A CASE, because DuckDB tries the operands of AND in any order.
        apart = _apart(one, other, terms.data_type(column.type, dialect=self.name))
        return _case(one.copy().eq(other), terms.any_of(apart), exp.false())

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
        is_changed: exp.Expr = terms.unequal(kept, value)
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


def _is_usual(rare: Sequence[exp.Expr]) -> exp.Expr:
    """Return a condition that is quickly evaluated, and only true if no form is rare. It is never NULL."""
    floats: list[exp.Expr] = []
    others: list[exp.Expr] = []
    for form in rare:
        condition = form.args["ifs"][0].this
        zero = condition.find(exp.EQ)
        if zero is not None:
            floats.append(zero.this)
        else:
            others.append((condition.args["ifs"][0].this if isinstance(condition, exp.Case) else condition).copy())
    usual = [_is_not_true(terms.any_of(others))] if others else []
    return terms.all_of([*usual, *([_has_no_zero(floats)] if floats else [])])


def _has_no_zero(floats: Sequence[exp.Expr]) -> exp.Expr:
    """Return a condition that is true if none of some floats is 0.0 or -0.0. It may be false then, too. Never NULL."""
    # With NULLs, hashes are compared in a fraction of the time of the floats; without them, a product takes the least.
    # It is no number or too small if one is zero, and else in rare cases, in which only more is looked at.
    doubles = [exp.cast(value.copy(), exp.DataType.Type.DOUBLE) for value in floats]
    are_given = terms.all_of(exp.not_(exp.Is(this=value.copy(), expression=exp.Null())) for value in floats)
    product: exp.Expr = doubles[0].copy()
    for value in doubles[1:]:
        product = exp.Mul(this=product, expression=value.copy())
    # NaN is greater than infinity.
    is_far = exp.Between(this=exp.Abs(this=product), low=_double("1e-300"), high=_double("inf"))
    # 0.0 and -0.0 have one hash.
    hashes = [_func("hash", value) for value in doubles]
    hashed = exp.In(this=_func("hash", _double("0")), expressions=hashes)
    return _case(are_given, is_far, exp.not_(hashed))


def _double(text: str) -> exp.Expr:
    return exp.cast(terms.text(text), exp.DataType.Type.DOUBLE)


def _floats_differ(pairs: Sequence[tuple[exp.Expr, exp.Expr]]) -> exp.Expr:
    """Return a condition that is true if a float differs from the other of its pair. It is never NULL."""
    # `=` of all pairs takes half of the time of IS DISTINCT FROM, which only the rows with NULLs or changes need.
    unequal = exp.and_(
        _is_not_true(terms.all_of(one.copy().eq(other) for one, other in pairs)),
        terms.any_of(terms.unequal(one, other) for one, other in pairs),
    )
    return exp.or_(unequal, _any_sign_differs(pairs))


def _any_sign_differs(pairs: Sequence[tuple[exp.Expr, exp.Expr]]) -> exp.Expr:
    """Return a condition that is true if a zero has another sign than the other of its pair. It is never NULL."""
    # One look for a zero spares most rows the rest.
    has_zero = exp.In(this=terms.number(0), expressions=[one.copy() for one, _ in pairs])
    return _case(has_zero, terms.any_of(_signs_differ(one, other) for one, other in pairs), exp.false())


def _signs_differ(one: exp.Expr, other: exp.Expr) -> exp.Expr:
    return exp.and_(one.copy().eq(0), terms.unequal(_func("signbit", one), _func("signbit", other)))


def _differ(one: exp.Expr, other: exp.Expr, kind: exp.DataType) -> exp.Expr:
    """Return a condition that is true if two values differ. It is never NULL."""
    # Nested NULLs are equal to each other, so `=` is NULL only if one of the values is.
    apart, unequal = _apart(one, other, kind), terms.unequal(one, other)
    return _case(one.copy().eq(other), terms.any_of(apart), unequal) if apart else unequal


def _is_not_true(condition: exp.Expr) -> exp.Expr:
    return exp.not_(exp.Is(this=exp.paren(condition), expression=exp.true()))


def _hidden(value: exp.Expr, kind: exp.DataType) -> list[exp.Expr]:
    """Return the forms besides the first of a value, for types of which DuckDB calls values equal that differ."""
    if kind.this in _FLOATS:
        is_negative = exp.and_(value.copy().eq(0), _func("signbit", value))
        return [_case(is_negative, terms.text("-"), terms.text(""))]
    if kind.this == exp.DataType.Type.INTERVAL:
        # Intervals are equal if they are equally long, with 30 days in a month and 24 hours in a day.
        return [_func("datepart", terms.text(part), value) for part in _PARTS]
    if kind.this == exp.DataType.Type.STRUCT:
        forms = [form for name, of in _fields(kind) for form in _hidden(_field(value, name), of)]
        # A field that is NULL is told by the struct's own equality. A form that is NULL would equal nothing.
        return [form if isinstance(form, exp.Case) else exp.func("coalesce", form, terms.number(0)) for form in forms]
    if not _leaves(kind) & _INEXACT_LEAVES:
        return []
    return [_case(_is_rare(value, kind), _shown(value), terms.text(""))]


def _apart(one: exp.Expr, other: exp.Expr, kind: exp.DataType) -> list[exp.Expr]:
    """Return conditions of which one is true if two values differ. DuckDB calls the values equal; neither is NULL."""
    if kind.this in _FLOATS:
        return [_signs_differ(one, other)]
    if kind.this == exp.DataType.Type.INTERVAL:
        # Intervals that are equally long, with as many days, differ by the hours of whole months, if at all.
        pairs = [[_func("datepart", terms.text(part), value) for value in (one, other)] for part in ("day", "hour")]
        return [here.neq(there) for here, there in pairs]
    if kind.this == exp.DataType.Type.STRUCT:
        return [*_fields_apart(one, other, kind)]
    if not _leaves(kind) & _INEXACT_LEAVES:
        return []
    texts = _shown(one).neq(_shown(other))
    return [_case(_has_zero(one), texts, exp.false()) if _is_vector(kind) else texts]


def _fields_apart(one: exp.Expr, other: exp.Expr, kind: exp.DataType) -> Iterator[exp.Expr]:
    for name, of in _fields(kind):
        here, there = _field(one, name), _field(other, name)
        apart = _apart(here, there, of)
        if apart:
            yield _case(here.eq(there), terms.any_of(apart), exp.false())


def _shape(value: exp.Expr, kind: exp.DataType) -> list[exp.Expr]:
    """Return forms that tell values of a nested type apart whose elements have the same hashes."""
    if kind.this == exp.DataType.Type.STRUCT:
        is_null = exp.Is(this=value.copy(), expression=exp.Null())
        return [is_null, *(form for name, of in _fields(kind) for form in _shape(_field(value, name), of))]
    if kind.this not in _SHAPES:
        return []
    elements = [part.args.get("kind", part) for part in kind.expressions]
    # A text shows what is nested deeper; NULL, quotes and brackets can't be mistaken for each other in it.
    is_deep = any(element.this in (*_SHAPES, exp.DataType.Type.STRUCT) for element in elements)
    return [_func(_SHAPES[kind.this], value), *([_shown(value)] if is_deep else [])]


def _is_rare(value: exp.Expr, kind: exp.DataType) -> exp.Expr:
    """Return a condition that is true for a nested value if its text says more than the value."""
    if _leaves(kind) & _INEXACT_LEAVES - _FLOATS:
        return exp.not_(exp.Is(this=value.copy(), expression=exp.Null()))
    is_negative = _func("contains", _shown(value), terms.text("-0.0"))
    return _case(_has_zero(value), is_negative, exp.false()) if _is_vector(kind) else is_negative


def _is_vector(kind: exp.DataType) -> bool:
    # Vectors are long, and few have a zero: a search of one is much cheaper than its text. The search is in a CASE,
    # because DuckDB evaluates the operands of AND in any order.
    return kind.this in (exp.DataType.Type.ARRAY, exp.DataType.Type.LIST) and kind.expressions[0].this in _FLOATS


def _has_zero(value: exp.Expr) -> exp.Expr:
    return _func("list_contains", value, terms.number(0))


def _leaves(kind: exp.DataType) -> set[exp.DType]:
    return {found.this for found in kind.find_all(exp.DataType)}


def _fields(kind: exp.DataType) -> Iterator[tuple[str, exp.DataType]]:
    """Yield the name and the type of each field of a struct."""
    for part in kind.expressions:
        yield part.name, part.args["kind"]


def _field(value: exp.Expr, name: str) -> exp.Expr:
    return _func("struct_extract", value, terms.text(name))


def _func(name: str, *arguments: exp.Expr) -> exp.Expr:
    return exp.func(name, *(argument.copy() for argument in arguments), dialect="duckdb")


def _case(condition: exp.Expr, then: exp.Expr, otherwise: exp.Expr) -> exp.Expr:
    return exp.Case().when(condition, then, copy=False).else_(otherwise, copy=False)


def _shown(value: exp.Expr) -> exp.Expr:
    return exp.cast(value.copy(), exp.DataType.Type.TEXT)
