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


def test_dates_that_dont_fit_launch_nothing(offline: Terminal) -> None:
    """dagster#23801: bad keys got an error that names none. airflow#10028, #1089: dates between two runs found nothing,
    or began days earlier and went on until today."""
    for first, last in (("2024-01-03 12:00", "2024-01-05"), ("2024-01-03", "2024-02-30"), ("2023-12-01", "2024-01-02")):
        told = offline("launch", "sales", "-s", first, "-e", last, "--yes", "--json")
        assert (told.exit_code, told.codes) == (2, ["unknown_partition"])
        (error,) = told.json["errors"]
        assert error["partitions"] in ([first], [last])
        assert "2024-01-" in error["hint"], "the nearest"
    told = offline("plan", "sales", "-s", "2024-01-03", "-e", "2024-01-05", "--dry-run", "--json")
    (planned,) = told.data["plan"]["assets"]
    assert [*planned["reasons"]] == ["2024-01-03", "2024-01-04", "2024-01-05"], "no day before and none after"
    assert offline("list", "--json").data["backfills"] == []


def test_what_is_missing_and_what_failed_is_told_to_a_script(offline: Terminal) -> None:
    """dagster#26039: how to get the partitions of an asset that are missing or failed, programmatically."""
    materialize(offline, "sales", "2024-01-01", "2024-01-20")
    offline.write("broken", "2024-01-25")
    materialize(offline, "sales", "2024-01-24", "2024-01-26")
    (offline.folder / "broken").unlink()
    for option, expected in (("--missing", {21, 22, 23, 27, 28, 29, 30, 31}), ("--failed", {24, 25, 26})):
        told = offline("plan", "sales", option, "--dry-run", "--json")
        assert {int(key[-2:]) for key in told.data["plan"]["assets"][0]["reasons"]} == expected


def test_thousands_of_dynamic_partitions(offline: Terminal, tmp_path: Path) -> None:
    """dagster#18413: large backfills of dynamic partitions were painful by hand; here by a file of keys."""
    keys = [f"customer {number:05}" for number in range(5000)]
    with dg.DagsterInstance.get() as instance:
        instance.add_dynamic_partitions("customers", keys)
    file = tmp_path / "keys.txt"
    file.write_text("\n".join(keys[::2]))
    place = ("-m", "dagster_safe_backfill_tests.cli.calendars")
    told = offline("plan", "customers", "--partitions-file", str(file), "--dry-run", "--json", place=place)
    assert told.exit_code == 0, told.out
    assert [*told.data["plan"]["assets"][0]["reasons"]] == keys[::2]


def test_multi_partitions_in_a_single_run_are_all_computed(offline: Terminal) -> None:
    """dagster#28861: of 61 multi-partitions of one run, the asset was told of one."""
    place = ("-m", "dagster_safe_backfill_tests.cli.calendars")
    arguments = ("launch", "by_region", "--dimension", "day=2024-01-01...2024-01-04", "--in-process", "--yes", "--json")
    told = offline(*arguments, place=place)
    assert (told.exit_code, told.counts) == (0, {"live": 8}), told.out
    assert offline.sql("SELECT count(DISTINCT key) FROM shop.by_region") == [(8,)]
    # dagster#19100, #17582: which run has which partition, and how it stands.
    (asset,) = told.data["progress"]["assets"]
    runs = {run["run_id"] for run in told.data["progress"]["runs"]}
    assert {one["run_id"] for one in asset["partitions"]} == runs
    assert {one["state"] for one in asset["partitions"]} == {"live"}
