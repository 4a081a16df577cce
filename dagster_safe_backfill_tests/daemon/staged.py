"""Groups of staged assets; what they compute, and when, is told, and noted, in files of a folder."""

import json
import os
import time
from pathlib import Path

import dagster as dg
import pandas as pd

import dagster_safe_backfill as sb

FOLDER = Path(os.environ["DSB_TEST_FOLDER"])
DAYS = dg.DailyPartitionsDefinition("2024-01-01", end_date="2024-03-01")


class HeldIOManager(sb.RangeDuckDBIOManager):
    """Lets a backfill's runs of an asset begin only once that is allowed, where the folder says so."""

    def setup_for_execution(self, context: dg.InitResourceContext) -> None:
        """Wait for leave."""
        assert context.run is not None
        (FOLDER / "packages").write_text(sb.__file__)
        backfill = context.run.tags.get("dagster/backfill")
        held = [FOLDER / f"hold_{key.to_user_string()}" for key in context.run.asset_selection or ()]
        while backfill and any(path.exists() for path in held) and not (FOLDER / f"go_{backfill}").exists():
            time.sleep(0.05)


def _note(name: str, mark: str, keys: tuple[str, ...]) -> None:
    with (FOLDER / f"calls_{name}").open("a") as file:  # lines of several processes stay whole
        file.write(json.dumps([mark, *keys]) + "\n")


def _read(name: str, default: object) -> object:
    path = FOLDER / f"{name}.json"
    return json.loads(path.read_text()) if path.exists() else default


def staged(name: str, *, days_per_run: int, pool: str | None = "warehouse") -> sb.StagedWapAssets:
    """Return a group whose table has two rows a day: the day's value, and its double."""

    def compute(partitions: sb.PartitionSlice) -> pd.DataFrame:
        values: dict[str, int] = _read(f"values_{name}", {})  # type: ignore[assignment]
        _note(name, "begin", tuple(partitions.keys))
        while (FOLDER / f"hold_compute_{name}").exists():
            time.sleep(0.05)
        frame = pd.DataFrame(
            {"day": pd.Timestamp(key), "id": i, "value": i * values.get(key, values.get("", 1))}
            for key in partitions.keys
            for i in (1, 2)
        )
        _note(name, "end", tuple(partitions.keys))
        return frame

    return sb.build_staged_wap_assets(
        compute,
        name=name,
        partitions_def=DAYS,
        partition_expr="day",
        unique_key=["day", "id"],
        audits=[sb.expression("value > 0", name="positive")],
        backfill_policy=sb.batched(days_per_run),
        checks=sb.Checks(partitioned=False),
        pool=pool,
    )


GROUPS = {name: staged(name, days_per_run=5) for name in ("whole", "gaps", "asked", "alone")}
GROUPS["mended"] = staged("mended", days_per_run=10)
# Of no pool, as its runs wait for leave, and would hold the pool's slots.
GROUPS["rivals"] = staged("rivals", days_per_run=3, pool=None)

defs = dg.Definitions(
    assets=[asset for group in GROUPS.values() for asset in group],
    jobs=[dg.define_asset_job(f"daily_{name}", selection=[*GROUPS[name]]) for name in ("rivals", "alone")],
    resources={"io_manager": HeldIOManager(database=str(FOLDER / "warehouse.duckdb"), schema="main")},
    executor=dg.in_process_executor,
)
