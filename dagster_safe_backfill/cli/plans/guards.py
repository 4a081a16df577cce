"""What `launch` looks at before it launches: the count, the hours, other backfills, the daemon."""

from __future__ import annotations

import time
from collections.abc import Sequence

from dagster_safe_backfill.cli.api.client import Dagster
from dagster_safe_backfill.cli.api.values import OPEN, Backfill
from dagster_safe_backfill.cli.plans.facts import Facts
from dagster_safe_backfill.cli.plans.plan import Guard

_DAEMON = "BACKFILL"
_MOST_OPEN = 100


def guards_of(dagster: Dagster, found: Sequence[Facts], *, newest_first: bool, confirmed: int | None) -> list[Guard]:
    """Return the guards of a backfill, those that hold and those that don't.

    Args:
        dagster: Where it is to be launched.
        found: Its assets.
        newest_first: True if the newest partitions are to come first.
        confirmed: The number of partitions that a person confirmed.
    """
    guards = [_count(found, confirmed), *_hours(found), _overlap(dagster, found), _daemon(dagster)]
    return guards + (_order(found) if newest_first else [])


def _count(found: Sequence[Facts], confirmed: int | None) -> Guard:
    for facts in found:
        limit, count = facts.live and facts.live.limit, len(facts.keys)
        if limit is not None and count > limit and confirmed != count:
            return Guard(
                name="count",
                holds=False,
                message=f"{count:,} partitions of {facts.asset.key}, and Limits(max_partitions={limit}) allows {limit}",
                hint=f"--confirm {count} allows exactly these"
                if len(found) == 1
                else f"launch {facts.asset.key} by itself, with --confirm {count}",
            )
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
    for backfill in dagster.backfills(limit=_MOST_OPEN, statuses=sorted(OPEN)):
        for facts in found:
            if facts.asset.key not in backfill.assets or _is_done(dagster, backfill):
                continue
            # Dagster 1.13.27 fails if it is asked for the partitions of an asset without any.
            is_whole = facts.asset.kind is None
            covered: list[str] = [] if is_whole else dagster.targeted(backfill.id, facts.asset)
            shared = set(facts.keys).intersection(covered)
            if shared or is_whole:
                return Guard(
                    name="overlap",
                    holds=False,
                    message=f"backfill {backfill.id} is {backfill.status.lower()} and covers {len(shared):,} of these"
                    f" partitions of {facts.asset.key}",
                    hint=f"wait for it (safe-backfill watch {backfill.id}), or stop it by `cancel`",
                )
    for facts in found:
        running = sorted(facts.statuses.materializing.intersection(facts.keys))
        if running:
            return Guard(
                name="overlap",
                holds=False,
                message=f"a run works on {len(running):,} of these partitions of {facts.asset.key}, as on {running[0]}",
                hint="wait until it has ended, or terminate it",
            )
    return Guard(name="overlap", holds=True, message="no other backfill or run works on these partitions")


def _is_done(dagster: Dagster, backfill: Backfill) -> bool:
    """Return True if nothing is left of a backfill that Dagster's daemon closes at its next look."""
    if any(one.materialized + one.failed < one.targeted for one in backfill.assets.values()):
        return False
    return not any(run.is_open for run in dagster.backfill(backfill.id).runs)


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
