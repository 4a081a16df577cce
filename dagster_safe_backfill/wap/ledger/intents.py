"""intents: what the ledger tells of tables before they are made, where no transaction undoes that."""

from __future__ import annotations

from sqlglot import exp

from dagster_safe_backfill.errors import PublishError
from dagster_safe_backfill.model.states import Origin
from dagster_safe_backfill.model.tables import TableRef
from dagster_safe_backfill.sql import terms
from dagster_safe_backfill.wap.ledger import ledger
from dagster_safe_backfill.warehouses.base import Connection


def record_intent(
    connection: Connection,
    table: TableRef,
    *,
    origin: Origin,
    shadow: TableRef | None = None,
    archive: TableRef | None = None,
) -> None:
    """Tell of a table before it is made, where no transaction would undo that: a crash leaves none that nobody knows.

    Commits by itself; does nothing where a transaction makes tables. An archive is intended once.

    Raises:
        PublishError: The archive's name is taken by a table that no try of this publication made.
    """
    if connection.ddl_is_transactional:
        return
    with connection.transaction():
        connection.ensure_schema(table.schema)
        ledger.create(connection, table)
        if archive is not None:
            select = exp.select(terms.number(1)).from_(terms.table(ledger.ledger_of(table)))
            if connection.run(
                select.where(ledger.is_of(table), terms.column("archive").eq(terms.text(archive.name))).limit(1)
            ):
                return
            if connection.columns(archive) is not None:
                raise PublishError(
                    f"{table}: {archive}, which is to keep what this publication replaces, is there already, and was"
                    " made by none; an archive is never overwritten, so rename that table",
                    table=str(table),
                )
        values: ledger.Values = {
            "shadow": None if shadow is None else str(shadow),
            "archive": None if archive is None else archive.name,
        }
        ledger.record(connection, "intended", table, [values], origin=origin)


def unrecorded_archives(connection: Connection, table: TableRef) -> dict[TableRef, ledger.Owner]:
    """Return the archives that were intended, and of which no change of the table tells, with who intended them."""
    archive, at = terms.column("archive"), terms.column("recorded_at")
    select = exp.select(archive, terms.column("run_id"), at).from_(terms.table(ledger.ledger_of(table)))
    is_intended = terms.column("event").eq(terms.text("intended"))
    is_named = exp.not_(exp.Is(this=archive.copy(), expression=exp.Null()))
    found = connection.run(select.where(ledger.is_of(table), is_intended, is_named))
    recorded = ledger.archives(connection, table)
    named = {TableRef(schema=table.schema, name=name): (run_id, at) for name, run_id, at in found}
    return {
        one: ledger.Owner(run_id=run_id, last_used=at) for one, (run_id, at) in named.items() if one not in recorded
    }
