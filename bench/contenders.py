"""What runs in a measured process: each contender recomputes the same days of the same table.

Run as `python -m bench.contenders JOB`, where JOB is a `Job` as JSON; the result is JSON on standard output.
"""
# No `from __future__ import annotations`: Dagster reads the annotations of assets that are defined in functions.

import json
import logging
import resource
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from typing import TYPE_CHECKING, Any

from bench import data

if TYPE_CHECKING:
    import dagster as dg
    import duckdb

KEY = ("l_orderkey", "l_linenumber")
FILLED = ("o_custkey", "l_partkey", "revenue")
MAX_CHANGE = 0.02
CHECKS = ("unique", "not_null", "expression", "references", "row_count_drift")
HAS_NULL = " OR ".join(f"{name} IS NULL" for name in FILLED)


@dataclass(frozen=True, kw_only=True)
class Job:
    """One measurement: who recomputes how many days, with how many audits, where; the first `skipped` aren't his."""

    contender: str
    days: int
    audits: int = len(CHECKS)
    database: str = ""
    instance: str = ""
    skipped: int = 0

    @property
    def start(self) -> date:
        """The first day of the slice."""
        return data.end_of(self.skipped)

    @property
    def end(self) -> date:
        """The first day after the slice."""
        return data.end_of(self.skipped + self.days)

    @property
    def inside(self) -> str:
        """The condition of the slice."""
        return data.between(self.start, self.end)


Contender = Callable[[Job], Callable[[], None]]
"""Imports and defines what it needs for a job, and returns what is timed."""


def main(job: Job) -> None:
    """Do the job and print what it took."""
    run = (CONTENDERS | ONCE)[job.contender](job)
    statements = _Counter()
    logger = logging.getLogger("dagster_safe_backfill.sql")
    logger.addHandler(statements)
    logger.setLevel(logging.DEBUG)
    logger.propagate = False
    started = time.perf_counter()
    run()
    seconds = time.perf_counter() - started
    unit = 1 if sys.platform == "darwin" else 1024
    used = resource.getrusage(resource.RUSAGE_SELF)
    result = {
        "seconds": seconds,
        "cpu": used.ru_utime + used.ru_stime,
        "peak_mb": used.ru_maxrss * unit / 1e6,
        "statements": statements.count,
    }
    print(json.dumps(result))


class _Counter(logging.Handler):
    count = 0

    def handle(self, record: logging.LogRecord) -> bool:  # noqa: ARG002
        self.count += 1
        return True


def safe(
    form: str,
    *,
    memory_mb: int = data.MEMORY_LIMIT_MB,
    batches: int | None = None,
    is_live_by_batch: bool = False,
) -> Contender:
    """`@wap_asset`, returning a `Query` or a frame; it keeps no archive, as the others keep none."""
    config = {"memory_limit": f"{memory_mb}MB"}

    def prepared(job: Job) -> Callable[[], None]:
        import dagster_safe_backfill as sb

        @sb.wap_asset(
            partitions_def=_days(),
            partition_expr="o_orderdate",
            unique_key=KEY,
            audits=_audits(job.audits),
            backfill_policy=sb.single_run(),
            publish=sb.Merge(archive_days=0),
            batches=sb.Batches(size=batches, publish_each=is_live_by_batch),
        )
        def order_items(partitions: sb.PartitionSlice) -> Any:
            if form == "query":
                return sb.Query(data.order_items(partitions.where()))
            return _frame(data.between(partitions.start.date(), partitions.end.date()))

        manager = sb.RangeDuckDBIOManager(database=job.database, schema="main", connection_config=config)
        return lambda: _materialize(job, [order_items], {"io_manager": manager})

    return prepared


def _audits(count: int) -> Sequence[Any]:
    import dagster_safe_backfill as sb

    five = [
        sb.unique(),
        sb.not_null(*FILLED),
        sb.expression("revenue > 0"),
        sb.references("l_partkey", table="main.part", column="p_partkey"),
        sb.row_count_drift(max_change=MAX_CHANGE),
    ]
    more = [sb.expression(f"revenue > -{i}", name=f"more_{i}") for i in range(count - len(five))]
    return [*five[:count], *more]


