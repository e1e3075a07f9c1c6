"""The checker on histories made by hand: silent on a good one, and it names each way to be bad."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.models.task_execution import Execution, ExecutionState
from app.workflows.progress import UNDO
from tests.faults.checker import AttemptRow, Evidence, Fire, violations
from tests.faults.diary import Line
from tests.faults.journey import Mark
from tests.faults.workflow import APPROVAL, KEYS, STAGES, broken_workflows

START = datetime(2030, 1, 1, tzinfo=UTC)
SECOND = timedelta(seconds=1)


def execution(number: int = 1, state: ExecutionState = ExecutionState.SUCCESS, attempt: int = 1) -> Execution:
    return Execution(
        id=number,
        task_id=None,
        task_name=None,
        task_type="effect",
        params={},
        state=state,
        reason=None,
        trigger="api",
        triggered_by=None,
        scheduled_for=None,
        first_fire_at=None,
        fire_count=1,
        run_at=START,
        created_at=START,
        attempt=attempt,
    )


def ran(attempt: int, begin: float, end: float | None, *, pid: int = 1, key: str | None = None) -> list[Line]:
    lines = [Line("begin", begin, 1, attempt, pid, key, f"node {pid}")]
    return lines if end is None else [*lines, Line("end", end, 1, attempt, pid, key, f"node {pid}")]


def mark(event: Literal["ran", "stored"], at: float, token: str = "x", pid: int = 1) -> Mark:
    return Mark(event, at, 1, "a", token, 1, pid, f"node {pid}")


def evidence(**changes: Any) -> Evidence:
    """One execution that succeeded at its first attempt, and a task that fired three times."""
    good: dict[str, Any] = {
        "executions": [execution()],
        "attempts": [AttemptRow(1, 1, "success")],
        "fires": [Fire(1, START + n * SECOND, START + n * SECOND, 1) for n in range(3)],
        "effects": [(1, 1)],
        "lines": ran(1, 0.0, 1.0),
        "acknowledged": {"key": 1},
        "gone": {},
        "limits": {"k": 1},
        "recorded_keys": {"key": [1]},
        "steps": {(1, "a"): "x"},
    }
    return Evidence(**(good | changes))


RETRIED = {
    "executions": [execution(attempt=2)],
    "attempts": [AttemptRow(1, 1, "failed"), AttemptRow(1, 2, "success")],
    "effects": [(1, 2)],
}


def test_a_good_history_has_no_violations() -> None:
    assert violations(evidence()) == []
    assert violations(evidence(**RETRIED, lines=ran(1, 0, 1) + ran(2, 1, 2))) == []
    assert violations(evidence(marks=[mark("ran", 1), mark("ran", 2), mark("stored", 3), mark("stored", 9)])) == []


def test_what_a_stopped_process_still_does_in_a_step_counts_for_nothing() -> None:
    marks = [mark("ran", 1), mark("stored", 2), mark("ran", 9, token="z", pid=7)]
    assert violations(evidence(marks=marks, gone={7: [1.5]})) != []
    assert violations(evidence(marks=marks, gone={7: [1.5]}, buried=frozenset({"node 7"}))) == []


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"fires": [Fire(1, START, START, 1), Fire(1, START + 2 * SECOND, START + 2 * SECOND, 1)]}, "no row for"),
        ({"fires": [Fire(1, START, START, 1), Fire(1, START, START, 1)]}, "recorded twice"),
        ({"fires": [Fire(1, START, START + 3 * SECOND, 2)]}, "a row says 2 fires"),
        ({"acknowledged": {"key": 9}}, "acknowledged and is gone"),
        ({"recorded_keys": {"key": [1, 2]}}, "recorded [1, 2]"),
        ({"executions": [execution(state=ExecutionState.PENDING)]}, "still pending"),
        ({"attempts": []}, "successful attempts: []"),
        ({"executions": [execution(state=ExecutionState.FAILED)], "effects": []}, "has successful attempts"),
        ({"attempts": [AttemptRow(1, 1, "success"), AttemptRow(1, 3, "failed")]}, "has attempts [1, 3]"),
        ({"effects": [(1, 1), (1, 2)]}, "effects of attempts [1, 2]"),
        ({"effects": []}, "effects of attempts []"),
        ({**RETRIED, "lines": ran(1, 0, 5) + ran(2, 1, 2)}, "attempt 2 began 4.00 s before"),
        ({**RETRIED, "lines": ran(1, 0, None) + ran(2, 1, 2)}, "before attempt 1 was over"),
        ({"lines": ran(1, 0, 1, key="k") + ran(1, 0.5, 2, pid=2, key="k")}, "key k: 2 at once, 1 allowed"),
        ({"lines": ran(1, 0, 1) + ran(1, 3, 4, pid=2)}, "attempt 1 ran twice"),
        ({"lines": ran(1, 0, 1) + ran(2, 3, 4)}, "had succeeded at attempt 1; 2 ran too"),
        ({"marks": [mark("ran", 1), mark("stored", 2), mark("ran", 3)]}, "step a ran again"),
        ({"marks": [mark("ran", 1), mark("stored", 2, token="y")]}, "returned y, and x is stored"),
        ({"step_effects": [(1, "a"), (1, "a")]}, "wrote 2 rows"),
        ({"steps": {(1, "packed"): "x"}}, "what step packed wrote is gone"),
        ({"signalled": {1: [0, 1]}, "payloads": {1: [0]}}, "signals [1] were acknowledged and are gone"),
    ],
)
def test_each_broken_promise_is_named(changes: dict[str, Any], complaint: str) -> None:
    found = violations(evidence(**changes))
    assert [line for line in found if complaint in line], found


def test_an_attempt_may_run_again_whose_process_was_gone_before_its_start_was_on_disk() -> None:
    lines = ran(1, 0, None, pid=7) + ran(1, 5, 6)
    assert violations(evidence(lines=lines, gone={7: [4.0]})) == []
    assert violations(evidence(lines=lines)) != []


def test_a_killed_process_ends_its_attempts_and_a_stopped_one_loses_its_right_to_them() -> None:
    lines = ran(1, 0, None, pid=7) + ran(2, 5, 6)
    assert violations(evidence(**RETRIED, lines=lines, gone={7: [4.0]})) == []
    assert violations(evidence(**RETRIED, lines=ran(1, 0, 9, pid=7) + ran(2, 5, 6), gone={7: [4.0]})) == []
    assert violations(evidence(**RETRIED, lines=lines, gone={7: [5.5]})) != []


@given(st.lists(st.integers(1, 5), min_size=1, max_size=8), st.data())
def test_a_ledger_is_whole_unless_a_row_is_missing(counts: list[int], data: st.DataObject) -> None:
    fires, moment = [], START
    for count in counts:
        last = moment + (count - 1) * SECOND
        fires.append(Fire(1, moment, last, count))
        moment = last + SECOND
    assert violations(evidence(fires=fires)) == []
    inner = list(range(1, len(fires) - 1))
    if inner:
        del fires[data.draw(st.sampled_from(inner))]
        assert violations(evidence(fires=fires)) != []


def test_what_a_node_began_unrecorded_before_it_was_declared_dead_may_run_again() -> None:
    twice = ran(1, 0, 1, pid=7) + ran(1, 5, 6, pid=8)
    assert violations(evidence(lines=twice)) == ["execution 1: attempt 1 ran twice"]
    assert violations(evidence(lines=twice, buried=frozenset({"node 7"}))) == []
    assert violations(evidence(lines=twice, buried=frozenset({"node 8"}))) == ["execution 1: attempt 1 ran twice"]


def test_what_a_stopped_process_begins_when_it_goes_on_has_no_effect_and_counts_for_nothing() -> None:
    late = ran(1, 5, 6, pid=8) + ran(1, 5.5, 7, pid=7)
    assert violations(evidence(lines=late, gone={7: [4.0]})) != []
    assert violations(evidence(lines=late, gone={7: [4.0]}, buried=frozenset({"node 7"}))) == []
    assert violations(evidence(lines=late, gone={7: [5.8]}, buried=frozenset({"node 7"}))) != []


CHILDREN = {key: number for number, key in enumerate(sorted(KEYS), start=2)}


def workflow_history(
    *,
    state: ExecutionState = ExecutionState.SUCCESS,
    states: dict[str, ExecutionState] | None = None,
    moved: dict[str, float] | None = None,
    comment: str = "yes",
) -> list[str]:
    """What is said of a workflow (1) whose stages took two seconds each."""
    states = dict.fromkeys(KEYS, ExecutionState.SUCCESS) | (states or {})
    executions = [execution(1, state)._replace(task_type="workflow")]
    lines = []
    for key, child_state in states.items():
        number = CHILDREN.get(key, 99)
        result = {"data": {"comment": comment}} if key == APPROVAL else None
        executions.append(execution(number, child_state)._replace(parent_id=1, child_key=key, result=result))
        if key != APPROVAL:
            stage = next(place for place, keys in enumerate(STAGES) if key in keys)
            begin = 10.0 * stage + (moved or {}).get(key, 0)
            lines += [
                Line(event, at, number, 1, 1, None, "node") for event, at in (("begin", begin), ("end", begin + 2))
            ]
    return list(broken_workflows(executions, lines, {CHILDREN[APPROVAL]: "yes"}))


UNDONE = {"last": ExecutionState.FAILED, UNDO + "draft": ExecutionState.SUCCESS}


def test_a_good_workflow_has_no_violations() -> None:
    assert workflow_history() == []
    assert workflow_history(state=ExecutionState.FAILED, states=UNDONE) == []


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"states": {"draft": ExecutionState.FAILED}}, "not successful: ['draft']"),
        ({"state": ExecutionState.FAILED}, "no step that failed"),
        ({"state": ExecutionState.FAILED, "states": {"last": ExecutionState.FAILED}}, "not successful: ['last']"),
        ({"moved": {"each[1]": -9.0}}, "began before those it depends on"),
        ({"moved": {"check": 9.0}}, "step last began before"),
        ({"comment": "no"}, "the decision 'yes' was acknowledged"),
    ],
)
def test_each_broken_workflow_is_named(changes: dict[str, Any], complaint: str) -> None:
    found = workflow_history(**changes)
    assert [line for line in found if complaint in line], found
