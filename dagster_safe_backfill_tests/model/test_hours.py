"""`AllowedHours`: what a wall clock shows, also on nights on which it is set."""

from __future__ import annotations

from datetime import datetime, time, timedelta, timezone
from zoneinfo import ZoneInfo

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

import dagster_safe_backfill as sb
from dagster_safe_backfill.model.hours import AllowedHours

UTC = timezone.utc
NEW_YORK, LORD_HOWE = "America/New_York", "Australia/Lord_Howe"
# UTC midnights from which three days hold the setting of the clocks: by an hour, and by half of one.
SET_CLOCKS = [
    (NEW_YORK, datetime(2024, 3, 9, tzinfo=UTC)),
    (NEW_YORK, datetime(2024, 11, 2, tzinfo=UTC)),
    (LORD_HOWE, datetime(2024, 4, 5, tzinfo=UTC)),
    (LORD_HOWE, datetime(2024, 10, 4, tzinfo=UTC)),
]
MINUTES = range(3 * 24 * 60)


def clock(zone: str, instant: datetime) -> int:
    """Return what a clock on the wall shows, in minutes."""
    hour, minute = instant.astimezone(ZoneInfo(zone)).strftime("%H %M").split()
    return int(hour) * 60 + int(minute)


FACES = {(zone, start): [clock(zone, start + timedelta(minutes=n)) for n in MINUTES] for zone, start in SET_CLOCKS}

minutes_of_day = st.integers(0, 24 * 60 - 1)


def hours(start: int, end: int, zone: str) -> AllowedHours:
    return AllowedHours(start=time(*divmod(start, 60)), end=time(*divmod(end, 60)), timezone=zone)


def is_within(face: int, start: int, end: int) -> bool:
    """Walk from start to end, around the dial."""
    return (face - start) % 1440 < (end - start) % 1440


@pytest.mark.parametrize(("zone", "first"), SET_CLOCKS, ids=lambda value: str(value)[:10])
@given(start=minutes_of_day, length=st.integers(1, 24 * 60 - 1), at=st.integers(0, 24 * 60))
@example(start=2 * 60 + 10, length=15, at=0)
@example(start=2 * 60 + 10, length=15, at=24 * 60)
@example(start=90, length=60, at=24 * 60)
@example(start=22 * 60, length=8 * 60, at=5 * 60)
def test_the_hours_are_what_the_clock_shows(zone: str, first: datetime, start: int, length: int, at: int) -> None:
    end = (start + length) % 1440
    allowed = hours(start, end, zone)
    oracle = [is_within(face, start, end) for face in FACES[zone, first]]
    for minute in range(at, at + 12 * 60, 7):
        instant = first + timedelta(minutes=minute, seconds=minute % 60, microseconds=minute % 3)
        assert allowed.allows(instant) == oracle[minute]
    now = first + timedelta(minutes=at, seconds=30)
    opens = allowed.opens_after(now)
    assert str(opens.tzinfo) == zone
    expected = next(minute for minute in MINUTES[at:] if oracle[minute])
    assert opens.astimezone(UTC) == (now if expected == at else first + timedelta(minutes=expected))


@given(start=minutes_of_day, end=minutes_of_day, zone=st.sampled_from([NEW_YORK, LORD_HOWE, "UTC", "Asia/Kolkata"]))
def test_hours_come_back_from_their_text(start: int, end: int, zone: str) -> None:
    if start == end:
        with pytest.raises(sb.ConfigurationError, match="starts when it ends"):
            hours(start, end, zone)
    else:
        assert AllowedHours.parse(str(hours(start, end, zone))) == hours(start, end, zone)


def test_a_window_that_the_clock_jumps_into_opens_at_the_jump() -> None:
    allowed = AllowedHours.parse("02:30-04:00 America/New_York")
    opens = allowed.opens_after(datetime(2024, 3, 10, 1, 15, tzinfo=ZoneInfo(NEW_YORK)))
    assert opens.isoformat() == "2024-03-10T03:00:00-04:00"


def test_a_window_in_an_hour_that_comes_twice_opens_twice() -> None:
    allowed = AllowedHours.parse("1:30-1:45 America/New_York")
    first = allowed.opens_after(datetime(2024, 11, 3, 4, 0, tzinfo=UTC))
    again = allowed.opens_after(first.astimezone(UTC) + timedelta(minutes=15))
    assert [first.isoformat(), again.isoformat()] == ["2024-11-03T01:30:00-04:00", "2024-11-03T01:30:00-05:00"]


def test_the_end_is_without() -> None:
    allowed = AllowedHours.parse(" 22:00 - 06:00  America/New_York ")
    assert str(allowed) == "22:00-06:00 America/New_York"
    zone = ZoneInfo(NEW_YORK)
    assert [
        allowed.allows(datetime(2024, 1, 1, *at, tzinfo=zone)) for at in [(21, 59, 59), (22, 0), (5, 59, 59), (6, 0)]
    ] == [False, True, True, False]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "doesn't have the form"),
        ("22-06 UTC", "doesn't have the form"),
        ("22:00 UTC", "doesn't have the form"),
        ("22:00-06:00 UTC and more", "doesn't have the form"),
        ("22:00-06:00", "has no time zone, and the machines"),
        ("18:00-24:00 UTC", "no time 24:00. Midnight is 00:00"),
        ("18:00-19:60 UTC", "no time 19:60"),
        ("06:00-6:00 UTC", "leave allowed_hours out"),
        ("22:00-06:00 America/New_Yrok", r"no time zone 'America/New_Yrok'; did you mean America/New_York\?"),
        ("22:00-06:00 America", "no time zone 'America'"),
        ("22:00-06:00 ../UTC", "no time zone"),
        ("22:00-06:00 UTC+2", "no time zone"),
    ],
)
def test_a_text_that_names_no_hours_is_refused_with_the_reason(text: str, said: str) -> None:
    with pytest.raises(sb.ConfigurationError, match=said) as caught:
        AllowedHours.parse(text)
    assert '"22:00-06:00 America/New_York"' in str(caught.value)


def test_ends_finer_than_minutes_are_refused() -> None:
    with pytest.raises(sb.ConfigurationError, match="whole minutes"):
        AllowedHours(start=time(1, 0, 1), end=time(2), timezone="UTC")
    with pytest.raises(sb.ConfigurationError, match="plain times"):
        AllowedHours(start=time(1, tzinfo=UTC), end=time(2), timezone="UTC")


def test_a_time_without_zone_is_refused() -> None:
    allowed = AllowedHours.parse("22:00-06:00 UTC")
    with pytest.raises(sb.ConfigurationError, match="has no time zone"):
        allowed.allows(datetime(2024, 1, 1))  # noqa: DTZ001
