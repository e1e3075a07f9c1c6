"""The examples module and README.md's snippets run."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from app.services import scheduler_service_examples as examples
from app.services.scheduler_service import SchedulerService
from app.testing.sandbox import Sandbox
from tests.support import running

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


def snippets() -> list[str]:
    """The Python of README.md, in its order."""
    return re.findall(r"^```python\n(.*?)^```", README.read_text("utf-8"), re.DOTALL | re.MULTILINE)


def snippet(part: str) -> str:
    """The one with that part in it."""
    (found,) = [one for one in snippets() if part in one]
    return found


async def test_the_readmes_snippets_run(sqlite_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    write, register, use, *_ = snippets()
    async with running(sqlite_url, start=False) as (service, runtime):
        monkeypatch.setattr("app.services.scheduler_service.scheduler_service", service)
        with runtime.sessions() as session:
            names: dict[str, Any] = {"session": session}
            exec(write, names)
            exec(register, names)
            names["register_executors"]()
            service.start()
            body = "async def use():\n    " + use.replace("\n", "\n    ") + "\n    return result\n"
            exec(body, names)
            result = await names["use"]()
            session.commit()
        assert result.message == "Hello, Ada"
        assert isinstance(service, SchedulerService)


async def test_the_readmes_test_passes(scheduler_sandbox: Sandbox) -> None:
    write, test = snippets()[0], snippet("scheduler_sandbox")
    names: dict[str, Any] = {}
    exec(write, names)
    exec(test, names)
    await names["test_the_team_is_greeted_every_weekday"](scheduler_sandbox)
    assert scheduler_sandbox.runs(), "the snippet has run something"


async def test_the_readmes_traced_executor_runs(sqlite_url: str) -> None:
    names: dict[str, Any] = {}
    exec(snippets()[0], names)
    exec(snippet("start_as_current_span"), names)
    async with running(sqlite_url, names["ReviewExecutor"]()) as (service, _):
        assert (await service.wait((await service.enqueue("review")).id, 10)).message == "reviewed"
