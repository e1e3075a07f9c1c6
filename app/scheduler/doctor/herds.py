"""Herds: many starts in one second; and the jitter that levels them.

The delay of a start is a hash of (task, moment), see `jitter_of`, so what a jitter would do needs no guess: the
starts around a moment are counted as they would be. What fires every few seconds is a steady load and no part of
a herd.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from app.core.language import Said
from app.scheduler.attention import Severity
from app.scheduler.description import say_duration
from app.scheduler.doctor.findings import Finding, JitterProposal, ScheduleFindingKind, TaskRef, counted
from app.scheduler.doctor.timetable import Rhythm, Timetable, Watched
from app.scheduler.triggers import jitter_of

HERD = 20
"""Starts in one second that are worth a word."""
LEVEL = 5
"""Starts in one second that a proposal aims at."""
MAX_JITTER_SECONDS = 900
_LADDER = (5, 10, 20, 30, 60, 120, 300, 600, MAX_JITTER_SECONDS)
_SAMPLED = 5
"""Moments of a herd that comes again and again at which a proposal is tried."""
STEADY_SECONDS = 5
"""What fires at least this often is no part of a herd: it starts in every second anyway."""
_REPORTED = 5
"""Herds that are told of one by one."""
_CONSIDERED = 200
_MOST = 0.8
"""Of a herd's starts: so much is enough to say whose herd it is."""
_NEAR_BEST = 1.25
_SECOND = timedelta(seconds=1)

Jitters = Mapping[int, float]
"""By task id: the jitter it would have, in seconds; the others keep theirs."""


@dataclass(frozen=True, slots=True)
class Herd:
    """Schedules that fire in the same second, once or again and again."""

    rhythms: tuple[Rhythm, ...]
    moments: tuple[datetime, ...]
    """The seconds in which they do, ascending."""
    sample: tuple[datetime, ...]
    """Those at which a proposal is tried."""
    size: int
    """Starts in the fullest of them, about."""


def find_herds(timetable: Timetable) -> list[Herd]:
    """The herds of a timetable, largest first."""
    rhythms = _restless(timetable)
    # A jitter spreads what a fire adds to its own second over the following ones.
    densities = [sum(1 / max(1.0, task.jitter_seconds) for task in rhythm.tasks) for rhythm in rhythms]
    weights: dict[int, float] = defaultdict(float)
    for rhythm, density in zip(rhythms, densities, strict=True):
        for fire in rhythm.fires:
            weights[_second(fire)] += density
    crowded = {second for second, weight in weights.items() if weight >= HERD}
    together: dict[int, list[int]] = defaultdict(list)
    for number, rhythm in enumerate(rhythms):
        for second in {_second(fire) for fire in rhythm.fires} & crowded:
            together[second].append(number)
    patterns: dict[tuple[int, ...], list[int]] = defaultdict(list)
    for second, numbers in sorted(together.items()):
        patterns[_core(numbers, densities, weights[second])].append(second)
    herds = []
    for seconds in patterns.values():
        sample = _sample(seconds)
        members = sorted({number for second in sample for number in together[second]})
        herds.append(
            Herd(
                rhythms=tuple(rhythms[number] for number in members),
                moments=tuple(map(_moment, seconds)),
                sample=tuple(map(_moment, sample)),
                size=round(max(weights[second] for second in seconds)),
            )
        )
    return sorted(herds, key=lambda herd: (-herd.size, herd.moments[0]))


def _merged(herds: Sequence[Herd]) -> Herd:
    """Several herds, largest first, as one."""
    return Herd(
        rhythms=tuple({id(rhythm): rhythm for herd in herds for rhythm in herd.rhythms}.values()),
        moments=tuple(sorted(moment for herd in herds for moment in herd.moments)),
        sample=tuple(herd.sample[0] for herd in herds[:_SAMPLED]),
        size=herds[0].size,
    )


