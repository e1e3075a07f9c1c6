"""`contenthub serve`, `demo`, `db`, `token`, `node` and `doctor`: commands around a server."""

from __future__ import annotations

import json
import re
import signal
import socket
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import httpx
import pytest

from tests.integration.command_line import ContentHub, until
from tests.support import free_port

PARAMS = '{"account_id": 1, "topic": "人工智能"}'


@pytest.fixture
def contenthub(tmp_path: Path) -> ContentHub:
    return ContentHub(tmp_path)


def answers(url: str) -> bool:
    try:
        return httpx.get(url).status_code == 200
    except httpx.TransportError:
        return False


def write(contenthub: ContentHub, statement: str) -> None:
    with closing(sqlite3.connect(contenthub.folder / "contenthub.db")) as connection, connection:
        connection.execute(statement)


def test_a_run_goes_to_the_server_that_runs(contenthub: ContentHub) -> None:
    port = free_port()
    with contenthub.started("serve", "--port", str(port)) as server:
        until(lambda: answers(f"http://127.0.0.1:{port}/health/live"))
        (node,) = contenthub("node", "list", "--json").json
        assert (node["pid"], node["listening"]) == (server.pid, True)
        contenthub("task", "create", "--name", "digest", "--type", "content_generation", "--params", PARAMS)
        execution = contenthub("task", "run", "digest", "--json").json
        shown = contenthub("execution", "show", str(execution["id"]), "--json").json
        assert [attempt["node"] for attempt in shown["attempts"]] == [node["id"]]
        server.send_signal(signal.SIGTERM)
        server.wait(30)
    assert contenthub("node", "list", "--json").json == []


def test_a_server_that_was_killed_takes_no_runs(contenthub: ContentHub) -> None:
    port = free_port()
    with contenthub.started("serve", "--port", str(port)) as server:
        until(lambda: answers(f"http://127.0.0.1:{port}/health/live"))
        server.kill()
        server.wait(30)
    contenthub("task", "create", "--name", "digest", "--type", "content_generation", "--params", PARAMS)
    assert contenthub("task", "run", "digest", "--json").json["state"] == "success"


def test_serve_refuses_other_machines_until_there_is_a_token(contenthub: ContentHub) -> None:
    refused = contenthub("serve", "--host", "0.0.0.0", "--port", str(free_port()), code=1)
    assert "contenthub token create" in refused.err
    token = contenthub("token", "create", "ops", "--role", "admin", "--json").json["token"]
    listed = contenthub("token", "list").out
    assert "ops" in listed
    assert token not in listed
    assert token not in (contenthub.folder / "contenthub.db").read_bytes().decode("latin-1")
    contenthub("token", "revoke", "ops")
    contenthub("serve", "--host", "0.0.0.0", "--port", str(free_port()), code=1)


def test_demo_publishes_a_digest_within_seconds_and_stops_cleanly(contenthub: ContentHub) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with contenthub.started("demo", "--data-dir", "demo", "--port", str(port)) as demo:
            index = contenthub.folder / "demo" / "site" / "index.html"
            until(lambda: index.exists() and "content-1.html" in index.read_text())
            assert demo.stdout is not None
            assert demo.stderr is not None
            address = demo.stdout.readline().split()[-1]
            assert "人工智能" in httpx.get(address).text
            demo.send_signal(signal.SIGTERM)
            demo.wait(30)
            out, err = demo.stdout.read(), demo.stderr.read()
    assert demo.returncode == 0, err
    assert f"Port {port} is taken" in err
    assert re.search(r"demo-digest +success", out)
    assert re.search(r"demo-publish +success", out)
    assert out.endswith("Stopped.\n")


def test_db_upgrade_makes_the_schema_once(contenthub: ContentHub) -> None:
    assert contenthub("db", "current", "--json").json["is_current"] is False
    upgraded = contenthub("db", "upgrade", "--json").json
    assert upgraded["before"] is None
    current = contenthub("db", "current", "--json").json
    assert (current["current"], current["is_current"]) == (upgraded["now"], True)
    assert contenthub("db", "upgrade", "--json").json["before"] == upgraded["now"]


def test_a_database_of_another_version_is_refused_and_only_upgrade_changes_it(contenthub: ContentHub) -> None:
    contenthub("db", "upgrade")
    for version, said, remedy in (
        ("0010", "run `contenthub db upgrade`", "run `contenthub db upgrade`"),
        ("9999", "install that version", "install the newer version that made it"),
    ):
        write(contenthub, f"UPDATE alembic_version SET version_num = '{version}'")
        assert said in " ".join(contenthub("task", "list", code=1).err.split())
        findings = {item["check"]: item for item in contenthub("doctor", "--json", code=1).json["findings"]}
        assert findings["migrations"]["remedy"] == remedy


