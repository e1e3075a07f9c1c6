"""The gate of a claim: it lets executions through their rate limits and circuits, or puts them off.

It belongs to one transaction, that of the claim, and claims are one after the other. Tokens are taken for attempts
that start or are tried again, not for those that go on where an earlier one waited; what must wait is given a
moment at which it is worth trying again, and until then nobody looks at it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

from loguru import logger
from sqlalchemy import Connection, update

from app.db.bulk import BulkUpdate
from app.models.task_execution import Execution, ExecutionState
from app.scheduler.breaker import Circuit, CircuitBreaker, Verdict, admit
from app.scheduler.breaker import put_off as put_off_by_circuit
from app.scheduler.buckets import read_buckets, write_buckets
from app.scheduler.circuits import circuit_name, lock_circuits, write_circuit
from app.scheduler.executions import executions
from app.scheduler.rates import Bucket, RateLimit, RateRule, next_start, put_off, rule_of, take
from app.services.scheduler_service import SchedulerService

RATE_LIMITED = "rate_limited"
CIRCUIT_OPEN = "circuit_open"
PROBE = "circuit_probe"
"""Reasons: it waits for a token, it waits for the circuit of its executor, it runs to try that circuit."""
PUT_OFF_LIMIT = 500
"""Executions a claim puts off before it lets other writes have their turn."""

_PUT_OFF = BulkUpdate(
    {
        "x_id": executions.c.id,
        "x_run_at": executions.c.run_at,
        "x_reason": executions.c.reason,
        "x_waits_for": executions.c.waits_for,
        "x_due_at": executions.c.due_at,
    },
    lambda given: (
        update(executions)
        .where(executions.c.id == given["x_id"])
        .values(
            run_at=given["x_run_at"],
            reason=given["x_reason"],
            waits_for=given["x_waits_for"],
            due_at=given["x_due_at"],
        )
    ),
)


@dataclass(frozen=True, slots=True)
class FlowRules:
    """What the registered executors ask for, by type."""

    rates: Mapping[str, RateLimit]
    breakers: Mapping[str, CircuitBreaker]

    @property
    def types(self) -> frozenset[str]:
        """The executors that have any."""
        return frozenset(self.rates) | frozenset(self.breakers)


NO_RULES = FlowRules({}, {})


def flow_rules(service: SchedulerService) -> FlowRules:
    """The rules of the executors registered with `service` now."""
    found = service.executors().items()
    return FlowRules(
        {task_type: executor.rate_limit for task_type, executor in found if executor.rate_limit is not None},
        {
            task_type: executor.circuit_breaker
            for task_type, executor in found
            if executor.circuit_breaker is not None
        },
    )


def unguarded(service: SchedulerService) -> frozenset[str]:
    """The executors registered with `service` that have no circuit breaker."""
    return frozenset(service.executors()) - frozenset(flow_rules(service).breakers)


class Gate:
    """See the module. `admit()` candidates in the order in which they shall start, then `settle()`."""

    def __init__(self, connection: Connection, rules: FlowRules, now: datetime) -> None:
        self.rules = rules
        self._connection = connection
        self._now = now
        self._buckets: dict[str, Bucket] = {}
        self._circuits: dict[str, Circuit] = {}
        self._drawn_on: dict[str, RateRule] = {}
        self._taken: Counter[str] = Counter()
        self._changed_circuits: set[str] = set()
        self._ahead: Counter[str] = Counter()
        self._put_off: list[dict[str, Any]] = []
        self._count = 0

    @property
    def is_tired(self) -> bool:
        """It has put off so many that the claim should end here and another go on."""
        return self._count >= PUT_OFF_LIMIT

    def look_at(self, candidates: Sequence[Execution]) -> None:
        """Read what it takes to judge them, in one go."""
        names = {rule.bucket for candidate in candidates for rule in self._rules_of(candidate)}
        unknown = names - self._buckets.keys()
        self._buckets |= dict.fromkeys(unknown, Bucket()) | read_buckets(self._connection, unknown)
        types = {candidate.task_type for candidate in candidates} & self.rules.breakers.keys()
        self._circuits |= lock_circuits(self._connection, types - self._circuits.keys())

    def admit(self, execution: Execution) -> Execution | None:
        """The execution, to be started; None: it is put off. It must have been looked at."""
        breaker = self.rules.breakers.get(execution.task_type)
        rules = self._rules_of(execution)
        if breaker is None and not rules:
            return execution
        circuit, verdict = None, Verdict.START
        if breaker is not None:
            circuit, verdict = admit(self._circuits[execution.task_type], breaker, self._now)
            if verdict is Verdict.WAIT:
                self._put_off_by_circuit(execution, breaker)
                return None
        taken: dict[str, Bucket] = {}
        for rule in rules:
            bucket = take(self._buckets[rule.bucket], rule.limit, self._now)
            if bucket is None:
                self._put_off_by_rate(execution, rule)
                return None
            taken[rule.bucket] = bucket
            self._drawn_on[rule.bucket] = rule
        self._buckets |= taken
        self._taken.update(taken.keys())
        if circuit is not None and circuit != self._circuits[execution.task_type]:
            self._circuits[execution.task_type] = circuit
            self._changed_circuits.add(execution.task_type)
        return execution._replace(reason=PROBE) if verdict is Verdict.PROBE else execution

    def settle(self, started_at: datetime) -> int:
        """Store what has been decided, now that what was let through starts at `started_at`; returns how many were
        put off since the last time."""
        count = len(self._put_off)
        for name, tokens in self._taken.items():
            # The tokens were there when it looked, but it is from the start on that the next one is counted.
            bucket, interval = self._buckets[name], self._drawn_on[name].limit.interval
            self._buckets[name] = replace(bucket, tat=max(bucket.tat, started_at + tokens * interval))
        self._shift(started_at - self._now)
        if self._drawn_on:
            changed = {name: (rule, self._buckets[name]) for name, rule in self._drawn_on.items()}
            write_buckets(self._connection, changed, self._now)
        for task_type in sorted(self._changed_circuits):
            write_circuit(self._connection, task_type, self._circuits[task_type])
        _PUT_OFF.execute(self._connection, self._put_off)
        self._drawn_on.clear()
        self._taken.clear()
        self._changed_circuits.clear()
        self._put_off.clear()
        return count

    def _shift(self, late: timedelta) -> None:
        """Those who wait for what has just been taken wait as much longer as the start came late."""
        waiting = {row["x_waits_for"] for row in self._put_off} & self._taken.keys()
        for row in self._put_off:
            if row["x_waits_for"] in waiting:
                row["x_run_at"] += late
        for name in waiting:
            bucket = self._buckets[name]
            if bucket.line_end is not None:
                self._buckets[name] = replace(bucket, line_end=bucket.line_end + late)

    def _rules_of(self, execution: Execution) -> list[RateRule]:
        """The limits it is under: its executor's, and its own; none where it goes on after a wait."""
        if execution.state is ExecutionState.SUSPENDED:
            return []
        limit = self.rules.rates.get(execution.task_type)
        found = [rule_of(limit, f"executor:{execution.task_type}", execution.params)] if limit is not None else []
        if execution.rate_limit is not None:
            try:
                found.append(RateRule.of(execution.rate_limit))
            except (ValueError, TypeError) as error:
                # Plain SQL has written it. To run it unlimited would be worse than to say so and let it wait.
                logger.error("执行 {} 的 rate_limit 无法解析，按每分钟一次处理: {}", execution.id, error)
                found.append(RateRule("unreadable", RateLimit(1, per_seconds=60)))
        return found

    def _put_off_by_rate(self, execution: Execution, rule: RateRule) -> None:
        before, ahead = self._buckets[rule.bucket], self._ahead[rule.bucket]
        bucket, moment = put_off(
            before,
            rule.limit,
            self._now,
            priority=execution.priority,
            has_waited=execution.waits_for == rule.bucket,
            ahead=ahead,
        )
        if moment <= next_start(before, rule.limit, self._now) + rule.limit.interval * ahead:
            self._ahead[rule.bucket] += 1
        self._buckets[rule.bucket] = bucket
        self._drawn_on[rule.bucket] = rule
        self._note(execution, moment, RATE_LIMITED, rule.bucket)

    def _put_off_by_circuit(self, execution: Execution, breaker: CircuitBreaker) -> None:
        circuit, moment = put_off_by_circuit(self._circuits[execution.task_type], breaker, self._now)
        self._circuits[execution.task_type] = circuit
        self._changed_circuits.add(execution.task_type)
        self._note(execution, moment, CIRCUIT_OPEN, circuit_name(execution.task_type))

    def _note(self, execution: Execution, moment: datetime, reason: str, waits_for: str) -> None:
        self._count += 1
        self._put_off.append(
            {
                "x_id": execution.id,
                "x_run_at": moment,
                "x_reason": reason,
                "x_waits_for": waits_for,
                "x_due_at": execution.due_at or execution.run_at,
            }
        )


def started_reason(execution: Execution) -> str | None:
    """The reason of an execution whose attempt starts: what it waited for is over."""
    return None if execution.waits_for is not None and execution.reason != PROBE else execution.reason
