"""What the library sends to Snowflake: how many statements, how long, and what comes after an error."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import dagster as dg
import pyarrow as pa
import pytest
from sqlglot import exp

import dagster_safe_backfill as sb
from dagster_safe_backfill.model.options import Strategy
from dagster_safe_backfill.model.slices import KeyDimension, PartitionColumn, PartitionSlice, TableSlice
from dagster_safe_backfill.model.tables import Query, TableRef, TableSpec
from dagster_safe_backfill.sql import staging, terms
from dagster_safe_backfill.sql.slicing import ambiguous_keys, inside
from dagster_safe_backfill.wap.ledger.waiting import staged_partitions
from dagster_safe_backfill.warehouses.base import STATEMENTS
from dagster_safe_backfill.warehouses.snowflake.dialect import SnowflakeDialect
from dagster_safe_backfill_tests.harness.assets import Source, events, run_range
from dagster_safe_backfill_tests.harness.publications import STRATEGIES, Publications, day_rows
from dagster_safe_backfill_tests.harness.snowflake.emulator import Emulator
from dagster_safe_backfill_tests.harness.snowflake.grammar import snowflake_problems
from dagster_safe_backfill_tests.harness.snowflake.proxy import proxied
from dagster_safe_backfill_tests.harness.snowflake_backend import SnowflakeBackend
from dagster_safe_backfill_tests.runs.test_staged import Shop


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
    account.change("UPDATE t SET value = 9")
    with pytest.raises(sb.PublishConflictError):
        table.publish(staged, "1", strategy=strategy)
    history = account.emulator.history(account.database)
    assert [one["sql"] for one in history if one["session"] == _session_of(history, "UPDATE")][-1] == "ROLLBACK"
    assert {value for (value,) in account.read("SELECT value FROM t")} == {9.0}


def _session_of(history: list[dict[str, Any]], word: str) -> int:
    return next(one["session"] for one in reversed(history) if one["sql"].startswith(word))


def test_a_swap_that_the_ledger_does_not_know_is_undone_by_the_next_publication(
    account: SnowflakeBackend, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """As after a kill between SWAP WITH and the ledger's COMMIT: neither rolls back, nor cleans up."""
    from dagster_safe_backfill.wap import publish
    from dagster_safe_backfill.warehouses.snowflake.transaction import Transaction

    table = Publications(account, live=day_rows(0, 1.0))
    staged = table.stage(day_rows(0, 2.0), [0], "1")
    with monkeypatch.context() as patch:
        patch.setattr(Transaction, "roll_back", lambda self: self.own.execute("ROLLBACK"))
        patch.setattr(Transaction, "close", lambda self, *, is_committed: None)

        def killed(*args: Any, **kwargs: Any) -> None:
            raise KeyboardInterrupt

        patch.setattr(publish, "record_change", killed)
        with pytest.raises(KeyboardInterrupt):
            table.publish(staged, "1", strategy="swap")
    assert table.values() == {0: [2.0] * 3}, "it was swapped"
    with caplog.at_level("WARNING"):
        published = table.publish(staged, "1", strategy="swap")
    assert "was not recorded, and is undone" in caplog.text
    assert table.values() == {0: [2.0] * 3}
    assert published.archive is not None
    assert {value for (value,) in table.read(f"SELECT value FROM {published.archive.name}")} == {1.0}
    assert table.rollback("1").row_counts
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


MANY = tuple(map(str, range(16_500)))
"""More keys than a list may hold."""


def longest(statement: exp.Expr) -> int:
    return max(len(listed.expressions) for listed in statement.find_all(exp.In, exp.Values))


def test_lists_that_are_too_long_are_split(account: SnowflakeBackend) -> None:
    dimension = KeyDimension(values=MANY)
    keys = PartitionSlice(keys=MANY, dimensions=(dimension,))
    column = PartitionColumn(
        name="k",
        sql="k",
        type_name="NUMBER(38,0)",
        keeps="other",
        timezone=None,
        dialect=SnowflakeDialect(),
    )
    table = TableRef(schema="main", name="t")
    spec = TableSpec(table=table)
    source = exp.select(terms.column("k")).from_(terms.table(table))
    statements = [
        ambiguous_keys([(dimension, column)], source),
        source.copy().where(inside(TableSlice(spec=spec, partition_slice=keys, columns={None: column}))),
        staging.delete_positions(table, range(len(MANY))),
    ]
    assert [longest(statement) for statement in statements] == [16_000] * 3
    account.create("t", pa.table({"k": [1]}))
    with account.warehouse.connect() as connection:
        twice = ambiguous_keys([(KeyDimension(values=("1",), known=(*MANY, "007", "00")), column)], source)
        assert sorted(connection.query(twice)) == [(0, "0", "00", None), (0, "007", "7", None)]


def test_a_list_of_accepted_values_may_be_long(account: SnowflakeBackend) -> None:
    table = Publications(account, live=day_rows(0, 1.0))
    accepted = sb.accepted_values("id", [*range(len(MANY))])
    table.publish(table.stage(day_rows(0, 2.0), [0], "1", audits=[accepted]), "1")
    with account.warehouse.connect() as connection:
        found = staged_partitions(connection, table.spec.table, keys=(*MANY, "2024-01-01"))
    assert [stage.key for stage in found] == ["2024-01-01"]


