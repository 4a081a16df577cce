"""Transactions: a change that loses against another one is tried again; what a lost session left half done is ended."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TypeVar

from dagster_safe_backfill.model.tables import TableRef
from dagster_safe_backfill.sql import ledger
from dagster_safe_backfill.warehouses.base import Connection

_Result = TypeVar("_Result")
_LOG = logging.getLogger(__name__)


def in_transaction(connection: Connection, work: Callable[[], _Result]) -> _Result:
    """See `Session.attempt`."""
    return connection.attempt(work)


def finish_interrupted_swap(connection: Connection, table: TableRef) -> None:
    """End a half-done swap of a table: as done if the ledger tells of it, else by swapping back.

    Raises:
        SwapError: It can't be ended without loss.
    """

    def is_recorded(aside: TableRef) -> bool:
        if not ledger.is_complete(connection.columns(ledger.ledger_of(table))):
            return False
        found = connection.run(ledger.changes_of(table, ["publication_id"]))
        return aside.name.casefold() in {table.archive(one).name.casefold() for (one,) in found}

    finished = connection.recover(table, is_recorded=is_recorded)
    if finished is not None:
        _LOG.warning("%s: %s", table, finished)
