"""Lines about values: frames there and back, defaults, a user's own session parameters, and errors by number."""

from __future__ import annotations

from datetime import date, datetime, time, timezone
from decimal import Decimal
from typing import Any

import pyarrow as pa
from snowflake.connector.errors import Error
from sqlglot import exp

from dagster_safe_backfill.errors import SafeBackfillError
from dagster_safe_backfill.model.states import Origin
from dagster_safe_backfill.model.tables import Query, TableRef
from dagster_safe_backfill.sql import terms
from dagster_safe_backfill.wap.tables.store import store
from dagster_safe_backfill.warehouses.snowflake.generator import DIALECT
from dagster_safe_backfill_tests.harness.audited import slice_of
from dagster_safe_backfill_tests.snowflake.account import COLUMNS, Account, Table
from dagster_safe_backfill_tests.snowflake.lines import line

NOON = datetime(2024, 2, 3, 12, 34, 56, 123456)  # noqa: DTZ001 - a wall clock
VALUES: dict[str, tuple[pa.DataType, list[Any]]] = {
    "integers": (pa.int64(), [1, None, -(2**63), 2**63 - 1]),
    "decimals": (pa.decimal128(38, 2), [Decimal("1.25"), None, Decimal("-0.01"), Decimal("9" * 36 + ".99")]),
    "floats": (pa.float64(), [1.5, None, float("inf"), -1e-300]),
    "texts": (pa.string(), ["a", None, "\\N", "NULL"]),
    "more texts": (pa.string(), ["", " ", 'it\'s "quoted", \\ and\nmore', "Zürich 東京"]),
    "bytes": (pa.binary(), [b"\xff\x00", None, b"", b"\\N"]),
    "booleans": (pa.bool_(), [True, None, False, True]),
    "dates": (pa.date32(), [date(2024, 2, 3), None, date(1582, 10, 15), date(9999, 12, 31)]),
    "times": (pa.time64("us"), [time(12, 34, 56, 123456), None, time(0), time(23, 59, 59, 999999)]),
    "wall clocks": (pa.timestamp("us"), [NOON, None, NOON.replace(year=1700), NOON.replace(year=9999)]),
    "instants": (pa.timestamp("us", tz="UTC"), [NOON.replace(tzinfo=timezone.utc), None, None, None]),
    "only NULL": (pa.string(), [None, None, None, None]),
}


@line("frames come back as they were written")
def round_trip(account: Account) -> str:
    """Each type with NULL and extremes, read by the library and by a session of somebody else."""
    failed: list[str] = []
    for number, (name, (kind, values)) in enumerate(VALUES.items()):
        rows = pa.table(
            {"day": pa.array([date(2024, 1, 1)] * 4), "id": pa.array(range(4), pa.int64()), "v": pa.array(values, kind)}
        )
        table = Table(account, name=f"f{number}", columns=None)
        try:
            found = _written_and_read(table, rows)
        except (SafeBackfillError, Error) as error:
            failed.append(f"{name}: {error}")
            continue
        if found != values:
            failed.append(f"{name}: {values} came back as {found}")
    assert not failed, "\n".join(failed)
    return f"{len(VALUES)} kinds of values"


def _written_and_read(table: Table, rows: pa.Table) -> list[Any]:

    origin = Origin(run_id="1", publication_id="1")
    with table.warehouse.connect() as session:
        store(session, rows, spec=table.spec, partition_slice=slice_of([0]), origin=origin)
        select = (
            exp.select(*terms.columns(["id", "v"])).from_(terms.table(table.spec.table)).order_by(terms.column("id"))
        )
        read: Any = session.fetch(select, pa.Table)
    return read.column("v").to_pylist()


DEFAULTS = {
    "NUMBER(38,0)": "7",
    "NUMBER(10,2)": "1.25",
    "FLOAT": "0.5",
    "VARCHAR": "'it''s'",
    "BOOLEAN": "TRUE",
    "DATE": "'2024-02-03'::DATE",
    "TIMESTAMP_NTZ(9)": "'2024-02-03 12:34:56'::TIMESTAMP_NTZ",
    "BINARY": "TO_BINARY('FF', 'HEX')",
}


@line("new columns with defaults of each type fill the rows that are there")
def defaults(account: Account) -> str:
    """Each is added by a publication whose table has `column_defaults`."""
    failed: list[str] = []
    for number, (kind, value) in enumerate(DEFAULTS.items()):
        table = Table(account, name=f"d{number}", columns=COLUMNS)
        account.sql(f"INSERT INTO {table.name} VALUES ('2024-01-02', 1, 1.0, NULL)")
        try:
            _publish_with_column(table, kind, value)
            found = account.sql(f"SELECT C = {value} FROM {table.name} WHERE DAY = '2024-01-02'")
        except (SafeBackfillError, Error) as error:
            failed.append(f"{kind}: {error}")
            continue
        if found != [(True,)]:
            failed.append(f"{kind}: {found}")
    assert not failed, "\n".join(failed)
    return f"{len(DEFAULTS)} types"


def _publish_with_column(table: Table, kind: str, value: str) -> None:
    query = Query(f"SELECT '2024-01-01'::DATE AS DAY, 1 AS ID, 2.0::FLOAT AS VALUE, 'n' AS NOTE, {value}::{kind} AS C")
    table.published(query, [0], "1", on_schema_change="add_columns", column_defaults={"c": value})


