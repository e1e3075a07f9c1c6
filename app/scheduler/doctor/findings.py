"""What the schedule doctor may find, and how it says so."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from app.core.language import Said
from app.scheduler.attention import Severity


class ScheduleFindingKind(StrEnum):
    """Stable words for what will hurt."""

    UNREADABLE_SCHEDULE = "unreadable_schedule"
    UNKNOWN_EXECUTOR = "unknown_executor"
    NEVER_FIRES = "never_fires"
    OVERLAP = "overlap"
    KEY_OVERLOAD = "key_overload"
    LANES_OVERLOAD = "lanes_overload"
    RATE_LIMIT = "rate_limit"
    HERD = "herd"
    DST_GAP = "dst_gap"
    DST_FOLD = "dst_fold"


@dataclass(frozen=True, slots=True)
class TaskRef:
    """A task that a finding is about."""

    id: int
    name: str


@dataclass(frozen=True, slots=True)
class JitterProposal:
    """The jitter that would level a task's herd; never less than it has."""

    task_id: int
    task_name: str
    current_seconds: float
    proposed_seconds: float


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that will hurt: whom, how, and what to do about it."""

    kind: ScheduleFindingKind
    severity: Severity
    tasks: tuple[TaskRef, ...]
    sentence: Said
    remedy: Said
    at: datetime | None = None
    """When it happens first, where it happens at a moment."""
    peak_before: int | None = None
    """Starts in the busiest second as things are; herds only."""
    peak_after: int | None = None
    """The same with the proposed jitter; None: no jitter levels it."""
    jitter: tuple[JitterProposal, ...] = ()


def counted(number: int, noun: str) -> str:
    """`1 task`, `2 tasks`."""
    return f"{number:,} {noun}" + ("" if number == 1 else "s")
