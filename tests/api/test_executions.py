from __future__ import annotations

import re
from typing import Any
from urllib.parse import quote

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from app.scheduler.changes import ChangeWatch
from tests.api.conftest import API
from tests.api.test_tasks import fields, wait_for


def test_an_execution_from_request_to_log(client: TestClient) -> None:
    request = {"task_type": "work", "params": {"n": 1}, "priority": 3}
    first = client.post(f"{API}/executions", json=request, headers={"Idempotency-Key": "k"})
    again = client.post(f"{API}/executions", json=request, headers={"Idempotency-Key": "k"})
    assert first.status_code == again.status_code == 202
    assert first.json()["id"] == again.json()["id"]
    assert first.headers["location"].endswith(f"/executions/{first.json()['id']}")
    wait_for(client, first.json()["id"], "success")
    assert client.get(f"{first.headers['location']}/logs").json() == {"items": [], "after": 0}


def test_cancel_retry_and_their_conflicts(client: TestClient) -> None:
    slow = client.post(f"{API}/executions", json={"task_type": "slow"}).json()["id"]
    wait_for(client, slow, "running")
    assert client.post(f"{API}/executions/{slow}/cancel").status_code == 200
    wait_for(client, slow, "cancelled")
    assert client.post(f"{API}/executions/{slow}/cancel").status_code == 409
    failed = client.post(f"{API}/executions", json={"task_type": "work", "params": {"fail": True}}).json()["id"]
    assert wait_for(client, failed, "failed")["error"] == "Bad: luck"
    assert client.post(f"{API}/executions/{failed}/retry").status_code == 200
    assert len(wait_for(client, failed, "failed")["attempts"]) >= 1
    done = client.post(f"{API}/executions", json={"task_type": "work"}).json()["id"]
    wait_for(client, done, "success")
    assert client.post(f"{API}/executions/{done}/retry").status_code == 409


@pytest.mark.parametrize(
    ("wrong", "field"),
    [
        ({"task_type": "nobody"}, "task_type"),
        ({"task_type": "work", "priority": True}, "priority"),
        ({"task_type": "work", "run_at": "2030-01-01T00:00:00"}, "run_at"),
        ({"task_type": "work", "concurrency_limit": 2}, "concurrency_limit"),
        ({"task_type": "work", "idempotency_key": "a\x00"}, "idempotency_key"),
        ({"task_type": "vault", "params": {}}, "params.user"),
        ({}, "task_type"),
    ],
)
def test_a_wrong_request_names_the_field(client: TestClient, wrong: dict[str, Any], field: str) -> None:
    answer = client.post(f"{API}/executions", json=wrong)
    assert answer.status_code == 422
    assert field in fields(answer)
    assert client.get(f"{API}/executions").json()["items"] == []


def test_every_failure_is_a_problem_document(client: TestClient) -> None:
    cases = [
        (client.get("/nowhere"), 404),
        (client.put(f"{API}/tasks"), 405),
        (client.get(f"{API}/tasks/999"), 404),
        (client.get(f"{API}/tasks/{2**63}"), 422),
        (client.get(f"{API}/tasks/0"), 422),
        (client.get(f"{API}/executions", params={"limit": 501}), 422),
        (client.post(f"{API}/tasks", content=b"{", headers={"content-type": "application/json"}), 422),
        (client.post(f"{API}/tasks", content=b"x" * (2 * 1024 * 1024)), 413),
    ]
    for answer, status in cases:
        assert answer.status_code == status, answer.text
        fields(answer)


def test_an_unexpected_error_tells_the_caller_nothing_of_our_insides(application: FastAPI) -> None:
    @application.get("/breaks")
    def breaks() -> None:
        raise RuntimeError("the password is hunter2")

    with TestClient(application, raise_server_exceptions=False) as client:
        answer = client.get("/breaks")
    assert answer.status_code == 500
    assert "hunter2" not in answer.text
    fields(answer)


def test_status_executors_nodes_and_health(client: TestClient) -> None:
    assert client.get("/health/live").json() == {"status": "ok"}
    assert client.get("/health/ready").json() == {"status": "ok"}
    status = client.get(f"{API}/status").json()
    assert status["running"]
    assert status["nodes"] == 1
    assert [node["id"] for node in client.get(f"{API}/nodes").json()] == [status["node"]]
    found = {executor["type"]: executor for executor in client.get(f"{API}/executors").json()}
    assert {"content_generation", "publishing", "http_request", "vault"} <= found.keys()
    assert "pin" in found["vault"]["info"]["params_schema"]["properties"]


def test_ready_says_no_when_the_scheduler_has_stopped(client: TestClient) -> None:
    client.portal.call(client.app.state.service.drain)  # type: ignore[union-attr, attr-defined]
    answer = client.get("/health/ready")
    assert answer.status_code == 503
    assert answer.headers["retry-after"]
    fields(answer)
    assert client.get("/health/live").status_code == 200


# ---------------------------------------------------------------- who may


