"""One run: traffic, faults, quiet, evidence."""

from __future__ import annotations

import itertools
import random
import statistics
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
from sqlalchemy import Connection, text, update
from sqlalchemy.exc import DBAPIError

from app.models.task_execution import FINAL_STATES, ExecutionState, state_in
from app.scheduler.executions import executions
from tests.faults.checker import Evidence, collect, violations
from tests.faults.deployment import LEASE_SECONDS, Deployment, Server, deployed
from tests.faults.traffic import API, LIMITS, Traffic

KINDS_OF_TASK = (
    {"name": "allow", "overlap_policy": "allow", "params": {"seconds": 0.1, "failing": 0.1}},
    {"name": "skip", "overlap_policy": "skip", "params": {"seconds": 1.5}},
    {"name": "queue", "overlap_policy": "queue", "params": {"seconds": 0.3}},
    {"name": "all", "overlap_policy": "allow", "misfire_policy": "all", "params": {"seconds": 0.05}},
    {
        "name": "keyed",
        "overlap_policy": "allow",
        "params": {"seconds": 0.2, "key": "wide"},
        "concurrency_key": "wide",
    },
)
TASKS_OF_A_KIND = 4
CLIENTS = 32
QUIET_SECONDS = 60.0


@dataclass(slots=True)
class Report:
    """What a run was and what it found."""

    target: str
    seed: int
    seconds: float
    processes: int
    fires: int = 0
    executions: int = 0
    acknowledged: int = 0
    attempts: int = 0
    steps: int = 0
    signals: int = 0
    workflows: int = 0
    decisions: int = 0
    faults: Counter[str] = field(default_factory=Counter)
    rescue_seconds: list[float] = field(default_factory=list)
    """From SIGKILL to the next attempt of what the process ran."""
    hand_over_seconds: list[float] = field(default_factory=list)
    """From the end of what a process told to stop handed back to its next attempt."""
    violations: list[str] = field(default_factory=list)

    def as_dict(self) -> dict[str, Any]:
        """For JSON: counts, times as median and maximum, violations."""
        return {
            **{name: getattr(self, name) for name in ("target", "seed", "seconds", "processes", "fires")},
            **{name: getattr(self, name) for name in ("executions", "acknowledged", "attempts", "steps")},
            **{name: getattr(self, name) for name in ("signals", "workflows", "decisions", "violations")},
            "faults": dict(self.faults),
            "lease_seconds": LEASE_SECONDS,
            "rescue": _spread(self.rescue_seconds),
            "hand_over": _spread(self.hand_over_seconds),
        }


def _spread(seconds: list[float]) -> dict[str, float] | None:
    if not seconds:
        return None
    return {"count": len(seconds), "median": round(statistics.median(seconds), 3), "max": round(max(seconds), 3)}


def run(
    target: str,
    folder: Path,
    *,
    seconds: float,
    seed: int,
    processes: int = 4,
    clients: int = CLIENTS,
    only: tuple[str, ...] | None = None,
    broken: str | None = None,
    on_progress: Callable[[float, Report], None] = lambda _elapsed, _report: None,
) -> Report:
    """Run for `seconds`, let everything come to rest, and check. `only`: the names of the faults to use."""
    report = Report(target, seed, seconds, processes)
    chance = random.Random(seed)
    with deployed(target, folder, broken=broken) as deployment:
        for number in range(processes):
            # On many machines some nodes record and others work.
            deployment.start(SCHEDULER_ROLE="api" if target == "pgqueuer" and number < 2 else "all")
        deployment.await_up()
        _make_tasks(deployment.servers[0])
        traffic = Traffic(deployment, seed, pause=0.1)
        traffic.start(clients)
        faults = _faults(deployment, report, chance, only)
        started = time.monotonic()
        while (elapsed := time.monotonic() - started) < seconds:
            on_progress(elapsed, report)
            deployment.revive()
            name = chance.choice(["kill"] * 2 + sorted(faults) if "kill" in faults else sorted(faults))
            faults[name]()
            report.faults[name] += 1
            time.sleep(chance.uniform(0.1, 1.0))
        traffic.stop()
        _come_to_rest(deployment)
        deployment.stop()
        with deployment.engine.connect() as connection:
            evidence = collect(
                connection,
                lines=deployment.diary.read(),
                acknowledged=traffic.acknowledged,
                gone=deployment.gone,
                marks=deployment.marks.read(),
                signalled=traffic.signalled,
                decided=traffic.decided,
                limits=LIMITS,
            )
    _fill_in(report, evidence, deployment.told_to_stop)
    return report


def _make_tasks(server: Server) -> None:
    for kind, number in itertools.product(KINDS_OF_TASK, range(TASKS_OF_A_KIND)):
        if number and "concurrency_key" in kind:
            continue  # what waits for one key cannot be worked off by more nodes
        task = {**kind, "name": f"{kind['name']} {number}"}
        definition = {"task_type": "effect", "schedule": {"type": "interval", "seconds": 1}, **task}
        if "concurrency_key" in task:
            definition["concurrency_limit"] = LIMITS[str(task["concurrency_key"])]
        httpx.post(API.format(port=server.port) + "/tasks", json=definition, timeout=10).raise_for_status()