def built_in(job: Job) -> Callable[[], None]:
    """(a) Dagster's `DuckDBPandasIOManager`, and the audits as five checks in a step of their own."""
    import dagster as dg
    from dagster_duckdb_pandas import DuckDBPandasIOManager

    rows_before: dict[date, int] = {}

    @dg.asset(
        partitions_def=_days(),
        backfill_policy=dg.BackfillPolicy.single_run(),
        metadata={"partition_expr": "o_orderdate"},
    )
    def order_items() -> Any:
        with _connected(job) as warehouse:
            rows_before.update(_rows_by_day(warehouse, job.inside))
        return _frame(job.inside)

    specs = [dg.AssetCheckSpec(name, asset="order_items", blocking=True) for name in CHECKS]

    @dg.multi_asset_check(specs=specs)
    def checks() -> Iterator[dg.AssetCheckResult]:
        with _connected(job) as warehouse:
            for name, failed in _failed_rows(warehouse, job.inside, rows_before).items():
                metadata = {"failed_rows": failed}
                yield dg.AssetCheckResult(check_name=name, passed=not failed, metadata=metadata)

    manager = DuckDBPandasIOManager(database=job.database, schema="main", connection_config=data.CONFIG)
    return lambda: _materialize(job, [order_items, checks], {"io_manager": manager})


def _failed_rows(
    warehouse: "duckdb.DuckDBPyConnection", inside: str, rows_before: Mapping[date, int]
) -> dict[str, int]:
    def count(source: str) -> int:
        ((value,),) = warehouse.execute(f"SELECT count(*) FROM {source}").fetchall()
        return value

    repeated = f"SELECT 1 FROM order_items GROUP BY {', '.join(KEY)} HAVING count(*) > 1"
    return {
        "unique": count(f"({repeated})"),
        "not_null": count(f"order_items WHERE {inside} AND ({HAS_NULL})"),
        "expression": count(f"order_items WHERE {inside} AND NOT revenue > 0"),
        "references": count(f"order_items ANTI JOIN part ON l_partkey = p_partkey WHERE {inside}"),
        "row_count_drift": _drifted(rows_before, _rows_by_day(warehouse, inside)),
    }


def bare(form: str, *, counted: bool = False) -> Contender:
    """(b) The same shadow, audits (a verdict a day) and publish in plain DuckDB; if asked, changes by day too."""

    def prepared(job: Job) -> Callable[[], None]:
        import duckdb  # noqa: F401  # pyright: ignore[reportUnusedImport]  # before the clock starts, as elsewhere

        def run() -> None:
            with _connected(job, read_only=False) as warehouse:
                rows = data.order_items(job.inside)
                if form == "frame":
                    warehouse.register("computed", _frame(job.inside))
                    rows = "SELECT * REPLACE (CAST(o_orderdate AS DATE) AS o_orderdate) FROM computed"
                warehouse.execute(f"CREATE TABLE shadow AS {rows}")
                _audit_bare(warehouse, job.inside)
                warehouse.execute("BEGIN")
                if counted:
                    warehouse.execute(_changes(job.inside)).fetchall()
                warehouse.execute(f"DELETE FROM order_items WHERE {job.inside}")
                warehouse.execute(f"INSERT INTO order_items BY NAME SELECT {data.LISTED} FROM shadow")
                warehouse.execute("DROP TABLE shadow")
                warehouse.execute("COMMIT")

        return run

    return prepared


def _audit_bare(warehouse: "duckdb.DuckDBPyConnection", inside: str) -> None:
    key = ", ".join(KEY)
    repeated = f"SELECT {key} FROM shadow GROUP BY {key} HAVING count(*) > 1"
    elsewhere = f"SELECT {key} FROM order_items WHERE NOT ({inside})"
    rows = warehouse.execute(
        f"SELECT o_orderdate, count(*), count(*) FILTER ({HAS_NULL}), count(*) FILTER (NOT revenue > 0)"
        " FROM shadow GROUP BY o_orderdate"
    ).fetchall()
    failed = [row for row in rows if row[2] or row[3]]
    for condition in (
        f"({key}) IN ({repeated}) OR ({key}) IN ({elsewhere})",
        "NOT EXISTS (FROM part WHERE p_partkey = l_partkey)",
    ):
        sql = f"SELECT o_orderdate, count(*) FROM shadow WHERE {condition} GROUP BY o_orderdate"
        failed += warehouse.execute(sql).fetchall()
    if failed or _drifted(_rows_by_day(warehouse, inside), {row[0]: row[1] for row in rows}):
        raise SystemExit(f"the audits failed: {failed[:10]}")


