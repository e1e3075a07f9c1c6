"""What a schedule will do, before it does it: the next fires, a sentence, and warnings.

Pure: the present is the parameter `after`. The API, the CLI and the dashboard show the same `Preview`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from itertools import islice, pairwise
from typing import Literal
from zoneinfo import ZoneInfo

from cronsim import CronSim

from app.core.errors import InvalidRequest
from app.core.language import Language, Said
from app.scheduler.description import describe, say_duration
from app.scheduler.schedules import (
    CRON_FIELD_SIZES,
    CRON_FIELDS,
    AtSchedule,
    CronSchedule,
    DstPolicy,
    IntervalSchedule,
    Schedule,
    both_days_must_match,
    cron_fields,
    star_step,
    to_utc,
    zone_of,
)
from app.scheduler.triggers import (
    CronTrigger,
    ScheduleTrigger,
    follows_elapsed_time,
    make_trigger,
    transition_between,
    wall_times,
)
from app.scheduler.windows import ClosedPolicy, Hours, next_run

MAX_COUNT = 1_000
"""Fires of one preview, at most."""
DST_HORIZON = timedelta(days=2 * 366)
"""How far ahead changes of clocks are looked for."""
MAX_LOOKED_AT = 5_000
"""Fires looked at to find some at which the task is open."""
RHYTHM_SAMPLE = 50
"""Fires looked at to find the shortest time between two of them."""

_DAY = timedelta(days=1)
_SECOND = timedelta(seconds=1)
_TICK = timedelta(microseconds=1)
_ANY_DATE = datetime(2000, 1, 1)  # noqa: DTZ001 - cronsim parses an expression only together with a date

_SHORT_MONTHS = {
    2: (28, "February"),
    4: (30, "April"),
    6: (30, "June"),
    9: (30, "September"),
    11: (30, "November"),
}
"""Month: its last day in every year, and its name."""
_EVEN_REMEDY = Said("for an even rhythm use an interval", "要均匀的节奏请用间隔计划")
_CLOCK_REMEDY = Said("choose a time outside the change, or the zone UTC", "请避开换时的时段，或使用 UTC 时区")


@dataclass(frozen=True, slots=True)
class Preview:
    """The answer to "what will this schedule do?"."""

    fires: list[datetime]
    """The next fires, aware, in the task's zone."""
    description: str
    """One sentence."""
    warnings: list[str]
    """One sentence for each thing that may surprise, with the remedy."""

    def as_dict(self) -> dict[str, list[str] | str]:
        """Plain JSON: fires as ISO 8601 with the zone's offset at that moment."""
        return {
            "fires": [fire.isoformat() for fire in self.fires],
            "description": self.description,
            "warnings": list(self.warnings),
        }


