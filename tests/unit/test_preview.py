"""What a schedule says about itself before it runs."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.core.errors import InvalidRequest
from app.scheduler.preview import MAX_COUNT, Preview, preview
from app.scheduler.schedules import AtSchedule, CronSchedule, DstPolicy, IntervalSchedule, Schedule

JANUARY = datetime(2026, 1, 10, 12, tzinfo=UTC)


def previewed(
    schedule: Schedule | str, zone: str = "UTC", policy: DstPolicy = DstPolicy.CRON, **options: Any
) -> Preview:
    value = CronSchedule(expression=schedule) if isinstance(schedule, str) else schedule
    return preview(value, zone=zone, dst_policy=policy, **{"after": JANUARY, **options})


def at(text: str) -> AtSchedule:
    return AtSchedule(at=datetime.fromisoformat(text))


# --- fires ----------------------------------------------------------------------------------------------------


def test_fires_carry_the_offset_the_zone_has_at_that_moment() -> None:
    shown = previewed("0 9 * * *", "America/New_York", after=datetime(2026, 3, 7, tzinfo=UTC), count=3)
    assert shown.as_dict()["fires"] == [
        "2026-03-07T09:00:00-05:00",
        "2026-03-08T09:00:00-04:00",
        "2026-03-09T09:00:00-04:00",
    ]


def test_a_preview_is_plain_json() -> None:
    answer = previewed("0 9 * * 1-5", "Asia/Shanghai", count=1).as_dict()
    assert json.loads(json.dumps(answer)) == {
        "fires": ["2026-01-12T09:00:00+08:00"],
        "description": "At 09:00, Monday through Friday",
        "warnings": [],
    }


def test_fires_are_as_many_as_asked_for_and_stay_within_the_bounds() -> None:
    assert len(previewed("* * * * *", count=75).fires) == 75
    end = JANUARY + timedelta(minutes=3)
    bounded = previewed("* * * * *", start_at=JANUARY + timedelta(minutes=2), end_at=end)
    assert bounded.fires == [end - timedelta(minutes=1), end]


def test_an_interval_counts_from_the_present_unless_an_anchor_is_given() -> None:
    every_hour = IntervalSchedule(seconds=3600)
    assert previewed(every_hour, count=1).fires == [JANUARY + timedelta(hours=1)]
    anchored = previewed(every_hour, count=1, anchor=JANUARY - timedelta(minutes=20))
    assert anchored.fires == [JANUARY + timedelta(minutes=40)]


def test_after_without_an_offset_is_wall_time_in_the_zone() -> None:
    shown = previewed("0 9 * * *", "Asia/Shanghai", after=datetime.fromisoformat("2026-01-10T08:59"), count=1)
    assert shown.as_dict()["fires"] == ["2026-01-10T09:00:00+08:00"]


@pytest.mark.parametrize("count", [0, -1, MAX_COUNT + 1])
def test_a_count_out_of_range_is_refused(count: int) -> None:
    with pytest.raises(InvalidRequest, match="count"):
        previewed("* * * * *", count=count)


def test_an_unknown_zone_is_refused_naming_timezone() -> None:
    with pytest.raises(InvalidRequest, match="timezone"):
        previewed("* * * * *", "Mars/Base")


# --- descriptions ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("schedule", "sentence"),
    [
        ("* * * * *", "Every minute"),
        ("@daily", "At 00:00"),
        ("30 14 * * 0", "At 14:30, only on Sunday"),
        ("30 14 * * 7", "At 14:30, only on Sunday"),
        ("0 0 1 * 1", "At 00:00, on day 1 of the month, or on Monday"),
        ("0 0 */2 * 1", "At 00:00, every 2 days, and only on Monday"),
        ("0 0 1 * */2", "At 00:00, on day 1 of the month, and only every 2 days of the week"),
        ("0 0 L * *", "At 00:00, on the last day of the month"),
        ("*/30 * * * * *", "Every 30 seconds"),
        ("0 0 9 * * *", "At 09:00"),
        ("*/90 * * * *", "Every hour"),
        ("0 */5,7 * * *", "Whenever the clock matches 0 */5,7 * * *"),
        (IntervalSchedule(seconds=60), "Every minute"),
        (IntervalSchedule(seconds=5400.5), "Every 1 hour 30 minutes 0.5 seconds"),
        (IntervalSchedule(seconds=7 * 86_400), "Every 7 days"),
        (at("2026-02-01T01:00:00+00:00"), "Once, on 2026-02-01 at 01:00:00 (UTC)"),
    ],
)
def test_a_schedule_is_described_in_a_sentence(schedule: Schedule | str, sentence: str) -> None:
    assert previewed(schedule).description == sentence


@settings(deadline=None)
@given(
    st.lists(
        st.sampled_from(
            [
                "*",
                "1",
                "*/7",
                "*/90",
                "1-5",
                "2/3",
                "1,2,5",
                "*,3",
                "*/2,3",
                "1-3,5-7/2",
                "L",
                "5L",
                "1#2",
                "JAN",
                "MON",
            ]
        ),
        min_size=5,
        max_size=6,
    )
)
def test_every_valid_expression_has_a_preview(fields: list[str]) -> None:
    try:
        schedule = CronSchedule(expression=" ".join(fields))
    except ValueError:
        return
    shown = preview(schedule, zone="Europe/Berlin", dst_policy=DstPolicy.CRON, after=JANUARY, count=1)
    assert shown.description
    assert bool(shown.fires) != any(warning.startswith("never fires") for warning in shown.warnings)


# --- warnings -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("schedule", "options", "reason"),
    [
        ("0 0 31 2 *", {}, "no date matches"),
        (at("2020-01-01T00:00:00+00:00"), {}, "2020-01-01T00:00:00+00:00 is not after"),
        ("0 0 1 3 *", {"end_at": JANUARY + timedelta(days=1)}, "the next fire would be 2026-03-01T00:00:00+00:00"),
        (
            IntervalSchedule(seconds=600),
            {"end_at": JANUARY + timedelta(seconds=5), "anchor": JANUARY - timedelta(seconds=60)},
            "the next fire would be 2026-01-10T12:09:00+00:00, after end_at 2026-01-10T12:00:05+00:00",
        ),
    ],
)
def test_a_schedule_that_never_fires_says_why(
    schedule: Schedule | str, options: dict[str, Any], reason: str
) -> None:
    shown = previewed(schedule, **options)
    assert shown.fires == []
    assert [warning for warning in shown.warnings if warning.startswith("never fires") and reason in warning]


def warnings_of(schedule: Schedule | str, kind: str, **options: Any) -> list[str]:
    return [warning for warning in previewed(schedule, **options).warnings if kind in warning]


@pytest.mark.parametrize(
    ("expression", "policy", "outcome"),
    [
        (
            "30 2 * * *",
            DstPolicy.CRON,
            "2026-03-08 02:30 does not exist in America/New_York (clocks go forward) and fires at 2026-03-08T03:",
        ),
        (
            "30 2 * * *",
            DstPolicy.SKIP,
            "2026-03-08 02:30 does not exist in America/New_York (clocks go forward) and is skipped",
        ),
        (
            "*/15 2 * * *",
            DstPolicy.CRON,
            "2026-03-08 02:00 does not exist in America/New_York (clocks go forward) and is skipped",
        ),
    ],
)
def test_a_time_in_a_dst_gap_names_the_next_date(expression: str, policy: DstPolicy, outcome: str) -> None:
    (warning,) = warnings_of(expression, "DST gap", zone="America/New_York", policy=policy)
    assert outcome in warning


@pytest.mark.parametrize(
    ("expression", "policy", "outcome"),
    [
        (
            "30 1 * * *",
            DstPolicy.CRON,
            "2026-11-01 01:30 happens twice in America/New_York (clocks go back) and fires only the first time",
        ),
        ("*/15 1 * * *", DstPolicy.CRON, "and fires both times"),
        ("*/15 * * * *", DstPolicy.SKIP, "and fires only the first time"),
    ],
)
def test_a_time_in_a_dst_fold_names_the_next_date(expression: str, policy: DstPolicy, outcome: str) -> None:
    (warning,) = warnings_of(expression, "DST fold", zone="America/New_York", policy=policy)
    assert outcome in warning


@pytest.mark.parametrize(
    ("expression", "zone", "options"),
    [
        ("30 2 * * *", "Asia/Shanghai", {}),
        ("30 2 * * *", "UTC", {}),
        ("0 9 * * *", "America/New_York", {}),
        ("*/5 * * * *", "America/New_York", {}),
        ("30 2 * 7 *", "America/New_York", {}),
        ("30 2 * * *", "America/New_York", {"end_at": JANUARY + timedelta(days=30)}),
        (
            "30 2 * * *",
            "America/New_York",
            {"start_at": datetime(2026, 3, 9, tzinfo=UTC), "end_at": datetime(2027, 1, 1, tzinfo=UTC)},
        ),
    ],
)
def test_a_schedule_no_change_of_clocks_touches_has_no_dst_warning(
    expression: str, zone: str, options: dict[str, Any]
) -> None:
    assert warnings_of(expression, "DST", zone=zone, **options) == []


def test_a_half_hour_gap_is_found() -> None:
    (warning,) = warnings_of("10 2 * * *", "DST gap", zone="Australia/Lord_Howe")
    assert "2026-10-04 02:10 does not exist" in warning
    assert "fires at 2026-10-04T02:30:00+11:00 instead" in warning


def test_a_one_off_wall_time_that_is_missing_or_repeated_is_named() -> None:
    (missing,) = previewed(at("2026-03-08T02:30:00"), "America/New_York").warnings
    assert "does not exist" in missing
    assert "2026-03-08T03:30:00-04:00" in missing
    (repeated,) = previewed(at("2026-11-01T01:30:00"), "America/New_York").warnings
    assert "happens twice" in repeated
    assert previewed(at("2026-11-01T01:30:00-05:00"), "America/New_York").warnings == []


@pytest.mark.parametrize(
    ("schedule", "options", "sentence"),
    [
        (
            "* * * * *",
            {"expected_duration_seconds": 90},
            "1 minute between two fires, but a run takes about 1 minute 30 seconds",
        ),
        ("0,1 9 * * *", {"expected_duration_seconds": 90}, "1 minute between two fires"),
        (IntervalSchedule(seconds=300), {"expected_duration_seconds": 301}, "5 minutes between two fires"),
        (
            IntervalSchedule(seconds=300),
            {"expected_duration_seconds": 100, "jitter_seconds": 250},
            "as close as 50 seconds",
        ),
        (
            IntervalSchedule(seconds=60),
            {"jitter_seconds": 90},
            "jitter of 1 minute 30 seconds exceeds the 1 minute",
        ),
    ],
)
def test_a_schedule_faster_than_its_runs_is_named(
    schedule: Schedule | str, options: dict[str, Any], sentence: str
) -> None:
    (warning,) = previewed(schedule, **options).warnings
    assert sentence in warning


def test_the_shortest_gap_is_found_even_when_one_fire_is_shown() -> None:
    assert warnings_of("0,1 9 * * *", "more often than it can finish", count=1, expected_duration_seconds=90)


def test_a_schedule_slower_than_its_runs_is_not_named() -> None:
    assert previewed("* * * * *", expected_duration_seconds=60, jitter_seconds=0).warnings == []


@pytest.mark.parametrize("expression", ["0 0 13 * 5", "0 0 1-7 * MON"])
def test_day_of_month_or_day_of_week_is_called_a_surprise(expression: str) -> None:
    (warning,) = previewed(expression).warnings
    assert "fires when either one matches" in warning


@pytest.mark.parametrize("expression", ["0 0 13 * *", "0 0 * * 5", "0 0 * * 1#1"])
def test_one_day_field_is_no_surprise(expression: str) -> None:
    assert previewed(expression).warnings == []


@pytest.mark.parametrize(
    ("expression", "months"),
    [
        ("0 0 31 * *", "day-of-month 31 does not exist in February, April, June, September, November:"),
        ("0 0 30 * *", "day-of-month 30 does not exist in February:"),
        ("0 0 29 2 *", "day-of-month 29 does not exist in February, except in leap years:"),
        ("0 0 15,31 4-7 *", "day-of-month 31 does not exist in April, June:"),
    ],
)
def test_days_that_short_months_lack_are_named(expression: str, months: str) -> None:
    (warning,) = warnings_of(expression, "does not exist in")
    assert warning.startswith(months)


@pytest.mark.parametrize("expression", ["0 0 28 * *", "0 0 28-31 * *", "0 0 L * *", "0 0 31 1,3 *", "0 0 * * *"])
def test_days_that_every_selected_month_has_are_not_named(expression: str) -> None:
    assert warnings_of(expression, "does not exist in") == []


@pytest.mark.parametrize(
    ("expression", "sentence"),
    [
        ("*/7 * * * *", "*/7 in minute starts over"),
        ("0 */5 * * *", "*/5 in hour starts over"),
        ("0 0 */2 * *", "*/2 in day-of-month starts over"),
        ("0 0 * * */2", "*/2 in day-of-week starts over"),
        ("*/90 * * * *", "*/90 in minute is wider than the field"),
        ("*/45 * * * * *", "*/45 in second starts over"),
    ],
)
def test_a_step_that_does_not_divide_its_field_is_named(expression: str, sentence: str) -> None:
    (warning,) = previewed(expression).warnings
    assert warning.startswith(sentence)


@pytest.mark.parametrize(
    "expression", ["*/15 * * * *", "0 */6 * * *", "0 0 1 */3 *", "*/1 * * * *", "*/30 * * * * *"]
)
def test_a_step_that_divides_its_field_is_not_named(expression: str) -> None:
    assert previewed(expression).warnings == []


# --- in Chinese -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("schedule", "sentence"),
    [
        ("0 9 * * 1-5", "在 09:00, 星期一 到 星期五"),
        ("*/15 * * * *", "每 15 分钟"),
        ("0 0 1 2 *", "2月"),
        (IntervalSchedule(seconds=5400), "每 1 小时 30 分钟"),
        (at("2030-01-07T09:00:00+00:00"), "一次，2030-01-07 09:00:00（UTC）"),
        ("0 0 */2 * 1", "且仅限星期一"),
    ],
)
def test_a_schedule_is_described_in_chinese(schedule: Schedule | str, sentence: str) -> None:
    assert sentence in previewed(schedule, language="zh").description


@pytest.mark.parametrize(
    ("schedule", "zone", "options"),
    [
        ("0 0 31 2 *", "UTC", {}),
        (at("2020-01-01T00:00:00+00:00"), "UTC", {}),
        ("0 0 13 * 5", "UTC", {}),
        ("0 0 29 * *", "UTC", {}),
        ("*/7 * * * *", "UTC", {}),
        ("30 2 * * *", "Europe/Berlin", {}),
        ("* * * * *", "UTC", {"expected_duration_seconds": 90}),
        ("* * * * *", "UTC", {"expected_duration_seconds": 50, "jitter_seconds": 20}),
        ("* * * * *", "UTC", {"jitter_seconds": 70}),
        (at("2026-03-29T02:30:00"), "Europe/Berlin", {}),
        (at("2026-10-25T02:30:00"), "Europe/Berlin", {}),
    ],
)
def test_every_warning_is_there_in_both_languages(
    schedule: Schedule | str, zone: str, options: dict[str, Any]
) -> None:
    english = previewed(schedule, zone, **options).warnings
    chinese = previewed(schedule, zone, language="zh", **options).warnings
    assert english
    assert len(english) == len(chinese)
    for one, other in zip(english, chinese, strict=True):
        assert one.isascii(), one
        assert sum("一" <= character <= "鿿" for character in other) > 8, other
