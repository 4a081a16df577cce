"""The user's definitions, loaded into this process: the way to the ledger, the shadows and the live tables."""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from functools import cached_property
from typing import TYPE_CHECKING, Any, TypeVar

import dagster as dg

from dagster_safe_backfill.assets.metadata import options_of_asset
from dagster_safe_backfill.cli.answers.answer import CommandError, unreachable, usage_error
from dagster_safe_backfill.cli.api.client import Dagster
from dagster_safe_backfill.cli.api.values import AUDIT, SHADOW
from dagster_safe_backfill.cli.plans.live import ComputedFrom, LiveFacts
from dagster_safe_backfill.errors import TableNotFoundError, WarehouseLockedError, WarehouseUnavailableError
from dagster_safe_backfill.model.events import CHANGES_OF_LIVE, Fingerprint
from dagster_safe_backfill.model.options import AssetOptions
from dagster_safe_backfill.model.provenance import Provenance
from dagster_safe_backfill.model.slices import PartitionSlice
from dagster_safe_backfill.model.states import StagedPartition
from dagster_safe_backfill.model.tables import TableSpec
from dagster_safe_backfill.runs.declared import ComputedAsset, LiveAsset, TableIO, computed_of
from dagster_safe_backfill.runs.partitions import order_of
from dagster_safe_backfill.runs.provenance.inputs import changed_inputs, inputs_read
from dagster_safe_backfill.wap.ledger.waiting import staged_partitions
from dagster_safe_backfill.wap.write import LiveBefore, live_before

if TYPE_CHECKING:
    from dagster_safe_backfill.warehouses.base import Session

