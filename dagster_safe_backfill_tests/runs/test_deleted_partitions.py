"""Dynamic partitions that are deleted while a run works on them: nothing goes live, or the error says what is live."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import dagster as dg
import pandas as pd
import pytest

import dagster_safe_backfill as sb
from dagster_safe_backfill.runs import staged_runs, wap_run
from dagster_safe_backfill_tests.harness.assets import RANGE_END, RANGE_START, failure_of, green
from dagster_safe_backfill_tests.harness.backends import Backend

pytestmark = pytest.mark.every_warehouse

NAME = "shops"
SHOPS = dg.DynamicPartitionsDefinition(name=NAME)
DAYS = dg.StaticPartitionsDefinition(["mon", "tue"])
BOTH = dg.MultiPartitionsDefinition({"day": DAYS, "shop": SHOPS})
A_TO_C = {RANGE_START: "a", RANGE_END: "c"}
EACH = sb.Batches(size=1, publish_each=True)

Change = Callable[[dg.DagsterInstance], object]


def deleted(*keys: str) -> Change:
    return lambda instance: [instance.delete_dynamic_partition(NAME, key) for key in keys]


def again(*keys: str) -> Change:
    def change(instance: dg.DagsterInstance) -> None:
        deleted(*keys)(instance)
        instance.add_dynamic_partitions(NAME, list(keys))

    return change


class Shops:
    """Runs of assets with the dynamic partitions a, b and c."""

    def __init__(self, backend: Backend, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch) -> None:
        self.backend, self.instance, self.monkeypatch = backend, instance, monkeypatch
        self.meanwhile: Change | None = None
        self.calls: list[tuple[str, ...]] = []
        instance.add_dynamic_partitions(NAME, ["a", "b", "c"])

    def change(self) -> None:
        meanwhile, self.meanwhile = self.meanwhile, None
        if meanwhile is not None:
            meanwhile(self.instance)

    def frame(self, keys: Sequence[str]) -> pd.DataFrame:
        self.calls.append(tuple(keys))
        self.change()
        return pd.DataFrame({"shop": list(keys), "n": 1})

    def after_publication(self, change: Change) -> None:
        """Change the partitions as soon as something was published, instead of while rows are computed."""
        for module in (wap_run, staged_runs):
            publish: Any = module.publish

            def published(*given: Any, publish: Any = publish, **options: Any) -> object:
                found = publish(*given, **options)
                change(self.instance)
                return found

            self.monkeypatch.setattr(module, "publish", published)

    def asset(self, **options: Any) -> dg.AssetsDefinition:
        @sb.wap_asset(partitions_def=SHOPS, partition_expr="shop", backfill_policy=sb.single_run(), **options)
        def t(partitions: sb.PartitionSlice) -> pd.DataFrame:
            return self.frame(partitions.keys)

        return t

    def staged(self) -> sb.StagedWapAssets:
        def t(partitions: sb.PartitionSlice) -> pd.DataFrame:
            return self.frame(partitions.keys)

        # The state of what the function closes over changes with each call, and would be new code.
        return sb.build_staged_wap_assets(
            t, code_version="1", partitions_def=SHOPS, partition_expr="shop", backfill_policy=sb.single_run()
        )

    def run(self, asset: dg.AssetsDefinition, tags: Mapping[str, str] | None = None) -> dg.ExecuteInProcessResult:
        resources = {"io_manager": self.backend.io_manager}
        return dg.materialize([asset], tags=tags, resources=resources, instance=self.instance, raise_on_error=False)

    def live(self) -> list[str]:
        if not self.backend.read("SELECT 1 FROM information_schema.tables WHERE table_name = 't'"):
            return []
        return [shop for (shop,) in self.backend.read("SELECT shop FROM t ORDER BY 1")]


@pytest.fixture
def shops(backend: Backend, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch) -> Shops:
    return Shops(backend, instance, monkeypatch)


def recorded(shops: Shops) -> list[str | None]:
    """Return the partitions of all materializations; None stands for one of the whole asset."""
    found = shops.instance.fetch_materializations(dg.AssetKey("t"), limit=10, ascending=True).records
    return [record.partition_key for record in found]


CHANGES = {
    "the first": deleted("a"),
    "one between": deleted("b"),
    "the last": deleted("c"),
    "all": deleted("a", "b", "c"),
    "again: the first": again("a"),
    "again: one between": again("b"),
}


@pytest.mark.parametrize("name", CHANGES)
def test_nothing_goes_live_if_partitions_are_deleted_while_rows_are_computed(shops: Shops, name: str) -> None:
    shops.meanwhile = CHANGES[name]
    result = shops.run(shops.asset(), A_TO_C)
    message = failure_of(result, "t")
    assert "PartitionsChangedError" in message
    assert "nothing was published" in message
    assert ("deleted and added again" in message) == name.startswith("again")
    assert shops.live() == []
    assert recorded(shops) == []


def test_a_run_of_one_partition(shops: Shops) -> None:
    shops.meanwhile = deleted("b")
    result = shops.run(shops.asset(), {"dagster/partition": "b"})
    assert "t: the dynamic partitions b were deleted while the run worked on them" in failure_of(result, "t")
    assert shops.live() == []
    # What the error advises.
    shops.instance.add_dynamic_partitions(NAME, ["b"])
    assert shops.run(shops.asset(), {"dagster/partition": "b"}).success
    assert shops.live() == ["b"]
    assert green(shops.instance, "t") == {"b"}


def test_a_range_that_would_cover_a_partition_which_was_not_computed(shops: Shops) -> None:
    """The range a to b is a, c, b once b was added again: Dagster would record c, which has no rows."""
    shops.meanwhile = again("b")
    result = shops.run(shops.asset(), {RANGE_START: "a", RANGE_END: "b"})
    assert "it differs in c" in failure_of(result, "t")
    assert shops.live() == []
    assert green(shops.instance, "t") == set()


def test_batches_that_are_published_together(shops: Shops) -> None:
    shops.meanwhile = deleted("b")
    result = shops.run(shops.asset(batches=1), A_TO_C)
    assert "the dynamic partitions b were deleted" in failure_of(result, "t")
    assert len(shops.calls) == 3
    assert shops.live() == []
    assert green(shops.instance, "t") == set()


def test_batches_that_were_published_before_stay_green(shops: Shops) -> None:
    calls = shops.calls

    def change(instance: dg.DagsterInstance) -> None:
        # Called for the first batch, and does it for the second.
        shops.meanwhile = deleted("c")

    shops.meanwhile = change
    result = shops.run(shops.asset(batches=EACH), A_TO_C)
    assert "the dynamic partitions c were deleted" in failure_of(result, "t")
    assert calls == [("a",), ("b",)]
    assert shops.live() == ["a"]
    assert green(shops.instance, "t") == {"a"}


@pytest.mark.parametrize("name", CHANGES)
@pytest.mark.parametrize("batches", [None, 1])
def test_what_is_live_already_is_named_and_recorded(shops: Shops, name: str, batches: int | None) -> None:
    shops.after_publication(CHANGES[name])
    result = shops.run(shops.asset(batches=batches), A_TO_C)
    message = failure_of(result, "t")
    assert "PartitionsChangedError" in message
    assert f"but a, b, c are live, published by {result.run_id}" in message
    assert shops.live() == ["a", "b", "c"]
    assert recorded(shops) == ["a", "b", "c"]
    # The keys are added again, as the error advises: all are green, as all are live.
    shops.instance.add_dynamic_partitions(NAME, ["a", "b", "c"])
    assert green(shops.instance, "t") == {"a", "b", "c"}


def test_what_is_live_already_can_be_rolled_back(shops: Shops) -> None:
    shops.after_publication(deleted("b"))
    asset = shops.asset()
    assert not shops.run(asset, A_TO_C).success
    shops.instance.add_dynamic_partitions(NAME, ["b"])
    job = sb.build_rollback_job(asset)
    resources = {"io_manager": shops.backend.io_manager}
    assert job.execute_in_process(resources=resources, instance=shops.instance).success
    assert shops.live() == []


def test_a_batch_that_is_live_already_is_named_and_recorded(shops: Shops) -> None:
    shops.after_publication(deleted("b"))
    result = shops.run(shops.asset(batches=EACH), A_TO_C)
    # The first publication came before the deletion, and the second batch was refused.
    assert "the dynamic partitions b were deleted" in failure_of(result, "t")
    assert shops.live() == ["a"]
    assert green(shops.instance, "t") == {"a"}


def test_the_last_batch_that_is_live_already_is_named(shops: Shops) -> None:
    shops.after_publication(deleted("a"))
    result = shops.run(shops.asset(batches=EACH), {RANGE_START: "a", RANGE_END: "a"})
    assert f"but a are live, published by {result.run_id}.1" in failure_of(result, "t")
    assert shops.live() == ["a"]
    shops.instance.add_dynamic_partitions(NAME, ["a"])
    assert green(shops.instance, "t") == {"a"}


class TestStaged:
    """The three assets of a staged backfill."""

    def test_the_shadow_is_not_green(self, shops: Shops) -> None:
        shops.meanwhile = deleted("b")
        result = shops.run(shops.staged().shadow, A_TO_C)
        assert "they are staged, and not published" in failure_of(result, "t__shadow")
        assert green(shops.instance, "t__shadow") == set()

    def test_nothing_goes_live(self, shops: Shops) -> None:
        shadow, audit, published = shops.staged()
        assert shops.run(shadow, A_TO_C).success
        assert shops.run(audit).success
        approved = staged_runs.approved

        def delete_and_go_on(*given: Any, **options: Any) -> object:
            shops.instance.delete_dynamic_partition(NAME, "b")
            return approved(*given, **options)

        shops.monkeypatch.setattr(staged_runs, "approved", delete_and_go_on)
        result = shops.run(published, A_TO_C)
        assert "the dynamic partitions b were deleted" in failure_of(result, "t")
        assert shops.live() == []
        assert green(shops.instance, "t") == set()

    def test_what_is_live_already_is_named_and_recorded(self, shops: Shops) -> None:
        shadow, audit, published = shops.staged()
        assert shops.run(shadow, A_TO_C).success
        assert shops.run(audit).success
        shops.after_publication(deleted("b"))
        result = shops.run(published, A_TO_C)
        assert "but a, b, c are live" in failure_of(result, "t")
        assert shops.live() == ["a", "b", "c"]
        shops.instance.add_dynamic_partitions(NAME, ["b"])
        assert green(shops.instance, "t") == {"a", "b", "c"}


def test_a_dynamic_dimension_of_multi_partitions(shops: Shops) -> None:
    @sb.wap_asset(partitions_def=BOTH, partition_expr={"day": "day", "shop": "shop"}, backfill_policy=sb.single_run())
    def t(partitions: sb.PartitionSlice) -> pd.DataFrame:
        shops.change()
        parts = [key.split("|") for key in partitions.keys]
        return pd.DataFrame({"day": [day for day, _shop in parts], "shop": [shop for _day, shop in parts]})

    shops.meanwhile = deleted("a")
    result = shops.run(t, {"dagster/partition": "mon|a"})
    assert "the dynamic partitions mon|a were deleted" in failure_of(result, "t")
    assert shops.live() == []
