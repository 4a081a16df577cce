"""What only Snowflake has of `wap_schema`: future grants, and privileges by schema."""

from __future__ import annotations

import dagster as dg
import pytest

import dagster_safe_backfill as sb
from dagster_safe_backfill.model.options import Strategy
from dagster_safe_backfill_tests.harness.assets import Source, events, failure_of, run_range
from dagster_safe_backfill_tests.harness.publications import STRATEGIES
from dagster_safe_backfill_tests.harness.snowflake.users import User
from dagster_safe_backfill_tests.harness.snowflake_backend import SnowflakeBackend

DAYS = ("2024-01-01", "2024-01-02")
COLUMNS = "day TIMESTAMP_NTZ, id BIGINT, value FLOAT"


def readable(account: SnowflakeBackend) -> dict[str, set[str]]:
    """Return the tables that somebody was granted to read, by schema, with the digits of their names left out."""
    found = account.read(
        "SELECT schema_name, table_name FROM duckdb_tables () WHERE database_name = current_database()"
        " AND len(json_extract(comment, '$.grants[*]')) > 0"
    )
    names: dict[str, set[str]] = {}
    for schema, name in found:
        parts = [part for part in name.lower().split("_") if not any(map(str.isdigit, part))]
        names.setdefault(schema.rstrip("_").lower(), set()).add("_".join(parts))
    return names


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_with_future_grants_unaudited_rows_are_nobodys(
    account: SnowflakeBackend, instance: dg.DagsterInstance, strategy: Strategy
) -> None:
    account.change("CREATE SCHEMA IF NOT EXISTS wap")
    with account.session() as session:
        session.cursor().execute('GRANT SELECT ON FUTURE TABLES IN SCHEMA "MAIN" TO ROLE analyst')
    source = Source(spoiled={("2024-01-02", 1): -1.0})
    # Without the option, whoever may read each new table reads rows that the audits refuse, and the ledger.
    asset = events(source, publish=strategy)
    assert not run_range([asset], *DAYS, io_manager=account.io_manager, instance=instance).success
    assert readable(account)["main"] >= {"events__shadow", "_safe_backfill_ledger"}

    other = events(source, publish=strategy, table=sb.TableOptions(schema="sales"))
    account.change("CREATE SCHEMA IF NOT EXISTS sales")
    with account.session() as session:
        session.cursor().execute("GRANT SELECT ON FUTURE TABLES IN SCHEMA sales TO ROLE analyst")
    beside = account.manager(wap_schema="wap")
    assert not run_range([other], *DAYS, io_manager=beside, instance=instance).success
    assert "sales" not in readable(account)
    source.spoiled.clear()
    for value in (1.0, 2.0):
        source.spoiled["2024-01-01", 0] = value
        assert run_range([other], *DAYS, io_manager=beside, instance=instance).success
    found = readable(account)
    assert "wap" not in found
    # The archive of a swap holds rows that were live.
    assert found["sales"] - {"events__archive"} == {"events"}


@pytest.mark.parametrize("strategy", ["merge", "replace"])
def test_a_role_that_makes_tables_in_the_wap_schema_only(
    account: SnowflakeBackend, instance: dg.DagsterInstance, strategy: Strategy
) -> None:
    assert account.emulator.account is not None
    account.emulator.account.users["LIMITED"] = User(denied=frozenset(["CREATE SCHEMA", "CREATE TABLE ON MAIN_"]))
    account.change("CREATE SCHEMA IF NOT EXISTS wap", f"CREATE TABLE events ({COLUMNS})")
    source = Source()
    asset = events(source, publish=strategy)
    try:
        failed = run_range([asset], *DAYS, io_manager=account.manager(user="limited"), instance=instance)
        assert "Insufficient privileges" in failure_of(failed, "events")
        beside = account.manager(user="limited", wap_schema="wap")
        assert run_range([asset], *DAYS, io_manager=beside, instance=instance).success
        before = account.read("SELECT * FROM events ORDER BY ALL")
        source.spoiled["2024-01-02", 0] = 100.0
        assert run_range([asset], *DAYS, io_manager=beside, instance=instance).success
        assert account.read("SELECT * FROM events ORDER BY ALL") != before
        back = sb.build_rollback_job(asset).execute_in_process(
            resources={"io_manager": beside}, instance=instance, raise_on_error=False
        )
        assert back.success
        assert account.read("SELECT * FROM events ORDER BY ALL") == before
    finally:
        del account.emulator.account.users["LIMITED"]


def test_a_wap_schema_that_the_role_may_not_make_is_named(
    account: SnowflakeBackend, instance: dg.DagsterInstance
) -> None:
    assert account.emulator.account is not None
    account.emulator.account.users["LIMITED"] = User(denied=frozenset(["CREATE SCHEMA"]))
    try:
        beside = account.manager(user="limited", wap_schema="wap")
        failed = run_range([events(Source())], *DAYS, io_manager=beside, instance=instance)
    finally:
        del account.emulator.account.users["LIMITED"]
    assert "the schema \"WAP\" doesn't exist, or the role isn't allowed to see it" in failure_of(failed, "events")
