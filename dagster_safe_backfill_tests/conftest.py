"""The warehouses that every behaviour is tried on, eyes of their own to look at them, and how a session is run."""

from __future__ import annotations

import gc
import mimetypes
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from dagster_safe_backfill import RangeIOManager
from dagster_safe_backfill.warehouses.base import Warehouse
from dagster_safe_backfill_tests.harness import instances, open_files
from dagster_safe_backfill_tests.harness.backends import Backend, DuckDBBackend
from dagster_safe_backfill_tests.harness.snowflake import shapes
from dagster_safe_backfill_tests.quick import has_quick_tests, is_quick

Read = Callable[[str], list[tuple[Any, ...]]]
"""Runs a query on a connection that shares nothing with the library's, and returns its rows."""

_LONGEST = (
    "e2e",
    "daemon",
    "test_publication_model",
    "faults",
    "test_races",
    "test_properties",
    "test_demo",
    "example",
)
_WITH_PROCESSES = ("daemon", "e2e", "faults")
"""Folders of tests that work on a file with other processes."""
_MEMORY = Path("/dev/shm")
_ENOUGH = 4 * 2**30
"""Bytes; a container has 64 MiB there, if nobody asked for more."""


def pytest_configure() -> None:
    """Keep files in memory where there is room: SQLite waits for a disk all the time, and no test cuts the power."""
    # Else the Snowflake connector looks at each login, by HTTP, for the cloud that it may be in.
    os.environ["SNOWFLAKE_DISABLE_PLATFORM_DETECTION"] = "true"
    # Else it asks for each request what proxies there are.
    os.environ.setdefault("NO_PROXY", "127.0.0.1,localhost")
    # Else it looks for them in all folders of Python's path at each statement, and for types of files at each upload.
    sys.modules.setdefault("opentelemetry", None)  # pyright: ignore[reportArgumentType]
    mimetypes.knownfiles.clear()
    if "TMPDIR" in os.environ or not _MEMORY.is_dir() or shutil.disk_usage(_MEMORY).free < _ENOUGH:
        return
    os.environ["TMPDIR"] = str(_MEMORY)
    # Python looks for the folder but once.
    tempfile.tempdir = None


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--quick", action="store_true", help="run what most mistakes break, in under 90 seconds")
    parser.addoption("--cold", action="store_true", help="open a DuckDB file anew for each session, as users do")


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Import no file of which nothing is run."""
    return True if config.getoption("--quick") and not has_quick_tests(collection_path) else None


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Begin with what takes long, so that at the end no process runs the last of it while the other waits."""
    if config.getoption("--quick"):
        config.hook.pytest_deselected(items=[item for item in items if not _is_quick(item)])
        items[:] = [item for item in items if _is_quick(item)]
    places = {name: place for place, name in enumerate(_LONGEST)}

    def place(item: pytest.Item) -> int:
        return min(places.get(name, len(places)) for name in (item.path.stem, item.path.parent.name))

    items.sort(key=place)


def _is_quick(item: pytest.Item) -> bool:
    assert isinstance(item, pytest.Function)
    warehouse = item.callspec.params.get("backend") if hasattr(item, "callspec") else None
    return is_quick(item.path, item.originalname, item.fixturenames, warehouse)


def pytest_collection_finish() -> None:
    """Spare all that was imported every later garbage collection, a tenth of the time of what runs SQL."""
    gc.collect()
    gc.freeze()
    # Statements are trees whose nodes know their parents, and many: by default a twentieth of the time again.
    gc.set_threshold(20_000, 20, 50)


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Of a run of all tests, tell the golden rows that nobody sent; some are sent only in a race, or if drawn."""
    config = session.config
    if hasattr(config, "workeroutput"):
        config.workeroutput["shapes"] = sorted(shapes.SEEN)
    elif _is_whole(config) and (dead := shapes.dead()):
        print(f"\nNobody sent these rows of {shapes.GOLDEN.name}:", *dead, sep="\n\n")  # noqa: T201


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """Gather what the processes of pytest-xdist saw."""
    shapes.SEEN.update(getattr(node, "workeroutput", {}).get("shapes", ()))


def _is_whole(config: pytest.Config) -> bool:
    """Return whether all tests are run, those on Snowflake too."""
    is_part = config.getoption("--quick") or config.option.keyword or config.option.markexpr
    places = [Path(argument).resolve() for argument in config.args]
    return bool(shapes.SEEN) and not is_part and places == [Path(__file__).parent]


def pytest_unconfigure() -> None:
    # What isn't collected at the end, DuckDB calls a leak.
    gc.unfreeze()


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Try what is marked so on every warehouse, the rest on DuckDB."""
    if "backend" not in metafunc.fixturenames:
        return
    is_everywhere = metafunc.definition.get_closest_marker("every_warehouse") is not None
    names = ["duckdb", "snowflake"] if is_everywhere else ["duckdb"]
    metafunc.parametrize("backend", names, indirect=True)


@pytest.fixture
def backend(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Backend]:
    """Return a fresh warehouse. What the marks `only` and `differs` say of it is said with the reason."""
    name: str = request.param
    only = request.node.get_closest_marker("only")
    if only is not None and only.args[0] != name:
        pytest.skip(only.kwargs["reason"])
    for mark in request.node.iter_markers("differs"):
        if mark.args[0] == name:
            request.applymarker(pytest.mark.xfail(strict=True, reason=mark.kwargs["reason"]))
    if name == "duckdb":
        yield DuckDBBackend(tmp_path)
        return
    emulator = request.getfixturevalue("snowflake_emulator")
    from dagster_safe_backfill_tests.harness.snowflake_backend import SnowflakeBackend

    with SnowflakeBackend.fresh(emulator) as made:
        yield made


@pytest.fixture(scope="session")
def snowflake_emulator() -> Iterator[Any]:
    """Run an emulated Snowflake, one for each process of the tests."""
    pytest.importorskip("fakesnow", reason="fakesnow needs Python 3.11")
    # Imported by the first session.
    import dagster_snowflake  # noqa: F401

    from dagster_safe_backfill_tests.harness.snowflake.emulator import serve

    with serve(direct=True) as emulator:
        gc.freeze()
        yield emulator


@pytest.fixture
def io_manager(backend: Backend) -> RangeIOManager:
    return backend.io_manager


@pytest.fixture
def warehouse(io_manager: RangeIOManager) -> Warehouse:
    return io_manager.warehouse()


@pytest.fixture
def read(backend: Backend) -> Read:
    return backend.read


@pytest.fixture(scope="session", autouse=True)
def _shared_instances(request: pytest.FixtureRequest) -> Iterator[None]:
    if request.config.getoption("--cold"):
        yield
        return
    with instances.shared():
        yield


@pytest.fixture(autouse=True)
def _open_files(request: pytest.FixtureRequest) -> Iterator[None]:
    is_cold = request.node.get_closest_marker("cold") is not None or request.path.parent.name in _WITH_PROCESSES
    if is_cold or request.config.getoption("--cold"):
        yield
        return
    with open_files.kept_open():
        yield


@pytest.fixture(autouse=True)
def _shapes(request: pytest.FixtureRequest) -> Iterator[None]:
    """Let a test fail that sends Snowflake what no golden row is like."""
    yield
    # What Hypothesis draws is another SQL in each run.
    shapes.check_sent(is_drawn=hasattr(request.function, "hypothesis"))


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral() as instance:
        yield instance
