"""What real processes send to a real receiver: one trace from a request to its attempt, wherever that runs."""

from __future__ import annotations

import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest

from app.observability.instruments import ATTRIBUTES, INSTRUMENTS, Kind
from tests.integration.command_line import ContentHub, until
from tests.integration.local_web import Answer, LocalWeb
from tests.integration.otlp import Receiver, plain, receiving
from tests.integration.test_cli_server import answers
from tests.support import free_port

API = "api/v1/scheduler"
TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
TRACEPARENT = f"00-{TRACE}-{SPAN}-01"
SERVER, PRODUCER, CONSUMER = 2, 4, 5


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with receiving() as receiver:
        yield receiver


@pytest.fixture
def site() -> Iterator[LocalWeb]:
    with LocalWeb().serving() as web:
        web.answer("/ok", Answer(b"fine"))
        yield web


class Deployment:
    """Processes on one database."""

    def __init__(self, contenthub: ContentHub, stack: ExitStack) -> None:
        self._contenthub = contenthub
        self._stack = stack
        self.port = free_port()

    def serve(self, **settings: str) -> subprocess.Popen[str]:
        process = self._stack.enter_context(
            self._contenthub.started("serve", "--port", str(self.port), **settings)
        )
        until(lambda: answers(f"http://127.0.0.1:{self.port}/health/live"))
        return process

    def work(self, **settings: str) -> subprocess.Popen[str]:
        return self._stack.enter_context(self._contenthub.started("worker", **settings))

    def ask(self, url: str, **more: Any) -> int:
        """Enqueue an `http_request`, as a part of the trace; returns the execution's id."""
        made = httpx.post(
            f"http://127.0.0.1:{self.port}/{API}/executions",
            json={"task_type": "http_request", "params": {"url": url}, **more},
            headers={"traceparent": TRACEPARENT},
        )
        assert made.status_code == 202, made.text
        execution_id: int = made.json()["id"]
        return execution_id

    def shown(self, execution_id: int) -> dict[str, Any]:
        shown: dict[str, Any] = httpx.get(f"http://127.0.0.1:{self.port}/{API}/executions/{execution_id}").json()
        return shown

    def state(self, execution_id: int) -> str:
        state: str = self.shown(execution_id)["state"]
        return state


@pytest.fixture
def deployment(tmp_path: Path, receiver: Receiver) -> Iterator[Deployment]:
    contenthub = ContentHub(tmp_path, {**receiver.settings, "HTTP_ALLOW_PRIVATE": "true"})
    with ExitStack() as stack:
        yield Deployment(contenthub, stack)


def test_one_trace_leads_from_the_request_through_the_server_to_the_attempt(
    deployment: Deployment, receiver: Receiver, site: LocalWeb
) -> None:
    deployment.serve()
    execution_id = deployment.ask(site.url("/ok"))
    request, enqueue, attempt = receiver.of_trace(
        TRACE, f"POST /{API}/executions", "enqueue http_request", "execute http_request"
    )
    assert [span.kind for span in (request, enqueue, attempt)] == [SERVER, PRODUCER, CONSUMER]
    assert [span.parent_id for span in (request, enqueue, attempt)] == [SPAN, request.span_id, enqueue.span_id]
    assert attempt.attributes["contenthub.execution.id"] == execution_id
    (called,) = site.received
    assert called.headers["traceparent"].startswith(f"00-{TRACE}-{attempt.span_id}-")
    assert attempt.attributes["contenthub.execution.state"] == "success"
    assert attempt.resource["service.name"] == "contenthub"
    assert attempt.resource["service.instance.id"]
    assert deployment.shown(execution_id)["trace_id"] == TRACE
    assert not [span.name for span in receiver.spans() if "health" in span.name]


def test_an_attempt_that_fails_is_an_error_of_its_trace(
    deployment: Deployment, receiver: Receiver, site: LocalWeb
) -> None:
    deployment.serve(OTEL_SERVICE_NAME="newsroom", OTEL_RESOURCE_ATTRIBUTES="deployment.environment.name=test")
    deployment.ask(site.url("/gone"))
    (attempt,) = receiver.of_trace(TRACE, "execute http_request")
    assert attempt.is_error
    assert attempt.events == ("exception",)
    assert attempt.attributes["error.type"] == "UnexpectedStatus"
    assert attempt.resource["service.name"] == "newsroom"
    assert attempt.resource["deployment.environment.name"] == "test"


@pytest.mark.parametrize("engine", ["embedded", "pgqueuer"])
def test_the_trace_goes_through_the_database_to_another_process(
    deployment: Deployment,
    receiver: Receiver,
    site: LocalWeb,
    engine: str,
    request: pytest.FixtureRequest,
) -> None:
    settings = {"SCHEDULER_ENGINE": engine}
    if engine == "pgqueuer":
        settings["DATABASE_URL"] = request.getfixturevalue("pgqueuer_url")
    deployment.serve(SCHEDULER_ROLE="api", **settings)
    deployment.work(**settings)
    deployment.ask(site.url("/ok"))
    enqueue, attempt = receiver.of_trace(TRACE, "enqueue http_request", "execute http_request")
    assert attempt.parent_id == enqueue.span_id
    assert attempt.resource["service.instance.id"] != enqueue.resource["service.instance.id"]


def test_every_metric_is_exported_under_its_name_and_unit(
    deployment: Deployment, receiver: Receiver, site: LocalWeb
) -> None:
    deployment.serve()
    deployment.ask(site.url("/ok"))
    wanted = {one.name for one in INSTRUMENTS} - {"contenthub.fire.late", "contenthub.circuit.open"}
    until(lambda: receiver.metrics().keys() >= wanted)
    metrics = receiver.metrics()
    for one in INSTRUMENTS:
        if one.name in wanted:
            assert metrics[one.name].unit == one.unit
            assert metrics[one.name].description == one.description
            shape = {Kind.COUNTER: "sum", Kind.HISTOGRAM: "histogram", Kind.GAUGE: "gauge"}[one.kind]
            assert metrics[one.name].WhichOneof("data") == shape
    (attempts,) = metrics["contenthub.attempts"].sum.data_points
    assert plain(attempts.attributes) == {
        ATTRIBUTES["task_type"]: "http_request",
        ATTRIBUTES["state"]: "success",
    }
    assert attempts.as_int == 1
    (duration,) = metrics["contenthub.attempt.duration"].histogram.data_points
    assert duration.count == 1


def test_what_was_not_yet_exported_is_when_the_server_stops(
    deployment: Deployment, receiver: Receiver, site: LocalWeb
) -> None:
    server = deployment.serve(OTEL_BSP_SCHEDULE_DELAY="600000")
    execution_id = deployment.ask(site.url("/ok"))
    until(lambda: deployment.state(execution_id) == "success")
    assert receiver.spans() == []
    server.send_signal(signal.SIGTERM)
    assert server.wait(30) == -signal.SIGTERM
    receiver.of_trace(TRACE, "enqueue http_request", "execute http_request")


def test_a_receiver_that_is_gone_harms_nobody(deployment: Deployment, site: LocalWeb) -> None:
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))  # bound and not listening: connections are refused
        server = deployment.serve(OTEL_EXPORTER_OTLP_ENDPOINT=f"http://127.0.0.1:{nobody.getsockname()[1]}")
        execution_id = deployment.ask(site.url("/ok"))
        until(lambda: deployment.state(execution_id) == "success")
        asked = time.monotonic()
        server.send_signal(signal.SIGTERM)
        server.wait(30)
        assert time.monotonic() - asked < 25
