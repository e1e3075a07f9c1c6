"""All fires of a span, by schedule: tasks on one trigger share one list of fires.

The work is bounded, not the span: of a schedule that fires too often to be walked to the end, the first fires are
kept, its rate is taken from them, and whoever asks about a later window gets that window walked.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import defaultdict
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from itertools import pairwise
from typing import NamedTuple

from app.scheduler.triggers import ScheduleTrigger

WALKED_FIRES = 300_000
"""Fires kept in all: a few seconds of work, and some tens of megabytes."""
LEAST_WALKED = 100
"""Of each schedule, however many there are."""
_WINDOW_FIRES = 10_000


class Watched(NamedTuple):
    """A task, as far as it matters for what will hurt."""

    id: int
    name: str
    task_type: str
    jitter_seconds: float
    overlap_policy: str
    concurrency_key: str | None
    concurrency_limit: int | None


@dataclass(slots=True)
class Rhythm:
    """One trigger, the tasks on it, and its fires."""

    trigger: ScheduleTrigger
    tasks: list[Watched]
    fires: list[datetime]
    """The first ones of the span, ascending."""
    until: datetime
    """Up to here `fires` has all of them."""
    is_whole: bool
    """`fires` reaches to the end of the span."""
    rate: float
    """Fires a second, over the span."""
    shortest_gap: float | None = field(init=False)
    """Seconds between the two fires that are closest; None: it fires once at most."""

    def __post_init__(self) -> None:
        self.shortest_gap = min(
            ((late - early).total_seconds() for early, late in pairwise(self.fires)), default=None
        )

    def fires_in(self, first: datetime, last: datetime) -> list[datetime]:
        """The fires in [`first`, `last`]."""
        if last <= self.until:
            return self.fires[bisect_left(self.fires, first) : bisect_right(self.fires, last)]
        return self.trigger.walk(first - timedelta(microseconds=1), last, limit=_WINDOW_FIRES)


@dataclass(frozen=True, slots=True)
class Timetable:
    """The fires of (`since`, `until`]."""

    since: datetime
    until: datetime
    rhythms: list[Rhythm]

    @classmethod
    def of(
        cls,
        tasks: Iterable[tuple[ScheduleTrigger, Watched]],
        since: datetime,
        until: datetime,
        *,
        budget: int = WALKED_FIRES,
    ) -> Timetable:
        """Walk the schedules of `tasks` from `since` to `until`, over `budget` fires in all."""
        by_trigger: dict[ScheduleTrigger, list[Watched]] = defaultdict(list)
        for trigger, task in tasks:
            by_trigger[trigger].append(task)
        each = max(LEAST_WALKED, budget // max(1, len(by_trigger)))
        return cls(since, until, [_rhythm(trigger, on, since, until, each) for trigger, on in by_trigger.items()])

    @property
    def seconds(self) -> float:
        return (self.until - self.since).total_seconds()

    @property
    def fire_count(self) -> int:
        """Fires of all tasks; of those that were not walked to the end, as many as their rate says."""
        return round(sum(rhythm.rate * self.seconds * len(rhythm.tasks) for rhythm in self.rhythms))

    def silent(self) -> list[Rhythm]:
        """The rhythms that will not fire, in this span or after it."""
        return [
            rhythm for rhythm in self.rhythms if not rhythm.fires and rhythm.trigger.next_after(self.since) is None
        ]


def _rhythm(
    trigger: ScheduleTrigger, tasks: list[Watched], since: datetime, until: datetime, limit: int
) -> Rhythm:
    fires = trigger.walk(since, until, limit=limit)
    is_whole = len(fires) < limit
    if is_whole:
        rate = len(fires) / (until - since).total_seconds()
    else:
        rate = len(fires) / (fires[-1] - since).total_seconds()
    return Rhythm(trigger, tasks, fires, until if is_whole else fires[-1], is_whole, rate)


def tasks_on(rhythms: Collection[Rhythm]) -> list[Watched]:
    """The tasks of some rhythms, by id."""
    return sorted((task for rhythm in rhythms for task in rhythm.tasks), key=lambda task: task.id)
