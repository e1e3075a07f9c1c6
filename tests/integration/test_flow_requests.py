"""Requests at a measure through the whole service: repeats, bulk, backfill, windows, circuits."""

from __future__ import annotations

import asyncio
from collections import Counter
from datetime import UTC, datetime, time, timedelta
from itertools import pairwise
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from pydantic import BaseModel
from sqlalchemy import func, select, text
from sqlalchemy.orm import Session

from app.core.errors import InvalidRequest, NotFound
from app.models.task_execution import ExecutionState, TaskExecution
from app.scheduler.attention import Kind
from app.scheduler.breaker import CircuitBreaker, Phase
from app.scheduler.events import CircuitChanged
from app.scheduler.pace import Pace
from app.scheduler.rates import RateLimit
from app.scheduler.repeats import Debounce, Once, Throttle
from app.scheduler.retention import prune
from app.scheduler.runtime import runtime_of
from app.services.scheduler_service import TaskExecutionResult
from app.testing.sandbox import Sandbox
from tests.support import Recorder, ended, fail_with, running, until


class Params(BaseModel):
    topic: str = "none"


# -------------------------------------------------------------------- repeats


async def test_a_debounced_request_runs_once_with_the_last_params(scheduler_sandbox: Sandbox) -> None:
    box = scheduler_sandbox
    box.register(Recorder("work"))
    policy = Debounce("account-1", seconds=30, max_wait_seconds=100)
    first = await box.service.enqueue("work", {"n": 1}, repeats=policy)
    await box.advance(seconds=20)
    second = await box.service.enqueue("work", {"n": 2}, repeats=policy)
    assert (second.id, second.is_repeat, first.is_repeat) == (first.id, True, False)
    await box.advance(seconds=29)
    assert [run.state for run in box.executions()] == ["pending"]
    await box.advance(seconds=2)
    (run,) = box.executions()
    assert (run.state, run.params) == ("success", {"n": 2})
    third = await box.service.enqueue("work", {"n": 3}, repeats=policy)
    assert third.id != first.id


async def test_a_debounce_waits_no_longer_than_it_may(scheduler_sandbox: Sandbox) -> None:
    box = scheduler_sandbox
    box.register(Recorder("work"))
    for n in range(10):
        await box.service.enqueue("work", {"n": n}, repeats=Debounce("k", seconds=30, max_wait_seconds=100))
        await box.advance(seconds=20)
    runs = box.executions()
    assert len(runs) == 2
    assert runs[0].started_at - runs[0].created_at == timedelta(seconds=100) or (
        runs[1].started_at - runs[1].created_at == timedelta(seconds=100)
    )


async def test_a_debounced_request_decides_under_which_key_it_runs(scheduler_sandbox: Sandbox) -> None:
    box = scheduler_sandbox
    box.register(Recorder("work"))
    for key, limit in (("a", 2), ("b", 3), (None, None)):
        asked = {"concurrency_key": key, "concurrency_limit": limit}
        request = await box.service.enqueue("work", {}, repeats=Debounce("k", seconds=30), **asked)
        assert (request.concurrency_key, request.concurrency_limit) == (key, limit)


def test_an_execution_stays_as_long_as_its_key_answers_with_it(scheduler_sandbox: Sandbox) -> None:
    box = scheduler_sandbox
    box.register(Recorder("work"))
    day = 86_400
    once, throttle = Once("bob", 90 * day), Throttle("bob", 90 * day)
    kept = [box.enqueue("work", {}, repeats=policy).id for policy in (once, throttle)]
    for policy in (Debounce("bob", 90 * day, max_wait_seconds=300 * day), Throttle("bo", day), None):
        box.enqueue("work", {}, repeats=policy)
    box.advance(days=89)
    with box.sessions() as session:
        assert prune(session.connection(), now=box.now, keep_days=30) == 2
        session.commit()
    assert [box.enqueue("work", {}, repeats=policy).id for policy in (once, throttle)] == kept
    box.advance(days=2)
    with box.sessions() as session:
        assert prune(session.connection(), now=box.now, keep_days=30) == 2
        session.commit()


