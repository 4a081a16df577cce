"""Alterations: the ledger's record of publications and rollbacks that changed the live table's columns."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

from dagster_safe_backfill.model.tables import Column, TableRef, names_of
from dagster_safe_backfill.sql import ledger, terms
from dagster_safe_backfill.warehouses.base import Session


@dataclass(frozen=True, slots=True, kw_only=True)
class Alteration:
    """A change of the live table's columns by a publication or rollback.

    Attributes:
        publication_id: The id of the publication or rollback.
        recorded_at: The time of the change.
        before: The table's columns before the change.
        after: The table's columns after it.
    """

    publication_id: str
    recorded_at: datetime
    before: tuple[Column, ...]
    after: tuple[Column, ...]

    @property
    def added(self) -> tuple[str, ...]:
        """The names of the columns that the table didn't have before."""
        known = {*names_of(self.before)}
        return tuple(name for name in names_of(self.after) if name not in known)

    @property
    def gone(self) -> tuple[Column, ...]:
        """The earlier columns that the change dropped, or gave another type."""
        return tuple(column for column in self.before if column not in self.after)

    @property
    def dropped(self) -> tuple[str, ...]:
        """The names of the columns that the table doesn't have any more."""
        known = {*names_of(self.after)}
        return tuple(name for name in names_of(self.before) if name not in known)


def alterations(session: Session, table: TableRef) -> dict[str, Alteration]:
    """Return a mapping from publication or rollback to its change of the table's columns, the oldest first.

    They are written by `record_alteration`.
    """
    items = terms.columns(["publication_id", "recorded_at", "fingerprinted_columns"])
    select = ledger.rows_of(table, items, ledger.is_event("altered")).order_by(terms.column("recorded_at"))
    found: dict[str, Alteration] = {}
    for publication_id, at, text in session.query(select):
        told = json.loads(text)
        found[publication_id] = Alteration(
            publication_id=publication_id,
            recorded_at=at,
            before=_columns(told["before"]),
            after=_columns(told["after"]),
        )
    return found


def _columns(pairs: Iterable[tuple[str, str]]) -> tuple[Column, ...]:
    return tuple(Column(name=name, type=kind) for name, kind in pairs)
