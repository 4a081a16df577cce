"""What automation asks for while a backfill is open, and after it: tick by tick, on real instances."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from typing import Any

import dagster as dg
import pytest
from dagster._core.execution.api import create_execution_plan
from dagster._core.execution.backfill import BulkActionStatus

import dagster_safe_backfill as sb
from dagster_safe_backfill_tests.harness.backfills import BACKFILL, OpenBackfill

DAYS = dg.DailyPartitionsDefinition("2024-01-01", end_date="2024-01-11")
ONE, TWO, THREE = KEYS = DAYS.get_partition_keys()[:3]
ANY_UPDATED = dg.AutomationCondition.any_deps_updated()
WHOLE = {None}
"""What is asked for of an unpartitioned asset."""

Asset = dg.AssetsDefinition | dg.AssetSpec


@dg.asset(partitions_def=DAYS)
def table() -> None:
    """What is backfilled."""


def reader(condition: dg.AutomationCondition[Any], *, name: str = "reader", **options: Any) -> dg.AssetsDefinition:
    """Return an asset that reads the table, unpartitioned if not told otherwise."""

    @dg.asset(**{"name": name, "deps": [table], "automation_condition": condition} | options)
    def _reader() -> None: ...

    return _reader


class Ticks:
    """The automation of some assets, one evaluation after another."""

    def __init__(self, instance: dg.DagsterInstance, *assets: Asset) -> None:
        self._instance = instance
        self._assets = assets
        self._cursor: Any = None
        self.time: datetime | None = None
        # Without any event before the first tick, Dagster finds no updates by a run's tags at the second.
        instance.report_runless_asset_event(dg.AssetMaterialization("something"))
        assert self.tick() == set()

    def tick(self, asset: str = "reader") -> set[str | None]:
        """Return the partitions that are asked for now."""
        result = dg.evaluate_automation_conditions(
            dg.Definitions(assets=list(self._assets)),
            self._instance,
            cursor=self._cursor,
            evaluation_time=self.time,
        )
        self._cursor = result.cursor
        return set(result.get_requested_partitions(dg.AssetKey(asset)))

    def update(self, key: str | None, *, asset: str = "table", by: str | None = None) -> None:
        """Materialize a partition by a run of its own, of a backfill if one is named."""
        tags = {BACKFILL: by} if by else {}
        found = next(found for found in self._assets if found.key == dg.AssetKey(asset))
        dg.materialize([found], instance=self._instance, partition_key=key, tags=tags, selection=[asset])


@pytest.fixture
def paused(instance: dg.DagsterInstance) -> Ticks:
    return Ticks(instance, table, reader(sb.pause_during_backfill(ANY_UPDATED)))


def test_without_a_backfill_nothing_changes(paused: Ticks) -> None:
    for key in (ONE, TWO):
        paused.update(key)
        assert paused.tick() == WHOLE
        assert paused.tick() == set()
    paused.update(ONE)
    assert paused.tick() == WHOLE
    paused.update(ONE)
    assert paused.tick() == WHOLE


def test_what_reads_a_backfilled_table_waits_and_is_asked_for_once(instance: dg.DagsterInstance, paused: Ticks) -> None:
    backfill = OpenBackfill(instance, [table], {"table": KEYS})
    for key in KEYS:
        paused.update(key, by=backfill.id)
        assert paused.tick() == set()
        backfill.done({"table": [key]}) if key != THREE else backfill.end()
    assert paused.tick() == WHOLE
    assert [paused.tick() for _ in range(3)] == [set()] * 3


def test_unpaused_it_is_asked_for_at_each_partition(instance: dg.DagsterInstance) -> None:
    """The control: what the pause is for."""
    ticks = Ticks(instance, table, reader(ANY_UPDATED))
    backfill = OpenBackfill(instance, [table], {"table": KEYS})
    asked = []
    for key in KEYS:
        ticks.update(key, by=backfill.id)
        asked.append(ticks.tick())
    assert asked == [WHOLE] * 3


def test_dagsters_own_way_forgets(instance: dg.DagsterInstance) -> None:
    """The control: why the pause is more than `& ~any_deps_match(backfill_in_progress())`."""
    held = dg.AutomationCondition.any_deps_match(dg.AutomationCondition.backfill_in_progress())
    ticks = Ticks(instance, table, reader(ANY_UPDATED & ~held))
    backfill = OpenBackfill(instance, [table], {"table": [ONE]})
    ticks.update(ONE, by=backfill.id)
    assert ticks.tick() == set()
    backfill.end()
    assert ticks.tick() == set()


@pytest.mark.parametrize(
    "status", [BulkActionStatus.COMPLETED_FAILED, BulkActionStatus.CANCELED, BulkActionStatus.FAILED]
)
def test_a_backfill_that_ends_badly_has_ended(
    instance: dg.DagsterInstance, paused: Ticks, status: BulkActionStatus
) -> None:
    backfill = OpenBackfill(instance, [table], {"table": KEYS})
    paused.update(ONE, by=backfill.id)
    assert paused.tick() == set()
    backfill.end(status)
    assert paused.tick() == WHOLE


def test_a_backfill_that_changed_nothing_leaves_nothing_to_do(instance: dg.DagsterInstance, paused: Ticks) -> None:
    backfill = OpenBackfill(instance, [table], {"table": KEYS})
    assert paused.tick() == set()
    backfill.end()
    assert paused.tick() == set()


def test_a_partition_waits_for_the_partitions_that_it_reads(instance: dg.DagsterInstance) -> None:
    ticks = Ticks(instance, table, reader(sb.pause_during_backfill(ANY_UPDATED), partitions_def=DAYS))
    backfill = OpenBackfill(instance, [table], {"table": [ONE, TWO]})
    ticks.update(ONE, by=backfill.id)
    ticks.update(THREE)
    assert ticks.tick() == {THREE}
    backfill.done({"table": [ONE]})
    assert ticks.tick() == {ONE}
    backfill.failed({"table": [TWO]})
    assert ticks.tick() == set()
    backfill.end()
    assert ticks.tick() == set()


def test_a_window_waits_for_all_of_its_partitions(instance: dg.DagsterInstance) -> None:
    window = dg.TimeWindowPartitionMapping(start_offset=-1, end_offset=0)
    deps = [dg.AssetDep(table, partition_mapping=window)]
    ticks = Ticks(instance, table, reader(sb.pause_during_backfill(ANY_UPDATED), partitions_def=DAYS, deps=deps))
    backfill = OpenBackfill(instance, [table], {"table": [TWO, THREE]})
    ticks.update(TWO, by=backfill.id)
    backfill.done({"table": [TWO]})
    assert ticks.tick() == {TWO}
    ticks.update(THREE, by=backfill.id)
    backfill.end()
    assert ticks.tick() == {THREE, DAYS.get_partition_keys()[3]}


def test_a_cron_tick_in_the_middle_is_not_lost(instance: dg.DagsterInstance) -> None:
    noon = datetime(2024, 1, 20, 12, tzinfo=timezone.utc)
    cron = dg.AutomationCondition.cron_tick_passed("0 13 * * *")
    ticks = Ticks(instance, table, reader(sb.pause_during_backfill(cron)))
    ticks.time = noon
    assert ticks.tick() == set()
    backfill = OpenBackfill(instance, [table], {"table": KEYS})
    for hours in (2, 26):  # two cron ticks
        ticks.time = noon + timedelta(hours=hours)
        assert ticks.tick() == set()
    backfill.end()
    ticks.time = noon + timedelta(hours=27)
    assert ticks.tick() == WHOLE
    ticks.time = noon + timedelta(hours=28)
    assert ticks.tick() == set()


def test_eager_remembers_by_itself_and_is_not_doubled(instance: dg.DagsterInstance) -> None:
    ticks = Ticks(instance, table, reader(sb.pause_during_backfill(dg.AutomationCondition.eager())))
    for key in DAYS.get_partition_keys():
        ticks.update(key)
    assert ticks.tick() == WHOLE
    assert ticks.tick() == set()
    backfill = OpenBackfill(instance, [table], {"table": KEYS})
    ticks.update(ONE, by=backfill.id)
    assert ticks.tick() == set()
    backfill.end()
    assert ticks.tick() == WHOLE
    assert [ticks.tick() for _ in range(2)] == [set()] * 2


def test_on_cron_waits_for_the_backfill(instance: dg.DagsterInstance) -> None:
    ticks = Ticks(instance, table, reader(sb.pause_during_backfill(dg.AutomationCondition.on_cron("0 * * * *"))))
    hour = datetime.now(timezone.utc).replace(minute=0, second=0) + timedelta(hours=1)
    backfill = OpenBackfill(instance, [table], {"table": KEYS})
    for hours in range(2):
        ticks.time = hour + timedelta(hours=hours, minutes=1)
        assert ticks.tick() == set()
        ticks.update(ONE, by=backfill.id)
        ticks.time = hour + timedelta(hours=hours, minutes=2)
        assert ticks.tick() == set()
    ticks.time = hour + timedelta(hours=2, minutes=1)
    assert ticks.tick() == set()
    backfill.end()
    assert ticks.tick() == WHOLE
    assert [ticks.tick() for _ in range(2)] == [set()] * 2


def test_what_the_backfill_itself_materializes_is_not_asked_for_again(instance: dg.DagsterInstance) -> None:
    follower = reader(sb.pause_during_backfill(ANY_UPDATED), partitions_def=DAYS)
    ticks = Ticks(instance, table, follower)
    backfill = OpenBackfill(instance, [table, follower], {"table": [ONE, TWO], "reader": [ONE, TWO]})
    for key in (ONE, TWO):
        ticks.update(key, by=backfill.id)
        backfill.done({"table": [key]})
        if key == ONE:
            assert ticks.tick() == set(), "the backfill is about to do it"
        ticks.update(key, asset="reader", by=backfill.id)  # of the second key, both in one tick
        assert ticks.tick() == set()
        backfill.done({"reader": [key]})
    backfill.end()
    assert [ticks.tick() for _ in range(2)] == [set()] * 2


def test_a_table_that_changes_after_the_backfill_has_read_it_is_not_forgotten(instance: dg.DagsterInstance) -> None:
    follower = reader(sb.pause_during_backfill(ANY_UPDATED))
    ticks = Ticks(instance, table, follower)
    backfill = OpenBackfill(instance, [table, follower], {"table": [ONE], "reader": None})
    ticks.update(ONE, by=backfill.id)
    backfill.done({"table": [ONE]})
    ticks.update(None, asset="reader", by=backfill.id)
    ticks.update(TWO)
    assert ticks.tick() == set(), "the daemon has not seen yet that the backfill is done"
    backfill.end()
    assert ticks.tick() == WHOLE
    assert ticks.tick() == set()


def test_a_run_by_hand_in_the_middle_does_not_count(instance: dg.DagsterInstance, paused: Ticks) -> None:
    backfill = OpenBackfill(instance, [table], {"table": KEYS})
    paused.update(ONE, by=backfill.id)
    assert paused.tick() == set()
    paused.update(None, asset="reader")
    assert paused.tick() == set()
    backfill.end()
    assert paused.tick() == WHOLE
    assert paused.tick() == set()


def test_a_second_backfill_right_after_the_first_is_not_forgotten(instance: dg.DagsterInstance, paused: Ticks) -> None:
    first = OpenBackfill(instance, [table], {"table": [ONE]}, backfill_id="first")
    paused.update(ONE, by=first.id)
    assert paused.tick() == set()
    first.end()
    assert paused.tick() == WHOLE
    # Before the next tick: what `since` would take for the update that has just been handled.
    second = OpenBackfill(instance, [table], {"table": [TWO]}, backfill_id="second")
    paused.update(TWO, by=second.id)
    assert paused.tick() == set()
    second.end()
    assert paused.tick() == WHOLE
    assert paused.tick() == set()


def test_three_assets_hold_their_readers_until_the_last_is_published(instance: dg.DagsterInstance) -> None:
    shadow = dg.AssetSpec("table__shadow", partitions_def=DAYS)
    audit = dg.AssetSpec("table__audit", deps=[shadow])

    @dg.asset(name="table", partitions_def=DAYS, deps=[shadow, audit])
    def published() -> None: ...

    group = [shadow, audit, published]
    ticks = Ticks(instance, *group, reader(sb.pause_during_backfill(ANY_UPDATED), deps=[published]))
    backfill = OpenBackfill(instance, group, {"table__shadow": KEYS, "table__audit": None, "table": KEYS})
    ticks.update(THREE)  # by somebody else
    assert ticks.tick() == set()
    backfill.done({"table__shadow": KEYS, "table__audit": None})
    assert ticks.tick() == set()
    for key in KEYS:
        ticks.update(key, by=backfill.id)
    assert ticks.tick() == set()
    backfill.done({"table": KEYS})
    assert ticks.tick() == WHOLE
    backfill.end()
    assert ticks.tick() == set()


def test_a_table_of_another_code_location(instance: dg.DagsterInstance) -> None:
    """As a sensor with `use_user_code_server=True` sees it: by its spec, and without the backfill's other assets."""
    spec = dg.AssetSpec("table", partitions_def=DAYS)

    @dg.asset(partitions_def=DAYS, deps=[spec])
    def foreign() -> None: ...

    ticks = Ticks(instance, spec, reader(sb.pause_during_backfill(ANY_UPDATED), deps=[spec]))
    backfill = OpenBackfill(instance, [table, foreign], {"table": KEYS, "foreign": KEYS})
    instance.report_runless_asset_event(dg.AssetMaterialization("table", partition=ONE))
    assert ticks.tick() == set()
    backfill.end()
    assert ticks.tick() == WHOLE


