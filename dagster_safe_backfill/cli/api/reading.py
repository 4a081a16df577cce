"""Reading Dagster's answers into values."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import chain, product
from typing import Any

from dagster_safe_backfill.cli.api.values import (
    PARTITION_TAG,
    RANGE_END_TAG,
    RANGE_START_TAG,
    Asset,
    Backfill,
    Counts,
    Materialization,
    PartitionsKind,
    Run,
    Statuses,
)

_KINDS: Mapping[str, PartitionsKind] = {
    "TIME_WINDOW": "time",
    "STATIC": "static",
    "DYNAMIC": "dynamic",
    "MULTIPARTITIONED": "multi",
}


def key_of(asset_key: Mapping[str, Any]) -> str:
    """Return an asset key as `a/b`."""
    return "/".join(asset_key["path"])


def asset_of(node: Mapping[str, Any]) -> Asset:
    """Return an asset of the answer to `documents.ASSETS`."""
    definition, policy = node["partitionDefinition"], node["backfillPolicy"]
    kind = None if definition is None else _KINDS[definition["type"]]
    dimensions = [one["name"] for one in definition["dimensionTypes"]] if kind == "multi" and definition else []
    per_run: int | None = 1
    if policy is not None:
        per_run = None if policy["policyType"] == "SINGLE_RUN" else policy["maxPartitionsPerRun"]
    return Asset(
        key=key_of(node["assetKey"]),
        location=node["repository"]["location"]["name"],
        repository=node["repository"]["name"],
        kind=kind,
        dimensions=tuple(dimensions),
        keys=tuple(node["partitionKeys"]),
        partitions_per_run=per_run,
        code_version=node["opVersion"],
        upstream=tuple(key_of(one) for one in node["dependencyKeys"]),
        downstream=tuple(key_of(one) for one in node["dependedByKeys"]),
        metadata={name: str(value) for name, value in _metadata(node["metadataEntries"]).items()},
        jobs=tuple(node["jobNames"]),
        pools=tuple(node["pools"]),
    )


def statuses_of(asset: Asset, told: Mapping[str, Any]) -> Statuses:
    """Return the statuses of an asset's partitions, which come as sets, as ranges, or as rectangles."""
    position = {key: number for number, key in enumerate(asset.keys)}
    if "primaryDimensionName" in told:
        return _statuses_of_multi(asset, told)
    if "ranges" in told:
        found: dict[str, list[str]] = {}
        for one in told["ranges"]:
            found.setdefault(one["status"], []).extend(between(asset.keys, position, one["startKey"], one["endKey"]))
        return _by_status(found)
    return Statuses(
        materialized=frozenset(told["materializedPartitions"]),
        failed=frozenset(told["failedPartitions"]),
        materializing=frozenset(told["materializingPartitions"]),
    )


def between(keys: Sequence[str], position: Mapping[str, int], first: str, last: str) -> Sequence[str]:
    """Return the keys from the first to the last; none if an end is no longer a key."""
    if first not in position or last not in position:
        return ()
    return keys[position[first] : position[last] + 1]


def _by_status(found: Mapping[str, Iterable[str]]) -> Statuses:
    return Statuses(
        materialized=frozenset(found.get("MATERIALIZED", ())),
        failed=frozenset(found.get("FAILED", ())),
        materializing=frozenset(found.get("MATERIALIZING", ())),
    )


def _statuses_of_multi(asset: Asset, told: Mapping[str, Any]) -> Statuses:
    """Return the statuses of multi-partitions, which come as rectangles of a primary and a secondary dimension."""
    primary = asset.dimensions.index(told["primaryDimensionName"])
    parts = [key.split("|") for key in asset.keys]
    first = [*dict.fromkeys(part[primary] for part in parts)]
    second = [*dict.fromkeys(part[1 - primary] for part in parts)]
    of_first, of_second = ({key: i for i, key in enumerate(keys)} for keys in (first, second))
    found: dict[str, set[str]] = {}
    for one in told["ranges"]:
        rows = between(first, of_first, one["primaryDimStartKey"], one["primaryDimEndKey"])
        inner = one["secondaryDim"]
        if "ranges" in inner:
            columns = [
                (piece["status"], key)
                for piece in inner["ranges"]
                for key in between(second, of_second, piece["startKey"], piece["endKey"])
            ]
        else:
            names = (("MATERIALIZED", "materialized"), ("FAILED", "failed"), ("MATERIALIZING", "materializing"))
            columns = [(status, key) for status, name in names for key in inner[f"{name}Partitions"]]
        for row in rows:
            for status, key in columns:
                pair = (row, key) if primary == 0 else (key, row)
                found.setdefault(status, set()).add("|".join(pair))
    return _by_status(found)