def preview(
    schedule: Schedule,
    *,
    zone: str,
    dst_policy: DstPolicy,
    after: datetime,
    count: int = 10,
    start_at: datetime | None = None,
    end_at: datetime | None = None,
    anchor: datetime | None = None,
    expected_duration_seconds: float | None = None,
    jitter_seconds: float = 0,
    hours: Hours | None = None,
    closed_policy: ClosedPolicy = ClosedPolicy.SKIP,
    language: Language = "en",
) -> Preview:
    """The first `count` fires strictly after `after`, with a description and warnings.

    Datetimes without an offset are wall time in `zone`. `anchor` is where an interval counts from: the task's
    creation; None: `after`, as if the task were created then. `expected_duration_seconds` is how long a run
    takes, for the warning that it fires more often than it can finish. Fires at which the task is closed by
    `hours` are left out, or moved to when they would run, as `closed_policy` says.

    Raises:
        InvalidRequest: naming `timezone`, `after`, `count`, `start_at`, `end_at` or the schedule's field.
    """
    if not 1 <= count <= MAX_COUNT:
        raise InvalidRequest.of("count", Said(f"count is from 1 to {MAX_COUNT}", f"数量须为 1 到 {MAX_COUNT}"))
    now = to_utc(after, zone, field="after")
    make = partial(
        make_trigger, schedule, zone=zone, dst_policy=dst_policy, anchor=anchor or now, start_at=start_at
    )
    trigger = make(end_at=end_at)
    opened = _Opened(_fires_after(trigger, now), hours, closed_policy)
    wanted = max(count, RHYTHM_SAMPLE)
    sample = list(islice(opened, wanted))
    if not sample and opened.last is not None:
        # A schedule that fires every second has that many fires in one evening: look on from the next opening.
        run = next_run(trigger, hours, closed_policy, opened.last)
        later = _fires_after(trigger, run.fire - _TICK) if run is not None else iter(())
        sample = list(islice(_Opened(later, hours, closed_policy), wanted))
    window = _Window(
        zone_of(zone),
        max(now, to_utc(start_at, zone, field="start_at")) if start_at else now,
        to_utc(end_at, zone, field="end_at") if end_at else None,
    )
    return Preview(
        fires=[fire.astimezone(window.zone) for fire in sample[:count]],
        description=describe(schedule, zone=zone, language=language),
        warnings=[
            said.in_(language)
            for said in (
                *([] if opened.seen else [_never_fires(schedule, window, beyond=make().next_after(now))]),
                *_closed_warnings(opened, window, has_fires=bool(sample)),
                *_rhythm_warnings(sample, expected_duration_seconds, jitter_seconds),
                *_schedule_warnings(schedule, zone, dst_policy, window, fires=bool(sample)),
            )
        ],
    )


def _fires_after(trigger: ScheduleTrigger, after: datetime) -> Iterator[datetime]:
    fire = trigger.next_after(after)
    while fire is not None:
        yield fire
        fire = trigger.next_after(fire)


@dataclass(slots=True)
class _Opened:
    """Fires as the task's hours let them through: those at closed moments are left out, or moved."""

    fires: Iterator[datetime]
    hours: Hours | None
    policy: ClosedPolicy
    seen: int = 0
    closed: int = 0
    last: datetime | None = None

    def __iter__(self) -> Iterator[datetime]:
        for fire in self.fires:
            self.seen += 1
            self.last = fire
            if self.hours is None or self.hours.is_open(fire):
                yield fire
                continue
            self.closed += 1
            opens = self.hours.next_open(fire) if self.policy is ClosedPolicy.DEFER else None
            if opens is not None:
                yield opens
            if self.seen >= MAX_LOOKED_AT:
                return


@dataclass(frozen=True, slots=True)
class _Window:
    """The part of the time line a preview is about, in UTC, and the zone to speak of it in."""

    zone: ZoneInfo
    after: datetime
    end_at: datetime | None

    def says(self, moment: datetime) -> str:
        return moment.astimezone(self.zone).isoformat(timespec="seconds")


# --- warnings about the fires ---------------------------------------------------------------------------------


def _never_fires(schedule: Schedule, window: _Window, *, beyond: datetime | None) -> Said:
    """Why there is no fire; `beyond` is the one there would be without `end_at`."""
    if beyond is not None and window.end_at is not None:
        next_fire, end = window.says(beyond), window.says(window.end_at)
        return Said(
            f"never fires: the next fire would be {next_fire}, after end_at {end};"
            f" move end_at later, or leave it out",
            f"永远不会触发：下一次触发应在 {next_fire}，晚于 end_at {end}；请推迟或去掉 end_at",
        )
    match schedule:
        case AtSchedule():
            moment = window.says(to_utc(schedule.at, window.zone.key, field="schedule.at"))
            now = window.says(window.after)
            return Said(
                f"never fires: {moment} is not after {now}; write a later moment",
                f"永远不会触发：{moment} 不晚于 {now}；请写一个更晚的时刻",
            )
        case CronSchedule():
            return Said(
                "never fires: no date matches day-of-month, month and day-of-week; change one of them",
                "永远不会触发：没有日期同时符合日、月、星期；请修改其中之一",
            )
        case IntervalSchedule():
            return Said(
                "never fires: the calendar of schedules ends before the next fire",
                "永远不会触发：下一次触发超出了日历的范围",
            )


