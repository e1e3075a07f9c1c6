"""Schedules to ledger rows: the fire transaction, the clock, and the account `explain` gives of them."""

from __future__ import annotations

import asyncio
import sys
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any

import pytest
from loguru import logger
from sqlalchemy import Engine, text, update

from app.api.schemas import TaskAnswer
from app.core.config import Settings
from app.core.errors import Conflict, ExecutorNotFound, InvalidParameters, InvalidRequest
from app.db.database import begin_write, make_engine
from app.models.scheduled_task import ScheduledTask
from app.models.task_execution import ExecutionState
from app.scheduler.arming import next_run_of
from app.scheduler.claims import claim
from app.scheduler.firing import Fired, arm_tasks, fire_due, next_fire_at
from app.scheduler.runtime import Runtime
from tests.support import Recorder, running, until

START = datetime(2030, 1, 7, 8, 59, 30, tzinfo=UTC)  # a Monday


@pytest.fixture
def warnings() -> Iterator[list[str]]:
    """What is told to operators meanwhile."""
    found: list[str] = []
    sink = logger.add(lambda message: found.append(message.record["message"]), level="WARNING")
    yield found
    logger.remove(sink)


def nobody(_row: dict[str, Any]) -> None:
    return None


def fire(engine: Engine, now: datetime, limit: int = 100) -> Fired:
    with engine.connect() as connection:
        begin_write(connection)
        arm_tasks(connection, now=now, limit=limit)
        fired = fire_due(connection, now=now, limit=limit, owner_of=nobody)
        connection.commit()
        return fired


def define(runtime: Runtime, name: str = "task", **definition: Any) -> int:
    return runtime.tasks.create(runtime.definition({"name": name, "task_type": "work", **definition})).id


def set_due(runtime: Runtime, task_id: int, moment: datetime) -> None:
    """As if the task had been waiting for `moment`."""
    with runtime.sessions() as session:
        session.execute(
            text("UPDATE scheduled_tasks SET next_run_at = :at, created_at = :made WHERE id = :id"),
            {"at": _column(runtime, moment), "made": _column(runtime, moment - timedelta(days=30)), "id": task_id},
        )
        session.commit()


def _column(runtime: Runtime, moment: datetime) -> Any:
    return moment.strftime("%Y-%m-%d %H:%M:%S.%f") if runtime.engine.dialect.name == "sqlite" else moment


def ledger(runtime: Runtime, task_id: int) -> list[tuple[str, str | None, datetime | None]]:
    return [
        (execution.state.value, execution.reason, execution.scheduled_for)
        for execution in reversed(runtime.history.page(task_id=task_id))
    ]


# ---------------------------------------------------------------- one fire


async def test_a_due_task_becomes_one_row_and_waits_for_its_next_fire(database_url: str) -> None:
    async with running(database_url, Recorder("work"), start=False) as (_, runtime):
        task_id = define(runtime, schedule="0 9 * * 1-5", params={"topic": "x"}, priority=3)
        set_due(runtime, task_id, datetime(2030, 1, 7, 9, tzinfo=UTC))
        assert fire(runtime.engine, START).tasks == 0
        (execution,) = fire(runtime.engine, START + timedelta(seconds=31)).executions
        assert (execution.task_name, execution.params, execution.priority) == ("task", {"topic": "x"}, 3)
        assert execution.trigger == "schedule"
        assert execution.scheduled_for == datetime(2030, 1, 7, 9, tzinfo=UTC)
        assert runtime.tasks.get(task_id).next_run_at == datetime(2030, 1, 8, 9, tzinfo=UTC)
        assert fire(runtime.engine, START + timedelta(seconds=31)).tasks == 0


async def test_a_fire_that_is_in_the_ledger_is_never_recorded_again(database_url: str) -> None:
    async with running(database_url, Recorder("work"), start=False) as (_, runtime):
        task_id = define(runtime, schedule={"type": "interval", "seconds": 60}, overlap_policy="allow")
        other_id = define(runtime, "other", schedule={"type": "interval", "seconds": 60})
        for moment in (START, START):
            set_due(runtime, task_id, moment)
            set_due(runtime, other_id, moment + timedelta(seconds=1))
            fired = fire(runtime.engine, moment + timedelta(seconds=1))
        assert len(fired.executions) == 0
        assert len(ledger(runtime, task_id)) == len(ledger(runtime, other_id)) == 1


