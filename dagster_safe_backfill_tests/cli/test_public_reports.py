"""What people reported of other tools and of Dagster, tried on the command."""

from __future__ import annotations

import json
from pathlib import Path

import dagster as dg

from dagster_safe_backfill_tests.cli.conftest import Terminal
from dagster_safe_backfill_tests.cli.prepared import CODE, materialize


def test_each_of_several_assets_gets_its_own_failed_partitions(offline: Terminal) -> None:
    """dagster#30784, #22126, #15514: the union of all was run for each asset, or the choice had no effect."""
    materialize(offline, "sales", "2024-01-01", "2024-01-04")
    materialize(offline, "batched", "2024-01-01", "2024-01-04")
    offline.write("bad", "2024-01-06")
    materialize(offline, "sales", "2024-01-06")
    offline.write("bad", "2024-01-08")
    materialize(offline, "batched", "2024-01-08")
    (offline.folder / "bad").unlink()
    told = offline("plan", "sales", "batched", "by_day", "--failed", "--json", "--dry-run")
    found = {asset["asset"]: list(asset["reasons"]) for asset in told.data["plan"]["assets"]}
    assert found == {"sales": ["2024-01-06"], "batched": ["2024-01-08"]}
    assert told.data["plan"]["launched"] == ["sales", "batched"]


def test_two_assets_of_one_backfill_cover_what_was_planned_for_each(online: Terminal) -> None:
    """The same, as Dagster has it once it is launched."""
    config = {"database": str(online.folder / "warehouse.duckdb"), "schema": "shop", "lock_timeout": 33}
    online.write("config.yaml", json.dumps({"resources": {"io_manager": {"config": config}}}))
    plan = online("plan", "sales", "by_day", "--partitions", "2024-01-24,2024-01-26", "--out",
                  str(online.folder / "two.json"), "--config", str(online.folder / "config.yaml"), "--json",
                  place=(*online.place, *CODE))  # fmt: skip
    assert plan.exit_code == 0
    told = online("launch", str(online.folder / "two.json"), "--yes", "--json", place=(*online.place, *CODE))
    assert told.exit_code == 0
    with dg.DagsterInstance.get() as instance:
        backfill = instance.get_backfill(told.data["backfill_id"])
        assert backfill is not None
        assert backfill.asset_backfill_data is not None
        subsets = backfill.asset_backfill_data.target_subset.partitions_subsets_by_asset_key
        found = {key.to_user_string(): sorted(one.get_partition_keys()) for key, one in subsets.items()}
        assert found == {key: ["2024-01-24", "2024-01-26"] for key in ("sales", "by_day")}
        # dagster#10079: a backfill with a run configuration of its own.
        assert backfill.run_config == {"resources": {"io_manager": {"config": config}}}
    # stellar/wallet-backend#688: batches fail and the exit code is 0; here it is 0 as all are live.
    watched = online("watch", told.data["backfill_id"], "--json")
    assert watched.exit_code == 0, watched.out


def test_a_range_of_an_asset_without_a_policy(online: Terminal) -> None:
    """dagster#31055: `dg launch --partition-range` failed for assets without BackfillPolicy.single_run()."""
    told = online("launch", "by_day", "--from", "2024-01-29", "--to", "2024-01-30", "--yes", "--watch", "--json")
    assert told.exit_code == 0, told.out
    assert online.sql("SELECT count(DISTINCT day) FROM shop.by_day WHERE day >= '2024-01-29'") == [(2,)]


def test_the_same_days_twice_are_refused_while_the_first_runs(online: Terminal) -> None:
    """Nothing keeps two backfills of the same partitions apart in Dagster; who presses twice gets one."""
    online.write("slow", "1")
    try:
        first = online("launch", "sales", "--partitions", "2024-01-31", "--yes", "-q")
        again = online("launch", "sales", "--partitions", "2024-01-31", "--yes", "--json")
        assert (again.exit_code, again.codes) == (3, ["guard_overlap"])
        allowed = online("plan", "sales", "--partitions", "2024-01-31", "--dry-run", "--json")
        assert any("overlap" in warning for warning in allowed.json["warnings"])
    finally:
        Path(online.folder / "slow").unlink()
    assert online("watch", first.out.strip(), "--json").exit_code == 0
