"""Where the example is kept: a DuckDB file or, with `SAFE_BACKFILL_WAREHOUSE=snowflake`, a Snowflake database."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pyarrow as pa

import dagster_safe_backfill as sb

DATA = Path(__file__).parent / "data"
SCHEMA = "nyc"

_OPTIONS = ("account", "user", "password", "private_key_path", "authenticator", "role", "warehouse", "database")
"""Each is read from a variable of its name: SNOWFLAKE_ACCOUNT, SNOWFLAKE_USER and so on."""
_ADDRESS = ("host", "port", "protocol")
"""Likewise, for a server that isn't Snowflake's own."""


def is_snowflake() -> bool:
    """Return whether the example is kept in Snowflake.

    Raises:
        SystemExit: `SAFE_BACKFILL_WAREHOUSE` names another warehouse.
    """
    name = os.environ.get("SAFE_BACKFILL_WAREHOUSE") or "duckdb"
    if name not in ("duckdb", "snowflake"):
        raise SystemExit(f"SAFE_BACKFILL_WAREHOUSE is duckdb or snowflake, and not {name!r}")
    return name == "snowflake"


def warehouse_path() -> Path:
    """Return where the DuckDB warehouse is: `SAFE_BACKFILL_DUCKDB`, or a file in the example's data folder."""
    return Path(os.environ.get("SAFE_BACKFILL_DUCKDB") or DATA / "warehouse.duckdb")


def place() -> str:
    """Return where the tables are, in words."""
    if is_snowflake():
        return f"the database {_options()['database']} of Snowflake"
    return str(warehouse_path())


def io_manager() -> sb.RangeIOManager:
    """Return the resource that keeps the assets' tables."""
    if not is_snowflake():
        path = warehouse_path()
        # A fresh checkout has no folder for it, and DuckDB makes none.
        path.parent.mkdir(parents=True, exist_ok=True)
        return sb.RangeDuckDBIOManager(database=str(path), schema=SCHEMA)
    further: dict[str, Any] = _given(_ADDRESS)
    return sb.RangeSnowflakeIOManager(schema=SCHEMA, additional_snowflake_connection_args=further or None, **_options())


def made_up(query: sb.Query) -> sb.Query | pa.Table:
    """Return what makes rows up in DuckDB's SQL: as it is where DuckDB is the warehouse, else the rows themselves."""
    if not is_snowflake():
        return query
    import duckdb

    with duckdb.connect() as connection:
        return connection.sql(query.sql).to_arrow_table()


def _options() -> dict[str, str]:
    given = {"database": "SAFE_BACKFILL_EXAMPLE", **_given(_OPTIONS)}
    missing = [f"SNOWFLAKE_{name.upper()}" for name in ("account", "user") if name not in given]
    if missing:
        raise SystemExit(f"set {' and '.join(missing)} to log in to Snowflake; see docs/snowflake.md")
    return given


def _given(names: tuple[str, ...]) -> dict[str, str]:
    found = {name: os.environ.get(f"SNOWFLAKE_{name.upper()}") for name in names}
    return {name: value for name, value in found.items() if value}
