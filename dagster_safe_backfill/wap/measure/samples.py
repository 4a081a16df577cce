"""Samples of failing rows, without the columns that aren't to be shown."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlglot import exp

from dagster_safe_backfill.errors import SafeBackfillError, StatementCancelledError
from dagster_safe_backfill.sql import auditing
from dagster_safe_backfill.warehouses.base import Connection, Row

MASK = "***"
_LOG = logging.getLogger(__name__)


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
        """Return up to ten rows as they are, for the eyes of the caller; none, if they can't be read.

        What was counted stays counted, though a column of a user's query may break where it is shown.
        """
        sample = auditing.sampled(select)
        try:
            names = [column.name for column in self.connection.described(sample)]
            return [dict(zip(names, row, strict=True)) for row in self.connection.run(sample)]
        except StatementCancelledError:
            raise
        except SafeBackfillError as error:
            _LOG.warning("no sample of failing rows: %s", error)
            return []

    def tuples(self, select: exp.Query) -> Sequence[Row]:
        """Return up to ten rows as they are, by position, since names may come twice."""
        return self.connection.run(auditing.sampled(select))

    def masked(self, name: str, value: Any) -> Any:
        """Return a value, or the mask if its column isn't to be shown."""
        is_shown = self.shown is None or name.casefold() in {column.casefold() for column in self.shown}
        return value if is_shown or value is None else MASK
