"""Lines about two at one table: locks, races, what sessions see of each other, and sessions that end."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import cast

from snowflake.connector.errors import Error
from sqlglot import exp

from dagster_safe_backfill.errors import SafeBackfillError, TransactionConflictError
from dagster_safe_backfill.model.options import Strategy
from dagster_safe_backfill.model.states import Audited
from dagster_safe_backfill.sql import terms
from dagster_safe_backfill_tests.snowflake.account import COLUMNS, Account, Table, until
from dagster_safe_backfill_tests.snowflake.lines import line, lines

ROW = "'2024-01-01', 1, 1.0, NULL"
ALL = [(0, 1, 2.0, None)]


@lines("publications keep each other off", "nullable", "not null", "empty", "clustered")
def lock(account: Account, case: str) -> str:
    """By the row of the table's own, whatever the table is like; what an UPDATE by somebody else does is told."""
    columns = COLUMNS.replace("DAY DATE", "DAY DATE NOT NULL") if case == "not null" else COLUMNS
    table = Table(account, columns=columns)
    if case == "clustered":
        account.account_only("the emulator has no clustering")
        account.sql(f"ALTER TABLE {table.name} CLUSTER BY (DAY)")
    if case != "empty":
        account.sql(f"INSERT INTO {table.name} VALUES ({ROW})")
    with (
        table.warehouse.connect() as session,
        table.warehouse.connect() as second,
        account.session(LOCK_TIMEOUT=2) as other,
        session.transaction(),
        session.tables.hold(table.spec.table),
    ):
        try:
            with second.transaction(), second.tables.hold(table.spec.table):
                raise AssertionError("two publications held the table at once")
        except TransactionConflictError as error:
            said = str(error).splitlines()[0]
        try:
            other(f"UPDATE {table.name} SET VALUE = 5")
            waited = "didn't wait"
        except Error as error:
            waited = f"waited ({error.errno})"
    return f"an UPDATE by somebody else {waited}; {said[:100]}"


@lines("two publishers at once: one wins, nothing is lost or doubled", "merge", "replace", "the first publication")
def race(account: Account, case: str) -> str:
    """Both publish other rows of one day, again and again, from a barrier on."""
    pairs, rounds = (2, 2) if account.is_emulated else (9, 8)
    strategy = cast("Strategy", "merge" if case == "the first publication" else case)

    def pair(number: int) -> int:
        conflicts = 0
        for n in range(rounds):
            is_first = case == "the first publication"
            table = Table(account, name=f"t{number}_{n}", columns=None if is_first else COLUMNS)
            ids = [f"{number}-{n}-{who}" for who in (1, 2)]
            staged = {one: table.staged([(0, 1, float(one[-1]), None)], [0], one) for one in ids}
            conflicts += _published_at_once(table, staged, strategy)
        return conflicts

    with ThreadPoolExecutor(pairs) as pool:
        conflicts = sum(pool.map(pair, range(pairs)))
    return f"{pairs * rounds} races, {conflicts} conflicts"


def _published_at_once(table: Table, staged: Mapping[str, Audited], strategy: Strategy) -> int:
    barrier = threading.Barrier(len(staged))

    def attempt(run_id: str) -> bool:
        barrier.wait()
        try:
            table.publish(staged[run_id], run_id, strategy=strategy)
        except SafeBackfillError:
            return False
        return True

    with ThreadPoolExecutor(len(staged)) as pool:
        won = list(pool.map(attempt, staged))
    values = [value for _, _, value, _ in table.rows()]
    assert sum(won) == 1, f"{sum(won)} of {len(won)} published over each other"
    assert values == [float(won.index(True) + 1)], values
    return won.count(False)


@line("a transaction that the server aborts commits nothing")
def aborted(account: Account) -> str:
    """As after five idle minutes in which it blocks another, or by SYSTEM$ABORT_TRANSACTION."""
    table = Table(account)
    account.sql(f"INSERT INTO {table.name} VALUES ({ROW})")
    staged = table.staged(ALL, [0], "1")
    with table.warehouse.connect() as session:
        try:
            with session.transaction(), session.tables.hold(table.spec.table):
                ((number,),) = account.sql("SELECT COUNT(*) FROM T")
                ((transaction,),) = session.query(exp.select(exp.func("CURRENT_TRANSACTION")))
                account.sql(f"SELECT SYSTEM$ABORT_TRANSACTION({transaction})")
                session.tables.copy(_all_rows_of(staged), into=table.spec.table, columns=["day", "id", "value", "note"])
        except SafeBackfillError as error:
            said = type(error).__name__
        else:
            raise AssertionError("the publication was committed after its transaction was aborted")
    assert account.sql(f"SELECT COUNT(*) FROM {table.name}") == [(number,)]
    table.publish(staged, "1")
    return f"{said}, nothing changed, and the next try published"


