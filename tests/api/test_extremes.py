"""What schemathesis does not draw: text no database takes, moments no calendar holds, what no browser sends."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from sqlalchemy import text

from app.core.config import Settings
from app.factory import create_app
from tests.api.conftest import API
from tests.api.test_tasks import create, fields
from tests.support import Recorder

LONE_SURROGATE = '"\\ud800"'


@pytest.fixture
def anywhere(database_url: str, tmp_path: Path) -> Iterator[TestClient]:
    """The application on each kind of database."""
    app = create_app(Settings(database_url=database_url, publish_directory=tmp_path / "site"))
    app.state.service.register_executor(Recorder("work"))
    with TestClient(app, base_url="http://localhost", client=("127.0.0.1", 5000)) as client:
        yield client


def send(client: TestClient, method: str, path: str, body: str) -> Any:
    return client.request(method, f"{API}{path}", content=body, headers={"content-type": "application/json"})


@pytest.mark.parametrize("path", ["/tasks", "/executions", "/tasks/1/run"])
@pytest.mark.parametrize("params", [f'{{"x": {LONE_SURROGATE}}}', f"{{{LONE_SURROGATE}: 1}}"])
def test_params_that_are_no_unicode_are_refused(anywhere: TestClient, path: str, params: str) -> None:
    create(anywhere, name="there")
    named = {"/tasks": '"name": "x", "task_type": "work", ', "/executions": '"task_type": "work", '}
    answer = send(anywhere, "POST", path, f'{{{named.get(path, "")}"params": {params}}}')
    assert answer.status_code == 422, answer.text
    assert all(field.startswith("params") for field in fields(answer))
    assert anywhere.get(f"{API}/executions").json()["items"] == []
    assert len(anywhere.get(f"{API}/tasks").json()["items"]) == 1


@pytest.mark.parametrize("number", ["NaN", "-Infinity", "1e999"])
@pytest.mark.parametrize("path", ["/tasks", "/executions"])
def test_a_number_that_is_none_is_refused_and_made_no_text(client: TestClient, path: str, number: str) -> None:
    name = '"name": "x", ' if path == "/tasks" else ""
    answer = send(client, "POST", path, f'{{{name}"task_type": "work", "params": {{"x": [{number}]}}}}')
    assert answer.status_code == 422
    assert fields(answer) == {"params"}
    assert "NaN" in answer.json()["detail"]
    assert client.get(f"{API}{path}").json()["items"] == []


@pytest.mark.parametrize("moment", ["0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-14:00"])
def test_moments_beyond_the_calendar_are_refused_by_name(client: TestClient, moment: str) -> None:
    task = create(client, timezone="Asia/Shanghai")
    body = json.dumps({"task_type": "work", "run_at": moment})
    answers = {
        "run_at": send(client, "POST", "/executions", body),
        "since": client.get(f"{API}/executions", params={"since": moment}),
        "until": client.get(f"{API}/executions", params={"until": moment}),
        "at": client.get(f"{API}/tasks/{task['id']}/explain", params={"at": moment}),
    }
    for bound in ("start_at", "end_at"):
        body = json.dumps({"name": "x", "task_type": "work", bound: moment})
        answers[bound] = send(client, "POST", "/tasks", body)
    for field, answer in answers.items():
        assert answer.status_code == 422, answer.text
        assert fields(answer) == {field}


def test_text_that_is_refused_is_refused_in_words(client: TestClient) -> None:
    named = client.post(f"{API}/tasks", json={"name": "a\nb", "task_type": "work"}).json()
    assert named["detail"] == "name: write one line of text, without control characters"
    token = client.post(f"{API}/tokens", json={"name": "a\tb", "role": "viewer"}).json()
    assert token["detail"] == "name: write one line of text, without control characters"
    searched = client.get(f"{API}/tasks", params={"search": "\x00"}).json()
    assert searched["detail"] == "search: write text without NUL"


@pytest.mark.parametrize("name", ["search", "task_type", "trigger"])
def test_a_search_for_nul_is_refused_on_every_database(anywhere: TestClient, name: str) -> None:
    answer = anywhere.get(f"{API}/executions", params={name: "a\x00"})
    assert answer.status_code == 422
    assert fields(answer) == {name}


def test_a_body_that_is_no_json_is_named_as_such(client: TestClient) -> None:
    answer = send(client, "POST", "/tasks", '{"name":')
    assert answer.status_code == 422
    assert fields(answer) == {"body"}


@pytest.mark.parametrize("header", ["via", "x-forwarded-proto", "x-forwarded-server", "x-real-ip"])
def test_a_proxy_on_this_machine_does_not_open_the_server(client: TestClient, header: str) -> None:
    assert client.get(f"{API}/tasks", headers={header: "x"}).status_code == 401


@pytest.mark.parametrize("origin", ["http://[", "localhost", "http://localhost:3000", "http://localhost/x"])
def test_an_origin_that_is_not_ours_is_refused_however_it_is_written(client: TestClient, origin: str) -> None:
    answer = client.post(f"{API}/tasks", json={"name": "x", "task_type": "work"}, headers={"origin": origin})
    assert answer.status_code == 401


@pytest.mark.parametrize("content_type", ["text/plain", "application/x-www-form-urlencoded"])
def test_a_body_that_a_foreign_form_could_send_is_refused(client: TestClient, content_type: str) -> None:
    body = json.dumps({"name": "x", "task_type": "work"})
    answer = client.post(f"{API}/tasks", content=body, headers={"content-type": content_type})
    assert answer.status_code == 422
    assert client.get(f"{API}/tasks").json()["items"] == []


def test_a_schedule_can_be_previewed_before_its_task_has_a_name(client: TestClient) -> None:
    answer = client.post(f"{API}/tasks/preview", params={"count": 2}, json={"schedule": "0 9 * * *"})
    assert len(answer.json()["fires"]) == 2
    wrong = client.post(f"{API}/tasks/preview", json={"schedule": "0 9 * * *", "timezon": "UTC"})
    assert fields(wrong) == {"timezon"}


def test_the_schema_of_a_secret_field_is_no_secret(client: TestClient) -> None:
    found = {executor["type"]: executor for executor in client.get(f"{API}/executors").json()}
    pin = found["vault"]["info"]["params_schema"]["properties"]["pin"]
    assert (pin["type"], pin["writeOnly"]) == ("string", True)


def test_operations_are_named_as_a_client_would_call_them(client: TestClient) -> None:
    document = client.get("/openapi.json").json()
    ids = [operation["operationId"] for path in document["paths"].values() for operation in path.values()]
    assert {"create_task", "enqueue_execution", "ready"} <= set(ids)
    assert len(ids) == len(set(ids))


def test_a_database_out_of_order_is_503_and_its_error_tells_the_log_no_secret(
    application: FastAPI, client: TestClient, log_records: list[Any]
) -> None:
    with application.state.runtime.engine.begin() as connection:
        connection.execute(text("ALTER TABLE scheduled_tasks DROP COLUMN description"))
    task = {"name": "x", "task_type": "work", "params": {"password": "hunter2"}}
    answer = client.post(f"{API}/tasks", json=task)
    assert answer.status_code == 503
    assert answer.headers["retry-after"]
    logged = "".join(record["message"] for record in log_records)
    assert "description" in logged
    assert "hunter2" not in logged


def test_a_body_too_large_is_refused_before_it_is_read(client: TestClient) -> None:
    answer = client.post(f"{API}/tasks", content=b"", headers={"content-length": str(2**21)})
    assert answer.status_code == 413
    fields(answer)


def test_a_mask_never_runs_as_if_it_were_the_secret(application: FastAPI, client: TestClient) -> None:
    """A form filled with what the API showed sends the mask back."""
    task = create(client, params={"password": "hunter2", "topic": "x"})
    shown = {**task["params"], "topic": "y"}
    run = client.post(f"{API}/tasks/{task['id']}/run", json={"params": shown})
    stored = application.state.runtime.history.get(run.json()["id"]).params
    assert stored == {"password": "hunter2", "topic": "y"}
    other = {"api_key": "******"}
    assert fields(client.post(f"{API}/tasks/{task['id']}/run", json={"params": other})) == {"params"}
    assert fields(client.post(f"{API}/executions", json={"task_type": "work", "params": other})) == {"params"}
