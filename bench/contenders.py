"""What runs in a measured process: each contender recomputes the same days of the same table.

Run as `python -m bench.contenders JOB`, where JOB is a `Job` as JSON; the result is JSON on standard output.
"""
# No `from __future__ import annotations`: Dagster reads the annotations of assets that are defined in functions.

import json
import logging
import resource
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from typing import TYPE_CHECKING, Any

from bench import data

if TYPE_CHECKING:
    import dagster as dg
    import duckdb

FORMS = ("query", "pandas", "arrow")
KEY = ("l_orderkey", "l_linenumber")
FILLED = ("o_custkey", "l_partkey", "revenue")
MAX_CHANGE = 0.02
SAFE = {form: f"wap_asset, {form}" for form in FORMS}
BUILT_IN = "(a) built-in, pandas"
BARE = {form: f"(b) bare DuckDB, {form}" for form in FORMS}
BARE_COUNTED = "(b) with change counts, query"
NO_OP = "(c) no-op run"
CHECKS = ("unique", "not_null", "expression", "references", "row_count_drift")


@dataclass(frozen=True, kw_only=True)
class Job:
    """One measurement: who recomputes how many days, with how many audits, where."""

    contender: str
    days: int
    audits: int = len(CHECKS)
    database: str = ""
    instance: str = ""

    @property
    def end(self) -> date:
        """The first day after the slice."""
        return data.end_of(self.days)


def main(job: Job) -> None:
    """Do the job and print what it took."""
    statements = _Counter()
    contender = CONTENDERS[job.contender]
    run = contender(job)
    logger = logging.getLogger("dagster_safe_backfill.sql")
    logger.addHandler(statements)
    logger.setLevel(logging.DEBUG)
    logger.propagate = False
    started = time.perf_counter()
    run()
    seconds = time.perf_counter() - started
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    unit = 1024 if sys.platform != "darwin" else 1
    print(
        json.dumps(
            {"seconds": seconds, "peak_mb": peak * unit / 1e6, "statements": statements.count}
        )
    )


class _Counter(logging.Handler):
    count = 0

    def emit(self, record: logging.LogRecord) -> None:
        self.count += 1


# --- the library ---------------------------------------------------------------------------------


def safe(form: str) -> Callable[[Job], Callable[[], None]]:
    """`@wap_asset`, returning a `Query` or a frame."""

    def prepared(job: Job) -> Callable[[], None]:
        import dagster as dg

        import dagster_safe_backfill as sb

        @sb.wap_asset(
            partitions_def=_days(),
            partition_expr="o_orderdate",
            unique_key=KEY,
            audits=_audits(job.audits),
            backfill_policy=sb.single_run(),
        )
        def order_items(partitions: sb.PartitionSlice) -> Any:
            if form == "query":
                return sb.Query(data.order_items(partitions.where()))
            return frame(form, partitions.start.date(), partitions.end.date())

        manager = sb.RangeDuckDBIOManager(
            database=job.database, schema="main", connection_config=data.CONFIG
        )
        return lambda: _materialize(job, [order_items], {"io_manager": manager})

    def _audits(count: int) -> Sequence[Any]:
        import dagster_safe_backfill as sb

        five = [
            sb.unique(),
            sb.not_null(*FILLED),
            sb.expression("revenue > 0"),
            sb.references("l_partkey", table="main.part", column="p_partkey"),
            sb.row_count_drift(max_change=MAX_CHANGE),
        ]
        more = [sb.expression(f"revenue > -{i}") for i in range(1, count - len(five) + 1)]
        return [*five[:count], *more]

    return prepared


# --- (a) Dagster's own I/O manager -----------------------------------------------------------------


