"""Tables as people make them: with indexes, foreign keys, generated columns and defaults; views under their names."""

from __future__ import annotations

from datetime import date
from typing import Any

import dagster as dg
import pyarrow as pa
import pytest

import dagster_safe_backfill as sb
from dagster_safe_backfill.model.options import Strategy
from dagster_safe_backfill.model.tables import Query
from dagster_safe_backfill_tests.harness.assets import DAYS, failure_of, run_key
from dagster_safe_backfill_tests.harness.audited import Row
from dagster_safe_backfill_tests.harness.backends import Backend
from dagster_safe_backfill_tests.harness.publications import STRATEGIES, Publications, day_rows

OLD: list[Row] = [row for day in range(2) for row in day_rows(day, 1.0)]
INDEXES = "SELECT index_name FROM duckdb_indexes() ORDER BY 1"


def with_table(backend: Backend, *statements: str, **options: Any) -> Publications:
    table = Publications(backend, live=None, **options)
    table.do(*statements)
    return table


def undone(table: Publications, publication: str, before: list[Any]) -> None:
    """Roll a publication back, and forward and back again."""
    after = table.live()
    table.rollback(publication)
    assert table.live() == before
    table.rollback("back", run="forward")
    assert table.live() == after
    table.rollback(publication, run="again")
    assert table.live() == before


def untouched(counts: Any) -> bool:
    return not any(one.touched for one in counts.values())


# 7: an empty table with an index


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize(
    "statements",
    [
        ["CREATE INDEX by_value ON t (value)"],
        ["CREATE UNIQUE INDEX by_key ON t (day, id)", "CREATE INDEX by_more ON t ((value + 1))"],
        ["INSERT INTO t VALUES ('2024-01-01', 1, 1, 'n')", "CREATE INDEX by_value ON t (value)", "DELETE FROM t"],
    ],
    ids=["one", "unique and of an expression", "emptied"],
)
def test_an_empty_table_with_an_index_is_filled(backend: Backend, strategy: Strategy, statements: list[str]) -> None:
    columns = "day DATE, id BIGINT, value DOUBLE, note VARCHAR"
    table = with_table(backend, f"CREATE TABLE t ({columns})", *statements)
    indexes = table.read(INDEXES)
    table.published(day_rows(0, 2.0), [0], "1", strategy=strategy)
    assert table.values() == {0: [2.0] * 3}
    if strategy != "replace":
        assert untouched(table.published(day_rows(0, 2.0), [0], "2", strategy=strategy).row_counts)
    table.published(day_rows(1, 3.0), [1], "3", strategy=strategy)
    assert table.values() == {0: [2.0] * 3, 1: [3.0] * 3}
    table.rollback("3", run="back 3")
    table.rollback("1", run="back 1", force=strategy == "replace")
    assert table.live() == []
    assert table.read(INDEXES) == indexes


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_an_empty_table_with_a_primary_key_is_filled(backend: Backend, strategy: Strategy) -> None:
    table = with_table(
        backend, "CREATE TABLE t (day DATE, id BIGINT, value DOUBLE, note VARCHAR, PRIMARY KEY (day, id))"
    )
    table.published(day_rows(0, 2.0), [0], "1", strategy=strategy)
    assert table.values() == {0: [2.0] * 3}
    undone(table, "1", [])


def test_an_empty_table_with_an_index_gets_other_columns(backend: Backend) -> None:
    table = with_table(
        backend,
        "CREATE TABLE t (day DATE, id BIGINT, value DOUBLE, note VARCHAR)",
        "CREATE INDEX by_id ON t (id)",
        on_schema_change="sync",
    )
    table.published(Query("SELECT DATE '2024-01-01' AS day, 1 AS id, 'x' AS note"), [0], "1", strategy="swap")
    assert table.live() == [(date(2024, 1, 1), 1, "x")]
    table.rollback("1")
    assert table.live("day, id, value, note") == []
    assert table.read(INDEXES) == [("by_id",)]


# 8: a table that a foreign key refers to


@pytest.fixture
def parent(backend: Backend) -> Publications:
    return with_table(
        backend,
        "CREATE TABLE t (day DATE, id BIGINT PRIMARY KEY, value DOUBLE, note VARCHAR)",
        "CREATE TABLE child (k BIGINT REFERENCES t (id))",
        "INSERT INTO t SELECT DATE '2024-01-01' + (i // 3)::INT, i, 1, NULL FROM range(6) r(i)",
        "INSERT INTO child VALUES (1), (4)",
    )


