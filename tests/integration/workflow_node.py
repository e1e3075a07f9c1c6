"""Runs workflows until it is killed: `python -m tests.integration.workflow_node DATABASE_URL DIARY`."""

from __future__ import annotations

import asyncio
import os
import sys
import time
from pathlib import Path
from typing import Any

from app.core.config import Settings
from app.executors.workflow import WorkflowExecutor
from app.scheduler.runtime import build_service
from app.services.scheduler_service import TaskExecutionResult
from tests.support import Recorder


def executor(diary: Path) -> Recorder:
    """Writes down each of its runs before and after, and takes a moment in between."""

    def note(line: str) -> None:
        with diary.open("a") as file:
            file.write(line + "\n")
            file.flush()
            os.fsync(file.fileno())

    def work(_: int, params: dict[str, Any], __: Any) -> TaskExecutionResult:
        note(f"begin {params['name']}")
        time.sleep(0.05)
        note(f"end {params['name']}")
        return TaskExecutionResult.success_result("好", data=params)

    return Recorder("work", work, max_attempts=3)


async def serve(database_url: str, diary: Path) -> None:
    service = build_service(
        Settings(database_url=database_url, scheduler_lease_seconds=1, scheduler_max_rescues=100)
    )
    service.register_executor(WorkflowExecutor(service))
    service.register_executor(executor(diary))
    service.start()
    await asyncio.sleep(600)


if __name__ == "__main__":
    asyncio.run(serve(sys.argv[1], Path(sys.argv[2])))
