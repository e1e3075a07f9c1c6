"""What must be true afterwards. Knows the database and the diary, and which processes were killed or stopped when.

About time the checker asks the diary, whose clock nobody steps. An attempt's code counts as over when it said so,
when its process was killed, or when its process was stopped: from then on it holds no lease, and what it still
does must have no effect, which the effects themselves show. So it is with what a stopped process had decided to
start, and does start when it goes on, before it learns that its node has been declared dead.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from itertools import pairwise
from typing import Any

from sqlalchemy import Connection, text

from app.models.execution_step import ExecutionSignal, ExecutionStep
from app.models.task_attempt import TaskAttempt
from app.models.task_execution import FINAL_STATES, Execution, ExecutionState, TaskExecution
from tests.faults.diary import Line
from tests.faults.journey import WRITING_STEPS, Mark
from tests.faults.workflow import broken_workflows

steps = ExecutionStep.__table__
signals = ExecutionSignal.__table__


@dataclass(frozen=True, slots=True)
class Fire:
    """A ledger row: `count` fires from `first` to `last`, of a task that fires each second."""

    task: int
    first: datetime
    last: datetime
    count: int


@dataclass(frozen=True, slots=True)
class AttemptRow:
    """A recorded attempt."""

    execution: int
    number: int
    status: str
    reason: str | None = None


@dataclass(slots=True)
class Evidence:
    """Everything that the run left behind."""

    executions: Sequence[Execution]
    attempts: Sequence[AttemptRow]
    fires: Sequence[Fire]
    effects: Sequence[tuple[int, int]]
    """(execution, attempt) of each row an executor wrote through its Session."""
    lines: Sequence[Line]
    acknowledged: Mapping[str, int]
    """Idempotency key → execution id, as the API answered."""
    gone: Mapping[int, Sequence[float]]
    """Process id → when it was killed or stopped, in `boot_seconds()`."""
    limits: Mapping[str, int]
    """Concurrency key → how many may run at once."""
    recorded_keys: Mapping[str, list[int]] = field(default_factory=dict)
    """Idempotency key → the executions that have it."""
    marks: Sequence[Mark] = ()
    """What journeys did, and what their steps returned."""
    steps: Mapping[tuple[int, str], Any] = field(default_factory=dict)
    """(execution, step) → its stored result."""
    step_effects: Sequence[tuple[int, str]] = ()
    """(execution, step) of each row a step wrote through its Session."""
    signalled: Mapping[int, Sequence[int]] = field(default_factory=dict)
    """Execution → numbers of the signals that were acknowledged."""
    payloads: Mapping[int, Sequence[int]] = field(default_factory=dict)
    """Execution → numbers of the signals that are stored, in their order."""
    decided: Mapping[int, str] = field(default_factory=dict)
    """Approval → the comment of the decision that was acknowledged."""
    buried: frozenset[str] = frozenset()
    """Ids of the nodes that were declared dead; a process that comes back has a new one."""

    def is_late(self, line: Line) -> bool:
        """Whether a process that had been stopped began this for a node that was declared dead meanwhile."""
        return line.node in self.buried and any(moment < line.at for moment in self.gone.get(line.pid, ()))


def collect(connection: Connection, **known: Any) -> Evidence:
    """Read the evidence from the database; `known` is what the harness itself saw."""
    table = TaskExecution.__table__
    executions = [Execution.from_row(row) for row in connection.execute(table.select().order_by(table.c.id))]
    tried = TaskAttempt.__table__
    keys: dict[str, list[int]] = defaultdict(list)
    for execution in executions:
        if execution.idempotency_key is not None:
            keys[execution.idempotency_key].append(execution.id)
    return Evidence(
        executions=executions,
        attempts=[
            AttemptRow(row.execution_id, row.number, row.status, row.reason)
            for row in connection.execute(tried.select())
        ],
        fires=[
            Fire(one.task_id, one.first_fire_at or one.scheduled_for, one.scheduled_for, one.fire_count)
            for one in executions
            if one.task_id is not None and one.scheduled_for is not None
        ],
        effects=[(row.execution, row.attempt) for row in connection.execute(text("SELECT * FROM fault_effects"))],
        recorded_keys=keys,
        steps={
            (row.execution_id, row.name): row.result
            for row in connection.execute(steps.select().where(steps.c.kind == "step"))
        },
        step_effects=[(row.execution, row.step) for row in connection.execute(text("SELECT * FROM fault_steps"))],
        payloads=_payloads(connection),
        buried=frozenset(connection.scalars(text("SELECT id FROM nodes WHERE found_dead"))),
        **known,
    )


def _payloads(connection: Connection) -> dict[int, list[int]]:
    found: dict[int, list[int]] = defaultdict(list)
    for row in connection.execute(signals.select().order_by(signals.c.id)):
        found[row.execution_id].append(row.payload)
    return found


def violations(evidence: Evidence) -> list[str]:
    """Every promise that was broken, in a sentence each; none is the aim."""
    return [
        *_ledger(evidence.fires),
        *_acknowledged(evidence),
        *_outcomes(evidence),
        *_effects(evidence),
        *_overlaps(evidence),
        *_limits(evidence),
        *_ran_again(evidence),
        *_steps(evidence),
        *_signals(evidence),
        *broken_workflows(evidence.executions, evidence.lines, evidence.decided),
    ]


def _ledger(fires: Iterable[Fire]) -> Iterable[str]:
    """No fire lost, none recorded twice: the rows of a task cover each second once, without a gap."""
    by_task: dict[int, list[Fire]] = defaultdict(list)
    for fire in fires:
        by_task[fire.task].append(fire)
    second = timedelta(seconds=1)
    for task, rows in by_task.items():
        rows.sort(key=lambda fire: fire.first)
        for fire in rows:
            if fire.last - fire.first != (fire.count - 1) * second:
                yield f"task {task}: a row says {fire.count} fires from {fire.first} to {fire.last}"
        for sooner, later in pairwise(rows):
            if later.first <= sooner.last:
                yield f"task {task}: the fire at {later.first} is recorded twice"
            elif later.first - sooner.last != second:
                yield f"task {task}: no row for the fires between {sooner.last} and {later.first}"


def _acknowledged(evidence: Evidence) -> Iterable[str]:
    """What was acknowledged is there, once a key."""
    ids = {execution.id for execution in evidence.executions}
    for key, execution in evidence.acknowledged.items():
        if execution not in ids:
            yield f"execution {execution} was acknowledged and is gone"
        if evidence.recorded_keys.get(key) != [execution]:
            yield f"key {key}: acknowledged {execution}, recorded {evidence.recorded_keys.get(key)}"


def _outcomes(evidence: Evidence) -> Iterable[str]:
    """Every execution is over; a success has one successful attempt, its last, and nothing else has any."""
    by_execution: dict[int, list[AttemptRow]] = defaultdict(list)
    for attempt in evidence.attempts:
        by_execution[attempt.execution].append(attempt)
    for execution in evidence.executions:
        attempts = sorted(by_execution[execution.id], key=lambda attempt: attempt.number)
        ended = [attempt for attempt in attempts if attempt.reason != "suspended"]
        won = [attempt.number for attempt in ended if attempt.status == "success"]
        if execution.state not in FINAL_STATES:
            yield f"execution {execution.id} is still {execution.state.value}"
        elif execution.state is ExecutionState.SUCCESS and won != [execution.attempt]:
            yield f"execution {execution.id} succeeded at attempt {execution.attempt}; successful attempts: {won}"
        elif execution.state is not ExecutionState.SUCCESS and won:
            yield f"execution {execution.id} is {execution.state.value} and has successful attempts: {won}"
        if [attempt.number for attempt in attempts] != list(range(1, len(attempts) + 1)):
            yield f"execution {execution.id} has attempts {[attempt.number for attempt in attempts]}"


def _effects(evidence: Evidence) -> Iterable[str]:
    """What an executor wrote through its Session is there exactly once for a success, and else never."""
    written: dict[int, list[int]] = defaultdict(list)
    for execution, attempt in evidence.effects:
        written[execution].append(attempt)
    for one in evidence.executions:
        expected = [one.attempt] if one.state is ExecutionState.SUCCESS else []
        if one.task_type == "effect" and sorted(written[one.id]) != expected:
            yield f"execution {one.id} ({one.state.value}): effects of attempts {written[one.id]}, not {expected}"


@dataclass(frozen=True, slots=True)
class Span:
    """How long an attempt's code ran, as far as it counts."""

    execution: int
    attempt: int
    key: str | None
    begin: float
    end: float


