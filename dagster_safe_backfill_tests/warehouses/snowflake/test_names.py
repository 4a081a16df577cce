"""Names and paths that need quotes, schemas that the role can't create, and columns that are added."""

from __future__ import annotations

import itertools
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path, PureWindowsPath
from typing import Any

import pyarrow as pa
import pytest

import dagster_safe_backfill as sb
from dagster_safe_backfill.model.options import Strategy
from dagster_safe_backfill.model.tables import Column, Query, TableRef
from dagster_safe_backfill.sql import terms
from dagster_safe_backfill.wap.tables.store import store
from dagster_safe_backfill.warehouses.snowflake.driver import Connection
from dagster_safe_backfill.warehouses.snowflake.frames import file_literal
from dagster_safe_backfill.warehouses.snowflake.generator import DIALECT
from dagster_safe_backfill_tests.harness.audited import frame
from dagster_safe_backfill_tests.harness.publications import STRATEGIES, Publications, day_rows
from dagster_safe_backfill_tests.harness.snowflake.emulator import Emulator
from dagster_safe_backfill_tests.harness.snowflake_backend import SnowflakeBackend


@pytest.fixture
def account(snowflake_emulator: Emulator) -> Iterator[SnowflakeBackend]:
    """A database that is reached without HTTP, as most here is of many cases."""
    with SnowflakeBackend.fresh(snowflake_emulator) as made:
        yield made


COLUMNS = ("FlightDate", "order", "my col", "it's", 'say "hi"', "ünï", "a.b", "a--b")
PLACES = (("my schema", "my table"), ("it's", "it's"), ("order", "select"), ("ünï", 'say "hi"'))
CASES = (
    *(
        (column, ("main", "t"), strategy)
        for column, strategy in zip(COLUMNS, itertools.cycle(STRATEGIES), strict=False)
    ),
    *(("day", place, strategy) for place, strategy in zip(PLACES, itertools.cycle(STRATEGIES), strict=False)),
)


def quoted(name: str) -> str:
    """Return a name as Snowflake stores it, in quotes."""
    return '"' + (name.upper() if name == name.lower() else name).replace('"', '""') + '"'


def test_any_first_column_and_any_table_is_published_and_rolled_back(account: SnowflakeBackend) -> None:
    """The first column is also what locks the table, and the partition column, and of the key."""
    table = Publications(account, live=None)
    for number, (column, (schema, name), strategy) in enumerate(CASES):
        ref = TableRef(schema=schema, name=f"{name}{number}")
        table.spec = replace(
            table.spec, table=ref, partition_expr={None: quoted(column)}, unique_key=(column, "id"), on_empty="allow"
        )

        def staged(value: float, run: str, *, column: str = column) -> Any:
            # A frame's columns are upper-cased, a query's are as they are.
            days = "(VALUES ('2024-01-01'::DATE), ('2024-01-02'::DATE)) AS d (d), (VALUES (1), (2), (3)) AS n (n)"
            sql = f"SELECT d.d AS {quoted(column)}, n.n AS id, {value}::FLOAT AS value FROM {days}"
            return table.stage(Query(sql), [0, 1], run)

        place = f"{quoted('MAIN_' if schema == 'main' else schema)}.{quoted(f'{name}{number}'.upper())}"
        # The second publication locks what is live, and the way back does.
        for value in (1.0, 2.0):
            run = f"{number}-{value}"
            table.publish(staged(value, run), run, strategy=strategy)
            assert account.read(f"SELECT DISTINCT value FROM {place}") == [(value,)], (column, place)
        table.rollback(f"{number}-2.0", run=f"back{number}")
        assert account.read(f"SELECT count(*), min(value), max(value) FROM {place}") == [(6, 1.0, 1.0)], (column, place)


# Paths


FOLDERS = ("with space", "ünï—code", 'say "hi"', "per%20cent", "semi;colon", "a#b", "back\\slash", "-- x", "$a")


