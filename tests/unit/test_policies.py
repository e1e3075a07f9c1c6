from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from app.scheduler.policies import (
    RETRY_AFTER,
    MisfirePolicy,
    OverlapPolicy,
    RetryPolicy,
    asked_patience,
    backoff_seconds,
    overlap_verdict,
    plan_fires,
    retry_delay,
)

NOW = datetime(2030, 1, 7, 12, tzinfo=UTC)


def test_the_default_backoff_doubles_from_two_seconds_and_ends_at_an_hour() -> None:
    waits = [backoff_seconds(RetryPolicy(), failures, 0.5) for failures in (1, 2, 3, 4, 50)]
    assert waits == [2, 4, 8, 16, 3600]


@given(
    st.integers(1, 1000),
    st.floats(0, 1, exclude_max=True),
    st.floats(0, 1),
    st.floats(0, 86_400),
    st.floats(1, 10),
    st.floats(0, 604_800),
)
def test_backoff_stays_within_its_bounds(
    failures: int, uniform: float, jitter: float, base: float, factor: float, most: float
) -> None:
    policy = RetryPolicy(backoff_seconds=base, backoff_factor=factor, backoff_max_seconds=most, jitter=jitter)
    assert 0 <= backoff_seconds(policy, failures, uniform) <= most


@given(st.integers(1, 200), st.integers(1, 100))
def test_an_execution_is_tried_max_attempts_times(failures: int, max_attempts: int) -> None:
    delay = retry_delay(RetryPolicy(max_attempts=max_attempts), failures, "ValueError: x", 0.5)
    assert (delay is None) == (failures >= max_attempts)


@pytest.mark.parametrize(
    ("error", "again"),
    [("TimeoutError: x", True), ("TimeoutError", True), ("ValueError: x", False), (None, False)],
)
def test_only_the_named_errors_are_retried(error: str | None, again: bool) -> None:
    policy = RetryPolicy(max_attempts=3, retry_on=("TimeoutError",))
    assert (retry_delay(policy, 1, error, 0.5) is not None) == again


@pytest.mark.parametrize("wrong", [{"max_attempts": 0}, {"max_attempts": True}, {"jitter": 2}, {"retry_on": [""]}])
def test_a_policy_that_makes_no_sense_is_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        RetryPolicy.model_validate(wrong)


@given(st.sampled_from(OverlapPolicy), st.integers(0, 5))
def test_overlap_verdicts(policy: OverlapPolicy, active: int) -> None:
    verdict = overlap_verdict(policy, active)
    assert verdict.run or (policy is OverlapPolicy.SKIP and active > 0)
    assert verdict.cancel == (policy is OverlapPolicy.CANCEL_RUNNING and active > 0)
    assert verdict.exclusive == (policy in (OverlapPolicy.QUEUE, OverlapPolicy.CANCEL_RUNNING))


@given(st.sampled_from(MisfirePolicy), st.integers(1, 300), st.integers(0, 7200), st.integers(2, 100))
def test_no_fire_vanishes(policy: MisfirePolicy, count: int, late: int, limit: int) -> None:
    """Every due fire either runs or is counted in the skipped row, which lies before what runs."""
    fires = [NOW - timedelta(seconds=late + 60 * n) for n in range(count)][::-1]
    newest = fires[-min(count, limit if policy is MisfirePolicy.ALL else 2) :]
    plan = plan_fires(policy, first=fires[0], newest=newest, count=count, now=NOW, grace_seconds=60)
    skipped = plan.skipped.count if plan.skipped else 0
    assert len(plan.run) + skipped == count
    assert list(plan.run) == fires[count - len(plan.run) :]
    if plan.skipped is not None:
        assert plan.skipped.first == fires[0]
        assert plan.skipped.last == fires[skipped - 1]
    if policy is MisfirePolicy.LATEST:
        assert plan.run == (fires[-1],)
    if policy is MisfirePolicy.SKIP:
        assert bool(plan.run) == (late <= 60)


@pytest.mark.parametrize(
    ("asked", "seconds"),
    [(31, 31.0), (0.5, 0.5), (1e12, 86_400.0), (float("inf"), 86_400.0)]
    + [(nothing, 0.0) for nothing in (None, True, "31", -1, 0, float("nan"), [31])],
)
def test_how_long_a_failed_result_asks_to_wait(asked: Any, seconds: float) -> None:
    assert asked_patience({RETRY_AFTER: asked}) == seconds
