"""A small table of days and what audits say of a batch for it, without Dagster."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import date, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pyarrow as pa

from dagster_safe_backfill import Audit, AuditResult
from dagster_safe_backfill.model.slices import PartitionSlice, TimeDimension, TimeWindow
from dagster_safe_backfill.model.states import Audited, Origin, Rejected
from dagster_safe_backfill.model.tables import TableRef, TableSpec
from dagster_safe_backfill.wap.audit import audit
from dagster_safe_backfill.wap.write import write
from dagster_safe_backfill_tests.harness.backends import Backend, DuckDBBackend

FIRST = date(2024, 1, 1)
DAYS = 4
KEYS = tuple(str(FIRST + timedelta(days=n)) for n in range(DAYS))
SCHEMA = pa.schema({"day": pa.date32(), "id": pa.int64(), "value": pa.float64(), "note": pa.string()})

Row = tuple[int, int | None, float | None, str | None]
"""The number of the day, id, value, note."""


def slice_of(days: Sequence[int] = range(DAYS)) -> PartitionSlice:
    """Return the slice of some days, by their numbers."""
    start = datetime(FIRST.year, FIRST.month, FIRST.day, tzinfo=timezone.utc)
    windows = tuple(TimeWindow(start=start + timedelta(days=n), end=start + timedelta(days=n + 1)) for n in days)
    return PartitionSlice(
        keys=tuple(str(FIRST + timedelta(days=n)) for n in days),
        dimensions=(TimeDimension(windows=windows, timezone="UTC"),),
    )


def frame(rows: Iterable[Row]) -> pa.Table:
    """Return rows as what an asset computes."""
    names = SCHEMA.names[1:]
    found = [{"day": FIRST + timedelta(days=day), **dict(zip(names, rest, strict=True))} for day, *rest in rows]
    return pa.Table.from_pylist(found, SCHEMA)


class Bench:
    """A warehouse with the table `t`, and `notes` of all notes that may be referred to; in a folder, a DuckDB file."""

    def __init__(
        self, place: Path | str | Backend, *, live: Sequence[Row] | None = (), notes: Sequence[str] = ()
    ) -> None:
        self.backend = place if isinstance(place, Backend) else DuckDBBackend(place, name="t.duckdb", lock_timeout=60)
        self.path = self.backend.path if isinstance(self.backend, DuckDBBackend) else ""
        self.warehouse = self.backend.warehouse
        self.spec = TableSpec(
            table=TableRef(schema="main", name="t"),
            partition_expr={None: "day"},
            unique_key=("day", "id"),
            on_empty="allow",
        )
        tables = {"notes": pa.table({"note": ["", *notes]}), **({} if live is None else {"t": frame(live)})}
        for name, rows in tables.items():
            self.backend.create(name, rows)

    def judged(
        self, rows: Iterable[Row], audits: Sequence[Audit], *, run_id: str = "1", **options: Any
    ) -> Audited | Rejected:
        """Stage rows of all days and audit them."""
        origin = Origin(run_id=run_id, publication_id=run_id)
        with self.warehouse.connect() as connection:
            staged = write(connection, frame(rows), spec=self.spec, partition_slice=slice_of(), origin=origin)
            return audit(connection, staged, audits, origin=origin, gate="run", **options)

    def result(self, rows: Iterable[Row], one: Audit, **options: Any) -> AuditResult:
        """Return what one audit says of a batch."""
        (result,) = self.judged(rows, [one], **options).results
        return result

    def read(self, sql: str) -> list[tuple[Any, ...]]:
        """Run a query on a connection that shares nothing with the library's."""
        return self.backend.read(sql)


def failed_days(result: AuditResult) -> set[int]:
    """Return the numbers of the days that did not pass."""
    return {KEYS.index(key) for key in result.failed_keys}
