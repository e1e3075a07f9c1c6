"""The store of task definitions: create, read, change, pause, resume, delete."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

from sqlalchemy import ColumnElement, Connection, Engine, delete, func, literal, select, tuple_, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session, sessionmaker

from app.core.clock import Clock
from app.core.errors import (
    Conflict,
    FieldError,
    InvalidRequest,
    NotFound,
    SchedulerError,
    VersionConflict,
    sentence_of,
)
from app.core.jsonable import to_plain_json
from app.core.language import Said
from app.core.redaction import redact, refuse_lending, refuse_masks, restore
from app.db.database import begin_write
from app.db.types import UtcDateTime
from app.models.scheduled_task import ScheduledTask
from app.models.task_change import TaskChange
from app.models.task_execution import WAITING_STATES, ExecutionState, state_in
from app.scheduler.arming import first_fire, next_run_of
from app.scheduler.definitions import TaskDefinition
from app.scheduler.executions import executions
from app.scheduler.family import call_off_descendants, wake_parents
from app.scheduler.firing import skip_due
from app.scheduler.limits import pass_on_limits
from app.scheduler.schedules import AtSchedule
from app.services.scheduler_service import SchedulerService

_NEVER = datetime(9999, 1, 1, tzinfo=UTC)
_SCHEDULE_COLUMNS = (
    "schedule_type",
    "schedule_expression",
    "timezone",
    "dst_policy",
    "start_at",
    "end_at",
    "is_active",
)


class TaskOrder(StrEnum):
    """What a list of tasks is sorted by; the id settles ties."""

    ID = "id"
    NAME = "name"
    NEXT_RUN_AT = "next_run_at"
    """Soonest fire of the schedule first, whether the task is open then or not; what does not fire comes last."""


_ORDER_KEYS: dict[TaskOrder, tuple[ColumnElement[Any], ...]] = {
    TaskOrder.ID: (ScheduledTask.__table__.c.id,),
    TaskOrder.NAME: (ScheduledTask.__table__.c.name,),
    TaskOrder.NEXT_RUN_AT: (
        func.coalesce(ScheduledTask.__table__.c.next_run_at, literal(_NEVER, UtcDateTime)),
        ScheduledTask.__table__.c.id,
    ),
}


class TaskStore:
    """Every guarded write and read of `scheduled_tasks` outside the fire transaction.

    Each method is one transaction. Changes are guarded by `version`: with `expected_version` a change made by
    somebody else in between is a Conflict instead of being overwritten.
    """

    def __init__(
        self,
        service: SchedulerService,
        sessions: sessionmaker[Session],
        clock: Clock,
        on_change: Callable[[], None],
    ) -> None:
        self._service = service
        self._sessions = sessions
        self._clock = clock
        self._on_change = on_change

    def create(
        self, definition: TaskDefinition, *, declared: Mapping[str, Any] | None = None, by: str = "code"
    ) -> ScheduledTask:
        """Store a task and arm its schedule. `by`: who asks, for the task's history.

        One that never fires from now on, or is closed whenever it would, is refused; if the code declares it
        (`declared`), which was right when it was written, it is stored all the same.

        Raises:
            ExecutorNotFound, InvalidParameters, InvalidRequest: the field is named, nothing is stored.
            Conflict: the name is taken.
        """
        now = self._clock.now()
        self.check(definition)
        task = ScheduledTask(**definition.columns(), created_at=now, updated_at=now, version=1)
        task.declared = dict(declared) if declared is not None else None
        _arm(task, definition, now)
        if task.exhausted_at is not None and declared is None:
            field = "schedule.at" if isinstance(definition.schedule, AtSchedule) else "schedule"
            raise InvalidRequest.of(
                field,
                Said("never fires from now on; choose a moment to come", "从现在起永远不会触发；请选择将来的时刻"),
                "never_fires",
            )
        if task.next_run_at is not None and next_run_of(task) is None and declared is None:
            raise InvalidRequest.of(
                "calendar" if task.run_window is None else "run_window",
                Said(
                    "never runs: the task is closed at every fire of its schedule; change the schedule, the window"
                    " or the calendar, or write closed_policy defer",
                    "永远不会运行：计划的每次触发都在关闭时间；请修改计划、时段或日历，"
                    "或把 closed_policy 设为 defer",
                ),
                "never_fires",
            )
        with self._sessions() as session:
            begin_write(session.connection())
            session.add(task)
            try:
                session.flush()
            except IntegrityError as error:
                raise Conflict.taken("task", definition.name) from error
            _note(session, task, "create", {}, definition.columns(), by, now)
            session.commit()
        self._on_change()
        return task

    def get(self, task_id: int) -> ScheduledTask:
        """Raises NotFound."""
        with self._sessions() as session:
            return _require(session, task_id)

    def find(self, name_or_id: str) -> ScheduledTask:
        """By name, or by id where no task has that name. Raises NotFound."""
        with self._sessions() as session:
            task = session.scalar(select(ScheduledTask).where(ScheduledTask.name == name_or_id))
            if task is None and name_or_id.isdecimal() and len(name_or_id) < 19:
                task = session.get(ScheduledTask, int(name_or_id))
        if task is None:
            raise NotFound("task", name_or_id)
        return task

    def page(
        self,
        *,
        after_id: int = 0,
        limit: int = 50,
        task_type: str | None = None,
        is_active: bool | None = None,
        last_state: ExecutionState | None = None,
        search: str | None = None,
        order: TaskOrder = TaskOrder.ID,
    ) -> list[ScheduledTask]:
        """Up to `limit` tasks that come after the task `after_id` in this order. `search`: part of the name."""
        key = _ORDER_KEYS[order]
        query = select(ScheduledTask).order_by(*key).limit(limit)
        if after_id:
            last = select(*key).where(ScheduledTask.id == after_id).subquery()
            query = query.join(last, tuple_(*key) > tuple_(*last.c))
        if last_state is not None:
            query = query.where(ScheduledTask.last_state == last_state.value)
        if task_type is not None:
            query = query.where(ScheduledTask.task_type == task_type)
        if is_active is not None:
            query = query.where(ScheduledTask.is_active == is_active)
        if search:
            query = query.where(ScheduledTask.name.icontains(search, autoescape=True))
        with self._sessions() as session:
            return list(session.scalars(query))

    def count(self) -> dict[str, int]:
        """How many tasks there are: `total` and `active`."""
        with self._sessions() as session:
            total = session.scalar(select(func.count()).select_from(ScheduledTask)) or 0
            active = session.scalar(select(func.count()).select_from(ScheduledTask).where(ScheduledTask.is_active))
        return {"total": total, "active": active or 0}

    def update(
        self,
        task_id: int,
        changes: Mapping[str, Any],
        *,
        expected_version: int | None = None,
        declared: Mapping[str, Any] | None = None,
        by: str = "code",
        action: str = "update",
        lends_secrets: bool = True,
    ) -> ScheduledTask:
        """Change the named fields; the rest stays. Limits (rate, concurrency) hold for what waits too, everything
        else from the next fire on. Secrets sent back redacted stay what they are, beside other
        params too if the caller `lends_secrets`.

        Raises:
            NotFound, Conflict (another version), InvalidRequest, ExecutorNotFound, InvalidParameters.
        """
        now = self._clock.now()
        with self._sessions() as session:
            begin_write(session.connection())
            task = _require(session, task_id, lock=True)
            if expected_version is not None and task.version != expected_version:
                raise VersionConflict("task", task_id, found=task.version, expected=expected_version)
            values = {**_plain_values(task), **changes}
            if not lends_secrets:
                sent = changes.get("params", redact(task.params))
                refuse_lending(sent, task.params, elsewhere=values["task_type"] != task.task_type)
            if isinstance(changes.get("params"), Mapping):
                values["params"] = restore(changes["params"], task.params)
            definition = TaskDefinition.parse(values)
            after = definition.columns()
            before = {column: getattr(task, column) for column in after}
            if after == before and task.schedule_error is None and declared is None:
                return task  # asking for what is so already changes nothing, its version least of all
            if after["calendar"] == before["calendar"]:
                # A calendar that only other nodes can judge is no reason not to pause it.
                self._check_work(definition)
            else:
                self.check(definition)
            if is_rescheduled := task.schedule_error is not None or any(
                before[column] != after[column] for column in _SCHEDULE_COLUMNS
            ):
                reason = "rescheduled" if definition.is_active else "paused"
                skip_due(session.connection(), task_id, now=now, reason=reason)
            for column, value in after.items():
                setattr(task, column, value)
            task.version += 1
            task.updated_at = now
            if declared is not None:
                task.declared = dict(declared)
                task.declaration_missing = False
            if is_rescheduled:
                _arm(task, definition, now)
            try:
                session.flush()
            except IntegrityError as error:
                raise Conflict.taken("task", definition.name) from error
            pass_on_limits(session.connection(), task_id, before, after)
            _note(session, task, action, before, after, by, now)
            session.commit()
        self._on_change()
        return task

    def pause(self, task_id: int, *, by: str = "code") -> ScheduledTask:
        """Stop firing; what is under way goes on. Raises NotFound."""
        return self.update(task_id, {"is_active": False}, by=by, action="pause")

    def resume(self, task_id: int, *, by: str = "code") -> ScheduledTask:
        """Fire again from now on; fires that fell into the pause are not made up. Raises NotFound."""
        return self.update(task_id, {"is_active": True}, by=by, action="resume")

    def delete(self, task_id: int, *, expected_version: int | None = None, by: str = "code") -> None:
        """Delete the task and cancel what waits; history and running executions stay.

        Raises:
            NotFound, Conflict (another version).
        """
        with self._sessions() as session:
            begin_write(session.connection())
            task = _require(session, task_id, lock=True)
            if expected_version is not None and task.version != expected_version:
                raise VersionConflict("task", task_id, found=task.version, expected=expected_version)
            skip_due(session.connection(), task_id, now=self._clock.now(), reason="task_deleted")
            _cancel_waiting(session.connection(), task_id, self._clock.now())
            columns = TaskDefinition.column_names()
            before = {column: getattr(task, column) for column in columns}
            _note(session, task, "delete", before, dict.fromkeys(columns), by, self._clock.now())
            session.execute(delete(ScheduledTask).where(ScheduledTask.id == task_id))
            session.commit()
        self._on_change()

    def changes(self, task_id: int, *, before_id: int | None = None, limit: int = 50) -> list[TaskChange]:
        """Up to `limit` changes of a task with ids below `before_id`, newest first; a deleted task's remain."""
        query = select(TaskChange).where(TaskChange.task_id == task_id).order_by(TaskChange.id.desc()).limit(limit)
        if before_id is not None:
            query = query.where(TaskChange.id < before_id)
        with self._sessions() as session:
            return list(session.scalars(query))

    def check(self, definition: TaskDefinition) -> None:
        """Raises ExecutorNotFound, InvalidParameters, InvalidRequest: nobody runs it, its params are wrong, or its
        calendar cannot be judged here."""
        self._check_work(definition)
        definition.hours()

    def _check_work(self, definition: TaskDefinition) -> None:
        refuse_masks(definition.params)
        self._service.check(definition.task_type, dict(definition.params))


