"""What `launch` looks at before it launches: the count, the hours, other backfills, the daemon."""

from __future__ import annotations

import time
from collections.abc import Sequence

from dagster_safe_backfill.cli.api.client import Dagster
from dagster_safe_backfill.cli.plans.confirming import Confirmed
from dagster_safe_backfill.cli.plans.facts import Facts
from dagster_safe_backfill.cli.plans.overlap import Wanted, overlap
from dagster_safe_backfill.cli.plans.plan import Guard

_DAEMON = "BACKFILL"


def guards_of(dagster: Dagster, found: Sequence[Facts], *, newest_first: bool, confirmed: Confirmed) -> list[Guard]:
    """Return the guards of a backfill, those that hold and those that don't.

    Args:
        dagster: Where it is to be launched.
        found: Its assets.
        newest_first: True if the newest partitions are to come first.
        confirmed: The numbers of partitions that a person confirmed.
    """
    guards = [_count(found, confirmed), *_hours(found), _overlap(dagster, found), _daemon(dagster)]
    return guards + (_order(found) if newest_first else [])


def _count(found: Sequence[Facts], confirmed: Confirmed) -> Guard:
    counts = confirmed.of([facts.asset.key for facts in found])
    beyond: list[str] = []
    hints: list[str] = []
    for facts in found:
        name, limit, count = facts.asset.key, facts.live and facts.live.limit, len(facts.keys)
        if limit is not None and count > limit and counts.get(name) != count:
            beyond.append(f"{count:,} partitions of {name}, and Limits(max_partitions={limit}) allows {limit}")
            hints.append(f"--confirm {count}" if len(found) == 1 else f"--confirm {name}={count}")
    if beyond:
        hint = f"{' '.join(hints)} allows exactly these"
        return Guard(name="count", holds=False, message="; ".join(beyond), hint=hint)
    total = sum(len(one.keys) for one in found)
    return Guard(name="count", holds=True, message=f"{total:,} partition{'s' * (total != 1)}")


def _hours(found: Sequence[Facts]) -> list[Guard]:
    guards: list[Guard] = []
    for facts in found:
        hours = facts.live and facts.live.hours
        if hours:
            text, is_open = hours
            guards.append(
                Guard(
                    name="hours",
                    holds=is_open,
                    message=f"batches of {facts.asset.key} start at {text} only"
                    + (", which is now" if is_open else ", which isn't now"),
                    hint=None if is_open else "launch it then, for instance by cron",
                )
            )
    return guards


def _overlap(dagster: Dagster, found: Sequence[Facts]) -> Guard:
    guard = overlap(dagster, wanted_of(found))
    if not guard.holds:
        return guard
    for facts in found:
        running = sorted(facts.statuses.materializing.intersection(facts.keys))
        if running:
            return Guard(
                name="overlap",
                holds=False,
                message=f"a run works on {len(running):,} of these partitions of {facts.asset.key}, as on {running[0]}",
                hint="wait until it has ended, or terminate it",
            )
    return guard


def wanted_of(found: Sequence[Facts]) -> list[Wanted]:
    """Return the partitions that a backfill computes: of the staged shape also those of `x__shadow`."""
    wanted: list[Wanted] = []
    for facts in found:
        keys = frozenset(facts.keys)
        assets = {one.key: one for one in (facts.asset, facts.computed_by)}
        wanted += [Wanted(asset=one, keys=keys) for one in assets.values()]
    return wanted


def _daemon(dagster: Dagster) -> Guard:
    daemon = dagster.daemon(_DAEMON)
    if daemon is not None and daemon.is_healthy:
        return Guard(name="daemon", holds=True, message="Dagster's daemon is running", refuses=False)
    seen = ""
    if daemon is not None and daemon.heartbeat_at is not None:
        seen = f"; its last sign of life was {time.time() - daemon.heartbeat_at:,.0f} s ago"
    return Guard(
        name="daemon",
        holds=False,
        message=f"Dagster's daemon isn't running{seen}, so a backfill waits until it is",
        hint="start `dagster-daemon run` or `dagster dev`, or launch with --in-process",
        refuses=False,
    )


def _order(found: Sequence[Facts]) -> list[Guard]:
    own = [facts.asset.key for facts in found if facts.live is not None and facts.live.reads_itself]
    if own:
        return [
            Guard(
                name="order",
                holds=False,
                message=f"{own[0]} is computed from its own earlier partitions, which have to come first",
                hint="leave out --newest-first",
            )
        ]
    return [Guard(name="order", holds=True, message="batches begin with the newest partitions")]
