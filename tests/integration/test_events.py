"""`/events` on real servers: what any process does is told by all, at the price of one look a second each."""

from __future__ import annotations

import asyncio
import json
import signal
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from queue import Empty, Queue
from typing import Any

import httpx
import pytest
from sqlalchemy import event, update

from app.api.live import LiveFeed
from app.core.config import Settings
from app.models.task_execution import Execution, ExecutionState
from app.scheduler.changes import ChangeWatch
from app.scheduler.context import current_execution
from app.scheduler.executions import executions
from app.scheduler.runtime import build_service, runtime_of
from tests.integration.command_line import ContentHub, until
from tests.support import Recorder, free_port, running
from tests.support import until as once

PARAMS = {"account_id": 1, "topic": "AI"}


class Listener:
    """An open stream; `events` are those that came, as (name, data)."""

    def __init__(self, url: str, **headers: str) -> None:
        self._url = url
        self._headers = headers
        self.events: Queue[tuple[str, Any]] = Queue()
        self.is_over = threading.Event()
        self._told: set[tuple[int, str]] = set()
        self._thread = threading.Thread(target=self._listen, daemon=True)
        self._thread.start()

    def _listen(self) -> None:
        timeout = httpx.Timeout(30, read=60)
        with (
            suppress(httpx.HTTPError),
            httpx.stream("GET", self._url, timeout=timeout, headers=self._headers) as answer,
        ):
            assert answer.headers["content-type"].startswith("text/event-stream")
            name = ""
            for line in answer.iter_lines():
                if line.startswith("event: "):
                    name = line.removeprefix("event: ")
                elif line.startswith("data: "):
                    self.events.put((name, json.loads(line.removeprefix("data: "))))
        self.is_over.set()

    def await_state(self, execution: int, state: str) -> None:
        """Wait until an event has told that the execution is in that state."""
        while (execution, state) not in self._told:
            try:
                name, data = self.events.get(timeout=20)
            except Empty:
                pytest.fail(f"nothing told that execution {execution} was {state}")
            if name == "changes":
                self._told.update((one["id"], one["state"]) for one in data["executions"])

    def await_hello(self) -> None:
        name, _ = self.events.get(timeout=20)
        assert name == "hello"


@contextmanager
def servers(folder: Path, count: int, **settings: str) -> Iterator[tuple[ContentHub, list[tuple[Any, str]]]]:
    """Servers on one database: each process, and the address of its API."""
    contenthub = ContentHub(
        folder, {"LOG_LEVEL": "WARNING", "PUBLISH_DIRECTORY": str(folder / "site"), **settings}
    )
    contenthub("db", "upgrade")
    with ExitStack() as stack:
        found = []
        for _ in range(count):
            port = free_port()
            process = stack.enter_context(contenthub.started("serve", "--port", str(port)))
            for stream in (process.stdout, process.stderr):
                threading.Thread(target=stream.read, daemon=True).start()  # type: ignore[union-attr]
            found.append((process, f"http://127.0.0.1:{port}/api/v1/scheduler"))
        for _, url in found:
            until(lambda url=url: _answers(url))  # type: ignore[misc]
        yield contenthub, found


def _answers(url: str) -> bool:
    with suppress(httpx.HTTPError):
        return httpx.get(f"{url}/status").is_success
    return False


def enqueue(url: str) -> int:
    answer = httpx.post(f"{url}/executions", json={"task_type": "content_generation", "params": PARAMS})
    return int(answer.raise_for_status().json()["id"])


def test_what_any_process_does_is_told_by_all(tmp_path: Path) -> None:
    with servers(tmp_path, 2) as (contenthub, found):
        (_, here), (_, there) = found
        listeners = [Listener(f"{url}/events") for url in (here, there)]
        for listener in listeners:
            listener.await_hello()
        for execution in (enqueue(here), enqueue(there)):
            for listener in listeners:
                listener.await_state(execution, "success")
        definition = ("--type", "content_generation", "--params", json.dumps(PARAMS))
        contenthub("task", "create", "--name", "by command", *definition)
        ran = contenthub("task", "run", "by command", "--json").json
        for listener in listeners:
            listener.await_state(ran["id"], "success")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_server_that_is_told_to_stop_ends_its_streams_and_goes(tmp_path: Path, number: signal.Signals) -> None:
    with servers(tmp_path, 1, SCHEDULER_GRACE_SECONDS="1") as (_, [(process, url)]):
        listeners = [Listener(f"{url}/events") for _ in range(3)]
        for listener in listeners:
            listener.await_hello()
        process.send_signal(number)
        process.wait(30)
        for listener in listeners:
            assert listener.is_over.wait(10)


