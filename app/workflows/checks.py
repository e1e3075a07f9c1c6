"""What is wrong with a definition, before anything of it is stored: every fault, each with its field."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from typing import Any

from app.core.errors import ExecutorNotFound, FieldError, InvalidParameters, sentence_of
from app.core.language import Said
from app.workflows.definition import (
    MOST_EXPRESSIONS,
    Call,
    WorkflowDefinition,
    ancestors,
    cycle_of,
    templated_part,
)
from app.workflows.expressions import (
    Expression,
    InvalidExpression,
    parse_expression,
    parse_template,
    templates_in,
)

CheckParams = Callable[[str, dict[str, Any]], object]
"""`SchedulerService.check`: raises ExecutorNotFound or InvalidParameters."""

WaitsForOthers = Callable[[str], bool]
"""Whether an executor is one of those whose outcome a further attempt does not change."""

_IN_A_MODEL = "params"


def faults(
    definition: WorkflowDefinition, check: CheckParams, waits_for_others: WaitsForOthers
) -> list[FieldError]:
    """All that is wrong with a definition whose fields have the right types; empty: nothing."""
    found = [
        *_names(definition),
        *_dependencies(definition),
        *_size(definition),
        *_of_attempts(definition, waits_for_others),
    ]
    if found:  # what expressions may read is not known before the order is
        return [*found, *_calls(definition, check)]
    return [*_expressions(definition), *_calls(definition, check)]


def _size(definition: WorkflowDefinition) -> Iterator[FieldError]:
    count = 0
    for step in definition.steps:
        count += sum(source is not None for source in (step.when, step.for_each))
        for call in (step, step.compensate):
            if call is not None:
                count += sum(text.count("{{") for _, text in templates_in(templated_part(call)))
    if count > MOST_EXPRESSIONS:
        yield FieldError(
            "steps",
            Said(
                f"they have {count} expressions; a workflow has at most {MOST_EXPRESSIONS}",
                f"共有 {count} 个表达式；一个工作流最多 {MOST_EXPRESSIONS} 个",
            ),
            "too_long",
        )


def _names(definition: WorkflowDefinition) -> Iterator[FieldError]:
    seen: dict[str, int] = {}
    for number, step in enumerate(definition.steps):
        if step.id in seen:
            yield FieldError(
                f"steps.{number}.id",
                Said(
                    f"{step.id!r} is the id of steps.{seen[step.id]} already; give each step its own",
                    f"{step.id!r} 已是 steps.{seen[step.id]} 的 id；请给每个步骤各自的 id",
                ),
                "duplicate_id",
            )
        seen.setdefault(step.id, number)


def _unknown_step(name: str | None, known: Collection[str]) -> Said:
    there = sorted(known)
    return Said(
        f"there is no step {name!r}; there are {', '.join(there)}", f"没有步骤 {name!r}；现有 {'、'.join(there)}"
    )


def _dependencies(definition: WorkflowDefinition) -> Iterator[FieldError]:
    known = {step.id for step in definition.steps}
    for number, step in enumerate(definition.steps):
        for place, parent in enumerate(step.depends_on):
            field = f"steps.{number}.depends_on.{place}"
            if parent not in known:
                yield FieldError(
                    field,
                    _unknown_step(parent, known),
                    "unknown_step",
                )
            elif parent in step.depends_on[:place]:
                yield FieldError(field, Said(f"{parent!r} is named twice", f"{parent!r} 写了两次"), "duplicate")
    ring = cycle_of(definition.steps)
    if ring is not None:
        first = next(number for number, step in enumerate(definition.steps) if step.id in ring)
        yield FieldError(
            f"steps.{first}.depends_on",
            Said(f"the steps wait for each other: {' → '.join(ring)}", f"步骤互相等待：{' → '.join(ring)}"),
            "cycle",
        )
    for number, step in enumerate(definition.steps):
        if step.limit is not None and step.for_each is None:
            yield FieldError(
                f"steps.{number}.limit",
                Said("limit is for a step with for_each; leave it out", "limit 只用于带 for_each 的步骤；请去掉"),
                "unused",
            )


def _of_attempts(definition: WorkflowDefinition, waits_for_others: WaitsForOthers) -> Iterator[FieldError]:
    """What is about single attempts, at steps whose attempts do nothing but look and wait."""
    for number, step in enumerate(definition.steps):
        if not waits_for_others(step.type):
            continue
        if step.retries is not None:
            yield FieldError(
                f"steps.{number}.retries",
                Said(
                    f"{step.type} waits for others, and to try it again changes nothing of what they came to; "
                    "leave it out here, and give it to the steps that do the work",
                    f"{step.type} 等待的是别人的结果，重试不会改变它；请在这里去掉，写到真正做事的步骤上",
                ),
                "unused",
            )
        if step.timeout_seconds is not None:
            yield FieldError(
                f"steps.{number}.timeout_seconds",
                Said(
                    f"a time limit is for one attempt, and {step.type} waits between its attempts; put it into "
                    "the params of an approval, or at the steps of a workflow",
                    f"时限是一次尝试的，而 {step.type} 在两次尝试之间等待；"
                    "请写到审批的 params 里，或工作流内部的步骤上",
                ),
                "unused",
            )


def _expressions(definition: WorkflowDefinition) -> Iterator[FieldError]:
    before = ancestors(definition.steps)
    for number, step in enumerate(definition.steps):
        seen = _Scope(definition, before[step.id], step.id, has_item=False)
        for name in ("when", "for_each"):
            source = getattr(step, name)
            if source is not None:
                yield from seen.of_expression(f"steps.{number}.{name}", source)
        inside = _Scope(definition, before[step.id], step.id, has_item=step.for_each is not None)
        yield from inside.of_params(f"steps.{number}.params", step)
        if step.compensate is not None:
            after = _Scope(definition, before[step.id] | {step.id}, step.id, has_item=False)
            yield from after.of_params(f"steps.{number}.compensate.params", step.compensate)


class _Scope:
    """What an expression at one place may read."""

    def __init__(
        self, definition: WorkflowDefinition, steps: frozenset[str], here: str, *, has_item: bool
    ) -> None:
        self._known = {step.id for step in definition.steps}
        self._input = definition.input
        self._steps = steps
        self._here = here
        self._has_item = has_item

    def of_expression(self, field: str, source: str) -> Iterator[FieldError]:
        try:
            expression = parse_expression(source)
        except InvalidExpression as error:
            yield FieldError(field, sentence_of(error), "bad_expression")
        else:
            yield from self._of_references(field, expression)

    def of_params(self, field: str, call: Call) -> Iterator[FieldError]:
        for path, text in templates_in(templated_part(call)):
            place = ".".join((field, *path))
            try:
                template = parse_template(text)
            except InvalidExpression as error:
                yield FieldError(place, sentence_of(error), "bad_expression")
            else:
                for expression in template.expressions:
                    yield from self._of_references(place, expression)

    def _of_references(self, field: str, expression: Expression) -> Iterator[FieldError]:
        for reference in sorted(expression.references, key=lambda item: (item.root, item.name or "")):
            problem = self._problem(reference.root, reference.name, optional=reference.optional)
            if problem is not None:
                yield FieldError(field, problem, "bad_reference")

    def _problem(self, root: str, name: str | None, *, optional: bool) -> str | None:
        if root == "steps" and name not in self._known:
            return _unknown_step(name, self._known)
        if root == "steps" and name not in self._steps:
            if name == self._here:
                return Said(f"step {name!r} cannot read its own result", f"步骤 {name!r} 不能读取自己的结果")
            return Said(
                f"it reads step {name!r} and does not wait for it; add {name!r} to depends_on",
                f"它读取步骤 {name!r} 却不等待它；请把 {name!r} 加入 depends_on",
            )
        if root == "input" and name is not None and not optional and name not in self._input:
            return Said(
                f"input has no {name!r}; add it to input, or write input.{name}|default(…)",
                f"input 中没有 {name!r}；请加入 input，或写成 input.{name}|default(…)",
            )
        if root in ("item", "index") and not self._has_item:
            return Said(
                f"{root} is known only in the params of a step with for_each",
                f"{root} 只能用在带 for_each 的步骤的参数中",
            )
        return None


def _calls(definition: WorkflowDefinition, check: CheckParams) -> Iterator[FieldError]:
    for number, step in enumerate(definition.steps):
        yield from _of_call(f"steps.{number}", step, check)
        if step.compensate is not None:
            yield from _of_call(f"steps.{number}.compensate", step.compensate, check)


def _of_call(field: str, call: Call, check: CheckParams) -> Iterator[FieldError]:
    """What the executor says of the params, as far as they are known before anything has run."""
    to_come = {".".join((_IN_A_MODEL, *path)) for path, _ in templates_in(templated_part(call))}
    try:
        check(call.type, dict(call.params))
    except ExecutorNotFound as error:
        yield FieldError(f"{field}.type", sentence_of(error), error.code)
    except InvalidParameters as error:
        for item in error.errors:
            if not _depends(item.field, to_come):
                yield FieldError(f"{field}.{item.field}", item.message, item.kind)


def _depends(field: str, to_come: set[str]) -> bool:
    """Whether what an executor says of `field` may be otherwise once the templates are filled in: it is about one
    of them, about what holds one, or about the params as a whole."""
    if not to_come:
        return False
    if field == _IN_A_MODEL:
        return True
    return any(
        field == place or field.startswith(f"{place}.") or place.startswith(f"{field}.") for place in to_come
    )
