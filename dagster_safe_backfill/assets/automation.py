"""Holding what reads a table while that table is backfilled."""

from __future__ import annotations

from typing import TypeAlias, cast

import dagster as dg

_Condition: TypeAlias = dg.AutomationCondition[dg.AssetKey]

_BACKFILL_TAG = "dagster/backfill"


def pause_during_backfill(
    condition: dg.AutomationCondition[dg.AssetKey] | dg.AutomationCondition[dg.AssetKey | dg.AssetCheckKey],
) -> dg.AutomationCondition[dg.AssetKey]:
    """Hold an asset while a backfill of what it reads is open, and request it once when that has ended.

    Held is each partition that reads a partition which an open backfill has yet to materialize, of any direct
    dependency, or that is itself still to be materialized by one; an unpartitioned asset waits for all of them.
    What `condition` asks for meanwhile is kept, also if it is true in a single tick, until it was requested, or the
    backfill materialized it with all its dependencies as they are now. A backfill that failed or was canceled has
    ended too. While none is open, the result is exactly `condition`.

    Seen are backfills of assets, as the UI launches them. Not seen are single runs, and those of
    `dagster job backfill`: add `& ~dg.AutomationCondition.any_deps_in_progress()` to wait for them too.

    Args:
        condition: Of an asset, not of a check.

    Example:
        ```python
        @dg.asset(deps=[flights], automation_condition=sb.pause_during_backfill(dg.AutomationCondition.eager()))
        def daily_delays() -> None: ...
        ```
    """
    asked = cast("_Condition", condition)  # what judges assets and checks judges assets
    is_open = dg.AutomationCondition.backfill_in_progress()
    held = (_any_dep(is_open) | is_open).with_label("backfill_open")
    due = asked.since(_requested_before(asked) | _backfilled())
    return (due & ~held).with_label("pause_during_backfill")


def _requested_before(condition: _Condition) -> _Condition:
    # `since` lets a reset win over a trigger of the same tick: but what is true now was not requested a tick ago.
    return dg.AutomationCondition.newly_requested() & ~condition


def _backfilled() -> _Condition:
    """Return what is true of partitions that a backfill has just materialized from what their dependencies hold now.

    Other runs don't count: they may have read some of the partitions before the backfill changed them.
    """
    updated = dg.AutomationCondition.newly_updated()
    # Both sides carry the times of their events here, so that `since` compares these within one tick.
    deps_are_newer = _any_dep(updated).since(updated)
    by_backfill = dg.AutomationCondition.any_new_update_has_run_tags(tag_keys={_BACKFILL_TAG})
    return (by_backfill & ~deps_are_newer).with_label("backfilled")


def _any_dep(
    condition: dg.AutomationCondition[dg.AssetKey | dg.AssetCheckKey],
) -> dg.AutomationCondition[dg.AssetKey | dg.AssetCheckKey]:
    # Dagster left its argument's type open.
    return dg.AutomationCondition.any_deps_match(condition)  # pyright: ignore[reportUnknownMemberType]
