"""Retention: dropping archives that have expired, and shadows that no run needs any more."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Literal

from dagster_safe_backfill.model.events import KnownRuns
from dagster_safe_backfill.model.options import UNKNOWN_RUN_DAYS
from dagster_safe_backfill.model.states import Origin
from dagster_safe_backfill.model.tables import TableRef
from dagster_safe_backfill.wap.ledger.belongings import Belonging, belongings, last_seen
from dagster_safe_backfill.wap.ledger.clock import LedgerClock, doubt_of, ledger_clock
from dagster_safe_backfill.wap.ledger.history import known_ledger
from dagster_safe_backfill.wap.ledger.owner import check_owner
from dagster_safe_backfill.wap.ledger.record import record, upgrade_ledger
from dagster_safe_backfill.wap.recovery import finish_interrupted_swap
from dagster_safe_backfill.warehouses.base import Session

WhyKept = Literal["not_expired", "recent", "run_goes_on", "run_unknown", "of_another_asset", "clock"]


@dataclass(frozen=True, slots=True, kw_only=True)
class RetentionRules:
    """By which rules tables are dropped.

    Attributes:
        runs: What Dagster says of the `owners`.
        shadows_for: How long a shadow is kept after the last ledger row that names it, so that people can look at
            rejected rows.
        unknown_for: How long what an unknown run made is kept after the last ledger row that the run wrote.
    """

    runs: KnownRuns
    shadows_for: timedelta
    unknown_for: timedelta = timedelta(days=UNKNOWN_RUN_DAYS)


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """An archive or a shadow that is kept.

    Attributes:
        table: Its name.
        kind: Which of the two it is.
        why: The reason.
        until: When it may be dropped; None if that isn't known, as its run goes on or the clock is in doubt.
        run_id: The run that made a shadow, or an archive that no publication needs; None of other archives.
    """

    table: TableRef
    kind: Literal["archive", "shadow"]
    why: WhyKept
    until: datetime | None = None
    run_id: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Retired:
    """The archives and shadows of a table that were dropped.

    Attributes:
        table: The live table.
        archives: The dropped archives, which had expired.
        shadows: The dropped shadows, whose runs had ended.
        kept: What was kept, with the reasons.
        is_dry: True if nothing was dropped, and the tables are those that would be.
        clock_problem: Why the clock isn't trusted, so that nothing was dropped; None if it is.
    """

    table: TableRef
    archives: tuple[TableRef, ...] = ()
    shadows: tuple[TableRef, ...] = ()
    kept: tuple[Kept, ...] = ()
    is_dry: bool = False
    clock_problem: str | None = None

    @property
    def over(self) -> tuple[TableRef, ...]:
        """The tables that were dropped, or would be."""
        return (*self.archives, *self.shadows)

    @property
    def kept_shadows(self) -> tuple[TableRef, ...]:
        """The shadows that were kept because their runs are still running or ended recently."""
        return tuple(one.table for one in self.kept if one.kind == "shadow")

    def with_dropped(self, other: Retired) -> Retired:
        """Return it with the tables that another transaction dropped or kept."""
        return replace(
            self,
            archives=(*self.archives, *other.archives),
            shadows=(*self.shadows, *other.shadows),
            kept=tuple(dict.fromkeys((*self.kept, *other.kept))),
            clock_problem=self.clock_problem or other.clock_problem,
        )


def owners(session: Session, table: TableRef) -> set[str]:
    """Return the ids of the runs on which it depends whether a table's shadows and archives are over."""
    if known_ledger(session, table) is None:
        return set()
    return {one.run_id for one in belongings(session, table) if not one.is_archive_of_change}


def retire(
    session: Session,
    table: TableRef,
    *,
    rules: RetentionRules,
    origin: Origin,
    only: Collection[TableRef] | None = None,
    dry_run: bool = False,
) -> Retired:
    """Drop a table's archives and shadows that are no longer needed, in one transaction with their ledger rows.

    Tables that the ledger doesn't record are never dropped, even if they have the name of a shadow or archive. If the
    clock and the ledger disagree, nothing is dropped.

    Args:
        session: An open session, outside a transaction.
        table: The live table.
        rules: By which rules.
        origin: The run that drops them.
        only: The tables that may be dropped. Others wait for a transaction, so drop few at once. Defaults to all.
        dry_run: True to return what would be dropped, without dropping it; a read-only session is enough.

    Raises:
        OtherAssetError: The table belongs to another asset.
    """
    return session.attempt(
        _Retirement(session=session, table=table, rules=rules, origin=origin, only=only, dry_run=dry_run).run
    )


