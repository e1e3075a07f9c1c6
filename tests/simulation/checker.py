"""The judge: reads the tables and the database's own account, and says what was broken.

It trusts no code of ours: not the states, not the triggers, not the stores.
"""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from tests.simulation.oracle import cron_fires, interval_fires
from tests.simulation.world import Arming, World

FINAL = {"success", "failed", "cancelled", "skipped"}
ACTIVE = {"pending", "running", "retrying"}
LEGAL = {
    ("pending", "running"),
    ("pending", "cancelled"),
    ("retrying", "running"),
    ("retrying", "cancelled"),
    ("running", "success"),
    ("running", "failed"),
    ("running", "retrying"),
    ("running", "cancelled"),
    ("running", "pending"),
    ("failed", "pending"),
    ("cancelled", "pending"),
}
_COUNT_CAP = 1000


@dataclass(slots=True)
class Report:
    """What a run was made of, and what it broke."""

    fires: int = 0
    executions: int = 0
    attempts: int = 0
    crashes: int = 0
    freezes: int = 0
    rescues: int = 0
    states: dict[str, int] = field(default_factory=dict)
    violations: list[str] = field(default_factory=list)


def judge(world: World) -> Report:
    """Everything that must be true after a run."""
    executions = _dicts(world, "task_executions", "id")
    attempts = _dicts(world, "task_attempts", "execution_id, number")
    report = Report(
        executions=len(executions),
        attempts=len(attempts),
        crashes=world.crashes,
        freezes=world.freezes,
        rescues=sum(row["rescues"] for row in executions),
        states=dict(Counter(row["state"] for row in executions)),
    )
    violations = report.violations
    violations += [f"a process broke: {type(error).__name__}: {error}" for error in world.errors]
    expected = _expected(world)
    report.fires = sum(len(fires) for fires in expected.values())
    violations += _ledger(executions, expected)
    violations += _misfires(executions, _policies(world))
    violations += _moves(world)
    violations += _limits(world)
    violations += _overlaps(world)
    violations += _outcomes(world, executions, attempts)
    violations += _retries(world, executions)
    violations += _acknowledged(world, executions)
    return report


def _dicts(world: World, table: str, order: str) -> list[dict[str, Any]]:
    names = [row[1] for row in world.database.rows(f"PRAGMA table_info({table})")]
    return [
        dict(zip(names, row, strict=True))
        for row in world.database.rows(f"SELECT * FROM {table} ORDER BY {order}")
    ]


def _moment(stored: str) -> datetime:
    return datetime.fromisoformat(stored).replace(tzinfo=UTC)


# -------------------------------------------------------------------- fires


def _expected(world: World) -> dict[int, set[datetime]]:
    """The fires each task owes."""
    found: dict[int, set[datetime]] = defaultdict(set)
    end = world.clock.now()
    for arming in world.armings:
        found[arming.task_id].update(_fires(arming, min(arming.until or end, end)))
    return found


def _fires(arming: Arming, until: datetime) -> list[datetime]:
    match arming.schedule_type:
        case "cron":
            skip = arming.dst_policy == "skip"
            return cron_fires(arming.expression, arming.zone, arming.since, until, skip=skip)
        case "interval":
            return interval_fires(float(arming.expression), arming.anchor, arming.since, until)
    moment = datetime.fromisoformat(arming.expression)
    return [moment] if arming.since < moment < until else []


