"""A small table, its publications and the ways back, without Dagster."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa

from dagster_safe_backfill import Audit
from dagster_safe_backfill.model.events import KnownRuns
from dagster_safe_backfill.model.options import PUBLISH_BY_NAME, Publish, Strategy
from dagster_safe_backfill.model.states import Audited, Origin, Published, RolledBack
from dagster_safe_backfill.model.tables import LOCK_INFIX, Query
from dagster_safe_backfill.wap.audit import audit
from dagster_safe_backfill.wap.publish import publish
from dagster_safe_backfill.wap.retention import RetentionRules, Retired, owners, retire
from dagster_safe_backfill.wap.rollback.rollback import Chosen, rollback
from dagster_safe_backfill.wap.write import write
from dagster_safe_backfill_tests.harness.audited import Bench, Row, frame, slice_of
from dagster_safe_backfill_tests.harness.backends import Backend

STRATEGIES: tuple[Strategy, ...] = ("merge", "replace", "swap")


def publish_rules(strategy: Strategy, *, archive_for: timedelta = timedelta(days=30), **rules: Any) -> Publish:
    """Return how to publish, with what is replaced kept for a time of any unit."""
    return PUBLISH_BY_NAME[strategy](archive_days=archive_for / timedelta(days=1), **rules)


MONTH = timedelta(days=30)


def day_rows(day: int, value: float, count: int = 3) -> list[Row]:
    """Return the rows of a day, all of one value."""
    return [(day, n, value, None) for n in range(count)]


class Publications(Bench):
    """A `Bench` that publishes what it stages. Every run has the id that it is given."""

    def __init__(self, place: Path | str | Backend, *, live: Sequence[Row] | None = (), **options: Any) -> None:
        super().__init__(place, live=live)
        self.spec = replace(self.spec, **options)

    def stage(
        self,
        data: Iterable[Row] | pa.Table | Query,
        days: Sequence[int],
        run: str,
        *,
        audits: Sequence[Audit] = (),
        **origin: Any,
    ) -> Audited:
        """Stage and audit rows of some days."""
        source = data if isinstance(data, pa.Table | Query) else frame(data)
        who = Origin(run_id=run, publication_id=run, **origin)
        with self.warehouse.connect() as connection:
            staged = write(connection, source, spec=self.spec, partition_slice=slice_of(days), origin=who)
            found = audit(connection, staged, audits, origin=who, gate="run")
        assert isinstance(found, Audited)
        return found

    def publish(
        self,
        audited: Audited,
        run: str,
        *,
        strategy: Strategy = "merge",
        origin: dict[str, Any] | None = None,
        **rules: Any,
    ) -> Published:
        """Publish what was staged."""
        who = Origin(run_id=run, publication_id=run, **(origin or {}))
        with self.warehouse.connect() as connection:
            return publish(connection, audited, rules=publish_rules(strategy, **rules), origin=who)

    def published(
        self,
        data: Iterable[Row] | pa.Table | Query,
        days: Sequence[int],
        run: str,
        *,
        origin: dict[str, Any] | None = None,
        **rules: Any,
    ) -> Published:
        """Stage, audit and publish."""
        return self.publish(self.stage(data, days, run, **(origin or {})), run, origin=origin, **rules)

    def rollback(
        self, publication_id: str | None = None, *, run: str = "back", chosen: Chosen | None = None, **options: Any
    ) -> RolledBack:
        """Undo a publication, the newest if none is named."""
        with self.warehouse.connect() as connection:
            return rollback(
                connection,
                chosen or Chosen(publication_id=publication_id),
                spec=self.spec,
                partition_slice=slice_of(),
                origin=Origin(run_id=run, publication_id=run),
                archive_for=options.pop("archive_for", MONTH),
                **options,
            )

    def retire(
        self,
        *,
        running: Iterable[str] = (),
        unknown: Iterable[str] = (),
        keep_shadows_for: timedelta = timedelta(0),
        **options: Any,
    ) -> Retired:
        """Drop what is over; the runs that aren't `running` or `unknown` have ended."""
        with self.warehouse.connect() as connection:
            ended = owners(connection, self.spec.table) - {*running, *unknown}
            rules = RetentionRules(runs=KnownRuns(ended=ended, unknown={*unknown}), shadows_for=keep_shadows_for)
            origin = Origin(run_id="retention", publication_id="retention")
            return retire(connection, self.spec.table, rules=rules, origin=origin, **options)

    def do(self, *statements: str) -> None:
        """Change something by hand."""
        self.backend.change(*statements)

    def live(self, columns: str = "*") -> list[tuple[Any, ...]]:
        """Return the live rows, in order."""
        return self.read(f"SELECT {columns} FROM t ORDER BY ALL")

    def values(self) -> dict[int, list[float]]:
        """Return the live values by the number of the day."""
        found: dict[int, list[float]] = {}
        for day, value in self.read("SELECT day - DATE '2024-01-01', value FROM t ORDER BY ALL"):
            found.setdefault(day, []).append(value)
        return found

    def tables(self, infix: str = "") -> list[str]:
        """Return the names of the tables that have `infix` in theirs, without that of the lock, which stays."""
        found = self.read("SELECT table_name FROM duckdb_tables() ORDER BY 1")
        return [name for (name,) in found if infix in name and not name.endswith(LOCK_INFIX)]

    def events(self) -> list[tuple[str, str | None, str]]:
        """Return `(event, partition, publication)` of the ledger, in order, without what was only intended."""
        found = self.read(
            "SELECT event, partition_key, publication_id FROM _safe_backfill_ledger WHERE event <> 'intended'"
            " ORDER BY recorded_at, partition_key"
        )
        return [(event, key, publication) for event, key, publication in found]
