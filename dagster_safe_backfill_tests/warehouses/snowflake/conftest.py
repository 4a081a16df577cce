"""One emulator for a worker process, and a database of its own for each test."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import pytest

from dagster_safe_backfill_tests.harness.snowflake.emulator import Emulator, serve

if TYPE_CHECKING:
    from snowflake.connector import SnowflakeConnection

    from dagster_safe_backfill_tests.harness.snowflake.proxy import Proxy
    from dagster_safe_backfill_tests.harness.snowflake_backend import SnowflakeBackend

Run = Callable[[str], list[tuple[Any, ...]]]
"""Runs a statement in a session and returns its rows."""


@pytest.fixture(scope="session")
def emulator() -> Iterator[Emulator]:
    pytest.importorskip("fakesnow", reason="fakesnow needs Python 3.11")
    with serve() as running:
        yield running


@pytest.fixture
def account(emulator: Emulator) -> Iterator[SnowflakeBackend]:
    """A database that the library works in."""
    from dagster_safe_backfill_tests.harness.snowflake_backend import SnowflakeBackend

    with SnowflakeBackend.fresh(emulator) as made:
        yield made


@pytest.fixture
def proxy(emulator: Emulator) -> Iterator[Proxy]:
    from dagster_safe_backfill_tests.harness.snowflake.proxy import proxied

    with proxied(emulator) as running:
        yield running


@pytest.fixture
def database(emulator: Emulator) -> Iterator[str]:
    name = emulator.database()
    yield name
    emulator.drop(name)


@pytest.fixture
def connect(emulator: Emulator, database: str) -> Iterator[Callable[..., SnowflakeConnection]]:
    """Open a session in the test's database, closed at its end."""
    import snowflake.connector

    opened: list[SnowflakeConnection] = []

    def open_session(**others: Any) -> SnowflakeConnection:
        opened.append(snowflake.connector.connect(**emulator.connect_arguments(database, **others)))
        return opened[-1]

    yield open_session
    for connection in opened:
        connection.close()


def runner(connection: SnowflakeConnection) -> Run:
    """Return what runs a statement in a session."""
    cursor = connection.cursor()
    return lambda sql: cursor.execute(sql).fetchall()  # type: ignore[union-attr, return-value]


@pytest.fixture
def run(connect: Callable[..., SnowflakeConnection]) -> Run:
    return runner(connect())


@pytest.fixture
def other(connect: Callable[..., SnowflakeConnection]) -> Run:
    """Another session of the same database."""
    return runner(connect())
