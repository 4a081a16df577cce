"""Runs that are cut into batches: what is computed, what goes live and when, and what a rerun takes up."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any

import dagster as dg
import pytest

import dagster_safe_backfill as sb
from dagster_safe_backfill.runs.partitions import slice_of_keys
from dagster_safe_backfill.runs.resume import cut
from dagster_safe_backfill.wap import publish
from dagster_safe_backfill_tests.conftest import Read
from dagster_safe_backfill_tests.harness.assets import (
    DAYS,
    Source,
    events,
    failure_of,
    green,
    metadata_by_partition,
    run_key,
    run_range,
)
from dagster_safe_backfill_tests.harness.backends import Backend

pytestmark = pytest.mark.every_warehouse

TWELVE = tuple(DAYS.get_partition_keys()[:12])
FIVES = [TWELVE[:5], TWELVE[5:10], TWELVE[10:]]


class Runs:
    """An asset in batches, and the runs of it."""

    def __init__(self, io_manager: sb.RangeIOManager, instance: dg.DagsterInstance, **options: Any) -> None:
        self.source = Source()
        self.io_manager = io_manager
        self.instance = instance
        self.options: dict[str, Any] = {"batches": 5, "limits": sb.Limits(retry_wait=0.0), **options}
        self.last: dg.DagsterRun | None = None

    def run(
        self,
        first: str = TWELVE[0],
        last: str = TWELVE[-1],
        *,
        again: dg.DagsterRun | None = None,
        from_failure: bool = True,
        beside: Sequence[dg.AssetSpec] = (),
        tags: Mapping[str, str] | None = None,
        **options: Any,
    ) -> dg.ExecuteInProcessResult:
        """Launch a run."""
        self.source.calls.clear()
        asset = events(self.source, **{**self.options, **options})
        result = run_range(
            [asset, *beside],
            first,
            last,
            io_manager=self.io_manager,
            instance=self.instance,
            again=again,
            from_failure=from_failure,
            tags=tags,
        )
        self.last = result.dagster_run
        return result

    def rerun(self, *args: str, **options: Any) -> dg.ExecuteInProcessResult:
        """Re-execute the last run."""
        return self.run(*args, again=self.last, **options)

    def fail(self, *args: str, **options: Any) -> str:
        """Run, and return why the run failed."""
        result = self.run(*args, **options)
        assert not result.success
        return failure_of(result, "events")

    @property
    def green(self) -> set[str]:
        return green(self.instance, "events")


@pytest.fixture
def runs(io_manager: sb.RangeIOManager, instance: dg.DagsterInstance) -> Runs:
    return Runs(io_manager, instance)


def counts(read: Read, table: str = "events") -> dict[str, int]:
    return dict(read(f"SELECT strftime(day, '%Y-%m-%d'), count(*) FROM {table} GROUP BY ALL ORDER BY 1"))


def shadows(read: Read) -> list[str]:
    rows = read("SELECT table_name FROM duckdb_tables() WHERE contains(table_name, '__shadow_') ORDER BY 1")
    return [row[0] for row in rows]


def observations(result: dg.ExecuteInProcessResult) -> list[dict[str, Any]]:
    return [
        {name: value.value for name, value in event.asset_observation_data.asset_observation.metadata.items()}
        for event in result.all_events
        if event.event_type_value == "ASSET_OBSERVATION"
    ]


@pytest.mark.parametrize(
    ("wanted", "size", "expected"),
    [
        ("abcdefg", 3, ["abc", "def", "g"]),
        ("abcdefg", None, ["abcdefg"]),
        ("abdefg", 3, ["ab", "def", "g"]),
        ("bdf", 3, ["b", "d", "f"]),
        ("abefg", None, ["ab", "efg"]),
        ("gfa", 2, ["a", "fg"]),
        ("", 2, []),
    ],
)
def test_batches_are_cut_at_their_size_and_at_gaps(wanted: str, size: int | None, expected: list[str]) -> None:
    whole = slice_of_keys(dg.StaticPartitionsDefinition([*"abcdefg"]), [*"abcdefg"])
    assert ["".join(piece.keys) for piece in cut(whole, [*wanted], size=size)] == expected


def test_the_function_is_called_for_each_batch_and_the_run_goes_live_once(runs: Runs, read: Read) -> None:
    result = runs.run()
    assert result.success
    assert runs.source.calls == FIVES
    assert counts(read) == dict.fromkeys(TWELVE, 3)
    assert runs.green == set(TWELVE)
    assert shadows(read) == []
    publications = read("SELECT DISTINCT publication_id FROM _safe_backfill_ledger WHERE event = 'published'")
    assert publications == [(result.run_id,)]
    numbers = metadata_by_partition(result, "events")
    assert {key: one["rows_inserted"] for key, one in numbers.items()} == dict.fromkeys(TWELVE, 3)
    assert [len(result.asset_materializations_for_node("events"))] == [12]


def test_progress_is_told_after_each_batch(runs: Runs) -> None:
    told = observations(runs.run())
    assert [(one["batch"], one["batches"], one["partitions_done"], one["rows_staged"]) for one in told] == [
        (1, 3, 5, 15),
        (2, 3, 10, 30),
        (3, 3, 12, 36),
    ]
    assert all(one["rows_per_second"] > 0 for one in told)
    assert told[0]["seconds_left"] > told[2]["seconds_left"] == 0


def test_a_run_of_one_batch_logs_no_event_of_its_own(runs: Runs) -> None:
    assert observations(runs.run(batches=12)) == []
    assert observations(runs.run(batches=None)) == []


def test_a_run_of_one_partition_is_one_batch(
    runs: Runs, io_manager: sb.RangeIOManager, instance: dg.DagsterInstance
) -> None:
    asset = events(runs.source, batches=5)
    assert run_key([asset], TWELVE[3], io_manager=io_manager, instance=instance).success
    assert runs.source.calls == [(TWELVE[3],)]


def test_again_changes_nothing(runs: Runs, read: Read) -> None:
    runs.run()
    result = runs.run()
    assert runs.source.calls == FIVES  # published, so there is nothing to take up
    assert {one["rows_unchanged"] for one in metadata_by_partition(result, "events").values()} == {3}


def test_a_rejected_batch_leaves_all_that_is_live(runs: Runs, read: Read) -> None:
    runs.source.spoiled[TWELVE[6], 1] = -1.0
    message = runs.fail()
    assert runs.source.calls == FIVES  # all bad partitions are found in one run
    assert "nothing was published" in message
    assert f"positive: 1 row failed in 1 of 12 partitions ({TWELVE[6]})" in message
    assert read("SELECT count(*) FROM duckdb_tables() WHERE table_name = 'events'") == [(0,)]
    assert runs.green == set()
    (rejected,) = [name for name in shadows(read) if name in message]
    assert counts(read, rejected) == dict.fromkeys(FIVES[1], 3)

    runs.source.spoiled.clear()
    assert runs.run().success
    assert runs.source.calls == FIVES
    assert counts(read) == dict.fromkeys(TWELVE, 3)


def test_the_first_batch_is_a_canary(runs: Runs) -> None:
    runs.source.spoiled |= {(TWELVE[1], 0): -1.0, (TWELVE[7], 0): -1.0}
    message = runs.fail()
    assert runs.source.calls == FIVES[:1]
    assert "The first batch failed, so 2 of 3 batches were not computed." in message

    message = runs.fail(batches=sb.Batches(size=5, canary=False))
    assert runs.source.calls == FIVES
    assert f"2 of 12 partitions ({TWELVE[1]}, {TWELVE[7]})" in message


def test_a_key_that_two_batches_compute_is_found(
    io_manager: sb.RangeIOManager, instance: dg.DagsterInstance, read: Read
) -> None:
    runs = Runs(io_manager, instance, unique_key=["id"], audits=[])
    runs.source.rows_per_day = 1
    message = runs.fail(batches=1)
    assert "unique_key: 12 rows failed in 12 of 12 partitions" in message
    assert read("SELECT count(*) FROM duckdb_tables() WHERE table_name = 'events'") == [(0,)]


def moving(moved: dict[str, int]) -> dg.AssetsDefinition:
    """An asset in batches of a day, whose row of each day has a key that may move to another day."""

    @sb.wap_asset(
        partitions_def=DAYS,
        partition_expr="day",
        unique_key=["id"],
        batches=1,
        backfill_policy=sb.single_run(),
    )
    def events(partitions: sb.PartitionSlice) -> sb.Query:
        (day,) = partitions.keys
        return sb.Query(f"SELECT DATE '{day}' AS day, {moved[day]} AS id")

    return events


def test_keys_may_move_between_batches(io_manager: sb.RangeIOManager, instance: dg.DagsterInstance, read: Read) -> None:
    keys = TWELVE[:3]
    for moved in ((1, 2, 3), (2, 3, 1)):
        asset = moving(dict(zip(keys, moved, strict=True)))
        result = run_range([asset], keys[0], keys[2], io_manager=io_manager, instance=instance)
        assert result.success
    assert read("SELECT id FROM events ORDER BY day") == [(2,), (3,), (1,)]
    # But not from a day that the run leaves as it is.
    asset = moving(dict(zip(keys, (2, 1, 3), strict=True)))
    result = run_range([asset], keys[0], keys[1], io_manager=io_manager, instance=instance)
    assert "unique_key: 1 row failed in 1 of 2 partitions" in failure_of(result, "events")


def test_rows_that_are_left_out_are_counted_over_all_batches(
    io_manager: sb.RangeIOManager, instance: dg.DagsterInstance, capfd: pytest.CaptureFixture[str]
) -> None:
    @sb.wap_asset(
        partitions_def=DAYS,
        partition_expr="day",
        unique_key=["id"],
        batches=1,
        table=sb.TableOptions(on_outside="drop"),
        backfill_policy=sb.single_run(),
    )
    def events(partitions: sb.PartitionSlice) -> sb.Query:
        day = DAYS.get_partition_keys().index(partitions.keys[0])
        numbers = f"SELECT {day} AS i UNION ALL SELECT {day + 20}"
        return sb.Query(f"SELECT DATE '2024-01-01' + i AS day, i AS id FROM ({numbers}) AS t")

    assert run_range([events], TWELVE[0], TWELVE[2], io_manager=io_manager, instance=instance).success
    assert "left out 3 rows outside" in capfd.readouterr().err


def test_audits_over_the_run_see_all_batches(io_manager: sb.RangeIOManager, instance: dg.DagsterInstance) -> None:
    of_run = sb.row_count_between(36, 36, over="run")
    runs = Runs(io_manager, instance, audits=[of_run, sb.expression("value > 0", name="positive")])
    result = runs.run()
    assert result.success
    by_name = {check.check_name: check for check in result.get_asset_check_evaluations()}
    assert by_name[of_run.name].metadata["value"].value == 36
    assert {check.passed for check in by_name.values()} == {True}
    assert by_name["positive"].metadata["partitions"].value == 12

    runs.source.rows_per_day = 2
    assert "row_count_between" in runs.fail()


class TestResuming:
    def broken_off(self, runs: Runs, error: type[Exception] = RuntimeError, **options: Any) -> str:
        """A run that breaks in its last batch."""
        runs.source.broken, runs.source.error = {TWELVE[10]}, error
        message = runs.fail(**options)
        assert "the source has no" in message
        runs.source.broken = set()
        return message

    def test_a_re_execution_computes_what_is_missing(self, runs: Runs, read: Read) -> None:
        self.broken_off(runs)
        assert runs.green == set()
        assert len(shadows(read)) == 2
        assert runs.rerun().success
        assert runs.source.calls == FIVES[2:]
        assert counts(read) == dict.fromkeys(TWELVE, 3)
        assert runs.green == set(TWELVE)
        assert shadows(read) == []

    def test_a_re_execution_of_a_re_execution_as_well(self, runs: Runs, read: Read) -> None:
        self.broken_off(runs)
        self.broken_off(runs, again=runs.last)
        assert runs.source.calls == FIVES[2:]
        assert runs.rerun().success
        assert runs.source.calls == FIVES[2:]
        assert counts(read) == dict.fromkeys(TWELVE, 3)
        assert shadows(read) == []

    def test_a_retry_of_the_step_computes_what_is_missing(self, runs: Runs, read: Read) -> None:
        runs.source.broken, runs.source.mends_itself = {TWELVE[10]}, True
        assert runs.run(retry_policy=dg.RetryPolicy(max_retries=1)).success
        assert runs.source.calls == [*FIVES, FIVES[2]]
        assert counts(read) == dict.fromkeys(TWELVE, 3)
        assert shadows(read) == []

    def test_a_re_execution_of_its_backfill_computes_what_is_missing(self, runs: Runs) -> None:
        tags = {"dagster/backfill": "first"}
        self.broken_off(runs, ConnectionError, tags=tags)
        assert runs.run(tags={"dagster/backfill": "again", "dagster/root_backfill_id": "first"}).success
        assert runs.source.calls == FIVES[2:]

    def test_a_new_launch_goes_on_after_an_interruption(self, runs: Runs, read: Read) -> None:
        self.broken_off(runs, ConnectionError)
        assert runs.run().success
        assert runs.source.calls == FIVES[2:]
        assert counts(read) == dict.fromkeys(TWELVE, 3)
        assert shadows(read) == []

    def test_not_for_longer_than_it_is_allowed_to(self, runs: Runs, capfd: pytest.CaptureFixture[str]) -> None:
        self.broken_off(runs, ConnectionError)
        batches = sb.Batches(size=5, resume_within=timedelta(microseconds=1))
        assert runs.run(batches=batches).success
        assert runs.source.calls == FIVES
        assert "and resume_within is over" in capfd.readouterr().err

    def test_a_new_launch_computes_all(self, runs: Runs, read: Read, capfd: pytest.CaptureFixture[str]) -> None:
        self.broken_off(runs, tags={"dagster/backfill": "first"})
        first = runs.last
        assert first is not None
        runs.source.rows_per_day = 4
        assert runs.run(tags={"dagster/backfill": "second"}).success
        assert runs.source.calls == FIVES
        assert counts(read) == dict.fromkeys(TWELVE, 4)
        assert f"computed again: run {first.run_id}, which staged them, failed" in capfd.readouterr().err

    @pytest.mark.parametrize("is_again", [False, True], ids=["launched", "re-executed"])
    @pytest.mark.parametrize("canary", [False, True])
    def test_nothing_is_taken_up_of_a_run_that_was_rejected(
        self, runs: Runs, read: Read, capfd: pytest.CaptureFixture[str], is_again: bool, canary: bool
    ) -> None:
        """Its source is mended: what had passed the audits was computed from the same bad source."""
        runs.source.rows_per_day = 2
        runs.source.spoiled[TWELVE[11], 1] = -1.0
        assert "run the partitions again: all partitions that are not live are computed again" in runs.fail(
            batches=sb.Batches(size=5, canary=canary)
        )
        rejected = runs.last
        assert rejected is not None
        runs.source.rows_per_day = 3
        runs.source.spoiled.clear()
        assert runs.run(again=rejected if is_again else None, from_failure=False).success
        assert runs.source.calls == FIVES
        assert counts(read) == dict.fromkeys(TWELVE, 3)
        assert runs.green == set(TWELVE)
        assert "computed again: audits rejected rows of the table after these were computed" in capfd.readouterr().err

    @pytest.mark.parametrize("by", ["from failure", "always"])
    def test_what_passed_beside_a_rejected_batch_is_reused_if_asked(self, runs: Runs, read: Read, by: str) -> None:
        runs.source.spoiled[TWELVE[11], 1] = -1.0
        runs.fail()
        rejected = runs.last
        runs.source.spoiled.clear()
        if by == "always":
            assert runs.run(batches=sb.Batches(size=5, resume="always")).success
        else:
            assert runs.run(again=rejected).success
        assert runs.source.calls == FIVES[2:]
        assert counts(read) == dict.fromkeys(TWELVE, 3)

    def test_nothing_of_a_part_that_an_interrupted_run_staged_before_another_was_rejected(
        self, runs: Runs, read: Read
    ) -> None:
        """The source was fixed because of the second run, and the first had computed from it as well."""
        runs.source.rows_per_day = 2
        self.broken_off(runs, ConnectionError)
        runs.source.spoiled[TWELVE[11], 1] = -1.0
        runs.fail(TWELVE[11], TWELVE[11])
        runs.source.rows_per_day = 3
        runs.source.spoiled.clear()
        assert runs.run().success
        assert runs.source.calls == FIVES
        assert counts(read) == dict.fromkeys(TWELVE, 3)

    def test_nothing_that_a_rejected_re_execution_had_taken_up(self, runs: Runs, read: Read) -> None:
        runs.source.rows_per_day = 2
        self.broken_off(runs)
        runs.source.spoiled[TWELVE[11], 1] = -1.0
        runs.fail(again=runs.last)
        assert runs.source.calls == FIVES[2:]
        runs.source.rows_per_day = 3
        runs.source.spoiled.clear()
        assert runs.rerun(from_failure=False).success
        assert runs.source.calls == FIVES
        assert counts(read) == dict.fromkeys(TWELVE, 3)

    def test_nothing_that_a_rejected_run_had_computed_and_a_killed_one_has_staged(self, runs: Runs, read: Read) -> None:
        runs.source.rows_per_day = 2
        runs.source.spoiled[TWELVE[11], 1] = -1.0
        runs.fail()
        self.broken_off(runs, ConnectionError, again=runs.last)
        assert runs.source.calls[0] == FIVES[2]
        runs.source.rows_per_day = 3
        runs.source.spoiled.clear()
        assert runs.run().success
        assert runs.source.calls == FIVES
        assert counts(read) == dict.fromkeys(TWELVE, 3)

    def test_not_of_a_run_that_dagster_has_forgotten(self, runs: Runs, instance: dg.DagsterInstance) -> None:
        self.broken_off(runs)
        assert runs.last is not None
        instance.delete_run(runs.last.run_id)
        assert runs.rerun().success
        assert runs.source.calls == FIVES

    def test_a_re_execution_of_a_part_takes_up_that_part(self, runs: Runs, read: Read) -> None:
        self.broken_off(runs)
        assert runs.rerun(TWELVE[3], TWELVE[10]).success
        assert runs.source.calls == [TWELVE[10:11]]
        assert counts(read) == dict.fromkeys(TWELVE[3:11], 3)
        # The first three still wait in their shadow; what was published is computed anew, as after any run.
        assert runs.rerun().success
        assert runs.source.calls == [TWELVE[3:8], TWELVE[8:]]
        assert counts(read) == dict.fromkeys(TWELVE, 3)
        assert shadows(read) == []

    def test_checks_tell_of_what_is_taken_up_as_well(self, runs: Runs) -> None:
        self.broken_off(runs)
        checks = runs.rerun().get_asset_check_evaluations()
        assert {check.metadata["partitions"].value for check in checks} == {12}

    def test_not_if_it_is_not_wanted(self, runs: Runs) -> None:
        self.broken_off(runs)
        assert runs.rerun(batches=sb.Batches(size=5, resume=False)).success
        assert runs.source.calls == FIVES

    def test_not_what_other_code_computed(self, runs: Runs, capfd: pytest.CaptureFixture[str]) -> None:
        self.broken_off(runs, code_version="1")
        assert runs.rerun(code_version="2").success
        assert runs.source.calls == FIVES
        assert "the code changed from code_version 1 to code_version 2" in capfd.readouterr().err

    def test_not_what_live_has_overtaken(self, runs: Runs, read: Read) -> None:
        runs.run()
        runs.source.spoiled[TWELVE[0], 0] = 7.0
        self.broken_off(runs)
        read(f"UPDATE events SET value = 9 WHERE day = '{TWELVE[1]}' AND id = 0")
        assert runs.rerun().success
        assert runs.source.calls == [TWELVE[1:2], TWELVE[10:]]
        assert read("SELECT DISTINCT value FROM events WHERE id = 0 ORDER BY 1") == [(1.0,), (7.0,)]

    def test_not_what_is_outdated_upstream(self, runs: Runs, instance: dg.DagsterInstance) -> None:
        upstream = dg.AssetSpec("upstream", partitions_def=DAYS)
        self.broken_off(runs, deps=[upstream], beside=[upstream])
        instance.report_runless_asset_event(dg.AssetMaterialization(upstream.key, partition=TWELVE[2]))
        instance.report_runless_asset_event(dg.AssetMaterialization(upstream.key, partition="2024-02-20"))
        assert runs.rerun(deps=[upstream], beside=[upstream]).success
        assert runs.source.calls == [TWELVE[2:3], TWELVE[10:]]

    def test_nothing_if_the_partitions_of_what_is_new_upstream_are_not_known(
        self, runs: Runs, instance: dg.DagsterInstance
    ) -> None:
        upstream = dg.AssetKey("upstream")
        self.broken_off(runs, deps=[upstream])
        instance.report_runless_asset_event(dg.AssetMaterialization(upstream, partition=TWELVE[2]))
        assert runs.rerun(deps=[upstream]).success
        assert runs.source.calls == FIVES

    def test_nothing_if_all_upstream_is_new(self, runs: Runs, instance: dg.DagsterInstance) -> None:
        upstream = dg.AssetKey("upstream")
        self.broken_off(runs, deps=[upstream])
        instance.report_runless_asset_event(dg.AssetMaterialization(upstream))
        assert runs.rerun(deps=[upstream]).success
        assert runs.source.calls == FIVES

    def test_not_what_was_published_since(self, runs: Runs, read: Read) -> None:
        runs.run()
        self.broken_off(runs)
        assert runs.rerun(TWELVE[0], TWELVE[1]).success
        assert runs.source.calls == []  # taken up
        assert runs.rerun(TWELVE[0], TWELVE[1]).success
        assert runs.source.calls == [TWELVE[:2]]

    def test_a_shadow_that_somebody_changed_is_computed_again(self, runs: Runs, read: Read) -> None:
        self.broken_off(runs)
        read(f"DELETE FROM {shadows(read)[0]} WHERE id = 0")
        result = runs.run(again=runs.last)
        assert result.success
        assert any("somebody changed it" in entry.user_message for entry in runs.instance.all_logs(result.run_id))


def unpublished(runs: Runs, monkeypatch: pytest.MonkeyPatch, **options: Any) -> None:
    """Run, and break the run off in the publication of its second batch."""
    publications = iter([True, False])

    def record_change(*args: Any, **arguments: Any) -> None:
        if not next(publications, True):
            raise RuntimeError("the process is gone")
        real(*args, **arguments)

    real = publish.record_change
    monkeypatch.setattr(publish, "record_change", record_change)
    result = runs.run(**options)
    assert result.success == ("retry_policy" in options)


class TestPublishingByBatch:
    @pytest.fixture
    def runs(self, io_manager: sb.RangeIOManager, instance: dg.DagsterInstance) -> Runs:
        return Runs(io_manager, instance, batches=sb.Batches(size=5, publish_each=True))

    def test_each_batch_is_a_publication(self, runs: Runs, read: Read) -> None:
        result = runs.run()
        assert result.success
        published = read(
            "SELECT publication_id, count(*) FROM _safe_backfill_ledger WHERE event = 'published'"
            " GROUP BY ALL ORDER BY 1"
        )
        assert published == [(f"{result.run_id}.{i}", len(batch)) for i, batch in enumerate(FIVES, start=1)]
        assert counts(read) == dict.fromkeys(TWELVE, 3)
        assert shadows(read) == []

    def test_what_passes_is_live_though_the_rest_fails(self, runs: Runs, read: Read) -> None:
        bad = [TWELVE[2], TWELVE[6], TWELVE[7]]
        runs.source.spoiled |= {(key, 0): -1.0 for key in bad}
        good = [key for key in TWELVE if key not in bad]
        message = runs.fail(batches=sb.Batches(size=5, publish_each=True, canary=False))
        assert f"published 9 of 12 partitions, without {', '.join(bad)}" in message
        assert counts(read) == dict.fromkeys(good, 3)
        assert runs.green == set(good)
        left = [counts(read, name) for name in shadows(read)]
        assert left == [{bad[0]: 3}, dict.fromkeys(bad[1:], 3)]

        runs.source.spoiled.clear()
        assert runs.run(bad[1], bad[2]).success
        assert runs.source.calls == [tuple(bad[1:])]
        assert runs.run(bad[0], bad[0]).success
        assert counts(read) == dict.fromkeys(TWELVE, 3)
        assert runs.green == set(TWELVE)

    def test_a_canary_publishes_what_passes_of_it_and_stops(self, runs: Runs, read: Read) -> None:
        runs.source.spoiled[TWELVE[0], 0] = -1.0
        message = runs.fail()
        assert "published 4 of 12 partitions" in message
        assert "The first batch failed, so 7 more were not computed." in message
        assert runs.green == set(TWELVE[1:5])

    def test_an_error_keeps_what_was_published_before(self, runs: Runs, read: Read) -> None:
        runs.source.broken = {TWELVE[10]}
        assert "the source has no" in runs.fail()
        assert counts(read) == dict.fromkeys(TWELVE[:10], 3)
        assert runs.green == set(TWELVE[:10])

    def test_a_re_execution_takes_up_what_was_audited_and_not_published(
        self, runs: Runs, read: Read, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        unpublished(runs, monkeypatch)
        assert runs.rerun().success
        assert runs.source.calls == [FIVES[2]]
        assert counts(read) == dict.fromkeys(TWELVE, 3)
        assert runs.green == set(TWELVE)
        assert shadows(read) == []

    def test_so_does_a_retry_of_the_step(self, runs: Runs, read: Read, monkeypatch: pytest.MonkeyPatch) -> None:
        unpublished(runs, monkeypatch, retry_policy=dg.RetryPolicy(max_retries=1))
        assert runs.source.calls == FIVES
        assert counts(read) == dict.fromkeys(TWELVE, 3)
        assert shadows(read) == []

    def test_a_new_launch_computes_all(self, runs: Runs, read: Read, monkeypatch: pytest.MonkeyPatch) -> None:
        runs.source.rows_per_day = 2
        unpublished(runs, monkeypatch)
        runs.source.rows_per_day = 3
        assert runs.run().success
        assert runs.source.calls == FIVES
        assert counts(read) == dict.fromkeys(TWELVE, 3)

    @pytest.mark.parametrize("is_again", [False, True], ids=["launched", "re-executed"])
    def test_after_a_rejection_what_was_published_stays_and_the_rest_is_computed(
        self, runs: Runs, read: Read, monkeypatch: pytest.MonkeyPatch, is_again: bool
    ) -> None:
        runs.source.rows_per_day = 2
        runs.source.spoiled[TWELVE[0], 0] = -1.0
        unpublished(runs, monkeypatch, batches=sb.Batches(size=5, publish_each=True, canary=False))
        assert counts(read) == dict.fromkeys(TWELVE[1:5], 2)
        runs.source.rows_per_day = 3
        runs.source.spoiled.clear()
        again = runs.last if is_again else None
        assert runs.run(TWELVE[5], TWELVE[9], again=again, from_failure=False).success
        assert runs.source.calls == [FIVES[1]]
        assert counts(read) == {**dict.fromkeys(TWELVE[1:5], 2), **dict.fromkeys(FIVES[1], 3)}

    def test_a_batch_of_nothing_good_publishes_nothing(self, runs: Runs, read: Read) -> None:
        runs.source.spoiled |= {(key, 0): -1.0 for key in FIVES[2]}
        assert "published 10 of 12" in runs.fail()
        assert counts(read) == dict.fromkeys(TWELVE[:10], 3)


def test_batches_need_the_columns_of_the_first(
    backend: Backend, io_manager: sb.RangeIOManager, instance: dg.DagsterInstance
) -> None:
    @sb.wap_asset(partitions_def=DAYS, partition_expr="day", batches=1, backfill_policy=sb.single_run())
    def events(partitions: sb.PartitionSlice) -> sb.Query:
        value = "1" if partitions.keys == TWELVE[:1] else "'one'"
        return sb.Query(f"SELECT DATE '{partitions.keys[0]}' AS day, {value} AS value")

    result = run_range([events], TWELVE[0], TWELVE[1], io_manager=io_manager, instance=instance)
    number = backend.own(duckdb="INTEGER", snowflake="NUMBER(38,0)")
    assert f"value is VARCHAR, but {number} in the table" in failure_of(result, "events")


@pytest.mark.parametrize("strategy", ["merge", "replace", "swap"])
def test_every_strategy_publishes_what_was_collected(runs: Runs, read: Read, strategy: str) -> None:
    runs.run(publish=strategy)
    runs.source.spoiled[TWELVE[4], 2] = 9.0
    assert runs.run(publish=strategy).success
    assert counts(read) == dict.fromkeys(TWELVE, 3)
    assert read("SELECT strftime(day, '%Y-%m-%d'), id FROM events WHERE value = 9") == [(TWELVE[4], 2)]
