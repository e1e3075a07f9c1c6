"""Four server processes on one database: `contenthub serve --workers 4`, driven over HTTP and by signals."""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.integration.command_line import ContentHub, until
from tests.integration.local_web import Answer, LocalWeb
from tests.support import free_port

WORKERS = 4
COMMAND = {"account_id": 1, "topic": "x", "generator": "command"}
PROGRAM = """
import json, sys, time
time.sleep(float(json.load(sys.stdin)["topic"]))
print(json.dumps({"title": "t", "body": "b"}))
"""


@dataclass(slots=True)
class Cluster:
    """A running server of four processes; its HTTP client reaches any of them."""

    contenthub: ContentHub
    http: httpx.Client

    def nodes(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.get("nodes")
        return found

    def get(self, path: str, **query: Any) -> Any:
        return self.http.get(path, params=query).raise_for_status().json()

    def post(self, path: str, body: Any = None, **headers: str) -> Any:
        return self.http.post(path, json=body, headers=headers).raise_for_status().json()

    def sleep(self, seconds: float, **request: Any) -> int:
        """Enqueue an execution that takes that long; returns its id."""
        params = COMMAND | {"topic": str(seconds)}
        return int(self.post("executions", {"task_type": "content_generation", "params": params, **request})["id"])

    def execution(self, execution_id: int) -> dict[str, Any]:
        found: dict[str, Any] = self.get(f"executions/{execution_id}")
        return found

    def over(self, execution_id: int) -> dict[str, Any]:
        until(lambda: self.execution(execution_id)["finished_at"])
        return self.execution(execution_id)


@pytest.fixture(scope="module", params=["sqlite", "postgresql", "pgqueuer"])
def cluster(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    if request.param == "sqlite":
        yield from _cluster(tmp_path_factory.mktemp("cluster"), {})
        return
    with request.getfixturevalue("new_postgres_database")() as url:
        settings = {"DATABASE_URL": url}
        if request.param == "pgqueuer":
            settings |= {"SCHEDULER_ENGINE": "pgqueuer", "SCHEDULER_JOB_HEARTBEAT_SECONDS": "2"}
        yield from _cluster(tmp_path_factory.mktemp("cluster"), settings)


def _cluster(folder: Path, settings: dict[str, str]) -> Iterator[Cluster]:
    settings = settings | {
        "GENERATOR_COMMAND": json.dumps([sys.executable, "-c", PROGRAM]),
        "SCHEDULER_CONCURRENCY": "4",
        "SCHEDULER_GRACE_SECONDS": "1",
        "PUBLISH_DIRECTORY": str(folder / "site"),
        "LOG_LEVEL": "WARNING",
    }
    contenthub = ContentHub(folder, settings)
    port = free_port()
    with contenthub.started("serve", "--port", str(port), "--workers", str(WORKERS)) as server:
        _read_away(server)
        # A connection for each request, so that requests are spread over the processes.
        limits = httpx.Limits(max_keepalive_connections=0)
        retrying = httpx.HTTPTransport(retries=3, limits=limits)
        base = f"http://127.0.0.1:{port}/api/v1/scheduler/"
        with httpx.Client(base_url=base, transport=retrying, timeout=30) as http:
            cluster = Cluster(contenthub, http)
            until(lambda: _is_up(cluster))
            yield cluster
            server.send_signal(signal.SIGTERM)
            server.wait(60)


def _read_away(server: Any) -> None:
    for stream in (server.stdout, server.stderr):
        threading.Thread(target=stream.read, daemon=True).start()


def _is_up(cluster: Cluster, *, without: str | None = None) -> bool:
    """Whether as many nodes as there should be are there, none of them that one."""
    # A process that stops may have taken the connection.
    with suppress(httpx.HTTPError):
        found = {node["id"] for node in cluster.nodes()}
        return len(found) == WORKERS and without not in found
    return False


def _moment(text: str) -> datetime:
    return datetime.fromisoformat(text)


def test_every_node_says_what_it_is_and_what_it_does(cluster: Cluster) -> None:
    running = cluster.sleep(3)
    until(lambda: cluster.execution(running)["state"] == "running")
    nodes = cluster.nodes()
    assert sorted(node["running"] for node in nodes) == [0, 0, 0, 1]
    assert len({node["pid"] for node in nodes}) == WORKERS
    assert {node["role"] for node in nodes} == {"all"}
    for node in nodes:
        assert node["host"].startswith(socket.gethostname())
        assert node["engine"]
        assert node["version"]
        assert abs((datetime.now().astimezone() - _moment(node["heartbeat_at"])).total_seconds()) < 30
    listed = cluster.contenthub("node", "list", "--json").json
    assert {node["id"] for node in listed} == {node["id"] for node in nodes}
    assert "running" in listed[0]
    cluster.over(running)


def test_a_task_that_fires_every_second_fires_once_each(cluster: Cluster) -> None:
    task = cluster.post(
        "tasks",
        {
            "name": "each-second",
            "task_type": "content_generation",
            "params": {"account_id": 1, "topic": "AI"},
            "schedule": {"type": "interval", "seconds": 1},
            "overlap_policy": "allow",
            "misfire_policy": "all",  # a fire that busy processes miss has a row of its own too
        },
    )
    until(lambda: len(cluster.get("executions", task_id=task["id"], limit=100)["items"]) >= 6)
    paused = cluster.contenthub("task", "pause", "each-second", "--json").json
    assert paused["is_active"] is False
    fires = cluster.get("executions", task_id=task["id"], limit=100)["items"]
    time.sleep(2.5)
    assert len(cluster.get("executions", task_id=task["id"], limit=100)["items"]) == len(fires)
    moments = sorted(_moment(fire["scheduled_for"]) for fire in fires)
    assert {later - sooner for sooner, later in pairwise(moments)} == {timedelta(seconds=1)}
    ran = [fire["id"] for fire in fires if fire["reason"] != "paused"]  # one may be due just then
    assert len(fires) - len(ran) <= 1
    assert Counter(cluster.over(one)["state"] for one in ran) == {"success": len(ran)}
    assert all(len(cluster.execution(one)["attempts"]) == 1 for one in ran)


def test_one_idempotency_key_is_one_execution_whoever_is_asked(cluster: Cluster) -> None:
    request = {"task_type": "content_generation", "params": {"account_id": 1, "topic": "AI"}}
    with ThreadPoolExecutor(16) as pool:
        asked = [
            pool.submit(cluster.post, "executions", request, **{"Idempotency-Key": "order-7"}) for _ in range(40)
        ]
        assert len({one.result()["id"] for one in asked}) == 1


def test_a_concurrency_limit_holds_across_processes(cluster: Cluster) -> None:
    ids = [cluster.sleep(0.2, concurrency_key="account-1", concurrency_limit=2) for _ in range(8)]
    spans = []
    for execution_id in ids:
        (attempt,) = cluster.over(execution_id)["attempts"]
        spans.append((_moment(attempt["started_at"]), _moment(attempt["finished_at"])))
    assert max(sum(start <= moment < end for start, end in spans) for moment, _ in spans) <= 2


def test_a_cancel_reaches_an_attempt_in_another_process_within_two_seconds(cluster: Cluster) -> None:
    ids = [cluster.sleep(60) for _ in range(6)]
    for execution_id in ids:
        until(lambda execution_id=execution_id: cluster.execution(execution_id)["state"] == "running")
    for execution_id in ids:
        asked = datetime.now().astimezone()
        cluster.post(f"executions/{execution_id}/cancel")
        over = cluster.over(execution_id)
        assert over["state"] == "cancelled"
        # What the program needs to end is its own; the attempt is asked to let go within two seconds.
        assert _moment(over["finished_at"]) - asked < timedelta(seconds=4)


def test_a_killed_process_is_replaced_and_its_work_done_by_others(cluster: Cluster) -> None:
    ids = [cluster.sleep(1.5) for _ in range(8)]
    until(lambda: any(node["running"] for node in cluster.nodes()))
    victim = max(cluster.nodes(), key=lambda node: node["running"])
    os.kill(victim["pid"], signal.SIGKILL)
    outcomes = [cluster.over(execution_id) for execution_id in ids]
    assert [outcome["state"] for outcome in outcomes] == ["success"] * len(ids)
    lost = [outcome for outcome in outcomes if outcome["rescues"]]
    assert len(lost) == victim["running"]
    until(lambda: _is_up(cluster))


def test_a_rolling_restart_under_load_loses_nothing_and_fails_nothing(cluster: Cluster) -> None:
    accepted: list[int] = []
    stop = threading.Event()

    def ask() -> None:
        number = 0
        while not stop.wait(0.05):  # as much as two cores can work off
            number += 1
            # A connection that a stopping process had taken breaks; the client asks again, with the same key.
            with suppress(httpx.TransportError):
                accepted.append(cluster.sleep(0.05, idempotency_key=f"{threading.get_ident()}-{number}"))

    clients = [threading.Thread(target=ask) for _ in range(2)]
    for client in clients:
        client.start()
    try:
        for node in cluster.nodes():
            os.kill(node["pid"], signal.SIGTERM)
            until(lambda gone=node["id"]: _is_up(cluster, without=gone))
    finally:
        stop.set()
        for client in clients:
            client.join()
    outcomes = Counter(cluster.over(execution_id)["state"] for execution_id in accepted)
    assert outcomes == {"success": len(accepted)}
    assert len(accepted) > 2 * WORKERS


def test_an_incident_that_all_processes_see_is_told_once(cluster: Cluster) -> None:
    web = LocalWeb()
    with web.serving():
        web.answer("/hook", Answer())
        url = f"json://127.0.0.1:{web.port}/hook"
        channel = cluster.post("alert-channels", {"name": "hook", "url": url})
        params = {"url": "http://127.0.0.1:9/"}  # private: refused, so that each run fails
        task = cluster.post("tasks", {"name": "failing", "task_type": "http_request", "params": params})
        rule = {"condition": {"type": "failed"}, "task_id": task["id"], "channel_ids": [channel["id"]]}
        cluster.post("alert-rules", {"name": "once", "check_seconds": 5, **rule})
        cluster.over(cluster.post(f"tasks/{task['id']}/run")["id"])
        until(lambda: web.received)
        # Every process looks every five seconds.
        time.sleep(12)
        assert [json.loads(received.body)["title"][:4] for received in web.received] == ["[警告]"]
        (alert,) = cluster.get("alerts")["items"]
        assert alert["notices"] == 1
        (delivery,) = cluster.get("executions", task_type="alert_delivery")["items"]
        assert delivery["state"] == "success"