@sb.wap_asset(
    partitions_def=dg.DailyPartitionsDefinition("2023-01-01", end_date="2024-01-01"),
    partition_expr="day",
    unique_key=["day", "id"],
    audits=[sb.not_null("value"), sb.row_count_between(1, 10_000)],
    backfill_policy=sb.single_run(),
)
def year(partitions: sb.PartitionSlice) -> sb.Query:
    return sb.Query(f"SELECT day, id, value FROM source WHERE {partitions.where('day')}")


def crossed(emulator: Emulator, *, rows_per_day: int) -> dict[str, int]:
    """Return what crossed to and from Python while a year was published, and then published anew."""
    rows = 365 * rows_per_day
    days = pa.array([19_358 + n // rows_per_day for n in range(rows)], pa.int32()).cast(pa.date32())
    with proxied(emulator) as proxy:
        account = SnowflakeBackend(replace(emulator, port=proxy.port))
        account.create("source", pa.table({"day": days, "id": [*range(rows)], "value": [1.0] * rows}))

        def publish() -> tuple[int, int]:
            proxy.forget()
            days = "2023-01-01", "2023-12-31"
            assert run_range([year], *days, io_manager=account.io_manager, instance=instance).success
            return proxy.bytes_to_client(), len(proxy.statements)

        with dg.DagsterInstance.ephemeral() as instance:
            to_python, statements = publish()
            from_python = sum(one.sent for one in proxy.statements)
            to_python_anew, _ = publish()
        assert account.read("SELECT count(*) FROM year") == [(rows,)]
        found = {
            "rows": rows,
            "statements": statements,
            "to_python": to_python,
            "to_python_anew": to_python_anew,
            "from_python": from_python,
            "uploaded": proxy.uploaded,
        }
        emulator.drop(account.database)
    return found


def test_what_crosses_to_python_for_a_year_of_a_query_does_not_grow_with_the_rows(
    emulator: Emulator, capsys: pytest.CaptureFixture[str]
) -> None:
    few, many = (crossed(emulator, rows_per_day=rows) for rows in (200, 2000))
    with capsys.disabled():
        print(f"\n{few}\n{many}")  # noqa: T201 - the figures are wanted
    assert few["uploaded"] == many["uploaded"] == 0
    assert few["statements"] == many["statements"]
    for way in ("to_python", "to_python_anew", "from_python"):
        assert few[way] < 1_000_000
        assert many[way] == pytest.approx(few[way], rel=0.1)


_RANDOM = re.compile(r"[0-9a-fA-F]{32}|[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_LITERAL = re.compile(r"'[^']*'|(?<=[ (])\d+(?=[,) ])")


def once(statements: Iterable[str]) -> list[str]:
    """Return the statements without those that differ but by their literals and by names that are random."""
    forms = {_LITERAL.sub("?", _RANDOM.sub("0", sql)): sql for sql in statements}
    return sorted(forms.values())


AUDITS = [
    sb.not_null("value"),
    sb.unique(),
    sb.in_range("value", 0, 100),
    sb.accepted_values("id", [0, 1, 2]),
    sb.expression("value > 0", name="positive"),
    sb.failing_rows("SELECT * FROM batch WHERE value < 0", name="negative"),
    sb.row_count_between(1, 10),
    sb.aggregate_drift("value", 0.5, max_change=10.0),
    sb.compare(max_removed=1.0),
]


def test_every_statement_is_snowflakes(account: SnowflakeBackend, instance: dg.DagsterInstance) -> None:
    """All that reached the server of each kind of publication, its way back, retention, batches and staged assets."""
    for number, strategy in enumerate(STRATEGIES, start=1):
        table = Publications(account, live=[*day_rows(0, 1.0), *day_rows(1, 1.0)])
        for run, value in (("a", 2.0), ("b", 3.0)):
            audited = table.stage(day_rows(0, value), [0], f"{run}{number}", audits=AUDITS)
            table.publish(audited, f"{run}{number}", strategy=strategy)
        table.rollback(f"b{number}", run=f"back{number}")
        account.change("DROP TABLE t", "DROP TABLE notes")
    table.retire()
    for is_published in (False, True):
        batches = sb.Batches(size=2, publish_each=is_published)
        asset = events(Source(), audits=[sb.row_count_between(1, 100, over="run")], batches=batches)
        assert run_range([asset], "2024-01-01", "2024-01-04", io_manager=account.io_manager, instance=instance).success
    account.change("DROP TABLE events")
    shop = Shop(account.io_manager, instance)
    shop.stage("2024-01-01", "2024-01-02")
    shop.stage("2024-01-03")
    shop.audit()
    assert shop.publish("2024-01-01", "2024-01-03").success
    history = [one["sql"] for one in account.emulator.history(account.database) if one["query_tag"]]
    statements = once(history)
    problems = {sql: found for sql in statements if (found := snowflake_problems(sql))}
    assert problems == {}
    assert len(statements) > 60, len(history)
