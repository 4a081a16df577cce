"""Two Dagster instances that work with one warehouse: neither knows the runs of the other, which may go on."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

import dagster_safe_backfill as sb
from dagster_safe_backfill.runs import wap_run
from dagster_safe_backfill_tests.conftest import Read
from dagster_safe_backfill_tests.harness.assets import Source, events, green, run_range
from dagster_safe_backfill_tests.harness.backends import Backend

pytestmark = pytest.mark.every_warehouse

DAY = "2024-01-01"
SHADOWS = "SELECT table_name FROM duckdb_tables() WHERE contains(table_name, '__shadow_')"
LIVE = "SELECT count(*), sum(value) FROM events"


class Place:
    """A Dagster with a home of its own, its asset and its retention schedule."""

    def __init__(self, home: Path, backend: Backend) -> None:
        home.mkdir()
        self.instance = dg.DagsterInstance.local_temp(str(home))
        self.io_manager = backend.io_manager
        self.source = Source()
        self.asset = events(self.source)

    def run(self) -> dg.ExecuteInProcessResult:
        return run_range([self.asset], DAY, DAY, io_manager=self.io_manager, instance=self.instance)

    def retire(self, **options: Any) -> tuple[str, str]:
        """Run the job of a schedule; return what its metadata says of the table, and what it logged."""
        schedule = sb.build_retention_schedule([self.asset], **{"shadow_days": 0, **options})
        with dg.build_schedule_context() as context:
            (request,) = schedule.evaluate_tick(context).run_requests or ()
        assert isinstance(schedule.job, dg.JobDefinition)
        done = schedule.job.execute_in_process(
            run_config=request.run_config, resources={"io_manager": self.io_manager}, instance=self.instance
        )
        (metadata,) = [event.step_output_data.metadata for event in done.all_events if event.is_successful_output]
        return str(metadata["main.events"].value), self.logged(done.run_id)

    def logged(self, run_id: str) -> str:
        return "\n".join(entry.user_message for entry in self.instance.all_logs(run_id))


@pytest.fixture
def places(tmp_path: Path, backend: Backend) -> Iterator[tuple[Place, Place]]:
    made = Place(tmp_path / "staging", backend), Place(tmp_path / "production", backend)
    yield made
    for one in made:
        one.instance.dispose()


@pytest.fixture
def before_audit(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[], object]], None]:
    """Return what makes a run do something once, after it wrote its shadow and before it audits it."""
    audit, todo = wap_run.audit, list[Callable[[], object]]()

    def late(*given: Any, **named: Any) -> Any:
        if todo:
            todo.pop()()
        return audit(*given, **named)

    monkeypatch.setattr(wap_run, "audit", late)
    return todo.append


def test_a_run_leaves_what_a_run_of_another_instance_is_about_to_audit(
    places: tuple[Place, Place], before_audit: Callable[[Callable[[], object]], None], read: Read
) -> None:
    staging, production = places
    staging.source.spoiled[DAY, 0] = -1.0
    runs: list[dg.ExecuteInProcessResult] = []

    def others() -> None:
        runs.append(staging.run())

    before_audit(others)
    assert production.run().success
    assert not runs[0].success
    assert read(LIVE) == [(3, 6.0)]
    assert green(production.instance, "events") == {DAY}
    assert green(staging.instance, "events") == set()
    assert "alone: this Dagster doesn't know run" in staging.logged(runs[0].run_id)


def test_retention_leaves_what_a_run_of_another_instance_works_on(
    places: tuple[Place, Place], before_audit: Callable[[Callable[[], object]], None], read: Read
) -> None:
    staging, production = places
    told: list[tuple[str, str]] = []
    before_audit(lambda: told.append(staging.retire()))
    assert production.run().success
    assert read(LIVE) == [(3, 6.0)]
    ((text, log),) = told
    assert "dropped nothing" in text
    assert "1 of them of runs that this Dagster doesn't know" in text
    assert "which was deleted, or goes on in another Dagster" in log
    assert read(SHADOWS) == []


def test_what_an_unknown_run_left_is_dropped_in_the_end(
    places: tuple[Place, Place], backend: Backend, read: Read
) -> None:
    staging, production = places
    production.source.spoiled[DAY, 0] = -1.0
    failed = production.run()
    assert not failed.success
    older = "UPDATE _safe_backfill_ledger SET recorded_at = recorded_at - INTERVAL '{}' DAY WHERE run_id = '{}'"
    backend.change(older.format(6, failed.run_id))
    # A row of today, so that the clock isn't in doubt.
    published = run_range(
        [production.asset], "2024-01-02", "2024-01-02", io_manager=backend.io_manager, instance=production.instance
    )
    assert published.success
    assert "dropped nothing" in staging.retire()[0]
    assert "would drop nothing" in staging.retire(unknown_run_days=3, shadow_days=7, dry_run=True)[0]
    assert "would drop main.events__shadow_" in staging.retire(unknown_run_days=3, dry_run=True)[0]
    assert len(read(SHADOWS)) == 1
    backend.change(older.format(2, failed.run_id))
    assert "dropped main.events__shadow_" in staging.retire()[0]
    assert read(SHADOWS) == []


def test_a_run_that_still_writes_keeps_what_it_made(places: tuple[Place, Place], backend: Backend, read: Read) -> None:
    """The last row of a run counts, and not that of its shadow: it may have staged a batch days ago, and go on."""
    staging, production = places
    production.source.spoiled[DAY, 0] = -1.0
    assert not production.run().success
    old = "event <> 'rejected'"
    backend.change(f"UPDATE _safe_backfill_ledger SET recorded_at = recorded_at - INTERVAL 30 DAY WHERE {old}")
    assert "dropped nothing" in staging.retire()[0]
    # Its own instance knows that it has ended.
    assert "dropped main.events__shadow_" in production.retire()[0]
    assert read(SHADOWS) == []


def test_days_are_checked_where_the_schedule_is_made() -> None:
    with pytest.raises(sb.ConfigurationError, match="unknown_run_days must be a number of days"):
        sb.build_retention_schedule([events(Source())], unknown_run_days=-1)


def test_a_run_that_goes_on_is_left_alone_by_its_own_instance(
    places: tuple[Place, Place], before_audit: Callable[[Callable[[], object]], None], read: Read
) -> None:
    _, production = places
    told: list[tuple[str, str]] = []
    before_audit(lambda: told.append(production.retire()))
    assert production.run().success
    assert "dropped nothing" in told[0][0]
    assert read(LIVE) == [(3, 6.0)]
