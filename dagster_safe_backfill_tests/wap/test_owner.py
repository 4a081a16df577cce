"""One table, one asset: what another asset wrote is not overwritten, taken up, audited, published or rolled back."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import dagster as dg
import pandas as pd
import pytest

import dagster_safe_backfill as sb
from dagster_safe_backfill.model.states import Audited, Origin
from dagster_safe_backfill.model.tables import TableRef, TableSpec
from dagster_safe_backfill.wap.audit import audit
from dagster_safe_backfill.wap.ledger.waiting import staged_partitions
from dagster_safe_backfill.wap.publish import publish
from dagster_safe_backfill.wap.tables import store as store_module
from dagster_safe_backfill.wap.write import write
from dagster_safe_backfill_tests.conftest import Read
from dagster_safe_backfill_tests.harness.assets import DAYS, failure_of, run_key, run_range
from dagster_safe_backfill_tests.harness.audited import frame, slice_of
from dagster_safe_backfill_tests.harness.backends import Backend

pytestmark = pytest.mark.every_warehouse

LIVE = "SELECT day::DATE::VARCHAR, who FROM sales ORDER BY ALL"
FIRST, SECOND, THIRD = "2024-01-01", "2024-01-02", "2024-01-03"


@dataclass
class Made:
    """The calls that the functions of the assets got, by the asset's name, and what is called during one of them."""

    calls: list[str] = field(default_factory=list[str])
    meanwhile: Callable[[], object] | None = None

    def frame(self, who: str, keys: Sequence[str]) -> pd.DataFrame:
        self.calls.append(who)
        meanwhile, self.meanwhile = self.meanwhile, None
        if meanwhile is not None:
            meanwhile()
        return pd.DataFrame({"day": pd.Series(pd.to_datetime(list(keys))).astype("datetime64[us]"), "who": who})

    def wap(self, *path: str, **options: Any) -> dg.AssetsDefinition:
        @sb.wap_asset(key=path, partitions_def=DAYS, partition_expr="day", backfill_policy=sb.single_run(), **options)
        def sales(partitions: sb.PartitionSlice) -> pd.DataFrame:
            return self.frame("/".join(path), partitions.keys)

        return sales

    def staged(self, *path: str, **options: Any) -> Sequence[dg.AssetsDefinition]:
        def sales(partitions: sb.PartitionSlice) -> pd.DataFrame:
            return self.frame("/".join(path), partitions.keys)

        # The state of what the function closes over changes with each call, and would be new code.
        return sb.build_staged_wap_assets(
            sales,
            code_version="1",
            key=path,
            partitions_def=DAYS,
            partition_expr="day",
            backfill_policy=sb.single_run(),
            **options,
        )

    def plain(self, *path: str, is_partitioned: bool = True, **metadata: Any) -> dg.AssetsDefinition:
        @dg.asset(
            key=path,
            partitions_def=DAYS if is_partitioned else None,
            backfill_policy=sb.single_run() if is_partitioned else None,
            metadata={"partition_expr": "day", **metadata} if is_partitioned else metadata,
        )
        def sales() -> pd.DataFrame:
            keys = dg.AssetExecutionContext.get().partition_keys if is_partitioned else [FIRST]
            return self.frame("/".join(path), keys)

        return sales


class House:
    """A warehouse and an instance in which assets run."""

    def __init__(self, backend: Backend, instance: dg.DagsterInstance) -> None:
        self.backend, self.io_manager, self.instance = backend, backend.io_manager, instance
        self.made = Made()

    def run(
        self, asset: dg.AssetsDefinition, first: str | None = FIRST, last: str | None = None
    ) -> dg.ExecuteInProcessResult:
        if first is None:
            resources = {"io_manager": self.io_manager}
            return dg.materialize([asset], resources=resources, instance=self.instance, raise_on_error=False)
        return run_range([asset], first, last or first, io_manager=self.io_manager, instance=self.instance)

    def job(self, job: Any, config: Mapping[str, Any] | None = None) -> dg.ExecuteInProcessResult:
        ops = {job.nodes[0].name: {"config": config or {}}}
        return job.execute_in_process(
            run_config={"ops": ops},
            resources={"io_manager": self.io_manager},
            instance=self.instance,
            raise_on_error=False,
        )

    def green(self, asset: str) -> set[str]:
        return set(self.instance.get_materialized_partitions(dg.AssetKey.from_user_string(asset)))

    def live(self) -> list[tuple[Any, ...]]:
        return self.backend.read(LIVE)


