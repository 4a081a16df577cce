"""Columns of Python objects in pandas frames, which Arrow would convert by the type of their first value."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

from dagster_safe_backfill.redaction import foreign_text, masked
from dagster_safe_backfill.warehouses.frames.errors import FrameError
from dagster_safe_backfill.warehouses.frames.libraries import arrow, pandas

_DIGITS = 38
"""The most digits of an Arrow decimal that both warehouses take."""
_TEXTS = frozenset({str, float, type(None)})
"""The types of values in a column of texts."""
_NUMBERS = frozenset({int, Decimal, type(None)})


def array_of_objects(values: Sequence[Any], name: str) -> Any:
    """Return a column of Python objects as an Arrow array with the same values. Missing values of pandas are NULL.

    Raises:
        FrameError: The column mixes values that have no common type, or has a value that Arrow would change.
    """
    pa = arrow()
    types = set(map(type, values))
    if types <= _NUMBERS:
        given = [value for value in values if not _is_missing(value)]
        return _numbers(values, given, name) if given else pa.nulls(len(values))
    if types <= _TEXTS or all(map(_is_plain_array, values)):
        # A float among texts is NaN, which pandas has for a missing text. Others are refused below.
        with suppress(pa.ArrowException):
            return pa.array(values, from_pandas=True)
    objects, plain = _Objects(name), list[Any]()
    for row, value in enumerate(values):
        plain.append(objects.plain(value, row))
    return _array(plain, name, types)


def _array(values: Sequence[Any], name: str, types: set[type]) -> Any:
    pa = arrow()
    given = [value for value in values if value is not None]
    if given and all(isinstance(value, (int, Decimal)) and not isinstance(value, bool) for value in given):
        return _numbers(values, given, name)
    finer = _finer_type(given)
    try:
        return pa.array(values, type=finer, from_pandas=True)
    except (pa.ArrowException, OverflowError, TypeError, ValueError) as error:
        shown = ", ".join(sorted(one.__name__ for one in types))
        raise FrameError(
            f"the column {name} can't be read as an Arrow table (it holds {shown}): {foreign_text(error, names=[name])}"
        ) from error


def _numbers(values: Sequence[Any], given: Sequence[Any], name: str) -> Any:
    """Return integers and decimals; without a fraction and within 64 bits as integers, else as decimals."""
    pa = arrow()
    if all(isinstance(value, int) for value in given):
        low, high = min(given), max(given)
        if low >= -(2**63) and high < 2**63:
            return pa.array(values, from_pandas=True)
        if low >= 0 and high < 2**64:
            return pa.array(values, type=pa.uint64(), from_pandas=True)
    scale = max(_scale_of(value) for value in given)
    kind = pa.decimal128(_DIGITS, scale) if scale <= _DIGITS else None
    limit = Decimal(10) ** (_DIGITS - scale)
    largest = max(given, key=_size)
    if kind is None or _size(largest) >= limit:
        raise _too_long(name, values.index(largest), largest, scale)
    # Arrow would choose the precision of today's largest number, and a later one would not fit the new column.
    return pa.array(values, type=kind, from_pandas=True)


def _size(value: Any) -> Any:
    # `abs` rounds a decimal to the 28 digits of Python's decimal context.
    return value.copy_abs() if isinstance(value, Decimal) else abs(value)


def _too_long(name: str, row: int, value: Any, scale: int) -> FrameError:
    return FrameError(
        f"the column {name} has a number in row {row} ({masked(value, name)}) that needs more than {_DIGITS} digits"
        f" beside the {scale} decimal places of the column. Round the numbers, or compute them as texts."
    )


def _scale_of(value: int | Decimal) -> int:
    exponent = value.as_tuple().exponent if isinstance(value, Decimal) else 0
    return max(0, -exponent) if isinstance(exponent, int) else 0


def _finer_type(given: Sequence[Any]) -> Any:
    """Return the type of nanoseconds if a time needs it: Arrow reads the times of pandas as microseconds."""
    for value in given:
        if getattr(value, "nanosecond", 0) or getattr(value, "nanoseconds", 0):
            break
    else:
        return None
    pa = arrow()
    if all(isinstance(value, datetime) for value in given):
        return pa.timestamp("ns", tz=None if given[0].tzinfo is None else "UTC")
    # Durations of nanoseconds are refused for all frames alike, where their rows are known.
    return pa.duration("ns") if all(isinstance(value, timedelta) for value in given) else None


class _Objects:
    """The values of one column, whose kinds must agree at each place of nested values.

    Raises:
        FrameError: The values at one place are of two kinds that have no common type.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._first: dict[str, tuple[str, int, object]] = {}
        self._keys: dict[str, tuple[frozenset[object], int]] = {}

    def plain(self, value: Any, row: int, place: str = "") -> Any:
        """Return the value of a row, with masked values as None and arrays of pandas and numpy as lists."""
        if _is_missing(value):
            return None
        kind = _kind(value)
        self._check(kind, row, value, place)
        if kind == "a dictionary":
            return self._entries(value, row, place)
        if kind == "a list":
            return [self.plain(item, row, f"{place}[]") for item in _items(value)]
        # Arrow has no conversion of UUIDs within lists.
        return str(value) if kind == "a UUID" and place else _CONVERTED.get(kind, _unchanged)(value)

    def _entries(self, value: dict[Any, Any], row: int, place: str) -> dict[str, Any]:
        plain: dict[str, Any] = {}
        for key, item in value.items():
            if not isinstance(key, str):
                raise FrameError(
                    f"the column {self._name} has a dictionary in row {row} whose key"
                    f" {masked(repr(key), self._name)} is a {type(key).__name__}. Use texts as keys."
                )
            plain[key] = self.plain(item, row, f"{place}.{key}")
        self._check_keys(frozenset(value), row, place)
        return plain

    def _check_keys(self, keys: frozenset[object], row: int, place: str) -> None:
        """Refuse keys that differ from those of the first dictionary: a missing one would be written as NULL."""
        first, first_row = self._keys.setdefault(place, (keys, row))
        if first != keys:
            lacking = row if first - keys else first_row
            missing = masked(", ".join(sorted(map(repr, (first - keys) or (keys - first)))), self._name)
            raise FrameError(
                f"the column {self._name} has dictionaries with different keys in rows {first_row} and {row}: that in"
                f" row {lacking} has no {missing}, and a STRUCT would have NULL there. Give all of them the"
                " same keys, or compute lists of pairs for a MAP, or texts of JSON."
            )

    def _check(self, kind: str, row: int, value: object, place: str) -> None:
        if kind in _REFUSED:
            raise FrameError(
                f"the column {self._name} has {kind} in row {row} ({masked(value, self._name)}), {_REFUSED[kind]}"
            )
        first, first_row, first_value = self._first.setdefault(place, (kind, row, value))
        if first != kind and {first, kind} not in _ALIKE:
            one, other = (masked(repr(shown), self._name) for shown in (first_value, value))
            raise FrameError(
                f"the column {self._name} can't be read as an Arrow table, because it mixes {first} in row {first_row}"
                f" ({one}) with {kind} in row {row} ({other}). Convert them to one type."
            )


