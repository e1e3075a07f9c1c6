"""The contract: `TaskStatus`, `TaskExecutionResult`, `TaskExecutor`, `SchedulerService`.

A backend team subclasses `TaskExecutor`, registers an instance, and from then on the scheduler runs it.
`execute_task()` is the primitive: look up, validate, execute, time, log; it stores nothing. Everything durable
(`enqueue`, schedules, retries, history) lives in `app/scheduler/` behind the small `SchedulerRuntime` protocol.
"""

from __future__ import annotations

import asyncio
import threading
from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from enum import Enum
from inspect import iscoroutinefunction, unwrap
from math import inf
from time import perf_counter
from types import NoneType
from typing import Any, ClassVar, Literal, NoReturn, Protocol, get_args

from apscheduler.schedulers.asyncio import AsyncIOScheduler
from loguru import logger
from pydantic import BaseModel, ValidationError
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Session

from app.core.errors import Conflict, ExecutorNotFound, FieldError, InvalidParameters, InvalidRequest, stack_of
from app.core.jsonable import safe_text, to_plain_json
from app.core.language import Said, in_each
from app.core.redaction import declare_secrets, redact, redact_quotes, redact_text
from app.core.validation import message_of
from app.models.task_execution import Execution, ExecutionState
from app.scheduler.breaker import CircuitBreaker
from app.scheduler.pace import Backfill, Pace, Stopped
from app.scheduler.rates import RateLimit
from app.scheduler.repeats import Repeats

Lane = Literal["thread", "loop"]

_lazy_logger = logger.opt(lazy=True)


class TaskStatus(str, Enum):  # noqa: UP042 - as the seed has it
    """Status of one attempt. There is no fourth: the life of a request is `ExecutionState`."""

    RUNNING = "running"
    SUCCESS = "success"
    FAILED = "failed"