@pytest.fixture
def house(backend: Backend, instance: dg.DagsterInstance) -> House:
    return House(backend, instance)


def refusal(result: dg.ExecuteInProcessResult) -> str:
    """Return the message of the `OtherAssetError` with which a run failed."""
    assert not result.success
    (event,) = [event for event in result.all_events if event.is_step_failure]
    error = event.step_failure_data.error
    while error is not None and error.cls_name != "OtherAssetError":
        error = error.cause
    assert error is not None, failure_of(result, str(event.step_key))
    return error.message


Make = Callable[..., dg.AssetsDefinition]


@pytest.mark.parametrize("first", ["wap", "plain"])
@pytest.mark.parametrize("second", ["wap", "plain"])
def test_the_table_of_another_asset_is_not_overwritten(house: House, first: str, second: str) -> None:
    eu: dg.AssetsDefinition = getattr(house.made, first)("eu", "sales")
    us: dg.AssetsDefinition = getattr(house.made, second)("us", "sales")
    assert house.run(eu, FIRST, SECOND).success
    message = refusal(house.run(us))
    for part in ("main.sales", "eu/sales", "us/sales", FIRST, "TableOptions(schema=…)", 'renamed_from="eu/sales"'):
        assert part in message
    assert house.live() == [(FIRST, "eu/sales"), (SECOND, "eu/sales")]
    assert house.green("us/sales") == set()
    # The first asset isn't hindered.
    assert house.run(eu, SECOND, THIRD).success
    assert [who for _day, who in house.live()] == ["eu/sales"] * 3


def test_a_wap_asset_is_refused_before_its_function_is_called(house: House) -> None:
    assert house.run(house.made.wap("eu", "sales")).success
    refusal(house.run(house.made.wap("us", "sales", batches=1), FIRST, THIRD))
    refusal(house.run(house.made.wap("us", "sales", batches=sb.Batches(size=1, publish_each=True)), FIRST, THIRD))
    refusal(house.run(house.made.staged("us", "sales")[0], FIRST, THIRD))
    assert house.made.calls == ["eu/sales"]


def test_another_partition_of_the_table_is_not_written_either(house: House) -> None:
    assert house.run(house.made.wap("eu", "sales")).success
    refusal(house.run(house.made.wap("us", "sales"), THIRD))
    refusal(house.run(house.made.plain("us", "sales"), THIRD))
    assert house.live() == [(FIRST, "eu/sales")]


def test_a_plain_asset_without_partitions_does_not_replace_the_table(house: House) -> None:
    assert house.run(house.made.wap("eu", "sales"), FIRST, SECOND).success
    message = refusal(house.run(house.made.plain("us", "sales", is_partitioned=False), None))
    assert "main.sales is the table of the asset eu/sales, which published it last" in message
    assert len(house.live()) == 2


def test_a_wap_asset_finds_a_plain_asset_without_partitions(house: House) -> None:
    assert house.run(house.made.plain("eu", "sales", is_partitioned=False), None).success
    assert "eu/sales, which wrote it last" in refusal(house.run(house.made.wap("us", "sales")))
    assert house.live() == [(FIRST, "eu/sales")]


def test_a_table_whose_name_differs_by_case_is_the_same_table(house: House) -> None:
    """DuckDB ignores the case of names, and this library's names on Snowflake differ by more than case, too."""
    assert house.run(house.made.wap("eu", "sales")).success
    refusal(house.run(house.made.plain("us", "SALES")))
    refusal(house.run(house.made.wap("us", "SALES")))
    assert house.live() == [(FIRST, "eu/sales")]


@pytest.mark.parametrize("second", ["wap", "plain"])
def test_the_second_of_two_first_runs_at_once_is_refused(house: House, second: str) -> None:
    us = house.made.wap("us", "sales")
    eu: dg.AssetsDefinition = getattr(house.made, second)("eu", "sales")
    # While us/sales computes, eu/sales is the first to write the table.
    house.made.meanwhile = lambda: house.run(eu)
    refusal(house.run(us))
    assert house.made.calls == ["us/sales", "eu/sales"]
    assert house.live() == [(FIRST, "eu/sales")]


