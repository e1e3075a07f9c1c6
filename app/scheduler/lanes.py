"""Lanes: where attempts run.

The contract gives executors a synchronous Session inside a coroutine, so blocking calls are certain. On the
thread lane each attempt has a worker thread with an event loop of its own; on the loop lane attempts share the
application's loop. Both take the waiting attempt with the highest priority first.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
import sys
import threading
from collections.abc import Callable, Coroutine
from contextvars import Context
from dataclasses import dataclass
from functools import partial
from typing import Any, Generic, Protocol, TypeVar
from weakref import WeakSet

from loguru import logger

from app.core.errors import stack_of

_STRAY_SECONDS = 1.0
"""How long what an attempt left running may take to end once it is cancelled."""
_PATIENCE_SECONDS = 0.001
_BRISK = 4
"""Attempts begun in that time by threads that are at work: where it is this many, another thread would only fight
them for the interpreter; where it is fewer, they wait for something, and others can work meanwhile."""


class Prioritised(Protocol):
    """What a lane needs to know of its items."""

    @property
    def execution_id(self) -> int: ...
    @property
    def priority(self) -> int: ...


I = TypeVar("I", bound=Prioritised)  # noqa: E741 - item


@dataclass(slots=True)
class _Waiting(Generic[I]):
    item: I
    since: float


class _Line(Generic[I]):
    """A priority queue from which one item can be taken back. Not locked: each lane has its own lock."""

    def __init__(self) -> None:
        self._heap: list[tuple[int, int, int]] = []
        self._items: dict[int, _Waiting[I]] = {}
        self._sequence = itertools.count()

    def __len__(self) -> int:
        return len(self._items)

    def __contains__(self, execution_id: int) -> bool:
        return execution_id in self._items

    def put(self, item: I, now: float) -> None:
        self._items[item.execution_id] = _Waiting(item, now)
        heapq.heappush(self._heap, (-item.priority, next(self._sequence), item.execution_id))

    def get(self) -> I | None:
        while self._heap:
            waiting = self._items.pop(heapq.heappop(self._heap)[2], None)
            if waiting is not None:
                return waiting.item
        return None

    def drop(self, execution_id: int) -> I | None:
        waiting = self._items.pop(execution_id, None)
        return waiting.item if waiting is not None else None

    def drop_older(self, moment: float) -> list[I]:
        old = [key for key, waiting in self._items.items() if waiting.since <= moment]
        return [self._items.pop(key).item for key in old]


class ThreadLane(Generic[I]):
    """Up to `size` worker threads, started as needed, each running one attempt at a time on its own loop."""

    def __init__(
        self, size: int, run: Callable[[I], Coroutine[Any, Any, None]], monotonic: Callable[[], float]
    ) -> None:
        self._size = size
        self._run = run
        self._monotonic = monotonic
        self._line: _Line[I] = _Line()
        self._ready = threading.Condition()
        self._threads: set[threading.Thread] = set()
        self._idle = 0
        self._is_watched = False
        self._is_summoned = False
        """An idle thread has been woken and is on its way: who wakes another meanwhile only holds up the first."""
        self._begun = 0
        self._last_begun = float("-inf")
        self._stopping = False

    @property
    def busy(self) -> int:
        return len(self._threads) - self._idle

    @property
    def free(self) -> int:
        """How many more attempts could start at once."""
        return max(self._size - self.busy - len(self._line), 0)

    @property
    def waiting(self) -> int:
        return len(self._line)

    def is_waiting(self, execution_id: int) -> bool:
        """Whether it waits here for its turn."""
        return execution_id in self._line

    def put(self, items: list[I]) -> None:
        now = self._monotonic()
        with self._ready:
            for item in items:
                self._line.put(item, now)
            self._summon()

    def drop(self, execution_id: int) -> I | None:
        """Take an item back that has not started."""
        with self._ready:
            return self._line.drop(execution_id)

    def drop_older(self, seconds: float) -> list[I]:
        """Take back what has waited longer than `seconds`."""
        with self._ready:
            return self._line.drop_older(self._monotonic() - seconds)

    def abandon(self, thread: threading.Thread) -> None:
        """Count a thread out that does not come back from an attempt; another takes its place if work waits."""
        with self._ready:
            if thread in self._threads:
                self._threads.remove(thread)
                self._summon()

    def stop(self) -> None:
        """Let idle threads end, and busy ones after their attempt; does not wait."""
        with self._ready:
            self._stopping = True
            self._ready.notify_all()

    def _start_thread(self) -> None:
        # Daemons: an executor that never returns must not keep the process from exiting.
        thread = threading.Thread(target=self._work, name="contenthub-lane", daemon=True)
        self._threads.add(thread)
        thread.start()

    def _work(self) -> None:
        try:
            with asyncio.Runner() as runner:
                _LaneThread(runner.get_loop(), self._take, self._wait, self._run).run()
        finally:
            with self._ready:
                self._threads.discard(threading.current_thread())

    def _take(self) -> I | None:
        """The next item, if one waits and the calling thread is still counted on."""
        with self._ready:
            item = self._line.get() if threading.current_thread() in self._threads else None
            if item is not None:
                self._begun += 1
                self._last_begun = self._monotonic()
            return item

    def _wait(self) -> bool:
        """Block until an item waits for the calling thread; False: the thread shall end."""
        thread = threading.current_thread()
        with self._ready:
            while thread in self._threads:
                if self._line:
                    if self._is_needed():
                        if len(self._line) > 1:
                            self._summon()
                        return True
                elif self._stopping:
                    return False
                else:
                    self._sleep(None)
            self._summon()  # it may have been woken for what waits, and is not counted on any more
            return False

    def _is_needed(self) -> bool:
        """Whether the items that wait need the calling thread. Looks on for a moment while others get on with
        them: threads that run short attempts beside each other take turns with the interpreter, which costs."""
        if self.busy == 1 or self._monotonic() - self._last_begun > _PATIENCE_SECONDS:
            return True
        if self._is_watched:
            self._sleep(None)
            return False
        begun, self._is_watched = self._begun, True
        self._sleep(_PATIENCE_SECONDS)
        self._is_watched = False
        return len(self._line) > 0 and self._begun - begun < _BRISK

    def _summon(self) -> None:
        """See to it that somebody looks at what waits."""
        if not self._line or self._is_summoned or (self._is_watched and self.busy):
            return
        if self._idle:
            self._is_summoned = True
            self._ready.notify()
        elif len(self._threads) < self._size and not self._stopping:
            self._start_thread()

    def _sleep(self, seconds: float | None) -> None:
        self._idle += 1
        try:
            self._ready.wait(seconds)
        finally:
            self._idle -= 1
            self._is_summoned = False


class _LaneThread(Generic[I]):
    """One worker thread: its event loop, and the attempts it runs there one after the other.

    Each attempt is a task with a context of its own. Its first step is taken at once: an attempt that never
    waits is over without a turn of the loop, which would cost more than the rest of a short attempt.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        take: Callable[[], I | None],
        wait: Callable[[], bool],
        run: Callable[[I], Coroutine[Any, Any, None]],
    ) -> None:
        self._loop = loop
        self._take = take
        self._wait = wait
        self._run = run
        self._made: WeakSet[asyncio.Task[Any]] = WeakSet()

    def run(self) -> None:
        self._loop.set_task_factory(partial(_make_task, self._made))
        self._loop.call_soon(self._await_work)
        self._loop.run_forever()

    def _await_work(self) -> None:
        # Blocks this loop on purpose: between two attempts it has nothing to do.
        if self._wait():
            self._serve()
        else:
            self._loop.stop()

    def _serve(self) -> None:
        """Run attempts until none waits, or until one awaits something."""
        while (item := self._take()) is not None:
            task = _start_now(self._loop, self._run(item))
            if not task.done():
                task.add_done_callback(partial(self._go_on, item.execution_id))
                return
            if self._made:
                self._end(item.execution_id, task)
                return
            _tell_fault(item.execution_id, task)
        # One turn of the loop before it blocks: for callbacks that an attempt has left, such as closing a socket.
        self._loop.call_soon(self._await_work)

    def _go_on(self, execution_id: int, task: asyncio.Task[None]) -> None:
        if self._made:
            self._end(execution_id, task)
        else:
            _tell_fault(execution_id, task)
            self._serve()

    def _end(self, execution_id: int, task: asyncio.Task[None]) -> None:
        """End what the attempt has left running, then go on."""
        _tell_fault(execution_id, task)
        strays = [stray for stray in self._made if not stray.done()]
        self._made.clear()
        if not strays:
            self._serve()
            return
        ending = asyncio.Task(_end_strays(execution_id, strays), loop=self._loop)
        ending.add_done_callback(lambda _: self._serve())


