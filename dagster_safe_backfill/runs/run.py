"""One run of an asset: who it is, on which table it works by which options, and how its work is attempted."""

from __future__ import annotations

import math
import random
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, fields
from functools import partial
from typing import TYPE_CHECKING, TypeVar

import dagster as dg

from dagster_safe_backfill.errors import ConfigurationError, TableNotFoundError
from dagster_safe_backfill.model.options import AssetOptions
from dagster_safe_backfill.model.plans import NEWEST_FIRST, ORDER_TAG
from dagster_safe_backfill.model.provenance import Provenance
from dagster_safe_backfill.model.slices import PartitionSlice
from dagster_safe_backfill.model.states import Origin, StagedPartition
from dagster_safe_backfill.model.tables import TableSpec
from dagster_safe_backfill.model.transient import is_transient
from dagster_safe_backfill.model.validation import column_names
from dagster_safe_backfill.runs.backfills import BACKFILL_TAG, has_ended, known_runs
from dagster_safe_backfill.runs.declared import ComputedAsset, LiveAsset, TableIO, table_io_of
from dagster_safe_backfill.runs.limits.allowed import check_partition_count
from dagster_safe_backfill.runs.limits.deadlines import Deadline
from dagster_safe_backfill.runs.limits.planned import PlannedAsset, planned_asset
from dagster_safe_backfill.runs.partitions import slice_of_run
from dagster_safe_backfill.runs.private_dagster import (
    loaded_into,
    own_input_of,
    step_started_at,
    upstream_of,
    upstream_partitions,
)
from dagster_safe_backfill.runs.provenance.inputs import inputs_of
from dagster_safe_backfill.runs.provenance.parts import audits_digest, run_parts
from dagster_safe_backfill.wap.ledger.waiting import owners
from dagster_safe_backfill.wap.tables.read import read
from dagster_safe_backfill.wap.tables.slices import expressions_of, where
from dagster_safe_backfill.warehouses.frames import load_type_of, no_rows

if TYPE_CHECKING:
    from dagster_safe_backfill.warehouses.base import Session

_Result = TypeVar("_Result")


@dataclass(frozen=True, slots=True, kw_only=True)
class Retries:
    """How often work is done again, and the waits before that: exponential backoff with full jitter.

    Before retry n it waits for a random time between 0 and `first_wait` * 2**(n - 1) seconds, at most `longest_wait`;
    so those who failed at once don't come again at once (Marc Brooker, "Exponential Backoff And Jitter", AWS
    Architecture Blog, 2015).

    Attributes:
        max_retries: How often at most; 0 for never.
        first_wait: The longest first wait, in seconds.
        longest_wait: The longest of all, in seconds.

    Raises:
        ConfigurationError: A number is negative or not finite.
    """

    max_retries: int = 3
    first_wait: float = 1.0
    longest_wait: float = 30.0

    def __post_init__(self) -> None:
        for field in fields(self):
            name, value = field.name, getattr(self, field.name)
            if not 0 <= value < math.inf:
                raise ConfigurationError(f"{name} is {value}, and must be a number from 0 on")

    def attempts(
        self,
        *,
        on_retry: Callable[[Exception, int, float], None],
        sleep: Callable[[float], None] = time.sleep,
    ) -> Iterator[Attempt]:
        """Yield attempts until one succeeds. Leave the loop, for example by `return`, at the end of its block.

        Args:
            on_retry: Called before each wait with the error, the number of the attempt that failed (counted from 1),
                and the seconds to wait.
            sleep: How to wait.

        Example:
            ```python
            for attempt in retries.attempts(on_retry=log):
                with attempt:
                    return work()  # must be safe to repeat
            ```
        """
        longest = self.first_wait
        for number in range(1, self.max_retries + 1):
            attempt = Attempt(is_last=False)
            yield attempt
            if attempt.error is None:
                return
            wait = random.uniform(0, min(longest, self.longest_wait))
            on_retry(attempt.error, number, wait)
            sleep(wait)
            longest *= 2
        yield Attempt(is_last=True)