def _closed_warnings(opened: _Opened, window: _Window, *, has_fires: bool) -> Iterator[Said]:
    if not opened.closed or opened.last is None:
        return
    until = window.says(opened.last)
    if not has_fires:
        yield Said(
            f"never fires within its run window and calendar: all {opened.seen} fires until {until} are at closed"
            f" times; change the schedule, the window or the calendar",
            f"在其运行时段和日历内永远不会触发：直到 {until} 的 {opened.seen} 次触发都在关闭时间；"
            f"请修改计划、时段或日历",
        )
        return
    moved = opened.policy is ClosedPolicy.DEFER
    fate = Said("move to the next open moment", "推迟到下一个开放时刻") if moved else Said("are skipped", "被跳过")
    yield Said(
        f"{opened.closed} of the next {opened.seen} fires (until {until}) are at closed times and {fate.en}",
        f"接下来的 {opened.seen} 次触发（直到 {until}）中有 {opened.closed} 次在关闭时间，{fate.zh}",
    )


def _rhythm_warnings(
    fires: list[datetime], expected_duration_seconds: float | None, jitter_seconds: float
) -> Iterator[Said]:
    shortest = min((late - early for early, late in pairwise(fires)), default=None)
    if shortest is None:
        return
    gap = shortest.total_seconds()
    if jitter_seconds > gap:
        yield Said(
            f"jitter of {say_duration(jitter_seconds)} exceeds the {say_duration(gap)} between two fires: runs may"
            f" start in another order; shorten jitter_seconds",
            f"抖动 {say_duration(jitter_seconds, 'zh')} 超过两次触发之间的 {say_duration(gap, 'zh')}："
            f"运行的先后可能颠倒；"
            f"请缩短 jitter_seconds",
        )
    if expected_duration_seconds is None:
        return
    takes = Said(say_duration(expected_duration_seconds), say_duration(expected_duration_seconds, "zh"))
    closest = max(gap - jitter_seconds, 0)
    if gap < expected_duration_seconds:
        yield Said(
            f"fires more often than it can finish: {say_duration(gap)} between two fires, but a run takes about"
            f" {takes.en}; fire less often, or choose an overlap policy",
            f"触发得比完成快：两次触发相隔 {say_duration(gap, 'zh')}，"
            f"而一次运行约需 {takes.zh}；请降低频率，或选择重叠策略",
        )
    elif closest < expected_duration_seconds:
        yield Said(
            f"may fire again before it has finished: a run takes about {takes.en}, and jitter can bring two starts"
            f" as close as {say_duration(closest)}; shorten jitter_seconds",
            f"可能在完成之前再次触发：一次运行约需 {takes.zh}，"
            f"而抖动可使两次开始只相隔 {say_duration(closest, 'zh')}；"
            f"请缩短 jitter_seconds",
        )


# --- warnings about the schedule ------------------------------------------------------------------------------


def _schedule_warnings(
    schedule: Schedule, zone: str, dst_policy: DstPolicy, window: _Window, *, fires: bool
) -> Iterator[Said]:
    match schedule:
        case CronSchedule():
            fields = cron_fields(schedule.expression)
            yield from _day_warnings(fields)
            yield from _step_warnings(fields)
            if fires:
                trigger = CronTrigger(schedule.expression, zone, dst_policy)
                yield from (_clock_change_warning(hit, window) for hit in _clock_change_hits(trigger, window))
        case AtSchedule():
            yield from _at_warnings(schedule.at, window)
        case IntervalSchedule():
            return


