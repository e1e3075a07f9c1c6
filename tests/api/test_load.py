"""The API goes on answering while executors write."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

from fastapi import FastAPI
from httpx import ASGITransport, AsyncClient
from sqlalchemy import text

from app.models.task_execution import ExecutionState
from app.services.scheduler_service import TaskExecutionResult
from tests.support import Recorder


async def test_live_answers_while_2000_executions_write(application: FastAPI) -> None:
    def write(_task_id: int, params: dict[str, Any], db: Any) -> TaskExecutionResult:
        db.execute(text("INSERT INTO effects VALUES (:n)"), params)
        return TaskExecutionResult.success_result("好")

    service, runtime = application.state.service, application.state.runtime
    service.register_executor(Recorder("write", write))
    answered = 0
    async with application.router.lifespan_context(application):
        with runtime.sessions() as session:
            session.execute(text("CREATE TABLE effects (n INTEGER)"))
            session.commit()
        transport = ASGITransport(application, client=("127.0.0.1", 5000))
        async with AsyncClient(transport=transport, base_url="http://localhost") as client:
            requests = asyncio.gather(*(service.enqueue("write", {"n": n}) for n in range(2000)))
            while not requests.done() or runtime.history.counts()[ExecutionState.SUCCESS] < 2000:
                answer = await client.get("/health/live")
                assert answer.status_code == 200
                answered += 1
                await asyncio.sleep(0.005)
            await requests
        with runtime.sessions() as session:
            assert session.scalar(text("SELECT count(DISTINCT n) FROM effects")) == 2000
    assert answered >= 20


async def test_the_openapi_document_is_made_beside_the_loop(application: FastAPI) -> None:
    """It takes a quarter of a second, in which nobody else would be answered."""
    make, makers = application.openapi, list[int]()

    def made() -> dict[str, Any]:
        if application.openapi_schema is None:
            makers.append(threading.get_ident())
        return make()

    application.openapi = made  # type: ignore[method-assign]
    async with AsyncClient(transport=ASGITransport(application), base_url="http://localhost") as client:
        document = (await client.get("/openapi.json")).json()
    assert document["paths"]["/health/live"]
    assert len(makers) == 1
    assert makers[0] != threading.get_ident()
