"""Debounce, throttle and once, as verdicts over values."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from app.models.task_execution import Execution, ExecutionState
from app.scheduler.repeats import Action, Debounce, Latest, Once, Throttle, decide

NOON = datetime(2030, 1, 1, 12, tzinfo=UTC)


def seconds(value: float) -> timedelta:
    return timedelta(seconds=value)


def execution(state: ExecutionState = ExecutionState.PENDING, **values: object) -> Execution:
    plain = Execution(1, None, None, "work", {}, state, None, "code", None, None, None, 1, NOON, NOON)
    return plain._replace(**values)


gaps = st.lists(st.floats(0.01, 50), min_size=1, max_size=60)


@given(st.floats(1, 30), gaps)
def test_a_throttle_records_at_most_one_in_a_period_and_the_first_wins(period: float, waits: list[float]) -> None:
    policy, latest, now, recorded = Throttle("k", period), None, NOON, []
    for wait in waits:
        now += seconds(wait)
        decision = decide(policy, latest, now)
        if decision.action is Action.RECORD:
            recorded.append(now)
            latest = Latest(execution(), decision.since)
        else:
            assert now < recorded[-1] + seconds(period)
    assert all(later - earlier >= seconds(period) for earlier, later in pairwise(recorded))


@given(st.floats(1, 30), st.floats(1, 5), gaps)
def test_a_debounce_runs_after_the_quiet_and_at_the_latest_after_its_longest_wait(
    quiet: float, factor: float, waits: list[float]
) -> None:
    policy, now = Debounce("k", quiet, max_wait_seconds=quiet * factor), NOON
    decision = decide(policy, None, now)
    assert (decision.action, decision.run_at) == (Action.RECORD, now + seconds(quiet))
    first, run_at = now, decision.run_at
    for wait in waits:
        now += seconds(wait)
        if run_at is None or now >= run_at:
            break
        decision = decide(policy, Latest(execution(run_at=run_at), decision.since), now)
        assert (decision.action, decision.since) == (Action.REPLACE, first)
        assert decision.run_at is not None
        assert run_at <= decision.run_at <= max(first + seconds(quiet * factor), run_at)
        run_at = decision.run_at


@pytest.mark.parametrize(
    "started",
    [
        execution(ExecutionState.RUNNING),
        execution(ExecutionState.RETRYING, attempt=1),
        execution(ExecutionState.SUCCESS),
        execution(owner="n"),
        execution(cancel_requested_at=NOON),
    ],
)
def test_a_debounce_never_changes_what_has_started(started: Execution) -> None:
    decision = decide(Debounce("k", 10), Latest(started, NOON), NOON + seconds(1))
    assert decision.action is Action.RECORD


@pytest.mark.parametrize(
    ("state", "action"),
    [
        (ExecutionState.PENDING, Action.RETURN),
        (ExecutionState.RUNNING, Action.RETURN),
        (ExecutionState.SUCCESS, Action.RETURN),
        (ExecutionState.FAILED, Action.RECORD),
        (ExecutionState.CANCELLED, Action.RECORD),
    ],
)
def test_once_lets_another_try_where_the_first_came_to_nothing(state: ExecutionState, action: Action) -> None:
    latest = Latest(execution(state), NOON)
    assert decide(Once("k", 60), latest, NOON + seconds(59)).action is action
    assert decide(Once("k", 60), latest, NOON + seconds(60)).action is Action.RECORD
    assert decide(Throttle("k", 60), latest, NOON + seconds(59)).action is Action.RETURN


def test_a_longest_wait_below_the_quiet_is_refused() -> None:
    with pytest.raises(ValidationError, match="max_wait_seconds is shorter"):
        Debounce("k", 10, max_wait_seconds=5)


def test_a_request_that_read_the_clock_before_the_first_one_is_of_its_period() -> None:
    latest = Latest(execution(), NOON)
    for policy in (Throttle("k", 60), Once("k", 60)):
        assert decide(policy, latest, NOON - seconds(0.01)).action is Action.RETURN
        assert decide(policy, latest, NOON - seconds(60)).action is Action.RECORD  # a clock went back
