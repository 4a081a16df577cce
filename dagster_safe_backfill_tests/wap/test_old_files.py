"""A database that an older version wrote: its history is read, undone and published on as if written today."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import dagster as dg
import duckdb
import pyarrow as pa
import pytest

import dagster_safe_backfill as sb
from dagster_safe_backfill_tests.harness.assets import RANGE_END, RANGE_START, failure_of, run_range
from dagster_safe_backfill_tests.wap.old_files.make import DATABASE, DAYS, Row, frame, key, rows_of

LOCK = Path(__file__).parents[2] / "requirements.lock"
FILES = {path.stem.removeprefix("v0.1.0-"): path for path in DATABASE.parent.glob("v0.1.0-duckdb-*.duckdb")}
"""By the version of DuckDB that wrote them."""
OWN = DATABASE.stem.removeprefix("v0.1.0-")
OTHER = next(version for version in sorted(FILES) if version != OWN)
LEDGER = [
    ("recorded_at", "TIMESTAMP WITH TIME ZONE"),
    ("event", "VARCHAR"),
    ("table_name", "VARCHAR"),
    ("partition_key", "VARCHAR"),
    ("publication_id", "VARCHAR"),
    ("shadow", "VARCHAR"),
    ("run_id", "VARCHAR"),
    ("backfill_id", "VARCHAR"),
    ("code_version", "VARCHAR"),
    ("strategy", "VARCHAR"),
    ("rows_staged", "BIGINT"),
    ("rows_inserted", "BIGINT"),
    ("rows_updated", "BIGINT"),
    ("rows_deleted", "BIGINT"),
    ("rows_unchanged", "BIGINT"),
    ("failed_audits", "VARCHAR"),
    ("warned_audits", "VARCHAR"),
    ("fingerprint", "VARCHAR"),
    ("fingerprinted_columns", "VARCHAR"),
    ("replaced_fingerprint", "VARCHAR"),
    ("archive", "VARCHAR"),
    ("archive_expires_at", "TIMESTAMP WITH TIME ZONE"),
    ("undone_publications", "VARCHAR"),
    ("code", "VARCHAR"),
    ("scope", "VARCHAR"),
    ("computed_at", "TIMESTAMP WITH TIME ZONE"),
]
PROVENANCE = [("provenance", "VARCHAR"), ("computed_by", "VARCHAR"), ("asset_key", "VARCHAR"), ("moved", "VARCHAR")]
EVENTS = {
    *("staged", "audited", "rejected", "approved", "refused"),
    *("taken_up", "published", "rolled_back", "expired", "discarded"),
}


class OldWarehouse:
    """A copy of the old file, with assets of today on it. The Dagster instance knows nothing of what was."""

    def __init__(self, file: Path, folder: Path, instance: dg.DagsterInstance) -> None:
        self.path = str(shutil.copy(file, folder / "warehouse.duckdb"))
        self.steps: dict[str, dict[str, Any]] = json.loads(file.with_suffix(".json").read_text())
        self.instance = instance
        self.io_manager = sb.RangeDuckDBIOManager(database=self.path, schema="main")
        self.calls: list[tuple[str, ...]] = []

    def id_of(self, step: str) -> str:
        return self.steps[step]["run_id"]

    def live_after(self, step: str, table: str) -> dict[str, Any]:
        """Return the columns and rows of a live table after a step of then."""
        *_, last = (found[table] for found in self._until(step) if table in found)
        return last

    def _until(self, step: str) -> Iterator[dict[str, Any]]:
        for name, found in self.steps.items():
            yield found
            if name == step:
                return

    def sql(self, sql: str) -> list[tuple[Any, ...]]:
        with duckdb.connect(self.path) as connection:
            connection.execute("SET TimeZone = 'UTC'")
            return connection.execute(sql).fetchall()

    def live(self, table: str) -> dict[str, Any]:
        columns = self.sql(f"SELECT column_name, column_type FROM (DESCRIBE {table})")
        rows = self.sql(f"SELECT COLUMNS(*)::VARCHAR FROM {table} ORDER BY ALL")
        return {"columns": [*map(list, columns)], "rows": [*map(list, rows)]}

    def tables(self, infix: str) -> set[str]:
        return {name for (name,) in self.sql("SELECT table_name FROM duckdb_tables()") if infix in name}

    def values(self, table: str) -> dict[int, list[float]]:
        """Return the live values by the day of the month."""
        return dict(self.sql(f"SELECT day(day), list(value ORDER BY id) FROM {table} GROUP BY ALL ORDER BY ALL"))

    def asset(self, table: str, rows: Sequence[Row] = (), *, extra: str | None = None) -> dg.AssetsDefinition:
        def compute(partitions: sb.PartitionSlice) -> pa.Table:
            self.calls.append(partitions.keys)
            return frame([row for row in rows if key(row[0]) in partitions.keys], extra=extra)

        compute.__name__ = table
        return sb.wap_asset(
            partitions_def=DAYS,
            partition_expr="day",
            unique_key=["day", "id"],
            audits=[sb.not_null("value")],
            backfill_policy=sb.single_run(),
        )(compute)

    def publish(
        self, table: str, rows: Sequence[Row], days: tuple[int, int], **options: Any
    ) -> dg.ExecuteInProcessResult:
        first, last = map(key, days)
        assets = [self.asset(table, rows, **options)]
        result = run_range(assets, first, last, io_manager=self.io_manager, instance=self.instance)
        assert result.success
        return result

    def rollback(self, table: str, publication_id: str, **config: Any) -> dg.ExecuteInProcessResult:
        return sb.build_rollback_job(self.asset(table)).execute_in_process(
            run_config={"ops": {f"rollback_{table}_op": {"config": {"publication_id": publication_id, **config}}}},
            resources={"io_manager": self.io_manager},
            instance=self.instance,
            raise_on_error=False,
        )

    def refusal(self, table: str, publication_id: str) -> str:
        before = self.live(table)
        result = self.rollback(table, publication_id)
        assert not result.success
        assert self.live(table) == before
        return failure_of(result, f"rollback_{table}_op")

    def summary(self, table: str, publication_id: str, **config: Any) -> str:
        """Return what a rollback would do."""
        result = self.rollback(table, publication_id, dry_run=True, **config)
        (output,) = [event for event in result.all_events if event.event_type_value == "STEP_OUTPUT"]
        return output.step_output_data.metadata["summary"].value

    def staged(
        self, name: str, *wanted: str, days: tuple[int, int], rows: Sequence[Row] = ()
    ) -> dg.ExecuteInProcessResult:
        """Run some of three staged assets of today."""

        def compute(partitions: sb.PartitionSlice) -> pa.Table:
            assert rows, "what is staged need not be computed"
            return frame([row for row in rows if key(row[0]) in partitions.keys], extra=None)

        compute.__name__ = name
        assets = sb.build_staged_wap_assets(
            compute,
            partitions_def=DAYS,
            partition_expr="day",
            unique_key=["day", "id"],
            audits=[sb.not_null("value")],
            backfill_policy=sb.single_run(),
        )
        return dg.materialize(
            [*assets],
            selection=[getattr(assets, one) for one in wanted],
            tags={RANGE_START: key(days[0]), RANGE_END: key(days[1])},
            resources={"io_manager": self.io_manager},
            instance=self.instance,
            raise_on_error=False,
        )


@pytest.fixture
def old(tmp_path: Path, instance: dg.DagsterInstance) -> OldWarehouse:
    if OWN not in FILES:
        pytest.skip(f"no old file is of {OWN}; another one's hashes can't be compared")
    return OldWarehouse(FILES[OWN], tmp_path, instance)


def test_there_is_a_file_of_each_locked_duckdb() -> None:
    assert set(re.findall(r"^duckdb==([\d.]+)", LOCK.read_text(), re.MULTILINE)) == {
        version.removeprefix("duckdb-") for version in FILES
    }


def test_what_another_duckdb_wrote_is_published_on_and_undone_by_force(
    tmp_path: Path, instance: dg.DagsterInstance
) -> None:
    old = OldWarehouse(FILES[OTHER], tmp_path, instance)
    assert "another version of the database" in old.refusal("events", old.id_of("last_again"))
    assert old.rollback("events", old.id_of("last_again"), force=True).success
    assert old.live("events") == old.live_after("last_undone", "events")
    result = old.publish("events", rows_of([1, 2], 70), (1, 2))
    assert old.rollback("events", result.run_id).success
    assert old.live("events") == old.live_after("last_undone", "events")


def test_the_file_has_what_the_others_look_at(old: OldWarehouse) -> None:
    assert {event for (event,) in old.sql("SELECT DISTINCT event FROM _safe_backfill_ledger")} == EVENTS
    for table in ("events", "stock", "orders"):
        assert old.live(table) == old.live_after([*old.steps][-1], table)
    assert len(old.tables("__archive_")) >= 9
    assert len(old.tables("__shadow_")) == 4


def test_the_ledgers_columns_are_the_same_in_name_type_and_order(old: OldWarehouse, tmp_path: Path) -> None:
    columns = "SELECT column_name, column_type FROM (DESCRIBE _safe_backfill_ledger)"
    assert old.sql(columns) == LEDGER
    old.publish("events", rows_of([1], 70), (1, 1))
    assert old.sql(columns) == LEDGER + PROVENANCE
    old.path = str(tmp_path / "new.duckdb")
    old.io_manager = sb.RangeDuckDBIOManager(database=old.path, schema="main")
    old.publish("events", rows_of([1], 70), (1, 1))
    assert old.sql(columns) == [one for one in LEDGER if one[0] != "code"] + PROVENANCE


def test_what_the_ledger_says_of_then_is_read(old: OldWarehouse) -> None:
    assert old.summary("events", old.id_of("last")) == (
        "0 partitions: 0 rows inserted, 0 updated, 0 deleted, 0 unchanged; already undone in 2024-01-01, 2024-01-02"
    )
    assert old.summary("orders", old.id_of("orders_published")) == (
        "3 partitions: 0 rows inserted, 0 updated, 9 deleted, 0 unchanged; 2024-01-01, 2024-01-02, 2024-01-03 had no"
        " rows before, so their rows are removed"
    )
    changed = old.refusal("events", old.id_of("changed"))
    assert "2 partitions were published again since" in changed
    assert f"2024-01-02: {old.id_of('last_again')} at" in changed
    assert f"2024-01-04: {old.id_of('replaced')} at" in changed
    assert f"2024-01-01: {old.id_of('last_again')} at" in old.refusal("events", old.id_of("last_undone"))
    resumed = old.refusal("events", old.id_of("batch_resumed"))
    assert f"2024-01-07: {old.id_of('brief_and_standing')} at" in resumed
    assert f"2024-01-08: {old.id_of('brief')} at" in resumed
    assert "the replaced rows of 2024-01-08 are not kept any more" in old.refusal("events", old.id_of("brief"))


@pytest.mark.parametrize(
    ("table", "step", "before"),
    [
        ("events", "last_again", "last_undone"),
        ("stock", "stock_last", "stock_undone"),
    ],
)
def test_a_publication_of_then_is_rolled_back_and_forth(old: OldWarehouse, table: str, step: str, before: str) -> None:
    back = old.rollback(table, old.id_of(step))
    assert back.success
    assert old.live(table) == old.live_after(before, table)
    assert old.rollback(table, back.run_id).success
    assert old.live(table) == old.live_after(step, table)


@pytest.mark.parametrize(
    ("table", "on_top", "rollback", "undone"),
    [
        ("events", "last_again", "last_undone", "last"),
        ("stock", "stock_last", "stock_undone", "stock_widened"),
    ],
)
def test_a_rollback_of_then_is_rolled_back(
    old: OldWarehouse, table: str, on_top: str, rollback: str, undone: str
) -> None:
    assert old.rollback(table, old.id_of(on_top)).success
    assert old.rollback(table, old.id_of(rollback)).success
    assert old.live(table) == old.live_after(undone, table)


def test_publications_are_rolled_back_one_after_the_other_as_far_as_they_are_kept(old: OldWarehouse) -> None:
    assert old.rollback("events", old.id_of("last_again")).success
    assert old.rollback("events", old.id_of("brief_and_standing")).success
    assert old.live("events") == old.live_after("brief", "events")
    assert old.rollback("events", old.id_of("replaced")).success
    assert old.rollback("events", old.id_of("changed")).success
    first = {tuple(row) for row in old.live_after("first", "events")["rows"]}
    rest = {tuple(row) for row in old.live("events")["rows"]} - first
    assert {row[0] for row in rest} == {key(7), key(8)}
    assert len(old.live("events")["rows"]) == len(first) + len(rest)


def test_publications_go_on_top_and_back(old: OldWarehouse) -> None:
    before = old.live("events")
    result = old.publish("events", [*rows_of([1], 60), *rows_of([2], 70), *rows_of([10], 70)], (1, 10))
    assert old.values("events") == {1: [60, 61, 62], 2: [70, 71, 72], 10: [70, 71, 72]}
    assert old.rollback("events", result.run_id).success
    assert old.live("events") == before


def test_what_is_published_on_top_stands_in_the_way_of_what_was(old: OldWarehouse) -> None:
    result = old.publish("events", rows_of([1, 2, 3], 80), (1, 3))
    assert f"2024-01-01: {result.run_id} at" in old.refusal("events", old.id_of("last_again"))


@pytest.mark.parametrize("change", ["DELETE FROM events WHERE", "UPDATE events SET value = 0 WHERE"])
def test_a_change_by_hand_since_then_is_seen(old: OldWarehouse, change: str) -> None:
    old.sql(f"{change} day = '2024-01-02' AND id = 1")
    assert "2024-01-02" in old.refusal("events", old.id_of("last_again"))


def test_rows_that_were_approved_then_are_refused_and_staged_again(old: OldWarehouse) -> None:
    """What made them isn't recorded."""
    refused = old.staged("orders", "published", days=(3, 4))
    assert "2 of 2 staged partitions are not what would be computed now" in failure_of(refused, "orders")
    assert "2024-01-03: what made it isn't recorded" in failure_of(refused, "orders")
    assert old.values("orders") == {1: [1, 2, 3], 2: [1, 2, 3], 3: [1, 2, 3]}
    assert old.staged("orders", "shadow", "audit", "published", days=(3, 4), rows=rows_of([3, 4], 5)).success
    assert old.values("orders") == {1: [1, 2, 3], 2: [1, 2, 3], 3: [5, 6, 7], 4: [5, 6, 7]}


