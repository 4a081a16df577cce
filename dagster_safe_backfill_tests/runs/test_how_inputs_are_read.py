"""What decides which rows an input holds, or what a published partition passed, is part of what made the rows."""

from __future__ import annotations

import types
from pathlib import Path
from typing import Any

import dagster as dg
import pandas as pd
import pyarrow as pa
import pytest

import dagster_safe_backfill as sb
from dagster_safe_backfill.runs.provenance.code import code_of
from dagster_safe_backfill_tests.conftest import Read
from dagster_safe_backfill_tests.harness.assets import run_range

DAYS = dg.DailyPartitionsDefinition("2024-01-01", end_date="2024-01-05")
FIRST, LAST = "2024-01-01", "2024-01-04"
EACH = sb.Batches(size=1, canary=False)


@dg.asset
def plus() -> pd.DataFrame:
    return pd.DataFrame({"n": [10], "more": [2]})


@dg.asset
def minus() -> pd.DataFrame:
    return pd.DataFrame({"n": [1], "more": [0]})


class Tries:
    """Runs of an asset: the first is interrupted at its last day, and the second launched anew."""

    def __init__(self, io_manager: sb.RangeIOManager, instance: dg.DagsterInstance, folder: Path) -> None:
        self.io_manager, self.instance, self.flag = io_manager, instance, folder / "broken"
        dg.materialize([plus, minus], resources={"io_manager": io_manager}, instance=instance)

    def asset(self, annotation: Any = pd.DataFrame, **ins: dg.AssetIn) -> dg.AssetsDefinition:
        flag = str(self.flag)

        def x(partitions: sb.PartitionSlice, a, b) -> pd.DataFrame:  # type: ignore[no-untyped-def]
            if Path(flag).exists() and partitions.keys[-1] == LAST:
                raise ConnectionError
            columns = a.columns if isinstance(a, pd.DataFrame) else a.column_names
            value = int(a["n"][0].as_py() if isinstance(a, pa.Table) else a["n"][0] - b["n"][0]) + len(columns)
            return pd.DataFrame({"day": pd.to_datetime([*partitions.keys]), "v": value})

        x.__annotations__ |= {"a": annotation, "b": annotation}
        return sb.wap_asset(
            partitions_def=DAYS, partition_expr="day", batches=EACH, backfill_policy=sb.single_run(), ins=ins
        )(x)

    def values(self, first: dg.AssetsDefinition, second: dg.AssetsDefinition, read: Read) -> list[Any]:
        for asset, is_broken in ((first, True), (second, False)):
            if is_broken:
                self.flag.touch()
            else:
                self.flag.unlink()
            result = dg.materialize(
                [plus, minus, asset],
                selection=[asset],
                resources={"io_manager": self.io_manager},
                instance=self.instance,
                raise_on_error=False,
                tags={
                    "dagster/asset_partition_range_start": FIRST,
                    "dagster/asset_partition_range_end": LAST,
                },
            )
            assert result.success is not is_broken
        return [value for (value,) in read("SELECT v FROM x ORDER BY day")]


@pytest.fixture
def tries(io_manager: sb.RangeIOManager, instance: dg.DagsterInstance, tmp_path: Path) -> Tries:
    return Tries(io_manager, instance, tmp_path)


def test_an_input_of_another_parameter(tries: Tries, read: Read) -> None:
    wrong = tries.asset(a=dg.AssetIn("minus"), b=dg.AssetIn("plus"))
    right = tries.asset(a=dg.AssetIn("plus"), b=dg.AssetIn("minus"))
    assert tries.values(wrong, right, read) == [9 + 2] * 4


def test_an_input_of_other_columns(tries: Tries, read: Read) -> None:
    few = tries.asset(a=dg.AssetIn("plus", metadata={"columns": ["n"]}), b=dg.AssetIn("minus"))
    every = tries.asset(a=dg.AssetIn("plus"), b=dg.AssetIn("minus"))
    assert tries.values(few, every, read) == [9 + 2] * 4


def test_an_input_of_another_type(tries: Tries, read: Read) -> None:
    frame = tries.asset(a=dg.AssetIn("plus"), b=dg.AssetIn("minus"))
    table = tries.asset(pa.Table, a=dg.AssetIn("plus"), b=dg.AssetIn("minus"))
    assert tries.values(frame, table, read) == [10 + 2] * 4


def test_a_module_in_a_closure_cannot_be_compared() -> None:
    settings = types.ModuleType("settings_of_mine")

    def function() -> object:
        return settings

    assert code_of(function) is None


def test_published_partitions_that_other_audits_passed_are_not_done(
    io_manager: sb.RangeIOManager, instance: dg.DagsterInstance, read: Read, tmp_path: Path
) -> None:
    flag = str(tmp_path / "broken")

    def asset(most: int) -> dg.AssetsDefinition:
        @sb.wap_asset(
            name="x",
            partitions_def=DAYS,
            partition_expr="day",
            batches=sb.Batches(size=1, canary=False, publish_each=True),
            backfill_policy=sb.single_run(),
            audits=[sb.in_range("v", 0, most)],
        )
        def x(partitions: sb.PartitionSlice) -> pd.DataFrame:
            if Path(flag).exists() and partitions.keys[-1] == LAST:
                raise ConnectionError
            return pd.DataFrame({"day": pd.to_datetime([*partitions.keys]), "v": 5})

        return x

    Path(flag).touch()
    first = run_range([asset(10)], FIRST, LAST, io_manager=io_manager, instance=instance)
    assert read("SELECT count(*) FROM x") == [(3,)]
    Path(flag).unlink()
    again: dict[str, Any] = {"io_manager": io_manager, "instance": instance, "again": first.dagster_run}
    assert run_range([asset(10)], FIRST, "2024-01-03", **again).success
    stricter = run_range([asset(3)], FIRST, "2024-01-03", **again)
    assert not stricter.success
    (check,) = stricter.get_asset_check_evaluations()
    assert not check.passed
