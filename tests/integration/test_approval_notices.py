"""Notices of approvals: they carry a link that decides, and nothing else does."""

from __future__ import annotations

import asyncio
import json
import logging
import re
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import pytest
from sqlalchemy import inspect, text

from app.core.errors import InvalidParameters
from app.executors.approval import ApprovalExecutor
from app.executors.approval_notice import ApprovalNoticeExecutor
from app.executors.workflow import WorkflowExecutor
from app.models.task_execution import Execution, ExecutionState
from app.observability.standard_logging import hide_links
from app.scheduler.alerting.apprise_channel import ChannelRefused
from app.scheduler.runtime import Runtime
from app.services.scheduler_service import SchedulerService
from app.testing.sandbox import Sandbox
from app.workflows import approval, chain, group, start, step
from app.workflows.approvals import Approvals, Via
from app.workflows.links import ApprovalLinks, LinkExpired, LinkUsed
from tests.integration.local_web import Answer, LocalWeb, hook
from tests.integration.workflow_support import child, workflows
from tests.support import ended, until

BASE = "https://hub.example.org/ops"
OPEN = {"public_base_url": BASE, "http_allow_private": True}


def by_request(web: LocalWeb, to: str = "ann", **request: Any) -> dict[str, Any]:
    """A notice that posts the link to `web`, under two keys that do not look like secrets."""
    url = web.url("/notify")
    body = {"text": "Decide here: {approval_link}", "blocks": [{"link": "{approval_link}"}]}
    request = {"url": url, "method": "POST", "json": body} | request
    return {"type": "approval_notice", "params": {"to": to, "request": request}}


def link_in(body: bytes) -> str:
    """The token of the one link in what was received."""
    found = set(re.findall(rf"{BASE}/approvals/([\w.-]+)", body.decode().replace("\\/", "/")))
    assert len(found) == 1, body
    return found.pop()


def everything_in(runtime: Runtime) -> str:
    """All that is stored, as text."""
    with runtime.sessions() as session:
        tables = inspect(session.connection()).get_table_names()
        return "\n".join(str(row) for table in tables for row in session.execute(text(f"SELECT * FROM {table}")))


@pytest.fixture
def service_with(database_url: str) -> Any:
    def made(**settings: Any) -> Any:
        return workflows(database_url, **settings)

    return made


def taught(service: SchedulerService) -> SchedulerService:
    service.register_executor(ApprovalNoticeExecutor(service))
    return service


async def test_whoever_is_told_decides_by_the_link_under_their_name(service_with: Any, web: LocalWeb) -> None:
    web.answer("/notify", Answer())
    async with service_with(**OPEN) as (service, runtime):
        taught(service)
        execution = await service.enqueue(
            "approval", {"title": "Publish?", "approvers": ["ann", "bob"], "notify": by_request(web)}
        )
        await child(runtime, execution.id, "notify", ExecutionState.SUCCESS)
        (received,) = web.received
        token = link_in(received.body)
        await until(lambda: runtime.history.get(execution.id).state is ExecutionState.SUSPENDED)
        await ApprovalLinks(runtime).decide(token, approved=True, comment="fine")
        data = (await ended(runtime, execution.id)).result["data"]
        (told,) = runtime.history.children(execution.id)
    assert (data["approved"], data["decided_by"], data["via"]) == (True, "ann", "link")
    assert data["link_made_by"] == f"approval_notice {told.id}"


async def test_the_link_is_stored_nowhere_and_logged_nowhere(
    service_with: Any, web: LocalWeb, log_records: list[Any]
) -> None:
    # The receiver says back all it was sent, and refuses it once.
    class Echo(LocalWeb):
        def next_answer(self, received: Any) -> Answer:
            answer = super().next_answer(received)
            return Answer(received.body, answer.status)

    with Echo().serving() as echo:
        echo.answer("/notify", Answer(status=500), Answer())
        url = hook(echo, Answer(status=500), Answer())
        async with service_with(**OPEN) as (service, runtime):
            taught(service)
            runtime.alerts.create_channel({"name": "team", "url": url})
            tokens = []
            for notify in (
                by_request(echo),
                {"type": "approval_notice", "params": {"to": "ann", "channel": "team"}},
            ):
                execution = await service.enqueue("approval", {"title": "Publish?", "notify": notify})
                told = await child(runtime, execution.id, "notify", ExecutionState.SUCCESS)
                assert told.attempt == 2
                tokens += [link_in(received.body) for received in echo.received[-2:]]
            stored = await asyncio.to_thread(everything_in, runtime)
    assert "notify" in stored
    logged = "\n".join(str(record) for record in log_records)
    for token in tokens:
        for part in token.split("."):
            assert part not in stored
            assert part not in logged


