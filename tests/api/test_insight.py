"""What a dashboard shows: statistics, fires to come, attention, settings, tokens, the history of tasks."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from sqlalchemy import insert, text, update

from app.core.config import Settings
from app.db.database import make_engine
from app.factory import create_app
from app.models.alerting import Alert
from app.models.scheduled_task import ScheduledTask
from app.models.task_execution import TaskExecution
from tests.api.conftest import API
from tests.support import Recorder

executions = TaskExecution.__table__
tasks = ScheduledTask.__table__


@pytest.fixture
def application(database_url: str, tmp_path: Any) -> FastAPI:
    """On either database, and without a scheduler: nothing moves but what the test moves."""
    app = create_app(Settings(database_url=database_url, scheduler_enabled=False, publish_directory=tmp_path))
    app.state.service.register_executor(Recorder("work"))
    return app


def record(application: FastAPI, *rows: dict[str, Any]) -> None:
    now = datetime.now(UTC)
    plain = {"task_type": "work", "params": {}, "state": "success", "trigger": "api", "fire_count": 1}
    plain |= {"run_at": now, "created_at": now, "finished_at": None, "duration_seconds": None, "task_id": None}
    plain |= {"error": None, "started_at": None, "reason": None, "task_name": None}
    with application.state.runtime.engine.begin() as connection:
        connection.execute(insert(executions), [{**plain, **row} for row in rows])


def ended(seconds_ago: float, state: str = "success", took: float | None = 0.1, **more: Any) -> dict[str, Any]:
    return {
        "state": state,
        "finished_at": datetime.now(UTC) - timedelta(seconds=seconds_ago),
        "duration_seconds": took,
        **more,
    }


def create(client: TestClient, **definition: Any) -> int:
    answer = client.post(f"{API}/tasks", json={"task_type": "work", **definition})
    assert answer.status_code == 201, answer.text
    return int(answer.json()["id"])


# ---------------------------------------------------------------- statistics


def test_statistics_count_what_ended_in_the_period_without_gaps(application: FastAPI, client: TestClient) -> None:
    record(
        application,
        *[ended(60, took=took) for took in (0.01, 0.02, 0.03, 0.04, 10.0)],
        ended(120, "failed", 0.5),
        ended(130, "cancelled", None),
        ended(140, "skipped", None),
        ended(2 * 3600),
        {"state": "running", "started_at": datetime.now(UTC)},
    )
    found = client.get(f"{API}/statistics", params={"period": "hour"}).json()
    assert found["summary"]["states"] == {"success": 5, "failed": 1, "cancelled": 1, "skipped": 1}
    assert found["summary"]["success_rate"] == pytest.approx(5 / 6)
    assert 0.02 < found["summary"]["p50_seconds"] < 0.05
    assert 5 < found["summary"]["p99_seconds"] <= 10
    moments = [datetime.fromisoformat(point["at"]) for point in found["points"]]
    steps = {later - sooner for sooner, later in pairwise(moments)}
    assert steps == {timedelta(seconds=found["step_seconds"])}
    assert moments[0] == datetime.fromisoformat(found["since"])
    assert sum(sum(point["states"].values()) for point in found["points"]) == 8
    day = client.get(f"{API}/statistics", params={"period": "day"}).json()
    assert day["summary"]["states"]["success"] == 6


@pytest.mark.parametrize("took", [0.0003, 0.004, 7.0, 200_000.0])
def test_no_percentile_is_beyond_what_was_measured(application: FastAPI, client: TestClient, took: float) -> None:
    """Neither for what is done in a moment nor for what runs for days."""
    record(application, *[ended(60, took=took) for _ in range(20)])
    found = client.get(f"{API}/statistics", params={"period": "hour"}).json()["summary"]
    assert took / 2.5 < found["p50_seconds"] <= found["p99_seconds"] <= took


def test_statistics_of_one_task_and_of_one_executor(application: FastAPI, client: TestClient) -> None:
    record(application, ended(10, task_id=3, task_type="work"), ended(10, task_id=4, task_type="other"))
    ask = f"{API}/statistics"
    assert client.get(ask, params={"task_id": 3}).json()["summary"]["states"] == {"success": 1}
    assert client.get(ask, params={"task_type": "other"}).json()["summary"]["states"] == {"success": 1}
    assert client.get(ask, params={"task_type": "none"}).json()["summary"]["success_rate"] is None
    by_type = client.get(f"{API}/statistics/executors").json()
    assert [(one["task_type"], one["states"]) for one in by_type] == [
        ("other", {"success": 1}),
        ("work", {"success": 1}),
    ]


# ---------------------------------------------------------------- what comes


def test_fires_to_come_are_in_order_and_of_active_tasks_alone(client: TestClient) -> None:
    often = create(client, name="often", schedule={"type": "interval", "seconds": 600})
    seldom = create(client, name="seldom", schedule={"type": "interval", "seconds": 1500})
    paused = create(client, name="paused", schedule={"type": "interval", "seconds": 60})
    client.post(f"{API}/tasks/{paused}/pause")
    create(client, name="by hand")
    fires = client.get(f"{API}/fires", params={"limit": 7}).json()
    assert [fire["task_id"] for fire in fires] == [often, often, seldom, often, often, often, seldom]
    assert [fire["at"] for fire in fires] == sorted(fire["at"] for fire in fires)


def test_fires_of_one_moment_are_in_the_order_of_their_tasks(application: FastAPI, client: TestClient) -> None:
    ids = [create(client, name=f"yearly {number}", schedule="0 0 29 2 *") for number in range(5)]
    with application.state.runtime.engine.begin() as connection:  # which puts it behind the others on PostgreSQL
        connection.execute(update(ScheduledTask).where(ScheduledTask.id == ids[0]).values(description="changed"))
    for limit in (2, 5):
        fires = client.get(f"{API}/fires", params={"limit": limit, "per_task": 1}).json()
        assert [fire["task_id"] for fire in fires] == ids[:limit]


def test_of_each_task_so_many_fires_as_are_asked_for(client: TestClient) -> None:
    busy = create(client, name="busy", schedule={"type": "interval", "seconds": 1})
    hourly = create(client, name="hourly", schedule={"type": "interval", "seconds": 3600})
    fires = client.get(f"{API}/fires", params={"limit": 5, "per_task": 2}).json()
    assert [fire["task_id"] for fire in fires] == [busy, busy, hourly, hourly]


def test_the_calendar_counts_the_fires_of_each_hour(client: TestClient) -> None:
    often = create(client, name="often", schedule={"type": "interval", "seconds": 1})
    hourly = create(client, name="hourly", schedule="30 * * * *")
    found = client.get(f"{API}/calendar", params={"hours": 24}).json()
    loads = {load["task_id"]: load for load in found["tasks"]}
    assert found["task_count"] == 2
    assert [load["task_id"] for load in found["tasks"]] == [often, hourly]
    assert loads[hourly]["counts"][1:] == [1] * 23
    assert set(loads[often]["counts"][2:]) == {3600}
    assert loads[often]["is_estimate"]
    assert not loads[hourly]["is_estimate"]


def test_the_calendar_counts_the_fires_to_come_of_a_task_whose_last_ones_nobody_has_fired(
    application: FastAPI, client: TestClient
) -> None:
    """However long ago these were due: the fires that are counted one by one begin with the calendar."""
    often = create(client, name="often", schedule={"type": "interval", "seconds": 1})
    with application.state.runtime.engine.begin() as connection:
        overdue = datetime.now(UTC) - timedelta(hours=3)
        connection.execute(update(ScheduledTask).where(ScheduledTask.id == often).values(next_run_at=overdue))
    (load,) = client.get(f"{API}/calendar", params={"hours": 5}).json()["tasks"]
    assert load["is_estimate"]
    assert load["counts"][1:] == [3600] * 4


def test_the_calendar_counts_what_waits_for_one_opening_as_it_will_run(client: TestClient) -> None:
    opening = (datetime.now(UTC) + timedelta(hours=6)).replace(minute=0, second=0, microsecond=0)
    window = {"opens": f"{opening:%H:%M}", "closes": f"{opening + timedelta(hours=2):%H:%M}"}
    deferred = {"schedule": "* * * * *", "run_window": window, "closed_policy": "defer"}
    one = create(client, name="one of them", **deferred)
    each = create(client, name="all of them", overlap_policy="allow", **deferred)
    found = client.get(f"{API}/calendar", params={"hours": 24}).json()
    loads = {load["task_id"]: load["counts"] for load in found["tasks"]}
    hour = (opening - datetime.fromisoformat(found["since"])) // timedelta(hours=1)
    assert loads[one][: hour + 1] == [0] * hour + [60]
    assert loads[each][: hour + 1] == [0] * hour + [200]


def test_the_hours_of_the_calendar_begin_where_a_clock_half_an_hour_off_has_them(client: TestClient) -> None:
    task = create(client, name="midnight", schedule="0 0 * * *", timezone="Asia/Kolkata")
    for minute in (0, 30):
        asked = datetime.now(UTC)
        # More than a day: in the hour of a midnight that has passed, the next one is further off than 24 hours.
        found = client.get(f"{API}/calendar", params={"hours": 26, "minute": minute}).json()
        since = datetime.fromisoformat(found["since"])
        assert since.minute == minute
        assert asked - timedelta(hours=1) < since <= datetime.now(UTC)
        (load,) = found["tasks"]
        at = since + timedelta(hours=load["counts"].index(1))
        clock = at.astimezone(ZoneInfo("Asia/Kolkata"))
        assert (load["task_id"], f"{clock:%H:%M}") == (task, "00:00" if minute == 30 else "23:30")


# ---------------------------------------------------------------- what needs attention


def test_attention_names_what_is_wrong_worst_first(application: FastAPI, client: TestClient) -> None:
    late = create(client, name="late", schedule={"type": "interval", "seconds": 60})
    failing = create(client, name="failing", schedule={"type": "interval", "seconds": 3600})
    broken = create(client, name="broken", schedule={"type": "interval", "seconds": 3600})
    long_ago = datetime.now(UTC) - timedelta(minutes=30)
    moment = long_ago.strftime("%Y-%m-%d %H:%M:%S") + (
        "" if application.state.runtime.engine.dialect.name == "sqlite" else "+00"
    )
    with application.state.runtime.engine.begin() as connection:
        connection.execute(
            text("UPDATE scheduled_tasks SET next_run_at = :at WHERE id = :id"), {"at": moment, "id": late}
        )
        connection.execute(
            text("UPDATE scheduled_tasks SET last_state = 'failed' WHERE id = :id"), {"id": failing}
        )
        connection.execute(
            text("UPDATE scheduled_tasks SET schedule_error = 'no zone', next_run_at = NULL WHERE id = :id"),
            {"id": broken},
        )
    record(
        application,
        {"state": "parked", "reason": "unknown_executor", "task_type": "gone"},
        {"state": "pending", "run_at": long_ago, "created_at": long_ago},
    )
    with application.state.runtime.sessions() as session:
        alert = {"rule_id": 1, "kind": "failed", "severity": "warning", "opened_at": long_ago, "details": {}}
        taken_up = {"acknowledged_at": long_ago, "acknowledged_by": "ann"}
        told = Alert(rule_name="thrice", subject="task:1", **alert)
        session.add_all([told, Alert(rule_name="seen", subject="task:2", **alert, **taken_up)])
        session.add(Alert(rule_name="over", subject="task:3", **alert, resolved_at=long_ago))
        session.commit()
        alert_id = told.id
    found = {one["kind"]: one for one in client.get(f"{API}/attention").json()}
    assert found["alerts_open"]["count"] == 1
    assert found["alerts_open"]["examples"] == [{"kind": "alert", "id": alert_id, "name": "thrice"}]
    assert found["late_fires"]["examples"] == [{"kind": "task", "id": late, "name": "late"}]
    assert found["failing_tasks"]["examples"][0]["name"] == "failing"
    assert found["broken_schedules"]["examples"][0]["id"] == broken
    assert found["parked"]["count"] == 1
    assert found["waiting_long"]["count"] == 1
    assert "no_node" in found
    order = [one["severity"] for one in client.get(f"{API}/attention").json()]
    assert order == sorted(order, key=["error", "warning", "info"].index)


# ---------------------------------------------------------------- settings, tokens


def test_settings_are_shown_without_their_secrets(application: FastAPI, client: TestClient) -> None:
    runtime = application.state.runtime
    secrets = {"generator_openai_key": "sk-hidden", "session_secret": "hidden secret, long enough"}
    runtime.settings = Settings(**{**runtime.settings.model_dump(), **secrets})
    answer = client.get(f"{API}/settings")
    shown = {one["name"]: one for one in answer.json()}
    assert shown.keys() == {name.upper() for name in Settings.model_fields}
    assert "hidden" not in answer.text
    assert shown["SCHEDULER_ENABLED"] == {"name": "SCHEDULER_ENABLED", "value": False, "is_default": False}
    assert shown["SCHEDULER_LEASE_SECONDS"]["is_default"] is True


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("database_url", "postgresql://user:s3cret@localhost/contenthub"),
        ("database_url", "postgresql://localhost/contenthub?user=u&password=s3cret"),
        ("database_url", "postgresql://localhost/contenthub?sslpassword=s3cret"),
        ("database_url", "sqlite:////data/hub.db?password=s3cret"),
        ("generator_command", ["gen", "--api-key", "s3cret"]),
        ("generator_command", ["gen", "--token=s3cret"]),
        ("publish_webhook_url", "https://hooks.example.org/services/T0/s3cret"),
        ("generator_feed", "https://user:s3cret@feeds.example.org/"),
    ],
)
def test_a_secret_inside_a_setting_is_not_shown(
    application: FastAPI, client: TestClient, name: str, value: object
) -> None:
    runtime = application.state.runtime
    runtime.settings = Settings(**{**runtime.settings.model_dump(), name: value})
    answer = client.get(f"{API}/settings")
    assert answer.status_code == 200
    assert "s3cret" not in answer.text


def test_a_token_is_shown_once_and_works_until_it_is_revoked(client: TestClient) -> None:
    made = client.post(f"{API}/tokens", json={"name": "first", "role": "admin"}).json()
    as_admin = {"Authorization": f"Bearer {made['token']}"}
    assert client.get(f"{API}/tokens").status_code == 401  # from now on nobody is anonymous
    second = client.post(f"{API}/tokens", json={"name": "second", "role": "viewer"}, headers=as_admin).json()
    listed = client.get(f"{API}/tokens", headers=as_admin)
    assert second["token"] not in listed.text
    assert [(one["name"], one["role"], one["revoked_at"]) for one in listed.json()] == [
        ("first", "admin", None),
        ("second", "viewer", None),
    ]
    as_viewer = {"Authorization": f"Bearer {second['token']}"}
    assert client.get(f"{API}/tasks", headers=as_viewer).status_code == 200
    assert client.delete(f"{API}/tokens/second", headers=as_admin).status_code == 204
    assert client.get(f"{API}/tasks", headers=as_viewer).status_code == 401
    assert client.delete(f"{API}/tokens/none", headers=as_admin).status_code == 404
    taken = client.post(f"{API}/tokens", json={"name": "first", "role": "viewer"}, headers=as_admin)
    assert taken.status_code == 409


# ---------------------------------------------------------------- lists


def test_the_history_of_a_task_says_who_changed_what(client: TestClient) -> None:
    task = create(client, name="a task", description="old", params={"password": "s3cret"})
    client.patch(f"{API}/tasks/{task}", json={"description": "new", "priority": 7})
    client.patch(f"{API}/tasks/{task}", json={"params": {"password": "0ther"}})
    client.post(f"{API}/tasks/{task}/pause")
    client.post(f"{API}/tasks/{task}/resume")
    client.delete(f"{API}/tasks/{task}")
    answer = client.get(f"{API}/tasks/{task}/changes")
    changes = answer.json()["items"]
    assert [change["action"] for change in changes] == ["delete", "resume", "pause", "update", "update", "create"]
    assert changes[-2]["changes"] == {"description": ["old", "new"], "priority": [0, 7]}
    assert {change["changed_by"] for change in changes} == {"local"}
    assert "s3cret" not in answer.text
    assert "0ther" not in answer.text


@pytest.mark.parametrize("order", ["id", "name", "next_run_at"])
def test_tasks_page_by_page_are_each_there_once_in_order(client: TestClient, order: str) -> None:
    for number in (5, 3, 9, 1, 7, 2):
        create(client, name=f"task {number}", schedule={"type": "interval", "seconds": 60 * (1 + number % 3)})
    create(client, name="no schedule")
    seen: list[dict[str, Any]] = []
    cursor: str | None = None
    while True:
        page = client.get(
            f"{API}/tasks", params={"order": order, "limit": 2, **({"cursor": cursor} if cursor else {})}
        )
        seen += page.json()["items"]
        cursor = page.json()["next_cursor"]
        if cursor is None:
            break
    assert len({task["id"] for task in seen}) == len(seen) == 7
    keys = [(task["next_run_at"] or "~", task["id"]) if order == "next_run_at" else task[order] for task in seen]
    assert keys == sorted(keys)


def test_executions_by_time_and_text_and_several_states(application: FastAPI, client: TestClient) -> None:
    now = datetime.now(UTC)
    record(
        application,
        *[
            ended(1, "failed", error="ConnectionError: refused", created_at=now - timedelta(hours=hours))
            for hours in (1, 2, 3)
        ],
        ended(1, "cancelled", created_at=now - timedelta(hours=2)),
        ended(1, created_at=now - timedelta(hours=2), task_name="quarterly 100% report"),
    )
    ask = f"{API}/executions"
    since, until = (now - timedelta(hours=2.5)).isoformat(), (now - timedelta(hours=1.5)).isoformat()
    found = client.get(ask, params={"since": since, "until": until, "state": ["failed", "cancelled"]}).json()
    assert sorted(one["state"] for one in found["items"]) == ["cancelled", "failed"]
    assert len(client.get(ask, params={"search": "refused"}).json()["items"]) == 3
    assert len(client.get(ask, params={"search": "100%"}).json()["items"]) == 1
    assert client.get(ask, params={"search": "%_%"}).json()["items"] == []


def test_the_schema_is_the_same_on_both_databases(application: FastAPI) -> None:
    engine = make_engine(application.state.runtime.settings)
    with engine.connect() as connection:
        assert connection.scalar(text("SELECT count(*) FROM task_changes")) == 0
    engine.dispose()
