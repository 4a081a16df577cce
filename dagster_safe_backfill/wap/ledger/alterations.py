"""Alterations: the ledger's record of publications and rollbacks that changed the live table's columns."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from dagster_safe_backfill.model.tables import Column, TableRef, names_of
from dagster_safe_backfill.sql import ledger, terms
from dagster_safe_backfill.warehouses.base import Session

_COLUMNS = ("publication_id", "recorded_at", "fingerprinted_columns")


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
    select = ledger.rows_of(table, terms.columns(_COLUMNS), ledger.is_event("altered"))
    rows = session.query(select.order_by(terms.column("recorded_at")))
    found: dict[str, Alteration] = {}
    for row in ledger.as_rows(table, _COLUMNS, rows):
        publication_id = row.text("publication_id")
        found[publication_id] = Alteration(
            publication_id=publication_id,
            recorded_at=row.time("recorded_at"),
            before=row.columns("fingerprinted_columns", of="before"),
            after=row.columns("fingerprinted_columns", of="after"),
        )
    return found
