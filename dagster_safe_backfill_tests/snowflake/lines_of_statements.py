"""The line about every statement that the library sends: a few works run, and the other golden rows are explained."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import cast

from snowflake.connector.errors import Error

from dagster_safe_backfill.model.events import KnownRuns
from dagster_safe_backfill.model.options import Strategy
from dagster_safe_backfill.model.states import Origin
from dagster_safe_backfill.model.tables import Query
from dagster_safe_backfill.wap.retention import RetentionRules, owners, retire
from dagster_safe_backfill.wap.tables.store import store
from dagster_safe_backfill.warehouses.base import STATEMENTS
from dagster_safe_backfill_tests.harness.audited import frame, slice_of
from dagster_safe_backfill_tests.harness.snowflake import shapes
from dagster_safe_backfill_tests.snowflake.account import Account, Table
from dagster_safe_backfill_tests.snowflake.lines import line
from dagster_safe_backfill_tests.snowflake.lines_of_tables import NEW, OLD

_OF_ITS_TEST = (904, 2003, 2043)
"""The errors about a column or a table that only the row's own test has. Snowflake has parsed the statement by then."""
_COMPILED = re.compile(r"(?:CREATE\b.*?\bTABLE \S+ AS )?((?:SELECT|WITH|INSERT|UPDATE|DELETE|MERGE)\b.*)", re.DOTALL)
"""What EXPLAIN takes: queries and changes of rows, also the query that a table is made of."""
_SCHEMA = re.compile(r'"(?:MAIN|DSB_0A)"(?=\.")')


_WHY_NOT = {
    r"ALTER TABLE N ADD COLUMN": "the line about defaults of each type runs it",
    r"ALTER TABLE N (RESUME|SUSPEND) RECLUSTER": "the line about a swap and clustering runs it",
    r"CREATE (OR REPLACE )?TRANSIENT TABLE N CLONE N COPY GRANTS": "as without TRANSIENT, for a transient table",
    r"CREATE SCHEMA": "the script makes its schema itself",
    r"DROP TABLE N": "undoes a swap, after an error only",
    r"GRANT OWNERSHIP": "needs a table of another role, whose privileges this one has",
    r"SELECT SYSTEM\$ABORT_TRANSACTION": "the line about a transaction that the server aborts runs it",
    r"SELECT SYSTEM\$CANCEL_ALL_QUERIES": "stops what a timed-out batch runs",
    r"SHOW TRANSACTIONS|DESCRIBE TRANSACTION": "the lines about publications that keep each other off run it",
}
"""Why a shape that EXPLAIN doesn't take isn't run by this line."""


class _Kept(logging.Handler):
    """Keeps the statements that the library sends."""

    def __init__(self) -> None:
        super().__init__(logging.DEBUG)
        self.statements: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.statements.append(record.getMessage())


@contextmanager
def _noting() -> Iterator[list[str]]:
    handler, level = _Kept(), STATEMENTS.level
    STATEMENTS.addHandler(handler)
    STATEMENTS.setLevel(logging.DEBUG)
    try:
        yield handler.statements
    finally:
        STATEMENTS.removeHandler(handler)
        STATEMENTS.setLevel(level)


def _works(account: Account) -> None:
    """Do what the library does: first and later publications by each strategy, rollbacks, a plain write, retention."""
    table = Table(account)
    table.published(OLD, range(4), "1")
    for run, strategy in enumerate(("merge", "replace", "swap"), 2):
        table.published(NEW, [0], str(run), strategy=cast("Strategy", strategy))
    table.rollback("4")
    retyped = Query("SELECT '2024-01-01'::DATE AS DAY, 1 AS ID, 'five' AS VALUE, TRUE AS MORE")
    table.published(retyped, [0], "5", strategy="swap", on_schema_change="sync")
    table.rollback("5", run_id="further")
    row = "'2024-01-01'::DATE AS DAY, 1 AS ID, 2.0::FLOAT AS VALUE, 'n' AS NOTE"
    wider = Query(f"SELECT {row}, '2024-01-01'::DATE AS MORE")
    defaults = {"MORE": "CURRENT_DATE()"}
    table.published(wider, [0], "6", on_schema_change="add_columns", column_defaults=defaults)
    Table(account, name="u", columns=None).published(OLD, range(4), "7", strategy="replace")
    with table.warehouse.connect() as session:
        origin = Origin(run_id="8", publication_id="8", asset_key="v")
        spec = Table(account, name="v", columns=None).spec
        for rows in (OLD, [(day, n, 3.0, None) for day, n, *_ in OLD]):
            store(session, frame(rows), spec=spec, partition_slice=slice_of(range(4)), origin=origin)
        ended = owners(session, table.spec.table)
        retire(
            session,
            table.spec.table,
            rules=RetentionRules(runs=KnownRuns(ended=ended), shadows_for=timedelta(0)),
            origin=origin,
        )


@line("every emitted statement is run or explained")
def every_statement(account: Account) -> str:
    """The golden rows have every shape that any test sends. What these works don't send is compiled by EXPLAIN."""
    with _noting() as sent:
        _works(account)
    ran = set[str]().union(*map(shapes.shapes, sent))
    rest = [sql for sql in shapes.rows() if not shapes.shapes(sql) <= ran]
    explained, parsed, wrong = 0, 0, dict[str, str]()
    commands: set[str] = set()
    for sql in rest:
        found = _COMPILED.fullmatch(_SCHEMA.sub(f'"{account.schema}"', sql))
        if found is None or sql.startswith("SELECT SYSTEM$"):
            commands |= shapes.shapes(sql) - ran
            continue
        try:
            account.sql(f"EXPLAIN {found[1]}")
            explained += 1
        except Error as error:
            if error.errno in _OF_ITS_TEST:
                parsed += 1
            else:
                wrong[sql] = str(error)
    assert not wrong, "\n".join(f"{why}\n  in: {sql}" for sql, why in wrong.items())
    # EXPLAIN takes neither DDL nor commands.
    reasons = {one: next((why for start, why in _WHY_NOT.items() if re.match(start, one)), None) for one in commands}
    assert None not in reasons.values(), [one for one, why in reasons.items() if why is None]
    others = "; ".join(f"{one} ({why})" for one, why in sorted(reasons.items()))
    return (
        f"{len(sent)} statements run, {explained} explained, {parsed} parsed, which name what only their tests have;"
        f" not here: {others}"
    )
