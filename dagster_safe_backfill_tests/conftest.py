"""The warehouses that every behaviour is tried on, and eyes of their own to look at them."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from dagster_safe_backfill import RangeDuckDBIOManager, RangeIOManager
from dagster_safe_backfill.warehouses.base import Warehouse
from dagster_safe_backfill_tests import outsider

Read = Callable[[str], list[tuple[Any, ...]]]
"""Runs a query on a connection that shares nothing with the library's, and returns its rows."""


_MEMORY = Path("/dev/shm")
_ENOUGH = 4 * 2**30
"""Bytes; a container has 64 MiB there, if nobody asked for more."""


def pytest_configure() -> None:
    """Keep files in memory where there is room: SQLite waits for a disk all the time, and no test cuts the power."""
    if "TMPDIR" in os.environ or not _MEMORY.is_dir() or shutil.disk_usage(_MEMORY).free < _ENOUGH:
        return
    os.environ["TMPDIR"] = str(_MEMORY)
    # Python looks for the folder but once.
    tempfile.tempdir = None


class DuckDBBackend:
    """A fresh DuckDB file."""

    def __init__(self, folder: Path) -> None:
        self.path = str(folder / "warehouse.duckdb")
        self.io_manager = RangeDuckDBIOManager(database=self.path, schema="main", lock_timeout=5)

    def read(self, sql: str) -> list[tuple[Any, ...]]:
        return outsider.read(self.path, sql)


@pytest.fixture(params=[DuckDBBackend])
def backend(request: pytest.FixtureRequest, tmp_path: Path) -> DuckDBBackend:
    return request.param(tmp_path)


@pytest.fixture
def io_manager(backend: DuckDBBackend) -> RangeIOManager:
    return backend.io_manager


@pytest.fixture
def warehouse(io_manager: RangeIOManager) -> Warehouse:
    return io_manager.warehouse()


@pytest.fixture
def read(backend: DuckDBBackend) -> Read:
    return backend.read


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral() as instance:
        yield instance
