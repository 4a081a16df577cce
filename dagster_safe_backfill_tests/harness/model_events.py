"""A model of Dagster's event log, and of the context of a run, as far as the provenance and the resuming ask them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from functools import cache
from types import SimpleNamespace
from typing import Any, Literal

import dagster as dg
from dagster._core.instance.types import DynamicPartitionsStore

DataVersion = "dagster/data_version"
Kind = Literal["daily", "weekly", "hourly", "static", "multi"]
Mapped = Literal["same", "before", "monthly", "all", "unpartitioned", "observed"]
KINDS: tuple[Kind, ...] = ("daily", "daily", "weekly", "hourly", "static", "multi")
OF_TIME: tuple[Mapped, ...] = ("same", "before", "monthly", "all", "unpartitioned", "observed")
OF_KEYS: tuple[Mapped, ...] = ("same", "all", "unpartitioned", "observed")
STEP = "x"
_DAYS = dg.DailyPartitionsDefinition("2024-01-28", end_date="2024-02-10")
_STATIC = dg.StaticPartitionsDefinition([*"abcdefgh"])
_MONTHS = dg.MonthlyPartitionsDefinition("2023-12-01", end_date="2024-03-01")
DEFINITIONS: Mapping[Kind, dg.PartitionsDefinition[str]] = {
    "daily": _DAYS,
    "weekly": dg.WeeklyPartitionsDefinition("2024-01-28", end_date="2024-04-10"),
    "hourly": dg.HourlyPartitionsDefinition("2024-01-31-20:30", end_date="2024-02-01-06:30", minute_offset=30),
    "static": _STATIC,
    "multi": dg.MultiPartitionsDefinition({"day": _DAYS, "key": dg.StaticPartitionsDefinition(["a", "b"])}),
}
BEFORE = dg.TimeWindowPartitionMapping(start_offset=-1, end_offset=-1)


@dataclass(frozen=True)
class Definition:
    """An asset and its graph: `x`, its upstream assets `u0` and `u1`, of which some are loaded, and maybe itself."""

    kind: Kind
    upstream: tuple[tuple[Mapped, bool], ...]
    is_self_dependent: bool = False

    @property
    def partitions_def(self) -> dg.PartitionsDefinition[str]:
        return DEFINITIONS[self.kind]


@cache
def built(of: Definition) -> tuple[dg.AssetsDefinition, Any, Mapping[tuple[str, str], tuple[str, ...]]]:
    """Return the asset, its graph, and by upstream asset and partition what is read of it, as Dagster maps it."""
    beside: list[Any] = []
    deps: list[Any] = []
    ins: dict[str, dg.AssetIn] = {}
    for number, (mapped, is_loaded) in enumerate(of.upstream):
        name = f"u{number}"
        there = {"monthly": _MONTHS, "unpartitioned": None, "observed": None}.get(mapped, of.partitions_def)
        mapping = {"before": BEFORE, "all": dg.AllPartitionMapping()}.get(mapped)
        beside.append(dg.AssetSpec(name, partitions_def=there))
        if is_loaded:
            ins[name] = dg.AssetIn(partition_mapping=mapping)
        else:
            deps.append(dg.AssetDep(name, partition_mapping=mapping))
    if of.is_self_dependent:
        ins["x"] = dg.AssetIn(partition_mapping=BEFORE)
    asset = dg.asset(_function(tuple(ins)), name="x", partitions_def=of.partitions_def, ins=ins, deps=deps)
    graph = dg.Definitions(assets=[asset, *beside]).resolve_asset_graph()
    read: dict[tuple[str, str], tuple[str, ...]] = {}
    for upstream in asset.asset_deps[asset.key]:
        there = graph.get(upstream).partitions_def
        mapping = graph.get_partition_mapping(asset.key, upstream)
        for key in keys_of(of):
            if there is None:
                read[upstream.to_user_string(), key] = ("",)
                continue
            found = mapping.get_upstream_mapped_partitions_result_for_partitions(
                of.partitions_def.subset_with_partition_keys([key]), of.partitions_def, there
            )
            read[upstream.to_user_string(), key] = tuple(sorted(found.partitions_subset.get_partition_keys()))
    return asset, graph, read


def _function(inputs: Sequence[str]) -> Any:
    names: dict[str, Any] = {}
    exec(f"def x({', '.join(inputs)}): ...", names)
    return names["x"]


@cache
def keys_of(of: Definition) -> tuple[str, ...]:
    """Return the partitions that histories are about."""
    return tuple(of.partitions_def.get_partition_keys()[:6])


@dataclass
class Event:
    """A record of an asset's event."""

    storage_id: int
    asset: dg.AssetKey
    kind: dg.DagsterEventType
    partition_key: str | None
    timestamp: float
    version: str | None = None

    @property
    def asset_observation(self) -> Any:
        is_observed = self.kind is dg.DagsterEventType.ASSET_OBSERVATION
        return SimpleNamespace(data_version=self.version) if is_observed else None


class _NoDynamicPartitions(DynamicPartitionsStore):
    """What Dagster asks of an instance that has to do with dynamic partitions, of which there are none."""

    def get_dynamic_partitions(self, partitions_def_name: str) -> Sequence[str]:
        return []

    def get_paginated_dynamic_partitions(self, *_args: Any, **_options: Any) -> Any:
        raise NotImplementedError

    def has_dynamic_partition(self, partitions_def_name: str, partition_key: str) -> bool:
        return False

    def get_dynamic_partitions_definition_id(self, partitions_def_name: str) -> str:
        return ""