class LoopLane(Generic[I]):
    """Up to `size` attempts at the same time on the application's loop."""

    def __init__(
        self,
        size: int,
        run: Callable[[I], Coroutine[Any, Any, None]],
        monotonic: Callable[[], float],
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        self._size = size
        self._run = run
        self._monotonic = monotonic
        self._loop = loop
        self._line: _Line[I] = _Line()
        self._lock = threading.Lock()
        self._tasks: set[asyncio.Task[None]] = set()
        self._unbegun: set[int] = set()
        """Whose task has not taken its first step: cancelled now, as when `asyncio.run()` ends, it is lost."""

    @property
    def busy(self) -> int:
        return len(self._tasks)

    @property
    def free(self) -> int:
        return max(self._size - self.busy - len(self._line), 0)

    @property
    def waiting(self) -> int:
        return len(self._line)

    def is_waiting(self, execution_id: int) -> bool:
        """Whether it waits here for its turn."""
        return execution_id in self._line

    def put(self, items: list[I]) -> None:
        now = self._monotonic()
        with self._lock:
            for item in items:
                self._line.put(item, now)
        self._loop.call_soon_threadsafe(self._fill)

    def drop(self, execution_id: int) -> I | None:
        with self._lock:
            return self._line.drop(execution_id)

    def drop_older(self, seconds: float) -> list[I]:
        with self._lock:
            return self._line.drop_older(self._monotonic() - seconds)

    def _fill(self) -> None:
        while len(self._tasks) < self._size:
            with self._lock:
                item = self._line.get()
            if item is None:
                return
            self._unbegun.add(item.execution_id)
            task = self._loop.create_task(self._begin(item))
            self._tasks.add(task)
            task.add_done_callback(partial(self._ended, item))

    async def _begin(self, item: I) -> None:
        self._unbegun.remove(item.execution_id)
        await self._run(item)

    def _ended(self, item: I, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if item.execution_id in self._unbegun:
            self._unbegun.remove(item.execution_id)
            self.put([item])
        elif not task.cancelled() and (error := task.exception()) is not None:
            logger.error("an attempt broke its lane\n{}", stack_of(error))
        self._fill()


def _start_now(loop: asyncio.AbstractEventLoop, coroutine: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
    """A task of the running `loop` that has taken its first step. To be called by a callback, not by a task."""
    if sys.version_info >= (3, 12):
        return asyncio.Task(coroutine, loop=loop, eager_start=True)
    # A new task asks its loop for one call: its first step.
    steps: list[Callable[[], object]] = []

    def keep(step: Callable[[], object], *, context: Context) -> None:
        steps.append(partial(context.run, step))

    loop.call_soon = keep  # type: ignore[method-assign, assignment]  # for this one call
    try:
        task = asyncio.Task(coroutine, loop=loop)
    finally:
        del loop.call_soon
    steps[0]()
    return task


def _make_task(
    made: WeakSet[asyncio.Task[Any]], loop: asyncio.AbstractEventLoop, coroutine: Any, **options: Any
) -> asyncio.Task[Any]:
    """A task factory that keeps account. `asyncio.all_tasks()` would go through those of every loop."""
    task = asyncio.Task(coroutine, loop=loop, **options)
    made.add(task)
    return task


def _tell_fault(execution_id: int, task: asyncio.Task[None]) -> None:
    """The lane outlives a fault of the runner."""
    if task.cancelled():
        logger.error("attempt of execution {} was cancelled", execution_id)
    elif (error := task.exception()) is not None:
        logger.error("attempt of execution {} broke its lane\n{}", execution_id, stack_of(error))


async def _end_strays(execution_id: int, strays: list[asyncio.Task[Any]]) -> None:
    """Cancel what an attempt left running on the loop of its lane: the next attempt has that loop to itself."""
    for stray in strays:
        logger.warning("执行 {} 结束后仍有未等待的任务，已取消: {}", execution_id, stray.get_name())
        stray.cancel()
    _, deaf = await asyncio.wait(strays, timeout=_STRAY_SECONDS)
    for stray in deaf:
        logger.error("执行 {} 遗留的任务不响应取消: {}", execution_id, stray.get_name())
