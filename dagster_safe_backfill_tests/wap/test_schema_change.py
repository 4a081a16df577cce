"""Columns that come, go and change their type; tables that are swapped whole; and duplicates that are left out."""

from __future__ import annotations

from typing import Any

import duckdb
import pyarrow as pa
import pytest

import dagster_safe_backfill as sb
from dagster_safe_backfill.model.options import Strategy
from dagster_safe_backfill.model.tables import Query
from dagster_safe_backfill.wap.rollback.rollback import Chosen
from dagster_safe_backfill_tests.harness.audited import Row
from dagster_safe_backfill_tests.harness.backends import Backend
from dagster_safe_backfill_tests.harness.publications import STRATEGIES, Publications, day_rows

pytestmark = pytest.mark.every_warehouse

OLD: list[Row] = [row for day in range(3) for row in day_rows(day, 1.0)]


def day_of(day: int, columns: str) -> Query:
    return Query(f"SELECT DATE '2024-01-01' + {day} AS day, {columns}")


WIDE = day_of(0, "1 AS id, 5.0 AS value, 'n' AS note, 3 AS extra")


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_new_column_is_an_error_unless_asked_for(backend: Backend, strategy: Strategy) -> None:
    table = Publications(backend, live=OLD)
    with pytest.raises(sb.SchemaMismatchError, match="extra is not in the table"):
        table.published(WIDE, [0], "1", strategy=strategy)


@pytest.mark.parametrize("default", [None, "40 + 2"])
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_new_column_is_added_when_the_rows_go_live(backend: Backend, strategy: Strategy, default: str | None) -> None:
    options: dict[str, Any] = {"column_defaults": {"EXTRA": default}} if default else {}
    table = Publications(backend, live=OLD, on_schema_change="add_columns", **options)
    staged = table.stage(WIDE, [0], "1")
    assert len(table.live()[0]) == 4
    table.publish(staged, "1", strategy=strategy)
    assert table.live("day::VARCHAR, id, value, note, extra")[0] == ("2024-01-01", 1, 5.0, "n", 3)
    assert {row[4] for row in table.live()[1:]} == {42 if default else None}


@pytest.mark.differs("snowflake", reason="a column comes before the transaction, so that the archive has it, empty")
@pytest.mark.parametrize("strategy", ["merge", "replace"])
def test_the_archive_has_the_columns_that_there_were(backend: Backend, strategy: Strategy) -> None:
    table = Publications(backend, live=OLD, on_schema_change="add_columns")
    table.published(WIDE, [0], "1", strategy=strategy)
    assert len(table.read("FROM t__archive_1")[0]) == 4


@pytest.mark.parametrize(("default", "changed"), [(None, 1), ("value + 2", 0)])
def test_a_new_column_is_compared_with_what_live_will_have_in_it(
    backend: Backend, default: str | None, changed: int
) -> None:
    options: dict[str, Any] = {"column_defaults": {"EXTRA": default}} if default else {}
    table = Publications(backend, live=day_rows(0, 1.0, count=1), on_schema_change="add_columns", **options)
    same = day_of(0, "0 AS id, 1.0 AS value, NULL::VARCHAR AS note, 3 AS extra")
    audits = [
        sb.compare(),
        sb.aggregate_drift("extra", "median", warn_above=0.1),
        sb.failing_rows("SELECT * FROM batch JOIN live USING (day, id, extra)", name="as_in_live", severity="WARN"),
    ]
    compared, median, as_in_live = table.stage(same, [0], "1", audits=audits).results
    assert compared.finding == (
        "0 rows added, 0 removed, 1 changed (extra in 1), 0 unchanged"
        if changed
        else "0 rows added, 0 removed, 0 changed, 1 unchanged"
    )
    measured = median.verdicts["2024-01-01"].measured
    assert (measured["shadow"], measured["live"]) == (3, None if changed else 3)
    assert as_in_live.failed_rows == 1 - changed


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.only("duckdb", reason="Snowflake has no secondary indexes")
def test_a_table_with_indexes_gains_a_column(backend: Backend, strategy: Strategy) -> None:
    table = Publications(backend, live=OLD, on_schema_change="add_columns")
    table.do("CREATE INDEX by_value ON t (value)", "CREATE UNIQUE INDEX by_key ON t (day, id)")
    before = table.live()
    if duckdb.__version__.startswith("1.") and strategy != "swap":
        with pytest.raises(sb.SwapError, match="its secondary indexes are in the way; drop them before"):
            table.published(WIDE, [0], "1", strategy=strategy)
        assert table.live() == before
    else:
        table.published(WIDE, [0], "1", strategy=strategy)
        assert table.live("extra") == [(3,), *[(None,)] * 6]
    assert table.read("SELECT index_name FROM duckdb_indexes() ORDER BY 1") == [("by_key",), ("by_value",)]


