"""Rows that somebody wrote by hand and wrongly: refused at the door, or set aside; the others run."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from pydantic import BaseModel, model_validator
from sqlalchemy import Engine, text
from sqlalchemy.exc import DatabaseError

from app.core.errors import InvalidRequest
from app.models.task_execution import ExecutionState
from app.scheduler.nodes import rescue
from tests.support import Recorder, ended, running, until

BROKEN: dict[str, list[tuple[str, Any]]] = {
    "scheduled_tasks": [
        ("params", "{"),
        ("params", "[1]"),
        ("params", "null"),
        ("retry", "3"),
        ("declared", "nonsense"),
    ],
    "task_executions": [("params", "{"), ("params", '"text"'), ("retry", "[]"), ("result", "{,}")],
}
BROKEN_ON_SQLITE: dict[str, list[tuple[str, Any]]] = {
    "scheduled_tasks": [
        ("next_run_at", "tomorrow"),
        ("next_run_at", "2030-02-30 12:00:00"),
        ("next_run_at", "2030-01-07T12:00:00"),
        ("start_at", "2030-01-07 12:00:00+08:00"),
        ("end_at", 1_900_000_000),
        ("timeout_seconds", "soon"),
        ("priority", "high"),
        ("jitter_seconds", "some"),
    ],
    "task_executions": [
        ("run_at", "now"),
        ("scheduled_for", "12:00"),
        ("created_at", "2030-01-07 25:00:00"),
        ("timeout_seconds", "1s"),
        ("priority", 1.5),
    ],
}


def _insert(engine: Engine, table: str, **values: Any) -> int:
    row = {"task_type": "work"} | ({"name": f"n{values}"[:200]} if table == "scheduled_tasks" else {}) | values
    with engine.begin() as connection:
        values_of = ", ".join(f":{name}" for name in row)
        statement = text(f"INSERT INTO {table} ({', '.join(row)}) VALUES ({values_of}) RETURNING id")
        inserted: int = connection.scalar(statement, row)
        return inserted


@pytest.mark.parametrize("table", list(BROKEN))
def test_what_could_not_be_read_again_is_refused(engine: Engine, table: str) -> None:
    broken = BROKEN[table] + (BROKEN_ON_SQLITE[table] if engine.dialect.name == "sqlite" else [])
    for column, value in broken:
        try:
            _insert(engine, table, **{column: value})
        except DatabaseError:
            continue
        pytest.fail(f"{table}.{column} took {value!r}")
    with engine.connect() as connection:
        assert connection.scalar(text(f"SELECT count(*) FROM {table}")) == 0


@pytest.mark.parametrize(
    "moment", ["2030-01-07 12:00:00", "2030-01-07 12:00:00.5", "2030-12-31 23:59:59.999999", "0999-01-01 00:00:00"]
)
def test_moments_in_plain_sql_may_have_fractions_of_a_second(engine: Engine, moment: str) -> None:
    _insert(engine, "scheduled_tasks", next_run_at=moment)
    _insert(engine, "task_executions", run_at=moment)


async def test_a_task_that_cannot_be_planned_is_set_aside_and_the_others_fire(database_url: str) -> None:
    executor = Recorder("work")
    async with running(database_url, executor, start=False) as (service, runtime):
        past = datetime.now(UTC) - timedelta(seconds=5)
        moment = past.strftime("%Y-%m-%d %H:%M:%S") + ("" if "sqlite" in database_url else "+00")
        common = {"schedule_type": "interval", "next_run_at": moment, "params": '{"n": 1}'}
        broken = [
            _insert(
                runtime.engine, "scheduled_tasks", name="zone", **common, schedule_expression="60", timezone="M/X"
            ),
            _insert(runtime.engine, "scheduled_tasks", name="every", **common, schedule_expression="often"),
            _insert(
                runtime.engine,
                "scheduled_tasks",
                name="jit",
                **common,
                schedule_expression="60",
                jitter_seconds=-1e300,
            ),
            _insert(
                runtime.engine,
                "scheduled_tasks",
                name="far",
                **common,
                schedule_expression="60",
                jitter_seconds=1e300,
            ),
        ]
        good = _insert(runtime.engine, "scheduled_tasks", name="good", **common, schedule_expression="60")
        service.start()
        await until(lambda: runtime.tasks.get(good).last_state == "success")
        for task_id in broken[:2] + broken[3:]:
            assert runtime.tasks.get(task_id).schedule_error, task_id
            assert runtime.tasks.get(task_id).next_run_at is None
        assert "cannot be read" in runtime.explain(broken[0], datetime.now(UTC))
        with pytest.raises(InvalidRequest, match="schedule"):
            runtime.tasks.pause(broken[1])
        runtime.tasks.update(broken[1], {"schedule": {"type": "interval", "seconds": 60}})
        assert runtime.tasks.get(broken[1]).next_run_at is not None


class _Touchy(BaseModel):
    @model_validator(mode="before")
    @classmethod
    def _count(cls, values: Any) -> Any:
        assert len(values["n"])  # TypeError for a number
        return values


async def test_a_params_model_that_raises_anything_parks_the_execution_and_the_engine_goes_on(
    database_url: str,
) -> None:
    touchy = Recorder("touchy", params_model=_Touchy)
    async with running(database_url, touchy, Recorder("work"), start=False) as (service, runtime):
        broken = _insert(runtime.engine, "task_executions", task_type="touchy", params='{"n": 1}')
        service.start()
        parked = await ended(runtime, broken)
        assert (parked.state, parked.reason) == (ExecutionState.PARKED, "invalid_params")
        for _ in range(3):
            await until(lambda turns=runtime.live.engine._pool._rounds: runtime.live.engine._pool._rounds > turns)  # type: ignore[union-attr]
        after = _insert(runtime.engine, "task_executions", task_type="work")
        assert (await ended(runtime, after)).state is ExecutionState.SUCCESS


@pytest.mark.parametrize("retry", ['{"max_attempts": 0}', '{"on_node_lost": "pray"}'])
async def test_a_policy_that_cannot_be_read_fails_what_a_dead_node_ran_and_rescues_the_rest(
    database_url: str, retry: str
) -> None:
    async with running(database_url, Recorder("work"), start=False) as (_, runtime):
        with runtime.engine.begin() as connection:
            connection.execute(
                text(
                    "INSERT INTO nodes (id, host, pid, role, engine, version, beats, started_at, heartbeat_at)"
                    " VALUES ('dead', 'elsewhere', 1, 'all', 'embedded', '0', 7, '2030-01-07 12:00:00',"
                    " '2030-01-07 12:00:00')"
                )
            )
        lost = {"state": "running", "owner": "dead", "attempt": 1}
        broken = _insert(runtime.engine, "task_executions", **lost, retry=retry)
        sound = _insert(runtime.engine, "task_executions", **lost)
        with runtime.engine.begin() as connection:
            rescue(connection, "dead", 7, now=datetime.now(UTC), max_rescues=3)
        assert runtime.history.get(broken).state is ExecutionState.FAILED
        assert runtime.history.get(sound).state is ExecutionState.RETRYING


async def test_a_policy_that_cannot_be_read_fails_the_execution(database_url: str) -> None:
    async with running(database_url, Recorder("work")) as (_, runtime):
        broken = _insert(runtime.engine, "task_executions", retry='{"max_attempts": 0}')
        found = await ended(runtime, broken)
        assert found.state is ExecutionState.FAILED
        assert "max_attempts" in (found.error or "")
