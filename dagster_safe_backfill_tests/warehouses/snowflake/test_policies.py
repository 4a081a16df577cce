"""Masking, row-access and other policies: a table that has one is refused before anything is computed or written."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import dagster as dg
import pytest

import dagster_safe_backfill as sb
from dagster_safe_backfill.model.options import Strategy
from dagster_safe_backfill.warehouses.base import STATEMENTS
from dagster_safe_backfill_tests.harness.assets import run_range
from dagster_safe_backfill_tests.harness.publications import STRATEGIES, Publications, day_rows
from dagster_safe_backfill_tests.harness.snowflake.users import User
from dagster_safe_backfill_tests.harness.snowflake_backend import SnowflakeBackend
from dagster_safe_backfill_tests.warehouses.snowflake.conftest import Run

by_each = pytest.mark.parametrize("strategy", STRATEGIES)

HIDDEN = "CREATE MASKING POLICY hidden AS (v VARCHAR) RETURNS VARCHAR -> '***'"
MASKED = "ALTER TABLE t MODIFY COLUMN note SET MASKING POLICY hidden"
OLD, NEW = [(0, n, 1.0, "old") for n in range(3)], [(0, n, 2.0, "new") for n in range(3)]
POLICIES = {
    "masking": ([HIDDEN, MASKED], "the masking policy HIDDEN of the column note"),
    "row access": (
        [
            "CREATE ROW ACCESS POLICY few AS (i BIGINT) RETURNS BOOLEAN -> i = 0",
            "ALTER TABLE t ADD ROW ACCESS POLICY few ON (id)",
        ],
        "the row access policy FEW",
    ),
    "by tag": (
        [
            HIDDEN,
            "CREATE TAG private",
            "ALTER TAG private SET MASKING POLICY hidden",
            "ALTER TABLE t MODIFY COLUMN note SET TAG private = 'yes'",
        ],
        "the masking policy HIDDEN of the column note, by the tag PRIVATE",
    ),
    "aggregation": (
        [
            "CREATE AGGREGATION POLICY groups AS () RETURNS AGGREGATION_CONSTRAINT -> AGGREGATION_CONSTRAINT(5)",
            "ALTER TABLE t SET AGGREGATION POLICY groups",
        ],
        "the aggregation policy GROUPS",
    ),
    "projection": (
        [
            "CREATE PROJECTION POLICY none AS () RETURNS PROJECTION_CONSTRAINT -> NULL",
            "ALTER TABLE t MODIFY COLUMN note SET PROJECTION POLICY none",
        ],
        "the projection policy NONE of the column note",
    ),
}
by_policy = pytest.mark.parametrize(("statements", "named"), POLICIES.values(), ids=[*POLICIES])


@contextmanager
def loader(account: SnowflakeBackend, table: Publications, *denied: str) -> Iterator[None]:
    """Let the library work as a role that doesn't own the table, and whose user lacks privileges."""
    assert account.emulator.account is not None
    users = account.emulator.account.users
    users["LOADER"] = User(denied=frozenset(denied))
    was = table.warehouse
    table.warehouse = account.manager(user="loader", role="loader").warehouse()
    try:
        yield
    finally:
        table.warehouse = was
        del users["LOADER"]


def table_of(account: SnowflakeBackend) -> Publications:
    """Return a table that somebody of another role owns."""
    return Publications(account, live=[*OLD, *day_rows(1, 1.0)])


def test_what_a_role_sees_of_a_table_with_policies(run: Run) -> None:
    run("CREATE TABLE t AS SELECT column1 AS id, column2 AS note FROM (VALUES (0, 'a'), (1, 'b'))")
    run(HIDDEN)
    run(MASKED)
    for statement in POLICIES["row access"][0]:
        run(statement)
    assert run("SELECT * FROM t") == [(0, "***")]
    assert [row[-1] for row in run("DESCRIBE TABLE t")][1].endswith(".HIDDEN")
    run("CREATE TABLE clone CLONE t")
    run("CREATE TABLE copy AS SELECT * FROM t")
    assert run("SELECT * FROM clone") == run("SELECT * FROM copy") == [(0, "***")]
    run("DELETE FROM t")
    run("ALTER TABLE t DROP ROW ACCESS POLICY few")
    run("ALTER TABLE t MODIFY COLUMN note UNSET MASKING POLICY")
    assert run("SELECT * FROM t") == [(1, "b")], "what isn't seen isn't deleted"
    references = "SELECT * FROM TABLE(INFORMATION_SCHEMA.POLICY_REFERENCES(REF_ENTITY_NAME => '{}', {}))"
    of = "REF_ENTITY_DOMAIN => 'TABLE'"
    assert {row[3] for row in run(references.format("CLONE", of))} == {"MASKING_POLICY", "ROW_ACCESS_POLICY"}
    assert run(references.format("COPY", of)) == run(references.format("T", of)) == []


@by_each
@by_policy
def test_a_table_with_a_policy_is_refused_before_anything_is_written(
    account: SnowflakeBackend, statements: list[str], named: str, strategy: Strategy
) -> None:
    table = table_of(account)
    before = table.live()
    account.change(*statements)
    with pytest.raises(sb.ConfigurationError, match=rf"main\.t has {named}") as refused:
        table.published(NEW, [0], "1", strategy=strategy)
    assert "role SYSADMIN" in str(refused.value)
    assert table.live() == before
    assert table.tables("__shadow") == table.tables("__archive") == []


