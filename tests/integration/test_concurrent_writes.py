"""Two transactions over one execution at the same moment, where the database lets them overlap: PostgreSQL."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import Connection, Engine, text

from app.core.config import Settings
from app.db.database import make_engine
from app.models.task_execution import ExecutionState
from app.scheduler.attempts import FinishAttempt, finish_attempt
from app.scheduler.claims import claim
from app.scheduler.executions import reopen, request_cancel
from app.scheduler.nodes import rescue
from app.scheduler.retention import prune
from app.services.scheduler_service import TaskStatus

NOW = datetime(2030, 1, 1, tzinfo=UTC)
LATER = NOW + timedelta(days=400)


@pytest.fixture
def engine(postgres_url: str) -> Iterator[Engine]:
    engine = make_engine(Settings(database_url=postgres_url))
    with engine.begin() as connection:
        connection.execute(
            text(
                "INSERT INTO nodes (id, host, pid, role, engine, version, beats, started_at, heartbeat_at)"
                " VALUES ('sleeper', 'h', 1, 'all', 'embedded', '0', 7, now(), now())"
            )
        )
    yield engine
    engine.dispose()


def store(engine: Engine, **columns: Any) -> int:
    values = {"task_type": "x", "run_at": NOW, "created_at": NOW, **columns}
    names = ", ".join(values)
    binds = ", ".join(f":{name}" for name in values)
    with engine.begin() as connection:
        return int(
            connection.execute(
                text(f"INSERT INTO task_executions ({names}) VALUES ({binds}) RETURNING id"), values
            ).scalar_one()
        )


def state_of(engine: Engine, execution_id: int) -> tuple[str, str | None]:
    with engine.connect() as connection:
        row = connection.execute(
            text("SELECT state, owner FROM task_executions WHERE id = :id"), {"id": execution_id}
        ).one()
    return row.state, row.owner


def overlap(engine: Engine, first: Callable[[Connection], Any], second: Callable[[Connection], Any]) -> Any:
    """Run `second` while `first` has written and not yet committed; returns what `second` returns."""
    outcome: list[Any] = []

    def run_second() -> None:
        with engine.begin() as connection:
            outcome.append(second(connection))

    with engine.begin() as connection:
        first(connection)
        thread = threading.Thread(target=run_second)
        thread.start()
        until_blocked_or_done(engine, thread)
    thread.join(30)
    return outcome[0]


def until_blocked_or_done(engine: Engine, thread: threading.Thread) -> None:
    end = time.monotonic() + 30
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        while thread.is_alive() and time.monotonic() < end:
            if connection.scalar(text("SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'")):
                return
            time.sleep(0.01)


def finish(execution_id: int) -> FinishAttempt:
    return FinishAttempt(
        execution_id=execution_id,
        task_id=None,
        attempt=1,
        owner="sleeper",
        started_at=NOW,
        finished_at=NOW,
        duration_seconds=0.0,
        status=TaskStatus.SUCCESS,
        state=ExecutionState.SUCCESS,
        reason=None,
        message="",
        error=None,
        result=None,
        failures=0,
        run_at=NOW,
    )


def test_what_is_being_cancelled_is_not_claimed(engine: Engine) -> None:
    waits = store(engine)
    claimed = overlap(
        engine, lambda c: request_cancel(c, waits, NOW), lambda c: claim(c, node="n", now=LATER, limit=5)
    )
    assert claimed == []
    assert state_of(engine, waits) == ("cancelled", None)


def test_an_outcome_that_a_sleeper_is_storing_survives_its_burial(engine: Engine) -> None:
    runs = store(engine, state="running", owner="sleeper", attempt=1)
    rescued = overlap(
        engine,
        lambda c: finish_attempt(c, finish(runs)),
        lambda c: rescue(c, "sleeper", 7, now=LATER, max_rescues=3),
    )
    assert rescued == []
    assert state_of(engine, runs) == ("success", None)


def test_an_outcome_after_the_burial_is_refused(engine: Engine) -> None:
    runs = store(engine, state="running", owner="sleeper", attempt=1)
    accepted = overlap(
        engine,
        lambda c: rescue(c, "sleeper", 7, now=LATER, max_rescues=3),
        lambda c: finish_attempt(c, finish(runs)),
    )
    assert accepted is False
    assert state_of(engine, runs) == ("retrying", None)


def test_what_is_being_put_back_in_line_is_not_pruned(engine: Engine) -> None:
    failed = store(engine, state="failed", finished_at=NOW)
    pruned = overlap(engine, lambda c: reopen(c, failed, LATER), lambda c: prune(c, now=LATER, keep_days=30))
    assert pruned == 0
    assert state_of(engine, failed) == ("pending", None)
