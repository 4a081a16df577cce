"""A proxy on loopback in front of the emulator's server: it writes down the statements, and fails those it is told to.

How long the unmodified connector waits for an answer that doesn't come is set by its own arguments:

- `network_timeout` (whole seconds; forever, if unset) bounds the retries of one request. When it is over the connector
  also has the statement cancelled, by a timer that each statement starts; so 0 isn't for giving up at once.
- `backoff_policy` returns the seconds between the tries, which are cut to whole ones (1, 2, 4... by default). It is
  asked after each try that failed. `PATIENT` waits for nothing; `IMPATIENT` raises then what the connector would raise
  when its time is over.
- `login_timeout` bounds the logins likewise; `socket_timeout` doesn't matter, as no answer is late.
- `platform_detection_timeout_seconds` is waited for in vain at the first login where a cloud's addresses can't be
  reached; 0 leaves that out.
"""

from __future__ import annotations

import gzip
import http.client
import itertools
import json
import re
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Literal, assert_never
from urllib.parse import parse_qs, urlsplit

from snowflake.connector.errorcode import ER_FAILED_TO_REQUEST
from snowflake.connector.errors import Error, OperationalError
from snowflake.connector.network import RetryRequest
from typing_extensions import Self

Kind = Literal["refused", "reply lost", "session lost", "cut off"]
"""What can befall a statement.

- refused: HTTP's 503, and it isn't run.
- reply lost: It is run, and the client's connection is closed without an answer.
- session lost: Its session ends right before it, which rolls the transaction back.
- cut off: It isn't run, and from it on no request of anybody gets through, until it is healed.
"""

SESSION_GONE = 390111
_QUERY = "/queries/v1/query-request"
_HOP_BY_HOP = ("connection", "content-length", "date", "server", "transfer-encoding")


def at_once() -> Iterator[int]:
    """A backoff policy of the connector: no waiting between tries."""
    return itertools.repeat(0)


def not_again() -> Iterator[int]:
    """A backoff policy of the connector: what failed isn't tried again."""
    yield 0
    failure = sys.exc_info()[1]
    cause = failure.args[0] if isinstance(failure, RetryRequest) else failure
    if isinstance(cause, Error):
        # As `Error.errorhandler_wrapper_from_cause` does; some classes change the number each time that they are made.
        raise type(cause)(msg=cause.msg, errno=cause.errno, sqlstate=cause.sqlstate, done_format_msg=True)
    raise OperationalError(msg=f"Failed to execute request: {cause}", errno=ER_FAILED_TO_REQUEST)


_CLIENT: Mapping[str, Any] = {"platform_detection_timeout_seconds": 0}
PATIENT: Mapping[str, Any] = {**_CLIENT, "network_timeout": 30, "backoff_policy": at_once}
IMPATIENT: Mapping[str, Any] = {**_CLIENT, "backoff_policy": not_again}
"""The connector's arguments for a client that tries again at once, and for one that doesn't try again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """What happens to the statements that it is for.

    Attributes:
        number: Only the statement with this number.
        pattern: Only statements whose text has this somewhere.
        times: How many tries of each it befalls, a client's retry being one more; all, if None.
    """

    kind: Kind
    number: int | None = None
    pattern: str = ""
    times: int | None = 1

    def is_for(self, statement: Statement) -> bool:
        """Return whether it befalls the newest try of a statement."""
        if self.number not in (None, statement.number) or (self.times is not None and statement.tries > self.times):
            return False
        return re.search(self.pattern, statement.sql) is not None


@dataclass(slots=True, kw_only=True)
class Statement:
    """A statement that a client sent, with all its retries, which have the same request id.

    Attributes:
        number: Its place among all, from 0.
        session: The number of its session, from 0, in the order in which they were first seen.
        is_described: Whether it is only to be compiled.
        tries: How often it was sent.
        runs: How often it was passed on to the server: once at most.
        bytes_up: Bytes of its requests' bodies.
        bytes_down: Bytes of its answers' bodies.
        error: The number of the server's error, if it ran into one.
        fault: What befell it, if anything did.
    """

    number: int
    session: int
    request_id: str
    sql: str
    is_described: bool = False
    tries: int = 0
    runs: int = 0
    bytes_up: int = 0
    bytes_down: int = 0
    error: int | None = None
    fault: Kind | None = None
    _answer: Answer | None = None
    _lock: threading.Lock = field(default_factory=threading.Lock)


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """An answer of the server, or one in its place."""

    status: int
    headers: tuple[tuple[str, str], ...]
    body: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """A request of a client."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes

    @property
    def is_statement(self) -> bool:
        """Whether it carries a statement."""
        return urlsplit(self.path).path == _QUERY

    @property
    def token(self) -> str | None:
        """The session's token, as it is sent."""
        return self.headers.get("Authorization")

    @property
    def request_id(self) -> str:
        """The id that a retry has too."""
        return parse_qs(urlsplit(self.path).query)["requestId"][0]

    @property
    def content(self) -> Any:
        """The body."""
        is_zipped = self.headers.get("Content-Encoding") == "gzip"
        return json.loads(gzip.decompress(self.body) if is_zipped else self.body)