def test_a_column_that_another_run_added_meanwhile_is_no_conflict(backend: Backend) -> None:
    table = Publications(backend, live=OLD, on_schema_change="add_columns")
    staged = table.stage(WIDE, [0], "1")
    table.published(day_of(1, "1 AS id, 5.0 AS value, 'n' AS note, 4 AS extra"), [1], "2")
    table.publish(staged, "1")
    assert [row[4] for row in table.live()] == [3, 4, None, None, None]


def test_a_column_that_is_missing_is_an_error_all_the_same(backend: Backend) -> None:
    table = Publications(backend, live=OLD, on_schema_change="add_columns")
    with pytest.raises(sb.SchemaMismatchError, match="note is missing"):
        table.published(day_of(0, "1 AS id, 5.0 AS value, 3 AS extra"), [0], "1")
    with pytest.raises(sb.SchemaMismatchError, match="extra has only NULL values"):
        table.published(pa.table({"day": [], "extra": pa.nulls(0)}), [0], "1")


def test_a_default_that_is_no_expression_is_refused(backend: Backend) -> None:
    table = Publications(
        backend, live=OLD, on_schema_change="add_columns", column_defaults={"extra": "1; DROP TABLE t"}
    )
    before = table.live()
    with pytest.raises(sb.ConfigurationError, match="column_defaults"):
        table.published(WIDE, [0], "1")
    assert table.live() == before


@pytest.mark.only("duckdb", reason="of indexes, checks and keys, which Snowflake has not or does not enforce")
def test_a_swap_keeps_all_that_a_table_is(backend: Backend) -> None:
    table = Publications(backend, live=None)
    table.do(
        "CREATE TABLE t (day DATE NOT NULL, id BIGINT CHECK (id >= 0), value DOUBLE DEFAULT 1.5, note VARCHAR,"
        " PRIMARY KEY (day, id))",
        "INSERT INTO t SELECT DATE '2024-01-01' + (i % 3)::INT, i, 1, NULL FROM range(9) r(i)",
        "CREATE INDEX by_value ON t (value)",
        "CREATE VIEW seen AS SELECT day, sum(value) AS total FROM t GROUP BY day",
        "COMMENT ON TABLE t IS 'mine'",
        "COMMENT ON COLUMN t.value IS 'EUR'",
    )
    about = (
        "SELECT sql, comment FROM duckdb_tables() WHERE table_name = 't'"
        " UNION ALL SELECT sql, NULL FROM duckdb_indexes() UNION ALL SELECT column_name, comment FROM duckdb_columns()"
        " WHERE table_name = 't' ORDER BY ALL"
    )
    before = table.read(about)
    table.published(day_rows(0, 2.0), [0], "1", strategy="swap")
    assert table.read(about) == before
    assert table.read("SELECT total FROM seen ORDER BY day") == [(6.0,), (3.0,), (3.0,)]
    with pytest.raises(Exception, match=r"(?i)constraint"):
        table.do("INSERT INTO t VALUES ('2024-01-01', -1, 1, NULL)")
    with pytest.raises(Exception, match=r"(?i)constraint"):
        table.do("INSERT INTO t VALUES ('2024-01-01', 1, 1, NULL)")
    assert table.read("SELECT count(*), sum(value) FROM t__archive_1") == [(9, 9.0)]


