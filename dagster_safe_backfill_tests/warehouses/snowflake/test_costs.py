"""What one backfill of a year sends to Snowflake, counted by what each statement scans.

The table of it is in `docs/snowflake-costs.md`. It is written anew by
`python -m dagster_safe_backfill_tests.warehouses.snowflake.test_costs`, and then read before it is committed.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path

import dagster as dg
import pandas as pd
import pytest
import sqlglot
from sqlglot import exp

pytest.importorskip("fakesnow", reason="fakesnow needs Python 3.11")

import dagster_safe_backfill as sb
from dagster_safe_backfill.model.options import PUBLISH_BY_NAME, Strategy
from dagster_safe_backfill_tests.harness.assets import run_range
from dagster_safe_backfill_tests.harness.publications import STRATEGIES
from dagster_safe_backfill_tests.harness.snowflake.emulator import Emulator, serve
from dagster_safe_backfill_tests.harness.snowflake_backend import SnowflakeBackend

PAGE = Path(__file__).parents[3] / "docs" / "snowflake-costs.md"
_BEGIN, _END = "<!-- table -->\n", "<!-- end of table -->\n"
DAYS = dg.DailyPartitionsDefinition("2022-01-01", end_date="2024-01-01")
BATCHES: Mapping[str, sb.Batches] = {
    "1 batch": sb.Batches(),
    "13 batches": sb.Batches(size=30),
    "13 batches, each published": sb.Batches(size=30, publish_each=True),
}
"""A year in batches of 30 days has 13."""

LOGINS, SESSION, METADATA, CATALOG = "logins", "BEGIN, COMMIT, …", "SHOW, DESCRIBE", "INFORMATION_SCHEMA"
DDL, LOAD, LOCK = "DDL", "PUT, COPY INTO", "UPDATE"
LEDGER, LEDGER_ROWS = "SELECT of the ledger", "INSERT into the ledger"
STAGE, SHADOW, SLICE, REST, WHOLE = "stage", "shadow", "slice", "rest", "whole"
CHANGE, CLONE_CHANGE, OTHER = "change", "clone", "other"
ROWS: Mapping[str, tuple[str, str]] = {
    LOGINS: ("logins", "nothing"),
    SESSION: ("BEGIN, COMMIT, ROLLBACK, ALTER SESSION, the transaction's id and state", "nothing"),
    METADATA: ("SHOW, DESCRIBE, `SYSTEM$LAST_CHANGE_COMMIT_TIME`, compiling a query", "metadata"),
    CATALOG: ("SELECT of INFORMATION_SCHEMA", "metadata, with a virtual warehouse"),
    DDL: ("CREATE, CLONE, ALTER, SWAP, COMMENT, TRUNCATE, DROP", "metadata"),
    LOCK: ("UPDATE of the lock's row", "one row"),
    LEDGER: ("SELECT of the ledger", "the ledger"),
    LEDGER_ROWS: ("INSERT into the ledger", "nothing"),
    LOAD: ("PUT, COPY INTO", "the batch's file"),
    STAGE: ("checks of the loaded rows, CREATE of the shadow", "the batch's rows"),
    SHADOW: ("audits and counts of the shadow", "the shadow"),
    SLICE: ("SELECT of the live table, also with the shadow", "the slice"),
    REST: ("SELECT of the live table outside the slice", "the rest of the table"),
    WHOLE: ("the hash of a table", "the whole table"),
    CHANGE: ("DELETE, INSERT, MERGE of the live table", "the slice, the shadow"),
    CLONE_CHANGE: ("DELETE, INSERT of the clone", "the slice, the shadow"),
    OTHER: ("others", "?"),
}
"""The rows of the table: what is sent, and what it scans."""


def kind(sql: str) -> str:
    """Return the row of the table that a statement belongs to."""
    for pattern, found in _BY_TEXT.items():
        if re.match(pattern, sql, re.IGNORECASE | re.DOTALL):
            return found
    if "INFORMATION_SCHEMA" in sql:
        return CATALOG
    if "_SAFE_BACKFILL_LEDGER" in sql:
        return LEDGER_ROWS if sql.startswith("INSERT") else LEDGER
    return _of_rows(sqlglot.parse_one(sql, read="snowflake"))


_BY_TEXT: Mapping[str, str] = {
    r"BEGIN|COMMIT|ROLLBACK|ALTER SESSION|SELECT CURRENT_TRANSACTION|DESCRIBE TRANSACTION": SESSION,
    r"SHOW|DESCRIBE|SELECT SYSTEM\$LAST_CHANGE": METADATA,
    r"PUT|COPY INTO|REMOVE|LIST": LOAD,
    r"CREATE .* TABLE \S+ AS SELECT .*(__SHADOW_|_SB_)": STAGE,
    r"CREATE|ALTER|DROP|COMMENT|TRUNCATE|GRANT": DDL,
    r'UPDATE \S+__LOCK"': LOCK,
}


_AGAIN = re.compile(r"PUT 'file://[^/']+'")
"""What the connector asks itself, for each file of a PUT."""


def _of_rows(tree: exp.Expr) -> str:
    names = {table.name for table in tree.find_all(exp.Table)}
    if isinstance(tree, exp.Insert | exp.Delete | exp.Merge | exp.Update):
        target = tree.this.find(exp.Table).name
        return CLONE_CHANGE if "__ARCHIVE_" in target else CHANGE if target == "EVENTS" else STAGE
    scans = {_scan(table) for table in tree.find_all(exp.Table) if table.name == "EVENTS" or "ARCHIVE" in table.name}
    for found in (WHOLE, REST, SLICE):
        if found in scans:
            return found
    return SHADOW if any("__SHADOW_" in name for name in names) else STAGE


def _scan(table: exp.Table) -> str:
    """Return how much of the live table is read where it is named: by the nearest WHERE."""
    query = table.find_ancestor(exp.Select)
    while query is not None:
        where = query.args.get("where")
        if where is not None:
            return REST if isinstance(where.this, exp.Not) else SLICE
        query = query.find_ancestor(exp.Select)
    return WHOLE


def counts(emulator: Emulator, strategy: Strategy, batches: sb.Batches) -> Counter[str]:
    """Return how often each row of the table is in a backfill of 2023, in a table that has 2022 too.

    Of the two rows of a day, one changes.
    """
    values = {"changed": 1.0}

    @sb.wap_asset(
        partitions_def=DAYS,
        partition_expr="day",
        unique_key=["day", "id"],
        audits=[sb.not_null("value"), sb.expression("value > 0")],
        publish=PUBLISH_BY_NAME[strategy](),
        batches=batches,
        backfill_policy=sb.single_run(),
    )
    def events(partitions: sb.PartitionSlice) -> pd.DataFrame:
        days = pd.to_datetime([*partitions.keys]).as_unit("us")
        rows = [(day, n, value) for day in days for n, value in enumerate((values["changed"], 1.0))]
        return pd.DataFrame(rows, columns=["day", "id", "value"])

    backend, account = SnowflakeBackend(emulator), emulator.account
    assert account is not None
    try:
        backfill = partial(run_range, [events], io_manager=backend.manager(), raise_on_error=True)
        backfill("2022-01-01", "2022-01-01", instance=dg.DagsterInstance.ephemeral())
        days = "SELECT TIMESTAMP '2022-01-02' + INTERVAL (d) DAY, n, 1.0 FROM range(729) AS a (d), range(2) AS b (n)"
        backend.change(f"INSERT INTO events (day, id, value) {days}")
        values["changed"] = 2.0
        before, logins = len(emulator.history(backend.database)), account.logins
        backfill("2023-01-01", "2023-12-31", instance=dg.DagsterInstance.ephemeral())
        sent = [one for one in emulator.history(backend.database)[before:] if not _AGAIN.match(one["sql"])]
        found = Counter(METADATA if one["is_described"] else kind(one["sql"]) for one in sent)
        assert backend.read("SELECT value, count(*) FROM events GROUP BY ALL ORDER BY 1") == [(1.0, 1095), (2.0, 365)]
        return found + Counter({LOGINS: account.logins - logins})
    finally:
        emulator.drop(backend.database)


def table(of: Mapping[tuple[Strategy, str], Counter[str]]) -> Iterator[str]:
    """Yield the lines of the table; rows that are 0 everywhere are left out."""
    heads = ["what is sent", "what it scans", *(f"{strategy}, {name}" for strategy, name in of)]
    yield f"| {' | '.join(heads)} |"
    yield f"|---|---|{'--:|' * len(of)}"
    for row, (sent, scanned) in ROWS.items():
        if any(found[row] for found in of.values()):
            yield f"| {' | '.join([sent, scanned, *(str(found[row]) for found in of.values())])} |"
    yield f"| all statements | | {' | '.join(str(found.total() - found[LOGINS]) for found in of.values())} |"


@pytest.fixture(scope="module")
def quick() -> Iterator[Emulator]:
    with serve(direct=True) as emulator:
        yield emulator


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_the_page_has_what_a_backfill_of_a_year_sends(quick: Emulator, strategy: Strategy) -> None:
    found = {(strategy, name): counts(quick, strategy, batches) for name, batches in BATCHES.items()}
    assert all(not one[OTHER] for one in found.values())
    cells = [line.strip("| ").split(" | ") for line in _table_of(PAGE).splitlines()]
    at = [0, 1, *(cells[0].index(f"{strategy}, {name}") for name in BATCHES)]
    shown = [[line[n] for n in at] for line in cells[2:-1]]
    expected = {ROWS[row]: [str(one[row]) for one in found.values()] for row in ROWS}
    assert {tuple(line[:2]): line[2:] for line in shown} == {
        row: numbers for row, numbers in expected.items() if {*numbers} != {"0"} or row in {tuple(x[:2]) for x in shown}
    }, f"write {PAGE.name} anew; see above"


def _table_of(page: Path) -> str:
    return page.read_text().partition(_BEGIN)[2].partition(_END)[0]


def main() -> None:
    """Write the table of the page anew."""
    with serve(direct=True) as emulator:
        lines = table({(one, name): counts(emulator, one, of) for one in STRATEGIES for name, of in BATCHES.items()})
        before, begin, rest = PAGE.read_text().partition(_BEGIN)
        PAGE.write_text(
            f"{before}{begin}{''.join(f'{line}{chr(10)}' for line in lines)}{_END}{rest.partition(_END)[2]}"
        )


if __name__ == "__main__":
    main()