def test_rows_that_were_refused_then_stay_so(old: OldWarehouse) -> None:
    refused = old.staged("refunds", "published", days=(1, 2))
    assert not refused.success
    said = failure_of(refused, "refunds")
    assert "2024-01-01: refused by an audit of all partitions that were staged with it" in said
    assert old.tables("refunds") == {"refunds__shadow_" + old.id_of("refunds_refused").replace("-", "")}


def test_a_partition_that_was_rejected_then_is_computed_anew(old: OldWarehouse) -> None:
    old.publish("events", rows_of([6], 6), (6, 6))
    assert old.calls == [(key(6),)]
    assert old.values("events")[6] == [6, 7, 8]


def test_partitions_of_a_run_that_crashed_then_go_live(old: OldWarehouse) -> None:
    old.publish("events", rows_of([9, 10], 9), (9, 10))
    assert {day: values for day, values in old.values("events").items() if day > 8} == {
        9: [9, 10, 11],
        10: [9, 10, 11],
    }


def test_retention_drops_what_is_over_and_no_more(old: OldWarehouse) -> None:
    archives, shadows = old.tables("__archive_"), old.tables("__shadow_")
    schedule = sb.build_retention_schedule([old.asset("events")], shadow_days=0, unknown_run_days=0)
    job = schedule.job
    assert isinstance(job, dg.JobDefinition)
    assert job.execute_in_process(resources={"io_manager": old.io_manager}, instance=old.instance).success
    expired = f"events__archive_{old.id_of('brief_and_standing').replace('-', '')}"
    assert old.tables("__archive_") == archives - {expired}
    assert old.tables("__shadow_") == {name for name in shadows if not name.startswith("events")}
    assert "are not kept any more" in old.refusal("events", old.id_of("brief_and_standing"))
    assert old.rollback("events", old.id_of("last_again")).success
    assert old.live("events") == old.live_after("last_undone", "events")