@contextmanager
def one_transaction(
    database: Engine, service: SchedulerService, clock: Clock
) -> Iterator[tuple[TaskStore, Connection]]:
    """A store whose methods are parts of one transaction of that connection, committed at the end: where something
    is raised, none of them has happened."""
    with database.connect() as connection, connection.begin():
        begin_write(connection)
        # Every commit of the store releases a savepoint; the one that counts is the connection's own.
        sessions = sessionmaker(connection, expire_on_commit=False, join_transaction_mode="create_savepoint")
        yield TaskStore(service, sessions, clock, on_change=lambda: None), connection


def located(name: str, error: SchedulerError) -> list[FieldError]:
    """The error's fields, each under its task: `tasks[NAME].params.topic`."""
    found = error.errors or (FieldError("", sentence_of(error), error.code),)
    return [
        FieldError(f"tasks[{name}]" + (f".{item.field}" if item.field else ""), item.message, item.kind)
        for item in found
    ]


def _cancel_waiting(connection: Connection, task_id: int, now: datetime) -> None:
    """Cancel what waits of a task that is about to be deleted, with its children."""
    waiting = (*WAITING_STATES, ExecutionState.PARKED)
    ended = connection.execute(
        update(executions)
        .where(
            executions.c.task_id == task_id, state_in(executions.c.state, waiting), executions.c.owner.is_(None)
        )
        .values(state=ExecutionState.CANCELLED.value, reason="task_deleted", finished_at=now)
        .returning(executions.c.id, executions.c.parent_id)
    ).all()
    call_off_descendants(connection, [row.id for row in ended], now)
    wake_parents(connection, [row.parent_id for row in ended], now)


