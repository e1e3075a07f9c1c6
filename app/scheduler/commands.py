"""What may be asked of the scheduler: each in one transaction, whether a node runs in this process or not."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import datetime
from functools import partial
from typing import Any, TypeVar, cast

from loguru import logger
from sqlalchemy import Connection
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Session

from app.core.errors import Conflict, InvalidRequest, NotFound, SchedulerError
from app.core.language import Said, in_language
from app.core.redaction import refuse_lending, refuse_masks, restore, revealed
from app.models.task_execution import Execution, ExecutionState
from app.scheduler.alerting.checking import PRIORITY
from app.scheduler.alerting.observing import DELIVERY
from app.scheduler.alerting.store import AlertStore
from app.scheduler.alerting.verdicts import Notice
from app.scheduler.backfills import cancel_backfill, record_backfill
from app.scheduler.breaker import Phase
from app.scheduler.bulk_requests import bulk_values, record_many
from app.scheduler.children import RecordChild
from app.scheduler.circuits import read_circuits, reset_circuit
from app.scheduler.events import CircuitChanged, ExecutionChanged
from app.scheduler.executions import Recorded, RecordExecution, read_execution, reopen, request_cancel
from app.scheduler.family import CalledOff, lock_in_order, states_of_children
from app.scheduler.firing import Fired, fire_now
from app.scheduler.foundation import Foundation, owner_of
from app.scheduler.pace import Backfill, Pace, Stopped
from app.scheduler.repeats import Debounce, Once, Repeats, Throttle
from app.scheduler.request_keys import record_under
from app.scheduler.requests import (
    checked_id,
    checked_signal,
    execution_values,
    insert_into,
    insert_under,
    plain_params,
    within,
)
from app.scheduler.steps import Fence, SendSignal, Signal
from app.scheduler.tasks import TaskStore
from app.scheduler.telemetry import Origin
from app.services.scheduler_service import TaskExecutor

T = TypeVar("T")


class Commands:
    """See the module."""

    def __init__(self, base: Foundation, tasks: TaskStore, alerts: AlertStore) -> None:
        self._base = base
        self._tasks = tasks
        self._alerts = alerts

    async def enqueue(
        self, task_type: str, params: dict[str, Any], *, db: Session | AsyncSession | None, **request: Any
    ) -> Execution:
        repeats: Repeats | None = request.get("repeats")
        if repeats is not None and not isinstance(repeats, Debounce | Throttle | Once):
            raise InvalidRequest.of("repeats", f"repeats is a Debounce, Throttle or Once, not {repeats!r}")
        if db is not None and not isinstance(db, Session | AsyncSession):
            raise InvalidRequest.of("db", f"db is a Session or an AsyncSession, not {type(db).__name__}")
        refuse_masks(params)
        values = await self._checked(task_type, partial(self._checked_values, task_type, params, request))
        with self._base.tracer.enqueue(task_type) as origin:
            values["trace_context"] = origin.trace_context()
            execution = await self._record(values, db, repeats)
            origin.recorded([execution])
            return execution

    async def _record(
        self, values: dict[str, Any], db: Session | AsyncSession | None, repeats: Repeats | None = None
    ) -> Execution:
        now = values["created_at"]
        node = self._base.running_node
        if db is not None:
            if repeats is not None:
                recorded = await insert_under(db, values, repeats, now, self._base.carry, self._base.wake_engine)
            else:
                recorded = await insert_into(db, values, self._base.carry, self._base.wake_engine)
            self._base.journal.open_writes.add(db)
            return recorded
        values["owner"] = owner_of(node)(values)

        def stored(recorded: Recorded) -> None:
            if recorded.is_new:
                self._base.offer(node, [recorded.execution])

        if repeats is not None:
            record = partial(record_under, values=values, policy=repeats, now=now, carry=self._base.carry)
            return (await self._base.journal.step(record, stored)).execution
        return (await self._base.journal.commit(RecordExecution(values, self._base.carry), stored)).execution

    async def enqueue_many(
        self, items: Sequence[Mapping[str, Any]], *, trigger: str, triggered_by: str | None
    ) -> list[Execution]:
        now = self._base.clock.now()
        rows = await asyncio.to_thread(
            bulk_values, self._base.service, items, now, trigger=trigger, triggered_by=triggered_by
        )
        node = self._base.running_node
        for row in rows:
            row["owner"] = owner_of(node)(row)

        def stored(recorded: list[Recorded]) -> None:
            self._base.offer(node, [one.execution for one in recorded if one.is_new])

        with self._base.tracer.enqueue("bulk") as origin:
            for row in rows:
                row["trace_context"] = origin.trace_context()
            record = partial(record_many, rows=rows, carry=self._base.carry)
            executions = [one.execution for one in await self._base.journal.step(record, stored)]
            origin.recorded(executions)
            return executions

    async def backfill(
        self, task_id: int, start: datetime, end: datetime, *, pace: Pace, triggered_by: str | None
    ) -> Backfill:
        node = self._base.running_node

        def record(connection: Connection) -> tuple[Backfill, list[Execution]]:
            made, recorded = record_backfill(
                connection,
                task_id,
                start,
                end,
                now=self._base.clock.now(),
                pace=pace,
                triggered_by=triggered_by,
                owner_of=owner_of(node),
            )
            self._base.carry(connection, recorded)
            return made, recorded

        def stored(outcome: tuple[Backfill, list[Execution]]) -> None:
            self._base.offer(node, outcome[1])

        return (await self._base.journal.step(record, stored))[0]

    async def cancel_backfill(self, task_id: int) -> Stopped:
        def cancel(connection: Connection) -> Stopped:
            stopped = cancel_backfill(connection, task_id, self._base.clock.now())
            if stopped.asked:
                self._base.courier.carry_cancel(connection, stopped.asked)
            return stopped

        stopped = await self._base.journal.step(cancel)
        for ended in stopped.ended:
            self._base.events.publish(ExecutionChanged(ended, ExecutionState.CANCELLED))
        if self._base.live is not None and stopped.asked:
            self._base.live.engine.end(stopped.asked)
        return stopped

    async def _checked(self, task_type: str, check: Callable[[], T]) -> T:
        """What `check` says. Where an executor's own code looks at the params, it must not hold the caller's loop,
        which may be the application's."""
        executor = self._base.service.get_executor(task_type)
        if executor is None or type(executor).validate_params is TaskExecutor.validate_params:
            return check()
        return await asyncio.to_thread(check)

    def _checked_values(
        self, task_type: str, params: dict[str, Any], request: Mapping[str, Any]
    ) -> dict[str, Any]:
        """The row of a request that an executor here accepts."""
        if not isinstance(params, dict):
            raise InvalidRequest.of(
                "params",
                Said(
                    f"params must be an object, not {type(params).__name__}",
                    f"参数须为对象，而不是 {type(params).__name__}",
                ),
            )
        params = revealed(params, at="params")
        executor = self._base.service.check(task_type, params)
        now = self._base.clock.now()
        return execution_values(now, retry_on=executor.retry_on, task_type=task_type, params=params, **request)

    async def run_now(
        self,
        task_id: int,
        *,
        params: dict[str, Any] | None,
        trigger: str,
        triggered_by: str | None,
        lends_secrets: bool = True,
    ) -> Execution:
        """`lends_secrets`: whether stored secrets, sent back masked, may go with params that were changed."""
        task = await asyncio.to_thread(self._tasks.get, task_id)
        if params is not None:
            # A client that read the stored params, masked, and sends them back changed means the stored secrets.
            if not lends_secrets:
                refuse_lending(params, task.params)
            params = plain_params(restore(params, task.params))
            refuse_masks(params)
        wanted = task.params if params is None else params
        await self._checked(task.task_type, partial(self._base.service.check, task.task_type, wanted))
        node = self._base.running_node

        def fire(origin: Origin, connection: Connection) -> Fired:
            fired = fire_now(
                connection,
                task_id,
                now=self._base.clock.now(),
                params=params,
                trigger=trigger,
                triggered_by=triggered_by,
                owner_of=owner_of(node),
                origin=origin,
            )
            self._base.carry_fired(connection, fired)
            return fired

        def stored(fired: Fired) -> None:
            self._base.ask_for([execution.id for execution in fired.executions])
            self._base.launch(node, fired)

        with self._base.tracer.enqueue(task.task_type) as origin:
            return (await self._base.journal.step(partial(fire, origin), stored)).executions[0]

    async def spawn(
        self, parent: Fence, key: str, task_type: str, params: dict[str, Any], options: Mapping[str, Any]
    ) -> Execution | None:
        """Record a child of a running attempt, once a key; None: the attempt has been taken over or called off.

        Raises:
            ExecutorNotFound, InvalidParameters, InvalidRequest: refused, nothing stored.
        """
        values = self._checked_values(task_type, params, {"trigger": "parent", **options})
        if values["idempotency_key"] is not None:
            raise InvalidRequest.of("idempotency_key", "a child is known by its key; give it no idempotency_key")
        if options.get("repeats") is not None:
            raise InvalidRequest.of("repeats", "a child is known by its key; give it no repeats")
        values |= {"parent_id": parent.execution_id, "child_key": key}
        node = self._base.running_node
        values["owner"] = owner_of(node)(values)

        def stored(recorded: Recorded | None) -> None:
            if recorded is not None and recorded.is_new:
                self._base.offer(node, [recorded.execution])

        with self._base.tracer.enqueue(task_type) as origin:
            values["trace_context"] = origin.trace_context()
            recorded = await self._base.journal.commit(RecordChild(parent, values, self._base.carry), stored)
            if recorded is None:
                return None
            origin.recorded([recorded.execution])
            return recorded.execution

    async def signal(
        self,
        execution_id: int,
        name: str,
        payload: Any,
        *,
        db: Session | AsyncSession | None,
        signalled_by: str | None,
        guard: Callable[[Connection], object] | None = None,
    ) -> Signal:
        """`guard` is called first, in the same transaction, and raises where the signal must not be sent."""
        execution_id = checked_id(execution_id)
        name, payload = checked_signal(name, payload)
        now = self._base.clock.now()
        write = SendSignal(execution_id, name, payload, signalled_by, now, self._base.carry)

        def guarded(connection: Connection) -> Signal | SchedulerError:
            if guard is not None:
                guard(connection)
            return write.apply(connection)

        if db is not None:
            sent = await within(db, guarded, now, self._base.wake_engine)
            self._base.journal.open_writes.add(db)
        elif guard is not None:
            sent = await self._base.journal.step(guarded, lambda _: self._base.wake_engine(now))
        else:
            sent = await self._base.journal.commit(write, lambda _: self._base.wake_engine(now))
        if isinstance(sent, SchedulerError):
            raise sent
        return sent

    async def cancel(self, execution_id: int) -> Execution:
        execution_id = checked_id(execution_id)

        def ask(connection: Connection) -> tuple[Execution, CalledOff]:
            asked, family = request_cancel(connection, execution_id, self._base.clock.now())
            if not asked.is_final:
                family.asked.append(execution_id)
            if family.asked:
                self._base.courier.carry_cancel(connection, family.asked)
            return asked, family

        execution, family = await self._base.journal.step(ask)
        if execution.is_final:
            family.ended.append(execution_id)
        for ended in family.ended:
            self._base.events.publish(ExecutionChanged(ended, ExecutionState.CANCELLED))
        if execution.parent_id is not None:
            self._base.wake_engine(self._base.clock.now())
        node = self._base.live
        if node is not None and family.asked:
            node.engine.end(family.asked)
            if execution.owner == node.node_id and not execution.is_final:
                execution = await self._base.journal.step(partial(read_execution, execution_id))
        return execution

    async def retry(self, execution_id: int) -> Execution:
        execution_id = checked_id(execution_id)

        def put_back(connection: Connection) -> list[Execution]:
            execution = read_execution(execution_id, connection)
            if execution.parent_id is not None:
                lock_in_order(connection, [execution.parent_id, execution_id])
                self._refuse_child_retry(connection, execution)
            self._refuse_retry(read_execution(execution_id, connection, lock=True))
            reopened = reopen(connection, execution_id, self._base.clock.now(), self._got_over)
            for child in reopened[1:]:
                self._refuse_retry(child)
            self._base.carry(connection, reopened)
            return reopened

        reopened = await self._base.journal.step(put_back)
        self._base.ask_for([execution.id for execution in reopened])
        self._base.wake_engine(reopened[0].run_at)
        return reopened[0]

    def _got_over(self, parent: Execution, children: Mapping[str, ExecutionState]) -> Collection[str]:
        executor = self._base.service.get_executor(parent.task_type)
        return executor.got_over(parent.params, children) if executor is not None else ()

    def _refuse_child_retry(self, connection: Connection, child: Execution) -> None:
        try:
            parent = read_execution(cast("int", child.parent_id), connection)
        except NotFound:  # swept away: nobody goes on from what the child comes to
            return
        executor = self._base.service.get_executor(parent.task_type)
        if executor is None or child.child_key is None:
            return
        states = states_of_children(connection, parent.id)
        if not parent.is_final:
            # Nobody has cancelled the whole: it goes on from the child's end, or is about to.
            failed = ExecutionState.FAILED
            states = {key: failed if state is ExecutionState.CANCELLED else state for key, state in states.items()}
        refusal = executor.refuse_child_retry(parent.params, child.child_key, states)
        if refusal is not None:
            raise _not_retried(child, refusal)

    def _refuse_retry(self, execution: Execution) -> None:
        executor = self._base.service.get_executor(execution.task_type)
        refusal = executor.refuse_retry(execution.result) if executor is not None else None
        if refusal is not None:
            raise _not_retried(execution, refusal)

    async def reset_circuit(self, task_type: str) -> None:
        """Close the circuit of an executor by hand: what waits for it may start, its past is forgiven.

        Raises:
            NotFound: no executor of that type has a circuit.
        """
        known = self._base.service.get_executor(task_type)

        def reset(connection: Connection) -> Phase:
            if (known is None or known.circuit_breaker is None) and task_type not in read_circuits(connection):
                raise NotFound("circuit", task_type)
            return reset_circuit(connection, task_type, self._base.clock.now())

        before = await self._base.journal.step(reset)
        if before is not Phase.CLOSED:
            logger.info("执行器 {} 的熔断器已手动复位", task_type)
            self._base.events.publish_circuit(CircuitChanged(task_type, Phase.CLOSED))
        self._base.wake_engine(self._base.clock.now())

    async def test_channel(self, channel_id: int, *, trigger: str = "code", by: str | None = None) -> Execution:
        """Send a test message to a channel, as an execution whose outcome says whether it arrived.

        Raises:
            NotFound; ExecutorNotFound: the backend has no `alert_delivery`.
        """
        channel = await asyncio.to_thread(self._alerts.channel, channel_id)
        params = {"notice": Notice.TEST.value, "channel_id": channel.id}
        return await self.enqueue(
            DELIVERY, params, db=None, max_attempts=1, priority=PRIORITY, trigger=trigger, triggered_by=by
        )


def _not_retried(execution: Execution, refusal: str) -> Conflict:
    return Conflict(
        Said(
            f"execution {execution.id} cannot be retried: {refusal}",
            f"执行 {execution.id} 不能重试：{in_language(refusal, 'zh')}",
        )
    )
