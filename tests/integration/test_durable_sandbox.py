"""Durable executions in virtual time: months pass, the scheduler crashes, and each step is done once."""

from __future__ import annotations

import asyncio
from collections import Counter
from datetime import timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from app.core.errors import Conflict, InvalidRequest
from app.core.jsonable import LARGEST_RESULT
from app.models.content import Account
from app.models.task_execution import Execution, ExecutionState
from app.scheduler.context import current_execution
from app.services.scheduler_service import TaskExecutionResult
from app.testing.sandbox import Sandbox
from tests.support import Recorder


def success(**data: Any) -> TaskExecutionResult:
    return TaskExecutionResult.success_result("完成", data=data)


def steps_of(box: Sandbox, execution: Execution) -> list[tuple[str, str]]:
    return [(step.kind.value, step.name) for step in box.steps(execution)]


def test_an_approval_takes_its_time(scheduler_sandbox: Sandbox) -> None:
    box = scheduler_sandbox

    async def publish(*_: Any) -> TaskExecutionResult:
        me = current_execution()
        draft = await me.step("draft", lambda: {"title": "春"})
        await me.sleep(timedelta(days=1))
        decision = await me.wait_for_signal("decision", timeout=timedelta(days=30))
        return success(draft=draft, decision=decision)

    box.register(Recorder("publish", publish))
    execution = box.enqueue("publish")
    box.advance()
    assert box.read(execution).state is ExecutionState.SUSPENDED
    box.advance(days=20)
    assert steps_of(box, execution) == [("step", "draft"), ("sleep", "sleep 1"), ("signal", "decision")]
    assert box.read(execution).attempt == 2
    box.signal(execution, "decision", {"approved": True}, signalled_by="editor")
    box.advance()
    done = box.read(execution)
    assert done.result is not None
    assert done.result["data"] == {"draft": {"title": "春"}, "decision": {"approved": True}}
    assert [(attempt.status, attempt.reason) for attempt in box.attempts(execution)] == [
        ("success", "suspended"),
        ("success", "suspended"),
        ("success", None),
    ]
    with pytest.raises(Conflict):
        box.signal(execution, "decision")


def test_the_seconds_of_a_sleep_count_from_the_first_attempt_that_came_to_it(scheduler_sandbox: Sandbox) -> None:
    box = scheduler_sandbox
    box.register(Recorder("nap", lambda *_: current_execution().sleep(3600)))
    execution = box.enqueue("nap")
    box.advance(minutes=30)
    box.stop()
    box.start()
    box.advance(minutes=29)
    assert box.read(execution).state is ExecutionState.SUSPENDED
    box.advance(minutes=2)
    assert box.read(execution).state is ExecutionState.SUCCESS
    (sleep,) = box.steps(execution)
    assert sleep.due_at == sleep.started_at + timedelta(hours=1)
    assert sleep.finished_at == sleep.due_at


def test_a_suspended_execution_is_not_over_for_its_task(scheduler_sandbox: Sandbox) -> None:
    """Overlap policies skip and queue go by whether it is over, not by whether it runs."""
    box = scheduler_sandbox
    box.register(Recorder("nap", lambda *_: current_execution().sleep(90)))
    skipping = box.define_task("skipping", "nap", cron="* * * * *", overlap_policy="skip")
    queueing = box.define_task("queueing", "nap", cron="* * * * *", overlap_policy="queue")
    ending = box.define_task("ending", "nap", cron="* * * * *", overlap_policy="cancel_running")
    box.advance(minutes=4, seconds=30)
    assert [run.state.value for run in box.executions(skipping)] == ["success", "skipped", "success", "skipped"]
    runs = box.executions(queueing)
    assert [run.state.value for run in runs] == ["success", "success", "suspended", "pending"]
    assert [run.state.value for run in box.executions(ending)] == ["cancelled"] * 3 + ["suspended"]


def test_a_suspended_execution_holds_no_place_under_its_concurrency_key(scheduler_sandbox: Sandbox) -> None:
    box = scheduler_sandbox
    box.register(Recorder("nap", lambda *_: current_execution().sleep(90)))
    runs = [box.enqueue("nap", concurrency_key="one") for _ in range(3)]
    box.advance(seconds=1)
    assert {box.read(run).state for run in runs} == {ExecutionState.SUSPENDED}
    box.advance(seconds=91)
    assert {box.read(run).state for run in runs} == {ExecutionState.SUCCESS}