def built_in(job: Job) -> Callable[[], None]:
    """`DuckDBPandasIOManager`, and the audits as five checks, in one step of their own."""
    import dagster as dg
    import duckdb
    from dagster_duckdb_pandas import DuckDBPandasIOManager

    inside = data.between(data.FIRST_DAY, job.end)
    rows_before: list[tuple[date, int]] = []

    @dg.asset(
        partitions_def=_days(),
        backfill_policy=dg.BackfillPolicy.single_run(),
        metadata={"partition_expr": "o_orderdate"},
    )
    def order_items() -> Any:
        with duckdb.connect(job.database, read_only=True, config=data.CONFIG) as warehouse:
            rows_before.extend(warehouse.execute(_rows_by_day("order_items", inside)).fetchall())
        return frame("pandas", data.FIRST_DAY, job.end)

    @dg.multi_asset_check(
        specs=[dg.AssetCheckSpec(name, asset="order_items", blocking=True) for name in CHECKS]
    )
    def checks() -> Iterator[dg.AssetCheckResult]:
        with duckdb.connect(job.database, read_only=True, config=data.CONFIG) as warehouse:
            for name, failed in _failed_rows(warehouse, inside, rows_before).items():
                yield dg.AssetCheckResult(
                    check_name=name, passed=not failed, metadata={"failed_rows": failed}
                )

    manager = DuckDBPandasIOManager(
        database=job.database, schema="main", connection_config=data.CONFIG
    )
    return lambda: _materialize(job, [order_items, checks], {"io_manager": manager})


def _failed_rows(
    warehouse: "duckdb.DuckDBPyConnection", inside: str, rows_before: Sequence[tuple[date, int]]
) -> dict[str, int]:
    def count(sql: str) -> int:
        ((value,),) = warehouse.execute(sql).fetchall()
        return value

    items = f"FROM order_items WHERE {inside}"
    after = dict(warehouse.execute(_rows_by_day("order_items", inside)).fetchall())
    repeated = f"SELECT count(*) AS times FROM order_items GROUP BY {', '.join(KEY)} HAVING times > 1"
    return {
        "unique": count(f"SELECT count(*) FROM ({repeated})"),
        "not_null": count(f"SELECT count(*) {items} AND ({_has_null()})"),
        "expression": count(f"SELECT count(*) {items} AND NOT revenue > 0"),
        "references": count(
            f"SELECT count(*) FROM order_items ANTI JOIN part ON l_partkey = p_partkey WHERE {inside}"
        ),
        "row_count_drift": _drift(dict(rows_before), after),
    }


# --- (b) bare DuckDB ------------------------------------------------------------------------------


def bare(form: str, *, counted: bool = False) -> Callable[[Job], Callable[[], None]]:
    """The same shadow, audits (a verdict a day) and publish, in plain DuckDB; if asked, changes by day too."""

    def prepared(job: Job) -> Callable[[], None]:
        import duckdb

        def run() -> None:
            inside = data.between(data.FIRST_DAY, job.end)
            with duckdb.connect(job.database, config=data.CONFIG) as warehouse:
                rows = data.order_items(inside)
                if form != "query":
                    warehouse.register("computed", frame(form, data.FIRST_DAY, job.end))
                    rows = f"SELECT {data.COLUMNS.replace('o_orderdate', 'o_orderdate::DATE AS o_orderdate')} FROM computed"
                warehouse.execute(f"CREATE TABLE shadow AS {rows}")
                _audit_bare(warehouse, inside)
                warehouse.execute("BEGIN")
                if counted:
                    warehouse.execute(_changes(inside)).fetchall()
                warehouse.execute(f"DELETE FROM order_items WHERE {inside}")
                warehouse.execute(
                    f"INSERT INTO order_items ({data.COLUMNS}) SELECT {data.COLUMNS} FROM shadow"
                )
                warehouse.execute("DROP TABLE shadow")
                warehouse.execute("COMMIT")

        return run

    return prepared


def _audit_bare(warehouse: "duckdb.DuckDBPyConnection", inside: str) -> None:
    key = ", ".join(KEY)
    repeated = f"SELECT {key} FROM shadow GROUP BY {key} HAVING count(*) > 1"
    elsewhere = f"SELECT {key} FROM order_items WHERE NOT ({inside})"
    rows = warehouse.execute(
        f"SELECT o_orderdate, count(*), count(*) FILTER ({_has_null()}),"
        " count(*) FILTER (NOT revenue > 0) FROM shadow GROUP BY o_orderdate"
    ).fetchall()
    failed = [row for row in rows if row[2] or row[3]]
    for condition in (
        f"({key}) IN ({repeated}) OR ({key}) IN ({elsewhere})",
        "NOT EXISTS (FROM part WHERE p_partkey = l_partkey)",
    ):
        sql = f"SELECT o_orderdate, count(*) FROM shadow WHERE {condition} GROUP BY o_orderdate"
        failed += warehouse.execute(sql).fetchall()
    before = dict(warehouse.execute(_rows_by_day("order_items", inside)).fetchall())
    if failed or _drift(before, {row[0]: row[1] for row in rows}):
        raise SystemExit(f"the audits failed: {failed[:10]}")


