"""Every statement as text: a row a statement, a column a dialect; and DuckDB runs its own.

Written anew by `python -m dagster_safe_backfill_tests.sql.test_golden`, and then read before it is committed.
Snowflake's go through its grammar too, and are run by the emulator.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import date, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import duckdb
import pytest
from sqlglot import exp

import dagster_safe_backfill as sb
from dagster_safe_backfill.audits.groups import Aggregate
from dagster_safe_backfill.model.slices import (
    KeyDimension,
    PartitionColumn,
    PartitionSlice,
    TableSlice,
    TimeDimension,
    TimeWindow,
)
from dagster_safe_backfill.model.tables import Column, TableRef, TableSpec
from dagster_safe_backfill.sql import audited_rows, auditing, comparing, publishing, staging, terms
from dagster_safe_backfill.sql.audited_rows import AuditedRows
from dagster_safe_backfill.sql.comparing import Pairing
from dagster_safe_backfill.sql.dialect import Dialect
from dagster_safe_backfill.sql.fingerprints import fingerprints
from dagster_safe_backfill.sql.publishing import SliceWrite
from dagster_safe_backfill.sql.sameness import Sameness
from dagster_safe_backfill.sql.slicing import PARTITION, inside, outside
from dagster_safe_backfill.sql.staging import StagedColumn
from dagster_safe_backfill.warehouses.duckdb.dialect import DuckDBDialect
from dagster_safe_backfill.warehouses.snowflake.dialect import SnowflakeDialect
from dagster_safe_backfill.warehouses.snowflake.generator import DIALECT as SNOWFLAKE
from dagster_safe_backfill_tests.harness.snowflake import shapes

GOLDEN = Path(__file__).parent / "golden"


@dataclass(frozen=True, kw_only=True)
class Speech:
    """What statements of one warehouse are made of."""

    dialect: Dialect
    integers: tuple[str, str]


SPEECHES = {
    "duckdb": Speech(dialect=DuckDBDialect(), integers=("BIGINT", "INTEGER")),
    "snowflake": Speech(dialect=SnowflakeDialect(), integers=("NUMBER(38,0)", "NUMBER(9,0)")),
}
DIALECTS = tuple(SPEECHES)

LIVE = TableRef(schema="main", name="live")
SHADOW = TableRef(schema="main", name="live__shadow_1")
RANKED = TableRef(schema="main", name="live__shadow_2")
NEW = TableRef(schema="main", name="new")
SCRATCH = TableRef(schema="temp", name="new")
PREPARE = """
CREATE TABLE "source" (day DATE, "it's" BIGINT, value DOUBLE);
CREATE TABLE live (day DATE, "it's" INTEGER, value DOUBLE, updated_at TIMESTAMPTZ);
CREATE TABLE live__shadow_1 (day DATE, "it's" INTEGER, value DOUBLE, _sb_partition INTEGER);
CREATE TABLE other (id INTEGER);
CREATE TABLE differing (_sb_partition INTEGER, _sb_is_new BOOLEAN);
CREATE TABLE live__shadow_2 (day DATE, "it's" INTEGER, value DOUBLE, _sb_rank BIGINT, _sb_ties BIGINT);
INSERT INTO live VALUES ('2024-01-01', 1, 1.0, now()), ('2024-01-01', 2, 1.0, now()), ('2024-01-05', 3, 1.0, now());
INSERT INTO live__shadow_1 VALUES ('2024-01-01', 1, 2.0, 0), ('2024-01-02', 4, 2.0, 1), ('2024-01-09', 5, 2.0, NULL);
"""


def _slice() -> PartitionSlice:
    start = datetime(2024, 1, 1, tzinfo=timezone.utc)
    windows = tuple(TimeWindow(start=start + timedelta(days=n), end=start + timedelta(days=n + 1)) for n in (0, 1, 4))
    keys = ("2024-01-01", "2024-01-02", "2024-01-05")
    return PartitionSlice(keys=keys, dimensions=(TimeDimension(windows=windows, timezone="UTC"),))


def _column(sql: str, keeps: str, type_name: str, dialect: Dialect) -> PartitionColumn:
    return PartitionColumn(
        name=sql,
        sql=sql,
        type_name=type_name,
        keeps=keeps,  # type: ignore[arg-type]
        timezone=None,
        dialect=dialect,
    )


def _write(table_slice: TableSlice, *, stamped: bool = False) -> SliceWrite:
    now = exp.cast(terms.text("2024-01-01 00:00:00+00:00"), exp.DataType.Type.TIMESTAMPTZ)
    return SliceWrite(
        table_slice=table_slice,
        shadow=SHADOW,
        inside=exp.paren(inside(table_slice)),
        columns=("day", "it's", "value"),
        stamp=("updated_at", now) if stamped else None,
    )


def _created(table: TableRef, rows: exp.Select) -> exp.Create:
    """Return what a table is made of; each warehouse's `Tables.create` writes the words before it."""
    scratch = exp.Properties(expressions=[exp.TemporaryProperty()]) if table == SCRATCH else None
    return exp.Create(this=terms.table(table), kind="TABLE", expression=rows, properties=scratch)


