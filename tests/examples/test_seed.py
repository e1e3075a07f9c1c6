"""Every Python snippet of the design document runs, verbatim, in order, on a fresh database."""

from __future__ import annotations

import ast
import inspect
import re
import textwrap
from abc import abstractmethod
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy.orm import Session

from app.core.config import Settings
from app.db.database import SessionLocal, configure
from app.executors.content_generation import ContentGenerationExecutor
from app.executors.publishing import PublishingExecutor
from app.factory import prepare_database, register_executors
from app.scheduler.runtime import Runtime
from app.services.scheduler_service import TaskExecutionResult, TaskExecutor, scheduler_service

SEED = Path(__file__).with_name("seed.md")
SNIPPETS = re.findall(r"^```python\n(.*?)^```", SEED.read_text("utf-8"), re.DOTALL | re.MULTILINE)
CLAIM = re.compile(r"^\s*# (result\.\w+ == .+)$", re.MULTILINE)


@pytest.fixture
async def seed_names(sqlite_url: str, tmp_path: Path) -> Any:
    """What the snippets take for granted: the application's own service and Session."""
    settings = Settings(database_url=sqlite_url, publish_directory=tmp_path / "site")
    engine = configure(settings)
    runtime = Runtime(scheduler_service, settings=settings, sessions=SessionLocal)
    scheduler_service.attach(runtime)
    prepare_database(runtime)
    register_executors(scheduler_service, settings)
    with SessionLocal() as db:
        yield {
            "Any": Any,
            "Dict": dict,
            "Session": Session,
            "TaskExecutor": TaskExecutor,
            "TaskExecutionResult": TaskExecutionResult,
            "ContentGenerationExecutor": ContentGenerationExecutor,
            "PublishingExecutor": PublishingExecutor,
            "abstractmethod": abstractmethod,
            "scheduler_service": scheduler_service,
            "db": db,
            "db_session": db,
        }
    await scheduler_service.drain()
    runtime.close()
    engine.dispose()


async def run_snippet(snippet: str, names: dict[str, Any]) -> None:
    """Execute a snippet; methods without a class are put into one; `# result.x == y` comments must hold."""
    first = next(iter(ast.parse(snippet).body), None)
    if isinstance(first, (ast.FunctionDef, ast.AsyncFunctionDef)) and "self" in ast.unparse(first.args):
        snippet = "class Snippet(TaskExecutor):\n" + textwrap.indent(snippet, "    ")
    code = compile(snippet, "seed.md", "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    outcome = eval(code, names)
    if inspect.iscoroutine(outcome):
        await outcome
    for claim in CLAIM.findall(snippet):
        assert eval(claim, names), claim


def test_the_document_has_all_its_snippets() -> None:
    assert len(SNIPPETS) == 21


async def test_every_snippet_runs_in_order(seed_names: dict[str, Any]) -> None:
    for snippet in SNIPPETS:
        if CLAIM.search(snippet):
            # The claims are about the built-in executor; the document's own sample has replaced it by now.
            register_executors()
        await run_snippet(snippet, seed_names)
    seed_names["register_executors"]()
    assert {"content_generation", "publishing"} <= scheduler_service.get_registered_executors().keys()


async def test_the_documents_calls_work_on_the_built_in_executor(seed_names: dict[str, Any]) -> None:
    result = await scheduler_service.execute_task(
        task_id=1,
        task_type="content_generation",
        task_params={"account_id": 1, "topic": "人工智能的未来发展"},
        db=seed_names["db"],
    )
    assert result.success, result.error
    assert result.message == "成功生成内容: 人工智能的未来发展"
    refused = await scheduler_service.execute_task(
        task_id=1, task_type="content_generation", task_params={"invalid": "params"}, db=seed_names["db"]
    )
    assert refused.error == "InvalidParameters"


def test_the_design_document_keeps_every_snippet_of_the_seed() -> None:
    design = (SEED.parents[2] / "SCHEDULER_DESIGN.md").read_text("utf-8")
    for snippet in SNIPPETS:
        assert snippet in design