@pytest.mark.parametrize(
    ("peer", "headers", "method", "expected"),
    [
        ("127.0.0.1", {}, "GET", 200),
        ("::1", {"host": "[::1]:8000"}, "GET", 200),
        ("192.0.2.7", {}, "GET", 401),
        ("127.0.0.1", {"host": "evil.example"}, "GET", 401),
        ("127.0.0.1", {"x-forwarded-for": "192.0.2.7"}, "GET", 401),
        ("127.0.0.1", {"forwarded": "for=192.0.2.7"}, "GET", 401),
        ("127.0.0.1", {"origin": "http://evil.example"}, "POST", 401),
        ("127.0.0.1", {"origin": "null"}, "POST", 401),
        ("127.0.0.1", {"origin": "http://localhost"}, "POST", 201),
        ("127.0.0.1", {"authorization": "Bearer ch_wrong"}, "GET", 401),
    ],
)
def test_without_tokens_only_this_machine_may_ask(
    application: FastAPI, peer: str, headers: dict[str, str], method: str, expected: int
) -> None:
    with TestClient(application, base_url="http://localhost", client=(peer, 5000)) as client:
        body = {"name": "x", "task_type": "work"} if method == "POST" else None
        answer = client.request(method, f"{API}/tasks", json=body, headers=headers)
        assert answer.status_code == expected, answer.text
        if expected == 401:
            assert answer.headers["www-authenticate"] == "Bearer"


def test_with_tokens_nobody_is_anonymous_and_a_revoked_one_is_worth_nothing(
    client: TestClient, application: FastAPI, tokens: dict[str, str]
) -> None:
    from app.models.api_token import revoke_token

    assert client.get(f"{API}/tasks").status_code == 401
    headers = {"authorization": f"Bearer {tokens['viewer']}"}
    assert client.get(f"{API}/tasks", headers=headers).status_code == 200
    with application.state.runtime.sessions() as session:
        revoke_token(session, "viewer")
        session.commit()
    assert client.get(f"{API}/tasks", headers=headers).status_code == 401


def test_a_token_is_revoked_whatever_its_name(
    client: TestClient, application: FastAPI, tokens: dict[str, str]
) -> None:
    headers = {"authorization": f"Bearer {tokens['admin']}"}
    for name in ("team/reader", "a b", "100%", "读者", "?#"):
        assert (
            client.post(f"{API}/tokens", json={"name": name, "role": "viewer"}, headers=headers).status_code == 201
        )
        revoked = client.delete(f"{API}/tokens/{quote(name, safe='')}", headers=headers)
        assert revoked.status_code == 204, name
    assert client.delete(f"{API}/tokens/nobody", headers=headers).status_code == 404


def test_tokens_are_hashed_at_rest(application: FastAPI, tokens: dict[str, str], tmp_path: Any) -> None:
    application.state.runtime.engine.dispose()
    stored = b"".join(file.read_bytes() for file in tmp_path.glob("contenthub.db*"))
    assert len(tokens) == 3
    assert all(token.encode() not in stored for token in tokens.values())


_NEEDS = {"delete": "admin", "get": "viewer", "post": "operator", "patch": "operator"}
_NEEDS_ELSE = {
    ("post", "/tasks/{task_id}/backfill/preview"): "viewer",
    ("post", "/tasks/preview"): "viewer",
    ("get", "/settings"): "admin",
    ("get", "/tokens"): "admin",
    ("post", "/tokens"): "admin",
    ("post", "/alert-channels"): "admin",
    ("patch", "/alert-channels/{channel_id}"): "admin",
}
_FOR_EVERYBODY = {("get", "/events"), ("post", "/session"), ("delete", "/session")}  # a stream; signing in and out


def test_every_operation_asks_for_its_role(client: TestClient, tokens: dict[str, str]) -> None:
    ranks = {"viewer": 1, "operator": 2, "admin": 3}
    document = client.get("/openapi.json").json()
    seen = 0
    for path, operations in document["paths"].items():
        if not path.startswith(API):
            continue
        for method in operations:
            operation = (method, path.removeprefix(API))
            if operation in _FOR_EVERYBODY:
                continue
            needed = _NEEDS_ELSE.get(operation, _NEEDS[method])
            for role, token in tokens.items():
                answer = client.request(
                    method, re.sub(r"\{\w+\}", "999", path), json={}, headers={"authorization": f"Bearer {token}"}
                )
                assert (answer.status_code == 403) == (ranks[role] < ranks[needed]), (
                    method,
                    path,
                    role,
                    answer.text,
                )
                seen += 1
    assert seen >= 50


def test_a_query_parameter_nobody_takes_is_refused_by_name(client: TestClient) -> None:
    answer = client.get(f"{API}/executions", params={"stat": "failed", "limit": 5})
    assert answer.status_code == 422
    (error,) = answer.json()["errors"]
    assert error["field"] == "stat"
    assert "state" in error["message"]
    assert client.get(f"{API}/status", params={"verbose": "1"}).json()["errors"][0]["field"] == "verbose"


def test_lists_and_events_leave_out_what_may_be_large(client: TestClient, application: FastAPI) -> None:
    body = {"task_type": "work", "params": {"topic": "x" * 100_000}}
    run = client.post(f"{API}/executions", json=body).json()["id"]
    wait_for(client, run, "success")
    for item in client.get(f"{API}/executions").json()["items"]:
        assert not {"params", "result"} & set(item)
    whole = client.get(f"{API}/executions/{run}").json()
    assert whole["params"] == body["params"]
    assert whole["result"] is not None
    watch = ChangeWatch(application.state.runtime.sessions)
    watch.look()
    later = client.post(f"{API}/executions", json=body).json()["id"]
    (told,) = [one for one in watch.look().executions if one.id == later]
    assert "x" * 100 not in repr(told)
