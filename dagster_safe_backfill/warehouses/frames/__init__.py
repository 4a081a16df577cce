"""Frames of pandas, polars, pyarrow and others as Arrow tables and back, without a change of any value."""

from dagster_safe_backfill.warehouses.frames.conversion import (
    as_arrow,
    check_names,
    dtypes_of,
    from_arrow,
    library_of,
    load_type_of,
    no_rows,
    rereadable,
    untyped_columns,
)
from dagster_safe_backfill.warehouses.frames.errors import FrameError, NoColumnsError
from dagster_safe_backfill.warehouses.frames.exact import finer_instant

__all__ = [
    "FrameError",
    "NoColumnsError",
    "as_arrow",
    "check_names",
    "dtypes_of",
    "finer_instant",
    "from_arrow",
    "library_of",
    "load_type_of",
    "no_rows",
    "rereadable",
    "untyped_columns",
]
