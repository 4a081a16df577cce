"""Whole runs of Dagster, drawn: with resume on they leave the rows that they leave with resume off."""

from __future__ import annotations

import os
import random
from typing import Any

import dagster as dg
import pandas as pd
import pytest

import dagster_safe_backfill as sb
from dagster_safe_backfill_tests.harness.assets import green
from dagster_safe_backfill_tests.harness.backends import Backend
from dagster_safe_backfill_tests.harness.rates import DAYS, MONTHS, Rates, defined, times_rates

HISTORIES = int(os.environ.get("SAFE_BACKFILL_WHOLE_HISTORIES", "8"))
CHUNKS = 4
KEYS = tuple(DAYS.get_partition_keys()[29:34])
"""From the end of January to the begin of February: the days of two months."""


class Drawn:
    """One history of an asset of days that reads the rate of a month, the whole, the same day or the day before."""

    def __init__(self, backend: Backend, instance: dg.DagsterInstance, seed: int, *, resume: bool) -> None:
        # Both histories of a seed draw the same.
        self.random = draw = random.Random(seed)
        self.rates = Rates(backend, instance)
        mapped = draw.choice(["monthly", "unpartitioned", "same", "before"])
        there = {"monthly": MONTHS, "unpartitioned": None}.get(mapped, DAYS)
        self.upstream = self.rates.upstream(partitions_def=there)
        self.parts: list[str] = [] if there is None else ["2024-01-01", "2024-02-01"] if there is MONTHS else [*KEYS]
        before = dg.TimeWindowPartitionMapping(start_offset=-1, end_offset=-1) if mapped == "before" else None
        self.is_loaded = mapped == "unpartitioned" and draw.random() < 0.5
        ins = {"rates": dg.AssetIn(partition_mapping=before)}
        deps = [dg.AssetDep(self.upstream, partition_mapping=before)]
        self.options: dict[str, Any] = {"ins": ins} if self.is_loaded else {"deps": deps}
        self.batches: dict[str, Any] = {
            "size": draw.choice([1, 2, None]),
            "publish_each": draw.random() < 0.5,
            "canary": draw.random() < 0.3,
            "resume": resume,
        }
        self.code = 1

    def run(self) -> list[Any]:
        draw, rates = self.random, self.rates
        self._refresh()
        for number in range(draw.randint(1, 3)):
            key, how = draw.choice(KEYS), draw.choice(["breaks", "kills", "rejects", "refreshes", "passes"])
            if number:
                self._change(draw.choice(["refresh", "code", "nothing", "nothing", "live"]))
            again = rates.last if draw.random() < 0.6 else None
            self._run(again, draw.random() < 0.6, key, how)
        again = rates.last if draw.random() < 0.6 else None
        result = self._run(again, draw.random() < 0.6, "", "passes")
        assert result is not None
        assert result.success
        assert green(rates.instance, "revenue") == set(KEYS)
        return rates.values()

    def _refresh(self, first: int | None = None) -> None:
        first = self._part() if first is None else first
        parts = self.parts if self.rates.held["rates"] == 1 else self.parts[first : first + 1]
        self.rates.refresh(self.upstream, *parts, to=self.rates.held["rates"] + 1)

    def _part(self) -> int:
        return self.random.randrange(len(self.parts)) if self.parts else 0

    def _change(self, what: str) -> None:
        if what == "refresh":
            self._refresh()
        elif what == "code":
            self.code += 1
        elif what == "live" and self.rates.backend.read("SELECT 1 FROM duckdb_tables() WHERE table_name = 'revenue'"):
            self.rates.backend.change(f"UPDATE revenue SET value = -7 WHERE day = '{KEYS[1]}'")

    def _run(self, again: dg.DagsterRun | None, from_failure: bool, key: str, how: str) -> Any:
        rates = self.rates
        rates.during = {}
        if how == "breaks":
            rates.breaks(key)
        elif how == "kills":
            rates.kills(key)
        elif how == "refreshes":
            part = self._part()
            rates.during[key] = lambda: self._refresh(part)
        bad = f"DATE '{key}'" if how == "rejects" else "DATE '1999-01-01'"
        audits = [sb.expression(f"day <> {bad}", name="good")]
        batches, version = sb.Batches(**self.batches), str(self.code)
        asset = defined(rates, self._function(), batches=batches, audits=audits, code_version=version, **self.options)
        result = rates.run(
            [self.upstream, asset], KEYS[0], KEYS[-1], again=again, from_failure=from_failure, select="revenue"
        )
        if how == "refreshes":
            # In the other history, the function may have been called for it, so the input changes in both.
            rates.during.pop(key, lambda: None)()
        return result

    def _function(self) -> Any:
        if self.is_loaded:
            return times_rates(self.rates)
        rates, code = self.rates, self.code

        def revenue(partitions: sb.PartitionSlice) -> pd.DataFrame:
            # A source that it reads itself: the whole table, of which Dagster's mapping says what counts.
            held = rates.backend.read("SELECT period, rate FROM rates")
            by_day = {str(period)[:10]: rate for period, rate in held}
            frame = rates.rows(partitions.keys, 0)
            frame["value"] = [code * 1000 + self._rate(key, by_day) for key in partitions.keys]
            return frame

        return revenue

    def _rate(self, key: str, by_day: dict[str, int]) -> int:
        if not self.parts:
            return by_day["2024-01-01"]
        if len(self.parts) == 2:
            return by_day[f"{key[:7]}-01"]
        is_before = self.options["deps"][0].partition_mapping is not None
        day = pd.Timestamp(key) - pd.Timedelta(days=int(is_before))
        return by_day.get(f"{day:%Y-%m-%d}", 0)


@pytest.mark.parametrize("chunk", range(CHUNKS))
def test_resumed_rows_are_those_that_computing_all_again_gives(backend: Backend, chunk: int) -> None:
    counted = 0
    for seed in range(chunk, HISTORIES, CHUNKS):
        rows: list[list[Any]] = []
        for resume in (True, False):
            with backend.another() as fresh, dg.DagsterInstance.ephemeral() as instance:
                rows.append(Drawn(fresh, instance, seed, resume=resume).run())
        assert rows[0] == rows[1], f"history {seed}"
        counted += 1
    assert counted == len(range(chunk, HISTORIES, CHUNKS))
