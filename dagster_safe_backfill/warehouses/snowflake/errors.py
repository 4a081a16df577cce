"""The library's error for each of Snowflake's errors, which have numbers."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from dagster_safe_backfill.errors import (
    ConfigurationError,
    OutOfResourcesError,
    SafeBackfillError,
    StatementCancelledError,
    TableNotFoundError,
    TransactionConflictError,
    WarehouseError,
    WarehouseUnavailableError,
)
from dagster_safe_backfill.redaction import foreign_text, refused_statement

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
    # 707: a table without retention was changed while it was cloned. The rows that the clone reads are gone.
    707: (TransactionConflictError, "another session changed the table while it was cloned"),
    606: (ConfigurationError, "the session has no virtual warehouse. Name one with warehouse=…"),
}
_AS_IT_WAS = "The live table is as it was"
EXISTS = 1430
"""The column exists."""

_REASONS: Mapping[int, str] = {
    390100: "the user or the password is wrong",
    390101: "the user is disabled, or isn't allowed to log in this way",
    390102: "the user is locked for a while after too many wrong passwords",
    390106: "the password has expired",
    390144: "the private key doesn't belong to the user, or the clock of this machine is wrong",
    390186: "the role doesn't exist, or the user doesn't have it",
    390189: "the role doesn't exist, or the user doesn't have it",
    390201: "the database doesn't exist, or the role isn't allowed to see it",
    390303: "the OAuth token is not valid",
    390317: "the OAuth token isn't for this role",
    390318: "the OAuth token has expired, so a new one is needed",
    390420: "the account's network policy doesn't allow this machine's IP address",
    390422: "the account's network policy doesn't allow this machine's IP address",
    394301: "the private key's token has expired. The clock of this machine may be wrong",
    394304: "the private key doesn't belong to the user",
    394400: "the programmatic access token is not valid",
}
"""What Snowflake's refusals of a login mean."""

_REFUSED_LOGIN = (range(390000, 391000), range(394000, 395000))
"""Snowflake's own answers to a login. The connector repeats what may pass, such as a busy server, by itself."""

_LOST_SESSION = (*range(390100, 390300), 390303, 390318, 390420, 390422)
"""The session's token isn't valid any more: the session was closed or expired, or the network policy changed."""

_UNREACHABLE = (range(250000, 254000), range(290000, 291000), range(580000, 581000))
"""The connector's own errors: no connection, no answer, or an HTTP status, to which 290000 is added once or twice."""

_LACKING: Sequence[tuple[re.Pattern[str], str, str]] = (
    (
        re.compile("resource monitor|exceeded its quota", re.IGNORECASE),
        "the virtual warehouse may not run, because its resource monitor's quota is used up",
        "Raise the quota, wait for its next period, or name another virtual warehouse with warehouse=…",
    ),
    (
        re.compile("out of memory|memory (is )?exhausted|(insufficient|not enough) memory|memory limit", re.IGNORECASE),
        "the virtual warehouse has too little memory for the statement",
        "Name a larger one with warehouse=…, or compute fewer partitions at once, with Batches(size=…)",
    ),
)
"""What a virtual warehouse may lack: the texts of such errors, what it is, and what to do."""
_SUSPENDED = re.compile(r"warehouse .*\b(suspended|can(not|'t) be resumed)", re.IGNORECASE)

# Conflicts whose numbers aren't in `_ERRORS` are recognised by their texts.
_PASSING = re.compile("deadlock|was aborted because|transaction .*was aborted|could not be locked", re.IGNORECASE)


def is_missing(error: Exception) -> bool:
    """Return True if the driver's error says that an object doesn't exist."""
    return getattr(error, "errno", None) in MISSING


def is_lost(error: Exception) -> bool:
    """Return True if the driver's error says that its session has ended."""
    return getattr(error, "errno", None) in _LOST_SESSION


def is_numbered(error: BaseException, number: int) -> bool:
    """Return True if an error of the library was raised for the driver's error of a number."""
    return getattr(error.__cause__, "errno", None) == number


def not_logged_in(error: Exception) -> SafeBackfillError:
    """Return the library's error for a login that failed.

    A refusal is never repeated: it would be refused again, and after a few wrong passwords Snowflake locks the user.
    """
    number: int = getattr(error, "errno", None) or 0
    if any(number in numbers for numbers in _REFUSED_LOGIN):
        why = f", because {_REASONS[number]}" if number in _REASONS else ""
        return ConfigurationError(f"Snowflake refused the login{why}. It isn't tried again: {foreign_text(error)}")
    return translated(error, "logging in")


def translated(error: Exception, doing: str) -> SafeBackfillError:
    """Return the library's error for an error of the driver."""
    message = refused_statement(error, doing)
    number: int = getattr(error, "errno", None) or 0
    if number in MISSING:
        return TableNotFoundError(message)
    if number in _ERRORS:
        kind, why = _ERRORS[number]
        return kind(f"{why}: {message}")
    known = _known_by_text(str(error), doing, message)
    if known is not None:
        return known
    if number in _LOST_SESSION:
        why = f" ({_REASONS[number]})" if number in _REASONS else ""
        return WarehouseUnavailableError(
            f"the session with Snowflake was lost{why}, and with it all changes that it hadn't committed: {message}"
        )
    if isinstance(error, OSError) or any(number in numbers for numbers in _UNREACHABLE):
        return WarehouseUnavailableError(f"Snowflake can't be reached at the moment: {message}")
    return WarehouseError(message)


def _known_by_text(text: str, doing: str, message: str) -> SafeBackfillError | None:
    for pattern, why, advice in _LACKING:
        if pattern.search(text):
            # The reply of a COMMIT may be an error though it took place.
            live = "Run it again: the ledger shows if it was committed" if doing == "COMMIT" else _AS_IT_WAS
            return OutOfResourcesError(f"{why}. {live}. {advice}: {message}")
    if _SUSPENDED.search(text):
        return WarehouseUnavailableError(
            f"the virtual warehouse is suspended. {_AS_IT_WAS}. Resume it, or set its AUTO_RESUME: {message}"
        )
    if _PASSING.search(text):
        return TransactionConflictError(f"another transaction holds the table: {message}")
    return None
