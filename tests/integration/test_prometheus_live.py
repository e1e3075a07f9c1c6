"""Debian's Prometheus scrapes a real server: the series are there, the rules evaluate, the alert fires."""

from __future__ import annotations

import json
import re
import shutil
import sqlite3
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

import app.observability
from app.models.task_execution import ACTIVE_STATES
from app.observability.instruments import INSTRUMENTS, Kind
from tests.integration.command_line import ContentHub, until
from tests.integration.local_web import Answer, LocalWeb
from tests.integration.test_cli_server import answers
from tests.support import free_port

SHIPPED = Path(app.observability.__file__).parent
CONFIG = """
global: {{scrape_interval: 1s, evaluation_interval: 1s}}
rule_files: [alerts.yml]
scrape_configs:
  - job_name: contenthub
    authorization: {{credentials: {token}}}
    static_configs: [{{targets: ["127.0.0.1:{port}"]}}]
"""
FAST = {"10m]": "5s]", "for: 10m": "for: 1s", "for: 5m": "for: 1s", "for: 15m": "for: 1s", "for: 1m": "for: 1s"}
"""The shipped rules, with what they wait for made shorter."""


class Prometheus:
    """The server's HTTP API."""

    def __init__(self, port: int) -> None:
        self._url = f"http://127.0.0.1:{port}"

    @property
    def is_ready(self) -> bool:
        return answers(f"{self._url}/-/ready")

    def query(self, expression: str) -> list[dict[str, Any]]:
        answer = httpx.get(f"{self._url}/api/v1/query", params={"query": expression}).json()
        assert answer["status"] == "success", answer
        found: list[dict[str, Any]] = answer["data"]["result"]
        return found

    def value(self, expression: str) -> float | None:
        found = self.query(expression)
        return float(found[0]["value"][1]) if found else None

    def rules(self) -> dict[str, str]:
        """The health of each rule."""
        groups = httpx.get(f"{self._url}/api/v1/rules").json()["data"]["groups"]
        return {rule["name"]: rule["health"] for group in groups for rule in group["rules"]}


@pytest.fixture
def contenthub(tmp_path: Path) -> ContentHub:
    if shutil.which("prometheus") is None:
        pytest.skip("Debian's package `prometheus` is not installed")
    return ContentHub(tmp_path, {"HTTP_ALLOW_PRIVATE": "true"})


@pytest.fixture
def server(contenthub: ContentHub) -> Iterator[httpx.Client]:
    """A server whose API wants a token."""
    operator = contenthub("token", "create", "ops", "--role", "operator", "--json").json["token"]
    port = free_port()
    with (
        contenthub.started("serve", "--port", str(port)),
        httpx.Client(
            base_url=f"http://127.0.0.1:{port}", headers={"Authorization": f"Bearer {operator}"}
        ) as client,
    ):
        until(lambda: answers(f"http://127.0.0.1:{port}/health/live"))
        yield client


@pytest.fixture
def prometheus(contenthub: ContentHub, server: httpx.Client, tmp_path: Path) -> Iterator[Prometheus]:
    folder = tmp_path / "prometheus"
    folder.mkdir()
    token = contenthub("token", "create", "prometheus", "--role", "viewer", "--json").json["token"]
    (folder / "prometheus.yml").write_text(CONFIG.format(token=token, port=server.base_url.port))
    rules = (SHIPPED / "alerts.yml").read_text()
    for slow, fast in FAST.items():
        rules = rules.replace(slow, fast)
    (folder / "alerts.yml").write_text(rules)
    port = free_port()
    command = [
        "prometheus",
        f"--config.file={folder / 'prometheus.yml'}",
        f"--storage.tsdb.path={folder / 'data'}",
        f"--web.listen-address=127.0.0.1:{port}",
    ]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(command, cwd=folder, stdout=log, stderr=subprocess.STDOUT)
        found = Prometheus(port)
        try:
            until(lambda: found.is_ready or process.poll() is not None)
            assert process.poll() is None, (folder / "log").read_text()
            yield found
        finally:
            process.kill()
            process.wait()


def run(server: httpx.Client, url: str) -> None:
    made = server.post("/api/v1/scheduler/executions", json={"task_type": "http_request", "params": {"url": url}})
    assert made.status_code == 202, made.text


def fire_every_second(server: httpx.Client, url: str) -> None:
    task = {"name": "each", "task_type": "http_request", "params": {"url": url}, "schedule": "* * * * * *"}
    made = server.post("/api/v1/scheduler/tasks", json=task)
    assert made.status_code == 201, made.text


def test_prometheus_has_every_series_and_an_alert_fires_for_an_executor_that_fails(
    server: httpx.Client, prometheus: Prometheus, tmp_path: Path
) -> None:
    with sqlite3.connect(tmp_path / "contenthub.db") as database:  # no executor that we ship has a breaker
        database.execute("INSERT INTO circuits (task_type) VALUES ('http_request')")
    with LocalWeb().serving() as web:
        web.answer("/ok", Answer(b"fine"))
        run(server, web.url("/ok"))
        fire_every_second(server, web.url("/ok"))
        count = 'contenthub_attempts_total{task_type="http_request", state="%s"}'
        until(lambda: (prometheus.value(count % "success") or 0) > 1)
        _has_every_series(prometheus)
        _answers_every_panel(prometheus)
        until(lambda: set(prometheus.rules().values()) == {"ok"})
        assert prometheus.query("ALERTS") == []

        def is_firing() -> bool:
            for _ in range(5):  # beside one success a second
                run(server, web.url("/gone"))
            return bool(prometheus.query('ALERTS{alertname="ContentHubAttemptsFail", alertstate="firing"}'))

        until(is_firing)
        (alert,) = prometheus.query('ALERTS{alertstate="firing"}')
        assert alert["metric"]["task_type"] == "http_request"
        assert (prometheus.value(count % "failed") or 0) > 1


def _has_every_series(prometheus: Prometheus) -> None:
    for one in INSTRUMENTS:
        suffix = {Kind.COUNTER: "_total", Kind.HISTOGRAM: "_count", Kind.GAUGE: ""}[one.kind]
        name = one.prometheus_name + suffix
        series = until(lambda name=name: prometheus.query(name))
        assert set(series[0]["metric"]) == {"__name__", "instance", "job", *one.labels}
    assert len(prometheus.query("contenthub_queue_executions")) == len(ACTIVE_STATES)
    assert prometheus.value("contenthub_database_reached") == 1
    assert 0 < (prometheus.value("contenthub_lease_remaining_seconds") or 0) <= 15
    assert prometheus.value('contenthub_lane_busy{lane="thread"} + contenthub_lane_free{lane="thread"}') == 16


def _answers_every_panel(prometheus: Prometheus) -> None:
    """Every question of the dashboard is one that Prometheus understands, and has an answer to."""
    dashboard = json.loads((SHIPPED / "grafana.json").read_text())
    for panel in dashboard["panels"]:
        for target in panel["targets"]:
            expression = re.sub(r"\$__rate_interval", "1m", target["expr"])
            assert until(lambda expression=expression: prometheus.query(expression)), panel["title"]