def _ledger(executions: list[dict[str, Any]], expected: dict[int, set[datetime]]) -> Iterator[str]:
    """Every fire that was owed is in the ledger once, and nothing else is."""
    by_task: dict[int, list[dict[str, Any]]] = defaultdict(list)
    for row in executions:
        if row["scheduled_for"] is not None:
            by_task[row["task_id"]].append(row)
    for task_id in sorted(by_task.keys() | expected.keys()):
        owed = expected.get(task_id, set())
        covered: Counter[datetime] = Counter()
        for row in by_task[task_id]:
            last = _moment(row["scheduled_for"])
            if row["first_fire_at"] is None:
                covered[last] += 1
                if last not in owed:
                    yield f"task {task_id}: {last} is in the ledger (execution {row['id']}), but was no fire"
                continue
            span = {fire for fire in owed if _moment(row["first_fire_at"]) <= fire <= last}
            if len(span) != row["fire_count"] and row["fire_count"] < _COUNT_CAP:
                yield f"execution {row['id']} stands for {row['fire_count']} fires; there were {len(span)}"
            # A task set back by hand passes once more over fires that have rows of their own.
            covered.update(fire for fire in span if not covered[fire])
        for fire in sorted(owed):
            if covered[fire] != 1:
                yield f"task {task_id}: its fire at {fire} was recorded {covered[fire]} times"


def _policies(world: World) -> dict[int, set[str]]:
    """The misfire policy of the tasks that kept theirs (an operator may change it to `all`)."""
    return {row["id"]: {row["misfire_policy"]} for row in _dicts(world, "scheduled_tasks", "id")}


def _misfires(executions: list[dict[str, Any]], policies: dict[int, set[str]]) -> Iterator[str]:
    """`latest` runs one fire at a time; a fire is only `misfire` where the policy is to skip."""
    at_once: Counter[tuple[int, str]] = Counter()
    for row in executions:
        if row["scheduled_for"] is None or row["task_id"] not in policies:
            continue
        policy = policies[row["task_id"]]
        if row["reason"] == "misfire" and policy == {"latest"}:
            yield f"execution {row['id']} was skipped as a misfire under policy latest"
        if row["state"] != "skipped" and policy == {"latest"}:
            at_once[row["task_id"], row["created_at"]] += 1
    for (task_id, moment), count in at_once.items():
        if count > 1:
            yield f"task {task_id} under policy latest made up {count} fires at {moment}"


# -------------------------------------------------------------------- moves


def _audit(world: World) -> list[dict[str, Any]]:
    return _dicts(world, "audit", "seq")


def _moves(world: World) -> Iterator[str]:
    """Each execution moves as the state machine allows; once over, only a person's retry moves it; once somebody
    asked for its end, no attempt of it starts."""
    for move in _audit(world):
        who, old, new = f"execution {move['execution_id']}", move["old_state"], move["new_state"]
        if old is None:
            if new not in ("pending", "skipped"):
                yield f"{who} began as {new}"
            continue
        started = move["new_attempt"] != move["old_attempt"]
        # The journal may store a start and its end as one.
        from_state = "running" if started and old in ("pending", "retrying") and new != "running" else old
        if old != new and (from_state, new) not in LEGAL:
            yield f"{who} moved from {old} to {new}"
        if started and move["new_attempt"] != move["old_attempt"] + 1:
            yield f"{who} went from attempt {move['old_attempt']} to {move['new_attempt']}"
        if started and old == "running":
            yield f"{who} started attempt {move['new_attempt']} while another ran"
        # A node that holds it starts it from memory and is told afterwards.
        if started and move["cancel"] and move["old_owner"] is None:
            yield f"{who} started attempt {move['new_attempt']} after its end was asked for"


def _limits(world: World) -> Iterator[str]:
    """No key runs more often than its limit allows; no exclusive execution starts beside another of its task."""
    running: dict[str, set[int]] = defaultdict(set)
    of_task: dict[int, set[int]] = defaultdict(set)
    for move in _audit(world):
        execution_id, key, task_id = move["execution_id"], move["concurrency_key"], move["task_id"]
        if move["new_state"] != "running":
            running[key].discard(execution_id)
            of_task[task_id].discard(execution_id)
            continue
        if move["old_state"] == "running":
            continue
        if move["exclusive"] and task_id is not None and of_task[task_id]:
            yield f"exclusive execution {execution_id} started beside {sorted(of_task[task_id])}"
        running[key].add(execution_id)
        of_task[task_id].add(execution_id)
        if key is not None and len(running[key]) > (move["concurrency_limit"] or 1):
            yield f"{len(running[key])} executions of {key} ran at once"


