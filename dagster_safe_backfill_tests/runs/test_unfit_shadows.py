"""Staged rows that can't be collected or published with the others are computed again: they make no run fail."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import dagster as dg
import pandas as pd
import pytest

import dagster_safe_backfill as sb
from dagster_safe_backfill.runs.run import ComputingRun
from dagster_safe_backfill_tests.harness.assets import green
from dagster_safe_backfill_tests.harness.backends import Backend
from dagster_safe_backfill_tests.harness.rates import BELOW_500, DAYS, JANUARY, Rates, defined

pytestmark = pytest.mark.every_warehouse

D = JANUARY
Shape = Literal["together", "each", "staged"]
SHAPES = pytest.mark.parametrize("shape", ["together", "each", "staged"])
TOGETHER = sb.Batches(size=1, canary=False)
EACH = sb.Batches(size=1, canary=False, publish_each=True)


class Shop(Rates):
    """A shop of which the columns that its function returns may change between two tries.

    Attributes:
        further: The columns that the function returns besides the day and the value, with their value.
        value_type: The type of the values.
        is_reversed: True if the columns come in another order.
    """

    def __init__(self, backend: Backend, instance: dg.DagsterInstance) -> None:
        super().__init__(backend, instance)
        self.further: dict[str, Any] = {}
        self.value_type: Literal["int64", "float64"] = "int64"
        self.is_reversed = False

    def frame(self, partitions: sb.PartitionSlice) -> pd.DataFrame:
        # What each try returns was decided before, so that a change during the call is one for the next.
        further = dict(self.further)
        rows = self.rows(partitions.keys, 1)
        columns: dict[str, Any] = {"day": rows["day"], "value": rows["value"].astype(self.value_type), **further}
        names = [*columns]
        return pd.DataFrame(columns, columns=names[::-1] if self.is_reversed else names)

    def asset(self, **options: Any) -> dg.AssetsDefinition:
        def revenue(context: dg.AssetExecutionContext, partitions: sb.PartitionSlice) -> pd.DataFrame:
            return self.frame(partitions)

        return defined(self, revenue, **options)

    def staged_assets(self, **options: Any) -> sb.StagedWapAssets:
        def revenue(context: dg.AssetExecutionContext, partitions: sb.PartitionSlice) -> pd.DataFrame:
            return self.frame(partitions)

        arguments: dict[str, Any] = {
            "partitions_def": DAYS,
            "partition_expr": "day",
            "unique_key": "day",
            "audits": BELOW_500,
            "batches": TOGETHER,
            "limits": sb.Limits(retry_wait=0.0),
            "backfill_policy": sb.single_run(),
            "code_version": "1",
        }
        return sb.build_staged_wap_assets(revenue, **(arguments | options))

    def stage(self, shape: Shape, first: str, last: str, **options: Any) -> None:
        """Stage all but the last partition of a range, and be killed then."""
        self.kills(last)
        assert self.launch(shape if shape == "staged" else "together", first, last, **options) is None

    def launch(self, shape: Shape, first: str, last: str, **options: Any) -> dg.ExecuteInProcessResult | None:
        if shape == "staged":
            return self.run([*self.staged_assets(**options)], first, last, select='key:"revenue__shadow"')
        batches = EACH if shape == "each" else TOGETHER
        return self.run([self.asset(**{"batches": batches, **options})], first, last)

    def passes(self, shape: Shape, first: str, last: str, **options: Any) -> list[str]:
        """Launch a range, and see that all of it goes live; return what was computed."""
        result = self.launch(shape, first, last, **options)
        computed = [key for call in self.calls for key in call]
        step = "revenue__shadow" if shape == "staged" else "revenue"
        assert result is not None
        assert result.success, self.said(result, step)
        if shape == "staged":
            # Re-executions of its run, so that they are of what it has staged, and of nothing else.
            assets, shadow = [*self.staged_assets(**options)], self.last
            for name, ends in (("revenue__audit", ()), ("revenue", (first, last))):
                result = self.run(assets, *ends, select=f'key:"{name}"', again=shadow)
                assert result is not None
                assert result.success, self.said(result, name)
        assert green(self.instance, "revenue") >= {key for key in DAYS.get_partition_keys() if first <= key <= last}
        return computed

    def shadow_of(self, key: str) -> str:
        """Return the name of the table in which a partition was staged last."""
        ((name,),) = self.backend.read(
            f"SELECT shadow FROM _safe_backfill_ledger WHERE partition_key = '{key}' AND event = 'audited'"
            " ORDER BY recorded_at DESC LIMIT 1"
        )
        return str(name).split(".", 1)[1]

    def values_with(self, column: str) -> list[tuple[Any, ...]]:
        return self.backend.read(f"SELECT value, {column} FROM revenue ORDER BY day")


@pytest.fixture
def shop(backend: Backend, instance: dg.DagsterInstance) -> Shop:
    return Shop(backend, instance)


def ordered(computed: Sequence[str]) -> list[str]:
    assert len(set(computed)) == len(computed), computed
    return sorted(computed)


class TestTwoRunsThatStagedOtherColumns:
    @SHAPES
    def test_without_a_live_table(self, shop: Shop, shape: Shape) -> None:
        """The newest columns are those of the others: what has other ones is computed again."""
        shop.stage(shape, D[0], D[2])
        shop.further = {"note": "new"}
        shop.stage(shape, D[3], D[5])
        computed = shop.passes(shape, D[0], D[5])
        assert shop.values_with("note") == [(value, "new") for value in range(1, 7)]
        assert ordered(computed) == [*D[:3], D[5]]

    @SHAPES
    def test_nothing_else_is_computed(self, shop: Shop, shape: Shape) -> None:
        shop.stage(shape, D[0], D[2])
        shop.further = {"note": "new"}
        shop.stage(shape, D[2], D[4])
        computed = shop.passes(shape, D[0], D[3])
        assert shop.values_with("note") == [(value, "new") for value in range(1, 5)]
        assert computed == [*D[:2]]

    def test_another_type(self, shop: Shop) -> None:
        shop.stage("together", D[0], D[2])
        shop.value_type = "float64"
        shop.stage("together", D[3], D[5])
        computed = shop.passes("together", D[0], D[5])
        assert shop.values() == [1, 2, 3, 4, 5, 6]
        assert ordered(computed) == [*D[:3], D[5]]

    def test_the_order_of_columns_is_no_change(self, shop: Shop) -> None:
        shop.stage("together", D[0], D[2])
        shop.is_reversed = True
        shop.stage("together", D[3], D[5])
        computed = shop.passes("together", D[0], D[5])
        assert shop.values() == [1, 2, 3, 4, 5, 6]
        assert ordered(computed) == [D[2], D[5]]


class TestShadowThatSomebodyChanged:
    @SHAPES
    def test_rows_that_were_deleted(self, shop: Shop, shape: Shape) -> None:
        shop.stage(shape, D[0], D[2])
        shop.backend.change(f"DELETE FROM {shop.shadow_of(D[1])} WHERE day = '{D[1]}'")
        assert shop.passes(shape, D[0], D[2]) == [*D[1:3]]
        assert shop.values() == [1, 2, 3]

    @SHAPES
    def test_all_is_staged_and_nothing_else_is_computed(self, shop: Shop, shape: Shape) -> None:
        shop.stage(shape, D[0], D[2])
        shop.backend.change(f"DELETE FROM {shop.shadow_of(D[1])} WHERE day = '{D[1]}'")
        assert shop.passes(shape, D[0], D[1]) == [D[1]]
        assert shop.values() == [1, 2]

    def test_rows_that_were_added(self, shop: Shop) -> None:
        shop.stage("together", D[0], D[2])
        shadow = shop.shadow_of(D[1])
        shop.backend.change(f"INSERT INTO {shadow} SELECT * FROM {shadow}")
        assert shop.passes("together", D[0], D[2]) == [*D[1:3]]
        assert shop.values() == [1, 2, 3]

    @SHAPES
    def test_a_shadow_that_was_dropped(self, shop: Shop, shape: Shape) -> None:
        shop.stage(shape, D[0], D[2])
        shop.backend.change(f"DROP TABLE {shop.shadow_of(D[1])}")
        assert shop.passes(shape, D[0], D[2]) == [*D[1:3]]
        assert shop.values() == [1, 2, 3]

    @pytest.mark.parametrize("change", ["DELETE FROM {}", "DROP TABLE {}"])
    @SHAPES
    def test_while_other_partitions_are_computed(self, shop: Shop, shape: Shape, change: str) -> None:
        shop.stage(shape, D[0], D[2])
        statement = change.format(shop.shadow_of(D[1]))
        shop.during[D[2]] = lambda: shop.backend.change(statement)
        assert shop.passes(shape, D[0], D[2]) == [D[2], D[1]]
        assert shop.values() == [1, 2, 3]

    @pytest.mark.parametrize("column", ["day", "value"])
    def test_a_column_that_was_dropped(self, shop: Shop, column: str) -> None:
        """Of one shadow of several; both of them are newer than none of the others."""
        shop.stage("together", D[0], D[3])
        shop.backend.change(f"ALTER TABLE {shop.shadow_of(D[1])} DROP COLUMN {column}")
        assert shop.passes("together", D[0], D[3]) == [D[1], D[3]]
        assert shop.values() == [1, 2, 3, 4]

    def test_the_partition_column_of_all_shadows(self, shop: Shop) -> None:
        shop.stage("together", D[0], D[2])
        for key in D[:2]:
            shop.backend.change(f"ALTER TABLE {shop.shadow_of(key)} DROP COLUMN day")
        assert shop.passes("together", D[0], D[2]) == [*D[:3]]
        assert shop.values() == [1, 2, 3]

    @pytest.mark.parametrize("new_type", ["VARCHAR", "DATE", "INTEGER"])
    def test_the_type_of_the_partition_column(self, shop: Shop, new_type: str) -> None:
        shop.stage("together", D[0], D[1])
        shadow = shop.shadow_of(D[0])
        value = "1" if new_type == "INTEGER" else "day"
        shop.backend.change(
            f"ALTER TABLE {shadow} ADD COLUMN other {new_type}",
            f"UPDATE {shadow} SET other = {value}",
            f"ALTER TABLE {shadow} DROP COLUMN day",
            f"ALTER TABLE {shadow} RENAME COLUMN other TO day",
        )
        assert ordered(shop.passes("together", D[0], D[1])) == [*D[:2]]
        assert shop.values() == [1, 2]

    def test_a_changed_value_is_not_noticed(self, shop: Shop) -> None:
        """As docs/resuming.md says: reused rows are counted."""
        shop.stage("together", D[0], D[2])
        shop.backend.change(f"UPDATE {shop.shadow_of(D[1])} SET value = 77")
        assert shop.passes("together", D[0], D[2]) == [D[2]]
        assert shop.values() == [1, 77, 3]


def test_what_computes_nothing_refuses_other_columns_by_name(shop: Shop) -> None:
    """`x__audit` is of all that was staged last: of two runs here."""
    shop.stage("staged", D[0], D[2])
    shop.further = {"note": "new"}
    assets = [*shop.staged_assets()]
    shop.launch("staged", D[3], D[3])
    message = shop.said(shop.run(assets, select='key:"revenue__audit"'), "revenue__audit")
    assert f"{D[0]} and {D[3]} were staged with different columns" in message
    assert shop.passes("staged", D[0], D[3]) == [*D[:4]]
    assert shop.values_with("note") == [(value, "new") for value in range(1, 5)]


class TestFunctionThatReturnsOtherColumnsNow:
    @pytest.mark.parametrize("size", [1, None], ids=["batches", "a batch"])
    @SHAPES
    def test_without_a_live_table(self, shop: Shop, shape: Shape, size: int | None) -> None:
        shop.stage(shape, D[0], D[2])
        shop.further = {"note": "new"}
        batches = sb.Batches(size=size, canary=False, publish_each=shape == "each")
        computed = shop.passes(shape, D[0], D[3], batches=batches)
        assert computed == [*D[2:4], *D[:2]]
        assert shop.values_with("note") == [(value, "new") for value in range(1, 5)]

    @SHAPES
    def test_a_column_less(self, shop: Shop, shape: Shape) -> None:
        shop.further = {"note": "old"}
        shop.stage(shape, D[0], D[2])
        shop.further = {}
        assert shop.passes(shape, D[0], D[2]) == [D[2], *D[:2]]
        assert shop.values() == [1, 2, 3]

    @SHAPES
    def test_another_type(self, shop: Shop, shape: Shape) -> None:
        shop.stage(shape, D[0], D[2])
        shop.value_type = "float64"
        assert shop.passes(shape, D[0], D[2]) == [D[2], *D[:2]]
        assert shop.values() == [1, 2, 3]

    def test_another_order_is_no_change(self, shop: Shop) -> None:
        shop.stage("together", D[0], D[2])
        shop.is_reversed = True
        assert shop.passes("together", D[0], D[2]) == [D[2]]
        assert shop.values() == [1, 2, 3]

    @SHAPES
    def test_columns_that_are_added(self, shop: Shop, shape: Shape) -> None:
        adding: dict[str, Any] = {"publish": sb.Merge(on_schema_change="add_columns")}
        shop.passes(shape, D[5], D[5], **adding)
        shop.stage(shape, D[0], D[2], **adding)
        shop.further = {"note": "new"}
        assert shop.passes(shape, D[0], D[2], **adding) == [D[2], *D[:2]]
        assert shop.values_with("note") == [(1, "new"), (2, "new"), (3, "new"), (6, None)]

    def test_columns_that_another_publication_added(self, shop: Shop) -> None:
        adding: dict[str, Any] = {"publish": sb.Merge(on_schema_change="add_columns")}
        shop.passes("together", D[5], D[5], **adding)
        shop.stage("together", D[0], D[2], **adding)
        shop.further = {"note": "new"}
        shop.passes("together", D[6], D[6], **adding)
        assert shop.passes("together", D[0], D[2], **adding) == [*D[:3]]
        assert shop.values_with("note") == [(1, "new"), (2, "new"), (3, "new"), (6, None), (7, "new")]

    @pytest.mark.parametrize("each", [False, True])
    def test_columns_that_a_swap_drops(self, shop: Shop, each: bool) -> None:
        swap: dict[str, Any] = {"publish": sb.Swap(on_schema_change="sync")}
        shape: Shape = "each" if each else "together"
        shop.further = {"note": "old"}
        shop.passes(shape, D[5], D[5], **swap)
        shop.stage(shape, D[0], D[2], **swap)
        shop.further = {}
        assert shop.passes(shape, D[0], D[2], **swap) == [D[2], *D[:2]]
        assert shop.values() == [1, 2, 3, 6]

    def test_between_two_tries_of_a_step(self, shop: Shop) -> None:
        def fail() -> None:
            shop.further = {"note": "new"}
            raise RuntimeError("the source is gone")

        shop.during[D[2]] = fail
        result = shop.run([shop.asset(retry_policy=dg.RetryPolicy(max_retries=1))], D[0], D[2])
        assert result is not None
        assert result.success
        assert [key for call in shop.calls for key in call] == [*D[:3], D[2], *D[:2]]
        assert shop.values_with("note") == [(1, "new"), (2, "new"), (3, "new")]

    def test_a_canary_that_is_rejected(self, shop: Shop) -> None:
        """Nothing more is computed, as without what could be reused; what is staged stays so."""
        shop.stage("together", D[0], D[2])
        shop.further = {"note": "new"}
        audits = [sb.expression("value <> 3", name="no three")]
        batches = sb.Batches(size=1, canary=True)
        result = shop.launch("together", D[0], D[3], audits=audits, batches=batches)
        assert "The first batch failed, so 2 of 3 batches were not computed" in shop.said(result)
        assert shop.calls == [D[2:3]]
        result = shop.run([shop.asset(batches=batches)], D[0], D[3], again=shop.last)
        assert result is not None
        assert result.success
        assert shop.values_with("note") == [(1, "new"), (2, "new"), (3, "new"), (4, "new")]


class TestLiveTableThatChangedSince:
    @SHAPES
    def test_created_with_other_columns(self, shop: Shop, shape: Shape) -> None:
        shop.stage(shape, D[0], D[2])
        shop.further = {"note": "new"}
        shop.passes(shape, D[5], D[5])
        assert shop.passes(shape, D[0], D[2]) == [*D[:3]]
        assert shop.values_with("note") == [(1, "new"), (2, "new"), (3, "new"), (6, "new")]

    @SHAPES
    def test_a_column_of_another_type(self, shop: Shop, shape: Shape) -> None:
        """The partitions have no live rows yet, so their fingerprints say nothing of it."""
        shop.passes(shape, D[5], D[5])
        shop.stage(shape, D[0], D[2])
        shop.backend.change(
            "ALTER TABLE revenue ADD COLUMN other DOUBLE",
            "UPDATE revenue SET other = value",
            "ALTER TABLE revenue DROP COLUMN value",
            "ALTER TABLE revenue RENAME COLUMN other TO value",
        )
        assert shop.passes(shape, D[0], D[2]) == [*D[:3]]
        assert shop.values() == [1, 2, 3, 6]

    @SHAPES
    def test_dropped(self, shop: Shop, shape: Shape) -> None:
        shop.passes(shape, D[5], D[5])
        shop.stage(shape, D[0], D[2])
        shop.backend.change("DROP TABLE revenue")
        assert shop.passes(shape, D[0], D[2]) == [*D[:3]]
        assert shop.values() == [1, 2, 3]


def test_the_log_names_the_partitions_and_why(shop: Shop) -> None:
    def said(result: dg.ExecuteInProcessResult | None) -> list[str]:
        assert result is not None
        entries = shop.instance.all_logs(result.run_id)
        return [entry.user_message for entry in entries if "computed again" in entry.user_message]

    shop.stage("together", D[0], D[3])
    shop.backend.change(f"DELETE FROM {shop.shadow_of(D[0])}", f"DROP TABLE {shop.shadow_of(D[1])}")
    shop.further = {"note": "new"}
    lost, gone, other = said(shop.launch("together", D[0], D[3]))
    assert gone == f"{D[1]} were staged and audited, and are computed again: their shadow was dropped"
    assert lost.startswith(f"{D[0]} were staged and audited, and are computed again: their shadow doesn't have the")
    assert other.startswith(
        f"{D[2]} were staged and audited, and are computed again: the columns of the other rows differ"
    )
    assert "note" in other


def test_without_what_can_be_reused_nothing_more_is_asked(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    sessions: list[bool] = []
    real = ComputingRun.attempt

    def attempt(run: ComputingRun, work: Any, *, read_only: bool = False, **options: Any) -> Any:
        sessions.append(read_only)
        return real(run, work, read_only=read_only, **options)

    monkeypatch.setattr(ComputingRun, "attempt", attempt)
    shop.passes("together", D[0], D[2])
    # One look for the first batch and one for each other, a session to write each, and one to publish.
    assert sorted(sessions) == [False] * 4 + [True] * 3
