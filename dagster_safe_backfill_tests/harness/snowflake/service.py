"""The HTTP side of the emulator: the endpoints that the unmodified connector asks, and a few for tests."""

from __future__ import annotations

import re
import threading
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

from dagster_safe_backfill_tests.harness.snowflake import errors, loading, parameters, results
from dagster_safe_backfill_tests.harness.snowflake.account import Account
from dagster_safe_backfill_tests.harness.snowflake.server import Request
from dagster_safe_backfill_tests.harness.snowflake.strict import Session

_REMEMBERED = 200
_COMMAND = re.compile(r"/emulator/(\w+)")
_ABORTED = re.compile(r"/queries/([^/]+)/abort-request")
_Endpoint = Callable[[Request, dict[str, Any]], dict[str, Any]]
_MAIN, _PHYSICAL = "MAIN", "MAIN_"
_PLACES = re.compile(r"VALUES \((\?(?:, \?)*)\)$")


def physical(sql: str) -> str:
    """Return a statement in which the schema MAIN has another name: each DuckDB database has one in lower case."""
    return sql.replace(f'"{_MAIN}"', f'"{_PHYSICAL}"').replace(f"'{_MAIN}'", f"'{_PHYSICAL}'")


def renamed(schema: str | None) -> str | None:
    """Return the schema's name here."""
    return _PHYSICAL if schema == _MAIN else schema


def bound(sql: str, bindings: dict[str, Any]) -> str:
    """Return an INSERT with the rows that are bound to it, a list a column, as literals."""
    if not bindings:
        return sql
    columns = [bindings[str(place)]["value"] for place in range(1, len(bindings) + 1)]
    if not _PLACES.search(sql) or not all(isinstance(column, list) for column in columns):
        raise errors.unsupported("bindings other than of an INSERT of rows in the emulator")
    rows = ", ".join(f"({', '.join(map(_literal, row))})" for row in zip(*columns, strict=True))
    return _PLACES.sub(lambda _: f"VALUES {rows}", sql)


def _literal(value: str | None) -> str:
    return "NULL" if value is None else "'" + value.replace("\\", "\\\\").replace("'", "''") + "'"


class _Request:
    """One statement by its request id: run once, however often the client asks."""

    def __init__(self) -> None:
        self.done = threading.Event()
        self.reply: dict[str, Any] = {}
        self.session: Session | None = None
        self.query_id = ""


