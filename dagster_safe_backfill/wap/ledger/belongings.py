"""The shadows and archives of a table that exist, and what the ledger says of each."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from sqlglot import exp

from dagster_safe_backfill.model.tables import TableRef
from dagster_safe_backfill.sql import ledger, terms
from dagster_safe_backfill.warehouses.base import Session

_AT_ONCE = 2_000
"""How many names one statement lists; Snowflake takes a statement of at most 1 MB."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Belonging:
    """A shadow or an archive of a table.

    Attributes:
        table: Its name.
        kind: Which of the two it is.
        run_id: The run that made it.
        last_used: The time of the last ledger row that names it.
        asset_key: The key of the run's asset; None if the ledger doesn't name it.
        expires_at: When an archive expires. None of a shadow, and of an archive that no change of the table names: on
            Snowflake, a crash leaves such archives.
    """

    table: TableRef
    kind: Literal["archive", "shadow"]
    run_id: str
    last_used: datetime
    asset_key: str | None = None
    expires_at: datetime | None = None

    @property
    def is_archive_of_change(self) -> bool:
        """True if a change of the table names it, so that it is kept until it expires."""
        return self.expires_at is not None


def archives_that_exist(session: Session, table: TableRef) -> list[TableRef]:
    """Return the tables that have names of archives of a table."""
    return [one for place in table.archives("") for one in session.tables.list(place.schema, place.name)]


def shadows_that_exist(session: Session, table: TableRef) -> list[TableRef]:
    """Return the tables that have names of shadows of a table."""
    return [*session.tables.list(table.schema_beside, table.shadow_prefix)]


def archive_names(session: Session, table: TableRef) -> set[str]:
    """Return the names, in lower case, of the archives of a table that exist."""
    return {one.name.casefold() for one in archives_that_exist(session, table)}


def belongings(session: Session, table: TableRef, *, only: Collection[TableRef] | None = None) -> list[Belonging]:
    """Return the archives and the shadows of a table that exist and that its ledger knows, or some of them.

    Only the ledger shows that a table is one: users may have tables with such names. It is asked for those that exist
    only, as it names all that there ever were.
    """
    chosen = None if only is None else {_folded(one) for one in only}
    archives = [one for one in archives_that_exist(session, table) if chosen is None or _folded(one) in chosen]
    shadows = [one for one in shadows_that_exist(session, table) if chosen is None or _folded(one) in chosen]
    return [*_archives(session, table, archives), *_shadows(session, table, shadows)]


def _folded(table: TableRef) -> tuple[str, str]:
    return table.schema.casefold(), table.name.casefold()


def _archives(session: Session, table: TableRef, found: Iterable[TableRef]) -> list[Belonging]:
    names = sorted({one.name.casefold() for one in found})
    made: dict[tuple[str, str], Belonging] = {}
    expiry = exp.Max(this=terms.column("archive_expires_at"))
    # Snowflake drops tables after COMMIT: one that has expired, and that a crash left, is dropped again.
    is_use = ledger.is_event("published", "rolled_back", "moved", "intended")
    for name, run_id, last_used, asset_key, expires_at in _used(session, table, "archive", names, expiry, is_use):
        one = table.archive_named(name)
        made[_folded(one)] = Belonging(
            table=one, kind="archive", run_id=run_id, last_used=last_used, asset_key=asset_key, expires_at=expires_at
        )
    return [made[_folded(one)] for one in found if _folded(one) in made]


def _shadows(session: Session, table: TableRef, found: Iterable[TableRef]) -> list[Belonging]:
    # The column `shadow` holds `schema.name`. It may be older than the `wap_schema`.
    schemas = dict.fromkeys((table.schema_beside.casefold(), table.schema.casefold()))
    texts = [f"{schema}.{one.name.casefold()}" for one in found for schema in schemas]
    made: dict[str, Belonging] = {}
    nothing = exp.cast(exp.null(), exp.DataType.Type.TEXT)
    for text, run_id, last_used, asset_key, _nothing in _used(session, table, "shadow", texts, nothing):
        one = table.shadow_named(text)
        known = made.get(one.name.casefold())
        if known is None or known.last_used < last_used:
            made[one.name.casefold()] = Belonging(
                table=one, kind="shadow", run_id=run_id, last_used=last_used, asset_key=asset_key
            )
    return [made[one.name.casefold()] for one in found if one.name.casefold() in made]


def _used(
    session: Session, table: TableRef, column: str, names: list[str], item: exp.Expr, *conditions: exp.Expr
) -> list[tuple[str, str, datetime, str | None, datetime | None]]:
    """Return name, run, last use, asset and `item` of the tables whose names, in lower case, a column holds."""
    columns = session.tables.columns(ledger.ledger_of(table)) or ()
    name, at = terms.column(column), terms.column("recorded_at")
    asset = ledger.known_columns(["asset_key"], columns)["asset_key"]
    items = [
        name,
        exp.ArgMax(this=terms.column("run_id"), expression=at.copy()),
        exp.Max(this=at.copy()),
        exp.ArgMax(this=asset, expression=at.copy()),
        item,
    ]
    found: list[tuple[str, str, datetime, str | None, datetime | None]] = []
    for first in range(0, len(names), _AT_ONCE):
        texts = map(terms.text, names[first : first + _AT_ONCE])
        is_one = terms.is_in(exp.Lower(this=name.copy()), texts)
        rows = session.query(ledger.rows_of(table, items, is_one, *conditions).group_by(name.copy()))
        found += [(text, run_id, last, asset_key, more) for text, run_id, last, asset_key, more in rows]
    return found


def last_seen(session: Session, table: TableRef, run_ids: Iterable[str]) -> dict[str, datetime]:
    """Return a mapping from run to the time of the last row that it wrote to the ledger, for any table."""
    ids = sorted(run_ids)
    if not ids:
        return {}
    run, latest = terms.column("run_id"), exp.Max(this=terms.column("recorded_at"))
    select = exp.select(run, latest).from_(terms.table(ledger.ledger_of(table)))
    return dict(session.query(select.where(terms.is_in(run.copy(), map(terms.text, ids))).group_by(run.copy())))
