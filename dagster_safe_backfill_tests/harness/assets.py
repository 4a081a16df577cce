"""Small assets and runs of them, shared by the tests."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import dagster as dg
import pandas as pd

import dagster_safe_backfill as sb

DAYS = dg.DailyPartitionsDefinition("2024-01-01", end_date="2024-03-01")
RANGE_START = "dagster/asset_partition_range_start"
RANGE_END = "dagster/asset_partition_range_end"


@dataclass
class Source:
    """What the assets compute from: rows `(day, id, value)`, and the calls that they got.

    `meanwhile` is called once, while they compute. What is `broken` is so for one call, if it mends itself.
    """

    rows_per_day: int = 3
    spoiled: dict[tuple[str, int], float | None] = field(default_factory=dict)
    calls: list[tuple[str, ...]] = field(default_factory=list)
    broken: set[str] = field(default_factory=set)
    mends_itself: bool = False
    error: type[Exception] = RuntimeError
    meanwhile: Callable[[], object] | None = None

    def frame(self, keys: Sequence[str]) -> pd.DataFrame:
        self.calls.append(tuple(keys))
        meanwhile, self.meanwhile = self.meanwhile, None
        if meanwhile is not None:
            meanwhile()
        missing = self.broken.intersection(keys)
        if missing:
            if self.mends_itself:
                self.broken = set()
            raise self.error(f"the source has no {sorted(missing)}")
        return pd.DataFrame(
            {"day": pd.to_datetime([key]).as_unit("us")[0], "id": i, "value": self._value(key, i)}
            for key in keys
            for i in range(self.rows_per_day)
        )

    def _value(self, key: str, i: int) -> float | None:
        return self.spoiled.get((key, i), float(i + 1))


def events(source: Source, **options: Any) -> dg.AssetsDefinition:
    """Return a `@wap_asset` of the source, table `events`."""
    arguments: dict[str, Any] = {
        "partitions_def": DAYS,
        "partition_expr": "day",
        "unique_key": ["day", "id"],
        "audits": [sb.not_null("value"), sb.expression("value > 0", name="positive")],
        "backfill_policy": sb.single_run(),
        # Without it, the state of the source would count as code: the function closes over it.
        "code_version": "1",
    }

    @sb.wap_asset(**(arguments | options))
    def events(partitions: sb.PartitionSlice) -> pd.DataFrame:
        return source.frame(partitions.keys)

    return events


def run_range(
    assets: Sequence[dg.AssetsDefinition | dg.AssetSpec],
    first: str,
    last: str,
    *,
    io_manager: object,
    instance: dg.DagsterInstance,
    raise_on_error: bool = False,
    again: dg.DagsterRun | None = None,
    from_failure: bool = True,
    tags: Mapping[str, str] | None = None,
) -> dg.ExecuteInProcessResult:
    """Run assets for a range of partitions, as a single-run backfill does; `again` is a run that this re-executes."""
    every = {RANGE_START: first, RANGE_END: last, **reexecution_tags(again, from_failure=from_failure), **(tags or {})}
    resources = {"io_manager": io_manager}
    return dg.materialize(assets, tags=every, resources=resources, instance=instance, raise_on_error=raise_on_error)


def reexecution_tags(again: dg.DagsterRun | None, *, from_failure: bool = True) -> dict[str, str]:
    """Return the tags that Dagster gives a re-execution of a run."""
    if again is None:
        return {}
    root = again.tags.get("dagster/root_run_id", again.run_id)
    tags = {"dagster/parent_run_id": again.run_id, "dagster/root_run_id": root}
    return {**tags, "dagster/is_resume_retry": "true"} if from_failure else tags


def run_key(
    assets: Sequence[dg.AssetsDefinition],
    key: str,
    *,
    io_manager: object,
    instance: dg.DagsterInstance,
    raise_on_error: bool = False,
) -> dg.ExecuteInProcessResult:
    """Run assets for one partition."""
    resources = {"io_manager": io_manager}
    return dg.materialize(
        assets, partition_key=key, resources=resources, instance=instance, raise_on_error=raise_on_error
    )


def green(instance: dg.DagsterInstance, asset: str) -> set[str]:
    """Return the partitions that Dagster counts as materialized."""
    return set(instance.get_materialized_partitions(dg.AssetKey(asset)))


def metadata_by_partition(result: dg.ExecuteInProcessResult, asset: str) -> dict[str, dict[str, Any]]:
    """Return each partition's materialization metadata, as plain values."""
    materializations = result.asset_materializations_for_node(asset)
    return {
        str(event.partition): {name: value.value for name, value in event.metadata.items()}
        for event in materializations
    }


def failure_of(result: dg.ExecuteInProcessResult, step: str) -> str:
    """Return the messages of a failed step's error and of what caused it."""
    (event,) = [event for event in result.all_events if event.is_step_failure and event.step_key == step]
    messages: list[str] = []
    error = event.step_failure_data.error
    while error is not None:
        messages.append(error.message)
        error = error.cause
    return "\n".join(messages)
