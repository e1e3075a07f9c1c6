"""A rate limit is never exceeded and not wasted, whoever asks when and whatever the clocks do."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from app.scheduler.rates import (
    CLOCK_SKEW,
    Bucket,
    RateLimit,
    RateRule,
    next_start,
    next_starts,
    put_off,
    rule_of,
    take,
    tokens,
)

NOON = datetime(2030, 1, 1, 12, tzinfo=UTC)
limits = st.builds(
    RateLimit,
    st.integers(1, 50),
    per_seconds=st.sampled_from([0.5, 1.0, 7.0, 60.0, 3600.0]),
    burst=st.none() | st.integers(1, 10),
)
waits = st.lists(st.floats(0, 120, allow_nan=False), min_size=1, max_size=200)


def seconds(value: float) -> timedelta:
    return timedelta(seconds=value)


def most_within(starts: list[datetime], span: timedelta) -> int:
    """The largest number of starts in any half-open window of that length."""
    return max((sum(first <= one < first + span for one in starts) for first in starts), default=0)


@given(limits, waits)
def test_no_window_holds_more_than_the_limit_and_its_burst(limit: RateLimit, gaps: list[float]) -> None:
    bucket, now, starts = Bucket(), NOON, []
    for gap in gaps:
        now += seconds(gap)
        after = take(bucket, limit, now)
        if after is not None:
            bucket = after
            starts.append(now)
    assert most_within(starts, seconds(limit.per_seconds)) <= limit.limit + limit.capacity - 1


@given(limits)
def test_who_asks_whenever_it_may_start_uses_all_of_it(limit: RateLimit) -> None:
    bucket, now, count = Bucket(), NOON, 0
    while now < NOON + 10 * seconds(limit.per_seconds):
        after = take(bucket, limit, now)
        assert after is not None
        bucket, count = after, count + 1
        now = next_start(bucket, limit, now)
    assert count >= 10 * limit.limit * 0.999


@given(limits, st.lists(st.tuples(st.floats(0, 60), st.sampled_from([0.0, 10.0, 55.0])), min_size=1, max_size=200))
def test_nodes_whose_clocks_differ_add_no_more_than_the_difference_lets_accrue(
    limit: RateLimit, asks: list[tuple[float, float]]
) -> None:
    bucket, now, starts = Bucket(), NOON, []
    for gap, skew in asks:
        now += seconds(gap)
        after = take(bucket, limit, now + seconds(skew))
        if after is not None:
            assert after.tat >= bucket.tat  # what one node has used is used for all
            bucket = after
            starts.append(now)
    extra = seconds(55) // limit.interval + 1
    assert most_within(starts, seconds(limit.per_seconds)) <= limit.limit + limit.capacity - 1 + extra


@given(limits, st.floats(0, 365 * 86_400))
def test_a_clock_that_goes_back_holds_nobody_up_for_longer_than_its_skew_allows(
    limit: RateLimit, back: float
) -> None:
    bucket = Bucket()
    while (after := take(bucket, limit, NOON)) is not None:
        bucket = after
    now = NOON - seconds(back)
    assert next_start(bucket, limit, now) - now <= limit.interval * 2 + CLOCK_SKEW


def asked_every(limit: RateLimit, bucket: Bucket, begin: datetime, step: timedelta) -> timedelta:
    """How long it takes until one may start that asks again and again."""
    now = begin
    while (after := take(bucket, limit, now)) is None:
        bucket, _ = put_off(bucket, limit, now, priority=0, has_waited=True, ahead=0)
        now += step
        assert now < begin + seconds(100_000)
    assert after.tat <= now + limit.interval * limit.capacity + CLOCK_SKEW
    return now - begin


@given(limits, st.floats(0, 365 * 86_400))
def test_who_asks_again_and_again_after_a_clock_went_back_starts_as_soon(limit: RateLimit, back: float) -> None:
    bucket = Bucket()
    while (after := take(bucket, limit, NOON)) is not None:
        bucket = after
    step = max(limit.interval, seconds(1))
    assert asked_every(limit, bucket, NOON - seconds(back), step) <= limit.interval * 2 + CLOCK_SKEW + step


@given(limits, limits)
def test_a_limit_that_is_raised_holds_within_a_minute(slow: RateLimit, fast: RateLimit) -> None:
    bucket = Bucket()
    while (after := take(bucket, slow, NOON)) is not None:
        bucket = after
    step = max(fast.interval, seconds(1))
    assert asked_every(fast, bucket, NOON, step) <= fast.interval * 2 + CLOCK_SKEW + step


@given(limits, waits)
def test_the_next_starts_are_the_moments_at_which_those_in_line_may(limit: RateLimit, gaps: list[float]) -> None:
    bucket, now = Bucket(), NOON
    for gap in gaps[:20]:
        now += seconds(gap)
        bucket = take(bucket, limit, now) or bucket
    for moment in next_starts(bucket, limit, now, limit.capacity + 5):
        assert moment == next_start(bucket, limit, moment)
        bucket = take(bucket, limit, moment) or Bucket(NOON + seconds(1e9))


@given(limits, waits)
def test_the_next_start_is_the_first_moment_at_which_one_may(limit: RateLimit, gaps: list[float]) -> None:
    bucket, now = Bucket(), NOON
    for gap in gaps:
        now += seconds(gap)
        moment = next_start(bucket, limit, now)
        assert take(bucket, limit, moment) is not None
        assert moment == now or take(bucket, limit, moment - timedelta(microseconds=1)) is None
        assert (tokens(bucket, limit, now) > 0) is (moment == now)
        bucket = take(bucket, limit, now) or bucket


@given(limits, st.integers(1, 60))
def test_those_in_line_each_get_a_moment_at_which_there_is_a_token(limit: RateLimit, count: int) -> None:
    bucket = Bucket()
    while (after := take(bucket, limit, NOON)) is not None:
        bucket = after
    moments = []
    for _ in range(count):
        bucket, moment = put_off(bucket, limit, NOON, priority=0, has_waited=False, ahead=0)
        moments.append(moment)
    assert moments == sorted(set(moments))
    for moment in moments:
        after = take(bucket, limit, moment)
        assert after is not None
        bucket = after


def test_a_higher_priority_and_who_has_had_a_moment_come_to_the_head_of_the_line() -> None:
    limit = RateLimit(1, per_seconds=10)
    bucket = take(Bucket(), limit, NOON)
    assert bucket is not None
    for _ in range(5):
        bucket, last = put_off(bucket, limit, NOON, priority=0, has_waited=False, ahead=0)
    assert last == NOON + seconds(50)
    assert put_off(bucket, limit, NOON, priority=1, has_waited=False, ahead=1)[1] == NOON + seconds(20)
    assert put_off(bucket, limit, NOON, priority=0, has_waited=True, ahead=0)[1] == NOON + seconds(10)
    assert put_off(bucket, limit, NOON, priority=0, has_waited=False, ahead=0)[1] == NOON + seconds(60)


def test_the_first_values_are_those_of_the_docstring() -> None:
    limit = RateLimit(10, per_seconds=60)
    assert (limit.interval, limit.capacity) == (seconds(6), 1)
    assert [RateLimit(n).capacity for n in (1, 10, 100, 1000)] == [1, 1, 10, 100]


def test_each_value_of_the_param_has_a_bucket_of_its_own() -> None:
    limit = RateLimit(1, key="account_id")
    names = [
        rule_of(limit, "executor:x", params).bucket
        for params in ({"account_id": 1}, {"account_id": "1"}, {"account_id": None}, {}, {"account_id": "a" * 999})
    ]
    assert names[2] == names[3]
    assert len(set(names)) == 4
    assert all(len(name) < 300 for name in names)
    assert rule_of(RateLimit(1), "executor:x", {"account_id": 1}).bucket == "executor:x"


def test_a_rule_is_read_back_as_it_was_stored() -> None:
    rule = rule_of(RateLimit(3, per_seconds=60, burst=2, key="a"), "task:1", {"a": 7})
    assert RateRule.of(rule.as_dict()) == rule


@pytest.mark.parametrize(
    ("values", "field"),
    [
        ({"limit": 0}, "limit"),
        ({"limit": 1, "per_seconds": 0}, "per_seconds"),
        ({"limit": 1, "per_seconds": float("nan")}, "per_seconds"),
        ({"limit": 1, "burst": 0}, "burst"),
        ({"limit": 1, "key": ""}, "key"),
        ({"limit": True}, "limit"),
    ],
)
def test_a_limit_that_makes_no_sense_is_refused_by_the_name_of_its_field(values: dict, field: str) -> None:
    with pytest.raises(ValidationError, match=field):
        RateLimit(**values)


def test_a_burst_that_takes_longer_than_a_life_is_refused_by_name() -> None:
    with pytest.raises(ValidationError, match="burst"):
        RateLimit(1, per_seconds=366 * 86_400, burst=1_000_000)
