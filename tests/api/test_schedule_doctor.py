"""`GET /doctor/schedules` and `contenthub doctor schedules`, on stored tasks."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from sqlalchemy import insert, update

from app.core.config import Settings
from app.factory import create_app
from app.models.scheduled_task import ScheduledTask
from app.models.task_execution import TaskExecution
from app.scheduler.rates import RateLimit
from tests.api.conftest import API
from tests.integration.command_line import ContentHub
from tests.support import Recorder


@pytest.fixture
def application(database_url: str, tmp_path: Path) -> FastAPI:
    app = create_app(Settings(database_url=database_url, scheduler_enabled=False, publish_directory=tmp_path))
    app.state.service.register_executor(Recorder("work"))
    return app


def test_the_doctor_reads_tasks_and_history(application: FastAPI, client: TestClient) -> None:
    runtime = application.state.runtime
    for number in range(30):
        runtime.tasks.create(
            runtime.definition({"name": f"nine {number}", "task_type": "work", "schedule": "0 9 * * *"})
        )
    slow = runtime.tasks.create(
        runtime.definition({"name": "slow", "task_type": "work", "schedule": {"type": "interval", "seconds": 60}})
    )
    now = datetime.now(UTC)
    with runtime.engine.begin() as connection:
        # An interval counts from the task's creation: from a minute's first second, "slow" would join the herd.
        connection.execute(
            update(ScheduledTask).where(ScheduledTask.id == slow.id).values(created_at=now.replace(second=30))
        )
        connection.execute(
            insert(TaskExecution.__table__),
            [
                {
                    "task_id": slow.id,
                    "task_type": "work",
                    "state": "success",
                    "finished_at": now - timedelta(minutes=number),
                    "duration_seconds": 100.0,
                }
                for number in range(5)
            ],
        )
        never = {"name": "never", "task_type": "work", "schedule_type": "cron"}
        connection.execute(insert(ScheduledTask.__table__).values(**never, schedule_expression="0 0 31 2 *"))
        paused = {**never, "name": "paused", "is_active": False}
        connection.execute(insert(ScheduledTask.__table__).values(**paused, schedule_expression="0 0 31 2 *"))
        homeless = {"name": "homeless", "task_type": "gone", "schedule_type": "cron"}
        connection.execute(insert(ScheduledTask.__table__).values(**homeless, schedule_expression="0 4 * * *"))
        broken = {"name": "broken", "task_type": "work", "schedule_type": "cron"}
        connection.execute(insert(ScheduledTask.__table__).values(**broken, schedule_expression="99 4 * * *"))
    answer = client.get(f"{API}/doctor/schedules", params={"days": 14})
    assert answer.status_code == 200, answer.text
    report = answer.json()
    found = {one["kind"]: one for one in report["findings"]}
    assert report["task_count"] == 34
    assert [task["name"] for task in found["never_fires"]["tasks"]] == ["never"]
    assert [task["name"] for task in found["unknown_executor"]["tasks"]] == ["homeless"]
    assert [task["name"] for task in found["unreadable_schedule"]["tasks"]] == ["broken"]
    assert [task["id"] for task in found["overlap"]["tasks"]] == [slow.id]
    assert found["herd"]["peak_before"] == 30
    assert found["herd"]["peak_after"] < 15
    assert len(found["herd"]["jitter"]) == 30
    severities = [one["severity"] for one in report["findings"]]
    assert severities == sorted(severities, key=["error", "warning", "info"].index)
    chinese = client.get(f"{API}/doctor/schedules", params={"days": 14, "language": "zh"}).json()
    assert "个任务" in chinese["findings"][0]["sentence"]
    for days in (0, 367):
        assert client.get(f"{API}/doctor/schedules", params={"days": days}).status_code == 422


def test_a_report_is_kept_for_a_minute(application: FastAPI, client: TestClient) -> None:
    first = client.get(f"{API}/doctor/schedules").json()
    assert client.get(f"{API}/doctor/schedules").json()["since"] == first["since"]
    assert client.get(f"{API}/doctor/schedules", params={"days": 7}).json()["since"] != first["since"]


def test_the_command_line_sets_the_jitter_it_proposes(tmp_path: Path) -> None:
    contenthub = ContentHub(tmp_path)
    contenthub("db", "upgrade")
    file = tmp_path / "tasks.json"
    params = {"url": "http://example.org/"}
    file.write_text(
        json.dumps(
            [
                {"name": f"t{number}", "task_type": "http_request", "params": params, "schedule": "0 9 * * *"}
                for number in range(25)
            ]
        )
    )
    contenthub("task", "import", str(file))
    report = contenthub("doctor", "schedules", "--json").json
    (herd,) = report["findings"]
    assert herd["kind"] == "herd"
    said = contenthub("doctor", "schedules", "--apply-jitter", "--yes", "--language", "zh")
    assert "25 个任务在同一时刻触发" in said.out
    assert contenthub("doctor", "schedules", "--json").json["findings"] == []
    assert contenthub("doctor", "--json").json["findings"][0]["check"] == "settings"


class Narrow(Recorder):
    """An executor that may start once an hour for each account."""

    rate_limit = RateLimit(1, per_seconds=3600, key="account_id")


def test_the_doctor_adds_up_what_the_tasks_of_a_bucket_ask_for(application: FastAPI, client: TestClient) -> None:
    runtime = application.state.runtime
    runtime.service.register_executor(Narrow("narrow"))
    quarter = {"task_type": "narrow", "schedule": {"type": "interval", "seconds": 900}}
    mine = runtime.tasks.create(runtime.definition({**quarter, "name": "mine", "params": {"account_id": 1}}))
    own = {"name": "own", "task_type": "work", "schedule": {"type": "interval", "seconds": 60}}
    limited = runtime.tasks.create(runtime.definition({**own, "rate_limit": {"limit": 1, "per_seconds": 300}}))
    runtime.tasks.create(
        runtime.definition({**quarter, "name": "rare", "schedule": "0 9 * * *", "params": {"account_id": 2}})
    )
    with runtime.engine.begin() as connection:
        connection.execute(
            insert(ScheduledTask.__table__).values(
                name="torn", task_type="work", schedule_type="cron", schedule_expression="0 4 * * *", rate_limit={}
            )
        )
    report = client.get(f"{API}/doctor/schedules", params={"days": 7}).json()
    asked = {
        one["sentence"].split(" allows")[0]: one["tasks"]
        for one in report["findings"]
        if one["kind"] == "rate_limit"
    }
    assert {name: [task["id"] for task in tasks] for name, tasks in asked.items()} == {
        "the rate limit executor:narrow:1": [mine.id],
        f"the rate limit task:{limited.id}": [limited.id],
    }
    (unread,) = [one for one in report["findings"] if one["kind"] == "unreadable_schedule"]
    assert [task["name"] for task in unread["tasks"]] == ["torn"]
