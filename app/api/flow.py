"""`/flow`: what lets work through at a measure, and how full it is."""

from __future__ import annotations

import asyncio
from typing import Annotated

from fastapi import APIRouter, Path

from app.api.auth import Operator, RuntimeOf, Viewer
from app.api.problems import documented
from app.api.schemas import FlowAnswer

router = APIRouter(prefix="/flow", tags=["flow"])

TaskType = Annotated[str, Path(min_length=1, max_length=100, pattern=r"^[^\x00]+$", description="Executor type.")]


@router.get("", summary="Show limits and circuits", responses=documented())
def get_flow(runtime: RuntimeOf, _caller: Viewer) -> FlowAnswer:
    """Rate limits, concurrency keys and circuit breakers with their present level, busiest first."""
    return FlowAnswer.model_validate(runtime.flow())


@router.post("/circuits/{task_type}/reset", summary="Reset a circuit breaker", responses=documented(404))
async def reset_circuit(task_type: TaskType, runtime: RuntimeOf, _caller: Operator) -> FlowAnswer:
    """Close the circuit of an executor: what waits for it may start at once, and its past is forgiven."""
    await runtime.commands.reset_circuit(task_type)
    return FlowAnswer.model_validate(await asyncio.to_thread(runtime.flow))
