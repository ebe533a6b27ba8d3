"""When a machine stays on whoever plays: maintenance windows, and files that keep it awake."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest
from idle_stop.windows import keeps_awake, read_window

MONDAY = datetime(2026, 11, 23, tzinfo=UTC)


def at(day: int, clock: str) -> datetime:
    """Day 0 is a Monday."""
    hour, minute = (int(part) for part in clock.split(":"))
    return MONDAY + timedelta(days=day, hours=hour, minutes=minute)


def days(text: str, clock: str) -> list[int]:
    return [day for day in range(7) if read_window(text).contains(at(day, clock))]


def test_it_begins_with_its_first_minute_and_ends_before_its_last() -> None:
    window = read_window("02:00-04:00")
    assert [
        window.contains(at(0, clock)) for clock in ("01:59", "02:00", "03:59", "04:00", "14:00")
    ] == [False, True, True, False, False]


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("02:00-04:00", [0, 1, 2, 3, 4, 5, 6]),
        ("Mon 02:00-04:00", [0]),
        ("Mon..Fri 02:00-04:00", [0, 1, 2, 3, 4]),
        ("Sat,Sun 02:00-04:00", [5, 6]),
        ("Mon..Wed,Sat 02:00-04:00", [0, 1, 2, 5]),
        ("Sat..Mon 02:00-04:00", [0, 5, 6]),
        ("monday,FRIDAY 02:00 - 04:00 UTC", [0, 4]),
    ],
)
def test_its_days_are_written_as_systemd_has_them(text: str, wanted: list[int]) -> None:
    assert days(text, "03:00") == wanted


def test_over_midnight_it_belongs_to_the_day_on_which_it_begins() -> None:
    assert days("Sun 22:00-06:00", "23:00") == [6]
    assert days("Sun 22:00-06:00", "05:59") == [0]
    assert days("Sun 22:00-06:00", "06:00") == []
    assert days("Sun 22:00-06:00", "12:00") == []


def test_a_whole_day_ends_with_it() -> None:
    assert days("Tue 00:00-24:00", "00:00") == [1]
    assert days("Tue 00:00-24:00", "23:59") == [1]


def test_it_is_in_utc_whatever_the_zone_of_the_moment() -> None:
    there = timezone(timedelta(hours=5))
    assert read_window("Sun 22:00-23:00").contains(datetime(2026, 11, 23, 3, 30, tzinfo=there))


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "is not a window such as Mon..Fri 02:00-04:00"),
        ("02:00", "is not a window"),
        ("2:00-4:00", "is not a window"),
        ("Mon..Fri 02:00-04:00 CET", "is not a window"),
        ("*-*-* 02:00-04:00", "is not a window"),
        ("Mon-Fri 02:00-04:00", "is not a window"),
        ("Mo 02:00-04:00", "'Mo' is not a day such as Mon or Monday"),
        ("Mon.. 02:00-04:00", "'' is not a day"),
        ("25:00-26:00", "25:00 is not a time of the day"),
        ("02:60-04:00", "02:60 is not a time of the day"),
        ("02:00-24:01", "24:01 is not a time of the day"),
        ("02:00-02:00", "ends when it begins; a whole day is 00:00-24:00"),
        ("24:00-02:00", "ends when it begins"),
    ],
)
def test_what_is_no_window_is_refused_with_what_is_wrong(text: str, told: str) -> None:
    with pytest.raises(ValueError, match=r".") as raised:
        read_window(text)
    assert told in str(raised.value)


@pytest.mark.parametrize(
    ("text", "holds"),
    [
        ("", True),
        ("\n", True),
        ("2026-11-23T04:00:00Z\n", True),
        ("2026-11-23T03:00:00Z", False),
        ("2026-11-23T02:59Z", False),
        ("2026-11-23 04:00", True),
        ("2026-11-23T04:00+02:00", False),
        ("until the party is over", True),
    ],
)
def test_a_file_holds_until_its_time_or_until_it_goes(text: str, holds: bool) -> None:
    assert keeps_awake(text, at(0, "03:00")) is holds
