"""What `diff` compares, and its answer as JSON."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Literal, TypeGuard, get_args

from dagster_safe_backfill.audits.comparison import Differences
from dagster_safe_backfill.cli.answers.answer import usage_error
from dagster_safe_backfill.cli.answers.data.differences import (
    AggregateValuesData,
    CellValue,
    DiffData,
    PartitionDifferencesData,
    RowDifferencesData,
    RowKind,
    SampleRowData,
)
from dagster_safe_backfill.cli.answers.data.publications import KnownPublicationData
from dagster_safe_backfill.cli.api.values import AUDIT, SHADOW, Asset
from dagster_safe_backfill.cli.definitions import LoadedAsset
from dagster_safe_backfill.cli.following.place import Place, command
from dagster_safe_backfill.cli.selection import selection_of
from dagster_safe_backfill.cli.upkeep.tables import in_words, ranges, still_there
from dagster_safe_backfill.errors import ConfigurationError, PublicationNotFoundError, WarehouseError
from dagster_safe_backfill.model.events import Event, StagedEvent
from dagster_safe_backfill.model.states import StagedPartition
from dagster_safe_backfill.model.tables import TableRef
from dagster_safe_backfill.wap.ledger.entries import groups_of_backfill
from dagster_safe_backfill.wap.ledger.waiting import newest, staged_partitions, standing
from dagster_safe_backfill.wap.measure.differences import Compared, DifferentRow, Sides, compared_sides
from dagster_safe_backfill.wap.measure.sides import published_changes, published_sides, staged_sides

if TYPE_CHECKING:
    from dagster_safe_backfill.warehouses.base import Session

_KINDS: Mapping[str, RowKind] = {"added": "new", "removed": "gone", "changed": "changed"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Chosen:
    """What is compared: what a run or a backfill staged, what a publication changed, or all that is staged."""

    run_id: str | None = None
    backfill_id: str | None = None
    publication: str | None = None

    @property
    def mode(self) -> Literal["staged", "publication"]:
        """Whether it is staged rows, or what a publication changed."""
        return "staged" if self.publication is None else "publication"


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """What was compared, and the differences.

    Attributes:
        asset: The asset's key.
        table: Its live table.
        mode: What is compared: staged rows, or what a publication changed.
        comparing: What was compared, in a sentence.
        nothing: Why nothing was; None if something was.
        publications: The ids of the publications; empty of staged rows.
        runs: The runs that staged the rows; empty of a publication.
        events: A mapping from each staged partition to its newest event in the ledger.
        result: The differences; None if nothing was compared.
        warnings: What is to be known of them.
        known: What Dagster knows, if the warehouse can't be reached; None if it was read.
    """

    asset: str
    table: str
    mode: Literal["staged", "publication"]
    comparing: str = ""
    nothing: str | None = None
    publications: Sequence[str] = ()
    runs: Sequence[str] = ()
    events: Mapping[str, StagedEvent] = field(default_factory=dict[str, "StagedEvent"])
    result: Compared | None = None
    warnings: Sequence[str] = ()
    known: Sequence[KnownPublicationData] | None = None

    @property
    def is_any(self) -> bool:
        """True if anything was compared."""
        return self.result is not None

    @property
    def as_data(self) -> DiffData:
        """It as the data of the answer."""
        result = self.result or Compared(by_key={})
        columns: dict[str, int] = {}
        for one in result.by_key.values():
            for name, count in one.changed_by_column.items():
                if count:
                    columns[name] = columns.get(name, 0) + count
        return {
            "asset": self.asset,
            "table": self.table,
            "mode": self.mode,
            "comparing": self.comparing,
            "nothing": self.nothing,
            "run_ids": [*self.runs],
            "publication_ids": [*self.publications],
            "different": result.is_different if self.known is None else None,
            "matched_by": [*result.matched_by],
            "total": _differences([*result.by_key.values()], result, None),
            "partitions": [self._partition(key, one, result) for key, one in result.by_key.items()],
            "columns": {
                "added": [*result.added],
                "dropped": [*result.dropped],
                "retyped": [*result.retyped],
                "changed": columns,
            },
            "samples": [_row(one) for one in result.sample],
            "known": [*(self.known or ())],
        }

    def _partition(self, key: str, one: Differences, result: Compared) -> PartitionDifferencesData:
        return {
            "partition": key,
            "event": self.events.get(key),
            **_differences([one], result, key),
            "different": bool(one.added or one.removed or one.changed),
        }


def _differences(every: Sequence[Differences], result: Compared, key: str | None) -> RowDifferencesData:
    return {
        "new": sum(one.added for one in every),
        # Of whole rows, a changed one is a new one and one that is gone.
        "changed": sum(one.changed for one in every) if result.matched_by or not result.by_key else None,
        "gone": sum(one.removed for one in every),
        "unchanged": sum(one.unchanged for one in every),
        "aggregates": {sql: _both(*values[key]) for sql, values in result.aggregates.items()},
    }


def _both(before: object, after: object) -> AggregateValuesData:
    return {"before": plain(before), "after": plain(after)}


def _row(one: DifferentRow) -> SampleRowData:
    before, after = (None if side is None else _plain_values(side) for side in (one.before, one.after))
    return {
        "kind": _KINDS[one.kind],
        "key": _plain_values(one.key),
        "before": before,
        "after": after,
        "times": one.times,
    }


def _plain_values(values: Mapping[str, Any]) -> dict[str, CellValue]:
    return {name: plain(value) for name, value in values.items()}


def plain(value: object) -> CellValue:
    """Return a value of a warehouse as JSON has it: whole numbers exactly, all that JSON can't hold as text."""
    if isinstance(value, Decimal):
        return int(value) if value == value.to_integral_value() else float(value)
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    if value is None or isinstance(value, bool | int | str):
        return value
    return value.isoformat() if isinstance(value, date) else str(value)


