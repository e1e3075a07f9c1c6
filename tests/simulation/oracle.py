"""When a schedule must fire, worked out in another way than `app.scheduler.triggers` does it.

No cron library and no search: the offsets of a zone are found by walking through it, and every day between two
changes of clocks is tried. `tests/simulation/test_oracle.py` holds it against a walk minute by minute.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from functools import cache
from zoneinfo import ZoneInfo

MINUTE = timedelta(minutes=1)
_STEP = timedelta(minutes=15)
"""Every zone of our time changes its clocks on a quarter of an hour."""


@dataclass(frozen=True, slots=True)
class Stretch:
    """A time in which a zone's offset stays the same: from `start`, until but not including `end`, in UTC."""

    start: datetime
    end: datetime
    offset: timedelta


@dataclass(frozen=True, slots=True)
class Fields:
    """The five fields of a cron expression, as the values they allow."""

    minutes: frozenset[int]
    hours: frozenset[int]
    days: frozenset[int]
    months: frozenset[int]
    weekdays: frozenset[int]
    either_day: bool
    """Both day fields are restricted: one of them is enough."""
    elapsed: bool
    """Minute or hour begin with `*`: where clocks change it goes by elapsed time (Debian's cron)."""

    def on(self, day: date) -> bool:
        by_day, by_weekday = day.day in self.days, day.isoweekday() % 7 in self.weekdays
        return day.month in self.months and (
            (by_day or by_weekday) if self.either_day else (by_day and by_weekday)
        )


def parse(expression: str) -> Fields:
    """`*`, `*/n`, `a-b`, numbers and lists; nothing else."""
    minute, hour, day, month, weekday = expression.split()
    return Fields(
        _values(minute, 0, 59),
        _values(hour, 0, 23),
        _values(day, 1, 31),
        _values(month, 1, 12),
        frozenset(value % 7 for value in _values(weekday, 0, 7)),
        either_day=not day.startswith("*") and not weekday.startswith("*"),
        elapsed=minute.startswith("*") or hour.startswith("*"),
    )


def _values(field: str, first: int, last: int) -> frozenset[int]:
    found: set[int] = set()
    for part in field.split(","):
        span, _, step = part.partition("/")
        low, _, high = span.partition("-")
        if span == "*":
            found.update(range(first, last + 1, int(step or 1)))
        else:
            found.update(range(int(low), int(high or low) + 1, int(step or 1)))
    return frozenset(found)


def cron_fires(expression: str, zone: str, after: datetime, until: datetime, *, skip: bool) -> list[datetime]:
    """The fires in (`after`, `until`), by the rules of Debian's cron, or with `skip` by that DST policy."""
    fields = parse(expression)
    elapsed = fields.elapsed and not skip
    found: set[datetime] = set()
    stretches = _stretches(zone, after - timedelta(days=2), until + timedelta(days=1))
    for position, stretch in enumerate(stretches):
        before = stretches[position - 1] if position else None
        repeated_until = stretch.start + before.offset if before else stretch.start + stretch.offset
        for wall in _walls(fields, stretch.start + stretch.offset, stretch.end + stretch.offset):
            if elapsed or wall >= repeated_until:
                found.add(wall - stretch.offset)
        # What the clocks jumped over happens right after the jump, unless it goes by elapsed time.
        missing = not elapsed and not skip and before is not None
        if (
            missing
            and before is not None
            and _walls(fields, stretch.start + before.offset, stretch.start + stretch.offset)
        ):
            found.add(stretch.start)
    return sorted(fire for fire in found if after < fire < until)


def _walls(fields: Fields, start: datetime, end: datetime) -> list[datetime]:
    """The matching wall times from `start` until before `end` (their zone is a pretence)."""
    found = []
    day = start.date()
    while day <= end.date():
        if fields.on(day):
            found += [
                wall
                for hour in sorted(fields.hours)
                for minute in sorted(fields.minutes)
                if start <= (wall := datetime(day.year, day.month, day.day, hour, minute, tzinfo=UTC)) < end
            ]
        day += timedelta(days=1)
    return found


@cache
def _all_stretches(zone: str, year: int) -> tuple[Stretch, ...]:
    info = ZoneInfo(zone)
    moment = start = datetime(year - 1, 12, 1, tzinfo=UTC)
    offset = moment.astimezone(info).utcoffset() or timedelta()
    found = []
    while moment < datetime(year + 2, 2, 1, tzinfo=UTC):
        moment += _STEP
        current = moment.astimezone(info).utcoffset() or timedelta()
        if current != offset:
            found.append(Stretch(start, moment, offset))
            start, offset = moment, current
    return (*found, Stretch(start, moment, offset))


def _stretches(zone: str, start: datetime, end: datetime) -> list[Stretch]:
    """The stretches of `zone` that touch the time from `start` to `end`, at most two years."""
    return [
        Stretch(
            max(stretch.start, start) if not position else stretch.start, min(stretch.end, end), stretch.offset
        )
        for position, stretch in enumerate(
            stretch for stretch in _all_stretches(zone, start.year) if stretch.end > start and stretch.start < end
        )
    ]


def cron_fires_by_walking(
    expression: str, zone: str, after: datetime, until: datetime, *, skip: bool
) -> list[datetime]:
    """The same, minute by minute: slow, and hard to get wrong."""
    fields, info = parse(expression), ZoneInfo(zone)
    elapsed = fields.elapsed and not skip
    found = []
    moment = after.replace(second=0, microsecond=0)
    previous = (moment - MINUTE).astimezone(info).replace(tzinfo=None)
    while moment < until:
        local = moment.astimezone(info)
        wall = local.replace(tzinfo=None)
        fires = _matches(fields, wall) and (elapsed or not local.fold)
        jumped = previous + MINUTE
        while not elapsed and not skip and jumped < wall:
            fires = fires or _matches(fields, jumped)
            jumped += MINUTE
        if fires and moment > after:
            found.append(moment)
        previous = wall
        moment += MINUTE
    return found


def _matches(fields: Fields, wall: datetime) -> bool:
    return wall.minute in fields.minutes and wall.hour in fields.hours and fields.on(wall.date())


def interval_fires(seconds: float, anchor: datetime, after: datetime, until: datetime) -> list[datetime]:
    """The fires in (`after`, `until`) of an interval counted from `anchor`."""
    found = []
    fire = anchor
    while (fire := fire + timedelta(seconds=seconds)) < until:
        if fire > after:
            found.append(fire)
    return found