def spans(evidence: Evidence) -> list[Span]:
    """The attempts' code, from the diary."""
    ends = {(line.execution, line.attempt, line.pid): line.at for line in evidence.lines if line.event == "end"}
    found = []
    for line in evidence.lines:
        if line.event == "begin" and not evidence.is_late(line):
            end = ends.get((line.execution, line.attempt, line.pid), float("inf"))
            gone = [moment for moment in evidence.gone.get(line.pid, ()) if moment >= line.at]
            found.append(Span(line.execution, line.attempt, line.key, line.at, min([end, *gone])))
    return found


def _overlaps(evidence: Evidence) -> Iterable[str]:
    """No attempt of an execution began while another of the same one ran."""
    by_execution: dict[int, list[Span]] = defaultdict(list)
    for span in spans(evidence):
        by_execution[span.execution].append(span)
    for execution, ran in by_execution.items():
        ran.sort(key=lambda span: span.begin)
        for sooner, later in pairwise(ran):
            if later.begin < sooner.end:
                yield (
                    f"execution {execution}: attempt {later.attempt} began {sooner.end - later.begin:.2f} s before"
                    f" attempt {sooner.attempt} was over"
                )


def _limits(evidence: Evidence) -> Iterable[str]:
    """Never more at once than a key allows."""
    by_key: dict[str, list[Span]] = defaultdict(list)
    for span in spans(evidence):
        if span.key is not None:
            by_key[span.key].append(span)
    for key, ran in by_key.items():
        moments = sorted([(span.begin, 1) for span in ran] + [(span.end, -1) for span in ran])
        at_once = highest = 0
        for _, change in moments:
            at_once += change
            highest = max(highest, at_once)
        if highest > evidence.limits[key]:
            yield f"key {key}: {highest} at once, {evidence.limits[key]} allowed"


