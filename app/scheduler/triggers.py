"""When a schedule fires: pure values, and APScheduler triggers at the same time.

A trigger answers three questions about the time line: the next fire after a moment, the last one up to a
moment, and how many lie between two. The present is a parameter; every answer is an aware UTC datetime.

Cron fields are matched by `cronsim`, on wall-clock times without a zone. What a wall time means in a zone is
decided here (`_moments`), because cronsim's own rule has holes where clocks change: it knows Debian's rule for
five fields only, may answer with a moment before the one it was asked about when that lies in a repeated hour,
and walks in steps of an hour, which loses fires after shifts of 30 minutes (Australia/Lord_Howe).
APScheduler's `CronTrigger.from_crontab` is not used: it counts weekdays from Monday and ANDs the two day fields.
"""

from __future__ import annotations

from abc import abstractmethod
from bisect import bisect_left
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from hashlib import blake2b
from zoneinfo import ZoneInfo

from apscheduler.triggers.base import BaseTrigger
from cronsim import CronSim, CronSimError

from app.core.errors import InvalidRequest, sentence_of
from app.core.language import Said
from app.scheduler.schedules import (
    FIRST_YEAR,
    LAST_YEAR,
    AtSchedule,
    CronSchedule,
    DstPolicy,
    IntervalSchedule,
    Schedule,
    cron_fields,
    interval_seconds,
    normal_cron,
    to_utc,
    zone_of,
)

COUNT_CAP = 1_000
"""Fires of a backlog counted one by one; beyond, "at least" is said. Bounds the work after a long downtime."""

_TICK = timedelta(microseconds=1)


class ScheduleTrigger(BaseTrigger):  # type: ignore[misc]  # APScheduler 3 ships no types
    """A fixed, ordered set of UTC moments."""

    __slots__ = ()

    def next_after(self, after: datetime) -> datetime | None:
        """The first fire strictly after `after` (aware); None: there is none."""
        moment = _utc(after)
        return self._next_after(moment) if moment.year <= LAST_YEAR else None

    def last_at_or_before(self, moment: datetime) -> datetime | None:
        """The latest fire that is not after `moment` (aware); None: there is none."""
        until = _utc(moment)
        return self._last_at_or_before(until) if until.year >= FIRST_YEAR else None

    def count_between(self, after: datetime, until: datetime, *, cap: int) -> int:
        """How many fires lie in (`after`, `until`]; `cap` where there are that many or more."""
        return self._count_between(_utc(after), _utc(until), cap)

    def walk(self, after: datetime, until: datetime, *, limit: int) -> list[datetime]:
        """The first `limit` fires in (`after`, `until`], ascending. Cheaper by far than asking for one after the
        other."""
        return self._walk(_utc(after), _utc(until), limit)

    def get_next_fire_time(self, previous_fire_time: datetime | None, now: datetime) -> datetime | None:
        """APScheduler's question: the fire after the previous one, or the first that is not before `now`."""
        return self.next_after(previous_fire_time or now - _TICK)

    @abstractmethod
    def _next_after(self, after: datetime) -> datetime | None: ...

    @abstractmethod
    def _last_at_or_before(self, moment: datetime) -> datetime | None: ...

    @abstractmethod
    def _count_between(self, after: datetime, until: datetime, cap: int) -> int: ...

    @abstractmethod
    def _walk(self, after: datetime, until: datetime, limit: int) -> list[datetime]: ...


def _utc(moment: datetime) -> datetime:
    if moment.tzinfo is None:
        raise ValueError(f"{moment} has no offset; hand in an aware datetime")
    return moment.astimezone(UTC)


@dataclass(frozen=True, slots=True)
class CronTrigger(ScheduleTrigger):
    """Fires when the wall clock of `zone` matches `expression` (see `CronSchedule`).

    Equal triggers share their answers: ten thousand tasks on one expression cost one computation.

    Raises:
        InvalidRequest: naming `schedule.expression` or `timezone`.
    """

    expression: str
    zone: str = "UTC"
    dst_policy: DstPolicy = DstPolicy.CRON

    def __post_init__(self) -> None:
        zone_of(self.zone)
        try:
            object.__setattr__(self, "expression", normal_cron(self.expression))
        except ValueError as error:
            raise InvalidRequest.of("schedule.expression", sentence_of(error)) from error

    def _next_after(self, after: datetime) -> datetime | None:
        return _next_cron_fire(self, after)

    def _last_at_or_before(self, moment: datetime) -> datetime | None:
        return _last_cron_fire(self, moment)

    def _count_between(self, after: datetime, until: datetime, cap: int) -> int:
        return _count_cron_fires(self, after, until, cap)

    def _walk(self, after: datetime, until: datetime, limit: int) -> list[datetime]:
        wall, repeated = _wall_clock(after, zone_of(self.zone))
        found: set[datetime] = set()  # a set: all wall times of one gap run at the same moment
        for candidate in wall_times(self.expression, wall - repeated):
            moments = _moments(self, candidate)
            if moments and moments[0] > until:
                break
            found.update(moment for moment in moments if after < moment <= until)
            if (
                len(found) >= limit and len(moments) == 1
            ):  # past a repeated hour, where the order is not the walls'
                break
        return sorted(found)[:limit]


