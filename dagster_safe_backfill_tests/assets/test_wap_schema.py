"""The I/O managers' option `wap_schema`: what is made beside tables is in a schema of its own."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import dagster as dg
import pytest

import dagster_safe_backfill as sb
from dagster_safe_backfill.model.options import Strategy
from dagster_safe_backfill.model.tables import Query, TableRef
from dagster_safe_backfill_tests.harness.assets import Source, events, failure_of, run_range
from dagster_safe_backfill_tests.harness.backends import Backend
from dagster_safe_backfill_tests.harness.publications import STRATEGIES, Publications, day_rows
from dagster_safe_backfill_tests.runs.test_staged import Shop

pytestmark = pytest.mark.every_warehouse

LIVE = "SELECT * FROM events ORDER BY ALL"
DAYS = ("2024-01-01", "2024-01-02")
by_each = pytest.mark.parametrize("strategy", STRATEGIES)


@pytest.fixture
def beside(backend: Backend) -> sb.RangeIOManager:
    return backend.manager(wap_schema="wap")


def tables(backend: Backend, schema: str) -> set[str]:
    """Return the names of a schema's tables, in lower case, without those of the locks."""
    # With a blank, so that the backend takes it for no look at the schema `main`.
    found = backend.read(
        "SELECT lower(table_name), lower(schema_name) FROM duckdb_tables () WHERE database_name = current_database()"
    )
    return {name for name, of in found if of.rstrip("_") == schema and not name.endswith("__lock")}


def infix(names: set[str], word: str) -> set[str]:
    return {name for name in names if f"__{word}_" in name}


def rolled_back(
    asset: dg.AssetsDefinition, io_manager: sb.RangeIOManager, instance: dg.DagsterInstance, **config: Any
) -> dg.ExecuteInProcessResult:
    return sb.build_rollback_job(asset).execute_in_process(
        run_config={"ops": {"rollback_events_op": {"config": config}}},
        resources={"io_manager": io_manager},
        instance=instance,
        raise_on_error=False,
    )


@by_each
def test_there_and_back(
    backend: Backend, beside: sb.RangeIOManager, instance: dg.DagsterInstance, strategy: Strategy
) -> None:
    source = Source()
    asset = events(source, publish=strategy)

    def run() -> dg.ExecuteInProcessResult:
        return run_range([asset], *DAYS, io_manager=beside, instance=instance)

    assert run().success
    before = backend.read(LIVE)
    source.spoiled["2024-01-02", 0] = 100.0
    second = run()
    assert second.success
    after = backend.read(LIVE)
    assert after != before
    archives = infix(tables(backend, "main"), "archive")
    assert tables(backend, "main") == {"events", *archives}
    # A swap's archive is the old table, and stays where its readers are. On Snowflake, the first one swaps, too.
    assert bool(archives) == (strategy == "swap")
    own = tables(backend, "wap")
    assert own >= {"_safe_backfill_ledger"}
    assert all(name.startswith("main__events__archive_") for name in own - {"_safe_backfill_ledger"})
    assert len(own) == (1 if strategy == "swap" else 2)
    assert run().success
    (touched,) = backend.read(
        "SELECT sum(rows_inserted + rows_updated + rows_deleted) FROM wap._safe_backfill_ledger"
        " WHERE event = 'published' GROUP BY publication_id ORDER BY min(recorded_at) DESC LIMIT 1"
    )
    if strategy != "replace":
        assert touched == (0,)
    assert backend.read(LIVE) == after
    assert rolled_back(asset, beside, instance, publication_id=second.run_id, force=strategy == "replace").success
    assert backend.read(LIVE) == before
    assert infix(tables(backend, "main") | tables(backend, "wap"), "shadow") == set()


