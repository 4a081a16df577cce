"""Eight audits of 365 days: in one pass, against one bare GROUP BY, and against eight separate asset checks.

Run as `python -m bench.audits`; the result is JSON on standard output.
"""
# No `from __future__ import annotations`: Dagster reads the annotations of checks that are defined in functions.

import json
import logging
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

from bench import data

if TYPE_CHECKING:
    import dagster as dg

    from dagster_safe_backfill.audits.base import Audit
    from dagster_safe_backfill.sql.audited_rows import AuditedRows
    from dagster_safe_backfill.warehouses.base import Session

DAYS = 365
TURNS = 7
BARE = "SELECT o_orderdate, count(*), count(DISTINCT (l_orderkey, l_linenumber)) FROM {shadow} GROUP BY o_orderdate"
OTHER_KEYS = """SELECT count(*) FROM order_items AS live WHERE NOT ({inside}) AND EXISTS (
    SELECT 1 FROM {shadow} AS s WHERE s.l_orderkey = live.l_orderkey AND s.l_linenumber = live.l_linenumber)"""


def eight() -> list["Audit"]:
    """Return the audits."""
    import dagster_safe_backfill as sb

    return [
        sb.unique(),
        sb.not_null("o_custkey", "l_partkey", "revenue"),
        sb.expression("revenue > 0"),
        sb.in_range("l_quantity", 1, 50),
        sb.references("l_partkey", table="main.part", column="p_partkey"),
        sb.row_count_between(1),
        sb.row_count_drift(max_change=0.02),
        sb.aggregate_drift("revenue", "total", max_change=0.2),
    ]


@contextmanager
def staged(database: str) -> Iterator[tuple["Session", "AuditedRows"]]:
    """Stage the days, and leave them in the shadow."""
    import dagster as dg

    from dagster_safe_backfill.model.states import Origin
    from dagster_safe_backfill.model.tables import Query, TableRef, TableSpec
    from dagster_safe_backfill.runs.partitions import slice_of_keys
    from dagster_safe_backfill.wap.measure.rows import staged_rows
    from dagster_safe_backfill.wap.write import write
    from dagster_safe_backfill.warehouses.duckdb.session import DuckDBWarehouse

    definition = dg.DailyPartitionsDefinition(str(data.FIRST_DAY), end_date=str(data.end_of(data.ALL_DAYS)))
    spec = TableSpec(
        table=TableRef(schema="main", name="order_items"),
        partition_expr={None: "o_orderdate"},
        unique_key=("l_orderkey", "l_linenumber"),
    )
    with DuckDBWarehouse(database, config=data.CONFIG).connect() as connection:
        rows = write(
            connection,
            Query(data.order_items(data.between(data.FIRST_DAY, data.end_of(DAYS)))),
            spec=spec,
            partition_slice=slice_of_keys(definition, definition.get_partition_keys()[:DAYS]),
            origin=Origin(run_id="bench", publication_id="bench"),
        )
        yield connection, staged_rows(connection, rows)


def in_session(database: str) -> dict[str, float]:
    """Return seconds of the audits, of the bare GROUP BY, and of what only the key's audit looks at."""
    from dagster_safe_backfill.wap.measure.measure import measure

    seconds: dict[str, list[float]] = {"audits": [], "bare": [], "other_keys": []}
    with staged(database) as (connection, subject):
        shadow = f"{subject.rows.schema}.{subject.rows.name}"
        driver: Any = connection._driver  # type: ignore[attr-defined]
        other_keys = OTHER_KEYS.format(shadow=shadow, inside=data.between(data.FIRST_DAY, data.end_of(DAYS)))
        statements = _Counter()
        logger = logging.getLogger("dagster_safe_backfill.sql")
        logger.setLevel(logging.DEBUG)
        for turn in range(TURNS):
            logger.addHandler(statements) if turn == 0 else logger.removeHandler(statements)
            started = time.perf_counter()
            results = measure(connection, subject, eight()).results
            seconds["audits"].append(time.perf_counter() - started)
            assert all(result.passed for result in results)
            for name, sql in (("bare", BARE.format(shadow=shadow)), ("other_keys", other_keys)):
                started = time.perf_counter()
                driver.execute(sql).fetchall()
                seconds[name].append(time.perf_counter() - started)
    return {name: median(found) for name, found in seconds.items()} | {"statements": float(statements.count)}


class _Counter(logging.Handler):
    count = 0

    def handle(self, record: logging.LogRecord) -> bool:  # noqa: ARG002
        self.count += 1
        return True


def in_dagster(database: str) -> dict[str, float]:
    """Return seconds of runs of the same audits: as one step, as eight checks, and of a check that does nothing."""
    import dagster as dg

    with dg.DagsterInstance.ephemeral() as instance:
        jobs = {name: checks(database) for name, checks in (("one_step", _together), ("eight_checks", _separate))}
        jobs["nothing"] = [_check("nothing", lambda: True)]
        seconds: dict[str, list[float]] = {name: [] for name in jobs}
        for _ in range(3):
            for name, checks in jobs.items():
                started = time.perf_counter()
                job = dg.Definitions(asset_checks=checks).resolve_implicit_global_asset_job_def()
                result = job.execute_in_process(instance=instance)
                seconds[name].append(time.perf_counter() - started)
                assert all(check.passed for check in result.get_asset_check_evaluations())
    return {name: median(found) for name, found in seconds.items()}


def _together(database: str) -> list["dg.AssetChecksDefinition"]:
    return [_check("all_audits", lambda: _passed(database, eight()))]


def _separate(database: str) -> list["dg.AssetChecksDefinition"]:
    return [_check(audit.name, lambda audit=audit: _passed(database, [audit])) for audit in eight()]


def _check(name: str, passed: Callable[[], bool]) -> "dg.AssetChecksDefinition":
    import dagster as dg

    @dg.asset_check(asset="order_items", name=name)
    def check() -> dg.AssetCheckResult:
        return dg.AssetCheckResult(passed=passed())

    return check


def _passed(database: str, audits: Sequence["Audit"]) -> bool:
    from dagster_safe_backfill.wap.measure.measure import measure
    from dagster_safe_backfill.warehouses.duckdb.session import DuckDBWarehouse

    with DuckDBWarehouse(database, config=data.CONFIG).connect() as connection:
        return all(result.passed for result in measure(connection, _SUBJECT[0], audits).results)


_SUBJECT: list["AuditedRows"] = []


def main() -> dict[str, float]:
    """Measure all."""
    logging.getLogger("dagster").setLevel(logging.ERROR)
    data.prepare()
    with tempfile.TemporaryDirectory() as folder:
        database = str(Path(folder, "warehouse.duckdb"))
        shutil.copyfile(data.PREPARED, database)
        found = in_session(database)
        with staged(database) as (_, subject):
            _SUBJECT[:] = [subject]
        return found | in_dagster(database)


if __name__ == "__main__":
    print(json.dumps(main()))
