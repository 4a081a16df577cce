"""What stops a run before it works: a backfill of more partitions than its asset allows."""

from __future__ import annotations

import time
from collections.abc import Sequence

import dagster as dg

from dagster_safe_backfill.errors import TooManyPartitionsError

CONFIRMED_TAG = "safe_backfill/confirmed_partitions"

_BACKFILL_TAG = "dagster/backfill"
_PATIENCE = 10.0
_POLL = 0.2


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
        found = "" if confirmed is None else f" (it says {confirmed!r} now)"
        raise TooManyPartitionsError(
            f"{name}: {count:,} partitions were asked for, and it allows {at_most:,} in one backfill; nothing was done."
            f" If all of them are meant, launch them again with the tag {CONFIRMED_TAG} set to {count}{found}:"
            f' in the launch dialog under Tags, or `dagster job backfill --tags \'{{"{CONFIRMED_TAG}": "{count}"}}\'`',
            count=count,
            allowed=at_most,
        )


def _size_of_backfill(context: dg.AssetExecutionContext) -> int:
    """Return how many of the asset's partitions the run's backfill covers; 0 if there is none."""
    backfill_id = context.run.tags.get(_BACKFILL_TAG)
    if backfill_id is None:
        return 0
    runs, changed = 0, time.monotonic()
    # `dagster job backfill` submits all its runs before it records the backfill, and the first may be here by then.
    while (size := _recorded_size(context, backfill_id)) is None and time.monotonic() - changed < _PATIENCE:
        submitted = context.instance.get_runs_count(dg.RunsFilter(tags={_BACKFILL_TAG: backfill_id}))
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
