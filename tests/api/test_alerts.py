"""Alerts by REST and on the command line: roles, secrets, and the whole way to a receiver."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from tests.api.conftest import API
from tests.integration.command_line import ContentHub, until
from tests.integration.local_web import SECRET, Answer, LocalWeb, hook

RULE = {"name": "thrice", "condition": {"type": "failed", "times": 3}}


def test_a_failing_task_reaches_the_receiver_and_is_acknowledged(
    client: TestClient, web: LocalWeb, monkeypatch: pytest.MonkeyPatch
) -> None:
    channel = client.post(f"{API}/alert-channels", json={"name": "hook", "url": hook(web), "language": "en"})
    assert channel.status_code == 201, channel.text
    assert SECRET not in channel.text
    task = client.post(f"{API}/tasks", json={"name": "digest", "task_type": "work", "params": {"fail": True}})
    rule = client.post(
        f"{API}/alert-rules",
        json={
            **RULE,
            "condition": {"type": "failed"},
            "task_id": task.json()["id"],
            "channel_ids": [channel.json()["id"]],
            "check_seconds": 5,
            "quiet_hours": None,
        },
    )
    assert rule.status_code == 201, rule.text
    client.post(f"{API}/tasks/{task.json()['id']}/run")
    until(lambda: web.received, 30)
    message = json.loads(web.received[0].body)
    assert message["title"] == "[warning] digest has failed: Bad: luck"
    assert message["type"] == "failure"
    (alert,) = client.get(f"{API}/alerts").json()["items"]
    assert alert["sentence"] == "digest has failed: Bad: luck"
    assert "连续失败" in client.get(f"{API}/alerts", params={"language": "zh"}).json()["items"][0]["sentence"]
    known = client.post(f"{API}/alerts/{alert['id']}/acknowledge").json()
    assert known["acknowledged_by"] == "local"
    listed = client.get(f"{API}/executions", params={"task_type": "alert_delivery"})
    assert len(listed.json()["items"]) == 1
    assert SECRET not in listed.text
    assert client.delete(f"{API}/alert-rules/{rule.json()['id']}").status_code == 204
    assert client.get(f"{API}/alerts").json()["items"] == []
    (closed,) = client.get(f"{API}/alerts", params={"state": "resolved"}).json()["items"]
    assert closed["resolution"] == "rule_deleted"
    assert client.post(f"{API}/alerts/{alert['id']}/acknowledge").status_code == 409


def test_the_url_of_a_channel_is_shown_nowhere(client: TestClient, web: LocalWeb, log_records: list[Any]) -> None:
    made = client.post(f"{API}/alert-channels", json={"name": "hook", "url": hook(web, Answer(b"", 403))}).json()
    assert made["url"] == "json://******"
    path = f"{API}/alert-channels/{made['id']}"
    tested = client.post(f"{path}/test")
    assert tested.status_code == 202
    execution = f"{API}/executions/{tested.json()['id']}"
    until(lambda: client.get(execution).json()["state"] == "failed", 30)
    answers = [
        client.get(path),
        client.get(f"{API}/alert-channels"),
        client.patch(path, json={"name": "renamed", "url": "json://******"}),
        client.patch(path, json={"language": "en"}),
        client.post(f"{API}/alert-channels", json={"name": "x", "url": f"nonsense://{SECRET}"}),
        client.post(f"{API}/alert-channels", json={"name": "x", "url": f"json://{SECRET}", "unknown": 1}),
        client.get(execution),
        client.get(f"{execution}/logs"),
    ]
    assert [answer.status_code for answer in answers] == [200, 200, 200, 200, 422, 422, 200, 200]
    assert all(SECRET not in answer.text for answer in answers)
    assert "Forbidden" in answers[6].text or "403" in answers[6].text or "Unauthorized" in answers[6].text
    assert all(SECRET not in record["message"] for record in log_records)
    web.answer(f"/hook/{SECRET}", Answer())
    tested = client.post(f"{path}/test").json()
    until(lambda: client.get(f"{API}/executions/{tested['id']}").json()["state"] == "success", 30)
    assert json.loads(web.received[-1].body)["title"].startswith("[test]")


def test_who_may_do_what(client: TestClient, tokens: dict[str, str]) -> None:
    def ask(role: str, method: str, path: str, **more: Any) -> int:
        headers = {"Authorization": f"Bearer {tokens[role]}"}
        return client.request(method, f"{API}{path}", headers=headers, **more).status_code

    channel = {"name": "hook", "url": "json://example.org"}
    assert ask("viewer", "POST", "/alert-rules", json=RULE) == 403
    assert ask("operator", "POST", "/alert-channels", json=channel) == 403
    assert ask("admin", "POST", "/alert-channels", json=channel) == 201
    assert ask("operator", "POST", "/alert-rules", json={**RULE, "channel_ids": [1]}) == 201
    assert ask("viewer", "GET", "/alert-rules/1") == 200
    assert ask("viewer", "POST", "/alerts/1/acknowledge") == 403
    assert ask("operator", "DELETE", "/alert-rules/1") == 403
    assert ask("operator", "PATCH", "/alert-channels/1", json={"name": "x"}) == 403
    assert ask("admin", "DELETE", "/alert-channels/1") == 204
    assert ask("admin", "DELETE", "/alert-rules/1") == 204
    assert ask("admin", "GET", "/alert-rules/1") == 404


def test_a_rule_is_changed_silenced_and_refused_by_field(application: FastAPI, client: TestClient) -> None:
    made = client.post(f"{API}/alert-rules", json={**RULE, "remind_seconds": 3600}).json()
    path = f"{API}/alert-rules/{made['id']}"
    quiet = {"start": "22:00", "end": "08:00", "timezone": "Asia/Shanghai"}
    changed = client.patch(
        path, json={"condition": {"type": "late"}, "quiet_hours": quiet, "remind_seconds": None}
    )
    assert changed.status_code == 200, changed.text
    assert changed.json()["condition"] == {"type": "late", "seconds": 300}
    assert changed.json()["quiet_hours"] == quiet
    assert changed.json()["remind_seconds"] is None
    assert client.patch(path, json={"quiet_hours": None}).json()["quiet_hours"] is None
    silent = client.post(f"{path}/silence", json={"until": "2100-01-01T00:00:00+08:00"}).json()
    assert silent["silenced_until"] == "2099-12-31T16:00:00Z"
    assert client.post(f"{path}/silence", json={"until": None}).json()["silenced_until"] is None
    wrong: list[tuple[dict[str, Any], str]] = [
        ({"condition": {"type": "failed", "times": 0}}, "condition.times"),
        ({"condition": {"type": "none"}}, "condition.type"),
        ({"severity": "loud"}, "severity"),
        ({"channel_ids": [99]}, "channel_ids"),
        ({"task_id": 99}, "task_id"),
        ({"quiet_hours": {"start": "25:00", "end": "08:00"}}, "quiet_hours.start"),
        ({"check_seconds": 1}, "check_seconds"),
        ({"name": None}, "name"),
    ]
    for change, field in wrong:
        answer = client.patch(path, json=change)
        assert answer.status_code == 422, change
        assert answer.json()["errors"][0]["field"] == field
    assert client.post(f"{API}/alert-rules", json=RULE).status_code == 409


def test_pages_of_alerts_hold_each_once(application: FastAPI, client: TestClient) -> None:
    from sqlalchemy import insert

    from app.models.alerting import Alert

    runtime = application.state.runtime
    row = {"rule_id": 1, "rule_name": "r", "kind": "failed", "severity": "warning", "details": {"times": 1}}
    now = runtime.clock.now()
    with runtime.engine.begin() as connection:
        rows = [{**row, "subject": f"task:{number}", "task_id": number, "opened_at": now} for number in range(5)]
        connection.execute(insert(Alert.__table__), rows)
    seen: list[int] = []
    cursor: str | None = None
    while True:
        page = client.get(f"{API}/alerts", params={"limit": 2} | ({"cursor": cursor} if cursor else {})).json()
        seen += [alert["task_id"] for alert in page["items"]]
        cursor = page["next_cursor"]
        if cursor is None:
            break
    assert seen == [4, 3, 2, 1, 0]
    assert len(client.get(f"{API}/alerts", params={"task_id": 3}).json()["items"]) == 1


def test_the_command_line_makes_tests_and_deletes(tmp_path: Path, web: LocalWeb) -> None:
    contenthub = ContentHub(tmp_path)
    made = contenthub("alert", "channel", "create", "hook", "--url", "-", "--json", stdin=hook(web) + "\n")
    assert made.json["url"] == "json://******"
    contenthub("alert", "channel", "test", "hook")
    assert json.loads(web.received[0].body)["title"].startswith("[测试]")
    rule = contenthub(
        *("alert", "rule", "create", "thrice", "--condition", '{"type": "failed", "times": 3}'),
        *("--channel", "hook", "--quiet", "22:00-08:00", "--remind", "4h", "--json"),
    ).json
    assert rule["remind_seconds"] == 4 * 3600
    assert rule["quiet_hours"] == {"start": "22:00", "end": "08:00", "timezone": "UTC"}
    task = ("--name", "digest", "--type", "http_request", "--params", '{"url": "http://127.0.0.1/"}')
    contenthub("task", "create", *task)
    late = ("alert", "rule", "create", "late", "--condition", '{"type": "late", "seconds": 60}')
    contenthub(*late, "--task", "digest")
    listed = contenthub("alert", "rule", "list").out
    assert "22:00-08:00 UTC" in listed
    assert "digest" in listed
    contenthub("task", "delete", "digest", "--yes")
    assert "(deleted)" in contenthub("alert", "rule", "list").out
    contenthub("alert", "rule", "delete", "late")
    contenthub("alert", "rule", "silence", "thrice", "--for", "2h")
    assert contenthub("alert", "rule", "list", "--json").json[0]["silenced_until"] is not None
    assert "No open alerts" in contenthub("alert", "list").out
    listed = contenthub("alert", "channel", "list")
    assert "json://******" in listed.out
    assert SECRET not in listed.out
    refused = contenthub("alert", "channel", "create", "x", "--url", f"nonsense://{SECRET}", code=1)
    assert "url:" in refused.err
    assert SECRET not in refused.err + refused.out
    contenthub("alert", "rule", "delete", "thrice")
    contenthub("alert", "channel", "delete", "hook")
    assert contenthub("alert", "rule", "list", "--json").json == []
