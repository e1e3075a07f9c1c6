"""An executor of parts: steps, a sleep, signals and a child. What it does it writes into files that nobody rolls
back.

A part says `ran` when it is done, with a token of its own, and its caller says `stored` once the step has
returned: from then on the part must never run again, and everybody must see that token.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import secrets
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from sqlalchemy import text
from sqlalchemy.orm import Session

from app.core.errors import SignalTimeout
from app.scheduler.context import CurrentExecution, current_execution
from app.services.scheduler_service import TaskExecutionResult, TaskExecutor
from tests.faults.diary import Diary, boot_seconds

SIGNALS = 2
"""Signals a journey waits for, each at most this long:"""
PATIENCE_SECONDS = 20.0
WRITING_STEPS = ("packed", "arrived")
"""Steps that write through their Session."""


@dataclass(frozen=True, slots=True)
class Mark:
    """Something that happened to a step."""

    event: Literal["ran", "stored"]
    at: float
    execution: int
    step: str
    token: str
    attempt: int
    pid: int
    node: str


class Marks:
    """The file of marks; a line is written whole or not at all."""

    def __init__(self, file: Path) -> None:
        self._file = file

    def write(self, event: Literal["ran", "stored"], run: CurrentExecution, step: str, token: str) -> None:
        mark = Mark(event, boot_seconds(), run.id, step, token, run.attempt, os.getpid(), run.node)
        descriptor = os.open(self._file, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        try:
            os.write(descriptor, (json.dumps(asdict(mark)) + "\n").encode())
        finally:
            os.close(descriptor)

    def read(self) -> list[Mark]:
        if not self._file.exists():
            return []
        return [Mark(**json.loads(line)) for line in self._file.read_text().splitlines()]


class Journey(TaskExecutor):
    """See the module. Its attempts fail now and then, between steps."""

    max_attempts = 20

    def __init__(self, diary: Diary, marks: Marks) -> None:
        self._diary = diary
        self._marks = marks

    @property
    def executor_type(self) -> str:
        return "journey"

    async def execute(self, task_id: int, task_params: dict[str, Any], db: Session) -> TaskExecutionResult:
        run = current_execution()
        self._diary.write("begin", execution=run.id, attempt=run.attempt, key=None, node=run.node)
        try:
            return await self._travel(run, db)
        finally:
            self._diary.write("end", execution=run.id, attempt=run.attempt, key=None, node=run.node)

    async def _travel(self, run: CurrentExecution, db: Session) -> TaskExecutionResult:
        chance = random.Random(f"{run.id}/{run.attempt}")
        got: list[Any] = []
        await self._part(run, "packed", db)
        await run.sleep(0.3)
        await asyncio.gather(*(self._part(run, f"leg {number}", db) for number in range(3)))
        for _ in range(SIGNALS):
            try:
                got.append(await run.wait_for_signal("go", timeout=PATIENCE_SECONDS))
            except SignalTimeout:
                got.append(None)
            if chance.random() < 0.1:
                return TaskExecutionResult.failure_result("失败", "ConnectionError: by chance")
        await run.call("child", "effect", {"seconds": 0.05})
        await self._part(run, "arrived", db)
        return TaskExecutionResult.success_result("好", data={"got": got})

    async def _part(self, run: CurrentExecution, name: str, db: Session) -> None:
        async def work() -> str:
            await asyncio.sleep(0.02)
            token = secrets.token_hex(4)
            self._marks.write("ran", run, name, token)
            if name in WRITING_STEPS:
                db.execute(
                    text("INSERT INTO fault_steps (execution, step) VALUES (:execution, :step)"),
                    {"execution": run.id, "step": name},
                )
            return token

        self._marks.write("stored", run, name, await run.step(name, work))
