"""`/executions/ID/workflow`: a workflow as a graph."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Path
from pydantic import BaseModel, ConfigDict, Field

from app.api.auth import RuntimeOf, Viewer
from app.api.problems import documented
from app.api.schemas import MaskedOrNone
from app.workflows.graph import graph_of
from app.workflows.progress import StepState

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
    """How far each step is; 404 where the execution is no workflow."""
    execution = runtime.history.get(execution_id)
    children: Any = runtime.history.children(execution_id)
    return WorkflowGraph.model_validate(graph_of(execution, children))