_Result = TypeVar("_Result")
_PATIENCE = 5.0
"""Seconds to wait for a DuckDB file that a run holds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadedAsset:
    """An asset of the definitions, with its table.

    Attributes:
        definition: Its definition; of the staged shape that of `x`, whose table it is.
        computed_by: The definition whose runs compute its rows: its own, or that of its `x__shadow`.
        computed: What they compute; None for a plain `@dg.asset`.
        options: Its options.
        table_io: Opens sessions on its warehouse.
        instance: Dagster's instance.
    """

    definition: dg.AssetsDefinition
    computed_by: dg.AssetsDefinition
    computed: ComputedAsset | None
    options: AssetOptions
    table_io: TableIO
    instance: dg.DagsterInstance

    @property
    def key(self) -> dg.AssetKey:
        """The key of the live asset."""
        return self.definition.key

    @property
    def name(self) -> str:
        """The key of the live asset, as `a/b`."""
        return self.key.to_user_string()

    @property
    def keys(self) -> list[str]:
        """Its partition keys, in order; empty without partitions."""
        definition: dg.PartitionsDefinition[Any] | None = self.definition.partitions_def
        return [] if definition is None else [*order_of(definition, self.instance)]

    @property
    def is_staged(self) -> bool:
        """True if it has an `x__shadow` of its own."""
        return self.computed_by.key != self.key

    @property
    def spec(self) -> TableSpec:
        """How its table is kept."""
        return self.table_io.spec_of(self.key, self.options)

    def slice_of(self, keys: Sequence[str]) -> PartitionSlice:
        """Return the slice of some of its partition keys, in any order.

        Raises:
            NotStagedError: It doesn't have some of the keys.
        """
        definition = self.definition.partitions_def
        if definition is None:
            raise usage_error("no_partitions", f"{self.name} has no partitions")
        return LiveAsset(key=self.key, options=self.options, partitions_def=definition).slice_of(self.instance, keys)

    def _made_by(self, spec: TableSpec) -> Mapping[str, str | None]:
        """Return what the definition says of what computes its rows, as its runs record it; see `Provenance`."""
        if self.computed is not None:
            return self.computed.provenance(spec, computed_by=self.computed_by)
        version = self.definition.code_versions_by_key.get(self.key)
        return {"code": None if version is None else f"code_version {version}"}

    def facts(self, keys: Sequence[str]) -> LiveFacts:
        """Return what the definition, the ledger and the live table say of some partitions.

        While a run holds the file of DuckDB, `LiveFacts.held` says so, and only what the definition says is known.

        Raises:
            CommandError: The warehouse can't be reached.
        """
        spec, limits = self.spec, self.options.limits
        partition_slice = self.slice_of(keys) if keys else None
        now, made_by = datetime.now(timezone.utc), self._made_by(spec)
        facts = LiveFacts(
            asset=self.name,
            table=str(spec.table),
            code=made_by["code"],
            meanings={} if partition_slice is None else partition_slice.meanings,
            rules=repr(spec.rules),
            fingerprints={},
            rows={},
            changed={},
            batch_size=self.options.batches.size,
            goes_live=self._goes_live(),
            limit=limits.max_partitions,
            hours=None if limits.hours is None else (str(limits.hours), limits.hours.allows(now)),
            reads_itself=self.key in self.computed_by.asset_deps[self.computed_by.key],
        )
        if partition_slice is None:
            return facts
        try:
            live, known = self._look(spec, partition_slice)
        except CommandError as error:
            if error.problem.code != "warehouse_locked":
                raise
            return replace(facts, held=f"{error.problem.message.rstrip('.')}.")
        newest = {one.key: one for one in known if one.event in CHANGES_OF_LIVE}
        fingerprints = {key: live.fingerprints.get(key, Fingerprint()) for key in keys}
        return replace(
            facts,
            fingerprints={key: str(one) for key, one in fingerprints.items()},
            rows={key: one.rows for key, one in newest.items()},
            changed=self._changed(newest, fingerprints, partition_slice, made_by),
            computed_from=_computed_from(newest) if self.instance.is_ephemeral else {},
        )

    def _look(self, spec: TableSpec, partition_slice: PartitionSlice) -> tuple[LiveBefore, Sequence[StagedPartition]]:
        """Return the live partitions, and what the ledger says of them; both are empty if there is no database yet."""

        def look(session: Session) -> tuple[LiveBefore, Sequence[StagedPartition]]:
            before = live_before(session, spec=spec, partition_slice=partition_slice)
            return before, staged_partitions(session, spec.table, keys=partition_slice.keys)

        return self.read_soon(look, default=(LiveBefore(at=datetime.now(timezone.utc)), ()))

    def _changed(
        self,
        newest: Mapping[str, StagedPartition],
        fingerprints: Mapping[str, Fingerprint],
        partition_slice: PartitionSlice,
        now: Mapping[str, str | None],
    ) -> dict[str, list[str]]:
        """Return what changed since the newest publication of each partition."""
        changed: dict[str, list[str]] = {}
        made_by = {key: one.provenance for key, one in newest.items() if one.event == "published" and one.provenance}
        if self.computed is not None:
            meanings = partition_slice.meanings
            for key, provenance in made_by.items():
                reason = provenance.why_defined_otherwise(Provenance({**now, "partition": meanings[key]}))
                if reason is not None:
                    changed.setdefault(key, []).append(reason)
        # An instance in memory stands for that of a URL, which is asked what changed; see `computed_from`.
        if made_by and not self.instance.is_ephemeral:
            inputs = changed_inputs(self.computed_by, self.computed_by.key, made_by, instance=self.instance)
            for key, reason in inputs.items():
                changed.setdefault(key, []).append(reason)
        for key, one in newest.items():
            if not one.fingerprint.is_like(fingerprints[key]):
                changed.setdefault(key, []).append("its rows were changed outside of this library")
        return changed

    def _goes_live(self) -> str:
        batches = self.options.batches
        if self.computed is None:
            return "each run writes its partitions in one transaction, without audits and without a way back"
        if self.is_staged:
            return f"all of it goes live together, once {_beside(self.key, AUDIT).to_user_string()} has passed"
        if batches.publish_each:
            return "each batch goes live as soon as its audits pass"
        return "each run goes live in one transaction once all its audits pass, or nothing of it does"

    def read(self, work: Callable[[Session], _Result]) -> _Result:
        """Return the result of `work` in a read-only session on the asset's warehouse.

        Raises:
            CommandError: A DuckDB file is held by another process, or the warehouse can't be reached.
            TableNotFoundError: The database doesn't exist yet.
        """
        with self.connected(run_id=None, read_only=True) as session:
            return work(session)

    @contextmanager
    def connected(self, *, run_id: str | None, read_only: bool = False) -> Generator[Session, None, None]:
        """Open a session on the asset's warehouse, in which a run of this id rolls back or drops what expired.

        Raises:
            CommandError: A DuckDB file is held by another process, or the warehouse can't be reached.
            TableNotFoundError: The database doesn't exist yet.
        """
        shown = self.options.checks.sample_columns
        opened = self.table_io.connected(
            self.spec.table, run_id=run_id, publication_id=run_id, read_only=read_only, sample_columns=shown
        )
        with reaching(), opened as session:
            yield session

    @property
    def soon(self) -> LoadedAsset:
        """The asset, of which a DuckDB file that a run holds is waited for a few seconds; runs wait for longer."""
        manager: Any = self.table_io
        if getattr(manager, "lock_timeout", 0.0) <= _PATIENCE or not hasattr(manager, "model_copy"):
            return self
        return replace(self, table_io=manager.model_copy(update={"lock_timeout": _PATIENCE}))

    def read_soon(self, work: Callable[[Session], _Result], *, default: _Result) -> _Result:
        """Return what `read` does, or `default` if the database doesn't exist yet. It waits as `soon` says.

        Raises:
            CommandError: As of `read`.
        """
        try:
            return self.soon.read(work)
        except TableNotFoundError:
            return default


def _computed_from(newest: Mapping[str, StagedPartition]) -> dict[str, ComputedFrom]:
    """Return what partitions were computed from, of those whose newest change is a publication that recorded it."""
    found: dict[str, ComputedFrom] = {}
    for key, one in newest.items():
        if one.event == "published" and one.provenance is not None:
            read = inputs_read(one.provenance)
            found[key] = ComputedFrom(
                at=one.computed_at.timestamp(),
                upstream={name: state.keys for name, state in read.items()},
                versioned=frozenset(name for name, state in read.items() if state.versions),
            )
    return found


@contextmanager
def reaching() -> Generator[None, None, None]:
    """Raise a `CommandError` if the block can't reach the warehouse, or a DuckDB file is held by another process."""
    try:
        yield
    except WarehouseLockedError as error:
        raise unreachable(
            "warehouse_locked", str(error), hint="a run holds the file; ask again when it has ended"
        ) from error
    except WarehouseUnavailableError as error:
        raise unreachable("warehouse_unreachable", str(error)) from error


