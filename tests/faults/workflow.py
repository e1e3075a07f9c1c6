"""A workflow that has each kind of part, and what must be true of its children."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from typing import Any

from app.models.task_execution import Execution, ExecutionState
from app.workflows import approval, chain, group, step
from app.workflows.progress import UNDO
from tests.faults.diary import Line

PATIENCE_SECONDS = 20.0
STAGES = (("draft",), ("check", "each[0]", "each[1]", "each[2]"), ("last",), (UNDO + "draft",))
"""Keys of the children that keep a diary; none begins before all of the stage before it have ended."""
APPROVAL = "approval"
KEYS = {APPROVAL, *(key for stage in STAGES[:-1] for key in stage)}


def definition(*, doomed: bool) -> dict[str, Any]:
    """`draft`, `check` beside three times `each`, a decision, `last`; doomed, that fails and `draft` is undone."""
    work = {"seconds": 0.02, "failing": 0.1}
    flow = chain(
        step("effect", work, id="draft", compensate=("effect", work)),
        group(step("effect", work, id="check"), step("effect", work, id="each", for_each="input.items", limit=2)),
        approval("May it go on?", id=APPROVAL, timeout_seconds=PATIENCE_SECONDS, on_timeout="approve"),
        step("effect", {**work, "failing": "{{ input.failing }}"}, id="last", on_failure="compensate"),
    )
    return flow.definition({"items": ["a", "b", "c"], "failing": 1.0 if doomed else 0.1})


def broken_workflows(
    executions: Iterable[Execution], lines: Iterable[Line], decided: Mapping[int, str]
) -> Iterable[str]:
    """Each step is there once, began when those before it had ended, and heeds the decision (`decided`: approval →
    comment)."""
    executions = list(executions)
    families: dict[int, dict[str, Execution]] = defaultdict(dict)
    for execution in executions:
        if execution.parent_id is not None and execution.child_key is not None:
            families[execution.parent_id][execution.child_key] = execution
        if execution.id in decided:
            yield from _decision(execution, decided[execution.id])
    begun, ended = _first(lines, "begin"), _first(lines, "end")
    for workflow in executions:
        if workflow.task_type == "workflow":
            children = families[workflow.id]
            yield from _outcome(workflow, children)
            yield from _order(workflow, children, begun, ended)


def _first(lines: Iterable[Line], event: str) -> dict[tuple[int, int], float]:
    found: dict[tuple[int, int], float] = {}
    for line in lines:
        if line.event == event:
            key = (line.execution, line.attempt)
            found[key] = min(line.at, found.get(key, line.at))
    return found


def _decision(execution: Execution, comment: str) -> Iterable[str]:
    stored = (execution.result or {}).get("data") or {}
    if stored.get("comment") != comment:
        yield f"execution {execution.id}: the decision {comment!r} was acknowledged, and it ended with {stored}"


def _outcome(workflow: Execution, children: Mapping[str, Execution]) -> Iterable[str]:
    name = f"workflow {workflow.id} ({workflow.state.value})"
    failed = sorted(key for key, child in children.items() if child.state is not ExecutionState.SUCCESS)
    if workflow.state is ExecutionState.SUCCESS and (failed or set(children) != KEYS):
        yield f"{name} has the steps {sorted(children)}, not successful: {failed}"
    if workflow.state is ExecutionState.FAILED and not failed:
        yield f"{name} has no step that failed"
    if ("last" in failed) != (UNDO + "draft" in children):
        yield f"{name}: not successful: {failed}; steps: {sorted(children)}"


def _order(
    workflow: Execution,
    children: Mapping[str, Execution],
    begun: Mapping[tuple[int, int], float],
    ended: Mapping[tuple[int, int], float],
) -> Iterable[str]:
    stages: Sequence[list[Execution]] = [[children[key] for key in stage if key in children] for stage in STAGES]
    for before, after in pairwise(stages):
        ends = [ended.get((child.id, child.attempt), float("inf")) for child in before]
        begins = [begun[child.id, 1] for child in after if (child.id, 1) in begun]
        if begins and min(begins) < max(ends, default=float("inf")):
            yield f"workflow {workflow.id}: step {after[0].child_key} began before those it depends on had ended"