async def test_a_throttle_and_once_answer_with_the_first(scheduler_sandbox: Sandbox) -> None:
    box = scheduler_sandbox
    box.register(Recorder("work"))
    box.register(Recorder("fails", fail_with(RuntimeError("no"))))
    for policy in (Throttle("k", 60), Once("k", 60)):
        first = await box.service.enqueue("work", {}, repeats=policy)
        assert (await box.service.enqueue("work", {}, repeats=policy)).id == first.id
        failed = await box.service.enqueue("fails", {}, repeats=policy)
        assert not failed.is_repeat  # the key belongs to the type
        await box.advance(seconds=1)
        again = await box.service.enqueue("fails", {}, repeats=policy)
        assert again.is_repeat is (policy.kind == "throttle")
        await box.advance(seconds=60)
        assert (await box.service.enqueue("work", {}, repeats=policy)).id != first.id


async def test_many_requests_at_once_under_one_key_record_one(database_url: str) -> None:
    async with (
        running(database_url, Recorder("work"), start=False) as (one, runtime),
        running(database_url, Recorder("work"), start=False) as (other, _),
    ):
        found = await asyncio.gather(
            *(service.enqueue("work", {}, repeats=Throttle("k", 60)) for service in (one, other) * 20)
        )
        assert len({execution.id for execution in found}) == 1
        assert sum(not execution.is_repeat for execution in found) == 1
        debounced = await asyncio.gather(
            *(service.enqueue("work", {}, repeats=Debounce("d", 60)) for service in (one, other) * 20)
        )
        assert len({execution.id for execution in debounced}) == 1
        assert runtime.history.counts()[ExecutionState.PENDING] == 2


async def test_a_key_is_part_of_the_callers_transaction(database_url: str) -> None:
    async with running(database_url, Recorder("work"), start=False) as (service, runtime):
        with runtime.sessions() as session:
            await service.enqueue("work", {}, db=session, repeats=Throttle("k", 60))
            session.rollback()
        assert runtime.history.counts()[ExecutionState.PENDING] == 0
        with runtime.sessions() as session:
            first = await service.enqueue("work", {}, db=session, repeats=Throttle("k", 60))
            session.commit()
        assert (await service.enqueue("work", {}, repeats=Throttle("k", 60))).id == first.id


async def test_what_contradicts_itself_is_refused(database_url: str) -> None:
    async with running(database_url, Recorder("work"), start=False) as (service, _):
        for wrong in (
            {"repeats": Throttle("k", 1), "idempotency_key": "k"},
            {"repeats": Debounce("k", 1), "run_at": datetime(2030, 1, 1, tzinfo=UTC)},
            {"repeats": {"kind": "once", "key": "k", "seconds": 1}},
            {"rate_limit_key": "k"},
        ):
            with pytest.raises(InvalidRequest):
                await service.enqueue("work", {}, **wrong)


# -------------------------------------------------------------------- bulk


@pytest.mark.parametrize(
    ("field", "value"), [("task_id", 2**31), ("trigger", "a\x00b"), ("triggered_by", "a\x00b")]
)
async def test_what_no_column_holds_is_refused_by_name(database_url: str, field: str, value: Any) -> None:
    async with running(database_url, Recorder("work"), start=False) as (service, _):
        with pytest.raises(InvalidRequest) as refused:
            await service.enqueue("work", **{field: value})
        assert [error.field for error in refused.value.errors] == [field]


async def test_ten_thousand_requests_are_recorded_in_one_call(database_url: str) -> None:
    async with running(database_url, Recorder("work"), start=False) as (service, runtime):
        items = [{"task_type": "work", "params": {"n": n}} for n in range(10_000)]
        recorded = await service.enqueue_many(items)
        assert [execution.params["n"] for execution in recorded] == list(range(10_000))
        with runtime.sessions() as session:
            assert session.scalar(select(func.count()).select_from(TaskExecution)) == 10_000


