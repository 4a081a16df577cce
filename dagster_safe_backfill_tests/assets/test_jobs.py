"""The rollback job and the retention schedule, as Dagster runs them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import dagster as dg
import pytest

import dagster_safe_backfill as sb
from dagster_safe_backfill_tests.conftest import Read
from dagster_safe_backfill_tests.harness.assets import Source, events, failure_of, green, run_range

pytestmark = pytest.mark.every_warehouse

LIVE = "SELECT day::DATE::VARCHAR, count(*), sum(value) FROM events GROUP BY 1 ORDER BY 1"
MENDED = [("2024-01-01", 3, 6.0), ("2024-01-02", 3, 105.0), ("2024-01-03", 3, 6.0)]
BEFORE = [("2024-01-01", 3, 6.0), ("2024-01-02", 3, 6.0)]


class Backfilled:
    """An asset with two publications; the second changed one day, left one alone and added one."""

    def __init__(self, io_manager: sb.RangeIOManager, instance: dg.DagsterInstance) -> None:
        self.io_manager, self.instance = io_manager, instance
        self.source = Source()
        self.asset = events(self.source)
        self.first = self.run("2024-01-01", "2024-01-02").run_id
        self.source.spoiled["2024-01-02", 0] = 100.0
        self.second = self.run("2024-01-01", "2024-01-03").run_id
        self.job = sb.build_rollback_job(self.asset)

    def run(self, first: str, last: str) -> dg.ExecuteInProcessResult:
        result = run_range([self.asset], first, last, io_manager=self.io_manager, instance=self.instance)
        assert result.success
        return result

    @property
    def table_name(self) -> str:
        """The name of the table with that of its database."""
        return f"{self.io_manager.database_shown[0]}.main.events"

    @property
    def storage_kind(self) -> str:
        return self.io_manager.database_shown[1]

    def rollback(self, **config: Any) -> dg.ExecuteInProcessResult:
        return self.job.execute_in_process(
            run_config={"ops": {"rollback_events_op": {"config": config}}},
            resources={"io_manager": self.io_manager},
            instance=self.instance,
            raise_on_error=False,
        )

    def newest(self, partition: str) -> dg.AssetMaterialization:
        event = self.instance.get_latest_materialization_event(dg.AssetKey("events"))
        found = self.instance.fetch_materializations(
            dg.AssetRecordsFilter(dg.AssetKey("events"), asset_partitions=[partition]), limit=1
        )
        assert event is not None
        materialization = found.records[0].event_log_entry.asset_materialization
        assert materialization is not None
        return materialization


@pytest.fixture
def backfilled(io_manager: sb.RangeIOManager, instance: dg.DagsterInstance) -> Backfilled:
    return Backfilled(io_manager, instance)


def plain(materialization: dg.AssetMaterialization) -> dict[str, Any]:
    return {name: value.value for name, value in materialization.metadata.items()}


def test_the_newest_publication_is_rolled_back_and_dagster_says_so(backfilled: Backfilled, read: Read) -> None:
    assert read(LIVE) == MENDED
    result = backfilled.rollback()
    assert result.success
    assert read(LIVE) == BEFORE
    changed = backfilled.newest("2024-01-02")
    assert changed.description == f"Rollback of {backfilled.second}"
    found = plain(changed)
    assert found.pop("archive_expires_at").endswith("UTC")
    assert found == {
        "dagster/table_name": backfilled.table_name,
        "dagster/storage_kind": backfilled.storage_kind,
        "rollback_of": backfilled.second,
        "publication_id": result.run_id,
        "archive": f"main.events__archive_{result.run_id.replace('-', '')}",
        "dagster/partition_row_count": 3,
        "rows_staged": 3,
        "rows_inserted": 0,
        "rows_updated": 1,
        "rows_deleted": 0,
        "rows_unchanged": 2,
    }
    assert "had no rows before the publication, and has none now" in (backfilled.newest("2024-01-03").description or "")
    assert "had changed nothing in this partition" in (backfilled.newest("2024-01-01").description or "")
    assert green(backfilled.instance, "events") == {"2024-01-01", "2024-01-02", "2024-01-03"}


def test_a_rollback_is_undone_by_its_own_id(backfilled: Backfilled, read: Read) -> None:
    back = backfilled.rollback(publication_id=backfilled.second)
    assert backfilled.rollback(publication_id=back.run_id).success
    assert read(LIVE) == MENDED
    assert backfilled.newest("2024-01-02").description == f"Rollback of {back.run_id}"


def test_a_dry_run_tells_only(backfilled: Backfilled, read: Read) -> None:
    result = backfilled.rollback(dry_run=True)
    assert read(LIVE) == MENDED
    assert "Rollback" not in (backfilled.newest("2024-01-02").description or "")
    (output,) = [e for e in result.all_events if e.event_type_value == "STEP_OUTPUT"]
    told = {name: value.value for name, value in output.step_output_data.metadata.items()}
    assert told["summary"] == (
        "2 partitions: 0 rows inserted, 1 updated, 3 deleted, 2 unchanged; 2024-01-03 had no rows before, so their"
        " rows are removed; nothing to undo in 2024-01-01"
    )


def test_ranges_of_partitions_are_named_as_in_the_ui(backfilled: Backfilled, read: Read) -> None:
    assert backfilled.rollback(partitions=["2024-01-02...2024-01-03"]).success
    assert read(LIVE) == BEFORE


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"partitions": ["2024-01-03...2024-01-02"]}, "2024-01-03...2024-01-02 is not a range of its partitions"),
        ({"partitions": ["2024-01-03...tomorrow"]}, "not a range of its partitions"),
        ({"partitions": ["2024-01-09"]}, "did not publish 2024-01-09"),
        ({"publication_id": "nope"}, "main.events: no publication or rollback nope"),
        ({"publication_id": "a", "backfill_id": "b"}, "not both"),
        ({"publication_ids": ["a"], "backfill_id": "b"}, "not both"),
        ({"publication_id": ""}, "publication_id is '', which names nothing; a variable in a template may be unset"),
        ({"publication_id": " "}, "publication_id is ' ', which names nothing"),
        ({"backfill_id": ""}, "backfill_id is '', which names nothing"),
        ({"publication_ids": []}, "publication_ids is [], which names nothing"),
        ({"publication_ids": [""]}, "publication_ids is [''], which names nothing"),
        ({"partitions": []}, "partitions is [], which names nothing"),
        ({"partitions": ["2024-01-02", ""]}, "partitions is ['2024-01-02', ''], which names nothing"),
        ({"shown_publications": ["a"]}, "give shown_publications and shown_live together"),
    ],
)
def test_what_can_not_be_is_said(backfilled: Backfilled, read: Read, config: dict[str, Any], message: str) -> None:
    result = backfilled.rollback(**config)
    assert not result.success
    assert message in failure_of(result, "rollback_events_op")
    assert read(LIVE) == MENDED


def test_partitions_that_the_asset_has_no_more_are_named(
    backfilled: Backfilled, io_manager: sb.RangeIOManager, instance: dg.DagsterInstance
) -> None:
    shorter = events(
        backfilled.source, partitions_def=dg.DailyPartitionsDefinition("2024-01-03", end_date="2024-02-01")
    )
    result = sb.build_rollback_job(shorter).execute_in_process(
        resources={"io_manager": io_manager}, instance=instance, raise_on_error=False
    )
    assert "has no partitions 2024-01-02 any more" in failure_of(result, "rollback_events_op")


def test_a_publication_of_a_run_says_where_its_archive_is(backfilled: Backfilled) -> None:
    found = plain(backfilled.newest("2024-01-02"))
    assert found["archive"] == f"main.events__archive_{backfilled.second.replace('-', '')}"
    assert found["archive_expires_at"].endswith("UTC")


def test_the_schedule_drops_what_is_over(backfilled: Backfilled, read: Read) -> None:
    backfilled.source.spoiled["2024-01-01", 0] = -1.0
    run_range(
        [backfilled.asset], "2024-01-01", "2024-01-01", io_manager=backfilled.io_manager, instance=backfilled.instance
    )
    tables = "SELECT count(*) FROM duckdb_tables() WHERE table_name LIKE '%\\_\\_shadow\\_%' ESCAPE '\\'"
    assert read(tables) == [(1,)]
    for dry_run, left in ((True, 1), (False, 0)):
        schedule = sb.build_retention_schedule([backfilled.asset], shadow_days=0, dry_run=dry_run)
        with dg.build_schedule_context() as context:
            data = schedule.evaluate_tick(context)
        assert data.run_requests is not None
        job = schedule.job
        assert isinstance(job, dg.JobDefinition)
        result = job.execute_in_process(
            run_config=data.run_requests[0].run_config,
            resources={"io_manager": backfilled.io_manager},
            instance=backfilled.instance,
        )
        assert result.success
        assert read(tables) == [(left,)]


def test_the_definitions_load_together(io_manager: sb.RangeIOManager) -> None:
    asset = events(Source())
    definitions = dg.Definitions(
        assets=[asset],
        jobs=[sb.build_rollback_job(asset)],
        schedules=[sb.build_retention_schedule([asset])],
        resources={"io_manager": io_manager},
    )
    dg.Definitions.validate_loadable(definitions)
    assert definitions.resolve_job_def("safe_backfill_retention_job").name == "safe_backfill_retention_job"


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"publicationid": "a"}, 'unexpected config entry "publicationid"'),
        ({"publication_id": 7}, 'expected type "String"'),
        ({"partitions": "2024-01-02"}, "must be list"),
        ({"dry_run": "yes"}, 'expected type "Bool"'),
    ],
)
def test_a_rollback_that_dagster_itself_refuses(
    backfilled: Backfilled, read: Read, config: dict[str, Any], message: str
) -> None:
    with pytest.raises(dg.DagsterInvalidConfigError) as caught:
        backfilled.rollback(**config)
    assert message in str(caught.value)
    assert read(LIVE) == MENDED


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"assets": []}, "assets is [], which names nothing; a variable in a template may be unset"),
        ({"assets": [""]}, "assets is [''], which names nothing"),
        ({"assets": ["evnets"]}, "the schedule isn't for evnets, but for events"),
        ({"assets": ["events", "orders"]}, "the schedule isn't for orders, but for events"),
        ({"shadow_days": -1.0}, "shadow_days must be a number of days"),
        ({"shadow_days": 1e9}, "shadow_days must be a number of days"),
        ({"unknown_run_days": -0.5}, "unknown_run_days must be a number of days"),
    ],
)
def test_a_retention_that_can_not_be_is_refused(
    backfilled: Backfilled, read: Read, config: dict[str, Any], message: str
) -> None:
    archives = "SELECT count(*) FROM duckdb_tables() WHERE contains(table_name, '__archive_')"
    before = read(archives)
    assert message in failure_of(retention(backfilled, config), "safe_backfill_retention_op")
    assert read(archives) == before


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"asset": ["events"]}, 'unexpected config entry "asset"'),
        ({"assets": "events"}, "must be list"),
        ({"dry_run": 1}, 'expected type "Bool"'),
        ({"shadow_days": "7"}, 'expected type "Float"'),
    ],
)
def test_a_retention_that_dagster_itself_refuses(backfilled: Backfilled, config: dict[str, Any], message: str) -> None:
    with pytest.raises(dg.DagsterInvalidConfigError) as caught:
        retention(backfilled, config)
    assert message in str(caught.value)


def retention(backfilled: Backfilled, config: dict[str, Any]) -> dg.ExecuteInProcessResult:
    job = sb.build_retention_schedule([backfilled.asset]).job
    assert isinstance(job, dg.JobDefinition)
    return job.execute_in_process(
        run_config={"ops": {"safe_backfill_retention_op": {"config": config}}},
        resources={"io_manager": backfilled.io_manager},
        instance=backfilled.instance,
        raise_on_error=False,
    )


@pytest.mark.parametrize("days", [-1, float("nan"), "30", True])
def test_days_are_numbers(days: Any) -> None:
    with pytest.raises(sb.ConfigurationError, match="archive_days must be a number of days"):
        events(Source(), publish=sb.Merge(archive_days=days))


def test_options_that_can_not_work_together_are_refused() -> None:
    with pytest.raises(sb.ConfigurationError, match='publish="swap"'):
        events(Source(), publish=sb.Merge(on_schema_change="sync"))  # type: ignore[arg-type]
    with pytest.raises(sb.ConfigurationError, match="at least one asset"):
        sb.build_retention_schedule([])

    @dg.asset
    def whole() -> None: ...

    with pytest.raises(sb.ConfigurationError, match="no partitions"):
        sb.build_rollback_job(whole)


@dataclass(frozen=True, slots=True, kw_only=True)
class Meddling(sb.GroupAudit):
    """An audit that passes, and meanwhile somebody changes live."""

    over: Literal["partition", "run"] = "run"
    meddle: Callable[[], object] = print

    def aggregates(self) -> Mapping[str, str]:
        return {"rows": "count(*)"}

    def judge(self, shadow: sb.Side, live: sb.Side | None) -> sb.Verdict:
        self.meddle()
        return sb.Verdict(outcome="passed")


def test_a_conflict_fails_the_run_and_says_who(
    io_manager: sb.RangeIOManager, instance: dg.DagsterInstance, read: Read
) -> None:
    source = Source()
    update = "UPDATE events SET value = 50 WHERE day = '2024-01-02'"
    meddling = Meddling(name="meddling", meddle=lambda: read(update))
    first, second = events(source), events(source, audits=[meddling])
    run_range([first], "2024-01-01", "2024-01-02", io_manager=io_manager, instance=instance)
    result = run_range([second], "2024-01-01", "2024-01-02", io_manager=io_manager, instance=instance)
    assert not result.success
    assert "2024-01-02: by no publication, so by hand" in failure_of(result, "events")
    assert read(LIVE) == [BEFORE[0], ("2024-01-02", 3, 150.0)]
    overwriting = events(source, audits=[meddling], publish=sb.Merge(on_conflict="overwrite"))
    assert run_range([overwriting], "2024-01-01", "2024-01-02", io_manager=io_manager, instance=instance).success
    assert read(LIVE) == BEFORE
