"""A shop whose revenue of a day is its number times what upstream assets hold, so that rows say what made them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any

import dagster as dg
import pandas as pd

import dagster_safe_backfill as sb
from dagster_safe_backfill_tests.harness.assets import RANGE_END, RANGE_START, failure_of, reexecution_tags
from dagster_safe_backfill_tests.harness.backends import Backend

DAYS = dg.DailyPartitionsDefinition("2024-01-01", end_date="2024-03-01")
MONTHS = dg.MonthlyPartitionsDefinition("2023-12-01", end_date="2024-03-01")
JANUARY = tuple(DAYS.get_partition_keys()[:28])
BELOW_500 = [sb.expression("value < 500", name="small")]


class Killed(BaseException):
    """Ends a run as a killed process does: nothing of it is heard of any more."""


class Rates:
    """What upstream assets hold, the calls of the function that reads them, and runs of both.

    What stands in `during` is called once, while the partition of that key is computed.
    """

    def __init__(self, backend: Backend, instance: dg.DagsterInstance) -> None:
        self.backend, self.instance = backend, instance
        self.held: dict[str, int] = {"rates": 1}
        self.calls: list[tuple[str, ...]] = []
        self.during: dict[str, Callable[[], object]] = {}
        self.last: dg.DagsterRun | None = None
        self._is_dead = False
        self._handle = instance.handle_new_event
        instance.handle_new_event = self._handle_new_event  # type: ignore[method-assign]

    def _handle_new_event(self, *args: Any, **options: Any) -> None:
        if not self._is_dead:
            self._handle(*args, **options)

    def upstream(
        self,
        name: str = "rates",
        partitions_def: dg.PartitionsDefinition[str] | None = MONTHS,
        expr: str = "period",
        metadata: Mapping[str, Any] | None = None,
    ) -> dg.AssetsDefinition:
        """Return a plain asset with one row for each of its partitions."""

        @dg.asset(
            name=name,
            partitions_def=partitions_def,
            metadata={} if partitions_def is None else {"partition_expr": expr, **(metadata or {})},
            backfill_policy=sb.single_run(),
        )
        def rates(context) -> pd.DataFrame:
            keys = context.partition_keys if partitions_def is not None else ["2024-01-01"]
            is_text = isinstance(partitions_def, dg.StaticPartitionsDefinition)
            period = list(keys) if is_text else pd.to_datetime(list(keys)).as_unit("us")
            return pd.DataFrame({"period": period, "rate": self.held[name]})

        return rates

    def refresh(self, asset: dg.AssetsDefinition, *keys: str, to: int | None = None) -> None:
        """Materialize an upstream asset, which holds another value from now on."""
        if to is not None:
            self.held[asset.key.to_user_string()] = to
        resources = {"io_manager": self.backend.io_manager}
        tags = {RANGE_START: keys[0], RANGE_END: keys[-1]} if keys else {}
        assert dg.materialize([asset], tags=tags, resources=resources, instance=self.instance).success

    def rows(self, keys: Sequence[str], factor: float) -> pd.DataFrame:
        """Return what the function computes."""
        self.called(keys)
        days = pd.to_datetime(list(keys)).as_unit("us")
        return pd.DataFrame({"day": days, "value": [int(day.dayofyear * factor) for day in days]})

    def called(self, keys: Sequence[str]) -> None:
        self.calls.append(tuple(keys))
        for key in keys:
            self.during.pop(key, lambda: None)()

    def breaks(self, key: str, error: type[Exception] = RuntimeError) -> None:
        """Let one computation of a partition fail."""

        def fail() -> None:
            raise error("the source is gone")

        self.during[key] = fail

    def kills(self, key: str) -> None:
        """Let the process be killed while it computes a partition."""

        def die() -> None:
            self._is_dead = True
            raise Killed

        self.during[key] = die

    def run(
        self,
        assets: Sequence[dg.AssetsDefinition | dg.AssetSpec | dg.SourceAsset],
        first: str = "",
        last: str = "",
        *,
        again: dg.DagsterRun | None = None,
        from_failure: bool = True,
        tags: Mapping[str, str] | None = None,
        run_config: Mapping[str, Any] | None = None,
        select: str | None = None,
        resources: Mapping[str, object] | None = None,
    ) -> dg.ExecuteInProcessResult | None:
        """Run assets for a range; return None if the run was killed."""
        self.calls.clear()
        ends = {RANGE_START: first, RANGE_END: last or first} if first else {}
        with suppress(Killed):
            result = dg.materialize(
                assets,
                tags={**ends, **reexecution_tags(again, from_failure=from_failure), **(tags or {})},
                resources={"io_manager": self.backend.io_manager, **(resources or {})},
                instance=self.instance,
                raise_on_error=False,
                run_config=run_config,
                selection=select,
            )
            self.last = result.dagster_run
            if not self._is_dead:
                return result
        self._is_dead = False
        self.last = self.instance.get_run_records(limit=1)[0].dagster_run
        # As run monitoring says it, and not the process itself.
        self.instance.report_run_failed(self.last)
        return None

    def values(self, table: str = "revenue", column: str = "value") -> list[Any]:
        """Return what is live, by day."""
        return [row[0] for row in self.backend.read(f"SELECT {column} FROM {table} ORDER BY day, {column}")]

    def said(self, result: dg.ExecuteInProcessResult | None, step: str = "revenue") -> str:
        """Return why a run failed."""
        assert result is not None
        assert not result.success
        return failure_of(result, step)


def defined(rates: Rates, body: Callable[..., object] | None = None, **options: Any) -> dg.AssetsDefinition:
    """Return the asset `revenue`, in batches of a day; `body` is its function if it takes more than its partitions."""

    def revenue(partitions: sb.PartitionSlice) -> pd.DataFrame:
        return rates.rows(partitions.keys, rates.held["rates"])

    arguments: dict[str, Any] = {
        "partitions_def": DAYS,
        "partition_expr": "day",
        "unique_key": "day",
        "audits": BELOW_500,
        "batches": sb.Batches(size=1, canary=False),
        "limits": sb.Limits(retry_wait=0.0),
        "backfill_policy": sb.single_run(),
        "name": "revenue",
        # The functions hold these rates, so what they are compiled to and work with changes all the time.
        "code_version": "1",
    }
    return sb.wap_asset(**(arguments | options))(body or revenue)


def times_rates(rates: Rates) -> Callable[..., object]:
    """Return a function that reads the asset `rates`."""

    def revenue(rates: pd.DataFrame, partitions: sb.PartitionSlice) -> pd.DataFrame:
        return world.rows(partitions.keys, float(rates["rate"].iloc[-1]))

    world = rates
    return revenue
