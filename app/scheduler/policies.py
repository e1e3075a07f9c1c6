"""Verdicts: what to do about a failure, an overlap, a missed fire. Pure functions of values."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

ErrorName = Annotated[str, StringConstraints(min_length=1, max_length=200, pattern=r"^[A-Za-z_][\w.]*$")]


class MisfirePolicy(StrEnum):
    """What becomes of fires that came due while nobody could fire them."""

    LATEST = "latest"
    ALL = "all"
    SKIP = "skip"


class OverlapPolicy(StrEnum):
    """What a fire does while an earlier execution of its task is not over."""

    SKIP = "skip"
    QUEUE = "queue"
    ALLOW = "allow"
    CANCEL_RUNNING = "cancel_running"


def turns(priority_step_seconds: float) -> Callable[[int, datetime], tuple[float, float]]:
    """The order in which due executions start, as a key of priority and the moment since which one is due.

    The effective priority is `priority + waited / priority_step_seconds`: with a step of 60 seconds, one of
    priority 0 that has waited for 1, 5, 10 minutes is as urgent as a new one of priority 1, 5, 10, and comes
    before it. So whatever keeps coming with priority p, one of priority q starts at the latest among those that
    came `(p - q) * priority_step_seconds` later. Whose turn it is does not depend on when it is asked: the key is
    the moment at which a due one would have had to come at priority 0. A step of 0: priorities are strict.
    """
    if priority_step_seconds <= 0:
        return lambda priority, due: (float(-priority), due.timestamp())
    return lambda priority, due: (due.timestamp() - priority * priority_step_seconds, float(-priority))


class RetryPolicy(BaseModel):
    """When and how often a failed execution is tried again.

    The n-th retry waits `backoff_seconds * backoff_factor ** (n - 1)`, at most `backoff_max_seconds`, lengthened
    or shortened by up to `jitter` of itself: by default about 2, 4, 8, 16 … seconds, and no more than an hour.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    max_attempts: int = Field(default=1, ge=1, le=100, strict=True)
    backoff_seconds: float = Field(default=2.0, ge=0, le=86_400, allow_inf_nan=False, strict=True)
    backoff_factor: float = Field(default=2.0, ge=1, le=10, allow_inf_nan=False, strict=True)
    backoff_max_seconds: float = Field(default=3600.0, ge=0, le=7 * 86_400, allow_inf_nan=False, strict=True)
    jitter: float = Field(default=0.1, ge=0, le=1, allow_inf_nan=False, strict=True)
    retry_on: tuple[ErrorName, ...] | None = None
    """Names of the errors worth a retry, as `error` begins with them (`TimeoutError`); None: all."""
    on_node_lost: Literal["retry", "fail"] = "retry"
    """`fail`: for work that must not run twice, even when its process was killed half-way."""


RETRY_AFTER = "retry_after_seconds"
"""Under this key the metadata of a failed result may say how long to wait at least before the next attempt."""
LONGEST_RETRY_AFTER_SECONDS = 86_400.0


def asked_patience(metadata: Mapping[str, Any]) -> float:
    """Seconds that a failed result asks to wait (see `RETRY_AFTER`), at most a day; 0: it does not, or not in a
    number."""
    asked = metadata.get(RETRY_AFTER)
    if isinstance(asked, bool) or not isinstance(asked, (int, float)) or not asked > 0:
        return 0.0
    return min(float(asked), LONGEST_RETRY_AFTER_SECONDS)


def backoff_seconds(policy: RetryPolicy, failures: int, uniform: float) -> float:
    """Seconds to wait after the `failures`-th failure; `uniform` in [0, 1) is the draw of the jitter."""
    # The exponent is capped so that the power stays a float; the maximum is reached long before.
    plain = policy.backoff_seconds * policy.backoff_factor ** min(failures - 1, 200)
    capped = min(plain, policy.backoff_max_seconds)
    return min(capped * (1 + policy.jitter * (2 * uniform - 1)), policy.backoff_max_seconds)


def retry_delay(policy: RetryPolicy, failures: int, error: str | None, uniform: float) -> float | None:
    """Seconds until the next attempt after `failures` failures, or None: the execution has failed."""
    if failures >= policy.max_attempts:
        return None
    if policy.retry_on is not None and (error or "").partition(":")[0] not in policy.retry_on:
        return None
    return backoff_seconds(policy, failures, uniform)


@dataclass(frozen=True, slots=True)
class OverlapVerdict:
    """`run`: the fire becomes an execution; `exclusive`: which waits its turn; `cancel`: after the others go."""

    run: bool
    exclusive: bool = False
    cancel: bool = False


def overlap_verdict(policy: OverlapPolicy, active: int) -> OverlapVerdict:
    """What a fire does while `active` executions of its task are not over."""
    if policy is OverlapPolicy.ALLOW:
        return OverlapVerdict(run=True)
    if policy is OverlapPolicy.SKIP:
        return OverlapVerdict(run=active == 0)
    return OverlapVerdict(run=True, exclusive=True, cancel=policy is OverlapPolicy.CANCEL_RUNNING and active > 0)


@dataclass(frozen=True, slots=True)
class SkippedFires:
    """A run of fires that do not execute; the ledger keeps them in one row."""

    reason: Literal["misfire", "coalesced"]
    first: datetime
    last: datetime
    count: int


@dataclass(frozen=True, slots=True)
class FirePlan:
    """What the due fires of a task come to: some run, oldest first; the older ones may be skipped."""

    run: tuple[datetime, ...]
    skipped: SkippedFires | None = None
    catch_up: bool = False


def plan_fires(
    policy: MisfirePolicy,
    *,
    first: datetime,
    newest: Sequence[datetime],
    count: int,
    now: datetime,
    grace_seconds: float,
) -> FirePlan:
    """Decide over `count` due fires, the oldest of which is `first`.

    `newest` holds the youngest of them, oldest first: at least the last two, and under `all` as many as may
    run (what is older is coalesced). `latest` runs one, however late; `skip` runs one if it is within the
    grace. The others never vanish: they are in `skipped`.
    """
    latest = newest[-1]
    late = now - latest > timedelta(seconds=grace_seconds)
    if policy is MisfirePolicy.SKIP and late:
        return FirePlan(run=(), skipped=SkippedFires("misfire", first, latest, count))
    if policy is MisfirePolicy.ALL:
        run = tuple(newest) if len(newest) == count else tuple(newest[1:])
        before = newest[0]
    else:
        run = (latest,)
        before = newest[-2] if count > 1 else latest
    dropped = count - len(run)
    skipped = SkippedFires("coalesced", first, before, dropped) if dropped else None
    return FirePlan(run=run, skipped=skipped, catch_up=late or count > 1)