class Proxy:
    """Passes all on to a server, from when it is entered until it is left; for any number of clients at a time.

    A retry of a statement that was run gets the first one's answer, as Snowflake gives it by the request's id.

    Args:
        port: The server's, on 127.0.0.1.

    Attributes:
        statements: What was sent, in order.
        bytes_up: Bytes of all requests' bodies, those of files included.
        bytes_down: Bytes of all answers' bodies.
    """

    def __init__(self, port: int) -> None:
        self._server_port = port
        self._lock = threading.Lock()
        self._http = _Server(("127.0.0.1", 0), _Handler)
        self._http.proxy = self
        self._sessions: dict[str | None, int] = {}
        self._gone: set[str | None] = set()
        self.forget()

    @property
    def port(self) -> int:
        """Where it listens, on 127.0.0.1."""
        return self._http.server_address[1]

    def __enter__(self) -> Self:
        threading.Thread(target=self._http.serve_forever, args=(0.05,), name="proxy", daemon=True).start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._http.shutdown()
        self._http.server_close()

    def forget(self) -> None:
        """Begin anew: no statements, no faults. Sessions that are gone stay so."""
        with self._lock:
            self.statements: list[Statement] = []
            self.bytes_up = self.bytes_down = 0
            self._known: dict[str, Statement] = {}
            self._faults: list[Fault] = []
            self._is_cut_off = False

    def fail(self, fault: Fault) -> None:
        """Let a fault happen from now on."""
        with self._lock:
            self._faults.append(fault)

    def heal(self) -> None:
        """Let none of the faults happen any more."""
        with self._lock:
            self._faults = []
            self._is_cut_off = False

    @contextmanager
    def failing(self, fault: Fault) -> Iterator[None]:
        """Let a fault happen within the block."""
        self.fail(fault)
        try:
            yield
        finally:
            self.heal()

    def answered(self, request: Request) -> Answer | None:
        """Return what the client is to get; None to close its connection."""
        if self._is_cut_off:
            return None
        answer = self._statement(request) if request.is_statement else self._other(request)
        with self._lock:
            self.bytes_up += len(request.body)
            self.bytes_down += len(answer.body) if answer is not None else 0
        return answer

    def _other(self, request: Request) -> Answer:
        return _gone() if request.token in self._gone else self._passed_on(request)

    def _statement(self, request: Request) -> Answer | None:
        with self._lock:
            statement = self._noted(request)
            fault = self._fault(statement)
        if request.token in self._gone:
            return _gone()
        answer = self._failed(request, statement, fault) if fault is not None else self._run(request, statement)
        if answer is not None:
            statement.bytes_down += len(answer.body)
        return answer

    def _noted(self, request: Request) -> Statement:
        statement = self._known.get(request.request_id)
        if statement is None:
            content = request.content
            statement = self._known[request.request_id] = Statement(
                number=len(self.statements),
                session=self._sessions.setdefault(request.token, len(self._sessions)),
                request_id=request.request_id,
                sql=content["sqlText"],
                is_described=bool(content.get("describeOnly")),
            )
            self.statements.append(statement)
        statement.tries += 1
        statement.bytes_up += len(request.body)
        return statement

    def _fault(self, statement: Statement) -> Kind | None:
        for fault in self._faults:
            if fault.is_for(statement):
                statement.fault = fault.kind
                return fault.kind
        return None

    def _failed(self, request: Request, statement: Statement, kind: Kind) -> Answer | None:
        match kind:
            case "refused":
                return Answer(status=503, headers=(), body=b"")
            case "reply lost":
                self._run(request, statement)
                return None
            case "session lost":
                self._end(request.token)
                return _gone()
            case "cut off":
                self._is_cut_off = True
                return None
            case _:
                assert_never(kind)

    def _run(self, request: Request, statement: Statement) -> Answer:
        with statement._lock:
            if statement._answer is None:
                statement.runs += 1
                statement._answer = answer = self._passed_on(request)
                statement.error = _error(answer)
            return statement._answer

    def end_sessions(self) -> None:
        """End all sessions that ran a statement, as Snowflake does with those whose clients are gone."""
        for token in set(self._sessions) - self._gone:
            self._end(token)

    def _end(self, token: str | None) -> None:
        """End a session as its client would do; it can't be used any more."""
        with self._lock:
            self._gone.add(token)
        headers = {"Authorization": token or "", "Content-Type": "application/json"}
        self._passed_on(Request(method="POST", path="/session?delete=true", headers=headers, body=b"{}"))

    def _passed_on(self, request: Request) -> Answer:
        connection = http.client.HTTPConnection("127.0.0.1", self._server_port)
        try:
            connection.request(request.method, request.path, request.body, dict(request.headers))
            response = connection.getresponse()
            kept = tuple(one for one in response.getheaders() if one[0].lower() not in _HOP_BY_HOP)
            return Answer(status=response.status, headers=kept, body=response.read())
        finally:
            connection.close()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 64
    proxy: Proxy


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    # Else an answer's body waits for its headers' receipt, 40 ms.
    disable_nagle_algorithm = True
    wbufsize = -1
    server: _Server

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        request = Request(method=self.command, path=self.path, headers=self.headers, body=body)
        answer = self.server.proxy.answered(request)
        if answer is None:
            self.close_connection = True
            return
        self.send_response(answer.status)
        for name, value in answer.headers:
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(answer.body)))
        self.end_headers()
        self.wfile.write(answer.body)

    def do_GET(self) -> None:
        self.do_POST()

    def do_PUT(self) -> None:
        self.do_POST()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's name
        """Say nothing."""


def _gone() -> Answer:
    """Snowflake's answer to a session that was ended."""
    content = {
        "data": None,
        "code": str(SESSION_GONE),
        "message": "Session no longer exists.  New login required to access the service.",
        "success": False,
        "headers": None,
    }
    return Answer(status=200, headers=(("Content-Type", "application/json"),), body=json.dumps(content).encode())


def _error(answer: Answer) -> int | None:
    content = json.loads(answer.body) if answer.body else {}
    return None if content.get("success", True) else int(content.get("code") or 0)
