"""Names what holds the application's loop, with its stack.

Executors on the loop lane promise only to await. One that breaks the promise stops every request of the process;
this thread notices and says which one it is while it is still happening.
"""

from __future__ import annotations

import asyncio
import sys
import threading
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass

from loguru import logger

from app.scheduler.telemetry import UNMEASURED, Meter

LOOK_SECONDS = 0.5
HELD_SECONDS = 1.0
_SLOW_SECONDS = 0.02
"""When the loop has not answered for this long, whoever runs on it just then is to blame for the wait."""


@dataclass(frozen=True, slots=True)
class Held:
    """The loop did not answer."""

    executor: str | None
    """The executor that held it; None: the application's own code."""
    at: float
    """Monotonic seconds."""


class LoopGuard:
    """Asks the loop for a sign of life from a thread of its own; `holder` names what a task of the loop runs, and
    `meter` hears how long each answer took."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        holder: Callable[[asyncio.Task[object]], str | None],
        meter: Meter = UNMEASURED,
    ) -> None:
        self._loop = loop
        self._loop_thread = threading.get_ident()
        self._holder = holder
        self._meter = meter
        self.held: Held | None = None
        """The last blockage."""
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="contenthub-loop-guard", daemon=True)

    def start(self) -> None:
        """Begin to look; call it on the loop's own thread."""
        self._thread.start()

    def stop(self) -> None:
        """End it. The thread goes at its next turn."""
        self._stop.set()

    def _run(self) -> None:
        while not self._stop.wait(LOOK_SECONDS):
            answered = threading.Event()
            asked = time.monotonic()
            try:
                self._loop.call_soon_threadsafe(answered.set)
            except RuntimeError:
                return  # the loop is closed
            holder = None
            if not answered.wait(_SLOW_SECONDS):
                holder = self._name_holder()
            if not answered.wait(HELD_SECONDS - _SLOW_SECONDS):
                holder = self._report()
                self._wait_out(answered)
            self._meter.loop_answered(holder, time.monotonic() - asked)

    def _wait_out(self, answered: threading.Event) -> None:
        """One report a blockage: wait until it is over."""
        while not answered.is_set() and not self._stop.is_set():
            answered.wait(LOOK_SECONDS)

    def _name_holder(self) -> str | None:
        task = asyncio.current_task(self._loop)
        return self._holder(task) if task is not None else None

    def _report(self) -> str | None:
        name = self._name_holder()
        frame = sys._current_frames().get(self._loop_thread)  # noqa: SLF001 - the documented way to another stack
        stack = "".join(traceback.format_stack(frame)) if frame is not None else ""
        self.held = Held(name, time.monotonic())
        culprit = f"执行器 {name} (lane = loop)" if name is not None else "应用代码"
        logger.warning("事件循环被 {} 阻塞超过 {} 秒:\n{}", culprit, HELD_SECONDS, stack)
        return name