async def test_jitter_moves_the_start_and_not_the_fire(database_url: str) -> None:
    async with running(database_url, Recorder("work"), start=False) as (_, runtime):
        task_id = define(runtime, schedule="0 9 * * *", jitter_seconds=600.0)
        set_due(runtime, task_id, datetime(2030, 1, 7, 9, tzinfo=UTC))
        (execution,) = fire(runtime.engine, datetime(2030, 1, 7, 9, tzinfo=UTC)).executions
        assert execution.scheduled_for == datetime(2030, 1, 7, 9, tzinfo=UTC)
        assert timedelta(0) < execution.run_at - execution.scheduled_for < timedelta(minutes=10)


# ---------------------------------------------------------------- missed fires


async def test_fires_made_up_at_once_go_one_after_the_other(database_url: str) -> None:
    """All of them wait their turn: the first, started from memory, would overlap one that another node claims."""
    async with running(database_url, Recorder("work"), start=False) as (_, runtime):
        task_id = define(runtime, schedule="0 * * * *", misfire_policy="all")
        set_due(runtime, task_id, datetime(2030, 1, 7, 9, tzinfo=UTC))
        late = datetime(2030, 1, 7, 11, 30, tzinfo=UTC)
        fired = fire(runtime.engine, late)
        assert [execution.exclusive for execution in fired.executions] == [True, True, True]
        with runtime.engine.connect() as connection:
            begin_write(connection)
            (claimed,) = claim(connection, node="living", now=late, limit=10)
            assert claimed.id == fired.executions[0].id
            connection.rollback()


@pytest.mark.parametrize(
    ("policy", "late_minutes", "expected"),
    [
        ("latest", 0, [("pending", None)]),
        ("latest", 30, [("pending", None)]),
        ("latest", 150, [("skipped", "coalesced"), ("pending", None)]),
        ("skip", 0, [("pending", None)]),
        ("skip", 30, [("skipped", "misfire")]),
        ("skip", 150, [("skipped", "misfire")]),
        ("all", 150, [("pending", None), ("pending", None), ("pending", None)]),
    ],
)
async def test_missed_fires_follow_the_policy_and_all_leave_a_row(
    database_url: str, policy: str, late_minutes: int, expected: list[tuple[str, str | None]]
) -> None:
    async with running(database_url, Recorder("work"), start=False) as (_, runtime):
        task_id = define(runtime, schedule="0 * * * *", misfire_policy=policy, misfire_grace_seconds=60.0)
        set_due(runtime, task_id, datetime(2030, 1, 7, 9, tzinfo=UTC))
        fire(runtime.engine, datetime(2030, 1, 7, 9, tzinfo=UTC) + timedelta(minutes=late_minutes))
        assert [(state, reason) for state, reason, _ in ledger(runtime, task_id)] == expected
        counted = sum(execution.fire_count for execution in runtime.history.page(task_id=task_id))
        assert counted == late_minutes // 60 + 1


async def test_all_is_bounded_and_the_rest_is_coalesced(database_url: str) -> None:
    async with running(database_url, Recorder("work"), start=False) as (_, runtime):
        task_id = define(runtime, schedule={"type": "interval", "seconds": 1}, misfire_policy="all")
        set_due(runtime, task_id, START)
        fired = fire(runtime.engine, START + timedelta(days=30))
        waiting = [execution for execution in fired.executions if not execution.is_final]
        assert len(waiting) == 99
        (coalesced,) = [execution for execution in fired.executions if execution.is_final]
        assert coalesced.reason == "coalesced"


# ---------------------------------------------------------------- overlap


@pytest.mark.parametrize(
    ("policy", "expected"),
    [
        ("skip", [("pending", None), ("skipped", "overlap")]),
        ("allow", [("pending", None), ("pending", None)]),
        ("queue", [("pending", None), ("pending", None)]),
        ("cancel_running", [("pending", None), ("pending", None)]),
    ],
)
async def test_overlap_policies_in_the_ledger(
    database_url: str, policy: str, expected: list[tuple[str, str | None]]
) -> None:
    async with running(database_url, Recorder("work"), start=False) as (_, runtime):
        task_id = define(runtime, schedule={"type": "interval", "seconds": 60}, overlap_policy=policy)
        set_due(runtime, task_id, START)
        fire(runtime.engine, START)
        fired = fire(runtime.engine, START + timedelta(seconds=60))
        assert [(state, reason) for state, reason, _ in ledger(runtime, task_id)] == expected
        first = runtime.history.page(task_id=task_id)[-1]
        assert (first.cancel_requested_at is not None) == (policy == "cancel_running")
        assert fired.cancel == ([first.id] if policy == "cancel_running" else [])


