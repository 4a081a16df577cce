"""recovery: what a lost session left half done of a swap is ended before anything else is done."""

from __future__ import annotations

import logging

from dagster_safe_backfill.model.tables import TableRef
from dagster_safe_backfill.wap.ledger import ledger
from dagster_safe_backfill.warehouses.base import Connection

_LOG = logging.getLogger(__name__)


def finish_interrupted_swap(connection: Connection, table: TableRef) -> None:
    """End a half-done swap of a table: as done if the ledger tells of it, else by swapping back.

    Raises:
        SwapError: It can't be ended without loss.
    """

    def is_recorded(aside: TableRef) -> bool:
        if not ledger.exists(connection, table):
            return False
        names = {table.archive(entry.publication_id).name.casefold() for entry in ledger.history(connection, table)}
        return aside.name.casefold() in names

    found = connection.recover(table, is_recorded=is_recorded)
    if found is not None:
        _LOG.warning("%s: %s", table, found)