def statements(warehouse: str) -> Mapping[str, exp.Expr]:
    """Return one of every statement, by name."""
    speech = SPEECHES[warehouse]
    dialect, (wide, narrow) = speech.dialect, speech.integers
    partition_slice = _slice()
    columns = {None: _column("day", "date", "DATE", dialect)}
    spec = TableSpec(table=LIVE, unique_key=("day", "it's"))
    placed = TableSlice(spec=spec, partition_slice=partition_slice, columns=columns)
    is_inside = inside(placed)
    write, stamped = _write(placed), _write(placed, stamped=True)
    source = terms.table(TableRef(schema="", name="source"))
    staged = [
        StagedColumn(name="day", source="day", source_type="DATE", type="DATE"),
        StagedColumn(name="it's", source="it's", source_type=wide, type=narrow),
        StagedColumn(name="value", source="value", source_type="DOUBLE", type="DOUBLE"),
    ]
    batch = AuditedRows(
        rows=SHADOW,
        table_slice=placed,
        inside=exp.paren(is_inside.copy()),
        outside=outside(is_inside),
        has_live=True,
        columns=tuple(Column(name=one.name, type=one.type) for one in staged),
        counts={},
        added={},
        instants=(),
        dialect=dialect,
    )
    audits = {
        "unique": sb.unique("it's"),
        "key": sb.unique(),
        "not_null": sb.not_null("it's", "value"),
        "expression": sb.expression("value > 0 OR day = DATE '2024-01-01'"),
        "references": sb.references("it's", table="other", column="id"),
        "accepted_values": sb.accepted_values("it's", [1, 2]),
        "in_range": sb.in_range("day", date(2024, 1, 1), date(2024, 12, 31)),
    }
    aggregates = [
        Aggregate(sql="*"),
        Aggregate(sql="sum(value) / count(*)"),
        Aggregate(sql="value", of="total"),
        Aggregate(sql="value", of="mean"),
        Aggregate(sql="value", of="distinct"),
        Aggregate(sql="value", of="median"),
        Aggregate(sql="value", of=0.95),
    ]
    measured = [auditing.aggregated(one, batch, option="test") for one in aggregates]
    own = sb.failing_rows("SELECT b.* FROM batch AS b JOIN live USING (day) WHERE b.value > live.value", name="own")
    pairing = Pairing(
        here=SHADOW,
        there=audited_rows.live_rows(batch),
        key=("day", "it's"),
        compared=(Column(name="value", type="DOUBLE"),),
        absolute_tolerance=0.01,
        relative_tolerance=0.001,
        dialect=dialect,
    )
    names = [PARTITION, "day", "it's", "value"]
    whole = comparing.WholeRows(
        here=exp.select(*terms.columns(names)).from_(terms.rows(SHADOW)),
        there=exp.select(*terms.columns(names)).from_(audited_rows.live_rows(batch)),
        names=("day", "it's", "value"),
        sameness=batch.sameness,
    )
    conditions = {name: auditing.fails(audit, batch) for name, audit in audits.items()}
    lost = {"it's": dialect.is_lost(terms.column("it's"), source=wide, target=narrow)}
    rows = staging.typed_rows(source, staged, dialect=dialect.name)
    wall_clock = {None: _column("CAST(day AS TIMESTAMP)", "timestamp", "TIMESTAMP", dialect)}
    by_window = replace(placed, columns=wall_clock)
    by_count = replace(placed, partition_slice=partition_slice.chosen([0, 1]))
    ranked = replace(placed, spec=replace(spec, keep_latest="value"))
    by_condition = ("not_null", "expression", "accepted_values", "in_range", "references")
    together = [terms.count_where(conditions[name]) for name in by_condition]
    born = SliceWrite(
        table_slice=TableSlice(spec=TableSpec(table=TableRef(schema="main", name="born")), partition_slice=None),
        shadow=SHADOW,
        inside=exp.true(),
        columns=("day",),
    )

    # Rows of the day 2024-01-05 move with their keys to the other two days.
    by_id = TableSlice(
        spec=TableSpec(table=LIVE, unique_key=("it's",)), partition_slice=partition_slice, columns=columns
    )
    staying = replace(by_id, partition_slice=partition_slice.chosen([2]))
    moving = replace(
        _write(replace(by_id, partition_slice=partition_slice.chosen([0, 1]))),
        table_slice=by_id,
        elsewhere=exp.paren(inside(staying)),
    )
    taken, nowhere = publishing.taken_elsewhere(SHADOW, staying, by_id, Sameness(dialect=dialect))
    measured_moving = replace(batch, table_slice=staying, moves_keys=True)

    def staged_in(table_slice: TableSlice) -> exp.Select:
        return staging.shadow_rows(rows, names=write.columns, table_slice=table_slice, sameness=Sameness())

    return {
        "staging: values lost by a cast": staging.values_lost_by_cast(source, lost),
        "staging: fill": _created(NEW, staged_in(placed)),
        "staging: fill, by consecutive days": _created(
            SCRATCH, staging.shadow_rows(rows, names=write.columns, table_slice=by_count, sameness=Sameness())
        ),
        "staging: fill, by windows of time": _created(
            SCRATCH, staging.shadow_rows(rows, names=write.columns, table_slice=by_window, sameness=Sameness())
        ),
        "staging: rows by partition": staging.rows_by_partition(SHADOW),
        "staging: outside, a sample": staging.outside_sample(SHADOW, placed, size=10),
        "staging: delete outside": staging.delete_outside(SHADOW),
        "staging: fill, with ranks": _created(NEW, staged_in(ranked)),
        "staging: duplicates": staging.duplicates(RANKED),
        "staging: tied keys": staging.tied_keys(RANKED, spec.unique_key, size=10),
        "staging: delete duplicates": staging.delete_duplicates(RANKED),
        "staging: repeated keys": staging.repeated_keys(SHADOW, spec.unique_key, Sameness()),
        "fingerprints: by partition": fingerprints(placed, dialect.row_hash([terms.column("day")]), dialect),
        "auditing: conditions together": audited_rows.grouped(
            together, audited_rows.shadow_rows(batch), is_overall=False
        ),
        "auditing: aggregates of live, and over the run": audited_rows.grouped(
            measured, audited_rows.live_rows(batch), is_overall=True
        ),
        "auditing: aggregates of no rows": audited_rows.of_no_rows(measured, audited_rows.shadow_rows(batch)),
        "auditing: what a user's own query finds": auditing.found_by_partition(auditing.found_rows(own, batch), batch),
        "auditing: repeated values": auditing.repeated_values(sb.unique("it's"), batch),
        "auditing: repetitions": auditing.repetitions(sb.unique("it's"), batch),
        "auditing: repetitions of the key": auditing.repetitions(sb.unique(), batch),
        "auditing: failing rows": audited_rows.sampled(auditing.failing_rows(conditions["key"], batch)),
        "comparing: broken keys": comparing.broken_keys(pairing),
        "comparing: differences": comparing.differences(pairing),
        "comparing: different rows": audited_rows.sampled(comparing.different_rows(pairing)),
        "comparing: changed rows": audited_rows.sampled(comparing.different_rows(pairing, "changed")),
        "comparing: differences of whole rows": comparing.whole_differences(whole),
        "comparing: whole rows that are gone": audited_rows.sampled(comparing.different_whole_rows(whole, "removed")),
        "comparing: no rows": comparing.no_rows(LIVE, ["day"]),
        "staging: sizes": staging.sizes([LIVE, SHADOW]),
        "terms: the database's version": terms.database_version(),
        "publishing: rows by partition": publishing.rows_by_partition(LIVE, placed),
        "publishing: differing": publishing.differing(write),
        "publishing: differing by partition": publishing.differing_by_partition(
            TableRef(schema="main", name="differing"), write
        ),
        "publishing: count in scope": publishing.count_inside(write),
        "publishing: rows in scope": publishing.rows_inside(write),
        "publishing: gone by partition": publishing.gone_by_partition(write),
        "publishing: delete gone": publishing.delete_gone(write),
        "publishing: merge changed": publishing.merge_changed(stamped),
        "publishing: delete scope": publishing.delete_inside(write),
        "publishing: insert staged": publishing.insert_staged(stamped),
        "publishing: keys that are live elsewhere": taken,
        "publishing: keys that are live in no partition": nowhere,
        "publishing: differing, with rows that move": publishing.differing(moving),
        "publishing: moved by partition": publishing.moved_by_partition(moving),
        "publishing: merge changed, with rows that move": publishing.merge_changed(moving),
        "publishing: delete rows that move": publishing.delete_moving(moving),
        "auditing: repeated values beside rows that stay": auditing.repeated_values(
            sb.unique("value"), measured_moving
        ),
        "publishing: create live": _created(born.table, publishing.staged_rows(born)),
    }


