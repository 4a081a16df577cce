"""Whether another backfill or run works on the same partitions, before a launch, and once more right after it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from dagster_safe_backfill.cli.api import documents
from dagster_safe_backfill.cli.api.client import Dagster
from dagster_safe_backfill.cli.api.reading import key_of, keys_of_tags
from dagster_safe_backfill.cli.api.values import OPEN, PARTITION_TAG, RANGE_START_TAG, RUNS_OPEN, Asset, Backfill
from dagster_safe_backfill.cli.following.reading.documents import JOB
from dagster_safe_backfill.cli.plans.plan import Guard

_MOST_BACKFILLS = 100
_MOST_RUNS = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """The partitions of an asset that are to be computed; an asset without partitions is wanted whole."""

    asset: Asset
    keys: frozenset[str]

    @property
    def is_whole(self) -> bool:
        """True if the asset has no partitions."""
        return self.asset.kind is None


def overlap(dagster: Dagster, wanted: Sequence[Wanted]) -> Guard:
    """Return the guard against a backfill, of assets or of a job, or a run, that works on what is wanted."""
    return overlap_with(dagster, open_backfills(dagster), wanted) or _of_runs(dagster, wanted)


def open_backfills(dagster: Dagster) -> list[Backfill]:
    """Return the backfills that haven't ended, the newest first."""
    return dagster.backfills(limit=_MOST_BACKFILLS, statuses=sorted(OPEN))


def before(backfill_id: str, listed: Sequence[Backfill]) -> Sequence[Backfill]:
    """Return those that were stored before a backfill, of some with the newest first; none if it isn't among them.

    Of two that were launched at the same time, after each had seen no other, exactly one is before the other: Dagster
    lists backfills in the order in which they were stored.
    """
    ids = [one.id for one in listed]
    return listed[ids.index(backfill_id) + 1 :] if backfill_id in ids else ()


def overlap_with(dagster: Dagster, found: Sequence[Backfill], wanted: Sequence[Wanted]) -> Guard | None:
    """Return the guard that one of some open backfills breaks, as it works on what is wanted; None if none does."""
    for backfill in found:
        for one in wanted:
            shared = _shared(dagster, backfill, one)
            if shared is not None:
                covers = f"{shared:,} of these partitions of {one.asset.key}" if shared else one.asset.key
                return Guard(
                    name="overlap",
                    holds=False,
                    message=f"backfill {backfill.id} is {backfill.status.lower()} and covers {covers}",
                    hint=f"wait for it (safe-backfill watch {backfill.id}), or stop it by `cancel`",
                )
    return None


def _shared(dagster: Dagster, backfill: Backfill, wanted: Wanted) -> int | None:
    """Return how many of the wanted partitions a backfill covers, 0 of an asset without any; None if it doesn't."""
    if not backfill.is_of_assets:
        # The daemon closes it once its runs have ended; until then its partitions may get runs.
        if backfill.job not in wanted.asset.jobs:
            return None
        names = dagster.ask(JOB, id=backfill.id)["partitionBackfillOrError"].get("partitionNames")
        covered: Sequence[str] = names or ()
    elif wanted.asset.key not in backfill.assets or _is_done(dagster, backfill):
        return None
    else:
        # Dagster 1.13.27 fails if it is asked for the partitions of an asset without any.
        covered = () if wanted.is_whole else dagster.targeted(backfill.id, wanted.asset)
    shared = len(wanted.keys.intersection(covered))
    return shared if shared or wanted.is_whole else None


def _is_done(dagster: Dagster, backfill: Backfill) -> bool:
    """Return True if nothing is left of a backfill that Dagster's daemon closes at its next look."""
    if any(one.materialized + one.failed < one.targeted for one in backfill.assets.values()):
        return False
    return not any(run.is_open for run in dagster.backfill(backfill.id).runs)


def _of_runs(dagster: Dagster, wanted: Sequence[Wanted]) -> Guard:
    """Return the guard against runs by themselves, such as one that was launched from an asset's or a job's page."""
    answer = dagster.ask(documents.OPEN_RUNS, statuses=sorted(RUNS_OPEN), limit=_MOST_RUNS)["runsOrError"]
    runs: Sequence[Mapping[str, Any]] = answer.get("results", ())
    for run in runs:
        for one in wanted:
            if not _materializes(run, one.asset):
                continue
            shared = one.keys.intersection(_keys(run, one.asset))
            if shared or one.is_whole:
                return _guard_of_run(run, one.asset, len(shared))
    among = f", among the newest {_MOST_RUNS:,} that are open" if len(runs) == _MOST_RUNS else ""
    return Guard(name="overlap", holds=True, message=f"no other backfill or run works on these partitions{among}")


def _guard_of_run(run: Mapping[str, Any], asset: Asset, shared: int) -> Guard:
    where = f"{shared:,} of these partitions of {asset.key}" if shared else asset.key
    return Guard(
        name="overlap",
        holds=False,
        message=f"run {run['runId']} of {run['jobName']} is {run['status'].lower()} and works on {where}",
        hint=f"wait for it (safe-backfill watch {run['runId']}), or end it by `cancel`",
    )


def _materializes(run: Mapping[str, Any], asset: Asset) -> bool:
    selected: Sequence[Mapping[str, Any]] | None = run["assetSelection"]
    if not selected:
        return run["jobName"] in asset.jobs
    return asset.key in {key_of(one) for one in selected}


def _keys(run: Mapping[str, Any], asset: Asset) -> Sequence[str]:
    tags = {one["key"]: one["value"] for one in run["tags"]}
    return keys_of_tags(tags, asset) if PARTITION_TAG in tags or RANGE_START_TAG in tags else ()