def test_frames_load_whatever_the_temporary_folder_is_called(
    account: SnowflakeBackend, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = frame(day_rows(0, 1.0))
    for name in FOLDERS:
        folder = tmp_path / name
        folder.mkdir()
        monkeypatch.setattr(tempfile, "tempdir", str(folder))
        with account.warehouse.connect() as connection, connection.load(rows) as relation:
            counted = connection.query(terms.exp.select("count(*)").from_(relation))
        assert counted == [(3,)], name
        assert [*folder.iterdir()] == []
    for name in ("a*b", "a?b", "a[b]", "it's"):
        folder = tmp_path / name
        folder.mkdir()
        monkeypatch.setattr(tempfile, "tempdir", str(folder))
        with (
            pytest.raises(sb.ConfigurationError, match="Set TMPDIR to a folder without them"),
            account.warehouse.connect() as connection,
            connection.load(rows),
        ):
            pass
    windows = PureWindowsPath("C:\\Users\\ED29FE~1.WIN\\My Temp\\rows.parquet")
    assert file_literal(windows) == "'file://C:/Users/ED29FE~1.WIN/My Temp/rows.parquet'"


# Schemas


def test_a_schema_that_is_there_needs_no_privilege_and_one_that_is_not_says_which(account: SnowflakeBackend) -> None:
    assert account.emulator.account is not None
    account.emulator.account.user("tester").denied = frozenset({"CREATE SCHEMA"})
    try:
        table = Publications(account, live=day_rows(0, 1.0))
        for strategy in STRATEGIES:
            table.publish(table.stage(day_rows(0, 2.0), [0], strategy), strategy, strategy=strategy)
            table.rollback(strategy, run=f"back-{strategy}")
        table.spec = replace(table.spec, table=TableRef(schema="missing", name="t"))
        with pytest.raises(sb.WarehouseError, match="or CREATE SCHEMA on the database"):
            table.stage(day_rows(0, 2.0), [0], "1")
    finally:
        account.emulator.account.user("tester").denied = frozenset()


def test_a_schema_that_is_created_is_nobodys_current_one(account: SnowflakeBackend) -> None:
    """So that a user's names without a schema mean the same before and after it."""
    account.change("CREATE TABLE source AS SELECT '2024-01-01'::DATE AS day, 1 AS id, 7.0 AS value, 'x' AS note")
    table = Publications(account, live=None)
    table.spec = replace(table.spec, table=TableRef(schema="brand_new", name="t"))
    query = Query("SELECT day, id, value, note FROM source")
    table.publish(table.stage(query, [0], "1"), "1")
    assert account.read("SELECT value FROM brand_new.t") == [(7,)]
    told = [one["sql"] for one in account.emulator.history(account.database) if one["query_tag"]]
    assert [sql for sql in told if sql.startswith("CREATE SCHEMA")] == ['CREATE SCHEMA IF NOT EXISTS "BRAND_NEW"']


# Columns


ADDED: tuple[tuple[str, str, Any], ...] = (
    ("NUMBER(38,0)", "1 + 1", 2),
    ("NUMBER(10,2)", "-1.5", -1.5),
    ("VARCHAR", "'it''s' || ' x'", "it's x"),
    ("BOOLEAN", "1 = 1", True),
    ("FLOAT", "0.0", 0.0),
    ("FLOAT", "1.0::FLOAT / 3", 1 / 3),
    ("DATE", "'2024-02-29'", "2024-02-29"),
    ("TIMESTAMP_NTZ", "'2024-02-29 01:02:03.456789'", "2024-02-29 01:02:03.456789"),
    ("TIME", "'01:02:03'", "01:02:03"),
    ("VARIANT", "PARSE_JSON('{\"a\":1}')", '{"a":1}'),
    ("DATE", "NULL", None),
)


def columns_of(account: SnowflakeBackend, name: str) -> list[Any]:
    """Return the value of a column that all rows have, as text where it isn't a number."""
    values = account.read(f'SELECT DISTINCT "{name.upper()}" FROM t')
    return [value if isinstance(value, int | float | bool) or value is None else str(value) for (value,) in values]


def test_added_columns_are_filled_whatever_their_type(account: SnowflakeBackend) -> None:
    account.create("t", pa.table({"id": [1, 2, 3]}))
    columns = {
        Column(name=f"c{n}", type=kind): terms.parsed(sql, dialect=DIALECT, option="test")
        for n, (kind, sql, _) in enumerate(ADDED)
    }
    account.change("COMMENT ON TABLE t IS 'it''s mine'")
    with account.warehouse.connect() as connection:
        for _ in range(2):
            connection.tables.add_columns(TableRef(schema="main", name="t"), columns)
            for n, (kind, sql, value) in enumerate(ADDED):
                found = columns_of(account, f"c{n}")
                assert found == [value] or float(found[0]) == value, (kind, sql)
    assert account.read("SELECT comment FROM duckdb_tables() WHERE table_name = 't'") == [("it's mine",)]


@contextmanager
def stopped_at(monkeypatch: pytest.MonkeyPatch, at: int) -> Iterator[list[str]]:
    """End the session before the n-th change of an ALTER, an UPDATE or a COMMENT, as a kill does."""
    execute = Connection.execute
    seen: list[str] = []

    def dying(self: Connection, sql: str, **options: Any) -> Any:
        if sql.startswith(("ALTER", "UPDATE", "COMMENT")):
            seen.append(sql)
        if len(seen) > at:
            raise KeyboardInterrupt
        return execute(self, sql, **options)

    with monkeypatch.context() as patch:
        patch.setattr(Connection, "execute", dying)
        yield seen


Publish = Callable[[Publications, str, Strategy], None]


def publish(table: Publications, run: str, strategy: Strategy) -> None:
    rows = frame(day_rows(0, 2.0)).append_column("since", pa.array([None] * 3, pa.date32()))
    staged = table.stage(rows, [0], run)
    table.publish(staged, run, strategy=strategy, on_schema_change="add_columns", column_defaults=DEFAULTS)


DEFAULTS = {"since": "'2020-01-01'"}


def write_plainly(table: Publications, run: str, strategy: Strategy) -> None:
    from dagster_safe_backfill.model.states import Origin
    from dagster_safe_backfill_tests.harness.audited import slice_of

    rows = frame(day_rows(0, 2.0)).append_column("since", pa.array([None] * 3, pa.date32()))
    with table.warehouse.connect() as connection:
        origin = Origin(run_id=run, publication_id=run)
        store(connection, rows, spec=table.spec, partition_slice=slice_of([0]), origin=origin)


@pytest.mark.parametrize("how", [publish, write_plainly])
def test_columns_are_filled_by_the_next_run_if_one_was_killed_at_any_statement(
    how: Publish, account: SnowflakeBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The day that isn't published gets the value, and each run before is killed one statement later."""
    for at in range(8):
        with account.another() as one:
            assert isinstance(one, SnowflakeBackend)
            table = Publications(
                one,
                live=[*day_rows(0, 1.0), *day_rows(1, 1.0)],
                on_schema_change="add_columns",
                column_defaults=DEFAULTS,
            )
            one.change("COMMENT ON TABLE t IS 'mine'")
            with stopped_at(monkeypatch, at) as seen, suppress(KeyboardInterrupt):
                how(table, "1", "merge")
            how(table, "2", "merge")
            since = one.read("SELECT DISTINCT day::VARCHAR, since::VARCHAR FROM t ORDER BY 1")
            assert since == [("2024-01-01", None), ("2024-01-02", "2020-01-01")], seen
            assert one.read("SELECT comment FROM duckdb_tables() WHERE table_name = 't'") == [("mine",)], seen
