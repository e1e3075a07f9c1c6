"""`/mcp`: the tools over streamable HTTP, behind the API's tokens, roles and loopback rule.

Stateless: any process answers any request, and nothing is held open that a shutdown would wait for.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, cast

from fastapi import FastAPI
from mcp.server import ServerRequestContext
from mcp.server.streamable_http_manager import StreamableHTTPSessionManager
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from app.api.auth import Caller, bearer, identify, session_cookie
from app.core.errors import SchedulerUnavailable
from app.mcp.server import make_server
from app.scheduler.runtime import Runtime

PATH = "/mcp"
_CALLER = "contenthub.caller"


class McpEndpoint:
    """ASGI application of one path. Serves while `running()` is entered."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._manager: StreamableHTTPSessionManager | None = None

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """For as long as the application lives; may be entered again afterwards."""
        server = make_server(self._runtime, _caller_of)
        manager = StreamableHTTPSessionManager(server, json_response=True, stateless=True)
        async with manager.run():
            self._manager = manager
            try:
                yield
            finally:
                self._manager = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Raises SchedulerError, which the application answers with a problem document."""
        request = Request(scope, receive)
        # The same dependencies as any operation's, called by hand: this is no route of FastAPI's.
        caller = await run_in_threadpool(
            identify, request, self._runtime, await bearer(request), await session_cookie(request)
        )
        if self._manager is None:
            raise SchedulerUnavailable("the server is starting or stopping; try again later")
        scope[_CALLER] = caller
        await self._manager.handle_request(scope, receive, send)


def install_mcp(app: FastAPI) -> McpEndpoint:
    """Add `/mcp` to `app`."""
    endpoint = McpEndpoint(app.state.runtime)
    # POST alone: without sessions there is no stream to open by GET and none to end by DELETE.
    app.router.routes.append(Route(PATH, endpoint, methods=["POST"], include_in_schema=False))
    return endpoint


async def _caller_of(context: ServerRequestContext[Any, Any]) -> Caller:
    request = cast("Request", context.request)  # streamable HTTP hands its request on
    caller: Caller = request.scope[_CALLER]
    return caller
