from __future__ import annotations

import json
import time
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import text

from tests.api.conftest import API
from tests.support import daily_far_off

TASK = {"name": "daily", "task_type": "work", "params": {"topic": "x"}, "schedule": daily_far_off()}


def create(client: TestClient, **changes: Any) -> Any:
    answer = client.post(f"{API}/tasks", json={**TASK, **changes})
    assert answer.status_code == 201, answer.text
    return answer.json()


def wait_for(client: TestClient, execution_id: int, *states: str) -> Any:
    for _ in range(500):
        found = client.get(f"{API}/executions/{execution_id}").json()
        if found["state"] in states:
            return found
        time.sleep(0.02)
    raise AssertionError(f"execution {execution_id} is {found['state']}, not one of {states}")


def fields(answer: Any) -> set[str]:
    assert answer.headers["content-type"] == "application/problem+json"
    body = answer.json()
    assert body["status"] == answer.status_code
    assert body["type"].startswith("urn:contenthub:problem:")
    return {error["field"] for error in body["errors"]}


def test_a_task_from_making_to_deleting(client: TestClient) -> None:
    answer = client.post(f"{API}/tasks", json={**TASK, "timezone": "Asia/Shanghai"})
    task = answer.json()
    assert answer.headers["location"] == f"{API}/tasks/{task['id']}"
    assert answer.headers["etag"] == '"1"'
    assert task["schedule"] == {"type": "cron", "expression": TASK["schedule"]}
    assert client.get(answer.headers["location"]).json() == task
    changed = client.patch(answer.headers["location"], json={"priority": 5}, headers={"If-Match": '"1"'})
    assert (changed.json()["priority"], changed.json()["version"]) == (5, 2)
    for nothing in ({}, {"priority": 5}):
        assert client.patch(answer.headers["location"], json=nothing).json() == changed.json()
    assert len(client.get(f"{API}/tasks/{task['id']}/changes").json()["items"]) == 2
    stale = client.patch(answer.headers["location"], json={"priority": 6}, headers={"If-Match": '"1"'})
    assert stale.status_code == 412
    assert client.post(f"{API}/tasks/{task['id']}/pause").json()["next_run_at"] is None
    assert client.post(f"{API}/tasks/{task['id']}/resume").json()["next_run_at"] is not None
    assert client.delete(answer.headers["location"], headers={"If-Match": '"1"'}).status_code == 412
    assert client.delete(answer.headers["location"]).status_code == 204
    assert client.get(answer.headers["location"]).status_code == 404


def test_pages_are_complete_and_in_order(client: TestClient) -> None:
    made = [create(client, name=f"task {n}")["id"] for n in range(7)]
    found, cursor = [], None
    while True:
        page = client.get(f"{API}/tasks", params={"limit": 3, **({"cursor": cursor} if cursor else {})}).json()
        found += [task["id"] for task in page["items"]]
        cursor = page["next_cursor"]
        if cursor is None:
            break
    assert found == made
    assert [t["name"] for t in client.get(f"{API}/tasks", params={"search": "K 3"}).json()["items"]] == ["task 3"]
    assert client.get(f"{API}/tasks", params={"is_active": "false"}).json()["items"] == []


@pytest.mark.parametrize("cursor", ["x", "LTE", "MTotMQ", "9" * 40, "é"])
def test_a_cursor_that_is_not_ours_is_refused(client: TestClient, cursor: str) -> None:
    answer = client.get(f"{API}/tasks", params={"cursor": cursor})
    assert answer.status_code == 422
    assert fields(answer) == {"cursor"}


def test_running_a_task_and_reading_what_came_of_it(client: TestClient) -> None:
    task = create(client)
    answer = client.post(f"{API}/tasks/{task['id']}/run", json={"params": {"topic": "y"}})
    assert answer.status_code == 202
    done = wait_for(client, answer.json()["id"], "success")
    assert (done["params"], done["triggered_by"], done["trigger"]) == ({"topic": "y"}, "local", "api")
    assert [attempt["status"] for attempt in done["attempts"]] == ["success"]
    assert client.get(f"{API}/tasks/{task['id']}").json()["last_state"] == "success"
    listed = client.get(f"{API}/executions", params={"task_id": task["id"], "state": ["success", "failed"]}).json()
    assert [execution["id"] for execution in listed["items"]] == [done["id"]]


