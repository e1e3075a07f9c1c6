"""When a task may fire: hours of the day, days of the week, and days on which it is closed.

What counts is what a clock on the wall of the task's zone shows: an hour that happens twice is in its window both
times, and a time that the clocks skip has its window begin or end at the jump.

A window may go over midnight; it belongs to the day on which it opens, and so do its `days`. A closed day of a
calendar is a date, from midnight to midnight, whatever the window: nothing fires on it, not even the early hours
of a night that opened the day before, while the early hours after it are open if their window is.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from enum import StrEnum
from functools import cached_property, lru_cache
from typing import Annotated, Any, Literal, NamedTuple, TypeVar
from zoneinfo import ZoneInfo

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError, model_validator

from app.core.errors import InvalidRequest
from app.core.language import Said
from app.core.validation import message_of
from app.scheduler.schedules import zone_of
from app.scheduler.triggers import ScheduleTrigger, transition_between

HORIZON_DAYS = 2 * 366
"""How far ahead the next open moment is looked for."""
_OPENINGS = 400
"""Openings, one or two a day at most, at which a schedule is asked whether it fires then: about a year of them."""
_FEW_OPENINGS, _LONG, _LONGEST = 60, timedelta(days=2 * 366), timedelta(days=30 * 366)
"""As far ahead as it is asked otherwise: years enough for 29 February to have been every day of the week."""
_DAY = timedelta(days=1)
_TICK = timedelta(microseconds=1)
_ANY_YEAR = 2026

M = TypeVar("M", bound=BaseModel)
WallTime = Annotated[str, StringConstraints(pattern=r"^([01]\d|2[0-3]):[0-5]\d$")]


class Weekday(StrEnum):
    """Days of the week, in the order of `date.weekday()`."""

    MON = "mon"
    TUE = "tue"
    WED = "wed"
    THU = "thu"
    FRI = "fri"
    SAT = "sat"
    SUN = "sun"


_WEEK = tuple(Weekday)


class ClosedPolicy(StrEnum):
    """What becomes of a fire at a moment when its task is closed."""

    SKIP = "skip"
    """The ledger has it as skipped, reason `calendar`."""
    DEFER = "defer"
    """It runs at the next open moment."""


class RunWindow(BaseModel):
    """The hours in which a task may fire: from `opens` until before `closes`, on `days` (none given: on all).

    Where `closes` is not after `opens` it is on the next day; equal ones are a whole day from `opens` on.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    opens: WallTime = Field(default="00:00", examples=["22:00"])
    closes: WallTime = Field(default="00:00", examples=["06:00"])
    days: tuple[Weekday, ...] = Field(default=(), max_length=7, examples=[["mon", "tue", "wed", "thu", "fri"]])

    def holds(self, wall: datetime) -> bool:
        """Whether the window is open when a clock shows `wall`."""
        shown, day = wall.time(), wall.date()
        opens, closes = self.span
        if opens < closes:
            return opens <= shown < closes and self._is_on(day)
        return self._is_on(day) if shown >= opens else shown < closes and self._is_on(day - _DAY)

    @cached_property
    def span(self) -> tuple[time, time]:
        """When it opens and closes."""
        return time.fromisoformat(self.opens), time.fromisoformat(self.closes)

    def _is_on(self, day: date) -> bool:
        return not self.days or _WEEK[day.weekday()] in self.days


