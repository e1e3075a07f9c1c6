"""The client to await. What `synchronous.py` does, in the same order."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from types import TracebackType
from typing import Any, ParamSpec, Self, TypeVar

import httpx

from app.api.schemas import ChangesAnswer, ExecutionDetail, LogAnswer
from app.client.errors import error_of, no_answer
from app.client.following import (
    EVENTS_PATH,
    FOLLOW_SECONDS,
    MISSED,
    STREAM_TIMEOUT,
    EventReader,
    Page,
    base_url,
    is_over,
    not_over,
)
from app.client.operations import AsyncOperations
from app.client.sending import T, answer_of, authorization, request_arguments

P = ParamSpec("P")
ItemT = TypeVar("ItemT")


class AsyncSchedulerClient(AsyncOperations):
    """Asks the API of the server at `url`, with a bearer token where it needs one.

    Every method raises an `ApiError` where it is refused or gets no answer. Connections are kept and reused: close
    it, or use it in an `async with`. Lives on one event loop. `timeout`: seconds for each request. `http`: a
    client of your own, with its proxies and certificates; it stays yours to close.
    """

    def __init__(
        self, url: str, token: str | None = None, *, timeout: float = 10.0, http: httpx.AsyncClient | None = None
    ) -> None:
        self._url = base_url(url)
        self._headers = authorization(token)
        self._http = http if http is not None else httpx.AsyncClient(timeout=timeout)
        self._is_own = http is None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Let go of the connections."""
        if self._is_own:
            await self._http.aclose()

    async def each(
        self, page_of: Callable[P, Awaitable[Page[ItemT]]], *args: P.args, **kwargs: P.kwargs
    ) -> AsyncIterator[ItemT]:
        """Every item of a list, page after page: `async for run in client.each(client.list_executions)`."""
        while True:
            page = await page_of(*args, **kwargs)
            for item in page.items:
                yield item
            if page.next_cursor is None:
                return
            kwargs["cursor"] = page.next_cursor

    async def wait(self, execution_id: int, timeout: float | None = None) -> ExecutionDetail:
        """The execution once it is over, however it ended, or parked.

        Raises:
            TimeoutError: it was not within `timeout` seconds; it goes on.
        """
        clock = asyncio.get_running_loop().time
        end = None if timeout is None else clock() + timeout
        while not is_over(execution := await self.get_execution(execution_id)):
            left = FOLLOW_SECONDS if end is None else end - clock()
            if left <= 0:
                raise not_over(execution, timeout or 0)
            await asyncio.sleep(min(left, FOLLOW_SECONDS))
        return execution

    async def follow_logs(self, execution_id: int) -> AsyncIterator[LogAnswer]:
        """Log lines as they are kept, from the first to the last of the execution."""
        after = 0
        ended = False
        while not ended:
            # Asked before the lines are read: what an execution says last is stored together with its end.
            ended = is_over(await self.get_execution(execution_id))
            while (page := await self.get_logs(execution_id, after=after)).items:
                for line in page.items:
                    yield line
                after = page.after
            if not ended:
                await asyncio.sleep(FOLLOW_SECONDS)

    async def events(self) -> AsyncIterator[ChangesAnswer]:
        """What changes, as it changes, until you stop listening.

        The server ends a stream now and then. It is taken up again, and because changes in between were not
        heard, the first thing told then is that anything may have changed (`is_partial`).
        """
        while True:
            reader = EventReader()
            request = self._http.build_request(
                "GET", self._url + EVENTS_PATH, headers=self._headers, timeout=STREAM_TIMEOUT
            )
            try:
                response = await self._http.send(request, stream=True)
                try:
                    if not response.is_success:
                        await response.aread()
                        raise error_of(response)
                    async for text in response.aiter_text():
                        for changes in reader.feed(text):
                            yield changes
                finally:
                    await response.aclose()
            except httpx.RequestError as error:
                raise no_answer(request, error) from error
            await asyncio.sleep(reader.retry_seconds)
            yield MISSED

    async def _call(
        self,
        method: str,
        path: str,
        answer: type[T],
        *,
        query: Mapping[str, Any] = {},
        headers: Mapping[str, Any] = {},
        body: Any = None,
    ) -> T:
        arguments = request_arguments(query, {**self._headers, **headers}, body)
        request = self._http.build_request(method, self._url + path, **arguments)
        try:
            response = await self._http.send(request)
        except httpx.RequestError as error:
            raise no_answer(request, error) from error
        return answer_of(response, answer)
