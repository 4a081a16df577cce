"""What belongs to a table beside its rows: its owner, its clustering, its streams, and the token of its last change."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from sqlglot import exp

from dagster_safe_backfill_tests.harness.snowflake import catalog, errors, prepared, results, showing
from dagster_safe_backfill_tests.harness.snowflake.catalog import Name
from dagster_safe_backfill_tests.harness.snowflake.names import Resolver
from dagster_safe_backfill_tests.harness.snowflake.results import Result, text

_DDL = 0x6000
_DONE = "Statement executed successfully."
_OWNERSHIP = re.compile(
    r"\s*GRANT\s+OWNERSHIP\s+ON\s+TABLE\s+(?P<table>\S+)\s+TO\s+(?:DATABASE\s+)?ROLE\s+(?P<role>\S+)"
    r"(?:\s+(?P<current>COPY|REVOKE)\s+CURRENT\s+GRANTS)?\s*;?\s*$",
    re.IGNORECASE,
)
_RECLUSTER = re.compile(r"\s*ALTER\s+TABLE\s+(?P<table>\S+)\s+(?P<what>RESUME|SUSPEND)\s+RECLUSTER\s*;?\s*$", re.I)
_CLUSTER = re.compile(r"\s*ALTER\s+TABLE\s+(?P<table>\S+)\s+CLUSTER\s+BY\s*\((?P<by>.+)\)\s*;?\s*$", re.IGNORECASE)
_STREAM = re.compile(r"\s*CREATE\s+STREAM\s+(?P<stream>\S+)\s+ON\s+TABLE\s+(?P<table>\S+)\s*;?\s*$", re.IGNORECASE)


def named(session: Any, written: str) -> Name:
    """Return the table of a name as it is written, which must be there."""
    table = exp.to_table(written, dialect="snowflake")
    prepared.fold(table)
    return Resolver(session).existing(table)


def _own(session: Any, found: re.Match[str], name: Name) -> None:
    """GRANT OWNERSHIP: other roles' privileges have to be copied, or revoked."""
    known = catalog.facts(session.duck, name)
    # In a schema with managed access, an owner may not.
    session.settings.check("MANAGE GRANTS", f"table '{name.table}'")
    if known.grants and not found["current"]:
        raise errors.SnowflakeError(
            3069, "42501", "SQL execution error: Dependent grant of privilege exists. It must be revoked first."
        )
    grants = () if (found["current"] or "").upper() == "REVOKE" else known.grants
    role = found["role"].strip('"') if found["role"].startswith('"') else found["role"].upper()
    catalog.record(session.duck, name, replace(known, owner=role, grants=grants))


def _recluster(session: Any, found: re.Match[str], name: Name) -> None:
    known = catalog.facts(session.duck, name)
    if known.cluster_by is None:
        raise errors.SnowflakeError(
            2211, "22000", f"SQL compilation error:\nTable '{name.table}' has no clustering key defined."
        )
    catalog.record(session.duck, name, replace(known, reclusters=found["what"].upper() == "RESUME"))


def _cluster(session: Any, found: re.Match[str], name: Name) -> None:
    """Automatic Clustering is on for a table that gets a key."""
    known = catalog.facts(session.duck, name)
    catalog.record(session.duck, name, replace(known, cluster_by=f"LINEAR({found['by']})", reclusters=True))


def _stream(session: Any, found: re.Match[str], name: Name) -> None:
    """A stream is of the table that has a name when it is made, whatever that is called later."""
    known = catalog.facts(session.duck, name)
    catalog.record(session.duck, name, replace(known, streams=(*known.streams, found["stream"].upper())))


_BY_TEXT: dict[re.Pattern[str], Callable[[Any, re.Match[str], Name], None]] = {
    _OWNERSHIP: _own,
    _RECLUSTER: _recluster,
    _CLUSTER: _cluster,
    _STREAM: _stream,
}


def is_meant(sql: str) -> bool:
    """Return whether a statement is about a table's properties."""
    return any(pattern.match(sql) for pattern in _BY_TEXT)


def define(session: Any, sql: str) -> Result:
    """Run a statement about a table's properties."""
    run, found = next((run, found) for pattern, run in _BY_TEXT.items() if (found := pattern.match(sql)))
    run(session, found, named(session, found["table"]))
    return text(_DDL, status=_DONE)


def last_change(session: Any, written: str) -> Result:
    """SYSTEM$LAST_CHANGE_COMMIT_TIME: of what is committed, as far as the session sees it."""
    name = named(session, written)
    return text(0x1000, **{"SYSTEM$LAST_CHANGE_COMMIT_TIME": session.account.token(name, session.stale.tokens)})


def streams(session: Any) -> Result:
    """SHOW STREAMS IN ACCOUNT."""
    sql = """SELECT database_name, schema_name, table_name, json_extract(comment, '$.streams')::VARCHAR[] AS streams
             FROM duckdb_tables() WHERE database_name = ? AND len(streams) > 0 ORDER BY ALL"""
    rows: list[list[str | None]] = []
    for database, schema, table, found in session.duck.execute(sql, [session.database]).fetchall():
        shown = f"{database}.{showing.shown_schema(schema)}.{table}"
        rows += [[one, database, shown, "Table", shown, "false"] for one in found]
    names = ("name", "database_name", "table_name", "source_type", "base_tables", "stale")
    return Result(0x4400, [results.column(one, "VARCHAR") for one in names], rows=rows)