class Calendar(BaseModel):
    """The days on which a task is closed: the public holidays of a country, and dates of its own.

    `country` and `subdivision` are ISO 3166 codes (`CN`, `DE` and `BY`); the holidays come from the package
    `holidays` (extra `[calendars]`). `closed` are further dates, `open` dates on which it is open all the same.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    country: Annotated[str, StringConstraints(min_length=2, max_length=3, to_upper=True)] | None = None
    subdivision: Annotated[str, StringConstraints(min_length=1, max_length=10)] | None = None
    closed: tuple[date, ...] = Field(default=(), max_length=2000)
    open: tuple[date, ...] = Field(default=(), max_length=2000)

    @model_validator(mode="after")
    def _known(self) -> Calendar:
        if self.country is None and self.subdivision is not None:
            raise ValueError(Said("subdivision needs a country", "subdivision 需要同时填写 country"))
        if self.country is not None and knows_holidays():
            public_holidays(self.country, self.subdivision, _ANY_YEAR)
        return self

    def is_closed(self, day: date) -> bool:
        """Whether nothing fires on that day."""
        if day in self.open:
            return False
        if day in self.closed:
            return True
        return self.country is not None and day in public_holidays(self.country, self.subdivision, day.year)


class Unjudged(InvalidRequest):
    """This process cannot say when a task is open, for want of a package; another one may."""


def knows_holidays() -> bool:
    """Whether the package `holidays` is there; without it a calendar with a country can be kept, not judged."""
    try:
        # Optional, and a tenth of a second to load.
        import holidays  # noqa: F401
    except ImportError:
        return False
    return True


@lru_cache(maxsize=4096)
def public_holidays(country: str, subdivision: str | None, year: int) -> frozenset[date]:
    """The public holidays of a country or a part of it in one year.

    A value of its own for each year: the package's objects fill themselves while they are asked, and threads that
    ask one at the same time leave it wrong for good.

    Raises:
        ValueError: there is no such country or part of it.
        ImportError: the package is not installed.
    """
    import holidays

    try:
        found = holidays.country_holidays(country, subdiv=subdivision, years=year, expand=False)
    except NotImplementedError as error:
        raise ValueError(
            Said(
                f"country: {error}; write ISO 3166 codes such as CN, or DE and BY",
                f"country：{error}；请填写 ISO 3166 代码，例如 CN，或 DE 与 BY",
            )
        ) from None
    return frozenset(found)


@dataclass(frozen=True, slots=True)
class Hours:
    """When a task is open: within its window, and not on a closed day of its calendar."""

    window: RunWindow | None
    calendar: Calendar | None
    zone: str

    def __post_init__(self) -> None:
        """Raises Unjudged: this process lacks the package that the calendar needs."""
        if self.calendar is not None and self.calendar.country is not None and not knows_holidays():
            raise Unjudged.of(
                "calendar",
                Said(
                    "country needs the package `holidays`: install contenthub-scheduler[calendars],"
                    " or list dates in `closed`",
                    "country 需要 `holidays` 包：请安装 contenthub-scheduler[calendars]，或在 `closed` 中列出日期",
                ),
            )

    def is_open(self, moment: datetime) -> bool:
        """Whether the task may fire at `moment`."""
        return self.closed_by(moment) is None

    def closed_by(self, moment: datetime) -> Literal["calendar", "run_window"] | None:
        """What closes the task at `moment`; None: it is open."""
        wall = moment.astimezone(zone_of(self.zone))
        if self.calendar is not None and self.calendar.is_closed(wall.date()):
            return "calendar"
        return None if self.window is None or self.window.holds(wall) else "run_window"

    def next_open(self, moment: datetime) -> datetime | None:
        """`moment` if it is open then, or else the next open one, in UTC; None: not within `HORIZON_DAYS`."""
        if self.is_open(moment):
            return moment
        first = moment.astimezone(zone_of(self.zone)).date()
        for ahead in range(-1, HORIZON_DAYS):
            day = first + ahead * _DAY
            if self.calendar is not None and self.calendar.is_closed(day):
                continue
            for candidate in self._turns(day):
                if candidate > moment and self.is_open(candidate):
                    return candidate
        return None

    def open_for(self, moment: datetime, seconds: float) -> float:
        """For how many of the `seconds` after `moment`, at which it is open, it stays so without a break."""
        latest = moment + timedelta(seconds=seconds)
        day, last = (one.astimezone(zone_of(self.zone)).date() for one in (moment, latest))
        while day <= last:
            for turn in self._turns(day):
                if moment < turn < latest and not self.is_open(turn):
                    return (turn - moment).total_seconds()
            day += _DAY
        return seconds

    def _turns(self, day: date) -> list[datetime]:
        """Where it may open or close on that day: with the window, at midnight, or where the clocks jump;
        ascending, in UTC."""
        zone = zone_of(self.zone)
        found = {_wall(day, time(), zone)}
        for edge in self.window.span if self.window is not None else ():
            found |= {_wall(day, edge, zone), _wall(day, edge.replace(fold=1), zone)}
        start, end = _wall(day, time(), zone), _wall(day + _DAY, time(), zone)
        if end - start != _DAY:
            found.add(transition_between(zone, start - _DAY, end))
        return sorted(found)


class Run(NamedTuple):
    """A fire of a schedule, and when it runs."""

    fire: datetime
    at: datetime


@lru_cache(maxsize=20_000)
def next_run(trigger: ScheduleTrigger, hours: Hours | None, policy: ClosedPolicy, fire: datetime) -> Run | None:
    """`fire`, or the first after it that is not skipped because the task is closed then, and when it runs.

    None: there is none, or none as far as one looks, which is years.
    """
    first = fire
    for looked in range(_OPENINGS):
        if fire - first > (_LONG if looked > _FEW_OPENINGS else _LONGEST):
            return None
        opens = fire if hours is None else hours.next_open(fire)
        if opens is None:
            return None
        if opens == fire or policy is ClosedPolicy.DEFER:
            return Run(fire, opens)
        following = trigger.next_after(opens - _TICK)
        if following is None:
            return None
        fire = following
    return None


def hours_of(run_window: Mapping[str, Any] | None, calendar: Mapping[str, Any] | None, zone: str) -> Hours | None:
    """The hours in the columns of a task; None: it is always open.

    Raises:
        Unjudged: this process lacks the package that the calendar needs.
        InvalidRequest: the columns (plain SQL may have written them) cannot be read; the field is named.
    """
    if run_window is None and calendar is None:
        return None
    return _hours(_text(run_window), _text(calendar), zone)


def _text(value: Mapping[str, Any] | None) -> str | None:
    return None if value is None else json.dumps(value, sort_keys=True)


@lru_cache(maxsize=4096)
def _hours(run_window: str | None, calendar: str | None, zone: str) -> Hours:
    return Hours(
        _read(RunWindow, run_window, "run_window"),
        _read(Calendar, calendar, "calendar"),
        zone,
    )


def _read(model: type[M], text: str | None, field: str) -> M | None:
    try:
        return None if text is None else model.model_validate_json(text)
    except ValidationError as error:
        raise InvalidRequest.of(field, message_of(error.errors()[0])) from None


def _wall(day: date, clock: time, zone: ZoneInfo) -> datetime:
    return datetime.combine(day, clock, tzinfo=zone).astimezone(UTC)
