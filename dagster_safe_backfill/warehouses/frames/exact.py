"""What no database would keep of an Arrow table: it is refused, or carried in a type that all of them keep."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from dagster_safe_backfill.redaction import foreign_text, masked
from dagster_safe_backfill.warehouses.frames.errors import FrameError
from dagster_safe_backfill.warehouses.frames.libraries import arrow

_KNOWN_EXTENSIONS = frozenset({"arrow.uuid", "arrow.json", "arrow.opaque", "arrow.bool8", "arrow.parquet.variant"})
_PER_MICROSECOND = 1000


def exact(table: Any) -> Any:
    """Return a table with the same values, in types that a warehouse doesn't round.

    Timestamps of seconds and milliseconds get microseconds, so that a new column takes later values that are finer.
    Timestamps of nanoseconds with a time zone get microseconds if that changes none of them. Categories become plain
    values.

    Raises:
        FrameError: A column has a type, or durations of nanoseconds, that no warehouse keeps.
    """
    pa = arrow()
    columns: list[Any] = []
    fields: list[Any] = []
    schema: Any = table.schema
    for field, column in zip(schema, table.columns, strict=True):
        for place, values in leaves(field.name, column):
            _check(place, values)
        columns.append(_widened(column))
        # With its metadata, which may name the type that the values have in another system.
        fields.append(field.with_type(columns[-1].type))
    return pa.Table.from_arrays(columns, schema=pa.schema(fields))


def finer_instant(table: Any) -> FrameError | None:
    """Return the error of a warehouse whose times with a time zone have microseconds, about the first finer one.

    None if there is no such time in a table that `exact` returned.
    """
    pa = arrow()
    for name, column in zip(table.column_names, table.columns, strict=True):
        # `exact` leaves only columns as they are of which it would have changed a value.
        for place, values in leaves(name, column) if widened(column.type) != column.type else ():
            kind = values.type
            if not pa.types.is_timestamp(kind) or kind.unit != "ns" or kind.tz is None:
                continue
            counts = values.cast(pa.int64())
            row = _first(_remainder(counts))
            if row is not None:
                shown = masked(counts[row], place)
                return FrameError(
                    f"the column {place} has a time with a time zone in row {row} ({shown} nanoseconds since 1970) that"
                    " is finer than a microsecond, which this version of the database would lose. Round it."
                )
    return None


def leaves(name: str, values: Any) -> Iterator[tuple[str, Any]]:
    """Yield the place and values of a column, or of each field within a nested column."""
    pa = arrow()
    kind = values.type
    if not kind.num_fields or pa.types.is_union(kind):
        yield name, values
        return
    whole = values.combine_chunks() if isinstance(values, pa.ChunkedArray) else values
    for chunk in whole.chunks if isinstance(whole, pa.ChunkedArray) else [whole]:
        yield from _fields(name, chunk)


def _fields(name: str, values: Any) -> Iterator[tuple[str, Any]]:
    pa = arrow()
    if isinstance(values, pa.ExtensionArray):
        yield name, values
    elif isinstance(values, pa.StructArray):
        # `flatten` makes the fields of a missing struct missing, too, as `field` doesn't.
        for i, field in enumerate(values.flatten()):
            yield from leaves(f"{name}.{values.type.field(i).name}", field)
    elif isinstance(values, pa.MapArray):
        yield from leaves(f"{name}.key", values.keys)
        yield from leaves(f"{name}.value", values.items)
    elif hasattr(values, "flatten"):
        yield from leaves(f"{name}[]", values.flatten())
    else:
        yield name, values


def _check(name: str, values: Any) -> None:
    pa = arrow()
    kind = values.type
    if isinstance(kind, pa.BaseExtensionType) and kind.extension_name not in _KNOWN_EXTENSIONS:
        if kind.extension_name.startswith("geoarrow."):
            return
        raise FrameError(
            f"the column {name} has the type {kind}, which no warehouse keeps, so it would be read as"
            f" {kind.storage_type}. Convert it to a type of Arrow, or to text."
        )
    if pa.types.is_duration(kind):
        _check_duration(name, values)
    elif pa.types.is_interval(kind):
        _check_interval(name, values)


def _check_duration(name: str, values: Any) -> None:
    pa = arrow()
    if values.type.unit == "ns":
        counts = values.cast(pa.int64())
        row = _first(_remainder(counts))
        if row is not None:
            raise _too_fine(name, row, f"{counts[row]} nanoseconds")
        return
    try:
        values.cast(pa.duration("us"))
    except pa.ArrowInvalid as error:
        raise FrameError(
            f"the column {name} ({values.type}) has a duration of more than 292,000 years, which no column of"
            f" microseconds can hold: {foreign_text(error, names=[name])}"
        ) from error


def _check_interval(name: str, values: Any) -> None:
    for row, value in enumerate(values):
        if value.is_valid and value.as_py().nanoseconds % _PER_MICROSECOND:
            raise _too_fine(name, row, str(value.as_py()))


def _too_fine(name: str, row: int, value: str) -> FrameError:
    return FrameError(
        f"the column {name} has a duration in row {row} ({masked(value, name)}) that is finer than a microsecond,"
        " which a column of durations would lose. Round it, or compute it as a number of nanoseconds."
    )


def _remainder(counts: Any) -> Any:
    """Return for each count of nanoseconds whether it is no whole number of microseconds."""
    compute = arrow().compute
    whole = compute.multiply(compute.divide(counts, _PER_MICROSECOND), _PER_MICROSECOND)
    return compute.not_equal(whole, counts)


def _first(flags: Any) -> int | None:
    compute = arrow().compute
    found = compute.index(compute.fill_null(flags, False), value=True).as_py()
    return None if found < 0 else found


def _widened(column: Any) -> Any:
    pa = arrow()
    if pa.types.is_dictionary(column.type):
        column = _decoded(column)
    wanted = widened(column.type)
    if wanted == column.type:
        return column
    try:
        return column.cast(wanted)
    except pa.ArrowException:
        # A year beyond 294,246, or nanoseconds that are no whole microseconds: the values stay as they are.
        return column


def _decoded(column: Any) -> Any:
    """Return categories as plain values."""
    pa = arrow()
    kind = column.type.value_type
    if pa.types.is_string_view(kind):
        # Arrow can't decode the texts of polars.
        kind = pa.large_string()
    decoded: list[Any] = []
    for chunk in column.chunks:
        plain = pa.DictionaryArray.from_arrays(chunk.indices, chunk.dictionary.cast(kind))
        decoded.append(plain.dictionary_decode())
    return pa.chunked_array(decoded, type=kind)


def widened(kind: Any) -> Any:
    """Return a type with timestamps of microseconds in place of seconds, milliseconds, and instants of nanoseconds."""
    pa = arrow()
    types = pa.types
    if types.is_timestamp(kind):
        stays = kind.unit == "us" or (kind.unit == "ns" and kind.tz is None)
        return kind if stays else pa.timestamp("us", tz=kind.tz)
    if types.is_struct(kind):
        return pa.struct([field.with_type(widened(field.type)) for field in kind.fields])
    if types.is_map(kind):
        return pa.map_(widened(kind.key_type), widened(kind.item_type))
    return _widened_list(kind)


def _widened_list(kind: Any) -> Any:
    pa = arrow()
    types = pa.types
    if types.is_fixed_size_list(kind):
        return pa.list_(kind.value_field.with_type(widened(kind.value_type)), kind.list_size)
    if types.is_large_list(kind):
        return pa.large_list(kind.value_field.with_type(widened(kind.value_type)))
    if types.is_list(kind):
        return pa.list_(kind.value_field.with_type(widened(kind.value_type)))
    return kind