async def test_queued_fires_of_a_task_run_one_after_the_other(database_url: str) -> None:
    lock = threading.Lock()

    async def work(*_: Any) -> None:
        assert lock.acquire(blocking=False), "two executions of the task ran at once"
        await asyncio.sleep(0.02)
        lock.release()

    async with running(database_url, Recorder("work", work)) as (service, runtime):
        task_id = define(runtime, overlap_policy="queue")
        found = [await service.run_now(task_id) for _ in range(5)]
        for execution in found:
            assert (await service.wait(execution.id, 10)).success


async def test_cancel_running_ends_the_old_execution_and_runs_the_new_one(database_url: str) -> None:
    executor = Recorder("work", lambda _, params, __: asyncio.sleep(params["seconds"]))
    async with running(database_url, executor) as (service, runtime):
        task_id = define(runtime, overlap_policy="cancel_running", params={"seconds": 0})
        first = await service.run_now(task_id, {"seconds": 60})
        await until(lambda: runtime.history.get(first.id).state is ExecutionState.RUNNING)
        second = await service.run_now(task_id)
        assert (await service.wait(first.id, 10)).error == "Cancelled"
        assert (await service.wait(second.id, 10)).success


async def test_run_now_enters_where_a_fire_enters(database_url: str) -> None:
    gate = threading.Event()
    executor = Recorder("work", lambda *_: gate.wait(20) and None)
    async with running(database_url, executor) as (service, runtime):
        task_id = define(runtime, params={"n": 1})
        first = await service.run_now(task_id, {"n": 2}, triggered_by="somebody")
        await until(lambda: runtime.history.get(first.id).state is ExecutionState.RUNNING)
        second = await service.run_now(task_id)
        assert (second.state, second.reason) == (ExecutionState.SKIPPED, "overlap")
        gate.set()
        assert (await service.wait(first.id, 10)).success
        assert (await service.wait(second.id, 10)).error == "Skipped: overlap"
        assert executor.calls == [{"n": 2}]
        assert runtime.history.get(first.id).triggered_by == "somebody"
        await until(lambda: runtime.tasks.get(task_id).last_state == "success")


# ---------------------------------------------------------------- the running clock


async def test_the_clock_fires_tasks_made_here_and_by_plain_sql(database_url: str) -> None:
    executor = Recorder("work")
    async with running(database_url, executor) as (_, runtime):
        define(runtime, "here", schedule={"type": "interval", "seconds": 1}, params={"who": "here"})
        with runtime.sessions() as session:
            session.execute(
                text(
                    "INSERT INTO scheduled_tasks (name, task_type, params, schedule_type, schedule_expression)"
                    """ VALUES ('sql', 'work', '{"who": "sql"}', 'interval', '1')"""
                )
            )
            session.commit()
        await until(lambda: {"here", "sql"} <= {call["who"] for call in executor.calls})


async def test_a_task_deactivated_by_another_process_does_not_run(database_url: str) -> None:
    executor = Recorder("work")
    async with running(database_url, executor) as (_, runtime):
        other = make_engine(Settings(database_url=database_url))
        with other.connect():  # which takes its time, and the pause must come before the fire
            pass
        at = datetime.now(UTC) + timedelta(seconds=2)
        task_id = define(runtime, schedule={"type": "at", "at": at.isoformat()})
        with other.begin() as connection:
            connection.execute(
                text("UPDATE scheduled_tasks SET is_active = false WHERE id = :id"), {"id": task_id}
            )
        other.dispose()
        await asyncio.sleep((at - datetime.now(UTC)).total_seconds() + 0.6)
        assert executor.calls == []
        assert "paused" in runtime.explain(task_id, None)


async def test_a_schedule_that_plain_sql_broke_is_set_aside_visible_and_mendable(database_url: str) -> None:
    executor = Recorder("work")
    async with running(database_url, executor) as (_, runtime):
        with runtime.sessions() as session:
            session.execute(
                text(
                    "INSERT INTO scheduled_tasks (name, task_type, schedule_type, schedule_expression)"
                    " VALUES ('broken', 'work', 'cron', '99 * * * *')"
                )
            )
            session.commit()
        define(runtime, "sound", schedule={"type": "interval", "seconds": 1})
        await until(lambda: executor.calls)
        broken = await until(lambda: (task := runtime.tasks.find("broken")).schedule_error and task)
        assert "cannot be read" in runtime.explain(broken.id, None)
        mended = runtime.tasks.update(broken.id, {"schedule": "0 9 * * *"})
        assert mended.schedule_error is None
        assert mended.next_run_at is not None


async def test_a_one_off_task_fires_once_and_is_over(database_url: str) -> None:
    executor = Recorder("work")
    async with running(database_url, executor) as (_, runtime):
        at = datetime.now(UTC) + timedelta(seconds=0.5)
        task_id = define(runtime, schedule={"type": "at", "at": at.isoformat()})
        await until(lambda: executor.calls)
        task = runtime.tasks.get(task_id)
        assert task.next_run_at is None
        assert task.exhausted_at is not None
        assert "no fire left" in runtime.explain(task_id, None)


