"""Makes a database and a JSON: what the library wrote at the time of an earlier ledger format.

Run it on the last commit of a format, named in `COMMITS`, once for each DuckDB that is to be tried:

    git worktree add /tmp/old 519714f
    PYTHONPATH=/tmp/old python make.py 1

The database has each kind of event that the ledger knows on DuckDB, archives, and shadows that stand. The JSON has,
by the name of each step, the id of its run and the live tables that it changed, as another connection reads them.
"""

import json
import sys
import time
from collections.abc import Sequence
from datetime import date, datetime, timezone
from decimal import Decimal
from functools import partial
from pathlib import Path
from typing import Any

import dagster as dg
import duckdb
import pyarrow as pa

import dagster_safe_backfill as sb

COMMITS = {1: "519714f", 2: "a908a28"}
"""The last commit of each format of the ledger."""
DAYS = dg.DailyPartitionsDefinition("2024-01-01", end_date="2024-02-01")
RANGE = ("dagster/asset_partition_range_start", "dagster/asset_partition_range_end")
TABLES = ("events", "orders", "stock")
FOR_EVER = 36500.0
SCHEMA = pa.schema(
    {
        "day": pa.date32(),
        "id": pa.int64(),
        "value": pa.float64(),
        "note": pa.string(),
        "price": pa.decimal128(10, 2),
        "at": pa.timestamp("us", "UTC"),
    }
)

Row = tuple[int, int, float | None]
"""The day of the month, id, value."""


def key(day: int) -> str:
    return f"2024-01-{day:02}"


def frame(rows: Sequence[Row], *, extra: str | None = None) -> pa.Table:
    found = [
        {
            "day": date(2024, 1, day),
            "id": n,
            "value": value,
            "note": None if n else f"ünit {day}",
            "price": Decimal(day) + Decimal("0.25"),
            "at": datetime(2024, 1, day, 12, n, tzinfo=timezone.utc),
        }
        for day, n, value in rows
    ]
    table = pa.Table.from_pylist(found, SCHEMA)
    return table if extra is None else table.append_column("extra", pa.array([extra] * len(rows)))


def rows_of(days: Sequence[int], value: float, count: int = 3) -> list[Row]:
    return [(day, n, value + n) for day in days for n in range(count)]


def options_of(
    *, publish: str = "merge", archive_days: float = FOR_EVER, on_schema_change: str = "raise", batch_size: int = 0
) -> dict[str, Any]:
    """Return the options of `wap_asset` as the library of then spells them."""
    how: dict[str, Any] = {"archive_days": archive_days, "on_schema_change": on_schema_change}
    if not hasattr(sb, "Merge"):
        batches = {"batch_size": batch_size, "max_retries": 0} if batch_size else {}
        return {"publish": publish, **how, **batches}
    strategy = {"merge": sb.Merge, "replace": sb.Replace, "swap": sb.Swap}[publish]
    batches: dict[str, Any] = {"limits": sb.Limits(max_retries=0)}
    if batch_size:
        batches["batches"] = sb.Batches(size=batch_size)
    return {"publish": strategy(**how), **batches}


class Maker:
    """Runs the steps, and notes what live is after each."""

    def __init__(self, database: Path) -> None:
        self.database = database
        self.instance = dg.DagsterInstance.ephemeral()
        self.io_manager = sb.RangeDuckDBIOManager(database=str(database), schema="main")
        self.steps: dict[str, dict[str, Any]] = {}
        self.live: dict[str, Any] = {}

    def asset(
        self, rows: Sequence[Row], *, name: str = "events", broken: int = 0, extra: str | None = None, **options: Any
    ) -> Any:
        def compute(partitions: sb.PartitionSlice) -> pa.Table:
            if key(broken) in partitions.keys:
                raise RuntimeError("the source broke")
            return frame([row for row in rows if key(row[0]) in partitions.keys], extra=extra)

        compute.__name__ = name
        return sb.wap_asset(
            partitions_def=DAYS,
            partition_expr="day",
            unique_key=["day", "id"],
            audits=[sb.not_null("value")],
            backfill_policy=sb.single_run(),
            **options_of(**options),
        )(compute)

    def staged(self, name: str, rows: Sequence[Row], most: int) -> sb.StagedWapAssets:
        def compute(partitions: sb.PartitionSlice) -> pa.Table:
            return frame([row for row in rows if key(row[0]) in partitions.keys])

        compute.__name__ = name
        return sb.build_staged_wap_assets(
            compute,
            partitions_def=DAYS,
            partition_expr="day",
            unique_key=["day", "id"],
            audits=[sb.not_null("value"), sb.row_count_between(1, most, over="run")],
            backfill_policy=sb.single_run(),
            **options_of(),
        )

    def run(self, step: str, assets: Any, days: Sequence[int], *, only: str = "", fails: bool = False) -> None:
        chosen = [getattr(assets, only)] if only else [assets]
        result = dg.materialize(
            [*assets] if only else chosen,
            selection=chosen,
            tags=dict(zip(RANGE, (key(days[0]), key(days[-1])), strict=True)) if days else {},
            resources={"io_manager": self.io_manager},
            instance=self.instance,
            raise_on_error=False,
        )
        assert result.success is not fails, step
        self.note(step, result.run_id)

    def execute(self, step: str, job: Any, **config: Any) -> None:
        (op,) = job.graph.node_dict
        result = job.execute_in_process(
            run_config={"ops": {op: {"config": config}}},
            resources={"io_manager": self.io_manager},
            instance=self.instance,
        )
        self.note(step, result.run_id)

    def retention(self, step: str, asset: Any) -> None:
        schedule = sb.build_retention_schedule([asset], shadow_days=0)
        self.execute(step, schedule.job)

    def note(self, step: str, run_id: str) -> None:
        self.steps[step] = {"run_id": run_id}
        with duckdb.connect(str(self.database), read_only=True) as connection:
            connection.execute("SET TimeZone = 'UTC'")
            found = {name for (name,) in connection.execute("SELECT table_name FROM duckdb_tables()").fetchall()}
            for table in sorted(found.intersection(TABLES)):
                columns = connection.execute(f"SELECT column_name, column_type FROM (DESCRIBE {table})").fetchall()
                rows = connection.execute(f"SELECT COLUMNS(*)::VARCHAR FROM {table} ORDER BY ALL").fetchall()
                live = {"columns": [*map(list, columns)], "rows": [*map(list, rows)]}
                if live != self.live.get(table):
                    self.steps[step][table] = self.live[table] = live