def test_a_swap_that_changes_nothing_does_nothing(backend: Backend) -> None:
    table = Publications(backend, live=OLD)
    table.published(day_rows(0, 1.0), [0], "1", strategy="swap")
    assert table.tables() == ["_safe_backfill_ledger", "notes", "t"]


@pytest.mark.parametrize(
    ("statements", "reason"),
    [
        (["CREATE TABLE child (k BIGINT REFERENCES t (id))"], r"the foreign key of main.child .* refers to it"),
        (["CREATE TABLE p (id BIGINT PRIMARY KEY)", "INSERT INTO p FROM range(9)"], "it has a foreign key"),
    ],
    ids=["parent", "child"],
)
@pytest.mark.only("duckdb", reason="Snowflake enforces no foreign key")
def test_a_swap_is_refused_where_it_is_not_safe(backend: Backend, statements: list[str], reason: str) -> None:
    table = Publications(backend, live=None)
    columns = "day DATE, id BIGINT PRIMARY KEY, value DOUBLE, note VARCHAR"
    is_child = "it has" in reason
    create = f"CREATE TABLE t ({columns}{', FOREIGN KEY (id) REFERENCES p (id)' if is_child else ''})"
    table.do(*([*statements, create] if is_child else [create, *statements]))
    table.do("INSERT INTO t VALUES ('2024-01-01', 0, 1, NULL)")
    before = table.live()
    with pytest.raises(sb.SwapError, match=reason):
        table.published(day_rows(0, 2.0, 1), [0], "1", strategy="swap")
    assert table.live() == before
    assert table.tables("__archive_") == []


@pytest.fixture
def synced(backend: Backend) -> Publications:
    return Publications(backend, live=OLD, on_schema_change="sync")


@pytest.mark.only("duckdb", reason="of its types and indexes; Snowflake's are in snowflake/test_statements.py")
def test_sync_drops_and_retypes_columns_in_one_swap(synced: Publications) -> None:
    synced.do("CREATE INDEX by_id ON t (id)")
    before = synced.live()
    synced.published(day_of(0, "1 AS id, 'five' AS value, 2.5 AS extra"), [0], "1", strategy="swap")
    assert synced.read("SELECT column_name, data_type FROM duckdb_columns() WHERE table_name = 't'") == [
        ("day", "DATE"),
        ("id", "BIGINT"),
        ("value", "VARCHAR"),
        ("extra", "DECIMAL(2,1)"),
    ]
    assert [row[1:3] for row in synced.live()] == [(1, "five"), *[(n, "1.0") for n in range(3)] * 2]
    assert synced.read("SELECT * FROM t__archive_1 ORDER BY ALL") == before
    synced.rollback("1")
    assert synced.live() == before
    assert synced.read("SELECT index_name FROM duckdb_indexes()") == [("by_id",)]
    synced.rollback("back", run="forward")
    assert synced.live()[0][1:3] == (1, "five")
    assert synced.tables("__archive_") == ["t__archive_1", "t__archive_back", "t__archive_forward"]


@pytest.mark.only("duckdb", reason="the literal of a list is DuckDB's")
def test_sync_changes_no_value_of_other_partitions(synced: Publications) -> None:
    synced.do("ALTER TABLE t ALTER value TYPE VARCHAR", "UPDATE t SET value = 'x' WHERE day = '2024-01-03'")
    before = synced.live()
    with pytest.raises(sb.SchemaMismatchError, match=r"6 values of value \(VARCHAR\) in other partitions don't fit"):
        synced.published(day_of(0, "1 AS id, [1, 2] AS value, 'n' AS note"), [0], "1", strategy="swap")
    assert synced.live() == before
    assert synced.tables("__archive_") == []


