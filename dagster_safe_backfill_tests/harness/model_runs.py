"""A model of runs: the library decides what is reused, and a model of the warehouse stages and publishes values."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any, Literal

import dagster as dg

from dagster_safe_backfill.errors import NotStagedError
from dagster_safe_backfill.model.provenance import Provenance
from dagster_safe_backfill.model.states import StagedPartition
from dagster_safe_backfill.model.tables import TableRef
from dagster_safe_backfill.runs import resume, staged_runs
from dagster_safe_backfill.runs.declared import StagedAsset
from dagster_safe_backfill_tests.harness.model_events import built, keys_of
from dagster_safe_backfill_tests.harness.model_world import TABLE, Value, World, model_run

Again = Literal["launch", "all", "from_failure", "retry"]
Ending = Literal["succeeded", "failed", "rejected", "interrupted"]


class KilledError(Exception):
    """The process is gone."""


class StoppedError(Exception):
    """The step fails, with an error of this name."""


@dataclass(frozen=True)
class Try:
    """One try, and what happens meanwhile.

    Attributes:
        at: What happens while the partition of a key is computed: `error`, `kill`, `timeout`, or a refreshed input,
            which the function reads before or after that.
        kill_after: The batch and the phase after which the process is killed.
        late: An input that is refreshed after Dagster loaded it, before the library looks.
    """

    again: Again
    keys: tuple[str, ...]
    at: Mapping[str, tuple[str, ...]] = field(default_factory=dict[str, "tuple[str, ...]"])
    kill_after: tuple[int, str] = (0, "")
    late: tuple[str, ...] = ()
    is_monitored: bool = True


def launch(world: World, plan: Try) -> Ending:
    """Run a try, and return how it ended."""
    log, last = world.log, world.last
    if plan.again == "retry":
        assert last is not None
        run = last
        log.report_step(run.run_id, "STEP_RESTARTED")
    else:
        run = _run_of(f"run{next(world._names)}", plan, last)
        log.runs[run.run_id] = run
        log.report_step(run.run_id, "STEP_START")
    world.last = run
    ending, error = "succeeded", None
    try:
        is_passed = _Step(world, plan, run).work()
        if not is_passed:
            ending, error = "rejected", "Failure"
    except StoppedError as stopped:
        error = str(stopped)
        ending = "interrupted" if error == "BatchTimeoutError" else "failed"
    except KilledError:
        if plan.is_monitored:
            log.runs[run.run_id] = run.with_status(dg.DagsterRunStatus.FAILURE)
        return "interrupted"
    is_success = ending == "succeeded"
    log.report_step(run.run_id, "STEP_SUCCESS" if is_success else "STEP_FAILURE", error)
    status = dg.DagsterRunStatus.SUCCESS if is_success else dg.DagsterRunStatus.FAILURE
    log.runs[run.run_id] = run.with_status(status)
    return ending  # type: ignore[return-value]


def _run_of(run_id: str, plan: Try, last: dg.DagsterRun | None) -> dg.DagsterRun:
    tags: dict[str, str] = {}
    root = parent = None
    if plan.again in ("all", "from_failure") and last is not None:
        root, parent = last.root_run_id or last.run_id, last.run_id
        tags = {"dagster/root_run_id": root, "dagster/parent_run_id": parent}
        if plan.again == "from_failure":
            tags["dagster/is_resume_retry"] = "true"
    started = dg.DagsterRunStatus.STARTED
    return dg.DagsterRun("job", run_id=run_id, status=started, tags=tags, root_run_id=root, parent_run_id=parent)


class _Step:
    """The work of a run's step, batch by batch, as `wap_run` does it."""

    def __init__(self, world: World, plan: Try, run: dg.DagsterRun) -> None:
        self.world, self.plan = world, plan
        self.loaded = dict(world.held)
        self.own = dict(world.live or {})
        if plan.late:
            world.refresh(*plan.late)
        self.run = model_run(world, run, plan.keys)

    def work(self) -> bool:
        """Return True if all passed."""
        world, run = self.world, self.run
        is_each = world.batches.publish_each
        with world.patched():
            left = resume.remaining(run)
        passed: list[str] = []
        rejected: list[str] = []
        for number, batch in enumerate(left.batches):
            good, bad = self._batch(number, batch, is_alone=len(left.batches) == 1)
            passed += good
            rejected += bad
            if is_each and good and not (bad and world.of.is_self_dependent):
                self._publish(good)
                self._phase(number, "published")
                self._materialized(good)
            if bad and (batch.is_canary or world.of.is_self_dependent):
                break
        if is_each or world.is_staged_shape:
            if rejected:
                self._materialized(left.published)
            elif world.is_staged_shape:
                self._materialized(run.partition_slice.keys)
        elif not rejected:
            if len(left.batches) > 1:
                self._collect(
                    world.newest(keys=passed, group=run.origin.group), TABLE.shadow(f"all_{run.origin.run_id}")
                )
                self._phase(0, "collected")
            self._publish(passed)
            self._phase(0, "published")
        if not rejected and not world.is_staged_shape:
            self._materialized(run.partition_slice.keys)
        return not rejected

    def _phase(self, number: int, name: str) -> None:
        if self.plan.kill_after == (number, name):
            raise KilledError

    def _batch(self, number: int, batch: resume.Batch, *, is_alone: bool) -> tuple[list[str], list[str]]:
        world, run, keys = self.world, self.run, batch.partition_slice.keys
        if batch.staged:
            world.reused += len(keys)
            shadow = self._collect(batch.staged, batch.shadow)
            further = {one.key: self._further(one) for one in batch.staged}
        else:
            before = {key: world.fingerprint(key) for key in keys}
            at = world.log.now()
            with world.patched():
                made_by = run.made_by(batch.partition_slice, reads_now=True)
            shadow = batch.shadow
            values = self._compute(keys)
            world.shadows[shadow] = values
            further = {
                key: {"provenance": _parsed(made_by[key]), "fingerprint": before[key], "computed_at": at}
                for key in keys
            }
            for key in keys:
                world.record("staged", key, run, shadow, **further[key])
        self._phase(number, "written")
        bad = [key for key in keys if world.shadows[shadow][key][-1]]
        if bad and not (world.batches.publish_each or world.is_staged_shape):
            bad = [*keys]
        for key in keys:
            world.record("rejected" if key in bad else "audited", key, run, shadow, **further[key])
        if bad:
            world.rejections = {**world.rejections, run.origin.run_id: world.log.now()}
        self._phase(number, "audited")
        return [key for key in keys if key not in bad], bad

    def _compute(self, keys: Sequence[str]) -> dict[str, Value]:
        world = self.world
        world.calls += len(keys)
        own = dict(world.live or {}) if world.batches.publish_each else self.own
        values: dict[str, Value] = {}
        for key in keys:
            what, *asked = self.plan.at.get(key, ("",))
            if what == "kill":
                raise KilledError
            if what == "error":
                raise StoppedError("RuntimeError")
            if what == "timeout":
                raise StoppedError("BatchTimeoutError")
            if what == "refresh before":
                world.refresh(*asked)
            values[key] = world.value(key, world.before(key, {**own, **values}), self.loaded)
            if what == "refresh after":
                world.refresh(*asked)
        return values

    @staticmethod
    def _further(one: StagedPartition) -> dict[str, Any]:
        names = ("provenance", "computed_by", "fingerprint", "computed_at")
        return {name: getattr(one, name) for name in names}

    def _collect(self, staged: Sequence[StagedPartition], into: TableRef) -> TableRef:
        world, run = self.world, self.run
        while into in world.shadows:
            into = TableRef(schema="main", name=f"{into.name}_")
        world.shadows[into] = {one.key: world.shadows[one.shadow][one.key] for one in staged if one.shadow}
        ended = run.ended(staged)
        for one in staged:
            if one.run_id in ended and one.group != run.origin.group:
                world.record("taken_up", one.key, run, None, group=one.group)
            world.record("audited", one.key, run, into, **self._further(one))
        return into

    def _publish(self, keys: Sequence[str]) -> None:
        world, run = self.world, self.run
        found = {one.key: one for one in world.newest(keys=keys, group=run.origin.group)}
        if any(one.fingerprint != world.fingerprint(key) for key, one in found.items()):
            raise StoppedError("PublishConflictError")
        live = dict(world.live or {})
        for key, one in found.items():
            assert one.shadow is not None
            live[key] = world.shadows[one.shadow][key]
        world.live = live
        for key, one in found.items():
            further = {**self._further(one), "fingerprint": world.fingerprint(key), "computed_at": world.log.now()}
            world.record("published", key, run, None, **further)

    def _materialized(self, keys: Any) -> None:
        for key in keys:
            self.world.log.report("x", key)


def refusal(world: World) -> str | None:
    """Return why `x__audit` refuses what is staged; None if it doesn't."""
    assert world.last is not None
    asset = built(world.of)[0]
    run = model_run(world, world.last, keys_of(world.of))
    shadow = SimpleNamespace(
        key=asset.key,
        asset_deps=asset.asset_deps,
        get_partition_mapping=asset.get_partition_mapping,
        keys_by_input_name=asset.keys_by_input_name,
        node_def=asset.node_def,
        code_versions_by_key={},
    )
    staged = StagedAsset(computed=run.asset, shadow=lambda: shadow)  # type: ignore[arg-type,return-value]
    waiting = [one for one in world.newest(group=run.origin.group) if one.event == "audited"]
    group, _gone = staged_runs.known_partitions(run, run.asset.live, waiting)
    try:
        staged_runs._check_provenance(run, staged, group)  # pyright: ignore[reportPrivateUsage]
    except NotStagedError as error:
        return str(error)
    return None


def _parsed(made_by: Provenance) -> Provenance:
    """Return what the ledger keeps of it."""
    return Provenance(json.loads(str(made_by)))
