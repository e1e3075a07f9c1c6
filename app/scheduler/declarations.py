"""Tasks declared in code, checked together and then reconciled by name with the stored ones.

A field follows the code until an operator changes it; from then on it is the operator's. A task that an operator
deletes comes back at the next start: whoever wants it gone takes it out of the code, or pauses it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

from loguru import logger
from sqlalchemy import Engine, Table, select, update

from app.core.clock import Clock
from app.core.errors import Conflict, FieldError, InvalidRequest, NotFound, SchedulerError
from app.models.scheduled_task import ScheduledTask
from app.scheduler.arming import next_run_of
from app.scheduler.definitions import TaskDefinition
from app.scheduler.tasks import TaskStore, located, one_transaction
from app.services.scheduler_service import SchedulerService

_tasks = cast("Table", ScheduledTask.__table__)


def check(declared: Mapping[str, TaskDefinition], tasks: TaskStore) -> None:
    """Refuse what is wrong whatever the database holds: a new one and an old one start with the same code.

    Raises:
        InvalidRequest: `errors` names every wrong task and field.
    """
    errors: list[FieldError] = []
    for name, definition in declared.items():
        try:
            tasks.check(definition)
        except SchedulerError as error:
            errors += located(name, error)
    if errors:
        raise InvalidRequest(errors)


def reconcile(
    declared: Mapping[str, TaskDefinition], *, database: Engine, service: SchedulerService, clock: Clock
) -> None:
    """Create what is missing, bring what the code changed, report what the code no longer has.

    It is one transaction of declarations that have been checked.
    """
    wanted = {name: definition.model_dump(mode="json") for name, definition in declared.items()}
    stored = _declared_before(database)
    gone = stored.keys() - wanted.keys()
    # Most starts change nothing, and must not wait for the write lock then, which somebody may hold for long.
    settled = {name: (values, False) for name, values in wanted.items()}
    settled |= {name: (stored[name][0], True) for name in gone}
    if stored != settled:
        brought: list[ScheduledTask] = []
        with one_transaction(database, service, clock) as (tasks, connection):
            for name, definition in declared.items():
                try:
                    brought += _reconcile_one(definition, wanted[name], tasks)
                except Conflict:
                    # Another process that starts at the same moment was first; its rows are as good as ours.
                    logger.debug("task {} was reconciled by another process", name)
                except SchedulerError as error:
                    # The declaration is right; what an operator or plain SQL made of the row does not go with it.
                    logger.warning("任务 {} 的声明与库中已被修改的内容不相容，任务保持不变：{}", name, error)
            connection.execute(update(_tasks).where(_tasks.c.name.in_(gone)).values(declaration_missing=True))
        for task in brought:
            if task.exhausted_at == task.updated_at:  # it was armed now, and found no fire
                logger.warning("任务 {} 的计划今后不会触发，仅作为已结束的任务保存", task.name)
            elif task.next_run_at is not None and next_run_of(task) is None:
                logger.warning("任务 {} 的每次触发都在关闭时间（时段或日历），不会运行", task.name)
    for name in sorted(gone):
        logger.warning("任务 {} 曾在代码中声明，现已不在代码中；它保持不变，可手动删除", name)


def _declared_before(database: Engine) -> dict[str, tuple[dict[str, Any], bool]]:
    """What each task was declared as that the code declares or once did, and whether it was missing there."""
    columns = (_tasks.c.name, _tasks.c.declared, _tasks.c.declaration_missing)
    with database.connect() as connection:
        found = connection.execute(select(*columns).where(_tasks.c.declared.is_not(None)))
        return {row.name: (row.declared, row.declaration_missing) for row in found}


def _reconcile_one(definition: TaskDefinition, wanted: dict[str, Any], tasks: TaskStore) -> list[ScheduledTask]:
    """The task as it is stored now; nothing where it was so already."""
    try:
        stored = tasks.find(definition.name)
    except NotFound:
        stored = None
    if stored is None or stored.name != definition.name:
        return [tasks.create(definition, declared=wanted)]
    if stored.declared == wanted and not stored.declaration_missing:
        return []
    changes = changes_from_code(wanted, stored.declared, TaskDefinition.of(stored).model_dump(mode="json"))
    return [tasks.update(stored.id, changes, expected_version=stored.version, declared=wanted)]


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
