"""Lines about the table itself: what a swap keeps, streams, time travel, roles, policies, and what is read."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import cast

from snowflake.connector.errors import Error

from dagster_safe_backfill.errors import SafeBackfillError
from dagster_safe_backfill.model.options import Strategy
from dagster_safe_backfill_tests.harness.audited import Row
from dagster_safe_backfill_tests.snowflake.account import COLUMNS, Account, Table
from dagster_safe_backfill_tests.snowflake.lines import line, lines

OLD: list[Row] = [(day, n, 1.0, None) for day in range(4) for n in range(3)]
NEW: list[Row] = [(0, n, 2.0, "new") for n in range(4)]


def _grants(account: Account, table: Table) -> set[tuple[str, ...]]:
    return {tuple(map(str, row[1:6])) for row in account.sql(f"SHOW GRANTS ON TABLE {table.name}")}


@lines("it goes live and comes back", "merge", "replace", "swap")
def there_and_back(account: Account, strategy: str) -> str:
    """Byte for byte, and nothing is left behind but the archive."""
    table = Table(account)
    table.published(OLD, range(4), "1")
    before = table.rows()
    published = table.published(NEW, [0], "2", strategy=cast("Strategy", strategy))
    assert [row[2] for row in table.rows()].count(2.0) == 4
    table.rollback("2")
    assert table.rows() == before
    left = [row[1] for row in account.sql(f"SHOW TABLES LIKE 'T\\\\_\\\\_SHADOW%' IN SCHEMA {account.schema}")]
    assert left == []
    return f"{sum(one.touched for one in published.row_counts.values())} rows there and back"


@line("a swap keeps grants and the comment")
def swap_keeps(account: Account) -> str:
    table = Table(account)
    table.published(OLD, range(4), "1")
    account.sql(f"GRANT SELECT ON TABLE {table.name} TO ROLE PUBLIC")
    account.sql(f"COMMENT ON TABLE {table.name} IS 'it''s ours'")
    before = _grants(account, table)
    table.published(NEW, [0], "2", strategy="swap")
    assert _grants(account, table) == before
    assert table.fact("COMMENT") == "it's ours"
    return f"{len(before)} grants"


@line("a swap keeps the owner and clustering, which goes on")
def swap_keeps_clustering(account: Account) -> str:
    table = Table(account)
    table.published(OLD, range(4), "1")
    account.sql(f"ALTER TABLE {table.name} CLUSTER BY (DAY)")
    columns = ("TABLE_OWNER", "CLUSTERING_KEY", "AUTO_CLUSTERING_ON")
    before = [table.fact(column) for column in columns]
    table.published(NEW, [0], "2", strategy="swap")
    assert [table.fact(column) for column in columns] == before
    assert before[2] == "YES"
    return ", ".join(map(str, before))


@line("a swap asks whether the table changed: what its token does at a clone, a comment and a swap")
def swap_token(account: Account) -> str:
    """If it moves without a change of rows, a swap hashes the table more often. It must move with each change."""
    account.sql("CREATE TABLE A (I NUMBER)")

    def token(name: str) -> object:
        ((found,),) = account.sql(f"SELECT SYSTEM$LAST_CHANGE_COMMIT_TIME('{account.schema}.{name}')")
        return found

    with account.session() as other:
        tokens = [token("A")]
        for n in range(5):
            other(f"INSERT INTO A VALUES ({n})")
            tokens.append(token("A"))
        assert len({*tokens}) == 6, tokens
        account.sql("CREATE TABLE B CLONE A")
        account.sql("COMMENT ON TABLE A IS 'a'")
        of_clone = "stays" if token("A") == tokens[-1] else "moves"
        before = token("A")
        account.sql("ALTER TABLE A SWAP WITH B")
    return f"{of_clone} at a clone and a comment, {'goes with' if token('B') == before else 'moves at'} a swap"


@line("a swap refuses a table with a stream")
def swap_refuses_a_stream(account: Account) -> str:
    table = Table(account)
    table.published(OLD, range(4), "1")
    account.sql(f"CREATE STREAM CHANGES ON TABLE {table.name}")
    try:
        table.published(NEW, [0], "2", strategy="swap")
    except SafeBackfillError as error:
        return str(error)
    raise AssertionError("a table with a stream was swapped")


@line("a swap keeps tags, and what becomes of a stream that may be lost")
def swap_keeps_tags(account: Account) -> str:
    account.account_only("the emulator has no tags, and its streams have no rows")
    table = Table(account)
    table.published(OLD, range(4), "1")
    account.sql("CREATE TAG OWNER_TAG")
    account.sql(f"ALTER TABLE {table.name} SET TAG OWNER_TAG = 'finance'")
    account.sql(f"CREATE STREAM CHANGES ON TABLE {table.name}")
    table.published(NEW, [0], "2", strategy="swap", may_lose=("streams",))
    ((tag,),) = account.sql(f"SELECT SYSTEM$GET_TAG('OWNER_TAG', '{table.name}', 'TABLE')")
    assert tag == "finance"
    try:
        seen = len(account.sql("SELECT * FROM CHANGES"))
    except Error as error:
        return f"tag {tag}, the stream is stale: {error}"
    return f"tag {tag}, {seen} rows in the stream"


@lines("a swap keeps the kind of table", "TABLE", "TRANSIENT TABLE")
def kind(account: Account, kind: str) -> str:
    table = Table(account, kind=kind)
    before = table.fact("IS_TRANSIENT")
    table.published(NEW, [0], "1", strategy="swap")
    assert table.fact("IS_TRANSIENT") == before == ("YES" if "TRANSIENT" in kind else "NO")
    return f"transient: {before}"


@lines("a stream sees what changed, and goes on", "merge", "replace")
def stream(account: Account, strategy: str) -> str:
    account.account_only("the emulator has no streams")
    table = Table(account)
    table.published(OLD, range(4), "1")
    account.sql(f"CREATE STREAM CHANGES ON TABLE {table.name}")
    table.published([(0, 0, 77.0, None), *OLD[1:3]], [0], "2", strategy=cast("Strategy", strategy))
    seen = sorted(account.sql("SELECT METADATA$ACTION, METADATA$ISUPDATE, VALUE FROM CHANGES"))
    assert ("INSERT", 77.0) in {(action, value) for action, _, value in seen}, seen
    return f"{len(seen)} rows"


@line("time travel reads what was before")
def time_travel(account: Account) -> str:
    account.account_only("the emulator keeps no history of a table")
    table = Table(account)
    table.published(OLD, range(4), "1")
    total = account.sql(f"SELECT SUM(VALUE) FROM {table.name}")
    time.sleep(2)
    ((moment,),) = account.sql("SELECT TO_VARCHAR(CURRENT_TIMESTAMP())")
    time.sleep(2)
    table.published(NEW, [0], "2")
    at = f"AT(TIMESTAMP => '{moment}'::TIMESTAMP_TZ)"
    assert account.sql(f"SELECT SUM(VALUE) FROM {table.name} {at}") == total
    return f"{total[0][0]} at {moment}"


@line("a column that a policy masks is refused, or the role sees all of it")
def masked(account: Account) -> str:
    table = Table(account)
    table.published([(0, 1, 1.0, "secret")], [0], "1")
    account.sql("CREATE MASKING POLICY HIDDEN AS (V VARCHAR) RETURNS VARCHAR -> '***'")
    account.sql(f"ALTER TABLE {table.name} MODIFY COLUMN NOTE SET MASKING POLICY HIDDEN")
    said = ""
    try:
        table.published([(0, 1, 2.0, "secret")], [0], "2")
        table.rollback("2")
    except SafeBackfillError as error:
        said = str(error)
    account.sql(f"ALTER TABLE {table.name} MODIFY COLUMN NOTE UNSET MASKING POLICY")
    assert table.rows("NOTE") == [("secret",)], "a masked value was written"
    assert said, "a table with a masked column was rolled back"
    return said


@line("a table with a row access policy is refused, whether or not the role is told of it")
def filtered(account: Account) -> str:
    table = Table(account)
    table.published(OLD, range(4), "1")
    account.sql("CREATE ROW ACCESS POLICY FEW AS (I NUMBER) RETURNS BOOLEAN -> I = 0")
    account.sql(f"ALTER TABLE {table.name} ADD ROW ACCESS POLICY FEW ON (ID)")
    said = ""
    try:
        table.published(NEW, [0], "2", strategy="replace")
    except SafeBackfillError as error:
        said = str(error)
    account.sql(f"ALTER TABLE {table.name} DROP ROW ACCESS POLICY FEW")
    assert len(table.rows("ID")) == len(OLD), "rows that the role didn't see were left beside the new ones"
    assert said, "a table with a row access policy was published"
    return said


@lines("a table of another kind is refused by its name", "HYBRID", "DYNAMIC", "EVENT", "ICEBERG")
def other_kind(account: Account, kind: str) -> str:
    """An account may lack what such a table needs."""
    table = Table(account, columns=None)
    account.sql(f"CREATE TABLE SOURCE ({COLUMNS})")
    warehouse = account.login.options.get("warehouse", "NONE")
    made = {
        "HYBRID": f"CREATE HYBRID TABLE {table.name} ({COLUMNS}, PRIMARY KEY (ID))",
        "DYNAMIC": f"CREATE DYNAMIC TABLE {table.name} TARGET_LAG = '1 day' WAREHOUSE = {warehouse}"
        " AS SELECT * FROM SOURCE",
        "EVENT": f"CREATE EVENT TABLE {table.name}",
        "ICEBERG": f"CREATE ICEBERG TABLE {table.name} ({COLUMNS}) CATALOG = 'SNOWFLAKE' BASE_LOCATION = 'T'",
    }
    try:
        account.sql(made[kind])
    except Error as error:
        if account.is_emulated:
            raise
        return f"the account can't make one: {error}"
    said = ""
    try:
        table.published(NEW, [0], "1")
    except SafeBackfillError as error:
        said = str(error)
    assert f"{kind.lower()} table" in said.lower(), said
    return said


@line("with a wap_schema, future grants show nobody what is made beside a table")
def wap_schema(account: Account) -> str:
    beside = f"{account.schema}_WAP"
    table = Table(account, columns=None, io_manager=account.manager(wap_schema=beside.lower()))
    table.spec = replace(table.spec, table=replace(table.spec.table, wap_schema=beside.lower()))
    account.sql(f"GRANT SELECT ON FUTURE TABLES IN SCHEMA {account.schema} TO ROLE PUBLIC")
    try:
        table.published(OLD, range(4), "1")
        audited = table.staged(NEW, [0], "2")
        made = [str(row[1]) for row in account.sql(f"SHOW TABLES IN SCHEMA {beside}")]
        readable = [name for name in made if "PUBLIC" in str(account.sql(f"SHOW GRANTS ON TABLE {beside}.{name}"))]
        own = [str(row[1]) for row in account.sql(f"SHOW TABLES IN SCHEMA {account.schema}")]
        table.publish(audited, "2")
        table.rollback("2")
    finally:
        account.sql(f"DROP SCHEMA IF EXISTS {beside}")
    assert (own, readable) == (["T"], [])
    assert "PUBLIC" in str(_grants(account, table))
    return f"{len(made)} tables, of which nobody else may read one"


@line("a role with the documented privileges is enough, with future grants to others")
def least_privilege(account: Account) -> str:
    account.account_only("the emulator has no privileges")
    role, reader = f"{account.schema}_ROLE", f"{account.schema}_READER"
    database = account.login.options["database"]
    try:
        for statement in (
            f"CREATE ROLE {role}",
            f"CREATE ROLE {reader}",
            f"GRANT ROLE {role} TO USER {account.login.options['user']}",
            f"GRANT USAGE ON WAREHOUSE {account.login.options['warehouse']} TO ROLE {role}",
            f"GRANT USAGE ON DATABASE {database} TO ROLE {role}",
            f"GRANT USAGE, CREATE TABLE, CREATE STAGE ON SCHEMA {account.schema} TO ROLE {role}",
            f"GRANT SELECT ON FUTURE TABLES IN SCHEMA {account.schema} TO ROLE {reader}",
        ):
            account.sql(statement)
        table = Table(account)
        account.sql(f"GRANT SELECT, INSERT, UPDATE, DELETE ON TABLE {table.name} TO ROLE {role}")
        table.warehouse = account.manager(role=role).warehouse()
        table.published(OLD, range(4), "1")
        audited = table.staged(NEW, [0], "2")
        readable = account.sql(f"SHOW GRANTS TO ROLE {reader}")
        table.publish(audited, "2")
        table.rollback("2")
    finally:
        account.sql(f"DROP ROLE IF EXISTS {role}")
        account.sql(f"DROP ROLE IF EXISTS {reader}")
    return f"published and rolled back; future grants let another role read {len(readable)} tables, a shadow among them"


@line("a publication of a few days reads a few micro-partitions, in seconds by statement")
def pruning(account: Account) -> str:
    """The slice's bounds are literals, in MERGE as well."""
    account.account_only("the emulator has no micro-partitions")
    table = Table(account, columns=None)
    account.sql(
        f"CREATE TABLE {table.name} ({COLUMNS}) CLUSTER BY (DAY) AS"
        " SELECT DATEADD(day, FLOOR(SEQ4() / 1000000), '2023-01-01'::DATE),"
        " MOD(SEQ4(), 1000000)::NUMBER(38, 0), 1.0::FLOAT, NULL::VARCHAR"
        " FROM TABLE(GENERATOR(ROWCOUNT => 400000000)) ORDER BY 1"
    )
    table.published([(day, n, 2.0, None) for day in range(2) for n in range(1000)], [0, 1], "1")
    queries = account.sql(
        "SELECT QUERY_ID, QUERY_TYPE, TOTAL_ELAPSED_TIME FROM TABLE(INFORMATION_SCHEMA.QUERY_HISTORY_BY_USER("
        f"RESULT_LIMIT => 1000)) WHERE QUERY_TEXT ILIKE '%{account.schema}%\"T\"%'"
        " AND QUERY_TYPE IN ('MERGE', 'DELETE', 'SELECT') AND QUERY_TAG LIKE '%dagster-safe-backfill%'"
    )
    scans = [
        (kind, milliseconds, *row)
        for query, kind, milliseconds in queries
        for row in account.sql(
            "SELECT OPERATOR_STATISTICS:pruning:partitions_scanned::INT,"
            " OPERATOR_STATISTICS:pruning:partitions_total::INT"
            f" FROM TABLE(GET_QUERY_OPERATOR_STATS('{query}')) WHERE OPERATOR_TYPE = 'TableScan'"
        )
    ]
    of_live = [scan for scan in scans if scan[3] > 100]
    assert of_live
    assert all(scanned < total / 10 for _, _, scanned, total in of_live), of_live
    return "; ".join(f"{kind} {ms} ms, {scanned} of {total}" for kind, ms, scanned, total in of_live)
