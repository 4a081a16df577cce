"""A proxy between the connector and the emulator that refuses statements, loses replies, or ends sessions.

    with proxied(emulator) as proxy:
        proxy.fail(when=r"^MERGE", how="lose reply")
        connection = snowflake.connector.connect(**proxy.connect_arguments(database))

The connector retries a refused request and a lost reply by itself, with the same request id, and the server doesn't run
that twice. So a single fault is one that the connector gets over; `times=FOREVER` is one that the client hears of, as
an OperationalError once its `network_timeout` is over: whole seconds, after which the connector also has the statement
cancelled. A client with `not_again` as its `backoff_policy` hears of it at once.
"""

from __future__ import annotations

import contextlib
import gzip
import http.client
import json
import re
import socket
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, ClassVar, Literal
from urllib.parse import parse_qs, urlsplit

from snowflake.connector.errorcode import ER_FAILED_TO_REQUEST
from snowflake.connector.errors import Error, OperationalError
from snowflake.connector.network import RetryRequest

from dagster_safe_backfill_tests.harness.snowflake.emulator import HOST, Emulator
from dagster_safe_backfill_tests.harness.snowflake.server import encoded, requested

How = Literal["refuse", "lose reply", "end session", "cut off", "abort"]
"""Refuse: 503 before the server hears of it. Lose reply: it runs, the client never hears. End session: before it.
Cut off: it doesn't run, and from it on no request of anybody gets through, until it is healed.
Abort: before it, the server aborts the session's transaction, and doesn't tell."""

FOREVER = 1_000_000
_Reply = tuple[int, bytes, str]
_QUERY = "/queries/v1/query-request"


@dataclass
class _Fault:
    """Which statement goes wrong, how, and how often: it and the retries of it."""

    how: How
    when: re.Pattern[str] | int
    left: int
    request_id: str | None = None
    """The statement that it has hit."""

    def hits(self, passed: Passed) -> bool:
        if not self.left or self.request_id not in {None, passed.request_id}:
            return False
        return passed.number == self.when if isinstance(self.when, int) else bool(self.when.search(passed.sql))


@dataclass
class Passed:
    """One statement that a client sent; its retries are counted, not listed."""

    number: int
    sql: str
    session: str
    request_id: str
    sent: int = 0
    """Bytes from the client."""
    received: int = 0
    """Bytes to the client."""
    attempts: int = 0
    faults: list[str] = field(default_factory=list)


def quick_backoff() -> Iterator[float]:
    """Retry almost at once: the connector's own policy waits for seconds."""
    while True:
        yield 0.05


def not_again() -> Iterator[int]:
    """Don't retry: raise what the connector raises once its time is over."""
    yield 0
    failure = sys.exc_info()[1]
    cause = failure.args[0] if isinstance(failure, RetryRequest) else failure
    if isinstance(cause, Error):
        # As `Error.errorhandler_wrapper_from_cause` does; some classes change the number each time that they are made.
        raise type(cause)(msg=cause.msg, errno=cause.errno, sqlstate=cause.sqlstate, done_format_msg=True)
    raise OperationalError(msg=f"Failed to execute request: {cause}", errno=ER_FAILED_TO_REQUEST)


