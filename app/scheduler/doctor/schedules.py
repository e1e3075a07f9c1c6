"""The schedule doctor: plays the coming days of all active tasks and says what will hurt."""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import Row, and_, false, func, or_, select
from sqlalchemy.orm import Session, sessionmaker

from app.core.errors import InvalidRequest, sentence_of
from app.core.language import Said, in_language
from app.models.scheduled_task import ScheduledTask
from app.models.task_execution import TaskExecution
from app.scheduler.arming import trigger_of
from app.scheduler.attention import Severity
from app.scheduler.doctor.clock_changes import clock_change_findings
from app.scheduler.doctor.findings import Finding, ScheduleFindingKind, TaskRef, counted
from app.scheduler.doctor.herds import herd_findings
from app.scheduler.doctor.load import key_findings, lanes_findings, overlap_findings, rate_findings
from app.scheduler.doctor.timetable import Timetable, Watched, tasks_on
from app.scheduler.rates import RateLimit, RateRule, rule_of, task_rule
from app.scheduler.statistics import Period, Statistics
from app.scheduler.triggers import ScheduleTrigger
from app.scheduler.windows import Unjudged, hours_of

MAX_DAYS = 366
MAX_TASKS = 100_000
"""Tasks that are looked at, the oldest first."""
FRESH_SECONDS = 60
"""So old a report may answer the same question again: a dashboard asks often, and the work takes seconds."""
_CHUNK = 1000

tasks = ScheduledTask.__table__
executions = TaskExecution.__table__


@dataclass(frozen=True, slots=True)
class Report:
    """What the schedules of a span come to."""

    since: datetime
    until: datetime
    task_count: int
    """Active tasks that were looked at."""
    fire_count: int
    """Fires in the span; an estimate where `notes` says so."""
    findings: tuple[Finding, ...]
    """Worst first."""
    notes: tuple[Said, ...]
    """Where the look was bounded, and how."""


@dataclass(frozen=True, slots=True)
class _Patients:
    """The active tasks, read."""

    timed: list[tuple[ScheduleTrigger, Watched]]
    count: int
    broken: list[tuple[TaskRef, str]]
    """Their schedule cannot be read, and why."""
    unjudged: list[str]
    """Why this process cannot judge them: one entry a task. They fire on nodes that can."""
    homeless: dict[str, list[TaskRef]]
    """By executor type: nobody is registered for it."""
    over: frozenset[int]
    """Tasks whose schedule has ended, and that have fired, or are about to: their last fire is due."""
    limited: dict[RateRule, list[int]]
    """The tasks that draw on each bucket."""


class ScheduleDoctor:
    """Reads the active tasks and their measured durations; writes nothing. Blocks for seconds where there are
    thousands of schedules: not for an event loop."""

    def __init__(self, sessions: sessionmaker[Session]) -> None:
        self._sessions = sessions
        self._lock = threading.Lock()
        self._last: tuple[tuple[object, ...], Report] | None = None

    def examine(
        self,
        now: datetime,
        *,
        days: int,
        known_types: Collection[str],
        lanes: int,
        rates: Mapping[str, RateLimit] | None = None,
    ) -> Report:
        """What the `days` after `now` bring. `lanes`: attempts that all nodes together can run at a time; `rates`:
        the rate limits of executors, by type.

        Raises:
            InvalidRequest: `days` is out of range.
        """
        if not 1 <= days <= MAX_DAYS:
            raise InvalidRequest.of("days", Said(f"days is from 1 to {MAX_DAYS}", f"天数须为 1 到 {MAX_DAYS}"))
        rates = rates or {}
        question = (days, frozenset(known_types), lanes, tuple(sorted(rates)))
        with self._lock:  # of several who ask at once, one works
            if self._last is not None:
                asked, report = self._last
                if asked == question and abs(now - report.since) < timedelta(seconds=FRESH_SECONDS):
                    return report
            report = self._examine(now, now + timedelta(days=days), known_types, lanes, rates)
            self._last = (question, report)
            return report

    def _examine(
        self,
        now: datetime,
        until: datetime,
        known_types: Collection[str],
        lanes: int,
        rates: Mapping[str, RateLimit],
    ) -> Report:
        with self._sessions() as session:
            patients = _read(session, known_types, rates, now)
        timetable = Timetable.of(patients.timed, now, until)
        measured = Statistics(self._sessions).by_task(Period.WEEK, now)
        durations = {task_id: known.durations.quantile(0.95) or 0.0 for task_id, known in measured.items()}
        found = [
            *_broken(patients),
            *_homeless(patients),
            *_silent(timetable, patients),
            *overlap_findings(timetable, measured),
            *key_findings(timetable, measured),
            *lanes_findings(timetable, measured, lanes),
            *rate_findings(timetable, patients.limited),
            *herd_findings(timetable, lanes=lanes, durations=durations),
            *clock_change_findings(timetable),
        ]
        order = list(Severity)
        return Report(
            since=now,
            until=until,
            task_count=patients.count,
            fire_count=timetable.fire_count,
            findings=tuple(sorted(found, key=lambda finding: order.index(finding.severity))),
            notes=tuple(_notes(timetable, patients)),
        )


