"""Tasks declared in code, reconciled by name with the stored ones.

A field follows the code until an operator changes it; from then on it is the operator's.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from loguru import logger
from sqlalchemy import select, update
from sqlalchemy.orm import Session, sessionmaker

from app.core.errors import Conflict, NotFound
from app.models.scheduled_task import ScheduledTask
from app.scheduler.definitions import TaskDefinition
from app.scheduler.tasks import TaskStore


def reconcile(declared: Mapping[str, TaskDefinition], tasks: TaskStore, sessions: sessionmaker[Session]) -> None:
    """Create what is missing, bring what the code changed, report what the code no longer has."""
    for definition in declared.values():
        try:
            _reconcile_one(definition, tasks)
        except Conflict:
            # Another process that starts at the same moment was first; its rows are as good as ours.
            logger.debug("task {} was reconciled by another process", definition.name)
    with sessions() as session:
        gone = list(
            session.scalars(
                select(ScheduledTask.name).where(
                    ScheduledTask.declared.is_not(None), ScheduledTask.name.not_in(list(declared))
                )
            )
        )
        session.execute(
            update(ScheduledTask)
            .where(ScheduledTask.name.in_(gone), ScheduledTask.declaration_missing.is_(False))
            .values(declaration_missing=True)
        )
        session.commit()
    for name in gone:
        logger.warning("任务 {} 曾在代码中声明，现已不在代码中；它保持不变，可手动删除", name)


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