def test_a_step_is_tried_again_in_place_and_its_writes_are_rolled_back(scheduler_sandbox: Sandbox) -> None:
    box = scheduler_sandbox
    tries: list[float] = []

    def flaky() -> str:
        tries.append(box.clock.monotonic())
        if len(tries) < 3:
            raise ConnectionError("not yet")
        return "there"

    async def work(*_: Any) -> TaskExecutionResult:
        return success(it=await current_execution().step("it", flaky, retries=2))

    box.register(Recorder("work", work))
    execution = box.enqueue("work")
    box.advance(minutes=1)
    assert box.read(execution).state is ExecutionState.SUCCESS
    waits = [later - earlier for earlier, later in pairwise(tries)]
    assert waits == [pytest.approx(2, rel=0.11), pytest.approx(4, rel=0.11)]


@pytest.mark.parametrize(
    ("misuse", "said"),
    [
        (lambda me, _: me.step("same", lambda: 1), "in a loop put the index"),
        (lambda me, _: me.step("", lambda: 1), "1 to 200"),
        (lambda me, _: me.step("object", object), "must return JSON"),
        (lambda me, _: me.step("large", lambda: "x" * LARGEST_RESULT), "and at most 16,777,216 are stored"),
        (lambda me, _: me.step("outer", lambda: me.step("inner", lambda: 1)), "do not nest"),
        (lambda me, _: me.step("many", lambda: 1, retries=-1), "retries"),
        (lambda me, _: me.sleep(-1), "duration"),
        (lambda me, _: me.sleep("soon"), "duration"),
        (lambda me, box: me.sleep_until(box.now.replace(tzinfo=None)), "time zone"),
        (lambda me, _: me.wait_for_signal("a#b"), "no '#'"),
        (lambda me, _: me.wait_for_children(3), "can never have ended"),
        (lambda me, _: me.spawn("key", "work", idempotency_key="mine"), "idempotency_key"),
        (lambda me, _: me.spawn("key", "nobody"), "no executor is registered"),
        (lambda me, _: me.spawn("child", "child"), "in a loop put the index into the key"),
        (lambda me, _: me.call("child", "child"), "in a loop put the index into the key"),
    ],
)
def test_misuse_is_refused_with_the_field_and_the_remedy(
    scheduler_sandbox: Sandbox, misuse: Any, said: str
) -> None:
    box = scheduler_sandbox

    async def work(*_: Any) -> TaskExecutionResult:
        me = current_execution()
        await me.step("same", lambda: 1)
        await me.spawn("child", "child")
        await misuse(me, box)
        return success()

    box.register(Recorder("work", work), Recorder("child"))
    execution = box.enqueue("work")
    box.advance(seconds=1)
    failed = box.read(execution)
    assert failed.state is ExecutionState.FAILED
    assert said in (failed.error or "")


def test_writes_through_db_outside_a_step_are_refused_before_the_next_call(scheduler_sandbox: Sandbox) -> None:
    box = scheduler_sandbox

    async def work(_: int, __: Any, db: Any) -> TaskExecutionResult:
        db.add(Account(name="outside"))
        await current_execution().sleep(1)
        return success()

    box.register(Recorder("work", work))
    execution = box.enqueue("work")
    box.advance(minutes=1)
    assert "belong to no step" in (box.read(execution).error or "")
    with box.sessions() as session:
        assert session.query(Account).count() == 0


def test_what_an_attempt_left_running_stores_nothing(scheduler_sandbox: Sandbox) -> None:
    box = scheduler_sandbox
    said: list[BaseException] = []

    async def work(*_: Any) -> TaskExecutionResult:
        me = current_execution()

        async def late() -> None:
            await asyncio.sleep(10)
            try:
                await me.step("late", lambda: 1)
            except InvalidRequest as error:
                said.append(error)

        kept.append(asyncio.ensure_future(late()))
        return success()

    kept: list[Any] = []
    box.register(Recorder("work", work))
    execution = box.enqueue("work")
    box.advance(minutes=1)
    assert box.steps(execution) == []
    assert "its attempt had ended" in str(said[0])