def test_preview_and_explain(client: TestClient) -> None:
    task = create(client, schedule="0 9 * * 1-5", timezone="Asia/Shanghai")
    found = client.get(f"{API}/tasks/{task['id']}/preview", params={"count": 3}).json()
    assert len(found["fires"]) == 3
    assert all(fire.endswith("09:00:00+08:00") for fire in found["fires"])
    assert client.post(f"{API}/tasks/preview", json=TASK).json()["description"]
    assert "fires next" in client.get(f"{API}/tasks/{task['id']}/explain").json()["explanation"]
    answer = client.get(f"{API}/tasks/{task['id']}/explain", params={"at": "2030-01-01T00:00:00"})
    assert answer.status_code == 422
    assert fields(answer) == {"at"}


def test_an_interval_is_previewed_from_its_anchor(client: TestClient) -> None:
    every = {"schedule": {"type": "interval", "seconds": 3600}, "timezone": "UTC"}
    anchor = {"count": 3, "anchor": "2026-01-01T00:12:34Z"}
    fires = client.post(f"{API}/tasks/preview", json=every, params=anchor).json()["fires"]
    assert [fire[14:19] for fire in fires] == ["12:34"] * 3


@pytest.mark.parametrize(
    ("wrong", "field"),
    [
        ({"schedule": "99 * * * *"}, "schedule.expression"),
        ({"schedule": {"type": "interval", "seconds": False}}, "schedule.seconds"),
        ({"schedule": {"type": "at", "at": "2001-01-01T00:00:00Z"}}, "schedule.at"),
        ({"schedule": {"type": "moon"}}, "schedule.type"),
        ({"schedule": {"cron": "0 9 * * *"}}, "schedule.type"),
        ({"timezone": "Mars/Olympus"}, "timezone"),
        ({"task_type": "nobody"}, "task_type"),
        ({"params": []}, "params"),
        ({"priority": False}, "priority"),
        ({"is_active": "yes"}, "is_active"),
        ({"retry": {"max_attempts": 0}}, "retry.max_attempts"),
        ({"unheard_of": 1}, "unheard_of"),
        ({"task_type": "vault", "params": {"user": "u"}}, "params.pin"),
    ],
)
def test_a_wrong_field_is_named_and_nothing_is_stored(
    client: TestClient, wrong: dict[str, Any], field: str
) -> None:
    answer = client.post(f"{API}/tasks", json={**TASK, **wrong})
    assert answer.status_code == 422
    assert field in fields(answer)
    assert client.get(f"{API}/tasks").json()["items"] == []


_numbers_as_no_number = st.one_of(st.booleans(), st.text())
_finite = st.floats(allow_nan=False, allow_infinity=False)
_too_short = st.floats(max_value=0.9, allow_infinity=False, allow_nan=False)
_WRONG = {
    "schedule": st.one_of(
        st.integers(),
        st.booleans(),
        st.lists(st.integers()),
        st.text("xyz!?", min_size=1),
        st.fixed_dictionaries({"type": st.just("interval"), "seconds": _numbers_as_no_number | _too_short}),
        st.fixed_dictionaries({"type": st.just("cron"), "expression": st.text("0123456789*/,-x ", max_size=3)}),
    ),
    "timezone": st.one_of(st.integers(), st.text("abc/", min_size=1).map(lambda text: f"Nowhere/{text}")),
    "name": st.one_of(st.integers(), st.sampled_from([None, "", "   ", "x" * 201, "a\x00b"])),
    "task_type": st.one_of(st.integers(), st.none(), st.text("pqr", min_size=1)),
    "params": st.one_of(st.integers(), st.lists(st.integers()), st.text()),
    "priority": st.one_of(
        _numbers_as_no_number, st.integers(min_value=1001), _finite.filter(lambda value: not value.is_integer())
    ),
    "timeout_seconds": _numbers_as_no_number | st.floats(max_value=0, allow_infinity=False),
    "jitter_seconds": _numbers_as_no_number | st.floats(max_value=-0.1, allow_infinity=False),
    "misfire_policy": st.integers() | st.text("xyz"),
    "overlap_policy": st.integers() | st.text("xyz"),
    "concurrency_limit": st.one_of(st.booleans(), st.integers(max_value=0), st.integers(min_value=1)),
    "start_at": st.just("2030-01-01T00:00:00") | st.text("xyz"),
    "retry": st.fixed_dictionaries({"max_attempts": _numbers_as_no_number | st.integers(max_value=0)}),
}
_invalid = st.one_of(*(st.tuples(st.just(field), values) for field, values in _WRONG.items()))


