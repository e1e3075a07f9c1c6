"""`/executors`, `/nodes`, `/status`, and the health checks."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Query
from sqlalchemy import text

from app.api.auth import RuntimeOf, Viewer
from app.api.problems import documented
from app.api.schemas import CircuitAnswer, ExecutorAnswer, Health, NodeAnswer, StatusAnswer
from app.core.errors import SchedulerUnavailable
from app.core.jsonable import to_plain_json
from app.core.language import Said
from app.core.redaction import redact
from app.scheduler.schedules import Moment
from app.services.scheduler_service import TaskExecutor, describe_error

router = APIRouter(tags=["system"])
health = APIRouter(prefix="/health", tags=["health"])


@router.get("/executors", summary="List executors", responses=documented())
def list_executors(runtime: RuntimeOf, _caller: Viewer) -> list[ExecutorAnswer]:
    """The registered executors, with the JSON Schema of their params where they declare one."""
    circuits = {circuit.task_type: CircuitAnswer.model_validate(circuit) for circuit in runtime.circuits()}
    return [
        ExecutorAnswer(
            type=task_type,
            lane=executor.lane,
            timeout_seconds=executor.timeout_seconds,
            max_attempts=executor.max_attempts,
            retry_on=list(executor.retry_on) if executor.retry_on is not None else None,
            rate_limit=executor.rate_limit,
            circuit=circuits.get(task_type) if executor.circuit_breaker is not None else None,
            info=_info(executor),
        )
        for task_type, executor in sorted(runtime.service.executors().items())
    ]


def _info(executor: TaskExecutor) -> dict[str, Any]:
    """What the executor says of itself; one that cannot must not hide the others."""
    try:
        info: dict[str, Any] = to_plain_json(executor.get_executor_info())
    except Exception as error:  # noqa: BLE001 - the executor's code, whatever it raises
        return {"error": describe_error(error)}
    shown: dict[str, Any] = redact(info)
    # The schema of a field called `password` is no secret.
    return shown | {"params_schema": info["params_schema"]} if "params_schema" in info else shown


@router.get("/nodes", summary="List nodes", responses=documented())
def list_nodes(
    runtime: RuntimeOf,
    _caller: Viewer,
    stopped_since: Annotated[Moment | None, Query(description="Also those that stopped since.")] = None,
) -> list[NodeAnswer]:
    """The processes that run an engine on this database."""
    running = runtime.history.running_by_node()
    return [
        NodeAnswer.model_validate(node).model_copy(update={"running": running.get(node.id, 0)})
        for node in runtime.history.nodes(stopped_since=stopped_since)
    ]


@router.get("/status", summary="Show the status", responses=documented())
def get_status(runtime: RuntimeOf, _caller: Viewer) -> StatusAnswer:
    """How this process and its database stand."""
    return StatusAnswer(**runtime.status())


@health.get("/live", summary="Is the process alive?")
async def live() -> Health:
    """Answers while the event loop turns; asks nothing of the database."""
    return Health(status="ok")


@health.get("/ready", summary="Can it do its work?", responses={503: documented()[503]})
def ready(runtime: RuntimeOf) -> Health:
    """The database answers, and the scheduler runs where it is enabled."""
    with runtime.sessions() as session:
        session.execute(text("SELECT 1"))
    if runtime.settings.scheduler_enabled and not runtime.is_running:
        raise SchedulerUnavailable(Said("the scheduler does not run in this process", "调度器没有在此进程中运行"))
    return Health(status="ok")