_HAS_FIRED = (
    select(executions.c.id)
    .where(executions.c.task_id == tasks.c.id, executions.c.scheduled_for.is_not(None))
    .exists()
)


def _read(
    session: Session, known_types: Collection[str], rates: Mapping[str, RateLimit], now: datetime
) -> _Patients:
    # `last_run_at` comes when the run ends; the record of its fire is there before, and may be pruned later.
    has_fired = and_(tasks.c.exhausted_at.is_not(None), or_(tasks.c.last_run_at.is_not(None), _HAS_FIRED))
    is_due = func.coalesce(tasks.c.next_run_at <= now, false())
    columns = (*(tasks.c[name] for name in _COLUMNS), or_(has_fired, is_due).label("has_fired_or_will"))
    query = select(*columns).where(tasks.c.is_active).order_by(tasks.c.id).limit(MAX_TASKS)
    found = _Patients([], 0, [], [], {}, frozenset(), defaultdict(list))
    count, over = 0, set()
    for row in session.execute(query.execution_options(yield_per=_CHUNK)):
        count += 1
        ref = TaskRef(row.id, row.name)
        if row.task_type not in known_types:
            found.homeless.setdefault(row.task_type, []).append(ref)
        if row.has_fired_or_will:
            over.add(row.id)
        try:
            trigger, rules, watched = trigger_of(row), list(_rules_of(row, rates)), _watched(row)
        except Unjudged as error:
            found.unjudged.append(sentence_of(error))
        except InvalidRequest as error:
            found.broken.append((ref, sentence_of(error)))
        else:
            if row.schedule_error is not None:
                found.broken.append((ref, row.schedule_error))
            elif trigger is not None:
                found.timed.append((trigger, watched))
                for rule in rules:
                    found.limited[rule].append(row.id)
    return _Patients(
        found.timed, count, found.broken, found.unjudged, found.homeless, frozenset(over), found.limited
    )


def _rules_of(row: Row[Any], rates: Mapping[str, RateLimit]) -> Iterator[RateRule]:
    """The limits a task's runs are under: its executor's, and its own."""
    if row.task_type in rates:
        yield rule_of(rates[row.task_type], f"executor:{row.task_type}", row.params)
    if row.rate_limit is not None:
        yield task_rule(row.id, row.rate_limit, row.params)


_COLUMNS = (
    *("id", "name", "task_type", "jitter_seconds", "overlap_policy", "concurrency_key", "concurrency_limit"),
    *("schedule_type", "schedule_expression", "timezone", "dst_policy", "start_at", "end_at", "created_at"),
    *(
        "schedule_error",
        "params",
        "rate_limit",
        "run_window",
        "calendar",
        "closed_policy",
    ),
)


