"""Plain values as tokens; frames, arrays and instances as plain values that stand for them."""

from __future__ import annotations

import copyreg
import functools
import inspect
import math
import re
import uuid
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta, timezone, tzinfo
from decimal import Decimal
from types import EllipsisType, NoneType, NotImplementedType
from typing import Any, cast
from zoneinfo import ZoneInfo

from dagster_safe_backfill.runs.provenance.graph import token


class IncomparableError(Exception):
    """A value of which it can't be known whether it is the same in another process."""


def _number(value: float) -> str:
    return "nan" if math.isnan(value) else value.hex()


def _moment(value: Any) -> str:
    # `fold` tells the two 02:30 apart of the night in which clocks go back (PEP 495).
    return f"{value.replace(tzinfo=None).isoformat()} fold={value.fold}"


_TEXTS: Mapping[type, Callable[[Any], str | bytes]] = {
    NoneType: repr,
    EllipsisType: repr,
    NotImplementedType: repr,
    bool: repr,
    # repr refuses integers of more than 4,300 digits.
    int: hex,
    float: _number,
    complex: lambda value: f"{_number(value.real)} {_number(value.imag)}",
    str: lambda value: value,
    bytes: lambda value: value,
    bytearray: bytes,
    Decimal: str,
    uuid.UUID: str,
    date: date.isoformat,
    timedelta: repr,
    timezone: repr,
    range: repr,
    re.Pattern: lambda value: f"{value.flags} {value.pattern!r}",
}


def name_of(value: Any) -> tuple[str, str]:
    """Return the module and the qualified name of a class or a function."""
    module = getattr(value, "__module__", None)
    name = getattr(value, "__qualname__", None) or getattr(value, "__name__", "")
    return str(module), str(name)


def kind_of(value: object) -> type[object]:
    """Return the class of a value, for the type checker without that of its items."""
    return type(value)


def plain_token(value: Any) -> bytes | None:
    """Return the token of a plain value; None if the value isn't plain. 1, 1.0 and True have different tokens."""
    kind = kind_of(value)
    text = _TEXTS.get(kind)
    if text is not None:
        return token(kind.__name__, text(value))
    if kind is ZoneInfo and value.key is not None:
        return token("zoneinfo", value.key)
    if kind in (datetime, time) and value.tzinfo is None:
        return token(kind.__name__, _moment(value))
    return None


def stand_in(value: Any) -> object | None:
    """Return plain values that stand for a frame, an array, a SQL expression or an aware time; None for other values.

    The libraries are known by the names of their classes: whoever has a frame has imported its library.
    """
    if type(value) in (datetime, time):
        return _moment(value), value.tzinfo
    for kind in kind_of(value).__mro__:
        found = _STAND_INS.get(f"{kind.__module__.partition('.')[0]}.{kind.__name__}")
        if found is not None:
            return found(value)
    return None


@dataclass(frozen=True, slots=True, kw_only=True)
class Pickled:
    """What would be pickled of an instance.

    Attributes:
        is_value: True if its class defines equality, which classes of clients and connections don't, or if there is
            nothing in it.
        made_by: What is called to make it.
        arguments: What that is called with.
        state: Its attributes.
        items: The items that it holds, if it is a collection.
        entries: The entries that it holds, if it is a mapping.
    """

    is_value: bool
    made_by: object
    arguments: object
    state: object
    items: object
    entries: object

    def parts(self) -> tuple[object, ...]:
        """Return what is compared of it besides its class."""
        return self.made_by, self.arguments, self.state, self.items, self.entries


def pickled(value: Any) -> Pickled | str:
    """Return what would be pickled of an instance; a text if that is the name of a global.

    Raises:
        IncomparableError: It can't be pickled.
    """
    kind = kind_of(value)
    if hasattr(kind, "__pydantic_generic_metadata__"):
        return _fields_of(value)
    reduce = copyreg.dispatch_table.get(kind)
    try:
        reduced: Any = value.__reduce_ex__(4) if reduce is None else reduce(value)
        return reduced if isinstance(reduced, str) else _pickled(value, reduced)
    except Exception as error:
        raise IncomparableError(kind) from error