async def test_two_schedulers_on_one_database_record_each_fire_once(database_url: str) -> None:
    one, two = Recorder("work"), Recorder("work")
    each_second = {"type": "interval", "seconds": 1}
    async with running(database_url, one) as (_, runtime), running(database_url, two):
        task_ids = [
            # With `all`, a fire that a busy machine misses has a row of its own too.
            define(runtime, f"t{n}", schedule=each_second, overlap_policy="allow", misfire_policy="all")
            for n in range(10)
        ]
        await until(lambda: len(one.calls) + len(two.calls) >= 30)
        for task_id in task_ids:
            moments = [moment for _, _, moment in ledger(runtime, task_id)]
            assert len(moments) == len(set(moments))
            assert all(b - a == timedelta(seconds=1) for a, b in pairwise(moments))


# ---------------------------------------------------------------- declared in code


async def test_declared_tasks_are_created_followed_and_left_to_the_operator(database_url: str) -> None:
    async with running(database_url, Recorder("work"), start=False) as (service, runtime):
        service.define_task("daily", "work", schedule="0 9 * * *", params={"limit": 5}, priority=1)
        service.define_task("old", "work", schedule="0 1 * * *")
        service.start()
        assert runtime.tasks.find("daily").schedule_expression == "0 9 * * *"
        runtime.tasks.update(runtime.tasks.find("daily").id, {"schedule": "30 9 * * *"})
        runtime.tasks.pause(runtime.tasks.find("daily").id)
    async with running(database_url, Recorder("work"), start=False) as (service, runtime):
        service.define_task("daily", "work", schedule="0 10 * * *", params={"limit": 7}, priority=1)
        service.start()
        task = runtime.tasks.find("daily")
        assert task.params == {"limit": 7}, "what only the code changed follows the code"
        assert task.schedule_expression == "30 9 * * *", "what an operator changed stays"
        assert not task.is_active, "what an operator paused stays paused"
        assert runtime.tasks.find("old").declaration_missing


def test_a_wrong_declaration_is_refused_where_it_is_made() -> None:
    from app.services.scheduler_service import SchedulerService

    service = SchedulerService()
    with pytest.raises(InvalidRequest) as refusal:
        service.define_task("x", "work", schedule="61 * * * *", timezone="Mars/Olympus")
    assert {error.field for error in refusal.value.errors} == {"tasks[x].schedule.expression", "tasks[x].timezone"}
    service.define_task("x", "work")
    service.define_task("x", "work")  # a factory that runs twice in a process says the same twice
    with pytest.raises(Conflict, match="declared twice"):
        service.define_task("x", "work", priority=1)


async def test_a_declaration_that_comes_after_the_start_is_refused(sqlite_url: str) -> None:
    async with running(sqlite_url, Recorder("work"), start=False) as (service, runtime):
        service.define_task("in time", "work")
        service.start()
        service.define_task("in time", "work")
        with pytest.raises(
            Conflict, match="'late' is declared too late: define_task\\(\\) comes before start\\(\\)"
        ):
            service.define_task("late", "work", schedule="* * * * *")
        assert runtime.tasks.count()["total"] == 1
        await service.drain()
        service.define_task("late", "work")
        service.start()
        assert runtime.tasks.find("late").is_active


async def test_a_start_that_changes_nothing_does_not_wait_for_the_write_lock(sqlite_url: str) -> None:
    for attempt in ("first", "gone", "again"):
        async with running(sqlite_url, Recorder("work"), start=False) as (service, runtime):
            if attempt == "first":
                service.define_task("left out later", "work")
            service.define_task("daily", "work", schedule="0 9 * * *", params={"limit": 5})
            if attempt != "again":
                service.start()
                continue
            with runtime.engine.connect() as holder:
                begin_write(holder)
                runtime.reconcile_declarations()
            assert runtime.tasks.find("left out later").declaration_missing


async def test_where_one_declaration_is_refused_none_is_stored(database_url: str) -> None:
    async with running(database_url, Recorder("work"), start=False) as (service, runtime):
        service.define_task("right", "work", schedule="0 9 * * *")
        service.define_task("nobody's", "nobody")
        service.define_task("masked", "work", params={"token": "******"})
        with pytest.raises(InvalidRequest) as refusal:
            service.start()
        assert [error.field for error in refusal.value.errors] == [
            "tasks[nobody's].task_type",
            "tasks[masked].params",
        ]
        assert runtime.tasks.page() == []
        assert not service.is_running


