"""Schedules as values, and when they fire.

The cron oracle below shares nothing with the code: it walks real time minute by minute, reads the wall clock of
the zone and matches sets of numbers that hypothesis drew together with their text.
"""

from __future__ import annotations

import pickle
from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import islice, pairwise
from zoneinfo import ZoneInfo

import pytest
from apscheduler.schedulers.background import BackgroundScheduler
from hypothesis import example, given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from app.core.errors import InvalidRequest
from app.scheduler.schedules import (
    MAX_INTERVAL_SECONDS,
    AtSchedule,
    CronSchedule,
    DstPolicy,
    IntervalSchedule,
    Schedule,
    from_columns,
    to_columns,
    to_utc,
)
from app.scheduler.triggers import (
    COUNT_CAP,
    AtTrigger,
    Bounded,
    CronTrigger,
    IntervalTrigger,
    ScheduleTrigger,
    fires_between,
    jitter_of,
    make_trigger,
)

MINUTE = timedelta(minutes=1)
NOON = datetime(2026, 2, 6, 12, tzinfo=UTC)  # a Friday
SCHEDULE: TypeAdapter[Schedule] = TypeAdapter(Schedule)


def utc(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def fires(trigger: ScheduleTrigger, after: datetime, count: int) -> list[datetime]:
    def walk() -> Iterator[datetime]:
        fire = trigger.next_after(after)
        while fire is not None:
            yield fire
            fire = trigger.next_after(fire)

    return list(islice(walk(), count))


def local_fires(
    expression: str, zone: str, after: str, count: int, policy: DstPolicy = DstPolicy.CRON
) -> list[str]:
    """The next fires as the zone's clock shows them, with the offset; `after` is on that clock too."""
    clock = ZoneInfo(zone)
    start = datetime.fromisoformat(after).replace(tzinfo=clock)
    trigger = CronTrigger(expression, zone, policy)
    return [f"{fire.astimezone(clock):%m-%d %H:%M:%S %z}" for fire in fires(trigger, start, count)]


# --- the oracle -----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class DrawnCron:
    """A five-field expression and what it means, by POSIX."""

    text: str
    minutes: frozenset[int]
    hours: frozenset[int]
    days: frozenset[int]
    months: frozenset[int]
    weekdays: frozenset[int]  # Sunday is 0

    def matches(self, wall: datetime) -> bool:
        _, _, day_text, _, weekday_text = self.text.split()
        on_day = wall.day in self.days
        on_weekday = wall.isoweekday() % 7 in self.weekdays
        starred = day_text.startswith("*") or weekday_text.startswith("*")
        date_matches = (on_day and on_weekday) if starred else (on_day or on_weekday)
        return (
            wall.minute in self.minutes and wall.hour in self.hours and wall.month in self.months and date_matches
        )

    @property
    def is_wildcard(self) -> bool:
        return self.text.split()[0].startswith("*") or self.text.split()[1].startswith("*")


def oracle(cron: DrawnCron, zone: str, policy: DstPolicy, start: datetime, end: datetime) -> list[datetime]:
    """Every fire in (start, end], whole minutes, by walking all of them."""
    clock = ZoneInfo(zone)
    elapsed = policy is DstPolicy.CRON and cron.is_wildcard
    found = []
    moment, shown = start, start.astimezone(clock).replace(tzinfo=None)
    while moment < end:
        moment += MINUTE
        local = moment.astimezone(clock)
        wall = local.replace(tzinfo=None, fold=0)
        missing = [shown + MINUTE * step for step in range(1, (wall - shown) // MINUTE)]
        catches_up = policy is DstPolicy.CRON and not elapsed and any(map(cron.matches, missing))
        if catches_up or (cron.matches(wall) and (elapsed or local.fold == 0)):
            found.append(moment)
        shown = wall
    return found


@st.composite
def cron_field(draw: st.DrawFn, low: int, high: int, star_weight: int) -> tuple[str, frozenset[int]]:
    whole = range(low, high + 1)
    kind = draw(
        st.sampled_from(["star"] * star_weight + ["value", "list", "range", "step", "range step", "from step"])
    )
    if kind == "star":
        return "*", frozenset(whole)
    if kind == "list":
        chosen = draw(st.lists(st.sampled_from(whole), min_size=1, max_size=5))
        return ",".join(map(str, chosen)), frozenset(chosen)
    start = draw(st.sampled_from(whole))
    if kind == "value":
        return str(start), frozenset({start})
    step = draw(st.integers(1, high + 3))
    if kind == "step":
        return f"*/{step}", frozenset(whole[::step])
    if kind == "from step":
        return f"{start}/{step}", frozenset(range(start, high + 1, step))
    stop = draw(st.integers(start, high))
    if kind == "range" or stop == start:
        return f"{start}-{stop}", frozenset(range(start, stop + 1))
    return f"{start}-{stop}/{step}", frozenset(range(start, stop + 1, step))


@st.composite
def crons(draw: st.DrawFn) -> DrawnCron:
    minute = draw(cron_field(0, 59, 2))
    hour = draw(cron_field(0, 23, 6))
    day = draw(cron_field(1, 31, 12))
    month = draw(cron_field(1, 12, 18))
    weekday = draw(cron_field(0, 7, 8))
    text = " ".join(field for field, _ in (minute, hour, day, month, weekday))
    return DrawnCron(text, minute[1], hour[1], day[1], month[1], frozenset(number % 7 for number in weekday[1]))


def assert_agrees_with_oracle(cron: DrawnCron, zone: str, policy: DstPolicy, start: datetime, days: int) -> None:
    end = start + timedelta(days=days)
    expected = oracle(cron, zone, policy, start, end)
    trigger = CronTrigger(cron.text, zone, policy)
    assert [fire for fire in fires(trigger, start, len(expected) + 1) if fire <= end] == expected
    assert trigger.count_between(start, end, cap=100_000) == len(expected)
    for moment in (start + (end - start) * part / 29 for part in range(30)):
        following = expected[bisect_right(expected, moment) :]
        preceding = expected[: bisect_right(expected, moment)]
        if following:
            assert trigger.next_after(moment) == following[0]
        if preceding:
            assert trigger.last_at_or_before(moment) == preceding[-1]


moments = st.integers(0, 10 * 366 * 24 * 60).map(lambda minutes: utc("2020-01-01T00:00") + minutes * MINUTE)


@settings(deadline=None, max_examples=50)
@given(crons(), moments, st.sampled_from(["UTC", "Asia/Shanghai"]), st.sampled_from(DstPolicy))
def test_cron_fires_at_the_minutes_a_clock_without_dst_matches(
    cron: DrawnCron, start: datetime, zone: str, policy: DstPolicy
) -> None:
    assert_agrees_with_oracle(cron, zone, policy, start, days=2)


CLOCK_CHANGES = [
    ("America/New_York", utc("2026-03-08T07:00")),
    ("America/New_York", utc("2026-11-01T06:00")),
    ("Europe/Berlin", utc("2026-03-29T01:00")),
    ("Europe/Berlin", utc("2026-10-25T01:00")),
    ("Australia/Lord_Howe", utc("2026-10-03T15:30")),  # 30 minutes
    ("Australia/Lord_Howe", utc("2026-04-04T15:00")),
    ("America/Santiago", utc("2026-09-06T04:00")),  # midnight does not exist
    ("Pacific/Apia", utc("2011-12-30T10:00")),  # a whole day does not exist
]


@settings(deadline=None)
@given(crons(), st.sampled_from(CLOCK_CHANGES), st.integers(1, 36), st.sampled_from(DstPolicy))
@example(
    DrawnCron(
        "*/15 3 * * *",
        frozenset({0, 15, 30, 45}),
        frozenset({3}),
        frozenset(range(32)),
        frozenset(range(13)),
        frozenset(range(7)),
    ),
    ("Australia/Lord_Howe", utc("2026-10-03T15:30")),
    12,
    DstPolicy.CRON,
)
def test_cron_follows_its_dst_policy_where_clocks_change(
    cron: DrawnCron, change: tuple[str, datetime], hours_before: int, policy: DstPolicy
) -> None:
    zone, moment = change
    assert_agrees_with_oracle(cron, zone, policy, moment - timedelta(hours=hours_before), days=2)


# --- cron -----------------------------------------------------------------------------------------------------


def test_1_to_5_is_monday_to_friday() -> None:
    assert [f"{fire:%a %H:%M}" for fire in fires(CronTrigger("0 9 * * 1-5"), NOON, 6)] == [
        "Mon 09:00",
        "Tue 09:00",
        "Wed 09:00",
        "Thu 09:00",
        "Fri 09:00",
        "Mon 09:00",
    ]


@pytest.mark.parametrize("sunday", ["0", "7", "SUN", "sun", "0,7"])
def test_0_and_7_are_sunday(sunday: str) -> None:
    expected = [utc("2026-02-08T00:00"), utc("2026-02-15T00:00")]
    assert fires(CronTrigger(f"0 0 * * {sunday}"), NOON, 2) == expected


def test_day_of_month_or_day_of_week_matches_when_both_are_set() -> None:
    days = [fire.day for fire in fires(CronTrigger("0 0 13 * 5"), utc("2026-03-01T00:00"), 5)]
    assert days == [6, 13, 20, 27, 3]


def test_day_of_month_and_day_of_week_match_when_one_starts_with_a_star() -> None:
    friday_the_1st_8th_15th = fires(CronTrigger("0 0 */7 * 5"), utc("2026-05-01T00:00"), 4)
    assert [f"{fire:%m-%d}" for fire in friday_the_1st_8th_15th] == ["05-08", "05-15", "05-22", "05-29"]


@pytest.mark.parametrize(
    ("macro", "expression"),
    [
        ("@hourly", "0 * * * *"),
        ("@daily", "0 0 * * *"),
        ("@midnight", "0 0 * * *"),
        ("@weekly", "0 0 * * 0"),
        ("@monthly", "0 0 1 * *"),
        ("@yearly", "0 0 1 1 *"),
        ("@Annually", "0 0 1 1 *"),
    ],
)
def test_macros_stand_for_their_expression(macro: str, expression: str) -> None:
    assert fires(CronTrigger(macro), NOON, 3) == fires(CronTrigger(expression), NOON, 3)


def test_a_leading_field_gives_seconds() -> None:
    start = utc("2026-02-06T09:59:50")
    assert [f"{fire:%H:%M:%S}" for fire in fires(CronTrigger("*/20 0 10 * * *"), start, 3)] == [
        "10:00:00",
        "10:00:20",
        "10:00:40",
    ]


def test_last_days_are_understood() -> None:
    assert [f"{fire:%m-%d}" for fire in fires(CronTrigger("0 0 L * *"), NOON, 2)] == ["02-28", "03-31"]
    assert [f"{fire:%m-%d}" for fire in fires(CronTrigger("0 0 * * 5#2"), NOON, 2)] == ["02-13", "03-13"]


@pytest.mark.parametrize("never", ["0 0 31 2 *", "0 0 30 2 *", "0 0 31 4,6 *", "0 0 */31 2 1#2"])
def test_an_expression_no_date_fulfils_is_valid_and_never_fires(never: str) -> None:
    trigger = CronTrigger(never)
    assert trigger.next_after(NOON) is None
    assert trigger.last_at_or_before(NOON) is None
    assert trigger.count_between(utc("2020-01-01T00:00"), NOON, cap=10) == 0


def test_next_is_strictly_after_and_last_includes_the_moment() -> None:
    trigger = CronTrigger("0 12 * * *")
    assert trigger.next_after(NOON) == NOON + timedelta(days=1)
    assert trigger.next_after(NOON - timedelta(microseconds=1)) == NOON
    assert trigger.last_at_or_before(NOON) == NOON
    assert trigger.last_at_or_before(NOON + timedelta(microseconds=1)) == NOON
    assert trigger.last_at_or_before(NOON - timedelta(microseconds=1)) == NOON - timedelta(days=1)


def test_the_two_passes_of_a_repeated_hour_are_different_moments() -> None:
    new_york = ZoneInfo("America/New_York")
    trigger = CronTrigger("*/30 * * * *", "America/New_York")
    first = trigger.next_after(datetime(2026, 11, 1, 1, 10, tzinfo=new_york))
    second = trigger.next_after(datetime(2026, 11, 1, 1, 10, fold=1, tzinfo=new_york))
    assert (first, second) == (utc("2026-11-01T05:30"), utc("2026-11-01T06:30"))


def test_a_moment_without_offset_is_refused() -> None:
    with pytest.raises(ValueError, match="aware"):
        CronTrigger("* * * * *").next_after(datetime.fromisoformat("2026-01-01"))


def test_past_the_end_of_the_calendar_nothing_fires() -> None:
    end = datetime.max.replace(tzinfo=UTC)
    assert CronTrigger("* * * * *", "Asia/Shanghai").next_after(end) is None
    assert IntervalTrigger(60, NOON).next_after(end) is None


@pytest.mark.parametrize(
    ("policy", "expected"),
    [
        (DstPolicy.CRON, ["03-07 02:30:00 -0500", "03-08 03:00:00 -0400", "03-09 02:30:00 -0400"]),
        (DstPolicy.SKIP, ["03-07 02:30:00 -0500", "03-09 02:30:00 -0400", "03-10 02:30:00 -0400"]),
    ],
)
@pytest.mark.parametrize("expression", ["30 2 * * *", "0 30 2 * * *"])
def test_new_york_a_fixed_time_in_the_gap_runs_right_after_it_or_is_dropped(
    expression: str, policy: DstPolicy, expected: list[str]
) -> None:
    assert local_fires(expression, "America/New_York", "2026-03-06T12:00", 3, policy) == expected


@pytest.mark.parametrize("policy", DstPolicy)
@pytest.mark.parametrize("expression", ["30 1 * * *", "0 30 1 * * *"])
def test_new_york_a_fixed_time_that_happens_twice_runs_the_first_time(expression: str, policy: DstPolicy) -> None:
    expected = ["11-01 01:30:00 -0400", "11-02 01:30:00 -0500"]
    assert local_fires(expression, "America/New_York", "2026-10-31T12:00", 2, policy) == expected


def test_berlin_a_wildcard_follows_elapsed_time_through_both_changes() -> None:
    assert local_fires("0 * * * *", "Europe/Berlin", "2026-03-29T00:30", 3) == [
        "03-29 01:00:00 +0100",
        "03-29 03:00:00 +0200",
        "03-29 04:00:00 +0200",
    ]
    assert local_fires("*/30 * * * *", "Europe/Berlin", "2026-10-25T01:30", 6) == [
        "10-25 02:00:00 +0200",
        "10-25 02:30:00 +0200",
        "10-25 02:00:00 +0100",
        "10-25 02:30:00 +0100",
        "10-25 03:00:00 +0100",
        "10-25 03:30:00 +0100",
    ]


def test_berlin_policy_skip_runs_a_repeated_wall_time_once() -> None:
    assert local_fires("*/30 * * * *", "Europe/Berlin", "2026-10-25T01:30", 3, DstPolicy.SKIP) == [
        "10-25 02:00:00 +0200",
        "10-25 02:30:00 +0200",
        "10-25 03:00:00 +0100",
    ]


def test_lord_howe_changes_by_half_an_hour() -> None:
    zone = "Australia/Lord_Howe"
    assert local_fires("10 2 * * *", zone, "2026-10-03T12:00", 2) == [
        "10-04 02:30:00 +1100",
        "10-05 02:10:00 +1100",
    ]
    assert local_fires("40 1 * * *", zone, "2026-04-04T12:00", 2) == [
        "04-05 01:40:00 +1100",
        "04-06 01:40:00 +1030",
    ]
    assert local_fires("*/15 3 * * *", zone, "2026-10-03T12:00", 2) == [
        "10-04 03:00:00 +1100",
        "10-04 03:15:00 +1100",
    ]


def test_shanghai_has_no_change_of_clocks() -> None:
    trigger = CronTrigger("0 9 * * *", "Asia/Shanghai")
    year = fires(trigger, utc("2026-01-01T01:00"), 365)
    assert {late - early for early, late in pairwise(year)} == {timedelta(days=1)}
    assert {fire.hour for fire in year} == {1}


def test_seconds_in_a_gap_run_once_right_after_it() -> None:
    assert local_fires("*/20 30 2 * * *", "America/New_York", "2026-03-08T00:00", 2) == [
        "03-08 03:00:00 -0400",
        "03-09 02:30:00 -0400",
    ]


INVALID_CRON = [
    "",
    "   ",
    "* * * *",
    "* * * * * * *",
    "60 * * * *",
    "* 24 * * *",
    "* * 0 * *",
    "* * 32 * *",
    "* * * 13 *",
    "* * * * 8",
    "*/0 * * * *",
    "5-1 * * * *",
    "a * * * *",
    "1,, * * * *",
    "-1 * * * *",
    "1.5 * * * *",
    "* * * FOO *",
    "0 0 ? * *",
    "60 0 0 * * *",
    "@reboot",
    "@fortnightly",
    "０ 9 * * *",
    "0 9 * * ſun",
    "0 " * 200,
]


@pytest.mark.parametrize("expression", INVALID_CRON)
def test_an_invalid_expression_is_refused_with_its_field_named(expression: str) -> None:
    with pytest.raises(ValidationError) as refused:
        SCHEDULE.validate_python({"type": "cron", "expression": expression})
    assert refused.value.errors()[0]["loc"] == ("cron", "expression")
    with pytest.raises(InvalidRequest) as refusal:
        CronTrigger(expression)
    assert [error.field for error in refusal.value.errors] == ["schedule.expression"]
    with pytest.raises(InvalidRequest) as refusal:
        from_columns("cron", expression)
    assert [error.field for error in refusal.value.errors] == ["schedule"]


@settings(deadline=None)
@given(st.text(alphabet="0123456789*/-,#LWMONJA @?.\t", max_size=30))
@example("0 0 31 2 *")
@example("* * * * 1#1/2")
@example("0 0 L/2 * 5L")
def test_any_text_is_either_refused_or_computable(text: str) -> None:
    try:
        trigger = CronTrigger(text)
    except InvalidRequest:
        return
    fire = trigger.next_after(NOON)
    assert fire is None or fire > NOON


@pytest.mark.parametrize(
    ("expression", "named"),
    [
        ("61 * * * *", "minute '61' is wrong: it takes 0-59"),
        ("0 0 * * 8", "day-of-week '8' is wrong"),
        ("* * *", "this one has 3"),
        ("@reboot", "@reboot is no time"),
    ],
)
def test_a_refusal_names_the_wrong_part_and_the_rule(expression: str, named: str) -> None:
    with pytest.raises(InvalidRequest, match=named):
        CronTrigger(expression)


def test_whitespace_is_normalised() -> None:
    assert CronSchedule(expression="  0\t9  * *   1-5\n").expression == "0 9 * * 1-5"
    assert CronTrigger(" @DAILY ") == CronTrigger("@daily")


# --- zones ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("zone", ["", "Mars/Base", "America", "../etc/passwd", "a\0b", "x" * 5000, "\ud800"])
def test_an_unknown_zone_is_refused_naming_timezone(zone: str) -> None:
    for schedule in (CronSchedule(expression="* * * * *"), IntervalSchedule(seconds=60)):
        with pytest.raises(InvalidRequest) as refusal:
            make_trigger(schedule, zone=zone, dst_policy=DstPolicy.CRON, anchor=NOON)
        assert [error.field for error in refusal.value.errors] == ["timezone"]


# --- intervals ------------------------------------------------------------------------------------------------


@settings(deadline=None)
@given(st.floats(1, MAX_INTERVAL_SECONDS), st.integers(0, 10**6), moments)
def test_the_millionth_fire_of_an_interval_is_as_exact_as_the_first(
    seconds: float, step: int, anchor: datetime
) -> None:
    trigger = IntervalTrigger(seconds, anchor)
    period = timedelta(microseconds=round(round(seconds, 6) * 1_000_000))
    step = min(step, timedelta(days=365 * 5000) // period)
    assert trigger.next_after(anchor + period * step) == anchor + period * (step + 1)
    assert trigger.last_at_or_before(anchor + period * (step + 1)) == anchor + period * (step + 1)


def test_an_interval_does_not_drift_over_a_million_steps() -> None:
    trigger = IntervalTrigger(1.1, NOON)
    fire = NOON
    for _ in range(1000):
        following = trigger.next_after(fire)
        assert following is not None
        fire = following
    assert fire == NOON + timedelta(seconds=1100)
    assert trigger.next_after(NOON + timedelta(seconds=1_099_999)) == NOON + timedelta(seconds=1_100_000)


def test_an_interval_first_fires_one_period_after_its_anchor() -> None:
    trigger = IntervalTrigger(300, NOON)
    assert trigger.next_after(NOON - timedelta(days=1)) == NOON + timedelta(minutes=5)
    assert trigger.last_at_or_before(NOON + timedelta(minutes=4)) is None
    assert trigger.count_between(NOON - timedelta(days=1), NOON + timedelta(minutes=10), cap=100) == 2


def test_an_interval_with_a_start_first_fires_at_the_start() -> None:
    start = NOON + timedelta(hours=1)
    trigger = make_trigger(
        IntervalSchedule(seconds=300), zone="UTC", dst_policy=DstPolicy.CRON, anchor=NOON, start_at=start
    )
    assert fires(trigger, NOON, 2) == [start, start + timedelta(minutes=5)]


def test_an_interval_without_anchor_or_start_is_refused() -> None:
    with pytest.raises(InvalidRequest, match="anchor"):
        make_trigger(IntervalSchedule(seconds=60), zone="UTC", dst_policy=DstPolicy.CRON, anchor=None)


@pytest.mark.parametrize(
    "seconds",
    [0, 0.999, -5, MAX_INTERVAL_SECONDS + 1, 10**400, float("nan"), float("inf"), True, "300", None, [300]],
)
def test_an_interval_out_of_range_or_no_number_is_refused(seconds: object) -> None:
    with pytest.raises(ValidationError) as refused:
        SCHEDULE.validate_python({"type": "interval", "seconds": seconds})
    assert refused.value.errors()[0]["loc"] == ("interval", "seconds")
    with pytest.raises(InvalidRequest) as refusal:
        IntervalTrigger(seconds, NOON)  # type: ignore[arg-type]  # what plain SQL or an untyped caller hands in
    assert [error.field for error in refusal.value.errors] == ["schedule.seconds"]


# --- one moment, bounds ---------------------------------------------------------------------------------------


def test_a_moment_fires_once() -> None:
    trigger = AtTrigger(NOON)
    assert fires(trigger, NOON - MINUTE, 5) == [NOON]
    assert trigger.next_after(NOON) is None
    assert trigger.last_at_or_before(NOON) == NOON
    assert trigger.last_at_or_before(NOON - MINUTE) is None


@pytest.mark.parametrize(
    ("wall", "expected"),
    [
        ("2026-07-01T09:00", "2026-07-01T13:00"),
        ("2026-03-08T02:30", "2026-03-08T07:30"),  # missing: later by the jump
        ("2026-11-01T01:30", "2026-11-01T05:30"),  # twice: the first
    ],
)
def test_a_moment_without_offset_is_wall_time_in_the_zone(wall: str, expected: str) -> None:
    schedule = SCHEDULE.validate_python({"type": "at", "at": wall})
    trigger = make_trigger(schedule, zone="America/New_York", dst_policy=DstPolicy.CRON, anchor=None)
    assert trigger.next_after(utc("2026-01-01T00:00")) == utc(expected)


@pytest.mark.parametrize(
    "at", ["soon", "5", "", 1_800_000_000, True, None, "0001-01-01T00:00", "9999-12-31T23:59-05:00"]
)
def test_what_is_no_moment_is_refused(at: object) -> None:
    with pytest.raises(ValidationError) as refused:
        SCHEDULE.validate_python({"type": "at", "at": at})
    assert refused.value.errors()[0]["loc"] == ("at", "at")


def test_bounds_are_included() -> None:
    trigger = Bounded(CronTrigger("0 * * * *"), start_at=NOON, end_at=NOON + timedelta(hours=2))
    three = [NOON + timedelta(hours=hour) for hour in range(3)]
    assert fires(trigger, utc("2020-01-01T00:00"), 10) == three
    assert trigger.last_at_or_before(utc("2030-01-01T00:00")) == three[-1]
    assert trigger.last_at_or_before(NOON - MINUTE) is None
    assert trigger.count_between(utc("2020-01-01T00:00"), utc("2030-01-01T00:00"), cap=100) == 3
    assert trigger.count_between(utc("2029-01-01T00:00"), utc("2030-01-01T00:00"), cap=100) == 0


@pytest.mark.parametrize(
    ("bounds", "field"),
    [
        ({"start_at": NOON, "end_at": NOON - MINUTE}, "end_at"),
        ({"start_at": datetime.min.replace(tzinfo=UTC)}, "start_at"),
        ({"end_at": datetime.max.replace(tzinfo=UTC)}, "end_at"),
    ],
)
def test_impossible_bounds_are_refused(bounds: dict[str, datetime], field: str) -> None:
    with pytest.raises(InvalidRequest) as refusal:
        make_trigger(
            CronSchedule(expression="@daily"), zone="UTC", dst_policy=DstPolicy.CRON, anchor=None, **bounds
        )
    assert [error.field for error in refusal.value.errors] == [field]


# --- columns --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("schedule", "columns"),
    [
        (CronSchedule(expression="0 9 * * 1-5"), ("cron", "0 9 * * 1-5")),
        (CronSchedule(expression="@Daily"), ("cron", "@daily")),
        (IntervalSchedule(seconds=300), ("interval", "300")),
        (IntervalSchedule(seconds=1.5), ("interval", "1.5")),
        (AtSchedule(at=NOON), ("at", "2026-02-06T12:00:00+00:00")),
    ],
)
def test_a_schedule_survives_its_columns(schedule: Schedule, columns: tuple[str, str]) -> None:
    assert to_columns(schedule, zone="Asia/Shanghai") == columns
    assert from_columns(*columns) == schedule


def test_a_moment_without_offset_is_stored_in_utc() -> None:
    schedule = AtSchedule(at=datetime.fromisoformat("2026-02-06T20:00"))
    assert to_columns(schedule, zone="Asia/Shanghai") == ("at", "2026-02-06T12:00:00+00:00")
    assert to_utc(schedule.at, "Asia/Shanghai", field="at") == NOON


@pytest.mark.parametrize(
    ("schedule_type", "expression"),
    [
        ("interval", "often"),
        ("interval", "nan"),
        ("interval", "0"),
        ("at", "tomorrow"),
        ("at", "5"),
        ("yearly", "1"),
        ("", ""),
    ],
)
def test_columns_that_make_no_schedule_are_refused(schedule_type: str, expression: str) -> None:
    with pytest.raises(InvalidRequest) as refusal:
        from_columns(schedule_type, expression)
    assert [error.field for error in refusal.value.errors] == ["schedule"]


@pytest.mark.parametrize(
    "schedule", [{"type": "lunar"}, {}, {"type": "cron", "expression": "@daily", "zone": "UTC"}]
)
def test_unknown_types_and_extra_fields_are_refused(schedule: dict[str, str]) -> None:
    with pytest.raises(ValidationError):
        SCHEDULE.validate_python(schedule)


# --- catch-up -------------------------------------------------------------------------------------------------


def brute_force_due(trigger: ScheduleTrigger, first: datetime, now: datetime) -> list[datetime]:
    return [first, *(fire for fire in fires(trigger, first, 3_000) if fire <= now)]


DUE_TRIGGERS = st.one_of(
    st.sampled_from(["*/5 * * * *", "0 9 * * 1-5", "*/30 1-3 * * *", "15 2 * * *"]).flatmap(
        lambda expression: st.sampled_from(["America/New_York", "Asia/Shanghai"]).map(
            lambda zone: CronTrigger(expression, zone)
        )
    ),
    st.floats(60, 90_000).map(lambda seconds: IntervalTrigger(seconds, utc("2026-01-01T00:00"))),
)


@settings(deadline=None, max_examples=50)
@given(
    DUE_TRIGGERS,
    st.sampled_from([utc("2026-03-07T00:00"), utc("2026-10-31T00:00")]),
    st.timedeltas(timedelta(0), timedelta(days=2)),
    st.integers(1, 50),
)
def test_due_fires_equal_a_walk_through_all_of_them(
    trigger: ScheduleTrigger, start: datetime, downtime: timedelta, limit: int
) -> None:
    first = trigger.next_after(start)
    assert first is not None
    now = first + downtime
    walked = brute_force_due(trigger, first, now)
    due = fires_between(trigger, first, now, limit=limit)
    assert due.newest == tuple(walked[-limit:])
    assert due.latest == walked[-1]
    assert due.next_fire == trigger.next_after(now)
    assert (due.count, due.at_least) == (
        min(len(walked), COUNT_CAP),
        limit < len(walked) and len(walked) >= COUNT_CAP,
    )


def test_a_year_of_missed_seconds_is_summed_up_from_its_newest_end() -> None:
    trigger = IntervalTrigger(1, NOON)
    due = fires_between(trigger, NOON + timedelta(seconds=1), NOON + timedelta(days=365), limit=3)
    assert due.newest == tuple(NOON + timedelta(days=365, seconds=seconds) for seconds in (-2, -1, 0))
    assert (due.count, due.at_least) == (COUNT_CAP, True)
    assert due.next_fire == NOON + timedelta(days=365, seconds=1)


def test_a_year_of_missed_cron_fires_is_counted_up_to_the_cap() -> None:
    due = fires_between(CronTrigger("* * * * *"), NOON - timedelta(days=365), NOON, limit=1)
    assert (due.count, due.at_least, due.newest) == (COUNT_CAP, True, (NOON,))


def test_a_stored_fire_the_trigger_no_longer_knows_is_still_due() -> None:
    due = fires_between(CronTrigger("0 0 31 2 *"), NOON, NOON + MINUTE, limit=10)
    assert (due.count, due.newest, due.next_fire) == (1, (NOON,), None)


def test_nothing_due_is_a_programming_error() -> None:
    with pytest.raises(ValueError, match="nothing to sum up"):
        fires_between(AtTrigger(NOON), NOON, NOON - MINUTE, limit=1)


# --- jitter ---------------------------------------------------------------------------------------------------


def test_jitter_is_the_same_whenever_and_in_whatever_zone_it_is_asked() -> None:
    elsewhere = NOON.astimezone(ZoneInfo("Asia/Shanghai"))
    assert jitter_of(7, NOON, 60) == jitter_of(7, elsewhere, 60)
    assert jitter_of(7, NOON, 60) != jitter_of(8, NOON, 60)
    assert jitter_of(7, NOON, 60) != jitter_of(7, NOON + MINUTE, 60)
    assert jitter_of(7, NOON, 0) == timedelta(0)


def test_jitter_is_spread_evenly_below_its_limit() -> None:
    drawn = sorted(jitter_of(task, NOON, 10).total_seconds() for task in range(5000))
    assert drawn[0] >= 0
    assert drawn[-1] < 10
    for quarter in (2.5, 5.0, 7.5):
        assert abs(bisect_left(drawn, quarter) / 5000 - quarter / 10) < 0.03


# --- as APScheduler triggers ----------------------------------------------------------------------------------


def test_apscheduler_takes_every_trigger_and_asks_for_its_next_fire() -> None:
    scheduler = BackgroundScheduler(timezone="UTC")
    scheduler.start(paused=True)
    try:
        far = datetime(9000, 1, 1, tzinfo=UTC)
        expected = {"at": far, "cron": datetime(9000, 1, 1, tzinfo=UTC), "interval": far + timedelta(seconds=60)}
        triggers: dict[str, ScheduleTrigger] = {
            "at": AtTrigger(far),
            "cron": Bounded(CronTrigger("@yearly"), start_at=far),
            "interval": IntervalTrigger(60, far),
        }
        for name, trigger in triggers.items():
            job = scheduler.add_job(print, trigger)
            assert job.next_run_time == expected[name]
    finally:
        scheduler.shutdown()


def test_the_first_answer_to_apscheduler_may_be_the_present_the_next_is_after_the_previous() -> None:
    trigger = CronTrigger("* * * * *")
    assert trigger.get_next_fire_time(None, NOON) == NOON
    assert trigger.get_next_fire_time(NOON, NOON + timedelta(hours=1)) == NOON + MINUTE


@pytest.mark.parametrize(
    "trigger", [CronTrigger("@daily", "Europe/Berlin"), IntervalTrigger(5, NOON), Bounded(AtTrigger(NOON), NOON)]
)
def test_triggers_are_values_that_survive_a_pickle(trigger: ScheduleTrigger) -> None:
    copy = pickle.loads(pickle.dumps(trigger))
    assert copy == trigger
    assert hash(copy) == hash(trigger)