def test_the_end_of_a_child_wakes_its_parent_however_it_comes(scheduler_sandbox: Sandbox) -> None:
    box = scheduler_sandbox

    async def child(_: int, params: Any, __: Any) -> TaskExecutionResult:
        if params["how"] == "fails":
            raise ValueError("no")
        if params["how"] == "hangs":
            await asyncio.sleep(10_000)
        if params["how"] in ("waits", "is cancelled"):
            await current_execution().wait_for_signal("end", timeout=5)
        return success()

    async def parent(_: int, params: Any, __: Any) -> TaskExecutionResult:
        result = await current_execution().call("it", "child", params, timeout_seconds=60)
        return success(success=result.success, error=result.error)

    box.register(Recorder("child", child), Recorder("parent", parent))
    runs = {
        how: box.enqueue("parent", {"how": how}) for how in ("fails", "hangs", "waits", "is cancelled", "ends")
    }
    box.advance(seconds=1)
    (cancelled,) = box.children(runs["is cancelled"])
    box.cancel(cancelled)
    box.advance(minutes=2)
    outcomes = {how: (box.read(run).result or {}).get("data", {}).get("error") for how, run in runs.items()}
    assert outcomes == {
        "fails": "ValueError: no",
        "hangs": "TimeoutError: no result within 60 seconds",
        "waits": "SignalTimeout: no signal 'end' within 5 seconds",
        "is cancelled": "Cancelled",
        "ends": None,
    }


async def left_out_a_step(me: Any, *, is_old: bool) -> None:
    await me.step("a", lambda: 1)
    if is_old:
        await me.step("b", lambda: 1)
        await me.wait_for_signal("go on")


async def left_out_a_wait(me: Any, *, is_old: bool) -> None:
    if is_old:
        await me.wait_for_signal("go on")


async def renamed_in_a_gather(me: Any, *, is_old: bool) -> None:
    await asyncio.gather(me.step("a" if is_old else "c", lambda: 1), me.step("b", lambda: 1))
    await me.wait_for_signal("go on")


@pytest.mark.parametrize(
    ("change", "said", "can_be_put_back"),
    [
        (left_out_a_step, "step 'b' is stored as call 1", True),
        (left_out_a_wait, "signal 'go on' is stored as call 0", True),
        # What it was renamed to is stored by then as well: only a new execution helps.
        (renamed_in_a_gather, "step 'a' is stored as the call of a task", False),
    ],
)
def test_a_success_that_left_out_what_is_stored_is_a_mismatch_and_a_failure_is_itself(
    scheduler_sandbox: Sandbox, change: Any, said: str, *, can_be_put_back: bool
) -> None:
    box = scheduler_sandbox
    is_old = True
    is_broken = True

    async def work(_: int, __: Any, db: Any) -> TaskExecutionResult:
        await change(current_execution(), is_old=is_old)
        db.add(Account(name="behind the last step"))
        if is_broken:
            raise ConnectionError("not now")
        return success()

    box.register(Recorder("work", work))
    execution = box.enqueue("work")
    box.advance(seconds=1)
    is_old = False
    box.signal(execution, "go on")
    box.advance(seconds=1)
    assert box.read(execution).error == "ConnectionError: not now"
    is_broken = False
    box.retry(execution)
    box.advance(seconds=1)
    failed = box.read(execution)
    assert (failed.state, failed.reason) == (ExecutionState.FAILED, "replay_mismatch")
    assert f"{said} of this execution, and now its code ended without it" in (failed.error or "")
    is_old = True
    box.retry(execution)
    box.advance(seconds=1)
    assert (box.read(execution).state is ExecutionState.SUCCESS) is can_be_put_back
    with box.sessions() as session:
        assert session.query(Account).count() == can_be_put_back


def test_a_task_that_watches_beside_the_work_need_not_be_there_in_the_end(scheduler_sandbox: Sandbox) -> None:
    """Its wait is stored; in the last attempt the sleep returns at once, and it is called off before it began."""
    box = scheduler_sandbox

    async def work(*_: Any) -> TaskExecutionResult:
        me = current_execution()
        watching = asyncio.ensure_future(me.wait_for_signal("stop"))
        await me.sleep(5)
        watching.cancel()
        return success()

    box.register(Recorder("work", work))
    execution = box.enqueue("work")
    box.advance(seconds=10)
    assert ("signal", "stop") in steps_of(box, execution)
    assert box.read(execution).state is ExecutionState.SUCCESS


def test_a_task_that_nobody_awaits_has_its_turn_before_it_is_missed(scheduler_sandbox: Sandbox) -> None:
    box = scheduler_sandbox

    async def work(*_: Any) -> TaskExecutionResult:
        me = current_execution()
        beside.append(asyncio.ensure_future(me.step("beside", lambda: 1)))
        await me.sleep(5)
        return success()

    beside: list[Any] = []
    box.register(Recorder("work", work))
    execution = box.enqueue("work")
    box.advance(seconds=10)
    assert ("step", "beside") in steps_of(box, execution)
    assert box.read(execution).state is ExecutionState.SUCCESS


