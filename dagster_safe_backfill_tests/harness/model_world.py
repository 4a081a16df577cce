"""A model of what a run reads and leaves: inputs, the ledger, shadows and live partitions.

The value of a partition is all that it is made of, so that two are equal only if they were made of the same.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import datetime
from types import SimpleNamespace
from typing import Any
from unittest import mock

import dagster as dg

import dagster_safe_backfill as sb
from dagster_safe_backfill.model.events import Event, Fingerprint
from dagster_safe_backfill.model.options import AssetOptions
from dagster_safe_backfill.model.states import Origin, StagedPartition
from dagster_safe_backfill.model.tables import Column, TableRef, TableSpec
from dagster_safe_backfill.runs import resume
from dagster_safe_backfill.runs.declared import ComputedAsset, LiveAsset
from dagster_safe_backfill.runs.partitions import slice_of_keys
from dagster_safe_backfill.runs.private_dagster import step_started_at, upstream_of
from dagster_safe_backfill.runs.provenance.inputs import inputs_of
from dagster_safe_backfill.runs.provenance.parts import run_parts
from dagster_safe_backfill.runs.run import ComputingRun
from dagster_safe_backfill.wap.ledger import checkpoints
from dagster_safe_backfill.wap.write import LiveBefore
from dagster_safe_backfill_tests.harness.model_events import Definition, Log, built, context_of

TABLE = TableRef(schema="main", name="x")
Value = tuple[Any, ...]


@dataclass
class World:
    """All that a run can read, and all that it leaves."""

    of: Definition
    batches: sb.Batches
    is_staged_shape: bool = False
    log: Log = field(default_factory=Log)
    source: int = 0
    bad: set[str] = field(default_factory=set)
    held: dict[tuple[str, str], int] = field(default_factory=dict)
    code: int = 0
    config: int = 0
    rules: int = 0
    ledger: list[StagedPartition] = field(default_factory=list)
    rejections: dict[str, datetime] = field(default_factory=dict)
    shadows: dict[TableRef, dict[str, Value]] = field(default_factory=dict)
    live: dict[str, Value] | None = None
    last: dg.DagsterRun | None = None
    reused: int = 0
    calls: int = 0
    _names: Any = field(default_factory=itertools.count)

    @property
    def spec(self) -> TableSpec:
        return TableSpec(table=TABLE, partition_expr={None: "day"}, updated_at_column=f"rule_{self.rules}")

    # --- what is computed

    def value(self, key: str, before: Value | None, loaded: Mapping[tuple[str, str], int] | None = None) -> Value:
        """Return what the partition of a key is, by what is held now, but for what was loaded."""
        window = slice_of_keys(self.of.partitions_def, [key]).meanings[key]
        read: list[tuple[str, str, int]] = []
        for number, (_, is_loaded) in enumerate(self.of.upstream):
            held = self.held if loaded is None or not is_loaded else loaded
            name = f"u{number}"
            parts = built(self.of)[2][name, key]
            # Who reads nothing depends on which asset it doesn't read.
            read += [(name, part, held.get((name, part), 0)) for part in parts] or [(name, "", 0)]
        is_bad = key in self.bad
        return (window, tuple(read), before, self.code, self.config, self.rules, self.source, is_bad)

    def before(self, key: str, known: Mapping[str, Value]) -> Value | None:
        """Return the value of the partition before, of an asset that reads it."""
        if not self.of.is_self_dependent:
            return None
        (one,) = built(self.of)[2]["x", key] or ("",)
        return known.get(one)

    def refresh(self, name: str, part: str) -> None:
        """Let an input change, which Dagster hears of."""
        self.held[name, part] = self.held.get((name, part), 0) + 1
        mapped = self.of.upstream[int(name[1:])][0]
        version = str(self.held[name, part]) if mapped == "observed" else None
        self.log.report(name, part or None, version)

    # --- the warehouse

    def fingerprint(self, key: str) -> Fingerprint:
        value = None if self.live is None else self.live.get(key)
        return Fingerprint() if value is None else Fingerprint(rows=1, digest=str(hash(value)), algorithm="model")

    def record(self, event: Event, key: str, run: ModelRun, shadow: TableRef | None, **further: Any) -> None:
        now = self.log.now()
        origin = run.origin
        values: dict[str, Any] = {
            "provenance": None,
            "computed_by": origin.run_id,
            "fingerprint": Fingerprint(),
            "columns": None if self.live is None else ("day",),
            "computed_at": now,
            "group": origin.group,
            **further,
        }
        one = StagedPartition(
            key=key,
            event=event,
            shadow=shadow,
            run_id=origin.run_id,
            code_version=origin.code_version,
            asset_key="x",
            rows=1,
            publication_id=origin.publication_id,
            recorded_at=now,
            **values,
        )
        self.ledger.append(one)

    def newest(self, *, keys: Sequence[str] | None = None, group: str | None = None) -> list[StagedPartition]:
        found: dict[tuple[str, str], StagedPartition] = {}
        for one in self.ledger:
            if (keys is None or one.key in keys) and group in (None, one.group):
                found.pop((one.group, one.key), None)
                found[one.group, one.key] = one
        return [*found.values()]

    def patched(self) -> ExitStack:
        """Let the library read this model instead of a warehouse."""
        stack = ExitStack()
        columns = None if self.live is None else (Column(name="day", type="DATE"),)

        def discard(_session: object, shadows: Sequence[TableRef], **_options: object) -> None:
            for shadow in shadows:
                self.shadows.pop(shadow, None)

        def standing(_session: object, _table: object, found: Sequence[StagedPartition]) -> list[StagedPartition]:
            return [one for one in found if one.shadow in self.shadows]

        def why_unfit(*_args: object, **_options: object) -> dict[str, str]:
            # All shadows of the model have the same column, and nobody changes them.
            return {}

        replaced: dict[str, Any] = {
            # There is one asset, to which all partitions belong.
            "staged_partitions": lambda _session, _table, keys, assets: self.newest(keys=keys),
            "standing": standing,
            "rejections": lambda _session, _table: self.rejections,
            "live_slice": lambda _session, *, spec, partition_slice, columns: partition_slice.keys,
            "live_fingerprints": lambda _session, keys, _columns: {key: self.fingerprint(key) for key in keys},
        }
        for name, function in replaced.items():
            stack.enter_context(mock.patch.object(checkpoints, name, function))
        of_resume: dict[str, Any] = {
            "discard": discard,
            "check_owner": lambda *_args, **_options: None,
            "why_unfit": why_unfit,
            "live_before": lambda _session, **_options: LiveBefore(at=self.log.now()),
            "changes_by": lambda _session, _table, *ids: [
                SimpleNamespace(key=one.key) for one in self.newest() if one.event == "published"
            ],
        }
        for name, function in of_resume.items():
            stack.enter_context(mock.patch.object(resume, name, function))
        self.session = SimpleNamespace(tables=SimpleNamespace(columns=lambda _table: columns))
        return stack


@dataclass(frozen=True, kw_only=True)
class ModelRun(ComputingRun):
    """A run of the library that works on the model."""

    world: World

    def attempt(self, work: Callable[[Any], Any], *, deadline: Any, read_only: bool = False) -> Any:
        return work(self.world.session)


def model_run(world: World, run: dg.DagsterRun, keys: Sequence[str]) -> ModelRun:
    """Return a run as `computing_run` makes it."""
    context = context_of(world.log, run, world.of, {"n": world.config} if world.config else None)
    asset = built(world.of)[0]
    options = AssetOptions(partition_expr={None: "day"}, batches=world.batches)
    live = LiveAsset(key=asset.key, options=options, partitions_def=world.of.partitions_def)
    function = SimpleNamespace(digest=lambda: code)
    computed = ComputedAsset(live=live, compute=function, audits=(), logs_by_partition=False)  # type: ignore[arg-type]
    code = f"{world.code}"
    group = (run.root_run_id or run.run_id) if world.is_staged_shape else run.run_id
    parts = computed.provenance(world.spec, computed_by=asset) | run_parts(context, {})
    return ModelRun(
        context=context,
        options=options,
        table_io=None,  # type: ignore[arg-type]
        spec=world.spec,
        origin=Origin(run_id=run.run_id, publication_id=run.run_id, code_version=code, asset_key="x", group=group),
        partition_slice=slice_of_keys(world.of.partitions_def, keys),
        asset=computed,
        arguments={},
        parts=parts,
        inputs=inputs_of(context, keys, upstream_of(context), loaded_at=step_started_at(context)),
        own_input="x" if world.of.is_self_dependent and world.batches.publish_each else None,
        additions={},
        world=world,
    )
