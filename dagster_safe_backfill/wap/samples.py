"""Samples of failing rows, without the columns that aren't to be shown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlglot import exp

from dagster_safe_backfill.sql import auditing
from dagster_safe_backfill.warehouses.base import Connection

MASK = "***"


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampler:
    """Reads the first rows of a select.

    Attributes:
        connection: An open session.
        shown: The columns whose values may be shown; all, if None.
    """

    connection: Connection
    shown: tuple[str, ...] | None

    def rows(self, select: exp.Query) -> Sequence[Mapping[str, Any]]:
        """Return up to ten rows, with a mask for the values that aren't to be shown."""
        return [{name: self.masked(name, value) for name, value in row.items()} for row in self.unmasked(select)]

    def unmasked(self, select: exp.Query) -> Sequence[Mapping[str, Any]]:
        """Return up to ten rows as they are, for the eyes of the caller."""
        sample = auditing.sampled(select)
        names = [column.name for column in self.connection.described(sample)]
        return [dict(zip(names, row, strict=True)) for row in self.connection.run(sample)]

    def masked(self, name: str, value: Any) -> Any:
        """Return a value, or the mask if its column isn't to be shown."""
        is_shown = self.shown is None or name.casefold() in {column.casefold() for column in self.shown}
        return value if is_shown or value is None else MASK