def materialization_of(event: Mapping[str, Any]) -> Materialization:
    """Return a materialization."""
    return Materialization(
        partition=event["partition"],
        run_id=event["runId"],
        at=float(event["timestamp"]) / 1000,
        metadata=_metadata(event["metadataEntries"]),
    )


def _metadata(entries: Iterable[Mapping[str, Any]]) -> dict[str, object]:
    """Return metadata as plain values; entries of other kinds, such as tables, are left out."""
    found: dict[str, object] = {}
    for entry in entries:
        names = ("text", "floatValue", "boolValue", "jsonString", "path", "url")
        if entry.get("intRepr") is not None:
            found[entry["label"]] = int(entry["intRepr"])
            continue
        value = next((entry[name] for name in names if entry.get(name) is not None), None)
        if value is not None:
            found[entry["label"]] = value
    return found


def run_of(told: Mapping[str, Any]) -> Run:
    """Return a run."""
    return Run(
        id=told["runId"],
        status=told["status"],
        job=told["jobName"],
        tags={one["key"]: one["value"] for one in told["tags"]},
        started_at=told["startTime"],
        ended_at=told["endTime"],
    )


def backfill_of(told: Mapping[str, Any]) -> Backfill:
    """Return a backfill."""
    data = told["assetBackfillData"]
    return Backfill(
        id=told["id"],
        status=told["status"],
        tags={one["key"]: one["value"] for one in told["tags"]},
        title=told["title"],
        started_at=told["timestamp"],
        ended_at=told["endTimestamp"],
        error=told["error"] and str(told["error"]["message"]).strip(),
        assets={key_of(one["assetKey"]): _counts(one) for one in (data["assetBackfillStatuses"] if data else ())},
        runs=tuple(run_of(one) for one in told.get("runs", ())),
        is_of_assets=told["isAssetBackfill"],
        job=told["partitionSetName"] and str(told["partitionSetName"]).removesuffix("_partition_set"),
    )


def _counts(told: Mapping[str, Any]) -> Counts:
    if "numPartitionsTargeted" not in told:
        return Counts(
            targeted=1,
            in_progress=int(told["inProgress"]),
            materialized=int(told["materialized"]),
            failed=int(told["failed"]),
        )
    return Counts(
        targeted=told["numPartitionsTargeted"],
        in_progress=told["numPartitionsInProgress"],
        materialized=told["numPartitionsMaterialized"],
        failed=told["numPartitionsFailed"],
    )


def ranges_of(keys: Iterable[str], every: Sequence[str]) -> list[tuple[str, str]]:
    """Return keys as ranges of an asset's keys, each from the first to the last, in the asset's order."""
    position = {key: number for number, key in enumerate(every)}
    found: list[tuple[str, str]] = []
    last = -2
    for number in sorted(position[key] for key in keys):
        if number == last + 1:
            found[-1] = (found[-1][0], every[number])
        else:
            found.append((every[number], every[number]))
        last = number
    return found


def ranges_to_launch(asset: Asset, keys: Sequence[str]) -> list[tuple[str, str]]:
    """Return partitions of an asset as the ranges by which a backfill of just these is launched.

    Dagster 1.13.27 reads a range of multi-partitions as a rectangle, from the first key of each dimension to the last,
    so only single keys say what is meant.
    """
    return [(key, key) for key in keys] if asset.kind == "multi" else ranges_of(keys, asset.keys)


def keys_of(ranges: Iterable[tuple[str, str]], every: Sequence[str]) -> list[str]:
    """Return the keys of ranges, in the asset's order."""
    position = {key: number for number, key in enumerate(every)}
    return [*chain.from_iterable(between(every, position, first, last) for first, last in ranges)]


def keys_of_tags(tags: Mapping[str, str], asset: Asset | None) -> Sequence[str]:
    """Return the keys that a run's tags name; `asset` is one with partitions that it materializes."""
    first, last = tags.get(RANGE_START_TAG), tags.get(RANGE_END_TAG)
    if first is None or last is None:
        return [tags[PARTITION_TAG]] if PARTITION_TAG in tags else []
    if first == last or asset is None:
        return [first]
    if asset.kind != "multi":
        return _between(asset.keys, first, last)
    # A range of multi-partitions is a rectangle: a range in each dimension.
    parts = [key.split("|") for key in asset.keys]
    ranges = [
        _between([*dict.fromkeys(part[number] for part in parts)], start, end)
        for number, (start, end) in enumerate(zip(first.split("|"), last.split("|"), strict=True))
    ]
    return ["|".join(parts) for parts in product(*ranges)]


def _between(keys: Sequence[str], first: str, last: str) -> Sequence[str]:
    return between(keys, {key: number for number, key in enumerate(keys)}, first, last)
