"""`/doctor/schedules`: what the coming days of all schedules will hurt."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

from fastapi import APIRouter, Query
from pydantic import BaseModel, Field

from app.api.auth import RuntimeOf, Viewer
from app.api.problems import documented
from app.core.language import Language
from app.scheduler.attention import Severity
from app.scheduler.doctor.findings import Finding, ScheduleFindingKind
from app.scheduler.doctor.schedules import MAX_DAYS, Report

router = APIRouter(prefix="/doctor", tags=["insight"])

NAMED = 500
"""Tasks that one finding names, at most."""


class ConcernedTask(BaseModel):
    """A task that a finding is about."""

    id: int
    name: str


class ProposedJitter(BaseModel):
    """What to set a task's `jitter_seconds` to."""

    task_id: int
    task_name: str
    current_seconds: float
    proposed_seconds: float


class ScheduleFinding(BaseModel):
    """Something that will hurt."""

    kind: ScheduleFindingKind
    severity: Severity
    sentence: str = Field(
        examples=["120 tasks fire at the same moment, 30 times, first at 2030-01-08T09:00:00+00:00: …"]
    )
    remedy: str = Field(
        examples=[
            "give 120 tasks a jitter_seconds of 60: the peak falls from 120 to 5 starts a second, over 1 minute"
        ]
    )
    at: datetime | None = Field(description="When it happens first, where it happens at a moment.")
    task_count: int
    tasks: list[ConcernedTask] = Field(description=f"The first {NAMED}.")
    peak_before: int | None = Field(description="Of a herd: starts in its busiest second.")
    peak_after: int | None = Field(description="The same with the proposed jitter; null: no jitter levels it.")
    jitter: list[ProposedJitter] = Field(description=f"The first {NAMED}.")

    @classmethod
    def of(cls, finding: Finding, language: Language, *, named: int | None = NAMED) -> ScheduleFinding:
        """`named`: how many tasks to name; None: all."""
        return cls(
            kind=finding.kind,
            severity=finding.severity,
            sentence=finding.sentence.in_(language),
            remedy=finding.remedy.in_(language),
            at=finding.at,
            task_count=len(finding.tasks),
            tasks=[ConcernedTask(id=task.id, name=task.name) for task in finding.tasks[:named]],
            peak_before=finding.peak_before,
            peak_after=finding.peak_after,
            jitter=[
                ProposedJitter(
                    task_id=one.task_id,
                    task_name=one.task_name,
                    current_seconds=one.current_seconds,
                    proposed_seconds=one.proposed_seconds,
                )
                for one in finding.jitter[:named]
            ],
        )


class ScheduleReport(BaseModel):
    """What the schedules of the coming days come to."""

    since: datetime = Field(description="When the look was taken; an answer may be a minute old.")
    until: datetime
    task_count: int = Field(description="Active tasks that were looked at.")
    fire_count: int = Field(description="Their fires in the span; `notes` says where it is an estimate.")
    findings: list[ScheduleFinding] = Field(description="Worst first.")
    notes: list[str] = Field(description="Where the look was bounded.")

    @classmethod
    def of(cls, report: Report, language: Language, *, named: int | None = NAMED) -> ScheduleReport:
        return cls(
            since=report.since,
            until=report.until,
            task_count=report.task_count,
            fire_count=report.fire_count,
            findings=[ScheduleFinding.of(finding, language, named=named) for finding in report.findings],
            notes=[note.in_(language) for note in report.notes],
        )


@router.get("/schedules", summary="What will hurt?", responses=documented())
def examine_schedules(
    runtime: RuntimeOf,
    _caller: Viewer,
    days: Annotated[int, Query(ge=1, le=MAX_DAYS, description="How far to look ahead.")] = 30,
    language: Annotated[Language, Query(description="Of the sentences.")] = "en",
) -> ScheduleReport:
    """The coming days of all active tasks: herds and the jitter that levels them, fires where clocks change, runs
    that overlap, limits that cannot be kept, tasks that never fire."""
    return ScheduleReport.of(runtime.examine_schedules(days), language)