def _day_warnings(fields: tuple[str, ...]) -> Iterator[Said]:
    if not both_days_must_match(fields):
        yield Said(
            f"day-of-month {fields[3]} and day-of-week {fields[5]} are both set: cron fires when either one"
            f" matches, not only when both do; leave one of them *, or write 1#1 for the first Monday of a month",
            f"日 {fields[3]} 与星期 {fields[5]} 都已设定："
            f"cron 在任一符合时就触发，而不是都符合时；请让其中之一为 *，"
            f"或用 1#1 表示每月第一个星期一",
        )
    if fields[3].startswith("*"):
        return
    matcher = CronSim(" ".join((*fields[:4], "*", "*")), _ANY_DATE)
    months = CronSim(" ".join(("0", "0", "0", "*", fields[4], "*")), _ANY_DATE).months
    # 28-31 is meant as "the end of the month"; a lone 31 is where months get lost.
    for day in sorted(day for day in matcher.days if day >= 29 and day - 1 not in matcher.days):
        shorter = [month for month, (last, _) in _SHORT_MONTHS.items() if month in months and last < day]
        if shorter:
            leap = Said(", except in leap years", "（闰年除外）") if day == 29 else Said("", "")
            names = ", ".join(_SHORT_MONTHS[month][1] for month in shorter)
            yield Said(
                f"day-of-month {day} does not exist in {names}{leap.en}: nothing fires on it there;"
                f" write L for the last day of the month",
                f"{'、'.join(f'{month}月' for month in shorter)}没有 {day} 日{leap.zh}："
                f"那时不会触发；每月最后一天请写 L",
            )


def _step_warnings(fields: tuple[str, ...]) -> Iterator[Said]:
    for name, field, size in zip(CRON_FIELDS, fields, CRON_FIELD_SIZES, strict=True):
        for step in filter(None, map(star_step, field.split(","))):
            if step >= size:
                yield Said(
                    f"*/{step} in {name} is wider than the field: only its first value matches; {_EVEN_REMEDY.en}",
                    f"{name} 的 */{step} 比该字段还宽：只有第一个值符合；{_EVEN_REMEDY.zh}",
                )
            elif step > 1 and (size % step or name == "day-of-month"):
                yield Said(
                    f"*/{step} in {name} starts over with each round of the field, so the last step is shorter;"
                    f" {_EVEN_REMEDY.en}",
                    f"{name} 的 */{step} 每一轮都从头开始，最后一步因此更短；{_EVEN_REMEDY.zh}",
                )


def _at_warnings(at: datetime, window: _Window) -> Iterator[Said]:
    if at.tzinfo is not None:
        return
    early, late = (at.replace(tzinfo=window.zone, fold=fold).astimezone(UTC) for fold in (0, 1))
    if early < late:
        yield Said(
            f"{at.isoformat()} happens twice in {window.zone} (clocks go back): fires the first time;"
            f" write the offset to choose",
            f"{at.isoformat()} 在 {window.zone} 出现两次（时钟回拨）：第一次时触发；写明偏移量即可选择",
        )
    elif early > late:
        yield Said(
            f"{at.isoformat()} does not exist in {window.zone} (DST gap, clocks go forward): fires at"
            f" {window.says(early)}; write a time that exists",
            f"{at.isoformat()} 在 {window.zone} 不存在（夏令时，"
            f"时钟拨快）：将在 {window.says(early)} 触发；请写存在的时间",
        )


@dataclass(frozen=True, slots=True)
class ClockChangeHit:
    """A fire that falls where the clocks change: into hours that are missing, or into hours that happen twice."""

    wall: datetime
    """What the clock would show at the fire, without a zone."""
    moment: datetime
    """When the clocks change, in UTC."""
    is_gap: bool
    """True: the wall time does not exist; False: it happens twice."""
    fires: Literal["skipped", "later", "once", "twice"]
    """What becomes of it: in a gap `skipped` or `later`, in a fold `once` or `twice`."""