_INSTANT = "a timestamp with a time zone"
_WALL_CLOCK = "a timestamp without a time zone"
_TIME_WITH_ZONE = "a time with a time zone"
_ALIKE = ({"an integer", "a float"}, {"an integer", "a decimal"}, {"an interval", "a duration"})
_REFUSED = {
    _TIME_WITH_ZONE: "and Arrow has no type for it. Compute it as a text, or without the zone.",
    "a period": "which is a span of time. Convert it with to_timestamp(), or compute it as a text.",
    "an interval of pandas": "which no column can hold. Compute its two ends as columns.",
    "a complex number": "which no column can hold. Compute its two parts as columns.",
}


def _kind(value: Any) -> str:
    """Return what a value is, as the error messages call it."""
    # The order matters: a bool is an int, a datetime is a date, and Timestamp and Timedelta are subclasses, too.
    if isinstance(value, (datetime, time)):
        return _kind_of_time(value)
    # A named tuple.
    if type(value).__name__ == "MonthDayNano":
        return "an interval"
    for kind, types in _KINDS:
        if isinstance(value, types):
            return kind
    return _kind_of_numpy(value)


_KINDS: tuple[tuple[str, type | tuple[type, ...]], ...] = (
    ("a text", str),
    ("a boolean", bool),
    ("an integer", int),
    ("a float", float),
    ("a decimal", Decimal),
    ("a date", date),
    ("a duration", timedelta),
    ("bytes", (bytes, bytearray, memoryview)),
    ("a UUID", UUID),
    ("a dictionary", dict),
    ("a list", (list, tuple, set, frozenset)),
)


