"""Windows and calendars in wall time: over midnight, over changes of clocks, on holidays."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, date, datetime, timedelta
from functools import partial
from zoneinfo import ZoneInfo

import holidays
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from app.core.language import Language
from app.scheduler.preview import preview
from app.scheduler.schedules import CronSchedule, DstPolicy
from app.scheduler.triggers import CronTrigger
from app.scheduler.windows import Calendar, ClosedPolicy, Hours, RunWindow, Weekday, next_run, public_holidays

BERLIN = "Europe/Berlin"
MONDAY = datetime(2026, 3, 2, tzinfo=UTC)
clocks = st.builds(lambda hour, minute: f"{hour:02}:{minute:02}", st.integers(0, 23), st.sampled_from([0, 15, 30]))
windows = st.builds(
    RunWindow, opens=clocks, closes=clocks, days=st.lists(st.sampled_from(Weekday), max_size=3).map(tuple)
)
moments = st.integers(0, 2 * 365 * 24 * 60).map(
    lambda minutes: datetime(2026, 1, 1, tzinfo=UTC) + timedelta(minutes=minutes)
)


def berlin(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(BERLIN))


@given(windows, st.lists(st.dates(date(2026, 1, 1), date(2027, 12, 31)), max_size=5), moments)
def test_the_next_open_moment_is_open_and_everything_before_it_is_closed(
    window: RunWindow, closed: list[date], moment: datetime
) -> None:
    hours = Hours(window, Calendar(closed=tuple(closed)), BERLIN)
    opens = hours.next_open(moment)
    assert opens is not None
    assert hours.is_open(opens)
    if opens > moment:
        assert not hours.is_open(opens - timedelta(microseconds=1))
        steps = min(int((opens - moment) / timedelta(minutes=15)), 300)
        assert not any(hours.is_open(moment + step * timedelta(minutes=15)) for step in range(steps))


@given(
    windows,
    st.lists(st.dates(date(2026, 1, 1), date(2027, 12, 31)), max_size=5),
    moments,
    st.integers(1, 86_400),
)
def test_it_stays_open_for_as_long_as_it_says_and_then_closes(
    window: RunWindow, closed: list[date], moment: datetime, seconds: int
) -> None:
    hours = Hours(window, Calendar(closed=tuple(closed)), BERLIN)
    opens = hours.next_open(moment)
    assert opens is not None
    stays = hours.open_for(opens, seconds)
    assert 0 < stays <= seconds
    end = opens + timedelta(seconds=stays)
    assert all(hours.is_open(opens + step * (end - opens) / 50) for step in range(50))
    assert hours.is_open(end - timedelta(microseconds=1))
    assert stays == seconds or not hours.is_open(end)


@pytest.mark.parametrize(
    ("moment", "is_open"),
    [
        ("2026-03-02T08:59:59", False),
        ("2026-03-02T09:00", True),
        ("2026-03-02T17:59:59", True),
        ("2026-03-02T18:00", False),
        ("2026-03-01T12:00", False),  # a Sunday
    ],
)
def test_a_window_opens_and_closes_on_its_days(moment: str, is_open: bool) -> None:
    week = tuple(Weekday)[:5]
    assert (
        Hours(RunWindow(opens="09:00", closes="18:00", days=week), None, BERLIN).is_open(berlin(moment)) is is_open
    )


@pytest.mark.parametrize(
    ("moment", "is_open"),
    [
        ("2026-03-06T21:59", False),
        ("2026-03-06T22:00", True),  # a Friday
        ("2026-03-07T05:59", True),  # Saturday morning is still Friday's window
        ("2026-03-07T06:00", False),
        ("2026-03-07T23:00", False),
        ("2026-03-06T03:00", False),  # that would be Thursday's
    ],
)
def test_a_window_over_midnight_belongs_to_the_day_it_opens_on(moment: str, is_open: bool) -> None:
    hours = Hours(RunWindow(opens="22:00", closes="06:00", days=(Weekday.FRI,)), None, BERLIN)
    assert hours.is_open(berlin(moment)) is is_open


def test_a_window_that_begins_in_a_gap_opens_at_the_jump_and_a_repeated_hour_is_in_it_both_times() -> None:
    hours = Hours(RunWindow(opens="02:30", closes="04:00"), None, BERLIN)
    assert hours.next_open(berlin("2026-03-29T00:00")) == datetime(2026, 3, 29, 1, 0, tzinfo=UTC)  # 03:00 CEST
    first = datetime(2026, 10, 25, 0, 30, tzinfo=UTC)  # 02:30 CEST
    assert hours.next_open(berlin("2026-10-25T00:00")) == first
    assert hours.is_open(first + timedelta(hours=1))  # 02:30 CET
    assert not hours.is_open(datetime(2026, 10, 25, 3, 0, tzinfo=UTC))  # 04:00 CET


def test_a_window_is_what_the_clock_shows_also_on_the_day_of_a_change() -> None:
    gap = Hours(RunWindow(opens="02:30", closes="03:15"), None, BERLIN)
    assert gap.is_open(berlin("2026-03-29T03:05"))
    assert not gap.is_open(berlin("2026-03-29T03:15"))
    fold = Hours(RunWindow(opens="01:00", closes="02:30"), None, BERLIN)
    assert not fold.is_open(datetime(2026, 10, 25, 0, 30, tzinfo=UTC))  # 02:30 CEST
    again = datetime(2026, 10, 25, 1, 0, tzinfo=UTC)  # 02:00 CET
    assert fold.next_open(datetime(2026, 10, 25, 0, 30, tzinfo=UTC)) == again
    assert not fold.is_open(again + timedelta(minutes=30))


def test_a_closed_day_is_a_date_also_where_the_window_goes_over_midnight() -> None:
    hours = Hours(RunWindow(opens="22:00", closes="06:00"), Calendar(closed=(date(2026, 5, 1),)), BERLIN)
    assert hours.is_open(berlin("2026-04-30T23:59"))
    assert not hours.is_open(berlin("2026-05-01T00:00"))
    assert not hours.is_open(berlin("2026-05-01T23:59"))
    assert hours.next_open(berlin("2026-05-01T00:00")) == berlin("2026-05-02T00:00")
    friday = Hours(RunWindow(opens="22:00", closes="06:00", days=(Weekday.FRI,)), hours.calendar, BERLIN)
    assert friday.is_open(berlin("2026-05-02T00:30"))  # the night of Friday, 1 May


def filter_list(keep: Callable[[date], bool], days: list[date]) -> list[date]:
    return list(filter(keep, days))


def test_threads_that_ask_for_the_same_holidays_all_get_the_right_ones() -> None:
    truth = {year: set(holidays.country_holidays("CN", years=year)) for year in (2024, 2025, 2026)}
    days = [date(year, 1, 1) + day * timedelta(days=1) for year in truth for day in range(365)]
    before = sys.getswitchinterval()
    sys.setswitchinterval(0.00001)
    try:
        for shift in range(30):
            public_holidays.cache_clear()
            calendar = Calendar(country="CN")
            turned = [days[(start := (shift + part) * 37 % len(days)) :] + days[:start] for part in range(4)]
            with ThreadPoolExecutor(4) as threads:
                found = threads.map(partial(filter_list, calendar.is_closed), turned)
            for closed in (*found, filter_list(calendar.is_closed, days)):
                assert set(closed) == {day for day in days if day in truth[day.year]}
    finally:
        sys.setswitchinterval(before)


def test_equal_ends_are_a_whole_day() -> None:
    hours = Hours(RunWindow(days=(Weekday.SAT,)), None, BERLIN)
    assert hours.is_open(berlin("2026-03-07T00:00"))
    assert hours.is_open(berlin("2026-03-07T23:59"))
    assert not hours.is_open(berlin("2026-03-08T00:00"))


def test_holidays_of_a_country_and_its_parts_are_closed_and_dates_of_its_own_win() -> None:
    china = Hours(None, Calendar(country="cn", open=(date(2026, 10, 2),)), "Asia/Shanghai")
    at = ZoneInfo("Asia/Shanghai")
    assert not china.is_open(datetime(2026, 10, 1, 9, tzinfo=at))
    assert china.is_open(datetime(2026, 10, 2, 9, tzinfo=at))
    assert china.is_open(datetime(2026, 9, 30, 23, 59, tzinfo=at))
    epiphany = berlin("2026-01-06T12:00")
    assert not Hours(None, Calendar(country="DE", subdivision="BY"), BERLIN).is_open(epiphany)
    assert Hours(None, Calendar(country="DE"), BERLIN).is_open(epiphany)


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"country": "XX"}, "Country XX not available"),
        ({"country": "DE", "subdivision": "ZZ"}, "does not have subdivision ZZ"),
        ({"subdivision": "BY"}, "subdivision needs a country"),
        ({"closed": ["31.12.2026"]}, "closed"),
    ],
)
def test_a_calendar_that_does_not_exist_is_refused(values: dict, sentence: str) -> None:
    with pytest.raises(ValidationError, match=sentence):
        Calendar(**values)


def preview_of(policy: ClosedPolicy, hours: Hours, language: Language = "en", expression: str = "0 12 * * *"):
    return preview(
        CronSchedule(expression=expression),
        zone=BERLIN,
        dst_policy=DstPolicy.CRON,
        after=berlin("2026-03-06T13:00"),
        count=3,
        hours=hours,
        closed_policy=policy,
        language=language,
    )


def test_a_preview_leaves_out_closed_fires_or_moves_them_and_says_so() -> None:
    hours = Hours(RunWindow(opens="09:00", closes="18:00", days=tuple(Weekday)[:5]), None, BERLIN)
    skipped = preview_of(ClosedPolicy.SKIP, hours)
    assert [f"{fire:%a %H:%M}" for fire in skipped.fires] == ["Mon 12:00", "Tue 12:00", "Wed 12:00"]
    assert "are at closed times and are skipped" in skipped.warnings[0]
    deferred = preview_of(ClosedPolicy.DEFER, hours)
    assert [f"{fire:%a %H:%M}" for fire in deferred.fires] == ["Mon 09:00", "Mon 09:00", "Mon 12:00"]


def test_a_schedule_that_never_meets_its_window_is_warned_about() -> None:
    hours = Hours(RunWindow(opens="01:00", closes="02:00"), None, BERLIN)
    found = preview_of(ClosedPolicy.SKIP, hours)
    assert found.fires == []
    assert found.warnings[0].startswith("never fires within its run window and calendar")
    assert "永远不会触发" in preview_of(ClosedPolicy.SKIP, hours, "zh").warnings[0]


def test_a_schedule_of_every_second_is_previewed_up_to_its_next_opening() -> None:
    hours = Hours(RunWindow(opens="22:00", closes="06:00"), None, BERLIN)
    found = preview_of(ClosedPolicy.SKIP, hours, expression="* * * * * *")
    assert [f"{fire:%a %H:%M:%S}" for fire in found.fires] == ["Fri 22:00:00", "Fri 22:00:01", "Fri 22:00:02"]
    assert not any(warning.startswith("never") for warning in found.warnings)


def test_two_hundred_schedules_that_never_meet_their_hours_are_told_in_seconds() -> None:
    asked = time.process_time()
    for number in range(200):
        zone = (BERLIN, "Asia/Shanghai", "America/New_York")[number % 3]
        trigger = CronTrigger(f"{number % 60} {14 + number // 60} * * *", zone, DstPolicy.CRON)
        hours = Hours(RunWindow(opens="13:00", closes="13:01", days=(Weekday.MON,)), Calendar(country="CN"), zone)
        assert next_run(trigger, hours, ClosedPolicy.SKIP, trigger.next_after(MONDAY)) is None
    assert time.process_time() - asked < 10  # it took forty
