"""What stops a run, or keeps it from starting: the hours of the day, the number of partitions, errors that stay."""

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
    is_transient,
)
from dagster_safe_backfill.model.hours import AllowedHours
from dagster_safe_backfill.runs.backfills import BACKFILL_TAG

CONFIRMED_TAG = "safe_backfill/confirmed_partitions"

_PATIENCE = 10.0
_POLL = 0.2


@contextmanager
def no_vain_retries(context: dg.AssetExecutionContext) -> Generator[None, None, None]:
    """Keep an asset's retry policy from repeating what would fail again.

    Raises:
        dagster.Failure: In place of such an error, which is its cause, where there is a retry policy.
    """
    try:
        yield
    except SafeBackfillError as error:
        if context.op_execution_context.op_def.retry_policy is None or is_transient(error):
            raise
        raise dg.Failure(str(error), allow_retries=False) from error


def check_hours(hours: AllowedHours, *, table: object, what: str) -> None:
    """Refuse to begin something at a time when nothing may begin.

    Raises:
        OutsideAllowedHoursError: It is such a time.
    """
    now = _now()
    if hours.allows(now):
        return
    opens_at = hours.opens_after(now)
    raise OutsideAllowedHoursError(
        f"{table}: batches start in allowed_hours, {hours}, and there it is"
        f" {now.astimezone(opens_at.tzinfo):%H:%M}, so {what} were not computed. What was staged before is kept:"
        f" re-execute the run from {opens_at:%Y-%m-%d %H:%M %Z} on, and it goes on from there",
        opens_at=opens_at,
    )


def _now() -> datetime:
    return datetime.now(timezone.utc)


def check_partition_count(context: dg.AssetExecutionContext, keys: Sequence[str], *, at_most: int | None) -> None:
    """Refuse a run whose whole backfill covers more partitions of its asset than allowed.

    The tag `safe_backfill/confirmed_partitions` with the exact number, on the backfill or the run, lets it pass.

    Args:
        context: Of the run; its tag `dagster/backfill` names the backfill.
        keys: The run's own partitions, which are counted if it belongs to no backfill.
        at_most: The limit; None allows any number.

    Raises:
        TooManyPartitionsError: There are more, and the tag doesn't say how many.
    """
    if at_most is None:
        return
    count = max(len(keys), _size_of_backfill(context))
    confirmed = context.run.tags.get(CONFIRMED_TAG)
    if count > at_most and confirmed != str(count):
        name = context.asset_key.to_user_string()
        now = "" if confirmed is None else f" (it says {confirmed!r} now)"
        raise TooManyPartitionsError(
            f"{name}: {count:,} partitions were asked for, and it allows {at_most:,} in one backfill; nothing was done."
            f" If all of them are meant, launch them again with the tag {CONFIRMED_TAG} set to {count}{now}:"
            f' in the launch dialog under Tags, or `dagster job backfill --tags \'{{"{CONFIRMED_TAG}": "{count}"}}\'`',
            count=count,
            allowed=at_most,
        )


def _size_of_backfill(context: dg.AssetExecutionContext) -> int:
    """Return how many of the asset's partitions the run's backfill covers; 0 if there is none."""
    backfill_id = context.run.tags.get(BACKFILL_TAG)
    if backfill_id is None:
        return 0
    runs, changed = 0, time.monotonic()
    # `dagster job backfill` submits all its runs before it records the backfill, and the first may be here by then.
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
    if backfill.asset_backfill_data is None:
        return len(set(backfill.partition_names or ()))
    targeted = backfill.asset_backfill_data.target_subset.partitions_subsets_by_asset_key
    return len(targeted[context.asset_key]) if context.asset_key in targeted else 0
