"""A database that an older version wrote: its history is read, undone and published on as if written today."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import dagster as dg
import duckdb
import pyarrow as pa
import pytest

import dagster_safe_backfill as sb
from dagster_safe_backfill.sql.ledger import FORMAT
from dagster_safe_backfill_tests.harness.assets import RANGE_END, RANGE_START, failure_of, run_range
from dagster_safe_backfill_tests.wap import old_files
from dagster_safe_backfill_tests.wap.old_files.make import DAYS, Row, frame, key, rows_of

FILES = sorted(Path(old_files.__file__).parent.glob("ledger-*.duckdb"))
"""Named by the format of the ledger, and by the version of DuckDB that wrote it."""
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
        self.format = int(file.stem.split("-")[1])
        self.path = str(shutil.copy(file, folder / "warehouse.duckdb"))
        self.steps: dict[str, dict[str, Any]] = json.loads(file.with_suffix(".json").read_text())
        self.instance = instance
        self.io_manager = sb.RangeDuckDBIOManager(database=self.path, schema="main")
        self.calls: list[tuple[str, ...]] = []

    def id_of(self, step: str) -> str:
        return self.steps[step]["run_id"]

    def retire(self, table: str) -> None:
        """Run the retention job, which keeps no shadow for its age or because its run isn't known."""
        # Retention drops nothing by a clock to which nothing in the ledger is near.
        self.publish("another", rows_of([1], 1), (1, 1))
        job = sb.build_retention_schedule([self.asset(table)], shadow_days=0, unknown_run_days=0).job
        assert isinstance(job, dg.JobDefinition)
        assert job.execute_in_process(resources={"io_manager": self.io_manager}, instance=self.instance).success

    def newest(self, table: str) -> str:
        """Return the id of the newest publication of a table."""
        ((found,),) = self.sql(
            f"SELECT arg_max(publication_id, recorded_at) FROM _safe_backfill_ledger"
            f" WHERE event = 'published' AND table_name LIKE '%{table}'"
        )
        return found

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


NEWEST = [file for file in FILES if file.stem.endswith("-2.0.0")]


@pytest.fixture(params=NEWEST, ids=[file.stem for file in NEWEST])
def old(request: pytest.FixtureRequest, tmp_path: Path, instance: dg.DagsterInstance) -> OldWarehouse:
    return OldWarehouse(request.param, tmp_path, instance)


@pytest.fixture(params=[file for file in FILES if file not in NEWEST], ids=lambda file: file.stem)
def upgraded(request: pytest.FixtureRequest, tmp_path: Path, instance: dg.DagsterInstance) -> OldWarehouse:
    """A file that an earlier DuckDB wrote."""
    return OldWarehouse(request.param, tmp_path, instance)


def test_an_upgrade_of_duckdb_needs_no_force(upgraded: OldWarehouse) -> None:
    before = upgraded.live("events")
    back = upgraded.rollback("events", upgraded.id_of("last_again"))
    assert back.success
    assert upgraded.live("events") == upgraded.live_after("last_undone", "events")
    assert upgraded.rollback("events", back.run_id).success
    assert upgraded.live("events") == before
    assert upgraded.rollback("stock", upgraded.id_of("stock_last")).success
    assert upgraded.live("stock") == upgraded.live_after("stock_undone", "stock")
    result = upgraded.publish("events", rows_of([1, 2], 70), (1, 2))
    assert upgraded.rollback("events", result.run_id).success
    assert upgraded.live("events") == before


def test_after_an_upgrade_of_duckdb_a_change_by_hand_is_seen(upgraded: OldWarehouse) -> None:
    upgraded.sql("UPDATE events SET value = 0 WHERE day = '2024-01-02' AND id = 1")
    assert "2024-01-02 changed since the last publication" in upgraded.refusal("events", upgraded.id_of("last_again"))


def test_after_an_upgrade_of_duckdb_retention_drops_what_is_over(upgraded: OldWarehouse) -> None:
    upgraded.retire("events")
    assert f"events__archive_{upgraded.id_of('brief_and_standing').replace('-', '')}" not in upgraded.tables("events")
    assert upgraded.rollback("events", upgraded.id_of("last_again")).success


def test_there_is_a_file_of_each_format_and_of_two_databases() -> None:
    formats = {file.stem.split("-duckdb-")[0] for file in FILES}
    assert formats == {f"ledger-{number}" for number in range(1, FORMAT)}
    for name in formats:
        assert len([file for file in FILES if file.stem.startswith(name)]) >= 2


