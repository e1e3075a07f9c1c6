"""Those who wait for an execution to end."""

from __future__ import annotations

import asyncio
import threading
from contextlib import suppress

from app.scheduler.events import EventBus, ExecutionChanged
from app.scheduler.history import History
from app.scheduler.outcome import outcome_of
from app.scheduler.requests import checked_id
from app.services.scheduler_service import TaskExecutionResult

POLL_SECONDS = 0.5
"""What ends in another process tells nobody here: so often it is looked for."""


class Waiters:
    """See the module. Safe from any thread, and in any number of loops."""

    def __init__(self, history: History, events: EventBus) -> None:
        self._history = history
        self._waiters: dict[int, list[tuple[asyncio.AbstractEventLoop, asyncio.Event]]] = {}
        self._lock = threading.Lock()
        events.subscribe(self._tell)

    async def wait(self, execution_id: int, timeout: float | None) -> TaskExecutionResult:
        execution_id = checked_id(execution_id)
        loop, told = asyncio.get_running_loop(), asyncio.Event()
        waiter = (loop, told)
        with self._lock:
            self._waiters.setdefault(execution_id, []).append(waiter)
        try:
            async with asyncio.timeout(timeout):
                while True:
                    execution = await asyncio.to_thread(self._history.get, execution_id)
                    if execution.is_final:
                        return outcome_of(execution)
                    with suppress(TimeoutError):
                        await asyncio.wait_for(told.wait(), POLL_SECONDS)
                    told.clear()
        except TimeoutError as error:
            raise TimeoutError(f"execution {execution_id} is not over after {timeout} seconds") from error
        finally:
            with self._lock:
                waiters = self._waiters[execution_id]
                waiters.remove(waiter)
                if not waiters:
                    del self._waiters[execution_id]

    def _tell(self, event: ExecutionChanged) -> None:
        with self._lock:
            waiters = list(self._waiters.get(event.execution_id, ()))
        for loop, told in waiters:
            with suppress(RuntimeError):  # its loop has ended, and with it the one who waited
                loop.call_soon_threadsafe(told.set)