def test_two_assets_in_one_run_share_no_shadow_and_no_publication(house: House) -> None:
    both = [house.made.wap("eu", "sales"), house.made.wap("us", "sales")]
    result = run_key(both, FIRST, io_manager=house.io_manager, instance=house.instance)
    refusal(result)
    assert len(house.live()) == 1
    ((_day, who),) = house.live()
    other = ({"eu/sales", "us/sales"} - {who}).pop()
    # The one whose rows are live is green, and the other one isn't.
    assert house.green(who) == {FIRST}
    assert house.green(other) == set()


class TestStaged:
    """Staged partitions of another asset."""

    def test_they_are_neither_audited_nor_published(self, house: House) -> None:
        eu, us = house.made.staged("eu", "sales"), house.made.staged("us", "sales")
        assert house.run(eu[0], FIRST, SECOND).success
        result = house.run(us[1], None)
        assert not result.success
        assert "nothing is staged that could be audited" in failure_of(result, "us__sales__audit")
        assert house.run(eu[1], None).success
        result = house.run(us[2], FIRST, SECOND)
        assert "2 of 2 partitions can't be published" in failure_of(result, "us__sales")
        assert house.run(eu[2], FIRST, SECOND).success
        assert house.live() == [(FIRST, "eu/sales"), (SECOND, "eu/sales")]
        # Once it is the table of eu/sales, us/sales is refused at each step.
        refusal(house.run(us[1], None))
        refusal(house.run(us[2], FIRST))

    def test_each_asset_audits_its_own(self, house: House) -> None:
        """The newest rows that are staged belong to another asset."""
        eu, us = house.made.staged("eu", "sales"), house.made.staged("us", "sales")
        assert house.run(eu[0], FIRST).success
        assert house.run(us[0], FIRST).success
        assert house.run(eu[1], None).success
        assert house.run(eu[2], FIRST).success
        assert house.live() == [(FIRST, "eu/sales")]

    def test_they_are_not_dropped_with_unaudited_ones(self, house: House) -> None:
        day = slice_of([0])
        spec = TableSpec(table=TableRef(schema="main", name="t"), partition_expr={None: "day"})
        with house.backend.warehouse.connect() as session:
            who = Origin(run_id="1", publication_id="1", asset_key="eu/t")
            write(session, frame([(0, 1, 1.0, None)]), spec=spec, partition_slice=day, origin=who)
            found = staged_partitions(session, spec.table, assets=["us/t"])
            own = staged_partitions(session, spec.table, assets=["eu/t"])
        assert found == []
        assert [(one.key, one.event) for one in own] == [(day.keys[0], "staged")]

    def test_retention_keeps_them_until_the_table_belongs_to_somebody(self, house: House) -> None:
        eu, us = house.made.staged("eu", "sales"), house.made.staged("us", "sales")
        assert house.run(eu[0], FIRST).success
        assert house.run(us[0], FIRST).success
        schedule = sb.build_retention_schedule([us[2]], shadow_days=0)
        shadows = "SELECT count(*) FROM duckdb_tables() WHERE table_name LIKE 'sales__shadow%'"
        assert house.job(schedule.job).success
        # Its own went, and the one of eu/sales is still published.
        assert house.backend.read(shadows) == [(1,)]
        assert house.run(eu[1], None).success
        assert house.run(eu[2], FIRST).success
        assert house.live() == [(FIRST, "eu/sales")]


def test_the_publication_of_another_asset_is_not_rolled_back(house: House) -> None:
    eu, us = house.made.wap("eu", "sales"), house.made.wap("us", "sales")
    published = house.run(eu, FIRST, SECOND)
    job = sb.build_rollback_job(us)
    refusal(house.job(job))
    refusal(house.job(job, {"dry_run": True}))
    refusal(house.job(job, {"publication_id": published.run_id, "force": True}))
    assert len(house.live()) == 2
    assert house.job(sb.build_rollback_job(eu)).success
    assert house.live() == []


