"""transactions: a change of live that loses against another one is tried again, from its beginning."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from typing import TypeVar

from dagster_safe_backfill.errors import TransactionConflictError
from dagster_safe_backfill.warehouses.base import BeginAnewError, Connection

_FIRST_PAUSE, _LONGEST_PAUSE = 0.02, 0.2
_Result = TypeVar("_Result")


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
