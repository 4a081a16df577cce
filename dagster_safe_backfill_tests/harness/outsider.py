"""A process of its own that reads and changes DuckDB files by hand, as somebody else than the library would.

What it reads was committed, and is in the file. It keeps one DuckDB, to which each file is attached for as long as it
takes: to start one takes longer than most of what the tests do with it. Run as a module it is that process.
"""

from __future__ import annotations

import atexit
import pickle
import subprocess
import sys
import threading
from collections.abc import Sequence
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

import duckdb

from dagster_safe_backfill_tests.harness import open_files

Rows = list[tuple[Any, ...]]
Statement = str | tuple[str, Sequence[object]]
"""A statement, or one with its parameters."""


def read(path: str, sql: str) -> Rows:
    """Run a query, in a session of this process if it has the file open itself."""
    if not open_files.has(path):
        with suppress(duckdb.Error):
            return _outsider().run(path, [sql], read_only=True)
    # What is wrong with a query is said here, and what changes something is done here.
    with duckdb.connect(path) as connection:
        return connection.execute(sql).fetchall()


def change(path: str, *statements: Statement) -> None:
    """Run statements on a file that no session has open; make it if it isn't there."""
    if not open_files.is_keeping():
        _outsider().run(path, statements, read_only=False)
        return
    with duckdb.connect(path) as connection:
        _execute(connection, statements)


class _Outsider:
    """The process, for who asks it."""

    def __init__(self) -> None:
        command = [sys.executable, "-m", __name__]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=Path(__file__).parents[2]
        )
        self._turn = threading.Lock()
        atexit.register(self._end)

    def _end(self) -> None:
        # It ends when there is nobody left to ask it.
        self._process.communicate()

    def run(self, path: str, statements: Sequence[Statement], *, read_only: bool) -> Rows:
        """Return the rows of the last statement; what DuckDB raises there is raised here."""
        pipe_in, pipe_out = self._process.stdin, self._process.stdout
        assert pipe_in is not None
        assert pipe_out is not None
        with self._turn:
            pickle.dump((path, statements, read_only), pipe_in)
            pipe_in.flush()
            found = pickle.load(pipe_out)
        if isinstance(found, duckdb.Error):
            raise found
        return found


@cache
def _outsider() -> _Outsider:
    return _Outsider()


def _run(connection: duckdb.DuckDBPyConnection, path: str, statements: Sequence[Statement], read_only: bool) -> Rows:
    name = Path(path).stem
    connection.execute(f"ATTACH '{path}' AS \"{name}\" ({'READ_ONLY' if read_only else 'READ_WRITE'})")
    try:
        connection.execute(f'USE "{name}"')
        _execute(connection, statements)
        return connection.fetchall()
    finally:
        connection.execute(f'USE memory; DETACH "{name}"')


def _execute(connection: duckdb.DuckDBPyConnection, statements: Sequence[Statement]) -> None:
    for statement in statements:
        sql, parameters = (statement, ()) if isinstance(statement, str) else statement
        connection.execute(sql, parameters)


def _serve() -> None:
    with duckdb.connect() as connection, suppress(EOFError):
        while True:
            order = pickle.load(sys.stdin.buffer)
            try:
                found: Rows | duckdb.Error = _run(connection, *order)
            except duckdb.Error as error:
                found = error
            pickle.dump(found, sys.stdout.buffer)
            sys.stdout.flush()


if __name__ == "__main__":
    _serve()