def _ran_again(evidence: Evidence) -> Iterable[str]:
    """Finished work never ran again. An attempt runs twice only if its process was gone, or its node declared
    dead, before its start, made from memory, was on disk."""
    begun: dict[tuple[int, int], list[Line]] = defaultdict(list)
    for line in evidence.lines:
        if line.event == "begin":
            begun[line.execution, line.attempt].append(line)
    for (execution, attempt), lines in begun.items():
        for sooner, later in pairwise(sorted(lines, key=lambda line: line.at)):
            was_gone = any(sooner.at <= moment <= later.at for moment in evidence.gone.get(sooner.pid, ()))
            if not was_gone and sooner.node not in evidence.buried and not evidence.is_late(later):
                yield f"execution {execution}: attempt {attempt} ran twice"
    succeeded = {one.id: one.attempt for one in evidence.executions if one.state is ExecutionState.SUCCESS}
    for execution, attempt in begun:
        if attempt > succeeded.get(execution, attempt):
            yield f"execution {execution} had succeeded at attempt {succeeded[execution]}; {attempt} ran too"


def _steps(evidence: Evidence) -> Iterable[str]:
    """A step whose result was stored never ran again, everybody saw that result, what it wrote is there once."""
    stored: dict[tuple[int, str], Mark] = {}
    for mark in evidence.marks:
        step = (mark.execution, mark.step)
        name = f"execution {mark.execution}: step {mark.step}"
        late = mark.node in evidence.buried and any(gone < mark.at for gone in evidence.gone.get(mark.pid, ()))
        if mark.event == "stored":
            stored.setdefault(step, mark)
            if mark.token != evidence.steps.get(step):
                yield f"{name} returned {mark.token}, and {evidence.steps.get(step)} is stored"
        elif step in stored and not late:
            yield f"{name} ran again in attempt {mark.attempt}, stored since attempt {stored[step].attempt}"
    effects = Counter(evidence.step_effects)
    for (execution, step), count in effects.items():
        if count != 1 or (execution, step) not in evidence.steps:
            yield f"execution {execution}: step {step} wrote {count} rows through its Session"
    for execution, step in evidence.steps:
        if step in WRITING_STEPS and not effects[execution, step]:
            yield f"execution {execution}: what step {step} wrote is gone"


def _signals(evidence: Evidence) -> Iterable[str]:
    """Acknowledged signals are stored, and a journey got the first ones, in their order."""
    for execution, numbers in evidence.signalled.items():
        lost = set(numbers) - set(evidence.payloads.get(execution, ()))
        if lost:
            yield f"execution {execution}: signals {sorted(lost)} were acknowledged and are gone"
    for one in evidence.executions:
        if one.task_type != "journey" or one.state is not ExecutionState.SUCCESS:
            continue
        got = [number for number in ((one.result or {}).get("data") or {}).get("got", ()) if number is not None]
        if got != list(evidence.payloads.get(one.id, ()))[: len(got)]:
            yield f"execution {one.id} got the signals {got} of {evidence.payloads.get(one.id)}"


STEPS_TABLE = "CREATE TABLE fault_steps (execution INTEGER NOT NULL, step VARCHAR(50) NOT NULL)"
EFFECTS_TABLE = "CREATE TABLE fault_effects (execution INTEGER NOT NULL, attempt INTEGER NOT NULL)"