def test_a_stranger_may_not_listen_and_a_viewer_may(tmp_path: Path) -> None:
    with servers(tmp_path, 1) as (contenthub, [(_, url)]):
        token = contenthub("token", "create", "watcher", "--role", "viewer", "--json").json["token"]
        assert httpx.get(f"{url}/events").status_code == 401
        assert httpx.get(f"{url}/events", headers={"Authorization": "Bearer wrong"}).status_code == 401
        listener = Listener(f"{url}/events", Authorization=f"Bearer {token}")
        listener.await_hello()


def test_who_has_no_right_any_more_hears_nothing_more(tmp_path: Path) -> None:
    with servers(tmp_path, 1) as (contenthub, [(_, url)]):
        anonymous = Listener(f"{url}/events")
        anonymous.await_hello()
        token = contenthub("token", "create", "watcher", "--role", "viewer", "--json").json["token"]
        assert anonymous.is_over.wait(20), "the first token ends what was open to this machine"
        listener = Listener(f"{url}/events", Authorization=f"Bearer {token}")
        listener.await_hello()
        contenthub("token", "revoke", "watcher")
        assert listener.is_over.wait(20)


async def test_one_look_serves_everybody(database_url: str) -> None:
    """Twenty listeners cost the database no more than one."""
    service = build_service(Settings(database_url=database_url))
    service.register_executor(Recorder("work"))
    runtime = runtime_of(service)
    asked: list[str] = []
    event.listen(runtime.engine, "before_cursor_execute", lambda *given: asked.append(given[2]))
    feed = LiveFeed(runtime.sessions)
    streams = [feed.listen() for _ in range(20)]
    first = [await anext(stream) for stream in streams[:1]]
    assert first[0].nodes is not None
    asked.clear()
    waiting = [asyncio.ensure_future(anext(stream)) for stream in streams]
    await service.enqueue("work")
    told = await asyncio.wait_for(asyncio.gather(*waiting), 20)
    assert {one.executions[0].state.value for one in told} == {"pending"}
    assert len([one for one in asked if "max(task_changes.id)" in one]) <= 4
    feed.close()
    for stream in streams:
        assert [one async for one in stream] == []
    await asyncio.to_thread(runtime.close)


async def test_a_look_tells_each_change_once_and_many_as_partial(database_url: str) -> None:
    service = build_service(Settings(database_url=database_url))
    service.register_executor(Recorder("work"))
    runtime = runtime_of(service)
    watch = ChangeWatch(runtime.sessions)
    watch.look()
    assert not watch.look()
    execution = await service.enqueue("work")
    assert [one.id for one in watch.look().executions] == [execution.id]
    assert not watch.look()
    await service.cancel(execution.id)
    (over,) = watch.look().executions
    assert over.state.value == "cancelled"
    assert not watch.look()
    for _ in range(205):
        await service.enqueue("work")
    found = watch.look()
    assert found.is_partial
    assert len(found.executions) == 200
    task = runtime.tasks.create(runtime.definition({"name": "a task", "task_type": "work"}))
    assert watch.look().tasks
    runtime.tasks.pause(task.id)
    assert watch.look().tasks
    runtime.close()


async def test_what_runs_is_told_also_with_many_waiting_behind_it(database_url: str) -> None:
    service = build_service(Settings(database_url=database_url))
    service.register_executor(Recorder("work"))
    runtime = runtime_of(service)
    first = await service.enqueue("work")
    await service.enqueue_many([{"task_type": "work"}] * 300)
    watch = ChangeWatch(runtime.sessions)
    watch.look()
    for progress in (None, 0.5):
        with runtime.engine.begin() as connection:
            changes = {"state": "running", "attempt": 1, "progress": progress}
            connection.execute(update(executions).where(executions.c.id == first.id).values(changes))
        assert [(one.id, one.progress) for one in watch.look().executions] == [(first.id, progress)]
    runtime.close()


async def test_what_ran_and_was_suspended_again_between_two_looks_is_told(database_url: str) -> None:
    async def naps(*_: Any) -> None:
        for number in range(100):
            await current_execution().wait_for_signal(f"go {number}")

    async with running(database_url, Recorder("naps", naps)) as (service, runtime):
        watch = ChangeWatch(runtime.sessions)
        watch.look()
        execution = await service.enqueue("naps")
        other = await service.enqueue("naps")

        async def suspended(awaited: Execution, attempt: int) -> None:
            def is_so() -> bool:
                found = runtime.history.get(awaited.id)
                return (found.state, found.attempt) == (ExecutionState.SUSPENDED, attempt)

            await once(is_so)

        await suspended(execution, 1)
        await suspended(other, 1)
        watch.look()
        assert not watch.look()
        for number in range(3):
            await service.signal(execution.id, f"go {number}")
            await suspended(execution, number + 2)
            told = watch.look().executions
            assert [(one.id, one.attempt) for one in told] == [(execution.id, number + 2)]
            assert not watch.look()
        assert runtime.history.get(other.id).attempt == 1
