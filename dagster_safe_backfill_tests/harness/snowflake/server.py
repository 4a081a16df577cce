"""A small HTTP server, one thread a connection: what a web framework adds takes longer than most statements."""

from __future__ import annotations

import gzip
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, ClassVar
from urllib.parse import parse_qsl, unquote, urlsplit

HOST = "127.0.0.1"


@dataclass
class Request:
    """What a client asks."""

    method: str
    path: str
    query: dict[str, str]
    headers: Any
    body: bytes
    base_url: str
    """As the client knows the server."""
    parameter: str = ""
    """What the path has in a place that may be anything."""

    def json(self) -> dict[str, Any]:
        return json.loads(self.body) if self.body else {}


Answer = Callable[[Request], tuple[int, dict[str, Any]]]


def requested(method: str, url: str, headers: Any, body: bytes) -> Request:
    """Return a request as it came."""
    parts = urlsplit(url)
    if headers.get("Content-Encoding") == "gzip":
        body = gzip.decompress(body)
    query = dict(parse_qsl(parts.query))
    return Request(method, unquote(parts.path), query, headers, body, base_url=f"{parts.scheme}://{parts.netloc}")


def encoded(reply: dict[str, Any]) -> bytes:
    """Return a reply as it is sent."""
    return json.dumps(reply, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    # Else an answer's body waits until its head was acknowledged, for up to 40 ms.
    disable_nagle_algorithm = True
    answer: ClassVar[Answer]

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        host = self.headers.get("Host", "")
        status, reply = type(self).answer(requested(self.command, f"http://{host}{self.path}", self.headers, body))
        text = encoded(reply)
        head = f"HTTP/1.1 {status} {self.responses[status][0]}\r\nContent-Type: application/json\r\n"
        self.wfile.write(f"{head}Content-Length: {len(text)}\r\n\r\n".encode() + text)

    do_PUT = do_POST  # noqa: N815 - http.server's name

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - http.server's name
        """Say nothing."""


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing: clients go as they like."""


@contextmanager
def listening(answer: Answer, *, port: int = 0) -> Iterator[int]:
    """Answer requests in threads of this process for as long as the block lasts; yields the port."""
    handler = type("_Handler", (_Handler,), {"answer": staticmethod(answer)})
    server = _Server((HOST, port), handler)
    thread = threading.Thread(
        target=server.serve_forever, kwargs={"poll_interval": 0.05}, name="emulated Snowflake", daemon=True
    )
    thread.start()
    try:
        yield server.server_address[1]
    finally:
        server.shutdown()
        server.server_close()
        thread.join(timeout=10)
