"""What the tables say as a whole: statistics, fires to come, what needs attention."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated

from fastapi import APIRouter, Query

from app.api.auth import RuntimeOf, Viewer
from app.api.problems import documented
from app.api.schemas import (
    CalendarAnswer,
    ExecutorStatistics,
    FindingAnswer,
    FireAnswer,
    LoadAnswer,
    PointAnswer,
    SearchText,
    StatisticsAnswer,
    SummaryAnswer,
)
from app.scheduler.statistics import Period

router = APIRouter(tags=["insight"])

InPeriod = Annotated[Period, Query(description="How far back, from now.")]


@router.get("/attention", summary="What needs attention?", responses=documented())
def list_findings(runtime: RuntimeOf, _caller: Viewer) -> list[FindingAnswer]:
    """What a person should look at first, worst first: late fires, failing tasks, dead nodes …"""
    return [FindingAnswer.model_validate(finding) for finding in runtime.findings()]


@router.get("/statistics", summary="How did it go?", responses=documented())
def get_statistics(
    runtime: RuntimeOf,
    _caller: Viewer,
    period: InPeriod = Period.DAY,
    task_id: Annotated[int | None, Query(ge=1, lt=2**63, description="Of this task.")] = None,
    task_type: Annotated[SearchText | None, Query(description="Of this executor type.")] = None,
) -> StatisticsAnswer:
    """Executions that ended in the last hour, day or week, by state and step, with durations."""
    found = runtime.statistics.series(period, runtime.clock.now(), task_id=task_id, task_type=task_type)
    return StatisticsAnswer(
        period=period,
        since=found.since,
        step_seconds=round(period.step.total_seconds()),
        summary=SummaryAnswer.of(found.summary),
        points=[PointAnswer(at=point.at, states=dict(point.states)) for point in found.points],
    )


@router.get("/statistics/executors", summary="How did each executor do?", responses=documented())
def get_executor_statistics(
    runtime: RuntimeOf, _caller: Viewer, period: InPeriod = Period.DAY
) -> list[ExecutorStatistics]:
    """What ended in the period, by executor type."""
    found = runtime.statistics.by_type(period, runtime.clock.now())
    return [
        ExecutorStatistics(task_type=task_type, **SummaryAnswer.of(summary).model_dump())
        for task_type, summary in sorted(found.items())
    ]


@router.get("/fires", summary="What fires next?", responses=documented())
def list_fires(
    runtime: RuntimeOf,
    _caller: Viewer,
    limit: Annotated[int, Query(ge=1, le=200, description="How many fires.")] = 20,
    per_task: Annotated[
        int | None, Query(ge=1, le=200, description="Of each task at most so many; else one may have them all.")
    ] = None,
) -> list[FireAnswer]:
    """The next fires of all active tasks, in order."""
    return [FireAnswer.model_validate(fire) for fire in runtime.upcoming.fires(limit, per_task=per_task)]


@router.get("/calendar", summary="What fires when?", responses=documented())
def get_calendar(
    runtime: RuntimeOf,
    _caller: Viewer,
    hours: Annotated[int, Query(ge=1, le=168, description="How far ahead.")] = 168,
    limit: Annotated[int, Query(ge=1, le=500, description="How many tasks.")] = 200,
    minute: Annotated[
        int, Query(ge=0, le=59, description="At which minute of an hour of UTC an hour begins: in India at 30.")
    ] = 0,
) -> CalendarAnswer:
    """The fires of each hour to come, by task; the first hour is the one that runs now."""
    now = runtime.clock.now()
    since = now.replace(minute=minute, second=0, microsecond=0)
    if since > now:
        since -= timedelta(hours=1)
    loads, total = runtime.upcoming.load(since, hours, limit)
    return CalendarAnswer(
        since=since, hours=hours, tasks=[LoadAnswer.model_validate(load) for load in loads], task_count=total
    )
