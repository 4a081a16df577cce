"""ALTER SESSION, USE and SET: what a session is told about itself."""

from __future__ import annotations

import re
from typing import Any

from sqlglot import exp

from dagster_safe_backfill_tests.harness.snowflake import catalog, errors
from dagster_safe_backfill_tests.harness.snowflake.results import Result, text

_SESSION = 0x4000
_KNOWN = {
    "AUTOCOMMIT": bool,
    "LOCK_TIMEOUT": int,
    "STATEMENT_TIMEOUT_IN_SECONDS": int,
    "STATEMENT_QUEUED_TIMEOUT_IN_SECONDS": int,
    "QUERY_TAG": str,
    "TIMEZONE": str,
    "TIMESTAMP_TYPE_MAPPING": str,
    "TIMESTAMP_OUTPUT_FORMAT": str,
    "TIMESTAMP_NTZ_OUTPUT_FORMAT": str,
    "DATE_OUTPUT_FORMAT": str,
    "WEEK_START": int,
    "WEEK_OF_YEAR_POLICY": int,
    "USE_CACHED_RESULT": bool,
    "ERROR_ON_NONDETERMINISTIC_MERGE": bool,
    "ERROR_ON_NONDETERMINISTIC_UPDATE": bool,
    "TRANSACTION_ABORT_ON_ERROR": bool,
    "QUOTED_IDENTIFIERS_IGNORE_CASE": bool,
    "ABORT_DETACHED_QUERY": bool,
    "CLIENT_SESSION_KEEP_ALIVE": bool,
    "MULTI_STATEMENT_COUNT": int,
    "PYTHON_CONNECTOR_QUERY_RESULT_FORMAT": str,
    "CLIENT_PREFETCH_THREADS": int,
}

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