def _faults(
    deployment: Deployment, report: Report, chance: random.Random, only: tuple[str, ...] | None
) -> dict[str, Callable[[], None]]:
    """What can go wrong here, by name."""

    def some() -> Server:
        return chance.choice(deployment.servers)

    faults: dict[str, Callable[[], None]] = {
        "kill": lambda: deployment.kill(some()),
        "terminate": lambda: deployment.terminate(some()),
        "freeze": lambda: deployment.freeze(some(), 1.7 * LEASE_SECONDS),
        "clock forward": lambda: deployment.step_clock(30, hold=1.0),
        "clock back": lambda: deployment.step_clock(-3600, hold=1.5),
    }
    if deployment.postgres is not None:
        faults["connections cut"] = deployment.cut_connections
        faults["postgres restart"] = deployment.restart_postgres
    elif deployment.can_fill_disk:
        faults["disk full"] = lambda: deployment.fill_disk(1.0)
    return {name: fault for name, fault in faults.items() if only is None or name in only}


def _come_to_rest(deployment: Deployment) -> None:
    """No more fires; wait until every execution is over, or none has ended for `QUIET_SECONDS`.

    Raises:
        TimeoutError: some server does not come up. An execution that is never over is for the checker to report.
    """
    deployment.await_up()
    _pause_all(deployment)
    final = ", ".join(f"'{state.value}'" for state in FINAL_STATES)
    waiting = text(f"SELECT count(*) FROM task_executions WHERE state NOT IN ({final})")
    end, least = time.monotonic() + QUIET_SECONDS, None
    while time.monotonic() < end:
        with suppress(DBAPIError), deployment.engine.begin() as connection:
            _hasten_retries(connection)
            left = connection.scalar(waiting)
            if not left:
                return
            if least is None or left < least:
                end, least = time.monotonic() + QUIET_SECONDS, left
        time.sleep(0.5)


def _pause_all(deployment: Deployment) -> None:
    """No task fires any more."""
    end = time.monotonic() + 30
    while True:
        try:
            with deployment.engine.begin() as connection:
                if connection.dialect.name == "postgresql":
                    # A broken build may hold rows in any order, over and over: waiting for one row while holding
                    # others would be a deadlock each time.
                    connection.execute(text("LOCK TABLE scheduled_tasks IN EXCLUSIVE MODE"))
                connection.execute(text("UPDATE scheduled_tasks SET is_active = false, next_run_at = NULL"))
        except DBAPIError:
            if time.monotonic() > end:
                raise
            time.sleep(0.2)
        else:
            return


def _hasten_retries(connection: Connection) -> None:
    """What has failed often is tried again now, not in an hour."""
    now = datetime.now(UTC)
    connection.execute(
        update(executions)
        .where(state_in(executions.c.state, (ExecutionState.RETRYING,)), executions.c.run_at > now)
        .values(run_at=now)
    )


def _fill_in(report: Report, evidence: Evidence, told_to_stop: dict[int, float]) -> None:
    report.fires = sum(fire.count for fire in evidence.fires)
    report.executions = len(evidence.executions)
    report.acknowledged = len(evidence.acknowledged)
    report.attempts = len(evidence.attempts)
    report.steps = len(evidence.steps)
    report.signals = sum(map(len, evidence.signalled.values()))
    report.workflows = sum(one.task_type == "workflow" for one in evidence.executions)
    report.decisions = len(evidence.decided)
    report.rescue_seconds = _recoveries(evidence)
    report.hand_over_seconds = _hand_overs(evidence, told_to_stop)
    report.violations = violations(evidence)


def _recoveries(evidence: Evidence) -> list[float]:
    """How long after its process was gone an interrupted attempt was followed by the next one."""
    begins = {(line.execution, line.attempt): line for line in evidence.lines if line.event == "begin"}
    ends = {(line.execution, line.attempt, line.pid) for line in evidence.lines if line.event == "end"}
    found = []
    for (execution, attempt), line in begins.items():
        following = begins.get((execution, attempt + 1))
        lost = [moment for moment in evidence.gone.get(line.pid, ()) if moment >= line.at]
        if following is not None and lost and (execution, attempt, line.pid) not in ends:
            found.append(following.at - lost[0])
    return found


def _hand_overs(evidence: Evidence, told_to_stop: dict[int, float]) -> list[float]:
    """How long what a stopping process handed back waited for its next attempt."""
    handed_back = {(row.execution, row.number) for row in evidence.attempts if row.reason == "handed_back"}
    begins = {(line.execution, line.attempt): line.at for line in evidence.lines if line.event == "begin"}
    return [
        begins[line.execution, line.attempt + 1] - line.at
        for line in evidence.lines
        if line.event == "end"
        and (line.execution, line.attempt) in handed_back
        and line.pid in told_to_stop
        and (line.execution, line.attempt + 1) in begins
    ]
