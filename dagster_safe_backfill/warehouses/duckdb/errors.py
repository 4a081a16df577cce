"""The library's error for each of DuckDB's errors, which have no numbers: only a class and a text."""

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
    # From httpfs: no answer, or a status that allows a retry.
    "error for HTTP|Unable to connect to URL|HTTP (408|425|429|5[0-9][0-9])"
    # From a network file system: the texts of errno EIO, ESTALE, EAGAIN and ETIMEDOUT.
    "|Input/output error|Stale file handle|Resource temporarily unavailable|timed out",
    re.IGNORECASE,
)


def is_lock(error: Exception) -> bool:
    """Return True if the file can't be opened because somebody has it open."""
    return "Could not set lock" in str(error) or is_own_lock(error)


def is_own_lock(error: Exception) -> bool:
    """Return True if the file can't be opened because this process has it open."""
    # The second text appears while another thread of this process is closing the file.
    return any(text in str(error) for text in ("different configuration", "Unique file handle conflict"))


def translated(error: Exception, doing: str) -> SafeBackfillError:
    """Return the library's error for an error of the driver."""
    import duckdb

    doing = " ".join(doing.split())
    message = f"{error} (while running: {doing[:_SHOWN_SQL]}{'…' if len(doing) > _SHOWN_SQL else ''})"
    # A CatalogException also reports a missing function or type.
    is_missing = re.search(r"Table with name .* does not exist", str(error))
    if isinstance(error, duckdb.CatalogException) and is_missing:
        return TableNotFoundError(message)
    # A TransactionException also reports misuse, such as a write in a read-only transaction.
    if isinstance(error, duckdb.TransactionException) and re.search("onflict|another transaction", str(error)):
        return TransactionConflictError(f"another transaction changed the same rows first: {message}")
    # DuckDB before 2.0 gives the second text if a statement is stopped while its rows are fetched.
    if isinstance(error, duckdb.InterruptException) or "closed pending query result" in str(error):
        return StatementCancelledError(f"the statement was stopped from outside: {message}")
    if isinstance(error, duckdb.IOException) and _can_pass(error):
        return WarehouseUnavailableError(f"a file that the statement reads can't be reached at the moment: {message}")
    return WarehouseError(message)


def _can_pass(error: Exception) -> bool:
    # Only an HTTPException has a status_code. Retrying a 404 or a broken file would find the same again.
    status = getattr(error, "status_code", None)
    return bool(_FAULTS_THAT_PASS.search(str(error) if status is None else f"HTTP {status}"))
