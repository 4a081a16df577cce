"""What users import: named once, sorted, documented."""

from __future__ import annotations

import inspect
import subprocess
import sys

import pytest

import dagster_safe_backfill as sb


def test_the_public_names_are_sorted_and_exist() -> None:
    assert sb.__all__ == sorted(sb.__all__)
    assert all(hasattr(sb, name) for name in sb.__all__)


def test_a_name_that_is_none_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="has no attribute 'wap_assets'"):
        _ = sb.wap_assets  # type: ignore[attr-defined]
    assert dir(sb) == sb.__all__


def test_nothing_public_is_unnamed() -> None:
    found = {name for name, value in vars(sb).items() if not name.startswith("_") and not inspect.ismodule(value)}
    assert found == set(sb.__all__)


@pytest.mark.parametrize(
    "name",
    [name for name in sb.__all__ if inspect.isclass(getattr(sb, name)) or inspect.isfunction(getattr(sb, name))],
)
def test_every_public_name_has_a_docstring(name: str) -> None:
    assert inspect.getdoc(getattr(sb, name))


def test_using_every_name_loads_no_driver_and_no_frame_library() -> None:
    code = "import sys; from dagster_safe_backfill import *; print(*sorted(sys.modules))"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert "dagster" in loaded
    assert not {"pandas", "polars", "pyarrow", "duckdb", "snowflake.connector", "sqlglot"} & set(loaded)


def test_importing_the_library_loads_no_driver_and_no_frame_library() -> None:
    code = "import sys, dagster_safe_backfill; print(*sorted(sys.modules))"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert not {"pandas", "polars", "pyarrow", "duckdb", "snowflake.connector", "sqlglot"} & set(loaded)
