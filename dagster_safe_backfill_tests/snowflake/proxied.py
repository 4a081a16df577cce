"""The emulator's databases, reached by way of a proxy."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from dagster_safe_backfill import RangeSnowflakeIOManager
from dagster_safe_backfill_tests import snowflake_backend as emulated
from dagster_safe_backfill_tests.snowflake.proxy import PATIENT, Proxy
from dagster_safe_backfill_tests.snowflake.session_ends import sessions_end

SCHEMA = emulated._MAIN
"""What the emulator calls the schema `main`."""


@contextmanager
def proxied() -> Iterator[Proxy]:
    """Yield a proxy in front of the emulator's server."""
    sessions_end()
    with Proxy(emulated._server()["port"]) as proxy:
        yield proxy


def login(proxy: Proxy, database: str) -> dict[str, Any]:
    """Return the connector's arguments for a session with a database by way of a proxy."""
    return {**emulated._server(), "port": proxy.port, "database": database, "schema": SCHEMA, **PATIENT}


class ProxiedBackend(emulated.SnowflakeBackend):
    """A fresh database of the emulator. The library reaches it by way of a proxy; its eyes and hands don't.

    Args:
        client: Further arguments of the connector.
    """

    def __init__(self, proxy: Proxy, *, client: Mapping[str, Any] = PATIENT) -> None:
        super().__init__()
        known = self.io_manager
        self.io_manager = RangeSnowflakeIOManager(
            user=known.user,
            password=known.password,
            account=known.account,
            database=self.database,
            schema=known.schema_,
            lock_timeout=known.lock_timeout,
            additional_snowflake_connection_args={
                **(known.additional_snowflake_connection_args or {}),
                "port": proxy.port,
                **client,
            },
        )

    def close(self) -> None:
        """Remove the database, as each one slows all others down."""
        with emulated.shared_fs.duck_conn.cursor() as cursor:
            cursor.execute(f"DETACH {self.database}")
