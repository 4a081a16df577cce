"""What the library sends to Snowflake: how many statements, how long, and what comes after an error."""

from __future__ import annotations

from typing import Any

import pytest

import dagster_safe_backfill as sb
from dagster_safe_backfill.domain.states import Strategy
from dagster_safe_backfill.domain.tables import Query
from dagster_safe_backfill.warehouses.base import STATEMENTS
from dagster_safe_backfill_tests.publications import STRATEGIES, Publications, day_rows
from dagster_safe_backfill_tests.snowflake.emulator import Emulator
from dagster_safe_backfill_tests.snowflake_backend import SnowflakeBackend


@pytest.fixture
def account(emulator: Emulator) -> Any:
    made = SnowflakeBackend(emulator)
    yield made
    in_transactions = emulator.ddl_in_transactions(made.database)
    emulator.drop(made.database)
    assert in_transactions == []


def said(
    account: SnowflakeBackend, caplog: pytest.LogCaptureFixture, strategy: Strategy, *, days: int, rows: int
) -> list[str]:
    """Return the statements of a publication over a table that has rows of all of the days."""
    live = [row for day in range(4) for row in day_rows(day, 1.0, count=rows)]
    table = Publications(account, live=live)
    data = [row for day in range(days) for row in day_rows(day, 2.0, count=rows)]
    caplog.clear()
    with caplog.at_level("DEBUG", STATEMENTS.name):
        table.published(data, range(days), "1", strategy=strategy)
    return [record.message for record in caplog.records if record.name == STATEMENTS.name]


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_statements_depend_neither_on_the_rows_nor_in_number_on_the_partitions(
    strategy: Strategy, emulator: Emulator, caplog: pytest.LogCaptureFixture
) -> None:
    sizes = {(days, rows): SnowflakeBackend(emulator) for days, rows in ((4, 3), (4, 300), (2, 3))}
    found = {size: said(one, caplog, strategy, days=size[0], rows=size[1]) for size, one in sizes.items()}
    few, many, half = found.values()
    # But for names that are random, and of one length.
    assert [len(sql) for sql in few] == pytest.approx([len(sql) for sql in many], abs=20)
    assert len(half) == len(few)
    for backend in sizes.values():
        assert emulator.ddl_in_transactions(backend.database) == []
        emulator.drop(backend.database)


@pytest.mark.parametrize("strategy", ["merge", "replace"])
def test_an_error_is_followed_by_a_rollback(strategy: Strategy, account: SnowflakeBackend) -> None:
    table = Publications(account, live=day_rows(0, 1.0))
    staged = table.stage(day_rows(0, 2.0), [0], "1")
    account.change("CREATE TABLE t__archive_1 (a INT)")
    with pytest.raises(sb.WarehouseError):
        table.publish(staged, "1", strategy=strategy)
    history = account.emulator.history(account.database)
    assert [one["sql"] for one in history if one["session"] == _session_of(history, "UPDATE")][-1] == "ROLLBACK"
    assert {value for (value,) in account.read("SELECT value FROM t")} == {1.0}


def _session_of(history: list[dict[str, Any]], word: str) -> int:
    return next(one["session"] for one in reversed(history) if one["sql"].startswith(word))


def test_a_swap_that_the_ledger_does_not_know_is_undone_by_the_next_publication(
    account: SnowflakeBackend, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """As after a kill between SWAP WITH and the ledger's COMMIT: neither rolls back, nor cleans up."""
    from dagster_safe_backfill.wap import ledger
    from dagster_safe_backfill.warehouses.snowflake_transactions import Transaction

    table = Publications(account, live=day_rows(0, 1.0))
    staged = table.stage(day_rows(0, 2.0), [0], "1")
    with monkeypatch.context() as patch:
        patch.setattr(Transaction, "roll_back", lambda self: self.own.execute("ROLLBACK"))
        patch.setattr(Transaction, "close", lambda self, *, is_committed: None)

        def killed(*args: Any, **kwargs: Any) -> None:
            raise KeyboardInterrupt

        patch.setattr(ledger, "record_change", killed)
        with pytest.raises(KeyboardInterrupt):
            table.publish(staged, "1", strategy="swap")
    assert table.values() == {0: [2.0] * 3}, "it was swapped"
    with caplog.at_level("WARNING"):
        published = table.publish(staged, "1", strategy="swap")
    assert "was not recorded, and is undone" in caplog.text
    assert table.values() == {0: [2.0] * 3}
    assert published.archive is not None
    assert {value for (value,) in table.read(f"SELECT value FROM {published.archive.name}")} == {1.0}
    assert table.rollback("1").changes
    assert table.values() == {0: [1.0] * 3}


def test_columns_that_are_retyped_and_dropped_come_back_by_a_rollback(account: SnowflakeBackend) -> None:
    live = [(day, n, 1.0, None) for day in (0, 1) for n in range(2)]
    table = Publications(account, live=live, on_schema_change="sync")
    before = table.live()
    text = Query("SELECT CAST('2024-01-01' AS DATE) AS day, 1 AS id, 'five' AS value")
    table.published(text, [0], "1", strategy="swap")
    assert sorted(table.live("id, left(value, 1)")) == [(0, "1"), (1, "1"), (1, "f")]
    assert table.read("SELECT * FROM t__archive_1 ORDER BY ALL") == before
    table.rollback("1")
    assert table.live() == before