def test_tables_of_one_name_in_two_schemas_share_it(
    backend: Backend, beside: sb.RangeIOManager, instance: dg.DagsterInstance
) -> None:
    sources = {"a": Source(), "b": Source(rows_per_day=2)}
    assets = {name: events(one, table=sb.TableOptions(schema=name)) for name, one in sources.items()}
    live = {name: f"SELECT * FROM {name}.events ORDER BY ALL" for name in sources}

    def run(name: str) -> None:
        assert run_range([assets[name]], *DAYS, io_manager=beside, instance=instance).success

    for name in sources:
        run(name)
    before = {name: backend.read(live[name]) for name in sources}
    for name, source in sources.items():
        source.spoiled["2024-01-01", 0] = 50.0
        run(name)
    after = {name: backend.read(live[name]) for name in sources}
    assert tables(backend, "a") == tables(backend, "b") == {"events"}
    assert {name[:19] for name in infix(tables(backend, "wap"), "archive")} == {
        "a__events__archive_",
        "b__events__archive_",
    }
    assert rolled_back(assets["a"], beside, instance).success
    assert {name: backend.read(live[name]) for name in sources} == {"a": before["a"], "b": after["b"]}
    assert rolled_back(assets["b"], beside, instance).success
    assert {name: backend.read(live[name]) for name in sources} == before


def test_what_waits_for_its_audit_is_there(
    backend: Backend, beside: sb.RangeIOManager, instance: dg.DagsterInstance
) -> None:
    shop = Shop(beside, instance)
    shop.stage("2024-01-01", "2024-01-02")
    shop.stage("2024-01-03")
    assert tables(backend, "main") == set()
    assert len(infix(tables(backend, "wap"), "shadow")) == 2
    shop.audit()
    assert shop.publish("2024-01-01", "2024-01-03").success
    assert backend.read("SELECT count(*) FROM events") == [(9,)]
    assert tables(backend, "main") == {"events"}
    assert tables(backend, "wap") == {"_safe_backfill_ledger"}


def test_rejected_rows_are_taken_up_from_there(
    backend: Backend, beside: sb.RangeIOManager, instance: dg.DagsterInstance
) -> None:
    source = Source(broken={"2024-01-02"})
    asset = events(source, batches=1)
    failed = run_range([asset], *DAYS, io_manager=beside, instance=instance)
    assert not failed.success
    assert len(infix(tables(backend, "wap"), "shadow")) == 1
    source.broken.clear()
    again = run_range([asset], *DAYS, io_manager=beside, instance=instance, again=failed.dagster_run)
    assert again.success
    assert source.calls == [("2024-01-01",), ("2024-01-02",), ("2024-01-02",)]
    assert backend.read("SELECT count(*) FROM events") == [(6,)]


def test_a_plain_asset_keeps_its_ledger_there(
    backend: Backend, beside: sb.RangeIOManager, instance: dg.DagsterInstance
) -> None:
    @dg.asset(
        partitions_def=dg.DailyPartitionsDefinition("2024-01-01", end_date="2024-01-05"),
        metadata={"partition_expr": "day", "unique_key": ["day"]},
        backfill_policy=sb.single_run(),
    )
    def events() -> sb.Query:
        return sb.Query("SELECT CAST('2024-01-01' AS DATE) AS day, 1 AS value")

    for _ in range(2):
        assert run_range([events], DAYS[0], DAYS[0], io_manager=beside, instance=instance).success
    assert (tables(backend, "main"), tables(backend, "wap")) == ({"events"}, {"_safe_backfill_ledger"})


def test_retention_drops_what_is_there(backend: Backend) -> None:
    table = Publications(backend, live=day_rows(0, 1.0))
    table.spec = replace(table.spec, table=replace(table.spec.table, wap_schema="wap"))
    for number, strategy in enumerate(STRATEGIES, start=2):
        table.published(
            day_rows(0, number), [0], f"p{number}", strategy=strategy, archive_for=timedelta(milliseconds=1)
        )
    table.stage(day_rows(0, 9.0), [0], "staged")
    kept = table.retire(running=["staged"])
    assert [str(one) for one in kept.kept_shadows] in (["wap.main__t__shadow_staged"], ["WAP.main__t__shadow_staged"])
    assert len(kept.archives) == 3
    assert {one.schema.lower() for one in kept.archives} == {"main", "wap"}
    table.retire()
    assert infix(tables(backend, "main") | tables(backend, "wap"), "archive") == set()
    assert infix(tables(backend, "wap"), "shadow") == set()


