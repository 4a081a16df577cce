"""Whatever statement fails, and however: live is old or new, the ledger says which, and the next try completes."""

from __future__ import annotations

import sys
from collections import Counter

import pytest

pytest.importorskip("fakesnow", reason="fakesnow needs Python 3.11")

from dagster_safe_backfill_tests.harness.snowflake.faults import CALLED, PASSING, WORKS, Bench, Work, markdown, outcomes
from dagster_safe_backfill_tests.harness.snowflake.grammar import snowflake_problems, transaction_problems
from dagster_safe_backfill_tests.harness.snowflake.proxy import Proxy

AT_LEAST: dict[Work, int] = {"stage": 30, "merge": 25, "replace": 25, "swap": 35, "rollback": 25}
"""How many faults each work has to stand."""


def test_the_faults_are_many() -> None:
    assert sum(AT_LEAST.values()) >= 140
    assert set(AT_LEAST) == set(WORKS)


@pytest.mark.parametrize("work", WORKS)
def test_a_fault_costs_time_and_no_rows(proxy: Proxy, work: Work, record_property: pytest.RecordProperty) -> None:
    found = list(outcomes(proxy, work, is_thorough=False))
    counts = Counter((one.fault, one.live) for one in found)
    shown = ", ".join(f"{count} {fault}: {live}" for (fault, live), count in sorted(counts.items()))
    sys.stdout.write(f"{work}: {len(found)} faults ({shown})\n{markdown(found)}\n")
    record_property("faults", shown)
    assert len(found) >= AT_LEAST[work]
    # What stages has no transaction of several statements, which could be aborted.
    called = {name for how, name in CALLED.items() if how != "abort" or work != "stage"}
    assert {one.fault for one in found} == {*called, *(f"{CALLED[how]} once" for how in PASSING)}
    assert {one.live for one in found} >= ({"old"} if work == "stage" else {"old", "new"})
    assert [f"{one.number} {one.fault}: {problem}" for one in found for problem in one.problems] == []
    assert [f"{one.number} {one.fault}: {problem}" for one in found for problem in one.unfinished] == []


@pytest.mark.parametrize("work", WORKS)
def test_its_statements_are_snowflakes(proxy: Proxy, work: Work) -> None:
    statements = Bench(proxy, work).statements()
    assert {one.sql: found for one in statements if (found := snowflake_problems(one.sql))} == {}
    for session in {one.session for one in statements}:
        assert transaction_problems([one.sql for one in statements if one.session == session]) == []
