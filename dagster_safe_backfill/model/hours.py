"""`AllowedHours`: the time of day at which a run may start batches."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime, time, timedelta, timezone
from typing import NoReturn
from zoneinfo import ZoneInfo

from dagster_safe_backfill.errors import ConfigurationError
from dagster_safe_backfill.model.validation import check_time_zone, refused

# The zone is optional in the pattern, so that a text without one gets an error that says so.
_TEXT = re.compile(r"\s*(\d\d?:\d\d)\s*-\s*(\d\d?:\d\d)(?:\s+(\S+))?\s*")
_EXAMPLE = '"22:00-06:00 America/New_York"'
_MINUTE = timedelta(minutes=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class AllowedHours:
    """A half-open window of the day, `start <= time < end`, on a wall clock in `timezone`.

    The window spans midnight if `end` is earlier than `start`. Only the time that the clock shows counts: when clocks
    are set for daylight saving time, a window within the changed hour occurs twice, or is skipped.

    Attributes:
        start: The first minute of the window (inclusive).
        end: The minute after the last one (exclusive).
        timezone: The wall clock's time zone, a name of the IANA time zone database.

    Example:
        ```python
        nights = sb.AllowedHours.parse("22:00-06:00 America/New_York")
        ```

    Raises:
        ConfigurationError: The window is empty, an end isn't a plain time of a whole minute, or the time zone is
            unknown.
    """

    start: time
    end: time
    timezone: str

    def __post_init__(self) -> None:
        if not all(isinstance(at, time) for at in (self.start, self.end)):  # pyright: ignore[reportUnnecessaryIsInstance]: users' own
            raise refused("allowed_hours", "from one datetime.time to another", (self.start, self.end))
        # `str` writes whole minutes only, and a time with a tzinfo would contradict `timezone`.
        if any(at.replace(second=0, microsecond=0, tzinfo=None, fold=0) != at for at in (self.start, self.end)):
            _refuse(f"{self.start} to {self.end}", "both ends must be plain times of whole minutes")
        if self.start == self.end:
            _refuse(str(self), "the window starts when it ends. To allow the whole day, leave allowed_hours out")
        check_time_zone(f"allowed_hours {str(self)!r}", self.timezone, example=_EXAMPLE)

    @classmethod
    def parse(cls, text: str) -> AllowedHours:
        """Parse a text such as "22:00-06:00 America/New_York".

        Raises:
            ConfigurationError: The text doesn't have this form, or the window isn't valid.
        """
        found = _TEXT.fullmatch(str(text))
        if found is None:
            _refuse(text, "the text doesn't have the form HH:MM-HH:MM Area/City")
        start, end, zone = found.groups()
        if zone is None:
            _refuse(text, "the text has no time zone, and the machines that run assets may be in another one than you")
        return cls(start=_time(start, text), end=_time(end, text), timezone=zone)

    def allows(self, now: datetime) -> bool:
        """Return True if `now`, an aware datetime, is within the hours.

        Raises:
            ConfigurationError: `now` has no time zone.
        """
        at = self._local(now).time()
        if self.start < self.end:
            return self.start <= at < self.end
        return at >= self.start or at < self.end

    def opens_after(self, now: datetime) -> datetime:
        """Return the first instant at or after `now` that is within the hours, as a datetime in their time zone.

        Convert it to UTC before you subtract: Python subtracts two datetimes of one time zone as wall-clock times.

        Raises:
            ConfigurationError: `now` has no time zone.
        """
        local = self._local(now)
        if self.allows(local):
            return local
        # Minute by minute, so that skipped and repeated hours (PEP 495) need no special case; 48 hours take some ms.
        instant = local.astimezone(timezone.utc) + _MINUTE
        instant -= timedelta(seconds=local.second, microseconds=local.microsecond)
        while not self.allows(instant):
            instant += _MINUTE
        return self._local(instant)

    def __str__(self) -> str:
        return f"{self.start:%H:%M}-{self.end:%H:%M} {self.timezone}"

    def _local(self, now: datetime) -> datetime:
        # `astimezone` takes a datetime without a zone as the machine's local time (datetime's docs).
        if now.utcoffset() is None:
            raise ConfigurationError(f"{now} has no time zone, so it can't be compared with the allowed hours {self}")
        return now.astimezone(ZoneInfo(self.timezone))


def _time(text: str, whole: str) -> time:
    hour, minute = map(int, text.split(":"))
    # `datetime.time` would raise a ValueError that doesn't name the option.
    if hour > 23 or minute > 59:
        _refuse(whole, f"there is no time {text}. Midnight is 00:00")
    return time(hour, minute)


def _refuse(text: str, why: str) -> NoReturn:
    raise ConfigurationError(f"allowed_hours {text!r}: {why}. Write it like {_EXAMPLE}")
