"""Opening a DuckDB file that other processes open and close at the same time.

DuckDB 2.0.0 reads the headers of a file first, and takes the file's lock after that. A checkpoint of another process in
between makes the session begin from headers that are no longer current, and the next checkpoint undoes what that
process committed. `strace` shows the order of the calls: `docs/publishing.md` has it.
"""

from __future__ import annotations

import contextlib
import os
import re
import threading
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dagster_safe_backfill.errors import TableNotFoundError, WarehouseLockedError
from dagster_safe_backfill.redaction import without_secrets
from dagster_safe_backfill.warehouses.backoff import Backoff
from dagster_safe_backfill.warehouses.duckdb.errors import is_lock, is_own_lock, translated

if TYPE_CHECKING:
    import duckdb

_HEADERS = 3 * 4096
"""Bytes: one main header, and two of which each checkpoint replaces the older.

Source: https://duckdb.org/docs/stable/internals/storage
"""

_ADDRESS = re.compile(r"\w{2,}:")
"""The beginning of what isn't a path, such as `md:` of MotherDuck. One letter is a drive of Windows."""


@dataclass(frozen=True, slots=True)
class DatabaseFile:
    """A DuckDB file, which only one process at a time can write.

    Args:
        path: The file's path, or another address that DuckDB can open.
        lock_timeout: Seconds to wait for a file that another process holds.
        config: DuckDB's settings.
    """

    path: str
    lock_timeout: float
    config: Mapping[str, Any]

    def open(self, *, read_only: bool) -> duckdb.DuckDBPyConnection:
        """Open the file as it was left by the last process that had it open.

        Raises:
            TableNotFoundError: It is opened for reading, and there is no such file.
            WarehouseLockedError: Another process held it for all of `lock_timeout`.
        """
        import duckdb

        backoff = Backoff(self.lock_timeout)
        locked: Exception | None = None
        while True:
            try:
                opened = self._open_current(read_only=read_only)
            except duckdb.Error as error:
                if not is_lock(error):
                    raise translated(error, "opening the database") from error
                locked = error
            else:
                if opened is not None:
                    return opened
            if not backoff.sleep():
                raise self._locked(locked) from locked

    def _open_current(self, *, read_only: bool) -> duckdb.DuckDBPyConnection | None:
        """Open the file, or return None if its headers may have been replaced after DuckDB had read them."""
        if not read_only:
            self._ensure_exists()
        before = _headers(self.path)
        opened = self._open_once(read_only=read_only)
        # From here on, no other process can write: the headers that DuckDB read are current if they are the same now.
        if before == _headers(self.path):
            return opened
        # Nothing was changed, so this writes nothing.
        opened.close()
        return None

    def _open_once(self, *, read_only: bool) -> duckdb.DuckDBPyConnection:
        import duckdb

        try:
            return duckdb.connect(self.path, read_only=read_only, config=dict(self.config))
        except duckdb.ConnectionException:
            # A process can open a file only in one mode. A reader joins a writer, and its transactions are read-only
            # by their BEGIN. A writer has to wait until this process has closed its readers.
            if not read_only:
                raise
            return duckdb.connect(self.path, read_only=False, config=dict(self.config))
        except duckdb.IOException as error:
            if read_only and "does not exist" in str(error):
                raise TableNotFoundError(
                    f"there is no database at {without_secrets(self.path)}, so nothing can be read. Materialize an"
                    " asset first."
                ) from error
            raise

    def _ensure_exists(self) -> None:
        """Create the file in one step, so that no other process opens half of it, or creates it again over this one.

        A process that is killed here may leave an empty database beside it, whose name ends in `.new`.
        """
        import duckdb

        path = Path(self.path)
        if _ADDRESS.match(self.path) or path.exists() or not path.parent.is_dir():
            return
        # Without a dot in its stem: DuckDB takes the database's name from it.
        made = path.with_name(f"{path.stem}_{uuid.uuid4().hex}.new")
        try:
            duckdb.connect(str(made), config=dict(self.config)).close()
            # Unlike a rename, a link doesn't replace a file that exists.
            os.link(made, path)
        except FileExistsError:
            pass
        except (OSError, duckdb.Error):
            # A file system without links, or a folder that can't be written: DuckDB creates the file, or says why not.
            return
        finally:
            made.unlink(missing_ok=True)

    def _locked(self, error: Exception | None) -> WarehouseLockedError:
        found = re.search(r"\(PID (\d+)\)", str(error))
        pid = int(found.group(1)) if found else None
        is_own = error is not None and is_own_lock(error)
        holder = "this process, in another session" if is_own else "another process"
        database = without_secrets(self.path)
        return WarehouseLockedError(
            f"{database} is locked by {f'the process with PID {pid}' if pid else holder}, and was locked for all"
            f" {self.lock_timeout:g} s of lock_timeout. End or close what holds it, or raise lock_timeout.",
            database=database,
            pid=pid,
        )


_descriptors: dict[str, int] = {}
_using_descriptors = threading.Lock()


def _headers(path: str) -> bytes | None:
    """Return the headers of a file, or None if they can't be read, as of an address that isn't a file."""
    if os.name != "posix":
        # Windows lets nobody read a file that another process has open for writing, so DuckDB can't read it too early.
        return None
    with _using_descriptors, contextlib.suppress(OSError):
        return os.pread(_descriptor(path), _HEADERS, 0)
    return None


def _descriptor(path: str) -> int:
    """Return a descriptor of the file that is there now. It stays open while the file exists.

    To close any descriptor of a file releases all locks that the process has on it (POSIX, `fcntl`), also DuckDB's.
    """
    for known, descriptor in list(_descriptors.items()):
        if os.fstat(descriptor).st_nlink == 0:
            os.close(_descriptors.pop(known))
    known = _descriptors.get(path)
    if known is not None and os.path.samestat(os.fstat(known), os.stat(path)):
        return known
    # One of a file that was moved away stays open, too: DuckDB may still have that one open.
    _descriptors[path] = os.open(path, os.O_RDONLY)
    return _descriptors[path]
