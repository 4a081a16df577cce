"""`pause_during_backfill`: an automation condition that waits while upstream tables are backfilled."""

from __future__ import annotations

from typing import TypeAlias, cast

import dagster as dg

_Condition: TypeAlias = dg.AutomationCondition[dg.AssetKey]

_BACKFILL_TAG = "dagster/backfill"


def pause_during_backfill(
    condition: dg.AutomationCondition[dg.AssetKey] | dg.AutomationCondition[dg.AssetKey | dg.AssetCheckKey],
) -> dg.AutomationCondition[dg.AssetKey]:
    """Return a condition that waits while a backfill of a direct dependency is open, and requests once it has ended.

    A partition waits while an open backfill still has to materialize a partition of a direct dependency that it reads,
    or has to materialize the partition itself. An unpartitioned asset waits for all partitions. If `condition` becomes
    true meanwhile, even for one tick, the request is remembered. It is dropped when the partition was requested, or
    when a backfill materialized it from the current state of all its dependencies. Failed and canceled backfills have
    ended. While no backfill is open, the result equals `condition`.

    The condition sees backfills of assets, which the UI launches. It doesn't see single runs, or the runs of
    `dagster job backfill`. To wait for these too, add `& ~dg.AutomationCondition.any_deps_in_progress()`.

    Args:
        condition: The automation condition of an asset, not of an asset check.

    Example:
        ```python
        @dg.asset(deps=[flights], automation_condition=sb.pause_during_backfill(dg.AutomationCondition.eager()))
        def daily_delays() -> None: ...
        ```
    """
    asked = cast("_Condition", condition)  # a condition of assets and checks is also one of assets
    is_open = dg.AutomationCondition.backfill_in_progress()
    held = (_any_dep(is_open) | is_open).with_label("backfill_open")
    due = asked.since(_requested_before(asked) | _backfilled())
    return (due & ~held).with_label("pause_during_backfill")


def _requested_before(condition: _Condition) -> _Condition:
    # `since` lets a reset win over a trigger in the same tick. If the condition is true now, the request of the
    # previous tick was for an earlier trigger, and must not reset this one.
    return dg.AutomationCondition.newly_requested() & ~condition


def _backfilled() -> _Condition:
    """Return a condition for partitions that a backfill has just materialized after all their dependencies.

    Other runs don't count: they may have read dependencies before the backfill changed these.
    """
    updated = dg.AutomationCondition.newly_updated()
    # Both sides carry the timestamps of their events, so `since` can order events within one tick.
    deps_are_newer = _any_dep(updated).since(updated)
    by_backfill = dg.AutomationCondition.any_new_update_has_run_tags(tag_keys={_BACKFILL_TAG})
    return (by_backfill & ~deps_are_newer).with_label("backfilled")


def _any_dep(
    condition: dg.AutomationCondition[dg.AssetKey | dg.AssetCheckKey],
) -> dg.AutomationCondition[dg.AssetKey | dg.AssetCheckKey]:
    # Dagster annotates this parameter as `AutomationCondition` without a type argument.
    return dg.AutomationCondition.any_deps_match(condition)  # pyright: ignore[reportUnknownMemberType]