def _require(session: Session, task_id: int, *, lock: bool = False) -> ScheduledTask:
    task = session.get(ScheduledTask, task_id, with_for_update=lock)
    if task is None:
        raise NotFound("task", task_id)
    return task


def _note(
    session: Session,
    task: ScheduledTask,
    action: str,
    before: Mapping[str, Any],
    after: Mapping[str, Any],
    by: str,
    now: datetime,
) -> None:
    """Write the change into the task's history, in the transaction that makes it."""
    changed = {
        column: [to_plain_json(before.get(column)), to_plain_json(value)]
        for column, value in after.items()
        if before.get(column) != value
    }
    session.add(
        TaskChange(
            task_id=task.id,
            task_name=task.name,
            version=task.version,
            action=action,
            changed_by=by,
            changed_at=now,
            changes=changed,
        )
    )


def _plain_values(task: ScheduledTask) -> dict[str, Any]:
    """The stored columns as `TaskDefinition` takes them, not yet checked: a change may be what mends them."""
    values: dict[str, Any] = {
        name: getattr(task, name) for name in TaskDefinition.model_fields if name != "schedule"
    }
    if task.schedule_type == "cron":
        values["schedule"] = {"type": "cron", "expression": task.schedule_expression}
    elif task.schedule_type == "interval":
        values["schedule"] = {"type": "interval", "seconds": _number_in(task.schedule_expression)}
    elif task.schedule_type == "at":
        values["schedule"] = {"type": "at", "at": task.schedule_expression}
    return values


def _number_in(text: str | None) -> float | str | None:
    try:
        return float(text or 0)
    except ValueError:
        return text


def _arm(task: ScheduledTask, definition: TaskDefinition, now: datetime) -> None:
    """Set the next fire of a task from its definition."""
    task.schedule_error = None
    task.exhausted_at = None
    task.next_run_at = None
    if definition.is_active and definition.schedule is not None:
        task.next_run_at = first_fire(task, now)
        task.exhausted_at = now if task.next_run_at is None else None
