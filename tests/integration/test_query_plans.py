"""What the scheduler asks many times a second is answered from an index, however long the history is."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import Connection, Engine, event, text
from sqlalchemy.orm import Session, sessionmaker

from app.core.config import Settings
from app.db.database import make_engine
from app.db.schema import upgrade
from app.models.task_execution import EXECUTION_FIELDS, ExecutionState, TaskExecution
from app.scheduler import (
    backfills,
    buckets,
    circuits,
    claims,
    executions,
    firing,
    nodes,
    request_keys,
    retention,
)
from app.scheduler.alerting import checking
from app.scheduler.attention import Attention
from app.scheduler.changes import ChangeWatch
from app.scheduler.explain import explain
from app.scheduler.history import History
from app.scheduler.statistics import Period, Statistics

SMALL = {"nodes", "circuits", "sqlite_sequence", "level", "types_in_use", "CONSTANT", "(subquery-1)"}
"""Tables of a few rows, whatever happens; the priorities that a claim finds, the types that tasks have, and the
rows given to a bulk update."""
NOW = datetime(2030, 1, 1, tzinfo=UTC)
DAY = timedelta(days=1)


@pytest.fixture
def engine(sqlite_url: str) -> Iterator[Engine]:
    settings = Settings(database_url=sqlite_url)
    upgrade(settings)
    engine = make_engine(settings)
    with engine.begin() as connection:
        connection.execute(
            text(
                "INSERT INTO scheduled_tasks (id, name, task_type, next_run_at, schedule_type,"
                " schedule_expression) VALUES (1, 'a', 'x', '2031-01-01 00:00:00', 'cron', '0 * * * *')"
            )
        )
        connection.execute(text("INSERT INTO task_executions (task_type, task_id) VALUES ('x', 1), ('x', 1)"))
        connection.execute(
            text("UPDATE task_executions SET concurrency_key = 'k', run_at = '2029-01-01 00:00:00'")
        )
        connection.execute(
            text(
                "INSERT INTO rate_limits (key, rate, per_seconds, burst, tat, line_end, updated_at) VALUES"
                " ('k', 1, 1, 1, '2029-01-01 00:00:00', '2031-01-01 00:00:00', '2029-01-01 00:00:00')"
            )
        )
    yield engine
    engine.dispose()


def _history(connection: Connection) -> History:
    return History(sessionmaker(connection.engine))


def _sessions(connection: Connection) -> sessionmaker[Session]:
    return sessionmaker(connection.engine)


def _findings(connection: Connection) -> Any:
    return Attention(_sessions(connection)).findings(NOW, known_types=["x"], node_timeout=timedelta(seconds=30))


def _explain(connection: Connection) -> str:
    return explain(sessionmaker(connection.engine), 1, NOW, NOW)


ASKED: list[tuple[str, Callable[[Connection], Any]]] = [
    ("ix_scheduled_tasks_due", lambda c: firing.fire_due(c, now=NOW, limit=9, owner_of=lambda _: None)),
    ("ix_scheduled_tasks_due", firing.next_fire_at),
    ("ix_scheduled_tasks_unarmed", lambda c: firing.arm_tasks(c, now=NOW, limit=9)),
    (
        "ix_task_executions_active_task",
        lambda c: firing.fire_now(
            c, 1, now=NOW, params=None, trigger="manual", triggered_by=None, owner_of=lambda _: None
        ),
    ),
    ("ix_task_executions_claimable", lambda c: claims.claim(c, node="n", now=NOW, limit=9)),
    ("ix_task_executions_running_key", lambda c: claims.claim(c, node="n", now=NOW, limit=9)),
    ("ix_task_executions_active_task", lambda c: claims.claim(c, node="n", now=NOW, limit=9)),
    ("ix_task_executions_put_off", lambda c: claims.claim(c, node="n", now=NOW, limit=9)),
    ("ix_task_executions_claimable", lambda c: checking.due_deliveries(c, NOW, 4)),
    ("ix_task_executions_put_off", lambda c: buckets.next_put_off(c, NOW)),
    ("ix_task_executions_waits_for", lambda c: buckets.close_gaps(c, {}, NOW)),
    ("ix_rate_limits_line_end", lambda c: buckets.has_line(c, NOW)),
    ("ix_rate_limits_tat", lambda c: buckets.forget_idle(c, NOW)),
    ("ix_request_keys_expires_at", lambda c: request_keys.forget_expired(c, NOW)),
    ("ix_task_executions_waits_for", lambda c: circuits.release_waiting(c, "x")),
    ("uq_task_executions_fire", lambda c: backfills.preview_backfill(c, 1, NOW - DAY, NOW, NOW)),
    ("ix_task_executions_owned", lambda c: executions.cancel_requests(c, "n")),
    ("ix_task_executions_state", lambda c: executions.parked(c, "invalid_params")),
    ("ix_task_executions_finished", lambda c: retention.prune(c, now=NOW, keep_days=1)),
    ("ix_task_executions_state", lambda c: _history(c).page(states=[ExecutionState.FAILED])),
    ("ix_task_executions_task", lambda c: _history(c).page(task_id=1)),
    ("ix_task_executions_span", _explain),
    ("ix_task_executions_state", _findings),
    ("ix_scheduled_tasks_due", _findings),
    ("ix_scheduled_tasks_broken", _findings),
    ("ix_scheduled_tasks_failing", _findings),
    ("ix_scheduled_tasks_type", _findings),
]

ASKED_BY_PAGES: list[tuple[str, Callable[[Connection], Any]]] = [
    ("ix_task_executions_finished", lambda c: Statistics(_sessions(c)).series(Period.WEEK, NOW)),
    ("ix_task_executions_finished", lambda c: Statistics(_sessions(c)).series(Period.DAY, NOW, task_type="x")),
    ("ix_task_executions_finished", lambda c: Statistics(_sessions(c)).by_type(Period.WEEK, NOW)),
    ("ix_task_executions_finished", lambda c: ChangeWatch(_sessions(c)).look()),
    ("ix_task_executions_suspended", lambda c: ChangeWatch(_sessions(c)).look()),
    ("ix_task_executions_task", lambda c: _history(c).recent([1], 10)),
]


def _plans(engine: Engine, ask: Callable[[Connection], Any]) -> list[str]:
    """SQLite's plan of each query that `ask` makes, a line a step."""
    asked: list[tuple[str, Any]] = []

    def note(_c: Any, _cursor: Any, statement: str, parameters: Any, _context: Any, many: bool) -> None:
        if statement.startswith(("SELECT", "WITH", "UPDATE", "DELETE")):
            asked.append((statement, parameters[0] if many else parameters))

    event.listen(engine, "before_cursor_execute", note)
    try:
        with engine.connect() as connection:
            ask(connection)
            connection.rollback()
    finally:
        event.remove(engine, "before_cursor_execute", note)
    with engine.connect() as connection:
        return [
            row.detail
            for statement, parameters in asked
            for row in connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", parameters)
        ]