def test_columns_that_a_swap_dropped_come_back(backend: Backend) -> None:
    """From the old table as a whole, and there again."""
    table = Publications(backend, live=day_rows(0, 1.0), on_schema_change="sync")
    table.spec = replace(table.spec, table=replace(table.spec.table, wap_schema="wap"))
    before = table.live()
    table.published(Query("SELECT CAST('2024-01-01' AS DATE) AS day, 1 AS id"), [0], "1", strategy="swap")
    after = table.live()
    table.rollback("1")
    assert table.live() == before
    table.rollback("back", run="forward")
    assert table.live() == after


ROWS = "FROM _safe_backfill_ledger WHERE table_name = 'main.events'"
MOVED = (
    "CREATE SCHEMA wap",
    f"CREATE TABLE wap._safe_backfill_ledger AS SELECT * {ROWS}",
    f"DELETE {ROWS}",
)


@by_each
def test_a_history_elsewhere_is_not_forgotten(
    backend: Backend, beside: sb.RangeIOManager, instance: dg.DagsterInstance, strategy: Strategy
) -> None:
    source = Source()
    asset = events(source, publish=strategy)
    assert run_range([asset], *DAYS, io_manager=backend.io_manager, instance=instance).success
    before = backend.read(LIVE)
    source.spoiled["2024-01-02", 0] = 100.0
    assert run_range([asset], *DAYS, io_manager=backend.io_manager, instance=instance).success
    after = backend.read(LIVE)
    calls = [*source.calls]
    failed = run_range([asset], *DAYS, io_manager=beside, instance=instance)
    assert "history is in main._safe_backfill_ledger" in failure_of(failed, "events").replace("main_.", "main.")
    assert source.calls == calls
    assert not rolled_back(asset, beside, instance).success
    assert backend.read(LIVE) == after
    backend.change(*MOVED)
    assert run_range([asset], *DAYS, io_manager=beside, instance=instance).success
    assert rolled_back(asset, beside, instance).success
    if strategy == "replace":
        assert rolled_back(asset, beside, instance, publication_id=_second(backend), force=True).success
    else:
        assert rolled_back(asset, beside, instance, publication_id=_second(backend)).success
    assert backend.read(LIVE) == before
    # And back again.
    failed = run_range([asset], *DAYS, io_manager=backend.io_manager, instance=instance)
    assert "history is in wap._safe_backfill_ledger" in failure_of(failed, "events")


def _second(backend: Backend) -> str:
    found = backend.read(
        "SELECT publication_id FROM wap._safe_backfill_ledger WHERE event = 'published' GROUP BY 1"
        " ORDER BY min(recorded_at) LIMIT 1 OFFSET 1"
    )
    return found[0][0]


@pytest.mark.parametrize(
    ("option", "message"),
    [("main", "the schema of the table itself"), ("MAIN", "the schema of the table itself"), (" ", "name of a schema")],
)
def test_the_option_is_checked(backend: Backend, instance: dg.DagsterInstance, option: str, message: str) -> None:
    source = Source()
    failed = run_range([events(source)], *DAYS, io_manager=backend.manager(wap_schema=option), instance=instance)
    assert message in failure_of(failed, "events")
    assert source.calls == []


def test_names_are_of_one_table_only() -> None:
    """Also where names have underscores or are too long."""
    parts = [
        ("a", "b__c"),
        ("a__b", "c"),
        ("a_", "b"),
        ("a", "_b"),
        ("a", "b"),
        ("a" * 200, "b" * 100),
        ("a" * 199, "ab" + "b" * 99),
    ]
    refs = [TableRef(schema=schema, name=name, wap_schema="wap") for schema, name in parts]
    for names in (
        [one.shadow("12345678-1234-1234-1234-123456789012", batch=123456).name for one in refs],
        [one.archive("12345678-1234-1234-1234-123456789012").name for one in refs],
        [one.lock.name for one in refs],
        [one.shadow_prefix for one in refs],
    ):
        assert len({*names}) == len(names)
        assert max(len(name.encode()) for name in names) <= 255
    assert refs[4].shadow("r").name == "a__b__shadow_r"
    assert all(one.shadow("r").name.startswith(one.shadow_prefix) for one in refs)
    assert refs[4].archive_named(refs[4].archive("p").name) == refs[4].archive("p")
    assert refs[4].archive_named(refs[4].aside("p").name) == TableRef(schema="a", name="b__archive_p")
