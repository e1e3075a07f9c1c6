"""`contenthub demo`: the main job on this machine alone, a feed digest every minute and its publishing; and a flow
in which a draft is published once a person has said yes."""

from __future__ import annotations

import asyncio
import signal
import socket
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from app.cli import output
from app.cli.serve import CONNECTION_GRACE_SECONDS, say_if_not_built
from app.cli.session import database_faults, load_settings
from app.core.config import Settings
from app.core.errors import Conflict, InvalidRequest, SchedulerUnavailable
from app.core.logging import configure_logging

if TYPE_CHECKING:
    from uvicorn import Server

    from app.models.task_execution import Execution
    from app.scheduler.runtime import Runtime
    from app.services.scheduler_service import SchedulerService

LOOPBACK = "127.0.0.1"
DIGEST, PUBLISH, REVIEW = "demo-digest", "demo-publish", "demo-review"
_LOOK_SECONDS = 0.05


def demo(
    data_dir: Annotated[
        Path, typer.Option("--data-dir", help="Where the demo keeps its database and its site.")
    ] = Path("data/demo"),
    port: Annotated[int, typer.Option("--port", min=0, max=65_535, help="Port; another if it is taken.")] = 8000,
) -> None:
    """Run real tasks on this machine and show what they do, until Ctrl-C. Needs no network."""
    _make_folder(data_dir)
    listener = _listen(port)
    settings = _settings(data_dir, listener.getsockname()[1])
    if port and settings.port != port:
        output.note(f"Port {port} is taken, so the demo is on port {settings.port}.")
    configure_logging("WARNING")
    with listener, database_faults():
        import uvicorn  # these four with FastAPI and SQLAlchemy, see session.py

        from app.factory import create_app
        from app.scheduler.runtime import runtime_of

        app = create_app(settings)
        runtime = runtime_of(app.state.service)
        _define_tasks(runtime.service)
        server = uvicorn.Server(
            uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=CONNECTION_GRACE_SECONDS)
        )
        # uvicorn raises the signal again once it has shut down; with the default handlers that would kill us.
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda *_: setattr(server, "should_exit", True))
        asyncio.run(_show(server, listener, runtime))
    output.say("Stopped.")


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InvalidRequest.of(
            "data-dir", f"{folder} cannot be made: {error.strerror}; name another with --data-dir"
        ) from error


def _listen(port: int) -> socket.socket:
    """A listening socket on loopback, on another port where `port` is taken."""
    for candidate in (port, 0):
        listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((LOOPBACK, candidate))
            listener.listen()
        except OSError:
            listener.close()
        else:
            return listener
    raise InvalidRequest.of("port", f"neither {port} nor any other port on {LOOPBACK} can be listened on")


def _settings(data_dir: Path, port: int) -> Settings:
    """The user's settings, but with everything of the demo in one folder and nothing from the network."""
    return load_settings().model_copy(
        update={
            "database_url": f"sqlite:///{data_dir / 'contenthub.db'}",
            "publish_directory": data_dir / "site",
            "publish_base_url": f"http://{LOOPBACK}:{port}/site",
            "public_base_url": f"http://{LOOPBACK}:{port}",
            "generator": "feed",
            "generator_feed": None,
            "host": LOOPBACK,
            "port": port,
            "scheduler_enabled": True,
            "scheduler_engine": "embedded",
            "scheduler_role": "all",
        }
    )


def _define_tasks(service: SchedulerService) -> None:
    from app.workflows.content_flow import content_flow, content_input  # with SQLAlchemy, see session.py

    service.define_task(
        DIGEST,
        "content_generation",
        description="A digest of the feed that ships with ContentHub.",
        params={"account_id": 1, "topic": "人工智能", "generator": "feed"},
        schedule="* * * * *",
    )
    service.define_task(
        PUBLISH,
        "publishing",
        description="Publishes what is not published yet, 20 seconds after the digest.",
        params={"target": "directory"},
        schedule="20 * * * * *",
    )
    service.define_task(
        REVIEW,
        "workflow",
        description="Draft, quality check, approval, pool, publishing: the next begins when this one is decided.",
        # The sample feed says the same every time, so the check finds the draft repeated; the person decides.
        params=content_flow().definition(content_input("数据中心", generator="feed", min_score=0)),
        schedule="40 */5 * * * *",
    )


