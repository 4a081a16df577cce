"""ALTER SESSION, USE and SET: what a session is told about itself."""

from __future__ import annotations

import re
from typing import Any

from sqlglot import exp

from dagster_safe_backfill_tests.harness.snowflake import catalog, errors
from dagster_safe_backfill_tests.harness.snowflake.results import Result, text

_SESSION = 0x4000
DEFAULTS: dict[str, Any] = {
    "ABORT_DETACHED_QUERY": False,
    "AUTOCOMMIT": True,
    "BINARY_INPUT_FORMAT": "HEX",
    "BINARY_OUTPUT_FORMAT": "HEX",
    "CLIENT_PREFETCH_THREADS": 4,
    "CLIENT_SESSION_KEEP_ALIVE": False,
    "CLIENT_TIMESTAMP_TYPE_MAPPING": "TIMESTAMP_LTZ",
    "DATE_INPUT_FORMAT": "AUTO",
    "DATE_OUTPUT_FORMAT": "YYYY-MM-DD",
    "ERROR_ON_NONDETERMINISTIC_MERGE": True,
    "ERROR_ON_NONDETERMINISTIC_UPDATE": False,
    "GEOGRAPHY_OUTPUT_FORMAT": "GeoJSON",
    "GEOMETRY_OUTPUT_FORMAT": "GeoJSON",
    "JSON_INDENT": 2,
    "LOCK_TIMEOUT": 43200,
    "MULTI_STATEMENT_COUNT": 1,
    "PYTHON_CONNECTOR_QUERY_RESULT_FORMAT": "ARROW",
    "QUERY_TAG": "",
    "QUOTED_IDENTIFIERS_IGNORE_CASE": False,
    "ROWS_PER_RESULTSET": 0,
    "STATEMENT_QUEUED_TIMEOUT_IN_SECONDS": 0,
    "STATEMENT_TIMEOUT_IN_SECONDS": 172800,
    "STRICT_JSON_OUTPUT": False,
    "TIMESTAMP_DAY_IS_ALWAYS_24H": False,
    "TIMESTAMP_INPUT_FORMAT": "AUTO",
    "TIMESTAMP_LTZ_OUTPUT_FORMAT": "",
    "TIMESTAMP_NTZ_OUTPUT_FORMAT": "YYYY-MM-DD HH24:MI:SS.FF3",
    "TIMESTAMP_OUTPUT_FORMAT": "YYYY-MM-DD HH24:MI:SS.FF3 TZHTZM",
    "TIMESTAMP_TYPE_MAPPING": "TIMESTAMP_NTZ",
    "TIMESTAMP_TZ_OUTPUT_FORMAT": "",
    "TIMEZONE": "America/Los_Angeles",
    "TIME_INPUT_FORMAT": "AUTO",
    "TIME_OUTPUT_FORMAT": "HH24:MI:SS",
    "TRANSACTION_ABORT_ON_ERROR": False,
    "TRANSACTION_DEFAULT_ISOLATION_LEVEL": "READ COMMITTED",
    "TWO_DIGIT_CENTURY_START": 1970,
    "UNSUPPORTED_DDL_ACTION": "IGNORE",
    "USE_CACHED_RESULT": True,
    "WEEK_OF_YEAR_POLICY": 0,
    "WEEK_START": 0,
}
"""Snowflake's session parameters with its defaults, also its time zone, which nobody expects."""

_KNOWN = {name: type(default) for name, default in DEFAULTS.items()}
SETTABLE = frozenset(_KNOWN)


def set_session(session: Any, tree: exp.Expression, sql: str) -> Result:
    """Run ALTER SESSION, USE or SET."""
    if isinstance(tree, exp.Use):
        _use(session, tree)
    elif isinstance(tree, exp.Alter) and tree.args.get("kind") == "SESSION":
        _alter_session(session, tree)
    elif isinstance(tree, exp.Command):
        raise errors.unsupported(f"{tree.this} in the emulator: {sql[:100]}")
    else:
        raise errors.unsupported(f"{sql[:100]} in the emulator")
    return text(_SESSION, status="Statement executed successfully.")


def _alter_session(session: Any, tree: exp.Alter) -> None:
    for action in tree.args["actions"]:
        for item in action.expressions:
            if action.args.get("unset"):
                session.parameters.pop(item.this.name.upper(), None)
            else:
                set_parameter(session, item.this.this.name, item.this.expression)
    apply_timezone(session)


def set_parameter(session: Any, name: str, value: Any) -> None:
    """Record one parameter; one that Snowflake hasn't is refused."""
    name = name.upper()
    kind = _KNOWN.get(name)
    if kind is None:
        raise errors.SnowflakeError(1006, "22023", f"SQL compilation error:\ninvalid parameter '{name}'")
    plain = value
    if isinstance(value, exp.Expression):
        plain = str(value.sql()).upper() == "TRUE" if isinstance(value, exp.Boolean) else value.name
    if kind is int and not re.fullmatch(r"\d+", str(plain)):
        raise errors.SnowflakeError(
            1008, "22023", f"SQL compilation error:\ninvalid value [{plain}] for parameter '{name}'"
        )
    if kind is bool and isinstance(plain, str):
        plain = plain.upper() == "TRUE"
    if name == "AUTOCOMMIT" and session.transaction.open and plain:
        session.end_transaction(commit=True)
    session.parameters[name] = kind(plain)


def apply_timezone(session: Any) -> None:
    session.duck.set_timezone(session.parameter("TIMEZONE"))


def _use(session: Any, tree: exp.Use) -> None:
    kind = tree.args["kind"].name.upper() if tree.args.get("kind") else "DATABASE"
    table = tree.this
    if kind == "WAREHOUSE":
        session.warehouse = table.name
    elif kind == "ROLE":
        session.role = table.name
    elif kind == "SCHEMA":
        database, schema = table.db or session.database, table.name
        if not catalog.schema_exists(session.duck, database, schema):
            raise errors.does_not_exist("Schema", f"{database}.{schema}")
        session.database, session.schema = database, schema
    elif kind == "DATABASE":
        if table.db:
            session.database, session.schema = table.db, table.name
        elif not catalog.schema_exists(session.duck, table.name, "PUBLIC"):
            raise errors.does_not_exist("Database", table.name)
        else:
            session.database, session.schema = table.name, "PUBLIC"
    elif kind != "SECONDARY ROLES":
        raise errors.syntax_error(kind)
