"""What `--quick` runs: the tests that most mistakes break, on DuckDB only, in under 90 seconds."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

TESTS = Path(__file__).parent

QUICK: dict[str, Collection[str]] = {
    # How the package is laid out, and what it says.
    "test_docs.py": (),
    "test_layers.py": (),
    "test_public_names.py": (),
    "test_quick.py": (),
    # Values and statements.
    "model": (),
    "sql/test_golden.py": (),
    "assets/test_options.py": (),
    # What a warehouse must do.
    "warehouses/test_contract.py": (),
    "warehouses/test_contract_dialect.py": (),
    "warehouses/test_contract_tables.py": (),
    "warehouses/test_new_warehouse_page.py": (),
    # The engine.
    "audits/test_traps.py": (),
    "wap/test_publish.py": (),
    "wap/test_retention.py": (),
    "wap/test_rollback.py": (),
    # A run of each shape.
    "assets/test_jobs.py": (),
    "assets/test_wap_asset.py": (),
    "runs/test_partitions.py": (),
    "runs/test_batches.py": (
        "test_the_function_is_called_for_each_batch_and_the_run_goes_live_once",
        "test_progress_is_told_after_each_batch",
    ),
    "runs/test_staged.py": (
        "test_the_three_in_one_run",
        "test_staged_in_runs_audited_and_published_on_a_persons_yes",
        "test_what_is_not_staged_or_audited_is_refused_by_name",
        "test_a_rollback_undoes_it",
    ),
}
"""Files and folders, each with its tests that are run; all of them, if none are named."""


def has_quick_tests(path: Path) -> bool:
    """Return whether a file has tests that are quick, or a folder may have some in it."""
    place = path.relative_to(TESTS).as_posix()
    if path.is_dir():
        return place == "." or any(entry.startswith(place) for entry in QUICK)
    return path.suffix != ".py" or place in QUICK or path.parent.name in QUICK


def is_quick(path: Path, test: str, fixtures: Collection[str], warehouse: str | None) -> bool:
    """Return whether a test is run by `--quick`.

    Args:
        path: Its file.
        test: The function's name.
        fixtures: The names of its fixtures.
        warehouse: The warehouse that it is run on, if any.
    """
    if not has_quick_tests(path) or warehouse not in (None, "duckdb") or "snowflake_emulator" in fixtures:
        return False
    chosen = QUICK.get(path.relative_to(TESTS).as_posix(), ())
    return not chosen or test in chosen
