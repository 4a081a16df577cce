"""transactions: a change of live that loses against another one is tried again, from its beginning."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from dagster_safe_backfill.warehouses.base import Connection

_Result = TypeVar("_Result")


def in_transaction(connection: Connection, work: Callable[[], _Result]) -> _Result:
    """See `Session.attempt`."""
    return connection.attempt(work)