def make_events(maker: Maker) -> None:
    run, asset = maker.run, maker.asset
    run("first", asset(rows_of(range(1, 5), 1)), [1, 4])
    changed = [(2, 0, 20.0), *rows_of([2], 1)[1:], *rows_of([3], 1), *rows_of([4], 1, 2), *rows_of([5], 5)]
    run("changed", asset(changed), [2, 5])
    run("replaced", asset(rows_of([3, 4], 30), publish="replace"), [3, 4])
    run("batch_failed", asset(rows_of([7, 8], 7), broken=8, batch_size=1), [7, 8], fails=True)
    run("batch_resumed", asset(rows_of([7, 8], 7), batch_size=1), [7, 8])
    run("rejected_and_discarded", asset([(6, 0, None)]), [6, 6], fails=True)
    run("brief", asset(rows_of([8], 80), archive_days=1e-5), [8, 8])
    time.sleep(1)
    maker.retention("retired", asset([]))
    run("brief_and_standing", asset(rows_of([7], 70), archive_days=1e-5), [7, 7])
    run("last", asset(rows_of([1, 2], 50)), [1, 2])
    maker.execute("last_undone", sb.build_rollback_job(asset([]), archive_days=FOR_EVER))
    run("last_again", asset(rows_of([1, 2, 3], 60)), [1, 3])
    run("rejected", asset([(6, 0, None)]), [6, 6], fails=True)
    run("crashed", asset(rows_of([9, 10], 9), broken=10, batch_size=1), [9, 10], fails=True)


def make_stock(maker: Maker) -> None:
    stock = partial(maker.asset, name="stock", publish="swap")
    maker.run("stock_first", stock(rows_of([1, 2, 3], 1)), [1, 3])
    wider = stock(rows_of([2, 3, 4], 2), extra="x", on_schema_change="add_columns")
    maker.run("stock_widened", wider, [2, 4])
    maker.execute("stock_undone", sb.build_rollback_job(stock([]), archive_days=FOR_EVER))
    maker.run("stock_last", stock(rows_of([1], 3), extra="y", on_schema_change="add_columns"), [1, 1])


def make_staged(maker: Maker) -> None:
    run, orders = maker.run, maker.staged("orders", rows_of(range(1, 5), 1), 12)
    run("orders_staged", orders, [1, 2], only="shadow")
    run("orders_staged_too", orders, [3, 3], only="shadow")
    run("orders_audited", orders, [], only="audit")
    run("orders_published", orders, [1, 3], only="published")
    orders = maker.staged("orders", rows_of([3, 4], 9), 12)
    run("orders_staged_again", orders, [3, 4], only="shadow")
    run("orders_approved", orders, [], only="audit")
    refunds = maker.staged("refunds", rows_of([1, 2], 1), 5)
    run("refunds_staged", refunds, [1, 2], only="shadow")
    run("refunds_refused", refunds, [], only="audit", fails=True)


if __name__ == "__main__":
    made = Path(__file__).with_name(f"ledger-{int(sys.argv[1])}-duckdb-{duckdb.__version__}.duckdb")
    made.unlink(missing_ok=True)
    with duckdb.connect() as connection:
        # The smallest blocks, as it is kept in the repository; and DuckDB 1.4 reads it too.
        connection.execute(f"ATTACH '{made}' AS made (BLOCK_SIZE 16384, STORAGE_VERSION 'v1.4.0')")
    maker = Maker(made)
    make_events(maker)
    make_stock(maker)
    make_staged(maker)
    with duckdb.connect(str(made)) as connection:
        connection.execute("CHECKPOINT")
    lines = [f"{json.dumps(name)}: {json.dumps(step, ensure_ascii=False)}" for name, step in maker.steps.items()]
    made.with_suffix(".json").write_text("{\n" + ",\n".join(lines) + "\n}\n")
