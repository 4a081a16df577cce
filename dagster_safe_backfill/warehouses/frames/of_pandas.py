"""pandas frames as Arrow tables and back.

A column has the dtype that users of DuckDB and pandas know, where that dtype holds its values exactly: numbers as numpy
or nullable numbers, timestamps and dates as datetime64, texts, lists and structs as objects. Otherwise it has the Arrow
dtype, which holds every value: a date of the year 300000, a float column with both NaN and NULL, a map.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal
from uuid import UUID

from dagster_safe_backfill.redaction import foreign_text
from dagster_safe_backfill.warehouses.frames.errors import FrameError, UnreadableError
from dagster_safe_backfill.warehouses.frames.exact import leaves
from dagster_safe_backfill.warehouses.frames.libraries import arrow, pandas
from dagster_safe_backfill.warehouses.frames.objects import array_of_objects

Kind = Literal["integer", "uuid", "enum"]
"""What the values of a column are that Arrow has no type for: integers of 128 bits, UUIDs, or an ENUM in its order."""

_MICROSECONDS_OF_A_DAY = 86_400_000_000
_SAMPLE = 1_000
_MOST_DAYS = 2**63 // _MICROSECONDS_OF_A_DAY


def table_of_pandas(frame: Any) -> Any:
    """Return a pandas frame as an Arrow table. A nameless index is left out.

    Raises:
        FrameError: The frame has a named index, or a column with values that Arrow would change.
    """
    pa = arrow()
    _check_index(frame)
    _check_labels(list(frame.columns))
    names = [str(name) for name in frame.columns]
    columns: list[Any] = []
    for i, name in enumerate(names):
        columns.append(_array(frame.iloc[:, i], name))
    return pa.Table.from_arrays(columns, names=names)


def _check_index(frame: Any) -> None:
    named = [str(name) for name in frame.index.names if name is not None]
    if not named:
        return
    columns = {str(name) for name in frame.columns}
    drop = "drop=True" if columns.issuperset(named) else ""
    raise FrameError(
        f"the frame has {', '.join(named)} in its index, which is not written. Return frame.reset_index({drop}) if the"
        " index is a column of the table; otherwise remove its name."
    )


def _check_labels(labels: Sequence[Any]) -> None:
    for i, label in enumerate(labels):
        if not isinstance(label, str):
            raise FrameError(
                f"column {i + 1} of the frame has the label {label!r}, a {type(label).__name__}, and columns of a table"
                " are named by texts. Rename it, for example with frame.set_axis([…], axis=1)."
            )


def _array(series: Any, name: str) -> Any:
    pa = arrow()
    dtype: Any = series.dtype
    kind = getattr(dtype, "name", "")
    if kind == "category":
        # Categories may be of any type, and their values have that type.
        series = series.astype(dtype.categories.dtype)
        dtype = series.dtype
    if dtype.kind == "O" and dtype.name == "object":
        return array_of_objects(list(series), name)
    if type(dtype).__name__ in ("PeriodDtype", "IntervalDtype"):
        raise FrameError(
            f"the column {name} has the dtype {dtype}, which no warehouse has. Convert it, for example with"
            f" {'to_timestamp()' if 'Period' in type(dtype).__name__ else 'its two ends as columns'}, or to text."
        )
    try:
        return pa.array(series, from_pandas=True)
    except (pa.ArrowException, OverflowError, TypeError, ValueError) as error:
        raise FrameError(
            f"the column {name} ({dtype}) can't be read as an Arrow table: {foreign_text(error, names=[name])}"
        ) from error


def pandas_of(table: Any, kinds: Mapping[str, Kind]) -> Any:
    """Return an Arrow table as a pandas frame with the same values.

    Raises:
        UnreadableError: A column has a type that pandas has no dtype for.
    """
    pd = pandas()
    # Not a mapping from name to column, because a frame may be read with two columns of one name.
    series = [
        _series(column, name, kinds.get(name)) for name, column in zip(table.column_names, table.columns, strict=True)
    ]
    frame = pd.DataFrame(dict(enumerate(series)), index=pd.RangeIndex(table.num_rows))
    frame.columns = pd.Index(table.column_names, dtype=object) if series else frame.columns
    return frame


def _series(column: Any, name: str, kind: Kind | None) -> Any:
    pd = pandas()
    pa = arrow()
    types = pa.types
    if types.is_union(column.type) or any(types.is_union(values.type) for _, values in leaves(name, column)):
        raise UnreadableError(name, "pandas", "no dtype for it")
    if kind is not None:
        return pd.Series(_OF_KIND[kind](column))
    convert = next((convert for is_type, convert in _usual() if is_type(column.type)), _objects)
    usual = convert(column)
    return pd.Series(pd.arrays.ArrowExtensionArray(column)) if usual is None else usual


def _usual() -> list[tuple[Callable[[Any], bool], Callable[[Any], Any]]]:
    """Return for each group of types the function that makes their usual series, or None if it isn't exact."""
    pa = arrow()
    types = pa.types
    return [
        (types.is_integer, _nullable),
        (types.is_boolean, _nullable),
        (types.is_floating, _floats),
        (types.is_date, _dates),
        (types.is_decimal128, _as_pandas_does),
        (types.is_timestamp, _as_pandas_does),
        (types.is_string, _texts),
        (types.is_large_string, _texts),
        (types.is_time64, _times),
        (types.is_binary, _as_pandas_does),
        (types.is_dictionary, _as_pandas_does),
        (types.is_interval, _intervals),
    ]


def _as_pandas_does(column: Any, **options: Any) -> Any:
    found: Any = column.to_pandas(**options)
    found.name = None
    return found


