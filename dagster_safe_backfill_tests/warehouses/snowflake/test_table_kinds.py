"""Tables as people make them on Snowflake: virtual columns, defaults, identities, NOT NULL; and what isn't a table."""

from __future__ import annotations

from typing import Any

import dagster as dg
import pytest

import dagster_safe_backfill as sb
from dagster_safe_backfill.model.options import Strategy
from dagster_safe_backfill.model.tables import Query
from dagster_safe_backfill_tests.harness.assets import run_range
from dagster_safe_backfill_tests.harness.publications import STRATEGIES, Publications, day_rows
from dagster_safe_backfill_tests.harness.snowflake_backend import SnowflakeBackend

DAYS = "2024-01-01", "2024-01-01"
DAY = "CAST('2024-01-01' AS DATE) AS day"
by_each = pytest.mark.parametrize("strategy", STRATEGIES)


def with_table(account: SnowflakeBackend, columns: str, *rows: str, **options: Any) -> Publications:
    """Make the table, and fill it as somebody else of Snowflake would."""
    table = Publications(account, live=None, **options)
    account.change(f"CREATE TABLE t ({columns})")
    with account.session() as session:
        for row in rows:
            session.cursor().execute(f"INSERT INTO t {row}")
    return table


def untouched(published: Any) -> bool:
    return not any(one.touched for one in published.row_counts.values())


def computed(*names: str, ids: int = 3, **more: str) -> Query:
    """Return rows of the first day: `id`, and other columns as SQL."""
    known = {"value": "3.0", "note": "'n'"}
    items = [DAY, "column1 AS id", *(f"{known[name]} AS {name}" for name in names)]
    items += [f"{sql} AS {name}" for name, sql in more.items()]
    return Query(f"SELECT {', '.join(items)} FROM (VALUES {', '.join(f'({i})' for i in range(ids))})")


@by_each
def test_a_virtual_column_is_left_out(account: SnowflakeBackend, strategy: Strategy) -> None:
    table = with_table(
        account,
        # The first column is the one that the lock names.
        "twice FLOAT AS (value * 2), day DATE, id BIGINT, value FLOAT, note VARCHAR",
        "(day, id, value) VALUES ('2024-01-01', 0, 1), ('2024-01-01', 1, 1), ('2024-01-02', 0, 1)",
    )
    columns = "day, id, value, twice, note"
    before = table.live(columns)
    # One that is computed all the same is left out as well.
    rows = computed("value", "note", ids=2, twice="7.0") if strategy == "merge" else computed("value", "note", ids=2)
    table.published(rows, [0], "1", strategy=strategy)
    after = table.live(columns)
    assert [row[2:] for row in after] == [(3.0, 6.0, "n"), (3.0, 6.0, "n"), (1.0, 2.0, None)]
    if strategy != "replace":
        assert untouched(table.published(rows, [0], "2", strategy=strategy))
    table.rollback("1")
    assert table.live(columns) == before
    table.rollback("back", run="forward")
    assert table.live(columns) == after


@by_each
def test_a_column_that_is_not_computed_takes_its_default(account: SnowflakeBackend, strategy: Strategy) -> None:
    table = with_table(
        account,
        "day DATE, id BIGINT, value FLOAT DEFAULT -1.5, note VARCHAR, kind VARCHAR(9) NOT NULL DEFAULT 'new',"
        " loaded TIMESTAMP_LTZ DEFAULT CURRENT_TIMESTAMP(), number INT AUTOINCREMENT, other INT IDENTITY(100, 10)",
        "(day, id, note) VALUES ('2024-01-01', 0, 'old'), ('2024-01-01', 1, 'old'), ('2024-01-01', 2, 'old')",
        on_missing_column="fill" if strategy == "swap" else "refuse",
    )
    columns = "day, id, value, note, kind, loaded, number, other"
    before = table.live(columns)
    rows = Query(f"SELECT {DAY}, column1 AS id, 'n' AS note FROM (VALUES (2), (3), (4))")
    table.published(rows, [0], "1", strategy=strategy)
    live = table.live(columns)
    assert [row[1:5] for row in live] == [(i, -1.5, "n", "new") for i in (2, 3, 4)]
    assert None not in [value for row in live for value in row[5:]]
    assert len({row[6] for row in live}) == len({row[7] for row in live}) == 3
    if strategy != "replace":
        # The row that was there before was changed, and keeps what it was given when it was inserted.
        assert live[0][5:] == before[2][5:]
        assert untouched(table.published(rows, [0], "2", strategy=strategy))
        assert table.live(columns) == live
    table.rollback("1", force=strategy == "replace")
    assert table.live(columns) == before


def test_columns_with_defaults_can_be_computed(account: SnowflakeBackend) -> None:
    table = with_table(
        account,
        "day DATE, id BIGINT AUTOINCREMENT, value FLOAT DEFAULT 5, note VARCHAR DEFAULT CURRENT_USER()",
    )
    table.published([(0, 7, 2.0, None)], [0], "1")
    assert table.live("id, value, note") == [(7, 2.0, None)]


