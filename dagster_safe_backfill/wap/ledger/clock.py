"""The clock against the ledger: ages are computed only from a clock that the ledger agrees with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlglot import exp

from dagster_safe_backfill.model.tables import Column, TableRef
from dagster_safe_backfill.sql import ledger, terms
from dagster_safe_backfill.warehouses.base import Session

AGREED = timedelta(days=1)
"""How far a clock and the ledger may be apart."""

_NOTED_FOR, _NOTED_UNTIL = timedelta(hours=1), timedelta(days=31)
"""How old a clock's note must be, and may be at most, to confirm it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LedgerClock:
    """The database's clock, and the newest row of a table in its ledger.

    Attributes:
        now: The time by the database's clock; on DuckDB that is this machine's.
        latest: The time of the table's newest row; None if it has none.
    """

    now: datetime
    latest: datetime | None

    @property
    def next_row(self) -> datetime:
        """The time for the table's next row: later than all of its rows, even if clocks of machines differ."""
        return self.now if self.latest is None else max(self.now, self.latest + ledger.TICK)

    @property
    def why_behind(self) -> str | None:
        """Say that the newest row is dated more than a day ahead of the clock; None if it isn't."""
        if self.latest is None or self.latest <= self.now + AGREED:
            return None
        return (
            f"the newest row of its ledger is dated {shown(self.latest)}, and the clock says {shown(self.now)}: the"
            " clock is behind, or rows were written by a machine whose clock was ahead. Set the clock right, or date"
            " those rows back; docs/publishing.md#clocks has the statements"
        )


def ledger_clock(session: Session, table: TableRef, *, columns: Sequence[Column] | None = None) -> LedgerClock:
    """Return the database's clock and the newest row of a table; the ledger must exist.

    Args:
        session: An open session.
        table: The live table.
        columns: The ledger's columns, if it may be of an earlier format.

    Raises:
        LedgerError: A newer release of this library wrote to the ledger, or it is damaged.
    """
    names = ("recorded_at", "format")
    items = (
        ledger.known_columns(names, columns) if columns is not None else {name: terms.column(name) for name in names}
    )
    newest = [exp.Max(this=item) for item in items.values()]
    found = session.query(ledger.rows_of(table, [*newest, terms.now()]))
    (row,) = ledger.as_rows(table, (*names, "now"), found)
    ledger.check_format(row.count("format"), table)
    return LedgerClock(now=row.time("now"), latest=row.optional_time("recorded_at"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Doubt:
    """Why a clock isn't trusted, although no row is ahead of it.

    Attributes:
        why: The reason, in words.
        note: The time for the row that notes the clock, which the next retention run reads; None if it is noted.
    """

    why: str
    note: datetime | None


def doubt_of(session: Session, table: TableRef, clock: LedgerClock) -> Doubt | None:
    """Return why a clock isn't trusted; None if the ledger has a row of the last day, or an earlier run noted it.

    A clock that is ahead can't be told from a ledger to which nobody wrote. So the first run notes its clock, in a row
    that isn't dated by it. The next one trusts its own clock if that went on from there, and nobody wrote in between.
    """
    # The rows of all tables: who publishes another one shows the time, too.
    ((event, latest, noted),) = session.query(ledger.newest_row(table, until=clock.now + AGREED))
    if latest >= clock.now - AGREED:
        return None
    age = clock.now - noted if event == "clock" else None
    if age is not None and _NOTED_FOR <= age <= _NOTED_UNTIL:
        return None
    is_noted = age is not None and timedelta() <= age < _NOTED_FOR
    why = (
        f"the newest row of {ledger.ledger_of(table)} is dated {shown(latest)}, and the clock says {shown(clock.now)}:"
        " nobody wrote since, or the clock is ahead. The clock is noted. If it is right, the next retention run drops"
        " what is over, from an hour later on"
    )
    return Doubt(why=why, note=None if is_noted else latest + ledger.TICK)


def shown(at: datetime) -> str:
    """Return a time for a message."""
    return f"{at:%Y-%m-%d %H:%M %Z}".strip()