def compare(
    loaded: LoadedAsset,
    chosen: Chosen,
    place: Place,
    *,
    aggregates: Sequence[str],
    samples: bool,
    keys: Mapping[str, Any],
) -> Comparison:
    """Compare what is chosen. Errors name calls of the command on `place`.

    Raises:
        CommandError: The warehouse can't be read, or what is chosen isn't there.
        ArchiveNotFoundError: What the publication replaced is not kept any more.
    """
    if not loaded.options.partition_expr:
        raise usage_error("no_partitions", f"{loaded.name} has no partitions, so it has no publications")
    wanted = selected(loaded, **keys)
    nothing = Comparison(
        asset=loaded.name,
        table=str(loaded.spec.table),
        mode=chosen.mode,
        nothing=f"nothing was published yet: {loaded.spec.table} has no ledger",
    )
    work = _Work(
        loaded=loaded, place=place, wanted=wanted, aggregates=tuple(aggregates), samples=samples, nothing=nothing
    )
    read = work.staged if chosen.publication is None else work.published
    return loaded.read_soon(lambda session: read(session, chosen), default=nothing)


def uncompared(loaded: LoadedAsset, chosen: Chosen, known: Sequence[KnownPublicationData]) -> Comparison:
    """Return what is known while the warehouse can't be reached: no differences."""
    return Comparison(
        asset=loaded.name,
        table=str(loaded.spec.table),
        mode=chosen.mode,
        nothing="the warehouse can't be reached",
        known=known,
    )


