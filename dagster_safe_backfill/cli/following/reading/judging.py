"""Telling the state of each partition from what Dagster knows: its newest materialization, its runs, their logs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from dagster_safe_backfill.cli.api.values import AUDIT, SHADOW, Backfill, Materialization
from dagster_safe_backfill.cli.following.reading.failures import AssetOutcome, RunOutcome, failed_audits
from dagster_safe_backfill.cli.following.reading.targets import OwnRun
from dagster_safe_backfill.cli.following.states import AssetProgress, GroupAudit, PartitionState, RunFailure

"""The endings of the assets beside `x` in the staged shape."""
_ROW_COUNT = "dagster/partition_row_count"
_ROWS = ("rows_staged", "rows_inserted", "rows_updated", "rows_deleted", "rows_unchanged")
_WAITING = frozenset({"QUEUED", "NOT_STARTED", "MANAGED"})
"""The statuses of runs that have no process yet."""
_HELD_BACK = "passed, but went unpublished, because others of their run were rejected"
_UNTOLD = "done, and materialized again by another run since, whose numbers would be shown"


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """What Dagster knows of a backfill or of a run.

    Attributes:
        runs: Its runs, the newest first.
        targets: A mapping from asset to the partitions that it covers.
        newest: A mapping from asset to its partitions' newest materializations, whosever they are.
        outcomes: A mapping from the id of each run that failed to what it said.
        is_of_job: True for a backfill of a job, which stands for its assets.
    """

    backfill: Backfill | None
    runs: Sequence[OwnRun]
    targets: Mapping[str, Sequence[str | None]]
    newest: Mapping[str, Mapping[str | None, Materialization]]
    outcomes: Mapping[str, RunOutcome]
    is_of_job: bool

    def outcome(self, run_id: str, asset: str) -> AssetOutcome:
        """Return what came of an asset in a run that failed."""
        return self.outcomes[run_id].of_any() if self.is_of_job else self.outcomes[run_id].of(asset)


def judged(known: Known) -> list[AssetProgress]:
    """Return how far each asset is; `x__shadow`, `x__audit` and `x` together."""
    states = {name: _states(known, name, keys) for name, keys in known.targets.items()}
    found: list[AssetProgress] = []
    for name in known.targets:
        shadow, audit = f"{name}{SHADOW}", f"{name}{AUDIT}"
        if name.endswith(SHADOW) and name.removesuffix(SHADOW) not in known.targets:
            live = name.removesuffix(SHADOW)
            found.append(_staged(known, live, states, shadow=name, audit=f"{live}{AUDIT}"))
        elif shadow in known.targets:
            found.append(_staged(known, name, states, shadow=shadow, audit=audit))
        elif not _is_part(name, known.targets):
            found.append(AssetProgress(asset=name, partitions=states[name], failures=_failures(known, [name])))
    return found


def _is_part(name: str, targets: Iterable[str]) -> bool:
    """Return True for an `x__shadow` or `x__audit` that is shown as part of `x`."""
    if name.endswith(SHADOW):
        return True
    live = name.removesuffix(AUDIT)
    return name.endswith(AUDIT) and f"{live}{SHADOW}" in targets


def _staged(
    known: Known, live: str, states: Mapping[str, Sequence[PartitionState]], *, shadow: str, audit: str
) -> AssetProgress:
    """Return how far an asset of the staged shape is: staged, audited together, and published."""
    published = {one.partition: one for one in states.get(live, ())}
    group = _group_audit(known, audit, states[audit][0]) if audit in states else None
    outcome = None
    if group is not None and group.state == "rejected" and group.run_id is not None:
        outcome = known.outcome(group.run_id, audit)
    partitions: list[PartitionState] = []
    for one in states[shadow]:
        key = one.partition
        now = replace(one, state="staged") if one.state == "live" else one
        if key in published and published[key].state == "live":
            now = published[key]
        elif now.state == "staged" and outcome is not None and key is not None and outcome.is_blocked(key):
            now = replace(now, state="rejected", run_id=outcome.run_id, audits=outcome.audits_of(key))
        partitions.append(now)
    return AssetProgress(
        asset=live,
        partitions=partitions,
        is_staged=True,
        goal="live" if live in states else "staged",
        audit=group,
        failures=_failures(known, [shadow, audit, live]),
    )


def _group_audit(known: Known, audit: str, state: PartitionState) -> GroupAudit:
    run_id = state.run_id
    outcome = None if run_id is None or run_id not in known.outcomes else known.outcome(run_id, audit)
    return GroupAudit(
        asset=audit,
        state=state.state,
        run_id=state.run_id,
        failed=() if outcome is None else failed_audits(outcome.checks),
    )


def _failures(known: Known, assets: Sequence[str]) -> list[RunFailure]:
    """Return why runs failed, the newest first."""
    found: list[RunFailure] = []
    for one in known.runs:
        if one.run.status == "FAILURE" and one.run.id in known.outcomes:
            own = [name for name in assets if name in one.assets]
            found += [known.outcome(one.run.id, name).failure(name) for name in own]
    return found


def _states(known: Known, asset: str, keys: Sequence[str | None]) -> list[PartitionState]:
    by_key: dict[str | None, OwnRun] = {}
    for one in reversed(known.runs):
        if asset in one.assets:
            # An asset without partitions may be materialized by a run of partitions of other assets.
            by_key |= dict.fromkeys((None, *(one.keys or ())), one)
    newest, own = known.newest.get(asset, {}), {one.run.id for one in known.runs}
    found: list[PartitionState] = []
    for key in keys:
        event, run = newest.get(key), by_key.get(key)
        if event is not None and event.run_id in own:
            found.append(_materialized(key, event))
        elif run is None:
            found.append(_without_run(known.backfill, key))
        else:
            found.append(_by_run(known, asset, key, run, event))
    return found


def _by_run(known: Known, asset: str, key: str | None, run: OwnRun, newest: Materialization | None) -> PartitionState:
    """Return the state of a partition whose newest materialization, if it has one, is not of these runs."""
    state, status = PartitionState(partition=key, state="running", run_id=run.run.id), run.run.status
    if run.run.is_open:
        return replace(state, state="queued") if status in _WAITING else state
    outcome = known.outcome(run.run.id, asset) if run.run.id in known.outcomes else None
    # Another run has materialized it since, so its newest materialization isn't this backfill's.
    if status == "SUCCESS" or (outcome is not None and key in outcome.materialized):
        by = None if newest is None else newest.run_id
        return replace(state, state="live", superseded_by=by, note=_UNTOLD if by else None)
    if status == "CANCELED" or outcome is None:
        return replace(state, state="cancelled" if status == "CANCELED" else "failed")
    return _failed(state, outcome, of=len(run.keys or (None,)))


def _failed(state: PartitionState, outcome: AssetOutcome, *, of: int) -> PartitionState:
    """Return the state of a partition whose run failed, which was to compute that many."""
    key = state.partition or ""
    rows: dict[str, int] = {}
    if key in outcome.report:
        count = outcome.report[key].get("shadow rows", 0)
        rows = {"row_count": count, "rows_staged": count}
    if not outcome.is_rejection:
        return replace(state, state="failed")
    audits = outcome.audits_of(key)
    # What has no partitions, such as an x__audit, is rejected as a whole, whatever partitions its audits name.
    if state.partition is None or outcome.is_blocked(key):
        return replace(state, state="rejected", audits=audits, rows=rows)
    if outcome.was_audited(key, of=of):
        return replace(state, state="staged", audits=audits, rows=rows, note=_HELD_BACK)
    return replace(state, state="failed", note="not computed, because others of the run were rejected before")


def _without_run(backfill: Backfill | None, key: str | None) -> PartitionState:
    """Return the state of a partition for which no run was made."""
    state = PartitionState(partition=key, state="queued")
    if backfill is None or backfill.status == "REQUESTED":
        return state
    if backfill.status in {"CANCELING", "CANCELED"}:
        return replace(state, state="cancelled")
    why = (backfill.error or "what it reads failed").splitlines()[0]
    return replace(state, state="failed", note=f"no run was started, because the backfill ended before: {why}")


def _materialized(key: str | None, newest: Materialization) -> PartitionState:
    metadata = newest.metadata
    rows = {name: _integer(metadata[name]) for name in _ROWS if name in metadata}
    if _ROW_COUNT in metadata:
        rows["row_count"] = _integer(metadata[_ROW_COUNT])
    seconds = metadata.get("seconds")
    publication = metadata.get("publication_id")
    return PartitionState(
        partition=key,
        state="live",
        run_id=newest.run_id,
        publication_id=None if publication is None else str(publication),
        rows=rows,
        seconds=seconds if isinstance(seconds, int | float) else None,
        at=newest.at,
    )


def _integer(value: Any) -> int:
    return int(value)
