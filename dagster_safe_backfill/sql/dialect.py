"""What SQL leaves open: how one database says hashes, casts, times and joins, and how long a name may be."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import ClassVar, Literal

from sqlglot import exp

from dagster_safe_backfill.model.tables import ColumnType

Fit = Literal["same", "if_unchanged", "never"]
"""How values of one column type go into another: as they are, only those that a cast keeps, or not at all."""


class Dialect(ABC):
    """How one database says what others say otherwise.

    It runs nothing and keeps nothing: each method returns an expression or a fact about a type. Types are named in the
    database's own spelling, as `Session.describe` and `Tables.columns` return them.
    """

    name: ClassVar[str]
    """sqlglot's name of the SQL that this database speaks; expressions are rendered and parsed by it."""

    longest_name: ClassVar[int] = 63
    """The most bytes of UTF-8 that a table's name may have. The library shortens the names that it makes."""

    aggregates_at_once: ClassVar[int] = 500
    """The most aggregates that one SELECT may measure; the library splits more into several statements."""

    widest_integer: ClassVar[str]
    """An integer type in which the difference of two integers of any other type fits."""

    @property
    @abstractmethod
    def hash_algorithm(self) -> str:
        """What `row_hash` hashes by, without colons; another text as soon as equal rows may hash differently."""

    @abstractmethod
    def row_hash(self, values: Sequence[exp.Expr]) -> exp.Expr:
        """Return a non-negative integer of at least 64 bits that tells rows of these values apart, NULLs included.

        Equal values have equal hashes in every session, and sums of hashes don't overflow.
        """

    @abstractmethod
    def fit(self, *, source: str, target: str) -> Fit:
        """Return how values of the type `source` go into a column of the type `target`."""

    @abstractmethod
    def is_lost(self, value: exp.Expr, *, source: str, target: str) -> exp.Expr:
        """Return whether a cast to `target` would change or refuse a value of the type `source`.

        NULL stands for false. Only asked if `fit` says `"if_unchanged"`. An error that a value raises, where the
        database can't help it, counts as true.
        """

    @abstractmethod
    def created_as(self, source: str) -> str | None:
        """Return the type that a new column gets for computed values of the type `source`.

        None if the values tell no type, as those of a frame's column that holds nothing but NULL.
        """

    @abstractmethod
    def keeps(self, type_name: str) -> ColumnType | Literal["text", "other"]:
        """Return how a type keeps time; `"text"` or `"other"` if it keeps none."""

    def is_type(self, type_name: str, wanted: str) -> bool:
        """Return whether two names mean the same type."""
        one, other = (exp.DataType.build(text, dialect=self.name, udt=True) for text in (type_name, wanted))
        return one == other

    def join_partitions(
        self, partitions: exp.Expr, *, matches: Sequence[exp.Expr], ends: Sequence[exp.Expr], position: exp.Expr
    ) -> tuple[exp.Join, exp.Expr]:
        """Return a LEFT JOIN of rows with the partitions of a slice, and each row's position, NULL if it is in none.

        Args:
            partitions: The slice, as a relation of a row a partition.
            matches: In each dimension: the row has the partition's value, or isn't before its window begins.
            ends: In each dimension of windows: the row is before the window ends.
            position: The partition's position.
        """
        return exp.Join(this=partitions, side="LEFT", on=exp.and_(*matches, *ends)), position
