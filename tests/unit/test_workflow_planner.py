"""The planner, over random graphs, random outcomes and clocks that disagree."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.models.task_execution import ExecutionState
from app.workflows.definition import OnFailure, WorkflowDefinition, ancestors
from app.workflows.planner import Plan, Start, plan
from app.workflows.progress import UNDO, Child, StepState

NOON = datetime(2030, 1, 7, 12, tzinfo=UTC)


def accept_all(_task_type: str, _params: Mapping[str, Any]) -> str | None:
    return None


def planned(
    definition: dict[str, Any], children: Mapping[str, Child] | None = None, accept: Any = accept_all
) -> Plan:
    return plan(WorkflowDefinition.model_validate(definition), children or {}, workflow_id=9, accept=accept)


def succeeded(number: int = 1, **data: Any) -> Child:
    return Child(number, ExecutionState.SUCCESS, data, "好", finished_at=NOON + timedelta(seconds=number))


def failed(number: int = 1) -> Child:
    return Child(number, ExecutionState.FAILED, None, "坏", "Bad: luck", NOON + timedelta(seconds=number))


def running(number: int = 1) -> Child:
    return Child(number, ExecutionState.RUNNING)


# ---------------------------------------------------------------- every graph


@st.composite
def definitions(draw: st.DrawFn) -> dict[str, Any]:
    count = draw(st.integers(1, 7))
    steps: list[dict[str, Any]] = []
    for number in range(count):
        before = [f"s{earlier}" for earlier in range(number)]
        parents = draw(st.lists(st.sampled_from(before), unique=True, max_size=2)) if before else []
        step: dict[str, Any] = {"id": f"s{number}", "type": "work", "depends_on": parents}
        step["on_failure"] = draw(st.sampled_from(list(OnFailure))).value
        is_wrong = draw(st.integers(0, 19))  # now and then an expression without a value
        good = [None, None, None, "true", "false", *[f"steps.{parent}.state == 'success'" for parent in parents]]
        step["when"] = "1" if is_wrong == 1 else draw(st.sampled_from(good))
        if draw(st.integers(0, 2)) == 0:
            lists = ["input.items", "input.items", "[1, 2]", "[]"]
            step["for_each"] = "'text'" if is_wrong == 2 else draw(st.sampled_from(lists))
            step["limit"] = draw(st.none() | st.integers(1, 3))
        if draw(st.integers(0, 2)) > 0:
            step["compensate"] = {"type": "undo", "params": {"of": f"{{{{ steps.s{number}.state }}}}"}}
        if is_wrong == 3:
            step["params"] = {"x": "{{ input.items.nothing }}"}
        steps.append(step)
    return {"steps": draw(st.permutations(steps)), "input": {"items": draw(st.lists(st.integers(), max_size=5))}}


@dataclass
class World:
    """A workflow played to its end: what was started, in what order, and what was true then."""

    definition: WorkflowDefinition
    chance: Random
    failure_rate: float
    children: dict[str, Child] = field(default_factory=dict)
    started: list[Start] = field(default_factory=list)

    def play(self) -> Plan:
        for _ in range(1000):
            decided = self.look()
            if decided.outcome is not None:
                assert not decided.starts
                return decided
            for start in decided.starts:
                self.begin(start, decided)
            assert 1 <= decided.wake_after <= len(self.active())
            for left in range(decided.wake_after, 0, -1):
                self.end(self.chance.choice(self.active()))
                between = self.look()
                assert left == 1 or (not between.starts and between.outcome is None), "it was woken too late"
        raise AssertionError("the workflow does not end")

    def look(self) -> Plan:
        return plan(self.definition, self.children, workflow_id=9, accept=accept_all)

    def active(self) -> list[str]:
        return [key for key, child in self.children.items() if not child.is_over]

    def begin(self, start: Start, decided: Plan) -> None:
        assert start.key not in self.children, "a run is started twice"
        if start.key.startswith(UNDO):
            assert not self.active(), "something is undone while something runs"
        else:
            step = decided.steps[start.key.partition("[")[0]].step
            assert all(decided.steps[parent].is_over for parent in step.depends_on), "it did not wait"
            together = [key for key in self.active() if key.partition("[")[0] == step.id]
            assert step.limit is None or len(together) < step.limit, "more than the limit at a time"
            assert not any(key.startswith(UNDO) for key in self.children)
        self.started.append(start)
        self.children[start.key] = running(len(self.children) + 1)

    def end(self, key: str) -> None:
        number = self.children[key].id
        ended = failed if self.chance.random() < self.failure_rate else succeeded
        skew = timedelta(seconds=self.chance.uniform(-100, 100))
        child = ended(number)
        self.children[key] = Child(child.id, child.state, child.data, child.message, child.error, NOON + skew)


@settings(max_examples=300, deadline=None)
@given(definitions(), st.integers(), st.sampled_from([0.0, 0.1, 0.3, 0.6]))
def test_every_workflow_ends_and_keeps_its_rules(raw: dict[str, Any], seed: int, failure_rate: float) -> None:
    world = World(WorkflowDefinition.model_validate(raw), Random(seed), failure_rate)
    end = world.play()
    fatal = [
        progress
        for progress in end.steps.values()
        if progress.step.on_failure is not OnFailure.CONTINUE
        and (progress.state is StepState.FAILED or any(run.state is StepState.FAILED for run in progress.runs))
    ]
    assert end.outcome is (not fatal)
    if end.outcome:
        assert all(progress.is_over for progress in end.steps.values())
    assert all(progress.state is not StepState.RUNNING for progress in end.steps.values())
    undone = [start.key.removeprefix(UNDO) for start in world.started if start.key.startswith(UNDO)]
    wanted = {
        step_id
        for step_id, progress in end.steps.items()
        if progress.step.compensate is not None and progress.has_effect
    }
    undoes = any(progress.step.on_failure is OnFailure.COMPENSATE for progress in fatal)
    assert set(undone) == (wanted if undoes else set())
    before = ancestors(world.definition.steps)
    assert not any(later in before[earlier] for place, earlier in enumerate(undone) for later in undone[:place]), (
        "a step is undone after one that it built upon"
    )


@settings(max_examples=100, deadline=None)
@given(definitions(), st.integers())
def test_a_workflow_that_is_looked_at_again_is_planned_the_same(raw: dict[str, Any], seed: int) -> None:
    """A crash between the plan and its starts changes nothing: what has not been spawned is spawned then."""
    world = World(WorkflowDefinition.model_validate(raw), Random(seed), 0.3)
    for _ in range(50):
        decided = world.look()
        assert decided == world.look()
        if decided.outcome is not None:
            return
        half = decided.starts[: len(decided.starts) // 2]
        for start in half:
            world.begin(start, decided)
        for start in world.look().starts:
            world.begin(start, decided)
        assert {start.key for start in decided.starts} <= world.children.keys()
        world.end(world.chance.choice(world.active()))


# ---------------------------------------------------------------- one rule at a time

CHAIN: dict[str, Any] = {
    "steps": [
        {"id": "a", "type": "work", "compensate": {"type": "undo_a", "params": {"n": "{{ steps.a.data.n }}"}}},
        {"id": "b", "type": "work", "params": {"n": "{{ steps.a.data.n }}"}, "depends_on": ["a"]},
        {"id": "c", "type": "work", "depends_on": ["b"], "on_failure": "compensate"},
    ]
}


def test_a_step_gets_the_results_of_those_before_it_with_their_types() -> None:
    (start,) = planned(CHAIN, {"a": succeeded(n=7)}).starts
    assert (start.key, start.params) == ("b", {"n": 7})


def test_what_is_missing_fails_the_step_with_the_expression() -> None:
    decided = planned(CHAIN, {"a": succeeded(m=7)})
    assert decided.outcome is False
    assert decided.failed is not None
    assert decided.failed.first_error() == "params: steps.a.data.n: there is no 'n' in an object with m"


def test_what_its_executor_refuses_fails_the_step() -> None:
    decided = planned(CHAIN, {"a": succeeded(n=7)}, accept=lambda *_: "params.n: too small")
    assert decided.steps["b"].first_error() == "params: params.n: too small"


def test_failure_undoes_what_was_done_the_last_first() -> None:
    children = {"a": succeeded(1, n=7), "b": succeeded(2), "c": failed(3)}
    decided = planned(CHAIN, children)
    assert [(start.key, start.type, start.params) for start in decided.starts] == [
        ("compensate:a", "undo_a", {"n": 7})
    ]
    assert decided.outcome is None
    assert planned(CHAIN, children | {"compensate:a": running(4)}).wake_after == 1
    ended = planned(CHAIN, children | {"compensate:a": failed(4)})
    assert ended.outcome is False
    assert [run.error for run in ended.undone] == ["Bad: luck"]


def test_without_a_condition_a_step_after_a_skipped_one_is_skipped_too() -> None:
    definition = {
        "steps": [
            {"id": "a", "type": "work", "when": "input.go"},
            {"id": "b", "type": "work", "depends_on": ["a"]},
            {"id": "c", "type": "work", "depends_on": ["b"], "when": "steps.a.state == 'skipped'"},
        ],
        "input": {"go": False},
    }
    decided = planned(definition)
    assert [decided.steps[name].state for name in "abc"] == [
        StepState.SKIPPED,
        StepState.SKIPPED,
        StepState.RUNNING,
    ]


def test_a_failure_that_is_tolerated_is_seen_by_what_comes_after() -> None:
    definition = {
        "steps": [
            {"id": "a", "type": "work", "on_failure": "continue"},
            {"id": "b", "type": "work", "depends_on": ["a"], "params": {"why": "{{ steps.a.error }}"}},
        ]
    }
    (start,) = planned(definition, {"a": failed()}).starts
    assert start.params == {"why": "Bad: luck"}
    assert planned(definition, {"a": failed(), "b": succeeded()}).outcome is True


def test_a_fan_out_keeps_to_its_limit_and_collects_what_its_items_return() -> None:
    definition = {
        "steps": [
            {
                "id": "each",
                "type": "work",
                "for_each": "input.names",
                "limit": 2,
                "params": {"name": "{{ item }}", "place": "{{ index }}"},
            },
            {
                "id": "all",
                "type": "work",
                "depends_on": ["each"],
                "params": {"n": "{{ steps.each.data|map('n') }}"},
            },
        ],
        "input": {"names": ["x", "y", "z"]},
    }
    first = planned(definition)
    assert [(start.key, start.params) for start in first.starts] == [
        ("each[0]", {"name": "x", "place": 0}),
        ("each[1]", {"name": "y", "place": 1}),
    ]
    children = {"each[0]": succeeded(n=1), "each[1]": running()}
    assert [start.key for start in planned(definition, children).starts] == ["each[2]"]
    done = {f"each[{number}]": succeeded(n=number) for number in range(3)}
    assert [start.params for start in planned(definition, done).starts] == [{"n": [0, 1, 2]}]


def test_a_wide_fan_out_wakes_its_workflow_once() -> None:
    definition = {
        "steps": [
            {"id": "each", "type": "work", "for_each": "input.names"},
            {"id": "all", "type": "work", "depends_on": ["each"]},
        ],
        "input": {"names": list(range(1000))},
    }
    decided = planned(definition)
    assert (len(decided.starts), decided.wake_after) == (1000, 1000)


def test_more_items_than_allowed_fail_the_step() -> None:
    definition = {
        "steps": [{"id": "each", "type": "work", "for_each": "input.names"}],
        "input": {"names": list(range(1001))},
    }
    assert "at most 1000" in str(planned(definition).steps["each"].first_error())


@pytest.mark.parametrize("when", ["1", "steps.a.data.n", "'yes'", "steps.a.data.missing"])
def test_a_condition_that_is_neither_true_nor_false_fails_the_step(when: str) -> None:
    definition = {
        "steps": [{"id": "a", "type": "work"}, {"id": "b", "type": "work", "depends_on": ["a"], "when": when}]
    }
    decided = planned(definition, {"a": succeeded(n=1)})
    assert decided.outcome is False
    assert str(decided.steps["b"].first_error()).startswith("when: ")


def test_a_workflow_in_a_workflow_keeps_its_own_expressions() -> None:
    inner = {"id": "x", "type": "work", "params": {"n": "{{ input.n }}"}}
    definition = {
        "steps": [
            {
                "id": "inner",
                "type": "workflow",
                "params": {"steps": [inner], "input": {"n": "{{ input.outer }}"}},
            }
        ],
        "input": {"outer": 5},
    }
    (start,) = planned(definition).starts
    assert start.params == {"steps": [inner], "input": {"n": 5}}


COSTLY = "{{ input.l|unique|length + index }}"
"""Of a hundred thousand numbers about a tenth of what one evaluation may cost."""


def costly(items: int, **fields: Any) -> dict[str, Any]:
    each = {"id": "each", "type": "work", "for_each": "input.items", "params": {"n": COSTLY}, **fields}
    after = {"id": "after", "type": "work", "depends_on": ["each"]}
    return {"steps": [each, after], "input": {"l": list(range(100_000)), "items": list(range(items))}}


@pytest.mark.parametrize("on_failure", ["fail", "continue", "compensate"])
def test_all_expressions_of_a_plan_have_one_budget_and_where_it_is_spent_the_workflow_fails(
    on_failure: str,
) -> None:
    began = time.process_time()
    decided = planned(costly(1000, on_failure=on_failure))
    assert time.process_time() - began < 30, "a thousand evaluations take minutes"
    assert (decided.outcome, decided.starts) == (False, ())
    assert str(decided.steps["each"].first_error()).startswith(
        "the expressions of this workflow read and make too"
    )
    assert decided.steps["after"].state is StepState.WAITING
    assert len(planned(costly(20)).starts) == 20


def test_what_runs_is_seen_to_its_end_where_the_budget_is_spent() -> None:
    decided = planned(costly(1000), {"each[0]": running(1), "each[1]": succeeded(2)})
    assert (decided.outcome, decided.starts, decided.wake_after) == (None, (), 1)
    assert [run.state for run in decided.steps["each"].runs] == [StepState.RUNNING, StepState.SUCCESS]


def test_a_plan_that_nobody_wants_any_more_is_given_up() -> None:
    calls = 0

    def pause() -> None:
        nonlocal calls
        calls += 1
        if calls == 5:
            raise InterruptedError

    definition = WorkflowDefinition.model_validate(costly(1000))
    with pytest.raises(InterruptedError):
        plan(definition, {}, workflow_id=9, accept=accept_all, pause=pause)


@pytest.mark.parametrize("how", [["{{ input.s }}", "{{ input.s }}"], "{{ input.s }}{{ input.s }}"])
def test_params_that_are_filled_in_have_a_bound(how: Any) -> None:
    definition = {
        "steps": [{"id": "a", "type": "work", "params": {"x": how}}],
        "input": {"s": "x" * 600_000},
    }
    error = str(planned(definition).steps["a"].first_error())
    assert "1,000,000" in error


def test_params_that_are_written_out_have_no_bound_of_their_own() -> None:
    definition = {"steps": [{"id": "a", "type": "work", "params": {"x": "x" * 1_500_000}}]}
    assert len(planned(definition).starts) == 1


def test_a_result_holds_what_a_fan_out_returned_once() -> None:
    """Twice, nested workflows would double it at each level."""
    definition = {"steps": [{"id": "each", "type": "work", "for_each": "[1, 2]"}]}
    children = {"each[0]": succeeded(1, text="marked"), "each[1]": failed(2)}
    told = planned(definition, children).steps["each"].as_result()
    assert str(told).count("marked") == 1
    assert told["data"] == [{"text": "marked"}, None]
    assert [item["state"] for item in told["items"]] == ["success", "failed"]


def test_expressions_read_the_items_of_a_fan_out_with_their_data() -> None:
    definition = {
        "steps": [
            {"id": "each", "type": "work", "for_each": "[1]"},
            {
                "id": "b",
                "type": "work",
                "depends_on": ["each"],
                "params": {"n": "{{ steps.each.items[0].data.n }}"},
            },
        ]
    }
    assert planned(definition, {"each[0]": succeeded(1, n=7)}).starts[0].params == {"n": 7}
