"""Runs of a planned backfill: they refuse other code and other live rows than those that the plan was made from."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress

import dagster as dg
import pytest

import dagster_safe_backfill as sb
from dagster_safe_backfill.assets.metadata import options_of_asset
from dagster_safe_backfill.model.events import Fingerprint
from dagster_safe_backfill.model.plans import EXPECTED_TAG, NEWEST_FIRST, ORDER_TAG, Expected, tags_of
from dagster_safe_backfill.runs.declared import LiveAsset
from dagster_safe_backfill.wap.write import live_before
from dagster_safe_backfill_tests.conftest import Read
from dagster_safe_backfill_tests.harness.assets import DAYS, Source, events, failure_of, run_range
from dagster_safe_backfill_tests.harness.backends import Backend

pytestmark = pytest.mark.every_warehouse

THREE = tuple(DAYS.get_partition_keys()[:3])
CODE = "code_version 1"


class World:
    """An asset, its runs, and plans of them."""

    def __init__(self, backend: Backend, instance: dg.DagsterInstance) -> None:
        self.io_manager: sb.RangeIOManager = backend.io_manager
        self.instance = instance
        self.source = Source()

    def run(
        self, tags: Mapping[str, str] | None = None, *, again: dg.DagsterRun | None = None, **options: object
    ) -> dg.ExecuteInProcessResult:
        self.source.calls.clear()
        asset = events(self.source, limits=sb.Limits(retry_wait=0.0), **options)
        return run_range(
            [asset],
            THREE[0],
            THREE[-1],
            io_manager=self.io_manager,
            instance=self.instance,
            tags=tags,
            again=again,
        )

    def plan(self, name: str = "plan-1", *, code: str = CODE) -> dict[str, str]:
        """Return the tags of a plan of three days as they are now."""
        asset = events(self.source)
        options = options_of_asset(asset)
        spec = self.io_manager.spec_of(asset.key, options)
        chosen = LiveAsset(key=asset.key, options=options, partitions_def=DAYS).slice_of(self.instance, THREE)
        fingerprints: Mapping[str, Fingerprint] = {}
        with suppress(sb.TableNotFoundError), self.io_manager.warehouse().connect(read_only=True) as session:
            fingerprints = live_before(session, spec=spec, partition_slice=chosen).fingerprints
        found = {key: str(fingerprints.get(key, Fingerprint())) for key in THREE}
        expected = Expected.of({"events": code}, {"events": found})
        return tags_of(plan=name, expected=expected, owner=None, reason=None, newest_first=False)


@pytest.fixture
def world(backend: Backend, instance: dg.DagsterInstance) -> World:
    return World(backend, instance)


def test_a_plan_that_is_true_is_carried_out_again_and_again(world: World) -> None:
    tags = world.plan()
    assert world.run(tags).success
    # Its own publication isn't what changed the rows behind its back.
    assert world.run(tags).success
    assert world.run(world.plan("plan-2")).success


def test_other_code(world: World) -> None:
    done = world.run(world.plan(code="code_version 0"))
    assert not done.success
    assert "the code of events changed after the plan plan-1 was made" in failure_of(done, "events")
    assert world.source.calls == []


def test_rows_that_somebody_changed(world: World, backend: Backend, read: Read) -> None:
    assert world.run().success
    tags = world.plan()
    table = "events"
    backend.change(f"UPDATE {table} SET value = 77 WHERE id = 1 AND day = '{THREE[1]}'")
    done = world.run(tags)
    assert not done.success
    assert f"{THREE[1]} changed after the plan plan-1 was made" in failure_of(done, "events")
    assert "outside of this library" in failure_of(done, "events")
    assert world.source.calls == []
    assert read(f"SELECT count(*) FROM {table} WHERE value = 77") == [(1,)]


def test_a_partition_that_another_run_published(world: World) -> None:
    tags = world.plan()
    world.source.rows_per_day = 2
    assert world.run().success
    done = world.run(tags)
    assert not done.success
    assert "published by" in failure_of(done, "events")


def test_with_batches_those_before_the_change_stay(world: World, backend: Backend) -> None:
    assert world.run().success
    tags = world.plan()
    backend.change(f"UPDATE events SET value = 77 WHERE id = 1 AND day = '{THREE[2]}'")
    done = world.run(tags, batches=sb.Batches(size=1, publish_each=True))
    assert not done.success
    assert world.source.calls == [(THREE[0],), (THREE[1],)]


def test_the_newest_first(world: World) -> None:
    assert world.run({ORDER_TAG: NEWEST_FIRST}, batches=1).success
    assert world.source.calls == [(THREE[2],), (THREE[1],), (THREE[0],)]


def test_a_tag_that_no_plan_wrote(world: World) -> None:
    done = world.run({f"{EXPECTED_TAG}_1": "by hand"})
    assert not done.success
    assert "can't check whether its plan is still true" in failure_of(done, "events")


class TestWhatACrashLeftStaged:
    """A retry takes up what was staged only as what the plan was made from."""

    @staticmethod
    def _staged(world: World, tags: Mapping[str, str], monkeypatch: pytest.MonkeyPatch) -> dg.DagsterRun:
        """Let a run die once all is staged and audited, and before it publishes."""

        def die(*_given: object, **_named: object) -> None:
            raise RuntimeError("killed")

        with monkeypatch.context() as patched:
            patched.setattr("dagster_safe_backfill.runs.wap_run.publish", die)
            dead = world.run(tags)
        assert not dead.success
        assert world.source.calls == [THREE]
        return dead.dagster_run

    def test_it_is_published_without_being_computed_again(
        self, world: World, monkeypatch: pytest.MonkeyPatch, read: Read
    ) -> None:
        tags = world.plan()
        dead = self._staged(world, tags, monkeypatch)
        assert world.run(tags, again=dead).success
        assert world.source.calls == []
        assert read("SELECT count(DISTINCT day) FROM events") == [(3,)]

    def test_other_code_refuses(self, world: World, monkeypatch: pytest.MonkeyPatch) -> None:
        """By the plan, before it is looked at what is staged."""
        tags = world.plan()
        dead = self._staged(world, tags, monkeypatch)
        done = world.run(tags, again=dead, code_version="2")
        assert not done.success
        assert "the code of events changed after the plan plan-1 was made" in failure_of(done, "events")
        assert world.source.calls == []

    def test_other_live_rows_refuse(
        self, world: World, backend: Backend, monkeypatch: pytest.MonkeyPatch, read: Read
    ) -> None:
        """By the publication, which compares live with what it was when the rows were computed."""
        assert world.run().success
        world.source.rows_per_day = 4
        tags = world.plan()
        dead = self._staged(world, tags, monkeypatch)
        backend.change(f"UPDATE events SET value = 77 WHERE id = 1 AND day = '{THREE[1]}'")
        done = world.run(tags, again=dead)
        assert not done.success
        assert world.source.calls == []
        assert THREE[1] in failure_of(done, "events")
        assert read("SELECT count(*) FROM events WHERE value = 77") == [(1,)]
