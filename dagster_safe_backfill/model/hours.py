"""`AllowedHours`: the time of day at which a run may work."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime, time, timedelta, timezone
from typing import NoReturn
from zoneinfo import ZoneInfo

from dagster_safe_backfill.errors import ConfigurationError
from dagster_safe_backfill.model.validation import check_time_zone, refused

_TEXT = re.compile(r"\s*(\d\d?:\d\d)\s*-\s*(\d\d?:\d\d)(?:\s+(\S+))?\s*")
_EXAMPLE = '"22:00-06:00 America/New_York"'
_MINUTE = timedelta(minutes=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class AllowedHours:
    """A half-open window of the day, from `start` until before `end`, as a wall clock in `timezone` shows it.

    It goes over midnight if it ends before it starts. What the clock shows is all that counts: on a night on which it
    is set, an hour may come twice or not at all, and so does what the window has of it.

    Attributes:
        start: The first minute.
        end: The minute after the last.
        timezone: The name of the wall clock's time zone.

    Example:
        ```python
        nights = sb.AllowedHours.parse("22:00-06:00 America/New_York")
        ```

    Raises:
        ConfigurationError: The window is empty, not of whole minutes, or its time zone is unknown.
    """

    start: time
    end: time
    timezone: str

    def __post_init__(self) -> None:
        if not all(isinstance(at, time) for at in (self.start, self.end)):  # pyright: ignore[reportUnnecessaryIsInstance]: users' own
            raise refused("allowed_hours", "from one datetime.time to another", (self.start, self.end))
        if any(at.replace(second=0, microsecond=0, tzinfo=None, fold=0) != at for at in (self.start, self.end)):
            _refuse(f"{self.start} to {self.end}", "both ends are plain times of whole minutes")
        if self.start == self.end:
            _refuse(str(self), "it starts when it ends; to allow the whole day, leave allowed_hours out")
        check_time_zone(f"allowed_hours {str(self)!r}", self.timezone, example=_EXAMPLE)

    @classmethod
    def parse(cls, text: str) -> AllowedHours:
        """Return the hours that a text such as "22:00-06:00 America/New_York" names.

        Raises:
            ConfigurationError: It names none.
        """
        found = _TEXT.fullmatch(str(text))
        if found is None:
            _refuse(text, "it has not the form HH:MM-HH:MM Area/City")
        start, end, zone = found.groups()
        if zone is None:
            _refuse(text, "it has no time zone, and the machines that run this may be set to another one than yours")
        return cls(start=_time(start, text), end=_time(end, text), timezone=zone)

    def allows(self, now: datetime) -> bool:
        """Return whether an instant, aware, is within the hours."""
        at = self._local(now).time()
        if self.start < self.end:
            return self.start <= at < self.end
        return at >= self.start or at < self.end

    def opens_after(self, now: datetime) -> datetime:
        """Return the first instant from `now` on that is within the hours, in their time zone: `now` itself, if it is.

        Subtract from it in UTC only: Python takes two times of one time zone for wall-clock times.
        """
        local = self._local(now)
        if self.allows(local):
            return local
        # By the minute, as what clocks jump over or show twice then needs no thought; 48 hours take some milliseconds.
        instant = local.astimezone(timezone.utc) + _MINUTE
        instant -= timedelta(seconds=local.second, microseconds=local.microsecond)
        while not self.allows(instant):
            instant += _MINUTE
        return self._local(instant)

    def __str__(self) -> str:
        return f"{self.start:%H:%M}-{self.end:%H:%M} {self.timezone}"

    def _local(self, now: datetime) -> datetime:
        if now.utcoffset() is None:
            raise ConfigurationError(f"{now} has no time zone, so that nobody knows whether it is within {self}")
        return now.astimezone(ZoneInfo(self.timezone))


def _time(text: str, whole: str) -> time:
    hour, minute = map(int, text.split(":"))
    if hour > 23 or minute > 59:
        _refuse(whole, f"there is no time {text}; midnight is 00:00")
    return time(hour, minute)


def _refuse(text: str, why: str) -> NoReturn:
    raise ConfigurationError(f"allowed_hours {text!r}: {why}. Write it as in {_EXAMPLE}")