def clock_change_hits(
    trigger: CronTrigger, after: datetime, end_at: datetime | None = None
) -> Iterator[ClockChangeHit]:
    """The next missing and the next repeated time, after `after` and before `end_at`, that change what the
    schedule does. Both moments are aware."""
    yield from _clock_change_hits(trigger, _Window(zone_of(trigger.zone), after, end_at))


def _clock_change_hits(trigger: CronTrigger, window: _Window) -> Iterator[ClockChangeHit]:
    by_elapsed_time = follows_elapsed_time(trigger)
    _, _, hour, *_ = cron_fields(trigger.expression)
    every_hour = len(CronSim(f"0 {hour} * * *", _ANY_DATE).hours) == 24
    # A schedule of every hour does not miss the missing one, and by elapsed time fires on through a repeated one.
    gap_matters, fold_matters = not every_hour, not (every_hour and by_elapsed_time)
    for moment, before, after in _clock_changes(window):
        wall = moment.replace(tzinfo=None)
        hit = _first_match(trigger.expression, wall + min(before, after), wall + max(before, after))
        if hit is None:
            continue
        if after > before and gap_matters:
            skipped = trigger.dst_policy is DstPolicy.SKIP or by_elapsed_time
            yield ClockChangeHit(hit, moment, is_gap=True, fires="skipped" if skipped else "later")
            gap_matters = False
        elif after < before and fold_matters:
            yield ClockChangeHit(hit, moment, is_gap=False, fires="twice" if by_elapsed_time else "once")
            fold_matters = False


def _clock_change_warning(hit: ClockChangeHit, window: _Window) -> Said:
    instead = window.says(hit.moment)
    outcome = {
        "skipped": Said("is skipped", "被跳过"),
        "later": Said(f"fires at {instead} instead", f"改在 {instead} 触发"),
        "once": Said("only the first time", "只在第一次触发"),
        "twice": Said("both times", "两次都触发"),
    }[hit.fires]
    if hit.is_gap:
        return Said(
            f"falls in a DST gap: {hit.wall:%Y-%m-%d %H:%M} does not exist in {window.zone} (clocks go forward)"
            f" and {outcome.en}; {_CLOCK_REMEDY.en}",
            f"落在夏令时缺口：{hit.wall:%Y-%m-%d %H:%M} 在 {window.zone} 不存在（时钟拨快），"
            f"{outcome.zh}；{_CLOCK_REMEDY.zh}",
        )
    return Said(
        f"falls in a DST fold: {hit.wall:%Y-%m-%d %H:%M} happens twice in {window.zone} (clocks go back)"
        f" and fires {outcome.en}; {_CLOCK_REMEDY.en}",
        f"落在夏令时重叠：{hit.wall:%Y-%m-%d %H:%M} 在 {window.zone} 出现两次（时钟回拨），"
        f"{outcome.zh}；{_CLOCK_REMEDY.zh}",
    )


def _first_match(expression: str, start: datetime, end: datetime) -> datetime | None:
    """The first wall time in [`start`, `end`) that matches."""
    found = next(wall_times(expression, start - _SECOND), None)
    return found if found is not None and found < end else None


def _clock_changes(window: _Window) -> Iterator[tuple[datetime, timedelta, timedelta]]:
    """Changes of clocks ahead: the UTC moment, the offset before and after."""
    end = window.after + DST_HORIZON
    if window.end_at is not None:
        end = min(end, window.end_at)
    day, before = window.after, _offset(window.after, window.zone)
    while day < end:
        following = min(day + _DAY, end)
        after = _offset(following, window.zone)
        if after != before:
            yield transition_between(window.zone, day, following), before, after
        day, before = following, after


def _offset(moment: datetime, zone: ZoneInfo) -> timedelta:
    return moment.astimezone(zone).utcoffset() or timedelta()
