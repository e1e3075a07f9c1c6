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


async def test_the_readmes_snippets_run(sqlite_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    write, register, use, measure, _ = snippets()
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
        exec("async def measure():\n    " + measure.replace("\n", "\n    "), names)
        await names["measure"]()
        assert isinstance(service, SchedulerService)


async def test_the_readmes_test_passes(scheduler_sandbox: Sandbox) -> None:
    write, *_, test = snippets()
    names: dict[str, Any] = {}
    exec(write, names)
    exec(test, names)
    await names["test_the_team_is_greeted_every_weekday"](scheduler_sandbox)
    assert scheduler_sandbox.runs(), "the snippet has run something"
