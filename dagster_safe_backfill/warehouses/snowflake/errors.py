"""The library's error for each of Snowflake's, which have numbers."""

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
"""An object that isn't there, or that the role may not see: Snowflake doesn't say which."""

_HELD = (
    "SHOW LOCKS IN ACCOUNT tells the transaction, which SELECT SYSTEM$ABORT_TRANSACTION(id) ends; raise lock_timeout if"
    " it has to be waited for"
)
_TIMED_OUT = (
    "the statement ran for longer than it may: raise statement_timeout (or STATEMENT_TIMEOUT_IN_SECONDS of the user or"
    " the virtual warehouse, if that is less), or make the batches smaller with batches=…"
)

_ERRORS: Mapping[int, tuple[type[SafeBackfillError], str]] = {
    # SQL execution canceled, and its own time-out; the third is how the connector says the first.
    604: (StatementCancelledError, "the statement was stopped from outside"),
    630: (StatementCancelledError, _TIMED_OUT),
    # Waited for longer than LOCK_TIMEOUT; as victim of a deadlock; too many wait for the lock.
    625: (TransactionConflictError, f"another transaction holds the table, and did for all of lock_timeout; {_HELD}"),
    638: (TransactionConflictError, f"another transaction holds the table; {_HELD}"),
    639: (TransactionConflictError, f"too many others wait for the table; {_HELD}"),
    606: (ConfigurationError, "no virtual warehouse is in use: name one, as warehouse="),
}
_LOST_SESSION = range(390100, 390300)
"""The session's token isn't valid any more: it was closed, expired, or the network's policy changed."""

_UNREACHABLE = (range(250000, 254000), range(290000, 291000), range(580000, 581000))
"""The connector's own: no connection, no answer, or one of HTTP's 4xx and 5xx and once or twice 290000."""

_PASSING = re.compile("deadlock|was aborted because|could not be locked", re.IGNORECASE)


def is_missing(error: Exception) -> bool:
    """Return whether the driver's error says that an object isn't there."""
    return getattr(error, "errno", None) in MISSING


def is_lost(error: Exception) -> bool:
    """Return whether the driver's error says that its session has ended."""
    return getattr(error, "errno", None) in _LOST_SESSION


def translated(error: Exception, doing: str) -> SafeBackfillError:
    """Return the library's error for one of the driver's."""
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
            f"the session with Snowflake was lost, and with it what it hadn't committed: {message}"
        )
    if isinstance(error, OSError) or any(number in numbers for numbers in _UNREACHABLE):
        return WarehouseUnavailableError(f"Snowflake can't be reached for now: {message}")
    return WarehouseError(message)