@pytest.mark.parametrize("way", ["spawn", "call"])
def test_a_child_of_another_executor_than_the_stored_one_is_a_mismatch(
    scheduler_sandbox: Sandbox, way: str
) -> None:
    box = scheduler_sandbox
    wanted = "old"

    async def parent(*_: Any) -> TaskExecutionResult:
        me = current_execution()
        await getattr(me, way)("it", wanted, {"for": wanted})
        await me.wait_for_signal("go on")
        return success()

    old, new = Recorder("old"), Recorder("new")
    box.register(Recorder("parent", parent), old, new)
    execution = box.enqueue("parent")
    box.advance(seconds=1)
    wanted = "new"
    box.signal(execution, "go on")
    box.advance(seconds=1)
    failed = box.read(execution)
    assert (failed.state, failed.reason) == (ExecutionState.FAILED, "replay_mismatch")
    assert "child 'it' of this execution is stored as 'old', and now its code asked for 'new'" in (
        failed.error or ""
    )
    wanted = "old"
    box.retry(execution)
    box.advance(seconds=1)
    assert box.read(execution).state is ExecutionState.SUCCESS
    assert (len(old.calls), new.calls) == (1, [])


def test_a_retried_parent_goes_on_and_its_failed_children_with_it(scheduler_sandbox: Sandbox) -> None:
    box = scheduler_sandbox
    is_broken = True
    done: Counter[str] = Counter()

    async def child(_: int, params: Any, __: Any) -> TaskExecutionResult:
        done[params["name"]] += 1
        if params["name"] == "bad" and is_broken:
            raise ValueError("broken")
        return success()

    async def parent(*_: Any) -> TaskExecutionResult:
        me = current_execution()
        await me.step("first", lambda: done.update(["first"]))
        for name in ("good", "bad"):
            result = await me.call(name, "child", {"name": name})
            if not result.success:
                return TaskExecutionResult.failure_result("a child failed", result.error)
        return success()

    box.register(Recorder("child", child), Recorder("parent", parent))
    execution = box.enqueue("parent")
    box.advance(seconds=1)
    assert box.read(execution).state is ExecutionState.FAILED
    is_broken = False
    box.retry(execution)
    box.advance(seconds=1)
    assert box.read(execution).state is ExecutionState.SUCCESS
    assert done == {"first": 1, "good": 1, "bad": 2}


def goes_on_by_a_step(me: Any) -> Any:
    return me.step("fallback", lambda: 1)


@pytest.mark.parametrize(
    "go_on",
    [
        goes_on_by_a_step,
        lambda me: me.sleep(5),
        lambda me: me.spawn("fallback", "child", {"name": "fallback"}),
        lambda me: me.wait_for_children(),
    ],
)
def test_what_the_code_has_gone_on_from_stays_as_it_was_when_it_is_retried(
    scheduler_sandbox: Sandbox, go_on: Any
) -> None:
    box = scheduler_sandbox
    is_broken = True
    done: Counter[str] = Counter()

    async def child(_: int, params: Any, __: Any) -> TaskExecutionResult:
        done[params["name"]] += 1
        if params["name"] == "bad" and is_broken:
            return TaskExecutionResult.failure_result("broken", "ValueError: broken", data={"kept": True})
        return success()

    async def parent(*_: Any) -> TaskExecutionResult:
        me = current_execution()
        result = await me.call("it", "child", {"name": "bad"})
        await (me.step("normal", lambda: 2) if result.success else go_on(me))
        if is_broken:
            raise ConnectionError("later trouble")
        return success(error=result.error, data=result.data)

    box.register(Recorder("child", child), Recorder("parent", parent))
    execution = box.enqueue("parent")
    box.advance(seconds=10)
    assert box.read(execution).error == "ConnectionError: later trouble"
    is_broken = False
    box.retry(execution)
    box.advance(seconds=10)
    done_so = box.read(execution)
    assert done_so.state is ExecutionState.SUCCESS, done_so.error
    assert (done_so.result or {})["data"] == {"error": "ValueError: broken", "data": {"kept": True}}
    assert done["bad"] == 1