def test_retention_refuses_the_table_of_another_asset_and_cleans_the_others(house: House, read: Read) -> None:
    options: dict[str, Any] = {"publish": sb.Replace(archive_days=0.0000001)}
    eu, us, own = (house.made.wap(*path, **options) for path in (("eu", "sales"), ("us", "sales"), ("us", "own")))
    archives = "SELECT table_name FROM duckdb_tables() WHERE table_name LIKE '%__archive_%' ORDER BY 1"
    for asset in (eu, own):
        assert house.run(asset).success
        assert house.run(asset).success
    (of_own, of_eu) = [name for (name,) in read(archives)]
    refusal(house.job(sb.build_retention_schedule([us, own]).job))
    assert read(archives) == [(of_eu,)]
    assert of_own.startswith("own__")
    assert house.job(sb.build_retention_schedule([eu]).job).success
    assert read(archives) == []


def test_an_op_may_write_the_table_that_it_names(house: House) -> None:
    """An op has no asset key. What it writes is a change by hand, as by any other program."""
    assert house.run(house.made.plain("eu", "sales", is_partitioned=False), None).success

    @dg.op(out=dg.Out(metadata={"table": "sales"}, io_manager_key="io_manager"))
    def mend() -> pd.DataFrame:
        return house.made.frame("op", [FIRST])

    @dg.job  # pyright: ignore[reportUnknownMemberType]: untyped in Dagster
    def mending() -> None:
        mend()

    assert mending.execute_in_process(resources={"io_manager": house.io_manager}, instance=house.instance).success
    assert house.live() == [(FIRST, "op")]


def test_a_ledger_of_an_earlier_version_names_no_asset_so_any_may_go_on(house: House) -> None:
    assert house.run(house.made.wap("eu", "sales")).success
    house.backend.change("UPDATE _safe_backfill_ledger SET asset_key = NULL")
    us = house.made.wap("us", "sales")
    assert house.run(us, SECOND).success
    assert house.live() == [(FIRST, "eu/sales"), (SECOND, "us/sales")]
    refusal(house.run(house.made.wap("eu", "sales")))


class TestEngine:
    """Without Dagster: what the transaction that publishes sees, and what it costs."""

    SPEC = TableSpec(table=TableRef(schema="main", name="t"), partition_expr={None: "day"})

    def staged(self, backend: Backend, asset: str, days: Sequence[int]) -> tuple[Audited, Origin]:
        origin = Origin(run_id=asset[:2], publication_id=asset[:2], asset_key=asset)
        rows = frame([(day, 1, 1.0, asset) for day in days])
        with backend.warehouse.connect() as session:
            staged = write(session, rows, spec=self.SPEC, partition_slice=slice_of(days), origin=origin)
            audited = audit(session, staged, (), origin=origin, gate="run")
        assert isinstance(audited, Audited)
        return audited, origin

    def test_the_error_says_who_and_which(self, backend: Backend) -> None:
        first, second = self.staged(backend, "eu/t", [0]), self.staged(backend, "us/t", [0, 1])
        with backend.warehouse.connect() as session:
            publish(session, first[0], rules=sb.Replace(), origin=first[1])
            with pytest.raises(sb.OtherAssetError) as caught:
                publish(session, second[0], rules=sb.Replace(), origin=second[1])
        error = caught.value
        assert (error.table, error.asset, error.other) == ("main.t", "us/t", "eu/t")
        assert error.keys == slice_of([0, 1]).keys
        assert backend.read("SELECT note FROM t") == [("eu/t",)]

    @pytest.mark.parametrize("exists", [False, True])
    def test_the_second_of_two_first_plain_writes_at_once_is_refused(
        self, backend: Backend, monkeypatch: pytest.MonkeyPatch, exists: bool
    ) -> None:
        """Between its look at the owner and its own claim, another asset writes the table."""
        if exists:
            backend.change("CREATE TABLE t (day DATE, id BIGINT, value DOUBLE, note VARCHAR)")
        create: Any = store_module.create_ledger

        def write_first(*given: Any, **options: Any) -> None:
            monkeypatch.setattr(store_module, "create_ledger", create)
            self.store(backend, "eu/t")
            create(*given, **options)

        monkeypatch.setattr(store_module, "create_ledger", write_first)
        with pytest.raises(sb.OtherAssetError):
            self.store(backend, "us/t")
        assert backend.read("SELECT note FROM t") == [("eu/t",)]

    def store(self, backend: Backend, asset: str) -> None:
        origin = Origin(run_id=asset[:2], publication_id=asset[:2], asset_key=asset)
        with backend.warehouse.connect() as session:
            rows = frame([(0, 1, 1.0, asset)])
            store_module.store(session, rows, spec=self.SPEC, partition_slice=slice_of([0]), origin=origin)