def days_of(value: float, days: int = 2, *, ids: int = 6) -> list[Row]:
    return [(i // 3, i, value, None) for i in range(ids) if i // 3 < days]


@pytest.mark.parametrize("days", [1, 2])
def test_a_merge_changes_rows_that_are_referred_to_in_place(parent: Publications, days: int) -> None:
    before = parent.live()
    published = parent.published(days_of(2.0, days), [*range(days)], "1")
    assert sum(one.updated for one in published.row_counts.values()) == 3 * days
    assert parent.values() == {day: [2.0 if day < days else 1.0] * 3 for day in range(2)}
    assert untouched(parent.published(days_of(2.0, days), [*range(days)], "2").row_counts)
    undone(parent, "1", before)
    assert parent.read("SELECT k FROM child ORDER BY k") == [(1,), (4,)]


def test_a_merge_deletes_rows_that_nothing_refers_to(parent: Publications) -> None:
    before = parent.live()
    parent.published([(0, 1, 2.0, None), (0, 7, 2.0, None)], [0], "1")
    assert parent.values() == {0: [2.0, 2.0], 1: [1.0] * 3}
    undone(parent, "1", before)


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_rows_that_are_referred_to_are_not_deleted_and_what_to_do_is_said(
    parent: Publications, strategy: Strategy
) -> None:
    before = parent.live()
    rows = [(0, 0, 2.0, None)] if strategy == "merge" else days_of(2.0)
    with pytest.raises(sb.SafeBackfillError, match=r"foreign key.*nothing was changed.*merge") as caught:
        parent.published(rows, [0, 1] if len(rows) > 1 else [0], "1", strategy=strategy)
    if strategy != "merge":
        assert "in place" in str(caught.value)
    assert parent.live() == before


@pytest.mark.parametrize(
    ("strategy", "reason"),
    [
        ("merge", r"rows changed only in values that the database calls equal.*a foreign key refers to the table"),
        ("replace", r"foreign key.*in place"),
        ("swap", r"rows changed only in values that the database calls equal.*a foreign key refers to the table"),
    ],
)
def test_values_that_the_database_calls_equal_in_rows_that_are_referred_to(
    parent: Publications, strategy: Strategy, reason: str
) -> None:
    """DuckDB's UPDATE doesn't write them, and it doesn't delete the rows."""
    parent.published(days_of(0.0, 1), [0], "1")
    before = parent.live("id, value::TEXT")
    with pytest.raises(sb.SafeBackfillError, match=reason):
        parent.published(days_of(-0.0, 1), [0], "2", strategy=strategy)
    assert parent.live("id, value::TEXT") == before
    # Beside other changes in the same row they can't be written either; without them, the merge goes on.
    rows: list[Row] = [(0, 0, -0.0, "more"), (0, 1, 0.0, None), (0, 2, 0.0, None)]
    if strategy == "merge":
        parent.published([(0, 0, 5.0, "more"), *rows[1:]], [0], "3")
        assert parent.live("value, note")[-1] == (5.0, "more")


DEFAULTED = (
    "CREATE SEQUENCE numbers START 10",
    "CREATE TABLE t (day DATE, id BIGINT, value DOUBLE, note VARCHAR, number BIGINT DEFAULT nextval('numbers'))",
    "INSERT INTO t SELECT DATE '2024-01-01', i, 0.0, NULL, i FROM range(3) r(i)",
)


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_values_that_the_database_calls_equal_beside_columns_that_are_not_computed(
    backend: Backend, strategy: Strategy
) -> None:
    table = with_table(backend, *DEFAULTED)
    shown = "id, value::TEXT, number"
    before = table.live(shown)
    zeros = day_rows(0, -0.0)
    if strategy == "replace":
        # It deletes and inserts all rows, which get the default.
        table.published(zeros, [0], "1", strategy=strategy)
        assert [row[:2] for row in table.live(shown)] == [(i, "-0.0") for i in range(3)]
        assert min(row[2] for row in table.live(shown)) >= 10
        table.rollback("1")
        assert table.live(shown) == before
        return
    for rows in (zeros, [zeros[0], *day_rows(0, 0.0)[1:]]):
        with pytest.raises(
            sb.WriteError, match=r"calls equal.*have values in columns that aren't computed.*all columns"
        ):
            table.published(rows, [0], f"of {len(rows)} {rows[1]}", strategy=strategy)
        assert table.live(shown) == before
    # What the message says works.
    sql = (
        "SELECT DATE '2024-01-01' AS day, i AS id, -0.0::DOUBLE AS value, NULL AS note, i AS number FROM range(3) r(i)"
    )
    computed = Query(sql)
    table.published(computed, [0], "2", strategy=strategy)
    assert table.live(shown) == [(i, "-0.0", i) for i in range(3)]
    assert untouched(table.published(computed, [0], "3", strategy=strategy).row_counts)
    table.rollback("2")
    assert table.live(shown) == before


@pytest.mark.parametrize("dry_run", [True, False])
def test_columns_of_a_table_that_a_foreign_key_refers_to_are_not_dropped(backend: Backend, dry_run: bool) -> None:
    """DuckDB alters no table that another depends on, so a rollback of an added column says so, and what to do."""
    table = with_table(
        backend,
        "CREATE TABLE t (day DATE, id BIGINT PRIMARY KEY, value DOUBLE, note VARCHAR)",
        "CREATE TABLE child (k BIGINT REFERENCES t (id))",
        "INSERT INTO t SELECT DATE '2024-01-01', i, 1, NULL FROM range(3) r(i)",
        "INSERT INTO child VALUES (1)",
        on_schema_change="add_columns",
    )
    before = table.live()
    rows = Query("SELECT DATE '2024-01-01' AS day, i AS id, 2.0 AS value, 'n' AS note, i AS more FROM range(3) r(i)")
    table.published(rows, [0], "1")
    after = table.live()
    with pytest.raises(sb.RollbackError, match=r"columns more, and a foreign key of another table refers to the table"):
        table.rollback("1", dry_run=dry_run)
    assert table.live() == after
    # What the message says works.
    table.do("CREATE TABLE kept AS FROM child", "DROP TABLE child")
    undone(table, "1", before)
    table.do("CREATE TABLE child (k BIGINT REFERENCES t (id))", "INSERT INTO child FROM kept")


def test_a_merge_of_a_table_that_refers_to_itself(backend: Backend) -> None:
    table = with_table(
        backend,
        "CREATE TABLE t (day DATE, id BIGINT PRIMARY KEY, value DOUBLE, note VARCHAR, up BIGINT REFERENCES t (id))",
        "INSERT INTO t VALUES ('2024-01-01', 0, 1, NULL, NULL)",
        "INSERT INTO t VALUES ('2024-01-01', 1, 1, NULL, 0), ('2024-01-01', 2, 1, NULL, 0)",
    )
    before = table.live()
    rows = Query("SELECT DATE '2024-01-01' AS day, id, 2.0 AS value, NULL::VARCHAR AS note, up FROM t")
    table.published(rows, [0], "1")
    assert table.values() == {0: [2.0] * 3}
    undone(table, "1", before)


def test_a_column_with_an_index_that_does_not_change_is_not_written(parent: Publications) -> None:
    parent.do("CREATE INDEX by_note ON t (note)")
    before = parent.live()
    parent.published(days_of(2.0, 1), [0], "1")
    assert parent.values() == {0: [2.0] * 3, 1: [1.0] * 3}
    undone(parent, "1", before)


@pytest.mark.parametrize(
    ("column", "old", "new"),
    [
        ("tags VARCHAR[]", "['a']", "['b']"),
        ("size INT[2]", "[1, 2]", "[1, 3]"),
        ("name VARCHAR", "'a'", "'A'"),
    ],
    ids=["a list", "an array", "an indexed text"],
)
def test_columns_that_duckdb_cannot_change_in_place_are_named(
    backend: Backend, column: str, old: str, new: str
) -> None:
    name, _, type_ = column.partition(" ")
    table = with_table(
        backend,
        f"CREATE TABLE t (day DATE, id BIGINT PRIMARY KEY, value DOUBLE, note VARCHAR, {column})",
        *([f"CREATE INDEX by_{name} ON t ({name})"] if type_ == "VARCHAR" else []),
        "CREATE TABLE child (k BIGINT REFERENCES t (id))",
        f"INSERT INTO t SELECT '2024-01-01', i, 1, NULL, {old} FROM range(3) r(i)",
        "INSERT INTO child VALUES (1)",
    )
    before = table.live()

    def computed(changed: int) -> Query:
        value = f"CASE WHEN id = {changed} THEN {new} ELSE {old} END::{type_}"
        return Query(f"SELECT day, id, 2.0 AS value, note, {value} AS {name} FROM t")

    with pytest.raises(sb.SafeBackfillError, match="indexed column of it, or a list, array or map"):
        table.published(computed(1), [0], "1")
    assert table.live() == before
    # Of rows that nothing refers to it can, and the others still change in place.
    table.published(computed(2), [0], "2")
    assert table.values() == {0: [2.0] * 3}
    undone(table, "2", before)


def test_the_time_of_an_update_that_is_computed_goes_with_it(backend: Backend) -> None:
    table = with_table(
        backend,
        "CREATE TABLE t (day DATE, id BIGINT PRIMARY KEY, value DOUBLE, note VARCHAR, loaded TIMESTAMP)",
        "CREATE TABLE child (k BIGINT REFERENCES t (id))",
        "INSERT INTO t SELECT '2024-01-01', i, 1, NULL, TIMESTAMP '2024-02-01' FROM range(3) r(i)",
        "INSERT INTO child VALUES (1)",
        updated_at_column="loaded",
    )
    before = table.live()
    rows = Query(
        "SELECT day, id, CASE WHEN id = 1 THEN 2.0 ELSE 1.0 END AS value, note, TIMESTAMP '2024-03-01' AS loaded FROM t"
    )
    published = table.published(rows, [0], "1")
    assert sum(one.updated for one in published.row_counts.values()) == 1
    assert table.read("SELECT id, value, month(loaded) FROM t ORDER BY id") == [(0, 1.0, 2), (1, 2.0, 3), (2, 1.0, 2)]
    undone(table, "1", before)


def test_a_plain_write_merges_in_place_too(parent: Publications) -> None:
    from dagster_safe_backfill.model.states import Origin
    from dagster_safe_backfill.wap.tables.store import store
    from dagster_safe_backfill_tests.harness.audited import frame, slice_of

    origin = Origin(run_id="1", publication_id="1", asset_key="t")
    for counted in (3, 0):
        with parent.warehouse.connect() as session:
            rows = frame(days_of(2.0, 1))
            counts = store(session, rows, spec=parent.spec, partition_slice=slice_of([0]), origin=origin)
        assert sum(one.touched for one in counts.values()) == counted
    assert parent.values() == {0: [2.0] * 3, 1: [1.0] * 3}


# 9: generated columns, defaults, views


GENERATED = (
    "CREATE TABLE t (day DATE, id BIGINT, twice DOUBLE AS (value * 2), value DOUBLE, note VARCHAR)",
    "INSERT INTO t (day, id, value) SELECT DATE '2024-01-01' + (i // 3)::INT, i % 3, 1 FROM range(6) r(i)",
)


@pytest.mark.parametrize("is_computed", [False, True])
@pytest.mark.parametrize("change", ["raise", "add_columns"])
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_generated_column_is_left_out(backend: Backend, strategy: Strategy, change: str, is_computed: bool) -> None:
    table = with_table(backend, *GENERATED, on_schema_change=change)
    before = table.live()
    more = ", 7.0 AS TWICE" if is_computed else ""
    rows = Query(f"SELECT DATE '2024-01-01' AS day, i AS id, 3.0 AS value, 'n' AS note{more} FROM range(3) r(i)")
    table.published(rows, [0], "1", strategy=strategy)
    assert table.live("value, twice, note") == [(1.0, 2.0, None)] * 3 + [(3.0, 6.0, "n")] * 3
    if strategy != "replace":
        assert untouched(table.published(rows, [0], "2", strategy=strategy).row_counts)
        undone(table, "1", before)
    else:
        table.rollback("1")
        assert table.live() == before
    assert "GENERATED" in table.read("SELECT sql FROM duckdb_tables() WHERE table_name = 't'")[0][0]


@pytest.mark.parametrize("is_computed", [False, True])
@pytest.mark.parametrize(
    "options",
    [
        {"partition_expr": "of_day"},
        {"partition_expr": "OF_DAY::DATE"},
        {"partition_expr": "day", "unique_key": ["day", "twice"]},
        {"partition_expr": "day", "unique_key": ["id"], "on_duplicate": sb.keep_latest("twice")},
    ],
    ids=["partition", "expression", "key", "latest"],
)
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_rows_can_not_be_told_apart_by_a_generated_column(
    backend: Backend, strategy: Strategy, options: dict[str, Any], is_computed: bool
) -> None:
    backend.change(
        "CREATE TABLE t (day DATE, id BIGINT, twice BIGINT AS (id * 2), of_day DATE AS (day))",
        "INSERT INTO t (day, id) VALUES ('2024-01-01', 1)",
    )
    publish = "merge" if "unique_key" in options and strategy == "replace" else strategy
    if publish == "merge" and "unique_key" not in options:
        options = {**options, "unique_key": ["id"]}
    table = sb.TableOptions(**{key: value for key, value in options.items() if key == "on_duplicate"})
    more = {key: value for key, value in options.items() if key != "on_duplicate"}
    computed = "SELECT DATE '2024-01-01' AS day, 2 AS id" + (", 4 AS twice, day AS of_day" if is_computed else "")

    @sb.wap_asset(partitions_def=DAYS, publish=publish, table=table, **more)
    def t() -> sb.Query:
        return sb.Query(computed)

    with dg.DagsterInstance.ephemeral() as instance:
        result = run_key([t], "2024-01-01", io_manager=backend.io_manager, instance=instance)
        message = failure_of(result, "t")
    assert "main.t: " in message
    assert "is a column that the table generates from others" in message
    assert backend.read("SELECT day, id FROM t") == [(date(2024, 1, 1), 1)]


def test_a_generated_column_can_be_asked_in_audits(backend: Backend) -> None:
    table = with_table(backend, *GENERATED)
    audits = [sb.compare(), sb.row_count_drift(max_change=0.5)]
    judged = table.stage(day_rows(0, 3.0), [0], "1", audits=audits)
    assert judged.results[0].finding == "0 rows added, 0 removed, 3 changed (value in 3), 0 unchanged"


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_column_that_is_not_computed_takes_its_default(backend: Backend, strategy: Strategy) -> None:
    table = with_table(
        backend,
        "CREATE SEQUENCE numbers",
        "CREATE TABLE t (day DATE, id BIGINT, value DOUBLE DEFAULT -1.5, note VARCHAR, kind VARCHAR NOT NULL DEFAULT"
        " 'new', loaded TIMESTAMP DEFAULT now(), number BIGINT DEFAULT nextval('numbers'))",
        "INSERT INTO t (day, id, note) SELECT DATE '2024-01-01', i, 'old' FROM range(3) r(i)",
    )
    before = table.live()
    rows = Query("SELECT DATE '2024-01-01' AS day, i AS id, 'n' AS note FROM range(2, 5) r(i)")
    table.published(rows, [0], "1", strategy=strategy)
    live = table.live("id, value, note, kind, loaded, number")
    assert [row[:4] for row in live] == [(i, -1.5, "n", "new") for i in (2, 3, 4)]
    assert None not in [value for row in live for value in row[4:]]
    if strategy != "replace":
        # The row that was there before was changed, and keeps what was written when it was inserted.
        assert live[0][4:] == before[2][5:]
        assert untouched(table.published(rows, [0], "2", strategy=strategy).row_counts)
        assert table.live("id, value, note, kind, loaded, number") == live
    table.rollback("1", force=strategy == "replace")
    assert table.live() == before


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_column_with_a_default_can_be_computed(backend: Backend, strategy: Strategy) -> None:
    table = with_table(
        backend, "CREATE TABLE t (day DATE, id BIGINT, value DOUBLE DEFAULT 5, note VARCHAR DEFAULT now()::VARCHAR)"
    )
    table.published([(0, 1, 2.0, None)], [0], "1", strategy=strategy)
    assert table.live("value, note") == [(2.0, None)]


@pytest.mark.every_warehouse
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_view_under_the_tables_name_is_named(backend: Backend, strategy: Strategy) -> None:
    table = with_table(
        backend,
        "CREATE TABLE other (day DATE, id BIGINT, value DOUBLE, note VARCHAR)",
        "CREATE VIEW t AS SELECT * FROM other",
    )
    with pytest.raises(sb.ConfigurationError, match=r"main\.t is a view.*Rename or drop the view"):
        table.published(day_rows(0, 1.0), [0], "1", strategy=strategy)
    assert table.read("SELECT count(*) FROM other") == [(0,)]


@pytest.mark.every_warehouse
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_view_that_was_made_since_the_staging_is_named(backend: Backend, strategy: Strategy) -> None:
    table = Publications(backend, live=OLD)
    staged = table.stage(day_rows(0, 2.0), [0], "1")
    table.do("ALTER TABLE t RENAME TO other", "CREATE VIEW t AS SELECT * FROM other")
    with pytest.raises(sb.ConfigurationError, match=r"main\.t is a view"):
        table.publish(staged, "1", strategy=strategy)
    assert table.read("SELECT count(*) FROM other WHERE value = 1") == [(6,)]


# 10: columns that the data lacks


LACKING = Query("SELECT DATE '2024-01-01' AS day, i AS id, 2.0 AS value FROM (VALUES (0), (1)) AS r(i)")


@pytest.mark.every_warehouse
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_missing_column_is_an_error_unless_it_is_to_be_filled(backend: Backend, strategy: Strategy) -> None:
    table = Publications(backend, live=OLD)
    with pytest.raises(sb.SchemaMismatchError, match=r'note is missing \(on_missing_column="fill"'):
        table.published(LACKING, [0], "1", strategy=strategy)


@pytest.mark.every_warehouse
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_missing_column_is_filled(backend: Backend, strategy: Strategy) -> None:
    table = Publications(backend, live=[(0, 0, 2.0, "kept?"), *day_rows(1, 1.0)], on_missing_column="fill")
    before = table.live()
    table.published(LACKING, [0], "1", strategy=strategy)
    assert table.live("id, value, note")[:5] == [
        (0, 1.0, None),
        (0, 2.0, None),
        (1, 1.0, None),
        (1, 2.0, None),
        (2, 1.0, None),
    ]
    if strategy != "replace":
        assert untouched(table.published(LACKING, [0], "2", strategy=strategy).row_counts)
    table.rollback("1", force=strategy == "replace")
    assert table.live() == before


@pytest.mark.every_warehouse
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_the_newest_day_first_and_then_one_from_before_the_column(backend: Backend, strategy: Strategy) -> None:
    table = Publications(backend, live=OLD, on_schema_change="add_columns", on_missing_column="fill")
    before = table.live()
    wide = Query("SELECT DATE '2024-01-04' AS day, 1 AS id, 5.0 AS value, 'n' AS note, 3 AS extra")
    table.published(wide, [3], "new", strategy=strategy)
    old = Query("SELECT DATE '2024-01-03' AS day, 1 AS id, 4.0 AS value, 'o' AS note")
    table.published(old, [2], "old", strategy=strategy)
    assert [row[3:] for row in table.live()[-2:]] == [("o", None), ("n", 3)]
    table.rollback("old", run="back old")
    table.rollback("new", run="back new")
    assert table.live() == before


@pytest.mark.every_warehouse
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_what_can_not_be_filled_is_refused(backend: Backend, strategy: Strategy) -> None:
    table = with_table(
        backend,
        "CREATE TABLE t (day DATE, id BIGINT, value DOUBLE NOT NULL, note VARCHAR NOT NULL DEFAULT 'x')",
        on_missing_column="fill",
    )
    rows = [
        ("SELECT DATE '2024-01-01' AS day, 1 AS id", "value is missing, and has no default and can't be NULL"),
        ("SELECT DATE '2024-01-01' AS day, 1.0 AS value", "id is missing, and rows can't be identified without it"),
        ("SELECT 1 AS id, 1.0 AS value", "day is missing, and rows can't be identified without it"),
    ]
    for sql, reason in rows:
        with pytest.raises(sb.SchemaMismatchError, match=reason):
            table.published(Query(sql), [0], "1", strategy=strategy)
    table.published(Query("SELECT DATE '2024-01-01' AS day, 1 AS id, 1.0 AS value"), [0], "2", strategy=strategy)
    assert table.live("value, note") == [(1.0, "x")]


def test_a_frame_without_the_column_is_filled_as_well(backend: Backend) -> None:
    table = Publications(backend, live=OLD, on_missing_column="fill")
    rows = pa.table({"day": [date(2024, 1, 1)], "id": [1], "value": [2.0]})
    table.published(rows, [0], "1")
    assert table.live("value, note")[-1] == (2.0, None)
    assert table.values()[0] == [2.0]
