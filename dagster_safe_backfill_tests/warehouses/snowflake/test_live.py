"""What no emulator can show, on a real account: skipped unless `DSB_SNOWFLAKE_*` tells how to log in.

`DSB_SNOWFLAKE_ACCOUNT`, `_USER`, `_DATABASE` and `_WAREHOUSE`, with `_PASSWORD` or `_PRIVATE_KEY_PATH` (and `_ROLE`),
of a user who may create schemas in that database. Each test makes a schema of its own, and drops it. `_HOST`, `_PORT`
and `_PROTOCOL` lead to a server that isn't Snowflake's own, such as the emulator: to try these tests themselves.
"""

from __future__ import annotations

import os
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import dagster as dg
import pytest
from sqlglot import exp

import dagster_safe_backfill as sb
from dagster_safe_backfill.errors import TransactionConflictError
from dagster_safe_backfill.model.tables import TableRef
from dagster_safe_backfill.sql import terms
from dagster_safe_backfill.warehouses.snowflake.generator import DIALECT
from dagster_safe_backfill_tests.harness.assets import DAYS, Source, events, failure_of, run_range

_NEEDED = ("ACCOUNT", "USER", "DATABASE", "WAREHOUSE")
_OPTIONAL = ("PASSWORD", "PRIVATE_KEY_PATH", "ROLE", "AUTHENTICATOR")
_ADDRESS = ("HOST", "PORT", "PROTOCOL")
_PREFIX = "DSB_SNOWFLAKE_"
MONTH = DAYS.get_partition_keys()[:31]

pytestmark = pytest.mark.skipif(
    any(_PREFIX + name not in os.environ for name in _NEEDED),
    reason=f"no Snowflake account: set {', '.join(_PREFIX + name for name in _NEEDED)} and a way to log in",
)


def _given(*names: str) -> dict[str, str]:
    return {name.lower(): os.environ[_PREFIX + name] for name in names if _PREFIX + name in os.environ}


class Account:
    """A schema of a real account, the library's assets in it, and a session of one's own."""

    def __init__(self) -> None:
        self.schema = f"dsb_{uuid.uuid4().hex}"
        self.options: dict[str, Any] = _given(*_NEEDED, *_OPTIONAL)
        self.address = _given(*_ADDRESS)
        self.io_manager = sb.RangeSnowflakeIOManager(
            schema=self.schema,
            lock_timeout=5,
            additional_snowflake_connection_args=self.address or None,
            **self.options,
        )
        self.source = Source()
        self._session = self.opened()

    def opened(self) -> Any:
        import snowflake.connector

        options = {("private_key_file" if k == "private_key_path" else k): v for k, v in self.options.items()}
        return snowflake.connector.connect(**options, **self.address)

    def sql(self, sql: str) -> list[tuple[Any, ...]]:
        with self._session.cursor() as cursor:
            return cursor.execute(sql).fetchall()

    @property
    def table(self) -> str:
        return f"{self.schema}.events"

    def publish(
        self, instance: dg.DagsterInstance, first: str = MONTH[0], last: str = MONTH[-1], **options: Any
    ) -> str:
        result = run_range([events(self.source, **options)], first, last, io_manager=self.io_manager, instance=instance)
        assert result.success, failure_of(result, "events")
        return result.run_id

    def grants(self) -> set[tuple[str, str]]:
        """Who else has which privilege on the table."""
        rows = self.sql(f"SHOW GRANTS ON TABLE {self.table}")
        return {(row[1], row[5]) for row in rows if row[1] != "OWNERSHIP"}

    def kind(self) -> str:
        ((kind,),) = self.sql(
            "SELECT IS_TRANSIENT FROM INFORMATION_SCHEMA.TABLES"
            f" WHERE TABLE_SCHEMA = '{self.schema.upper()}' AND TABLE_NAME = 'EVENTS'"
        )
        return kind

    def drop(self) -> None:
        self.sql(f"DROP SCHEMA IF EXISTS {self.schema}")
        self._session.close()


@pytest.fixture
def account() -> Iterator[Account]:
    account = Account()
    try:
        yield account
    finally:
        account.drop()


