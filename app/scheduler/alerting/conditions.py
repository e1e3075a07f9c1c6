"""What a rule watches for. A condition is a value; whether it is met is a function of what was observed."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from app.core.errors import InvalidRequest
from app.core.validation import message_of
from app.models.task_execution import ExecutionState

_YEAR = 366 * 86_400

Seconds = Annotated[float, Field(gt=0, le=_YEAR, allow_inf_nan=False, strict=True)]


class _Condition(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Failed(_Condition):
    """A task's last `times` runs have all failed. A run that was skipped or cancelled is none, and neither is one
    of a backfill; one that somebody started by hand counts."""

    type: Literal["failed"] = "failed"
    times: int = Field(default=1, ge=1, le=100, strict=True)


class Late(_Condition):
    """A fire is due for more than `seconds` and not recorded, or what it recorded waits for so long: for a lane, a
    rate limit or an open circuit. What a backfill recorded waits for its turn, and is not late."""

    type: Literal["late"] = "late"
    seconds: Seconds = 300


class Slow(_Condition):
    """A run takes longer than `factor` times what 99 of 100 of the task's last runs took (p99).

    Nothing is called slow before `at_least_seconds`, or while fewer than `least_runs` runs were measured.
    """

    type: Literal["slow"] = "slow"
    factor: float = Field(default=2, ge=1, le=1000, allow_inf_nan=False, strict=True)
    at_least_seconds: float = Field(default=60, ge=0, le=_YEAR, allow_inf_nan=False, strict=True)
    least_runs: int = Field(default=10, ge=1, le=100_000, strict=True)


class NoSuccess(_Condition):
    """No run of a task, but for backfills, has succeeded for `seconds`. One that is new, or was changed, has that
    long from then.

    A rule for all tasks means those with a schedule.
    """

    type: Literal["no_success"] = "no_success"
    seconds: Seconds = 86_400


class Parked(_Condition):
    """At least `count` executions are parked: nobody runs them until something is mended."""

    type: Literal["parked"] = "parked"
    count: int = Field(default=1, ge=1, le=1_000_000, strict=True)


Condition = Annotated[Failed | Late | Slow | NoSuccess | Parked, Field(discriminator="type")]
_STORED: TypeAdapter[Failed | Late | Slow | NoSuccess | Parked] = TypeAdapter(Condition)


def stored_condition(kind: str, numbers: dict[str, Any]) -> Failed | Late | Slow | NoSuccess | Parked:
    """The condition in the two columns, by code or by plain SQL.

    Raises:
        InvalidRequest: naming `condition`; the columns cannot be read.
    """
    try:
        return _STORED.validate_python({**numbers, "type": kind})
    except ValidationError as error:
        raise InvalidRequest.of("condition", message_of(error.errors(include_input=False)[0])) from None


@dataclass(frozen=True, slots=True)
class Subject:
    """What an alert is about: a task, or the executions of one type that belong to no task."""

    key: str
    task_id: int | None
    name: str

    @classmethod
    def task(cls, task_id: int, name: str) -> Subject:
        return cls(f"task:{task_id}", task_id, name)

    @classmethod
    def task_type(cls, task_type: str) -> Subject:
        return cls(f"type:{task_type}", None, task_type)


@dataclass(frozen=True, slots=True)
class Breach:
    """A condition that is met, and the numbers that say so."""

    subject: Subject
    details: dict[str, Any]


def failures_in_a_row(newest_first: Sequence[str]) -> int:
    """How many of the newest runs, given by their states, have failed without a success in between."""
    count = 0
    for state in newest_first:
        if state == ExecutionState.SUCCESS:
            break
        count += state == ExecutionState.FAILED
    return count


def p99_of(durations: Sequence[float]) -> float:
    """What 99 of 100 of these did not exceed. There must be some."""
    return sorted(durations)[math.ceil(0.99 * len(durations)) - 1]


def slow_after(condition: Slow, durations: Sequence[float]) -> float | None:
    """Seconds after which a run counts as slow, from how long earlier ones took; None: too little is known."""
    if len(durations) < condition.least_runs:
        return None
    return max(condition.factor * p99_of(durations), condition.at_least_seconds)
