"""A thread that takes a turn once a second, and whenever it is woken."""

from __future__ import annotations

import heapq
import threading
import time
from collections.abc import Callable
from datetime import datetime

from loguru import logger
from sqlalchemy.exc import SQLAlchemyError

from app.core.clock import Clock
from app.core.errors import SchedulerError, stack_of
from app.services.scheduler_service import describe_error

TICK_SECONDS = 1.0
_ALARM_LIMIT = 10_000
_GATHER_SECONDS = 0.002


class Ticker:
    """Calls `turn` on a thread of its own; what the database refuses is tried again at the next turn."""

    def __init__(self, turn: Callable[[], None], clock: Clock) -> None:
        self._turn = turn
        self._clock = clock
        self._wake = threading.Event()
        self._alarms: list[datetime] = []
        self._armed: set[datetime] = set()
        self._alarm_lock = threading.Lock()
        self._stopping = False
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Take the first turn, now."""
        self._thread = threading.Thread(target=self._run, name="contenthub-engine", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Take no further turn."""
        self._stopping = True
        self._wake.set()

    def join(self) -> None:
        """Block until the turn under way, the last one, is over."""
        if self._thread is not None:
            self._thread.join()

    def wake(self, at: datetime | None = None) -> None:
        """Take a turn soon, or at that moment. Safe from any thread."""
        if at is not None and at > self._clock.now():
            with self._alarm_lock:
                if at in self._armed or len(self._alarms) >= _ALARM_LIMIT:
                    return  # each turn asks for it again; beyond the limit, the turn once a second finds it
                earliest = not self._alarms or at < self._alarms[0]
                heapq.heappush(self._alarms, at)
                self._armed.add(at)
            if not earliest:
                return
        self._wake.set()

    def _run(self) -> None:
        while not self._stopping:
            try:
                self._turn()
            except (SQLAlchemyError, SchedulerError, OSError) as error:
                logger.warning("执行引擎本轮未完成，将重试: {}", error)
            except Exception as error:  # noqa: BLE001 - without its engine the node is up and does nothing
                logger.error("执行引擎本轮出错，将重试: {}\n{}", describe_error(error), stack_of(error))
            if self._wake.wait(self._pause()):
                # What ends or is asked for in the same instant is dealt with together.
                time.sleep(_GATHER_SECONDS)
            self._wake.clear()

    def _pause(self) -> float:
        now = self._clock.now()
        with self._alarm_lock:
            while self._alarms and self._alarms[0] <= now:
                self._armed.discard(heapq.heappop(self._alarms))
            ahead = (self._alarms[0] - now).total_seconds() if self._alarms else TICK_SECONDS
        return min(max(ahead, 0.0), TICK_SECONDS)
