"""The typed client against real servers: what it does, what it raises, and that both forms are one."""

from __future__ import annotations

import asyncio
import json
import math
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from pydantic import SecretStr

from app.api.schemas import ChangesAnswer, ExecutionAnswer
from app.client import (
    ApiError,
    AsyncSchedulerClient,
    AtSchedule,
    Conflict,
    CronSchedule,
    ExecutionState,
    Forbidden,
    Invalid,
    NotFound,
    PreconditionFailed,
    RetryPolicy,
    SchedulerClient,
    TooLarge,
    Unauthorized,
    Unavailable,
    UnexpectedAnswer,
    Unreachable,
)
from app.client.following import MISSED, EventReader
from tests.integration.command_line import ContentHub, until
from tests.integration.local_web import Answer, LocalWeb
from tests.integration.test_cli_server import answers
from tests.support import daily_far_off, free_port

PARAMS = {"account_id": 1, "topic": "人工智能"}
SLOW = json.dumps(["sleep", "600"])
"""The `command` generator, for executions that run until they are cancelled."""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a server that nobody needs a token for."""
    contenthub = ContentHub(tmp_path_factory.mktemp("server"))
    port = free_port()
    settings = {"LOG_LEVEL": "WARNING", "GENERATOR_COMMAND": SLOW}
    with contenthub.started("serve", "--port", str(port), **settings) as process:
        until(lambda: answers(f"http://127.0.0.1:{port}/health/live"))
        yield f"http://127.0.0.1:{port}"
        process.send_signal(signal.SIGTERM)
        process.wait(30)


@pytest.fixture
def client(server: str) -> Iterator[SchedulerClient]:
    with SchedulerClient(server) as client:
        yield client


def test_it_is_imported_where_the_environment_is_somebody_else_s(tmp_path: Path) -> None:
    theirs = {"DATABASE_URL": "mysql://theirs/shop", "LOG_LEVEL": "info", "PORT": "http"}
    program = [sys.executable, "-c", "from app.client import SchedulerClient; SchedulerClient('http://hub')"]
    paths = {"PYTHONPATH": str(Path(__file__).parents[2])}
    subprocess.run(program, cwd=tmp_path, env=os.environ | theirs | paths, check=True)


def test_a_task_from_creation_to_history(client: SchedulerClient) -> None:
    task = client.create_task(
        "日报 / №1",
        "content_generation",
        params=PARAMS,
        schedule=CronSchedule(expression=daily_far_off()),
        timezone="Asia/Shanghai",
        retry=RetryPolicy(max_attempts=3),
    )
    assert (task.name, task.timezone, task.params) == ("日报 / №1", "Asia/Shanghai", PARAMS)
    assert task.retry is not None
    assert task.retry.max_attempts == 3
    changed = client.update_task(task.id, timeout_seconds=5, if_match=str(task.version))
    assert (changed.timeout_seconds, changed.timezone) == (5, "Asia/Shanghai"), "what is not named stays"
    assert client.update_task(task.id, timeout_seconds=None).timeout_seconds is None
    with pytest.raises(PreconditionFailed):
        client.update_task(task.id, priority=1, if_match=str(task.version))
    done = client.wait(client.run_task(task.id).id, timeout=60)
    assert done.state is ExecutionState.SUCCESS, done.error
    assert [attempt.number for attempt in done.attempts] == [1]
    assert [run.id for run in client.list_runs([task.id])[0].runs] == [done.id]
    assert len(client.preview_task(task.id, count=3).fires) == 3
    client.delete_task(task.id)
    with pytest.raises(NotFound, match=f"task {task.id} does not exist") as missing:
        client.get_task(task.id)
    assert missing.value.code == "not_found"


def test_what_is_refused_says_which_field(client: SchedulerClient) -> None:
    with pytest.raises(Invalid) as wrong:
        client.create_task("x", "content_generation", params={}, schedule=CronSchedule(expression="0 9 * * *"))
    assert {field.field for field in wrong.value.fields} == {"params.account_id", "params.topic"}
    with pytest.raises(Invalid, match=r"schedule\.at: never fires") as past:
        client.create_task(
            "x", "content_generation", params=PARAMS, schedule=AtSchedule(at=datetime.now(UTC) - timedelta(days=1))
        )
    assert past.value.fields[0].kind == "never_fires"
    with pytest.raises(Invalid, match="limit"):
        client.list_tasks(limit=0)
    with pytest.raises(TooLarge):
        client.enqueue_execution("content_generation", params={"topic": "x" * 2_000_000})
    client.create_task("twice", "content_generation", params=PARAMS)
    with pytest.raises(Conflict, match="exists"):
        client.create_task("twice", "content_generation", params=PARAMS)


def test_every_item_of_a_list_page_after_page(client: SchedulerClient) -> None:
    later = datetime.now(UTC) + timedelta(days=1)
    made = [client.enqueue_execution("content_generation", params=PARAMS, run_at=later).id for _ in range(7)]
    waiting = client.each(client.list_executions, state=[ExecutionState.PENDING], limit=3)
    assert [execution.id for execution in waiting] == made[::-1]
    for execution in made:
        assert client.cancel_execution(execution).state is ExecutionState.CANCELLED


def test_waiting_for_what_takes_too_long(client: SchedulerClient) -> None:
    slow = client.enqueue_execution("content_generation", params={**PARAMS, "generator": "command"})
    with pytest.raises(TimeoutError, match=f"execution {slow.id} is still"):
        client.wait(slow.id, timeout=0.2)
    until(lambda: client.get_execution(slow.id).state is ExecutionState.RUNNING)
    client.cancel_execution(slow.id)
    assert client.wait(slow.id, timeout=30).state is ExecutionState.CANCELLED
    with pytest.raises(Conflict):
        client.cancel_execution(slow.id)
    with pytest.raises(NotFound):
        client.wait(10**9)


def test_a_repeated_request_is_the_same_execution(client: SchedulerClient) -> None:
    first = client.enqueue_execution("content_generation", params=PARAMS, idempotency_key="k")
    assert client.enqueue_execution("content_generation", params=PARAMS, idempotency_key="k").id == first.id
    logs = list(client.follow_logs(first.id))
    assert all(line.attempt == 1 for line in logs)
    assert client.get_execution(first.id).state is ExecutionState.SUCCESS


def test_events_tell_what_happens(client: SchedulerClient, server: str) -> None:
    seen: list[ExecutionAnswer] = []
    is_listening = threading.Event()

    def listen() -> None:
        with SchedulerClient(server) as listener, suppress(ApiError):
            for changes in listener.events():
                is_listening.set()
                seen.extend(changes.executions)
                if any(execution.idempotency_key == "last" for execution in changes.executions):
                    return

    thread = threading.Thread(target=listen, daemon=True)
    thread.start()
    until(lambda: is_listening.is_set() or _stir(client))
    client.enqueue_execution("content_generation", params=PARAMS, idempotency_key="last")
    thread.join(30)
    assert "last" in {execution.idempotency_key for execution in seen}


def _stir(client: SchedulerClient) -> None:
    """Something happens, so that a listener hears that it listens."""
    client.enqueue_execution("content_generation", params=PARAMS)


async def test_the_client_to_await_does_the_same(server: str) -> None:
    async with AsyncSchedulerClient(server) as client:
        task = await client.create_task("await", "content_generation", params=PARAMS)
        execution = await client.run_task(task.id)
        done, status = await asyncio.gather(client.wait(execution.id, timeout=60), client.get_status())
        assert (done.state, status.running) == (ExecutionState.SUCCESS, True)
        assert [line async for line in client.follow_logs(execution.id)] == (await client.get_logs(done.id)).items
        names = [found.name async for found in client.each(client.list_tasks, search="await", limit=1)]
        assert names == ["await"]
        listening = asyncio.create_task(anext(client.events()))
        while not listening.done():
            await client.enqueue_execution("content_generation", params=PARAMS)
            await asyncio.wait({listening}, timeout=0.5)
        assert listening.result().executions
        await client.delete_task(task.id)
        with pytest.raises(NotFound):
            await client.wait(10**9)
        later = datetime.now(UTC) + timedelta(days=1)
        waiting = await client.enqueue_execution("content_generation", params=PARAMS, run_at=later)
        with pytest.raises(TimeoutError):
            await client.wait(waiting.id, timeout=0.1)


def test_roles_and_tokens(tmp_path: Path) -> None:
    contenthub = ContentHub(tmp_path, {"LOG_LEVEL": "WARNING"})
    admin = contenthub("token", "create", "root", "--role", "admin", "--json").json["token"]
    port = free_port()
    url = f"http://127.0.0.1:{port}/"
    with contenthub.started("serve", "--port", str(port)):
        until(lambda: answers(f"{url}health/live"))
        with SchedulerClient(url, admin) as client:
            viewer = client.make_token("reader / 1", "viewer")
            with SchedulerClient(url, viewer.token) as reader:
                assert reader.get_session().role == "viewer"
                with pytest.raises(Forbidden, match="needs the role operator"):
                    reader.create_task("x", "content_generation")
                client.end_token(viewer.name)
                with pytest.raises(Unauthorized, match="revoked"):
                    reader.list_tasks()
                with pytest.raises(Unauthorized, match="revoked"):
                    next(reader.events())
        with pytest.raises(Unauthorized, match="send a token"), SchedulerClient(url) as nobody:
            nobody.list_tasks()


def test_an_address_where_nobody_answers() -> None:
    url = f"http://127.0.0.1:{free_port()}"
    with SchedulerClient(url) as client:
        with pytest.raises(Unreachable, match=rf"GET {url}.* got no answer"):
            client.list_tasks()
        with pytest.raises(Unreachable):
            next(client.events())
    for wrong in ("127.0.0.1:8000", "", "ftp://host", "http://"):
        with pytest.raises(ValueError, match=r"url: .* is no http address"):
            SchedulerClient(wrong)


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (Answer(b"<html>Bad Gateway</html>", 502), "is this the address of a ContentHub server"),
        (Answer(b"<html>Welcome</html>", 200), "same version"),
        (Answer(b'{"items": [{"id": 1}], "next_cursor": null}', 200), r"items\.0\.name"),
        (Answer(b"", 302, {"Location": "/login"}), "is this the address"),
    ],
)
def test_an_answer_that_is_none(web: LocalWeb, answer: Answer, error: str) -> None:
    web.answer("/api/v1/scheduler/tasks", answer)
    with SchedulerClient(web.url()) as client, pytest.raises(UnexpectedAnswer, match=error):
        client.list_tasks()


def test_a_server_that_cannot_serve_now_says_when(web: LocalWeb) -> None:
    problem = {"type": "urn:contenthub:problem:unavailable", "title": "", "status": 503, "detail": "later"}
    body = json.dumps({**problem, "instance": "/"}).encode()
    web.answer("/health/ready", Answer(body, 503, {"Retry-After": "5"}))
    with SchedulerClient(web.url()) as client, pytest.raises(Unavailable, match="later") as unavailable:
        client.ready()
    assert unavailable.value.retry_after == 5
    assert unavailable.value.code == "unavailable"


def test_a_503_of_what_stands_before_the_server_says_the_same(web: LocalWeb) -> None:
    web.answer("/health/ready", Answer(b"<html>busy</html>", 503, {"Retry-After": "7"}))
    with SchedulerClient(web.url()) as client, pytest.raises(Unavailable, match="try again later") as unavailable:
        client.ready()
    assert unavailable.value.retry_after == 7


def test_a_body_that_cannot_be_decoded_is_an_unexpected_answer(web: LocalWeb) -> None:
    web.answer("/health/live", Answer(b"not gzip", 200, {"Content-Encoding": "gzip"}))
    with SchedulerClient(web.url()) as client, pytest.raises(UnexpectedAnswer, match="cannot be decoded"):
        client.live()


@pytest.mark.parametrize("value", [math.nan, "\ud800", object()], ids=["nan", "surrogate", "object"])
def test_what_cannot_be_sent_is_refused_by_its_name(web: LocalWeb, value: Any) -> None:
    with SchedulerClient(web.url()) as client:
        with pytest.raises(Invalid, match="params has no JSON form"):
            client.enqueue_execution("x", params={"value": value})
        with pytest.raises(Invalid, match="the header if-match"):
            client.delete_task(1, if_match="a\nb")
        with pytest.raises(Invalid, match="no valid Unicode text"):
            client.end_token("\ud800")
    assert web.received == []


def test_a_secret_type_in_params_is_sent_with_what_it_holds(web: LocalWeb) -> None:
    with SchedulerClient(web.url()) as client, pytest.raises(UnexpectedAnswer):
        client.enqueue_execution("x", params={"password": SecretStr("hunter2")})
    assert json.loads(web.received[0].body)["params"] == {"password": "hunter2"}


@pytest.mark.parametrize("kind", [SchedulerClient, AsyncSchedulerClient])
def test_a_token_is_sent_without_its_end_of_line_and_a_wrong_one_is_not_quoted(
    web: LocalWeb, kind: type[SchedulerClient | AsyncSchedulerClient]
) -> None:
    for wrong in ("ch_SECRET\nTOKEN", "ch_\x00SECRET", "ключ_SECRET"):
        with pytest.raises(ValueError, match=r"^token: ") as refused:
            kind(web.url(), wrong)
        assert "SECRET" not in str(refused.value)
    with SchedulerClient(web.url(), "ch_SECRET\r\n") as client, pytest.raises(UnexpectedAnswer):
        client.live()
    assert web.received[0].headers["authorization"] == "Bearer ch_SECRET"


def test_a_server_that_is_too_slow_is_unreachable(web: LocalWeb) -> None:
    web.answer("/health/live", Answer(delay_seconds=30))
    with SchedulerClient(web.url(), timeout=0.2) as client, pytest.raises(Unreachable, match="no answer"):
        client.live()


def test_a_client_of_ones_own_is_used_and_left_open(server: str) -> None:
    with httpx.Client(headers={"X-Team": "news"}) as own:
        with SchedulerClient(server, http=own) as client:
            client.live()
        assert not own.is_closed


def stream(*changes: dict[str, Any]) -> str:
    lines = "".join(f"event: changes\ndata: {json.dumps(one, ensure_ascii=False)}\n\n" for one in changes)
    return f"event: hello\ndata: {{}}\nretry: 50\n\n: ping\n\n{lines}"


@pytest.mark.parametrize("size", [1, 2, 7, 10_000])
def test_events_are_read_however_their_bytes_arrive(size: int) -> None:
    wanted = ChangesAnswer(executions=[], is_partial=False, tasks=True, nodes=False)
    text = stream(wanted.model_dump(), wanted.model_dump()).replace("\n", "\r\n")
    reader = EventReader()
    found = [one for start in range(0, len(text), size) for one in reader.feed(text[start : start + size])]
    assert found == [wanted, wanted]
    assert reader.retry_seconds == 0.05


def test_a_stream_that_ends_is_taken_up_again(web: LocalWeb, client: SchedulerClient) -> None:
    """Also: a message with a line separator of Unicode is one line."""
    execution = client.wait(client.enqueue_execution("content_generation", params=PARAMS).id)
    told = json.loads(ExecutionAnswer.model_validate(execution.model_dump()).model_dump_json())
    told["message"] = "one\u2028two\u0085three"
    changes = {"executions": [told], "is_partial": False, "tasks": False, "nodes": False}
    web.answer(
        "/api/v1/scheduler/events",
        Answer(stream(changes).encode(), headers={"Content-Type": "text/event-stream; charset=utf-8"}),
    )
    with SchedulerClient(web.url()) as listener:
        events = listener.events()
        assert next(events).executions[0].message == "one\u2028two\u0085three"
        assert next(events) == MISSED
        assert next(events).executions[0].id == execution.id
