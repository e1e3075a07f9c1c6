"""The tools over standard input and output, for an agent that starts the server itself."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from mcp import stdio_server
from mcp.server import ServerRequestContext
from starlette.concurrency import run_in_threadpool

from app.api.auth import Caller
from app.api.problems import UnknownToken
from app.core.security import Role
from app.mcp.server import make_server
from app.models.api_token import find_token
from app.scheduler.runtime import Runtime

LOCAL_NAME = "mcp"
"""Who did it, in the history, where no token says."""


async def serve_stdio(
    runtime: Runtime, who: Callable[[], Caller], *, make_ready: Callable[[], Awaitable[None]]
) -> None:
    """Serve until standard input ends. Before each request `who` is asked anew, which may block and raise, and
    `make_ready` is awaited."""

    async def identify(_context: ServerRequestContext[Any, Any]) -> Caller:
        caller = await run_in_threadpool(who)
        await make_ready()
        return caller

    server = make_server(runtime, identify)
    async with stdio_server() as (reads, writes):
        await server.run(reads, writes, server.create_initialization_options())


def local_caller(role: Role) -> Callable[[], Caller]:
    """Whoever may start the command may use the database, as with any other command; the agent has `role`."""
    return lambda: Caller(LOCAL_NAME, role)


def token_caller(runtime: Runtime, token: str) -> Callable[[], Caller]:
    """The token's name and role, as long as it is not revoked.

    Raises:
        Unauthorized: from the function that is returned.
    """

    def who() -> Caller:
        with runtime.sessions() as session:
            found = find_token(session, token)
        if found is None:
            raise UnknownToken
        return Caller(found.name, Role.named(found.role))

    return who
