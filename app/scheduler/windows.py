"""When a task may fire: hours of the day, days of the week, and days on which it is closed.

Everything is wall time in the task's zone. A window may go over midnight; it belongs to the day on which it
opens. A time that a change of clocks skips or repeats is read as PEP 495 says, as everywhere here.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from enum import StrEnum
from functools import lru_cache
from typing import Annotated, Any, Protocol, TypeVar

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError, model_validator

from app.core.errors import InvalidRequest
from app.core.language import Said
from app.core.validation import message_of
from app.scheduler.schedules import zone_of

HORIZON_DAYS = 2 * 366
"""How far ahead the next open moment is looked for."""
_DAY = timedelta(days=1)

M = TypeVar("M", bound=BaseModel)
Clock = Annotated[str, StringConstraints(pattern=r"^([01]\d|2[0-3]):[0-5]\d$")]


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

    opens: Clock = Field(default="00:00", examples=["22:00"])
    closes: Clock = Field(default="00:00", examples=["06:00"])
    days: tuple[Weekday, ...] = Field(default=(), max_length=7, examples=[["mon", "tue", "wed", "thu", "fri"]])

    def holds(self, moment: datetime, zone: str) -> bool:
        """Whether `moment` is within it."""
        today = moment.astimezone(zone_of(zone)).date()
        return any(
            self._is_on(day) and self.start_on(day, zone) <= moment < self.end_of(day, zone)
            for day in (today - _DAY, today)
        )

    def start_on(self, day: date, zone: str) -> datetime:
        """When it opens on that day, in UTC."""
        return _wall(day, time.fromisoformat(self.opens), zone)

    def end_of(self, day: date, zone: str) -> datetime:
        """When that which opens on that day closes, in UTC."""
        opens, closes = time.fromisoformat(self.opens), time.fromisoformat(self.closes)
        return _wall(day if closes > opens else day + _DAY, closes, zone)

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
        if self.country is not None:
            public_holidays(self.country, self.subdivision)
        return self

    def is_closed(self, day: date) -> bool:
        """Whether nothing fires on that day."""
        if day in self.open:
            return False
        if day in self.closed:
            return True
        return self.country is not None and day in public_holidays(self.country, self.subdivision)


class Days(Protocol):
    """Some days."""

    def __contains__(self, day: object, /) -> bool: ...


@lru_cache(maxsize=256)
def public_holidays(country: str, subdivision: str | None) -> Days:
    """The public holidays of a country or a part of it, of every year.

    Raises:
        ValueError: there is no such country or part of it, or the package is not installed.
    """
    try:
        # Optional, and a tenth of a second to load.
        import holidays
    except ImportError:
        raise ValueError(
            Said(
                "country needs the package `holidays`: install contenthub-scheduler[calendars],"
                " or list dates in `closed`",
                "country 需要 `holidays` 包：请安装 contenthub-scheduler[calendars]，或在 `closed` 中列出日期",
            )
        ) from None
    try:
        found: Days = holidays.country_holidays(country, subdiv=subdivision)
    except NotImplementedError as error:
        raise ValueError(
            Said(
                f"country: {error}; write ISO 3166 codes such as CN, or DE and BY",
                f"country：{error}；请填写 ISO 3166 代码，例如 CN，或 DE 与 BY",
            )
        ) from None
    return found


@dataclass(frozen=True, slots=True)
class Hours:
    """When a task is open: within its window, and not on a closed day of its calendar."""

    window: RunWindow | None
    calendar: Calendar | None
    zone: str

    def is_open(self, moment: datetime) -> bool:
        """Whether the task may fire at `moment`."""
        day = moment.astimezone(zone_of(self.zone)).date()
        if self.calendar is not None and self.calendar.is_closed(day):
            return False
        return self.window is None or self.window.holds(moment, self.zone)

    def next_open(self, moment: datetime) -> datetime | None:
        """`moment` if it is open then, or else the next open one, in UTC; None: not within `HORIZON_DAYS`."""
        if self.is_open(moment):
            return moment
        first = moment.astimezone(zone_of(self.zone)).date()
        for ahead in range(-1, HORIZON_DAYS):
            day = first + ahead * _DAY
            # It opens with the window, or at midnight after a closed day.
            candidates = {_wall(day, time(), self.zone)}
            if self.window is not None:
                candidates.add(self.window.start_on(day, self.zone))
            for candidate in sorted(candidates):
                if candidate > moment and self.is_open(candidate):
                    return candidate
        return None

    def open_for(self, moment: datetime, seconds: float) -> float:
        """For how many of the `seconds` after `moment`, at which it is open, it stays so without a break."""
        latest = moment + timedelta(seconds=seconds)
        day = moment.astimezone(zone_of(self.zone)).date() - _DAY
        closings: set[datetime] = set()
        while day <= latest.astimezone(zone_of(self.zone)).date():
            # It closes with the window, or at the midnight before a closed day.
            closings.add(_wall(day, time(), self.zone))
            if self.window is not None:
                closings.add(self.window.end_of(day, self.zone))
            day += _DAY
        for closing in sorted(closings):
            if moment < closing < latest and not self.is_open(closing):
                return (closing - moment).total_seconds()
        return seconds


def hours_of(run_window: Mapping[str, Any] | None, calendar: Mapping[str, Any] | None, zone: str) -> Hours | None:
    """The hours in the columns of a task; None: it is always open.

    Raises:
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


def _wall(day: date, clock: time, zone: str) -> datetime:
    return datetime.combine(day, clock, tzinfo=zone_of(zone)).astimezone(UTC)
