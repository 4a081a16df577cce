"""The example's shop on a warehouse of its own, shared by the tests."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import dagster as dg
import duckdb
import sqlglot

import dagster_safe_backfill as sb
from dagster_safe_backfill.warehouses.duckdb.session import DuckDBWarehouse
from dagster_safe_backfill_tests.harness.assets import RANGE_END, RANGE_START, green, metadata_by_partition
from example_project import orders as shop_assets
from example_project.definitions import defs

ITEMS = "SELECT * FROM shop.fact_order_items ORDER BY ALL"
WEEK = ("2024-02-08", "2024-02-15")
FOUR = ("2024-02-10", "2024-02-13")
ROWS_OF_FOUR = {"2024-02-10": 416, "2024-02-11": 375, "2024-02-12": 365, "2024-02-13": 355}
IN_FOUR = "order_date BETWEEN '2024-02-10' AND '2024-02-13'"


class Shop:
    """The shop's assets on a warehouse of their own, as the example keeps them."""

    def __init__(self, folder: Path, instance: dg.DagsterInstance) -> None:
        self.database = str(folder / "warehouse.duckdb")
        self._instance = instance

    def sql(self, sql: str) -> list[tuple[Any, ...]]:
        with duckdb.connect(self.database) as connection:
            return connection.execute(sql).fetchall()

    def read(self, sql: str) -> list[tuple[Any, ...]]:
        """Run a query through the library's reader, which waits for other processes and gets on with other readers."""
        with DuckDBWarehouse(self.database, lock_timeout=30).connect(read_only=True) as connection:
            return connection.query(sqlglot.parse_one(sql, dialect="duckdb"))

    def deliver(self, *assets: dg.AssetsDefinition, mended: bool = False) -> dict[str, Any]:
        """Materialize staging tables, and return the metadata of the last one."""
        config = {"costs": {"config": {"mended": mended}}} if shop_assets.costs in assets else {}
        result = self._run(assets, {}, run_config={"ops": config})
        assert result.success
        return metadata_by_partition(result, assets[-1].op.name)["None"]

    def margins(self, day: str) -> dg.ExecuteInProcessResult:
        return self._run([shop_assets.fact_orders_daily], {}, partition_key=day)

    def items(self, first: str, last: str, *, doubled: bool = False) -> dg.ExecuteInProcessResult:
        config = {"ops": {"fact_order_items": {"config": {"doubled": doubled}}}}
        return self._run([shop_assets.fact_order_items], {RANGE_START: first, RANGE_END: last}, run_config=config)

    def execute(self, job: str, op: str, **config: Any) -> dg.ExecuteInProcessResult:
        """Run one of the example's jobs of one op."""
        return defs.resolve_job_def(job).execute_in_process(
            run_config={
                "ops": {op: {"config": config}},
                "resources": {"io_manager": {"config": {"database": self.database, "lock_timeout": 30}}},
            },
            instance=self._instance,
        )

    def roll_back(self, **config: Any) -> dg.ExecuteInProcessResult:
        return self.execute("rollback_fact_order_items", "rollback_fact_order_items_op", **config)

    def green(self, asset: str) -> set[str]:
        return green(self._instance, asset)

    def _run(self, assets: Any, tags: dict[str, str], **options: Any) -> dg.ExecuteInProcessResult:
        io_manager = sb.RangeDuckDBIOManager(database=self.database, schema="nyc", lock_timeout=30)
        return dg.materialize(
            list(assets),
            instance=self._instance,
            resources={"io_manager": io_manager},
            tags=tags,
            raise_on_error=False,
            **options,
        )


def failed_checks(result: dg.ExecuteInProcessResult) -> dict[str, dict[str, Any]]:
    """Return the metadata of the checks that block, by name."""
    return {
        check.check_name: {name: value.value for name, value in check.metadata.items()}
        for check in result.get_asset_check_evaluations()
        if not check.passed and check.severity == dg.AssetCheckSeverity.ERROR
    }
