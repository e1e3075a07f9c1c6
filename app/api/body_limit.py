"""No request body may be larger than this server cares to read."""

from __future__ import annotations

from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.api.problems import TooLarge, of_error
from app.core.language import Said

MAX_BODY_BYTES = 1024 * 1024
MAX_BULK_BYTES = 32 * 1024 * 1024
"""Of a request for ten thousand executions."""
_BULK = "/executions/bulk"


class BodyLimit:
    """ASGI middleware: answers 413 to a body above the limit, declared or found out while it arrives."""

    def __init__(self, app: ASGIApp, limit: int = MAX_BODY_BYTES) -> None:
        self._app = app
        self._limit = limit

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        limit = MAX_BULK_BYTES if scope["path"].endswith(_BULK) else self._limit
        declared = Headers(scope=scope).get("content-length", "")
        if declared.isdecimal() and int(declared[:20]) > limit:
            await self._refuse(scope, receive, send, limit)
            return
        messages: list[Message] = []
        size = 0
        while True:
            message = await receive()
            messages.append(message)
            size += len(message.get("body", b""))
            if size > limit:
                await self._refuse(scope, receive, send, limit)
                return
            if message["type"] != "http.request" or not message.get("more_body", False):
                break
        waiting = iter(messages)

        async def replay() -> Message:
            following = next(waiting, None)
            return following if following is not None else await receive()

        await self._app(scope, replay, send)

    async def _refuse(self, scope: Scope, receive: Receive, send: Send, limit: int) -> None:
        error = TooLarge(
            Said(f"the body is larger than {limit} bytes; send less", f"请求体超过 {limit} 字节；请减少内容")
        )
        await of_error(Request(scope), error)(scope, receive, send)
