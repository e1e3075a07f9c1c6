"""`/executions/ID/workflow`: a workflow as a graph."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated, Any

from fastapi import APIRouter, Path
from pydantic import BaseModel, ConfigDict, Field

from app.api.auth import RuntimeOf, Viewer
from app.api.problems import documented
from app.api.schemas import MaskedOrNone
from app.core.redaction import redact_quotes
from app.workflows.graph import Graph, graph_of
from app.workflows.progress import Run, StepState

router = APIRouter(prefix="/executions", tags=["executions"])


class _Answer(BaseModel):
    model_config = ConfigDict(from_attributes=True)


class RunAnswer(_Answer):
    """An execution of a step."""

    key: str = Field(examples=["each[0]"])
    state: StepState
    execution_id: int | None = Field(description="null: it failed before it began, see `error`.")
    data: MaskedOrNone
    message: str | None
    error: str | None


class NodeOfGraph(_Answer):
    """A step."""

    id: str
    type: str
    state: StepState
    error: str | None
    when: str | None
    on_failure: str
    is_fan_out: bool
    runs: list[RunAnswer]


class EdgeOfGraph(_Answer):
    """`target` waits for `source`."""

    source: str
    target: str


class WorkflowGraph(_Answer):
    """Steps in their written order, what waits for what, and what was undone."""

    steps: list[NodeOfGraph]
    edges: list[EdgeOfGraph]
    undone: list[RunAnswer]


@router.get("/{execution_id}/workflow", summary="Show a workflow as a graph", responses=documented(404))
def get_workflow(
    execution_id: Annotated[int, Path(ge=1, lt=2**63, description="Id of an execution of type workflow.")],
    runtime: RuntimeOf,
    _caller: Viewer,
) -> WorkflowGraph:
    """How far each step is; 404 where the execution is no workflow. `data` is null throughout where the params and
    results of the steps are too large to be shown together."""
    execution = runtime.history.get(execution_id)
    children = runtime.history.bearable_children(execution_id)
    secrets = [execution.params, *(child.params for child in children)]
    return WorkflowGraph.model_validate(_without_quotes(graph_of(execution, children), secrets))


def _without_quotes(graph: Graph, secrets: list[dict[str, Any]]) -> Graph:
    """What executors returned and said may hold what they, or the workflow, were given."""

    def said_by(runs: tuple[Run, ...]) -> list[Any]:
        return [(run.data, run.message, run.error) for run in runs]

    def hidden(runs: tuple[Run, ...], said: list[Any]) -> tuple[Run, ...]:
        pairs = zip(runs, said, strict=True)
        return tuple(
            replace(run, data=data, message=message, error=error) for run, (data, message, error) in pairs
        )

    said = [(step.error, said_by(step.runs)) for step in graph.steps], said_by(graph.undone)
    of_steps, undone = redact_quotes(said, secrets)
    steps = (
        replace(step, error=error, runs=hidden(step.runs, runs))
        for step, (error, runs) in zip(graph.steps, of_steps, strict=True)
    )
    return replace(graph, steps=tuple(steps), undone=hidden(graph.undone, undone))
