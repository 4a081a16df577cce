"""pyarrow, pandas and polars, imported where they are first used, and untyped: their stubs type them in part only."""

from __future__ import annotations

import importlib
from typing import Any


def arrow() -> Any:
    """Return pyarrow."""
    importlib.import_module("pyarrow.compute")
    return importlib.import_module("pyarrow")


def pandas() -> Any:
    """Return pandas."""
    return importlib.import_module("pandas")


def polars() -> Any:
    """Return polars."""
    return importlib.import_module("polars")