async def test_one_wrong_item_of_many_stores_nothing_and_is_named(database_url: str) -> None:
    async with running(database_url, Recorder("work", params_model=Params), start=False) as (service, runtime):
        items: list[dict[str, Any]] = [{"task_type": "work", "params": {"topic": "x"}} for _ in range(20)]
        items[7] = {"task_type": "work", "params": {"topic": 7}}
        items[9] = {"task_type": "nobody"}
        items[11] = {"task_type": "work", "priority": 5000}
        items[13] = {"task_type": "work", "repeats": Once("k", 1)}
        items[15] = {"task_type": "work", "now": 1}
        items[17] = "work"  # type: ignore[call-overload]
        items[18] = {"task_type": "work", 1: 2}  # type: ignore[dict-item]
        with pytest.raises(InvalidRequest) as refused:
            await service.enqueue_many(items)
        assert [error.field for error in refused.value.errors] == [
            "items.7.params.topic",
            "items.9.task_type",
            "items.11.priority",
            "items.13.repeats",
            "items.15.now",
            "items.17",
            "items.18.1",
        ]
        assert runtime.history.counts()[ExecutionState.PENDING] == 0
        for wrong in ([], [{"task_type": "work"}] * 10_001):
            with pytest.raises(InvalidRequest, match="1 to 10000 items"):
                await service.enqueue_many(wrong)


async def test_idempotency_keys_hold_within_a_bulk_and_with_what_is_there(database_url: str) -> None:
    async with running(database_url, Recorder("work"), start=False) as (service, _):
        before = await service.enqueue("work", {}, idempotency_key="a")
        keys = ["a", "b", None, "b", None]
        recorded = await service.enqueue_many([{"task_type": "work", "idempotency_key": key} for key in keys])
        assert [execution.is_repeat for execution in recorded] == [True, False, False, True, False]
        assert recorded[0].id == before.id
        assert recorded[1].id == recorded[3].id
        again = await asyncio.gather(
            *(
                service.enqueue_many([{"task_type": "work", "idempotency_key": key} for key in "abcd"])
                for _ in "xy"
            )
        )
        assert [e.id for e in again[0]] == [e.id for e in again[1]]


async def test_what_was_recorded_in_bulk_runs(database_url: str) -> None:
    work = Recorder("work")
    async with running(database_url, work) as (service, runtime):
        recorded = await service.enqueue_many([{"task_type": "work", "params": {"n": n}} for n in range(50)])
        for execution in recorded:
            assert (await ended(runtime, execution.id, 60)).state is ExecutionState.SUCCESS
    assert sorted(params["n"] for params in work.calls) == list(range(50))


# -------------------------------------------------------------------- backfill


async def test_a_backfill_makes_up_for_the_past_once_and_one_after_the_other(scheduler_sandbox: Sandbox) -> None:
    box = scheduler_sandbox
    active: list[int] = []
    most: list[int] = []

    async def work(*_: Any) -> None:
        active.append(1)
        most.append(len(active))
        await asyncio.sleep(60)
        active.pop()

    box.register(Recorder("work", work))
    task = box.define_task("hourly", "work", cron="0 * * * *", overlap_policy="allow")
    await box.advance(hours=3, minutes=5)  # the last one of its schedule has ended
    start = box.now - timedelta(hours=24)
    found = runtime_of(box.service).preview_backfill(task.id, start, box.now)
    assert (len(found.fires), len(found.known)) == (21, 3)
    made = await box.service.backfill(task.id, start, box.now)
    assert made.fires == found.fires
    assert len(made.execution_ids) == 21
    again = await box.service.backfill(task.id, start, box.now)
    assert (again.fires, len(again.known)) == ((), 24)
    most.clear()
    await box.advance(minutes=30)
    runs = [run for run in box.executions(task) if run.trigger == "backfill"]
    assert [run.state for run in runs] == ["success"] * 21
    assert max(most) == 1
    assert sorted(run.scheduled_for for run in runs) == list(found.fires)