class Proxy:
    """What goes through, and what is to go wrong."""

    def __init__(self, emulator: Emulator) -> None:
        self.emulator = emulator
        self.port = 0
        self.statements: list[Passed] = []
        self.uploaded = 0
        """Bytes of files by PUT."""
        self.is_cut_off = False
        self._faults: list[_Fault] = []
        self._lock = threading.Lock()

    def fail(self, *, when: str | int, how: How, times: int = 1) -> None:
        """Let the next statement that matches go wrong, `times` attempts of it.

        `when` is a pattern of its text, or its ordinal among all that came through the proxy, from 1.
        """
        pattern = re.compile(when, re.IGNORECASE | re.DOTALL) if isinstance(when, str) else when
        self._faults.append(_Fault(how=how, when=pattern, left=times))

    def heal(self) -> None:
        """Let nothing go wrong any more."""
        self._faults.clear()
        self.is_cut_off = False

    def connect_arguments(self, database: str, schema: str = "PUBLIC", **others: Any) -> dict[str, Any]:
        """Return the arguments of `snowflake.connector.connect` through the proxy, with short patience."""
        reached = replace(self.emulator, port=self.port)
        return {
            **reached.connect_arguments(database, schema),
            "network_timeout": 1,
            "backoff_policy": quick_backoff,
        } | others

    def additional_connection_arguments(self) -> dict[str, Any]:
        """Return the same for `SnowflakeResource(additional_snowflake_connection_args=...)`."""
        reached = replace(self.emulator, port=self.port).additional_connection_arguments()
        return {**reached, "network_timeout": 1, "backoff_policy": quick_backoff}

    def bytes_to_client(self, pattern: str = "") -> int:
        return sum(one.received for one in self.statements if re.search(pattern, one.sql, re.IGNORECASE))

    def forget(self) -> None:
        """Begin to count and to list anew."""
        with self._lock:
            self.statements.clear()
            self.uploaded = 0

    # --- what the handler asks

    def passes(self, sql: str, session: str, request_id: str, size: int) -> Passed:
        with self._lock:
            known = next((one for one in self.statements if one.request_id == request_id), None)
            if known is None:
                known = Passed(len(self.statements) + 1, sql, session, request_id)
                self.statements.append(known)
            known.attempts += 1
            known.sent += size
            return known

    def fault(self, passed: Passed) -> How | None:
        """Return what goes wrong with this attempt; a fault is for one statement, the first that it hits."""
        with self._lock:
            for fault in self._faults:
                if fault.hits(passed):
                    fault.left -= 1
                    fault.request_id = passed.request_id
                    passed.faults.append(fault.how)
                    return fault.how
        return None


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    # Else an answer's body waits until its head was acknowledged, for up to 40 ms.
    disable_nagle_algorithm = True
    proxy: ClassVar[Proxy]

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        path = urlsplit(self.path)
        if self.proxy.is_cut_off:
            self._hang_up()
            return
        if path.path != _QUERY:
            self._answer(self._forward(body))
            return
        asked = json.loads(gzip.decompress(body) if self.headers.get("Content-Encoding") == "gzip" else body)
        request_id = parse_qs(path.query).get("requestId", [""])[0]
        session = self.headers.get("Authorization", "")
        passed = self.proxy.passes(asked.get("sqlText", ""), session, request_id, len(body))
        fault = self.proxy.fault(passed)
        if fault == "refuse":
            self._answer((503, b"{}", "application/json"))
            return
        if fault == "cut off":
            self.proxy.is_cut_off = True
            self._hang_up()
            return
        if fault == "abort":
            self.proxy.emulator.abort_transaction_of(session.removeprefix('Snowflake Token="').removesuffix('"'))
        if fault == "end session":
            self._end_session()
        reply = self._forward(body)
        if fault == "lose reply" or reply is None:
            self._hang_up()
            return
        passed.received += len(reply[1])
        self._answer(reply)

    def do_PUT(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.proxy.uploaded += len(body)
        self._answer(self._forward(body))

    do_GET = do_POST  # noqa: N815 - http.server's name

    def _forward(self, body: bytes) -> _Reply | None:
        """Return the emulator's reply; None if there is none any more."""
        # The Host header stays the proxy's, so that files are uploaded through it as well.
        headers = {name: value for name, value in self.headers.items() if name.lower() != "accept-encoding"}
        return self._asked(self.command, self.path, headers, body)

    def _asked(self, method: str, path: str, headers: dict[str, str], body: bytes = b"") -> _Reply | None:
        emulator = self.proxy.emulator
        if emulator.answer is not None:
            # A socket to the same process would say the same.
            url = f"http://{headers.get('Host', '')}{path}"
            status, reply = emulator.answer(requested(method, url, headers, body))
            return status, encoded(reply), "application/json"
        connection = http.client.HTTPConnection(emulator.host, emulator.port, timeout=600)
        try:
            connection.request(method, path, body=body, headers=headers)
            answered = connection.getresponse()
            return answered.status, answered.read(), answered.headers.get("Content-Type", "application/json")
        except OSError:
            return None
        finally:
            connection.close()

    def _answer(self, reply: _Reply | None) -> None:
        if reply is None:
            self._hang_up()
            return
        status, body, kind = reply
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _hang_up(self) -> None:
        with contextlib.suppress(OSError):
            self.connection.shutdown(socket.SHUT_RDWR)
        self.close_connection = True

    def _end_session(self) -> None:
        self._asked("POST", "/session?delete=true", {"Authorization": self.headers["Authorization"]})

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - http.server's name
        """Say nothing."""


@contextlib.contextmanager
def proxied(emulator: Emulator) -> Iterator[Proxy]:
    """Run a proxy before an emulator, in this process."""
    proxy = Proxy(emulator)
    handler = type("_Handler", (_Handler,), {"proxy": proxy})
    server = ThreadingHTTPServer((HOST, 0), handler)
    server.daemon_threads = True
    proxy.port = server.server_address[1]
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield proxy
    finally:
        server.shutdown()
        server.server_close()
        thread.join(timeout=5)
