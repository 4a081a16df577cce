"""Assets that read their own earlier partitions: each batch is computed from what the one before it published."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import dagster as dg
import pandas as pd
import pytest

import dagster_safe_backfill as sb
from dagster_safe_backfill_tests.harness.assets import green
from dagster_safe_backfill_tests.harness.backends import Backend
from dagster_safe_backfill_tests.harness.rates import DAYS, JANUARY, Rates, defined

pytestmark = pytest.mark.every_warehouse

D = JANUARY
BEFORE = dg.TimeWindowPartitionMapping(start_offset=-1, end_offset=-1)
ITSELF = {"revenue": dg.AssetIn(partition_mapping=BEFORE)}
EACH = sb.Batches(size=1, publish_each=True, canary=False)


@pytest.fixture
def rates(backend: Backend, instance: dg.DagsterInstance) -> Rates:
    return Rates(backend, instance)


def adding(rates: Rates, added: dict[str, int] | None = None) -> Callable[..., object]:
    """Return a function that adds to the value of the day before."""

    def revenue(revenue: pd.DataFrame, partitions: sb.PartitionSlice) -> pd.DataFrame:
        world.called(partitions.keys)
        days = [pd.Timestamp(key) for key in partitions.keys]
        known = {} if revenue.empty else dict(zip(pd.to_datetime(revenue["day"]), revenue["value"], strict=True))
        for day in days:
            known[day] = int(known.get(day - pd.Timedelta(days=1), 0) + (added or {}).get(f"{day:%Y-%m-%d}", 10))
        return pd.DataFrame({"day": pd.DatetimeIndex(days).as_unit("us"), "value": [known[day] for day in days]})

    world = rates
    return revenue


def asset(rates: Rates, added: dict[str, int] | None = None, **options: Any) -> dg.AssetsDefinition:
    return defined(rates, adding(rates, added), **{"ins": ITSELF, "batches": EACH, **options})


@pytest.mark.parametrize("size", [1, 2, 5, None])
def test_the_first_run(rates: Rates, size: int | None) -> None:
    """Its own table doesn't exist yet, and is read as an empty one."""
    revenue = asset(rates, batches=sb.Batches(size=size, publish_each=True))
    result = rates.run([revenue], D[0], D[4])
    assert result is not None
    assert result.success
    assert rates.values() == [10, 20, 30, 40, 50]
    assert len(rates.calls) == (1 if size is None else -(-5 // size))
    assert green(rates.instance, "revenue") == set(D[:5])


def test_all_of_a_run_in_one_call_may_be_published_together(rates: Rates) -> None:
    revenue = asset(rates, batches=None)
    rates.run([revenue], D[0], D[2])
    assert rates.values() == [10, 20, 30]
    rates.run([revenue], D[3], D[4])
    assert rates.values() == [10, 20, 30, 40, 50]


def test_a_run_goes_on_from_what_is_live(rates: Rates) -> None:
    rates.run([asset(rates)], D[0], D[1])
    rates.run([asset(rates)], D[2], D[4])
    assert rates.values() == [10, 20, 30, 40, 50]


def test_a_run_of_old_days_reads_their_predecessors_as_they_become(rates: Rates) -> None:
    rates.run([asset(rates)], D[0], D[4])
    rates.run([asset(rates, {D[1]: 1})], D[1], D[4])
    assert rates.values() == [10, 11, 21, 31, 41]


def test_a_window_of_several_days(rates: Rates) -> None:
    """The sum of the two days before, and one."""

    def revenue(revenue: pd.DataFrame, partitions: sb.PartitionSlice) -> pd.DataFrame:
        world.called(partitions.keys)
        (key,) = partitions.keys
        total = 1 + (0 if revenue.empty else int(revenue["value"].sum()))
        return pd.DataFrame({"day": pd.to_datetime([key]).as_unit("us"), "value": [total]})

    world = rates
    two = {"revenue": dg.AssetIn(partition_mapping=dg.TimeWindowPartitionMapping(start_offset=-2, end_offset=-1))}
    rates.run([defined(rates, revenue, ins=two, batches=EACH)], D[0], D[4])
    assert rates.values() == [1, 2, 4, 7, 12]


def test_read_by_the_function_itself(rates: Rates) -> None:
    def revenue(partitions: sb.PartitionSlice) -> pd.DataFrame:
        world.called(partitions.keys)
        (key,) = partitions.keys
        tables = world.backend.read("SELECT 1 FROM duckdb_tables() WHERE table_name = 'revenue'")
        last = world.backend.read("SELECT max(value) FROM revenue")[0][0] if tables else 0
        return pd.DataFrame({"day": pd.to_datetime([key]).as_unit("us"), "value": [int(last) + 10]})

    world = rates
    deps = [dg.AssetDep("revenue", partition_mapping=BEFORE)]
    rates.run([defined(rates, revenue, deps=deps, batches=EACH)], D[0], D[4])
    assert rates.values() == [10, 20, 30, 40, 50]


@pytest.mark.parametrize("is_killed", [False, True], ids=["re-executed", "launched after a kill"])
@pytest.mark.parametrize("size", [1, 2])
def test_again_after_it_broke_off(rates: Rates, is_killed: bool, size: int) -> None:
    revenue = asset(rates, batches=sb.Batches(size=size, publish_each=True))
    (rates.kills if is_killed else rates.breaks)(D[3])
    rates.run([revenue], D[0], D[4])
    assert rates.values() == [10, 20, 30][: 3 if size == 1 else 2]
    again = rates.run([revenue], D[0], D[4], again=None if is_killed else rates.last)
    assert again is not None
    assert again.success
    assert rates.values() == [10, 20, 30, 40, 50]
    if size == 1 and not is_killed:
        assert rates.calls == [D[3:4], D[4:5]]
    assert green(rates.instance, "revenue") == set(D[:5])


@pytest.mark.parametrize("again", ["from failure", "all", "launched"])
def test_what_was_computed_from_a_wrong_predecessor_is_not_reused(
    rates: Rates, again: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Day 3 is audited when its publication breaks. It was computed from a wrong day 2, which is mended meanwhile."""
    from dagster_safe_backfill.wap import publish

    rates.run([asset(rates, {D[0]: 1, D[1]: 1000}, audits=[])], D[0], D[1])
    real = publish.record_change

    def record_change(*args: Any, **options: Any) -> None:
        raise RuntimeError("the publication broke")

    monkeypatch.setattr(publish, "record_change", record_change)
    added = {D[0]: 1, D[1]: 1, D[2]: 5}
    assert "broke" in rates.said(rates.run([asset(rates, added, audits=[])], D[2], D[2]))
    broken = rates.last
    monkeypatch.setattr(publish, "record_change", real)
    rates.run([asset(rates, added, audits=[])], D[1], D[1])
    assert rates.values() == [1, 2]
    by = None if again == "launched" else broken
    rates.run([asset(rates, added, audits=[])], D[2], D[2], again=by, from_failure=again == "from failure")
    assert rates.values() == [1, 2, 7]


@pytest.mark.parametrize("size", [1, 2])
def test_nothing_is_computed_from_what_was_rejected(rates: Rates, size: int) -> None:
    """Day 2 is rejected; day 3 would be computed from a predecessor that isn't live. A re-execution computes both."""
    added = {D[1]: 1000}
    batches = sb.Batches(size=size, publish_each=True, canary=False)
    message = rates.said(rates.run([asset(rates, added, batches=batches)], D[0], D[2]))
    assert "so 1 more were not computed" in message
    assert rates.values() == [10] if size == 1 else rates.calls == [D[:2]]
    added.clear()
    again = rates.run([asset(rates, added, batches=batches)], D[0], D[2], again=rates.last)
    assert again is not None
    assert again.success
    assert rates.values() == [10, 20, 30]


def test_what_passed_beside_its_rejected_predecessor_is_not_published(rates: Rates) -> None:
    """Both are of one batch, and the second was computed from the first."""
    batches = sb.Batches(size=2, publish_each=True, canary=False)
    audits = [sb.expression("value <> 1000", name="odd")]
    added = {D[0]: 1000}
    rates.said(rates.run([asset(rates, added, batches=batches, audits=audits)], D[0], D[1]))
    assert green(rates.instance, "revenue") == set()
    added.clear()
    rates.run([asset(rates, added, batches=batches, audits=audits)], D[0], D[1], again=rates.last)
    assert rates.values() == [10, 20]


def test_a_part_of_a_batch_is_not_reused_without_the_rest(rates: Rates, monkeypatch: pytest.MonkeyPatch) -> None:
    """Days 1 and 2 are audited together when the publication breaks; then day 2 alone is re-executed."""
    from dagster_safe_backfill.wap import publish

    def record_change(*args: Any, **options: Any) -> None:
        raise RuntimeError("the publication broke")

    for batches in (sb.Batches(size=2, publish_each=True), None):
        with monkeypatch.context() as patched:
            patched.setattr(publish, "record_change", record_change)
            assert "broke" in rates.said(rates.run([asset(rates, batches=batches)], D[0], D[1]))
        rates.run([asset(rates, batches=batches)], D[1], D[1], again=rates.last)
        assert rates.values() == [10]


def test_a_predecessor_that_was_changed_by_hand(rates: Rates) -> None:
    rates.breaks(D[3])
    rates.run([asset(rates)], D[0], D[3])
    rates.backend.change(f"UPDATE revenue SET value = 1 WHERE day = '{D[1]}'")
    rates.run([asset(rates)], D[0], D[3], again=rates.last)
    assert rates.values() == [10, 20, 30, 40]


def test_what_is_done_is_computed_again_if_its_predecessor_is(rates: Rates) -> None:
    """Day 2 reads a fee that changed; days 3 and 4 don't, but they were computed from day 2."""
    fees, added = dg.AssetSpec("fees", partitions_def=DAYS), {D[1]: 20}
    options: dict[str, Any] = {"deps": [fees]}
    rates.breaks(D[4])
    rates.run([asset(rates, added, **options), fees], D[0], D[4])
    assert rates.values() == [10, 30, 40, 50]
    added.clear()
    rates.instance.report_runless_asset_event(dg.AssetMaterialization("fees", partition=D[1]))
    rates.run([asset(rates, added, **options), fees], D[0], D[4], again=rates.last)
    assert rates.calls == [(key,) for key in D[1:5]]
    assert rates.values() == [10, 20, 30, 40, 50]


def test_a_predecessor_that_was_rolled_back(rates: Rates) -> None:
    revenue = asset(rates)
    rates.run([asset(rates, {D[0]: 1})], D[0], D[0])
    rates.breaks(D[2])
    rates.run([revenue], D[0], D[2])
    assert rates.values() == [10, 20]
    job = sb.build_rollback_job(revenue)
    assert rates.last is not None
    chosen = {"publication_id": f"{rates.last.run_id}.1"}
    config = {"ops": {"rollback_revenue_op": {"config": chosen}}}
    resources = {"io_manager": rates.backend.io_manager}
    broken = rates.last
    assert job.execute_in_process(run_config=config, resources=resources, instance=rates.instance).success
    assert rates.values() == [1, 20]
    rates.run([revenue], D[0], D[2], again=broken)
    assert rates.values() == [10, 20, 30]


@pytest.mark.parametrize("how", ["loaded", "read by itself"])
@pytest.mark.parametrize("batches", [1, sb.Batches(size=10)])
def test_batches_that_are_published_at_the_end_are_refused(rates: Rates, how: str, batches: Any) -> None:
    size = batches if isinstance(batches, int) else batches.size
    deps = [dg.AssetDep("revenue", partition_mapping=BEFORE)]
    with pytest.raises(sb.ConfigurationError, match=rf"Batches\(size={size}, publish_each=True\)"):
        if how == "loaded":
            asset(rates, batches=batches)
        else:
            defined(rates, deps=deps, batches=batches)


@pytest.mark.parametrize("how", ["loaded", "read by itself"])
def test_staged_assets_are_refused(rates: Rates, how: str) -> None:
    def revenue(partitions: sb.PartitionSlice) -> pd.DataFrame: ...

    deps = [dg.AssetDep("revenue", partition_mapping=BEFORE)]
    function, further = (adding(rates), {"ins": ITSELF}) if how == "loaded" else (revenue, {"deps": deps})
    further = {**further, "partitions_def": DAYS, "partition_expr": "day", "code_version": "1"}
    with pytest.raises(sb.ConfigurationError, match="revenue reads its own partitions, and staged assets can't"):
        sb.build_staged_wap_assets(function, **further)
