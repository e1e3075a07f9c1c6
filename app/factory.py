"""The composition root: which executors exist, and what the application is made of."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext
from functools import cache
from importlib.util import find_spec

from fastapi import FastAPI

from app.api.application import install_api
from app.api.metrics import install_metrics
from app.api.published_site import install_site
from app.core.config import Settings, get_settings
from app.core.errors import InvalidRequest
from app.core.version import package_version
from app.dashboard.pages import install_dashboard
from app.db.database import SessionLocal, configure
from app.executors.alert_delivery import AlertDeliveryExecutor
from app.executors.approval import ApprovalExecutor
from app.executors.approval_notice import ApprovalNoticeExecutor
from app.executors.content_generation import ContentGenerationExecutor
from app.executors.content_pool import AddToPoolExecutor, PublishDueExecutor
from app.executors.http_request import HttpRequestExecutor
from app.executors.publishing import PublishingExecutor
from app.executors.quality_check import QualityCheckExecutor
from app.executors.workflow import WorkflowExecutor
from app.models.content import ensure_default_account
from app.observability.logs import configure_logs
from app.observability.requests import REQUEST_SPANS
from app.observability.standard_logging import hide_links
from app.observability.telemetry import observe
from app.scheduler.runtime import Runtime, build_service, runtime_of
from app.services.scheduler_service import SchedulerService, scheduler_service


def register_executors(service: SchedulerService = scheduler_service, settings: Settings | None = None) -> None:
    """Register the executors of this backend. A team adds its own here, and declares its tasks.

    The process's own service calls it without arguments; `service` and `settings` are for the worlds of tests.
    """
    service.register_executor(ContentGenerationExecutor(settings))
    service.register_executor(PublishingExecutor(settings))
    service.register_executor(HttpRequestExecutor(settings))
    service.register_executor(AlertDeliveryExecutor())
    service.register_executor(QualityCheckExecutor())
    service.register_executor(AddToPoolExecutor())
    service.register_executor(PublishDueExecutor())
    service.register_executor(WorkflowExecutor(service))
    service.register_executor(ApprovalExecutor(service))
    service.register_executor(ApprovalNoticeExecutor(service))


def own_runtime(settings: Settings, *, role: str = "all") -> Runtime:
    """The runtime of this process's own service, `scheduler_service`, whose executors are not registered by this.

    Role `cli` is for one-off commands: it fires no schedules and runs only what it was asked to run.
    """
    configure(settings)
    runtime = Runtime(scheduler_service, settings=settings, sessions=SessionLocal, role=role)
    scheduler_service.attach(runtime)
    return runtime


@cache
def register_own_executors() -> None:
    """Call `register_executors()` for the process's own service; once, however many runtimes follow each other."""
    register_executors()


def create_service(settings: Settings, *, role: str = "all") -> SchedulerService:
    """A service beside the process's own, on the database of `settings`, with the backend's executors."""
    service = build_service(settings, role=role)
    register_executors(service, settings)
    return service


def make_site_folder(settings: Settings) -> None:
    """The folder that `publishing` writes to and `/site` shows.

    Raises:
        InvalidRequest: it cannot be made.
    """
    folder = settings.publish_directory
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InvalidRequest.of(
            "PUBLISH_DIRECTORY", f"{folder} cannot be made: {error.strerror}; name another folder"
        ) from error


def prepare_database(runtime: Runtime) -> None:
    """Bring the schema to head, make sure the first account and the folder of the site exist. Blocks."""
    runtime.prepare_database()
    make_site_folder(runtime.settings)
    with runtime.sessions() as session:
        ensure_default_account(session)
        session.commit()


def _install_agents(app: FastAPI) -> Callable[[], AbstractAsyncContextManager[None]]:
    """Add `/mcp`; it serves within the context that is returned."""
    if find_spec("mcp") is None:
        raise InvalidRequest.of(
            "MCP_ENABLED", "it needs the extra; install contenthub-scheduler[mcp], or unset it"
        )
    from app.mcp.http import install_mcp  # an extra

    return install_mcp(app).running


def create_app(settings: Settings | None = None) -> FastAPI:
    """The application: API, published site, and the scheduler for as long as the application lives.

    Without `settings` it is the process's own, on the singleton `scheduler_service`; with them it is a world of
    its own (tests run several in one process).
    """
    if settings is None:
        settings = get_settings()
        service = scheduler_service
        configure_logs(settings.log_level, settings.log_format, lambda: runtime_of(service).tracer.ids())
        runtime = own_runtime(settings, role=settings.scheduler_role)
        register_own_executors()
    else:
        service = create_service(settings, role=settings.scheduler_role)
        runtime = runtime_of(service)
    telemetry = observe(runtime)
    hide_links()

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        await asyncio.to_thread(prepare_database, runtime)
        if settings.scheduler_enabled:
            service.start()
        try:
            with app.state.live.closed_by_signals():
                async with app.state.agents():
                    yield
        finally:
            await service.drain()
            await asyncio.to_thread(telemetry.close)
            await asyncio.to_thread(runtime.close)

    app = FastAPI(
        title="ContentHub Scheduler",
        version=package_version(),
        lifespan=lifespan,
        telemetry=REQUEST_SPANS,
        docs_url=None,  # FastAPI's own load their code from elsewhere; `/docs` is of the dashboard
        redoc_url=None,
    )
    app.state.settings = settings
    app.state.service = service
    app.state.runtime = runtime
    install_api(app)
    install_metrics(app, telemetry)
    app.state.agents = _install_agents(app) if settings.mcp_enabled else nullcontext
    install_dashboard(app)
    install_site(app, settings.publish_directory)
    return app