def test_doctor_finds_nothing_wrong_on_a_fresh_machine_and_does_not_make_a_database(
    contenthub: ContentHub,
) -> None:
    ran = contenthub("doctor")
    assert "contenthub.db does not exist yet" in ran.out
    assert not (contenthub.folder / "contenthub.db").exists()


def test_doctor_names_unknown_types_and_unreadable_schedules(contenthub: ContentHub) -> None:
    contenthub("db", "upgrade")
    write(
        contenthub,
        "INSERT INTO scheduled_tasks (name, task_type, schedule_type, schedule_expression)"
        " VALUES ('odd', 'my_type', 'cron', '0 25 * * *')",
    )
    write(
        contenthub,
        "INSERT INTO scheduled_tasks (name, task_type, schedule_type, schedule_expression, schedule_error)"
        " VALUES ('shelved', 'my_type', 'cron', '0 9 * * *', 'no such zone')",
    )
    told = [item["message"] for item in contenthub("doctor", "--json", code=1).json["findings"]]
    assert "task shelved does not fire: no such zone" in told
    write(contenthub, "DELETE FROM scheduled_tasks WHERE name = 'shelved'")
    findings = {item["check"]: item for item in contenthub("doctor", "--json", code=1).json["findings"]}
    assert "my_type" in findings["executors"]["message"]
    assert "hour '25' is wrong" in findings["schedules"]["message"]
    assert findings["nodes"]["remedy"] == "run `contenthub serve`"


def test_doctor_fails_where_a_folder_can_not_be_one(contenthub: ContentHub) -> None:
    (contenthub.folder / "file").write_text("no folder")
    findings = contenthub("doctor", "--json", code=1, PUBLISH_DIRECTORY="file/site").json["findings"]
    (publish,) = [item for item in findings if item["check"] == "publish directory"]
    assert (publish["level"], "right to write" in publish["remedy"]) == ("fail", True)


def test_a_run_whose_server_dies_goes_on_in_the_waiting_command(contenthub: ContentHub) -> None:
    draft = json.dumps({"title": "t", "body": "b"})
    sleeps = json.dumps([sys.executable, "-c", "import time; time.sleep(600)"])
    writes = json.dumps([sys.executable, "-c", f"print({draft!r})"])
    params = '{"account_id": 1, "topic": "x", "generator": "command"}'
    contenthub("task", "create", "--name", "draft", "--type", "content_generation", "--params", params)
    port = free_port()
    with contenthub.started("serve", "--port", str(port), GENERATOR_COMMAND=sleeps) as server:
        until(lambda: answers(f"http://127.0.0.1:{port}/health/live"))
        with contenthub.started("task", "run", "draft", "--json", GENERATOR_COMMAND=writes) as command:
            until(lambda: [run["state"] for run in contenthub("execution", "list", "--json").json] == ["running"])
            server.kill()
            out, err = command.communicate(timeout=60)
    assert command.returncode == 0, err
    assert "goes on here" in err
    execution = json.loads(out)
    assert (execution["state"], execution["attempt"], execution["rescues"]) == ("success", 2, 1)


def test_a_worker_runs_what_others_recorded_and_drains_at_sigterm(contenthub: ContentHub) -> None:
    contenthub("task", "create", "--name", "digest", "--type", "content_generation", "--params", PARAMS)
    detached = contenthub("task", "run", "digest", "--detach", "--json").json
    with contenthub.started("worker") as worker:
        until(lambda: contenthub("execution", "show", str(detached["id"]), "--json").json["state"] == "success")
        (node,) = contenthub("node", "list", "--json").json
        assert (node["role"], node["pid"]) == ("worker", worker.pid)
        worker.send_signal(signal.SIGTERM)
        assert worker.wait(30) == 0
    assert contenthub("node", "list", "--json").json == []


def test_a_worker_answers_prometheus_where_it_is_told_to(contenthub: ContentHub) -> None:
    contenthub("task", "create", "--name", "digest", "--type", "content_generation", "--params", PARAMS)
    contenthub("task", "run", "digest", "--detach")
    port = free_port()
    with contenthub.started("worker", METRICS_PORT=str(port)):
        counted = 'contenthub_attempts_total{state="success",task_type="content_generation"} 1.0'
        until(lambda: answers(f"http://127.0.0.1:{port}/metrics"))
        until(lambda: counted in httpx.get(f"http://127.0.0.1:{port}/metrics").text)
        refused = contenthub("worker", code=1, METRICS_PORT=str(port))
        assert "METRICS_PORT" in refused.err
        assert "choose another" in refused.err