async def test_a_backfill_may_start_one_every_so_often(scheduler_sandbox: Sandbox) -> None:
    box = scheduler_sandbox
    box.register(Recorder("work"))
    task = box.define_task("hourly", "work", cron="0 * * * *")
    begin = box.now
    await box.service.backfill(task.id, begin - timedelta(hours=5), begin, pace=Pace(every_seconds=90))
    await box.advance(minutes=10)
    starts = sorted(run.started_at for run in box.executions(task))
    assert [start - begin for start in starts[:5]] == [timedelta(seconds=90 * n) for n in range(5)]


@pytest.mark.parametrize("policy", ["skip", "queue", "cancel_running"])
async def test_a_backfill_that_waits_keeps_no_fire_from_running_and_is_not_cancelled_by_one(
    scheduler_sandbox: Sandbox, policy: str
) -> None:
    box = scheduler_sandbox
    box.register(Recorder("work"))
    task = box.define_task("hourly", "work", cron="0 * * * *", overlap_policy=policy)
    begin = box.now
    await box.service.backfill(task.id, begin - timedelta(hours=20), begin, pace=Pace(every_seconds=1000))
    box.run_now(task)
    await box.advance(hours=6)
    assert {run.state for run in box.executions(task)} == {"success"}
    assert len(box.executions(task)) == 20 + 1 + 6


@pytest.mark.parametrize("pace", [Pace(), Pace(every_seconds=1800)])
@pytest.mark.parametrize("policy", ["skip", "queue", "cancel_running"])
async def test_a_backfill_and_the_schedule_neither_displace_nor_overlap_each_other(
    scheduler_sandbox: Sandbox, policy: str, pace: Pace
) -> None:
    box = scheduler_sandbox
    active: list[int] = []
    most: list[int] = []

    async def work(*_: Any) -> None:
        active.append(1)
        most.append(len(active))
        try:
            await asyncio.sleep(600)
        finally:
            active.pop()

    box.register(Recorder("work", work))
    task = box.define_task("hourly", "work", cron="0 * * * *", overlap_policy=policy)
    await box.advance(hours=2, minutes=5)  # the second one is under way
    begin = box.now
    await box.service.backfill(task.id, begin - timedelta(days=3), begin - timedelta(days=2), pace=pace)
    await box.advance(hours=10, minutes=30)  # between two fires
    box.run_now(task)
    await box.advance(minutes=55)
    runs = box.executions(task)
    assert max(most) == 1
    assert {run.state for run in runs if run.trigger != "backfill"} == {"success"}
    assert {run.state for run in runs if run.trigger == "backfill"} <= {"success", "running", "pending"}
    waits = [run.started_at - run.scheduled_for for run in runs if run.trigger == "schedule"]
    assert len(waits) == 13
    assert max(waits) <= timedelta(seconds=601)  # the run of the backfill that was under way
    made_up = [run for run in runs if run.trigger == "backfill" and run.state == "success"]
    assert len(made_up) >= 11 * 2 - 2
    assert [run.id for run in sorted(made_up, key=lambda run: run.started_at)] == sorted(r.id for r in made_up)


async def test_a_backfill_waits_for_a_run_that_is_to_be_tried_again(scheduler_sandbox: Sandbox) -> None:
    box = scheduler_sandbox
    tries: list[str] = []

    async def work(*_: Any) -> None:
        tries.append("x")
        if len(tries) == 1:
            raise RuntimeError("once")

    box.register(Recorder("work", work))
    retry = {"max_attempts": 2, "backoff_seconds": 600, "jitter": 0}
    task = box.define_task("daily", "work", cron="0 0 * * *", retry=retry)
    run = box.run_now(task)
    await box.advance(seconds=1)
    assert box.read(run).state == "retrying"
    await box.service.backfill(task.id, box.now - timedelta(days=3), box.now)
    await box.advance(seconds=590)
    assert len(tries) == 1
    await box.advance(seconds=60)
    assert {one.state for one in box.executions(task)} == {"success"}


