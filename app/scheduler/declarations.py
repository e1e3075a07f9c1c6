"""Tasks declared in code, reconciled by name with the stored ones.

A field follows the code until an operator changes it; from then on it is the operator's. A task that an operator
deletes comes back at the next start: whoever wants it gone takes it out of the code, or pauses it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

from loguru import logger
from sqlalchemy import Connection, Engine, Table, select, update

from app.core.clock import Clock
from app.core.errors import Conflict, FieldError, InvalidRequest, NotFound, SchedulerError
from app.models.scheduled_task import ScheduledTask
from app.scheduler.definitions import TaskDefinition
from app.scheduler.tasks import TaskStore, located, one_transaction
from app.services.scheduler_service import SchedulerService

_tasks = cast("Table", ScheduledTask.__table__)


def reconcile(
    declared: Mapping[str, TaskDefinition],
    *,
    database: Engine,
    service: SchedulerService,
    clock: Clock,
    write: bool = True,
) -> None:
    """Create what is missing, bring what the code changed, report what the code no longer has.

    It is one transaction: where one declaration is refused, none is stored. `write=False` does everything and
    takes it back, so it refuses what the start would refuse.

    Raises:
        InvalidRequest: `errors` names every wrong task and field; nothing is stored.
    """
    errors: list[FieldError] = []
    with one_transaction(database, service, clock) as (tasks, connection):
        for definition in declared.values():
            try:
                _reconcile_one(definition, tasks)
            except Conflict:
                # Another process that starts at the same moment was first; its rows are as good as ours.
                logger.debug("task {} was reconciled by another process", definition.name)
            except SchedulerError as error:
                errors += located(definition.name, error)
        if errors:
            raise InvalidRequest(errors)
        gone = _mark_missing(connection, declared)
        if not write:
            connection.rollback()
            return
    for name in gone:
        logger.warning("任务 {} 曾在代码中声明，现已不在代码中；它保持不变，可手动删除", name)


def _mark_missing(connection: Connection, declared: Mapping[str, TaskDefinition]) -> list[str]:
    """Mark the stored tasks that the code declared once and no longer has; returns their names."""
    missing = _tasks.c.declared.is_not(None) & _tasks.c.name.not_in(list(declared))
    gone = list(connection.scalars(select(_tasks.c.name).where(missing)))
    connection.execute(
        update(_tasks)
        .where(_tasks.c.name.in_(gone), _tasks.c.declaration_missing.is_(False))
        .values(declaration_missing=True)
    )
    return gone


def _reconcile_one(definition: TaskDefinition, tasks: TaskStore) -> None:
    wanted = definition.model_dump(mode="json")
    try:
        stored = tasks.find(definition.name)
    except NotFound:
        stored = None
    if stored is None or stored.name != definition.name:
        tasks.create(definition, declared=wanted)
        return
    if stored.declared == wanted and not stored.declaration_missing:
        return
    changes = changes_from_code(wanted, stored.declared, TaskDefinition.of(stored).model_dump(mode="json"))
    tasks.update(stored.id, changes, expected_version=stored.version, declared=wanted)


def changes_from_code(
    wanted: Mapping[str, Any], before: Mapping[str, Any] | None, current: Mapping[str, Any]
) -> dict[str, Any]:
    """The fields the code has changed since `before` and no operator has touched.

    Without `before` (an operator made the task first) nothing is changed: the operator was there first.
    """
    if before is None:
        return {}
    return {
        field: value
        for field, value in wanted.items()
        if value != before.get(field) and current.get(field) == before.get(field)
    }