def _overlaps(world: World) -> Iterator[str]:
    """Unless its policy allows it, two executions of a task do not run at once; one that a person has put back in
    line after its end may find another there."""
    rows = world.database.rows("SELECT id FROM scheduled_tasks WHERE overlap_policy <> 'allow'")
    alone = {row[0] for row in rows} - world.edited
    running: dict[int, set[int]] = defaultdict(set)
    reopened: set[int] = set()
    for move in _audit(world):
        execution_id, task_id = move["execution_id"], move["task_id"]
        if move["old_state"] in FINAL and move["new_state"] == "pending":
            reopened.add(execution_id)
        if move["new_state"] != "running":
            running[task_id].discard(execution_id)
        elif move["old_state"] != "running" and task_id in alone and execution_id not in reopened:
            if running[task_id]:
                yield f"task {task_id}: execution {execution_id} ran beside {sorted(running[task_id])}"
            running[task_id].add(execution_id)


# -------------------------------------------------------------------- outcomes


def _outcomes(world: World, executions: list[dict[str, Any]], attempts: list[dict[str, Any]]) -> Iterator[str]:
    """Everything has ended, in one outcome, which its attempts and its marks in the database agree with."""
    tries: dict[int, list[dict[str, Any]]] = defaultdict(list)
    for row in attempts:
        tries[row["execution_id"]].append(row)
    marks = Counter(row[0] for row in world.database.rows("SELECT execution_id FROM effects"))
    for row in executions:
        mine, who = tries[row["id"]], f"execution {row['id']}"
        if row["state"] not in FINAL:
            yield f"{who} never ended: {row['state']}, owner {row['owner']}"
            continue
        if [attempt["number"] for attempt in mine] != list(range(1, row["attempt"] + 1)):
            yield f"{who} counts {row['attempt']} attempts and has {[attempt['number'] for attempt in mine]}"
        successes = [attempt["number"] for attempt in mine if attempt["status"] == "success"]
        if successes != ([row["attempt"]] if row["state"] == "success" else []):
            yield f"{who} ended {row['state']}, and its successful attempts are {successes}"
        if any(attempt["status"] == "running" for attempt in mine):
            yield f"{who} is over, and one of its attempts still runs"
        if marks[row["id"]] > (row["state"] == "success"):
            yield f"{who} ended {row['state']} and left {marks[row['id']]} marks"
    for execution_id, number, old, new in world.database.rows("SELECT * FROM rewrites"):
        yield f"attempt {number} of execution {execution_id} had ended {old} and was changed to {new}"


def _retries(world: World, executions: list[dict[str, Any]]) -> Iterator[str]:
    """An execution fails when its policy says so, and not before."""
    for row in executions:
        policy = json.loads(row["retry"]) if row["retry"] else {}
        allowed = policy.get("max_attempts", 1)
        who = f"execution {row['id']}"
        if row["failures"] > allowed:
            yield f"{who} failed {row['failures']} times; its policy allows {allowed}"
        if row["rescues"] > world.scenario.max_rescues + 1:
            yield f"{who} was rescued {row['rescues']} times"
        if row["state"] != "failed":
            continue
        if row["reason"] == "node_lost":
            gave_up = policy.get("on_node_lost") == "fail" or row["rescues"] > world.scenario.max_rescues
        else:
            retry_on = policy.get("retry_on")
            gave_up = row["failures"] >= allowed or (
                retry_on is not None and (row["error"] or "").partition(":")[0] not in retry_on
            )
        if not gave_up:
            yield f"{who} failed ({row['reason']}) after {row['failures']} failures of {allowed}"


def _acknowledged(world: World, executions: list[dict[str, Any]]) -> Iterator[str]:
    """What was acknowledged is there, and one key has one execution."""
    by_key: dict[str, list[int]] = defaultdict(list)
    for row in executions:
        if row["idempotency_key"] is not None:
            by_key[row["idempotency_key"]].append(row["id"])
    for key, execution_id in world.acknowledged.items():
        if by_key[key] != [execution_id]:
            yield f"{key} was acknowledged as execution {execution_id}; the table has {by_key[key]}"
