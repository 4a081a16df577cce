"""What audits cost: statements, whatever the number of partitions and of audits."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

import pytest

import dagster_safe_backfill as sb
from dagster_safe_backfill.warehouses.duckdb.dialect import DuckDBDialect
from dagster_safe_backfill_tests.harness.audited import DAYS, Bench, Row

ROWS: list[Row] = [(day, i, float(i + 1), f"{day}-{i}") for day in range(DAYS) for i in range(4)]


def selects(
    bench: Bench, audits: Sequence[sb.Audit], caplog: pytest.LogCaptureFixture, rows: Sequence[Row] = ROWS
) -> list[str]:
    """Return the statements that read the shadow or live while audits are measured."""
    caplog.clear()
    with caplog.at_level(logging.DEBUG, logger="dagster_safe_backfill.sql"):
        judged = bench.judged(rows, audits)
    assert all(result.passed for result in judged.results)
    texts = [record.message for record in caplog.records if record.name == "dagster_safe_backfill.sql"]
    ((staged, audited),) = [
        [i for i, text in enumerate(texts) if text.startswith("INSERT") and "_safe_backfill_ledger" in text]
    ]
    between = texts[staged:audited]
    # The catalog tells the collations of the tables that are referred to.
    others = ("_safe_backfill_ledger", "duckdb_tables()")
    return [text for text in between if text.startswith("SELECT") and not any(other in text for other in others)]


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path, live=ROWS, notes=[str(row[3]) for row in ROWS])


def test_all_conditions_and_aggregates_share_one_scan_of_each_side(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    audits = [
        sb.not_null("value"),
        sb.not_null("note"),
        sb.expression("value > 0"),
        sb.in_range("value", 0, 10),
        sb.accepted_values("id", [0, 1, 2, 3]),
        sb.references("note", table="notes"),
        sb.row_count_between(1),
        sb.aggregate_between("sum(value)", 0),
        sb.row_count_drift(max_change=0.1),
        sb.aggregate_drift("value", "total", max_change=0.1),
        sb.aggregate_drift("value", "median", max_change=0.1, over="run"),
        sb.column_types({"value": "DOUBLE"}),
    ]
    shadow, live = selects(bench, audits, caplog)
    assert "__shadow_" in shadow
    assert "__shadow_" not in live


def test_each_lookup_takes_one_more_and_a_comparison_two(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    lookups = [sb.unique(), sb.unique("note")]
    own = sb.failing_rows("SELECT * FROM batch WHERE value < 0", name="own")
    assert len(selects(bench, lookups, caplog)) == 2 + 2
    assert len(selects(bench, [own], caplog)) == 1 + 1
    assert len(selects(bench, [sb.compare(max_changed=0)], caplog)) == 2 + 1


def test_what_several_audits_ask_is_measured_once(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    audits = [
        *(sb.not_null("value", max_failures=n, name=f"null_{n}") for n in range(3)),
        *(sb.aggregate_drift("value", "total", max_change=n / 10, name=f"total_{n}") for n in range(3)),
        *(sb.references("note", table="notes", name=f"known_{n}") for n in range(3)),
        *(sb.unique("note", name=f"unique_{n}") for n in range(3)),
    ]
    found = selects(bench, audits, caplog)
    assert len(found) == 2 + 1
    assert [text.count('SUM("value")') for text in found if "SUM" in text] == [1, 1]
    assert [text.count('"value" IS NULL') for text in found if "IS NULL" in text and "COUNT(CASE" in text] == [1]


def test_what_is_more_than_a_statement_holds_is_split(
    bench: Bench, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(DuckDBDialect, "aggregates_at_once", 10)
    audits = [sb.expression(f"value > -{n}") for n in range(1, 30)]
    assert len(selects(bench, audits, caplog)) == 3 + 1


def test_very_many_audits_and_values_are_measured(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    audits = [sb.expression(f"value > -{n}") for n in range(1, 700)]
    audits.append(sb.accepted_values("note", [str(row[3]) for row in ROWS] + [f"it's {n}" for n in range(20_000)]))
    assert len(selects(bench, audits, caplog)) == 2 + 1
