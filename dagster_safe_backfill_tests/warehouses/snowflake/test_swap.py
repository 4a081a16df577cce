"""What a swap keeps of a table, what it refuses to lose, and how often it reads the table."""

from __future__ import annotations

import re
from typing import Any

import pytest

import dagster_safe_backfill as sb
from dagster_safe_backfill.model.tables import Query
from dagster_safe_backfill_tests.harness.publications import Publications, day_rows
from dagster_safe_backfill_tests.harness.snowflake_backend import SnowflakeBackend

LIVE = [*day_rows(0, 1.0), *day_rows(1, 1.0)]
HASHED = re.compile(r"^SELECT COUNT\(\*\), SUM\((?!.* WHERE )")
"""The hash of a whole table."""


def shown(account: SnowflakeBackend, name: str = "T") -> dict[str, Any]:
    with account.session() as session:
        cursor = session.cursor()
        rows = cursor.execute(f"SHOW TABLES LIKE '{name}'").fetchall()  # type: ignore[union-attr]
        return dict(zip([column.name for column in cursor.description], rows[0], strict=True))


def grants(account: SnowflakeBackend, name: str = "T") -> list[tuple[Any, ...]]:
    with account.session() as session:
        return session.cursor().execute(f"SHOW GRANTS ON TABLE {name}").fetchall()  # type: ignore[union-attr, return-value]


def run(account: SnowflakeBackend, *statements: str) -> None:
    with account.session() as session:
        for statement in statements:
            session.cursor().execute(statement)


def sent(account: SnowflakeBackend, pattern: re.Pattern[str] | str) -> list[str]:
    return [one["sql"] for one in account.emulator.history(account.database) if re.search(pattern, one["sql"])]


def as_loader(account: SnowflakeBackend, table: Publications) -> Publications:
    """Publish with a role that isn't the owner, as the tables of the suite are the administrator's."""
    table.warehouse = account.manager(role="LOADER").warehouse()
    return table


def test_the_owner_the_grants_and_automatic_clustering_stay(account: SnowflakeBackend) -> None:
    table = as_loader(account, Publications(account, live=LIVE))
    run(account, "ALTER TABLE t CLUSTER BY (day)", "GRANT SELECT ON TABLE t TO ROLE reader")
    before = shown(account)
    table.published(day_rows(0, 2.0), [0], "1", strategy="swap")
    kept = ("owner", "cluster_by", "automatic_clustering", "kind", "comment")
    assert {name: shown(account)[name] for name in kept} == {name: before[name] for name in kept}
    assert before["owner"] == "SYSADMIN"
    assert before["automatic_clustering"] == "ON"
    assert grants(account) == [("SELECT", "READER")]
    # Snowflake mustn't go on clustering what nobody reads.
    assert shown(account, "T__ARCHIVE_1")["automatic_clustering"] == "OFF"


def test_what_an_earlier_attempt_left_gives_the_new_table_no_grants(account: SnowflakeBackend) -> None:
    """COPY GRANTS copies those of a table that is replaced, and not those of the table that is cloned."""
    table = Publications(account, live=LIVE)
    run(account, "GRANT SELECT ON TABLE t TO ROLE reader")
    staged = table.stage(day_rows(0, 2.0), [0], "1")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("dagster_safe_backfill.warehouses.snowflake.swap.Swap.run", interrupted)
        patch.setattr("dagster_safe_backfill.warehouses.snowflake.transaction.Transaction.roll_back", lambda self: None)
        with pytest.raises(KeyboardInterrupt):
            table.publish(staged, "1", strategy="swap")
    run(account, "CREATE OR REPLACE TABLE t__archive_1 (a INT)", "GRANT INSERT ON TABLE t__archive_1 TO ROLE other")
    table.publish(staged, "1", strategy="swap")
    assert grants(account) == [("SELECT", "READER")]


def interrupted(*args: object) -> None:
    raise KeyboardInterrupt


def test_a_rollback_by_a_swap_keeps_the_grants_of_today(account: SnowflakeBackend) -> None:
    table = as_loader(account, Publications(account, live=LIVE, on_schema_change="sync"))
    before = table.live()
    retyped = Query("SELECT CAST('2024-01-01' AS DATE) AS day, 1 AS id, 'five' AS value")
    table.published(retyped, [0], "1", strategy="swap")
    run(account, "GRANT SELECT ON TABLE t TO ROLE analyst", "ALTER TABLE t CLUSTER BY (day)")
    table.rollback("1")
    assert table.live() == before
    assert grants(account) == [("SELECT", "ANALYST")]
    assert shown(account)["owner"] == "SYSADMIN"