class Definitions:
    """The definitions of some code locations.

    Args:
        repositories: Their repository definitions.
        instance: Dagster's instance.
        elsewhere: The Dagster of a URL, whose dynamic partitions the instance, which is in memory, is to know.
    """

    def __init__(
        self, repositories: Sequence[Any], instance: dg.DagsterInstance, elsewhere: Dagster | None = None
    ) -> None:
        self._repositories = repositories
        self._instance = instance
        self._elsewhere = elsewhere

    @cached_property
    def _assets(self) -> Mapping[dg.AssetKey, tuple[dg.AssetsDefinition, Any]]:
        found: dict[dg.AssetKey, tuple[dg.AssetsDefinition, Any]] = {}
        for repository in self._repositories:
            found |= {key: (one, repository) for key, one in repository.assets_defs_by_key.items()}
        return found

    def live_assets(self) -> list[str]:
        """Return the keys of the assets that compute rows for this library; of the staged shape that of `x`."""
        found = [_live(key) for key, (one, _repository) in self._assets.items() if computed_of(one) is not None]
        return sorted(key.to_user_string() for key in found)

    def jobs(self, name: str) -> Sequence[dg.JobDefinition]:
        """Return the jobs of an asset's code location."""
        _definition, repository = self._found(name)
        return repository.get_all_jobs()

    @contextmanager
    def asset(self, name: str) -> Generator[LoadedAsset, None, None]:
        """Open an asset, with the resource that is its I/O manager; `x__shadow` and `x__audit` stand for `x`.

        Raises:
            CommandError: There is no such asset, or its I/O manager isn't one of this library's.
            ConfigurationError: Its options are wrong.
        """
        definition, repository = self._found(name)
        key = definition.key
        computed_by, _ = self._assets.get(_beside(key, SHADOW), (definition, repository))
        if computed_of(computed_by) is None:
            computed_by = definition
        manager = definition.get_io_manager_key_for_asset_key(key)
        resources = {**repository.get_top_level_resources(), **definition.resource_defs}
        needed = _with_their_own(manager, resources)
        with dg.build_resources(needed, instance=self._instance) as built:
            table_io = getattr(built, manager)
            if not isinstance(table_io, TableIO):
                raise usage_error(
                    "not_ours",
                    f"{key.to_user_string()} is kept by a {type(table_io).__name__}, which has no ledger",
                    hint="give it an I/O manager of this library, such as RangeDuckDBIOManager",
                )
            self._take_over_dynamic_keys(definition)
            yield LoadedAsset(
                definition=definition,
                computed_by=computed_by,
                computed=computed_of(computed_by),
                options=options_of_asset(definition),
                table_io=table_io,
                instance=self._instance,
            )

    def _take_over_dynamic_keys(self, definition: dg.AssetsDefinition) -> None:
        """Let the instance in memory know an asset's dynamic partitions, which are stored in the URL's."""
        dimensions = _dynamic(definition.partitions_def)
        if self._elsewhere is None or not dimensions:
            return
        keys_of = self._elsewhere.dynamic_keys(definition.key.to_user_string())
        for dimension, name in dimensions.items():
            if keys := keys_of.get(dimension):
                self._instance.add_dynamic_partitions(name, keys)

    def _found(self, name: str) -> tuple[dg.AssetsDefinition, Any]:
        asked = dg.AssetKey.from_user_string(name)
        live = self._assets.get(_live(asked)) or self._assets.get(asked)
        if live is None:
            known = ", ".join(self.live_assets()[:10]) or "none"
            raise usage_error("unknown_asset", f"the definitions have no asset {name}", hint=f"there are {known}")
        return live