def _pickled(value: Any, reduced: Sequence[Any]) -> Pickled:
    made_by, arguments, state, items, entries = [*reduced, None, None, None][:5]
    kind = kind_of(value)
    if isinstance(value, set | frozenset):
        # It would be pickled as a list, whose order isn't stable.
        arguments = cast("object", {*value})
    elif entries is not None:
        entries = [*entries] if isinstance(value, OrderedDict) else dict(entries)
    return Pickled(
        is_value=_is_value(kind) or (arguments == (kind,) and state is items is entries is None),
        made_by=made_by,
        arguments=arguments,
        state=_without_cached(kind, state),
        items=None if items is None else [*items],
        entries=entries,
    )


def _fields_of(model: Any) -> Pickled:
    """Return the fields of a pydantic model; Dagster's resources keep more in their state."""
    fields = {name: getattr(model, name) for name in model.__pydantic_fields__}
    extra = getattr(model, "__pydantic_extra__", None)
    return Pickled(is_value=True, made_by=None, arguments=extra, state=fields, items=None, entries=None)


def _without_cached(kind: type[object], state: object) -> object:
    """Return an instance's state without what `functools.cached_property` has kept there."""
    if not isinstance(state, dict):
        return state
    return {
        name: one
        for name, one in cast("dict[str, object]", state).items()
        if not isinstance(inspect.getattr_static(kind, name, None), functools.cached_property)
    }


def _is_value(kind: type[object]) -> bool:
    is_value = kind.__eq__ is not object.__eq__ or issubclass(kind, tzinfo)
    return is_value or kind.__module__ in ("functools", "operator", "_operator")


def _of_array(array: Any) -> object:
    if array.dtype.hasobject or array.dtype.fields:
        return str(array.dtype), array.shape, array.tolist()
    return array.dtype.str, array.shape, array.tobytes()


def _of_series(series: Any) -> object:
    """Return what stands for a pandas Series or Index."""
    categories = getattr(series.dtype, "categories", None)
    kind = str(series.dtype), None if categories is None else categories.tolist(), getattr(series.dtype, "ordered", 0)
    index = getattr(series, "index", None)
    is_array = type(series.dtype).__module__.startswith("numpy")
    values = _of_array(series.to_numpy()) if is_array else series.tolist()
    return [*series.names] if index is None else series.name, kind, values, None if index is None else _of_series(index)


def _of_frame(frame: Any) -> object:
    # By position: names may occur twice.
    columns = [_of_series(frame.iloc[:, i].reset_index(drop=True)) for i in range(frame.shape[1])]
    return _of_series(frame.columns), columns, _of_series(frame.index)


def _of_polars(series: Any) -> object:
    kind = repr(series.dtype)
    # A list of Python's times has no nanoseconds; physical values have. The codes of categories aren't stable.
    is_named = "Categorical" in kind or "Enum" in kind
    return series.name, kind, (series if is_named else series.to_physical()).to_list()


def _of_arrow(array: Any) -> object:
    kind = str(array.type)
    is_integer = kind.startswith(("timestamp", "duration", "time64"))
    return kind, (array.cast("int64") if is_integer else array).to_pylist()


def _of_schema(schema: Any) -> object:
    return [(field.name, str(field.type), field.nullable) for field in schema]


def _of_sql(expression: Any) -> object:
    # Without comments, and without meta data, which holds the positions in the text.
    return [{name: one for name, one in node.items() if name not in ("m", "o")} for node in expression.dump()]


_STAND_INS: Mapping[str, Callable[[Any], object]] = {
    "logging.Logger": lambda logger: logger.name,
    "numpy.ndarray": _of_array,
    "numpy.generic": lambda value: (value.dtype.str, value.tobytes()),
    "numpy.dtype": lambda dtype: dtype.descr if dtype.fields else dtype.str,
    "pandas.DataFrame": _of_frame,
    "pandas.Series": _of_series,
    "pandas.Index": _of_series,
    "polars.DataFrame": lambda frame: [_of_polars(series) for series in frame.get_columns()],
    "polars.Series": _of_polars,
    "pyarrow.Table": lambda table: (_of_schema(table.schema), [_of_arrow(column) for column in table.columns]),
    "pyarrow.RecordBatch": lambda batch: (_of_schema(batch.schema), [_of_arrow(column) for column in batch.columns]),
    "pyarrow.Array": _of_arrow,
    "pyarrow.ChunkedArray": _of_arrow,
    "pyarrow.Schema": _of_schema,
    "pyarrow.DataType": str,
    "sqlglot.Expression": _of_sql,
    "sqlglot.Expr": _of_sql,
}