def _watched(row: Row[Any]) -> Watched:
    hours = hours_of(row.run_window, row.calendar, row.timezone)
    columns = {name: getattr(row, name) for name in Watched._fields if name != "hours"}
    return Watched(**columns, hours=hours)


def _broken(patients: _Patients) -> Iterator[Finding]:
    if patients.broken:
        number = len(patients.broken)
        first, why = patients.broken[0]
        yield Finding(
            kind=ScheduleFindingKind.UNREADABLE_SCHEDULE,
            severity=Severity.ERROR,
            tasks=tuple(ref for ref, _ in patients.broken),
            sentence=Said(
                f"the schedule of {counted(number, 'task')} cannot be read, so nothing fires;"
                f" of {first.name}: {why}",
                f"{number} 个任务的计划无法解析，不会触发；其中 {first.name}：{in_language(why, 'zh')}",
            ),
            remedy=Said(
                "change the schedule; `contenthub task show NAME` says what is wrong with each",
                "请修改计划；`contenthub task show NAME` 会说明每个任务哪里有误",
            ),
        )


def _homeless(patients: _Patients) -> Iterator[Finding]:
    for task_type, concerned in sorted(patients.homeless.items()):
        yield Finding(
            kind=ScheduleFindingKind.UNKNOWN_EXECUTOR,
            severity=Severity.ERROR,
            tasks=tuple(concerned),
            sentence=Said(
                f"no executor is registered for {task_type!r}: what {counted(len(concerned), 'task')} of it fires"
                f" is parked",
                f"没有为 {task_type!r} 注册执行器：它的 {len(concerned)} 个任务触发之后会被搁置",
            ),
            remedy=Said(
                "register it in app/factory.py, or change or pause the tasks",
                "请在 app/factory.py 中注册，或修改、暂停这些任务",
            ),
        )


def _silent(timetable: Timetable, patients: _Patients) -> Iterator[Finding]:
    silent = [task for task in tasks_on(timetable.silent()) if task.id not in patients.over]
    if silent:
        yield Finding(
            kind=ScheduleFindingKind.NEVER_FIRES,
            severity=Severity.WARNING,
            tasks=tuple(TaskRef(task.id, task.name) for task in silent),
            sentence=Said(
                f"{counted(len(silent), 'active task')} will never fire: no date matches, their time is over,"
                " or they are closed whenever they would",
                f"{len(silent)} 个启用的任务永远不会触发：没有符合的日期、时间已过，或每次触发时都不开放",
            ),
            remedy=Said(
                "change the schedule, its end_at, run_window or calendar, or pause or delete the tasks",
                "请修改计划、end_at、run_window 或 calendar，或暂停、删除这些任务",
            ),
        )


def _notes(timetable: Timetable, patients: _Patients) -> Iterator[Said]:
    cut = [rhythm for rhythm in timetable.rhythms if not rhythm.is_whole]
    if cut:
        shortest = f"{min(rhythm.until for rhythm in cut).astimezone(UTC):%Y-%m-%d %H:%M} UTC"
        yield Said(
            f"{counted(len(cut), 'schedule')} fire too often to be followed to the end: herds that only they make"
            f" are looked for up to {shortest}, and their fires are an estimate",
            f"{len(cut)} 个计划触发太频繁，无法跟到最后：只由它们造成的拥挤看到 {shortest} 为止，"
            f"它们的触发次数是估计值",
        )
    if patients.unjudged:
        number, why = len(patients.unjudged), patients.unjudged[0]
        yield Said(
            f"{counted(number, 'task')} could not be looked at here, only nodes that can judge them fire them:"
            f" {why}",
            f"{number} 个任务在这里无法判断，只在能判断的节点上触发：{in_language(why, 'zh')}",
        )
    if patients.count == MAX_TASKS:
        yield Said(
            f"only the {MAX_TASKS:,} oldest active tasks were looked at", f"只看了最早的 {MAX_TASKS} 个启用的任务"
        )