def _dynamic(definition: dg.PartitionsDefinition[Any] | None) -> dict[str, str]:
    """Return a mapping from each dimension with dynamic partitions to the name under which Dagster stores them."""
    if isinstance(definition, dg.MultiPartitionsDefinition):
        parts = {one.name: one.partitions_def for one in definition.partitions_defs}
    else:
        parts = {"default": definition}
    return {
        dimension: part.name
        for dimension, part in parts.items()
        if isinstance(part, dg.DynamicPartitionsDefinition) and part.name is not None
    }


def _with_their_own(name: str, resources: Mapping[str, Any]) -> dict[str, Any]:
    """Return a resource and those that it needs, and not the others, which may log in somewhere."""
    needed, waiting = dict[str, Any](), [name]
    while waiting:
        one = waiting.pop()
        if one not in needed and one in resources:
            needed[one] = resources[one]
            waiting += getattr(resources[one], "required_resource_keys", ())
    return needed


def _live(key: dg.AssetKey) -> dg.AssetKey:
    """Return the key of `x` for those of `x__shadow` and `x__audit`."""
    *prefix, last = key.path
    for ending in (SHADOW, AUDIT):
        if last.endswith(ending):
            return dg.AssetKey([*prefix, last.removesuffix(ending)])
    return key


def _beside(key: dg.AssetKey, ending: str) -> dg.AssetKey:
    *prefix, last = key.path
    return dg.AssetKey([*prefix, f"{last}{ending}"])