async def test_cancelling_a_backfill_ends_what_runs_of_it_and_nothing_else(scheduler_sandbox: Sandbox) -> None:
    box = scheduler_sandbox

    async def work(*_: Any) -> None:
        await asyncio.sleep(3000)

    box.register(Recorder("work", work))
    task = box.define_task("hourly", "work", cron="0 * * * *", overlap_policy="allow")
    begin = box.now
    await box.service.backfill(task.id, begin - timedelta(days=30), begin, pace=Pace(at_once=3))
    await box.advance(hours=1, minutes=5)
    called_off = await box.service.cancel_backfill(task.id)
    assert (len(called_off.ended), len(called_off.asked)) == (720 - 6, 3)
    await box.advance(minutes=50)
    runs = box.executions(task)
    ended = Counter((run.trigger, run.state.value) for run in runs)
    assert ended == {("backfill", "success"): 3, ("backfill", "cancelled"): 717, ("schedule", "success"): 1}


async def test_a_backfill_that_makes_no_sense_is_refused(scheduler_sandbox: Sandbox) -> None:
    box = scheduler_sandbox
    box.register(Recorder("work"))
    plain = box.define_task("plain", "work")
    keyed = box.define_task("keyed", "work", cron="* * * * *", concurrency_key="k", overlap_policy="allow")
    careful = box.define_task("careful", "work", cron="0 * * * *")
    now, day = box.now, timedelta(days=1)
    for task_id, start, end, pace, sentence in (
        (plain.id, now - day, now, Pace(), "no schedule"),
        (keyed.id, now, now - day, Pace(), "later than start"),
        (keyed.id, now, now + day, Pace(), "must be past"),
        (keyed.id, now - 30 * day, now, Pace(), "more than 10000 fires"),
        (keyed.id, now - 3000 * day, now, Pace(), "more than 50000 fires"),
        (keyed.id, now - day, now, Pace(at_once=3), "concurrency key"),
        (careful.id, now - day, now, Pace(at_once=3), "overlap policy is skip"),
    ):
        with pytest.raises(InvalidRequest, match=sentence):
            await box.service.backfill(task_id, start, end, pace=pace)
    with pytest.raises(NotFound):
        await box.service.backfill(4711, now - day, now)


# -------------------------------------------------------------------- windows and calendars


async def test_fires_outside_of_the_window_are_skipped_and_say_why(scheduler_sandbox: Sandbox) -> None:
    box = scheduler_sandbox
    box.register(Recorder("work"))
    zone = ZoneInfo("Asia/Shanghai")
    task = box.define_task(
        "hourly",
        "work",
        cron="0 * * * *",
        timezone="Asia/Shanghai",
        run_window={"opens": "09:00", "closes": "12:00", "days": ["mon", "tue", "wed", "thu", "fri"]},
    )
    await box.advance(days=7)
    ran = [run.scheduled_for.astimezone(zone) for run in box.executions(task) if run.state == "success"]
    assert {moment.hour for moment in ran} == {9, 10, 11}
    assert {moment.weekday() for moment in ran} == {0, 1, 2, 3, 4}
    skipped = [run for run in box.executions(task) if run.state == "skipped"]
    assert {run.reason for run in skipped} == {"calendar"}
    assert len(ran) == 15
    assert len(ran) + len(skipped) == 7 * 24
    assert "closed then" in box.service.explain(task.id, skipped[0].scheduled_for)


async def test_a_deferred_fire_runs_at_the_next_open_moment(scheduler_sandbox: Sandbox) -> None:
    box = scheduler_sandbox
    box.register(Recorder("work"))
    today = box.now.date()
    task = box.define_task(
        "daily",
        "work",
        cron="30 12 * * *",
        calendar={"closed": [(today + timedelta(days=n)).isoformat() for n in (0, 1)]},
        closed_policy="defer",
    )
    assert "will run at" in box.service.explain(task.id)
    await box.advance(days=3)
    runs = sorted(box.executions(task), key=lambda run: run.scheduled_for)
    # The first waits for the third day; the second finds it waiting (overlap policy skip); the third runs.
    assert [run.state for run in runs] == ["success", "skipped", "success"]
    assert runs[1].reason == "overlap"
    assert runs[0].started_at.date() == today + timedelta(days=2)


