"""What a client in the emulator's process asks it, answered in the client's thread: a socket takes longer than that.

The connector makes and reads its requests as always, and retries them; just its transport is another, for statements
from before what it does for HTTP, which is longer than the rest of a request, and for files from the socket on. Clients
of an emulator that is reached through a proxy, or from another process, have the connector's own.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import responses
from typing import Any
from unittest import mock
from urllib.parse import urlsplit

from snowflake.connector import connection
from snowflake.connector.compat import OK
from snowflake.connector.network import HEADER_SNOWFLAKE_TOKEN, NO_TOKEN, SnowflakeRestful
from snowflake.connector.session_manager import ProxySupportAdapter
from snowflake.connector.vendored import requests

from dagster_safe_backfill_tests.harness.snowflake.server import HOST, Answer, encoded, requested

_PLAIN = {
    *("session", "method", "full_url", "headers", "data", "token"),
    *("external_session_id", "raise_raw_http_failure", "socket_timeout"),
}
"""What a request for a statement says."""


@contextmanager
def answering(answer: Answer, *, port: int) -> Iterator[None]:
    """Answer so what is sent to a port of this machine, for as long as the block lasts."""

    class Adapter(ProxySupportAdapter):
        def send(self, request: requests.PreparedRequest, *given: Any, **options: Any) -> requests.Response:
            url = str(request.url)
            if urlsplit(url).netloc != f"{HOST}:{port}":
                return super().send(request, *given, **options)
            status, reply = answer(requested(str(request.method), url, request.headers, _body(request)))
            return _response(request, status, encoded(reply))

    execute = SnowflakeRestful._request_exec

    def executed(rest: SnowflakeRestful, *given: Any, **options: Any) -> Any:
        url, body, token = options.get("full_url", ""), options.get("data"), options.get("token")
        if urlsplit(url).netloc == f"{HOST}:{port}" and set(options) <= _PLAIN:
            headers = {} if token == NO_TOKEN else {"Authorization": HEADER_SNOWFLAKE_TOKEN.format(token=token)}
            status, reply = answer(requested(options["method"], url, headers, (body or "").encode()))
            if status == OK:
                return json.loads(encoded(reply))
        return execute(rest, *given, **options)

    with (
        mock.patch.object(connection, "ProxySupportAdapterFactory", return_value=Adapter),
        mock.patch.object(SnowflakeRestful, "_request_exec", executed),
    ):
        yield


def _body(request: requests.PreparedRequest) -> bytes:
    body: Any = request.body or b""
    return body if isinstance(body, bytes) else body.encode() if isinstance(body, str) else body.read()


def _response(request: requests.PreparedRequest, status: int, body: bytes) -> requests.Response:
    made = requests.Response()
    made.request, made.url = request, str(request.url)
    made.status_code, made.reason = status, responses[status]
    made.headers["Content-Type"], made.encoding = "application/json", "utf-8"
    made._content, made._content_consumed = body, True
    return made