async def test_a_wrong_declaration_is_refused_by_a_database_that_has_the_task_as_by_a_new_one(
    database_url: str,
) -> None:
    async with running(database_url, Recorder("work"), start=False) as (service, _):
        service.define_task("daily", "work", schedule="0 9 * * *")
        service.start()
    async with running(database_url, start=False) as (service, _):
        service.define_task("daily", "work", schedule="0 9 * * *")
        with pytest.raises(InvalidRequest, match=r"tasks\[daily\]\.task_type: no executor is registered"):
            service.start()


async def test_an_operators_change_that_does_not_go_with_the_code_does_not_stop_the_start(
    database_url: str, warnings: list[str]
) -> None:
    async with running(database_url, Recorder("work"), start=False) as (service, runtime):
        service.define_task("daily", "work", schedule="0 9 * * *", concurrency_key="k")
        service.define_task("broken", "work", schedule="0 9 * * *")
        service.start()
        runtime.tasks.update(runtime.tasks.find("daily").id, {"concurrency_key": None})
        with runtime.sessions() as session:
            session.execute(
                text("UPDATE scheduled_tasks SET schedule_expression = '99 * * * *' WHERE name = 'broken'")
            )
            session.commit()
    async with running(database_url, Recorder("work"), start=False) as (service, runtime):
        service.define_task("daily", "work", schedule="0 10 * * *", concurrency_key="k", concurrency_limit=2)
        service.define_task("broken", "work", schedule="0 9 * * *", priority=1)
        service.define_task("new", "work")
        service.start()
        assert runtime.tasks.find("daily").schedule_expression == "0 9 * * *", "it stays as a whole"
        assert runtime.tasks.find("new").task_type == "work"
    told = [line for line in warnings if "的声明" in line]
    assert [line.split()[1] for line in told] == ["daily", "broken"]
    assert "concurrency_limit needs a concurrency_key" in told[0]


@pytest.mark.parametrize(
    "over",
    [
        {"schedule": {"type": "at", "at": "2001-01-01T00:00:00Z"}},
        {"schedule": "0 9 * * *", "end_at": "2001-01-01T00:00:00Z"},
        {"schedule": "0 0 31 2 *"},
    ],
)
async def test_a_declared_task_whose_time_is_over_does_not_stop_the_start(
    database_url: str, over: dict[str, Any], warnings: list[str]
) -> None:
    """What was right when it was written is met by each new database later."""
    for declared in (over, over | {"description": "changed"}, {"schedule": "0 9 * * *"}, over):
        async with running(database_url, Recorder("work"), start=False) as (service, runtime):
            service.define_task("once", "work", **declared)
            service.start()
            task = runtime.tasks.find("once")
            is_over = declared != {"schedule": "0 9 * * *"}
            assert (task.next_run_at is None, task.exhausted_at is not None) == (is_over, is_over)
    assert warnings == ["任务 once 的计划今后不会触发，仅作为已结束的任务保存"] * 2, (
        "when made, and when changed back"
    )


# ---------------------------------------------------------------- refused at creation


@pytest.mark.parametrize(
    ("definition", "field"),
    [
        ({"schedule": "99 * * * *"}, "schedule"),
        ({"schedule": "0 0 31 2 *"}, "schedule"),
        ({"timezone": "Mars/Olympus"}, "timezone"),
        ({"schedule": {"type": "at", "at": "2001-01-01T00:00:00Z"}}, "schedule.at"),
        ({"schedule": {"type": "interval", "seconds": 0}}, "schedule"),
        ({"concurrency_limit": 3}, "concurrency_limit"),
        ({"start_at": "2031-01-01T00:00:00Z", "end_at": "2030-01-01T00:00:00Z"}, "end_at"),
        ({"priority": True}, "priority"),
        ({"name": " "}, "name"),
        ({"colour": "red"}, "colour"),
        ({"retry": {"max_attempts": 0}}, "retry.max_attempts"),
    ],
)
async def test_what_makes_no_task_is_refused_with_the_field_named(
    database_url: str, definition: dict[str, Any], field: str
) -> None:
    async with running(database_url, Recorder("work"), start=False) as (_, runtime):
        with pytest.raises(InvalidRequest) as refusal:
            define(runtime, **definition)
        assert any(error.field.startswith(field) for error in refusal.value.errors), refusal.value.errors
        assert runtime.tasks.page() == []


async def test_unknown_types_refused_params_and_taken_names(database_url: str) -> None:
    strict = Recorder("work")
    strict.validate_params = lambda params: "topic" in params  # type: ignore[method-assign]
    async with running(database_url, strict, start=False) as (_, runtime):
        with pytest.raises(ExecutorNotFound):
            define(runtime, task_type="nobody")
        with pytest.raises(InvalidParameters):
            define(runtime, params={})
        define(runtime, params={"topic": 1})
        with pytest.raises(Conflict, match="name"):
            define(runtime, params={"topic": 1})


