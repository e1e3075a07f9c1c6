"""A workflow as a picture shows it: steps, what waits for what, and how far each is.

To look at it costs little: no expression is evaluated. How far a step is, its executions tell; of a step that has
none, a workflow that is over has stored what became of it, and in one that is under way it waits.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from app.core.errors import NotFound
from app.models.task_execution import Execution
from app.workflows.definition import WORKFLOW_TYPE, StepDefinition, WorkflowDefinition, ancestors
from app.workflows.progress import UNDO, Child, Run, StepState, state_of_runs


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
    runs = {child.child_key: Run.of(child.child_key, Child.of(child)) for child in children if child.child_key}
    stored = (execution.result or {}).get("data") if execution.is_final else None
    told = stored if isinstance(stored, Mapping) and "steps" in stored else {"steps": {}, "undone": []}
    before = ancestors(definition.steps)
    begun = {key.partition("[")[0] for key in runs}
    passed = frozenset().union(*(before[step_id] for step_id in begun & before.keys()))
    return Graph(
        tuple(
            _node(step, runs, told["steps"].get(step.id), is_passed=step.id in passed, is_over=execution.is_final)
            for step in definition.steps
        ),
        tuple(Edge(parent, step.id) for step in definition.steps for parent in step.depends_on),
        (
            *(run for key, run in runs.items() if key.startswith(UNDO)),
            *(_unbegun(UNDO + run["step"], run) for run in told["undone"] if run["execution_id"] is None),
        ),
    )


def _node(
    step: StepDefinition,
    runs: Mapping[str, Run],
    told: Mapping[str, Any] | None,
    *,
    is_passed: bool,
    is_over: bool,
) -> Node:
    """`told`: what the workflow's result says of the step. `is_passed`: a step after it has begun."""
    own = {key: run for key, run in runs.items() if key.partition("[")[0] == step.id}
    items = enumerate((told or {}).get("items") or [])
    unbegun = [_unbegun(f"{step.id}[{index}]", item) for index, item in items if item["execution_id"] is None]
    missing = [run for run in unbegun if run.key not in own]
    states = {run.state for run in (*own.values(), *missing)}
    if states:
        state = state_of_runs(states)
        if state is StepState.SUCCESS and step.limit is not None and not is_passed and not is_over:
            state = StepState.RUNNING  # more of its items may be to come
    elif told is not None:
        state = StepState(told["state"])
    else:
        state = StepState.SKIPPED if is_passed else StepState.WAITING
    shown = tuple(sorted((*own.values(), *(run for run in missing if run.error is not None)), key=_place))
    errors = (run.error for run in shown if run.error is not None)
    return Node(
        step.id,
        step.type,
        state,
        next(errors, None) or (told["error"] if told is not None and state is StepState.FAILED else None),
        step.when,
        step.on_failure.value,
        step.for_each is not None,
        shown,
    )


def _place(run: Run) -> int:
    """Of an item in its fan-out."""
    return int(run.key.partition("[")[2].rstrip("]") or 0)


def _unbegun(key: str, told: Mapping[str, Any]) -> Run:
    """A run that has no execution: it waited until the end, or failed before it began."""
    return Run(key, StepState(told["state"]), error=told["error"])
