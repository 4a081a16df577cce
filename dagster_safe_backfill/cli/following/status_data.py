"""How far a backfill is, as the data of `status` and `watch`, and why it failed, as errors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from dagster_safe_backfill.cli.answers.answer import Problem
from dagster_safe_backfill.cli.answers.data.progress import (
    AssetProgressData,
    AuditState,
    FailedAuditData,
    GroupAuditData,
    PartitionProgressData,
    RunData,
    RunFailureData,
    State,
    StateCountsData,
    StatusData,
)
from dagster_safe_backfill.cli.answers.data.rows import RowCountsData
from dagster_safe_backfill.cli.api.values import Run
from dagster_safe_backfill.cli.following.next_steps import as_data
from dagster_safe_backfill.cli.following.states import (
    BAD,
    AssetProgress,
    FailedAudit,
    GroupAudit,
    NextCommand,
    PartitionState,
    Progress,
    RunFailure,
)

_MOST_LINES = 6
_ENDED: Mapping[State, str] = {
    "rejected": "were rejected by audits",
    "failed": "failed",
    "cancelled": "were cancelled",
}


def status_data(progress: Progress, commands: Sequence[NextCommand]) -> StatusData:
    """Return how far a backfill is.

    Args:
        progress: How far it is.
        commands: What can be done next.
    """
    done, rows = progress.computed
    seconds = progress.seconds
    return {
        "backfill_id": progress.id if progress.kind == "backfill" else None,
        "run_id": progress.id if progress.kind == "run" else None,
        "status": progress.status,
        "is_over": progress.is_over,
        "title": None if progress.backfill is None else progress.backfill.title,
        "error": None if progress.backfill is None else progress.backfill.error,
        "started_at": progress.started_at,
        "ended_at": progress.ended_at,
        "read_at": progress.at,
        "tags": dict(progress.tags),
        "partition_count": progress.total,
        "counts": state_counts(progress.counts),
        "computed": {
            "partition_count": done,
            "row_count": rows,
            "seconds": seconds,
            "rows_per_second": rows / seconds if seconds else None,
            "partitions_per_minute": 60 * done / seconds if seconds else None,
            "seconds_left": progress.seconds_left,
        },
        "assets": [_asset(one) for one in progress.assets],
        "runs": [_run(one) for one in progress.runs],
        "commands": as_data(commands),
    }


def state_counts(counts: Mapping[State, int]) -> StateCountsData:
    """Return how many partitions are in each state, also in those in which none is."""
    return {
        "live": counts.get("live", 0),
        "staged": counts.get("staged", 0),
        "rejected": counts.get("rejected", 0),
        "failed": counts.get("failed", 0),
        "cancelled": counts.get("cancelled", 0),
        "running": counts.get("running", 0),
        "queued": counts.get("queued", 0),
    }


def problems(progress: Progress) -> list[Problem]:
    """Return why a backfill failed, an error for each asset and kind of ending; the data has the runs' own errors."""
    found: list[Problem] = []
    for asset in progress.assets:
        for state in BAD:
            bad = [one.partition for one in asset.partitions if one.state == state]
            if bad:
                message = f"{len(bad):,} of {len(asset.partitions):,} partitions of {asset.asset} {_ENDED[state]}"
                keys = [key for key in bad if key is not None]
                found.append(Problem(code=f"partitions_{state}", message=message, partitions=keys))
        found += _not_reached(progress, asset)
    if progress.backfill is not None and progress.backfill.error:
        # Of a bad run configuration, the lines after the first say what is wrong in it.
        said = " ".join(filter(None, map(str.strip, progress.backfill.error.splitlines()[:_MOST_LINES])))
        found.append(Problem(code="backfill_failed", message=f"Dagster gave the backfill up: {said}"))
    return found


def _not_reached(progress: Progress, asset: AssetProgress) -> list[Problem]:
    """Return an error if a backfill that is over left partitions staged that were to go live."""
    left = [one.partition for one in asset.partitions if one.state == "staged"]
    if not progress.is_over or asset.goal == "staged" or not left:
        return []
    message = f"{len(left):,} of {len(asset.partitions):,} partitions of {asset.asset} are staged, and not live"
    return [Problem(code="partitions_not_live", message=message, partitions=[key for key in left if key is not None])]


def _asset(one: AssetProgress) -> AssetProgressData:
    return {
        "asset": one.asset,
        "is_staged": one.is_staged,
        "goal": one.goal,
        "counts": state_counts(one.counts),
        "audit": None if one.audit is None else _group(one.audit),
        "failures": [_failure(failure) for failure in one.failures],
        "partitions": [_partition(partition) for partition in one.partitions],
    }


def _partition(one: PartitionState) -> PartitionProgressData:
    return {
        "partition": one.partition,
        "state": one.state,
        "run_id": one.run_id,
        "publication_id": one.publication_id,
        "row_count": one.rows.get("row_count"),
        "rows": _rows(one.rows),
        "seconds": one.seconds,
        "materialized_at": one.at,
        "failed_audits": _audits(one.audits),
        "note": one.note,
        "superseded_by": one.superseded_by,
    }


def _rows(counts: Mapping[str, int]) -> RowCountsData | None:
    # Of rows that were only staged, nothing else is said.
    if "rows_staged" not in counts:
        return None
    return {
        "staged": counts["rows_staged"],
        "inserted": counts.get("rows_inserted", 0),
        "updated": counts.get("rows_updated", 0),
        "deleted": counts.get("rows_deleted", 0),
        "unchanged": counts.get("rows_unchanged", 0),
    }


def _group(one: GroupAudit) -> GroupAuditData:
    # What is live for an asset without rows is passed; none of it is ever staged.
    state: AuditState = "passed" if one.state in ("live", "staged") else one.state
    return {"asset": one.asset, "state": state, "run_id": one.run_id, "failed_audits": _audits(one.failed)}


def _failure(one: RunFailure) -> RunFailureData:
    return {
        "run_id": one.run_id,
        "message": one.message,
        "is_rejection": one.is_rejection,
        "shadows": [*one.shadows],
        "failed_audits": _audits(one.audits),
    }


def _audits(audits: Sequence[FailedAudit]) -> list[FailedAuditData]:
    return [
        {"audit": one.name, "failed_rows": one.failed_rows, "blocks": one.blocks, "message": one.message}
        for one in audits
    ]


def _run(one: Run) -> RunData:
    return {"run_id": one.id, "status": one.status, "started_at": one.started_at, "ended_at": one.ended_at}
