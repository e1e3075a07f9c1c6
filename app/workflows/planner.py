"""What a workflow does next: a pure function of its definition and of what its children have come to.

Held by `tests/unit/test_workflow_planner.py` over random graphs: a run is started at most once and never before
what its step depends on; no more items at a time than `limit`; every workflow ends; what is undone is undone after
all else has ended, once, the last first; and nothing can be started before `wake_after` more children have ended.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

from app.core.jsonable import size_of
from app.workflows.definition import (
    MOST_ITEMS,
    Call,
    OnFailure,
    StepDefinition,
    WorkflowDefinition,
    in_order,
    templated_part,
    with_filled,
)
from app.workflows.expressions import parse_expression, render, templates_in
from app.workflows.progress import UNDO, Child, Progress, Run, StepProgress, StepState, state_of_runs
from app.workflows.sandbox import LARGEST, BudgetSpent, ExpressionFailed, charge, one_plan

Accept = Callable[[str, dict[str, Any]], str | None]
"""Why an executor refuses these params; None: it accepts them."""
Pause = Callable[[], object]
"""Called before each evaluation, of which there may be thousands: raises where nobody wants the plan any more."""

_EPOCH = datetime.fromtimestamp(0, UTC)


@dataclass(frozen=True, slots=True)
class Start:
    """A child to spawn."""

    key: str
    type: str
    params: dict[str, Any]
    max_attempts: int | None = None
    timeout_seconds: float | None = None


@dataclass(frozen=True, slots=True)
class Plan:
    """Where a workflow stands and what is to be done."""

    steps: Progress
    starts: tuple[Start, ...]
    outcome: bool | None
    """True: it has succeeded, False: it has failed, None: it goes on."""
    wake_after: int
    """How many more children must end before there can be anything else to do."""
    undone: tuple[Run, ...]
    """What has been undone so far, or is being undone."""

    @property
    def failed(self) -> StepProgress | None:
        """The step that makes the workflow fail; the first, if there are several."""
        return next((progress for progress in self.steps.values() if _is_fatal(progress)), None)


def plan(
    definition: WorkflowDefinition,
    children: Mapping[str, Child],
    *,
    workflow_id: int,
    accept: Accept,
    pause: Pause = lambda: None,
) -> Plan:
    """What to do next, given all children that were spawned so far, by key."""
    return _Planner(definition, children, workflow_id, accept, pause).plan()


@dataclass(slots=True)
class _Planner:
    definition: WorkflowDefinition
    children: Mapping[str, Child]
    workflow_id: int
    accept: Accept
    pause: Pause
    steps: dict[str, StepProgress] = field(default_factory=dict)
    starts: list[Start] = field(default_factory=list)
    context: dict[str, Any] = field(default_factory=dict)
    held_back: bool = False
    """A fan-out has items that wait for others of it to end."""
    is_spent: bool = False
    """No expression is evaluated any more: the steps have spent what they may."""

    def plan(self) -> Plan:
        self.context = {
            "input": self.definition.input,
            "steps": {},
            "workflow": {"execution_id": self.workflow_id},
        }
        begun = {key.partition("[")[0] for key in self.children}
        ordered = in_order(self.definition.steps)
        with one_plan():
            for step in ordered:
                progress = self._looked_at(step, has_begun=step.id in begun)
                self.steps[step.id] = progress
                self.context["steps"][step.id] = progress.as_value()
        is_active = any(not child.is_over for child in self.children.values())
        if not any(map(_is_fatal, self.steps.values())):
            is_over = all(progress.is_over for progress in self.steps.values()) and not is_active
            return self._decided(outcome=True if is_over else None)
        self._start_nothing()
        if is_active or not any(map(_undoes, self.steps.values())):
            return self._decided(outcome=None if is_active else False, undone=self._undone_so_far())
        with one_plan():
            return self._undo(ordered)

    def _decided(self, *, outcome: bool | None, undone: tuple[Run, ...] = ()) -> Plan:
        in_written_order = {step.id: self.steps[step.id] for step in self.definition.steps}
        return Plan(in_written_order, tuple(self.starts), outcome, self._wake_after(), undone)

    def _start_nothing(self) -> None:
        """The workflow fails: what would have been started now goes on waiting."""
        self.starts.clear()
        self.held_back = False
        for step_id, progress in self.steps.items():
            runs = tuple(
                run
                if run.state is not StepState.RUNNING or run.key in self.children
                else Run(run.key, StepState.WAITING)
                for run in progress.runs
            )
            if runs:
                state = StepState.FAILED if progress.ends_all else state_of_runs({run.state for run in runs})
                self.steps[step_id] = replace(progress, runs=runs, state=state)

    # ------------------------------------------------------------ one step

    def _looked_at(self, step: StepDefinition, *, has_begun: bool) -> StepProgress:
        if not self.is_spent:
            try:
                return self._progress(step, has_begun=has_begun)
            except BudgetSpent as error:
                self.is_spent = True
                runs = self._known_runs(step)
                return StepProgress(step, StepState.FAILED, runs, error=str(error), ends_all=True)
        runs = self._known_runs(step)
        return StepProgress(step, state_of_runs({run.state for run in runs}) if runs else StepState.WAITING, runs)

    def _known_runs(self, step: StepDefinition) -> tuple[Run, ...]:
        return tuple(
            Run.of(key, child) for key, child in self.children.items() if key.partition("[")[0] == step.id
        )

    def _progress(self, step: StepDefinition, *, has_begun: bool) -> StepProgress:
        parents = [self.steps[parent] for parent in step.depends_on]
        if not has_begun:
            if not all(parent.is_over and not _is_fatal(parent) for parent in parents):
                return StepProgress(step, StepState.WAITING)
            try:
                if not self._is_wanted(step, parents):
                    return StepProgress(step, StepState.SKIPPED)
            except ExpressionFailed as error:
                return StepProgress(step, StepState.FAILED, error=f"when: {error}")
        if step.for_each is None:
            run = self._run(step, step.id, self.context)
            return StepProgress(step, run.state, (run,))
        return self._fan_out(step)

    def _is_wanted(self, step: StepDefinition, parents: list[StepProgress]) -> bool:
        if step.when is None:
            return not any(parent.state is StepState.SKIPPED for parent in parents)
        self.pause()
        wanted = parse_expression(step.when).evaluate(self.context)
        if not isinstance(wanted, bool):
            raise ExpressionFailed(f"{step.when} is neither true nor false but {type(wanted).__name__}")
        return wanted

    def _run(self, step: StepDefinition, key: str, context: Mapping[str, Any]) -> Run:
        """The run under `key`; one that has not begun yet is begun, or fails if it cannot be."""
        child = self.children.get(key)
        if child is not None:
            return Run.of(key, child)
        try:
            params = self._filled(step, context)
        except ExpressionFailed as error:
            return Run(key, StepState.FAILED, error=f"params: {error}")
        attempts = step.retries + 1 if step.retries is not None else None
        self.starts.append(Start(key, step.type, params, attempts, step.timeout_seconds))
        return Run(key, StepState.RUNNING)

    def _filled(self, call: Call, context: Mapping[str, Any]) -> dict[str, Any]:
        self.pause()
        filled = render(templated_part(call), context)
        params = with_filled(call, filled)
        size = size_of(filled)
        if size > LARGEST and any(templates_in(templated_part(call))):
            raise ExpressionFailed(
                f"filled in they have {size:,} bytes of JSON, and at most {LARGEST:,} are allowed"
            )
        charge(size)
        refusal = self.accept(call.type, params)
        if refusal is not None:
            raise ExpressionFailed(refusal)
        return params

    def _fan_out(self, step: StepDefinition) -> StepProgress:
        try:
            items = self._items(step)
        except ExpressionFailed as error:
            return StepProgress(step, StepState.FAILED, error=f"for_each: {error}")
        keys = [f"{step.id}[{index}]" for index in range(len(items))]
        running = sum(1 for key in keys if key in self.children and not self.children[key].is_over)
        free = (step.limit or len(items)) - running
        runs: list[Run] = []
        for index, (key, item) in enumerate(zip(keys, items, strict=True)):
            if key not in self.children and free <= 0:
                runs.append(Run(key, StepState.WAITING))
                continue
            run = self._run(step, key, {**self.context, "item": item, "index": index})
            if key not in self.children and run.state is StepState.RUNNING:
                free -= 1
            runs.append(run)
        states = {run.state for run in runs}
        self.held_back |= StepState.WAITING in states
        return StepProgress(step, _state_of(states), tuple(runs))

    def _items(self, step: StepDefinition) -> list[Any]:
        assert step.for_each is not None  # noqa: S101 - for the type checker; only fan-outs come here
        self.pause()
        items = parse_expression(step.for_each).evaluate(self.context)
        if not isinstance(items, list):
            raise ExpressionFailed(f"{step.for_each} is no list but {type(items).__name__}")
        if len(items) > MOST_ITEMS:
            raise ExpressionFailed(f"{step.for_each} has {len(items)} items; a fan-out has at most {MOST_ITEMS}")
        return items

    # ------------------------------------------------------------ undoing

    def _undo(self, ordered: list[StepDefinition]) -> Plan:
        """Undo what has been done, one step after the other, the last first; one that fails stops no other."""
        undone: list[Run] = []
        for step in self._to_undo(ordered):
            assert step.compensate is not None  # noqa: S101 - for the type checker; `_to_undo` sees to it
            key = UNDO + step.id
            child = self.children.get(key)
            if child is not None:
                undone.append(Run.of(key, child))
                continue
            try:
                params = self._filled(step.compensate, self.context)
            except (ExpressionFailed, BudgetSpent) as error:
                undone.append(Run(key, StepState.FAILED, error=f"params: {error}"))
                continue
            self.starts.append(Start(key, step.compensate.type, params))
            return self._decided(outcome=None, undone=(*undone, Run(key, StepState.RUNNING)))
        return self._decided(outcome=False, undone=tuple(undone))

    def _to_undo(self, ordered: list[StepDefinition]) -> list[StepDefinition]:
        """The finished steps that can be undone, the last to finish first.

        Clocks of different nodes differ, so a step counts as finished no earlier than what it depends on.
        """
        finished: dict[str, datetime] = {}
        for step in ordered:
            moments = [finished[parent] for parent in step.depends_on]
            finished[step.id] = max([self.steps[step.id].finished_at or _EPOCH, *moments])
        place = {step.id: number for number, step in enumerate(ordered)}
        done = [step for step in ordered if step.compensate is not None and self.steps[step.id].has_effect]
        return sorted(done, key=lambda step: (finished[step.id], place[step.id]), reverse=True)

    def _undone_so_far(self) -> tuple[Run, ...]:
        return tuple(Run.of(key, child) for key, child in self.children.items() if key.startswith(UNDO))

    # ------------------------------------------------------------ when to look again

    def _wake_after(self) -> int:
        """The least number of children whose end could make something possible.

        A fan-out of a thousand items before one last step wakes the workflow once and not a thousand times.
        """
        active: dict[str, int] = {}
        for key in (*(key for key, child in self.children.items() if not child.is_over), *self._started()):
            step_id = key.partition("[")[0]
            active[step_id] = active.get(step_id, 0) + 1
        total = sum(active.values())
        if any(map(_is_fatal, self.steps.values())):
            return total
        counts = [total, *([1] if self.held_back else [])]
        for progress in self.steps.values():
            if progress.state is StepState.WAITING and not progress.runs:
                before = sum(active.get(parent, 0) for parent in progress.step.depends_on)
                counts += [before] if before else []
        return min(counts)

    def _started(self) -> list[str]:
        return [start.key for start in self.starts]


def _state_of(states: set[StepState]) -> StepState:
    """A fan-out's state by those of its items; one without items has succeeded."""
    if states & {StepState.RUNNING, StepState.WAITING}:
        return StepState.RUNNING
    return StepState.FAILED if StepState.FAILED in states else StepState.SUCCESS


def _is_fatal(progress: StepProgress) -> bool:
    """Whether the workflow can no longer succeed: also while other items of the step are still running."""
    has_failed = progress.state is StepState.FAILED or any(run.state is StepState.FAILED for run in progress.runs)
    return has_failed and (progress.ends_all or progress.step.on_failure is not OnFailure.CONTINUE)


def _undoes(progress: StepProgress) -> bool:
    return _is_fatal(progress) and progress.step.on_failure is OnFailure.COMPENSATE
