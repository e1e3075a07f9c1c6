"""More work than time: runs that overlap, keys, lanes and rate limits that cannot keep up.

Rates come from the schedules, durations from what was measured; a task that has not run lately is taken for free.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping

from app.core.language import Said
from app.scheduler.attention import Severity
from app.scheduler.description import say_duration
from app.scheduler.doctor.findings import Finding, ScheduleFindingKind, TaskRef, counted
from app.scheduler.doctor.timetable import Rhythm, Timetable, Watched
from app.scheduler.rates import RateRule
from app.scheduler.statistics import Measured

FEWEST_RUNS = 3
"""Runs that must have been measured before a duration counts."""
TIGHT = 0.8
"""The share of what there is from which on it is worth a word."""
_OVERLAP_OUTCOMES = {
    "skip": Said("the next fire is skipped then", "那时下一次触发会被跳过"),
    "queue": Said("the next fire waits then", "那时下一次触发要等待"),
    "allow": Said("several run at the same time then", "那时会同时运行几个"),
    "cancel_running": Said("the next fire ends it then, before it is done", "那时下一次触发会在它完成之前结束它"),
}


def overlap_findings(timetable: Timetable, measured: Mapping[int, Measured]) -> Iterator[Finding]:
    """Tasks whose slow runs (one of twenty) take longer than the time to their next fire."""
    for rhythm in timetable.rhythms:
        gap = rhythm.shortest_gap
        for task in rhythm.tasks if gap is not None else ():
            known = measured.get(task.id)
            if known is None or known.runs < FEWEST_RUNS or gap is None:
                continue
            slow = known.durations.quantile(0.95) or 0.0
            if slow > gap:
                yield _overlap(task, gap, slow, is_usual=known.mean_seconds > gap)


def _overlap(task: Watched, gap: float, slow: float, *, is_usual: bool) -> Finding:
    outcome = _OVERLAP_OUTCOMES[task.overlap_policy]
    severe = is_usual or task.overlap_policy == "cancel_running"
    return Finding(
        kind=ScheduleFindingKind.OVERLAP,
        severity=Severity.ERROR if severe else Severity.WARNING,
        tasks=(TaskRef(task.id, task.name),),
        sentence=Said(
            f"{task.name} fires every {say_duration(gap)} at its closest, but one run of twenty takes"
            f" {say_duration(round(slow, 1))} or more{' (and the average is longer, too)' if is_usual else ''}:"
            f" {outcome.en}",
            f"{task.name} 最密时每 {say_duration(gap, 'zh')} 触发一次，而每二十次运行就有一次需要"
            f" {say_duration(round(slow, 1), 'zh')} 以上{'（平均也更久）' if is_usual else ''}：{outcome.zh}",
        ),
        remedy=Said(
            "fire less often, make it faster, or set a timeout_seconds below the interval",
            "请降低频率、加快运行，或设置小于间隔的 timeout_seconds",
        ),
    )


def key_findings(timetable: Timetable, measured: Mapping[int, Measured]) -> Iterator[Finding]:
    """Concurrency keys whose tasks need more places than the key has."""
    under: dict[str, list[tuple[Watched, float]]] = defaultdict(list)
    for rhythm in timetable.rhythms:
        for task in rhythm.tasks:
            if task.concurrency_key is not None:
                under[task.concurrency_key].append((task, _busy(rhythm, task, measured)))
    for key, tasks in sorted(under.items()):
        limit = max(task.concurrency_limit or 1 for task, _ in tasks)
        needed = sum(busy for _, busy in tasks)
        if needed < TIGHT * limit:
            continue
        yield Finding(
            kind=ScheduleFindingKind.KEY_OVERLOAD,
            severity=Severity.ERROR if needed > limit else Severity.WARNING,
            tasks=tuple(TaskRef(task.id, task.name) for task, busy in tasks if busy),
            sentence=Said(
                f"the concurrency key {key} has {counted(limit, 'place')}, and its tasks need {needed:.1f} on"
                f" average: {_outcome(needed, limit).en}",
                f"并发键 {key} 有 {limit} 个名额，而它的任务平均需要 {needed:.1f} 个："
                f"{_outcome(needed, limit).zh}",
            ),
            remedy=Said(
                "raise concurrency_limit, fire less often, or split the key",
                "请提高 concurrency_limit、降低频率，或拆分这个键",
            ),
        )


def lanes_findings(timetable: Timetable, measured: Mapping[int, Measured], lanes: int) -> Iterator[Finding]:
    """Whether all tasks together need more lanes than the nodes have."""
    needs = [(_busy(rhythm, task, measured), task) for rhythm in timetable.rhythms for task in rhythm.tasks]
    needed = sum(busy for busy, _ in needs)
    if needed < TIGHT * lanes:
        return
    heaviest = sorted(needs, key=lambda need: -need[0])[:10]
    yield Finding(
        kind=ScheduleFindingKind.LANES_OVERLOAD,
        severity=Severity.ERROR if needed > lanes else Severity.WARNING,
        tasks=tuple(TaskRef(task.id, task.name) for busy, task in heaviest if busy),
        sentence=Said(
            f"all schedules together keep {needed:.1f} lanes busy on average, and there are {lanes}:"
            f" {_outcome(needed, lanes).en}",
            f"所有计划平均占用 {needed:.1f} 条车道，而共有 {lanes} 条：{_outcome(needed, lanes).zh}",
        ),
        remedy=Said(
            "raise SCHEDULER_CONCURRENCY, start more nodes, or fire the heaviest tasks less often",
            "请提高 SCHEDULER_CONCURRENCY、增加节点，或降低最重的任务的频率",
        ),
    )


def rate_findings(timetable: Timetable, rules: Mapping[RateRule, Collection[int]]) -> Iterator[Finding]:
    """Rate limits below what the schedules ask for. `rules`: the ids of the tasks that draw on each bucket."""
    rates = {task.id: (rhythm.rate, task) for rhythm in timetable.rhythms for task in rhythm.tasks}
    for rule, task_ids in rules.items():
        permits, per_seconds = rule.limit.limit, rule.limit.per_seconds
        concerned = [rates[task_id] for task_id in sorted(task_ids) if task_id in rates]
        wanted = sum(rate for rate, _ in concerned) * per_seconds
        if wanted < TIGHT * permits:
            continue
        period = Said(say_duration(per_seconds), say_duration(per_seconds, "zh"))
        yield Finding(
            kind=ScheduleFindingKind.RATE_LIMIT,
            severity=Severity.ERROR if wanted > permits else Severity.WARNING,
            tasks=tuple(TaskRef(task.id, task.name) for _, task in concerned),
            sentence=Said(
                f"the rate limit {rule.bucket} allows {counted(permits, 'start')} in {period.en}, and the"
                f" schedules ask for {wanted:.1f}: {_outcome(wanted, permits).en}",
                f"速率限制 {rule.bucket} 每 {period.zh} 允许 {permits} 次开始，而计划要求 {wanted:.1f} 次："
                f"{_outcome(wanted, permits).zh}",
            ),
            remedy=Said("raise the limit, or fire less often", "请提高限制，或降低频率"),
        )


def _busy(rhythm: Rhythm, task: Watched, measured: Mapping[int, Measured]) -> float:
    """How many runs of the task are under way on average."""
    known = measured.get(task.id)
    return rhythm.rate * known.mean_seconds if known is not None and known.runs >= FEWEST_RUNS else 0.0


def _outcome(needed: float, there: float) -> Said:
    if needed > there:
        return Said("the queue grows without end", "队列会无止境地增长")
    return Said("a little more, and the queue grows", "再多一点，队列就会增长")
