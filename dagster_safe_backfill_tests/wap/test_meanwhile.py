"""What happens while a batch is computed, and an error after a step that had committed: nothing is lost by either."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import dagster as dg
import pytest

import dagster_safe_backfill as sb
from dagster_safe_backfill.errors import WarehouseUnavailableError
from dagster_safe_backfill.model.tables import TableRef
from dagster_safe_backfill.runs import wap_run
from dagster_safe_backfill.warehouses.base import Session
from dagster_safe_backfill_tests.conftest import Read
from dagster_safe_backfill_tests.harness.assets import DAYS, Source, events, failure_of, run_key, run_range
from dagster_safe_backfill_tests.harness.backends import Backend
from dagster_safe_backfill_tests.runs.test_batches import FIVES, TWELVE, Runs, counts, shadows
from dagster_safe_backfill_tests.runs.test_staged import SIX, Shop

pytestmark = pytest.mark.every_warehouse

DAY = TWELVE[0]


class Fails:
    """Calls through, and then fails as often as it is told to, as if the reply had been lost."""

    def __init__(self, work: Callable[..., Any], times: int = 1) -> None:
        self.work, self.left, self.calls = work, times, 0

    def __call__(self, *args: Any, **options: Any) -> Any:
        self.calls += 1
        done = self.work(*args, **options)
        if self.left:
            self.left -= 1
            raise WarehouseUnavailableError("the reply was lost")
        return done


@pytest.fixture
def runs(io_manager: sb.RangeIOManager, instance: dg.DagsterInstance) -> Runs:
    return Runs(io_manager, instance)


@pytest.fixture
def shop(io_manager: sb.RangeIOManager, instance: dg.DagsterInstance) -> Shop:
    return Shop(io_manager, instance)


class TestALiveTableThatChangesWhileRowsAreComputed:
    def publish_another(self, runs: Runs, key: str = DAY, **options: Any) -> str:
        other = Source(rows_per_day=7)
        asset = events(other, **options)
        result = run_key([asset], key, io_manager=runs.io_manager, instance=runs.instance)
        assert result.success
        return result.run_id

    @pytest.mark.parametrize("is_first", [False, True], ids=["before: rows", "before: no table"])
    def test_a_publication_is_a_conflict_that_names_it(self, runs: Runs, read: Read, is_first: bool) -> None:
        if not is_first:
            assert runs.run(DAY, DAY).success
        by: list[str] = []
        runs.source.meanwhile = lambda: by.append(self.publish_another(runs))
        message = runs.fail(DAY, DAY)
        assert f"{DAY}: published by {by[0]}" in message
        assert counts(read) == {DAY: 7}

    def test_a_statement_by_hand_is_a_conflict(self, runs: Runs, read: Read, backend: Backend) -> None:
        assert runs.run(DAY, DAY).success
        runs.source.meanwhile = lambda: backend.change("UPDATE events SET value = 9 WHERE id = 0")
        assert "by no publication, so by hand" in runs.fail(DAY, DAY)
        assert read("SELECT value FROM events WHERE id = 0") == [(9.0,)]

    def test_other_partitions_may_change(self, runs: Runs, read: Read) -> None:
        assert runs.run(DAY, DAY).success
        runs.source.meanwhile = lambda: self.publish_another(runs, TWELVE[1])
        assert runs.run(DAY, DAY).success
        assert counts(read) == {DAY: 3, TWELVE[1]: 7}

    def test_a_column_that_comes_in_does_not_hide_a_change(self, runs: Runs, backend: Backend) -> None:
        assert runs.run(*TWELVE[:2]).success

        def altered() -> None:
            backend.change("ALTER TABLE events ADD COLUMN note VARCHAR")
            backend.change(f"UPDATE events SET value = 9 WHERE id = 0 AND day = '{TWELVE[1]}'")

        runs.source.meanwhile = altered
        message = runs.fail(*TWELVE[:2], publish=sb.Swap(on_schema_change="sync"))
        assert f"1 of the 2 partitions changed since they were computed ({TWELVE[1]}" in message

    def test_each_batch_looks_when_it_begins(self, runs: Runs, read: Read) -> None:
        """What went live before a batch was computed, it may know of."""
        assert runs.run().success
        runs.source.meanwhile = lambda: self.publish_another(runs, TWELVE[11])
        assert runs.run().success
        assert counts(read) == dict.fromkeys(TWELVE, 3)

    def test_it_may_be_overwritten(self, runs: Runs, read: Read) -> None:
        assert runs.run(DAY, DAY).success
        runs.source.meanwhile = lambda: self.publish_another(runs)
        assert runs.run(DAY, DAY, publish=sb.Merge(on_conflict="overwrite")).success
        assert counts(read) == {DAY: 3}


def test_an_upstream_that_changes_while_rows_are_computed_outdates_them(
    runs: Runs, instance: dg.DagsterInstance
) -> None:
    upstream = dg.AssetSpec("upstream", partitions_def=DAYS)
    runs.source.broken = {TWELVE[10]}
    runs.source.meanwhile = lambda: instance.report_runless_asset_event(
        dg.AssetMaterialization(upstream.key, partition=TWELVE[2])
    )
    assert "the source has no" in runs.fail(deps=[upstream], beside=[upstream])
    runs.source.broken = set()
    assert runs.rerun(deps=[upstream], beside=[upstream]).success
    assert runs.source.calls == [TWELVE[2:3], TWELVE[10:]]


class TestAStepThatIsDoneAgainAfterItHadCommitted:
    def test_collecting_what_was_taken_up(self, runs: Runs, read: Read, monkeypatch: pytest.MonkeyPatch) -> None:
        runs.source.broken = {TWELVE[10]}
        runs.fail()
        runs.source.broken = set()
        fails = Fails(wap_run.audit)
        monkeypatch.setattr(wap_run, "audit", fails)
        assert runs.rerun().success
        assert fails.calls > 2
        assert runs.source.calls == FIVES[2:]
        assert counts(read) == dict.fromkeys(TWELVE, 3)
        assert shadows(read) == []

    @pytest.mark.parametrize("publish_each", [False, True], ids=["run", "batch"])
    def test_publishing(self, runs: Runs, read: Read, monkeypatch: pytest.MonkeyPatch, publish_each: bool) -> None:
        fails = Fails(wap_run.publish)
        monkeypatch.setattr(wap_run, "publish", fails)
        assert runs.run(batches=sb.Batches(size=5, publish_each=publish_each)).success
        assert fails.left == 0
        assert counts(read) == dict.fromkeys(TWELVE, 3)
        assert runs.green == set(TWELVE)
        assert shadows(read) == []
        touched = read("SELECT sum(rows_inserted), sum(rows_updated + rows_deleted) FROM _safe_backfill_ledger")
        assert touched == [(36, 0)]

    def test_publishing_what_passes_of_a_batch(self, runs: Runs, read: Read, monkeypatch: pytest.MonkeyPatch) -> None:
        bad, *good = TWELVE
        runs.source.spoiled[bad, 0] = -1.0
        fails = Fails(wap_run.publish)
        monkeypatch.setattr(wap_run, "publish", fails)
        message = runs.fail(batches=sb.Batches(size=5, publish_each=True, canary=False))
        assert f"published 11 of 12 partitions, without {bad}" in message
        assert fails.calls == 1 + 3, "each of three batches, and the first again"
        assert counts(read) == dict.fromkeys(good, 3)
        assert [counts(read, name) for name in shadows(read)] == [{bad: 3}]

    def test_an_audit(
        self, io_manager: sb.RangeIOManager, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A verdict isn't lost to a moment in which the warehouse couldn't be reached."""
        with io_manager.warehouse().connect() as connection:
            kind = type(connection)
        query = kind.query
        failures: list[str] = []

        def flaky(self: Session, statement: Any) -> Any:
            sql = statement.sql(dialect=self.dialect.name)
            if "failing_marker" in sql and not failures:
                failures.append(sql)
                raise WarehouseUnavailableError("what is read can't be reached for now")
            return query(self, statement)

        monkeypatch.setattr(kind, "query", flaky)
        audits = [sb.failing_rows("SELECT * FROM batch WHERE value < 0 AND 'failing_marker' <> ''", name="x")]
        asset = events(Source(), audits=audits, limits=sb.Limits(retry_wait=0.0))
        result = run_range([asset], DAY, DAY, io_manager=io_manager, instance=instance)
        assert len(failures) == 1
        assert result.success, failure_of(result, "events")


