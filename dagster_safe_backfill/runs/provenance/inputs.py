"""The upstream assets of an asset as Dagster's event log knows them, by the partitions that each partition reads."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import dagster as dg

from dagster_safe_backfill.model.provenance import INPUT, Provenance
from dagster_safe_backfill.runs.private_dagster import (
    data_versions_by_partition,
    kind_of_partitions,
    loaded_into,
    newest_by_partition,
    upstream_partitions,
)

_PAGE = 1000
_LOOKED_AT = 50
"""The number of newest events among which one that names no partition, or has a data version, is looked for."""
_MOST_KEYS = 100
"""Of partitions that read more than this many of an upstream asset, any change of that asset counts."""


@dataclass(frozen=True, slots=True)
class InputState:
    """Some partitions of an upstream asset at one moment.

    Attributes:
        keys: The partitions. None for the whole asset.
        newest: The storage id of their newest materialization; 0 without one. Ids grow with each event.
        versions: Their data versions by Dagster's newest observations, in the order of the keys.
        kind: The kind of the upstream asset's partitions, without which the keys say little.
    """

    keys: Sequence[str] | None
    newest: int
    versions: Sequence[str | None] = ()
    kind: str = ""

    def __str__(self) -> str:
        return json.dumps([self.keys, self.newest, self.versions, self.kind], separators=(",", ":"))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Upstream:
    """What the event log knows of an upstream asset now.

    Attributes:
        newest: The storage id of the newest materialization of all partitions together.
        newest_whole: The same, if that event names no partition, so that it may be of any; else 0.
        by_partition: The same of each partition.
        version: The data version of the newest observation.
        version_of_whole: The same, if that event names no partition; else None.
        versions: The same of each partition.
    """

    newest: int
    newest_whole: int
    by_partition: Mapping[str, int]
    version: str | None
    version_of_whole: str | None
    versions: Mapping[str, str]

    def state_of(self, keys: Sequence[str] | None, *, kind: str) -> InputState:
        """Return the state of some partitions, or of the whole asset."""
        if keys is None:
            versions = sorted({*self.versions.values()}) if self.versions else [self.version]
            return InputState(None, self.newest, versions if versions != [None] else (), kind)
        newest = max(self.newest_whole, *(self.by_partition.get(key, 0) for key in keys), 0)
        versions = [self.versions.get(key) for key in keys] if self.versions else []
        whole = [] if self.version_of_whole is None else [self.version_of_whole]
        return InputState(keys, newest, versions + whole, kind)


def inputs_of(
    context: dg.AssetExecutionContext,
    keys: Sequence[str],
    upstream: Iterable[dg.AssetKey],
    *,
    loaded_at: datetime | None = None,
) -> dict[str, dict[str, str | None]]:
    """Return the inputs of partitions of a run's asset: a mapping from partition key to parts of its provenance.

    Makes a constant number of queries for each upstream asset.

    Args:
        context: The context of the run's step.
        keys: The partition keys.
        upstream: The upstream assets. They count as they are now.
        loaded_at: The time at which Dagster began to load them into memory, if it did. If an upstream asset was
            materialized after that time, the loaded rows may be the earlier or the later ones, so it can't be known.
    """
    parts: dict[str, dict[str, str | None]] = {key: {} for key in keys}
    for one in upstream:
        name = INPUT + one.to_user_string()
        found = _upstream(context.instance, one)
        kind, late = kind_of_partitions(context, one), set[str | None]()
        if loaded_at is not None and loaded_into(context.assets_def, one):
            late = _changed_after(context.instance, one, loaded_at)
        for key, read in upstream_partitions(context, one, keys).items():
            is_late = bool(late) if read is None else not late.isdisjoint({None, *read})
            few = None if read is None or len(read) > _MOST_KEYS else read
            parts[key][name] = None if is_late else str(found.state_of(few, kind=kind))
    return parts


def changed_inputs(
    assets: dg.AssetsDefinition,
    asset_key: dg.AssetKey,
    made_by: Mapping[str, Provenance | None],
    *,
    instance: dg.DagsterInstance,
) -> dict[str, str]:
    """Return the partitions whose inputs changed since they were computed, each with the reason.

    For runs of other assets than the one that computed them: the partitions read the same upstream partitions as then.

    Args:
        assets: The definition of the asset that computed the partitions.
        asset_key: The asset.
        made_by: The provenance of each partition.
        instance: The instance with the event log.
    """
    changed: dict[str, str] = {}
    for upstream in sorted(assets.asset_deps[asset_key]):
        name = INPUT + upstream.to_user_string()
        found = _upstream(instance, upstream)
        for key, provenance in made_by.items():
            before = None if provenance is None else provenance.parts.get(name)
            if before is None:
                changed.setdefault(key, f"it can't be known which {upstream.to_user_string()} they were computed from")
                continue
            # In a run of another asset, Dagster 1.13.27 knows the upstream assets of this one without their partitions.
            keys, *_, kind = json.loads(before)
            if str(found.state_of(keys, kind=kind)) != before:
                changed.setdefault(key, f"{upstream.to_user_string()} changed since")
    return changed


def inputs_read(provenance: Provenance) -> dict[str, InputState]:
    """Return a mapping from upstream asset to the state of it that a partition was computed from, where it is known."""
    found: dict[str, InputState] = {}
    for name, text in provenance.parts.items():
        if name.startswith(INPUT) and text is not None:
            keys, newest, versions, kind = json.loads(text)
            found[name.removeprefix(INPUT)] = InputState(keys, newest, versions, kind)
    return found


def _upstream(instance: dg.DagsterInstance, key: dg.AssetKey) -> _Upstream:
    materialized: Any = instance.fetch_materializations(key, limit=_LOOKED_AT).records
    observed = [one for one in instance.fetch_observations(key, limit=_LOOKED_AT).records if _version(one) is not None]
    return _Upstream(
        newest=materialized[0].storage_id if materialized else 0,
        newest_whole=next((one.storage_id for one in materialized if one.partition_key is None), 0),
        by_partition=newest_by_partition(instance, key),
        version=_version(observed[0]) if observed else None,
        version_of_whole=next((_version(one) for one in observed if one.partition_key is None), None),
        versions=data_versions_by_partition(instance, key) if observed else {},
    )


def _version(observation: Any) -> str | None:
    """Return the data version of an observation. Without one, it says nothing about the data."""
    return observation.asset_observation.data_version


def _changed_after(instance: dg.DagsterInstance, asset: dg.AssetKey, moment: datetime) -> set[str | None]:
    """Return the partitions that were materialized or observed after a moment; None for an event without one."""
    found: set[str | None] = set()
    records_filter = dg.AssetRecordsFilter(asset_key=asset, after_timestamp=moment.timestamp())
    for fetch in (instance.fetch_materializations, instance.fetch_observations):
        cursor: str | None = None
        while True:
            page = fetch(records_filter, limit=_PAGE, cursor=cursor)
            for record in page.records:
                if record.asset_observation is None or _version(record) is not None:
                    found.add(record.partition_key)
            if not page.has_more:
                break
            cursor = page.cursor
    return found
