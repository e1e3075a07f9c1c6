"""A real application on a database of its own."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from pydantic import BaseModel, SecretStr

from app.core.config import Settings
from app.factory import create_app
from app.models.api_token import create_token
from app.services.scheduler_service import TaskExecutionResult
from tests.support import Recorder

API = "/api/v1/scheduler"


class Credentials(BaseModel):
    user: str
    pin: SecretStr


def _work(_task_id: int, params: dict[str, Any], _db: Any) -> TaskExecutionResult:
    if params.get("fail"):
        return TaskExecutionResult.failure_result("坏", "Bad: luck")
    return TaskExecutionResult.success_result("好", data={"token": "t0p-secret", "n": 1})


@pytest.fixture
def application(sqlite_url: str, tmp_path: Path) -> FastAPI:
    settings = Settings(
        database_url=sqlite_url,
        sqlite_synchronous="NORMAL",
        scheduler_concurrency=4,
        scheduler_grace_seconds=0.5,
        publish_directory=tmp_path / "site",
    )
    app = create_app(settings)
    app.state.service.register_executor(Recorder("work", _work))
    app.state.service.register_executor(Recorder("slow", lambda *_: asyncio.sleep(60)))
    app.state.service.register_executor(Recorder("vault", params_model=Credentials))
    return app


@pytest.fixture
def client(application: FastAPI) -> Iterator[TestClient]:
    with TestClient(application, base_url="http://localhost", client=("127.0.0.1", 5000)) as client:
        yield client


@pytest.fixture
def tokens(application: FastAPI, client: TestClient) -> dict[str, str]:
    """A token of each role; from here on nobody is anonymous."""
    with application.state.runtime.sessions() as session:
        found = {role: create_token(session, role, role) for role in ("viewer", "operator", "admin")}
        session.commit()
    return found