async def test_a_change_against_another_version_is_a_conflict(database_url: str) -> None:
    async with running(database_url, Recorder("work"), start=False) as (_, runtime):
        task_id = define(runtime)
        runtime.tasks.update(task_id, {"priority": 2}, expected_version=1)
        with pytest.raises(Conflict, match="version"):
            runtime.tasks.update(task_id, {"priority": 3}, expected_version=1)
        assert runtime.tasks.get(task_id).priority == 2


# ---------------------------------------------------------------- explain


async def test_explain_accounts_for_every_moment(database_url: str) -> None:
    nine = datetime(2030, 1, 7, 9, tzinfo=UTC)
    async with running(database_url, Recorder("work"), start=False) as (_, runtime):
        task_id = define(runtime, schedule="0 * * * *", misfire_policy="skip", timezone="Asia/Shanghai")
        set_due(runtime, task_id, nine)
        fire(runtime.engine, nine)
        fire(runtime.engine, nine + timedelta(hours=1))
        set_due(runtime, task_id, nine + timedelta(hours=2))
        fire(runtime.engine, nine + timedelta(hours=5, minutes=30))

        assert "waits for a free lane" in runtime.explain(task_id, nine)
        assert "2030-01-07T17:00:00+08:00" in runtime.explain(task_id, nine), "moments are told in the task's zone"
        assert "overlap" in runtime.explain(task_id, nine + timedelta(hours=1))
        assert "one of 4 fires" in runtime.explain(task_id, nine + timedelta(hours=3))
        assert "still to come" in runtime.explain(task_id, nine + timedelta(days=900))
        with pytest.raises(InvalidRequest, match="zone"):
            runtime.explain(task_id, datetime(2030, 1, 1))  # noqa: DTZ001


async def test_explain_knows_a_fire_by_its_second(database_url: str) -> None:
    """An interval fires at the fraction of a second at which its task was made; moments are told without it."""
    first, minute = START + timedelta(milliseconds=345), timedelta(minutes=1)
    async with running(database_url, Recorder("work"), start=False) as (_, runtime):
        task_id = define(runtime, schedule={"type": "interval", "seconds": 60}, misfire_policy="skip")
        set_due(runtime, task_id, first)
        fire(runtime.engine, first + 5 * minute)
        for missed in (first, first + minute, first + 4 * minute):
            told = runtime.explain(task_id, missed)
            assert "it was skipped" in told
            assert runtime.explain(task_id, missed.replace(microsecond=0)) == told
            assert runtime.explain(task_id, missed.replace(microsecond=999_999)) == told
        due = datetime(2026, 1, 7, 9, 0, 0, 345_000, tzinfo=UTC)
        set_due(runtime, task_id, due)
        with runtime.engine.begin() as connection:
            connection.execute(update(ScheduledTask).values(updated_at=due - timedelta(days=30)))
        assert "no running scheduler has fired it yet" in runtime.explain(task_id, due.replace(microsecond=0))


async def test_explain_says_that_the_task_is_closed_at_a_moment_to_come(database_url: str) -> None:
    async with running(database_url, Recorder("work"), start=False) as (_, runtime):
        year = datetime.now(UTC).year + 1
        closed = {"closed": [f"{year}-05-01"], "country": "IS"}
        daily = define(
            runtime, schedule="0 9 * * *", calendar=closed, run_window={"opens": "08:00", "closes": "18:00"}
        )
        nine = datetime(year, 5, 1, 9, tzinfo=UTC)
        assert "but is closed by its calendar: the fire will be skipped" in runtime.explain(daily, nine)
        at_ten = runtime.explain(daily, nine + timedelta(hours=1))
        assert "does not fire then, and is closed by its calendar" in at_ten
        assert "does not fire then, and is closed by its run window" in runtime.explain(
            daily, nine + timedelta(days=1, hours=12)
        )
        assert "it fires then. It fires next" in runtime.explain(daily, nine + timedelta(days=1))
        assert "按日历不开放：该次触发将被跳过" in runtime.explain(daily, nine, "zh")
        night = define(
            runtime,
            "night",
            schedule="0 * * * *",
            run_window={"opens": "22:00", "closes": "22:01"},
            timezone="UTC",
        )
        set_due(runtime, night, datetime(year, 1, 4, 9, tzinfo=UTC))
        told = runtime.explain(night, None)
        assert "closed then by its run window" in told
        assert f"runs next at {year}-01-04T22:00:00+00:00" in told