def test_what_a_child_that_is_retried_by_itself_comes_to_does_not_change_what_was_decided_by_it(
    scheduler_sandbox: Sandbox,
) -> None:
    box = scheduler_sandbox
    is_broken = True

    async def child(*_: Any) -> TaskExecutionResult:
        if is_broken:
            raise ValueError("broken")
        return success()

    async def parent(*_: Any) -> TaskExecutionResult:
        me = current_execution()
        result = await me.call("it", "child")
        await me.step("normal" if result.success else "fallback", lambda: 1)
        await me.wait_for_signal("go on")
        return success(went_well=result.success)

    box.register(Recorder("child", child), Recorder("parent", parent))
    execution = box.enqueue("parent")
    box.advance(seconds=1)
    is_broken = False
    (failed,) = box.children(execution)
    box.retry(failed)
    box.advance(seconds=1)
    assert box.read(failed).state is ExecutionState.SUCCESS
    box.signal(execution, "go on")
    box.advance(seconds=1)
    assert (box.read(execution).result or {})["data"] == {"went_well": False}


@pytest.mark.parametrize("goes_on", [False, True])
def test_gathered_calls_are_gone_on_from_when_their_executor_goes_on(
    scheduler_sandbox: Sandbox, *, goes_on: bool
) -> None:
    """Beside one that has failed the others go on calling; nobody has acted on the failure by that."""
    box = scheduler_sandbox
    is_broken = True

    async def child(_: int, params: Any, __: Any) -> TaskExecutionResult:
        await current_execution().sleep(params["seconds"])
        if params["seconds"] == 1 and is_broken:
            raise ValueError("broken")
        return success()

    async def parent(*_: Any) -> TaskExecutionResult:
        me = current_execution()

        async def one_after_the_other() -> Any:
            await me.call("second", "child", {"seconds": 2})
            return await me.call("third", "child", {"seconds": 3})

        results = await asyncio.gather(me.call("first", "child", {"seconds": 1}), one_after_the_other())
        if goes_on:
            await me.step("counted", lambda: [result.success for result in results])
        if not results[0].success:
            return TaskExecutionResult.failure_result("a child failed", results[0].error)
        return success()

    box.register(Recorder("child", child), Recorder("parent", parent))
    execution = box.enqueue("parent")
    box.advance(minutes=1)
    assert box.read(execution).error == "ValueError: broken"
    is_broken = False
    box.retry(execution)
    box.advance(minutes=1)
    first = box.children(execution)[0]
    expected = ExecutionState.FAILED if goes_on else ExecutionState.SUCCESS
    assert (box.read(execution).state, first.state) == (expected, expected)


def test_a_cancelled_wait_is_left_behind(scheduler_sandbox: Sandbox) -> None:
    """The first of two: what did not come is not waited for any longer."""
    box = scheduler_sandbox

    async def work(*_: Any) -> TaskExecutionResult:
        me = current_execution()
        word = asyncio.ensure_future(me.wait_for_signal("word"))
        time = asyncio.ensure_future(me.sleep(timedelta(days=365), name="a year"))
        await asyncio.wait({word, time}, return_when=asyncio.FIRST_COMPLETED)
        first = "word" if word.done() else "time"
        for other in (word, time):
            other.cancel()
        await me.sleep(60)
        return success(first=first)

    box.register(Recorder("work", work))
    runs = [box.enqueue("work"), box.enqueue("work")]
    box.advance(hours=1)
    box.signal(runs[0], "word", "now")
    box.advance(minutes=2)
    assert (box.read(runs[0]).result or {})["data"] == {"first": "word"}
    box.advance(days=366)
    assert (box.read(runs[1]).result or {})["data"] == {"first": "time"}


# -------------------------------------------------------------------- any program, any crash

ACTIONS = st.one_of(
    st.tuples(st.just("step"), st.integers(0, 2)),
    st.tuples(st.just("parallel"), st.integers(2, 4)),
    st.tuples(st.just("sleep"), st.integers(0, 100)),
    st.tuples(st.just("signal"), st.sampled_from(["a", "b"])),
    st.tuples(st.just("timeout"), st.integers(1, 60)),
    st.tuples(st.just("call"), st.integers(0, 20)),
    st.tuples(st.just("fan"), st.integers(1, 4)),
)
EVENTS = st.lists(
    st.one_of(
        st.tuples(st.just("advance"), st.integers(0, 120)),
        st.tuples(st.just("crash"), st.integers(0, 5)),
        st.tuples(st.just("stop"), st.integers(0, 5)),
        st.tuples(st.just("signal"), st.sampled_from(["a", "b"])),
    ),
    max_size=25,
)


