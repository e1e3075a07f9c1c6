"""Quiet hours: a span of the wall clock, in a zone, in which nobody wants to be woken."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta

from app.scheduler.schedules import zone_of
from app.scheduler.triggers import transition_between


@dataclass(frozen=True, slots=True)
class QuietHours:
    """From `start` up to, and without, `end`, every day; over midnight where `end` is the earlier one.

    What counts is what a clock on the wall shows: an hour that happens twice is quiet both times.
    """

    start: time
    end: time
    zone: str

    def covers(self, moment: datetime) -> bool:
        """Whether `moment` (aware) is quiet."""
        shown = moment.astimezone(zone_of(self.zone)).time()
        if self.start <= self.end:
            return self.start <= shown < self.end
        return shown >= self.start or shown < self.end

    def over_at(self, moment: datetime) -> datetime:
        """The first moment from `moment` on (aware) that is not quiet, in UTC."""
        if not self.covers(moment):
            return moment.astimezone(UTC)
        today = moment.astimezone(zone_of(self.zone)).date()
        ends = sorted(end for days in range(3) for end in self._ends(today + timedelta(days=days)))
        return next(end for end in ends if end > moment and not self.covers(end))

    def _ends(self, day: date) -> Iterator[datetime]:
        """When a clock shows `end` on that day: once, twice, or, in a gap, when it jumps over it."""
        zone = zone_of(self.zone)
        wall = datetime.combine(day, self.end)
        first, second = (wall.replace(tzinfo=zone, fold=fold).astimezone(UTC) for fold in (0, 1))
        if first > second:
            yield transition_between(zone, second, first)
        else:
            yield from {first, second}
