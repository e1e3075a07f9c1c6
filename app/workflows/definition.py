"""What a workflow is: steps, what each waits for, and what happens when one fails. Plain JSON."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import StrEnum
from graphlib import CycleError, TopologicalSorter
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, JsonValue, StringConstraints

WORKFLOW_TYPE = "workflow"
MOST_STEPS = 100
MOST_ITEMS = 1000
"""Items of one fan-out at most."""
MOST_EXPRESSIONS = 1000
"""Expressions of one definition at most: to read one takes a millisecond or two."""

StepId = Annotated[
    str, StringConstraints(pattern=r"^[A-Za-z][A-Za-z0-9_]*$", min_length=1, max_length=50, strict=True)
]
TypeName = Annotated[str, StringConstraints(min_length=1, max_length=100, strict=True)]
Source = Annotated[str, StringConstraints(min_length=1, max_length=2100, strict=True)]


class OnFailure(StrEnum):
    """What the failure of a step means for the workflow."""

    FAIL = "fail"
    """Nothing more is started, and the workflow fails once what runs is over."""
    CONTINUE = "continue"
    """It goes on; steps after this one see `steps.ID.state == 'failed'`."""
    COMPENSATE = "compensate"
    """As `fail`; then what has been done is undone: the `compensate` of every finished step, last one first."""


class Call(BaseModel):
    """An executor and its params."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    type: TypeName = Field(description="A registered executor.", examples=["http_request"])
    params: dict[str, JsonValue] = {}


class StepDefinition(Call):
    """One step: an executor, run once its dependencies are over, as an execution of its own."""

    id: StepId = Field(description="What expressions call it.", examples=["draft"])
    depends_on: tuple[StepId, ...] = Field(default=(), max_length=MOST_STEPS)
    when: Source | None = Field(
        default=None,
        description="An expression; the step is skipped where it is false. Without one it is skipped where a step "
        "it depends on was.",
        examples=["steps.check.data.score >= 80"],
    )
    on_failure: OnFailure = OnFailure.FAIL
    compensate: Call | None = Field(default=None, description="What undoes it.")
    for_each: Source | None = Field(
        default=None, description="An expression for a list: the step is run once for each `item` of it."
    )
    limit: int | None = Field(
        default=None, ge=1, le=MOST_ITEMS, strict=True, description="Items at the same time."
    )
    retries: int | None = Field(
        default=None,
        ge=0,
        le=99,
        strict=True,
        description="Further attempts; which errors are worth one, the executor says.",
    )
    timeout_seconds: float | None = Field(default=None, gt=0, le=7 * 86_400, allow_inf_nan=False, strict=True)


class WorkflowDefinition(BaseModel):
    """Params of `workflow`. Texts in `params` may have `{{ expressions }}` over `input`, `steps`, `workflow` and,
    where a step has `for_each`, `item` and `index`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    steps: tuple[StepDefinition, ...] = Field(min_length=1, max_length=MOST_STEPS)
    input: dict[str, JsonValue] = {}


def in_order(steps: Sequence[StepDefinition]) -> list[StepDefinition]:
    """The steps, each after those it depends on, otherwise as they were written.

    Raises:
        CycleError: there is no such order.
    """
    place = {step.id: number for number, step in enumerate(steps)}
    by_id = {step.id: step for step in steps}
    sorter = TopologicalSorter({step.id: step.depends_on for step in steps})
    sorter.prepare()
    ordered: list[StepDefinition] = []
    while sorter.is_active():
        ready = sorted(sorter.get_ready(), key=place.__getitem__)
        ordered.extend(by_id[step_id] for step_id in ready)
        sorter.done(*ready)
    return ordered


def ancestors(steps: Sequence[StepDefinition]) -> dict[str, frozenset[str]]:
    """For each step those it waits for, and those they wait for. The steps must have an order."""
    found: dict[str, frozenset[str]] = {}
    for step in in_order(steps):
        found[step.id] = frozenset(step.depends_on).union(*(found[parent] for parent in step.depends_on))
    return found


def cycle_of(steps: Sequence[StepDefinition]) -> list[str] | None:
    """Ids that wait for each other in a ring, or None."""
    known = {step.id for step in steps}
    try:
        TopologicalSorter(
            {step.id: [parent for parent in step.depends_on if parent in known] for step in steps}
        ).prepare()
    except CycleError as error:
        ring: list[str] = error.args[1]
        return ring[::-1]
    return None


def templated_part(call: Call) -> Mapping[str, JsonValue]:
    """What of a call's params is filled in: all of it, but of a workflow in a workflow only its `input`; the
    expressions of its steps are its own."""
    if call.type != WORKFLOW_TYPE:
        return call.params
    return {"input": call.params["input"]} if "input" in call.params else {}


def with_filled(call: Call, filled: Mapping[str, Any]) -> dict[str, Any]:
    """The call's params with what was filled in."""
    return {**call.params, **filled}