async def _show(server: Server, listener: socket.socket, runtime: Runtime) -> None:
    serving = asyncio.create_task(server.serve(sockets=[listener]))
    while not server.started and not serving.done():  # noqa: ASYNC110 - uvicorn offers no event
        await asyncio.sleep(_LOOK_SECONDS)
    if not server.started:
        await serving
        raise SchedulerUnavailable("the demo's server did not start; run `contenthub doctor`")
    _say_where_to_look(runtime.settings)
    finished, unsubscribe = _finished(runtime)
    showing = [asyncio.create_task(_show_finished(finished, runtime)), asyncio.create_task(_run_once(runtime))]
    try:
        await serving
    finally:
        unsubscribe()
        for task in showing:
            task.cancel()
        await asyncio.gather(*showing, return_exceptions=True)


def _say_where_to_look(settings: Settings) -> None:
    address = f"http://{settings.host}:{settings.port}"
    output.show_fields(
        [
            ("Published site", f"{address}/site/index.html"),
            ("Dashboard", f"{address}/scheduler/"),
            ("API", f"{address}/docs"),
            ("Database", settings.database_url.removeprefix("sqlite:///")),
            ("Tasks", f"{DIGEST} (every minute), {PUBLISH} (20 seconds later), {REVIEW} (waits for you below)"),
            ("Stop", "Ctrl-C"),
        ]
    )
    say_if_not_built()
    output.say("")


async def _run_once(runtime: Runtime) -> None:
    """All tasks at once, one after the other, so that there is something to see before the first minute."""
    for name in (DIGEST, PUBLISH, REVIEW):
        task = await asyncio.to_thread(runtime.tasks.find, name)
        execution = await runtime.service.run_now(task.id, triggered_by="demo")
        if name != REVIEW:  # that one waits for a person
            await runtime.service.wait(execution.id)


def _finished(runtime: Runtime) -> tuple[asyncio.Queue[int], Callable[[], None]]:
    """A queue of the ids of executions that are over or wait, and the end of it."""
    from app.models.task_execution import FINAL_STATES, ExecutionState  # with SQLAlchemy, see session.py
    from app.scheduler.events import ExecutionChanged

    loop = asyncio.get_running_loop()
    finished: asyncio.Queue[int] = asyncio.Queue()

    def tell(event: ExecutionChanged) -> None:
        if event.state in FINAL_STATES or event.state is ExecutionState.SUSPENDED:
            with suppress(RuntimeError):  # the loop has ended; nobody looks any more
                loop.call_soon_threadsafe(finished.put_nowait, event.execution_id)

    return finished, runtime.events.subscribe(tell)


async def _show_finished(finished: asyncio.Queue[int], runtime: Runtime) -> None:
    while True:
        execution = await asyncio.to_thread(runtime.history.get, await finished.get())
        if execution.is_final:
            _show_line(execution)
        elif execution.task_type == "approval":
            await asyncio.to_thread(_show_question, runtime, execution)


def _show_question(runtime: Runtime, execution: Execution) -> None:
    """Where to decide; nothing if somebody has, meanwhile."""
    from app.workflows.links import ApprovalLinks  # with SQLAlchemy, see session.py

    with suppress(Conflict):
        url, _ = ApprovalLinks(runtime).make(execution.id, by="demo", made_by="demo", is_admin=True)
        output.say(f"{execution.params['title']}  Decide: {url}", style="bold yellow")


def _show_line(execution: Execution) -> None:
    ended = f"{execution.finished_at.astimezone():%H:%M:%S}" if execution.finished_at else ""
    took = f" ({execution.duration_seconds:.2f} s)" if execution.duration_seconds is not None else ""
    line = output.state(execution.state.value)
    line.pad_right(10 - len(line.plain))
    said = execution.error or execution.message or execution.reason or ""
    output.out.print(
        ended, f"{execution.task_name or execution.task_type:<14}", line, output.printable(said + took)
    )
