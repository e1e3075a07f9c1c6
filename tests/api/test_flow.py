"""Limits, circuits, bulk, repeats and backfill over HTTP."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from app.scheduler.breaker import CircuitBreaker
from app.scheduler.rates import RateLimit
from tests.api.conftest import API
from tests.api.test_tasks import create, fields, wait_for
from tests.support import Recorder, fail_with


@pytest.fixture
def limited(application: FastAPI) -> None:
    """An executor that is limited and one that always fails behind a breaker."""
    register = application.state.service.register_executor
    register(Recorder("limited", rate_limit=RateLimit(2, per_seconds=3600, burst=1, key="account_id")))
    register(
        Recorder("broken", fail_with(RuntimeError("down")), circuit_breaker=CircuitBreaker(window=2, minimum=2))
    )


@pytest.mark.usefixtures("limited")
def test_what_waits_for_a_limit_or_a_circuit_says_so_everywhere(client: TestClient) -> None:
    def enqueue(task_type: str) -> int:
        body = {"task_type": task_type, "params": {"account_id": 7}}
        return int(client.post(f"{API}/executions", json=body).json()["id"])

    wait_for(client, enqueue("limited"), "success")
    held_up = enqueue("limited")
    for _ in range(2):
        wait_for(client, enqueue("broken"), "failed")
    waiting = enqueue("broken")
    while client.get(f"{API}/executions/{waiting}").json()["reason"] != "circuit_open":
        pass
    while client.get(f"{API}/executions/{held_up}").json()["reason"] != "rate_limited":
        pass
    flow = client.get(f"{API}/flow").json()
    (rate,) = flow["rate_limits"]
    assert (rate["key"], rate["available"], rate["waiting"]) == ("executor:limited:7", 0, 1)
    (circuit,) = flow["circuits"]
    assert (circuit["task_type"], circuit["phase"], circuit["waiting"]) == ("broken", "open", 1)
    executors = {one["type"]: one for one in client.get(f"{API}/executors").json()}
    assert executors["limited"]["rate_limit"]["limit"] == 2
    assert executors["broken"]["circuit"]["phase"] == "open"
    assert executors["work"]["circuit"] is None
    assert "circuit_open" in {finding["kind"] for finding in client.get(f"{API}/attention").json()}
    closed = client.post(f"{API}/flow/circuits/broken/reset").json()["circuits"][0]
    assert (closed["phase"], closed["attempts"]) == ("closed", 0)
    wait_for(client, waiting, "failed")
    assert client.post(f"{API}/flow/circuits/nobody/reset").status_code == 404


def test_only_operators_reset_a_circuit(client: TestClient, tokens: dict[str, str]) -> None:
    viewer = {"Authorization": f"Bearer {tokens['viewer']}"}
    assert client.get(f"{API}/flow", headers=viewer).status_code == 200
    assert client.post(f"{API}/flow/circuits/work/reset", headers=viewer).status_code == 403


def test_a_bulk_is_recorded_whole_or_refused_by_the_items(client: TestClient) -> None:
    items: list[dict[str, Any]] = [{"task_type": "work", "idempotency_key": f"k{n % 400}"} for n in range(500)]
    answer = client.post(f"{API}/executions/bulk", json={"items": items})
    assert answer.status_code == 202
    assert answer.json()["recorded"] == 400
    assert answer.json()["items"][400] == {"id": answer.json()["items"][0]["id"], "is_repeat": True}
    items[3] = {"task_type": "vault", "params": {"user": 1}}
    items[4] = {"task_type": "nobody"}
    refused = client.post(f"{API}/executions/bulk", json={"items": items})
    assert refused.status_code == 422
    assert fields(refused) == {"items.3.params.user", "items.3.params.pin", "items.4.task_type"}
    items[4] = {"task_type": "work", "priority": "high"}
    assert "items.4.priority" in fields(client.post(f"{API}/executions/bulk", json={"items": items}))


@pytest.mark.parametrize(
    "wrong", [{"task_type": "work", "priority": "high", "run_at": "x"}, {"task_type": "nobody"}]
)
def test_a_bulk_that_is_wrong_throughout_is_answered_by_the_first_errors_and_their_number(
    client: TestClient, wrong: dict[str, Any]
) -> None:
    refused = client.post(f"{API}/executions/bulk", json={"items": [wrong] * 3_000})
    assert refused.status_code == 422
    assert len(refused.content) < 30_000
    errors = refused.json()["errors"]
    assert len(errors) == 51
    left = 3_000 * (2 if "run_at" in wrong else 1) - 50
    assert errors[-1] == {"field": "items", "message": f"{left} more are wrong; mend these first", "kind": "more"}


def test_a_body_for_ten_thousand_is_read(client: TestClient) -> None:
    items = [{"task_type": "work", "params": {"text": "x" * 150}} for _ in range(10_000)]
    answer = client.post(f"{API}/executions/bulk", json={"items": items})
    assert answer.status_code == 202, answer.text[:500]
    assert len(answer.json()["items"]) == 10_000


@pytest.mark.parametrize("kind", ["debounce", "throttle", "once"])
def test_a_repeated_request_is_answered_with_the_first(client: TestClient, kind: str) -> None:
    body = {"task_type": "slow", "repeats": {"kind": kind, "key": "k", "seconds": 60}}
    first, second = (client.post(f"{API}/executions", json=body).json() for _ in range(2))
    assert (first["is_repeat"], second["is_repeat"]) == (False, True)
    assert first["id"] == second["id"]
    wrong = client.post(f"{API}/executions", json=body | {"repeats": {"kind": kind, "key": "", "seconds": 0}})
    assert fields(wrong) == {"repeats.key", "repeats.seconds"}
    untold = client.post(f"{API}/executions", json=body | {"repeats": {"key": "k"}})
    assert fields(untold) == {"repeats.kind"}
    assert "debounce, throttle, once" in untold.json()["detail"]


def test_a_task_keeps_its_limit_window_and_calendar(client: TestClient) -> None:
    wanted = {
        "rate_limit": {"limit": 10, "per_seconds": 60, "burst": None, "key": "account_id"},
        "run_window": {"opens": "09:00", "closes": "18:00", "days": ["mon", "fri"]},
        "calendar": {"country": "CN", "subdivision": None, "closed": ["2030-01-02"], "open": []},
        "closed_policy": "defer",
    }
    task = create(client, **wanted)
    assert {name: task[name] for name in wanted} == wanted
    changed = client.patch(f"{API}/tasks/{task['id']}", json={"calendar": None, "rate_limit": {"limit": 3}}).json()
    assert changed["calendar"] is None
    assert changed["rate_limit"] == {"limit": 3, "per_seconds": 1.0, "burst": None, "key": None}
    for name, value in (
        ("calendar", {"country": "XX"}),
        ("run_window", {"opens": "9"}),
        ("rate_limit", {"limit": 0}),
        ("closed_policy", "maybe"),
    ):
        refused = client.post(f"{API}/tasks", json={"name": "x", "task_type": "work", name: value})
        assert refused.status_code == 422
        assert all(field.startswith(name) for field in fields(refused))


def test_a_preview_knows_the_window(client: TestClient) -> None:
    body = {"schedule": "0 3 * * *", "run_window": {"opens": "09:00", "closes": "10:00"}}
    found = client.post(f"{API}/tasks/preview", json=body).json()
    assert found["fires"] == []
    assert "never fires within its run window" in found["warnings"][0]
    moved = client.post(f"{API}/tasks/preview", json=body | {"closed_policy": "defer"}).json()
    assert all("T09:00" in fire for fire in moved["fires"])


def _half_an_hour_ago() -> datetime:
    """A task that fires at this minute of each hour does not fire by itself while a test runs."""
    return (datetime.now(UTC) - timedelta(minutes=30)).replace(second=0, microsecond=0)


def test_a_backfill_is_previewed_and_then_recorded(client: TestClient) -> None:
    end = _half_an_hour_ago()
    task = create(client, schedule=f"{end.minute} * * * *", overlap_policy="allow")
    wanted = {"start": (end - timedelta(hours=5)).isoformat(), "end": end.isoformat()}
    preview = client.post(f"{API}/tasks/{task['id']}/backfill/preview", json=wanted).json()
    assert (preview["count"], preview["known_count"], preview["execution_ids"]) == (5, 0, [])
    made = client.post(f"{API}/tasks/{task['id']}/backfill", json=wanted | {"pace": {"at_once": 2}})
    assert made.status_code == 202
    assert len(made.json()["execution_ids"]) == 5
    last = wait_for(client, made.json()["execution_ids"][-1], "success")
    assert (last["trigger"], last["concurrency_limit"]) == ("backfill", 2)
    again = client.post(f"{API}/tasks/{task['id']}/backfill/preview", json=wanted).json()
    assert (again["count"], again["known_count"]) == (0, 5)
    both = client.post(
        f"{API}/tasks/{task['id']}/backfill", json=wanted | {"pace": {"at_once": 2, "every_seconds": 1}}
    )
    assert both.status_code == 422
    assert client.post(f"{API}/tasks/4711/backfill", json=wanted).status_code == 404


def test_a_backfill_is_stopped_as_one_thing_and_the_schedule_goes_on(client: TestClient) -> None:
    end = _half_an_hour_ago()
    task = create(client, schedule=f"{end.minute} * * * *", rate_limit={"limit": 1, "per_seconds": 3600})
    wanted = {"start": (end - timedelta(hours=50)).isoformat(), "end": end.isoformat()}
    ids = client.post(f"{API}/tasks/{task['id']}/backfill", json=wanted).json()["execution_ids"]
    wait_for(client, ids[0], "success")
    stopped = client.post(f"{API}/tasks/{task['id']}/backfill/cancel")
    assert stopped.json() == {"cancelled": 49, "ending": 0}
    states = [client.get(f"{API}/executions/{one}").json()["state"] for one in ids]
    assert states == ["success"] + ["cancelled"] * 49
    assert client.post(f"{API}/tasks/{task['id']}/backfill/cancel").json() == {"cancelled": 0, "ending": 0}
    assert client.get(f"{API}/tasks/{task['id']}").json()["next_run_at"] is not None
    assert client.post(f"{API}/tasks/4711/backfill/cancel").status_code == 404
