"""Approvals over HTTP: roles, decisions, signed links and those who tamper with them; the graph and the pool."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import urlsplit

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from itsdangerous import URLSafeSerializer
from sqlalchemy import event, text

from app.core.clock import SystemClock
from app.core.config import Settings
from app.models.content import Content
from app.models.content_pool import PoolEntry
from app.models.signing_key import signing_key
from app.scheduler.breaker import CircuitBreaker
from app.services.scheduler_service import TaskExecutionResult
from app.workflows import approval, chain, step
from tests.api.conftest import API
from tests.support import Recorder

Ask = Callable[..., int]


def wait_for(condition: Callable[[], Any]) -> Any:
    end = time.monotonic() + 20
    while not (value := condition()):
        assert time.monotonic() < end, "the condition did not come true in time"
        time.sleep(0.02)
    return value


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


@pytest.fixture
def ask(client: TestClient) -> Ask:
    """Asks for a decision, as the machine's own operator, and returns the approval's id once it waits."""

    def asked(**params: Any) -> int:
        body = {"task_type": "approval", "params": {"title": "Publish?", "on_reject": "continue", **params}}
        answer = client.post(f"{API}/executions", json=body)
        assert answer.status_code == 202, answer.text
        execution_id = int(answer.json()["id"])
        wait_for(lambda: client.get(f"{API}/executions/{execution_id}").json()["state"] == "suspended")
        return execution_id

    return asked


def link_to(client: TestClient, execution_id: int, **body: Any) -> str:
    """The path of a new link."""
    answer = client.post(f"{API}/approvals/{execution_id}/links", json=body)
    assert answer.status_code == 201, answer.text
    return urlsplit(answer.json()["url"]).path


def outcome(client: TestClient, execution_id: int) -> dict[str, Any]:
    wait_for(lambda: client.get(f"{API}/executions/{execution_id}").json()["finished_at"])
    found: dict[str, Any] = client.get(f"{API}/executions/{execution_id}").json()
    return found


# ---------------------------------------------------------------- with a token


def test_a_decision_keeps_the_event_loop_from_nothing(client: TestClient, ask: Ask, application: FastAPI) -> None:
    """No statement is carried out on the loop's own thread: with a slow database everybody would wait."""
    assert client.portal is not None
    application.state.service.register_executor(Recorder("guarded", circuit_breaker=CircuitBreaker()))
    by_token, by_link = ask(), ask()
    path = link_to(client, by_link)
    loop_thread = client.portal.call(threading.get_ident)
    on_loop: list[str] = []

    def heard(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        if threading.get_ident() == loop_thread:
            on_loop.append(statement)

    event.listen(application.state.runtime.engine, "before_cursor_execute", heard)
    assert client.post(f"{API}/executions/{by_token}/decision", json={"approved": True}).status_code == 200
    assert client.post(path, data={"decision": "approve"}).status_code == 200
    assert client.post(f"{API}/flow/circuits/guarded/reset").status_code == 200
    assert on_loop == []


def test_what_waits_is_listed_and_decided_once(client: TestClient, ask: Ask) -> None:
    ids = [ask(title=f"Question {number}") for number in range(3)]
    first = client.get(f"{API}/approvals", params={"limit": 2}).json()
    assert [item["title"] for item in first["items"]] == ["Question 0", "Question 1"]
    second = client.get(f"{API}/approvals", params={"limit": 2, "cursor": first["next_cursor"]}).json()
    assert [item["execution_id"] for item in second["items"]] == ids[2:]
    assert second["next_cursor"] is None
    decision = {"approved": False, "comment": "not yet"}
    assert client.post(f"{API}/executions/{ids[0]}/decision", json=decision).status_code == 200
    assert client.post(f"{API}/executions/{ids[0]}/decision", json=decision).status_code == 409
    data = outcome(client, ids[0])["result"]["data"]
    assert (data["approved"], data["comment"], data["decided_by"], data["via"]) == (
        False,
        "not yet",
        "local",
        "api",
    )
    assert [item["execution_id"] for item in client.get(f"{API}/approvals").json()["items"]] == ids[1:]


def test_a_question_that_plain_sql_has_spoilt_hides_no_other(
    client: TestClient, ask: Ask, application: FastAPI
) -> None:
    first, *others = (ask(title=f"No {number}") for number in range(4))
    with application.state.runtime.engine.begin() as connection:
        connection.execute(text("UPDATE task_executions SET params = '{}' WHERE id = :id"), {"id": first})
    page = client.get(f"{API}/approvals", params={"limit": 2}).json()
    assert [item["execution_id"] for item in page["items"]] == others[:2]
    page = client.get(f"{API}/approvals", params={"limit": 2, "cursor": page["next_cursor"]}).json()
    assert [item["execution_id"] for item in page["items"]] == others[2:]
    assert page["next_cursor"] is None


def test_roles_and_approvers(client: TestClient, ask: Ask, application: FastAPI, request: Any) -> None:
    open_to_all, for_ann = ask(), ask(approvers=["ann"])
    tokens: dict[str, str] = request.getfixturevalue("tokens")
    decide = {"approved": True}
    viewer, operator, admin = (bearer(tokens[role]) for role in ("viewer", "operator", "admin"))
    path = f"{API}/executions/{open_to_all}/decision"
    assert client.get(f"{API}/approvals").status_code == 401
    assert client.get(f"{API}/approvals", headers=viewer).status_code == 200
    assert client.post(path, json=decide, headers=viewer).status_code == 403
    assert client.post(path, json=decide, headers=operator).status_code == 200
    path = f"{API}/executions/{for_ann}/decision"
    refused = client.post(path, json=decide, headers=operator)
    assert (refused.status_code, refused.json()["type"]) == (403, "urn:contenthub:problem:not_permitted")
    # Nor by a way around: a bare signal, or a link for somebody else.
    signal = {"name": "decision", "payload": {"approved": True, "by": "ann"}}
    assert client.post(f"{API}/executions/{for_ann}/signals", json=signal, headers=operator).status_code == 409
    links = f"{API}/approvals/{for_ann}/links"
    assert client.post(links, json={"name": "ann"}, headers=operator).status_code == 403
    assert client.post(links, json={"name": "operator"}, headers=operator).status_code == 403
    assert client.post(links, json={"name": "ann"}, headers=viewer).status_code == 403
    assert client.post(links, json={"name": "ann"}, headers=admin).status_code == 201
    assert client.post(path, json=decide, headers=admin).status_code == 200


# ---------------------------------------------------------------- by a link


def test_a_link_shows_the_question_and_decides_it_once(client: TestClient, ask: Ask) -> None:
    execution_id = ask(title="<b>Publish</b>?\u202e", details="\u2066Line one\n<script>alert(1)</script>")
    path = link_to(client, execution_id, name="ann@example.com")
    client.headers.clear()
    for _ in range(3):  # a mail scanner looks at it, too
        shown = client.get(path)
        assert shown.status_code == 200
    assert "&lt;b&gt;Publish&lt;/b&gt;?" in shown.text
    assert "<script>" not in shown.text
    assert "\\u202e" in shown.text
    assert not {"\u202e", "\u2066"} & set(shown.text)
    assert "frame-ancestors 'none'" in shown.headers["content-security-policy"]
    assert (shown.headers["cache-control"], shown.headers["referrer-policy"]) == ("no-store", "no-referrer")
    assert "批准" in client.get(path, headers={"Accept-Language": "zh-CN"}).text
    assert client.post(path, data={"decision": "maybe"}).status_code == 422
    decided = client.post(path, data={"decision": "approve", "comment": " good "})
    assert (decided.status_code, "Approved" in decided.text) == (200, True)
    assert client.post(path, data={"decision": "reject"}).status_code == 409
    assert client.get(path).status_code == 409
    data = outcome(client, execution_id)["result"]["data"]
    assert (data["approved"], data["comment"], data["decided_by"]) == (True, "good", "ann@example.com")
    assert (data["via"], data["link_made_by"]) == ("link", "local")
    assert client.post(path, data={"decision": "reject"}).status_code == 409


def test_two_links_for_one_question_decide_it_once(client: TestClient, ask: Ask) -> None:
    execution_id = ask()
    first, second = link_to(client, execution_id, name="ann"), link_to(client, execution_id, name="bob")
    assert client.post(first, data={"decision": "reject"}).status_code == 200
    assert client.post(second, data={"decision": "approve"}).status_code == 409
    assert outcome(client, execution_id)["result"]["data"]["decided_by"] == "ann"


def test_no_character_of_a_link_can_be_changed(client: TestClient, ask: Ask) -> None:
    execution_id = ask()
    token = link_to(client, execution_id).rpartition("/")[2]
    for place in range(len(token)):
        other = "A" if token[place] != "A" else "B"
        forged = token[:place] + other + token[place + 1 :]
        if place == len(token) - 1:  # its last character has bits that say nothing
            forged = token[:-1]
        assert client.get(f"/approvals/{forged}").status_code in (403, 404), place
        assert client.post(f"/approvals/{forged}", data={"decision": "approve"}).status_code in (403, 404), place
    assert client.get(f"{API}/executions/{execution_id}").json()["state"] == "suspended"


def test_a_link_that_somebody_else_has_signed_is_refused(
    client: TestClient, ask: Ask, application: FastAPI
) -> None:
    execution_id = ask()
    payload = {"e": execution_id, "b": "ann", "m": "ann", "u": 4_000_000_000, "d": 0}
    with application.state.runtime.sessions() as session:
        key = signing_key(session, "approval links")
    for guess, salt in (("", "contenthub approval"), (f"/{key}", "another salt"), ("/", "contenthub approval")):
        forged = URLSafeSerializer(guess, salt=salt).dumps(payload)
        assert client.post(f"/approvals/{forged}", data={"decision": "approve"}).status_code == 403
    for odd in ("x", "a.b", "eyJlIjoxfQ.", "%00", "é", "A" * 5000):
        assert client.get(f"/approvals/{odd}").status_code in (403, 404)


def test_with_a_secret_of_its_own_a_link_cannot_be_made_from_the_database(
    client: TestClient, ask: Ask, application: FastAPI
) -> None:
    execution_id = ask()
    path = link_to(client, execution_id)
    runtime = application.state.runtime
    runtime.settings = Settings(**{**runtime.settings.model_dump(), "approval_secret": "only in the environment"})
    assert client.get(path).status_code == 403


def test_a_link_is_for_one_approval_only(client: TestClient, ask: Ask) -> None:
    one, other = ask(), ask()
    path = link_to(client, one)
    assert client.post(path, data={"decision": "approve"}).status_code == 200
    assert outcome(client, one)["state"] == "success"
    assert client.get(f"{API}/executions/{other}").json()["state"] == "suspended"


def test_a_link_expires(client: TestClient, ask: Ask, application: FastAPI) -> None:
    execution_id = ask()
    path = link_to(client, execution_id, lifetime_seconds=3600.0)
    runtime = application.state.runtime

    class Later(SystemClock):
        def now(self) -> datetime:
            return datetime.now(UTC) + timedelta(hours=2)

    runtime.clock, clock = Later(), runtime.clock
    assert client.get(path).status_code == 410
    assert client.post(path, data={"decision": "approve"}).status_code == 410
    runtime.clock = clock
    assert client.get(path).status_code == 200


def test_a_link_from_before_a_retry_does_not_decide_what_is_asked_then(client: TestClient, ask: Ask) -> None:
    execution_id = ask(on_reject="fail")
    old = link_to(client, execution_id, name="ann")
    client.post(f"{API}/executions/{execution_id}/decision", json={"approved": False})
    assert outcome(client, execution_id)["state"] == "failed"
    client.post(f"{API}/executions/{execution_id}/retry")
    wait_for(lambda: client.get(f"{API}/executions/{execution_id}").json()["state"] == "suspended")
    assert client.post(old, data={"decision": "approve"}).status_code == 409
    assert client.post(link_to(client, execution_id), data={"decision": "approve"}).status_code == 200


def test_links_are_made_for_approvals_that_wait_only(client: TestClient, ask: Ask) -> None:
    execution_id = ask()
    client.post(f"{API}/executions/{execution_id}/decision", json={"approved": True})
    outcome(client, execution_id)
    assert client.post(f"{API}/approvals/{execution_id}/links", json={}).status_code == 409
    work = client.post(f"{API}/executions", json={"task_type": "work"}).json()["id"]
    assert client.post(f"{API}/approvals/{work}/links", json={}).status_code == 404
    assert client.post(f"{API}/executions/{work}/decision", json={"approved": True}).status_code == 404


# ---------------------------------------------------------------- the graph, the pool


def test_a_workflow_is_shown_as_a_graph_while_it_runs_and_after(client: TestClient) -> None:
    flow = chain(step("work", id="a"), approval("Go?"), step("work", {"n": 1}, id="c"))
    body = {"task_type": "workflow", "params": flow.definition()}
    execution_id = client.post(f"{API}/executions", json=body).json()["id"]
    path = f"{API}/executions/{execution_id}/workflow"
    wait_for(lambda: client.get(f"{API}/approvals").json()["items"])
    graph = client.get(path).json()
    assert [(node["id"], node["state"]) for node in graph["steps"]] == [
        ("a", "success"),
        ("approval", "running"),
        ("c", "waiting"),
    ]
    assert graph["edges"] == [{"source": "a", "target": "approval"}, {"source": "approval", "target": "c"}]
    (question,) = client.get(f"{API}/approvals").json()["items"]
    assert (question["workflow_id"], question["step"]) == (execution_id, "approval")
    client.post(f"{API}/executions/{question['execution_id']}/decision", json={"approved": True})
    outcome(client, execution_id)
    assert {node["state"] for node in client.get(path).json()["steps"]} == {"success"}
    children = client.get(f"{API}/executions", params={"parent_id": execution_id}).json()["items"]
    assert len(children) == 3
    other = client.get(f"{API}/executions/{children[0]['id']}/workflow")
    assert other.status_code == 404


def test_the_graph_of_a_workflow_with_many_items_shows_all_of_them(client: TestClient) -> None:
    flow = chain(step("work", id="a"), step("work", id="each", for_each="input.items"), step("work", id="z"))
    body = {"task_type": "workflow", "params": flow.definition({"items": list(range(250))})}
    execution_id = client.post(f"{API}/executions", json=body).json()["id"]
    outcome(client, execution_id)
    graph = client.get(f"{API}/executions/{execution_id}/workflow").json()
    assert [node["state"] for node in graph["steps"]] == ["success"] * 3
    assert [len(node["runs"]) for node in graph["steps"]] == [1, 250, 1]


def test_a_graph_hides_what_executors_quote_of_the_secrets_they_were_given(
    client: TestClient, application: FastAPI
) -> None:
    def quote(_: int, params: dict[str, Any], __: Any) -> TaskExecutionResult:
        said = f"used {params['password']} for login"
        return TaskExecutionResult.failure_result(said, error=said, data={"echo": said})

    application.state.service.register_executor(Recorder("quote", quote))
    flow = step(
        "quote", {"password": "{{ input.words[0] }}"}, id="a", compensate=("quote", {"password": "x1y2z3"})
    )
    body = {"task_type": "workflow", "params": flow.definition({"words": ["hunter2"], "token": "s3cr3t"})}
    execution_id = client.post(f"{API}/executions", json=body).json()["id"]
    outcome(client, execution_id)
    answer = client.get(f"{API}/executions/{execution_id}/workflow")
    assert "hunter2" not in answer.text
    (run,) = answer.json()["steps"][0]["runs"]
    assert run["data"] == {"echo": "used ****** for login"}


def test_a_graph_shows_why_a_step_failed_before_it_began(client: TestClient) -> None:
    each = {"id": "each", "type": "work", "for_each": "[0, 1]", "params": {"n": "{{ 1 / item }}"}}
    steps = [
        {"id": "a", "type": "work", "on_failure": "continue", "params": {"n": "{{ input.n.missing }}"}},
        {"id": "b", "type": "work", "on_failure": "continue", "when": "input.n"},
        each | {"on_failure": "continue"},
        {"id": "c", "type": "work", "when": "false"},
        {"id": "last", "type": "approval", "params": {"title": "?", "approvers": "{{ input.n }}"}},
    ]
    steps[-1] |= {"depends_on": ["c"], "when": "steps.c.state == 'skipped'", "on_failure": "continue"}
    body = {"task_type": "workflow", "params": {"steps": steps, "input": {"n": 1}}}
    execution_id = client.post(f"{API}/executions", json=body).json()["id"]
    outcome(client, execution_id)
    nodes = client.get(f"{API}/executions/{execution_id}/workflow").json()["steps"]
    assert [(node["id"], node["state"]) for node in nodes] == [
        ("a", "failed"),
        ("b", "failed"),
        ("each", "failed"),
        ("c", "skipped"),
        ("last", "failed"),
    ]
    for node, said in zip(
        nodes, ["params: input.n.missing", "when: input.n", "division", None, "approvers"], strict=True
    ):
        assert node["error"] is said is None or said in node["error"], node
    assert [(run["key"], run["execution_id"] is None) for run in nodes[2]["runs"]] == [
        ("each[0]", True),
        ("each[1]", False),
    ]


def test_a_form_that_is_none_of_ours_is_refused_in_words(client: TestClient, ask: Ask) -> None:
    path = link_to(client, ask())
    answer = client.post(path, data={f"field{n}": "x" for n in range(11)})
    assert answer.status_code == 422
    assert client.post(path, data={"decision": "approve"}).status_code == 200


def test_a_comment_that_is_too_long_is_refused_and_not_cut_off(client: TestClient, ask: Ask) -> None:
    execution_id = ask()
    path = link_to(client, execution_id)
    for language, said in (
        ("en", "has 2001 characters; 2000 are the most"),
        ("zh-CN", "说明有 2001 个字符，最多 2000 个"),
    ):
        form = {"decision": "approve", "comment": "x" * 2001}
        answer = client.post(path, data=form, headers={"Accept-Language": language})
        assert (answer.status_code, said in answer.text) == (422, True)
    longest = "x\r\n" * 999 + "xx"  # a browser sends its line breaks so; they count once
    assert client.post(path, data={"decision": "approve", "comment": longest}).status_code == 200
    assert outcome(client, execution_id)["result"]["data"]["comment"] == longest.replace("\r\n", "\n")


def test_the_pool_is_listed_changed_and_withdrawn_from(client: TestClient, application: FastAPI) -> None:
    with application.state.runtime.sessions() as session:
        contents = [Content(account_id=1, title=f"T{number}", body="b") for number in range(3)]
        session.add_all(contents)
        session.flush()
        session.add_all([PoolEntry(content_id=content.id) for content in contents])
        session.commit()
    page = client.get(f"{API}/pool", params={"limit": 2, "state": "waiting"}).json()
    assert [item["title"] for item in page["items"]] == ["T2", "T1"]
    rest = client.get(f"{API}/pool", params={"cursor": page["next_cursor"]}).json()["items"]
    assert [item["title"] for item in rest] == ["T0"]
    entry = rest[0]["id"]
    changed = client.patch(f"{API}/pool/{entry}", json={"priority": 5, "not_before": "2031-01-01T00:00:00+08:00"})
    assert (changed.json()["priority"], changed.json()["not_before"][:13]) == (5, "2030-12-31T16")
    assert client.post(f"{API}/pool/{entry}/withdraw").json()["state"] == "withdrawn"
    assert client.post(f"{API}/pool/{entry}/withdraw").status_code == 409
    assert client.patch(f"{API}/pool/{entry}", json={"priority": 5}).status_code == 409
    assert client.patch(f"{API}/pool/99", json={"priority": 5}).status_code == 404
