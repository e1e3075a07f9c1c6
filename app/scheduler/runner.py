"""One attempt, from start to recorded end: Session, time limit, cancellation, verdict, store, announce."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from functools import partial
from typing import Any

from loguru import logger
from sqlalchemy.orm import Session, sessionmaker

from app.core.clock import Clock
from app.core.errors import ReplayMismatch, SchedulerUnavailable, stack_of
from app.core.jsonable import LARGEST_RESULT, shortened, size_of
from app.core.redaction import redact_quotes
from app.models.task_execution import FINAL_STATES, Execution, ExecutionState
from app.scheduler.attempt_session import discard, has_writes, is_touched, open_session, roll_back
from app.scheduler.attempts import FinishAttempt, SpeakUp, StartAttempt, finish_attempt
from app.scheduler.breaker import Phase
from app.scheduler.circuits import ReportOutcome
from app.scheduler.context import CurrentExecution, enter_execution
from app.scheduler.durable import DurableAttempt, DurableParts, Spawn
from app.scheduler.events import AttemptEnded, CircuitChanged, EventBus, ExecutionChanged
from app.scheduler.gate import PROBE
from app.scheduler.journal import Journal
from app.scheduler.nodes import Lease
from app.scheduler.pace import BACKFILL
from app.scheduler.policies import RetryPolicy
from app.scheduler.states import Move, moved
from app.scheduler.step_writes import watch
from app.scheduler.steps import Carry
from app.scheduler.telemetry import UNTRACED, AttemptSpan, Tracer
from app.scheduler.verdict import (
    HANDED_BACK,
    LEASE_LOST,
    REPLAY_MISMATCH,
    SUSPENDED,
    TIMED_OUT,
    UNSTORABLE,
    decide,
    policy_of,
    stopped_result,
)
from app.services.scheduler_service import (
    SchedulerService,
    TaskExecutionResult,
    TaskStatus,
    describe_error,
    log_outcome,
)

_LONGEST_TEXT = 64_000
"""Characters of a message, an error and a stack that are kept: a row is read whole wherever it is listed."""
_SOON = timedelta(minutes=1)
"""What is suspended for longer is found by the turn that every engine takes each second."""


@dataclass(slots=True)
class Attempt:
    """An execution about to be tried. `recorded`: a claim has already stored its start."""

    execution: Execution
    number: int
    owner: str
    recorded: bool

    @property
    def execution_id(self) -> int:
        return self.execution.id

    @property
    def priority(self) -> int:
        return self.execution.priority


@dataclass(slots=True, eq=False)
class Running:
    """An attempt under way, as the engine sees it."""

    attempt: Attempt
    context: CurrentExecution
    task: asyncio.Task[None]
    loop: asyncio.AbstractEventLoop
    thread: threading.Thread
    started_at: datetime
    started: float
    deadline: float | None
    stop: str | None = None
    stop_since: float | None = None
    abandoned: bool = False
    durable: DurableAttempt | None = None
    start_stored: bool = False
    """A step has stored its start before the journal came to it."""
    recording: bool = False
    """Its end is being recorded: from here on nothing stops it, and a late start has nothing to say."""
    span: AttemptSpan = UNTRACED


@dataclass(slots=True)
class Runner:
    """Runs attempts of one node. `on_waiting(run_at)` hears when there will be work again, and
    `on_settled(id, retry_at)` that an attempt's end is in the database, or was refused there. Once the node
    `is_leaving()`, what is cancelled was cut off by the end of its event loop, and goes to others."""

    service: SchedulerService
    sessions: sessionmaker[Session]
    journal: Journal
    events: EventBus
    clock: Clock
    lease: Lease
    uniform: Callable[[], float]
    line_limit: int
    default_timeout: float | None
    on_waiting: Callable[[datetime], None]
    on_unstarted: Callable[[Attempt], None]
    on_ended: Callable[[int], None]
    on_settled: Callable[[int, datetime | None], None]
    spawn: Spawn
    carry: Carry
    running: dict[int, Running] = field(default_factory=dict)
    tracer: Tracer = UNTRACED
    is_leaving: Callable[[], bool] = lambda: False

    def __post_init__(self) -> None:
        watch(self.sessions)

    async def run(self, attempt: Attempt) -> None:
        """Run one attempt to its recorded end. Its fate is in the database, never in an exception."""
        if not self.lease.is_valid:
            self.on_unstarted(attempt)
            return
        running = self._begin(attempt)
        self.running[attempt.execution_id] = running
        try:
            await self._perform(running)
        except Exception as error:  # noqa: BLE001 - whatever broke, the execution must not stay `running`
            told = (describe_error(error), stack_of(error))
            said, stack = redact_quotes(told, attempt.execution.params)
            logger.error("执行 {} 的运行器出错\n{}", attempt.execution_id, stack)
            broken = TaskExecutionResult.failure_result("任务执行异常", said)
            self._record(running, broken, None, RetryPolicy())
        except GeneratorExit:
            # Its event loop is gone: nobody will go on with this coroutine, so the attempt is somebody else's.
            self._record(running, stopped_result(HANDED_BACK, None), HANDED_BACK, RetryPolicy())
            raise
        finally:
            running.span.close()
            if self.running.get(attempt.execution_id) is running:
                del self.running[attempt.execution_id]
            self.on_ended(attempt.execution_id)

    def stop(self, execution_id: int, why: str) -> bool:
        """Ask a running attempt to end; False: none runs here. Safe from any thread."""
        running = self.running.get(execution_id)
        if running is None or running.recording:
            return False
        if running.stop is None:
            running.stop = why
            running.stop_since = self.clock.monotonic()
            running.context.cancelled = True
            _cancel_soon(running)
        return True

    def executor_of(self, task: asyncio.Task[Any]) -> str | None:
        """The type of the executor that runs in `task`; None: no attempt does."""
        for running in list(self.running.values()):
            if running.task is task:
                return running.attempt.execution.task_type
        return None

    def abandon_overdue(self, grace_seconds: float) -> list[Running]:
        """Give up attempts whose code does not let go: past their time limit or asked to end, and blocking.

        A thread cannot be killed, so the attempt's end is recorded now (no retry: its code still runs, another
        attempt would overlap it) and whatever it brings later is refused by the fence.
        """
        now = self.clock.monotonic()
        given_up = []
        for running in list(self.running.values()):
            if running.stop in (HANDED_BACK, LEASE_LOST):
                continue
            limits = [moment for moment in (running.deadline, running.stop_since) if moment is not None]
            if running.abandoned or not limits or now < min(limits) + grace_seconds:
                continue
            running.abandoned = True
            stop = running.stop or TIMED_OUT
            logger.warning(
                "执行 {} (类型: {}) 阻塞线程且不响应 {}，已放弃等待",
                running.attempt.execution_id,
                running.attempt.execution.task_type,
                stop,
            )
            self._record(running, self._cut_off(running, stop), stop, RetryPolicy())
            running.span.close()
            given_up.append(running)
        return given_up

    def end_unrun(self, attempt: Attempt, stop: str) -> None:
        """Record the end of an attempt whose start a claim has stored, but which never ran."""
        now, execution = self.clock.now(), attempt.execution
        result = stopped_result(stop, None)
        verdict = decide(execution, result, stop, RetryPolicy(), now=now, uniform=self.uniform())
        finish = FinishAttempt(
            execution_id=execution.id,
            task_id=execution.task_id,
            trigger=execution.trigger,
            attempt=attempt.number,
            owner=attempt.owner,
            started_at=now,
            finished_at=now,
            duration_seconds=0.0,
            status=verdict.status,
            state=verdict.state,
            reason=verdict.reason,
            message=result.message,
            error=result.error,
            result=result.to_dict(),
            failures=verdict.failures,
            run_at=verdict.run_at,
            parent_id=execution.parent_id,
            carry=self.carry,
        )
        self._submit(finish, execution)

    def speak_up(self) -> None:
        """Store what running attempts said since the last time."""
        for running in list(self.running.values()):
            context = running.context
            lines = context.take_lines()
            if not lines and not context.progress_changed:
                continue
            context.progress_changed = False
            self.journal.submit(
                SpeakUp(
                    context.id,
                    context.attempt,
                    running.attempt.owner,
                    context.fraction,
                    context.progress_message,
                    lines,
                )
            )

    # ------------------------------------------------------------ one attempt

    def _begin(self, attempt: Attempt) -> Running:
        execution = attempt.execution
        started_at = self.clock.now()
        context = CurrentExecution(
            id=execution.id,
            task_id=execution.task_id,
            task_type=execution.task_type,
            attempt=attempt.number,
            scheduled_for=execution.scheduled_for,
            params=execution.params,
            node=attempt.owner,
            line_limit=self.line_limit,
            now=self.clock.now,
            tracer=self.tracer,
        )
        enter_execution(context)
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 - run() is always a task; this tells the type checker
        started = self.clock.monotonic()
        limit = self._timeout_of(execution)
        running = Running(
            attempt,
            context,
            task,
            asyncio.get_running_loop(),
            threading.current_thread(),
            started_at,
            started,
            started + limit if limit is not None else None,
            span=self.tracer.attempt(execution, attempt.number, attempt.owner),
        )
        if execution.reason == PROBE:
            self.announce_circuit(execution.task_type, Phase.HALF_OPEN)
        if not attempt.recorded:
            start = StartAttempt(execution.id, attempt.number, attempt.owner, started_at)
            self.journal.submit(
                start, lambda accepted, error: self._start_answered(running, accepted=accepted, error=error)
            )
        return running

    def _start_answered(self, running: Running, *, accepted: bool, error: BaseException | None) -> None:
        if (error is not None or not accepted) and not running.recording and not running.start_stored:
            logger.warning("执行 {} 已被其他节点接管", running.attempt.execution_id)
            self.stop(running.attempt.execution_id, LEASE_LOST)

    async def _perform(self, running: Running) -> None:
        executor = self.service.get_executor(running.attempt.execution.task_type)
        policy = policy_of(running.attempt.execution, executor)
        session = open_session(self.sessions)
        blocks = executor is None or executor.lane == "thread"
        running.context.open_durable = partial(self._open_durable, running, session, blocks=blocks)
        try:
            result, stop = await self._result(running, session)
        except BaseException:
            discard(session)
            raise
        finally:
            running.context.open_durable = None
            if running.durable is not None:
                running.durable.is_over = True
        running.recording = True
        end = partial(self._end, running, session, result, stop, policy)
        if executor is not None and executor.lane == "loop" and is_touched(session):
            # A commit waits for the disk and for locks: never on the application's loop.
            await _to_its_end(asyncio.to_thread(end))
        else:
            end()

    def _open_durable(self, running: Running, session: Session, *, blocks: bool) -> DurableAttempt:
        attempt = running.attempt

        def start_stored() -> None:
            running.start_stored = not attempt.recorded

        running.durable = DurableAttempt(
            DurableParts(self.sessions, self.journal, self.clock, self.uniform, self.spawn),
            StartAttempt(attempt.execution_id, attempt.number, attempt.owner, running.started_at),
            session,
            running.task,
            blocks=blocks,
            fenced=lambda: self.stop(attempt.execution_id, LEASE_LOST),
            start_stored=start_stored,
        )
        return running.durable

    def _end(
        self,
        running: Running,
        session: Session,
        result: TaskExecutionResult,
        stop: str | None,
        policy: RetryPolicy,
    ) -> None:
        """Commit or roll back what the executor wrote, close its Session, record how the attempt ended."""
        unrecorded: TaskExecutionResult | None = result
        try:
            if running.abandoned:
                return
            if result.success and stop is None and is_touched(session):
                unrecorded = self._commit_with(running, session, result, policy)
        finally:
            discard(session)
        if stop == SUSPENDED:
            self._submit(self._suspension_of(running), running.attempt.execution)
        elif unrecorded is not None:
            self._record(running, unrecorded, stop, policy)

    async def _result(self, running: Running, session: Session) -> tuple[TaskExecutionResult, str | None]:
        """What the executor returned, or what stopped it."""
        limit = self._limit(running)
        work = self._executed(running, session)
        try:
            if limit is None:
                result = await work
            else:
                async with asyncio.timeout(limit):
                    result = await work
        except TimeoutError:
            return self._cut_off(running, TIMED_OUT), TIMED_OUT
        except asyncio.CancelledError as error:
            # Swallowed on purpose: this task exists for this one attempt, and its end is being recorded.
            if running.stop is not None:
                return self._cut_off(running, running.stop), running.stop
            if _is_suspended(running):
                return _SUSPENDED, SUSPENDED
            if self.is_leaving():
                return self._cut_off(running, HANDED_BACK), HANDED_BACK
            said = describe_error(error)
            return self._logged(running, TaskExecutionResult.failure_result(f"任务执行异常: {said}", said)), None
        if running.durable is not None and running.stop is None:
            # Also where the executor has swallowed what unwinds it: what it waits for has not come, and what it
            # says after leaving the stored way means nothing.
            if running.durable.mismatch is not None:
                return _mismatched(result, running.durable.mismatch), REPLAY_MISMATCH
            if running.durable.suspension is not None:
                return _SUSPENDED, SUSPENDED
        if result.success or running.stop is None:
            return result, None
        return result, running.stop

    def _cut_off(self, running: Running, stop: str) -> TaskExecutionResult:
        """The result of an attempt that was stopped from outside, logged: `execute_task()` did not get there."""
        result = stopped_result(stop, self._limit(running))
        if stop == HANDED_BACK:  # no failure: a restart is no reason for an alarm
            logger.info("任务 {} {}", running.attempt.execution.task_id or 0, result.message)
            return result
        return self._logged(running, result)

    def _logged(self, running: Running, result: TaskExecutionResult) -> TaskExecutionResult:
        log_outcome(running.attempt.execution.task_id or 0, result, self.clock.monotonic() - running.started)
        return result

    async def _executed(self, running: Running, session: Session) -> TaskExecutionResult:
        execution = running.attempt.execution
        result = await self.service.execute_task(
            execution.task_id or 0, execution.task_type, execution.params, session
        )
        if result.success and running.attempt.number > 1 and running.context.open_durable is not None:
            await (running.durable or running.context.open_durable()).look_back()
        return result

    def _commit_with(
        self, running: Running, session: Session, result: TaskExecutionResult, policy: RetryPolicy
    ) -> TaskExecutionResult | None:
        """Commit what the executor wrote together with the recorded success, in its own transaction.

        None: done, or fenced (somebody else has taken over: the executor's writes are rolled back too). A
        result: still to be recorded; a failure if the Session could not be committed.
        """
        try:
            if not has_writes(session):
                session.rollback()
                return result
            finish = self._finish_of(running, result, None, policy)
            if finish_attempt(session.connection(), finish):
                session.commit()
                self._announce(finish, running.attempt.execution)
            else:
                session.rollback()
                logger.warning("执行 {} 已被其他节点接管，其写入已回滚", finish.execution_id)
                self.on_settled(finish.execution_id, None)
        except Exception as error:  # noqa: BLE001 - whatever the executor left in its Session
            roll_back(session)
            told = (describe_error(error), stack_of(error))
            said, stack = redact_quotes(told, running.attempt.execution.params)
            logger.error("执行 {} 的会话无法提交\n{}", running.attempt.execution_id, stack)
            return TaskExecutionResult.failure_result(
                message="执行器报告成功，但其数据库会话无法提交",
                error=said,
                duration=result.duration,
            )
        return None

    def _record(
        self, running: Running, result: TaskExecutionResult, stop: str | None, policy: RetryPolicy
    ) -> None:
        self._submit(self._finish_of(running, result, stop, policy), running.attempt.execution)

    def _submit(self, finish: FinishAttempt, execution: Execution) -> None:
        def stored(accepted: bool, error: BaseException | None) -> None:  # noqa: FBT001 - the journal's answer
            if error is not None:
                logger.error("执行 {} 的结果未能保存: {}", finish.execution_id, error)
                if not isinstance(error, SchedulerUnavailable) and finish.reason != UNSTORABLE:
                    self._submit(_unstorable(finish, error), execution)
                else:
                    self.on_settled(finish.execution_id, None)
            elif accepted:
                self._announce(finish, execution)
            else:
                logger.warning("执行 {} 已被其他节点接管，本次结果作废", finish.execution_id)
                self.on_settled(finish.execution_id, None)

        self.journal.submit(finish, stored)

    def _finish_of(
        self, running: Running, result: TaskExecutionResult, stop: str | None, policy: RetryPolicy
    ) -> FinishAttempt:
        now = self.clock.now()
        elapsed = self.clock.monotonic() - running.started
        execution = running.attempt.execution
        verdict = decide(execution, result, stop, policy, now=now, uniform=self.uniform())
        if running.abandoned and verdict.state is ExecutionState.RETRYING:
            verdict = verdict._replace(state=ExecutionState.FAILED)
        traceback = result.metadata.get("traceback")
        stack = shortened(traceback, _LONGEST_TEXT) if isinstance(traceback, str) else None
        if max(len(result.message), len(result.error or "")) > _LONGEST_TEXT:
            result = replace(
                result,
                message=shortened(result.message, _LONGEST_TEXT),
                error=result.error and shortened(result.error, _LONGEST_TEXT),
            )
        stored = _bearable(result.to_dict(), execution.id)
        running.span.decided(verdict.state, verdict.reason, result.error, stack)
        return FinishAttempt(
            execution_id=execution.id,
            task_id=execution.task_id,
            trigger=execution.trigger,
            attempt=running.attempt.number,
            owner=running.attempt.owner,
            started_at=running.started_at,
            finished_at=now,
            duration_seconds=result.duration if result.duration is not None else elapsed,
            status=verdict.status,
            state=verdict.state,
            reason=verdict.reason,
            message=result.message,
            error=result.error,
            result=stored,
            failures=verdict.failures,
            run_at=verdict.run_at,
            traceback=stack,
            progress=running.context.fraction,
            progress_message=running.context.progress_message,
            lines=running.context.take_lines(),
            steps=running.durable.take_unstored() if running.durable is not None else (),
            parent_id=execution.parent_id,
            carry=self.carry,
        )

    def _suspension_of(self, running: Running) -> FinishAttempt:
        """The end of an attempt that waits. Nothing of it is the execution's outcome; its failures count on."""
        durable, execution, now = running.durable, running.attempt.execution, self.clock.now()
        assert durable is not None and durable.suspension is not None  # noqa: S101, PT018 - or it had not ended so
        suspension = durable.suspension
        state = moved(ExecutionState.RUNNING, Move.SUSPEND)
        running.span.decided(state, SUSPENDED, None, None)
        return FinishAttempt(
            execution_id=execution.id,
            task_id=execution.task_id,
            trigger=execution.trigger,
            attempt=running.attempt.number,
            owner=running.attempt.owner,
            started_at=running.started_at,
            finished_at=now,
            duration_seconds=self.clock.monotonic() - running.started,
            status=TaskStatus.SUCCESS,
            state=state,
            reason=SUSPENDED,
            message=suspension.sentence,
            error=None,
            result=None,
            failures=execution.failures,
            run_at=suspension.due_at,
            progress=running.context.fraction,
            progress_message=running.context.progress_message,
            lines=running.context.take_lines(),
            steps=durable.take_unstored(),
            parent_id=execution.parent_id,
            suspension=suspension,
            carry=self.carry,
        )

    def _announce(self, finish: FinishAttempt, execution: Execution) -> None:
        if finish.suspension is not None:
            if finish.suspension.is_woken_from_outside:
                self.on_waiting(finish.finished_at)  # what it waits for may have been there already
            if finish.run_at - finish.finished_at < _SOON:
                self.on_waiting(finish.run_at)
        elif not finish.is_over:
            self.on_waiting(finish.run_at)
        if finish.state in _LEAVING_A_PLACE and _holds_others_up(execution):
            self.on_waiting(finish.finished_at)
        is_tried_again = finish.state in (ExecutionState.PENDING, ExecutionState.RETRYING)
        self.on_settled(finish.execution_id, finish.run_at if is_tried_again else None)
        self.events.publish(ExecutionChanged(finish.execution_id, finish.state, _ended(finish, execution)))
        self._report(finish, execution.task_type)

    def _report(self, finish: FinishAttempt, task_type: str) -> None:
        """Tell the circuit of the executor, if it has one, how the attempt went."""
        executor = self.service.get_executor(task_type)
        says_something = finish.state in (ExecutionState.SUCCESS, ExecutionState.FAILED, ExecutionState.RETRYING)
        if executor is None or executor.circuit_breaker is None or not says_something:
            return
        report = ReportOutcome(
            task_type,
            executor.circuit_breaker,
            finish.state is ExecutionState.SUCCESS,
            finish.started_at,
            finish.finished_at,
        )
        self.journal.submit(report, partial(self._circuit_moved, task_type))

    def _circuit_moved(self, task_type: str, phase: Phase | None, error: BaseException | None) -> None:
        if error is not None:
            logger.error("执行器 {} 的熔断器未能更新: {}", task_type, error)
        elif phase is not None:
            self.announce_circuit(task_type, phase)

    def announce_circuit(self, task_type: str, phase: Phase) -> None:
        """Say that a circuit has moved, and look at who waited for it."""
        if phase is Phase.OPEN:
            logger.warning("执行器 {} 失败过多，熔断器已打开，其执行将等待", task_type)
        else:
            logger.info("执行器 {} 的熔断器状态: {}", task_type, phase.value)
        self.events.publish_circuit(CircuitChanged(task_type, phase))
        if phase is Phase.CLOSED:
            self.on_waiting(self.clock.now())

    def _timeout_of(self, execution: Execution) -> float | None:
        if execution.timeout_seconds is not None:
            return execution.timeout_seconds
        executor = self.service.get_executor(execution.task_type)
        if executor is not None and executor.timeout_seconds is not None:
            return executor.timeout_seconds
        return self.default_timeout

    def _limit(self, running: Running) -> float | None:
        return running.deadline - running.started if running.deadline is not None else None


_SUSPENDED = TaskExecutionResult.success_result("已挂起")
_LEAVING_A_PLACE = (*FINAL_STATES, ExecutionState.SUSPENDED)


def _is_suspended(running: Running) -> bool:
    return running.durable is not None and running.durable.suspension is not None


def _mismatched(result: TaskExecutionResult, error: ReplayMismatch) -> TaskExecutionResult:
    return TaskExecutionResult.failure_result(
        message="执行的代码与已保存的步骤不一致", error=describe_error(error), metadata=result.metadata
    )


def _holds_others_up(execution: Execution) -> bool:
    return execution.concurrency_key is not None or execution.exclusive or execution.parent_id is not None


def _ended(finish: FinishAttempt, execution: Execution) -> AttemptEnded:
    late = None
    if finish.attempt == 1 and execution.scheduled_for is not None and execution.trigger != BACKFILL:
        late = (finish.started_at - execution.scheduled_for).total_seconds()
    return AttemptEnded(execution.task_type, finish.duration_seconds, late)


def _bearable(stored: dict[str, Any], execution_id: int) -> dict[str, Any]:
    """A result as it is stored: of one that is too large only its size. The execution keeps its outcome, for work
    that was done must not be done again because its answer is large."""
    stored["metadata"].pop("traceback", None)
    size = size_of(stored)
    if size <= LARGEST_RESULT:
        return stored
    logger.error("执行 {} 的结果有 {} 字节，超过上限 {}：只保存其大小", execution_id, size, LARGEST_RESULT)
    return stored | {"data": {"too_large": True, "bytes": size, "at_most": LARGEST_RESULT}, "metadata": {}}


def _unstorable(finish: FinishAttempt, error: BaseException) -> FinishAttempt:
    """The end of an attempt whose result the database refused: failed, and saying so."""
    return replace(
        finish,
        status=TaskStatus.FAILED,
        state=ExecutionState.FAILED,
        reason=UNSTORABLE,
        message="执行结果无法保存",
        error=describe_error(error),
        result=None,
        steps=(),
        suspension=None,
        traceback=None,
        lines=(),
    )


async def _to_its_end(work: Coroutine[Any, Any, None]) -> None:
    """Await `work` whatever happens to the one who waits: a commit that has begun cannot be taken back."""
    task = asyncio.ensure_future(work)
    while not task.done():
        # Swallowed on purpose: this attempt is all that the cancelled task exists for.
        with suppress(asyncio.CancelledError):
            await asyncio.shield(task)
    task.result()


def _cancel_soon(running: Running) -> None:
    try:
        running.loop.call_soon_threadsafe(running.task.cancel)
    except RuntimeError:
        logger.debug("the loop of execution {} is closed", running.attempt.execution_id)
