"""The one notion of same: two values are the same if they are identical, whatever their type's equality says.

Databases call values equal that differ: `a` and `A` in a collation that ignores case, 0.0 and -0.0, an interval of 30
days and one of a month. A `Sameness` compares such columns in forms that differ, and all others as they are.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from sqlglot import exp

from dagster_safe_backfill.model.tables import Column
from dagster_safe_backfill.sql import terms
from dagster_safe_backfill.sql.dialect import Dialect

_FORM = "_sb_form_"


@dataclass(frozen=True, slots=True, kw_only=True)
class Sameness:
    """How the columns of some rows are compared.

    Attributes:
        dialect: The dialect of the warehouse. None if all columns are compared as they are.
        inexact: A mapping from the case-folded name of each column whose equality isn't identity to the column.
    """

    dialect: Dialect | None = None
    inexact: Mapping[str, Column] = field(default_factory=dict[str, Column])

    @classmethod
    def of(cls, columns: Iterable[Column], dialect: Dialect) -> Sameness:
        """Return how columns are compared, by their types and collations."""
        inexact: dict[str, Column] = {}
        for column in columns:
            value = terms.column(column.name)
            if [*dialect.exact(value, column)] != [value]:
                inexact[column.name.casefold()] = column
        return cls(dialect=dialect, inexact=inexact)

    def forms(self, name: str, *, of: str | None = None) -> Sequence[exp.Expr]:
        """Return a column in the forms that are all equal only for identical values. It is mostly the column itself."""
        return self._of_value(name, terms.column(name, of=of))

    def _of_value(self, name: str, value: exp.Expr) -> Sequence[exp.Expr]:
        column = self.inexact.get(name.casefold())
        return (value,) if column is None or self.dialect is None else self.dialect.exact(value, column)

    def all_forms(
        self, names: Iterable[str], *, of: str | None = None, spelled: Mapping[str, str] | None = None
    ) -> list[exp.Expr]:
        """Return the `forms` of several columns, in their order.

        `spelled` maps the names to those that the columns have in the relation `of`, if these are others.
        """
        names = [*names]
        there = spelled or dict(zip(names, names, strict=True))
        forms: list[exp.Expr] = []
        for name in names:
            forms += self._of_value(name, terms.column(there[name], of=of))
        return forms

    def named(self, names: Iterable[str], *, of: str | None = None) -> dict[str, exp.Expr]:
        """Return the `forms` of several columns, each under a name of its own. The first has the column's name."""
        found: dict[str, exp.Expr] = {}
        for name in names:
            for i, form in enumerate(self.forms(name, of=of)):
                found[f"{_FORM}{i}_{name}" if i else name] = form
        return found

    def sorted_by(self, name: str) -> exp.Expr:
        """Return an expression by which rows are sorted as by the column, so that its values stay what they are.

        Texts that have a collation are sorted by their bytes.
        """
        value, column = terms.column(name), self.inexact.get(name.casefold())
        if column is None or self.dialect is None:
            return value
        return self.dialect.sorted_by(value) if column.collation is None else self.dialect.exact(value, column)[0]

    def same(self, names: Sequence[str], *, left: str, right: str) -> exp.Expr:
        """Return a condition that is true if columns are the same in two relations. NULL is the same as nothing."""
        return terms.equal(self.all_forms(names, of=left), self.all_forms(names, of=right))

    def found(self, rows: exp.Select, there: Sequence[exp.Expr], here: Sequence[exp.Expr]) -> exp.Expr:
        """Return a condition that is true if a row of another relation has the values of this row.

        See `Dialect.found`.
        """
        return terms.looked_up(rows, there, here) if self.dialect is None else self.dialect.found(rows, there, here)

    def alike(self, names: Iterable[str], *, left: str, right: str) -> exp.Expr | None:
        """Return a condition that is true if a column differs and an UPDATE may not write it; None if none can.

        That is a column whose values are equal in the type's own equality. See `Dialect.is_overwritten`.
        """
        conditions: list[exp.Expr] = []
        for name in names:
            column = self.inexact.get(name.casefold())
            if column is not None and self.dialect is not None and not self.dialect.is_overwritten(column):
                here, there = terms.column(name, of=left), terms.column(name, of=right)
                conditions.append(self.dialect.alike(here, there, column))
        return terms.any_of(conditions) if conditions else None

    def differ(self, names: Iterable[str], *, left: str, right: str) -> exp.Expr:
        """Return a condition that is true if at least one column differs in two relations. NULL is the same as NULL."""
        conditions: list[exp.Expr] = []
        pairs: list[tuple[exp.Expr, exp.Expr, Column]] = []
        for name in names:
            here, there = terms.column(name, of=left), terms.column(name, of=right)
            column = self.inexact.get(name.casefold())
            if column is None or self.dialect is None:
                conditions.append(terms.unequal(here, there))
            elif column.collation is not None:
                # If the bytes differ, so do the texts.
                conditions.append(terms.any_unequal(*(self.dialect.exact(one, column) for one in (here, there))))
            else:
                pairs.append((here, there, column))
        if pairs and self.dialect is not None:
            conditions.append(self.dialect.differ(pairs))
        return terms.any_of(conditions)


def hash_of(columns: Iterable[Column], dialect: Dialect) -> exp.Expr:
    """Return the hash of a row by all values of some columns. See `Dialect.row_hash`."""
    forms = [form for column in columns for form in dialect.hashed(terms.column(column.name), column)]
    rare = [form for form in forms if isinstance(form, exp.Case)]
    return dialect.row_hash([form for form in forms if not isinstance(form, exp.Case)], rare=rare)


def with_collations(columns: Iterable[Column], others: Iterable[Column]) -> tuple[Column, ...]:
    """Return columns, each with the collation that it has, or else that of the other column of its name.

    A comparison of two columns follows the collation of either.
    """
    collations = {other.name.casefold(): other.collation for other in others}
    return tuple(
        [
            column
            if column.collation is not None
            else replace(column, collation=collations.get(column.name.casefold()))
            for column in columns
        ]
    )


def collation_of(
    described: Column, read: Iterable[Column | None], expression: exp.Expr, dialect: Dialect
) -> str | None:
    """Return the collation that an expression, whose type is given, has of the columns that it reads.

    An expression that sets a collation compares as its user said.
    """
    if dialect.keeps(described.type) != "text" or expression.find(exp.Collate):
        return None
    return next((column.collation for column in read if column is not None and column.collation is not None), None)
