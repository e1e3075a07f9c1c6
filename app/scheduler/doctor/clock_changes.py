"""Fires that fall where clocks change."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from datetime import datetime
from typing import NamedTuple

from app.core.language import Said
from app.scheduler.attention import Severity
from app.scheduler.doctor.findings import Finding, ScheduleFindingKind, TaskRef, counted
from app.scheduler.doctor.timetable import Timetable, Watched
from app.scheduler.preview import clock_change_hits
from app.scheduler.schedules import zone_of
from app.scheduler.triggers import Bounded, CronTrigger, ScheduleTrigger

_OUTCOMES = {
    "skipped": Said("are skipped", "会被跳过"),
    "later": Said("run right after the change", "改在换时之后立即运行"),
    "once": Said("run the first time only", "只在第一次运行"),
    "twice": Said("run both times", "两次都运行"),
}


class _Change(NamedTuple):
    zone: str
    moment: datetime
    is_gap: bool
    fires: str


def clock_change_findings(timetable: Timetable) -> Iterator[Finding]:
    """One finding for each change of clocks and what becomes of the fires in it, soonest first."""
    hit: dict[_Change, list[tuple[datetime, Watched]]] = defaultdict(list)
    for rhythm in timetable.rhythms:
        trigger, hours = _cron_of(rhythm.pattern.trigger), rhythm.pattern.hours
        for found in clock_change_hits(trigger, timetable.since, timetable.until) if trigger else ():
            if hours is not None and not hours.is_open(found.moment):
                continue
            change = _Change(trigger.zone, found.moment, found.is_gap, found.fires)  # type: ignore[union-attr]
            hit[change] += [(found.wall, task) for task in rhythm.tasks]
    for change, concerned in sorted(hit.items(), key=lambda item: item[0].moment):
        yield _finding(change, concerned)


def _cron_of(trigger: ScheduleTrigger) -> CronTrigger | None:
    if isinstance(trigger, Bounded):
        trigger = trigger.trigger
    return trigger if isinstance(trigger, CronTrigger) else None


def _finding(change: _Change, concerned: list[tuple[datetime, Watched]]) -> Finding:
    wall, example = concerned[0]
    outcome = _OUTCOMES[change.fires]
    moment = change.moment.astimezone(zone_of(change.zone)).isoformat(timespec="seconds")
    number = len(concerned)
    hurts = change.fires in ("skipped", "twice")
    if change.is_gap:
        what = Said("which does not exist (clocks go forward)", "而这一时间不存在（时钟拨快）")
    else:
        what = Said("which happens twice (clocks go back)", "而这一时间出现两次（时钟回拨）")
    return Finding(
        kind=ScheduleFindingKind.DST_GAP if change.is_gap else ScheduleFindingKind.DST_FOLD,
        severity=Severity.WARNING if hurts else Severity.INFO,
        tasks=tuple(TaskRef(task.id, task.name) for _, task in concerned),
        at=change.moment,
        sentence=Said(
            f"fires of {counted(number, 'task')} in {change.zone} fall into the change of clocks at {moment} and"
            f" {outcome.en}; {example.name} is meant for {wall:%Y-%m-%d %H:%M}, {what.en}",
            f"{change.zone} 的 {number} 个任务的触发落在 {moment} 的换时，{outcome.zh}；"
            f"例如 {example.name} 应在 {wall:%Y-%m-%d %H:%M} 触发，{what.zh}",
        ),
        remedy=Said("choose a time outside the change, or the zone UTC", "请避开换时的时段，或使用 UTC 时区"),
    )
