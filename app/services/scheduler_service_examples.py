"""Examples: each is a coroutine you can read, run and copy.

`python -m app.services.scheduler_service_examples` runs them all on a temporary database; a test does the same.
"""

from __future__ import annotations

import asyncio
import tempfile
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Dict  # noqa: UP035 - the examples are typed as the design document types them

from loguru import logger
from pydantic import BaseModel, Field
from sqlalchemy import text
from sqlalchemy.orm import Session

from app.services.scheduler_service import SchedulerService, TaskExecutionResult, TaskExecutor


class ContentGenerationExecutor(TaskExecutor):
    """The design document's example: plain params, a check of its own, a failure returned as a result."""

    @property
    def executor_type(self) -> str:
        return "content_generation"

    async def execute(self, task_id: int, task_params: Dict[str, Any], db: Session) -> TaskExecutionResult:  # noqa: UP006
        try:
            topic = task_params.get("topic")
            return TaskExecutionResult.success_result(message=f"成功生成内容: {topic}", data={"content_id": 123})
        except Exception as e:  # noqa: BLE001 - the design document's own example
            return TaskExecutionResult.failure_result(message="内容生成失败", error=str(e))

    def validate_params(self, task_params: Dict[str, Any]) -> bool:  # noqa: UP006
        required_fields = ["account_id", "topic"]
        return all(field in task_params for field in required_fields)

    def get_executor_info(self) -> Dict[str, Any]:  # noqa: UP006
        info = super().get_executor_info()
        info["version"] = "1.0.0"
        info["supported_params"] = ["account_id", "topic", "content_type"]
        return info


class DigestParams(BaseModel):
    """Params as a model: wrong ones are refused field by field, and the JSON Schema is published."""

    source: str = Field(min_length=1)
    limit: int = Field(default=10, ge=1, le=100)


class DigestExecutor(TaskExecutor):
    """Slow work first, the write last.

    `db` is this attempt's own Session. On SQLite its first write takes the database's only write lock and keeps it
    until the attempt ends: an await after it would make every other writer wait. So: gather, then write, then
    return. The scheduler commits `db` together with the recorded success, in one transaction.
    """

    params_model = DigestParams
    timeout_seconds = 30
    max_attempts = 3

    @property
    def executor_type(self) -> str:
        return "digest"

    async def execute(self, task_id: int, task_params: dict[str, Any], db: Session) -> TaskExecutionResult:
        params = DigestParams.model_validate(task_params)
        entries = await self._gather(params)
        db.execute(text("CREATE TABLE IF NOT EXISTS example_digests (id INTEGER, entries INTEGER)"))
        db.execute(text("INSERT INTO example_digests VALUES (:id, :entries)"), {"id": task_id, "entries": entries})
        return TaskExecutionResult.success_result(message=f"收集了 {entries} 条", data={"entries": entries})

    async def _gather(self, params: DigestParams) -> int:
        await asyncio.sleep(0)
        return params.limit


class PatientExecutor(TaskExecutor):
    """Says how far it is, and lets go when asked to."""

    @property
    def executor_type(self) -> str:
        return "patient"

    async def execute(self, task_id: int, task_params: dict[str, Any], db: Session) -> TaskExecutionResult:
        # Executors live above the scheduler, so theirs is a normal import; this module lies below it.
        from app.scheduler.context import current_execution

        execution = current_execution()
        for step in range(100):
            execution.progress(step / 100, f"第 {step} 步")
            logger.info("step {}", step)
            await asyncio.sleep(0.05)
        return TaskExecutionResult.success_result(message="完成")


async def example_direct_call(service: SchedulerService, db: Session) -> TaskExecutionResult:
    """Run an executor here and now; nothing is stored."""
    service.register_executor(ContentGenerationExecutor())
    return await service.execute_task(
        task_id=1,
        task_type="content_generation",
        task_params={"account_id": 1, "topic": "人工智能的未来发展"},
        db=db,
    )


async def example_refusals(service: SchedulerService, db: Session) -> list[TaskExecutionResult]:
    """What a caller's mistakes look like: results, never exceptions."""
    service.register_executor(ContentGenerationExecutor())
    service.register_executor(DigestExecutor())
    unknown = await service.execute_task(1, "unknown_type", {}, db)
    refused = await service.execute_task(1, "content_generation", {"invalid": "params"}, db)
    by_field = await service.execute_task(1, "digest", {"source": "", "limit": 0}, db)
    return [unknown, refused, by_field]


async def example_durable(service: SchedulerService, db: Session) -> TaskExecutionResult:
    """Record a request, let the scheduler run it, wait for its outcome."""
    service.register_executor(DigestExecutor())
    execution = await service.enqueue("digest", {"source": "feed", "limit": 3}, idempotency_key="digest-today")
    return await service.wait(execution.id, timeout=10)


async def example_outbox(service: SchedulerService, db: Session) -> TaskExecutionResult:
    """A request inside your own transaction: it exists exactly if your change does."""
    service.register_executor(DigestExecutor())
    db.execute(text("CREATE TABLE IF NOT EXISTS example_orders (id INTEGER PRIMARY KEY)"))
    db.execute(text("INSERT INTO example_orders DEFAULT VALUES"))
    execution = await service.enqueue("digest", {"source": "order"}, db=db)
    db.commit()
    return await service.wait(execution.id, timeout=10)


async def example_later(service: SchedulerService, db: Session) -> TaskExecutionResult:
    """Not before a moment, ahead of others, one at a time for a customer."""
    service.register_executor(DigestExecutor())
    execution = await service.enqueue(
        "digest",
        {"source": "customer"},
        run_at=datetime.now(UTC) + timedelta(seconds=0.2),
        priority=10,
        concurrency_key="customer-7",
    )
    return await service.wait(execution.id, timeout=10)


async def example_cancel(service: SchedulerService, db: Session) -> TaskExecutionResult:
    """End what runs; its code gets `asyncio.CancelledError` at its next await."""
    service.register_executor(PatientExecutor())
    execution = await service.enqueue("patient")
    await asyncio.sleep(0.2)
    await service.cancel(execution.id)
    return await service.wait(execution.id, timeout=10)


async def example_ad_hoc_job(service: SchedulerService, db: Session) -> list[str]:
    """The APScheduler underneath, for something that needs no record."""
    seen: list[str] = []
    done = asyncio.Event()

    def job() -> None:
        seen.append("ran")
        done.set()

    service.scheduler.add_job(job, "date")
    await asyncio.wait_for(done.wait(), 10)
    return seen


EXAMPLES = (
    example_direct_call,
    example_refusals,
    example_durable,
    example_outbox,
    example_later,
    example_cancel,
    example_ad_hoc_job,
)


async def run_all(folder: Path) -> dict[str, Any]:
    """Run every example, each on a started service; returns what each returned, by name."""
    # Upwards, as only a program may: this function is one.
    from app.core.config import Settings
    from app.db.schema import upgrade
    from app.scheduler.runtime import build_service, runtime_of

    outcomes: dict[str, Any] = {}
    for example in EXAMPLES:
        settings = Settings(database_url=f"sqlite:///{folder / example.__name__}.db")
        upgrade(settings)
        service = build_service(settings)
        service.start()
        try:
            with runtime_of(service).sessions() as db:
                outcomes[example.__name__] = await example(service, db)
        finally:
            await service.drain()
            runtime_of(service).close()
    return outcomes


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as temporary:
        for name, outcome in asyncio.run(run_all(Path(temporary))).items():
            print(f"{name}: {outcome}")  # noqa: T201 - a program's output
