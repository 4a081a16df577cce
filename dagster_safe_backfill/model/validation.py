"""Checks of single values that users write, with messages that name the option, the value and what is allowed.

Each takes the option's name first and the value as an `object`, because what arrives need not be of the annotated type.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from difflib import get_close_matches
from typing import cast
from zoneinfo import ZoneInfo, available_timezones

from dagster_safe_backfill.errors import ConfigurationError

_CLOSE = 0.6
"""How alike two names are, from 0 to 1, for the one to be proposed in place of the other (difflib's default)."""


def refused(option: str, expected: str, value: object, *, hint: str | None = None) -> ConfigurationError:
    """Return the error of a value that an option doesn't take."""
    return ConfigurationError(f"{option} must be {expected}, not {value!r}{'' if hint is None else f'; {hint}'}")


def closest(given: object, known: Iterable[str], *, cutoff: float = _CLOSE) -> str | None:
    """Return the name that was probably meant: the closest of the `known` ones, if one is close at all."""
    if not isinstance(given, str):
        return None
    spelled = given.strip().replace("-", "_").replace(" ", "_").casefold()
    by_folded = {name.casefold(): name for name in known}
    near = get_close_matches(spelled, by_folded, n=1, cutoff=cutoff)
    return by_folded[near[0]] if near else None


def check_choice(option: str, value: object, allowed: Sequence[str], *, hint: str | None = None) -> None:
    """Refuse a value that is none of the `allowed` texts."""
    if isinstance(value, str) and value in allowed:
        return
    near = closest(value, allowed)
    meant = f'did you mean "{near}"?' if near else hint
    raise refused(option, _listed(allowed), value, hint=meant)


def _listed(allowed: Sequence[str]) -> str:
    *others, last = (f'"{one}"' for one in allowed)
    return f"{', '.join(others)} or {last}"


def check_flag(option: str, value: object) -> None:
    """Refuse a value that is neither True nor False."""
    if not isinstance(value, bool):
        raise refused(option, "True or False", value)


def check_count(option: str, value: object, *, of: str, at_least: int) -> None:
    """Refuse a value that is no whole number, or one below `at_least`; `of` says what is counted."""
    if isinstance(value, bool) or not isinstance(value, int) or value < at_least:
        raise refused(option, f"a whole number of {of}, at least {at_least}", value)


def check_number(option: str, value: object, *, of: str, most: int, is_positive: bool = False) -> None:
    """Refuse a value that is no number from 0 to `most`, or that is 0 where only positive numbers make sense."""
    least = "more than" if is_positive else "at least"
    number = value if isinstance(value, int | float) and not isinstance(value, bool) else math.nan
    if not 0 <= number <= most or (is_positive and number == 0):
        raise refused(option, f"a number of {of}, {least} 0 and at most {most:,}", value)


def check_text(option: str, value: object, *, what: str) -> None:
    """Refuse a value that is no text, or a blank one; `what` says what it names."""
    if not isinstance(value, str) or not value.strip():
        raise refused(option, what, value)


def check_time_zone(what: str, name: object, *, example: str = '"America/New_York"') -> None:
    """Refuse a name that the IANA time zone database doesn't have.

    Raises:
        ConfigurationError: It hasn't; the message begins with `what`.
    """
    check_text(what, name, what=f"the name of a time zone, such as {example}")
    try:
        ZoneInfo(str(name))
    # Of a folder of the time zone database, Python says that it is a folder.
    except (KeyError, ValueError, OSError) as error:
        near = _zone_like(str(name))
        hint = f"; did you mean {near}?" if near else "."
        raise ConfigurationError(
            f"{what}: there is no time zone {name!r}{hint} Give a name of the IANA time zone database, as in {example}"
        ) from error


def _zone_like(name: str) -> str | None:
    zones = sorted(available_timezones())
    of_city = [zone for zone in zones if zone.casefold().endswith(f"/{name.strip().replace(' ', '_').casefold()}")]
    return next(iter(of_city or get_close_matches(name, zones, n=1, cutoff=0.8)), None)


def column_names(option: str, value: object) -> tuple[str, ...]:
    """Return a list of columns as a tuple; a single name may stand alone.

    Raises:
        ConfigurationError: It is no list of names, or one is blank or comes twice (in any case of letters).
    """
    if isinstance(value, str):
        _check_is_one_name(option, value)
        return (value,)
    if not isinstance(value, Sequence) or isinstance(value, bytes | bytearray):
        raise refused(option, "a column name or a list of column names", value)
    names = tuple(cast("Sequence[object]", value))
    for name in names:
        check_text(option, name, what="a list of column names")
    columns = cast("tuple[str, ...]", names)
    folded = [name.casefold() for name in columns]
    repeated = sorted({name for name in columns if folded.count(name.casefold()) > 1})
    if repeated:
        raise ConfigurationError(f"{option} names {', '.join(repeated)} twice; name each column once")
    return columns


def _check_is_one_name(option: str, value: str) -> None:
    check_text(option, value, what="a column name or a list of column names")
    if "," in value:
        names = ", ".join(f'"{name.strip()}"' for name in value.split(","))
        raise refused(option, "a column name or a list of column names", value, hint=f"did you mean [{names}]?")


def sql_by_name(option: str, value: object, *, of: str) -> dict[str, str]:
    """Return a mapping of names to SQL expressions as a dict of its own; `of` says what is named.

    Raises:
        ConfigurationError: It is no such mapping, or has a blank name or expression.
    """
    if not isinstance(value, Mapping):
        raise refused(option, f"a mapping of {of} to SQL expressions", value)
    found = dict(cast("Mapping[object, object]", value))
    for name, sql in found.items():
        check_text(option, name, what=f"a mapping of {of} to SQL expressions")
        if not isinstance(sql, str):
            hint = f'write it as SQL in a text: "{sql}"' if isinstance(sql, int | float) else None
            raise refused(f"{option}[{name!r}]", "a SQL expression", sql, hint=hint)
        check_text(f"{option}[{name!r}]", sql, what="a SQL expression")
    return cast("dict[str, str]", found)