def test_the_file_has_what_the_others_look_at(old: OldWarehouse) -> None:
    events = {event for (event,) in old.sql("SELECT DISTINCT event FROM _safe_backfill_ledger")}
    assert events == (EVENTS if old.format == 1 else EVENTS | {"altered"})
    for table in ("events", "stock", "orders"):
        assert old.live(table) == old.live_after([*old.steps][-1], table)
    assert len(old.tables("__archive_")) >= 9
    assert len(old.tables("__shadow_")) == 4


def test_the_ledgers_columns_are_the_same_in_name_type_and_order(old: OldWarehouse, tmp_path: Path) -> None:
    columns = "SELECT column_name, column_type FROM (DESCRIBE _safe_backfill_ledger)"
    # Of format 1, which had a column more.
    first = [one for one in LEDGER if old.format == 1 or one[0] != "code"]
    assert old.sql(columns) == (first if old.format == 1 else first + PROVENANCE)
    old.publish("events", rows_of([1], 70), (1, 1))
    assert old.sql(columns) == first + PROVENANCE + [("format", "BIGINT")]
    old.path = str(tmp_path / "new.duckdb")
    old.io_manager = sb.RangeDuckDBIOManager(database=old.path, schema="main")
    old.publish("events", rows_of([1], 70), (1, 1))
    assert old.sql(columns) == [one for one in LEDGER if one[0] != "code"] + PROVENANCE + [("format", "BIGINT")]


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


def rehashed(old: OldWarehouse) -> None:
    """Give all recorded rows the hashes of a database that hashes in another way."""
    for column in ("fingerprint", "replaced_fingerprint"):
        changed = f"regexp_replace({column}, ':duckdb-[^:]*:.+', ':duckdb-another:abc')"
        old.sql(f"UPDATE _safe_backfill_ledger SET {column} = {changed}")


@pytest.mark.parametrize(("table", "step", "before"), [("events", "last_again", "last_undone")])
def test_a_publication_is_rolled_back_though_the_database_hashes_in_another_way_now(
    old: OldWarehouse, table: str, step: str, before: str
) -> None:
    rehashed(old)
    back = old.rollback(table, old.id_of(step))
    assert back.success
    assert old.live(table) == old.live_after(before, table)
    assert old.rollback(table, back.run_id).success
    assert old.live(table) == old.live_after(step, table)


@pytest.mark.parametrize(
    ("change", "seen"),
    [
        ("DELETE FROM stock WHERE day = '2024-01-01' AND id = 1", "changed since the last publication there"),
        (
            "INSERT INTO events SELECT * REPLACE (99 AS id) FROM events WHERE day = '2024-01-02' LIMIT 1",
            "changed since",
        ),
        ("UPDATE events SET value = 0 WHERE day = '2024-01-04' AND id = 0", "was upgraded since, and hashes rows in"),
    ],
)
def test_a_change_by_hand_is_seen_though_the_database_hashes_in_another_way_now(
    old: OldWarehouse, change: str, seen: str
) -> None:
    # Two of its three rows stay as they are.
    old.publish("events", [(4, 0, 30.0), (4, 1, 31.0), (4, 2, 5.0)], (4, 4))
    rehashed(old)
    old.sql(change)
    table, step = ("stock", "stock_last") if "stock" in change else ("events", "last_again")
    publication = old.newest("events") if "2024-01-04" in change else old.id_of(step)
    assert seen in old.refusal(table, publication)


def test_what_is_published_and_retired_after_another_hash_is_as_ever(old: OldWarehouse) -> None:
    rehashed(old)
    before = old.live("events")
    result = old.publish("events", rows_of([1, 2], 70), (1, 2))
    assert old.rollback("events", result.run_id).success
    assert old.live("events") == before
    old.retire("events")
    assert old.live("events") == before


def test_rows_that_were_approved_then_are_refused_and_staged_again(old: OldWarehouse) -> None:
    refused = old.staged("orders", "published", days=(3, 4))
    assert "2 of 2 staged partitions are not what would be computed now" in failure_of(refused, "orders")
    why = "what made it isn't recorded" if old.format == 1 else "the code changed from"
    assert f"2024-01-03: {why}" in failure_of(refused, "orders")
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
    old.retire("events")
    expired = f"events__archive_{old.id_of('brief_and_standing').replace('-', '')}"
    assert old.tables("__archive_") == archives - {expired}
    assert old.tables("__shadow_") == {name for name in shadows if not name.startswith("events")}
    assert "are not kept any more" in old.refusal("events", old.id_of("brief_and_standing"))
    assert old.rollback("events", old.id_of("last_again")).success
    assert old.live("events") == old.live_after("last_undone", "events")
