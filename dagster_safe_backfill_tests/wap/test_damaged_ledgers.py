"""A ledger that somebody damaged, or that a newer release wrote: the error names ledger, row and column."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import dagster as dg
import duckdb
import pytest

import dagster_safe_backfill as sb
from dagster_safe_backfill.errors import LedgerError
from dagster_safe_backfill_tests.harness.assets import run_range
from dagster_safe_backfill_tests.wap.old_files.make import rows_of
from dagster_safe_backfill_tests.wap.test_old_files import NEWEST, OldWarehouse

LEDGER = "_safe_backfill_ledger"
_PUBLISHED = f"UPDATE {LEDGER} SET %s WHERE event = 'published' AND table_name LIKE '%%events'"


@pytest.fixture
def old(tmp_path: Path, instance: dg.DagsterInstance) -> OldWarehouse:
    return OldWarehouse(NEWEST[-1], tmp_path, instance)


def roll_back(old: OldWarehouse) -> dg.ExecuteInProcessResult:
    return old.rollback("events", old.newest("events"))


def publish(old: OldWarehouse) -> dg.ExecuteInProcessResult:
    assets = [old.asset("events", rows_of([1, 2], 70))]
    return run_range(assets, "2024-01-01", "2024-01-02", io_manager=old.io_manager, instance=old.instance)


def retire(old: OldWarehouse) -> dg.ExecuteInProcessResult:
    job = sb.build_retention_schedule([old.asset("events")], shadow_days=0).job
    assert isinstance(job, dg.JobDefinition)
    return job.execute_in_process(resources={"io_manager": old.io_manager}, instance=old.instance, raise_on_error=False)


def refused(old: OldWarehouse, work: Callable[[OldWarehouse], dg.ExecuteInProcessResult]) -> str:
    """Return the LedgerError of a run, which changed nothing."""
    before = old.live("events"), old.tables("events")
    result = work(old)
    assert not result.success
    assert (old.live("events"), old.tables("events")) == before
    (failed,) = [event for event in result.all_events if event.is_step_failure]
    error = failed.step_failure_data.error
    while error is not None and error.cls_name != LedgerError.__name__:
        error = error.cause
    assert error is not None, failed.step_failure_data.error
    return error.message


@pytest.mark.parametrize(
    ("value", "work", "said"),
    [
        ("fingerprint = 'garbage'", roll_back, "fingerprint is 'garbage', not a fingerprint"),
        ("fingerprint = '1:2:3:4'", roll_back, "fingerprint is '1:2:3:4', not a fingerprint"),
        ("fingerprint = 'x:duckdb-1:ab'", publish, "not a fingerprint"),
        ("replaced_fingerprint = ':'", roll_back, "replaced_fingerprint is ':', not a fingerprint"),
        ("fingerprinted_columns = '[\"day\"'", roll_back, "fingerprinted_columns is '[\"day\"', not JSON"),
        ("fingerprinted_columns = '{}'", roll_back, "not a list of texts"),
        ("fingerprinted_columns = '[1]'", roll_back, "not a list of texts"),
        ("undone_publications = 'x'", roll_back, "undone_publications is 'x', not JSON"),
        ("provenance = '{'", publish, "provenance is '{', not JSON"),
        ("provenance = '[]'", publish, "provenance is '[]', not a JSON object"),
        ("partition_key = NULL", roll_back, "partition_key is None, and is never NULL"),
        ("recorded_at = NULL", roll_back, "recorded_at is None, and is never NULL"),
        ("run_id = NULL", roll_back, "run_id is None, and is never NULL"),
    ],
)
def test_a_damaged_value_is_named(
    old: OldWarehouse, value: str, work: Callable[[OldWarehouse], dg.ExecuteInProcessResult], said: str
) -> None:
    old.sql(_PUBLISHED % value)
    message = refused(old, work)
    assert f"the ledger main.{LEDGER} is damaged: " in message
    assert said in message
    assert "in the row with event published" in message


def test_a_damaged_change_of_columns_is_named(old: OldWarehouse) -> None:
    old.sql(f"UPDATE {LEDGER} SET fingerprinted_columns = '{{\"before\": 1}}' WHERE event = 'altered'")
    before = old.live("stock")
    result = old.rollback("stock", old.id_of("stock_last"))
    assert not result.success
    assert old.live("stock") == before
    assert "not a list of columns and types" in str(result.all_events)


@pytest.mark.parametrize("work", [roll_back, publish, retire])
@pytest.mark.parametrize(
    ("statement", "said"),
    [
        ("ALTER recorded_at TYPE VARCHAR", "its column recorded_at is VARCHAR, and not TIMESTAMPTZ"),
        ("ALTER rows_staged TYPE VARCHAR", "its column rows_staged is VARCHAR, and not BIGINT"),
        ("ALTER archive_expires_at TYPE TIMESTAMP", "its column archive_expires_at is TIMESTAMP, and not TIMESTAMPTZ"),
        ("DROP archive", "is not a ledger of this library: it has no archive"),
        ("RENAME run_id TO run", "is not a ledger of this library: it has no run_id"),
    ],
)
def test_a_damaged_column_is_named(
    old: OldWarehouse, statement: str, said: str, work: Callable[[OldWarehouse], dg.ExecuteInProcessResult]
) -> None:
    old.sql(f"ALTER TABLE {LEDGER} {statement}")
    assert said in refused(old, work)


@pytest.mark.parametrize("work", [roll_back, publish, retire])
def test_a_ledger_of_a_newer_release_is_left_alone(
    old: OldWarehouse, work: Callable[[OldWarehouse], dg.ExecuteInProcessResult]
) -> None:
    old.publish("events", rows_of([1, 2], 70), (1, 2))
    old.sql(f"UPDATE {LEDGER} SET format = 4 WHERE event = 'published'")
    assert "has rows of format 4, and this release of dagster-safe-backfill knows formats up to 3" in refused(old, work)


def test_a_ledger_that_is_whole_again_is_read(old: OldWarehouse, tmp_path: Path) -> None:
    kept = shutil.copy(old.path, tmp_path / "kept.duckdb")
    old.sql(_PUBLISHED % "fingerprint = 'garbage'")
    assert refused(old, roll_back)
    with duckdb.connect(old.path) as connection:
        connection.execute(f"ATTACH '{kept}' AS kept (READ_ONLY)")
        connection.execute(
            f"UPDATE {LEDGER} AS now SET fingerprint = was.fingerprint FROM kept.{LEDGER} AS was"
            " WHERE was.recorded_at = now.recorded_at AND was.partition_key = now.partition_key"
        )
    assert roll_back(old).success