def _restless(timetable: Timetable) -> list[Rhythm]:
    return [
        rhythm
        for rhythm in timetable.rhythms
        if rhythm.shortest_gap is None or rhythm.shortest_gap > STEADY_SECONDS
    ]


def _core(numbers: list[int], densities: Sequence[float], weight: float) -> tuple[int, ...]:
    """Of the rhythms that meet in a second, those that make the herd: without the few that happen to come by,
    which are others each time."""
    core = tuple(number for number in numbers if densities[number] >= 2)
    return core if sum(densities[number] for number in core) >= _MOST * weight else tuple(numbers)


def peak_around(timetable: Timetable, moment: datetime, jitters: Jitters, span_seconds: float = 0) -> int:
    """Starts in the busiest second of [`moment`, `moment` + 1 s + `span_seconds`), counted one by one."""
    end = moment + _SECOND + timedelta(seconds=span_seconds)
    starts: Counter[int] = Counter()
    for rhythm in _restless(timetable):
        longest = max(jitters.get(task.id, task.jitter_seconds) for task in rhythm.tasks)
        hours = rhythm.pattern.hours
        for fire in rhythm.fires_in(moment - timedelta(seconds=longest), end):
            room = hours.open_for(fire, longest) if hours is not None and longest else longest
            for task in rhythm.tasks:
                jitter = min(jitters.get(task.id, task.jitter_seconds), room)
                start = fire + jitter_of(task.id, fire, jitter) if jitter else fire
                if moment <= start < end:
                    starts[_second(start)] += 1
    return max(starts.values(), default=0)


@dataclass(frozen=True, slots=True)
class Levelling:
    """A jitter for the tasks of a herd, and what it does to its peak."""

    jitters: dict[int, float]
    before: int
    after: int


def level(
    timetable: Timetable, herd: Herd, planned: Jitters, durations: Mapping[int, float] | None = None
) -> Levelling | None:
    """The shortest jitter that brings the herd down to about `LEVEL` starts a second, or near the best there is;
    None: no jitter lowers its peak.

    `planned`: what other herds' tasks get already. `durations`: seconds a run takes, by task id; no task gets a
    jitter that could bring a start so close to the next fire that the run would not have ended.
    """
    before = max(peak_around(timetable, moment, planned) for moment in herd.sample)
    tried: list[Levelling] = []
    for seconds in _LADDER:
        jitters = dict(_capped(herd, seconds, planned, durations or {}))
        if not jitters or (tried and jitters == tried[-1].jitters):
            continue
        plan = {**planned, **jitters}
        after = max(peak_around(timetable, moment, plan, max(jitters.values())) for moment in herd.sample)
        tried.append(Levelling(jitters, before, after))
        if after <= LEVEL:
            break
    if not tried:
        return None
    best = min(levelling.after for levelling in tried)
    found = next(levelling for levelling in tried if levelling.after <= max(LEVEL, best * _NEAR_BEST))
    return found if found.after < before else None


def _capped(
    herd: Herd, seconds: float, planned: Jitters, durations: Mapping[int, float]
) -> Iterator[tuple[int, float]]:
    """`seconds` for each task of the herd, less where it fires often, and only where that is more than it has."""
    for rhythm in herd.rhythms:
        for task in rhythm.tasks:
            room = float(MAX_JITTER_SECONDS)
            if rhythm.shortest_gap is not None:
                room = (rhythm.shortest_gap - durations.get(task.id, 0)) // 2
            wanted = min(seconds, room)
            if wanted > planned.get(task.id, task.jitter_seconds):
                yield task.id, wanted