def _kind_of_time(value: datetime | time) -> str:
    if isinstance(value, datetime):
        return _WALL_CLOCK if value.tzinfo is None else _INSTANT
    return "a time" if value.tzinfo is None else _TIME_WITH_ZONE


def _kind_of_numpy(value: Any) -> str:
    """Return the kind of a value of numpy or pandas, by its array's type or the name of its class."""
    if getattr(value, "ndim", 0) > 0 or hasattr(value, "__arrow_array__"):
        return "a list"
    kinds = {"b": "a boolean", "i": "an integer", "u": "an integer", "f": "a float", "c": "a complex number"}
    found = kinds.get(getattr(getattr(value, "dtype", None), "kind", ""))
    if found is not None:
        return found
    name = type(value).__name__
    days = name == "datetime64" and value.dtype.str.endswith("[D]")
    named = {
        "datetime64": "a date" if days else _WALL_CLOCK,
        "timedelta64": "a duration",
        "Period": "a period",
        "Interval": "an interval of pandas",
        "complex": "a complex number",
        "DateOffset": "an interval",
    }
    return named.get(name, f"a {name}")


def _is_plain_array(value: Any) -> bool:
    """Return True for a missing value, and for an array of numpy whose items have one type that Arrow has, too."""
    if value is None:
        return True
    is_array = type(value).__name__ == "ndarray" and value.ndim == 1
    return is_array and value.dtype.kind in "biufMm"


def _items(value: Any) -> Iterator[Any]:
    """Return the items of a list or array; those that are masked are None."""
    masked = getattr(value, "mask", None)
    if masked is None or not hasattr(value, "filled"):
        return iter(value)
    # The mask of a masked array without a masked value is one False.
    flags = masked if getattr(masked, "ndim", 0) else [bool(masked)] * len(value)
    return (None if is_masked else item for item, is_masked in zip(value.data, flags, strict=True))


def _is_missing(value: Any) -> bool:
    """Return True for what pandas counts as missing: None, NA, NaT and NaN."""
    if value is None:
        return True
    if isinstance(value, (str, int, list, dict)):
        return False
    if getattr(value, "ndim", 0):
        return False
    if type(value).__name__ in ("NAType", "NaTType", "MaskedConstant"):
        return True
    kind = getattr(getattr(value, "dtype", None), "kind", "")
    return (isinstance(value, (float, Decimal)) or kind in ("f", "M", "m")) and bool(value != value)  # noqa: PLR0124 - NaN


def _unchanged(value: Any) -> Any:
    return value


def _timestamp(value: Any) -> Any:
    pd = pandas()
    # A datetime64 of numpy can't be mixed with Python's datetimes.
    return pd.Timestamp(value) if type(value).__name__ == "datetime64" else value


def _duration(value: Any) -> Any:
    pd = pandas()
    return pd.Timedelta(value) if type(value).__name__ == "timedelta64" else value


def _python(value: Any) -> Any:
    item = getattr(value, "item", None)
    return value if item is None or isinstance(value, (int, float)) else item()


_CONVERTED: dict[str, Callable[[Any], Any]] = {
    "an integer": _python,
    "a float": _python,
    "a boolean": _python,
    "a date": _python,
    _WALL_CLOCK: _timestamp,
    "a duration": _duration,
    "bytes": bytes,
}
