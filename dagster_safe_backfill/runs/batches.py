"""The batches of a run: each is computed, written and audited within its bounds; what earlier runs left is taken up."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timezone
from functools import partial
from itertools import count
from typing import TYPE_CHECKING, TypeVar

import dagster as dg

from dagster_safe_backfill.audits.base import Audit
from dagster_safe_backfill.errors import TableNotFoundError
from dagster_safe_backfill.model.options import AssetOptions
from dagster_safe_backfill.model.slices import PartitionSlice
from dagster_safe_backfill.model.states import Audited, Origin, Rejected, Staged, StagedPartition
from dagster_safe_backfill.model.tables import TableRef, TableSpec
from dagster_safe_backfill.model.text import listed
from dagster_safe_backfill.reports.progress import Progress
from dagster_safe_backfill.runs.backfills import is_over
from dagster_safe_backfill.runs.limits import Bounds
from dagster_safe_backfill.runs.resume import kept_checkpoints
from dagster_safe_backfill.runs.table_io import TableIO
from dagster_safe_backfill.runs.user_function import ComputeFunction

if TYPE_CHECKING:
    from dagster_safe_backfill.runs.deadlines import Deadline
    from dagster_safe_backfill.wap.audit import Gate
    from dagster_safe_backfill.wap.write import LiveBefore
    from dagster_safe_backfill.warehouses.base import Connection

_Result = TypeVar("_Result")


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """A part of a run's partitions.

    Attributes:
        shadow: Where its rows are staged.
        taken_up: Where earlier runs staged them; empty if they are to be computed.
    """

    partition_slice: PartitionSlice
    shadow: TableRef
    taken_up: Sequence[StagedPartition] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class _Computed:
    """What the user's function returned, and what live was before it was called."""

    rows: object
    before: LiveBefore


def cut(whole: PartitionSlice, keys: Sequence[str], *, size: int | None) -> list[PartitionSlice]:
    """Return the slices of some of a slice's keys, of at most `size` each, cut where others of its keys are between."""
    wanted = set(keys)
    pieces: list[list[int]] = []
    for position, key in enumerate(whole.keys):
        if key not in wanted:
            continue
        is_next = bool(pieces) and pieces[-1][-1] == position - 1
        if is_next and (size is None or len(pieces[-1]) < size):
            pieces[-1].append(position)
        else:
            pieces.append([position])
    return [whole.chosen(piece) for piece in pieces]


