"""The library's error for each of Snowflake's errors, which have numbers."""

from __future__ import annotations

import re
from collections.abc import Mapping

from dagster_safe_backfill.errors import (
    ConfigurationError,
    SafeBackfillError,
    StatementCancelledError,
    TableNotFoundError,
    TransactionConflictError,
    WarehouseError,
    WarehouseUnavailableError,
)

_SHOWN_SQL = 300

MISSING = (2003, 2043)
"""The object doesn't exist, or the role isn't allowed to see it. Snowflake doesn't say which."""

_HELD = (
    "SHOW LOCKS IN ACCOUNT shows that transaction, and SELECT SYSTEM$ABORT_TRANSACTION(id) ends it. To wait longer for"
    " it, raise lock_timeout"
)
_TIMED_OUT = (
    "the statement took longer than the statement timeout. Raise statement_timeout (or STATEMENT_TIMEOUT_IN_SECONDS of"
    " the user or the virtual warehouse, if that is less), or make the batches smaller with batches=…"
)

_ERRORS: Mapping[int, tuple[type[SafeBackfillError], str]] = {
    # 604: SQL execution canceled. 630: the statement reached its time-out.
    604: (StatementCancelledError, "the statement was stopped from outside"),
    630: (StatementCancelledError, _TIMED_OUT),
    # 615: the transaction was aborted, by SYSTEM$ABORT_TRANSACTION or because it was idle and blocked another one.
    # 625: LOCK_TIMEOUT ended. 638: victim of a deadlock. 639: too many statements wait for the lock.
    615: (TransactionConflictError, "the transaction was aborted from outside, and its changes were undone"),
    625: (TransactionConflictError, f"another transaction held the table for all of lock_timeout. {_HELD}"),
    638: (TransactionConflictError, f"another transaction holds the table. {_HELD}"),
    639: (TransactionConflictError, f"too many other statements wait for the table. {_HELD}"),
    606: (ConfigurationError, "the session has no virtual warehouse. Name one with warehouse=…"),
}
_LOST_SESSION = range(390100, 390300)
"""The session's token isn't valid any more: the session was closed or expired, or the network policy changed."""

_UNREACHABLE = (range(250000, 254000), range(290000, 291000), range(580000, 581000))
"""The connector's own errors: no connection, no answer, or an HTTP status, to which 290000 is added once or twice."""

# Conflicts whose numbers aren't in `_ERRORS` are recognised by their texts.
_PASSING = re.compile("deadlock|was aborted because|transaction .*was aborted|could not be locked", re.IGNORECASE)


def is_missing(error: Exception) -> bool:
    """Return True if the driver's error says that an object doesn't exist."""
    return getattr(error, "errno", None) in MISSING


def is_lost(error: Exception) -> bool:
    """Return True if the driver's error says that its session has ended."""
    return getattr(error, "errno", None) in _LOST_SESSION


def translated(error: Exception, doing: str) -> SafeBackfillError:
    """Return the library's error for an error of the driver."""
    doing = " ".join(doing.split())
    message = f"{error} (while running: {doing[:_SHOWN_SQL]}{'…' if len(doing) > _SHOWN_SQL else ''})"
    number: int = getattr(error, "errno", None) or 0
    if number in MISSING:
        return TableNotFoundError(message)
    if number in _ERRORS:
        kind, why = _ERRORS[number]
        return kind(f"{why}: {message}")
    if _PASSING.search(str(error)):
        return TransactionConflictError(f"another transaction holds the table: {message}")
    if number in _LOST_SESSION:
        return WarehouseUnavailableError(
            f"the session with Snowflake was lost, and with it all changes that it hadn't committed: {message}"
        )
    if isinstance(error, OSError) or any(number in numbers for numbers in _UNREACHABLE):
        return WarehouseUnavailableError(f"Snowflake can't be reached at the moment: {message}")
    return WarehouseError(message)