@dataclass(slots=True, kw_only=True)
class Attempt(AbstractContextManager["Attempt", bool]):
    """One attempt at some work: a block whose transient error is kept for the next attempt, unless it is the last.

    Attributes:
        is_last: True if no attempt follows, so that every error is raised.
        error: The error that the next attempt may overcome.
    """

    is_last: bool
    error: Exception | None = None

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> bool:
        if self.is_last or not isinstance(error, Exception) or not is_transient(error):
            return False
        self.error = error
        return True


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One run of an asset.

    Attributes:
        table_io: Opens its sessions.
        spec: How the live table is kept.
        origin: Who stages and publishes; its group is what is staged and published together with this run's rows.
        publication_id: Under which all of it goes live, where that is known before its sessions are opened.
    """

    context: dg.AssetExecutionContext
    options: AssetOptions
    table_io: TableIO
    spec: TableSpec
    origin: Origin
    publication_id: str | None = None

    def deadline(self, what: str) -> Deadline:
        """Return the deadline of something that begins now."""
        return Deadline(self.options.limits.timeout_seconds, what)

    def attempt(self, work: Callable[[Session], _Result], *, deadline: Deadline, read_only: bool = False) -> _Result:
        """Return the result of `work` in a session; after a transient error, repeat it in another session.

        Raises:
            BatchTimeoutError: The attempts together took longer than the deadline allows.
        """
        table, run_id = self.spec.table, self.context.run_id
        for attempt in self.attempts():
            # Each attempt opens a session, because a connection that broke can't be used again.
            opened = self.table_io.connected(
                table,
                run_id=run_id,
                publication_id=self.publication_id,
                read_only=read_only,
                sample_columns=self.options.checks.sample_columns,
            )
            with attempt, opened as session, deadline.over(session):
                session.run_has_ended = partial(has_ended, self.context.instance)
                return work(session)
        raise AssertionError("the last attempt returns or raises")

    def attempts(self) -> Iterator[Attempt]:
        """Yield the attempts that `Limits` allows at work that may fail with a transient error."""
        limits = self.options.limits
        retries = Retries(max_retries=limits.max_retries, first_wait=limits.retry_wait)
        return retries.attempts(on_retry=self._log_retry)

    def _log_retry(self, error: Exception, attempt: int, seconds: float) -> None:
        most = self.options.limits.max_retries
        self.context.log.warning(f"retry {attempt} of {most} in {seconds:.1f} s, after {type(error).__name__}: {error}")

    def ended(self, staged: Iterable[StagedPartition]) -> set[str]:
        """Return those of the runs that staged partitions which are known to have ended, and this one.

        A run that this Dagster doesn't know may go on in another one. What it made is left to the retention job.
        """
        # This run counts as ended, so that its own shadows are dropped once it has collected their partitions.
        return {*known_runs(self.context.instance, owners(staged)).ended, self.context.run_id}


@dataclass(frozen=True, slots=True, kw_only=True)
class ComputingRun(Run):
    """A run that computes partitions.

    Attributes:
        partition_slice: The partitions.
        asset: What computes them, and is tested of them.
        arguments: What the user's function gets besides the context and the partitions.
        parts: The parts of the provenance that all its partitions share.
        inputs: The upstream assets that each partition reads, as they were when the step began.
        own_input: The parameter that takes rows of the asset's own earlier partitions, if each batch loads it anew.
        additions: What the user's function adds to the events of partitions, by key.
        plan: What the plan of the run's backfill expects; None without one.
    """

    partition_slice: PartitionSlice
    asset: ComputedAsset
    arguments: Mapping[str, object]
    parts: Mapping[str, str | None]
    inputs: Mapping[str, Mapping[str, str | None]]
    additions: dict[str, dg.AssetMaterialization]
    own_input: str | None = None
    plan: PlannedAsset | None = None

    @property
    def is_newest_first(self) -> bool:
        """True if its batches begin with the newest partitions; not of an asset that reads its earlier ones."""
        return self.context.run.tags.get(ORDER_TAG) == NEWEST_FIRST and not self.reads_itself

    @property
    def reads_itself(self) -> bool:
        """True if partitions are computed from earlier ones of the same asset."""
        return self.context.asset_key in upstream_of(self.context)

    def made_by(self, partition_slice: PartitionSlice, *, reads_now: bool) -> dict[str, Provenance]:
        """Return a mapping from partition key to what makes its rows.

        Args:
            partition_slice: Some of the run's partitions.
            reads_now: True if the function is about to be called for them, and to read the upstream assets that were
                not loaded when the step began.
        """
        upstream = self._read_by_function() if reads_now else ()
        now = inputs_of(self.context, partition_slice.keys, upstream) if upstream else {}
        # The audits are recorded, and compared only where published partitions count as done.
        audits = audits_digest(self.asset.audits) if reads_now else None
        made_by: dict[str, Provenance] = {}
        for key, partition in partition_slice.meanings.items():
            one = Provenance({**self.parts, "partition": partition, **self.inputs[key], **now.get(key, {})})
            made_by[key] = one if audits is None else one.judged_by(audits)
        return made_by

    def _read_by_function(self) -> list[dg.AssetKey]:
        own = self.context.asset_key
        return [
            upstream
            for upstream in upstream_of(self.context)
            if not loaded_into(self.context.assets_def, upstream) or (upstream == own and self.own_input is not None)
        ]

    def compute(self, partition_slice: PartitionSlice, deadline: Deadline) -> object:
        """Return the rows of some of the partitions from the user's function; again, after errors that can pass.

        Raises:
            BatchTimeoutError: It took too long.
        """
        # All attempts share the deadline of the batch, so retries count against timeout_seconds as well.
        arguments = self.arguments
        if self.own_input is not None:
            arguments = {**arguments, self.own_input: self._load_own_input(partition_slice, deadline)}
        for attempt in self.attempts():
            with attempt, deadline.over_python():
                computed = self.asset.compute(self.context, partition_slice, arguments)
                self.additions.update(computed.additions)
                return computed.rows
        raise AssertionError("the last attempt returns or raises")

    def _load_own_input(self, partition_slice: PartitionSlice, deadline: Deadline) -> object:
        """Return the live rows of the asset's own partitions that some of its partitions read."""
        assert self.own_input is not None
        definition = self.context.assets_def.node_def.input_dict[self.own_input]
        load_type, columns = load_type_of(definition.dagster_type.typing_type), definition.metadata.get("columns")
        read_by = upstream_partitions(self.context, self.context.asset_key, partition_slice.keys)
        wanted = {key for keys in read_by.values() for key in keys or ()}

        def attempt(session: Session) -> object:
            return read(
                session,
                spec=self.spec,
                partition_slice=self.asset.live.slice_of(self.context.instance, [*wanted]) if wanted else None,
                columns=column_names("columns", columns) if columns else (),
                load_type=load_type,
                is_empty=not wanted,
            )

        try:
            return self.attempt(attempt, deadline=deadline, read_only=True)
        except TableNotFoundError:
            return no_rows(load_type)