async def test_the_next_run_is_one_at_which_the_task_is_open(database_url: str) -> None:
    async with running(database_url, Recorder("work"), start=False) as (_, runtime):
        night = {"opens": "22:00", "closes": "06:00"}
        for name, values, runs_at in (
            ("skips", {"schedule": "*/30 * * * * *"}, datetime(2030, 1, 7, 22, tzinfo=UTC)),
            ("defers", {"schedule": "0 12 * * *", "closed_policy": "defer"}, datetime(2030, 1, 7, 22, tzinfo=UTC)),
        ):
            task_id = define(runtime, name, run_window=night, **values)
            set_due(runtime, task_id, datetime(2030, 1, 7, 12, tzinfo=UTC))
            task = runtime.tasks.get(task_id)
            assert next_run_of(task) == runs_at
            assert TaskAnswer.of(task).next_run_at == runs_at
            first = next(fire for fire in runtime.upcoming.fires(5) if fire.task_id == task_id)
            assert first.at == runs_at


async def test_a_task_that_is_closed_at_every_fire_is_refused_and_a_declared_one_warned_about(
    database_url: str, warnings: list[str]
) -> None:
    never = {"schedule": "0 12 * * *", "run_window": {"opens": "22:00", "closes": "06:00"}}
    async with running(database_url, Recorder("work"), start=False) as (service, runtime):
        with pytest.raises(InvalidRequest, match="run_window: never runs: the task is closed at every fire") as no:
            define(runtime, **never)
        assert no.value.errors[0].kind == "never_fires"
        with pytest.raises(InvalidRequest, match="calendar: never runs"):
            define(runtime, schedule="0 9 1 5 *", calendar={"country": "DE"})
        define(runtime, "defers", closed_policy="defer", **never)
        define(runtime, "rarely", schedule="0 9 29 2 *", calendar={"country": "DE"})
        service.define_task("declared", "work", **never)
        runtime.reconcile_declarations()
        assert [line for line in warnings if "declared" in line and "关闭时间" in line]
        (told,) = [one for one in runtime.examine_schedules(30).findings if one.kind == "never_fires"]
        assert [task.name for task in told.tasks] == ["declared"]
        assert next_run_of(runtime.tasks.find("declared")) is None


# ---------------------------------------------------------------- changed while due


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"is_active": False}, "paused"),
        ({"schedule": "30 9 * * *"}, "rescheduled"),
        ({"timezone": "Asia/Shanghai"}, "rescheduled"),
    ],
)
async def test_fires_that_were_due_when_their_task_was_changed_stay_in_the_ledger(
    database_url: str, changes: dict[str, Any], reason: str
) -> None:
    async with running(database_url, Recorder("work"), start=False) as (_, runtime):
        task_id = define(runtime, schedule="* * * * *")
        first = datetime.now(UTC).replace(second=0, microsecond=0) - timedelta(minutes=3)
        set_due(runtime, task_id, first)
        changed = datetime.now(UTC)
        runtime.tasks.update(task_id, changes)
        (skipped,) = runtime.history.page(task_id=task_id)
        assert (skipped.state, skipped.reason) == (ExecutionState.SKIPPED, reason)
        assert skipped.first_fire_at == first
        assert skipped.fire_count >= 4
        assert f"was {reason}" in runtime.explain(task_id, first) or "was changed" in runtime.explain(
            task_id, first
        )
        after = runtime.tasks.get(task_id).next_run_at
        assert after is None if reason == "paused" else after > changed


async def test_fires_that_were_due_when_their_task_was_deleted_stay_in_the_ledger(database_url: str) -> None:
    async with running(database_url, Recorder("work"), start=False) as (_, runtime):
        task_id = define(runtime, schedule="0 9 * * *")
        set_due(runtime, task_id, datetime(2026, 1, 7, 9, tzinfo=UTC))
        runtime.tasks.delete(task_id)
        (skipped,) = runtime.history.page(task_id=task_id)
        assert (skipped.state, skipped.reason) == (ExecutionState.SKIPPED, "task_deleted")


async def test_a_pause_is_no_reason_for_what_was_before_it(database_url: str) -> None:
    async with running(database_url, Recorder("work"), start=False) as (_, runtime):
        task_id = define(runtime, schedule="0 9 * * *")
        made = runtime.tasks.get(task_id).created_at
        with runtime.engine.begin() as connection:
            connection.execute(update(ScheduledTask).values(created_at=made - timedelta(days=30)))
        runtime.tasks.pause(task_id)
        nine = made.replace(hour=9, minute=0, second=0, microsecond=0) - timedelta(days=3)
        assert "its schedule does not fire then" in runtime.explain(task_id, nine + timedelta(hours=1))
        before = runtime.explain(task_id, nine)
        assert "was changed later" in before
        assert "it is paused" not in before