class Service:
    """Answers the connector for one account."""

    def __init__(self, account: Account) -> None:
        self.account = account
        self._requests: OrderedDict[str, _Request] = OrderedDict()
        self._lock = threading.Lock()
        self._endpoints: dict[str, _Endpoint] = {
            "/session/v1/login-request": self._login,
            "/queries/v1/query-request": self._query,
            "/queries/v1/abort-request": self._abort,
            "/session": self._session,
            "/session/heartbeat": self._session,
            "/telemetry/send": self._nothing,
        }

    def answer(self, request: Request) -> tuple[int, dict[str, Any]]:
        """Return the status and the body of the answer to a request."""
        if request.method == "PUT":
            kept = loading.upload(request.path.removeprefix("/fs_bucket/"), request.body)
            return (200 if kept else 400), {}
        found = self._endpoints.get(request.path)
        if found is None:
            found, request.parameter = self._by_pattern(request.path)
        if found is None:
            return 404, {}
        try:
            return 200, found(request, request.json())
        except errors.SnowflakeError as error:
            return 200, refused(error)
        except Exception as error:
            return 200, refused(errors.failed(error))

    def _by_pattern(self, path: str) -> tuple[_Endpoint | None, str]:
        for pattern, endpoint in ((_COMMAND, self._command), (_ABORTED, self._abort)):
            if found := pattern.fullmatch(path):
                return endpoint, found[1]
        return None, ""

    def _session_of(self, request: Request) -> Session:
        token = request.headers.get("Authorization", "").removeprefix('Snowflake Token="').removesuffix('"')
        return self.account.session(token)

    def _login(self, request: Request, body: dict[str, Any]) -> dict[str, Any]:
        data = body["data"]
        folded = {
            key: _folded(request.query.get(key)) for key in ("databaseName", "schemaName", "warehouse", "roleName")
        }
        user = self.account.user(data.get("LOGIN_NAME", ""))
        beside = user.log_in(data)
        session = Session(
            self.account,
            user=data.get("LOGIN_NAME", ""),
            database=folded["databaseName"],
            schema=renamed(folded["schemaName"]),
        )
        session.warehouse, session.role = folded["warehouse"], folded["roleName"]
        if session.database and not session.schema:
            session.schema = "PUBLIC"
        for name, value in data.get("SESSION_PARAMETERS", {}).items():
            if name.upper() in parameters.SETTABLE:
                parameters.set_parameter(session, name, value)
        parameters.apply_timezone(session)
        token = self.account.add(session)
        given = {
            "AUTOCOMMIT": session.parameter("AUTOCOMMIT"),
            "CLIENT_TELEMETRY_ENABLED": False,
            "CLIENT_STAGE_ARRAY_BINDING_THRESHOLD": 0,
            "TIMEZONE": session.parameter("TIMEZONE"),
        }
        return _done(
            {
                "token": token,
                "masterToken": token,
                "sessionId": session.number,
                **beside,
                "serverVersion": "10.0.0",
                "parameters": [{"name": name, "value": value} for name, value in given.items()],
                "sessionInfo": {
                    "databaseName": session.database,
                    "schemaName": session.schema,
                    "warehouseName": session.warehouse,
                    "roleName": session.role or "SYSADMIN",
                },
            }
        )

    def _query(self, request: Request, body: dict[str, Any]) -> dict[str, Any]:
        session = self._session_of(request)
        request_id = request.query.get("requestId", "")
        key = f"{session.number}:{request_id}"
        with self._lock:
            known = self._requests.get(key)
            asked = known or self._requests.setdefault(key, _Request())
            while len(self._requests) > _REMEMBERED:
                self._requests.popitem(last=False)
        if known is not None:
            # The client lost the reply and asks again: Snowflake doesn't run a request twice.
            self.account.repeated(known.query_id)
            known.done.wait()
            return known.reply
        asked.session, asked.query_id = session, self.account.query_id()
        try:
            asked.reply = self._run(session, asked.query_id, request.base_url, body)
        finally:
            asked.done.set()
        return asked.reply

    def _run(self, session: Session, query_id: str, base_url: str, body: dict[str, Any]) -> dict[str, Any]:
        described = bool(body.get("describeOnly"))
        before = dict(session.parameters)
        try:
            sql = physical(bound(body["sqlText"], body.get("bindings") or {}))
            for name, value in (body.get("parameters") or {}).items():
                if name.upper() in parameters.SETTABLE:
                    parameters.set_parameter(session, name, value)
            result = session.execute(sql, query_id=query_id, base_url=base_url, describe_only=described)
        except errors.SnowflakeError as error:
            return refused(error, query_id)
        except Exception as error:
            return refused(errors.failed(error), query_id)
        finally:
            # They are the statement's only.
            for name in map(str.upper, body.get("parameters") or {}):
                if name in before:
                    session.parameters[name] = before[name]
                else:
                    session.parameters.pop(name, None)
        if result.upload:
            return _done({**result.upload, "queryId": query_id})
        rows = (
            {"queryResultFormat": "json", "rowset": [], "total": 0}
            if described
            else results.encoded(result, arrow=session.parameter("PYTHON_CONNECTOR_QUERY_RESULT_FORMAT") == "ARROW")
        )
        return _done(
            {
                "parameters": [{"name": "TIMEZONE", "value": session.parameter("TIMEZONE")}],
                "rowtype": result.rowtype,
                "queryId": query_id,
                "statementTypeId": result.type_id,
                "finalDatabaseName": session.database,
                "finalSchemaName": session.schema,
                "finalWarehouseName": session.warehouse,
                "finalRoleName": session.role or "SYSADMIN",
                "numberOfBinds": 0,
                "arrayBindSupported": False,
                **rows,
            }
        )

    def _abort(self, request: Request, body: dict[str, Any]) -> dict[str, Any]:
        """Cancel a statement by its request id, or by its query id."""
        by_query = request.parameter
        session = self._session_of(request)
        asked = self._requests.get(f"{session.number}:{body.get('requestId', '')}")
        if by_query:
            asked = next((one for one in [*self._requests.values()] if one.query_id == by_query), None)
        if asked is not None and asked.session is not None and not asked.done.is_set():
            asked.session.interrupt(errors.canceled())
        return _done(None)

    def _session(self, request: Request, body: dict[str, Any]) -> dict[str, Any]:
        session = self._session_of(request)
        if request.query.get("delete"):
            self.account.end(session.number)
        return _done(None)

    def _nothing(self, request: Request, body: dict[str, Any]) -> dict[str, Any]:
        return _done(None)

    def _command(self, request: Request, body: dict[str, Any]) -> dict[str, Any]:
        return _done(self.account.command(request.parameter, body))


def _folded(name: str | None) -> str | None:
    if not name:
        return None
    return name[1:-1].replace('""', '"') if name.startswith('"') else name.upper()


def _done(data: Any) -> dict[str, Any]:
    return {"data": data, "code": None, "message": None, "success": True}


def refused(error: errors.SnowflakeError, query_id: str = "") -> dict[str, Any]:
    code = f"{error.errno:06d}"
    data = {"errorCode": code, "sqlState": error.sqlstate, "queryId": query_id}
    return {"data": data, "code": code, "message": error.message, "success": False}
