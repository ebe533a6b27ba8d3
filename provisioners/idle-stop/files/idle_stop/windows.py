"""When the machine stays on whoever plays: maintenance windows, and files that keep it awake.

Pure. Both go by the wall clock in UTC, for they are what people write down.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime

DAYS = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")
EVERY_DAY = frozenset(range(7))
DAY_MINUTES = 24 * 60
WINDOW = re.compile(
    r"(?:(?P<days>[A-Za-z.,]+) +)?(?P<begin>\d\d:\d\d) *- *(?P<end>\d\d:\d\d)(?: +UTC)?"
)


@dataclass(frozen=True)
class Window:
    """Days by number, Monday is 0; minutes of the day. It may end on the day after it began."""

    days: frozenset[int]
    begin: int
    end: int

    def contains(self, moment: datetime) -> bool:
        utc = moment.astimezone(UTC)
        minute = utc.hour * 60 + utc.minute
        today, yesterday = utc.weekday(), (utc.weekday() - 1) % 7
        if self.begin < self.end:
            return today in self.days and self.begin <= minute < self.end
        return (today in self.days and minute >= self.begin) or (
            yesterday in self.days and minute < self.end
        )


def read_window(text: str) -> Window:
    """From `Mon..Fri 02:00-04:00`: weekdays as in systemd.time(7), or none for every day.

    Raises: ValueError, with what is wrong.
    """
    found = WINDOW.fullmatch(text.strip())
    if found is None:
        raise ValueError(f"{text!r} is not a window such as Mon..Fri 02:00-04:00")
    days = EVERY_DAY if found["days"] is None else _days(found["days"])
    begin, end = _minute(found["begin"]), _minute(found["end"])
    if begin in (end, DAY_MINUTES):
        raise ValueError(f"{text!r} ends when it begins; a whole day is 00:00-24:00")
    return Window(days, begin, end)


def _days(text: str) -> frozenset[int]:
    days: set[int] = set()
    for part in text.split(","):
        first, dots, last = part.partition("..")
        begin = _day(first)
        length = (_day(last) - begin) % 7 if dots else 0
        days |= {(begin + after) % 7 for after in range(length + 1)}
    return frozenset(days)


def _day(name: str) -> int:
    for number, day in enumerate(DAYS):
        if name.lower() in (day, day[:3]):
            return number
    raise ValueError(f"{name!r} is not a day such as Mon or Monday")


def _minute(text: str) -> int:
    hour, minute = (int(part) for part in text.split(":"))
    if minute > 59 or hour * 60 + minute > DAY_MINUTES:
        raise ValueError(f"{text} is not a time of the day")
    return hour * 60 + minute


def keeps_awake(text: str, moment: datetime) -> bool:
    """Whether a file keep-awake with this text still holds.

    Empty: until it is removed. A time such as 2026-11-23T04:00Z, UTC when it names no other zone:
    until then. What can't be read holds as an empty one does: somebody wanted the machine on.
    """
    try:
        until = datetime.fromisoformat(text.strip())
    except ValueError:
        return True
    if until.tzinfo is None:
        until = until.replace(tzinfo=UTC)
    return moment < until
