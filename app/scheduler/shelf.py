"""Tasks that do not fire because somebody cannot read them: shelved for all, or left by this process to others.

A task that nobody can read is shelved, with the reason in its `schedule_error`. One that only this process cannot
judge, for want of the package of holidays, stays due: a node that has the package fires it.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any, cast

from loguru import logger
from sqlalchemy import (
    JSON,
    ColumnElement,
    Connection,
    Dialect,
    Row,
    Select,
    Table,
    select,
    true,
    type_coerce,
    update,
)
from sqlalchemy import cast as sql_cast

from app.models.scheduled_task import ScheduledTask
from app.scheduler.arming import first_fire, trigger_of
from app.scheduler.rates import task_rule
from app.scheduler.windows import hours_of, knows_holidays

tasks = cast("Table", ScheduledTask.__table__)


def judged_here(dialect: Dialect) -> ColumnElement[bool]:
    """Which tasks this process can judge."""
    return true() if knows_holidays() else _country(dialect).is_(None)


def left_to_others(dialect: Dialect) -> Select[tuple[int, str]] | None:
    """The active tasks with a schedule that this process cannot judge, by id and name; None: it can judge all."""
    if knows_holidays():
        return None
    is_timed = tasks.c.schedule_type.is_not(None)
    return select(tasks.c.id, tasks.c.name).where(tasks.c.is_active, is_timed, _country(dialect).is_not(None))


def _country(dialect: Dialect) -> ColumnElement[str | None]:
    """The country of a task's calendar. The column is text that holds JSON, see `app.db.types.Json`."""
    is_sqlite = dialect.name == "sqlite"
    stored = type_coerce(tasks.c.calendar, JSON) if is_sqlite else sql_cast(tasks.c.calendar, JSON)
    return cast("ColumnElement[str | None]", stored["country"].as_string())


def say_left(connection: Connection) -> None:
    """Log what this process leaves to others, if anything."""
    query = left_to_others(connection.dialect)
    names = [] if query is None else [row.name for row in connection.execute(query.order_by(tasks.c.id).limit(5))]
    if names:
        logger.warning(
            "本进程没有 holidays 包（extra [calendars]），日历含国家的任务留给其他节点触发，例如: {}",
            "、".join(names),
        )


def rearm_shelved(connection: Connection, now: datetime) -> None:
    """Take from the shelf what this process can read: it has another version of a package than the node that
    shelved it, or plain SQL has mended the row."""
    shelved = select(tasks).where(tasks.c.is_active, tasks.c.schedule_error.is_not(None))
    for task in connection.execute(shelved.order_by(tasks.c.id).with_for_update(skip_locked=True)).all():
        if not _is_readable(task):
            continue
        next_fire = first_fire(task, now)
        connection.execute(
            update(tasks)
            .where(tasks.c.id == task.id)
            .values(schedule_error=None, next_run_at=next_fire, exhausted_at=now if next_fire is None else None)
        )
        logger.info("任务 {} 的调度现在可以解析，已恢复", task.id)


def _is_readable(task: Row[Any]) -> bool:
    """Whether all can be read that firing reads."""
    try:
        hours_of(task.run_window, task.calendar, task.timezone)
        if task.rate_limit is not None:
            task_rule(task.id, task.rate_limit, task.params)
        return trigger_of(task) is not None
    except Exception:  # noqa: BLE001 - what plain SQL wrote may be anything; the task stays shelved, and says why
        return False
