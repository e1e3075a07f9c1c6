"""Rate limits, circuits, keys and ageing hold between nodes, on both databases. Time is virtual."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import Connection, Engine, select, text, update

from app.db.database import begin_write
from app.models.task_execution import Execution, ExecutionState
from app.scheduler.attempts import FinishAttempt, finish_attempt
from app.scheduler.breaker import CircuitBreaker, Phase
from app.scheduler.buckets import close_gaps, has_line, next_put_off
from app.scheduler.circuits import ReportOutcome, read_circuits, reset_circuit
from app.scheduler.claims import ClaimNamed, claim
from app.scheduler.executions import RecordExecution, executions, reopen, request_cancel
from app.scheduler.flow_status import flow_status
from app.scheduler.gate import NO_RULES, FlowRules, Gate
from app.scheduler.rates import RateLimit
from app.scheduler.requests import execution_values
from app.services.scheduler_service import TaskStatus
from app.testing.clock import VirtualClock

NOON = datetime(2030, 1, 1, 12, tzinfo=UTC)


def seconds(value: float) -> timedelta:
    return timedelta(seconds=value)


class Nodes:
    """Some nodes on one database that claim in turn; what starts is noted, with its moment."""

    def __init__(self, engine: Engine, rules: FlowRules, step: float = 0) -> None:
        self.engine = engine
        self.rules = rules
        self.step = step
        self.clock = VirtualClock(NOON)
        self.started: list[tuple[datetime, Execution]] = []

    @property
    def now(self) -> datetime:
        return self.clock.now()

    def write(self, run: Callable[[Connection], Any]) -> Any:
        with self.engine.connect() as connection:
            begin_write(connection)
            outcome = run(connection)
            connection.commit()
        return outcome

    def enqueue(self, count: int = 1, task_type: str = "work", **request: Any) -> list[Execution]:
        rows = [execution_values(self.now, task_type=task_type, **request) for _ in range(count)]
        recorded = self.write(lambda c: RecordExecution.apply_all(c, [RecordExecution(row) for row in rows]))
        return [one.execution for one in recorded]

    def claim(self, node: str = "a", limit: int = 16) -> list[Execution]:
        def take(connection: Connection) -> list[Execution]:
            gate = Gate(connection, self.rules, self.now)
            return claim(
                connection,
                node=node,
                now=self.now,
                limit=limit,
                clock=self.clock,
                gate=gate,
                priority_step_seconds=self.step,
            )

        taken = self.write(take)
        self.started += [(self.now, execution) for execution in taken]
        return taken

    def claim_named(self, *ids: int) -> list[Execution | None]:
        writes = [ClaimNamed(one, "a", self.clock, self.rules) for one in ids]
        taken = self.write(lambda c: ClaimNamed.apply_all(c, writes))
        self.started += [(self.now, execution) for execution in taken if execution is not None]
        return taken

    def finish(self, execution: Execution, state: ExecutionState = ExecutionState.SUCCESS) -> None:
        ok = state is ExecutionState.SUCCESS
        finish = FinishAttempt(
            execution_id=execution.id,
            task_id=None,
            attempt=execution.attempt,
            owner=execution.owner or "",
            started_at=execution.started_at or self.now,
            finished_at=self.now,
            duration_seconds=0,
            status=TaskStatus.SUCCESS if ok else TaskStatus.FAILED,
            state=state,
            reason=None,
            message=None,
            error=None,
            result=None,
            failures=0 if ok else 1,
            run_at=self.now,
        )
        assert self.write(lambda connection: finish_attempt(connection, finish))
        breaker = self.rules.breakers.get(execution.task_type)
        if breaker is not None:
            report = ReportOutcome(execution.task_type, breaker, ok, finish.started_at, self.now)
            self.write(lambda connection: ReportOutcome.apply_all(connection, [report]))

    def get(self, execution_id: int) -> Execution:
        with self.engine.connect() as connection:
            row = connection.execute(select(executions).where(executions.c.id == execution_id)).one()
            return Execution.from_row(row)

    def run(self, until: datetime, *, step: float, limit: int = 16) -> None:
        """Let four nodes claim every `step` seconds and finish at once what they start."""
        turn = 0
        while self.now < until:
            for execution in self.claim("abcd"[turn % 4], limit):
                self.finish(execution)
            turn += 1
            self.clock.advance(step)


@pytest.fixture
def nodes(engine: Engine) -> Iterator[Callable[..., Nodes]]:
    def make(step: float = 0, breakers: dict[str, CircuitBreaker] | None = None, **rates: RateLimit) -> Nodes:
        return Nodes(engine, FlowRules(rates, breakers or {}), step)

    return make


def most_within(starts: list[datetime], span: timedelta) -> int:
    return max(sum(first <= one < first + span for one in starts) for first in starts)


# -------------------------------------------------------------------- rate limits


@pytest.mark.parametrize("limit", [RateLimit(10, per_seconds=60), RateLimit(50, per_seconds=10, burst=5)])
def test_four_nodes_never_exceed_a_rate_and_use_it_up(nodes: Callable[..., Nodes], limit: RateLimit) -> None:
    world = nodes(work=limit)
    world.enqueue(600)
    periods = 5
    world.run(NOON + seconds(limit.per_seconds * periods), step=limit.interval.total_seconds() / 7)
    starts = [moment for moment, _ in world.started]
    assert most_within(starts, seconds(limit.per_seconds)) <= limit.limit + limit.capacity - 1
    assert len(starts) >= 0.95 * limit.limit * periods


def test_every_value_of_the_key_has_its_own_rate(nodes: Callable[..., Nodes]) -> None:
    world = nodes(work=RateLimit(1, per_seconds=60, key="account_id"))
    for account in range(5):
        world.enqueue(3, params={"account_id": account})
    world.enqueue(2, task_type="free")
    started = Counter(str(execution.params.get("account_id")) for execution in world.claim(limit=100))
    assert started == {"0": 1, "1": 1, "2": 1, "3": 1, "4": 1, "None": 2}


def test_who_waits_for_a_token_says_so_and_when_it_tries_again(nodes: Callable[..., Nodes]) -> None:
    world = nodes(work=RateLimit(1, per_seconds=60))
    first, second, third = world.enqueue(3)
    assert [execution.id for execution in world.claim()] == [first.id]
    waiting = world.get(second.id)
    assert (waiting.state, waiting.reason) == (ExecutionState.PENDING, "rate_limited")
    assert (waiting.run_at, waiting.due_at) == (NOON + seconds(60), NOON)
    assert world.get(third.id).run_at == NOON + seconds(120)
    assert world.claim() == []
    world.clock.advance(60)
    (started,) = world.claim()
    assert (started.id, started.reason, started.waits_for, started.due_at) == (second.id, None, None, None)
    assert world.get(second.id) == started


def test_a_long_line_does_not_hold_up_what_has_no_limit(nodes: Callable[..., Nodes]) -> None:
    world = nodes(work=RateLimit(1, per_seconds=60))
    world.enqueue(300)
    (other,) = world.enqueue(1, task_type="free")
    assert other.id in [execution.id for execution in world.claim(limit=3)]


def test_a_retry_takes_a_token_too(nodes: Callable[..., Nodes]) -> None:
    world = nodes(work=RateLimit(1, per_seconds=60))
    world.enqueue(1)
    (first,) = world.claim()
    world.finish(first, ExecutionState.RETRYING)
    assert world.claim() == []
    assert world.get(first.id).reason == "rate_limited"
    world.clock.advance(60)
    (again,) = world.claim()
    assert (again.id, again.attempt) == (first.id, 2)


@pytest.mark.parametrize("by_name", [False, True])
def test_what_goes_on_after_a_wait_takes_no_token(nodes: Callable[..., Nodes], *, by_name: bool) -> None:
    world = nodes(work=RateLimit(1, per_seconds=60))
    own = {"rate_limit": RateLimit(1, per_seconds=60), "rate_limit_key": "own"}
    execution, next_in_line = world.enqueue(1, **own)[0], world.enqueue(1)[0]
    for attempt in (1, 2, 3):
        (going_on,) = world.claim_named(execution.id) if by_name else world.claim()
        assert going_on is not None
        assert (going_on.id, going_on.attempt) == (execution.id, attempt)
        world.finish(going_on, ExecutionState.SUSPENDED)
    world.clock.advance(60)
    assert next_in_line.id in [one.id for one in world.claim()]


def test_a_request_may_bring_a_limit_of_its_own(nodes: Callable[..., Nodes]) -> None:
    world = nodes(work=RateLimit(1, per_seconds=10))
    both = {"rate_limit": {"limit": 1, "per_seconds": 60}, "rate_limit_key": "customer-7"}
    world.enqueue(2, **both)
    world.enqueue(1, task_type="other", **both)
    assert [execution.task_type for execution in world.claim()] == ["work"]
    world.clock.advance(10)
    assert world.claim() == []
    world.clock.advance(50)
    assert len(world.claim()) == 1


def test_those_who_leave_the_line_leave_no_gap(nodes: Callable[..., Nodes]) -> None:
    world = nodes(work=RateLimit(1, per_seconds=60))
    line = world.enqueue(100)
    world.claim()
    for execution in line[1:90]:
        world.write(lambda connection, one=execution.id: request_cancel(connection, one, world.now))
    world.clock.advance(60)
    assert world.claim() == []
    assert world.write(lambda connection: close_gaps(connection, {}, world.now)) == 10
    assert [execution.id for execution in world.claim()] == [line[90].id]


def a_minute_of_turns(world: Nodes) -> list[timedelta]:
    """Claims and housekeeping, ten times a second and once a second, for a minute; the starts, from its begin."""
    begin, before = world.now, len(world.started)
    for turn in range(600):
        if turn % 10 == 0:
            world.write(lambda connection: close_gaps(connection, world.rules.rates, world.now))
        for execution in world.claim(limit=64):
            world.finish(execution)
        world.clock.advance(0.1)
    return [moment - begin for moment, _ in world.started[before:]]


@pytest.mark.parametrize("newcomers", [1, 50])
def test_a_limit_that_is_raised_holds_for_those_in_line_too(nodes: Callable[..., Nodes], newcomers: int) -> None:
    world = nodes(work=RateLimit(1, per_seconds=3600))
    world.enqueue(400)
    world.claim()
    world.rules = FlowRules({"work": RateLimit(10, per_seconds=1)}, {})
    world.enqueue(newcomers)
    starts = a_minute_of_turns(world)
    assert len(starts) == 399 + newcomers
    assert most_within(starts, seconds(1)) <= 10


def test_a_line_longer_than_is_mended_at_once_loses_nobody(
    nodes: Callable[..., Nodes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.scheduler.buckets._WHOLE_LINE", 50)
    world = nodes(work=RateLimit(1, per_seconds=3600))
    world.enqueue(400)
    world.claim()
    world.rules = FlowRules({"work": RateLimit(10, per_seconds=1)}, {})
    assert len(a_minute_of_turns(world)) == 399


def test_a_limit_of_an_execution_that_is_raised_holds_too(nodes: Callable[..., Nodes]) -> None:
    world = nodes()
    world.enqueue(20, rate_limit=RateLimit(1, per_seconds=3600), rate_limit_key="k")
    world.claim()
    world.enqueue(5, rate_limit=RateLimit(1, per_seconds=1), rate_limit_key="k")
    assert len(a_minute_of_turns(world)) >= 5


def test_a_clock_that_goes_back_holds_no_line_up(nodes: Callable[..., Nodes]) -> None:
    world = nodes(work=RateLimit(1, per_seconds=1))
    world.enqueue(30)
    world.claim()
    world.clock = VirtualClock(NOON - timedelta(hours=1))
    starts = a_minute_of_turns(world)
    assert len(starts) == 29
    assert most_within(starts, seconds(1)) == 1
    assert world.write(lambda connection: has_line(connection, world.now)) is False


def test_what_the_status_says_of_a_raised_limit_comes_true(nodes: Callable[..., Nodes]) -> None:
    world = nodes(work=RateLimit(1, per_seconds=86_400))
    world.enqueue(2)
    world.claim()
    world.rules = FlowRules({"work": RateLimit(1, per_seconds=10)}, {})
    world.write(lambda connection: close_gaps(connection, world.rules.rates, world.now))
    (status,) = world.write(lambda connection: flow_status(connection, world.rules, world.now)).rate_limits
    assert (status.per_seconds, status.next_at) == (10, NOON + seconds(10))
    world.clock.advance(10)
    assert len(world.claim()) == 1


def test_a_higher_priority_does_not_wait_at_the_end_of_the_line(nodes: Callable[..., Nodes]) -> None:
    world = nodes(work=RateLimit(1, per_seconds=60))
    world.enqueue(50)
    world.claim()
    (urgent,) = world.enqueue(1, priority=5)
    world.claim()
    world.clock.advance(60)
    assert [execution.id for execution in world.claim()] == [urgent.id]


def test_one_who_left_the_line_by_a_retry_by_hand_starts_afresh(nodes: Callable[..., Nodes]) -> None:
    world = nodes(work=RateLimit(1, per_seconds=60))
    _, second = world.enqueue(2)
    world.claim()
    world.write(lambda connection: request_cancel(connection, second.id, world.now))
    (reopened,) = world.write(lambda connection: reopen(connection, second.id, world.now))
    assert (reopened.waits_for, reopened.due_at, reopened.run_at) == (None, None, NOON)


def test_claims_by_name_obey_the_same_limits(nodes: Callable[..., Nodes]) -> None:
    world = nodes(work=RateLimit(2, per_seconds=60, burst=2))
    ids = [execution.id for execution in world.enqueue(5)]
    taken = world.claim_named(*ids)
    assert sum(execution is not None for execution in taken) == 2
    assert {world.get(one).reason for one in ids if one not in {e.id for e in taken if e}} == {"rate_limited"}
    with world.engine.connect() as connection:
        assert next_put_off(connection, world.now) == NOON + seconds(30)


def test_a_limit_that_plain_sql_has_spoilt_is_taken_for_a_slow_one(nodes: Callable[..., Nodes]) -> None:
    world = nodes()
    world.enqueue(3)
    world.write(
        lambda connection: connection.execute(text("UPDATE task_executions SET rate_limit = '{\"limit\": 0}'"))
    )
    assert len(world.claim()) == 1


@pytest.mark.parametrize(
    ("limit", "request_fields"),
    [
        (RateLimit(1, per_seconds=1, key="a"), {"params": {"a": "x" * 118}, "rate_limit_key": "k" * 200}),
        (RateLimit(1_000_000, per_seconds=1e-300), {}),
    ],
)
def test_no_limit_that_was_accepted_stops_the_claims_of_all_others(
    nodes: Callable[..., Nodes], limit: RateLimit, request_fields: dict[str, Any]
) -> None:
    them = nodes()
    (odd,) = them.enqueue(task_type="odd", rate_limit=limit, **request_fields)
    (other,) = them.enqueue(task_type="other")
    assert {execution.id for execution in them.claim()} == {odd.id, other.id}


def test_a_line_longer_than_the_calendar_holds_up_nobody_else(nodes: Callable[..., Nodes]) -> None:
    them = nodes()
    them.enqueue(9_000, task_type="yearly", rate_limit=RateLimit(1, per_seconds=366 * 86_400))
    (other,) = them.enqueue(task_type="other", priority=-1)
    while other.id not in {execution.id for _, execution in them.started}:
        them.claim()
    assert len(them.started) == 2


def test_a_bucket_whose_name_plain_sql_has_spoilt_is_taken_for_a_slow_one(nodes: Callable[..., Nodes]) -> None:
    them = nodes()
    long, odd = them.enqueue(2, task_type="sql")
    for execution, bucket in ((long, "x" * 301), (odd, "\\u0000")):
        stored = f'{{"bucket": "{bucket}", "limit": 1}}'
        them.write(
            lambda connection, values={"id": execution.id, "stored": stored}: connection.execute(
                text("UPDATE task_executions SET rate_limit = :stored WHERE id = :id"), values
            )
        )
    assert len(them.claim()) == 1
    them.clock.advance(60)
    assert len(them.claim()) == 1


def test_a_bucket_of_a_limit_that_is_no_longer_allowed_harms_nobody(nodes: Callable[..., Nodes]) -> None:
    them = nodes()
    them.enqueue(2, rate_limit=RateLimit(1, per_seconds=60))
    assert len(them.claim()) == 1
    them.write(lambda connection: connection.execute(text("UPDATE rate_limits SET rate = 1, burst = 2000000000")))
    assert them.write(lambda connection: close_gaps(connection, {}, them.now)) == 0
    assert them.write(lambda connection: flow_status(connection, NO_RULES, them.now)).rate_limits[0].waiting == 1


# -------------------------------------------------------------------- concurrency keys


def test_four_nodes_never_exceed_a_key_and_leave_no_place_empty(nodes: Callable[..., Nodes]) -> None:
    world = nodes()
    world.enqueue(200, concurrency_key="k", concurrency_limit=3)
    running: list[Execution] = []
    used = 0
    for turn in range(100):
        running += world.claim("abcd"[turn % 4], limit=2)
        assert len(running) <= 3
        used += len(running)
        for _ in range(turn % 3):  # 0, 1, or 2 of them end
            if running:
                world.finish(running.pop(0))
        world.clock.advance(1)
    assert used >= 0.95 * 100 * 2.5


def test_a_backfill_gives_way_to_whatever_else_its_task_has(nodes: Callable[..., Nodes]) -> None:
    world = nodes()
    *made_up, today = world.enqueue(4, task_id=7)
    ids = [execution.id for execution in made_up]
    exclusive = update(executions).where(executions.c.task_id == 7).values(exclusive=True)
    world.write(lambda connection: connection.execute(exclusive))
    backfill = update(executions).where(executions.c.id.in_(ids)).values(trigger="backfill")
    world.write(lambda connection: connection.execute(backfill))
    later = update(executions).where(executions.c.id == today.id).values(run_at=NOON + seconds(9))
    world.write(lambda connection: connection.execute(later))
    assert world.claim() == []  # today's is not over
    world.clock.advance(10)
    (first,) = world.claim()
    assert first.id == today.id
    assert world.claim("b") == []
    world.finish(first)
    for expected in ids:
        (next_one,) = world.claim()
        assert next_one.id == expected
        assert world.claim("b") == []
        world.finish(next_one)


# -------------------------------------------------------------------- ageing


def test_under_endless_urgent_load_everything_starts_within_its_bound(nodes: Callable[..., Nodes]) -> None:
    """One lane, one start a second, and an urgent one comes every second: without ageing nothing else ever ran."""
    world = nodes(step=2)
    (humble,) = world.enqueue(1, priority=0)
    for _ in range(60):
        world.enqueue(1, priority=10)
        for execution in world.claim(limit=1):
            world.finish(execution)
        world.clock.advance(1)
    waited = next(moment for moment, execution in world.started if execution.id == humble.id) - NOON
    assert waited <= seconds(2 * 10 + 1)


def test_without_ageing_priorities_are_strict(nodes: Callable[..., Nodes]) -> None:
    world = nodes(step=0)
    (humble,) = world.enqueue(1)
    world.clock.advance(86_400)
    (urgent,) = world.enqueue(1, priority=1)
    assert [execution.id for execution in world.claim(limit=1)] == [urgent.id]
    assert [execution.id for execution in world.claim(limit=1)] == [humble.id]


def test_turns_are_those_of_the_formula_over_many_priorities(nodes: Callable[..., Nodes]) -> None:
    world = nodes(step=10)
    recorded = []
    for second in range(40):
        recorded += world.enqueue(1, priority=(second * 7) % 5 - 2)
        world.clock.advance(3)
    order = []
    while taken := world.claim(limit=3):
        order += [execution.id for execution in taken]
    due = {one.id: one.run_at.timestamp() - 10 * one.priority for one in recorded}
    assert order == sorted(order, key=lambda one: due[one])


def test_one_that_was_put_off_counts_its_wait_from_the_first_time(nodes: Callable[..., Nodes]) -> None:
    world = nodes(step=10, work=RateLimit(1, per_seconds=60))
    world.enqueue(1)
    world.claim()
    (humble,) = world.enqueue(1)
    world.claim()
    world.clock.advance(60)
    world.enqueue(1, priority=5)  # worth 50 seconds, and the humble one has waited for 60
    assert [execution.id for execution in world.claim()] == [humble.id]


# -------------------------------------------------------------------- circuits

BREAKER = CircuitBreaker(failure_rate=0.5, window=4, minimum=2, open_seconds=30)


def test_a_circuit_opens_waits_probes_and_closes(nodes: Callable[..., Nodes]) -> None:
    world = nodes(breakers={"work": BREAKER})
    world.enqueue(2)
    for execution in world.claim():
        world.finish(execution, ExecutionState.FAILED)
    waiting = world.enqueue(50)
    (other,) = world.enqueue(1, task_type="free")
    assert [execution.id for execution in world.claim(limit=5)] == [other.id]
    assert {world.get(one.id).reason for one in waiting} == {"circuit_open"}
    assert world.get(waiting[0].id).failures == 0
    world.clock.advance(30)
    (probe,) = world.claim()
    assert (probe.id, probe.reason) == (waiting[0].id, "circuit_probe")
    world.finish(probe, ExecutionState.RETRYING)
    assert world.claim("b") == []
    world.clock.advance(30)
    (probe,) = world.claim()
    world.finish(probe)
    with world.engine.connect() as connection:
        assert read_circuits(connection)["work"].phase is Phase.CLOSED
    assert len(world.claim(limit=100)) == 49
    assert {execution.reason for _, execution in world.started[-49:]} == {None}


def test_a_reset_by_hand_closes_it_at_once(nodes: Callable[..., Nodes]) -> None:
    world = nodes(breakers={"work": BREAKER})
    world.enqueue(2)
    for execution in world.claim():
        world.finish(execution, ExecutionState.FAILED)
    (waiting,) = world.enqueue(1)
    assert world.claim() == []
    assert world.write(lambda connection: reset_circuit(connection, "work", world.now)) is Phase.OPEN
    assert [execution.id for execution in world.claim()] == [waiting.id]


def test_a_probe_that_finds_no_token_is_kept_for_the_next(nodes: Callable[..., Nodes]) -> None:
    world = nodes(breakers={"work": BREAKER}, work=RateLimit(1, per_seconds=60, burst=2))
    world.enqueue(2)
    for execution in world.claim():
        world.finish(execution, ExecutionState.FAILED)
    world.enqueue(1)
    assert world.claim() == []
    world.clock.advance(30)
    assert world.claim() == []
    with world.engine.connect() as connection:
        assert read_circuits(connection)["work"].phase is Phase.OPEN
    world.clock.advance(30)
    assert [execution.reason for execution in world.claim()] == ["circuit_probe"]