def herd_findings(
    timetable: Timetable, *, lanes: int, durations: Mapping[int, float] | None = None
) -> list[Finding]:
    """The largest herds one by one, and all others as one, each with the jitter that levels it. A herd that an
    earlier one's jitter levels too is not told of again."""
    findings: list[Finding] = []
    planned: dict[int, float] = {}

    def report(herd: Herd, *, others: bool = False) -> None:
        levelling = level(timetable, herd, planned, durations)
        before = max(peak_around(timetable, moment, planned) for moment in herd.sample)
        if levelling is not None:
            planned.update(levelling.jitters)
        findings.append(_finding(herd, levelling, before, lanes, others=others))

    rest: list[Herd] = []
    for herd in find_herds(timetable)[:_CONSIDERED]:
        if planned and max(peak_around(timetable, moment, planned) for moment in herd.sample) < HERD:
            continue
        if len(findings) < _REPORTED:
            report(herd)
        else:
            rest.append(herd)
    if rest:
        report(_merged(rest), others=True)
    return findings


def _finding(herd: Herd, levelling: Levelling | None, before: int, lanes: int, *, others: bool) -> Finding:
    tasks = [task for rhythm in herd.rhythms for task in rhythm.tasks]
    first = herd.moments[0].isoformat(timespec="seconds")
    at_least = not all(rhythm.is_whole for rhythm in herd.rhythms)
    times = f"{'at least ' if at_least else ''}{counted(len(herd.moments), 'time')}"
    times_zh = f"{'至少' if at_least else ''} {len(herd.moments)} 次"
    who = Said("smaller herds of " if others else "", "另有较小的拥挤：" if others else "")
    starts = Said(
        f"{counted(before, 'start')} in one second, and {counted(lanes, 'lane')} to run them",
        f"一秒内开始 {before} 个，而运行的车道有 {lanes} 条",
    )
    return Finding(
        kind=ScheduleFindingKind.HERD,
        severity=Severity.WARNING if before > lanes else Severity.INFO,
        tasks=tuple(TaskRef(task.id, task.name) for task in tasks),
        at=herd.moments[0],
        sentence=Said(
            f"{who.en}{counted(len(tasks), 'task')} fire at the same moment, {times}, first at {first}:"
            f" {'up to ' if others else ''}{starts.en}",
            f"{who.zh}{len(tasks)} 个任务在同一时刻触发，{times_zh}，首次在 {first}：{starts.zh}",
        ),
        remedy=_remedy(levelling),
        peak_before=before,
        peak_after=levelling.after if levelling is not None else None,
        jitter=tuple(_proposals(tasks, levelling.jitters if levelling is not None else {})),
    )


def _remedy(levelling: Levelling | None) -> Said:
    if levelling is None:
        return Said(
            "they fire too often for a jitter to help: let some fire in other minutes or seconds",
            "它们触发得太频繁，抖动帮不上忙：请让其中一些在别的分钟或秒触发",
        )
    longest = max(levelling.jitters.values())
    fewer = sum(jitter < longest for jitter in levelling.jitters.values())
    less = Said(f" ({fewer} that fire often get less)", f"（其中 {fewer} 个触发频繁的较短）")
    return Said(
        f"give {counted(len(levelling.jitters), 'task')} a jitter_seconds of {longest:g}"
        f"{less.en if fewer else ''}: the peak falls from {levelling.before} to {levelling.after} starts a second,"
        f" over {say_duration(longest)}",
        f"为 {len(levelling.jitters)} 个任务设置 jitter_seconds = {longest:g}{less.zh if fewer else ''}："
        f"峰值从每秒 {levelling.before} 个降到 {levelling.after} 个，分散在 {say_duration(longest, 'zh')} 内",
    )


def _proposals(tasks: Sequence[Watched], jitters: Jitters) -> Iterator[JitterProposal]:
    for task in tasks:
        if task.id in jitters:
            yield JitterProposal(task.id, task.name, task.jitter_seconds, jitters[task.id])


def _second(moment: datetime) -> int:
    return int(moment.timestamp())


def _moment(second: int) -> datetime:
    return datetime.fromtimestamp(second, UTC)


def _sample(seconds: Sequence[int]) -> Sequence[int]:
    """Up to `_SAMPLED` of them, the first and the last included."""
    if len(seconds) <= _SAMPLED:
        return seconds
    return [seconds[round(number * (len(seconds) - 1) / (_SAMPLED - 1))] for number in range(_SAMPLED)]
