"""What a repeated request comes to: debounce, throttle, once. Values and a pure verdict.

A key belongs to the executor type it is used with: two types never share one.
"""

from __future__ import annotations

from dataclasses import dataclass as plain_dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Annotated, Literal

from pydantic import ConfigDict, Field, StringConstraints, model_validator
from pydantic.dataclasses import dataclass

from app.core.language import Said
from app.models.task_execution import Execution, ExecutionState

Key = Annotated[
    str, StringConstraints(strip_whitespace=True, min_length=1, max_length=200, pattern=r"^[^\x00-\x1f\x7f]+$")
]
Period = Annotated[float, Field(gt=0, le=366 * 86_400, allow_inf_nan=False, strict=True)]
_STRICT = ConfigDict(extra="forbid")


@dataclass(frozen=True, config=_STRICT)
class Debounce:
    """Wait until nobody has asked for `seconds`, then run once, with the params of the last request.

    However often somebody asks, it runs at the latest `max_wait_seconds` after the first request (by default ten
    times `seconds`).
    """

    key: Key
    seconds: Period
    max_wait_seconds: Period | None = None
    kind: Literal["debounce"] = "debounce"

    @model_validator(mode="after")
    def _consistent(self) -> Debounce:
        if self.max_wait_seconds is not None and self.max_wait_seconds < self.seconds:
            raise ValueError(
                Said(
                    "max_wait_seconds is shorter than seconds; make it longer, or leave it out",
                    "max_wait_seconds 短于 seconds；请加长，或不填",
                )
            )
        return self


@dataclass(frozen=True, config=_STRICT)
class Throttle:
    """Run at most once per `seconds`: the first request wins, those that follow are answered with its
    execution."""

    key: Key
    seconds: Period
    kind: Literal["throttle"] = "throttle"


@dataclass(frozen=True, config=_STRICT)
class Once:
    """As `Throttle`, but an execution that failed or was cancelled does not count."""

    key: Key
    seconds: Period
    kind: Literal["once"] = "once"


Repeats = Annotated[Debounce | Throttle | Once, Field(discriminator="kind")]
"""What a repeated request does."""


class Action(StrEnum):
    """What a request does."""

    RECORD = "record"
    RETURN = "return"
    REPLACE = "replace"


@plain_dataclass(frozen=True, slots=True)
class Latest:
    """The latest execution under a key, and when the first request that it stands for came in."""

    execution: Execution | None
    since: datetime


@plain_dataclass(frozen=True, slots=True)
class Decision:
    """What a request does, and what its key remembers from then on."""

    action: Action
    since: datetime
    expires_at: datetime
    run_at: datetime | None = None
    """Not before this moment; None: as asked for."""


def decide(policy: Repeats, latest: Latest | None, now: datetime) -> Decision:
    """The verdict over a request at `now`; `latest`: what the key remembers."""
    if isinstance(policy, Debounce):
        return _debounced(policy, latest, now)
    period = timedelta(seconds=policy.seconds)
    # Of several at once, one that read the clock earlier may come to the key later: it is of the same period.
    if latest is not None and abs(now - latest.since) < period and _counts(policy, latest.execution):
        return Decision(Action.RETURN, latest.since, latest.since + period)
    return Decision(Action.RECORD, now, now + period)


def _counts(policy: Throttle | Once, execution: Execution | None) -> bool:
    if execution is None:  # pruned or deleted meanwhile: there is nothing to answer with
        return False
    return not (isinstance(policy, Once) and execution.state in (ExecutionState.FAILED, ExecutionState.CANCELLED))


def _debounced(policy: Debounce, latest: Latest | None, now: datetime) -> Decision:
    quiet = timedelta(seconds=policy.seconds)
    longest = timedelta(seconds=policy.max_wait_seconds or 10 * policy.seconds)
    if latest is not None and latest.execution is not None and _still_waits(latest.execution):
        run_at = max(now, min(now + quiet, latest.since + longest))
        return Decision(Action.REPLACE, latest.since, latest.since + longest, run_at)
    return Decision(Action.RECORD, now, now + longest, now + min(quiet, longest))


def _still_waits(execution: Execution) -> bool:
    return (
        execution.state is ExecutionState.PENDING
        and execution.attempt == 0
        and execution.owner is None
        and execution.cancel_requested_at is None
    )
