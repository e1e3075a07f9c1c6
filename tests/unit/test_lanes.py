"""The lanes by themselves: which threads run what, what one attempt may leave to the next; none is lost."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Coroutine, Iterator
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

import pytest

from app.scheduler.lanes import LoopLane, ThreadLane

WAIT_SECONDS = 10.0


@dataclass(frozen=True)
class Item:
    execution_id: int
    priority: int = 0


Run = Callable[[Item], Coroutine[Any, Any, None]]


@pytest.fixture
def lanes() -> Iterator[Callable[[int, Run], ThreadLane[Item]]]:
    made: list[ThreadLane[Item]] = []

    def make(size: int, run: Run) -> ThreadLane[Item]:
        made.append(ThreadLane(size, run, time.monotonic))
        return made[-1]

    yield make
    for lane in made:
        lane.stop()


def until(condition: Callable[[], Any]) -> None:
    end = time.monotonic() + WAIT_SECONDS
    while not condition():
        assert time.monotonic() < end, "it did not come about"
        time.sleep(0.002)


def test_attempts_that_block_run_beside_each_other(lanes: Any) -> None:
    together = threading.Barrier(8)
    met: list[int] = []

    async def block(item: Item) -> None:
        together.wait(WAIT_SECONDS)
        met.append(item.execution_id)

    lanes(8, block).put([Item(number) for number in range(8)])
    until(lambda: len(met) == 8)


def test_threads_that_sleep_come_to_as_many_as_are_put_one_by_one(lanes: Any) -> None:
    together = threading.Barrier(8)
    met: list[int] = []

    async def block(item: Item) -> None:
        together.wait(WAIT_SECONDS)
        met.append(item.execution_id)

    lane = lanes(8, block)
    for put in (8, 16, 24):
        for number in range(put - 8, put):
            lane.put([Item(number)])
        until(lambda put=put: len(met) == put)
        until(lambda: lane.busy == 0)


def test_one_that_comes_while_another_blocks_does_not_wait_for_it(lanes: Any) -> None:
    release, ran = threading.Event(), threading.Event()

    async def run(item: Item) -> None:
        if item.execution_id == 1:
            release.wait(WAIT_SECONDS)
        else:
            ran.set()

    lane = lanes(2, run)
    lane.put([Item(1)])
    until(lambda: lane.busy == 1 and not lane.waiting)
    lane.put([Item(2)])
    assert ran.wait(WAIT_SECONDS)
    release.set()


def test_no_more_threads_than_its_size_and_nothing_is_left_over(lanes: Any) -> None:
    running: set[int] = set()
    most, done = 0, 0
    lock = threading.Lock()

    async def run(_: Item) -> None:
        nonlocal most, done
        with lock:
            running.add(threading.get_ident())
            most = max(most, len(running))
        time.sleep(0.002)
        with lock:
            running.discard(threading.get_ident())
            done += 1

    lane = lanes(3, run)
    for number in range(0, 60, 20):
        lane.put([Item(one) for one in range(number, number + 20)])
    until(lambda: done == 60)
    assert most == 3
    until(lambda: (lane.busy, lane.waiting, lane.free) == (0, 0, 3))


def test_every_item_runs_once_however_they_come(lanes: Any) -> None:
    ran: list[int] = []

    async def run(item: Item) -> None:
        if item.execution_id % 3 == 0:
            await asyncio.sleep(0)
        ran.append(item.execution_id)

    lane = lanes(4, run)
    senders = [
        threading.Thread(target=lambda first=first: [lane.put([Item(first + one)]) for one in range(500)])
        for first in range(0, 2000, 500)
    ]
    for sender in senders:
        sender.start()
    until(lambda: len(ran) >= 2000)
    assert sorted(ran) == list(range(2000))


def test_each_attempt_has_a_task_and_a_context_of_its_own(lanes: Any) -> None:
    left_behind: ContextVar[str | None] = ContextVar("left_behind", default=None)
    found: list[tuple[str | None, Any]] = []

    async def run(item: Item) -> None:
        found.append((left_behind.get(), asyncio.current_task()))
        left_behind.set(f"by {item.execution_id}")
        if item.execution_id % 2:
            await asyncio.sleep(0)
            assert asyncio.current_task() is found[-1][1]

    lanes(1, run).put([Item(number) for number in range(6)])
    until(lambda: len(found) == 6)
    assert [value for value, _ in found] == [None] * 6
    assert len({id(task) for _, task in found}) == 6


def test_a_cancellation_that_comes_late_does_not_reach_the_next_attempt(lanes: Any) -> None:
    tasks: list[Any] = []
    ended: list[int] = []

    async def run(item: Item) -> None:
        tasks.append(asyncio.current_task())
        if item.execution_id == 1:
            asyncio.get_running_loop().call_later(0.01, tasks[0].cancel)
            return
        await asyncio.sleep(0.1)
        ended.append(item.execution_id)

    lanes(1, run).put([Item(1), Item(2)])
    until(lambda: ended == [2])


def test_a_callback_that_an_attempt_leaves_runs_before_the_lane_sleeps(lanes: Any) -> None:
    called = threading.Event()

    async def run(_: Item) -> None:
        asyncio.get_running_loop().call_soon(called.set)

    lanes(1, run).put([Item(1)])
    assert called.wait(WAIT_SECONDS)


@pytest.mark.parametrize("error", [RuntimeError("broken"), asyncio.CancelledError()])
def test_the_lane_outlives_an_attempt_that_raises(lanes: Any, error: BaseException) -> None:
    ran: list[int] = []

    async def run(item: Item) -> None:
        ran.append(item.execution_id)
        if item.execution_id == 2:
            await asyncio.sleep(0)
        if item.execution_id < 3:
            raise error

    lanes(1, run).put([Item(1), Item(2), Item(3)])
    until(lambda: ran == [1, 2, 3])


def test_an_attempt_that_is_cancelled_before_its_first_step_is_begun_again() -> None:
    """As the end of `asyncio.run()` does: nobody has begun it, so nobody would record how it ended."""
    begun: list[int] = []

    async def note(item: Item) -> None:
        begun.append(item.execution_id)

    async def main() -> None:
        lane = LoopLane(1, note, time.monotonic, asyncio.get_running_loop())
        lane.put([Item(1), Item(2)])
        await asyncio.sleep(0)
        assert (lane.busy, lane.waiting, begun) == (1, 1, [])
        for task in asyncio.all_tasks() - {asyncio.current_task()}:
            task.cancel()
        while lane.busy or lane.waiting:
            await asyncio.sleep(0)
        assert sorted(begun) == [1, 2]

    asyncio.run(main())
