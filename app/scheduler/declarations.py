"""Tasks declared in code, reconciled by name with the stored ones.

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
    wanted = {name: definition.model_dump(mode="json") for name, definition in declared.items()}
    stored = _declared_before(database)
    gone = stored.keys() - wanted.keys()
    # Most starts change nothing, and must not wait for the write lock then, which somebody may hold for long.
    if any(stored.get(name) != (values, False) for name, values in wanted.items()) or any(
        not is_missing for _, is_missing in (stored[name] for name in gone)
    ):
        errors: list[FieldError] = []
        with one_transaction(database, service, clock) as (tasks, connection):
            for name, definition in declared.items():
                try:
                    _reconcile_one(definition, wanted[name], tasks)
                except Conflict:
                    # Another process that starts at the same moment was first; its rows are as good as ours.
                    logger.debug("task {} was reconciled by another process", name)
                except SchedulerError as error:
                    errors += located(name, error)
            if errors:
                raise InvalidRequest(errors)
            connection.execute(update(_tasks).where(_tasks.c.name.in_(gone)).values(declaration_missing=True))
            if not write:
                connection.rollback()
    if write:
        for name in sorted(gone):
            logger.warning("任务 {} 曾在代码中声明，现已不在代码中；它保持不变，可手动删除", name)


def _declared_before(database: Engine) -> dict[str, tuple[dict[str, Any], bool]]:
    """What each task was declared as that the code declares or once did, and whether it was missing there."""
    columns = (_tasks.c.name, _tasks.c.declared, _tasks.c.declaration_missing)
    with database.connect() as connection:
        found = connection.execute(select(*columns).where(_tasks.c.declared.is_not(None)))
        return {row.name: (row.declared, row.declaration_missing) for row in found}


def _reconcile_one(definition: TaskDefinition, wanted: dict[str, Any], tasks: TaskStore) -> None:
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
