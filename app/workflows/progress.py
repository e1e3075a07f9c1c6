"""How far a workflow is: what its children have come to, step by step. Values, made by the planner."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any

from app.models.task_execution import FINAL_STATES, Execution, ExecutionState
from app.workflows.definition import StepDefinition

UNDO = "compensate:"
"""Beginning of the keys of executions that undo a step."""


class StepState(StrEnum):
    """Where a step stands. What it comes to is one of the last three."""

    WAITING = "waiting"
    RUNNING = "running"
    SUCCESS = "success"
    FAILED = "failed"
    SKIPPED = "skipped"

    @property
    def is_over(self) -> bool:
        return self in (StepState.SUCCESS, StepState.FAILED, StepState.SKIPPED)


@dataclass(frozen=True, slots=True)
class Child:
    """A child execution as the planner sees it."""

    id: int
    state: ExecutionState
    data: dict[str, Any] | None = None
    message: str | None = None
    error: str | None = None
    finished_at: datetime | None = None

    @classmethod
    def of(cls, execution: Execution) -> Child:
        return cls(
            execution.id,
            execution.state,
            (execution.result or {}).get("data"),
            execution.message,
            execution.error or execution.reason,
            execution.finished_at,
        )

    @property
    def is_over(self) -> bool:
        return self.state in FINAL_STATES


@dataclass(frozen=True, slots=True)
class Run:
    """One run of a step: the step itself, or one item of its fan-out."""

    key: str
    state: StepState
    execution_id: int | None = None
    data: dict[str, Any] | None = None
    message: str | None = None
    error: str | None = None
    finished_at: datetime | None = None

    @classmethod
    def of(cls, key: str, child: Child) -> Run:
        if not child.is_over:
            return cls(key, StepState.RUNNING, child.id)
        if child.state is ExecutionState.SUCCESS:
            return cls(key, StepState.SUCCESS, child.id, child.data, child.message, finished_at=child.finished_at)
        error = child.error or child.state.value.capitalize()
        return cls(key, StepState.FAILED, child.id, child.data, child.message, error, child.finished_at)

    def as_value(self) -> dict[str, Any]:
        """What expressions and results have of it."""
        return {
            "state": self.state.value,
            "execution_id": self.execution_id,
            "data": self.data,
            "message": self.message,
            "error": self.error,
        }


@dataclass(frozen=True, slots=True)
class StepProgress:
    """A step, its state, and its runs. `error` is of the step itself: its expressions, not its executions.

    `ends_all`: it has failed in a way that its `on_failure` does not cover, and the workflow fails with it.
    """

    step: StepDefinition
    state: StepState
    runs: tuple[Run, ...] = ()
    error: str | None = None
    ends_all: bool = False

    @property
    def is_over(self) -> bool:
        return self.state.is_over

    @property
    def finished_at(self) -> datetime | None:
        """When its last successful run ended."""
        ended = [run.finished_at for run in self.runs if run.state is StepState.SUCCESS]
        return max((moment for moment in ended if moment is not None), default=None)

    @property
    def has_effect(self) -> bool:
        """Whether a run of it has succeeded, so that there is something to undo."""
        return any(run.state is StepState.SUCCESS for run in self.runs)

    def as_result(self) -> dict[str, Any]:
        """What the workflow's result has of it: each thing once, for that result may be part of another one's. So
        the items of a fan-out have no `data`, which is in that of the step."""
        value = self.as_value()
        if value["items"] is None:
            return value
        items = [{name: of for name, of in item.items() if name != "data"} for item in value["items"]]
        return value | {"data": [item["data"] for item in value["items"]], "items": items}

    def first_error(self) -> str | None:
        return self.error or next((run.error for run in self.runs if run.error is not None), None)

    def as_value(self) -> dict[str, Any]:
        """What expressions and results have of it. Of a fan-out `data` is a list, an entry an item."""
        if self.step.for_each is None and self.runs:
            (run,) = self.runs
            return run.as_value() | {"state": self.state.value, "items": None}
        items = [run.as_value() for run in self.runs] if self.step.for_each is not None else None
        return {
            "state": self.state.value,
            "execution_id": None,
            "data": [item["data"] for item in items] if items is not None and self.is_over else None,
            "message": None,
            "error": self.first_error(),
            "items": items,
        }


def state_of_runs(states: Collection[StepState]) -> StepState:
    """The state of a step of which nothing more is begun, by those of its runs: what still waits will not run."""
    for state in (StepState.RUNNING, StepState.FAILED, StepState.WAITING):
        if state in states:
            return state
    return StepState.SUCCESS


Progress = Mapping[str, StepProgress]