def wall_times(expression: str, start: datetime, *, reverse: bool = False) -> Iterator[datetime]:
    """Naive wall times that match `expression`: after `start`, or, reversed, from `start` backwards.

    Ends where nothing matches for 50 years; empty where no date can match (31 February).
    """
    if reverse:
        start = start.replace(microsecond=1)  # cronsim then counts the second of `start` itself
    try:
        return CronSim(" ".join(cron_fields(expression)), start, reverse=reverse)
    except CronSimError:
        return iter(())


def follows_elapsed_time(trigger: CronTrigger) -> bool:
    """True: where clocks change, the trigger runs on by elapsed time. Debian: minute or hour starts with `*`."""
    _, minute, hour, *_ = cron_fields(trigger.expression)
    return trigger.dst_policy is DstPolicy.CRON and (minute.startswith("*") or hour.startswith("*"))


# In a repeated hour the order of fires is not the order of their wall times: with elapsed time 01:00 fires again
# after 01:59. Only wall times within the repeated span can overtake each other, so both searches start that span
# early, and stop at the first wall time that is beyond doubt.


@lru_cache(maxsize=32_768)
def _next_cron_fire(trigger: CronTrigger, after: datetime) -> datetime | None:
    wall, repeated = _wall_clock(after, zone_of(trigger.zone))
    found: list[datetime] = []
    for candidate in wall_times(trigger.expression, wall - repeated):
        moments = _moments(trigger, candidate)
        found += (moment for moment in moments if moment > after)
        if moments and moments[0] > after:
            break
    return min(found, default=None)


@lru_cache(maxsize=4096)
def _last_cron_fire(trigger: CronTrigger, until: datetime) -> datetime | None:
    wall, repeated = _wall_clock(until, zone_of(trigger.zone))
    found: list[datetime] = []
    for candidate in wall_times(trigger.expression, wall + repeated, reverse=True):
        moments = _moments(trigger, candidate)
        found += (moment for moment in moments if moment <= until)
        if moments and moments[-1] <= until:
            break
    return max(found, default=None)


@lru_cache(maxsize=4096)
def _count_cron_fires(trigger: CronTrigger, after: datetime, until: datetime, cap: int) -> int:
    zone = zone_of(trigger.zone)
    first_wall, repeated_first = _wall_clock(after, zone)
    last_wall, repeated_last = _wall_clock(until, zone)
    found: set[datetime] = set()  # a set: all wall times of one gap run at the same moment
    for candidate in wall_times(trigger.expression, last_wall + repeated_last, reverse=True):
        if candidate < first_wall - repeated_first or len(found) >= cap:
            break
        found.update(moment for moment in _moments(trigger, candidate) if after < moment <= until)
    return min(len(found), cap)


def _moments(trigger: CronTrigger, wall: datetime) -> tuple[datetime, ...]:
    """The UTC moments, ascending, at which `trigger` fires for a matching wall time: none, one or two."""
    zone = zone_of(trigger.zone)
    before, after = _offsets(wall, zone)
    first = (wall - before).replace(tzinfo=UTC)
    if before == after:
        return (first,)
    second = (wall - after).replace(tzinfo=UTC)
    if before > after:
        return (first, second) if follows_elapsed_time(trigger) else (first,)
    if trigger.dst_policy is DstPolicy.SKIP or follows_elapsed_time(trigger):
        return ()
    return (transition_between(zone, second, first),)


def _offsets(wall: datetime, zone: ZoneInfo) -> tuple[timedelta, timedelta]:
    """The UTC offsets before and after the change of clocks that makes `wall` repeated or missing (PEP 495);
    twice the same for an ordinary wall time."""
    early = wall.replace(tzinfo=zone, fold=0).utcoffset()
    late = wall.replace(tzinfo=zone, fold=1).utcoffset()
    return early or timedelta(), late or timedelta()


def _wall_clock(moment: datetime, zone: ZoneInfo) -> tuple[datetime, timedelta]:
    """What a clock in `zone` shows at `moment`, and how much wall time is repeated around it (usually none)."""
    wall = moment.astimezone(zone).replace(tzinfo=None)
    before, after = _offsets(wall, zone)
    return wall, before - after


