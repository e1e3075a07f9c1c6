"""A request to run something once: checked, as the row it becomes, and in the caller's own transaction."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Annotated, Any, TypeVar

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    StringConstraints,
    ValidationError,
    model_validator,
)
from sqlalchemy import Connection, Executable, event
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Session

from app.core.errors import InvalidRequest, NotFound
from app.core.jsonable import to_plain_json
from app.core.language import Said
from app.core.redaction import revealed
from app.core.validation import field_errors
from app.models.task_execution import Execution, ExecutionState, RepeatedExecution
from app.scheduler.definitions import ShortText
from app.scheduler.executions import Recorded, execution_of, once, under_key
from app.scheduler.policies import RetryPolicy
from app.scheduler.rates import RateLimit, rule_of
from app.scheduler.repeats import Debounce, Repeats
from app.scheduler.request_keys import record_under
from app.scheduler.schedules import Moment
from app.scheduler.steps import Carry

T = TypeVar("T")

_NO_NUL = r"^[^\x00]*$"
_DUE = "contenthub_due"
"""Key of `Session.info` under which the due moments of enqueued executions wait for the commit."""


class ExecutionRequest(BaseModel):
    """What `enqueue()` takes, field by field."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    task_type: Annotated[str, StringConstraints(min_length=1, max_length=100)]
    params: dict[str, Any] = {}
    task_id: int | None = Field(default=None, ge=1, lt=2**31, strict=True)
    run_at: Moment | None = None
    priority: int = Field(default=0, ge=-1000, le=1000, strict=True)
    idempotency_key: ShortText | None = None
    max_attempts: int | None = Field(default=None, ge=1, le=100, strict=True)
    timeout_seconds: float | None = Field(default=None, gt=0, le=7 * 86_400, allow_inf_nan=False, strict=True)
    concurrency_key: ShortText | None = None
    concurrency_limit: int | None = Field(default=None, ge=1, le=10_000, strict=True)
    rate_limit: RateLimit | None = None
    rate_limit_key: ShortText | None = None
    """The bucket, shared by all that name it; None: one for each executor type."""
    repeats: Repeats | None = None
    trigger: Annotated[str, StringConstraints(min_length=1, max_length=20, pattern=_NO_NUL)] = "code"
    triggered_by: Annotated[str, StringConstraints(max_length=200, pattern=_NO_NUL)] | None = None

    @model_validator(mode="after")
    def _consistent(self) -> ExecutionRequest:
        if self.concurrency_limit is not None and self.concurrency_key is None:
            raise ValueError(
                Said("concurrency_limit needs a concurrency_key", "concurrency_limit 需要同时填写 concurrency_key")
            )
        if self.repeats is not None and self.idempotency_key is not None:
            raise ValueError(
                Said(
                    "idempotency_key and repeats both say what a repeated request does; give one of them",
                    "idempotency_key 与 repeats 都规定了重复请求如何处理；请只填写其中一个",
                )
            )
        if isinstance(self.repeats, Debounce) and self.run_at is not None:
            raise ValueError(
                Said(
                    "run_at is what a Debounce decides; give one of them",
                    "run_at 由 Debounce 决定；请只填写其中一个",
                )
            )
        if self.rate_limit_key is not None and self.rate_limit is None:
            raise ValueError(Said("rate_limit_key needs a rate_limit", "rate_limit_key 需要同时填写 rate_limit"))
        return self

    def rate_rule(self) -> dict[str, Any] | None:
        """Its own limit with the bucket it draws on, as the execution keeps it."""
        if self.rate_limit is None:
            return None
        return rule_of(self.rate_limit, f"request:{self.rate_limit_key or self.task_type}", self.params).as_dict()


def execution_values(
    now: datetime, /, *, retry_on: tuple[str, ...] | None = None, **request: Any
) -> dict[str, Any]:
    """The row of `task_executions` for a request. `retry_on`: the errors that its executor finds worth a retry; a
    request says how often, not what for.

    Raises:
        InvalidRequest: `errors` names every wrong field.
    """
    try:
        wanted = ExecutionRequest.model_validate(request)
    except ValidationError as error:
        raise InvalidRequest(field_errors(error)) from None
    params = plain_params(wanted.params)
    retry = RetryPolicy(max_attempts=wanted.max_attempts, retry_on=retry_on) if wanted.max_attempts else None
    return {
        "task_id": wanted.task_id,
        "task_name": None,
        "task_type": wanted.task_type,
        "params": params,
        "state": ExecutionState.PENDING.value,
        "reason": None,
        "trigger": wanted.trigger,
        "triggered_by": wanted.triggered_by,
        "scheduled_for": None,
        "first_fire_at": None,
        "fire_count": 1,
        "run_at": max(wanted.run_at.astimezone(UTC), now) if wanted.run_at is not None else now,
        "created_at": now,
        "finished_at": None,
        "owner": None,
        "retry": retry.model_dump(mode="json") if retry is not None else None,
        "timeout_seconds": wanted.timeout_seconds,
        "priority": wanted.priority,
        "concurrency_key": wanted.concurrency_key,
        "concurrency_limit": (wanted.concurrency_limit or 1) if wanted.concurrency_key is not None else None,
        "exclusive": False,
        "idempotency_key": wanted.idempotency_key,
        "trace_context": None,
        "rate_limit": wanted.rate_rule(),
    }


