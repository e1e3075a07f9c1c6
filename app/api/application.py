"""The API as one piece: routers, problem documents, limits, and its OpenAPI document."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Depends, FastAPI, Request, Response
from fastapi.openapi.utils import get_openapi
from fastapi.routing import APIRoute
from starlette.concurrency import run_in_threadpool
from starlette.routing import Route

from app.api import (
    administration,
    alerts,
    approvals,
    decision_page,
    doctor,
    executions,
    flow,
    insight,
    live,
    pool,
    session,
    status,
    tasks,
    workflows,
)
from app.api.body_limit import BodyLimit
from app.api.problems import FieldProblem, Problem, install_problems
from app.api.schemas import ChangesAnswer
from app.core.errors import FieldError, InvalidRequest

PREFIX = "/api/v1/scheduler"


def install_api(app: FastAPI) -> None:
    """Add the scheduler's API to `app`, whose state holds `runtime`."""
    api = APIRouter(
        prefix=PREFIX, generate_unique_id_function=_operation_id, dependencies=[Depends(refuse_unknown_query)]
    )
    for router in (
        tasks.router,
        executions.router,
        workflows.router,
        approvals.router,
        pool.router,
        flow.router,
        insight.router,
        doctor.router,
        alerts.router,
        status.router,
        live.router,
        session.router,
        administration.router,
    ):
        api.include_router(router)
    app.state.live = live.LiveFeed(app.state.runtime.sessions)
    app.include_router(api)
    app.include_router(decision_page.router)
    app.include_router(status.health, generate_unique_id_function=_operation_id)
    app.add_middleware(BodyLimit)
    install_problems(app)
    app.openapi = lambda: _openapi(app)  # type: ignore[method-assign]
    _make_document_beside_the_loop(app)


def refuse_unknown_query(request: Request) -> None:
    """A filter that is misspelt must not answer with everything.

    Raises:
        InvalidRequest: the query has parameters that the operation does not take.
    """
    route: APIRoute = request.scope["route"]
    known = {field.alias for field in route.dependant.query_params}
    unknown = [name for name in request.query_params if name not in known]
    if unknown:
        takes = f"it takes {', '.join(sorted(known))}" if known else "it takes none"
        raise InvalidRequest(
            FieldError(name, f"this operation has no such query parameter; {takes}", "extra_forbidden")
            for name in dict.fromkeys(unknown)
        )


def _make_document_beside_the_loop(app: FastAPI) -> None:
    """FastAPI makes its document on the event loop: a quarter of a second in which it answers nobody else."""
    routes = app.router.routes
    served = next((one for one in routes if isinstance(one, Route) and one.path == app.openapi_url), None)
    if served is None:
        return

    async def made_first(request: Request) -> Response:
        await run_in_threadpool(app.openapi)
        answer: Response = await served.endpoint(request)
        return answer

    routes[routes.index(served)] = Route(served.path, made_first, include_in_schema=False)


def _operation_id(route: APIRoute) -> str:
    """The function's own name: what a generated client calls the operation."""
    return route.name


def _openapi(app: FastAPI) -> dict[str, Any]:
    """FastAPI's document, in which every failure is a `Problem`."""
    if app.openapi_schema is None:
        document = get_openapi(
            title=app.title,
            version=app.version,
            description="Tasks, executions and executors of ContentHub. Failures are RFC 9457 problem documents.",
            routes=app.routes,
        )
        schemas = document["components"]["schemas"]
        for unused in ("HTTPValidationError", "ValidationError"):
            schemas.pop(unused, None)
        template = "#/components/schemas/{model}"
        # What a stream of events carries is not in the document by itself.
        for model in (Problem, FieldProblem, ChangesAnswer):
            schema = model.model_json_schema(ref_template=template, mode="serialization")
            schema.pop("$defs", None)
            schemas[model.__name__] = schema
        app.openapi_schema = document
    return app.openapi_schema