def run_of(
    context: dg.AssetExecutionContext,
    io_manager: object,
    live: LiveAsset,
    *,
    group: str,
    publication_id: str | None = None,
) -> Run:
    """Return a run that computes nothing."""
    table_io = table_io_of(io_manager, live.key)
    return Run(
        context=context,
        options=live.options,
        table_io=table_io,
        spec=table_io.spec_of(live.key, live.options),
        origin=_origin_of(context, group, live),
        publication_id=publication_id,
    )


def computing_run(
    context: dg.AssetExecutionContext,
    io_manager: object,
    arguments: Mapping[str, object],
    *,
    asset: ComputedAsset,
    group: str,
    publication_id: str | None = None,
) -> ComputingRun:
    """Return a run that computes partitions, which are checked.

    Raises:
        SliceError: The run is for no partition, or for others than its tags ask for.
        TooManyPartitionsError: Its backfill covers more partitions than allowed.
        ConfigurationError: A partition expression isn't SQL, or names no column.
    """
    live = asset.live
    table_io = table_io_of(io_manager, live.key)
    spec = table_io.spec_of(live.key, live.options)
    partition_slice = slice_of_run(context)
    # Before the first session is opened, so that a wrong selection costs no work in the warehouse.
    check_partition_count(context, partition_slice.keys, at_most=live.options.limits.max_partitions)
    origin = _origin_of(context, group, live)
    parts = asset.provenance(spec, computed_by=context.assets_def)
    parts |= run_parts(context, arguments, io_manager_key=asset.compute.resource_key)
    own_input = own_input_of(context) if live.options.batches.publish_each else None
    upstream = upstream_of(context)
    is_any_loaded = any(loaded_into(context.assets_def, one) for one in upstream)
    dialect = table_io.warehouse().dialect
    expressions_of(spec, partition_slice, dialect=dialect.name)
    return ComputingRun(
        context=context,
        options=live.options,
        table_io=table_io,
        spec=spec,
        origin=origin,
        publication_id=publication_id,
        partition_slice=live.with_every(partition_slice, context.instance).bound_to(
            partial(where, spec=spec, dialect=dialect)
        ),
        asset=asset,
        arguments=arguments,
        parts=parts,
        inputs=inputs_of(
            context,
            partition_slice.keys,
            upstream,
            loaded_at=step_started_at(context) if is_any_loaded else None,
        ),
        own_input=own_input,
        additions={},
        plan=planned_asset(context.run, live.key.to_user_string(), spec.table, context.instance),
    )


def _origin_of(context: dg.AssetExecutionContext, group: str, live: LiveAsset) -> Origin:
    return Origin(
        run_id=context.run_id,
        publication_id=group,
        backfill_id=context.run.tags.get(BACKFILL_TAG),
        code_version=context.assets_def.code_versions_by_key.get(context.asset_key),
        asset_key=live.key.to_user_string(),
        former_keys=live.options.table.former_keys,
    )