def selected(loaded: LoadedAsset, **given: Any) -> list[str] | None:
    """Return the keys that the options of a call name, in the asset's order; None if they name none."""
    selection = selection_of(**given, missing=False, failed=False, changed=False, reprocess=None)
    # In the order in which Dagster joins the keys.
    dimensions = tuple(sorted(name for name in loaded.options.partition_expr if name is not None))
    asset = Asset(
        key=loaded.name,
        location="",
        repository="",
        kind="multi" if dimensions else "time",
        dimensions=dimensions,
        keys=loaded.keys,
    )
    return selection.of(asset) if selection.names_partitions else None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Work:
    loaded: LoadedAsset
    place: Place
    wanted: Sequence[str] | None
    aggregates: tuple[str, ...]
    samples: bool
    nothing: Comparison

    @property
    def table(self) -> TableRef:
        return self.loaded.spec.table

    def staged(self, session: Session, chosen: Chosen) -> Comparison:
        """Compare staged partitions with live ones."""
        own = (self.loaded.name, *self.loaded.options.table.former_keys)
        every = staged_partitions(session, self.table, assets=self._assets(own))
        named = self._named(session, every, chosen)
        # The newest of each partition counts: rows that were published since are live.
        newest_of_each = [one for one in newest(named).values() if self._is_wanted(one.key)]
        staged = [one for one in newest_of_each if _is_of_staged(one.event)]
        found = [*standing(session, self.table, staged)]
        keys, gone = still_there([one.key for one in found], self.loaded.keys)
        if not keys:
            return self._nothing_staged(chosen, every)
        found = [one for one in found if one.key in set(keys)]
        runs = [*dict.fromkeys(one.run_id for one in sorted(found, key=lambda one: one.recorded_at, reverse=True))]
        where = in_words(ranges(keys, self.loaded.keys))
        return self._compared(
            session,
            staged_sides(session, self.table, found),
            keys,
            comparing=f"{self.table}: live, and what {_runs(runs)} staged of {where}",
            runs=runs,
            events={one.key: one.event for one in found if _is_of_staged(one.event)},
            warnings=_warn_gone(gone),
        )

    def _assets(self, own: Sequence[str]) -> Sequence[str]:
        # Of the staged shape, x__shadow and x__audit write the ledger's rows.
        computed = self.loaded.computed_by.key.to_user_string()
        return [*dict.fromkeys((*own, computed, computed.replace(SHADOW, AUDIT)))]

    def _named(self, session: Session, every: Sequence[StagedPartition], chosen: Chosen) -> Sequence[StagedPartition]:
        if chosen.run_id is not None:
            return [one for one in every if chosen.run_id in (one.run_id, one.group, one.computed_by)]
        if chosen.backfill_id is not None:
            groups = {chosen.backfill_id, *groups_of_backfill(session, self.table, chosen.backfill_id)} if every else ()
            return [one for one in every if one.group in groups]
        return every

    def _nothing_staged(self, chosen: Chosen, every: Sequence[StagedPartition]) -> Comparison:
        name = chosen.run_id or chosen.backfill_id
        if name is None:
            text = f"nothing of {self.loaded.name} is staged and waits; --publication newest shows what was published"
            return Comparison(asset=self.loaded.name, table=str(self.table), mode="staged", nothing=text)
        live = [one for one in every if name in (one.run_id, one.group) and one.event == "published"]
        hint = f"it is published: --publication {live[-1].publication_id} shows what that changed" if live else None
        raise usage_error("nothing_staged", f"nothing that {name} staged of {self.loaded.name} waits", hint=hint)

    def published(self, session: Session, chosen: Chosen) -> Comparison:
        """Compare what publications replaced with what they wrote."""
        assert chosen.publication is not None
        try:
            changes = published_changes(session, self.table, chosen.publication)
        except PublicationNotFoundError as error:
            hint = f"`{command(self.place, 'history', self.loaded.name)}` names them"
            raise usage_error("unknown_publication", str(error), hint=hint) from error
        keys, gone = still_there([one.key for one in changes if self._is_wanted(one.key)], self.loaded.keys)
        names = [*dict.fromkeys(one.publication_id for one in changes)]
        if not keys:
            text = f"{', '.join(names)} changed none of the partitions"
            return Comparison(asset=self.loaded.name, table=str(self.table), mode="publication", nothing=text)
        changes = [one for one in changes if one.key in set(keys)]
        sides = published_sides(session, changes, spec=self.loaded.spec, slice_of=self.loaded.slice_of)
        by_reason: dict[str, list[str]] = {}
        for key, reason in sides.since.items():
            by_reason.setdefault(reason, []).append(key)
        every = self.loaded.keys
        since = [
            f"{in_words(ranges(of_reason, every))}: {reason}, so the differences have that change, too"
            for reason, of_reason in by_reason.items()
        ]
        return self._compared(
            session,
            sides,
            keys,
            comparing=f"{self.table}: before and after {', '.join(names)}, in {in_words(ranges(keys, every))}",
            publications=names,
            warnings=[*_warn_gone(gone), *since],
        )

    def _is_wanted(self, key: str) -> bool:
        return self.wanted is None or key in self.wanted

    def _compared(
        self,
        session: Session,
        sides: Sides,
        keys: Sequence[str],
        *,
        comparing: str,
        publications: Sequence[str] = (),
        runs: Sequence[str] = (),
        events: Mapping[str, StagedEvent] | None = None,
        warnings: Sequence[str],
    ) -> Comparison:
        shown = self.loaded.options.checks.sample_columns
        try:
            result = compared_sides(
                session,
                sides,
                spec=self.loaded.spec,
                partition_slice=self.loaded.slice_of(keys),
                aggregates=self.aggregates,
                samples=self.samples,
                shown=None if shown is None else tuple(shown),
            )
        except (ConfigurationError, WarehouseError) as error:
            # Not a lock or the like, which are kinds of it.
            if self.aggregates and type(error) in (ConfigurationError, WarehouseError):
                said = str(error).strip().splitlines()[0]
                raise usage_error(
                    "bad_aggregate",
                    f"an aggregate can't be measured: {said}",
                    hint='such as --aggregate "sum(amount)"',
                ) from error
            raise
        whole = [] if result.why_whole is None else [f"{result.why_whole}, so rows are compared as a whole"]
        return Comparison(
            asset=self.loaded.name,
            table=str(self.table),
            mode=self.nothing.mode,
            comparing=comparing,
            publications=publications,
            runs=runs,
            events=events or {},
            result=result,
            warnings=[*warnings, *whole],
        )


def _is_of_staged(event: Event) -> TypeGuard[StagedEvent]:
    return event in get_args(StagedEvent)


def _warn_gone(gone: Sequence[str]) -> list[str]:
    return (
        [f"{', '.join(gone[:10])}: the asset has no such partitions any more, so they aren't compared"] if gone else []
    )


def _runs(runs: Sequence[str]) -> str:
    return f"run {runs[0]}" if len(runs) == 1 else f"{len(runs):,} runs"
