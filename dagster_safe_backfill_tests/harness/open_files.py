"""DuckDB files that stay open between a test's sessions.

To open a file, and to look at its catalog for the first time, takes DuckDB 2.0 some 25 ms of a processor, longer than
most of what a session does there. The sessions of one process share an open file, so the next one begins in 0.1 ms.
With `--cold`, no file is kept open, as in a user's process.
"""

from __future__ import annotations

import functools
import multiprocessing.process
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import duckdb

from dagster_safe_backfill.warehouses.duckdb.files import DatabaseFile


class _Files:
    """The files of one test that are kept open."""

    def __init__(self) -> None:
        self._connect = duckdb.connect
        self._open: dict[str, duckdb.DuckDBPyConnection] = {}
        self.is_alone = True

    def connect(self, database: Any = ":memory:", *arguments: Any, **settings: Any) -> duckdb.DuckDBPyConnection:
        path = str(database)
        is_reader = settings.get("read_only", False)
        try:
            connection = self._connect(database, *arguments, **settings)
        except duckdb.ConnectionException:
            # A reader joins the writer of its process. A writer may have other settings.
            if is_reader or path not in self._open:
                raise
            self._open.pop(path).close()
            connection = self._connect(database, *arguments, **settings)
        if self.is_alone and not is_reader and not path.startswith(":memory:") and path not in self._open:
            # Not a cursor of that connection, which is closed with it.
            self._open[path] = self._connect(database, *arguments, **settings)
        return connection

    def has(self, path: str) -> bool:
        return path in self._open

    def close(self) -> None:
        while self._open:
            self._open.popitem()[1].close()

    def before(self, begin: Callable[..., None]) -> Callable[..., None]:
        """Return what begins a process, which finds the files closed."""

        def begun(*arguments: Any, **settings: Any) -> None:
            self.is_alone = False
            self.close()
            begin(*arguments, **settings)

        return begun


@functools.cache
def _empty() -> Path:
    """Return a database without tables, by the settings of nobody."""
    path = Path(tempfile.mkdtemp(), "empty.duckdb")
    duckdb.connect(str(path)).close()
    return path


def _ensure_exists(file: DatabaseFile) -> None:
    """Create a file by copying an empty one, in a hundredth of the time that DuckDB takes."""
    path = Path(file.path)
    if not file.config and path.parent.is_dir() and not path.exists():
        shutil.copy(_empty(), path)


_files: list[_Files] = []


def has(path: str) -> bool:
    """Return True if the file is kept open."""
    return any(files.has(path) for files in _files)


def is_keeping() -> bool:
    """Return True if a file that is opened now will be kept open."""
    return any(files.is_alone for files in _files)


@contextmanager
def kept_open() -> Generator[None, None, None]:
    """Keep files open until the block ends, or a process is begun in it: DuckDB lets one process open a file."""
    files = _Files()
    process = multiprocessing.process.BaseProcess
    _files.append(files)
    _empty()
    with (
        mock.patch.object(DatabaseFile, "_ensure_exists", _ensure_exists),
        mock.patch.object(duckdb, "connect", files.connect),
        mock.patch.object(subprocess.Popen, "__init__", files.before(subprocess.Popen.__init__)),
        mock.patch.object(process, "start", files.before(process.start)),
    ):
        try:
            yield
        finally:
            _files.remove(files)
            files.close()
