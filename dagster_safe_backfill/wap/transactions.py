"""Transactions: a change that loses against another one is tried again; what a lost session left half done is ended."""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Callable
from typing import TypeVar

from dagster_safe_backfill.errors import TransactionConflictError
from dagster_safe_backfill.model.tables import TableRef
from dagster_safe_backfill.sql import ledger
from dagster_safe_backfill.warehouses.base import BeginAnewError, Connection

_FIRST_PAUSE, _LONGEST_PAUSE = 0.02, 0.2
_Result = TypeVar("_Result")
_LOG = logging.getLogger(__name__)


def in_transaction(connection: Connection, work: Callable[[], _Result]) -> _Result:
    """Return what `work` returns, run in a transaction of its own, anew while others are in its way.

    Raises:
        TransactionConflictError: They still are after the connection's `conflict_timeout`.
    """
    deadline = time.monotonic() + connection.conflict_timeout
    pause = _FIRST_PAUSE
    while True:
        try:
            with connection.transaction():
                return work()
        except BeginAnewError:
            continue
        except TransactionConflictError:
            if time.monotonic() + pause >= deadline:
                raise
        time.sleep(pause * random.uniform(0.5, 1.0))
        pause = min(2 * pause, _LONGEST_PAUSE)


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
