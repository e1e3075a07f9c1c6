"""What lets a node leave in order although its event loop is about to end.

`asyncio.run()` cancels every task that is left once its main coroutine has returned, and waits for them.
"""

from __future__ import annotations

import asyncio
from types import TracebackType
from typing import Any

from apscheduler.executors.asyncio import AsyncIOExecutor


class LastTask(asyncio.Task[None]):
    """A task that nobody cancels: who ends the loop waits for it instead. What it awaits must be no tasks."""

    def cancel(self, msg: Any | None = None) -> bool:
        return False


class ClockExecutor(AsyncIOExecutor):  # type: ignore[misc]  # APScheduler has no types
    """APScheduler's own, to which a job that a stop cancels before it has begun is an error, with a stack."""

    def _run_job_error(self, job_id: str, exc: BaseException, traceback: TracebackType | None = None) -> None:
        if isinstance(exc, asyncio.CancelledError):
            self._run_job_success(job_id, [])
        else:
            super()._run_job_error(job_id, exc, traceback)