@dataclass(frozen=True, slots=True, kw_only=True)
class Batches:
    """The batches of one run of one asset.

    Attributes:
        whole: The run's partitions.
        origin: Who stages, and in which scope.
        is_by_partition: Whether partitions that pass are checkpoints though others of their batch fail.
        may_take: Whether what another scope staged may be taken up.
        numbered: Who publishes each batch that is a publication of its own, by its first partition.
    """

    context: dg.AssetExecutionContext
    manager: TableIO
    compute: ComputeFunction
    arguments: Mapping[str, object]
    spec: TableSpec
    whole: PartitionSlice
    origin: Origin
    options: AssetOptions
    is_by_partition: bool
    may_take: Callable[[str], bool] = lambda _: True
    progress: Progress = field(init=False)
    bounds: Bounds = field(init=False)
    numbered: dict[str, Origin] = field(init=False, default_factory=dict[str, "Origin"])

    def __post_init__(self) -> None:
        progress = Progress(asset=self.context.asset_key, partitions=len(self.whole))
        bounds = Bounds(
            limits=self.options.limits,
            context=self.context,
            manager=self.manager,
            spec=self.spec,
            publication_id=self.publication_id,
        )
        object.__setattr__(self, "progress", progress)
        object.__setattr__(self, "bounds", bounds)

    def planned(self) -> list[Batch]:
        """Return the batches: first what earlier runs have staged, then what has to be computed."""
        kept = self._kept()
        slices = cut(
            self.whole, [*set(self.whole.keys) - {stage.key for stage in kept}], size=self.options.batches.size
        )
        table, run_id = self.spec.table, self.origin.run_id
        taken = {stage.shadow for stage in kept}
        alone = table.shadow(run_id)
        if len(slices) + bool(kept) == 1 and alone not in taken:
            names: Iterator[TableRef] = iter([alone])
        else:
            names = (name for i in count(1) if (name := table.shadow(run_id, batch=i)) not in taken)
        batches = [Batch(partition_slice=one, shadow=next(names)) for one in slices]
        if not kept:
            return batches
        earlier = self.whole.only(stage.key for stage in kept)
        return [Batch(partition_slice=earlier, shadow=next(names), taken_up=kept), *batches]

    def run(
        self,
        batches: Sequence[Batch],
        audits: Sequence[Audit],
        after: Callable[[Connection, Audited | Rejected], _Result],
        *,
        are_parts: bool = False,
    ) -> Iterator[tuple[Audited | Rejected, _Result]]:
        """Yield each batch once it is audited, with what `after` made of it in the same session.

        Stops after the first computed batch if it is rejected, and the rules have a canary.

        Args:
            batches: As `planned`.
            audits: What is asked of each.
            after: What is done with each.
            are_parts: Whether they are audited together, and published together, in the end.

        Raises:
            OutsideAllowedHoursError: The hours in which batches may start have ended.
            SafeBackfillError: A batch can't be worked on. Those before it are kept.
        """
        like: TableRef | None = None
        is_canary = self.options.batches.canary
        for number, batch in enumerate(batches, start=1):
            self.bounds.check_hours(f"{batch.partition_slice} and what follows")
            started = time.monotonic()
            judge = partial(self._judged, audits=audits, like=like, is_part=are_parts)
            judged, made = self._tried(batch, judge, after)
            like = judged.staged.shadow
            if len(batches) > 1:
                self._tell(judged, number, len(batches), seconds=time.monotonic() - started)
            yield judged, made
            if is_canary and not batch.taken_up:
                if isinstance(judged, Rejected):
                    return
                is_canary = False

    def _tried(
        self,
        batch: Batch,
        judge: Callable[[Connection, Batch, _Computed | None], Audited | Rejected],
        after: Callable[[Connection, Audited | Rejected], _Result],
    ) -> tuple[Audited | Rejected, _Result]:
        deadline = self.bounds.deadline(f"{batch.partition_slice} of {self.spec.table}")
        computed = None if batch.taken_up else self._computed(batch.partition_slice, deadline)

        judged: list[Audited | Rejected] = []

        def work(connection: Connection) -> tuple[Audited | Rejected, _Result]:
            # What a try that failed afterwards had written and audited stands.
            if not judged:
                judged.append(judge(connection, batch, computed))
            return judged[0], after(connection, judged[0])

        return self.bounds.connected(work, deadline=deadline)

    def _computed(self, partition_slice: PartitionSlice, deadline: Deadline) -> _Computed:
        from dagster_safe_backfill.wap.write import LiveBefore, live_before

        look = partial(live_before, spec=self.spec, partition_slice=partition_slice)
        now = datetime.now(timezone.utc)
        try:
            before = self.bounds.connected(look, deadline=deadline, read_only=True)
        except TableNotFoundError:
            before = LiveBefore(at=now)
        self.context.log.info(f"computing {partition_slice} of {self.spec.table}")
        compute = partial(self.compute, self.context, partition_slice, self.arguments)
        return _Computed(rows=self.bounds.computed(compute, deadline=deadline), before=before)

    def _judged(
        self,
        connection: Connection,
        batch: Batch,
        computed: _Computed | None,
        *,
        audits: Sequence[Audit],
        like: TableRef | None,
        is_part: bool,
    ) -> Audited | Rejected:
        from dagster_safe_backfill.wap.audit import audit
        from dagster_safe_backfill.wap.collect import collect, stands_in
        from dagster_safe_backfill.wap.write import write

        if computed is None:
            found, shadow = stands_in(
                connection, self.spec.table, batch.taken_up, into=batch.shadow, origin=self.origin
            )
            stage = partial(collect, connection, found, into=shadow, ended_runs=self._ended(found))
        else:
            stage = partial(write, connection, computed.rows, shadow=batch.shadow, like=like, before=computed.before)
        gate: Gate = "part_of_run" if is_part else "run"
        if self.is_by_partition:
            gate = "part_of_group" if is_part else "partition"
        staged = stage(spec=self.spec, partition_slice=batch.partition_slice, origin=self.origin)
        return audit(
            connection,
            staged,
            audits,
            origin=self.origin,
            sample_columns=self.options.checks.sample_columns,
            gate=gate,
        )

    @property
    def publication_id(self) -> str | None:
        """Under which all that the run stages goes live, if it is one publication."""
        return None if self.is_by_partition else self.origin.publication_id

    @property
    def scope(self) -> str:
        """What the run stages for."""
        return self.origin.group

    def collected(self, connection: Connection) -> Staged:
        """Move all batches of the run into one shadow."""
        from dagster_safe_backfill.wap.collect import collect, free_shadow
        from dagster_safe_backfill.wap.ledger.waiting import staged_partitions

        found = staged_partitions(connection, self.spec.table, keys=self.whole.keys, group=self.scope)
        return collect(
            connection,
            found,
            spec=self.spec,
            partition_slice=self.whole,
            into=free_shadow(self.spec.table, self.origin.run_id, found),
            origin=self.origin,
            ended_runs=self._ended(found),
        )

    def finish(self, work: Callable[[Connection], _Result]) -> _Result:
        """Do the rest of the run, once all batches are staged, within the same bounds as a batch."""
        deadline = self.bounds.deadline(f"publishing {self.whole} of {self.spec.table}")
        return self.bounds.connected(work, deadline=deadline)

    def numbered_origin(self, connection: Connection, keys: Sequence[str]) -> Origin:
        """Return who publishes a batch: each is a publication of its own, also if it is tried again."""
        from dagster_safe_backfill.wap.ledger.history import publication_of_batch

        origin = self.numbered.get(keys[0])
        if origin is None:
            origin = publication_of_batch(connection, self.spec.table, self.origin)
            self.numbered[keys[0]] = origin
        return origin

    def _ended(self, found: Sequence[StagedPartition]) -> set[str]:
        """Return the runs that staged partitions and have ended, and this one."""
        from dagster_safe_backfill.wap.ledger.waiting import owners

        own = self.context.run_id
        return {one for one in owners(found) if one == own or is_over(self.context.instance, one)}

    def _kept(self) -> Sequence[StagedPartition]:
        if not self.options.batches.resume:
            return ()
        from dagster_safe_backfill.wap.ledger.checkpoints import checkpoints

        work = partial(checkpoints, spec=self.spec, partition_slice=self.whole, code=self.origin.code)
        deadline = self.bounds.deadline(f"looking for what is staged of {self.whole} of {self.spec.table}")
        try:
            found = self.bounds.connected(work, deadline=deadline, read_only=True)
        except TableNotFoundError:
            return ()
        self._discard(found.unaudited)
        may_take = self.may_take
        return kept_checkpoints(self.context, found, may_take=lambda scope: scope == self.scope or may_take(scope))

    def _discard(self, unaudited: Sequence[StagedPartition]) -> None:
        """Drop what runs that have ended had staged, and not audited any more."""
        from dagster_safe_backfill.wap.retention import discard

        owners = {stage.shadow: stage.run_id for stage in unaudited if stage.shadow is not None}
        shadows = [shadow for shadow, run_id in owners.items() if is_over(self.context.instance, run_id)]
        if shadows:
            deadline = self.bounds.deadline(f"dropping {listed([*map(str, shadows)])}")
            work = partial(discard, shadows=shadows, table=self.spec.table, origin=self.origin)
            self.bounds.connected(work, deadline=deadline)
            self.context.log.info(f"dropped {listed([*map(str, shadows)])}: staged by runs that ended before its audit")

    def _tell(self, judged: Audited | Rejected, number: int, total: int, *, seconds: float) -> None:
        staged = judged.staged
        self.progress.add(partitions=len(staged.keys), rows=sum(staged.rows.values()))
        verdict = "audited" if isinstance(judged, Audited) else f"rejected, {listed(judged.blocked)}"
        what = f"batch {number} of {total}, {staged.partition_slice}: {verdict}, in {seconds:.1f} s"
        self.context.log.info(f"{what}; {self.progress}")
        self.context.log_event(self.progress.observation(what, number=number, total=total))