async def test_what_waits_for_its_opening_is_spread_by_its_jitter(scheduler_sandbox: Sandbox) -> None:
    box = scheduler_sandbox
    box.register(Recorder("work"))
    tasks = [
        box.define_task(
            f"nightly {number}",
            "work",
            cron="0 3 * * *",
            run_window={"opens": "09:00", "closes": "18:00"},
            closed_policy="defer",
            jitter_seconds=jitter,
        )
        for number, jitter in enumerate([0, 300, 300, 300])
    ]
    await box.advance(days=1, hours=1)
    runs = [run for task in tasks for run in box.executions(task)]
    assert [run.state for run in runs] == ["success"] * 4
    opening = datetime.combine(runs[0].scheduled_for.date(), time(9), tzinfo=UTC)
    assert runs[0].started_at == opening
    waits = {(run.started_at - opening).total_seconds() for run in runs[1:]}
    assert len(waits) == 3
    assert all(0 < wait < 301 for wait in waits)


async def test_no_jitter_brings_a_start_out_of_its_window(scheduler_sandbox: Sandbox) -> None:
    box = scheduler_sandbox
    box.register(Recorder("work"))
    task = box.define_task(
        "late",
        "work",
        cron="59 17 * * *",
        run_window={"opens": "09:00", "closes": "18:00"},
        jitter_seconds=3600,
    )
    await box.advance(days=10)
    starts = [run.started_at for run in box.executions(task)]
    assert len(starts) == 10
    assert {(start.hour, start.minute) for start in starts} == {(17, 59)}
    assert len({start.second for start in starts}) > 5


async def test_a_run_by_hand_asks_no_calendar(scheduler_sandbox: Sandbox) -> None:
    box = scheduler_sandbox
    box.register(Recorder("work"))
    task = box.define_task("closed", "work", calendar={"closed": [box.now.date().isoformat()]})
    run = box.run_now(task)
    await box.advance(seconds=1)
    assert run.state is ExecutionState.PENDING
    assert [one.state for one in box.executions(task)] == ["success"]


async def test_a_task_with_a_rate_limit_of_its_own_obeys_it(scheduler_sandbox: Sandbox) -> None:
    box = scheduler_sandbox
    box.register(Recorder("work"))
    task = box.define_task(
        "often",
        "work",
        schedule={"type": "interval", "seconds": 10},
        overlap_policy="allow",
        rate_limit={"limit": 1, "per_seconds": 60},
    )
    await box.advance(minutes=10)
    starts = sorted(run.started_at for run in box.executions(task) if run.started_at is not None)
    assert len(starts) in (10, 11)
    assert all(later - earlier >= timedelta(seconds=60) for earlier, later in pairwise(starts))
    waiting = [run for run in box.executions(task) if run.state == "pending"]
    assert {run.reason for run in waiting} == {"rate_limited"}


@pytest.mark.parametrize("key", [None, "n"])
async def test_a_changed_rate_limit_reaches_what_waits(scheduler_sandbox: Sandbox, key: str | None) -> None:
    box = scheduler_sandbox
    box.register(Recorder("work"))
    tasks = runtime_of(box.service).tasks
    slow, fast = {"limit": 1, "per_seconds": 3600, "key": key}, {"limit": 10, "per_seconds": 1, "key": key}
    task = box.define_task("often", "work", overlap_policy="allow", params={"n": 1}, rate_limit=slow)
    other = box.define_task("other", "work", overlap_policy="allow", params={"n": 1}, rate_limit=slow)
    mine = {"rate_limit": RateLimit(1, per_seconds=7200), "rate_limit_key": "mine"}
    for _ in range(20):
        box.run_now(task)
        box.run_now(other)
        box.enqueue("work", {}, task_id=task.id, **mine)
    await box.advance(seconds=10)

    def done(of: Any) -> int:
        return sum(run.state == "success" for run in box.executions(of) if run.task_name is not None)

    assert (done(task), done(other)) == (1, 1)
    tasks.update(task.id, {"rate_limit": fast})
    await box.advance(seconds=61)  # what the old bucket is good for
    assert (done(task), done(other)) == (20, 1)
    tasks.update(other.id, {"rate_limit": None})
    await box.advance(seconds=10)
    assert done(other) == 20
    of_its_own = [run for run in box.executions(task) if run.task_name is None]
    assert sum(run.state == "success" for run in of_its_own) == 1