async def insert_into(
    db: Session | AsyncSession, values: dict[str, Any], carry: Carry, wake: Callable[[datetime], None]
) -> Execution:
    """Record an execution in the caller's own transaction; `wake` is called with its due moment after the commit.

    Nobody owns the row: a node claims it once it is visible, so a rollback, also of a savepoint, takes it away
    without a trace.
    """
    session = db.sync_session if isinstance(db, AsyncSession) else db
    statement = once(session.get_bind().dialect.name, values)
    inserted = await _first(db, statement)
    if inserted is not None:
        recorded = Recorded(execution_of(values | {"id": inserted.id}), is_new=True)
    else:
        recorded = Recorded(RepeatedExecution.from_row(await _first(db, under_key(values))), is_new=False)
    if recorded.is_new:
        if isinstance(db, AsyncSession):
            await db.run_sync(lambda sync: carry(sync.connection(), [recorded.execution]))
        else:
            carry(db.connection(), [recorded.execution])
        _wake_after_commit(session, values["run_at"], wake)
    return recorded.execution


async def insert_under(
    db: Session | AsyncSession,
    values: dict[str, Any],
    policy: Repeats,
    now: datetime,
    carry: Carry,
    wake: Callable[[datetime], None],
) -> Execution:
    """The same under a key of `policy`; who asks under that key meanwhile waits for the end of this
    transaction."""
    session = db.sync_session if isinstance(db, AsyncSession) else db

    def record(session: Session) -> Recorded:
        return record_under(session.connection(), values, policy, now, carry)

    recorded = await db.run_sync(record) if isinstance(db, AsyncSession) else record(db)
    if recorded.is_new:
        _wake_after_commit(session, recorded.execution.run_at, wake)
    return recorded.execution


class SignalRequest(BaseModel):
    """What `signal()` takes."""

    name: Annotated[str, StringConstraints(min_length=1, max_length=200, pattern=r"^[^#\x00-\x1f\x7f]+$")]


def plain_params(params: dict[str, Any]) -> dict[str, Any]:
    """Params as they are stored.

    Raises:
        InvalidRequest: they are no JSON, or a `SecretStr` in them would be shown.
    """
    try:
        plain: dict[str, Any] = to_plain_json(revealed(params, at="params"), finite=True)
    except ValueError as error:
        raise InvalidRequest.of(
            "params", Said(f"params must be JSON: {error}", f"参数须为 JSON：{error}")
        ) from None
    return plain


def checked_id(execution_id: object) -> int:
    """The id of an execution, as code gave it.

    Raises:
        InvalidRequest: it is no whole number. NotFound: no execution can have it.
    """
    if not isinstance(execution_id, int) or isinstance(execution_id, bool):
        raise InvalidRequest.of(
            "execution_id",
            Said(
                f"execution_id must be a whole number, the id of an execution, not {execution_id!r}",
                f"execution_id 须为整数，即执行的编号，而不是 {execution_id!r}",
            ),
        )
    if not 1 <= execution_id < 2**31:
        raise NotFound("execution", execution_id)
    return execution_id


def checked_signal(name: str, payload: Any) -> tuple[str, Any]:
    """The signal's name, and its payload as JSON.

    Raises:
        InvalidRequest: `errors` names every wrong field.
    """
    try:
        wanted = SignalRequest(name=name)
    except ValidationError as error:
        raise InvalidRequest(field_errors(error)) from None
    try:
        return wanted.name, to_plain_json(revealed(payload, at="payload"), finite=True)
    except ValueError as error:
        raise InvalidRequest.of(
            "payload", Said(f"the payload must be JSON: {error}", f"payload 须为 JSON：{error}")
        ) from None


async def within(
    db: Session | AsyncSession,
    work: Callable[[Connection], T],
    due: datetime,
    wake: Callable[[datetime], None],
) -> T:
    """Do `work` in the caller's own transaction; `wake` is called with `due` after its commit."""
    if isinstance(db, AsyncSession):
        done = await db.run_sync(lambda sync: work(sync.connection()))
        _wake_after_commit(db.sync_session, due, wake)
        return done
    done = work(db.connection())
    _wake_after_commit(db, due, wake)
    return done


async def _first(db: Session | AsyncSession, statement: Executable) -> Any:
    result = await db.execute(statement) if isinstance(db, AsyncSession) else db.execute(statement)
    return result.first()


def _wake_after_commit(session: Session, due: datetime, wake: Callable[[datetime], None]) -> None:
    waiting: list[datetime] | None = session.info.get(_DUE)
    if waiting is not None:
        waiting.append(due)
        return
    session.info[_DUE] = [due]

    @event.listens_for(session, "after_commit")
    def _committed(session: Session) -> None:
        # Also called for savepoints; an early wake finds nothing and harms nobody.
        for moment in session.info[_DUE]:
            wake(moment)
        if not session.in_nested_transaction():
            session.info[_DUE].clear()