@dataclass
class Log(_NoDynamicPartitions):
    """An instance: events of assets and steps, and runs. Its clock ticks with each reading."""

    events: list[Event] = field(default_factory=list)
    runs: dict[str, dg.DagsterRun] = field(default_factory=dict)
    steps: dict[str, list[Any]] = field(default_factory=dict)
    ticks: int = 0
    begin: datetime = field(default_factory=lambda: datetime.now(timezone.utc) - timedelta(hours=1))

    @property
    def event_log_storage(self) -> Log:
        return self

    def now(self) -> datetime:
        self.ticks += 1
        return self.begin + timedelta(milliseconds=self.ticks)

    def report(self, asset: str, partition: str | None, version: str | None = None) -> None:
        kinds = dg.DagsterEventType
        kind = kinds.ASSET_MATERIALIZATION if version is None else kinds.ASSET_OBSERVATION
        number, time = len(self.events) + 1, self.now().timestamp()
        self.events.append(Event(number, dg.AssetKey(asset), kind, partition, time, version))

    def report_step(self, run_id: str, kind: str, error: str | None = None) -> None:
        """Report that a run's step began or ended."""
        failure = None if error is None else SimpleNamespace(error=SimpleNamespace(cls_name=error, cause=None))
        event = SimpleNamespace(is_step_success=kind == "STEP_SUCCESS", step_failure_data=failure)
        entry = SimpleNamespace(step_key=STEP, timestamp=self.now().timestamp(), dagster_event=event)
        self.steps.setdefault(run_id, []).append((kind, SimpleNamespace(event_log_entry=entry)))

    # What follows is what the library asks an instance.

    def get_run_by_id(self, run_id: str) -> dg.DagsterRun | None:
        return self.runs.get(run_id)

    def get_runs(self, filters: dg.RunsFilter) -> list[dg.DagsterRun]:
        return [self.runs[run_id] for run_id in filters.run_ids or () if run_id in self.runs]

    def get_backfill(self, _backfill_id: str) -> None:
        return None

    def get_records_for_run(self, run_id: str, of_type: Any) -> Any:
        kinds = {kind.value for kind in of_type}
        return SimpleNamespace(records=[record for kind, record in self.steps.get(run_id, []) if kind in kinds])

    def fetch_materializations(self, asked: Any, limit: int, cursor: str | None = None) -> Any:
        return self._page(asked, dg.DagsterEventType.ASSET_MATERIALIZATION, limit)

    def fetch_observations(self, asked: Any, limit: int, cursor: str | None = None) -> Any:
        return self._page(asked, dg.DagsterEventType.ASSET_OBSERVATION, limit)

    def _page(self, asked: Any, kind: dg.DagsterEventType, limit: int) -> Any:
        after = -1.0 if isinstance(asked, dg.AssetKey) else asked.after_timestamp
        key = asked if isinstance(asked, dg.AssetKey) else asked.asset_key
        found = [event for event in self._of(key, kind) if event.timestamp > after]
        return SimpleNamespace(records=found[:limit], has_more=False, cursor=None)

    def get_latest_storage_id_by_partition(self, asset: dg.AssetKey, kind: dg.DagsterEventType) -> dict[str, int]:
        return {event.partition_key: event.storage_id for event in self._newest(asset, kind)}  # type: ignore[misc]

    def get_latest_tags_by_partition(
        self, asset: dg.AssetKey, kind: dg.DagsterEventType, _tags: Sequence[str]
    ) -> dict[str, dict[str, str]]:
        found: dict[str, dict[str, str]] = {}
        for event in self._newest(asset, kind):
            if event.version is not None and event.partition_key is not None:
                found[event.partition_key] = {DataVersion: event.version}
        return found

    def _of(self, asset: dg.AssetKey, kind: dg.DagsterEventType) -> Iterator[Event]:
        return (event for event in reversed(self.events) if event.asset == asset and event.kind is kind)

    def _newest(self, asset: dg.AssetKey, kind: dg.DagsterEventType) -> list[Event]:
        newest: dict[str, Event] = {}
        for event in self._of(asset, kind):
            if event.partition_key is not None:
                newest.setdefault(event.partition_key, event)
        return [*newest.values()]


class Silence:
    """A log that nobody reads."""

    def info(self, _text: str) -> None: ...

    def warning(self, _text: str) -> None: ...


def context_of(log: Log, run: dg.DagsterRun, of: Definition, config: object) -> Any:
    """Return the context of a run's step."""
    asset, graph, _ = built(of)
    resolved = SimpleNamespace(resources={})
    step = SimpleNamespace(step=SimpleNamespace(key=STEP), resolved_run_config=resolved)
    return SimpleNamespace(
        run=run,
        run_id=run.run_id,
        instance=log,
        asset_key=asset.key,
        assets_def=asset,
        job_def=SimpleNamespace(asset_layer=SimpleNamespace(asset_graph=graph)),
        log=Silence(),
        op_execution_context=SimpleNamespace(op_config=config),
        get_step_execution_context=lambda: step,
        resources=SimpleNamespace(),
    )