def test_sync_keeps_a_type_that_fits(synced: Publications) -> None:
    synced.published(day_of(0, "1::TINYINT AS id, 5::INTEGER AS value, 'n' AS note"), [0], "1", strategy="swap")
    assert synced.read("SELECT data_type FROM duckdb_columns() WHERE table_name = 't'") == [
        ("DATE",),
        ("BIGINT",),
        ("DOUBLE",),
        ("VARCHAR",),
    ]


def test_sync_leaves_the_partition_column_as_it_is(synced: Publications) -> None:
    with pytest.raises(sb.SafeBackfillError, match="day"):
        synced.published(
            Query("SELECT '2024-01-01x' AS day, 1 AS id, 5.0 AS value, 'n' AS note"), [0], "1", strategy="swap"
        )


def test_a_table_whose_columns_changed_is_only_undone_whole_and_first(synced: Publications) -> None:
    rows = " UNION ALL SELECT ".join(f"DATE '2024-01-01' + {day} AS day, 1 AS id, 'v' AS value" for day in range(2))
    synced.published(Query(f"SELECT {rows}"), [0, 1], "1", strategy="swap")
    live = synced.live()
    with pytest.raises(sb.RollbackConflictError, match="can only be undone whole"):
        synced.rollback(chosen=Chosen(publication_id="1", keys=("2024-01-01",)))
    synced.published(day_of(2, "1 AS id, 'w' AS value"), [2], "2", strategy="swap")
    with pytest.raises(sb.RollbackConflictError, match="last publication is 2"):
        synced.rollback("1")
    synced.rollback("2")
    assert synced.live() == live


DUPLICATES = """
SELECT DATE '2024-01-01' AS day, id, value, note FROM (VALUES
    (1, 1.0, 'a'), (1, 3.0, 'c'), (1, 2.0, 'b'), (2, NULL, 'x'), (2, 0.0, 'y'), (3, NULL, 'only')) AS v(id, value, note)
"""


def test_the_latest_of_a_key_is_kept(backend: Backend) -> None:
    table = Publications(backend, live=OLD, keep_latest="VALUE")
    staged = table.stage(Query(DUPLICATES), [0], "1")
    assert staged.staged.duplicates == 3
    table.publish(staged, "1")
    assert table.read("SELECT id, note FROM t WHERE day = '2024-01-01' ORDER BY id") == [
        (1, "c"),
        (2, "y"),
        (3, "only"),
    ]


@pytest.mark.parametrize("latest", ["1.0", "NULL"])
def test_ties_are_refused(backend: Backend, latest: str) -> None:
    table = Publications(backend, live=OLD, keep_latest="value")
    rows = f"(1, {latest}::DOUBLE, 'a'), (1, {latest}, 'b'), (2, 1.0, 'c')"
    tied = Query(f"SELECT DATE '2024-01-01' AS day, id, value, note FROM (VALUES {rows}) AS v(id, value, note)")
    with pytest.raises(sb.KeyViolationError, match="1 keys occur twice with the same latest value") as caught:
        table.stage(tied, [0], "1")
    assert [str(day) for day, _ in caught.value.sample] == ["2024-01-01"]
    assert table.tables("__shadow_") == []


@pytest.mark.differs("snowflake", reason="a column of NULL in a query is one of text there")
def test_rows_without_a_key_are_not_each_others_duplicates(backend: Backend) -> None:
    table = Publications(backend, live=OLD, keep_latest="value")
    rows = "(NULL, 1.0, 'a'), (NULL, 2.0, 'b')"
    data = Query(f"SELECT DATE '2024-01-01' AS day, id, value, note FROM (VALUES {rows}) AS v(id, value, note)")
    staged = table.stage(data, [0], "1").staged
    assert (staged.duplicates, staged.rows) == (0, {"2024-01-01": 2})


def test_a_column_that_is_not_there_can_not_tell_the_latest(backend: Backend) -> None:
    table = Publications(backend, live=OLD, keep_latest="when")
    with pytest.raises(sb.ConfigurationError, match="keep_latest names when"):
        table.stage(Query(DUPLICATES), [0], "1")


