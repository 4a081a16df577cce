"""The emulator's sessions end as Snowflake's do: what isn't committed is rolled back, locks and temporary tables go.

Of itself fakesnow's server only forgets a session; and as its logins give no master token, the connector never says
that it closes one.
"""

from __future__ import annotations

import json
from contextlib import suppress
from functools import cache
from typing import Any

import duckdb
from fakesnow import server
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from dagster_safe_backfill_tests import snowflake_backend as emulator

_SESSION, _LOGIN = "/session", "/session/v1/login-request"


@cache
def sessions_end() -> None:
    """Let the server's sessions end from now on."""
    routes = [
        Route(_SESSION, _session, methods=["POST"]),
        Route(_LOGIN, _login, methods=["POST"]),
    ]
    server.app.router.routes[:0] = routes


async def _login(request: Request) -> JSONResponse:
    answer = await server.login_request(request)
    content = json.loads(bytes(answer.body))
    content["data"].setdefault("masterToken", "master")
    return JSONResponse(content, status_code=answer.status_code)


async def _session(request: Request) -> JSONResponse:
    if request.query_params.get("delete"):
        with suppress(server.ServerError):
            conn = server.sessions.pop(server.to_token(request), None)
            if conn is not None:
                await run_in_threadpool(_end, conn)
                return JSONResponse({"data": None, "code": None, "message": None, "success": True})
    return await server.session(request)


def _end(conn: Any) -> None:
    with suppress(duckdb.TransactionException):
        conn._duck_conn.execute("ROLLBACK")
    for name in getattr(conn, "temporary", []):
        conn._duck_conn.execute(f"DROP TABLE IF EXISTS {name}")
    emulator._release(conn)
    conn.close()