def test_a_month_goes_live_and_comes_back(account: Account, instance: dg.DagsterInstance) -> None:
    account.publish(instance)
    before = account.sql(f"SELECT HASH_AGG(*), COUNT(*) FROM {account.table}")
    assert before[0][1] == 31 * account.source.rows_per_day
    account.source.spoiled[MONTH[3], 0] = 77.0
    account.publish(instance)
    assert account.sql(f"SELECT HASH_AGG(*), COUNT(*) FROM {account.table}") != before
    job = sb.build_rollback_job(events(account.source))
    done = dg.Definitions(assets=[events(account.source)], jobs=[job], resources={"io_manager": account.io_manager})
    assert done.resolve_job_def(job.name).execute_in_process(instance=instance).success
    assert account.sql(f"SELECT HASH_AGG(*), COUNT(*) FROM {account.table}") == before
    left = account.sql(f"SHOW TABLES LIKE 'EVENTS\\\\_\\\\_SHADOW%' IN SCHEMA {account.schema}")
    assert left == []


def test_what_counts_as_the_same_and_what_describe_shows(account: Account) -> None:
    """Collations are described, COLLATE compares bytes, and JSON, type and hash tell what a VARIANT holds."""
    account.sql(f"CREATE SCHEMA {account.schema}")
    account.sql(
        f"CREATE TABLE {account.table} (t VARCHAR COLLATE 'en-ci', v VARIANT, f FLOAT,"
        " n INT AUTOINCREMENT, w NUMBER(38, 0) AS (n * 2), d VARCHAR(9) NOT NULL DEFAULT 'new')"
    )
    table = TableRef(schema=account.schema, name="events")
    with account.io_manager.warehouse().connect(read_only=True) as session:
        columns = {column.name: column for column in session.tables.columns(table) or ()}
        assert [*columns] == ["t", "v", "f", "n", "d"]
        assert session.tables.generated(table) == ("w",)
        assert columns["t"].collation == "en-ci"
        assert columns["d"].default == "'new'"
        assert not columns["d"].is_nullable
        assert columns["n"].default is not None
        exact = {name: session.dialect.exact(terms.column(name), column) for name, column in columns.items()}
    forms = ", ".join(form.sql(dialect=DIALECT) for name in ("t", "v", "f") for form in exact[name])
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
        account.sql(f"INSERT INTO {account.table} (t, v, f) SELECT {', '.join(row)}")
    account.sql(f"""INSERT INTO {account.table} (t, v, f) SELECT 'a', PARSE_JSON('{{"a": 2, "b": 1}}'), 0""")
    found = account.sql(f"SELECT {forms} FROM {account.table}")
    # The order of an object's keys is no difference, and nothing else is alike.
    assert len({*found}) == len(values)


def test_a_swap_keeps_grants(account: Account, instance: dg.DagsterInstance) -> None:
    account.publish(instance)
    account.sql(f"GRANT SELECT ON TABLE {account.table} TO ROLE PUBLIC")
    before = account.grants()
    account.source.rows_per_day = 4
    account.publish(instance, publish="swap")
    assert account.grants() == before != set()


@pytest.mark.parametrize("kind", ["", "TRANSIENT"])
def test_a_swap_keeps_the_kind_of_table(account: Account, instance: dg.DagsterInstance, kind: str) -> None:
    account.sql(f"CREATE SCHEMA {account.schema}")
    account.sql(f"CREATE {kind} TABLE {account.table} (day TIMESTAMP_NTZ, id NUMBER(38, 0), value FLOAT)")
    before = account.kind()
    account.publish(instance, publish="swap")
    assert account.kind() == before == ("YES" if kind else "NO")


@pytest.mark.parametrize("strategy", ["merge", "replace"])
def test_a_stream_sees_what_changed_and_goes_on(account: Account, instance: dg.DagsterInstance, strategy: str) -> None:
    account.publish(instance)
    account.sql(f"CREATE STREAM {account.schema}.changes ON TABLE {account.table}")
    account.source.spoiled[MONTH[3], 0] = 77.0
    account.publish(instance, publish=strategy)
    seen = account.sql(f"SELECT METADATA$ACTION, METADATA$ISUPDATE, value FROM {account.schema}.changes")
    assert sorted(seen) == [("DELETE", True, 1.0), ("INSERT", True, 77.0)]


def test_a_table_is_held_by_one_transaction_at_a_time(account: Account, instance: dg.DagsterInstance) -> None:
    """Who waits too long is told for whom."""
    from dagster_safe_backfill.model.tables import TableRef

    account.publish(instance)
    table = TableRef(schema=account.schema, name="events")
    warehouse = account.io_manager.warehouse()
    with warehouse.connect() as one, warehouse.connect() as other:
        with (
            one.transaction(),
            one.tables.hold(table, run_id="live-test"),
            pytest.raises(TransactionConflictError, match="of run live-test"),
            other.transaction(),
            other.tables.hold(table, run_id="other"),
        ):
            pytest.fail("two held it")
        with other.transaction(), other.tables.hold(table, run_id="other"):
            pass


