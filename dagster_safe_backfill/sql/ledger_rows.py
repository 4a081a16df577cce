"""Rows of the ledger, whose values are checked as they are read, so that nothing is done by a damaged one."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, TypeVar, cast, get_args

from dagster_safe_backfill.errors import LedgerError
from dagster_safe_backfill.model.events import (
    CHANGES_OF_LIVE,
    ChangeEvent,
    Event,
    Fingerprint,
    OtherEvent,
    RowCounts,
    StagedEvent,
)
from dagster_safe_backfill.model.provenance import Provenance
from dagster_safe_backfill.model.tables import Column, TableRef

_Value = TypeVar("_Value")

_EVENTS = frozenset({*get_args(StagedEvent), *get_args(ChangeEvent), *get_args(OtherEvent)})
_VERSION_OF_DUCKDB = re.compile(r"duckdb-(1\.[3-9]|2\.0)\.\d+")
"""How formats 1 and 2 name the hash algorithm. All these versions hash rows alike, as `Dialect.known_values` shows."""
_ITS_HASH = "duckdb-cd8b2ff7722b9471"
_SHOWN = 60


@dataclass(frozen=True, slots=True)
class LedgerRow:
    """Some columns of a row of the ledger. Each method returns the value of one column.

    Raises:
        LedgerError: The column holds something that this library didn't write.
    """

    ledger: TableRef
    values: Mapping[str, Any]

    def text(self, column: str) -> str:
        """Return a text, which is never NULL."""
        return self._given(column, self.optional_text(column))

    def optional_text(self, column: str) -> str | None:
        """Return a text."""
        return self._of_type(column, str, "a text")

    def time(self, column: str) -> datetime:
        """Return a time, which is never NULL."""
        return self._given(column, self.optional_time(column))

    def optional_time(self, column: str) -> datetime | None:
        """Return a time."""
        found = self._of_type(column, datetime, "a time")
        if found is not None and found.tzinfo is None:
            raise self._damaged(column, "not a time with a zone")
        return found

    def count(self, column: str) -> int:
        """Return a number of rows; NULL is 0."""
        return self._of_type(column, int, "a number") or 0

    def event(self) -> Event:
        """Return the row's event."""
        found = self.text("event")
        if found not in _EVENTS:
            raise self._damaged("event", "not an event of the ledger")
        return cast("Event", found)

    def change_event(self) -> ChangeEvent:
        """Return the event of a change of live rows."""
        found = self.event()
        if found not in CHANGES_OF_LIVE:
            raise self._damaged("event", "not a change of live rows")
        return found

    def row_counts(self) -> RowCounts:
        """Return the numbers of rows of a change."""
        names = ("staged", "inserted", "updated", "deleted", "unchanged")
        return RowCounts(**{name: self.count(f"rows_{name}") for name in names})

    def fingerprint(self, column: str) -> Fingerprint | None:
        """Return a fingerprint; None if there is none."""
        found = self.optional_text(column)
        return self._fingerprint(column, found) if found else None

    def fingerprints(self, column: str) -> dict[str, Fingerprint]:
        """Return a mapping from partition key to fingerprint; empty if the column has a list or nothing."""
        found = self._json(column)
        if not isinstance(found, dict):
            return {}
        items = cast("dict[str, object]", found).items()
        return {key: self._fingerprint(column, one) for key, one in items}

    def texts(self, column: str) -> tuple[str, ...]:
        """Return a list of texts, such as names of columns; NULL is an empty one."""
        return self.optional_texts(column) or ()

    def optional_texts(self, column: str) -> tuple[str, ...] | None:
        """Return a list of texts."""
        found = self._json(column)
        if found is None:
            return None
        items = cast("list[object]", found) if isinstance(found, list) else [None]
        if not all(isinstance(one, str) for one in items):
            raise self._damaged(column, "not a list of texts")
        return cast("tuple[str, ...]", tuple(items))

    def columns(self, column: str, *, of: str) -> tuple[Column, ...]:
        """Return the names and types of a table's columns, which are the item `of` of a JSON object."""
        try:
            pairs = cast("dict[str, list[tuple[str, str]]]", self._json(column))[of]
            return tuple([Column(name=name, type=kind) for name, kind in pairs])
        except (KeyError, TypeError, ValueError) as error:
            raise self._damaged(column, "not a list of columns and types") from error

    def provenance(self) -> Provenance | None:
        """Return what made the rows; None if it isn't recorded."""
        found = self._json("provenance")
        if found is None:
            return None
        if not isinstance(found, dict):
            raise self._damaged("provenance", "not a JSON object")
        return Provenance(cast("dict[str, str | None]", found))

    def _fingerprint(self, column: str, text: object) -> Fingerprint:
        try:
            found = Fingerprint.parse(cast("str", text))
        except (ValueError, AttributeError) as error:
            raise self._damaged(column, "not a fingerprint") from error
        return replace(found, algorithm=_ITS_HASH) if _VERSION_OF_DUCKDB.fullmatch(found.algorithm) else found

    def _json(self, column: str) -> object:
        text = self.optional_text(column)
        if text is None:
            return None
        try:
            return json.loads(text)
        except ValueError as error:
            raise self._damaged(column, "not JSON") from error

    def _of_type(self, column: str, kind: type[_Value], what: str) -> _Value | None:
        found: object = self.values[column]
        if found is not None and not isinstance(found, kind):
            raise self._damaged(column, f"not {what}")
        return found

    def _given(self, column: str, found: _Value | None) -> _Value:
        if found is None:
            raise self._damaged(column, "and is never NULL")
        return found

    def _damaged(self, column: str, why: str) -> LedgerError:
        shown = repr(self.values[column])
        shown = f"{shown[:_SHOWN]}…" if len(shown) > _SHOWN else shown
        known = ("event", "partition_key", "publication_id", "run_id", "recorded_at")
        row = ", ".join(f"{name} {self.values[name]}" for name in known if self.values.get(name) and name != column)
        return LedgerError(
            f"the ledger {self.ledger} is damaged: {column} is {shown}, {why}, in the row with {row}. Nothing was"
            " changed. Correct the value, or restore the ledger from a backup; without it, what is live stays live, and"
            " can't be rolled back.",
            table=str(self.ledger),
        )