def _changes(inside: str) -> str:
    same = " AND ".join(f"new.{name} = old.{name}" for name in KEY)
    compared = [name for name in data.COLUMNS.split(", ") if name not in KEY]
    differs = " OR ".join(f"new.{name} IS DISTINCT FROM old.{name}" for name in compared)
    return (
        "SELECT coalesce(new.o_orderdate, old.o_orderdate) AS day,"
        f" count(*) FILTER (old.{KEY[0]} IS NULL), count(*) FILTER (new.{KEY[0]} IS NULL),"
        f" count(*) FILTER (new.{KEY[0]} IS NOT NULL AND old.{KEY[0]} IS NOT NULL AND ({differs}))"
        f" FROM shadow AS new FULL JOIN (FROM order_items WHERE {inside}) AS old ON {same} GROUP BY day"
    )


# --- (c) nothing -----------------------------------------------------------------------------------


def no_op(job: Job) -> Callable[[], None]:
    """A range run of as many partitions and checks that computes nothing."""
    import dagster as dg

    @dg.asset(
        partitions_def=_days(),
        backfill_policy=dg.BackfillPolicy.single_run(),
        check_specs=[dg.AssetCheckSpec(name, asset="order_items") for name in CHECKS],
    )
    def order_items() -> Iterator[dg.AssetCheckResult | dg.MaterializeResult[None]]:
        for name in CHECKS:
            yield dg.AssetCheckResult(check_name=name, passed=True)
        yield dg.MaterializeResult()

    return lambda: _materialize(job, [order_items], {})


# --- what they share -------------------------------------------------------------------------------


def frame(form: str, start: date, end: date) -> Any:
    """Return the right rows of the days from `start` to before `end`, read from files."""
    import duckdb

    with duckdb.connect(config=data.CONFIG) as reader:
        rows = reader.sql(data.order_items_from_files(data.between(start, end)))
        return rows.df() if form == "pandas" else rows.to_arrow_table()


def _days() -> "dg.DailyPartitionsDefinition":
    import dagster as dg

    return dg.DailyPartitionsDefinition(str(data.FIRST_DAY), end_date=str(data.end_of(data.ALL_DAYS)))


def _materialize(job: Job, assets: Sequence[Any], resources: dict[str, Any]) -> None:
    import dagster as dg

    tags = {
        "dagster/asset_partition_range_start": str(data.FIRST_DAY),
        "dagster/asset_partition_range_end": str(job.end - timedelta(1)),
    }
    with dg.DagsterInstance.local_temp(job.instance) as instance:
        result = dg.materialize(assets, instance=instance, resources=resources, tags=tags)
        if not all(event.asset_check_evaluation_data.passed for event in result.filter_events(_is_check)):
            raise SystemExit("an asset check failed")


def _is_check(event: "dg.DagsterEvent") -> bool:
    return event.event_type_value == "ASSET_CHECK_EVALUATION"


def _has_null() -> str:
    return " OR ".join(f"{name} IS NULL" for name in FILLED)


def _rows_by_day(table: str, inside: str) -> str:
    return f"SELECT o_orderdate, count(*) FROM {table} WHERE {inside} GROUP BY o_orderdate"


def _drift(before: dict[date, int], after: dict[date, int]) -> int:
    """Return on how many days the row count changed by too much."""
    return sum(
        abs(after.get(day, 0) - rows) > MAX_CHANGE * rows for day, rows in before.items()
    )


CONTENDERS: dict[str, Callable[[Job], Callable[[], None]]] = {
    **{name: safe(form) for form, name in SAFE.items()},
    BUILT_IN: built_in,
    **{name: bare(form) for form, name in BARE.items()},
    BARE_COUNTED: bare("query", counted=True),
    NO_OP: no_op,
}

if __name__ == "__main__":
    main(Job(**json.loads(sys.argv[1])))