def rendered(dialect: str) -> str:
    """Return the golden file's text."""
    written = SPEECHES[dialect].dialect.name
    parts = [f"-- {name}\n{s.sql(dialect=written, pretty=True)};\n" for name, s in statements(dialect).items()]
    return "\n".join(parts)


@pytest.mark.parametrize("dialect", DIALECTS)
def test_statements_are_as_they_were_read(dialect: str) -> None:
    assert rendered(dialect) == (GOLDEN / f"{dialect}.sql").read_text()


@pytest.mark.parametrize("name", statements("duckdb"))
def test_duckdb_runs_each_statement(name: str) -> None:
    with duckdb.connect() as connection:
        connection.execute(PREPARE)
        connection.execute(statements("duckdb")[name].sql(dialect="duckdb"))


@pytest.mark.parametrize("name", statements("snowflake"))
def test_statements_are_of_snowflakes_grammar(name: str) -> None:
    pytest.importorskip("sqlfluff", reason="sqlfluff comes with the tests' extra")
    from dagster_safe_backfill_tests.harness.snowflake.grammar import snowflake_problems

    assert snowflake_problems(statements("snowflake")[name].sql(dialect=SNOWFLAKE)) == []


PREPARE_SNOWFLAKE = """
CREATE SCHEMA "MAIN";
CREATE SCHEMA "TEMP";
CREATE TABLE SOURCE (day DATE, "IT'S" NUMBER(38,0), value FLOAT);
CREATE TABLE "MAIN".live (day DATE, "IT'S" NUMBER(9,0), value FLOAT, updated_at TIMESTAMP_TZ);
CREATE TABLE "MAIN".live__shadow_1 (day DATE, "IT'S" NUMBER(9,0), value FLOAT, _sb_partition NUMBER(38,0));
CREATE TABLE "MAIN".other (id NUMBER(38,0));
CREATE TABLE "MAIN".differing (_sb_partition NUMBER(38,0), _sb_is_new BOOLEAN);
CREATE TABLE "MAIN".live__shadow_2 (day DATE, "IT'S" NUMBER(9,0), value FLOAT, _sb_rank NUMBER(38,0), _sb_ties INT);
INSERT INTO "MAIN".live SELECT '2024-01-01', 1, 1.0, NULL UNION ALL SELECT '2024-01-05', 3, 1.0, NULL;
INSERT INTO "MAIN".live__shadow_1 VALUES ('2024-01-01', 1, 2.0, 0), ('2024-01-09', 5, 2.0, NULL)
"""


