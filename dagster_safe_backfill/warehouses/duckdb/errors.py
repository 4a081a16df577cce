"""The library's error for each of DuckDB's, which tells them apart by class and text only."""

from __future__ import annotations

import re

from dagster_safe_backfill.errors import (
    SafeBackfillError,
    StatementCancelledError,
    TableNotFoundError,
    TransactionConflictError,
    WarehouseError,
    WarehouseUnavailableError,
)

_SHOWN_SQL = 300
_FAULTS_THAT_PASS = re.compile(
    # Of what httpfs reads: no answer, or one that says later.
    "error for HTTP|Unable to connect to URL|HTTP (408|425|429|5[0-9][0-9])"
    # Of a network's file system.
    "|Input/output error|Stale file handle|Resource temporarily unavailable|timed out",
    re.IGNORECASE,
)


def is_lock(error: Exception) -> bool:
    """Return whether someone else has the file open."""
    return "Could not set lock" in str(error) or is_own_lock(error)


def is_own_lock(error: Exception) -> bool:
    """Return whether that one is this process."""
    # The second: this process is just closing the file in another thread.
    return any(text in str(error) for text in ("different configuration", "Unique file handle conflict"))


def translated(error: Exception, doing: str) -> SafeBackfillError:
    """Return the library's error for one of the driver's."""
    import duckdb

    doing = " ".join(doing.split())
    message = f"{error} (while running: {doing[:_SHOWN_SQL]}{'…' if len(doing) > _SHOWN_SQL else ''})"
    if isinstance(error, duckdb.CatalogException) and "Table with name" in str(error):
        return TableNotFoundError(message)
    if isinstance(error, duckdb.TransactionException) and re.search("onflict|another transaction", str(error)):
        return TransactionConflictError(f"another transaction changed the same rows first: {message}")
    # The second, before 2.0: it was stopped while its rows were fetched.
    if isinstance(error, duckdb.InterruptException) or "closed pending query result" in str(error):
        return StatementCancelledError(f"the statement was stopped from outside: {message}")
    if isinstance(error, duckdb.IOException) and _can_pass(error):
        return WarehouseUnavailableError(f"what is read can't be reached for now: {message}")
    return WarehouseError(message)


def _can_pass(error: Exception) -> bool:
    # An HTTPException has the server's answer as an attribute; most files that are missing or broken stay so.
    status = getattr(error, "status_code", None)
    return bool(_FAULTS_THAT_PASS.search(str(error) if status is None else f"HTTP {status}"))
