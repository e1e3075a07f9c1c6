"""Spans by the OpenTelemetry SDK: who is whose parent, what they say, and that executors' own spans are inside."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from loguru import logger
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import NonRecordingSpan, SpanContext, SpanKind, StatusCode, TraceFlags
from pydantic import BaseModel, SecretStr
from sqlalchemy import text

from app.models.task_execution import ExecutionState
from app.observability.logs import configure_logs
from app.observability.telemetry import observe
from app.scheduler.context import current_execution
from app.scheduler.runtime import Runtime
from app.services.scheduler_service import SchedulerService, TaskExecutionResult, TaskExecutor
from tests.support import Recorder, daily_far_off, ended, running, until


class Spans:
    """What has been exported, as a reader of a trace would look at it."""

    def __init__(self) -> None:
        self.exporter = InMemorySpanExporter()

    def named(self, name: str) -> list[ReadableSpan]:
        found = [span for span in self.exporter.get_finished_spans() if span.name == name]
        return sorted(found, key=lambda span: span.start_time or 0)

    async def one(self, name: str) -> ReadableSpan:
        """The only span of that name, once it is there."""
        await until(lambda: self.named(name))
        (span,) = self.named(name)
        return span


@pytest.fixture
def spans(monkeypatch: pytest.MonkeyPatch) -> Iterator[Spans]:
    """The application has set up a provider of its own; what that exports."""
    found, provider = Spans(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(found.exporter))
    # By the API a process can set its provider only once.
    monkeypatch.setattr(trace, "_TRACER_PROVIDER", provider)
    yield found
    provider.shutdown()


@asynccontextmanager
async def traced(
    database_url: str, *executors: TaskExecutor, **settings: Any
) -> AsyncIterator[tuple[SchedulerService, Runtime]]:
    async with running(database_url, *executors, start=False, **settings) as (service, runtime):
        observe(runtime)
        service.start()
        yield service, runtime


def of(span: ReadableSpan) -> SpanContext:
    assert span.context is not None
    return span.context


def parent(span: ReadableSpan) -> int | None:
    return span.parent.span_id if span.parent is not None else None


def said(span: ReadableSpan) -> dict[str, Any]:
    return dict(span.attributes or {})


async def test_an_attempt_continues_the_trace_of_the_request_that_enqueued_it(
    database_url: str, spans: Spans
) -> None:
    async with traced(database_url, Recorder("work")) as (service, runtime):
        with trace.get_tracer("test").start_as_current_span("request") as request:
            execution = await service.enqueue("work")
        attempt, enqueue = await spans.one("execute work"), await spans.one("enqueue work")
        node = runtime.node_id
    asked = request.get_span_context()
    assert of(enqueue).trace_id == of(attempt).trace_id == asked.trace_id
    assert (parent(enqueue), parent(attempt)) == (asked.span_id, of(enqueue).span_id)
    assert (enqueue.kind, attempt.kind) == (SpanKind.PRODUCER, SpanKind.CONSUMER)
    assert execution.trace_context is not None
    assert execution.trace_context.startswith(f"00-{asked.trace_id:032x}-{of(enqueue).span_id:016x}-")
    assert said(enqueue)["contenthub.execution.id"] == execution.id
    assert said(attempt) == {
        "messaging.system": "contenthub",
        "messaging.operation.name": "execute",
        "messaging.operation.type": "process",
        "messaging.destination.name": "work",
        "messaging.message.id": str(execution.id),
        "contenthub.execution.id": execution.id,
        "contenthub.execution.trigger": "code",
        "contenthub.execution.state": "success",
        "contenthub.attempt.number": 1,
        "contenthub.executor.type": "work",
        "contenthub.node.id": node,
    }
    assert attempt.status.status_code is StatusCode.UNSET


async def test_every_retry_is_a_span_of_the_one_trace_and_tells_its_error(database_url: str, spans: Spans) -> None:
    def fail_once(*_: Any) -> TaskExecutionResult | None:
        if current_execution().attempt == 1:
            raise ValueError("坏")
        return None

    async with traced(database_url, Recorder("work", fail_once)) as (service, runtime):
        execution = await service.enqueue("work", max_attempts=2)
        assert (await ended(runtime, execution.id, 60)).state is ExecutionState.SUCCESS
        await until(lambda: len(spans.named("execute work")) == 2)
    first, second = spans.named("execute work")
    assert of(first).trace_id == of(second).trace_id == of(await spans.one("enqueue work")).trace_id
    assert [said(span)["contenthub.execution.state"] for span in (first, second)] == ["retrying", "success"]
    assert [said(span)["contenthub.attempt.number"] for span in (first, second)] == [1, 2]
    assert (first.status.status_code, first.status.description) == (StatusCode.ERROR, "ValueError: 坏")
    assert said(first)["error.type"] == "ValueError"
    (event,) = first.events
    assert event.name == "exception"
    told = dict(event.attributes or {})
    assert (told["exception.type"], told["exception.message"]) == ("ValueError", "坏")
    assert "fail_once" in str(told["exception.stacktrace"])


async def test_no_secret_leaves_with_an_error(sqlite_url: str, spans: Spans) -> None:
    class Login(BaseModel):
        user: str
        pin: SecretStr

    def quote(_id: int, params: dict[str, Any], _db: Any) -> None:
        raise PermissionError(f"{params['user']} may not enter with {params['pin']} and {params['auth']['token']}")

    executor = Recorder("login", quote, params_model=Login)
    async with traced(sqlite_url, executor) as (service, _):
        await service.enqueue("login", {"user": "ada", "pin": "7-3-9-1", "auth": {"token": "t0p"}})
        attempt = await spans.one("execute login")
    assert attempt.status.description == "PermissionError: ada may not enter with ****** and ******"
    assert "7-3-9-1" not in attempt.to_json()
    assert "t0p" not in attempt.to_json()


async def test_no_secret_leaves_with_the_error_of_a_step(sqlite_url: str, spans: Spans) -> None:
    def log_in(token: str) -> None:
        raise PermissionError(f"401 for {token}")

    async def work(_id: int, params: dict[str, Any], _db: Any) -> None:
        await current_execution().step("log in", log_in, params["api_token"])

    async with traced(sqlite_url, Recorder("work", work)) as (service, _):
        await service.enqueue("work", {"api_token": "SUPERSECRET99"})
        await spans.one("execute work")
        step = await spans.one("step log in")
    assert step.status.description == "PermissionError: 401 for ******"
    assert [dict(event.attributes or {})["exception.message"] for event in step.events] == ["401 for ******"]
    assert "SUPERSECRET99" not in "".join(span.to_json() for span in spans.exporter.get_finished_spans())


@pytest.mark.parametrize("lane", ["thread", "loop"])
async def test_spans_of_an_executor_are_inside_its_attempt(sqlite_url: str, spans: Spans, lane: str) -> None:
    tracer = trace.get_tracer("a.team")

    def in_a_thread() -> None:
        with tracer.start_as_current_span("deep"):
            pass

    async def work(*_: Any) -> None:
        with tracer.start_as_current_span("draft"):
            await asyncio.to_thread(in_a_thread)

    async with traced(sqlite_url, Recorder("work", work, lane=lane)) as (service, _):
        with trace.get_tracer("test").start_as_current_span("request"):
            await service.enqueue("work")
        attempt = await spans.one("execute work")
    draft, deep = await spans.one("draft"), await spans.one("deep")
    assert of(deep).trace_id == of(draft).trace_id == of(attempt).trace_id
    assert (parent(deep), parent(draft)) == (of(draft).span_id, of(attempt).span_id)


async def test_a_step_is_a_span_once_however_often_its_attempt_is_tried(sqlite_url: str, spans: Spans) -> None:
    async def work(*_: Any) -> None:
        execution = current_execution()
        await execution.step("draft", lambda: 1)
        if execution.attempt == 1:
            await execution.step("fetch", _too_slow)

    async with traced(sqlite_url, Recorder("work", work)) as (service, runtime):
        execution = await service.enqueue("work", max_attempts=2)
        assert (await ended(runtime, execution.id, 60)).state is ExecutionState.SUCCESS
        await until(lambda: len(spans.named("execute work")) == 2)
        draft, fetch = await spans.one("step draft"), await spans.one("step fetch")
    first, second = spans.named("execute work")
    assert of(first).trace_id == of(second).trace_id
    assert parent(draft) == parent(fetch) == of(first).span_id
    assert draft.status.status_code is StatusCode.UNSET
    assert (fetch.status.status_code, fetch.status.description) == (StatusCode.ERROR, "TimeoutError: too slow")


def _too_slow() -> None:
    raise TimeoutError("too slow")


async def test_a_child_and_what_follows_a_durable_wait_are_in_the_same_trace(
    database_url: str, spans: Spans
) -> None:
    async def work(*_: Any) -> None:
        await current_execution().call("part", "child", {})

    async with traced(database_url, Recorder("work", work), Recorder("child")) as (service, runtime):
        execution = await service.enqueue("work")
        assert (await ended(runtime, execution.id, 60)).state is ExecutionState.SUCCESS
        await until(lambda: said(spans.named("execute work")[-1])["contenthub.execution.state"] == "success")
    attempts, child = spans.named("execute work"), await spans.one("execute child")
    spawned = await spans.one("enqueue child")
    assert {of(span).trace_id for span in (*attempts, child, spawned)} == {of(attempts[0]).trace_id}
    assert (parent(spawned), parent(child)) == (of(attempts[0]).span_id, of(spawned).span_id)
    assert {span.status.status_code for span in attempts} == {StatusCode.UNSET}
    assert said(attempts[0])["contenthub.execution.state"] in ("suspended", "success")


async def test_a_batch_of_fires_is_one_trace_and_no_fire_is_none(database_url: str, spans: Spans) -> None:
    async with traced(database_url, Recorder("work")) as (_, runtime):
        await asyncio.sleep(1.2)  # at least one turn of the clock with nothing due
        assert spans.exporter.get_finished_spans() == ()
        schedule = daily_far_off()
        for name in ("one", "two"):
            runtime.tasks.create(runtime.definition({"name": name, "task_type": "work", "schedule": schedule}))
        due = datetime.now(UTC) - timedelta(seconds=1)
        await runtime.journal.step(
            lambda connection: connection.execute(
                text("UPDATE scheduled_tasks SET next_run_at = :due"), {"due": _stored(due, database_url)}
            )
        )
        await until(lambda: len(spans.named("execute work")) == 2)
        fire = await spans.one("fire")
    attempts = spans.named("execute work")
    assert {of(span).trace_id for span in attempts} == {of(fire).trace_id}
    assert {parent(span) for span in attempts} == {of(fire).span_id}
    assert fire.parent is None
    assert fire.kind is SpanKind.PRODUCER
    assert said(fire)["messaging.batch.message_count"] == 2
    assert {said(span)["contenthub.task.name"] for span in attempts} == {"one", "two"}
    assert {said(span)["contenthub.execution.trigger"] for span in attempts} == {"schedule"}


def _stored(moment: datetime, database_url: str) -> Any:
    return moment.strftime("%Y-%m-%d %H:%M:%S.%f") if database_url.startswith("sqlite") else moment


async def test_a_manual_run_continues_the_trace_of_who_asked(sqlite_url: str, spans: Spans) -> None:
    async with traced(sqlite_url, Recorder("work")) as (service, runtime):
        task = runtime.tasks.create(runtime.definition({"name": "t", "task_type": "work"}))
        with trace.get_tracer("test").start_as_current_span("request") as request:
            await service.run_now(task.id)
        attempt = await spans.one("execute work")
    assert of(attempt).trace_id == request.get_span_context().trace_id
    assert said(attempt)["contenthub.task.id"] == task.id


@pytest.mark.parametrize("carried", [None, "", "00-junk", "00-" + "0" * 32 + "-" + "0" * 16 + "-01"])
async def test_what_carries_no_readable_trace_begins_one(
    database_url: str, spans: Spans, carried: str | None
) -> None:
    async with traced(database_url, Recorder("work")) as (_, runtime):
        await runtime.journal.step(
            lambda connection: connection.execute(
                text("INSERT INTO task_executions (task_type, trace_context) VALUES ('work', :carried)"),
                {"carried": carried},
            )
        )
        attempt = await spans.one("execute work")
    assert attempt.parent is None


async def test_what_was_not_sampled_where_it_began_is_not_sampled_later(sqlite_url: str, spans: Spans) -> None:
    unsampled = NonRecordingSpan(SpanContext(0xA, 0xB, is_remote=True, trace_flags=TraceFlags(0)))
    async with traced(sqlite_url, Recorder("work")) as (service, _):
        with trace.use_span(unsampled):
            execution = await service.enqueue("work")
        await service.wait(execution.id, 10)
    assert (execution.trace_context or "").endswith("-00")
    assert spans.exporter.get_finished_spans() == ()


async def test_an_execution_in_a_transaction_of_the_caller_carries_the_trace_too(
    database_url: str, spans: Spans
) -> None:
    async with traced(database_url, Recorder("work")) as (service, runtime):
        with runtime.sessions() as session:
            with trace.get_tracer("test").start_as_current_span("request") as request:
                await service.enqueue("work", db=session)
            session.commit()
        attempt = await spans.one("execute work")
    assert of(attempt).trace_id == request.get_span_context().trace_id


async def test_a_cancelled_attempt_is_no_error(sqlite_url: str, spans: Spans) -> None:
    async with traced(sqlite_url, Recorder("work", lambda *_: asyncio.sleep(60))) as (service, runtime):
        execution = await service.enqueue("work")
        await until(lambda: runtime.history.get(execution.id).state is ExecutionState.RUNNING)
        await service.cancel(execution.id)
        attempt = await spans.one("execute work")
    assert said(attempt)["contenthub.execution.state"] == "cancelled"
    assert attempt.status.status_code is StatusCode.UNSET
    assert attempt.events == ()


async def test_an_attempt_that_is_given_up_has_ended_in_its_trace_too(sqlite_url: str, spans: Spans) -> None:
    let_go = threading.Event()
    async with traced(sqlite_url, Recorder("work", lambda *_: let_go.wait(60) and None)) as (service, _):
        await service.enqueue("work", timeout_seconds=0.1)
        attempt = await spans.one("execute work")
        let_go.set()
        await asyncio.sleep(0.2)
    assert said(attempt)["contenthub.execution.reason"] == "timeout"
    assert attempt.status.status_code is StatusCode.ERROR
    assert len(spans.named("execute work")) == 1


async def test_a_refused_execution_is_parked_and_says_why(sqlite_url: str, spans: Spans) -> None:
    async with traced(sqlite_url) as (_, runtime):
        await runtime.journal.step(
            lambda connection: connection.execute(text("INSERT INTO task_executions (task_type) VALUES ('gone')"))
        )
        attempt = await spans.one("execute gone")
    assert said(attempt)["contenthub.execution.state"] == "parked"
    assert said(attempt)["contenthub.execution.reason"] == "unknown_executor"
    assert said(attempt)["error.type"] == "ExecutorNotFound"


async def test_log_records_name_trace_and_span(
    sqlite_url: str, spans: Spans, capsys: pytest.CaptureFixture[str]
) -> None:
    def speak(*_: Any) -> None:
        logger.info("来自执行器")

    try:
        async with running(sqlite_url, Recorder("work", speak), start=False) as (service, runtime):
            configure_logs("INFO", "json", observe(runtime).tracer.ids)
            service.start()
            execution = await service.enqueue("work")
            await service.wait(execution.id, 10)
            attempt = await spans.one("execute work")
            logger.info("无人的追踪")
    finally:
        logger.configure(patcher=lambda _: None)
    lines = {line["message"]: line for line in _json_lines(capsys.readouterr().err)}
    spoken = lines["来自执行器"]
    assert (spoken["trace_id"], spoken["span_id"]) == (
        f"{of(attempt).trace_id:032x}",
        f"{of(attempt).span_id:016x}",
    )
    assert (spoken["execution_id"], spoken["attempt"]) == (execution.id, 1)
    assert "trace_id" not in lines["无人的追踪"]


def _json_lines(text: str) -> Iterator[dict[str, Any]]:
    return (json.loads(line) for line in text.splitlines() if line.startswith("{"))


async def test_an_execution_that_cannot_be_stored_is_an_error_of_its_request(
    sqlite_url: str, spans: Spans
) -> None:
    async with traced(sqlite_url, Recorder("work")) as (service, runtime):
        await runtime.journal.step(
            lambda connection: connection.execute(
                text(
                    "CREATE TRIGGER full BEFORE INSERT ON task_executions"
                    " BEGIN SELECT RAISE(ABORT, 'database or disk is full'); END"
                )
            )
        )
        with pytest.raises(Exception, match="full"):
            await service.enqueue("work")
    enqueue = await spans.one("enqueue work")
    assert enqueue.status.status_code is StatusCode.ERROR
