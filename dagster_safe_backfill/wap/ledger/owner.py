"""One table, one asset: an asset changes nothing in a table that another asset writes."""

from __future__ import annotations

from collections.abc import Sequence

from dagster_safe_backfill.errors import ConfigurationError, OtherAssetError
from dagster_safe_backfill.model.states import Origin
from dagster_safe_backfill.model.tables import TableRef, names_of
from dagster_safe_backfill.model.text import listed
from dagster_safe_backfill.sql import ledger
from dagster_safe_backfill.wap.ledger.history import known_ledger
from dagster_safe_backfill.warehouses.base import Session

_DONE = {"published": "published", "moved": "published", "rolled_back": "rolled back", "stored": "wrote"}


def check_owner(session: Session, table: TableRef, *, origin: Origin, keys: Sequence[str] = ()) -> str | None:
    """Refuse to work on a table that another asset writes; return the asset that wrote it last, if it is known.

    A table belongs to the asset that changed it last, as a whole and not by partition:

    - Keys of two assets are no measure: the day 2024-01-15 of one is in the month 2024-01-01 of the other.
    - A swap, a new column, a retention run and a plain asset without partitions work on all of the table.
    - Audits of the unique key, drifts and comparisons read the other rows of the table as the asset's own.

    Rows that the asset wrote under a former key are its own. Ledgers of earlier versions don't name the asset; after
    such rows, any asset may go on.

    Args:
        session: An open session; read-only is enough.
        table: The live table.
        origin: The run that works on the table.
        keys: The partitions that it works on, for the message; empty for the whole table.

    Raises:
        OtherAssetError: Another asset wrote the table last, or has staged rows for it in the same run.
        ConfigurationError: The table's history is in the ledger of another schema.
        LedgerError: The ledger is damaged.
    """
    if origin.asset_key is None:
        return None
    columns = known_ledger(session, table)
    if columns is not None and "asset_key" not in map(str.casefold, names_of(columns)):
        return None
    owner = None if columns is None else check_writer(session, table, origin=origin, keys=keys)
    if owner is None:
        _check_ledgers(session, table)
    return owner


def _check_ledgers(session: Session, table: TableRef) -> None:
    """Refuse a table that its ledger doesn't know, and the ledger of another schema does."""
    own = ledger.ledger_of(table)
    others = [one for one in session.tables.find(ledger.LEDGER) if one.schema.casefold() != own.schema.casefold()]
    if not others:
        return
    found = [schema for (schema,) in session.query(ledger.schemas_that_know(table, others))]
    if found:
        was_own = found[0].casefold() == table.schema.casefold()
        before = "leave it out" if was_own else f"wap_schema={found[0]!r}"
        raise ConfigurationError(
            f"{table}: its history is in {found[0]}.{ledger.LEDGER}, and the ledger is to be {own} now. It would begin"
            " without the history, and earlier publications could not be rolled back, so nothing was done. Set the I/O"
            f" manager's wap_schema as it was before ({before}), or move the ledger's rows of this table to {own};"
            " docs/isolation.md has the statements."
        )


def check_writer(session: Session, table: TableRef, *, origin: Origin, keys: Sequence[str] = ()) -> str | None:
    """Do what `check_owner` does, for a ledger that exists and has all columns."""
    if origin.asset_key is None:
        return None
    found = session.query(ledger.last_writer(table, origin.assets, run_id=origin.run_id))
    if not found:
        return None
    ((other, event),) = found
    if other in origin.assets:
        return other
    did = f"{_DONE[event]} it last" if event in _DONE else "has staged rows for it in the same run"
    own = origin.asset_key
    partitions = f" (partitions {listed(keys)})" if keys else ""
    raise OtherAssetError(
        f"{table} is the table of the asset {other}, which {did}. One table belongs to one asset, so {own}{partitions}"
        f" changed nothing in it. Give {own} a table of its own: set TableOptions(schema=…), or a key_prefix if the I/O"
        f' manager has no schema. If {other} is the former key of {own}, set TableOptions(renamed_from="{other}").',
        table=str(table),
        asset=origin.asset_key,
        other=other,
        keys=keys,
    )