def test_a_transaction_that_was_aborted_commits_nothing(account: Account, instance: dg.DagsterInstance) -> None:
    from dagster_safe_backfill.model.tables import TableRef

    account.publish(instance)
    table = TableRef(schema=account.schema, name="events")
    with (
        account.io_manager.warehouse().connect() as connection,
        pytest.raises(TransactionConflictError),
        connection.transaction(),
        connection.tables.hold(table, run_id="live-test"),
    ):
        ((number,),) = connection.query(exp.select(exp.Anonymous(this="CURRENT_TRANSACTION")))
        account.sql(f"SELECT SYSTEM$ABORT_TRANSACTION({number})")
        connection.append(table, ["id"], [(99,)])
    assert account.sql(f"SELECT COUNT(*) FROM {account.table} WHERE id = 99") == [(0,)]


@pytest.mark.parametrize("strategy", ["merge", "replace", "swap"])
def test_every_reader_sees_all_or_nothing(account: Account, instance: dg.DagsterInstance, strategy: str) -> None:
    account.publish(instance)
    sums: list[float] = []
    over = threading.Event()

    def read() -> None:
        with closing(account.opened()) as session:
            while not over.is_set():
                with session.cursor() as cursor:
                    ((total,),) = cursor.execute(f"SELECT SUM(value) FROM {account.table}").fetchall()
                sums.append(total)

    reader = threading.Thread(target=read)
    reader.start()
    try:
        totals = {account.sql(f"SELECT SUM(value) FROM {account.table}")[0][0]}
        for rows in (4, 5, 3):
            account.source.rows_per_day = rows
            account.publish(instance, publish=strategy)
            totals |= {account.sql(f"SELECT SUM(value) FROM {account.table}")[0][0]}
    finally:
        over.set()
        reader.join()
    assert set(sums) <= totals
    assert len(sums) > 3


def test_time_travel_reads_what_was_before(account: Account, instance: dg.DagsterInstance) -> None:
    account.publish(instance)
    (total,) = account.sql(f"SELECT SUM(value) FROM {account.table}")
    time.sleep(2)
    ((moment,),) = account.sql("SELECT TO_VARCHAR(CURRENT_TIMESTAMP())")
    time.sleep(2)
    account.source.rows_per_day = 5
    account.publish(instance)
    assert account.sql(f"SELECT SUM(value) FROM {account.table} AT(TIMESTAMP => '{moment}'::TIMESTAMP_TZ)") == [total]


def test_a_publication_of_a_few_days_reads_a_few_micro_partitions(
    account: Account, instance: dg.DagsterInstance
) -> None:
    """The literal bounds of the slice prune, in MERGE as well."""
    account.sql(f"CREATE SCHEMA {account.schema}")
    account.sql(
        f"CREATE TABLE {account.table} CLUSTER BY (day) AS"
        " SELECT DATEADD(day, FLOOR(SEQ4() / 1000000), '2023-01-01'::TIMESTAMP_NTZ) AS day,"
        " MOD(SEQ4(), 1000000)::NUMBER(38, 0) AS id, 1.0::FLOAT AS value"
        " FROM TABLE(GENERATOR(ROWCOUNT => 400000000)) ORDER BY 1"
    )
    account.publish(instance, MONTH[0], MONTH[1])
    queries = account.sql(
        "SELECT QUERY_ID FROM TABLE(INFORMATION_SCHEMA.QUERY_HISTORY_BY_USER(RESULT_LIMIT => 1000))"
        f" WHERE QUERY_TEXT ILIKE '%{account.schema}%EVENTS\"%' AND QUERY_TYPE IN ('MERGE', 'DELETE', 'SELECT')"
        " AND QUERY_TAG LIKE '%dagster-safe-backfill%'"
    )
    scans = [
        row
        for (query,) in queries
        for row in account.sql(
            "SELECT OPERATOR_STATISTICS:pruning:partitions_scanned::INT,"
            " OPERATOR_STATISTICS:pruning:partitions_total::INT"
            f" FROM TABLE(GET_QUERY_OPERATOR_STATS('{query}')) WHERE OPERATOR_TYPE = 'TableScan'"
        )
    ]
    of_live = [(scanned, total) for scanned, total in scans if total > 100]
    assert of_live
    assert all(scanned < total / 10 for scanned, total in of_live)
