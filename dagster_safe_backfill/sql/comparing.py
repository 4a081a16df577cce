"""Statements that compare the rows of a shadow with live rows, matched by a key, or as whole rows."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Literal

from sqlglot import exp

from dagster_safe_backfill.model.tables import Column, TableRef
from dagster_safe_backfill.sql import terms
from dagster_safe_backfill.sql.dialect import Dialect
from dagster_safe_backfill.sql.sameness import Sameness
from dagster_safe_backfill.sql.slicing import PARTITION

_HERE, _THERE, _BOTH = "_sb_here", "_sb_there", "_sb_both"
_ADDED, _REMOVED, _DIFFERS = "_sb_added", "_sb_removed", "_sb_differs_"
_MORE, _SIDE = "_sb_more", "_sb_side"

Kind = Literal["added", "removed", "changed"]
"""How a row differs: only the shadow has it, only the live table does, or they have other values in it."""

KIND = "change"
"""The column of `different_rows` that says if a row was added, removed or changed."""
# sqlglot counts BIT as a number, but DuckDB's BIT is a string of bits, without a difference.
_NUMBERS = exp.DataType.NUMERIC_TYPES - {exp.DataType.Type.BIT}


@dataclass(frozen=True, slots=True, kw_only=True)
class Pairing:
    """The rows that are compared, the columns that match them, and the tolerances within which numbers are equal.

    Attributes:
        here: The audited rows, with the position of each row's partition.
        there: The live rows of the slice, with the position of each row's partition. None if there is no live table.
        key: The columns by which rows are matched.
        compared: The other columns, with their types.
        absolute_tolerance: The largest difference within which numbers are equal.
        relative_tolerance: The same, as a share of the larger of the two absolute values.
        dialect: The dialect of the warehouse.
        sameness: How the columns are compared, where no tolerance applies.
    """

    here: TableRef
    there: exp.Subquery | None
    key: tuple[str, ...]
    compared: tuple[Column, ...]
    absolute_tolerance: float
    relative_tolerance: float
    dialect: Dialect
    sameness: Sameness = field(default_factory=Sameness)


def broken_keys(pairing: Pairing) -> exp.Select:
    """Return the numbers of keys that are NULL or occur more than once: `(in the shadow, in the live table)`."""
    sides = [_broken(pairing, terms.rows(pairing.here))]
    if pairing.there is not None:
        sides.append(_broken(pairing, pairing.there.copy()))
    return exp.select(*(side.subquery() for side in sides))


def _broken(pairing: Pairing, rows: exp.Expr) -> exp.Select:
    forms = pairing.sameness.all_forms(pairing.key)
    is_null = [exp.Is(this=form.copy(), expression=exp.Null()) for form in forms]
    is_twice = exp.GT(this=exp.Count(this=exp.Star()), expression=terms.number(1))
    keys = exp.select(*forms).from_(rows).group_by(*(form.copy() for form in forms))
    keys = keys.having(terms.any_of([is_twice, *is_null]))
    return exp.select(exp.Count(this=exp.Star())).from_(terms.subquery(keys, _BOTH))


def differences(pairing: Pairing) -> exp.Select:
    """Return `(position, added, removed, changed, unchanged, changed in each compared column…)`: numbers of rows."""
    differs = {f"{_DIFFERS}{i}": _differs(column, pairing) for i, column in enumerate(pairing.compared)}
    items = {
        PARTITION: _either(PARTITION),
        _ADDED: _is_only(_HERE, pairing),
        _REMOVED: _is_only(_THERE, pairing),
        **differs,
    }
    paired = exp.select(*terms.named(items)).from_(_here(pairing)).join(_joined(pairing))
    is_in_both = exp.not_(exp.paren(terms.any_of(map(terms.column, (_ADDED, _REMOVED)))))
    is_changed = exp.paren(terms.any_of(map(terms.column, differs)))
    counts = [
        terms.count_where(terms.column(_ADDED)),
        terms.count_where(terms.column(_REMOVED)),
        terms.count_where(exp.and_(is_in_both, is_changed)),
        terms.count_where(exp.and_(is_in_both, exp.not_(is_changed))),
        *(terms.count_where(exp.and_(is_in_both, terms.column(name))) for name in differs),
    ]
    position = terms.column(PARTITION)
    return exp.select(position, *counts).from_(terms.subquery(paired, _BOTH)).group_by(position.copy())


def different_rows(pairing: Pairing, only: Kind | None = None) -> exp.Select:
    """Return the rows that differ: the key, `KIND`, and each compared column, of the shadow and of live (`live_…`).

    With `only`, they are the rows of that kind.
    """
    kind = exp.Case().when(_is_only(_HERE, pairing), terms.text("added"))
    kind = kind.when(_is_only(_THERE, pairing), terms.text("removed")).else_(terms.text("changed"))
    # Items are lists, not one mapping: a table may have a column with the name of another item, such as `change`.
    items = [*terms.named({name: _either(name) for name in pairing.key}), *terms.named({KIND: kind})]
    for column in pairing.compared:
        items += terms.named({column.name: terms.column(column.name, of=_HERE)})
        items += terms.named({f"live_{column.name}": terms.column(column.name, of=_THERE)})
    select = exp.select(*items).from_(_here(pairing)).join(_joined(pairing))
    return select.where(_is_of_kind(only, pairing)).order_by(_either(PARTITION), *map(_either, pairing.key))


def _is_of_kind(kind: Kind | None, pairing: Pairing) -> exp.Expr:
    is_added, is_removed = _is_only(_HERE, pairing), _is_only(_THERE, pairing)
    if kind == "added":
        return is_added
    if kind == "removed":
        return is_removed
    if kind == "changed":
        return exp.and_(exp.not_(exp.paren(terms.any_of([is_added, is_removed]))), _is_changed(pairing))
    return terms.any_of([is_added, is_removed, _is_changed(pairing)])


def _here(pairing: Pairing) -> exp.Table | exp.Subquery:
    return terms.rows(pairing.here, alias=_HERE)


def _joined(pairing: Pairing) -> exp.Join:
    assert pairing.there is not None
    there = pairing.there.copy()
    there.set("alias", exp.TableAlias(this=exp.to_identifier(_THERE, quoted=True)))
    # The position is part of the key: a row that moved to another partition is removed from one and added to another.
    return exp.Join(
        this=there, side="FULL", on=pairing.sameness.same([*pairing.key, PARTITION], left=_HERE, right=_THERE)
    )


def _either(name: str) -> exp.Expr:
    return exp.Coalesce(this=terms.column(name, of=_HERE), expressions=[terms.column(name, of=_THERE)])


def _is_only(side: str, pairing: Pairing) -> exp.Expr:
    """Return a condition that is true if only `side` has the row."""
    # Keys with NULL were refused by `broken_keys`, so NULL means that the full join found no row.
    other = _THERE if side == _HERE else _HERE
    return exp.Is(this=terms.column(pairing.key[0], of=other), expression=exp.Null())


def _is_changed(pairing: Pairing) -> exp.Expr:
    return exp.paren(terms.any_of(_differs(column, pairing) for column in pairing.compared))


def _differs(column: Column, pairing: Pairing) -> exp.Expr:
    apart = pairing.sameness.differ([column.name], left=_HERE, right=_THERE)
    kind = terms.data_type(column.type, dialect=pairing.dialect.name).this
    is_exact = not pairing.absolute_tolerance and not pairing.relative_tolerance
    if is_exact or kind not in _NUMBERS:
        return apart
    sides: list[exp.Expr] = [terms.column(column.name, of=side) for side in (_HERE, _THERE)]
    if kind != exp.DataType.Type.DECIMAL:
        # Integers stay exact in this type, and their difference fits into it.
        is_integer = kind in exp.DataType.INTEGER_TYPES
        integer = terms.data_type(pairing.dialect.widest_integer, dialect=pairing.dialect.name)
        wide = integer if is_integer else exp.DataType.Type.DOUBLE
        sides = [exp.cast(side, wide) for side in sides]
    distance = exp.Abs(this=exp.paren(exp.Sub(this=sides[0], expression=sides[1])))
    share = terms.number(pairing.relative_tolerance)
    allowed = [
        terms.number(pairing.absolute_tolerance),
        *(exp.Mul(this=share.copy(), expression=exp.Abs(this=_double(side))) for side in sides),
    ]
    is_near = exp.paren(terms.any_of(exp.LTE(this=_double(distance), expression=one) for one in allowed))
    # An infinite distance is within a share of infinity, and NaN is above infinity: neither counts as near. If one side
    # is NULL, the condition is NULL, and COALESCE makes it false.
    is_finite = exp.LT(this=_double(distance), expression=_double(terms.text("inf")))
    is_same = exp.Coalesce(this=exp.paren(exp.and_(is_near, is_finite)), expressions=[exp.false()])
    return exp.and_(apart, exp.not_(is_same))


def _double(value: exp.Expr) -> exp.Expr:
    return exp.cast(value.copy(), exp.DataType.Type.DOUBLE)


@dataclass(frozen=True, slots=True, kw_only=True)
class WholeRows:
    """Rows of two relations that are compared as multisets, because no key matches them.

    Attributes:
        here: Rows, with the position of each row's partition.
        there: The rows that they are compared with, likewise.
        names: The compared columns.
        sameness: How they are compared.
    """

    here: exp.Query
    there: exp.Query
    names: tuple[str, ...]
    sameness: Sameness


def whole_differences(rows: WholeRows) -> exp.Select:
    """Return `(position, added, removed, unchanged)`: numbers of rows; a row that occurs twice counts twice."""
    more, fewer = terms.column(_HERE), terms.column(_THERE)
    counted = _by_whole_row(rows, {PARTITION: terms.column(PARTITION), _HERE: _total(_HERE), _THERE: _total(_THERE)})
    kept = exp.Case().when(exp.LT(this=more.copy(), expression=fewer.copy()), more.copy()).else_(fewer.copy())
    items = [exp.Sum(this=one) for one in (_surplus(more, fewer), _surplus(fewer, more), kept)]
    position = terms.column(PARTITION)
    return exp.select(position, *items).from_(terms.subquery(counted, _BOTH)).group_by(position.copy())


def different_whole_rows(rows: WholeRows, only: Literal["added", "removed"]) -> exp.Select:
    """Return the rows that one of the two relations has more often: how much more often, and each compared column."""
    more, fewer = (_HERE, _THERE) if only == "added" else (_THERE, _HERE)
    surplus = exp.Sub(this=_total(more), expression=_total(fewer))
    # The columns are numbered, so that no item has the name of a column by which rows are grouped.
    values = {f"_sb_{i}": exp.AnyValue(this=terms.column(name)) for i, name in enumerate(rows.names)}
    select = _by_whole_row(rows, {_MORE: surplus} | values)
    is_more = exp.GT(this=_total(more), expression=_total(fewer))
    return select.having(is_more).order_by(terms.column(PARTITION))


def _by_whole_row(rows: WholeRows, items: Mapping[str, exp.Expr]) -> exp.Select:
    """Return items of each distinct row of either relation, with the numbers of times that it occurs in them."""
    parts: list[exp.Select] = []
    for query, marks in ((rows.here, (1, 0)), (rows.there, (0, 1))):
        counts = dict(zip((_HERE, _THERE), map(terms.number, marks), strict=True))
        columns = terms.columns([PARTITION, *rows.names])
        parts.append(exp.select(*columns, *terms.named({**counts})).from_(terms.subquery(query.copy(), _SIDE)))
    forms = rows.sameness.all_forms(rows.names)
    every = terms.subquery(exp.union(*parts, distinct=False), _BOTH)
    return exp.select(*terms.named(items)).from_(every).group_by(terms.column(PARTITION), *forms)


def _total(name: str) -> exp.Expr:
    return exp.Sum(this=terms.column(name))


def _surplus(more: exp.Expr, fewer: exp.Expr) -> exp.Expr:
    is_more = exp.GT(this=more.copy(), expression=fewer.copy())
    return exp.Case().when(is_more, exp.Sub(this=more.copy(), expression=fewer.copy())).else_(terms.number(0))


def no_rows(source: TableRef, names: Iterable[str]) -> exp.Select:
    """Return a SELECT of columns of a table that returns no row."""
    return exp.select(*terms.columns(names)).from_(terms.table(source)).where(exp.false())
