"""Checks that stop a run: the hours when batches may start, the number of partitions, and errors that would recur."""

from __future__ import annotations

import time
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from datetime import datetime, timezone

import dagster as dg

from dagster_safe_backfill.errors import (
    OutsideAllowedHoursError,
    SafeBackfillError,
    TooManyPartitionsError,
)
from dagster_safe_backfill.model.hours import AllowedHours
from dagster_safe_backfill.model.plans import CONFIRMED_TAG, is_confirmed
from dagster_safe_backfill.model.transient import is_transient
from dagster_safe_backfill.runs.backfills import BACKFILL_TAG

_PATIENCE = 10.0
_POLL = 0.2


@contextmanager
def no_vain_retries(context: dg.AssetExecutionContext) -> Generator[None, None, None]:
    """Stop an asset's retry policy from retrying an error that would occur again.

    Raises:
        dagster.Failure: An error that isn't transient occurred, which is its cause, and the asset has a retry policy.
    """
    try:
        yield
    except SafeBackfillError as error:
        # Without a retry policy, Dagster retries no step, and the error keeps its own type in the UI.
        if context.op_execution_context.op_def.retry_policy is None or is_transient(error):
            raise
        # Only a Failure can tell Dagster to disregard the op's retry policy (its allow_retries, Dagster 1.13.27).
        raise dg.Failure(str(error), allow_retries=False) from error


def check_hours(hours: AllowedHours, *, table: object, what: str) -> None:
    """Refuse to start a batch outside the allowed hours; `what` names its partitions in the error.

    Raises:
        OutsideAllowedHoursError: It is now outside the allowed hours.
    """
    now = _now()
    if hours.allows(now):
        return
    opens_at = hours.opens_after(now)
    raise OutsideAllowedHoursError(
        f"{table}: batches may start only in allowed_hours, {hours}, and it is"
        f" {now.astimezone(opens_at.tzinfo):%H:%M} there, so {what} were not computed. The batches that were staged"
        f" before are kept. Re-execute the run at {opens_at:%Y-%m-%d %H:%M %Z} or later, and it continues from there.",
        opens_at=opens_at,
    )


def _now() -> datetime:
    return datetime.now(timezone.utc)


def check_partition_count(context: dg.AssetExecutionContext, keys: Sequence[str], *, at_most: int | None) -> None:
    """Refuse a run whose whole backfill covers more partitions of its asset than allowed.

    The tag `safe_backfill/confirmed_partitions` with the exact number, on the backfill or the run, allows the run.

    Args:
        context: The context of the run, whose tag `dagster/backfill` names the backfill.
        keys: The run's own partitions, which are counted if the run doesn't belong to a backfill.
        at_most: The limit. If None, any number is allowed.

    Raises:
        TooManyPartitionsError: There are more partitions, and the tag doesn't have their exact number.
    """
    if at_most is None:
        return
    # Of a backfill that Dagster hasn't recorded, only the runs are counted, and this run may have several partitions.
    count = max(len(keys), _size_of_backfill(context))
    # A tag and not run config, because re-executing a backfill of a job drops the config (Dagster 1.13.27).
    confirmed = context.run.tags.get(CONFIRMED_TAG)
    name = context.asset_key.to_user_string()
    if count > at_most and not is_confirmed(context.run.tags, name, count):
        now = "" if confirmed is None else f" (it is {confirmed!r} now)"
        raise TooManyPartitionsError(
            f"{name}: {count:,} partitions were requested, but the limit of one backfill is"
            f" Limits(max_partitions={at_most}), so nothing was done. To run all of them, launch them again with the"
            f" tag {CONFIRMED_TAG} set to {count}{now}:"
            f' in the launch dialog under Tags, or `dagster job backfill --tags \'{{"{CONFIRMED_TAG}": "{count}"}}\'`',
            count=count,
            allowed=at_most,
        )


def _size_of_backfill(context: dg.AssetExecutionContext) -> int:
    """Return the number of the asset's partitions that the run's backfill covers; 0 without a backfill."""
    backfill_id = context.run.tags.get(BACKFILL_TAG)
    if backfill_id is None:
        return 0
    runs, changed = 0, time.monotonic()
    # `dagster job backfill` records the backfill only after it has submitted all runs, and the first runs may start
    # before that. The wait starts again with each new run, because the command is then still submitting.
    while (size := _recorded_size(context, backfill_id)) is None and time.monotonic() - changed < _PATIENCE:
        submitted = context.instance.get_runs_count(dg.RunsFilter(tags={BACKFILL_TAG: backfill_id}))
        if submitted != runs:
            runs, changed = submitted, time.monotonic()
        time.sleep(_POLL)
    return runs if size is None else size


def _recorded_size(context: dg.AssetExecutionContext, backfill_id: str) -> int | None:
    backfill = context.instance.get_backfill(backfill_id)
    if backfill is None:
        return None
    # A backfill of a job has the names of its partitions, and no data on assets.
    if backfill.asset_backfill_data is None:
        return len(set(backfill.partition_names or ()))
    targeted = backfill.asset_backfill_data.target_subset.partitions_subsets_by_asset_key
    return len(targeted[context.asset_key]) if context.asset_key in targeted else 0