def _changes(inside: str) -> str:
    same = " AND ".join(f"new.{name} = old.{name}" for name in KEY)
    differs = " OR ".join(f"new.{name} IS DISTINCT FROM old.{name}" for name in data.COLUMNS)
    new, gone = f"old.{KEY[0]} IS NULL", f"new.{KEY[0]} IS NULL"
    return (
        f"SELECT coalesce(new.o_orderdate, old.o_orderdate) AS day, count(*) FILTER ({new}), count(*) FILTER"
        f" ({gone}), count(*) FILTER (NOT {new} AND NOT {gone} AND ({differs})) FROM shadow AS new"
        f" FULL JOIN (FROM order_items WHERE {inside}) AS old ON {same} GROUP BY day"
    )


def no_op(job: Job) -> Callable[[], None]:
    """(c) A range run of as many partitions and checks that computes nothing."""
    import dagster as dg

    @dg.asset(
        partitions_def=_days(),
        backfill_policy=dg.BackfillPolicy.single_run(),
        check_specs=[dg.AssetCheckSpec(name, asset="order_items") for name in CHECKS],
    )
    def order_items() -> Iterator[Any]:
        for name in CHECKS:
            yield dg.AssetCheckResult(check_name=name, passed=True)
        yield dg.MaterializeResult()

    return lambda: _materialize(job, [order_items], {})


def _materialize(job: Job, assets: Sequence[Any], resources: dict[str, Any]) -> None:
    import dagster as dg

    tags = {
        "dagster/asset_partition_range_start": str(job.start),
        "dagster/asset_partition_range_end": str(job.end - timedelta(1)),
    }
    with dg.DagsterInstance.local_temp(job.instance) as instance:
        result = dg.materialize(assets, instance=instance, resources=resources, tags=tags)
        if not all(evaluation.passed for evaluation in result.get_asset_check_evaluations()):
            raise SystemExit("an asset check failed")


def _days() -> "dg.DailyPartitionsDefinition":
    import dagster as dg

    return dg.DailyPartitionsDefinition(str(data.FIRST_DAY), end_date=str(data.end_of(data.ALL_DAYS)))


def _connected(job: Job, *, read_only: bool = True) -> "duckdb.DuckDBPyConnection":
    import duckdb

    return duckdb.connect(job.database, read_only=read_only, config=data.CONFIG)


def _frame(where: str) -> Any:
    """Return the right rows as a pandas frame, read from files."""
    import duckdb

    with duckdb.connect(config=data.CONFIG) as reader:
        return reader.sql(data.order_items(where, from_files=True)).df()


def _rows_by_day(warehouse: "duckdb.DuckDBPyConnection", inside: str) -> dict[date, int]:
    sql = f"SELECT o_orderdate, count(*) FROM order_items WHERE {inside} GROUP BY o_orderdate"
    return dict(warehouse.execute(sql).fetchall())


def _drifted(before: Mapping[date, int], after: Mapping[date, int]) -> int:
    """Return on how many days the row count changed by too much."""
    return sum(abs(after.get(day, 0) - rows) > MAX_CHANGE * rows for day, rows in before.items())


FORMS = ("query", "frame")
TIGHT_MB = 150
BATCH = 10
BATCHED = f"wap_asset, frame, batches of {BATCH}"
LIVE_BY_BATCH = f"{BATCHED}, each published"
TIGHT = f"wap_asset, query, {TIGHT_MB} MB for DuckDB"
SAFE = {form: f"wap_asset, {form}" for form in FORMS}
BUILT_IN = "(a) built-in I/O manager, frame"
BARE = {form: f"(b) bare DuckDB, {form}" for form in FORMS}
NO_OP = "(c) no-op run"
CONTENDERS: dict[str, Contender] = {
    **{name: safe(form) for form, name in SAFE.items()},
    BUILT_IN: built_in,
    **{name: bare(form) for form, name in BARE.items()},
    "(b) with change counts, query": bare("query", counted=True),
    NO_OP: no_op,
}
ONCE: dict[str, Contender] = {
    TIGHT: safe("query", memory_mb=TIGHT_MB),
    BATCHED: safe("frame", batches=BATCH),
    LIVE_BY_BATCH: safe("frame", batches=BATCH, is_live_by_batch=True),
}
"""What isn't measured beside the others; of which the first isn't timed, and so needs no repetition."""

if __name__ == "__main__":
    main(Job(**json.loads(sys.argv[1])))
