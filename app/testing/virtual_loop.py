"""An event loop whose time is virtual: where it would wait, it moves the clock instead.

`asyncio.sleep()`, `asyncio.timeout()` and everything built on them follow it, so a timeout of an hour costs
microseconds and what happens is the same in every run. Sockets are waited for in real time; processes are not,
their end comes to asyncio by another thread: code that starts one needs a stand-in for it.
"""

from __future__ import annotations

import asyncio
import math
import selectors
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import Executor
from contextlib import contextmanager
from typing import Any, TypeVar, TypeVarTuple, Unpack

from app.testing.clock import VirtualClock

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

IO_PATIENCE_SECONDS = 1.0
"""How long, in real seconds, sockets are waited for before time jumps on."""
_ROUNDING_SECONDS = 5e-7


class VirtualLoop(asyncio.SelectorEventLoop):
    """Runs on `clock`, without threads: `asyncio.to_thread()` calls its function on the spot.

    It runs only while `run_until()` or `complete()` is under way, also from inside code that another event loop
    runs: that one stands still meanwhile.
    """

    def __init__(self, clock: VirtualClock) -> None:
        self._clock = clock
        self._horizon = math.inf
        super().__init__(_JumpingSelector(self._jump))
        # asyncio runs what is due within its clock's resolution. The machine's, a nanosecond, is less than a float
        # can tell apart once the loop is some months old, and a timer due now would never be run.
        self._clock_resolution = _ROUNDING_SECONDS

    def time(self) -> float:
        return self._clock.monotonic()

    def run_until(self, moment: float) -> None:
        """Run everything that happens up to `moment` (in `time()`), which is the time at the end."""
        self._horizon = moment
        try:
            with _aside():
                self.run_forever()
        finally:
            self._horizon = math.inf

    def complete(self, work: Coroutine[Any, Any, T]) -> T:
        """Run `work` to its end, however far that moves the clock.

        Raises:
            RuntimeError: it waits for something that nothing is left to bring about.
        """
        with _aside():
            return self.run_until_complete(work)

    def run_in_executor(
        self, executor: Executor | None, func: Callable[[Unpack[Ts]], T], *args: *Ts
    ) -> asyncio.Future[T]:
        future: asyncio.Future[T] = self.create_future()
        try:
            future.set_result(func(*args))
        except Exception as error:  # noqa: BLE001 - it is for whoever awaits the future
            future.set_exception(error)
        return future

    def _jump(self, seconds: float | None) -> None:
        """Nothing happens for `seconds` (None: ever again): go there, or to the horizon, which is the end."""
        ahead = math.inf if seconds is None else seconds
        if self.time() + ahead <= self._horizon + _ROUNDING_SECONDS and ahead < math.inf:
            self._clock.advance(ahead)
        elif self._horizon < math.inf:
            self._clock.advance(self._horizon - self.time())
            self.stop()
        else:
            raise RuntimeError(
                "nothing is left to happen, and what is being awaited has not ended: it waits for an event or a "
                "future that nobody sets"
            )


class _JumpingSelector(selectors.DefaultSelector):
    """Where a selector would wait for a timer, it lets `jump` move the clock there."""

    def __init__(self, jump: Callable[[float | None], None]) -> None:
        super().__init__()
        self._jump = jump

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        ready = super().select(0)
        if ready or (timeout is not None and timeout <= 0):
            return ready
        # The loop's own wake-up pipe is always there; anything else is a talk with the real world.
        if len(self.get_map()) > 1 and (ready := super().select(IO_PATIENCE_SECONDS)):
            return ready
        self._jump(timeout)
        return []


@contextmanager
def _aside() -> Iterator[None]:
    """Step out of the event loop that runs this code, if one does, so that another may run in its place."""
    outer = asyncio._get_running_loop()
    if outer is None:
        yield
        return
    task = asyncio.current_task(outer)
    if task is not None:
        asyncio.tasks._leave_task(outer, task)
    asyncio._set_running_loop(None)
    try:
        yield
    finally:
        asyncio._set_running_loop(outer)
        if task is not None:
            asyncio.tasks._enter_task(outer, task)
