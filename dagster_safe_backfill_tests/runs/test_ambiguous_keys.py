"""Partition keys that the type or the collation of their column makes one, and keys that it can't hold."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import dagster as dg
import pandas as pd
import pytest

import dagster_safe_backfill as sb
from dagster_safe_backfill_tests.harness.assets import failure_of, green, run_key
from dagster_safe_backfill_tests.harness.backends import Backend

pytestmark = pytest.mark.every_warehouse


class Keyed:
    """Runs of an asset with the columns `k` and `n`; `values` maps a key to the value that its rows have in `k`."""

    def __init__(self, backend: Backend, instance: dg.DagsterInstance) -> None:
        self.backend, self.instance = backend, instance
        self.calls: list[tuple[str, ...]] = []
        self.values: dict[str, object] = {}

    def asset(self, definition: Any, *, is_plain: bool = False, **options: Any) -> dg.AssetsDefinition:
        def t(partitions: sb.PartitionSlice) -> pd.DataFrame:
            return self.frame(partitions.keys)

        if not is_plain:
            given: dict[str, Any] = {"partition_expr": "k", "backfill_policy": sb.single_run(), **options}
            return sb.wap_asset(partitions_def=definition, **given)(t)

        @dg.asset(name="t", partitions_def=definition, metadata={"partition_expr": "k"})
        def plain() -> pd.DataFrame:
            return self.frame(dg.AssetExecutionContext.get().partition_keys)

        return plain

    def frame(self, keys: Sequence[str]) -> pd.DataFrame:
        self.calls.append(tuple(keys))
        return pd.DataFrame({"k": [self.values.get(key, key) for key in keys], "n": len(self.calls)})

    def run(self, asset: dg.AssetsDefinition, key: str) -> dg.ExecuteInProcessResult:
        return run_key([asset], key, io_manager=self.backend.io_manager, instance=self.instance)

    def refusal(self, asset: dg.AssetsDefinition, key: str) -> str:
        result = self.run(asset, key)
        assert not result.success
        message = failure_of(result, "t")
        assert "PartitionColumnError" in message
        return message

    def live(self) -> list[tuple[Any, ...]]:
        return self.backend.read("SELECT k, n FROM t ORDER BY ALL")

    def create(self, *types: str, rows: str | None = None) -> None:
        """Create the live table, with a type of `k` that may have a collation of DuckDB's."""
        kind = self.backend.own(duckdb=types[0], snowflake=types[-1])
        if "COLLATE N" not in kind:
            self.backend.change(f"CREATE TABLE t (k {kind}, n BIGINT)")
        else:
            # A collation of DuckDB's, which the emulator doesn't describe, as it keeps its tables in DuckDB.
            name = self.backend.own(duckdb="t (k", snowflake='"T" ("K"')
            number = self.backend.own(duckdb="n", snowflake='"N"')
            statement = f"CREATE TABLE {name} {kind}, {number} BIGINT)"
            outside: Any = getattr(self.backend, "_outside", None)
            if outside is None:
                self.backend.change(statement)
            else:
                with outside() as cursor:
                    cursor.execute(statement)
        if rows is not None:
            self.backend.change(f"INSERT INTO t VALUES {rows}")


@pytest.fixture
def keyed(backend: Backend, instance: dg.DagsterInstance) -> Keyed:
    return Keyed(backend, instance)


def static(*keys: str) -> dg.StaticPartitionsDefinition:
    return dg.StaticPartitionsDefinition([*keys])


@pytest.mark.parametrize(
    ("kind", "keys", "rows"),
    [
        ("BIGINT", ("1", "01", "2"), "(1, 0)"),
        ("DATE", ("2024-01-01", "2024-1-1"), "('2024-01-01', 0)"),
        ("BOOLEAN", ("true", "t"), "(true, 0)"),
        ("DOUBLE", ("1", "1.0"), "(1, 0)"),
        ("NUMERIC(10, 2)", ("1.5", "1.50"), "(1.5, 0)"),
    ],
)
def test_a_run_of_one_of_two_keys_that_are_one_value(keyed: Keyed, kind: str, keys: Sequence[str], rows: str) -> None:
    keyed.create(kind, rows=rows)
    before = keyed.live()
    for key in keys[:2]:
        message = keyed.refusal(keyed.asset(static(*keys)), key)
        assert keys[0] in message
        assert keys[1] in message
        assert "are the same value of type" in message
    assert keyed.calls == []
    assert keyed.live() == before


def test_other_keys_of_the_definition_do_not_run_either(keyed: Keyed) -> None:
    """The rows of 1 and 01 are mixed up, whichever key is run; so the definition is refused as a whole."""
    keyed.create("BIGINT")
    assert "the partition keys 01 and 1 are" in keyed.refusal(keyed.asset(static("1", "01", "2")), "2")


def test_before_the_first_table_nothing_is_staged(keyed: Keyed) -> None:
    keyed.values = {"1": 1, "01": 1}
    assert "the partition keys 01 and 1" in keyed.refusal(keyed.asset(static("1", "01")), "1")
    found = keyed.backend.read("SELECT table_name FROM information_schema.tables")
    assert [name for (name,) in found if str(name).lower().startswith("t")] == []
    assert green(keyed.instance, "t") == set()


def test_a_plain_asset(keyed: Keyed) -> None:
    keyed.create("BIGINT", rows="(1, 0)")
    keyed.values = {"1": 1}
    message = keyed.refusal(keyed.asset(static("1", "01"), is_plain=True), "1")
    assert "the partition keys 01 and 1 are the same value" in message
    assert keyed.live() == [(1, 0)]