def test_200_generated_wrong_definitions_are_refused_with_the_field_named(client: TestClient) -> None:
    tried = 0

    @settings(max_examples=220, deadline=None, suppress_health_check=list(HealthCheck))
    @given(_invalid)
    def refuse(wrong: tuple[str, Any]) -> None:
        nonlocal tried
        field, value = wrong
        answer = client.post(f"{API}/tasks", json={"name": "x", "task_type": "work", field: value})
        assert 400 <= answer.status_code < 500, (wrong, answer.text)
        assert any(name.startswith(field) for name in fields(answer)), (wrong, answer.text)
        tried += 1

    refuse()
    assert tried >= 200
    assert client.get(f"{API}/tasks").json()["items"] == []


def test_an_operator_cannot_have_a_secret_sent_elsewhere(client: TestClient, tokens: dict[str, str]) -> None:
    """Whoever may not read a secret may not pair it with params of their own; an admin may."""
    params = {"url": "https://partner.example.org/", "headers": {"Authorization": "Bearer PARTNER"}}
    client.headers["authorization"] = f"Bearer {tokens['operator']}"
    task = create(client, params=params)
    path = f"{API}/tasks/{task['id']}"
    moved = {"params": {**task["params"], "url": "https://attacker.example.org/"}}
    for refused in (client.post(f"{path}/run", json=moved), client.patch(path, json=moved)):
        assert refused.status_code == 422
        assert fields(refused) == {"params"}
        assert "ask an admin" in refused.json()["detail"]
    assert client.get(f"{API}/executions").json()["items"] == []
    assert fields(client.patch(path, json={"task_type": "slow"})) == {"params"}
    assert client.patch(path, json={"params": task["params"], "description": "as it was"}).status_code == 200
    assert client.post(f"{path}/run", json={"params": task["params"]}).status_code == 202
    anew = {"params": {**moved["params"], "headers": {"Authorization": "Bearer MINE"}}}
    assert client.post(f"{path}/run", json=anew).status_code == 202
    client.headers["authorization"] = f"Bearer {tokens['admin']}"
    assert client.patch(path, json=moved).status_code == 200
    stored = client.app.state.runtime.tasks.get(task["id"]).params  # type: ignore[attr-defined]
    assert stored == {**moved["params"], "headers": params["headers"]}


def test_secrets_are_masked_and_come_back_unharmed(client: TestClient) -> None:
    secret = "s3cr3t-value"
    params = {"user": "u", "pin": secret, "api_key": secret, "deep": [{"password": secret}]}
    task = create(client, task_type="vault", params=params)
    assert secret not in str(task)
    sent_back = client.patch(f"{API}/tasks/{task['id']}", json={"params": {**task["params"], "user": "v"}})
    assert sent_back.status_code == 200, sent_back.text
    execution = client.post(
        f"{API}/tasks/{task['id']}/run", json={"params": {**task["params"], "user": "w"}}
    ).json()
    assert secret not in str(wait_for(client, execution["id"], "success"))
    ran = client.app.state.runtime.history.get(execution["id"]).params  # type: ignore[attr-defined]
    assert ran == {**params, "user": "w"}
    work = client.post(f"{API}/executions", json={"task_type": "work", "params": {"token": secret}}).json()
    done = wait_for(client, work["id"], "success")
    assert secret not in str(done)
    assert done["result"]["data"] == {"token": "******", "n": 1}
    stored = client.app.state.runtime.tasks.get(task["id"]).params  # type: ignore[attr-defined]
    assert stored == {**params, "user": "v"}
    ruled = {"task_type": "work", "params": {"body": "above\n\n******\n\nbelow"}}
    assert client.post(f"{API}/executions", json=ruled).status_code == 202
    refused = client.post(f"{API}/tasks", json={**TASK, "name": "masked", "params": {"password": "******"}})
    assert refused.status_code == 422
    assert fields(refused) == {"params"}