@by_each
@by_policy
def test_a_table_that_got_a_policy_is_not_rolled_back(
    account: SnowflakeBackend, statements: list[str], named: str, strategy: Strategy
) -> None:
    table = table_of(account)
    before = table.live()
    table.published(NEW, [0], "1", strategy=strategy)
    live = table.live()
    account.change(*statements)
    with pytest.raises(sb.ConfigurationError, match=named):
        table.rollback("1")
    assert table.live() == live
    undone = {
        "masking": "MODIFY COLUMN note UNSET MASKING POLICY",
        "row access": "DROP ROW ACCESS POLICY few",
        "aggregation": "UNSET AGGREGATION POLICY",
        "projection": "MODIFY COLUMN note UNSET PROJECTION POLICY",
        "by tag": "MODIFY COLUMN note UNSET TAG private",
    }
    (done,) = [sql for kind, sql in undone.items() if POLICIES[kind][0] is statements]
    account.change(f"ALTER TABLE t {done}")
    table.rollback("1")
    assert table.live() == before


def test_a_function_is_not_called_for_a_table_with_a_policy(
    account: SnowflakeBackend, instance: dg.DagsterInstance
) -> None:
    calls: list[Any] = []

    @sb.wap_asset(
        partitions_def=dg.DailyPartitionsDefinition("2024-01-01", end_date="2024-01-05"),
        partition_expr="day",
        unique_key=["day", "id"],
        backfill_policy=sb.single_run(),
    )
    def t(partitions: sb.PartitionSlice) -> sb.Query:
        calls.append(partitions)
        return sb.Query("SELECT * FROM t LIMIT 0")

    table_of(account)
    account.change(HIDDEN, MASKED)
    with pytest.raises(sb.ConfigurationError, match="the masking policy HIDDEN of the column note"):
        run_range(
            [t], "2024-01-01", "2024-01-02", io_manager=account.io_manager, instance=instance, raise_on_error=True
        )
    assert calls == []


def test_a_plain_asset_is_refused_too(account: SnowflakeBackend, instance: dg.DagsterInstance) -> None:
    @dg.asset(
        partitions_def=dg.DailyPartitionsDefinition("2024-01-01", end_date="2024-01-05"),
        metadata={"partition_expr": "day"},
        backfill_policy=sb.single_run(),
    )
    def t() -> sb.Query:
        return sb.Query("SELECT CAST('2024-01-01' AS DATE) AS day, 1 AS id, 1.0 AS value, 'x' AS note")

    table = table_of(account)
    before = table.live()
    account.change(HIDDEN, MASKED)
    with pytest.raises(sb.ConfigurationError, match="the masking policy HIDDEN of the column note"):
        run_range(
            [t], "2024-01-01", "2024-01-01", io_manager=account.io_manager, instance=instance, raise_on_error=True
        )
    assert table.live() == before


# --- a role that isn't told of policies


@pytest.mark.parametrize("denied", ["APPLY POLICY", "POLICY_REFERENCES"])
@by_each
def test_a_role_that_sees_fewer_rows_than_there_are_is_refused(
    account: SnowflakeBackend, strategy: Strategy, denied: str
) -> None:
    table = table_of(account)
    before = table.live()
    account.change(*POLICIES["row access"][0])
    with loader(account, table, denied), pytest.raises(sb.ConfigurationError, match="LOADER sees 2 of the 6 rows"):
        table.published(NEW, [0], "1", strategy=strategy)
    assert table.live() == before


def test_a_role_that_is_not_told_of_a_mask_still_reads_of_it_in_the_description(account: SnowflakeBackend) -> None:
    table = table_of(account)
    account.change(HIDDEN, MASKED)
    with loader(account, table, "POLICY_REFERENCES"), pytest.raises(sb.ConfigurationError, match="masking policy"):
        table.published(NEW, [0], "1")


@pytest.mark.parametrize("denied", [(), ("APPLY POLICY",), ("POLICY_REFERENCES", "ROW_COUNT")])
@pytest.mark.parametrize("strategy", ["merge", "replace"])
def test_a_role_that_sees_all_rows_may_publish(
    account: SnowflakeBackend, strategy: Strategy, denied: tuple[str, ...], caplog: pytest.LogCaptureFixture
) -> None:
    table = table_of(account)
    before = table.live()
    with loader(account, table, *denied), caplog.at_level("INFO"):
        table.published(NEW, [0], "1", strategy=strategy)
        assert {row[3] for row in table.live() if row[3]} == {"new"}
        table.rollback("1")
    assert table.live() == before
    assert "the role LOADER doesn't own main.t" in caplog.text


def test_policies_are_asked_for_once_a_session(account: SnowflakeBackend, caplog: pytest.LogCaptureFixture) -> None:
    table = table_of(account)
    with caplog.at_level("DEBUG", STATEMENTS.name):
        staged = table.stage(NEW, [0], "1")
        table.publish(staged, "1")
    said = [record.message for record in caplog.records if record.name == STATEMENTS.name]
    # One session stages, and another one publishes.
    assert sum("POLICY_REFERENCES" in sql for sql in said) == 2
    assert not any("ROW_COUNT" in sql for sql in said), "the owner is told of all policies"