@dataclass
class TaskExecutionResult:
    """What an attempt came to. `duration` is in seconds."""

    success: bool
    message: str
    data: dict[str, Any] | None = None
    error: str | None = None
    duration: float | None = None
    metadata: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def success_result(
        cls,
        message: str,
        data: dict[str, Any] | None = None,
        duration: float | None = None,
        metadata: dict[str, Any] | None = None,
    ) -> TaskExecutionResult:
        return cls(success=True, message=message, data=data, duration=duration, metadata=metadata or {})

    @classmethod
    def failure_result(
        cls,
        message: str,
        error: str | None = None,
        duration: float | None = None,
        metadata: dict[str, Any] | None = None,
        data: dict[str, Any] | None = None,
    ) -> TaskExecutionResult:
        return cls(
            success=False, message=message, data=data, error=error, duration=duration, metadata=metadata or {}
        )

    @property
    def status(self) -> TaskStatus:
        return TaskStatus.SUCCESS if self.success else TaskStatus.FAILED

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON, fit for a JSON column: datetime, Decimal, UUID … become strings.

        Raises:
            ValueError: `data` or `metadata` holds something that has no JSON form.
        """
        return {
            "success": self.success,
            "message": safe_text(self.message),
            "data": self.data if self.data is None else to_plain_json(self.data),
            "error": self.error if self.error is None else safe_text(self.error),
            "duration": self.duration,
            "metadata": to_plain_json(self.metadata) if self.metadata else {},
        }


@dataclass
class Refusal(TaskExecutionResult):
    """The result of a task that was never run: nobody is registered for its type, or the params are not accepted.

    A type of its own, because what an executor puts in its `metadata` is the executor's business.
    """

    @property
    def code(self) -> str:
        """`unknown_executor` or `invalid_params`."""
        return str(self.metadata["code"])


class TaskExecutor(ABC):
    """What a team writes: one kind of work.

    Optional class attributes: `params_model` (params are validated against it, and its JSON Schema is
    published), `lane` ("thread": each attempt on a worker thread with an event loop of its own, so that
    blocking calls harm nobody; "loop": on the application's loop, for executors that only await), defaults
    for `timeout_seconds` and `max_attempts` where a task sets none, `retry_on` (names of the errors that are worth
    a retry where a task has no retry policy, as `error` begins with them; None: all; an `ExceptionGroup` of one
    error is that error), `rate_limit` (how many attempts may start, on all nodes together), `circuit_breaker`
    (when to stop starting them for a while) and `waits_for_others` (people or executions decide what it comes to,
    so that a further attempt changes nothing: `retry_on` then holds whatever a task says).
    """

    params_model: ClassVar[type[BaseModel] | None] = None
    lane: ClassVar[Lane] = "thread"
    timeout_seconds: ClassVar[float | None] = None
    max_attempts: ClassVar[int] = 1
    retry_on: ClassVar[tuple[str, ...] | None] = None
    rate_limit: ClassVar[RateLimit | None] = None
    circuit_breaker: ClassVar[CircuitBreaker | None] = None
    waits_for_others: ClassVar[bool] = False

    @property
    @abstractmethod
    def executor_type(self) -> str:
        """返回执行器类型标识（如 'content_generation', 'publishing'）"""

    @abstractmethod
    async def execute(self, task_id: int, task_params: dict[str, Any], db: Session) -> TaskExecutionResult:
        """执行任务的核心逻辑

        `task_id` is 0 when the execution belongs to no stored task. `db` is this attempt's own Session: it is
        committed together with the recorded success, and rolled back on anything else.
        """

    def validate_params(self, task_params: dict[str, Any]) -> bool:
        """验证任务参数（默认返回 True）

        One that raises `InvalidParameters` says which fields are wrong and why.
        """
        return True

    def refuse_retry(self, result: dict[str, Any] | None) -> str | None:
        """Why an execution that is over, with this stored result, must not be run again; None: it may be."""
        return None

    def got_over(self, task_params: dict[str, Any], children: Mapping[str, ExecutionState]) -> Collection[str]:
        """Those of an execution's children, by key, which failed or were cancelled and which a retry of it leaves
        as they are, because it went on without them.

        Args:
            task_params: the execution's.
            children: every child's state, by key.
        """
        return ()

    def refuse_child_retry(
        self, task_params: dict[str, Any], key: str, children: Mapping[str, ExecutionState]
    ) -> str | None:
        """Why that child of an execution must not be retried by itself; None: it may be.

        Args:
            task_params: the execution's.
            key: the child's.
            children: every child's state, by key; while the execution is under way a cancelled one is to it as one
                that failed.
        """
        return None

    def get_executor_info(self) -> dict[str, Any]:
        """获取执行器元信息"""
        info: dict[str, Any] = {
            "type": self.executor_type,
            "class": self.__class__.__name__,
            "module": self.__class__.__module__,
        }
        if self.params_model is not None:
            info["params_schema"] = self.params_model.model_json_schema()
        return info


class SchedulerCommands(Protocol):
    """What may be asked of it; `app.scheduler.commands.Commands` is it."""

    async def enqueue(
        self,
        task_type: str,
        params: dict[str, Any],
        *,
        db: Session | AsyncSession | None,
        task_id: int | None,
        run_at: datetime | None,
        priority: int,
        idempotency_key: str | None,
        max_attempts: int | None,
        timeout_seconds: float | None,
        concurrency_key: str | None,
        concurrency_limit: int | None,
        rate_limit: RateLimit | None,
        rate_limit_key: str | None,
        repeats: Repeats | None,
        trigger: str,
        triggered_by: str | None,
    ) -> Execution: ...
    async def enqueue_many(
        self, items: Sequence[Mapping[str, Any]], *, trigger: str, triggered_by: str | None
    ) -> list[Execution]: ...
    async def backfill(
        self,
        task_id: int,
        start: datetime,
        end: datetime,
        *,
        pace: Pace,
        triggered_by: str | None,
    ) -> Backfill: ...
    async def cancel_backfill(self, task_id: int) -> Stopped: ...
    async def run_now(
        self, task_id: int, *, params: dict[str, Any] | None, trigger: str, triggered_by: str | None
    ) -> Execution: ...
    async def cancel(self, execution_id: int) -> Execution: ...
    async def retry(self, execution_id: int) -> Execution: ...
    async def signal(
        self,
        execution_id: int,
        name: str,
        payload: Any,
        *,
        db: Session | AsyncSession | None,
        signalled_by: str | None,
    ) -> object: ...


class SchedulerRuntime(Protocol):
    """What stands behind the durable half of `SchedulerService`; `app.scheduler.runtime.Runtime` is it."""

    @property
    def scheduler(self) -> AsyncIOScheduler: ...
    @property
    def is_running(self) -> bool: ...
    def start(self) -> None: ...
    def shutdown(self, *, wait: bool) -> None: ...
    async def drain(self, timeout: float | None) -> None: ...
    @property
    def commands(self) -> SchedulerCommands: ...
    async def wait(self, execution_id: int, timeout: float | None) -> TaskExecutionResult: ...
    def explain(self, task_id: int, at: datetime | None) -> str: ...
    def declaration(self, values: Mapping[str, Any]) -> dict[str, Any]: ...


class SchedulerService:
    """Registers executors, runs them, and speaks for the scheduler behind it."""

    def __init__(self, runtime: SchedulerRuntime | None = None) -> None:
        self._executors: dict[str, TaskExecutor] = {}
        self._declared: dict[str, dict[str, Any]] = {}
        self._runtime = runtime

    # ---------------------------------------------------------------- registry

    def register_executor(self, executor: TaskExecutor) -> None:
        """Make `executor` run tasks of its type; a second one of the same type replaces the first.

        Raises:
            InvalidRequest: `executor` is no TaskExecutor instance, its type is empty or too long, its `execute()`
                is no coroutine function, or another class attribute is nothing that it may be.
        """
        candidate: object = executor
        if not isinstance(candidate, TaskExecutor):
            hint = "; pass an instance, not the class" if isinstance(executor, type) else ""
            raise InvalidRequest.of("executor", f"{executor!r} is no TaskExecutor{hint}")
        task_type: object = executor.executor_type
        if not isinstance(task_type, str) or not task_type.strip() or len(task_type) > 100:
            raise InvalidRequest.of(
                "executor_type",
                f"{type(executor).__name__}.executor_type must be a text of 1 to 100 characters, "
                f"not {task_type!r}",
            )
        if not iscoroutinefunction(unwrap(executor.execute)):
            raise InvalidRequest.of(
                "execute",
                f"{type(executor).__name__}.execute() must be a coroutine function: write `async def execute(…)`; "
                "it may block, each attempt has a thread of its own",
            )
        _check_attributes(executor)
        if task_type in self._executors:
            logger.warning("执行器 {} 已注册，将被 {} 替换", task_type, type(executor).__name__)
        if executor.params_model is not None:
            declare_secrets(executor.params_model)
        self._executors[task_type] = executor
        logger.debug("已注册执行器: {} ({})", task_type, type(executor).__name__)

    def get_executor(self, task_type: str) -> TaskExecutor | None:
        """The executor of that type, or None."""
        return self._executors.get(task_type)

    def executors(self) -> dict[str, TaskExecutor]:
        """Every registered executor, by type."""
        return dict(self._executors)

    def get_registered_executors(self) -> dict[str, dict[str, Any]]:
        """Every registered type with its `get_executor_info()`."""
        return {task_type: executor.get_executor_info() for task_type, executor in self._executors.items()}

    def check(self, task_type: str, task_params: dict[str, Any]) -> TaskExecutor:
        """The executor that would run these params.

        Raises:
            ExecutorNotFound: none is registered under `task_type`.
            InvalidParameters: it refuses the params; `errors` names the fields.
        """
        executor = self._executors.get(task_type)
        if executor is None:
            raise ExecutorNotFound(task_type, self._executors)
        try:
            _accept(executor, task_params)
        except InvalidParameters as error:
            raise InvalidParameters(
                [
                    replace(found, message=in_each(found.message, lambda text: redact_text(text, task_params)))
                    for found in error.errors
                ]
            ) from error.__cause__
        return executor

    # ---------------------------------------------------------------- the primitive

    async def execute_task(
        self, task_id: int, task_type: str, task_params: dict[str, Any], db: Session
    ) -> TaskExecutionResult:
        """Run one executor here and now and tell what came of it.

        Never raises for an executor's fault: that is a failed result, its `error` reading `TypeName: message`.
        `asyncio.CancelledError` passes through. `db` belongs to the caller and is left alone.
        """
        started = perf_counter()
        logger.info("开始执行任务 {} (类型: {})", task_id, task_type)
        _lazy_logger.debug("任务参数: {}", lambda: redact(task_params))
        result: TaskExecutionResult
        try:
            executor = self.check(task_type, task_params)
        except ExecutorNotFound as error:
            result = _refusal(f"未找到执行器: {task_type}", f"ExecutorNotFound: {task_type}", error)
        except InvalidParameters as error:
            result = _refusal("任务参数验证失败", "InvalidParameters", error)
        else:
            # Only now: what the executor itself asks the scheduler for, and is refused, is its own failure.
            result = await _executed(executor, task_id, task_params, db)
        elapsed = perf_counter() - started
        if result.duration is None:
            result = replace(result, duration=elapsed)
        log_outcome(task_id, result, elapsed)
        return result

    # ---------------------------------------------------------------- scheduler control

    @property
    def runtime(self) -> SchedulerRuntime:
        """The durable half, made from the process's settings unless the factory handed one in."""
        if self._runtime is None:
            # Lazy, and the only import that points up: `SchedulerService().start()` must work without a factory.
            from app.scheduler.runtime import Runtime

            self._runtime = Runtime(self)
        return self._runtime

    def attach(self, runtime: SchedulerRuntime) -> None:
        """Put `runtime` behind this service (the factory does)."""
        self._runtime = runtime

    @property
    def scheduler(self) -> AsyncIOScheduler:
        """The APScheduler underneath, for ad hoc `add_job` of your own."""
        return self.runtime.scheduler

    @property
    def is_running(self) -> bool:
        return self._runtime is not None and self._runtime.is_running

    def start(self) -> None:
        """Start firing schedules and running executions, in the running event loop. Idempotent.

        Raises:
            SchedulerUnavailable: no event loop runs here; the message says what to do.
        """
        self.runtime.start()

    def shutdown(self, wait: bool = True) -> None:  # noqa: FBT001, FBT002 - the seed's signature
        """Stop claiming, give running attempts the grace period, hand back the rest. Idempotent.

        Called on the scheduler's own loop it returns at once and the drain goes on in the background (blocking
        the loop would keep attempts from finishing). `await drain()` waits for it, and so does the end of
        `asyncio.run()`. `wait=False` hands back at once.
        """
        if self._runtime is not None:
            self._runtime.shutdown(wait=wait)

    async def drain(self, timeout: float | None = None) -> None:
        """Shut down and wait until it is done; `timeout` seconds of grace (None: the setting)."""
        if self._runtime is not None:
            await self._runtime.drain(timeout)

    # ---------------------------------------------------------------- durable work

    async def enqueue(
        self,
        task_type: str,
        params: dict[str, Any] | None = None,
        *,
        db: Session | AsyncSession | None = None,
        task_id: int | None = None,
        run_at: datetime | None = None,
        priority: int = 0,
        idempotency_key: str | None = None,
        max_attempts: int | None = None,
        timeout_seconds: float | None = None,
        concurrency_key: str | None = None,
        concurrency_limit: int | None = None,
        rate_limit: RateLimit | None = None,
        rate_limit_key: str | None = None,
        repeats: Repeats | None = None,
        trigger: str = "code",
        triggered_by: str | None = None,
    ) -> Execution:
        """Record a request to run `task_type` once; it is durable when this returns.

        With `db` the row is part of the caller's transaction: nothing happens unless that commits. On
        SQLite commit soon: nobody else can record anything meanwhile, and no node can renew its lease.
        `idempotency_key`: a repeated request returns the first execution. A higher `priority` goes first.
        At most `concurrency_limit` (1 if only the key is given) executions of one `concurrency_key` run at once.
        `rate_limit` holds beside that of the executor, for all that name the same `rate_limit_key` (None: of this
        type). `max_attempts` replaces the executor's number; after which errors it is tried again, its `retry_on`
        says. `repeats` says what a repeated request does: `Debounce`, `Throttle`, `Once`; the answer `is_repeat`
        where an earlier request stands for this one.

        Raises:
            ExecutorNotFound, InvalidParameters, InvalidRequest: refused, nothing stored.
            SchedulerUnavailable: the database is out of reach, nothing stored.
            Conflict: without `db`, on SQLite, while a Session of this task, used as `db`, is uncommitted.
        """
        return await self.runtime.commands.enqueue(
            task_type,
            {} if params is None else params,
            db=db,
            task_id=task_id,
            run_at=run_at,
            priority=priority,
            idempotency_key=idempotency_key,
            max_attempts=max_attempts,
            timeout_seconds=timeout_seconds,
            concurrency_key=concurrency_key,
            concurrency_limit=concurrency_limit,
            rate_limit=rate_limit,
            rate_limit_key=rate_limit_key,
            repeats=repeats,
            trigger=trigger,
            triggered_by=triggered_by,
        )

    async def enqueue_many(
        self, items: Sequence[Mapping[str, Any]], *, trigger: str = "code", triggered_by: str | None = None
    ) -> list[Execution]:
        """Record up to 10,000 requests, all of them or none; returns their executions in the same order.

        An item has `task_type`, `params` and the options of `enqueue()` without `db` and `repeats`. One whose
        `idempotency_key` is taken is answered with the execution that has it, which then `is_repeat`.

        Raises:
            InvalidRequest: `errors` names every wrong field, as in `items.17.params.topic`; nothing is stored.
            SchedulerUnavailable: the database is out of reach, nothing stored.
        """
        return await self.runtime.commands.enqueue_many(items, trigger=trigger, triggered_by=triggered_by)

    async def backfill(
        self,
        task_id: int,
        start: datetime,
        end: datetime,
        *,
        pace: Pace | None = None,
        triggered_by: str | None = None,
    ) -> Backfill:
        """Run the fires a task would have had from `start` until before `end`, but for those in its ledger.

        `pace`: how many at once, or one every so many seconds; by default one after the other.

        Raises:
            NotFound: no such task. InvalidRequest: no schedule, no past range, or too many fires; nothing is
            stored.
        """
        return await self.runtime.commands.backfill(
            task_id, start, end, pace=pace or Pace(), triggered_by=triggered_by
        )

    async def cancel_backfill(self, task_id: int) -> Stopped:
        """End what is left of the backfills of a task; the schedule goes on. Raises NotFound."""
        return await self.runtime.commands.cancel_backfill(task_id)

    async def run_now(
        self,
        task_id: int,
        params: dict[str, Any] | None = None,
        *,
        trigger: str = "manual",
        triggered_by: str | None = None,
    ) -> Execution:
        """Fire a stored task now, under its own policies; `params` replaces the stored ones for this run.

        Raises:
            NotFound: no such task. ExecutorNotFound, InvalidParameters: refused, nothing stored.
        """
        return await self.runtime.commands.run_now(
            task_id, params=params, trigger=trigger, triggered_by=triggered_by
        )

    async def cancel(self, execution_id: int) -> Execution:
        """Cancel an execution: a waiting one at once, a running one as soon as its code lets go. Its children go
        with it.

        Raises:
            NotFound: no such execution. Conflict: it is over already.
        """
        return await self.runtime.commands.cancel(execution_id)

    async def retry(self, execution_id: int) -> Execution:
        """Run a failed, cancelled or parked execution again, as a further attempt of the same execution: steps
        that finished stay done, children that failed or were cancelled are tried again.

        Raises:
            NotFound: no such execution. Conflict: it succeeded, was skipped, or is still under way.
        """
        return await self.runtime.commands.retry(execution_id)

    async def signal(
        self,
        execution_id: int,
        name: str,
        payload: Any = None,
        *,
        db: Session | AsyncSession | None = None,
        signalled_by: str | None = None,
    ) -> None:
        """Tell an execution something that its `wait_for_signal(name)` returns; kept until it asks.

        `payload` is JSON. With `db` the signal is part of the caller's transaction: an approval and what it
        approves happen together or not at all.

        Raises:
            NotFound: no such execution. Conflict: it is over. InvalidRequest: no name, or a payload that is no
            JSON.
        """
        await self.runtime.commands.signal(execution_id, name, payload, db=db, signalled_by=signalled_by)

    async def wait(self, execution_id: int, timeout: float | None = None) -> TaskExecutionResult:
        """The outcome of an execution, wherever it runs; `timeout` in seconds, None waits for ever.

        Raises:
            TimeoutError: not over in time. NotFound: no such execution.
        """
        return await self.runtime.wait(execution_id, timeout)

    def explain(self, task_id: int, at: datetime | None = None) -> str:
        """In a sentence: why did the task run, or not, at that moment (None: what will it do next)."""
        return self.runtime.explain(task_id, at)

    def define_task(self, name: str, task_type: str, **definition: Any) -> None:
        """Declare a task in code; start reconciles it by name. Fields as in `TaskDefinition`.

        Raises:
            InvalidRequest: the definition is wrong; `errors` names the fields.
            Conflict: the name is declared already, with another definition, or the scheduler runs.
        """
        declared = self.runtime.declaration({"name": name, "task_type": task_type, **definition})
        if self.is_running and declared["name"] not in self._declared:
            raise Conflict.of(
                "name",
                f"task {name!r} is declared too late: define_task() comes before start(), which stores all that "
                "the code declares; put it beside register_executor()",
            )
        if self._declared.setdefault(declared["name"], declared) != declared:
            raise Conflict.of("name", f"a task named {name!r} is declared twice in code; rename or remove one")

    def declared_tasks(self) -> dict[str, dict[str, Any]]:
        """The definitions that `define_task()` has declared, plain JSON, by name."""
        return dict(self._declared)


def _accept(executor: TaskExecutor, task_params: dict[str, Any]) -> None:
    """Raises InvalidParameters if `executor` refuses them."""
    if executor.params_model is not None:
        try:
            executor.params_model.model_validate(task_params)
        except ValidationError as error:
            raise InvalidParameters(_field_errors(error)) from None
        except Exception as error:
            raise InvalidParameters([FieldError("params", describe_error(error))]) from error
    try:
        accepted = executor.validate_params(task_params)
    except InvalidParameters:
        raise  # it has named the fields itself
    except Exception as error:
        raise InvalidParameters([FieldError("params", describe_error(error))]) from error
    if not accepted:
        raise InvalidParameters(
            [
                FieldError(
                    "params",
                    Said(f"refused by {type(executor).__name__}", f"{type(executor).__name__} 拒绝了这些参数"),
                )
            ]
        )


async def _executed(
    executor: TaskExecutor, task_id: int, task_params: dict[str, Any], db: Session
) -> TaskExecutionResult:
    """What the executor returned; its fault is a result too."""
    try:
        result = _checked(await executor.execute(task_id, task_params, db), executor)
    except BaseException as error:
        if _is_from_outside(error):
            raise
        said, stack = redact_quotes((describe_error(error), stack_of(error)), task_params)
        logger.error("任务 {} 执行异常: {}\n{}", task_id, said, stack)
        return TaskExecutionResult.failure_result(
            message=f"任务执行异常: {said}", error=said, metadata={"traceback": stack}
        )
    told = {"message": result.message, "error": result.error, "metadata": result.metadata}
    hidden = redact_quotes(told, task_params)
    return result if hidden is told else replace(result, **hidden)


def _check_attributes(executor: TaskExecutor) -> None:
    def is_number(value: object, least: float, most: float, *kinds: type) -> bool:
        return isinstance(value, kinds) and not isinstance(value, bool) and least <= value <= most  # type: ignore[operator]

    def are_names(value: object) -> bool:
        return isinstance(value, tuple) and all(
            isinstance(name, str) and name.replace(".", "_").isidentifier() for name in value
        )

    timeout, retry_on = executor.timeout_seconds, executor.retry_on
    for name, is_right, wanted in (
        ("lane", executor.lane in get_args(Lane), "'thread' or 'loop'"),
        ("max_attempts", is_number(executor.max_attempts, 1, 100, int), "a whole number from 1 to 100"),
        (
            "timeout_seconds",
            timeout is None or is_number(timeout, 0.001, 7 * 86_400, int, float),
            "from 0.001 seconds to a week (604800), or None",
        ),
        ("retry_on", retry_on is None or are_names(retry_on), "a tuple of names of errors, or None"),
        ("rate_limit", isinstance(executor.rate_limit, RateLimit | None), "a RateLimit or None"),
        (
            "circuit_breaker",
            isinstance(executor.circuit_breaker, CircuitBreaker | None),
            "a CircuitBreaker or None",
        ),
    ):
        if not is_right:
            raise InvalidRequest.of(name, f"{name} must be {wanted}, not {getattr(executor, name)!r}")


def describe_error(error: BaseException) -> str:
    """`TypeName: message`; an exception without text still gives its name. A group of one error, as a TaskGroup
    raises it, is described as that error; of several, by each of them."""
    leaves = _leaves(error)
    if len(leaves) == 1:
        return _described(leaves[0])
    return f"{_described(error)}: {'; '.join(map(_described, leaves))}"


def _leaves(error: BaseException) -> list[BaseException]:
    found, unseen = [], [error]
    while unseen:
        one = unseen.pop()
        if isinstance(one, BaseExceptionGroup):
            unseen += reversed(one.exceptions)
        else:
            found.append(one)
    return found


def _described(error: BaseException) -> str:
    text = str(error).strip()
    name = type(error).__name__
    return f"{name}: {text}" if text else name


def _field_errors(error: ValidationError) -> list[FieldError]:
    found = error.errors(include_url=False, include_input=False)
    inside = {item["loc"][:depth] for item in found for depth in range(len(item["loc"]))}
    return [
        FieldError(".".join(["params", *map(str, item["loc"])]), message_of(item), item["type"])
        for item in found
        # pydantic calls a list too short that would not be, had its items been right
        if item["type"] != "too_short" or item["loc"] not in inside
    ]


def _is_from_outside(error: BaseException) -> bool:
    """Cancellation, or Ctrl-C: Python raises that one in the main thread only."""
    if isinstance(error, KeyboardInterrupt):
        return threading.current_thread() is threading.main_thread()
    return isinstance(error, asyncio.CancelledError)


def _checked(result: object, executor: TaskExecutor) -> TaskExecutionResult:
    """`result` if the contract allows it; what breaks it is the executor's fault and raises."""
    name = type(executor).__name__
    if not isinstance(result, TaskExecutionResult):
        _break_contract(f"{name}.execute() returned {type(result).__name__}, not TaskExecutionResult")
    for field_name, types in _RESULT_TYPES.items():
        value: object = getattr(result, field_name)
        if not isinstance(value, types) or (field_name == "duration" and isinstance(value, bool)):
            _break_contract(f"{name}.execute() returned a result whose {field_name} is {type(value).__name__}")
    if result.duration is not None and not 0 <= result.duration < inf:
        _break_contract(f"{name}.execute() returned a result that took {result.duration} seconds")
    try:
        result.to_dict()
    except ValueError as error:
        _break_contract(f"the result of {name}.execute() is no JSON: {error}")
    if not result.success and not result.error:
        return replace(result, error=result.message or name)
    return result


_RESULT_TYPES: dict[str, type | tuple[type, ...]] = {
    "success": bool,
    "message": str,
    "error": (str, NoneType),
    "duration": (int, float, NoneType),
    "metadata": dict,
}
"""What the contract wants of a result; its `data` is checked by making JSON of it."""


def _break_contract(sentence: str) -> NoReturn:
    raise TypeError(sentence)


def _refusal(message: str, error_text: str, error: InvalidRequest | ExecutorNotFound) -> Refusal:
    return Refusal(
        success=False,
        message=message,
        error=error_text,
        metadata={"code": error.code, "errors": [item.as_dict() for item in error.errors]},
    )


def log_outcome(task_id: int, result: TaskExecutionResult, elapsed: float) -> None:
    """Log what an attempt came to after `elapsed` seconds, in the seed's words."""
    if result.success:
        logger.info("任务 {} 执行成功，耗时 {:.2f}秒", task_id, elapsed)
        logger.debug("执行结果: {}", result.message)
        return
    logger.info("任务 {} 执行失败，耗时 {:.2f}秒", task_id, elapsed)
    logger.debug("执行结果: {}", result.message)
    logger.error("任务 {} 失败原因: {}", task_id, result.error)
    if "errors" in result.metadata:
        logger.error("任务 {} 错误详情: {}", task_id, result.metadata["errors"])


scheduler_service = SchedulerService()
