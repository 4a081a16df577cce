"""Frames as Arrow, both ways, without importing a frame library that isn't used."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Protocol, cast, runtime_checkable

from dagster_safe_backfill.errors import ConfigurationError, SafeBackfillError

if TYPE_CHECKING:
    import pandas as pd
    import polars as pl
    import pyarrow as pa


@runtime_checkable
class ArrowStream(Protocol):
    """Anything that speaks the Arrow PyCapsule interface: pyarrow, polars, pandas 2.2, narwhals and more.

    Source: https://arrow.apache.org/docs/format/CDataInterface/PyCapsuleInterface.html
    """

    def __arrow_c_stream__(self, requested_schema: object | None = None) -> object:
        """Return a capsule that holds an ArrowArrayStream."""
        ...


def library_of(frame_type: type) -> str:
    """Return the top-level package that a type comes from."""
    return frame_type.__module__.partition(".")[0]


def as_arrow(frame: object) -> pa.Table:
    """Return a frame as an Arrow table. A pandas index isn't data and is left out.

    Raises:
        ConfigurationError: It isn't a frame.
        FrameError: It is one, but has no columns (`NoColumnsError`), names one twice, or mixes types in one
            that Arrow can't hold together.
    """
    import pyarrow as pa

    collect = getattr(frame, "collect", None)
    if library_of(type(frame)) == "polars" and collect is not None:
        frame = collect()
    try:
        table = _table(frame)
    except (pa.ArrowException, OverflowError, TypeError, ValueError) as error:
        raise FrameError(f"the frame can't be read as an Arrow table: {error}") from error
    if not table.column_names:
        raise NoColumnsError("the frame has no columns")
    check_names(table.column_names, of="the frame")
    return table


def rereadable(data: object) -> object:
    """Return computed rows as what can be read again: a stream, which is gone once it was read, as a table."""
    import pyarrow as pa

    return data.read_all() if isinstance(data, pa.RecordBatchReader) else data


def untyped_columns(table: pa.Table) -> frozenset[str]:
    """Return the columns that hold nothing but NULL, or nested values of nothing else, and so have no type."""
    untyped: list[str] = []
    for field in cast("Any", table.schema):  # typed in part only
        kinds: list[Any] = [field.type]
        for kind in kinds:  # grows by the types that a nested one is made of
            for i in range(kind.num_fields):
                kinds.append(kind.field(i).type)
        if "null" in map(str, kinds):
            untyped.append(str(field.name))
    return frozenset(untyped)


def check_names(names: Sequence[str], *, of: str) -> None:
    """Refuse column names that come twice, apart from case, as the warehouse would rename them.

    Raises:
        FrameError: Some do.
    """
    counts = Counter(map(str.casefold, names))
    if len(counts) < len(names):
        repeated = sorted(name for name, count in counts.items() if count > 1)
        raise FrameError(f"{of} has more than one column named {', '.join(repeated)}, apart from case")


def _table(frame: object) -> pa.Table:
    import pyarrow as pa

    pandas = sys.modules.get("pandas")
    if pandas is not None and isinstance(frame, pandas.DataFrame):
        return pa.Table.from_pandas(cast("pd.DataFrame", frame), preserve_index=False)
    polars = sys.modules.get("polars")
    if polars is not None and isinstance(frame, polars.DataFrame):
        # Polars hands out the addresses of such objects as if they were data.
        objects = [name for name, kind in cast("pl.DataFrame", frame).schema.items() if kind == polars.Object]
        if objects:
            raise TypeError(f"{', '.join(objects)} holds Python objects")
    if isinstance(frame, ArrowStream):
        return pa.RecordBatchReader.from_stream(frame).read_all()
    raise ConfigurationError(
        f"a {type(frame).__name__} is neither a frame (pandas, polars, pyarrow: anything that speaks Arrow)"
        " nor an sb.Query; return one of them"
    )


def from_arrow(table: pa.Table, load_type: type) -> Any:
    """Return an Arrow table as an instance of `load_type`.

    Raises:
        ConfigurationError: The type is of no known frame library.
    """
    match library_of(load_type):
        case "pandas":
            return cast("Any", table).to_pandas()
        case "polars":
            import polars as pl

            frame = pl.DataFrame(table)
            return frame.lazy() if issubclass(load_type, pl.LazyFrame) else frame
        case "pyarrow":
            return table.to_reader() if load_type.__name__ == "RecordBatchReader" else table
        case _:
            raise ConfigurationError(
                f"an input can't be loaded as {load_type.__name__}; hint pandas.DataFrame, polars.DataFrame,"
                " polars.LazyFrame or pyarrow.Table"
            )


def no_rows(load_type: type) -> Any:
    """Return a frame without rows and columns."""
    if library_of(load_type) == "pandas":
        return load_type()
    import pyarrow as pa

    return from_arrow(pa.table({}), load_type)


class FrameError(SafeBackfillError):
    """A frame that can't be made an Arrow table; its caller knows the table's name."""


class NoColumnsError(FrameError):
    """A frame without any column, such as `pandas.DataFrame()`."""