def test_a_null_where_none_may_be_is_refused_before_anything_is_written(account: SnowflakeBackend) -> None:
    table = with_table(account, "day DATE, id BIGINT, value FLOAT NOT NULL, note VARCHAR", on_missing_column="fill")
    with pytest.raises(sb.SchemaMismatchError, match="value is missing, and has no default and can't be NULL"):
        table.published(computed("note"), [0], "1")
    assert table.read("SELECT count(*) FROM duckdb_tables() WHERE contains(table_name, '__shadow_')") == [(0,)]


def test_a_dynamic_table_is_named(account: SnowflakeBackend) -> None:
    table = Publications(account, live=None)
    account.change(
        "CREATE TABLE other (day DATE, id BIGINT, value FLOAT, note VARCHAR)",
        "CREATE DYNAMIC TABLE t TARGET_LAG = '1 minute' WAREHOUSE = w AS SELECT * FROM other",
    )
    for strategy in STRATEGIES:
        with pytest.raises(
            sb.ConfigurationError, match=r"main\.t is a dynamic table.*Rename or drop the dynamic table"
        ):
            table.published(day_rows(0, 1.0), [0], "1", strategy=strategy)


@pytest.mark.parametrize("word", ["ICEBERG", "HYBRID", "EXTERNAL", "EVENT"])
def test_a_table_of_another_kind_is_named_before_anything_is_computed(
    account: SnowflakeBackend, word: str, instance: dg.DagsterInstance
) -> None:
    calls: list[sb.PartitionSlice] = []

    @sb.wap_asset(
        partitions_def=dg.DailyPartitionsDefinition("2024-01-01", end_date="2024-01-05"),
        partition_expr="day",
        backfill_policy=sb.single_run(),
    )
    def t(partitions: sb.PartitionSlice) -> sb.Query:
        calls.append(partitions)
        return computed("value", "note")

    account.change(f"CREATE {word} TABLE t (day DATE, id BIGINT, value FLOAT, note VARCHAR)")
    kind = "Iceberg" if word == "ICEBERG" else word.lower()
    match = rf"main\.t is an? {kind} table, .*Rename or drop the {kind} table"
    with pytest.raises(sb.ConfigurationError, match=match):
        run_range([t], *DAYS, io_manager=account.io_manager, instance=instance, raise_on_error=True)
    assert calls == []
    table = Publications(account, live=None)
    for strategy in STRATEGIES:
        with pytest.raises(sb.ConfigurationError, match=match):
            table.published(day_rows(0, 1.0), [0], "1", strategy=strategy)
    assert table.tables("__shadow") == table.tables("__archive") == []


@pytest.mark.parametrize(
    "made",
    ["CREATE TRANSIENT TABLE t ({})", "CREATE TABLE t ({}) DATA_RETENTION_TIME_IN_DAYS = 0"],
    ids=["transient", "retention 0"],
)
@by_each
def test_a_table_without_time_travel_has_a_way_back(account: SnowflakeBackend, strategy: Strategy, made: str) -> None:
    """Archives are tables of their own, so nothing rests on time travel."""
    table = Publications(account, live=None)
    account.change(made.format("day DATE, id BIGINT, value FLOAT, note VARCHAR"))
    table.published(day_rows(0, 1.0), [0], "0", strategy=strategy)
    before = table.live()
    table.published(day_rows(0, 2.0), [0], "1", strategy=strategy)
    assert table.values() == {0: [2.0] * 3}
    if strategy != "replace":
        assert untouched(table.published(day_rows(0, 2.0), [0], "2", strategy=strategy))
    table.rollback("1", force=strategy == "replace")
    assert table.live() == before


@by_each
def test_a_clone_that_lacks_what_others_just_removed_is_tried_again(
    account: SnowflakeBackend, strategy: Strategy, caplog: pytest.LogCaptureFixture
) -> None:
    """Without retention, a change during CLONE removes what the clone reads: error 707."""
    assert account.emulator.account is not None
    table = Publications(account, live=day_rows(0, 1.0))
    # Longer than an attempt takes, also on a busy machine: the next is only made within this time.
    table.warehouse = account.manager(lock_timeout=20).warehouse()
    staged = table.stage(day_rows(0, 2.0), [0], "1")
    account.emulator.account.failing_clones = 1
    table.publish(staged, "1", strategy=strategy)
    assert account.emulator.account.failing_clones == 0
    assert table.values() == {0: [2.0] * 3}
    table.rollback("1")
    assert table.values() == {0: [1.0] * 3}


def test_catalog_looks_are_not_more_than_before(account: SnowflakeBackend) -> None:
    """One DESCRIBE for each former description of the table; its kind comes with the comment that `recover` reads."""
    table = Publications(account, live=day_rows(0, 1.0))
    table.published(day_rows(0, 2.0), [0], "1")
    said = [one["sql"] for one in account.emulator.history(account.database)]
    assert sum(sql.startswith("SHOW TABLES IN SCHEMA") for sql in said) == 2
    assert not any("INFORMATION_SCHEMA.TABLES" in sql for sql in said)
    assert not any("INFORMATION_SCHEMA.COLUMNS" in sql for sql in said)