@pytest.mark.parametrize(("index", "ask"), [*ASKED, *ASKED_BY_PAGES])
def test_it_uses_its_index(engine: Engine, index: str, ask: Callable[[Connection], Any]) -> None:
    plans = _plans(engine, ask)
    assert any(f"USING INDEX {index}" in step or f"USING COVERING INDEX {index}" in step for step in plans), plans


@pytest.mark.parametrize("ask", [ask for _, ask in ASKED], ids=[f"{n}" for n in range(len(ASKED))])
def test_it_walks_through_no_table(engine: Engine, ask: Callable[[Connection], Any]) -> None:
    walked = [step for step in _plans(engine, ask) if step.startswith("SCAN ") and "USING" not in step]
    assert [step for step in walked if step.split()[1] not in SMALL] == []


def test_a_rescue_finds_what_the_dead_node_held_by_its_owner(engine: Engine) -> None:
    with engine.begin() as connection:
        connection.execute(
            text(
                "INSERT INTO nodes (id, host, pid, role, engine, version, started_at, heartbeat_at)"
                " VALUES ('n', 'h', 1, 'all', 'e', '0', '2029-01-01 00:00:00', '2029-01-01 00:00:00')"
            )
        )
    plans = _plans(engine, lambda c: nodes.rescue(c, "n", 0, now=NOW, max_rescues=1))
    assert sum("ix_task_executions_owned" in step for step in plans) == 2


def test_an_execution_has_its_columns_in_the_order_of_the_table() -> None:
    assert [column.name for column in TaskExecution.__table__.columns] == list(EXECUTION_FIELDS)
