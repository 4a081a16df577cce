"""The page "A new warehouse" lists the methods that there are, and its numbers are those of the code."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from dagster_safe_backfill.sql.dialect import Dialect
from dagster_safe_backfill.warehouses import base
from dagster_safe_backfill.warehouses.base import Session, Tables, Warehouse
from dagster_safe_backfill.warehouses.duckdb.dialect import DuckDBDialect
from dagster_safe_backfill.warehouses.duckdb.session import DuckDBSession, DuckDBWarehouse
from dagster_safe_backfill.warehouses.duckdb.tables import DuckDBTables
from dagster_safe_backfill.warehouses.snowflake.dialect import SnowflakeDialect
from dagster_safe_backfill.warehouses.snowflake.session import SnowflakeSession, SnowflakeWarehouse
from dagster_safe_backfill.warehouses.snowflake.tables import SnowflakeTables

PAGE = (Path(__file__).parents[2] / "docs" / "new-warehouse.md").read_text()
PARTS = (Dialect, Session, Tables, Warehouse)
WAREHOUSES = {
    "DuckDB": (DuckDBDialect, DuckDBSession, DuckDBTables, DuckDBWarehouse),
    "Snowflake": (SnowflakeDialect, SnowflakeSession, SnowflakeTables, SnowflakeWarehouse),
}
ATTRIBUTES = {"dialect", "tables", "conflict_timeout", "run_has_ended"}
"""What `Session` and `Warehouse` have, and is no method."""


def methods(part: type) -> set[str]:
    """Return what a part of a warehouse offers."""
    names = {*vars(part), *vars(part).get("__annotations__", {})}
    return {name for name in names if not name.startswith("_")} - ATTRIBUTES


def to_write(part: type) -> set[str]:
    """Return what of it has no default."""
    abstract: frozenset[str] = getattr(part, "__abstractmethods__", frozenset())
    return {*abstract, *(name for name in methods(part) if not hasattr(part, name))}


def listed(part: type) -> dict[str, bool]:
    """Return the page's methods of a part, and whether each is to be written."""
    section = PAGE.split(f"### `{part.__name__}`")[1].split("\n## ")[0].split("\n### ")[0]
    rows = re.findall(r"^\| (\**)`(\w+)`\** \|", section, re.MULTILINE)
    return {name: bool(stars) for stars, name in rows}


@pytest.mark.parametrize("part", PARTS)
def test_the_page_lists_each_method(part: type) -> None:
    assert listed(part) == {name: name in to_write(part) for name in methods(part)}


def test_the_page_counts_the_methods() -> None:
    found = re.search(r"Of the (\d+) methods, (\d+) have to be written", PAGE)
    assert found is not None
    counts = [sum(len(names(part)) for part in PARTS) for names in (methods, to_write)]
    assert [int(count) for count in found.groups()] == counts


@pytest.mark.parametrize("name", WAREHOUSES)
def test_the_page_counts_what_a_warehouse_writes(name: str) -> None:
    found = re.search(rf"^\| {name} \| (\d+) \| (\d+) \|$", PAGE, re.MULTILINE)
    assert found is not None
    written, lines = map(int, found.groups())
    parts = zip(WAREHOUSES[name], PARTS, strict=True)
    assert written == sum(len(methods(part) & vars(own).keys()) for own, part in parts)
    folder = Path(base.__file__).with_name(name.lower())
    assert lines == pytest.approx(sum(len(path.read_text().splitlines()) for path in folder.glob("*.py")), rel=0.05)


def test_both_warehouses_have_the_same_files_for_the_same_parts() -> None:
    folders = [Path(base.__file__).with_name(name.lower()) for name in WAREHOUSES]
    duckdb, snowflake = ({path.name for path in folder.glob("*.py")} for folder in folders)
    assert {"dialect.py", "session.py", "tables.py", "types.py", "errors.py"} <= duckdb & snowflake