def drop_found(
    connect: Callable[[], AbstractContextManager[Session]],
    found: Retired,
    *,
    rules: RetentionRules,
    origin: Origin,
    at_once: int = 250,
) -> Retired:
    """Drop what a dry run of `retire` found to be over, as far as it still is, and return it.

    At most `at_once` tables are dropped in one session, so that others who wait for the database or for a transaction
    get their turn; if nothing is over, nobody waits. After a crash, the next retention run goes on.

    Args:
        connect: Opens a session.
        found: What a dry run returned.
        rules: Its rules.
        origin: The run that drops.
        at_once: How many tables a transaction drops.

    Raises:
        OtherAssetError: The table belongs to another asset.
    """
    dropped, over = replace(found, archives=(), shadows=(), is_dry=False), [*found.over]
    # If the clock is in doubt, a transaction that drops nothing notes it.
    pieces = [[one.table for one in found.kept if one.why == "clock"][:at_once]]
    pieces += [over[first : first + at_once] for first in range(0, len(over), at_once)]
    for piece in filter(None, pieces):
        with connect() as session:
            dropped = dropped.with_dropped(retire(session, found.table, rules=rules, origin=origin, only=piece))
    return dropped


@dataclass(frozen=True, slots=True, kw_only=True)
class _Retirement:
    """`retire`, whose arguments are the attributes, in a transaction of the caller."""

    session: Session
    table: TableRef
    rules: RetentionRules
    origin: Origin
    only: Collection[TableRef] | None
    dry_run: bool

    def run(self) -> Retired:
        session, table = self.session, self.table
        owner = check_owner(session, table, origin=self.origin)
        columns = known_ledger(session, table)
        if columns is None:
            return Retired(table=table, is_dry=self.dry_run)
        if not self.dry_run:
            finish_interrupted_swap(session, table)
            upgrade_ledger(session, table)
        clock = ledger_clock(session, table, columns=columns if self.dry_run else None)
        over, kept = self._divided(owner, clock.now)
        problem = self._clock_problem(clock, is_any=bool(over))
        if problem is not None:
            kept += [Kept(table=one.table, kind=one.kind, why="clock", run_id=one.run_id) for one in over]
            over = []
        archives = [one.table for one in over if one.kind == "archive"]
        shadows = [one.table for one in over if one.kind == "shadow"]
        if not self.dry_run:
            _drop(session, table, archives, shadows, origin=self.origin)
        return Retired(
            table=table,
            archives=tuple(archives),
            shadows=tuple(shadows),
            kept=tuple(kept),
            is_dry=self.dry_run,
            clock_problem=problem,
        )

    def _divided(self, owner: str | None, now: datetime) -> tuple[list[Belonging], list[Kept]]:
        """Return those of the table's archives and shadows that are no longer needed, and those that are kept."""
        found = belongings(self.session, self.table, only=self.only)
        made_by = {one.run_id for one in found if not one.is_archive_of_change}
        seen = last_seen(self.session, self.table, made_by & self.rules.runs.unknown)
        over: list[Belonging] = []
        kept: list[Kept] = []
        for one in found:
            # What another asset staged can be published as long as the table isn't this asset's.
            is_own = owner is not None or one.asset_key in (None, *self.origin.assets)
            why, until = _why_kept(one, self.rules, seen, is_own=is_own)
            if until is not None and until <= now:
                over.append(one)
            else:
                run_id = None if one.is_archive_of_change else one.run_id
                kept.append(Kept(table=one.table, kind=one.kind, why=why, until=until, run_id=run_id))
        return over, kept

    def _clock_problem(self, clock: LedgerClock, *, is_any: bool) -> str | None:
        """Return why nothing may be dropped by a clock; one that may be ahead is noted for the next run."""
        if clock.why_behind is not None or not is_any:
            return clock.why_behind
        doubt = doubt_of(self.session, self.table, clock)
        if doubt is None:
            return None
        if doubt.note is not None and not self.dry_run:
            noted = [{"computed_at": clock.now}]
            record(self.session, "clock", self.table, noted, origin=self.origin, at=doubt.note)
        return doubt.why


def _why_kept(
    one: Belonging, rules: RetentionRules, seen: Mapping[str, datetime], *, is_own: bool
) -> tuple[WhyKept, datetime | None]:
    """Return why a table is kept, and until when; that may be over already. None is for as long as the reason lasts."""
    if one.is_archive_of_change:
        return "not_expired", one.expires_at
    if one.run_id not in rules.runs.ended | rules.runs.unknown:
        return "run_goes_on", None
    if one.kind == "shadow" and not is_own:
        return "of_another_asset", None
    until = one.last_used + rules.shadows_for if one.kind == "shadow" else one.last_used
    if one.run_id in rules.runs.unknown:
        return "run_unknown", max(until, seen[one.run_id] + rules.unknown_for)
    return "recent", until


def discard(session: Session, shadows: Sequence[TableRef], *, table: TableRef, origin: Origin) -> None:
    """Drop shadows of a table, in one transaction with the ledger rows that record it."""
    session.attempt(lambda: _drop(session, table, (), shadows, origin=origin))


def _drop(
    session: Session,
    table: TableRef,
    expired: Sequence[TableRef],
    discarded: Sequence[TableRef],
    *,
    origin: Origin,
) -> None:
    for one in (*expired, *discarded):
        session.tables.drop(one)
    record(session, "expired", table, [{"archive": archive.name} for archive in expired], origin=origin)
    record(session, "discarded", table, [{"shadow": str(shadow)} for shadow in discarded], origin=origin)
