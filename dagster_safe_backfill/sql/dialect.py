"""The differences between the SQL of databases: hashes, casts, types of time, joins and the length of names."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import ClassVar, Literal

from sqlglot import exp

from dagster_safe_backfill.model.tables import Column, ColumnType

Fit = Literal["same", "if_unchanged", "never"]
"""Which values of one type can be stored in another: all, only those that a cast doesn't change, or none."""


class Dialect(ABC):
    """The SQL of one database, where it differs from that of others.

    A dialect runs no statement and has no state: each method returns an expression or a fact about a type. Types are
    spelled as `Session.describe` and `Tables.columns` return them.
    """

    name: ClassVar[str]
    """The name of sqlglot's dialect in which SQL is rendered and parsed."""

    longest_name: ClassVar[int] = 63
    """The most bytes of UTF-8 in a table's name. The library shortens the names that it makes."""

    aggregates_at_once: ClassVar[int] = 500
    """The most aggregates in one SELECT. The library measures more than that in several statements."""

    widest_integer: ClassVar[str]
    """An integer type that can hold the difference of two integers of any other type."""

    known_values: ClassVar[Sequence[str]]
    """Values of the types whose hashes could change with a version of the database, each as SQL that names no column.

    Their hash, with which each fingerprint is stored, shows whether the database still hashes rows as it did. The first
    value is a number: raise it if `row_hash`, `exact` or `hashed` give other hashes than before.
    """

    @abstractmethod
    def row_hash(self, values: Sequence[exp.Expr], *, rare: Sequence[exp.Expr] = ()) -> exp.Expr:
        """Return the hash of a row: a non-negative integer of at least 64 bits. NULL is a value like any other.

        Equal values have equal hashes in every session, and sums of hashes don't overflow.

        Args:
            values: The values of the row, or their forms; see `exact`.
            rare: The forms that are a CASE. They change the hash only if one of them is rare.
        """

    def exact(self, value: exp.Expr, column: Column) -> Sequence[exp.Expr]:  # noqa: ARG002 - for types with more forms
        """Return a value of a column in forms that are all equal only for identical values.

        That is the value itself, unless the database calls values of the column equal that differ: texts with a
        collation, or 0.0 and -0.0. A form that is a CASE is never NULL, and has the value of its ELSE for most values:
        the others are rare, see `terms.is_any_rare`.

        Args:
            value: The value, or the column itself.
            column: The type and the collation of the value.
        """
        return (value,)

    def hashed(self, value: exp.Expr, column: Column) -> Sequence[exp.Expr]:
        """Return a value of a column in forms whose hashes are all equal only for identical values.

        They are those of `exact`. A dialect adds others if its database hashes values alike that it calls unequal.
        """
        return self.exact(value, column)

    def is_overwritten(self, column: Column) -> bool:
        """Return True if an UPDATE writes a value that the database calls equal to the present one, and that differs.

        The column's equality isn't identity. Rows in which it isn't overwritten are deleted and inserted.
        """
        return column.collation is not None

    def alike(self, one: exp.Expr, other: exp.Expr, column: Column) -> exp.Expr:
        """Return a condition that is true if two values of a column are equal for the database, and not identical.

        A dialect overrides it if there is a quicker condition than a comparison of all forms of `exact`.
        """
        pairs = zip(self.exact(one, column), self.exact(other, column), strict=True)
        differ = [exp.NullSafeNEQ(this=here.copy(), expression=there.copy()) for here, there in pairs]
        return exp.and_(exp.NullSafeEQ(this=one.copy(), expression=other.copy()), exp.or_(*differ))

    def differ(self, pairs: Sequence[tuple[exp.Expr, exp.Expr, Column]]) -> exp.Expr:
        """Return a condition that is true if the two values of at least one pair differ. It is never NULL.

        Args:
            pairs: At least one pair of values, with their column. It has no collation, and its equality isn't identity.
        """
        differ: list[exp.Expr] = []
        for one, other, column in pairs:
            unequal = exp.NullSafeNEQ(this=one.copy(), expression=other.copy())
            differ += [unequal, self.alike(one, other, column)]
        return exp.or_(*differ)

    def sorted_by(self, value: exp.Expr) -> exp.Expr:
        """Return an expression that sorts and groups rows as `value` does, a column whose equality isn't identity.

        A dialect overrides it if its database changes values by which it sorts.
        """
        return value

    @abstractmethod
    def found(self, rows: exp.Select, there: Sequence[exp.Expr], here: Sequence[exp.Expr]) -> exp.Expr:
        """Return a condition that is true if a row of another relation has the values of this row. It is never NULL.

        It is `terms.looked_up`, if the database looks up values that it calls equal as they are.

        Args:
            rows: A SELECT from the other relation.
            there: The values of a row of the other relation.
            here: The values of this row.
        """

    @abstractmethod
    def fit(self, *, source: str, target: str) -> Fit:
        """Return which values of the type `source` can be stored in a column of the type `target`."""

    @abstractmethod
    def is_lost(self, value: exp.Expr, *, source: str, target: str) -> exp.Expr:
        """Return a condition that is true if a cast from `source` to `target` changes a value or refuses it.

        The condition may be NULL instead of false. It may also raise, if the database can't test a value without an
        error; the value then counts as lost. The method is only called for types whose `fit` is `"if_unchanged"`.
        """

    @abstractmethod
    def created_as(self, source: str) -> str | None:
        """Return the type of a new column for computed values of the type `source`.

        None if the values have no type, for example in a column of a data frame that holds only NULL.
        """

    @abstractmethod
    def keeps(self, type_name: str) -> ColumnType | Literal["text", "other"]:
        """Return which kind of time values of a type are; `"text"` or `"other"` for types without time."""

    def tried(self, value: exp.Expr, to: exp.DataType) -> exp.Expr:
        """Return `value`, a text, cast to a type; NULL instead of an error if it isn't a value of the type.

        If the database can't try the cast, the cast raises.
        """
        return exp.TryCast(this=value, to=to)

    def is_type(self, type_name: str, wanted: str) -> bool:
        """Return True if two names mean the same type, for example TEXT and VARCHAR."""
        # Without `udt`, sqlglot raises for a type that it doesn't know, such as DuckDB's TIMESTAMPTZ_NS.
        one, other = (exp.DataType.build(text, dialect=self.name, udt=True) for text in (type_name, wanted))
        return one == other

    def join_partitions(
        self, partitions: exp.Expr, *, matches: Sequence[exp.Expr], ends: Sequence[exp.Expr], position: exp.Expr
    ) -> tuple[exp.Join, exp.Expr]:
        """Return a LEFT JOIN of rows with the partitions of a slice, and the position of a row's partition.

        The position is NULL for rows that are in none of the partitions.

        Args:
            partitions: A relation with one row for each partition.
            matches: One condition for each dimension: the row has the partition's value, or is at or after the start
                of its window.
            ends: One condition for each dimension of windows: the row is before the end of the window.
            position: The column of `partitions` with the position.
        """
        return exp.Join(this=partitions, side="LEFT", on=exp.and_(*matches, *ends)), position
