"""Conversion of frames to Arrow tables and back, without importing a frame library that isn't used."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol, cast, runtime_checkable

from dagster_safe_backfill.errors import ConfigurationError, ReadError
from dagster_safe_backfill.redaction import foreign_text
from dagster_safe_backfill.warehouses.frames.errors import FrameError, NoColumnsError, UnreadableError
from dagster_safe_backfill.warehouses.frames.exact import exact
from dagster_safe_backfill.warehouses.frames.of_pandas import Kind, pandas_of, table_of_pandas
from dagster_safe_backfill.warehouses.frames.of_polars import polars_of

if TYPE_CHECKING:
    import pandas as pd
    import polars as pl
    import pyarrow as pa


@runtime_checkable
class ArrowStream(Protocol):
    """Any object with the Arrow PyCapsule interface: of pyarrow, polars, pandas 2.2, narwhals and more.

    Source: https://arrow.apache.org/docs/format/CDataInterface/PyCapsuleInterface.html
    """

    def __arrow_c_stream__(self, requested_schema: object | None = None) -> object:
        """Return a capsule that holds an ArrowArrayStream."""
        ...


def library_of(frame_type: type) -> str:
    """Return the top-level package that a type comes from."""
    return frame_type.__module__.partition(".")[0]


def as_arrow(frame: object) -> pa.Table:
    """Return a frame as an Arrow table with the same values, without the nameless index of a pandas frame.

    Raises:
        ConfigurationError: The object isn't a frame.
        NoColumnsError: The frame has no columns.
        FrameError: The frame has two columns of one name, a named index, or a column with values that Arrow or a
            warehouse would change.
    """
    import pyarrow as pa

    # A polars LazyFrame has no Arrow interface, so its query is run first.
    collect = getattr(frame, "collect", None)
    if library_of(type(frame)) == "polars" and collect is not None:
        frame = _collected(collect)
    try:
        table = _table(frame)
    except (pa.ArrowException, OverflowError, TypeError, ValueError) as error:
        raise FrameError(f"the frame can't be read as an Arrow table: {foreign_text(error)}") from error
    if not table.column_names:
        raise NoColumnsError("the frame has no columns.")
    check_names(table.column_names, of="the frame")
    return exact(table)


def _collected(collect: Callable[[], object]) -> object:
    import polars as pl

    try:
        return collect()
    except pl.exceptions.PolarsError as error:
        raise FrameError(f"the query of the frame failed: {foreign_text(error)}") from error


def rereadable(data: object) -> object:
    """Return computed rows in a form that can be read twice: a stream, which can be read once, becomes a table."""
    import pyarrow as pa

    return data.read_all() if isinstance(data, pa.RecordBatchReader) else data


def dtypes_of(data: object) -> dict[str, str]:
    """Return a mapping from column name to dtype, as the frame's library calls it; empty for other data."""
    frame: Any = data
    # A column of a frame is of the same library, and is refused later.
    match library_of(type(data)):
        case "pandas" if hasattr(frame, "columns"):
            found: Any = dict(frame.dtypes.items())
        case "polars" if hasattr(frame, "collect_schema"):
            found = frame.collect_schema()
        case "pyarrow" if hasattr(frame, "schema"):
            found = dict(zip(frame.schema.names, frame.schema.types, strict=True))
        case _:
            found = {}
    return {str(name): str(dtype) for name, dtype in found.items()}


def untyped_columns(table: pa.Table) -> frozenset[str]:
    """Return the columns that have no type, because they or their nested fields hold only NULL."""
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
    """Raise if a column has no name or that of another one, ignoring case: the warehouse would rename the column.

    Raises:
        FrameError: A name is empty, or occurs twice.
    """
    if "" in names:
        raise FrameError(f"column {[*names].index('') + 1} of {of} has an empty name, which no warehouse has. Name it.")
    counts = Counter(map(str.casefold, names))
    if len(counts) < len(names):
        repeated = sorted(name for name, count in counts.items() if count > 1)
        raise FrameError(f"{of} has more than one column named {', '.join(repeated)}, ignoring case.")


def _table(frame: object) -> pa.Table:
    import pyarrow as pa

    # Looked up instead of imported: importing pandas takes 1.2 s, and without it no frame can be one of pandas.
    pandas = sys.modules.get("pandas")
    if pandas is not None and isinstance(frame, pandas.DataFrame):
        return table_of_pandas(cast("pd.DataFrame", frame))
    polars = sys.modules.get("polars")
    if polars is not None and isinstance(frame, polars.DataFrame):
        # Polars exports the addresses of such objects to Arrow as if they were data.
        objects = [name for name, kind in cast("pl.DataFrame", frame).schema.items() if kind == polars.Object]
        if objects:
            raise TypeError(f"{', '.join(objects)} holds Python objects")
    if isinstance(frame, ArrowStream):
        return pa.RecordBatchReader.from_stream(frame).read_all()
    raise ConfigurationError(
        f"a {type(frame).__name__} is neither a frame (of pandas, polars, pyarrow, or any other library with Arrow's"
        " PyCapsule interface) nor an sb.Query. Return one of them."
    )


def from_arrow(
    table: pa.Table, load_type: type, *, kinds: Mapping[str, Kind] | None = None, types: Mapping[str, str] | None = None
) -> Any:
    """Return an Arrow table as an instance of `load_type`, with the same values.

    Args:
        table: The table.
        load_type: The type of the result.
        kinds: What the values of some columns are, where the Arrow type doesn't say it.
        types: A mapping from the name of a column to its type in the warehouse, for errors.

    Raises:
        ConfigurationError: The type isn't one of pandas, polars or pyarrow.
        ReadError: A column has values that the type can't hold.
    """
    try:
        return _loaded(table, load_type, kinds or {})
    except UnreadableError as error:
        kind = (types or {}).get(error.column) or str(cast("Any", table.schema).field(error.column).type)
        raise unreadable(error, kind) from error


def unreadable(error: UnreadableError, kind: str) -> ReadError:
    """Return the error about a column of a type that a library can't hold."""
    other = "" if error.library == "pyarrow" else "as a pyarrow.Table, or "
    return ReadError(
        f"the column {error.column} ({kind}) can't be read as {error.library}, which has {error.lacks}. Read the input"
        f' {other}without the column, by naming the others in the metadata "columns" of the input.',
        column=error.column,
        type=kind,
    )


def _loaded(table: pa.Table, load_type: type, kinds: Mapping[str, Kind]) -> Any:
    match library_of(load_type):
        case "pandas":
            return pandas_of(table, kinds)
        case "polars":
            import polars as pl

            frame = polars_of(table)
            return frame.lazy() if issubclass(load_type, pl.LazyFrame) else frame
        case "pyarrow":
            return table.to_reader() if load_type.__name__ == "RecordBatchReader" else table
        case _:
            raise ConfigurationError(
                f"an input can't be loaded as {load_type.__name__}. Annotate it as pandas.DataFrame, polars.DataFrame,"
                " polars.LazyFrame or pyarrow.Table."
            )


def load_type_of(hint: object) -> type:
    """Return the frame type that the annotation of an input names; pandas.DataFrame without one."""
    # typing.Any is a class since Python 3.11 ("Changed in version 3.11" in the typing docs).
    if isinstance(hint, type) and hint is not Any:
        return hint
    import pandas as pd

    return pd.DataFrame


def no_rows(load_type: type) -> Any:
    """Return a frame without rows and columns."""
    if library_of(load_type) == "pandas":
        return load_type()
    import pyarrow as pa

    return from_arrow(pa.table({}), load_type)
