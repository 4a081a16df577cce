"""A DuckDB file goes from one process to another, and no commit of either is lost."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any
from unittest import mock

import duckdb
import pytest

from dagster_safe_backfill import WarehouseLockedError
from dagster_safe_backfill.warehouses.duckdb import files
from dagster_safe_backfill.warehouses.duckdb.files import DatabaseFile

pytestmark = pytest.mark.cold
CONNECT = duckdb.connect
OTHER = "import duckdb, sys; c = duckdb.connect(sys.argv[1]); c.execute(sys.argv[2]); c.close()"


def elsewhere(path: Path, sql: str) -> str:
    """Run a statement in another process, and return its error."""
    ended = subprocess.run(
        [sys.executable, "-c", OTHER, path, sql], capture_output=True, text=True, timeout=60, check=False
    )
    return ended.stderr


def opened(path: Path | str, *, read_only: bool = False, **config: Any) -> duckdb.DuckDBPyConnection:
    return DatabaseFile(path=str(path), lock_timeout=5, config=config).open(read_only=read_only)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    with duckdb.connect(str(tmp_path / "w.duckdb")) as connection:
        connection.execute("CREATE TABLE t AS SELECT 1 AS v")
    return tmp_path / "w.duckdb"


@pytest.mark.parametrize("read_only", [False, True])
def test_headers_that_another_process_replaced_are_read_again(path: Path, *, read_only: bool) -> None:
    old = path.with_name("old.duckdb")
    shutil.copy(path, old)
    calls: list[str] = []

    def connect(database: str, **settings: Any) -> duckdb.DuckDBPyConnection:
        calls.append(database)
        if len(calls) > 1:
            return CONNECT(database, **settings)
        # What DuckDB 2.0 does: the headers are those of before the other process's checkpoint, the lock is had after.
        assert elsewhere(path, "UPDATE t SET v = 2") == ""
        return CONNECT(str(old), **settings)

    with mock.patch.object(duckdb, "connect", connect), opened(path, read_only=read_only) as connection:
        assert connection.execute("FROM t").fetchall() == [(2,)]
    assert calls == [str(path)] * 2


def test_a_file_that_nobody_changes_is_opened_once(path: Path) -> None:
    with mock.patch.object(duckdb, "connect", wraps=CONNECT) as connect:
        opened(path).close()
        opened(path, read_only=True).close()
    assert connect.call_count == 2


def test_a_file_whose_headers_change_all_the_time_is_locked(path: Path) -> None:
    def connect(database: str, **settings: Any) -> duckdb.DuckDBPyConnection:
        connection = CONNECT(database, **settings)
        connection.execute("UPDATE t SET v = v + 1; CHECKPOINT")
        return connection

    with (
        mock.patch.object(duckdb, "connect", connect),
        pytest.raises(WarehouseLockedError, match=r"another process.*0\.2 s of lock_timeout"),
    ):
        DatabaseFile(path=str(path), lock_timeout=0.2, config={}).open(read_only=False)


def test_a_look_at_the_headers_does_not_unlock_a_file_that_this_process_has_open(path: Path) -> None:
    with opened(path) as first:
        first.execute("UPDATE t SET v = 2")
        opened(path).close()
        assert "Could not set lock" in elsewhere(path, "UPDATE t SET v = 3")
        first.execute("UPDATE t SET v = v + 2")
    assert elsewhere(path, "UPDATE t SET v = v + 10") == ""
    with opened(path) as last:
        assert last.execute("FROM t").fetchall() == [(14,)]


def test_a_file_that_takes_the_place_of_another_is_looked_at_itself(path: Path) -> None:
    opened(path).close()
    other = path.with_name("other.duckdb")
    with opened(other) as connection:
        connection.execute("CREATE TABLE t AS SELECT 7 AS v")
    other.replace(path)
    with opened(path) as connection:
        assert connection.execute("FROM t").fetchall() == [(7,)]


def test_descriptors_of_files_that_are_gone_are_closed(tmp_path: Path) -> None:
    for number in range(5):
        path = tmp_path / f"{number}.duckdb"
        opened(path).close()
        path.unlink()
    opened(tmp_path / "last.duckdb").close()
    assert [known for known in files._descriptors if str(tmp_path) in known] == [str(tmp_path / "last.duckdb")]


def test_two_processes_create_a_file_at_once(tmp_path: Path) -> None:
    path, link = tmp_path / "w.duckdb", os.link

    def late(made: Path, target: Path) -> None:
        assert elsewhere(path, "CREATE TABLE theirs AS SELECT 1 AS v") == ""
        link(made, target)

    with mock.patch.object(os, "link", late), opened(path) as connection:
        assert connection.execute("FROM theirs").fetchall() == [(1,)]
    assert os.listdir(tmp_path) == ["w.duckdb"]


def test_a_file_is_created_where_there_are_no_links(tmp_path: Path) -> None:
    with mock.patch.object(os, "link", side_effect=PermissionError), opened(tmp_path / "w.duckdb") as connection:
        connection.execute("CREATE TABLE t AS SELECT 1 AS v")
    assert os.listdir(tmp_path) == ["w.duckdb"]


def test_a_file_is_created_with_the_settings(tmp_path: Path) -> None:
    with opened(tmp_path / "w.duckdb", default_block_size="16384") as connection:
        ((size,),) = connection.execute("SELECT block_size FROM pragma_database_size()").fetchall()
    assert size == 16384


def test_what_is_not_a_path_is_left_to_duckdb(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with mock.patch.object(duckdb, "connect") as connect:
        opened("md:sales")
    assert [call.args for call in connect.call_args_list] == [("md:sales",)]
    assert os.listdir(tmp_path) == []
