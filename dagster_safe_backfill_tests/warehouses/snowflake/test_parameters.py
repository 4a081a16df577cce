"""Session parameters: a user whose defaults are all odd gets the same rows as one whose are Snowflake's."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date
from typing import Any

import dagster as dg
import pandas as pd
import pytest
from snowflake.connector import connect

import dagster_safe_backfill as sb
from dagster_safe_backfill.model.tables import Query
from dagster_safe_backfill.warehouses.snowflake.session import PINNED, UNLESS_GIVEN
from dagster_safe_backfill_tests.harness.assets import Source, events, run_range
from dagster_safe_backfill_tests.harness.publications import STRATEGIES, Publications, day_rows
from dagster_safe_backfill_tests.harness.snowflake import parameters
from dagster_safe_backfill_tests.harness.snowflake.emulator import Emulator
from dagster_safe_backfill_tests.harness.snowflake_backend import SnowflakeBackend

ODD: dict[str, Any] = {
    "ABORT_DETACHED_QUERY": True,
    "AUTOCOMMIT": False,
    "BINARY_INPUT_FORMAT": "BASE64",
    "BINARY_OUTPUT_FORMAT": "BASE64",
    "CLIENT_TIMESTAMP_TYPE_MAPPING": "TIMESTAMP_LTZ",
    # Reads 2024-01-02 as the first of February.
    "DATE_INPUT_FORMAT": "YYYY-DD-MM",
    "DATE_OUTPUT_FORMAT": "DD/MM/YYYY",
    "ERROR_ON_NONDETERMINISTIC_MERGE": False,
    "ERROR_ON_NONDETERMINISTIC_UPDATE": False,
    "GEOGRAPHY_OUTPUT_FORMAT": "WKT",
    "GEOMETRY_OUTPUT_FORMAT": "WKT",
    "JSON_INDENT": 0,
    "MULTI_STATEMENT_COUNT": 0,
    "PYTHON_CONNECTOR_QUERY_RESULT_FORMAT": "JSON",
    "QUOTED_IDENTIFIERS_IGNORE_CASE": True,
    "ROWS_PER_RESULTSET": 1,
    "STRICT_JSON_OUTPUT": True,
    "TIMESTAMP_DAY_IS_ALWAYS_24H": True,
    "TIMESTAMP_INPUT_FORMAT": "YYYY-DD-MM HH24:MI:SS",
    "TIMESTAMP_LTZ_OUTPUT_FORMAT": "DD/MM/YYYY",
    "TIMESTAMP_NTZ_OUTPUT_FORMAT": "DD/MM/YYYY",
    "TIMESTAMP_OUTPUT_FORMAT": "DD/MM/YYYY",
    "TIMESTAMP_TYPE_MAPPING": "TIMESTAMP_LTZ",
    "TIMESTAMP_TZ_OUTPUT_FORMAT": "DD/MM/YYYY",
    "TIMEZONE": "Asia/Tokyo",
    "TIME_INPUT_FORMAT": "MI:SS:HH24",
    "TIME_OUTPUT_FORMAT": "HH24",
    "TRANSACTION_ABORT_ON_ERROR": False,
    "TWO_DIGIT_CENTURY_START": 2000,
    "WEEK_OF_YEAR_POLICY": 1,
    "WEEK_START": 7,
}
UNTOUCHED = {
    "CLIENT_PREFETCH_THREADS",
    "CLIENT_SESSION_KEEP_ALIVE",
    "STATEMENT_QUEUED_TIMEOUT_IN_SECONDS",
    "STATEMENT_TIMEOUT_IN_SECONDS",
    "TRANSACTION_DEFAULT_ISOLATION_LEVEL",
    "UNSUPPORTED_DDL_ACTION",
    "USE_CACHED_RESULT",
}
"""The parameters that neither the library nor this user sets: no row depends on them."""


@pytest.fixture
def odd(snowflake_emulator: Emulator) -> Iterator[None]:
    """Make a user whose sessions begin with the odd parameters."""
    assert snowflake_emulator.account is not None
    snowflake_emulator.account.user("odd").parameters = ODD
    yield
    del snowflake_emulator.account.users["ODD"]


WEEKS = Query("SELECT day, id, value, note FROM source WHERE DATE_TRUNC('WEEK', day) = '2024-01-01'::DATE")


def outcome(account: SnowflakeBackend, user: str) -> list[Any]:
    """Return the rows and counts of each strategy and its way back, of frames, queries, and an asset."""
    account.io_manager = account.manager(user=user)
    account.change(
        "CREATE TABLE source AS SELECT d.d AS day, 1 AS id, 5.0::FLOAT AS value, d.d::TIMESTAMP::VARCHAR AS note"
        " FROM (VALUES ('2024-01-01'::DATE), ('2024-01-02'::DATE)) AS d (d)"
    )
    found: list[Any] = []
    table = Publications(account, live=[*day_rows(0, 1.0), *day_rows(1, 1.0), *day_rows(3, 1.0)])
    for strategy in STRATEGIES:
        published = table.published(day_rows(1, 2.0), [1], f"a{strategy}", strategy=strategy)
        found += [table.live(), dict(published.row_counts)]
        table.published(WEEKS, [0, 1], f"b{strategy}", strategy=strategy)
        found.append(table.live())
        back = table.rollback(f"b{strategy}", run=f"c{strategy}")
        found += [table.live(), dict(back.row_counts)]
    with dg.DagsterInstance.ephemeral() as instance:
        for asset in (events(Source()), instants()):
            result = run_range([asset], "2024-01-01", "2024-01-03", io_manager=account.io_manager, instance=instance)
            assert result.success
        assets = [instants(), copied()]
        resources = {"io_manager": account.io_manager}
        assert dg.materialize(assets, selection=assets[1:], resources=resources, instance=instance).success
    found.append(account.read("SELECT * FROM copied ORDER BY ALL"))
    found += [account.read("SELECT * FROM events ORDER BY ALL"), account.read("SELECT * FROM instants ORDER BY ALL")]
    return found


def instants() -> dg.AssetsDefinition:
    @sb.wap_asset(
        partitions_def=dg.DailyPartitionsDefinition("2024-01-01", end_date="2024-01-04", timezone="Europe/Berlin"),
        partition_expr="at",
        backfill_policy=sb.single_run(),
        code_version="1",
    )
    def instants(partitions: sb.PartitionSlice) -> pd.DataFrame:
        at = pd.date_range("2023-12-31 23:00", periods=72, freq="h", tz="UTC").as_unit("us")
        bounds = [window for dimension in partitions.dimensions for window in dimension.windows]
        chosen = [one for one in at if any(window.start <= one < window.end for window in bounds)]
        return pd.DataFrame({"at": chosen, "wall": [one.tz_localize(None) for one in chosen]})

    return instants


def copied() -> dg.AssetsDefinition:
    """Return an asset that reads what `instants` wrote."""

    @dg.asset
    def copied(instants: pd.DataFrame) -> pd.DataFrame:
        return instants.assign(day=[one.date() for one in instants["wall"]])

    return copied


def of_user(emulator: Emulator, user: str) -> list[Any]:
    account = SnowflakeBackend(emulator)
    try:
        return outcome(account, user)
    finally:
        emulator.drop(account.database)


@pytest.mark.usefixtures("odd")
def test_a_user_whose_defaults_are_all_odd_has_the_same_rows(snowflake_emulator: Emulator) -> None:
    plain, found = (of_user(snowflake_emulator, user) for user in ("tester", "odd"))
    assert len(plain) == len(found)
    for one, other in zip(plain, found, strict=True):
        assert one == other


@pytest.mark.usefixtures("odd")
def test_each_session_has_pinned_parameters_whatever_the_users_are(snowflake_emulator: Emulator) -> None:
    assert set(ODD) | UNTOUCHED | {"LOCK_TIMEOUT", "QUERY_TAG"} == set(parameters.DEFAULTS)
    assert set(ODD) - set(PINNED) - set(UNLESS_GIVEN) == set()
    account = SnowflakeBackend(snowflake_emulator)
    with account.manager(user="odd").warehouse().connect() as connection:
        connection.tables.list("main", "t")
    told = snowflake_emulator.history(account.database)[-1]["parameters"]
    assert {name: told[name] for name in ODD} == {name: {**PINNED, **UNLESS_GIVEN}[name] for name in ODD}
    further = account.emulator.additional_connection_arguments()

    def given(**found: Any) -> dict[str, Any]:
        return {**further, "session_parameters": {**further["session_parameters"], **found}}

    # What only a user's own SQL depends on may be another.
    own = account.manager(user="odd", additional_snowflake_connection_args=given(week_start=1))
    with own.warehouse().connect() as connection:
        connection.tables.list("main", "t")
    assert snowflake_emulator.history(account.database)[-1]["parameters"]["WEEK_START"] == 1
    for name, value in (("DATE_INPUT_FORMAT", "DD/MM/YYYY"), ("timezone", "Asia/Tokyo"), ("AUTOCOMMIT", False)):
        refused = account.manager(additional_snowflake_connection_args=given(**{name: value}))
        with pytest.raises(sb.ConfigurationError, match=f"sets {name.upper()} to .*Leave it out"):
            refused.warehouse().connect().__enter__()
    same = account.manager(additional_snowflake_connection_args=given(TIMEZONE="utc", AUTOCOMMIT="true"))
    with same.warehouse().connect() as connection:
        assert connection.tables.list("main", "t") == ()
    snowflake_emulator.drop(account.database)


SHOWN = {
    "DATE_INPUT_FORMAT": ("SELECT '2024-01-02'::DATE", date(2024, 1, 2), date(2024, 2, 1)),
    "DATE_OUTPUT_FORMAT": ("SELECT '2024-01-02'::DATE::VARCHAR", "2024-01-02", "02/01/2024"),
    "QUOTED_IDENTIFIERS_IGNORE_CASE": ('SELECT "a"."B" FROM (SELECT 1 AS "b") AS "A"', None, 1),
    "WEEK_START": ("SELECT DATE_TRUNC('WEEK', DATE '2024-01-02')::DATE", date(2024, 1, 1), date(2023, 12, 31)),
}
"""What a statement gives a user without a parameter, and with its odd value; None is an error."""


def test_the_emulator_obeys_them(snowflake_emulator: Emulator) -> None:
    """So that the tests above would fail without the library's answer."""
    assert snowflake_emulator.account is not None
    database = snowflake_emulator.database()
    for name, (sql, *expected) in SHOWN.items():
        for user, value in zip(("plain", name), expected, strict=True):
            snowflake_emulator.account.user(user).parameters = {name: ODD[name]} if user == name else {}
            arguments = snowflake_emulator.connect_arguments(database, user=user)
            with connect(**arguments) as connection, connection.cursor() as cursor:
                if value is None:
                    with pytest.raises(Exception, match="invalid identifier"):
                        cursor.execute(sql)
                else:
                    assert cursor.execute(sql).fetchall() == [(value,)], name  # type: ignore[union-attr]
    snowflake_emulator.account.user("rows").parameters = {"ROWS_PER_RESULTSET": 1, "AUTOCOMMIT": False}
    with connect(**snowflake_emulator.connect_arguments(database, user="rows")) as connection:
        cursor = connection.cursor()
        assert cursor.execute("SELECT 1 UNION ALL SELECT 1").fetchall() == [(1,)]  # type: ignore[union-attr]
        cursor.execute("CREATE TABLE t (a INT)")
        cursor.execute("INSERT INTO t SELECT 1")
        with connect(**snowflake_emulator.connect_arguments(database)) as other:
            found = other.cursor().execute("SELECT count(*) FROM t").fetchall()  # type: ignore[union-attr]
        assert found == [(0,)], "nobody committed it"
    snowflake_emulator.drop(database)
