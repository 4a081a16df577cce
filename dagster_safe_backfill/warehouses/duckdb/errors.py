"""The library's error for each of DuckDB's errors, which have no numbers: only a class and a text."""

from __future__ import annotations

import re

from dagster_safe_backfill.errors import (
    OutOfResourcesError,
    SafeBackfillError,
    StatementCancelledError,
    TableNotFoundError,
    TransactionConflictError,
    WarehouseError,
    WarehouseUnavailableError,
)
from dagster_safe_backfill.redaction import refused_statement

_FAULTS_THAT_PASS = re.compile(
    # From httpfs: no answer, or a status that allows a retry.
    "error for HTTP|Unable to connect to URL|HTTP (408|425|429|5[0-9][0-9])"
    # From a network file system: the texts of errno EIO, ESTALE, EAGAIN and ETIMEDOUT.
    "|Input/output error|Stale file handle|Resource temporarily unavailable|timed out",
    re.IGNORECASE,
)


_DISK_FULL = re.compile(
    "No space left on device|Disk quota exceeded|File too large|not enough (disk )?space|out of disk space"
    "|max_temp_directory_size|Could not write all bytes",
    re.IGNORECASE,
)
_FREE_DISK = (
    "Free space on it; or move the temporary files to another disk by temp_directory in connection_config, and raise"
    " max_temp_directory_size if it is set"
)
_SET_FOLDER = "Create the folder, or set temp_directory in connection_config to one that the process may write to"
_RAISE_LIMIT = (
    "In connection_config of the I/O manager, raise memory_limit, or let DuckDB use the disk by temp_directory and"
    " max_temp_directory_size; or compute fewer partitions at once, with Batches(size=…)"
)
_REFERENCED = (
    'a foreign key refers to rows that the statement deletes, so nothing was changed. publish="merge" with a unique_key'
    ' changes such rows in place, and deletes only rows that are not computed any more; "replace" and "swap" delete all'
    " rows, so they can't publish to this table. Compute the rows that are referred to, or first delete the rows that"
    " refer to them. DuckDB also deletes a row to change an indexed column of it, or a list, array or map: "
)
_AMBIGUOUS = (
    "the name is that of the database and of a schema, so DuckDB doesn't know what is meant, and nothing was changed."
    " In your own SQL name the database as well, as in nyc.nyc.trips; or rename the file or the schema: "
)
_NO_FOLDER = re.compile("Failed to create directory|Cannot open file .*duckdb_temp|[Tt]emporary directory")


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

    message = refused_statement(error, doing)
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
    lacking = _lacking(error)
    if lacking is not None:
        # A COMMIT may fail after it has written everything, for example while it shortens the file.
        is_commit = doing == "COMMIT"
        live = "Run it again: the ledger shows if it was committed" if is_commit else "The live table is as it was"
        return OutOfResourcesError(f"{lacking[0]}. {live}. {lacking[1]}: {message}")
    return WarehouseError(f"{_explained(error)}{message}")


def _lacking(error: Exception) -> tuple[str, str] | None:
    """Return what DuckDB ran out of, and what to do; None if the error has another cause."""
    import duckdb

    text = str(error)
    if _DISK_FULL.search(text):
        return "there is no room on the disk for the database or for DuckDB's temporary files", _FREE_DISK
    # The folder of temporary files is created when the first of them is written, so no other folder is meant.
    if isinstance(error, duckdb.IOException) and _NO_FOLDER.search(text):
        return "the folder for DuckDB's temporary files can't be created or written to", _SET_FOLDER
    if isinstance(error, duckdb.OutOfMemoryException):
        return "the statement needs more memory than DuckDB may use", _RAISE_LIMIT
    return None


def _explained(error: Exception) -> str:
    """Return what to do about an error whose text doesn't say it, as the beginning of a message."""
    text = str(error)
    if "is still referenced by a foreign key" in text:
        return _REFERENCED
    return _AMBIGUOUS if "Ambiguous reference to catalog or schema" in text else ""


def _can_pass(error: Exception) -> bool:
    # Only an HTTPException has a status_code. Retrying a 404 or a broken file would find the same again.
    status = getattr(error, "status_code", None)
    return bool(_FAULTS_THAT_PASS.search(str(error) if status is None else f"HTTP {status}"))
