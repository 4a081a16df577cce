"""stages: what the ledger last said of partitions whose rows stand in a shadow and aren't live yet."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import get_args

from sqlglot import exp

from dagster_safe_backfill.model.states import Fingerprint
from dagster_safe_backfill.model.tables import TableRef
from dagster_safe_backfill.sql import terms
from dagster_safe_backfill.wap.ledger import ledger
from dagster_safe_backfill.wap.ledger.ledger import CHANGES_OF_LIVE, Event, StageEvent
from dagster_safe_backfill.warehouses.base import Connection, Row

WAITING: tuple[Event, ...] = ("audited", "approved", "refused")
"""The last events of partitions whose own audits passed, and whose rows somebody may still want."""

_RANK = "_sb_rank"
_COLUMNS = (
    *("partition_key", "event", "scope", "shadow", "run_id", "code_version", "code"),
    *("fingerprint", "fingerprinted_columns", "rows_staged", "failed_audits", "publication_id"),
    *("recorded_at", "computed_at"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """The last event of one partition in one scope: of what one run, or one backfill, stages together.

    Attributes:
        event: What happened last. After a change of live, or once another scope took it up, nothing is staged any more.
        shadow: Where the rows stand; None once nothing is staged.
        code: What computed them.
        fingerprint: Of the live partition when they were staged.
        columns: The live columns then; None if there was no live table.
        failed_audits: The names of the audits that block it.
        computed_at: When its computation began; in a ledger of before that was noted, when it had ended.
    """

    key: str
    event: Event
    scope: str
    shadow: TableRef | None
    run_id: str
    code_version: str | None
    code: str | None
    fingerprint: Fingerprint
    columns: tuple[str, ...] | None
    rows: int
    failed_audits: str | None
    publication_id: str
    recorded_at: datetime
    computed_at: datetime

    @property
    def is_live(self) -> bool:
        """Whether what was staged has been published."""
        return self.event in CHANGES_OF_LIVE


def stages(
    connection: Connection, table: TableRef, *, keys: Sequence[str] | None = None, scope: str | None = None
) -> list[Stage]:
    """Return the last event of each partition in each scope, the oldest first.

    Args:
        connection: An open session; read-only is enough.
        table: The live table.
        keys: The partitions; all, if None.
        scope: The scope; all, if None.
    """
    if not ledger.exists(connection, table):
        return []
    events = (*get_args(StageEvent), "taken_up", *CHANGES_OF_LIVE)
    conditions = [ledger.is_of(table), terms.column("event").isin(*map(terms.text, events))]
    if keys is not None:
        conditions.append(terms.is_in(terms.column("partition_key"), map(terms.text, keys)))
    if scope is not None:
        conditions.append(ledger.scope_column().eq(terms.text(scope)))
    at = terms.column("recorded_at")
    order = exp.Order(expressions=[exp.Ordered(this=at, desc=True, nulls_first=False)])
    of_one = [ledger.scope_column(), terms.column("partition_key")]
    rank = exp.Window(this=exp.RowNumber(), partition_by=of_one, order=order)
    items = [ledger.scope_column() if name == "scope" else terms.column(name) for name in _COLUMNS]
    named = dict(zip(_COLUMNS, items, strict=True))
    ranked = exp.select(*terms.named({**named, _RANK: rank})).from_(terms.table(ledger.ledger_of(table)))
    select = exp.select(*map(terms.column, _COLUMNS)).from_(terms.subquery(ranked.where(*conditions), "_sb_events"))
    select = select.where(terms.column(_RANK).eq(terms.number(1))).order_by(at.copy())
    return [_stage(row, table) for row in connection.run(select)]


def newest(found: Iterable[Stage]) -> dict[str, Stage]:
    """Return the last of the stages of each partition, by key."""
    return {stage.key: stage for stage in found}


def standing(connection: Connection, table: TableRef, found: Iterable[Stage]) -> list[Stage]:
    """Return the stages whose rows are still there."""
    tables = connection.tables(table.schema, table.shadow_prefix)
    names = {shadow.name.casefold() for shadow in tables}
    return [stage for stage in found if stage.shadow is not None and stage.shadow.name.casefold() in names]


def _stage(row: Row, table: TableRef) -> Stage:
    of = dict(zip(_COLUMNS, row, strict=True))
    shadow, fingerprint, columns = of["shadow"], of["fingerprint"], of["fingerprinted_columns"]
    return Stage(
        key=of["partition_key"],
        event=of["event"],
        scope=of["scope"],
        shadow=TableRef(schema=table.schema, name=shadow[len(table.schema) + 1 :]) if shadow else None,
        run_id=of["run_id"],
        code_version=of["code_version"],
        code=of["code"],
        fingerprint=Fingerprint.parse(fingerprint) if fingerprint else Fingerprint(),
        columns=None if columns is None else tuple(json.loads(columns)),
        rows=of["rows_staged"] or 0,
        failed_audits=of["failed_audits"],
        publication_id=of["publication_id"],
        recorded_at=of["recorded_at"],
        computed_at=of["computed_at"] or of["recorded_at"],
    )
