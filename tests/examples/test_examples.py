"""The examples module and README.md's snippets run."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvicorn

from app.core.config import Settings
from app.factory import create_app, create_service, prepare_database
from app.models.api_token import create_token
from app.scheduler.runtime import runtime_of
from app.services import scheduler_service_examples as examples
from app.services.scheduler_service import SchedulerService
from app.testing.sandbox import Sandbox
from app.workflows import approval
from app.workflows.approvals import Approvals, Via
from tests.support import Recorder, fail_with, running, until

README = Path(__file__).parents[2] / "README.md"


async def test_every_example_runs(tmp_path: Path) -> None:
    outcomes = await examples.run_all(tmp_path)
    assert outcomes.keys() == {example.__name__ for example in examples.EXAMPLES}
    assert outcomes["example_direct_call"].success
    assert [result.error for result in outcomes["example_refusals"]] == [
        "ExecutorNotFound: unknown_type",
        "InvalidParameters",
        "InvalidParameters",
    ]
    assert outcomes["example_durable"].data == {"entries": 3}
    assert outcomes["example_outbox"].success
    assert outcomes["example_later"].success
    assert outcomes["example_cancel"].error == "Cancelled"
    assert outcomes["example_ad_hoc_job"] == ["ran"]


def snippet(words: str) -> str:
    """The Python of README.md that has these words in it."""
    found = re.findall(r"^```python\n(.*?)^```", README.read_text("utf-8"), re.DOTALL | re.MULTILINE)
    (wanted,) = (one for one in found if words in one)
    return str(wanted)


WRITE = "class GreetingExecutor"


async def test_the_readmes_snippets_run(sqlite_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def body_of(words: str, result: str) -> Any:
        exec(
            f"async def body():\n    {snippet(words).replace(chr(10), chr(10) + '    ')}\n    return {result}\n",
            names,
        )
        return names["body"]

    async with running(sqlite_url, start=False) as (service, runtime):
        monkeypatch.setattr("app.services.scheduler_service.scheduler_service", service)
        with runtime.sessions() as session:
            names: dict[str, Any] = {
                "session": session,
                "SchedulerService": SchedulerService,
                "Settings": Settings,
            }
            names["scheduler_service"] = service
            exec(snippet(WRITE), names)
            exec(snippet("def register_executors"), names)
            names["register_executors"]()
            exec(snippet("class LetterExecutor"), names)
            service.start()
            result = await body_of("as part of your own transaction", "result")()
        assert result.message == "Hello, Ada"
        await body_of("repeats=Debounce", "many")()
        assert runtime.tasks.count()["total"] == 4


async def test_the_readmes_routes_are_served_beside_the_schedulers(
    sqlite_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    names: dict[str, Any] = {}
    monkeypatch.setattr("app.factory.create_app", lambda: create_app(Settings(database_url=sqlite_url)))
    exec(snippet(WRITE), names)
    exec(snippet("APIRouter"), names)
    application = names["application"]
    names["scheduler_service"] = application.state.service
    application.state.service.register_executor(names["GreetingExecutor"]())
    transport = httpx.ASGITransport(application, client=("127.0.0.1", 1))
    async with (
        application.router.lifespan_context(application),
        httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client,
    ):
        asked = (await client.post("/newsroom/greetings", params={"name": "Ada"})).json()
        await application.state.service.wait(asked["execution"], timeout=30)
        found = (await client.get(f"/api/v1/scheduler/executions/{asked['execution']}")).json()
        assert found["message"] == "Hello, Ada"


async def test_the_readmes_test_passes(scheduler_sandbox: Sandbox) -> None:
    names: dict[str, Any] = {}
    exec(snippet(WRITE), names)
    exec(snippet("scheduler_sandbox"), names)
    await names["test_the_team_is_greeted_every_weekday"](scheduler_sandbox)
    assert scheduler_sandbox.runs(), "the snippet has run something"


async def test_the_readmes_traced_executor_runs(sqlite_url: str) -> None:
    names: dict[str, Any] = {}
    exec(snippet(WRITE), names)
    exec(snippet("start_as_current_span"), names)
    async with running(sqlite_url, names["ProofreadExecutor"]()) as (service, _):
        assert (await service.wait((await service.enqueue("proofread")).id, 10)).message == "proofread"


async def test_the_readmes_client_asks_a_server(sqlite_url: str, capsys: pytest.CaptureFixture[str]) -> None:
    names: dict[str, Any] = {}
    exec(snippet(WRITE), names)
    application = create_app(Settings(database_url=sqlite_url))
    application.state.service.register_executor(names["GreetingExecutor"]())
    application.state.service.register_executor(Recorder("broken", fail_with(ValueError("坏"))))
    with application.state.runtime.sessions() as session:
        token = create_token(session, "script", "operator")
        session.commit()
    server = uvicorn.Server(uvicorn.Config(application, port=0, log_level="warning"))
    serving = asyncio.create_task(server.serve())
    await until(lambda: server.started)
    url = f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    failed = await application.state.service.enqueue("broken")
    await application.state.service.wait(failed.id, timeout=30)
    use = snippet("SchedulerClient").replace("http://127.0.0.1:8000", url).replace("ch_…", token)
    await asyncio.to_thread(exec, use, names)
    server.should_exit = True
    await serving
    assert names["done"].message == "Hello, Ada"
    assert names["failed"].id == failed.id
    assert capsys.readouterr().out == "task 7 does not exist\n"


async def test_the_readmes_review_waits_for_its_decision(scheduler_sandbox: Sandbox) -> None:
    box, names = scheduler_sandbox, dict[str, Any]()
    exec(snippet(WRITE), names)
    exec(snippet("class ReviewExecutor"), names)
    box.register(names["GreetingExecutor"](), names["ReviewExecutor"]())
    review = box.enqueue("review", {"topic": "春"})
    box.advance(days=2)
    box.signal(review, "decision", {"approved": True, "by": "Ada"})
    box.advance()
    assert (box.read(review).state, box.read(review).message) == ("success", "Hello, Ada")


async def test_the_readmes_workflow_goes_on_after_its_approval(sqlite_url: str, tmp_path: Path) -> None:
    service = create_service(Settings(database_url=sqlite_url, publish_directory=tmp_path / "site"))
    runtime = runtime_of(service)
    prepare_database(runtime)
    service.start()
    try:
        names: dict[str, Any] = {"scheduler_service": service}
        use = snippet("from app.workflows import").replace("\n", "\n    ")
        exec(f"async def use():\n    {use}\n    return execution\n", names)
        execution = await names["use"]()
        (question,) = await until(Approvals(runtime).waiting)
        await Approvals(runtime).decide(question.execution_id, approved=True, by="ann", via=Via.API)
        result = await service.wait(execution.id, timeout=30)
        assert result.success, result.error
        assert (tmp_path / "site" / "content-1.html").exists()
    finally:
        await service.drain()
        runtime.close()


def test_the_readmes_notices_are_accepted_where_there_is_an_address(sqlite_url: str) -> None:
    names: dict[str, Any] = {"approval": approval}
    exec(snippet("approval_notice"), names)
    service = create_service(Settings(database_url=sqlite_url, public_base_url="https://hub.example.org"))
    try:
        service.check("workflow", names["flow"].definition())
    finally:
        runtime_of(service).close()
