"""A workflow as a picture shows it: steps, what waits for what, and how far each is."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from pydantic import ValidationError

from app.core.errors import NotFound
from app.models.task_execution import Execution
from app.workflows.definition import WORKFLOW_TYPE, WorkflowDefinition
from app.workflows.planner import plan
from app.workflows.progress import Child, Run, StepProgress, StepState


@dataclass(frozen=True, slots=True)
class Node:
    """A step. `runs`: its executions; several where it has `for_each`."""

    id: str
    type: str
    state: StepState
    error: str | None
    when: str | None
    on_failure: str
    is_fan_out: bool
    runs: tuple[Run, ...]


@dataclass(frozen=True, slots=True)
class Edge:
    """`target` waits for `source`."""

    source: str
    target: str


@dataclass(frozen=True, slots=True)
class Graph:
    """The whole. `undone`: executions that undo what had been done."""

    steps: tuple[Node, ...]
    edges: tuple[Edge, ...]
    undone: tuple[Run, ...]


def graph_of(execution: Execution, children: Iterable[Execution]) -> Graph:
    """The graph of a workflow and its children.

    Raises:
        NotFound: the execution is no workflow.
    """
    try:
        if execution.task_type != WORKFLOW_TYPE:
            raise NotFound("workflow", execution.id)
        definition = WorkflowDefinition.model_validate(execution.params)
    except ValidationError:  # changed in plain SQL: it has no graph
        raise NotFound("workflow", execution.id) from None
    known = {child.child_key: Child.of(child) for child in children if child.child_key is not None}
    decided = plan(definition, known, workflow_id=execution.id, accept=lambda *_: None)
    return Graph(
        tuple(_node(progress) for progress in decided.steps.values()),
        tuple(Edge(parent, step.id) for step in definition.steps for parent in step.depends_on),
        tuple(run for run in decided.undone if run.execution_id is not None or run.error is not None),
    )


def _node(progress: StepProgress) -> Node:
    """What is about to be started has not been: it waits."""
    step = progress.step
    runs = tuple(run for run in progress.runs if run.execution_id is not None or run.error is not None)
    is_begun = bool(runs) or progress.state.is_over
    return Node(
        step.id,
        step.type,
        progress.state if is_begun else StepState.WAITING,
        progress.first_error(),
        step.when,
        step.on_failure.value,
        step.for_each is not None,
        runs,
    )