DIVIDES = "auditing: aggregates of no rows"
BY_NOTHING = pytest.mark.xfail(
    strict=True,
    reason="a division by zero, which is an error on Snowflake and NULL on DuckDB; the audit then asks for each alone",
)


@pytest.mark.parametrize(
    "name", [pytest.param(one, marks=BY_NOTHING if one == DIVIDES else ()) for one in statements("snowflake")]
)
def test_the_emulated_snowflake_runs_each_statement(name: str, snowflake_emulator: Any) -> None:
    from snowflake.connector import connect

    database = snowflake_emulator.database()
    with connect(**snowflake_emulator.connect_arguments(database)) as connection, connection.cursor() as cursor:
        for statement in PREPARE_SNOWFLAKE.split(";"):
            cursor.execute(statement)
        cursor.execute(statements("snowflake")[name].sql(dialect=SNOWFLAKE))
    snowflake_emulator.drop(database)


def test_each_row_of_a_session_is_of_snowflakes_grammar_and_is_needed() -> None:
    """The rows that have the shapes of all statements that any test sends; see `harness/snowflake/shapes.py`."""
    pytest.importorskip("sqlfluff", reason="sqlfluff comes with the tests' extra")
    from dagster_safe_backfill_tests.harness.snowflake.grammar import snowflake_problems

    there: set[str] = set()
    for sql in shapes.rows():
        assert snowflake_problems(sql) == [], sql
        assert not shapes.shapes(sql) <= there, f"this row has nothing that those before it haven't: {sql}"
        there |= shapes.shapes(sql)


