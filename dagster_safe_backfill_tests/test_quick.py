"""`--quick` runs what it says, and what it says is there."""

from __future__ import annotations

import ast

import pytest

from dagster_safe_backfill_tests.quick import QUICK, TESTS, has_quick_tests, is_quick


@pytest.mark.parametrize("place", QUICK)
def test_what_is_quick_exists(place: str) -> None:
    path = TESTS / place
    assert path.exists()
    if QUICK[place]:
        found = {node.name for node in ast.parse(path.read_text()).body if isinstance(node, ast.FunctionDef)}
        assert set(QUICK[place]) <= found


@pytest.mark.parametrize(
    "place",
    [
        "test_layers.py",
        "test_public_names.py",
        "test_docs.py",
        "sql/test_golden.py",
        "model/test_options.py",
        "assets/test_options.py",
        "warehouses/test_contract.py",
        "wap/test_rollback.py",
        "assets/test_wap_asset.py",
        "runs/test_staged.py",
    ],
)
def test_what_most_mistakes_break_is_quick(place: str) -> None:
    assert has_quick_tests(TESTS / place)


@pytest.mark.parametrize("folder", ["daemon", "e2e", "example", "faults", "warehouses/snowflake"])
def test_what_starts_processes_is_not(folder: str) -> None:
    assert not any(has_quick_tests(path) for path in (TESTS / folder).glob("test_*.py"))


def test_only_duckdb_is_quick() -> None:
    path = TESTS / "wap" / "test_publish.py"
    assert is_quick(path, "test_a", ["backend"], "duckdb")
    assert not is_quick(path, "test_a", ["backend"], "snowflake")
    assert is_quick(TESTS / "sql" / "test_golden.py", "test_a", [], None)
    assert not is_quick(TESTS / "sql" / "test_golden.py", "test_a", ["snowflake_emulator"], None)


def test_of_some_files_only_some_tests_are_quick() -> None:
    path = TESTS / "runs" / "test_staged.py"
    assert is_quick(path, "test_the_three_in_one_run", ["backend"], "duckdb")
    assert not is_quick(path, "test_batches_of_a_shadow_run", ["backend"], "duckdb")