def test_columns_that_were_added_between_are_no_change_by_hand(backend: Backend) -> None:
    table = Publications(backend, live=OLD, on_schema_change="add_columns")
    table.published(day_rows(0, 2.0), [0], "1")
    table.published(day_of(1, "1 AS id, 5.0 AS value, 'n' AS note, 4 AS extra"), [1], "2")
    table.published(day_of(0, "1 AS id, 6.0 AS value, 'n' AS note, 4 AS extra"), [0], "3")
    table.rollback("3", run="back 3")
    table.rollback("1", run="back 1")
    assert table.values()[0] == [1.0] * 3


def test_a_conflict_names_who_published_with_another_column(backend: Backend) -> None:
    table = Publications(backend, live=OLD, on_schema_change="add_columns")
    slow = table.stage(day_rows(0, 2.0), [0], "slow")
    table.published(WIDE, [0], "quick")
    with pytest.raises(sb.PublishConflictError, match="2024-01-01: published by quick"):
        table.publish(slow, "slow")


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_table_that_gained_a_column_since_is_refused_whatever_would_change(
    backend: Backend, strategy: Strategy
) -> None:
    table = Publications(backend, live=OLD)
    staged = table.stage(day_rows(0, 1.0), [0], "1")
    table.do("ALTER TABLE t ADD COLUMN extra INT")
    with pytest.raises(sb.SchemaMismatchError, match=r"extra (INTEGER|NUMBER\(38,0\))"):
        table.publish(staged, "1", strategy=strategy)


MANY = 200_000
"""Rows enough that DuckDB scans them with several threads."""


@pytest.mark.parametrize("live", [OLD[:3], []], ids=["all of the table", "a table without rows"])
@pytest.mark.only("duckdb", reason="of a fault of DuckDB's, with its range()")
def test_a_swap_of_all_that_a_table_holds_is_read_at_once(backend: Backend, live: list[Row]) -> None:
    table = Publications(backend, live=live)
    many = Query(f"SELECT DATE '2024-01-01' AS day, i AS id, 2.0 AS value, 'n' AS note FROM range({MANY}) r(i)")
    with duckdb.connect(table.path) as other:
        table.published(many, [0], "1", strategy="swap")
        assert other.execute("SELECT count(*), sum(value) FROM t").fetchall() == [(MANY, 2.0 * MANY)]
        table.rollback("1")
        assert other.execute("SELECT count(*) FROM t").fetchall() == [(len(live),)]


@pytest.mark.only("duckdb", reason="of a fault of DuckDB's, with its range()")
def test_a_swap_to_other_columns_of_all_that_a_table_holds_is_read_at_once(synced: Publications) -> None:
    synced.do("DELETE FROM t WHERE day <> '2024-01-01'")
    many = Query(f"SELECT DATE '2024-01-01' AS day, i AS id, 'two' AS value FROM range({MANY}) r(i)")
    with duckdb.connect(synced.path) as other:
        synced.published(many, [0], "1", strategy="swap")
        assert other.execute("SELECT count(*) FROM t").fetchall() == [(MANY,)]
        synced.rollback("1")
        assert other.execute("SELECT count(*) FROM t").fetchall() == [(3,)]


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_column_that_was_filled_since_is_archived_too(backend: Backend, strategy: Strategy) -> None:
    table = Publications(backend, live=OLD, on_schema_change="add_columns")
    slow = table.stage(day_of(0, "1 AS id, 6.0 AS value, 'n' AS note, 4 AS extra"), [0], "slow")
    table.published(WIDE, [0], "quick")
    before = table.live()
    table.publish(slow, "slow", strategy=strategy, on_conflict="overwrite")
    table.rollback("slow")
    assert table.live() == before
    table.rollback("quick", run="back quick")
    assert table.values()[0] == [1.0] * 3
