"""All starts of a span, by schedule: tasks on one trigger, with the same hours, share one list of them.

A fire is a start unless its task is closed then: it is skipped, or waits for the next opening.

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
from app.scheduler.windows import ClosedPolicy, Hours, next_run

WALKED_FIRES = 300_000
"""Fires kept in all: a few seconds of work, and some tens of megabytes."""
LEAST_WALKED = 100
"""Of each schedule, however many there are."""
_WINDOW_FIRES = 20_000
_LONGEST_LOOK_BACK = timedelta(days=1)
"""Before a window: what fires since then may wait for an opening in it."""
_TICK = timedelta(microseconds=1)


class Watched(NamedTuple):
    """A task, as far as it matters for what will hurt."""

    id: int
    name: str
    task_type: str
    jitter_seconds: float
    overlap_policy: str
    concurrency_key: str | None
    concurrency_limit: int | None
    hours: Hours | None = None
    closed_policy: str = ClosedPolicy.SKIP


class Pattern(NamedTuple):
    """What decides when a task starts."""

    trigger: ScheduleTrigger
    hours: Hours | None
    defers: bool
    """A fire while it is closed waits for the opening; otherwise it is skipped."""
    stacks: bool
    """Several that wait for one opening all start then; otherwise one does."""

    @classmethod
    def of(cls, trigger: ScheduleTrigger, task: Watched) -> Pattern:
        defers = task.hours is not None and task.closed_policy == ClosedPolicy.DEFER
        return cls(trigger, task.hours, defers, stacks=defers and task.overlap_policy == "allow")

    def starts(self, fires: list[datetime]) -> list[datetime]:
        """What becomes of `fires`, which ascend, as their starts do."""
        hours = self.hours
        if hours is None:
            return fires
        starts: list[datetime] = []
        opening: datetime | None = None
        for fire in fires:
            if hours.is_open(fire):
                starts.append(fire)
            elif self.defers:
                if opening is None or opening < fire:
                    opening = hours.next_open(fire)
                if opening is not None:
                    starts.append(opening)
        return starts if self.stacks else list(dict.fromkeys(starts))

    def has_start_after(self, moment: datetime) -> bool:
        """Whether anything starts after `moment`, as far as `next_run()` looks."""
        fire = self.trigger.next_after(moment)
        policy = ClosedPolicy.DEFER if self.defers else ClosedPolicy.SKIP
        return fire is not None and next_run(self.trigger, self.hours, policy, fire) is not None


@dataclass(slots=True)
class Rhythm:
    """One pattern, the tasks on it, and their starts."""

    pattern: Pattern
    tasks: list[Watched]
    fires: list[datetime]
    """The first starts of the span, ascending."""
    until: datetime
    """Up to here `fires` has all of them."""
    is_whole: bool
    """`fires` reaches to the end of the span."""
    rate: float
    """Starts a second, over the span."""
    shortest_gap: float | None = field(init=False)
    """Seconds between the two moments that are closest; None: it starts once at most."""

    def __post_init__(self) -> None:
        gaps = ((late - early).total_seconds() for early, late in pairwise(dict.fromkeys(self.fires)))
        self.shortest_gap = min(gaps, default=None)

    def fires_in(self, first: datetime, last: datetime) -> list[datetime]:
        """The starts in [`first`, `last`]."""
        if last <= self.until:
            starts = self.fires
        else:
            since = first - (_LONGEST_LOOK_BACK if self.pattern.defers else _TICK)
            starts = self.pattern.starts(self.pattern.trigger.walk(since, last, limit=_WINDOW_FIRES))
        return starts[bisect_left(starts, first) : bisect_right(starts, last)]


@dataclass(frozen=True, slots=True)
class Timetable:
    """The starts of (`since`, `until`]."""

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
        by_pattern: dict[Pattern, list[Watched]] = defaultdict(list)
        for trigger, task in tasks:
            by_pattern[Pattern.of(trigger, task)].append(task)
        each = max(LEAST_WALKED, budget // max(1, len(by_pattern)))
        return cls(since, until, [_rhythm(pattern, on, since, until, each) for pattern, on in by_pattern.items()])

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
            rhythm
            for rhythm in self.rhythms
            if not rhythm.fires and not rhythm.pattern.has_start_after(self.since)
        ]


def _rhythm(pattern: Pattern, tasks: list[Watched], since: datetime, until: datetime, limit: int) -> Rhythm:
    fires = pattern.trigger.walk(since, until, limit=limit)
    is_whole = len(fires) < limit
    walked = until if is_whole else fires[-1]
    starts = [start for start in pattern.starts(fires) if start <= walked]
    rate = len(starts) / (walked - since).total_seconds()
    return Rhythm(pattern, tasks, starts, walked, is_whole, rate)


def tasks_on(rhythms: Collection[Rhythm]) -> list[Watched]:
    """The tasks of some rhythms, by id."""
    return sorted((task for rhythm in rhythms for task in rhythm.tasks), key=lambda task: task.id)