def _nullable(column: Any) -> Any:
    found = _as_pandas_does(column.slice(0, 0)).dtype.name
    if not column.null_count:
        return _as_pandas_does(column)
    # Int64 and boolean instead of floats and objects, as DuckDB's own conversion has it.
    pd = pandas()
    dtype = "boolean" if found == "bool" else found.replace("uint", "UInt").replace("int", "Int")
    return pd.Series(pd.api.types.pandas_dtype(dtype).__from_arrow__(column))


def _floats(column: Any) -> Any:
    compute = arrow().compute
    # In pandas, NaN in a column of floats is a missing value, so NaN itself would be written as NULL.
    return None if compute.any(compute.is_nan(column)).as_py() else _as_pandas_does(column)


def _dates(column: Any) -> Any:
    pa = arrow()
    compute = arrow().compute
    days = compute.min_max(column.cast(pa.int32())).as_py()
    if any(day is not None and abs(day) >= _MOST_DAYS for day in days.values()):
        return None
    return _as_pandas_does(column.cast(pa.timestamp("us")))


def _texts(column: Any) -> Any:
    # Equal texts are one object, which saves memory. To look for them where hardly any are equal takes three times as
    # long as all the rest.
    first = column.slice(0, _SAMPLE)
    return _as_pandas_does(column, deduplicate_objects=len(first.unique()) <= len(first) / 2)


def _times(column: Any) -> Any:
    pa = arrow()
    try:
        return _as_pandas_does(column.cast(pa.time64("us")), deduplicate_objects=False)
    except (pa.ArrowException, ValueError):
        # Python has no 24:00:00 and no nanoseconds.
        return None


def _intervals(column: Any) -> Any:
    pa = arrow()
    values = _one(column)
    # https://arrow.apache.org/docs/format/Columnar.html: months and days of 32 bits, and nanoseconds of 64 bits.
    parts = pa.Array.from_buffers(pa.int64(), 2 * (values.offset + len(values)), [None, values.buffers()[1]]).to_numpy()
    days, nanoseconds = parts.reshape(-1, 2)[values.offset :].T
    is_null = values.is_null().to_numpy(zero_copy_only=False)
    if days[~is_null].any():
        # As objects of pandas' DateOffset.
        return _if_exact(_as_pandas_does(column), column)
    counts = pa.array(nanoseconds, mask=is_null)
    return _as_pandas_does(counts.cast(pa.duration("ns")).cast(pa.duration("us")))


def _objects(column: Any) -> Any:
    pa = arrow()
    pd = pandas()
    if pa.types.is_fixed_size_list(column.type):
        # pandas would have arrays of floats if one of the lists is NULL.
        column = column.cast(pa.list_(column.type.value_type))
    try:
        values = _values(column)
    except (OverflowError, ValueError):
        # Python has no dates before the year 1 and after 9999.
        return None
    return _if_exact(pd.Series(values, dtype=object), column)


def _if_exact(found: Any, column: Any) -> Any:
    """Return a series of objects if it is written as the same values as those of the column, else None."""
    pa = arrow()
    try:
        again: Any = array_of_objects(list(found), "")
        is_same = alike(column.type, again.type) and again.cast(column.type).equals(_one(column))
    except (pa.ArrowException, FrameError, OverflowError, ValueError):
        return None
    return found if is_same else None


def _one(column: Any) -> Any:
    pa = arrow()
    return pa.concat_arrays(column.chunks) if column.num_chunks else pa.array([], type=column.type)


def _values(column: Any) -> list[Any]:
    """Return the values as pandas has them: arrays of numpy for lists, unless they have NULL or time zones."""
    kind = column.type
    is_list = kind.num_fields == 1 and hasattr(kind, "value_type")
    if is_list and not any(values.null_count or getattr(values.type, "tz", None) for _, values in leaves("", column)):
        return [None if value is None else value for value in column.to_pandas()]
    return column.to_pylist()


def alike(kind: Any, other: Any) -> bool:
    """Return True if two types differ only in the width of their numbers, the unit of their times, or their names."""
    pa = arrow()
    types = pa.types
    if kind.num_fields != other.num_fields:
        return False
    if kind.num_fields:
        fields = zip(_fields(kind), _fields(other), strict=True)
        return _family(kind) == _family(other) and all(alike(one, two) for one, two in fields)
    families: list[Any] = [
        *(types.is_integer, types.is_floating, types.is_decimal, types.is_timestamp, types.is_time),
        *(types.is_date, types.is_duration, types.is_binary, types.is_boolean, types.is_string, types.is_interval),
    ]
    if bool(getattr(kind, "tz", None)) != bool(getattr(other, "tz", None)):
        return False
    return types.is_null(other) or any(is_one(kind) and is_one(other) for is_one in families)


def _family(kind: Any) -> str:
    pa = arrow()
    types = pa.types
    if types.is_struct(kind):
        return f"struct {[field.name for field in kind.fields]}"
    return "map" if types.is_map(kind) else "list"


def _fields(kind: Any) -> list[Any]:
    return [kind.field(i).type for i in range(kind.num_fields)]


def _integers(column: Any) -> Any:
    pd = pandas()
    return pd.Series([None if value is None else int(value) for value in column.to_pylist()], dtype=object)


def _uuids(column: Any) -> Any:
    pd = pandas()
    return pd.Series([None if value is None else UUID(value) for value in column.to_pylist()], dtype=object)


def _enum(column: Any) -> Any:
    found = _as_pandas_does(column)
    return found.cat.as_ordered()


_OF_KIND: Mapping[Kind, Callable[[Any], Any]] = {"integer": _integers, "uuid": _uuids, "enum": _enum}