def test_what_needs_no_database_loads_no_sqlalchemy() -> None:
    """And `serve --port` is heard: who loads the models has read the settings."""
    code = "import sys, app.cli.main; sys.exit('sqlalchemy' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_an_engine_that_cannot_work_here_is_refused_with_the_remedy(contenthub: ContentHub) -> None:
    moved = contenthub("db", "move-engine", "pgqueuer", code=1)
    assert "SCHEDULER_ENGINE: pgqueuer needs PostgreSQL" in moved.err
    served = contenthub("serve", "--port", str(free_port()), code=1, SCHEDULER_ENGINE="pgqueuer")
    assert "needs PostgreSQL" in served.err
    wrong = contenthub("serve", code=1, SCHEDULER_ENGINE="celery")
    assert "SCHEDULER_ENGINE" in wrong.err


def test_moving_engines_on_postgresql_says_what_it_did(contenthub: ContentHub, postgres_url: str) -> None:
    contenthub.settings["DATABASE_URL"] = postgres_url
    contenthub("task", "create", "--name", "digest", "--type", "content_generation", "--params", PARAMS)
    contenthub("task", "run", "digest", "--detach")
    there = contenthub("db", "move-engine", "pgqueuer")
    assert "wrote jobs for 1 waiting" in there.out
    assert "SCHEDULER_ENGINE=pgqueuer" in there.err
    assert contenthub("db", "move-engine", "embedded", "--json").json == {"engine": "embedded", "moved": 1}


DECLARING = """
from app import factory
from app.services.scheduler_service import scheduler_service
real = factory.register_executors

def register():
    real()
    scheduler_service.define_task("right", "content_generation", params={"account_id": 1, "topic": "x"})
    scheduler_service.define_task("wrong", "content_generation", **WRONG)

factory.register_executors = register
"""


def declaring(contenthub: ContentHub, wrong: dict[str, object], *command: str) -> str:
    """What `contenthub …` says, with exit code 1 and no stack, where the code declares a task that is wrong."""
    contenthub.backend = DECLARING.replace("WRONG", repr(wrong))
    ran = contenthub(*command, code=1, COLUMNS="200")
    told = ran.out + ran.err
    assert "Traceback" not in told
    return told


@pytest.mark.parametrize("command", [("serve", "--port", "0"), ("worker",), ("doctor",)])
def test_a_wrong_declaration_is_told_in_sentences(contenthub: ContentHub, command: tuple[str, ...]) -> None:
    contenthub("db", "upgrade")
    told = declaring(contenthub, {"params": {"account_id": "one"}}, *command)
    assert "tasks[wrong].params.account_id" in told
    assert "tasks[wrong].params.topic" in told
    assert "tasks[wrong].schedule.expression" in declaring(contenthub, {"schedule": "61 * * * *"}, *command)
    contenthub.backend = ""
    assert contenthub("task", "list", "--json").json == []


def test_what_a_backend_writes_as_the_design_document_does_reaches_every_command(contenthub: ContentHub) -> None:
    contenthub.backend = """
from app import factory
from app.services.scheduler_service import TaskExecutionResult, TaskExecutor, scheduler_service

class GreetingExecutor(TaskExecutor):
    @property
    def executor_type(self):
        return "greeting"

    async def execute(self, task_id, task_params, db):
        return TaskExecutionResult.success_result("Hello, " + task_params["name"])

def register_executors():
    scheduler_service.register_executor(GreetingExecutor())

factory.register_executors = register_executors
scheduler_service.define_task("declared", "greeting", params={"name": "team"})
"""
    contenthub("task", "create", "--name", "greet", "--type", "greeting", "--params", '{"name": "Ada"}')
    assert contenthub("task", "run", "greet", "--json").json["message"] == "Hello, Ada"
    port = free_port()
    with contenthub.started("serve", PORT=str(port)) as server:
        until(lambda: answers(f"http://127.0.0.1:{port}/health/live"))
        assert contenthub("task", "run", "declared", "--json").json["message"] == "Hello, team"
        server.send_signal(signal.SIGTERM)
        _, logged = server.communicate(timeout=30)
    assert "已注册，将被" not in logged
    with contenthub.started("worker") as worker:
        until(lambda: contenthub("node", "list", "--json").json)
        assert contenthub("task", "run", "declared", "--json").json["message"] == "Hello, team"
        worker.send_signal(signal.SIGTERM)
        worker.wait(30)


@pytest.mark.parametrize("wrong", [{"params": {"account_id": "one"}}, {"schedule": "61 * * * *"}])
def test_doctor_finds_a_wrong_declaration_before_there_is_a_database(
    contenthub: ContentHub, wrong: dict[str, object]
) -> None:
    findings = json.loads(declaring(contenthub, wrong, "doctor", "--json"))["findings"]
    failed = [finding for finding in findings if finding["level"] == "fail"]
    assert {finding["check"] for finding in failed} == {"declarations"}
    assert all(finding["message"].startswith("tasks[wrong].") for finding in failed)
    assert {finding["remedy"] for finding in failed} == {"mend it in app/factory.py"}
    assert not (contenthub.folder / "contenthub.db").exists()