def test_runs_are_waited_for_where_dagsters_condition_is_added(instance: dg.DagsterInstance) -> None:
    """For `dagster job backfill`, which submits its runs and then records a backfill that is completed."""
    condition = sb.pause_during_backfill(ANY_UPDATED) & ~dg.AutomationCondition.any_deps_in_progress()
    ticks = Ticks(instance, table, reader(condition))
    submitted = _submitted_run(instance, TWO)
    ticks.update(ONE, by="cli")
    assert ticks.tick() == set()
    assert ticks.tick() == set()
    instance.report_run_canceled(submitted)
    assert ticks.tick() == WHOLE
    assert ticks.tick() == set()


def _submitted_run(instance: dg.DagsterInstance, key: str) -> dg.DagsterRun:
    job = dg.Definitions(assets=[table]).resolve_implicit_global_asset_job_def()
    return instance.create_run_for_job(
        job,
        asset_selection=frozenset({table.key}),
        tags={"dagster/partition": key, BACKFILL: "cli"},
        execution_plan=create_execution_plan(job),
    )


def test_the_daemon_can_evaluate_it() -> None:
    """Conditions of one's own need a sensor that runs in the code server; these don't."""
    assert sb.pause_during_backfill(dg.AutomationCondition.eager()).is_serializable