@pytest.mark.parametrize("on_schema_change", ["raise", "sync"])
def test_a_table_with_a_stream_is_not_swapped(account: SnowflakeBackend, on_schema_change: Any) -> None:
    table = Publications(account, live=LIVE, on_schema_change=on_schema_change)
    run(account, "CREATE STREAM changes ON TABLE t", "CREATE TABLE tt (a INT)", "CREATE STREAM others ON TABLE tt")
    rows: Any = day_rows(0, 2.0)
    if on_schema_change == "sync":
        rows = Query("SELECT CAST('2024-01-01' AS DATE) AS day, 1 AS id, 'five' AS value")
    with pytest.raises(sb.SwapError, match=r"the stream CHANGES is on this table.*may_lose=\[\"streams\"\]"):
        table.published(rows, [0], "1", strategy="swap")
    assert table.values() == {0: [1.0] * 3, 1: [1.0] * 3}
    assert not table.read("SELECT 1 FROM duckdb_tables() WHERE table_name LIKE 't__archive%'")
    table.published(day_rows(0, 2.0), [0], "2", strategy="merge")
    assert table.values()[0] == [2.0] * 3


def test_a_stream_is_lost_if_it_may_be(account: SnowflakeBackend) -> None:
    table = Publications(account, live=LIVE, may_lose=("streams",))
    run(account, "CREATE STREAM changes ON TABLE t")
    table.published(day_rows(0, 2.0), [0], "1", strategy="swap")
    assert table.values()[0] == [2.0] * 3
    with account.session() as session:
        (stream,) = session.cursor().execute("SHOW STREAMS IN ACCOUNT").fetchall()  # type: ignore[union-attr]
    assert stream[2].endswith(".T__ARCHIVE_1")


@pytest.mark.parametrize("may_lose", [(), ("owner",)])
def test_an_owner_who_cannot_be_kept(account: SnowflakeBackend, may_lose: Any) -> None:
    """As in a schema with managed access, where an owner can't give a table away."""
    table = as_loader(account, Publications(account, live=LIVE, may_lose=may_lose))
    assert account.emulator.account is not None
    account.emulator.account.user("tester").denied = frozenset({"MANAGE GRANTS"})
    try:
        if may_lose:
            table.published(day_rows(0, 2.0), [0], "1", strategy="swap")
            assert shown(account)["owner"] == "LOADER"
            return
        with pytest.raises(sb.SwapError, match='its owner is ROLE "SYSADMIN", and a swap would give it to the role'):
            table.published(day_rows(0, 2.0), [0], "1", strategy="swap")
    finally:
        account.emulator.account.user("tester").denied = frozenset()
    assert table.values() == {0: [1.0] * 3, 1: [1.0] * 3}
    assert shown(account)["owner"] == "SYSADMIN"
    assert not table.read("SELECT 1 FROM duckdb_tables() WHERE table_name LIKE 't__archive%'")


@pytest.mark.parametrize(("is_restless", "times"), [(False, 2), (True, 4)])
def test_a_table_that_did_not_change_is_hashed_twice(account: SnowflakeBackend, is_restless: bool, times: int) -> None:
    """Once as it was, in case that the token moves later, and once as it will be. A token may move without a change."""
    table = Publications(account, live=LIVE)
    staged = table.stage(day_rows(0, 2.0), [0], "1")
    account.emulator.switch(is_restless=is_restless)
    try:
        table.publish(staged, "1", strategy="swap")
    finally:
        account.emulator.switch(is_restless=False)
    assert table.values() == {0: [2.0] * 3, 1: [1.0] * 3}
    assert len(sent(account, HASHED)) == times


@pytest.mark.parametrize("moment", ["CREATE TRANSIENT TABLE|CREATE TABLE", "COMMENT ON TABLE"])
def test_a_change_at_any_moment_of_a_swap_is_not_lost(
    account: SnowflakeBackend, moment: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from dagster_safe_backfill.warehouses.snowflake.driver import Connection

    table = Publications(account, live=LIVE)
    staged = table.stage(day_rows(0, 2.0), [0], "1")
    execute, is_done = Connection.execute, []

    def held(self: Connection, sql: str, **options: Any) -> Any:
        found = execute(self, sql, **options)
        if re.match(rf"({moment}) .*ARCHIVE", sql) and not is_done:
            is_done.append(sql)
            run(account, "INSERT INTO t (day, id, value) SELECT '2024-01-02'::DATE, 99, 7.0")
        return found

    monkeypatch.setattr(Connection, "execute", held)
    table.publish(staged, "1", strategy="swap")
    assert is_done
    assert table.values() == {0: [2.0] * 3, 1: [1.0, 1.0, 1.0, 7.0]}


@pytest.mark.parametrize("given", ["streams", ["stream"], ["streams", None], 1, None])
def test_what_may_be_lost_is_a_list_of_known_things(given: Any) -> None:
    with pytest.raises(sb.ConfigurationError, match=r"may_lose must be"):
        sb.Swap(may_lose=given)
    assert sb.Swap(may_lose=["owner", "streams"]).may_lose == ("owner", "streams")
