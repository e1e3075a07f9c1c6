"""Very many executions that wait, and what a step costs."""

from __future__ import annotations

import asyncio
import gc
import threading
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from app.core.clock import SystemClock
from app.core.config import Settings
from app.core.logging import configure_logging
from app.models.task_execution import ExecutionState
from app.scheduler.context import current_execution
from app.scheduler.events import ExecutionChanged
from app.scheduler.runtime import Runtime, build_service, runtime_of
from app.services.scheduler_service import SchedulerService, TaskExecutionResult, TaskExecutor
from tests.benchmarks import probe
from tests.benchmarks.measure import MILLISECONDS, percentile, resident_mib

CALLERS = 256
_IDLE_SECONDS = 5.0


class LaterClock(SystemClock):
    """The machine's clock, until somebody lets time jump."""

    ahead = timedelta()

    def now(self) -> datetime:
        return super().now() + self.ahead


class Waiter(TaskExecutor):
    """Sleeps for an hour."""

    executor_type = "waiter"

    async def execute(self, task_id: int, task_params: dict[str, Any], db: Any) -> TaskExecutionResult:
        await current_execution().sleep(3600)
        return TaskExecutionResult.success_result("")


class Stepper(TaskExecutor):
    """Takes as many steps as it is told."""

    executor_type = "stepper"

    async def execute(self, task_id: int, task_params: dict[str, Any], db: Any) -> TaskExecutionResult:
        for number in range(task_params["steps"]):
            await current_execution().step(f"step {number}", int)
        return TaskExecutionResult.success_result("")


class Counted:
    """How many executions have come to each state; `reached()` waits for so many."""

    def __init__(self, runtime: Runtime) -> None:
        self._counts: dict[ExecutionState, int] = {}
        self._changed = threading.Condition()
        self.first: dict[ExecutionState, float] = {}
        runtime.events.subscribe(self._count)

    def _count(self, event: ExecutionChanged) -> None:
        with self._changed:
            self.first.setdefault(event.state, time.perf_counter())
            self._counts[event.state] = self._counts.get(event.state, 0) + 1
            self._changed.notify_all()

    async def reached(self, state: ExecutionState, count: int) -> None:
        def wait() -> None:
            with self._changed:
                self._changed.wait_for(lambda: self._counts.get(state, 0) >= count)

        await asyncio.to_thread(wait)


@asynccontextmanager
async def _running(folder: Path, clock: SystemClock) -> AsyncIterator[tuple[SchedulerService, Runtime]]:
    configure_logging("WARNING")
    database = f"sqlite:///{folder / 'ours.db'}"
    service = build_service(Settings(database_url=database, log_level="WARNING"), clock=clock)
    await asyncio.to_thread(runtime_of(service).prepare_database)
    service.register_executor(Waiter())
    service.register_executor(Stepper())
    service.start()
    try:
        yield service, runtime_of(service)
    finally:
        await service.drain()
        runtime_of(service).close()


async def _enqueue(service: SchedulerService, task_type: str, params: dict[str, Any], count: int) -> None:
    async def caller(share: int) -> None:
        for _ in range(share):
            await service.enqueue(task_type, params)

    shares = [count // CALLERS + (number < count % CALLERS) for number in range(CALLERS)]
    await asyncio.gather(*(caller(share) for share in shares))


async def suspended(count: int) -> probe.Figures:
    """`count` executions suspend; memory, CPU and latency while they wait; then all are due at one moment."""
    clock = LaterClock()
    with probe.workspace() as folder:
        async with _running(folder, clock) as (service, runtime):
            counted = Counted(runtime)
            started = time.perf_counter()
            await _enqueue(service, "waiter", {}, count)
            await counted.reached(ExecutionState.SUSPENDED, count)
            suspending = time.perf_counter() - started
            gc.collect()
            await asyncio.sleep(1)
            figures = {"memory_mib": resident_mib()}
            cpu = time.process_time()
            await asyncio.sleep(_IDLE_SECONDS)
            figures["idle_cpu_ms"] = (time.process_time() - cpu) / _IDLE_SECONDS * MILLISECONDS
            latencies = []
            for _ in range(50):
                asked = time.perf_counter()
                plain = await service.enqueue("stepper", {"steps": 0})
                await service.wait(plain.id)
                latencies.append(time.perf_counter() - asked)
            figures["p50_ms"] = percentile(latencies, 50) * MILLISECONDS
            if count:
                figures["suspend_rate"] = count / suspending
                clock.ahead = timedelta(hours=2)
                began = time.perf_counter()
                counted.first.pop(ExecutionState.SUCCESS, None)
                await counted.reached(ExecutionState.SUCCESS, count + 50)
                figures["resume_rate"] = count / (time.perf_counter() - began)
                figures["first_ms"] = (counted.first[ExecutionState.SUCCESS] - began) * MILLISECONDS
        return figures


async def stepping(jobs: int, steps: int) -> probe.Figures:
    """Executions with so many steps each, from the first request to the last recorded success."""
    with probe.workspace() as folder:
        async with _running(folder, SystemClock()) as (service, runtime):
            counted = Counted(runtime)
            started = time.perf_counter()
            await _enqueue(service, "stepper", {"steps": steps}, jobs)
            await counted.reached(ExecutionState.SUCCESS, jobs)
            return {"rate": jobs / (time.perf_counter() - started)}


if __name__ == "__main__":
    probe.main(suspended, stepping)
