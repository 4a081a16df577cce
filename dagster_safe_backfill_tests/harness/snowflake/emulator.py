"""An emulated Snowflake behind a real HTTP server on loopback, reached by the unmodified connector.

In this process (fast; a database of its own for each test)::

    with serve() as emulator:
        database = emulator.database()
        with snowflake.connector.connect(**emulator.connect_arguments(database)) as connection: ...

As a process of its own, which several clients share: `spawn()`, or
`python -m dagster_safe_backfill_tests.harness.snowflake.emulator --port 8910`, which prints `ready http://127.0.0.1:8910`.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import os
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dagster_safe_backfill_tests.harness.snowflake.account import Account
    from dagster_safe_backfill_tests.harness.snowflake.server import Answer

HOST = "127.0.0.1"
_numbers = itertools.count(1)


@dataclass(frozen=True)
class Emulator:
    """An emulator that runs, in this process or in another."""

    port: int
    host: str = HOST
    account: Account | None = field(default=None, repr=False, compare=False)
    """What it serves, if it runs in this process."""
    answer: Answer | None = field(default=None, repr=False, compare=False)
    """How it answers a request, if it runs in this process."""

    def database(self, name: str | None = None) -> str:
        """Create a database, by default under a name that no other test uses, and return the name."""
        name = name or f"TEST_{os.getpid()}_{next(_numbers)}"
        self._ask("database", name=name)
        return name

    def drop(self, database: str) -> None:
        """Drop a database, with the sessions that are in it."""
        self._ask("drop", name=database)

    def connect_arguments(self, database: str, schema: str = "PUBLIC", **others: Any) -> dict[str, Any]:
        """Return the arguments of `snowflake.connector.connect`."""
        return {"user": "tester", "password": "none", "account": "emulated", "database": database, "schema": schema} | {
            **self.additional_connection_arguments(),
            **others,
        }

    def additional_connection_arguments(self) -> dict[str, Any]:
        """Return what `SnowflakeResource(additional_snowflake_connection_args=...)` needs to reach the emulator.

        No `network_timeout`: with one the connector starts a thread for each statement.
        """
        return {
            "host": self.host,
            "port": self.port,
            "protocol": "http",
            "login_timeout": 10,
            "log_imported_packages_in_telemetry": False,
            "session_parameters": {"CLIENT_OUT_OF_BAND_TELEMETRY_ENABLED": False},
        }

    def history(self, database: str | None = None) -> list[dict[str, Any]]:
        """Return all statements so far (of sessions of one database), each with what `account.Record` says of it."""
        return self._ask("history", database=database)

    def ddl_in_transactions(self, database: str | None = None) -> list[str]:
        """Return the DDL that came inside a transaction, and so committed it."""
        return [one["sql"] for one in self.history(database) if one["kind"] == "ddl" and one["in_transaction"]]

    def sessions(self) -> list[dict[str, Any]]:
        """Return the open sessions: number, database, whether in a transaction, the tables they have locked."""
        return self._ask("sessions")

    def end_session(self, number: int) -> None:
        """End a session as the server may: rolled back, locks released; its client hears 390111 at its next one."""
        self._ask("end", session=number)

    def abort_idle_after(self, seconds: float) -> None:
        """Let a transaction that blocks another be aborted once idle for so long (Snowflake: 5 minutes)."""
        self._ask("idle_abort", seconds=seconds)

    def switch(self, **switches: bool) -> None:
        """Set `locks_changes_only` or `is_stale`; see `account.Account`."""
        self._ask("switch", **switches)

    def abort_transaction_of(self, token: str) -> None:
        """Abort what the session of a token has open, as the server may: its client hears nothing of it."""
        self._ask("abort", token=token)

    def _ask(self, command: str, **body: Any) -> Any:
        if self.account is not None:
            return self.account.command(command, body)
        request = urllib.request.Request(
            f"http://{self.host}:{self.port}/emulator/{command}", data=json.dumps(body).encode(), method="POST"
        )
        with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=30) as reply:
            answer = json.load(reply)
        if not answer["success"]:
            raise RuntimeError(answer["message"])
        return answer["data"]


@contextlib.contextmanager
def serve(port: int = 0, *, idle_abort: float = 300, direct: bool = False) -> Iterator[Emulator]:
    """Run an emulator in this process for as long as the context lasts.

    Args:
        port: Where it listens; by default at a free one.
        idle_abort: Seconds after which an idle transaction that blocks is aborted.
        direct: Whether it answers the clients of this process without HTTP.
    """
    from dagster_safe_backfill_tests.harness.snowflake.account import Account
    from dagster_safe_backfill_tests.harness.snowflake.server import listening
    from dagster_safe_backfill_tests.harness.snowflake.service import Service

    account = Account(idle_abort=idle_abort)
    answer = Service(account).answer
    try:
        with listening(answer, port=port) as taken, contextlib.ExitStack() as stack:
            if direct:
                from dagster_safe_backfill_tests.harness.snowflake.direct import answering

                stack.enter_context(answering(answer, port=taken))
            yield Emulator(port=taken, account=account, answer=answer)
    finally:
        account.close()


@contextlib.contextmanager
def spawn(port: int = 0) -> Iterator[Emulator]:
    """Run an emulator in a process of its own, for clients in several processes."""
    module = "dagster_safe_backfill_tests.harness.snowflake.emulator"
    command = [sys.executable, "-m", module, "--port", str(port), "--until-eof"]
    # It ends with this process, however that ends.
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        line = process.stdout.readline()
        if not line.startswith("ready"):
            raise RuntimeError(f"The emulator didn't start: {line!r}")
        try:
            yield Emulator(port=int(line.rsplit(":", 1)[1]))
        finally:
            process.terminate()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument(
        "--idle-abort", type=float, default=300, help="seconds after which an idle transaction that blocks is aborted"
    )
    parser.add_argument("--until-eof", action="store_true", help="end when standard input does")
    given = parser.parse_args()
    with serve(given.port, idle_abort=given.idle_abort) as emulator:
        print(f"ready http://{emulator.host}:{emulator.port}", flush=True)  # noqa: T201
        if given.until_eof:
            sys.stdin.read()
        else:
            threading.Event().wait()


if __name__ == "__main__":
    main()
