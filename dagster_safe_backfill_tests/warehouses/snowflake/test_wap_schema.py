"""What only Snowflake has of `wap_schema`: future grants, and privileges by schema."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import dagster as dg
import pytest

import dagster_safe_backfill as sb
from dagster_safe_backfill.model.options import Strategy
from dagster_safe_backfill.wap import publish
from dagster_safe_backfill.warehouses.snowflake.transaction import Transaction
from dagster_safe_backfill_tests.harness.assets import Source, events, failure_of, run_range
from dagster_safe_backfill_tests.harness.publications import STRATEGIES, Publications, day_rows
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


def beside(account: SnowflakeBackend) -> Publications:
    """Return a table whose shadows, archives and ledger are in `wap`."""
    table = Publications(account, live=day_rows(0, 1.0))
    table.spec = replace(table.spec, table=replace(table.spec.table, wap_schema="wap"))
    return table


def killed_before_the_ledger(table: Publications, strategy: Strategy, monkeypatch: pytest.MonkeyPatch) -> None:
    """Publish rows of 2.0, and be killed before the ledger has it: nothing is rolled back, and nothing cleaned up."""

    def killed(*args: Any, **kwargs: Any) -> None:
        raise KeyboardInterrupt

    staged = table.stage(day_rows(0, 2.0), [0], "1")
    with monkeypatch.context() as patch:
        patch.setattr(Transaction, "roll_back", lambda self: self.own.execute("ROLLBACK"))
        patch.setattr(Transaction, "close", lambda self, *, is_committed: None)
        patch.setattr(publish, "record_change", killed)
        with pytest.raises(KeyboardInterrupt):
            table.publish(staged, "1", strategy=strategy)


def test_a_swap_that_this_ledger_does_not_know_is_undone(
    account: SnowflakeBackend, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    table = beside(account)
    before = table.live()
    killed_before_the_ledger(table, "swap", monkeypatch)
    assert table.values() == {0: [2.0] * 3}, "it was swapped"
    with caplog.at_level("WARNING"):
        table.published(day_rows(0, 3.0), [0], "2", strategy="swap")
    assert "was not recorded, and is undone" in caplog.text
    assert table.values() == {0: [3.0] * 3}
    table.rollback("2")
    assert table.live() == before


def test_a_swap_that_this_ledger_knows_is_completed(
    account: SnowflakeBackend, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    table = beside(account)
    before = table.live()
    staged = table.stage(day_rows(0, 2.0), [0], "1")
    with monkeypatch.context() as patch:
        patch.setattr(Transaction, "close", lambda self, *, is_committed: None)
        table.publish(staged, "1", strategy="swap")
    with caplog.at_level("WARNING"):
        table.rollback("1")
    assert "was recorded, and is completed" in caplog.text
    assert table.live() == before


def test_an_archive_that_a_crash_left_there_is_dropped(
    account: SnowflakeBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = beside(account)
    before = table.live()
    killed_before_the_ledger(table, "merge", monkeypatch)
    assert table.live() == before
    dropped = table.retire()
    assert [str(one) for one in dropped.archives] == ["wap.main__t__archive_1"]
    assert [str(one) for one in dropped.shadows] == ["wap.main__t__shadow_1"]


def test_another_wap_schema_is_refused(account: SnowflakeBackend, instance: dg.DagsterInstance) -> None:
    source = Source()
    asset = events(source)
    assert run_range([asset], *DAYS, io_manager=account.manager(wap_schema="wap"), instance=instance).success
    for other in ("wap2", None):
        failed = run_range([asset], *DAYS, io_manager=account.manager(wap_schema=other), instance=instance)
        assert "wap_schema='wap'" in failure_of(failed, "events")
    assert len(source.calls) == 1
    # The same by another spelling.
    assert run_range([asset], *DAYS, io_manager=account.manager(wap_schema="WAP"), instance=instance).success
