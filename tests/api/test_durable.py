"""Steps, signals, parents and children over HTTP."""

from __future__ import annotations

from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from app.scheduler.context import current_execution
from app.services.scheduler_service import TaskExecutionResult
from tests.api.conftest import API
from tests.api.test_tasks import fields, wait_for
from tests.support import Recorder


async def _parent(*_: Any) -> TaskExecutionResult:
    me = current_execution()
    await me.step("draft", lambda: {"title": "春", "api_key": "hidden"})
    await me.spawn("it", "child")
    word = await me.wait_for_signal("word")
    await me.wait_for_children()
    return TaskExecutionResult.success_result("好", data={"word": word})


async def _child(*_: Any) -> None:
    await current_execution().wait_for_signal("end")


@pytest.fixture
def parent(application: FastAPI, client: TestClient) -> int:
    application.state.service.register_executor(Recorder("parent", _parent))
    application.state.service.register_executor(Recorder("child", _child))
    execution_id: int = client.post(f"{API}/executions", json={"task_type": "parent"}).json()["id"]
    wait_for(client, execution_id, "suspended")
    return execution_id


def test_an_execution_shows_its_steps_signals_and_children(client: TestClient, parent: int) -> None:
    found = client.get(f"{API}/executions/{parent}").json()
    assert [(step["kind"], step["name"], step["result"]) for step in found["steps"]] == [
        ("step", "draft", {"title": "春", "api_key": "******"}),
        ("signal", "word", None),
    ]
    assert found["steps"][0]["finished_at"]
    assert found["steps"][1]["finished_at"] is None
    (child,) = found["children"]
    assert child["child_key"] == "it"
    assert found["child_count"] == 1
    assert found["parent"] is None
    assert found["run_at"] is None  # it waits for no moment
    theirs = client.get(f"{API}/executions/{child['id']}").json()
    assert (theirs["parent"]["id"], theirs["parent_id"], theirs["child_key"]) == (parent, parent, "it")
    listed = client.get(f"{API}/executions", params={"parent_id": parent}).json()["items"]
    assert [item["id"] for item in listed] == [child["id"]]


def test_of_many_children_the_last_are_shown_and_all_are_counted(application: FastAPI, client: TestClient) -> None:
    async def _many(*_: Any) -> None:
        for number in range(203):
            await current_execution().spawn(f"child {number}", "noop")

    application.state.service.register_executor(Recorder("many", _many))
    application.state.service.register_executor(Recorder("noop"))
    execution_id = client.post(f"{API}/executions", json={"task_type": "many"}).json()["id"]
    wait_for(client, execution_id, "success")
    found = client.get(f"{API}/executions/{execution_id}").json()
    assert found["child_count"] == 203
    assert [child["child_key"] for child in found["children"]] == [f"child {number}" for number in range(3, 203)]


def test_a_signal_is_stored_masked_and_taken(client: TestClient, parent: int) -> None:
    (child,) = client.get(f"{API}/executions/{parent}").json()["children"]
    body = {"name": "word", "payload": {"password": "s3cret", "by": "Ada"}}
    answer = client.post(f"{API}/executions/{parent}/signals", json=body)
    assert answer.status_code == 201
    assert answer.json()["payload"] == {"password": "******", "by": "Ada"}
    assert client.post(f"{API}/executions/{child['id']}/signals", json={"name": "end"}).status_code == 201
    found = wait_for(client, parent, "success")
    assert found["result"]["data"]["word"] == {"password": "******", "by": "Ada"}
    (signal,) = found["signals"]
    assert (signal["name"], signal["signalled_by"]) == ("word", "local")
    assert signal["consumed_at"]
    assert client.post(f"{API}/executions/{parent}/signals", json=body).status_code == 409


def test_signals_that_cannot_be_are_refused(client: TestClient, parent: int) -> None:
    for name in ("", "a#b", "x" * 201, "\n"):
        answer = client.post(f"{API}/executions/{parent}/signals", json={"name": name})
        assert answer.status_code == 422
        assert "name" in fields(answer)
    assert client.post(f"{API}/executions/4711/signals", json={"name": "word"}).status_code == 404
    endless = client.post(
        f"{API}/executions/{parent}/signals",
        content='{"name": "word", "payload": {"n": NaN}}',
        headers={"Content-Type": "application/json"},
    )
    assert endless.status_code == 422
    assert fields(endless) == {"payload"}


def test_who_may_only_look_may_not_signal(client: TestClient, parent: int, tokens: dict[str, str]) -> None:
    headers = {"Authorization": f"Bearer {tokens['viewer']}"}
    answer = client.post(f"{API}/executions/{parent}/signals", json={"name": "word"}, headers=headers)
    assert answer.status_code == 403


def test_cancelling_the_parent_cancels_the_child(client: TestClient, parent: int) -> None:
    assert client.post(f"{API}/executions/{parent}/cancel").json()["state"] == "cancelled"
    (child,) = client.get(f"{API}/executions/{parent}").json()["children"]
    assert (child["state"], child["reason"]) == ("cancelled", "parent_cancelled")