async def test_a_changed_concurrency_limit_reaches_what_waits(scheduler_sandbox: Sandbox) -> None:
    box = scheduler_sandbox
    active: list[int] = []

    async def work(*_: Any) -> None:
        active.append(1)
        await asyncio.sleep(60)
        active.pop()

    box.register(Recorder("work", work))
    tasks = runtime_of(box.service).tasks
    task = box.define_task("often", "work", overlap_policy="allow", concurrency_key="k", concurrency_limit=1)
    for _ in range(12):
        box.run_now(task)
    await box.advance(seconds=30)
    assert len(active) == 1
    tasks.update(task.id, {"concurrency_limit": 4})
    await box.advance(seconds=61)
    assert len(active) == 4
    tasks.update(task.id, {"concurrency_key": None, "concurrency_limit": None})
    await box.advance(seconds=5)
    assert len(active) == 8


def test_hours_that_plain_sql_has_spoilt_shelve_the_task_and_no_other(scheduler_sandbox: Sandbox) -> None:
    box = scheduler_sandbox
    box.register(Recorder("work"))
    broken = box.define_task("broken", "work", cron="* * * * *")
    fine = box.define_task("fine", "work", cron="* * * * *")
    with box.sessions() as session:
        session.execute(text(f"UPDATE scheduled_tasks SET run_window = '{{\"opens\": 9}}' WHERE id = {broken.id}"))
        session.commit()
    box.advance(minutes=5)
    assert len(box.executions(fine)) == 5
    assert "run_window" in (runtime_of(box.service).tasks.get(broken.id).schedule_error or "")


# -------------------------------------------------------------------- circuits


async def test_a_circuit_opens_says_so_and_closes_again(scheduler_sandbox: Sandbox) -> None:
    box = scheduler_sandbox
    healthy = False

    def work(*_: Any) -> None:
        if not healthy:
            raise RuntimeError("down")

    box.register(Recorder("work", work, circuit_breaker=CircuitBreaker(window=4, minimum=4, open_seconds=30)))
    runtime = runtime_of(box.service)
    heard: list[CircuitChanged] = []
    runtime.events.subscribe_circuits(heard.append)
    for _ in range(6):
        box.enqueue("work", {})
        await box.advance(seconds=1)
    waiting = [run for run in box.executions() if run.state == "pending"]
    assert [run.reason for run in waiting] == ["circuit_open"] * 2
    assert Kind.CIRCUIT_OPEN in [finding.kind for finding in runtime.findings()]
    (status,) = runtime.flow().circuits
    assert (status.phase, status.waiting) == (Phase.OPEN, 2)
    await box.advance(seconds=30)
    healthy = True
    await box.advance(seconds=31)
    assert [box.read(run).state for run in waiting] == ["failed", "success"]
    assert [event.phase for event in heard] == [
        Phase.OPEN,
        Phase.HALF_OPEN,
        Phase.OPEN,
        Phase.HALF_OPEN,
        Phase.CLOSED,
    ]