ODD = {
    "DATE_INPUT_FORMAT": "DD/MM/YYYY",
    "TIMESTAMP_INPUT_FORMAT": "DD/MM/YYYY HH24:MI",
    "DATE_OUTPUT_FORMAT": "DD/MM/YYYY",
    "TIMESTAMP_NTZ_OUTPUT_FORMAT": "DD.MM.YY",
    "TIMEZONE": "America/New_York",
    "TIMESTAMP_TYPE_MAPPING": "TIMESTAMP_LTZ",
    "BINARY_OUTPUT_FORMAT": "BASE64",
    "ERROR_ON_NONDETERMINISTIC_MERGE": "FALSE",
    "WEEK_START": "7",
}


@line("a user whose session parameters are all odd gets the same rows")
def odd_user(account: Account) -> str:
    account.account_only("the emulator has no parameters of users")
    user = account.login.options["user"]
    before = {row[0]: row for row in account.sql(f"SHOW PARAMETERS FOR USER {user}")}
    try:
        for name, value in ODD.items():
            account.sql(f"ALTER USER {user} SET {name} = '{value}'")
        table = Table(account)
        rows = [(day, n, float(n), "x") for day in range(4) for n in range(3)]
        table.published(rows, range(4), "1")
        table.published([(0, 0, 9.0, "y")], [0], "2")
        table.rollback("2")
        found = account.sql(f"SELECT TO_CHAR(DAY, 'YYYY-MM-DD'), ID, VALUE, NOTE FROM {table.name} ORDER BY DAY, ID")
        assert found == [(f"2024-01-0{day + 1}", n, value, note) for day, n, value, note in rows]
    finally:
        for name in ODD:
            # The level is that of the user if it had set the parameter.
            of_user = before[name][3] == "USER"
            account.sql(f"ALTER USER {user} " + (f"SET {name} = '{before[name][1]}'" if of_user else f"UNSET {name}"))
    return f"{len(ODD)} parameters"


ERRORS = {
    1003: "SELECT FROM WHERE",
    2003: "SELECT * FROM NOWHERE_AT_ALL",
    904: "SELECT NO_SUCH_COLUMN FROM E",
    100072: "INSERT INTO E VALUES (NULL, 'a')",
    100078: "INSERT INTO E VALUES (1, 'longer than five')",
    100038: "INSERT INTO E SELECT 'no number', 'a'",
    100051: "SELECT 1 / 0",
    100090: "MERGE INTO E USING (SELECT 1 AS I, 'b' AS S UNION ALL SELECT 1, 'c') AS N ON E.I = N.I"
    " WHEN MATCHED THEN UPDATE SET S = N.S",
}


@line("errors have the numbers that the library knows them by")
def errors(account: Account) -> str:
    account.sql("CREATE TABLE E (I NUMBER NOT NULL, S VARCHAR(5))")
    account.sql("INSERT INTO E VALUES (1, 'a')")
    others: list[str] = []
    for number, statement in ERRORS.items():
        try:
            account.sql(statement)
        except Error as error:
            if error.errno != number:
                others.append(f"{statement}: {error.errno} in place of {number}")
        else:
            others.append(f"{statement}: no error")
    if account.is_emulated:
        # The emulator has the numbers that the library reads, and not all of Snowflake's.
        return f"{len(ERRORS) - len(others)} of {len(ERRORS)} are the emulator's too"
    assert not others, "\n".join(others)
    return f"{len(ERRORS)} numbers"


@line("collations are described, and what differs in any byte is told apart")
def same(account: Account) -> str:
    """COLLATE compares bytes, and JSON, type and hash tell what a VARIANT holds."""
    account.account_only("the emulator keeps the order of an object's keys")
    name = f"{account.schema}.SAME"
    account.sql(
        f"CREATE TABLE {name} (t VARCHAR COLLATE 'en-ci', v VARIANT, f FLOAT,"
        " n INT AUTOINCREMENT, w NUMBER(38, 0) AS (n * 2), d VARCHAR(9) NOT NULL DEFAULT 'new')"
    )
    table = TableRef(schema=account.schema.lower(), name="same")
    with account.io_manager.warehouse().connect(read_only=True) as session:
        columns = {column.name: column for column in session.tables.columns(table) or ()}
        assert [*columns] == ["t", "v", "f", "n", "d"]
        assert session.tables.generated(table) == ("w",)
        assert columns["t"].collation == "en-ci"
        assert columns["d"].default == "'new'"
        assert not columns["d"].is_nullable
        assert columns["n"].default is not None
        exact = {one: session.dialect.exact(terms.column(one), column) for one, column in columns.items()}
    forms = ", ".join(form.sql(dialect=DIALECT) for one in ("t", "v", "f") for form in exact[one])
    values = [
        ("'a'", "PARSE_JSON('1')", "0"),
        ("'A'", "PARSE_JSON('1')", "0"),
        ("'a'", "1.0::FLOAT::VARIANT", "0"),
        ("'a'", "'1'::VARIANT", "0"),
        ("'a'", "PARSE_JSON('null')", "0"),
        ("'a'", "NULL", "0"),
        ("'a'", "OBJECT_CONSTRUCT('d', '2024-01-01'::DATE)", "0"),
        ("'a'", "OBJECT_CONSTRUCT('d', '2024-01-01')", "0"),
        ("'a'", "PARSE_JSON('1')", "'-0.0'::FLOAT"),
        ("'a'", "PARSE_JSON('1')", "'nan'::FLOAT"),
        ("'a'", """PARSE_JSON('{"b": 1, "a": 2}')""", "0"),
    ]
    for row in values:
        account.sql(f"INSERT INTO {name} (t, v, f) SELECT {', '.join(row)}")
    account.sql(f"""INSERT INTO {name} (t, v, f) SELECT 'a', PARSE_JSON('{{"a": 2, "b": 1}}'), 0""")
    found = account.sql(f"SELECT {forms} FROM {name}")
    # The order of an object's keys is no difference, and nothing else is alike.
    assert len({*found}) == len(values)
    return f"{len(values)} values"