def transition_between(zone: ZoneInfo, before: datetime, after: datetime) -> datetime:
    """The second, between two UTC moments of different offset, at which the clocks of `zone` change."""
    offset = before.astimezone(zone).utcoffset()
    span = int((after - before).total_seconds())
    seconds = bisect_left(
        range(span),
        True,  # noqa: FBT003 - bisect compares it with what the key answers
        key=lambda elapsed: (before + timedelta(seconds=elapsed)).astimezone(zone).utcoffset() != offset,
    )
    return before + timedelta(seconds=seconds)


@dataclass(frozen=True, slots=True)
class IntervalTrigger(ScheduleTrigger):
    """Fires at `anchor + k * seconds`, in whole microseconds, so the millionth fire is as exact as the first.

    `k` starts at 1 (the anchor is when the task was created), or at 0 with `fire_at_anchor` (the anchor is the
    start that somebody asked for).

    Raises:
        InvalidRequest: naming `schedule.seconds`.
    """

    seconds: float
    anchor: datetime
    fire_at_anchor: bool = field(default=False, kw_only=True)

    def __post_init__(self) -> None:
        try:
            object.__setattr__(self, "seconds", interval_seconds(self.seconds))
        except ValueError as error:
            raise InvalidRequest.of("schedule.seconds", sentence_of(error)) from error
        object.__setattr__(self, "anchor", _utc(self.anchor))

    @property
    def period(self) -> timedelta:
        return timedelta(microseconds=round(self.seconds * 1_000_000))

    def _next_after(self, after: datetime) -> datetime | None:
        return self.anchor + self.period * max(self._steps(after) + 1, self._first_step)

    def _last_at_or_before(self, moment: datetime) -> datetime | None:
        steps = self._steps(moment)
        return self.anchor + self.period * steps if steps >= self._first_step else None

    def _count_between(self, after: datetime, until: datetime, cap: int) -> int:
        return min(cap, max(0, self._steps(until) - max(self._steps(after), self._first_step - 1)))

    def _walk(self, after: datetime, until: datetime, limit: int) -> list[datetime]:
        first = max(self._steps(after) + 1, self._first_step)
        return [
            self.anchor + self.period * step for step in range(first, min(self._steps(until) + 1, first + limit))
        ]

    @property
    def _first_step(self) -> int:
        return 0 if self.fire_at_anchor else 1

    def _steps(self, moment: datetime) -> int:
        return (moment - self.anchor) // self.period


@dataclass(frozen=True, slots=True)
class AtTrigger(ScheduleTrigger):
    """Fires once, at `moment`."""

    moment: datetime

    def __post_init__(self) -> None:
        object.__setattr__(self, "moment", _utc(self.moment))

    def _next_after(self, after: datetime) -> datetime | None:
        return self.moment if self.moment > after else None

    def _last_at_or_before(self, moment: datetime) -> datetime | None:
        return self.moment if self.moment <= moment else None

    def _count_between(self, after: datetime, until: datetime, cap: int) -> int:
        return min(cap, int(after < self.moment <= until))

    def _walk(self, after: datetime, until: datetime, limit: int) -> list[datetime]:
        return [self.moment][:limit] if after < self.moment <= until else []


@dataclass(frozen=True, slots=True)
class Bounded(ScheduleTrigger):
    """The fires of `trigger` from `start_at` to `end_at`, both included; None: open on that side."""

    trigger: ScheduleTrigger
    start_at: datetime | None = None
    end_at: datetime | None = None

    def _next_after(self, after: datetime) -> datetime | None:
        fire = self.trigger.next_after(self._clip_start(after))
        return None if fire is None or (self.end_at and fire > self.end_at) else fire

    def _last_at_or_before(self, moment: datetime) -> datetime | None:
        fire = self.trigger.last_at_or_before(self._clip_end(moment))
        return None if fire is None or (self.start_at and fire < self.start_at) else fire

    def _count_between(self, after: datetime, until: datetime, cap: int) -> int:
        return self.trigger.count_between(self._clip_start(after), self._clip_end(until), cap=cap)

    def _walk(self, after: datetime, until: datetime, limit: int) -> list[datetime]:
        return self.trigger.walk(self._clip_start(after), self._clip_end(until), limit=limit)

    def _clip_start(self, after: datetime) -> datetime:
        return max(after, self.start_at - _TICK) if self.start_at else after

    def _clip_end(self, until: datetime) -> datetime:
        return min(until, self.end_at) if self.end_at else until


