"""Many requests at once: all of them are recorded, or none."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, select
from sqlalchemy.exc import IntegrityError

from app.core.errors import FieldError, InvalidRequest, SchedulerError
from app.core.language import Said
from app.core.redaction import refuse_masks
from app.core.validation import first_of
from app.models.task_execution import RepeatedExecution
from app.scheduler.executions import (
    Recorded,
    execution_of,
    executions,
    insert_executions,
    insert_once,
)
from app.scheduler.requests import ExecutionRequest, execution_values
from app.scheduler.steps import Carry
from app.services.scheduler_service import SchedulerService

MAX_ITEMS = 10_000
_KEYS_AT_ONCE = 500


def bulk_values(
    service: SchedulerService,
    items: Sequence[Mapping[str, Any]],
    now: datetime,
    *,
    trigger: str,
    triggered_by: str | None,
) -> list[dict[str, Any]]:
    """The rows of `task_executions` for many requests, all of them checked.

    Raises:
        InvalidRequest: `errors` names the first `TOLD` wrong fields, as in `items.17.params.topic`, counted from
            0, and says how many more there are.
    """
    if not 1 <= len(items) <= MAX_ITEMS:
        raise InvalidRequest.of(
            "items",
            Said(
                f"give 1 to {MAX_ITEMS} items, not {len(items)}",
                f"请给出 1 到 {MAX_ITEMS} 项，而不是 {len(items)} 项",
            ),
        )
    rows: list[dict[str, Any]] = []
    errors: list[FieldError] = []
    for position, item in enumerate(items):
        try:
            rows.append(_values(service, item, now, trigger, triggered_by))
        except SchedulerError as error:
            errors += [
                replace(found, field=f"items.{position}.{found.field}".rstrip(".")) for found in error.errors
            ]
    if errors:
        raise InvalidRequest(first_of(errors, len(errors)))
    return rows


def _values(
    service: SchedulerService, item: Mapping[str, Any], now: datetime, trigger: str, triggered_by: str | None
) -> dict[str, Any]:
    if not isinstance(item, Mapping):
        raise InvalidRequest.of(
            "",
            Said(f"must be an object, not {type(item).__name__}", f"须为对象，而不是 {type(item).__name__}"),
            "dict_type",
        )
    request = dict(item)
    for name in request:
        if name not in ExecutionRequest.model_fields:
            raise InvalidRequest.of(
                str(name),
                Said("is no option of a request; leave it out", "不是请求的选项；请去掉"),
                "extra_forbidden",
            )
    for name in ("repeats", "trigger", "triggered_by"):
        if request.get(name) is not None:
            raise InvalidRequest.of(
                name,
                Said("is no option of a bulk request; leave it out", "不是批量请求的选项；请去掉"),
                "extra_forbidden",
            )
        request.pop(name, None)
    executor = service.get_executor(str(request.get("task_type")))
    retry_on = executor.retry_on if executor is not None else None
    values = execution_values(now, retry_on=retry_on, trigger=trigger, triggered_by=triggered_by, **request)
    refuse_masks(values["params"])
    service.check(values["task_type"], values["params"])
    return values


def record_many(connection: Connection, rows: Sequence[dict[str, Any]], carry: Carry) -> list[Recorded]:
    """Insert executions in the caller's transaction; one whose idempotency key is taken, by another row or by an
    earlier one of these, is answered with the execution that has it. Outcomes are in the order of `rows`."""
    try:
        with connection.begin_nested():
            recorded = _record_together(connection, rows)
    except IntegrityError:
        # Somebody else has just used one of the keys, unseen until its commit.
        recorded = [_record_alone(connection, row) for row in rows]
    carry(connection, [one.execution for one in recorded if one.is_new])
    return recorded


def _record_together(connection: Connection, rows: Sequence[dict[str, Any]]) -> list[Recorded]:
    taken = _taken(connection, [row["idempotency_key"] for row in rows if row["idempotency_key"] is not None])
    fresh: list[dict[str, Any]] = []
    first: dict[str, dict[str, Any]] = {}
    for row in rows:
        key = row["idempotency_key"]
        if key is None:
            fresh.append(row)
        elif key not in taken and key not in first:
            first[key] = row
            fresh.append(row)
    insert_executions(connection, fresh)
    return [_outcome(row, taken, first) for row in rows]


def _outcome(
    row: dict[str, Any], taken: dict[str, RepeatedExecution], first: dict[str, dict[str, Any]]
) -> Recorded:
    key = row["idempotency_key"]
    if key in taken:
        return Recorded(taken[key], is_new=False)
    if key is not None and first[key] is not row:
        return Recorded(RepeatedExecution._make(execution_of(first[key])), is_new=False)
    return Recorded(execution_of(row), is_new=True)


def _taken(connection: Connection, keys: Sequence[str]) -> dict[str, RepeatedExecution]:
    found: dict[str, RepeatedExecution] = {}
    for start in range(0, len(keys), _KEYS_AT_ONCE):
        some = keys[start : start + _KEYS_AT_ONCE]
        for row in connection.execute(select(executions).where(executions.c.idempotency_key.in_(some))):
            found[row.idempotency_key] = RepeatedExecution.from_row(row)
    return found


def _record_alone(connection: Connection, row: dict[str, Any]) -> Recorded:
    if row["idempotency_key"] is not None:
        return insert_once(connection, row)
    insert_executions(connection, [row])
    return Recorded(execution_of(row), is_new=True)