@pytest.mark.parametrize(
    ("column", "stored"),
    [
        ("rate_limit", '{"limit": 0}'),
        ("run_window", '{"opens": "25:00"}'),
        ("calendar", '{"country": "XX"}'),
        ("retry", '{"max_attempts": -1}'),
        ("timezone", "Mars/Base"),
    ],
)
def test_a_task_that_cannot_be_read_is_shown_as_such_and_hides_no_other(
    client: TestClient, application: FastAPI, column: str, stored: str
) -> None:
    ids = [create(client, name=name)["id"] for name in ("spoilt", "sound")]
    with application.state.runtime.engine.begin() as connection:
        update = text(f"UPDATE scheduled_tasks SET {column} = :stored WHERE id = :id")
        connection.execute(update, {"stored": stored, "id": ids[0]})
    shown = {task["id"]: task for task in client.get(f"{API}/tasks").json()["items"]}
    assert sorted(shown) == ids
    assert column in shown[ids[0]]["schedule_error"]
    assert shown[ids[1]]["schedule_error"] is None
    assert client.get(f"{API}/tasks/{ids[0]}").json() == shown[ids[0]]
    assert client.get(f"{API}/tasks/{ids[0]}/explain").status_code < 500
    assert client.get(f"{API}/tasks/{ids[0]}/preview").status_code < 500
    value = "UTC" if column == "timezone" else None
    mended = client.patch(f"{API}/tasks/{ids[0]}", json={column: value})
    assert mended.status_code == 200
    assert mended.json()["schedule_error"] is None


def test_the_preview_of_a_shelved_task_says_why_it_does_not_fire(client: TestClient, application: FastAPI) -> None:
    shelved = create(client, schedule="0 9 * * *")["id"]
    with application.state.runtime.engine.begin() as connection:
        update = "UPDATE scheduled_tasks SET next_run_at = NULL, schedule_error = 'no such zone' WHERE id = :id"
        connection.execute(text(update), {"id": shelved})
    found = client.get(f"{API}/tasks/{shelved}/preview").json()
    assert found["fires"] == []
    assert found["warnings"] == ["does not fire: its schedule could not be read: no such zone"]


@pytest.mark.parametrize("value", [True, "60"])
@pytest.mark.parametrize(
    ("path", "body", "field"),
    [
        ("tasks", TASK | {"rate_limit": {"limit": 1, "per_seconds": ...}}, "rate_limit.per_seconds"),
        ("tasks", TASK | {"rate_limit": {"limit": 1, "burst": ...}}, "rate_limit.burst"),
        ("tasks", TASK | {"retry": {"backoff_seconds": ...}}, "retry.backoff_seconds"),
        ("tasks", TASK | {"timeout_seconds": ...}, "timeout_seconds"),
        (
            "executions",
            {"task_type": "work", "repeats": {"kind": "once", "key": "k", "seconds": ...}},
            "repeats.seconds",
        ),
        ("alert-rules", {"name": "r", "condition": {"type": "late", "seconds": ...}}, "condition.seconds"),
        ("alert-rules", {"name": "r", "condition": {"type": "failed"}, "remind_seconds": ...}, "remind_seconds"),
    ],
)
def test_a_number_is_neither_text_nor_a_boolean(
    client: TestClient, path: str, body: dict[str, Any], field: str, value: object
) -> None:
    sent = json.loads(json.dumps(body, default=lambda _: value))
    wrong = client.post(f"{API}/{path}", json=sent)
    assert wrong.status_code == 422
    told = {error["field"]: error["message"] for error in wrong.json()["errors"]}
    assert told[field] in (
        "write a number, such as 2.5; text, true and false are none",
        "write a whole number without a decimal point, such as 3; text, true and false are none",
    )