def make_trigger(
    schedule: Schedule,
    *,
    zone: str,
    dst_policy: DstPolicy,
    anchor: datetime | None,
    start_at: datetime | None = None,
    end_at: datetime | None = None,
) -> ScheduleTrigger:
    """The trigger of a task's schedule. Datetimes without an offset are wall time in `zone` (`to_utc`).

    An interval counts from `start_at`, which is then its first fire, or else from `anchor` (the task's creation),
    first firing one interval later; other schedules need no anchor. Nothing fires before `start_at` or after
    `end_at`.

    Raises:
        InvalidRequest: naming `timezone`, `start_at`, `end_at`, `anchor` or the schedule's field.
    """
    zone_of(zone)
    start = to_utc(start_at, zone, field="start_at") if start_at else None
    end = to_utc(end_at, zone, field="end_at") if end_at else None
    if start and end and end < start:
        raise InvalidRequest.of(
            "end_at",
            Said(
                "end_at is before start_at; move it later, or leave it out", "end_at 早于 start_at；请推后，或不填"
            ),
        )
    trigger: ScheduleTrigger
    match schedule:
        case CronSchedule():
            trigger = CronTrigger(schedule.expression, zone, dst_policy)
        case IntervalSchedule():
            trigger = _interval_trigger(schedule, start, to_utc(anchor, zone, field="anchor") if anchor else None)
        case AtSchedule():
            trigger = AtTrigger(to_utc(schedule.at, zone, field="schedule.at"))
    return Bounded(trigger, start, end) if start or end else trigger


def _interval_trigger(
    schedule: IntervalSchedule, start: datetime | None, anchor: datetime | None
) -> IntervalTrigger:
    if start is not None:
        return IntervalTrigger(schedule.seconds, start, fire_at_anchor=True)
    if anchor is not None:
        return IntervalTrigger(schedule.seconds, anchor)
    raise InvalidRequest.of(
        "anchor",
        Said(
            "an interval counts from a moment; hand in anchor or start_at",
            "间隔需要一个起算时刻；请给出 anchor 或 start_at",
        ),
    )


@dataclass(frozen=True, slots=True)
class DueFires:
    """What a task owes: its due fires, summed up without walking through all of them."""

    count: int
    """Due fires, the first one included; exact unless `at_least`."""
    at_least: bool
    """True: counting stopped at the cap."""
    newest: tuple[datetime, ...]
    """The newest due fires, ascending; as many as the limit allowed."""
    next_fire: datetime | None
    """The first fire that is not due yet; None: the schedule is over."""

    @property
    def latest(self) -> datetime:
        return self.newest[-1]


def fires_between(trigger: ScheduleTrigger, first: datetime, now: datetime, *, limit: int) -> DueFires:
    """The fires due at `now`: `first` (the stored next fire, whatever the trigger says today) and those since.

    Costs a few steps where one fire is due, arithmetic for intervals, and at most `limit + COUNT_CAP` steps
    for cron, however long the downtime was.

    Raises:
        ValueError: `first` is after `now`, or `limit` is below 1.
    """
    if first > now or limit < 1:
        raise ValueError(f"nothing to sum up: first {first}, now {now}, limit {limit}")
    following = trigger.next_after(first)
    if following is None or following > now:
        return DueFires(1, at_least=False, newest=(first,), next_fire=following)
    newest = _newest_fires(trigger, first, now, limit)
    next_fire = trigger.next_after(now)
    if len(newest) < limit:
        complete = (first, *reversed(newest))
        return DueFires(len(complete), at_least=False, newest=complete, next_fire=next_fire)
    count = 1 + trigger.count_between(first, now, cap=COUNT_CAP - 1)
    return DueFires(count, at_least=count >= COUNT_CAP, newest=tuple(reversed(newest)), next_fire=next_fire)


def _newest_fires(trigger: ScheduleTrigger, first: datetime, now: datetime, limit: int) -> list[datetime]:
    """Up to `limit` fires in (`first`, `now`], newest first."""
    newest: list[datetime] = []
    fire = trigger.last_at_or_before(now)
    while fire is not None and fire > first and len(newest) < limit:
        newest.append(fire)
        fire = trigger.last_at_or_before(fire - _TICK)
    return newest


def jitter_of(task_key: object, scheduled_for: datetime, jitter_seconds: float) -> timedelta:
    """The delay of one fire: uniform in [0, `jitter_seconds`), the same whenever and wherever it is asked.

    A hash instead of a random number keeps (task, scheduled fire time) the identity of the fire: only the
    start of the execution moves, and two processes agree on it.
    """
    microseconds = int(jitter_seconds * 1_000_000)
    digest = blake2b(f"{task_key}|{_utc(scheduled_for).isoformat()}".encode(), digest_size=8).digest()
    return timedelta(microseconds=int.from_bytes(digest) * microseconds >> 64)
