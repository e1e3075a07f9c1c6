"""`/events`: what changes, as it changes. One look at the database a second serves all open pages of a process."""

from __future__ import annotations

import asyncio
import signal
import threading
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Annotated

from fastapi import APIRouter, Depends, Request
from fastapi.sse import EventSourceResponse, ServerSentEvent
from loguru import logger
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session, sessionmaker

from app.api.auth import Viewer
from app.api.problems import documented
from app.api.schemas import ChangesAnswer, ExecutionSummary
from app.models.api_token import tokens_stamp
from app.scheduler.changes import Changes, ChangeWatch

LOOK_SECONDS = 1.0
STREAM_SECONDS = 300.0
"""A stream ends after this long, and when a token is made or revoked; the browser comes back by itself, and shows
again who it is."""
RETRY_MILLISECONDS = 2000
_BACKLOG = 100
_Handler = Callable[[int, FrameType | None], object]
_STOPPING = (signal.SIGTERM, signal.SIGINT)

router = APIRouter(tags=["events"])


class LiveFeed:
    """Looks while somebody listens, and tells all listeners. Lives on one event loop."""

    def __init__(self, sessions: sessionmaker[Session]) -> None:
        self._sessions = sessions
        self._listeners: set[asyncio.Queue[Changes | None]] = set()
        self._looking: asyncio.Task[None] | None = None
        self._closed = False

    async def listen(self) -> AsyncIterator[Changes]:
        """Everything that changes from now on, until the feed is closed or a listener falls too far behind."""
        if self._closed:
            return
        queue: asyncio.Queue[Changes | None] = asyncio.Queue(_BACKLOG)
        self._listeners.add(queue)
        if self._looking is None or self._looking.done():
            self._looking = asyncio.create_task(self._look(), name="contenthub-live")
        try:
            while (changes := await queue.get()) is not None:
                yield changes
        finally:
            self._listeners.discard(queue)

    def close(self) -> None:
        """End all streams, and let no new one begin: a server that stops waits for open responses."""
        self._closed = True
        self._end_all()
        if self._looking is not None:
            self._looking.cancel()

    async def _look(self) -> None:
        watch = ChangeWatch(self._sessions)
        tokens: tuple[int, int] | None = None
        while self._listeners:
            try:
                changes = await asyncio.to_thread(watch.look)
                before, tokens = tokens, await asyncio.to_thread(self._tokens)
            except SQLAlchemyError as error:
                logger.warning("实时更新暂停，数据库未应答: {}", error)
            else:
                if before not in (None, tokens):
                    self._end_all()
                elif changes:
                    self._tell(changes)
            await asyncio.sleep(LOOK_SECONDS)

    def _tokens(self) -> tuple[int, int]:
        with self._sessions() as session:
            return tokens_stamp(session)

    def _tell(self, changes: Changes) -> None:
        for queue in list(self._listeners):
            try:
                queue.put_nowait(changes)
            except asyncio.QueueFull:
                self._end(queue)  # it comes back, and reads its lists anew

    def _end_all(self) -> None:
        for queue in list(self._listeners):
            self._end(queue)

    def _end(self, queue: asyncio.Queue[Changes | None]) -> None:
        self._listeners.discard(queue)
        while not queue.empty():
            queue.get_nowait()
        queue.put_nowait(None)

    @contextmanager
    def closed_by_signals(self) -> Iterator[None]:
        """Close at SIGTERM and SIGINT, before the server's own handlers: they wait for open responses, and an
        application's lifespan ends only after those. Outside a main thread with handlers: nothing."""
        loop = asyncio.get_running_loop()
        replaced: dict[signal.Signals, _Handler] = {}
        if threading.current_thread() is threading.main_thread():
            for number in _STOPPING:
                previous = signal.getsignal(number)
                if callable(previous):
                    signal.signal(number, self._closing_before(previous, loop))
                    replaced[number] = previous
        try:
            yield
        finally:
            for number, previous in replaced.items():
                signal.signal(number, previous)
            self.close()

    def _closing_before(self, previous: _Handler, loop: asyncio.AbstractEventLoop) -> _Handler:
        def handle(number: int, frame: FrameType | None) -> object:
            loop.call_soon_threadsafe(self.close)
            return previous(number, frame)

        return handle


def get_feed(request: Request) -> LiveFeed:
    """The feed of this application."""
    feed: LiveFeed = request.app.state.live
    return feed


@router.get("/events", summary="Follow what changes", response_class=EventSourceResponse, responses=documented())
async def follow_events(
    _caller: Viewer, feed: Annotated[LiveFeed, Depends(get_feed)]
) -> AsyncIterable[ServerSentEvent]:
    """A stream of server-sent events: `hello` once, then `changes` when executions, tasks or nodes change.

    The stream ends now and then, and when the server stops: come back after the `retry` it names, and read anew
    what you show.
    """
    yield ServerSentEvent(event="hello", data={}, retry=RETRY_MILLISECONDS)
    try:
        async with asyncio.timeout(STREAM_SECONDS):
            async for changes in feed.listen():
                yield ServerSentEvent(event="changes", data=_answer(changes).model_dump(mode="json"))
    except TimeoutError:
        return


def _answer(changes: Changes) -> ChangesAnswer:
    return ChangesAnswer(
        executions=[ExecutionSummary.model_validate(execution) for execution in changes.executions],
        is_partial=changes.is_partial,
        tasks=changes.tasks,
        nodes=changes.nodes,
    )
