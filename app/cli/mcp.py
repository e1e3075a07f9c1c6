"""`contenthub mcp`: the scheduler as tools for an agent, over standard input and output."""

from __future__ import annotations

import asyncio
import os
import signal
from importlib.util import find_spec
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from app.cli import output
from app.cli.session import opened
from app.core.errors import InvalidRequest

if TYPE_CHECKING:
    from collections.abc import Callable

    from app.api.auth import Caller
    from app.scheduler.runtime import Runtime


LEAVE_SECONDS = 1.0
"""How long what runs here may go on once the agent has gone: its client kills us after two."""


def mcp(
    role: Annotated[
        Literal["viewer", "operator", "admin"] | None,
        typer.Option("--role", help="What the agent may do, where no token says; by default operator."),
    ] = None,
    token: Annotated[
        str | None,
        typer.Option("--token", envvar="CONTENTHUB_TOKEN", help="Act with this token's name and role."),
    ] = None,
) -> None:
    """Serve the scheduler's tools by MCP on stdin and stdout, for an agent that starts this command.

    Executions run in a server or worker where one listens, otherwise in this process. Logs go to stderr.
    """
    if find_spec("mcp") is None:
        raise InvalidRequest.of("mcp", "it is not installed; install contenthub-scheduler[mcp]")
    if role is not None and token is not None:
        raise typer.BadParameter("a token has its own role: give one of them", param_hint="--role and --token")
    with opened(executors=True) as runtime:
        from app.core.security import Role  # with FastAPI and the SDK below, see session.py
        from app.mcp.stdio import local_caller, token_caller

        if token is None:
            who = local_caller(Role.named(role or "operator"))
        else:
            who = token_caller(runtime, token)
            who()
        asyncio.run(_serve(runtime, who))


async def _serve(runtime: Runtime, who: Callable[[], Caller]) -> None:
    from app.cli.follow import listening_nodes
    from app.mcp.stdio import serve_stdio

    async def stand_in() -> None:
        """Where no server listens, or the last one has gone, run here what the agent asks for."""
        if not runtime.is_running and not await asyncio.to_thread(listening_nodes, runtime):
            output.note("No server is running: what the agent asks for runs in this process.")
            runtime.service.start()

    loop = asyncio.get_running_loop()
    leaving: list[asyncio.Task[None]] = []
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(
            number, lambda code: leaving.append(loop.create_task(_leave(runtime, code))), 128 + number
        )
    try:
        await serve_stdio(runtime, who, make_ready=stand_in)
    finally:
        await runtime.service.drain(LEAVE_SECONDS)


async def _leave(runtime: Runtime, code: int) -> None:
    """Hand back what runs here and end the process: a thread waits for stdin, and only its end would end that."""
    await runtime.service.drain(LEAVE_SECONDS)
    runtime.close()
    os._exit(code)