async def test_an_operator_closes_a_circuit(scheduler_sandbox: Sandbox) -> None:
    box = scheduler_sandbox
    healthy = False

    def work(*_: Any) -> None:
        if not healthy:
            raise RuntimeError("down")

    box.register(Recorder("work", work, circuit_breaker=CircuitBreaker(window=2, minimum=2)))
    for _ in range(3):
        box.enqueue("work", {})
    await box.advance(seconds=1)
    healthy = True
    box.enqueue("work", {})
    await box.advance(seconds=1)
    runtime = runtime_of(box.service)
    await runtime.commands.reset_circuit("work")
    await box.advance(seconds=1)
    assert [run for run in box.executions() if run.state == "pending"] == []
    with pytest.raises(NotFound):
        await runtime.commands.reset_circuit("nobody")


async def test_what_waits_for_a_circuit_whose_breaker_was_taken_away_is_let_go(database_url: str) -> None:
    broken = Recorder("work", fail_with(RuntimeError("down")))
    broken.circuit_breaker = CircuitBreaker(window=2, minimum=2, open_seconds=3600)
    async with running(database_url, broken) as (service, runtime):
        for _ in range(2):
            await ended(runtime, (await service.enqueue("work", {})).id)
        waiting = [(await service.enqueue("work", {})).id for _ in range(3)]
        await until(lambda: all(runtime.history.get(one).reason == "circuit_open" for one in waiting))
    async with running(database_url, Recorder("other")) as (_, runtime):
        await asyncio.sleep(1.5)
        assert runtime.history.get(waiting[0]).reason == "circuit_open"  # it may have one elsewhere
    async with running(database_url, Recorder("work")) as (_, runtime):
        for one in waiting:
            assert (await ended(runtime, one)).state is ExecutionState.SUCCESS
        assert [status.phase for status in runtime.flow().circuits] == [Phase.CLOSED]


async def test_a_limited_executor_never_starts_from_memory_and_others_still_do(database_url: str) -> None:
    limited = Recorder("limited", rate_limit=RateLimit(1000))
    guarded = Recorder("guarded", circuit_breaker=CircuitBreaker())
    async with running(database_url, limited, guarded, Recorder("free")) as (service, runtime):
        owners = {}
        for task_type in ("limited", "guarded", "free"):
            execution = await service.enqueue(task_type, {})
            owners[task_type] = execution.owner
            await ended(runtime, execution.id)
        own = await service.enqueue("free", {}, rate_limit=RateLimit(5))
        await ended(runtime, own.id)
        assert owners == {"limited": None, "guarded": None, "free": runtime.node_id}
        assert own.owner is None
        assert [status.key for status in runtime.flow().rate_limits] == ["executor:limited", "request:free"]


async def test_a_wrong_limit_on_an_executor_is_refused_at_its_registration() -> None:
    from app.services.scheduler_service import SchedulerService

    with pytest.raises(InvalidRequest, match="rate_limit must be a RateLimit"):
        SchedulerService().register_executor(Recorder("work", rate_limit=10))


async def test_what_a_rate_limit_holds_back_starts_as_soon_as_it_may(database_url: str) -> None:
    work = Recorder("work", rate_limit=RateLimit(1, per_seconds=0.4))
    async with running(database_url, work) as (service, runtime):
        recorded = [await service.enqueue("work", {}) for _ in range(3)]
        for execution in recorded:
            await ended(runtime, execution.id)
        starts = [runtime.history.attempts(execution.id)[0].started_at for execution in recorded]
        assert all(later - earlier >= timedelta(seconds=0.4) for earlier, later in pairwise(sorted(starts)))
        await until(lambda: runtime.flow().rate_limits[0].waiting == 0)


def test_the_types_are_what_the_session_says(scheduler_sandbox: Sandbox) -> None:
    """An executor may ask for a debounce of its own from within its transaction."""
    box = scheduler_sandbox

    async def work(_task: int, _params: dict[str, Any], db: Session) -> TaskExecutionResult:
        await box.service.enqueue("after", {}, db=db, repeats=Throttle("k", 60))
        return TaskExecutionResult.success_result("done")

    box.register(Recorder("work", work))
    box.register(Recorder("after"))
    for _ in range(3):
        box.enqueue("work", {})
    box.advance(seconds=5)
    assert sorted(run.task_type for run in box.executions()) == ["after", "work", "work", "work"]