@pytest.mark.parametrize(
    "sql",
    [
        "DROP VIEW IF EXISTS t",
        'ALTER TABLE "T" ADD COLUMN IF NOT EXISTS "C" DATE DEFAULT \'2024-01-01\'::DATE',
        'CREATE OR REPLACE TABLE "T" CLONE "U"',
        "PUT 'file:///a' @~ OVERWRITE = TRUE",
        'SELECT NEW_FUNCTION("A") FROM "T"',
        'SELECT "A" FROM "T" WHERE "A" REGEXP \'x\'',
        'UPDATE "T" SET "A" = "A" WHERE FALSE LIMIT 1',
        'SELECT "A" FROM (SELECT "A" FROM "T" QUALIFY ROW_NUMBER() OVER (ORDER BY "A") = 1)',
    ],
)
def test_what_no_row_has_is_found(sql: str) -> None:
    assert shapes.unknown([sql])


def test_statements_are_of_one_shape_whatever_they_name() -> None:
    one = 'SELECT "A", COUNT(*) FROM "S"."T" WHERE "D" >= \'x\' AND "D" < \'y\' GROUP BY "A"'
    other = 'SELECT "B", "A", COUNT(*) AS "N" FROM "U" WHERE "D" >= \'it\'\'s\' AND d < \'(\' GROUP BY "B", "A"'
    assert shapes.shapes(one) == shapes.shapes(other)
    assert shapes.shapes('DROP TABLE IF EXISTS "A"') == shapes.shapes('DROP TABLE IF EXISTS "X"."it""s ("')


@pytest.mark.parametrize("key", ["it's", 'say "hi"', "'; DROP TABLE live; --", "ünï—code", "a\\'b"])
def test_keys_are_literals_whatever_is_in_them(key: str) -> None:
    partition_slice = PartitionSlice(keys=(key,), dimensions=(KeyDimension(values=(key,)),))
    columns = {None: _column("key", "text", "VARCHAR", DuckDBDialect())}
    predicate = inside(TableSlice(spec=TableSpec(table=LIVE), partition_slice=partition_slice, columns=columns))
    with duckdb.connect() as connection:
        connection.execute("CREATE TABLE live (key VARCHAR)")
        connection.execute("INSERT INTO live VALUES (?), ('another')", [key])
        found = connection.execute(f"SELECT key FROM live WHERE {predicate.sql('duckdb')}").fetchall()
    assert found == [(key,)]


@pytest.mark.parametrize(
    "sql", ["a; DROP TABLE live", "a, b", "a FROM live", "1) OR (1 = 1", "", "a WHERE true", "a UNION SELECT 1"]
)
def test_a_users_expression_is_one_expression(sql: str) -> None:
    with pytest.raises(sb.ConfigurationError, match="partition_expr"):
        terms.parsed(sql, dialect="duckdb", option="partition_expr")


if __name__ == "__main__":
    GOLDEN.mkdir(exist_ok=True)
    for dialect in DIALECTS:
        (GOLDEN / f"{dialect}.sql").write_text(rendered(dialect))