class Program:
    """An executor that carries out actions; what it really did it counts in memory, which no crash takes away."""

    def __init__(self, actions: list[tuple[str, Any]]) -> None:
        self.actions = actions
        self.done: Counter[str] = Counter()
        self.returned: dict[str, set[Any]] = {}

    async def make(self, name: str) -> str:
        await asyncio.sleep(0.5)
        self.done[name] += 1
        return f"{name} {self.done[name]}"

    async def run(self, *_: Any) -> TaskExecutionResult:
        me = current_execution()
        for number, (kind, value) in enumerate(self.actions):
            name = f"{number} {kind}"
            if kind == "step":
                self.keep(name, await me.step(name, self.make, name))
            elif kind == "parallel":
                names = [f"{name} {branch}" for branch in range(value)]
                made = await asyncio.gather(*(me.step(one, self.make, one) for one in names))
                for one, result in zip(names, made, strict=True):
                    self.keep(one, result)
            elif kind == "sleep":
                await me.sleep(value)
            elif kind == "signal":
                self.keep(name, await me.wait_for_signal(value))
            elif kind == "timeout":
                try:
                    self.keep(name, await me.wait_for_signal("never", timeout=value))
                except TimeoutError:
                    self.keep(name, "timed out")
            elif kind == "call":
                result = await me.call(name, "child", {"seconds": value})
                self.keep(name, (result.data or {})["number"])
            else:
                for branch in range(value):
                    await me.spawn(f"{name} {branch}", "child", {"seconds": branch})
                await me.wait_for_children()
        return success()

    def keep(self, name: str, value: Any) -> None:
        self.returned.setdefault(name, set()).add(value)

    async def child(self, _: int, params: dict[str, Any], __: Any) -> TaskExecutionResult:
        await current_execution().sleep(params["seconds"])
        number = await current_execution().step("number", lambda: current_execution().id)
        return success(number=number)


@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(actions=st.lists(ACTIONS, min_size=1, max_size=6), events=EVENTS)
def test_whatever_it_does_and_whenever_it_crashes_each_step_has_one_result(
    tmp_path_factory: pytest.TempPathFactory, actions: list[tuple[str, Any]], events: list[tuple[str, Any]]
) -> None:
    folder: Path = tmp_path_factory.mktemp("box")
    program = Program(actions)
    sent: Counter[str] = Counter()
    with Sandbox.opened(folder, scheduler_max_rescues=1000) as box:
        box.register(Recorder("program", program.run), Recorder("child", program.child))
        execution = box.enqueue("program")

        def signal(name: str) -> None:
            if not box.read(execution).is_final:
                sent[name] += 1
                box.signal(execution, name, f"{name} {sent[name]}")

        for kind, value in events:
            if kind == "advance":
                box.advance(seconds=value / 10)
            elif kind == "signal":
                signal(value)
            else:
                box.advance(seconds=value / 10)
                box.crash() if kind == "crash" else box.stop()
                box.advance(seconds=value)
                box.start()
        for _ in range(len(actions) + 1):
            box.advance(hours=1)
            for name in "ab":
                signal(name)
        box.advance(hours=1)
        assert box.read(execution).state is ExecutionState.SUCCESS, box.read(execution)
        assert {child.state for child in box.children(execution)} <= {ExecutionState.SUCCESS}
        stored = box.steps(execution)
        results = {step.name: step.result for step in stored if step.kind.value == "step"}
    assert all(step.finished_at is not None for step in stored)
    assert len({(step.kind, step.name) for step in stored}) == len(stored)
    # Whoever saw the value of a step saw the same one, which is the one that is stored.
    assert {name: values for name, values in program.returned.items() if len(values) != 1} == {}
    assert {name: {value} for name, value in results.items()} == {
        name: values for name, values in program.returned.items() if name in results
    }
    # Signals were taken in their order.
    for name in "ab":
        taken = [
            next(iter(program.returned[f"{number} signal"]))
            for number, action in enumerate(actions)
            if action == ("signal", name)
        ]
        assert taken == [f"{name} {number + 1}" for number in range(len(taken))]


def test_an_option_that_no_request_has_is_refused_by_name(scheduler_sandbox: Sandbox) -> None:
    box = scheduler_sandbox
    said: list[InvalidRequest] = []

    async def work(*_: Any) -> TaskExecutionResult:
        for option in ({"now": 1}, {"prioritty": 1}):
            try:
                await current_execution().spawn("child", "work", **option)
            except InvalidRequest as error:
                said.append(error)
        return success()

    box.register(Recorder("work", work))
    box.enqueue("work")
    box.advance(minutes=1)
    assert [[one.field for one in error.errors] for error in said] == [["now"], ["prioritty"]]
