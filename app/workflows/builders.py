"""A workflow in Python: `chain(step(…), group(…), approval(…))` makes the definition that JSON would spell out.

```python
draft = step("content_generation", {"account_id": 1, "topic": "{{ input.topic }}"}, id="draft")
check = step("quality_check", {"content_id": draft.output("content_id")}, id="check")
await start(chain(draft, check, step("publishing", {"content_id": draft.output("content_id")})), {"topic": "AI"})
```
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any, Literal

from pydantic import ValidationError

from app.core.errors import InvalidRequest
from app.core.validation import field_errors
from app.models.task_execution import Execution
from app.services.scheduler_service import SchedulerService, scheduler_service
from app.workflows.definition import WORKFLOW_TYPE, StepDefinition

FailurePolicy = Literal["fail", "continue", "compensate"]
CallLike = tuple[str, Mapping[str, Any]]
"""An executor's type and its params."""


@dataclass(frozen=True, slots=True)
class Flow:
    """Some steps and what they wait for; `heads` wait for nothing in it, nothing in it waits for `tails`."""

    steps: tuple[dict[str, Any], ...]
    heads: tuple[str, ...]
    tails: tuple[str, ...]

    def definition(self, input: Mapping[str, Any] | None = None) -> dict[str, Any]:  # noqa: A002 - the field's name
        """The params of `workflow`: plain JSON, to enqueue or to store in a task."""
        return {"steps": [dict(step) for step in self.steps], "input": dict(input or {})}

    def output(self, *path: str | int, of: str | None = None) -> str:
        """A template for what the step (`of` names it where there are several) returns in its `data`.

        Raises:
            InvalidRequest: it is not said which step.
        """
        if of is None and len(self.steps) != 1:
            raise InvalidRequest.of("of", f"name one of the steps {', '.join(self._ids())}")
        if of is not None and of not in self._ids():
            raise InvalidRequest.of("of", f"there is no step {of!r}; there are {', '.join(self._ids())}")
        keys = "".join(f"[{key!r}]" for key in path)
        return f"{{{{ steps.{of or self.steps[0]['id']}.data{keys} }}}}"

    def _ids(self) -> list[str]:
        return [step["id"] for step in self.steps]


def step(
    type: str,  # noqa: A002 - the field's name
    params: Mapping[str, Any] | None = None,
    *,
    id: str | None = None,  # noqa: A002 - the field's name
    when: str | None = None,
    on_failure: FailurePolicy = "fail",
    compensate: CallLike | None = None,
    for_each: str | None = None,
    limit: int | None = None,
    retries: int | None = None,
    timeout_seconds: float | None = None,
) -> Flow:
    """One step; its id is the executor's type unless `id` says otherwise. Fields as in `StepDefinition`.

    Raises:
        InvalidRequest: a field is wrong; `errors` names it.
    """
    given: dict[str, Any] = {
        "when": when,
        "on_failure": on_failure if on_failure != "fail" else None,
        "compensate": _called(compensate) if compensate is not None else None,
        "for_each": for_each,
        "limit": limit,
        "retries": retries,
        "timeout_seconds": timeout_seconds,
    }
    name = type if id is None else id
    described: dict[str, Any] = {"id": name, "type": type, "params": _plain(params)}
    described |= {key: value for key, value in given.items() if value is not None}
    try:
        StepDefinition.model_validate(described)
    except ValidationError as error:
        raise InvalidRequest(field_errors(error)) from None
    return Flow((described,), (name,), (name,))


def approval(
    title: str,
    *,
    details: str = "",
    id: str = "approval",  # noqa: A002 - the field's name
    when: str | None = None,
    **params: Any,
) -> Flow:
    """A step that waits until somebody has decided; `params` as in `ApprovalParams`."""
    return step("approval", {"title": title, "details": details, **params}, id=id, when=when)


def chain(*parts: Flow) -> Flow:
    """One after the other: each part begins when all of the part before it is over.

    Raises:
        InvalidRequest: there are no parts, one is none, or two steps have one id.
    """
    joined = _joined(parts)
    waits: dict[str, tuple[str, ...]] = {}
    for before, after in pairwise(parts):
        waits |= dict.fromkeys(after.heads, before.tails)
    steps = tuple(
        item | {"depends_on": [*waits[item["id"]]]} if item["id"] in waits else item for item in joined.steps
    )
    return replace(joined, steps=steps, heads=parts[0].heads, tails=parts[-1].tails)


def group(*parts: Flow) -> Flow:
    """Side by side: all parts begin together; what comes after waits for all of them.

    Raises:
        InvalidRequest: there are no parts, one is none, or two steps have one id.
    """
    return _joined(parts)


def _plain(params: object) -> object:
    """Params as the definition has them; what is none is left for it to refuse."""
    return dict(params) if isinstance(params, Mapping) else {} if params is None else params


def _called(call: object) -> dict[str, Any]:
    if not isinstance(call, tuple) or len(call) != 2:
        raise InvalidRequest.of("compensate", f"write (type, params), as in ('undo', {{}}), not {call!r}")
    return {"type": call[0], "params": _plain(call[1])}


def _joined(parts: tuple[Flow, ...]) -> Flow:
    for part in parts:
        checked: object = part
        if not isinstance(checked, Flow):
            raise InvalidRequest.of(
                "parts", f"a part is what step(), approval(), chain() or group() returned, not {checked!r}"
            )
    steps = tuple(item for part in parts for item in part.steps)
    ids = [item["id"] for item in steps]
    if not ids:
        raise InvalidRequest.of("parts", "there is no step; give one or more")
    twice = sorted({name for name in ids if ids.count(name) > 1})
    if twice:
        raise InvalidRequest.of("id", f"two steps are called {twice[0]!r}; give each an id of its own")
    return Flow(
        steps,
        tuple(name for part in parts for name in part.heads),
        tuple(name for part in parts for name in part.tails),
    )


async def start(
    flow: Flow,
    input: Mapping[str, Any] | None = None,  # noqa: A002 - the field's name
    *,
    service: SchedulerService = scheduler_service,
    **request: Any,
) -> Execution:
    """Enqueue a workflow; `request` as in `SchedulerService.enqueue()`.

    Raises:
        InvalidParameters: the definition is wrong, `errors` names the fields; nothing is stored.
    """
    return await service.enqueue(WORKFLOW_TYPE, flow.definition(input), **request)
