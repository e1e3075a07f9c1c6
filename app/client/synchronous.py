"""The blocking client."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
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
from app.client.operations import Operations
from app.client.sending import T, answer_of, authorization, request_arguments

P = ParamSpec("P")
ItemT = TypeVar("ItemT")


class SchedulerClient(Operations):
    """Asks the API of the server at `url`, with a bearer token where it needs one.

    Every method raises an `ApiError` where it is refused or gets no answer. Connections are kept and reused: close
    it, or use it in a `with`. May be shared by threads. `timeout`: seconds for each request. `http`: a client of
    your own, with its proxies and certificates; it stays yours to close.
    """

    def __init__(
        self, url: str, token: str | None = None, *, timeout: float = 10.0, http: httpx.Client | None = None
    ) -> None:
        self._url = base_url(url)
        self._headers = authorization(token)
        self._http = http if http is not None else httpx.Client(timeout=timeout)
        self._is_own = http is None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the connections."""
        if self._is_own:
            self._http.close()

    def each(self, page_of: Callable[P, Page[ItemT]], *args: P.args, **kwargs: P.kwargs) -> Iterator[ItemT]:
        """Every item of a list, page after page: `client.each(client.list_executions, task_id=7)`."""
        while True:
            page = page_of(*args, **kwargs)
            yield from page.items
            if page.next_cursor is None:
                return
            kwargs["cursor"] = page.next_cursor

    def wait(self, execution_id: int, timeout: float | None = None) -> ExecutionDetail:
        """The execution once it is over, however it ended, or parked.

        Raises:
            TimeoutError: it was not within `timeout` seconds; it goes on.
        """
        end = None if timeout is None else time.monotonic() + timeout
        while not is_over(execution := self.get_execution(execution_id)):
            left = FOLLOW_SECONDS if end is None else end - time.monotonic()
            if left <= 0:
                raise not_over(execution, timeout or 0)
            time.sleep(min(left, FOLLOW_SECONDS))
        return execution

    def follow_logs(self, execution_id: int) -> Iterator[LogAnswer]:
        """Log lines as they are kept, from the first to the last of the execution."""
        after = 0
        ended = False
        while not ended:
            # Asked before the lines are read: what an execution says last is stored together with its end.
            ended = is_over(self.get_execution(execution_id))
            while (page := self.get_logs(execution_id, after=after)).items:
                yield from page.items
                after = page.after
            if not ended:
                time.sleep(FOLLOW_SECONDS)

    def events(self) -> Iterator[ChangesAnswer]:
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
                response = self._http.send(request, stream=True)
                try:
                    if not response.is_success:
                        response.read()
                        raise error_of(response)
                    for text in response.iter_text():
                        yield from reader.feed(text)
                finally:
                    response.close()
            except httpx.RequestError as error:
                raise no_answer(request, error) from error
            time.sleep(reader.retry_seconds)
            yield MISSED

    def _call(
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
            response = self._http.send(request)
        except httpx.RequestError as error:
            raise no_answer(request, error) from error
        return answer_of(response, answer)