@pytest.mark.parametrize("changes", [{"description": "new"}, {"schedule": "* * * * *"}, {"params": {"n": 1}}])
async def test_a_change_of_anything_but_the_schedule_leaves_a_due_fire_due(
    database_url: str, changes: dict[str, Any]
) -> None:
    async with running(database_url, Recorder("work"), start=False) as (_, runtime):
        task_id = define(runtime, schedule="* * * * *")
        first = datetime.now(UTC).replace(second=0, microsecond=0)
        set_due(runtime, task_id, first)
        runtime.tasks.update(task_id, changes)
        assert runtime.tasks.get(task_id).next_run_at == first
        assert runtime.history.page(task_id=task_id) == []


async def test_the_account_of_a_fire_is_given_in_chinese_too(database_url: str) -> None:
    async with running(database_url, Recorder("work"), start=False) as (_, runtime):
        task_id = define(runtime, schedule="* * * * *")
        first = datetime.now(UTC).replace(second=0, microsecond=0) - timedelta(minutes=3)
        set_due(runtime, task_id, first)
        runtime.tasks.pause(task_id)
        said = runtime.explain(task_id, first, "zh")
        assert "它被跳过" in said
        assert "在触发之前任务已被暂停" in said
        assert "已暂停" in runtime.explain(task_id, None, "zh")
        assert "还没有到" in runtime.explain(task_id, first + timedelta(days=1), "zh")


# ---------------------------------------------------------------- a node that lacks the package of holidays


async def test_a_node_without_the_package_of_holidays_leaves_its_tasks_to_others(
    database_url: str, monkeypatch: pytest.MonkeyPatch, warnings: list[str]
) -> None:
    async with running(database_url, Recorder("work"), start=False) as (_, runtime):
        holiday = define(runtime, "holiday", schedule="0 9 * * *", calendar={"country": "IS"})
        dates = define(runtime, "dates", schedule="0 9 * * *", calendar={"closed": ["2030-01-02"]})
        for task_id in (holiday, dates):
            set_due(runtime, task_id, START + timedelta(seconds=30))
        now = START + timedelta(seconds=31)
        monkeypatch.setitem(sys.modules, "holidays", None)
        assert fire(runtime.engine, now).tasks == 1
        assert len(ledger(runtime, dates)) == 1
        assert ledger(runtime, holiday) == []
        assert runtime.tasks.get(holiday).schedule_error is None
        with runtime.sessions() as session:
            assert next_fire_at(session.connection()) > now  # the clock does not turn round what it leaves
        (found,) = [one for one in runtime.findings() if one.kind == "unknown_holidays"]
        assert [example.name for example in found.examples] == ["holiday"]
        runtime.tasks.resume(runtime.tasks.pause(holiday).id)  # which takes no judging
        with pytest.raises(InvalidRequest, match="install contenthub-scheduler"):
            define(runtime, "another", schedule="0 9 * * *", calendar={"country": "FO"})
        set_due(runtime, holiday, START + timedelta(seconds=30))
        runtime.start()
        await until(lambda: any("holiday" in line and "holidays" in line for line in warnings))
        await asyncio.sleep(1.5)
        assert len([line for line in warnings if "holidays" in line]) == 1
        await runtime.drain(0)
        monkeypatch.undo()
        assert fire(runtime.engine, now).tasks == 1
        assert len(ledger(runtime, holiday)) == 1


async def test_a_shelved_task_fires_again_once_a_node_starts_that_can_read_it(database_url: str) -> None:
    async with running(database_url, Recorder("work"), start=False) as (_, runtime):
        ids = [define(runtime, name, schedule="0 9 * * *", calendar={"country": "IS"}) for name in ("old", "bad")]
        error = "calendar: country needs the package `holidays`"
        with runtime.sessions() as session:
            shelve = text("UPDATE scheduled_tasks SET next_run_at = NULL, schedule_error = :error")
            session.execute(shelve, {"error": error})
            spoil = text("UPDATE scheduled_tasks SET schedule_expression = '0 25 * * *' WHERE id = :id")
            session.execute(spoil, {"id": ids[1]})
            session.commit()
        report = runtime.examine_schedules(30)
        (unread,) = [one for one in report.findings if one.kind == "unreadable_schedule"]
        assert [task.id for task in unread.tasks] == ids
        assert error in unread.sentence
        runtime.start()
        mended = await until(lambda: (task := runtime.tasks.get(ids[0])).next_run_at and task)
        assert mended.schedule_error is None
        assert runtime.tasks.get(ids[1]).schedule_error == error
