"""Recovery from a swap that a lost session left half done; it comes before every other step."""

from __future__ import annotations

import logging

from dagster_safe_backfill.model.tables import TableRef
from dagster_safe_backfill.sql import ledger
from dagster_safe_backfill.warehouses.base import Session

_LOG = logging.getLogger(__name__)


def finish_interrupted_swap(session: Session, table: TableRef) -> None:
    """Complete a half-done swap of a table if the ledger records it, else undo it.

    Raises:
        SwapError: The swap can be neither completed nor undone without losing rows.
    """

    def is_recorded(aside: TableRef) -> bool:
        # A ledger of an earlier version lacks columns, but its publications count: they must not be undone.
        if session.tables.columns(ledger.ledger_of(table)) is None:
            return False
        found = session.query(ledger.changes_of(table, ["publication_id"]))
        # Snowflake stores unquoted names in upper case.
        return aside.name.casefold() in {table.aside(one).name.casefold() for (one,) in found}

    finished = session.tables.recover(table, is_recorded=is_recorded)
    if finished is not None:
        _LOG.warning("%s: %s", table, finished)
