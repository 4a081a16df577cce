"""Checks of single option values; each error names the option, the allowed values and the value that was given.

Each check takes the option's name and then its value. Values are typed `object` because users may pass any type.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from difflib import get_close_matches
from typing import cast
from zoneinfo import ZoneInfo, available_timezones

from dagster_safe_backfill.errors import ConfigurationError

_CLOSE = 0.6
"""The similarity from 0 to 1 at which a name is suggested for another one; `difflib.get_close_matches`'s default."""


def refused(option: str, expected: str, value: object, *, hint: str | None = None) -> ConfigurationError:
    """Return the error for a value that an option doesn't accept."""
    return ConfigurationError(f"{option} must be {expected}, not {value!r}{'' if hint is None else f'; {hint}'}")


def closest(given: object, known: Iterable[str], *, cutoff: float = _CLOSE) -> str | None:
    """Return the known name that is most similar to `given`; None if no name is similar enough."""
    if not isinstance(given, str):
        return None
    # Names are suggested for `add-columns` and `Add columns`, too.
    spelled = given.strip().replace("-", "_").replace(" ", "_").casefold()
    by_folded = {name.casefold(): name for name in known}
    near = get_close_matches(spelled, by_folded, n=1, cutoff=cutoff)
    return by_folded[near[0]] if near else None


def check_choice(option: str, value: object, allowed: Sequence[str], *, hint: str | None = None) -> None:
    """Raise ConfigurationError unless the value is one of the `allowed` texts."""
    if isinstance(value, str) and value in allowed:
        return
    near = closest(value, allowed)
    meant = f'did you mean "{near}"?' if near else hint
    raise refused(option, _listed(allowed), value, hint=meant)


def choices(option: str, value: object, allowed: Sequence[str]) -> tuple[str, ...]:
    """Return a list of some of the `allowed` texts as a tuple.

    Raises:
        ConfigurationError: The value isn't such a list, or is a single text.
    """
    if not isinstance(value, Sequence) or isinstance(value, str | bytes | bytearray):
        near = closest(value, allowed)
        hint = f'did you mean ["{near}"]?' if near else None
        raise refused(option, f"a list of {_listed(allowed)}", value, hint=hint)
    for one in cast("Sequence[object]", value):
        check_choice(f"each of {option}", one, allowed)
    return tuple(cast("Sequence[str]", value))


def _listed(allowed: Sequence[str]) -> str:
    *others, last = (f'"{one}"' for one in allowed)
    return f"{', '.join(others)} or {last}"


def check_flag(option: str, value: object) -> None:
    """Raise ConfigurationError unless the value is True or False."""
    if not isinstance(value, bool):
        raise refused(option, "True or False", value)


def check_count(option: str, value: object, *, of: str, at_least: int) -> None:
    """Raise ConfigurationError unless the value is an int of `at_least` or more; `of` names the counted things."""
    # bool is a subclass of int (PEP 285).
    if isinstance(value, bool) or not isinstance(value, int) or value < at_least:
        raise refused(option, f"a whole number of {of}, at least {at_least}", value)


def check_number(option: str, value: object, *, of: str, most: int, is_positive: bool = False) -> None:
    """Raise ConfigurationError unless the value is a number from 0 to `most`; 0 is refused if `is_positive`."""
    least = "more than" if is_positive else "at least"
    number = value if isinstance(value, int | float) and not isinstance(value, bool) else math.nan
    # Every comparison with NaN is false (IEEE 754), so this refuses NaN.
    if not 0 <= number <= most or (is_positive and number == 0):
        raise refused(option, f"a number of {of}, {least} 0 and at most {most:,}", value)


def check_text(option: str, value: object, *, what: str) -> None:
    """Raise ConfigurationError unless the value is a text that isn't blank; `what` describes the expected value."""
    if not isinstance(value, str) or not value.strip():
        raise refused(option, what, value)


def check_time_zone(what: str, name: object, *, example: str = '"America/New_York"') -> None:
    """Check that the IANA time zone database has a time zone of this name.

    Raises:
        ConfigurationError: It has none, or the name isn't a text. The message begins with `what`.
    """
    check_text(what, name, what=f"the name of a time zone, such as {example}")
    try:
        ZoneInfo(str(name))
    # ZoneInfo("America") raises IsADirectoryError: the name is a folder of the database.
    except (KeyError, ValueError, OSError) as error:
        near = _zone_like(str(name))
        hint = f"; did you mean {near}?" if near else "."
        raise ConfigurationError(
            f"{what}: there is no time zone {name!r}{hint} Use a name of the IANA time zone database, as in {example}"
        ) from error


def _zone_like(name: str) -> str | None:
    zones = sorted(available_timezones())
    of_city = [zone for zone in zones if zone.casefold().endswith(f"/{name.strip().replace(' ', '_').casefold()}")]
    return next(iter(of_city or get_close_matches(name, zones, n=1, cutoff=0.8)), None)


def column_names(option: str, value: object) -> tuple[str, ...]:
    """Return the column names as a tuple; a single text is one name.

    Raises:
        ConfigurationError: The value isn't a list of names, or a name is blank or occurs twice, ignoring case.
    """
    # A text is a sequence of letters: as a list of names, "day" would be the columns d, a and y.
    if isinstance(value, str):
        _check_is_one_name(option, value)
        return (value,)
    if not isinstance(value, Sequence) or isinstance(value, bytes | bytearray):
        raise refused(option, "a column name or a list of column names", value)
    names = tuple(cast("Sequence[object]", value))
    for name in names:
        check_text(option, name, what="a list of column names")
    columns = cast("tuple[str, ...]", names)
    # DuckDB ignores the case of identifiers, even of quoted ones (its docs, "Keywords and Identifiers").
    folded = [name.casefold() for name in columns]
    repeated = sorted({name for name in columns if folded.count(name.casefold()) > 1})
    if repeated:
        raise ConfigurationError(f"{option} names {', '.join(repeated)} twice. Name each column once.")
    return columns


def _check_is_one_name(option: str, value: str) -> None:
    check_text(option, value, what="a column name or a list of column names")
    if "," in value:
        names = ", ".join(f'"{name.strip()}"' for name in value.split(","))
        raise refused(option, "a column name or a list of column names", value, hint=f"did you mean [{names}]?")


def sql_by_name(option: str, value: object, *, of: str) -> dict[str, str]:
    """Return a copy of a mapping from names to SQL expressions; `of` says what the names are, for the message.

    Raises:
        ConfigurationError: The value isn't such a mapping, or a name or an expression is blank.
    """
    if not isinstance(value, Mapping):
        raise refused(option, f"a mapping of {of} to SQL expressions", value)
    # A copy, so that a later change to the caller's mapping doesn't bypass these checks.
    found = dict(cast("Mapping[object, object]", value))
    for name, sql in found.items():
        check_text(option, name, what=f"a mapping of {of} to SQL expressions")
        if not isinstance(sql, str):
            hint = f'write the SQL as a text: "{sql}"' if isinstance(sql, int | float) else None
            raise refused(f"{option}[{name!r}]", "a SQL expression", sql, hint=hint)
        check_text(f"{option}[{name!r}]", sql, what="a SQL expression")
    return cast("dict[str, str]", found)