def test_a_shadow_that_was_dropped_by_hand_is_named(shop: Shop, read: Read, backend: Backend) -> None:
    shop.stage(SIX[0], SIX[1])
    shop.audit()
    stages = shadows(read)
    backend.change(f"DROP TABLE {stages[0]}")
    message = shop.refused(SIX[0], SIX[1])
    assert stages[0] in message
    assert "doesn't exist any more" in message


def test_an_audit_of_a_scope_that_has_gone_live_takes_nothing_of_others(shop: Shop) -> None:
    everything = shop.run("shadow", "audit", "published", first=SIX[0])
    assert everything.success
    shop.stage(SIX[1])
    tags = {"dagster/root_run_id": everything.run_id, "dagster/parent_run_id": everything.run_id}
    assets = shop.assets()
    again = dg.materialize(
        [*assets],
        selection=[assets.audit],
        tags=tags,
        resources={"io_manager": shop.io_manager},
        instance=shop.instance,
        raise_on_error=False,
    )
    assert "nothing is staged that could be audited" in failure_of(again, "events__audit")
    assert "approved" not in _events_of(shop, SIX[1])


def _events_of(shop: Shop, key: str) -> list[str]:
    from dagster_safe_backfill.wap.ledger.waiting import staged_partitions

    with shop.io_manager.warehouse().connect(read_only=True) as connection:
        events = TableRef(schema="main", name="events")
        return [one.event for one in staged_partitions(connection, events, keys=[key])]


def test_no_two_runs_share_a_shadow() -> None:
    table = TableRef(schema="main", name="events")
    first, second = (table.shadow(f"0123456789ab-{i}") for i in (1, 2))
    assert first != second