async def test_an_error_that_quotes_the_message_does_not_carry_the_link_out(
    service_with: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent: list[str] = []

    def refuse(_url: str, _title: str, body: str, _kind: str) -> None:
        sent.append(body)
        raise ChannelRefused(f"it did not take: {body}")

    monkeypatch.setattr("app.executors.approval_notice.send", refuse)
    async with service_with(**OPEN) as (service, runtime):
        taught(service)
        runtime.alerts.create_channel({"name": "team", "url": "json://example.org"})
        notify = {"type": "approval_notice", "params": {"to": "ann", "channel": "team"}}
        await service.enqueue("approval", {"title": "Publish?", "notify": notify})
        await until(lambda: "it did not take" in everything_in(runtime))
        assert link_in(sent[0].encode()) not in everything_in(runtime)


async def test_a_channel_gets_the_question_and_the_link(service_with: Any, web: LocalWeb) -> None:
    async with service_with(**OPEN) as (service, runtime):
        taught(service)
        runtime.alerts.create_channel({"name": "team", "url": hook(web), "language": "en"})
        notify = {"type": "approval_notice", "params": {"to": "ann", "channel": "team"}}
        execution = await service.enqueue(
            "approval", {"title": "Publish?", "details": "500 words", "notify": notify}
        )
        told = await child(runtime, execution.id, "notify", ExecutionState.SUCCESS)
        message = json.loads(web.received[0].body)
        link, _, _ = ApprovalLinks(runtime).read(link_in(web.received[0].body))
        notify["params"]["channel"] = "nobody"
        other = await service.enqueue("approval", {"title": "Publish?", "notify": notify})
        await until(lambda: any(one.error for one in runtime.history.children(other.id)))
        (failed,) = runtime.history.children(other.id)
    assert message["title"] == "Your decision: Publish?"
    assert message["message"].startswith(f"{BASE}/approvals/")
    assert message["message"].endswith("do not pass it on.\n\n500 words")
    assert (link.by, link.execution_id, told.message) == ("ann", execution.id, "已通知 ann: team")
    assert "there is no active alert channel 'nobody'" in failed.error


async def test_a_workflow_tells_many(service_with: Any, web: LocalWeb) -> None:
    web.answer("/notify", Answer())
    async with service_with(**OPEN) as (service, runtime):
        taught(service)
        tell = [step("approval_notice", by_request(web, name)["params"], id=name) for name in ("ann", "bob")]
        notify = {"type": "workflow", "params": group(*tell).definition()}
        execution = await start(chain(approval("Go?", approvers=["ann", "bob"], notify=notify)), service=service)
        asked = await child(runtime, execution.id, "approval", ExecutionState.SUSPENDED)
        await until(lambda: len(web.received) == 2)
        links = [ApprovalLinks(runtime).read(link_in(one.body))[0] for one in web.received]
    assert {(link.execution_id, link.by) for link in links} == {(asked.id, "ann"), (asked.id, "bob")}


async def test_what_was_decided_meanwhile_is_not_told(service_with: Any, web: LocalWeb) -> None:
    web.answer("/notify", Answer(status=500))
    async with service_with(**OPEN) as (service, runtime):
        taught(service)
        execution = await service.enqueue("approval", {"title": "Go?", "notify": by_request(web)})
        await until(lambda: web.received)
        await until(lambda: runtime.history.get(execution.id).state is ExecutionState.SUSPENDED)
        await Approvals(runtime).decide(execution.id, approved=True, by="ann", via=Via.API)
        await ended(runtime, execution.id)
        told = await child(runtime, execution.id, "notify", ExecutionState.SUCCESS)
    assert told.message == f"审批 {execution.id} 已结束，未通知 ann"
    assert len(web.received) < 3


async def test_what_cannot_work_is_refused_with_its_field(service_with: Any, web: LocalWeb) -> None:
    async def refused(service: SchedulerService, notify: dict[str, Any], **params: Any) -> list[tuple[str, str]]:
        with pytest.raises(InvalidParameters) as error:
            await service.enqueue("approval", {"title": "Go?", "notify": notify, **params})
        return [(item.field, item.message) for item in error.value.errors]

    async with service_with() as (service, _):
        ((field, message),) = await refused(taught(service), by_request(web))
        assert (field, "set PUBLIC_BASE_URL" in message) == ("params.notify.params.to", True)
    async with service_with(**OPEN) as (service, runtime):
        taught(service)
        ((field, message),) = await refused(service, by_request(web, "eve"), approvers=["ann"])
        assert (field, message) == ("params.notify.params.to", "'eve' may not decide this; name one of ann")
        ((field, message),) = await refused(service, by_request(web, json={"text": "no link"}))
        assert (field, "{approval_link}" in message) == ("params.notify.params", True)
        both = by_request(web)
        both["params"]["channel"] = "team"
        ((_, message),) = await refused(service, both)
        assert "give channel or request" in message
        alone = await service.enqueue("approval_notice", by_request(web)["params"], max_attempts=1)
        assert "belongs to an approval" in str((await ended(runtime, alone.id)).error)
        assert web.received == []


def test_the_access_log_does_not_show_links() -> None:
    hide_links()
    hide_links()
    heard: list[str] = []

    class Listener(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            heard.append(record.getMessage())

    access, listener = logging.getLogger("uvicorn.access"), Listener()
    access.addHandler(listener)
    level = access.level
    access.setLevel("INFO")
    try:
        for path in ("/ops/approvals/eyJlIjoxfQ.c2lnbmF0dXJlX29mX2l0?x=1", f"/api/approvals/{2**63 - 1}/links"):
            access.info('%s - "%s %s HTTP/%s" %d', "127.0.0.1:5", "GET", path, "1.1", 200)
    finally:
        access.setLevel(level)
        access.removeHandler(listener)
    assert heard[0] == '127.0.0.1:5 - "GET /ops/approvals/******?x=1 HTTP/1.1" 200'
    assert str(2**63 - 1) in heard[1]


# ---------------------------------------------------------------- in virtual time


@pytest.fixture
def box(tmp_path: Any) -> Iterator[Sandbox]:
    with Sandbox.opened(tmp_path, **OPEN) as box:
        box.register(
            WorkflowExecutor(box.service), ApprovalExecutor(box.service), ApprovalNoticeExecutor(box.service)
        )
        yield box


def ask(box: Sandbox, web: LocalWeb, **params: Any) -> Execution:
    web.answer("/notify", Answer())
    execution: Execution = box.enqueue("approval", {"title": "Go?", "notify": by_request(web), **params})
    box.advance(seconds=1)
    return execution


def test_a_crash_and_days_of_waiting_tell_nobody_again(box: Sandbox, web: LocalWeb) -> None:
    execution = ask(
        box,
        web,
        timeout_seconds=5 * 86_400,
        escalate_after_seconds=86_400,
        escalation=by_request(web, "boss"),
    )
    box.crash()
    box.start()
    box.advance(days=2)
    assert len(web.received) == 2
    box.signal(execution, "decision", {"approved": True, "by": "ann"})
    box.advance(seconds=1)
    assert box.read(execution).state is ExecutionState.SUCCESS
    assert len(web.received) == 2
    links = ApprovalLinks(box._runtime)
    with pytest.raises(LinkUsed):
        links.read(link_in(web.received[1].body))


@pytest.mark.parametrize(("timeout_days", "lifetime_days"), [(3, 3), (None, 7), (300, 90)])
def test_the_link_lives_as_long_as_the_question(
    box: Sandbox, web: LocalWeb, timeout_days: int | None, lifetime_days: int
) -> None:
    timeout = None if timeout_days is None else timeout_days * 86_400
    ask(box, web, timeout_seconds=timeout)
    links, token = ApprovalLinks(box._runtime), link_in(web.received[0].body)
    assert urlsplit(BASE).path == "/ops"
    box.advance(days=lifetime_days, minutes=-1)
    links.read(token)
    box.advance(minutes=2)
    with pytest.raises((LinkExpired, LinkUsed)):
        links.read(token)


def test_a_retry_tells_again_with_a_link_for_what_is_asked_then(box: Sandbox, web: LocalWeb) -> None:
    execution = ask(box, web)
    box.signal(execution, "decision", {"approved": False, "by": "ann"})
    box.advance(seconds=1)
    box.retry(execution)
    box.advance(seconds=1)
    links = ApprovalLinks(box._runtime)
    first, second = (link_in(received.body) for received in web.received)
    with pytest.raises(LinkUsed):
        links.read(first)
    assert links.read(second)[0].by == "ann"