@pytest.mark.parametrize("is_plain", [False, True])
def test_dynamic_keys_that_the_instance_knows(keyed: Keyed, is_plain: bool) -> None:
    keyed.create("BIGINT", rows="(1, 0)")
    keyed.instance.add_dynamic_partitions("numbers", ["1", "2"])
    keyed.values = {"1": 1, "2": 2, "01": 1}
    asset = keyed.asset(dg.DynamicPartitionsDefinition(name="numbers"), is_plain=is_plain)
    assert keyed.run(asset, "1").success
    keyed.instance.add_dynamic_partitions("numbers", ["01"])
    assert "the partition keys 01 and 1 are" in keyed.refusal(asset, "01")
    assert "the partition keys 01 and 1 are" in keyed.refusal(asset, "1")
    assert [k for k, _n in keyed.live()] == [1]
    # Without it, all is as before.
    keyed.instance.delete_dynamic_partition("numbers", "01")
    assert keyed.run(asset, "2").success
    assert [k for k, _n in keyed.live()] == [1, 2]


def test_each_dimension_of_multi_partitions(keyed: Keyed) -> None:
    definition = dg.MultiPartitionsDefinition({"k": static("1", "01", "2"), "n": static("7", "8")})
    keyed.create("BIGINT", rows="(1, 7)")
    asset = keyed.asset(definition, partition_expr={"k": "k", "n": "n"})
    message = keyed.refusal(asset, "2|8")
    assert "partition_expr k: the partition keys 01 and 1 are the same value" in message
    assert keyed.live() == [(1, 7)]


@pytest.mark.parametrize("is_plain", [False, True])
@pytest.mark.parametrize(
    ("kinds", "keys"), [(("NOCASE", "'en-ci'"), ("a", "A")), (("NOACCENT", "'en-ai'"), ("e", "é"))]
)
def test_keys_that_a_collation_calls_equal_are_two_partitions(
    keyed: Keyed, kinds: tuple[str, str], keys: tuple[str, str], is_plain: bool
) -> None:
    first, second = keys
    keyed.create(*(f"VARCHAR COLLATE {kind}" for kind in kinds), rows=f"('{first}', 0), ('{second}', 0)")
    asset = keyed.asset(static(*keys), is_plain=is_plain)
    assert keyed.run(asset, first).success
    assert sorted(keyed.live()) == sorted([(first, 1), (second, 0)])
    assert keyed.run(asset, second).success
    assert sorted(keyed.live()) == sorted([(first, 1), (second, 2)])
    assert green(keyed.instance, "t") == {*keys}


@pytest.mark.only("snowflake", reason="what Snowflake's DESCRIBE doesn't show is to be refused, not overwritten")
def test_a_collation_that_is_not_described(keyed: Keyed) -> None:
    keyed.create("VARCHAR COLLATE NOCASE", rows="('a', 0), ('A', 0)")
    message = keyed.refusal(keyed.asset(static("a", "A")), "a")
    assert "the partition keys A and a are equal in the collation of the column" in message
    assert sorted(keyed.live()) == [("A", 0), ("a", 0)]


def test_a_collation_that_tells_all_keys_apart(keyed: Keyed) -> None:
    keyed.create("VARCHAR COLLATE NOCASE", rows="('b', 0)")
    assert keyed.run(keyed.asset(static("a", "b", "c")), "a").success
    assert keyed.live() == [("a", 1), ("b", 0)]


def test_texts_that_differ_by_case_are_two_partitions(keyed: Keyed) -> None:
    asset = keyed.asset(static("a", "A", "1", "01"))
    for key in ("a", "A", "1", "01", "a"):
        assert keyed.run(asset, key).success
    assert keyed.live() == [("01", 4), ("1", 3), ("A", 2), ("a", 5)]


@pytest.mark.parametrize(
    ("kind", "key", "rows"),
    [
        ("BIGINT", "abc", "(1, 0)"),
        ("DATE", "2024-13-45", "('2024-01-01', 0)"),
        ("BIGINT", "1.5", "(2, 0)"),
        ("DATE", "2024-01-01 05:00:00", "('2024-01-01', 0)"),
        ("SMALLINT", "99999999999999999999999999999999999999999", "(1, 0)"),
        ("BOOLEAN", "maybe", "(true, 0)"),
        ("TIMESTAMP", "yesterday", "('2024-01-01', 0)"),
    ],
)
@pytest.mark.parametrize("is_plain", [False, True])
def test_a_key_that_the_type_cannot_hold(keyed: Keyed, kind: str, key: str, rows: str, is_plain: bool) -> None:
    keyed.create(kind, rows=rows)
    before = keyed.live()
    keyed.values = {key: before[0][0]}
    message = keyed.refusal(keyed.asset(static("x" if kind == "TEXT" else key), is_plain=is_plain), key)
    assert f"can't hold the partition key {key} unchanged" in message
    assert "main.t, partition_expr k: the type " in message
    assert keyed.live() == before
    assert is_plain or keyed.calls == []


def test_a_key_that_the_type_cannot_hold_does_not_stop_the_others(keyed: Keyed) -> None:
    keyed.create("BIGINT", rows="(2, 0)")
    keyed.values = {"1": 1}
    assert keyed.run(keyed.asset(static("abc", "1")), "1").success
    assert keyed.live() == [(1, 1), (2, 0)]


def test_a_key_with_leading_zeros_stays_allowed(keyed: Keyed) -> None:
    keyed.create("BIGINT")
    keyed.values = {"01": 1, "02": 2}
    asset = keyed.asset(static("01", "02"))
    assert keyed.run(asset, "01").success
    assert keyed.run(asset, "02").success
    assert keyed.live() == [(1, 1), (2, 2)]