def _all_rows_of(staged: Audited):
    from sqlglot import exp

    return exp.select(*terms.columns(["day", "id", "value", "note"])).from_(terms.table(staged.staged.shadow))


@line("what an older session sees of another's commit, and a fresh one")
def consistency(account: Account) -> str:
    """READ_CONSISTENCY_MODE: the library reads what decides in sessions that were opened after the lock."""
    tries = 20 if account.is_emulated else 1_000
    account.sql("CREATE TABLE N (I NUMBER)")
    missed = 0
    with account.session() as older:
        for n in range(tries):
            account.sql(f"INSERT INTO N VALUES ({n})")
            missed += older("SELECT COUNT(*) FROM N") != [(n + 1,)]
            if n % 50 == 0:
                with account.session() as fresh:
                    assert fresh("SELECT COUNT(*) FROM N") == [(n + 1,)], "a fresh session missed a commit"
    return f"an older session missed {missed} of {tries} commits"


@line("what a MERGE that waited sees")
def blocked_merge(account: Account) -> str:
    """Rows that the transaction before it committed while it waited."""
    account.sql("CREATE TABLE B (ID NUMBER, VALUE NUMBER)")
    account.sql("INSERT INTO B VALUES (1, 1)")
    merge = (
        "MERGE INTO B USING (SELECT 1 AS ID, 10 AS VALUE UNION ALL SELECT 2, 20) AS S ON B.ID = S.ID"
        " WHEN MATCHED THEN UPDATE SET VALUE = S.VALUE WHEN NOT MATCHED THEN INSERT (ID, VALUE) VALUES (S.ID, S.VALUE)"
    )
    with account.session() as first, account.session() as second, ThreadPoolExecutor(1) as pool:
        first("BEGIN TRANSACTION")
        first("UPDATE B SET VALUE = VALUE + 1")
        waiting = pool.submit(second, merge)
        time.sleep(1)
        first("INSERT INTO B VALUES (2, 2)")
        first("COMMIT")
        waiting.result(timeout=60)
    rows = account.sql("SELECT ID, VALUE FROM B ORDER BY ID, VALUE")
    assert (1, 10) in rows
    return f"{rows}: it {'saw' if rows == [(1, 10), (2, 20)] else 'did not see'} the row that was inserted meanwhile"


_KILLED = """
import os, sys
from dagster_safe_backfill_tests.snowflake.account import login_of_environment, opened
session = opened(login_of_environment())
for sql in sys.argv[1:]:
    session.cursor().execute(sql)
os._exit(9)
"""


@line("how long the lock of a killed process lives")
def killed(account: Account) -> str:
    """Killed between its MERGE and its COMMIT."""
    account.account_only("the emulator drops the session of a killed client")
    table = Table(account)
    account.sql(f"INSERT INTO {table.name} VALUES ({ROW})")
    statements = ["BEGIN TRANSACTION", f"UPDATE {table.name} SET VALUE = 7"]
    subprocess.run([sys.executable, "-c", _KILLED, *statements], check=False, timeout=120)
    begun = time.monotonic()

    def is_free() -> bool:
        with account.session(LOCK_TIMEOUT=1) as other:
            try:
                other(f"UPDATE {table.name} SET VALUE = VALUE")
            except Error:
                return False
        return True

    assert until(is_free, seconds=600), "it was held for over ten minutes"
    lived = time.monotonic() - begun
    assert table.rows("VALUE") == [(1.0,)], "what was not committed is there"
    table.published(ALL, [0], "1")
    return f"{lived:.0f} s"


@lines("every reader sees all or nothing", "merge", "replace", "swap")
def readers(account: Account, strategy: str) -> str:
    """A reader sums the table all the time while it is published."""
    table = Table(account)
    table.published([(0, n, 1.0, None) for n in range(3)], [0], "0")
    sums: list[float] = []
    over = threading.Event()

    def read() -> None:
        with account.session() as session:
            while not over.is_set():
                ((total,),) = session(f"SELECT SUM(VALUE) FROM {table.name}")
                sums.append(total)

    reader = threading.Thread(target=read)
    reader.start()
    expected = {3.0}
    try:
        for count in (4, 5, 3):
            rows = [(0, n, float(count), None) for n in range(count)]
            table.published(rows, [0], str(count), strategy=cast("Strategy", strategy))
            expected.add(float(count * count))
    finally:
        over.set()
        reader.join()
    assert set(sums) <= expected, set(sums) - expected
    assert len(sums) > 3
    return f"{len(sums)} reads of {len(expected)} states"
