"""Verdicts, quiet hours and conditions of alerts. Pure: no database."""

from __future__ import annotations

import logging
from datetime import UTC, datetime, time, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.core.errors import InvalidRequest
from app.scheduler.alerting.apprise_channel import ChannelRefused, check_url, masked, send, without_secrets
from app.scheduler.alerting.conditions import (
    Breach,
    Slow,
    Subject,
    failures_in_a_row,
    p99_of,
    slow_after,
)
from app.scheduler.alerting.messages import compose, sentence
from app.scheduler.alerting.quiet import QuietHours
from app.scheduler.alerting.verdicts import GoesOn, IsOver, Manners, Notice, OpenAlert, Opens, verdicts

NOW = datetime(2030, 1, 7, 12, tzinfo=UTC)
SUBJECT = Subject.task(7, "digest")
BREACH = {SUBJECT.key: Breach(SUBJECT, {"times": 3})}

# ---------------------------------------------------------------- quiet hours

ZONES = st.sampled_from(
    ["UTC", "Asia/Shanghai", "Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "America/St_Johns"]
)
TIMES = st.times(max_value=time(23, 59)).map(lambda moment: moment.replace(second=0, microsecond=0))
HOURS = st.builds(QuietHours, TIMES, TIMES, ZONES).filter(lambda hours: hours.start != hours.end)
# Half of them around the changes of clocks.
MOMENTS = st.datetimes(datetime(2029, 1, 1), datetime(2031, 1, 1), timezones=st.just(UTC)) | st.builds(  # noqa: DTZ001
    lambda day, minutes: day + timedelta(minutes=minutes),
    st.sampled_from(
        [
            datetime(2030, 3, 31, tzinfo=UTC),
            datetime(2030, 10, 27, tzinfo=UTC),
            datetime(2030, 3, 10, 4, tzinfo=UTC),
            datetime(2030, 11, 3, 4, tzinfo=UTC),
            datetime(2030, 4, 6, 14, tzinfo=UTC),
            datetime(2030, 10, 5, 14, tzinfo=UTC),
        ]
    ),
    st.integers(-600, 600),
)


@settings(max_examples=400, deadline=None)
@given(HOURS, MOMENTS)
def test_quiet_hours_end_at_the_first_moment_that_is_not_quiet(hours: QuietHours, moment: datetime) -> None:
    end = hours.over_at(moment)
    assert not hours.covers(end)
    if not hours.covers(moment):
        assert end == moment
        return
    assert moment < end <= moment + timedelta(hours=49)
    minute = moment.replace(second=0, microsecond=0) + timedelta(minutes=1)
    while minute < end:
        assert hours.covers(minute), f"{minute} is before the end, and not quiet"
        minute += timedelta(minutes=1)


@pytest.mark.parametrize(
    ("moment", "end"),
    [
        # The clocks of Berlin jump from 02:00 to 03:00: a span that ends at 02:30 ends with the jump.
        ("2030-03-31T00:30:00+00:00", "2030-03-31T01:00:00+00:00"),
        # They show 02:15 twice: quiet both times, and both times until 02:30.
        ("2030-10-27T00:15:00+00:00", "2030-10-27T00:30:00+00:00"),
        ("2030-10-27T01:15:00+00:00", "2030-10-27T01:30:00+00:00"),
        ("2030-10-27T00:45:00+00:00", "2030-10-27T00:45:00+00:00"),
    ],
)
def test_quiet_hours_where_the_clocks_change(moment: str, end: str) -> None:
    hours = QuietHours(time(22), time(2, 30), "Europe/Berlin")
    assert hours.over_at(datetime.fromisoformat(moment)) == datetime.fromisoformat(end)


# ---------------------------------------------------------------- verdicts


def alert(notices: int = 1, minutes_ago: float = 0, *, acknowledged: bool = False) -> dict[str, OpenAlert]:
    told = NOW - timedelta(minutes=minutes_ago) if notices else None
    return {SUBJECT.key: OpenAlert(5, acknowledged, told, notices)}


def test_an_incident_is_told_once() -> None:
    assert verdicts({}, BREACH, Manners(), NOW) == [Opens(BREACH[SUBJECT.key], Notice.OPENED)]
    (goes_on,) = verdicts(alert(minutes_ago=10_000), BREACH, Manners(), NOW)
    assert isinstance(goes_on, GoesOn)
    assert goes_on.notice is None


def test_reminders_come_after_their_interval_and_not_to_who_knows() -> None:
    manners = Manners(remind_seconds=3600)

    def notice(minutes_ago: float, *, acknowledged: bool = False) -> Notice | None:
        (goes_on,) = verdicts(alert(1, minutes_ago, acknowledged=acknowledged), BREACH, manners, NOW)
        assert isinstance(goes_on, GoesOn)
        return goes_on.notice

    assert notice(59) is None
    assert notice(60) is Notice.REMINDER
    assert notice(60, acknowledged=True) is None


def test_a_recovery_is_told_to_whoever_was_told() -> None:
    assert verdicts(alert(1), {}, Manners(), NOW) == [IsOver(alert(1)[SUBJECT.key], NOW)]
    assert verdicts(alert(0), {}, Manners(), NOW) == [IsOver(alert(0)[SUBJECT.key], None)]
    assert verdicts(alert(1), {}, Manners(notify_recovery=False), NOW) == [IsOver(alert(1)[SUBJECT.key], None)]


def test_a_recovery_in_quiet_hours_is_told_at_their_end() -> None:
    quiet = QuietHours(time(11), time(14), "UTC")
    (over,) = verdicts(alert(1), {}, Manners(quiet=quiet), NOW)
    assert over == IsOver(alert(1)[SUBJECT.key], NOW.replace(hour=14))


@settings(max_examples=300, deadline=None)
@given(
    HOURS,
    st.booleans(),
    st.none() | st.sampled_from([600.0, 3600.0]),
    st.lists(st.booleans(), min_size=1, max_size=400),
    st.none() | st.integers(0, 300),
)
def test_the_life_of_alerts_keeps_its_promises(
    quiet: QuietHours, critical: bool, remind: float | None, breached: list[bool], silent_minutes: int | None
) -> None:
    """Any series of checks, ten minutes apart: no notice when it is held, one per incident, none twice."""
    manners = Manners(
        is_critical=critical,
        remind_seconds=remind,
        quiet=quiet,
        silenced_until=NOW + timedelta(minutes=silent_minutes) if silent_minutes is not None else None,
    )
    current: dict[str, OpenAlert] = {}
    told: list[Notice] = []
    for number, is_breached in enumerate(breached):
        now = NOW + timedelta(minutes=10 * number)
        (*found,) = verdicts(current, BREACH if is_breached else {}, manners, now)
        assert len(found) == (is_breached or bool(current))
        for verdict in found:
            notice = None if isinstance(verdict, IsOver) else verdict.notice
            if notice is not None:
                assert not manners.is_held(now)
                assert critical or not quiet.covers(now)
                told.append(notice)
            if isinstance(verdict, IsOver):
                if verdict.notice_at is not None:
                    assert current[SUBJECT.key].notices > 0
                    assert verdict.notice_at >= now
                    assert critical or not quiet.covers(verdict.notice_at)
                current = {}
                told.clear()
            else:
                before = current[SUBJECT.key] if current else OpenAlert(5, False, None, 0)
                counted = before.notices + (notice is not None)
                current = {SUBJECT.key: OpenAlert(5, False, now if notice else before.last_notified_at, counted)}
        assert told.count(Notice.OPENED) <= 1
        assert told[:1] in ([], [Notice.OPENED])
        if remind is None:
            assert Notice.REMINDER not in told
        if current and not manners.is_held(now):
            assert told, "an open alert is told as soon as it may be"


# ---------------------------------------------------------------- conditions


def test_failures_in_a_row_end_at_a_success_and_leave_out_what_did_not_run() -> None:
    assert failures_in_a_row(["failed", "cancelled", "failed", "success", "failed"]) == 2
    assert failures_in_a_row(["success", "failed"]) == 0
    assert failures_in_a_row([]) == 0


@given(st.lists(st.floats(0, 1e6), min_size=1, max_size=500))
def test_the_p99_is_what_99_of_100_did_not_exceed(durations: list[float]) -> None:
    limit = p99_of(durations)
    assert limit in durations
    assert sum(duration <= limit for duration in durations) >= 0.99 * len(durations)


def test_nothing_is_slow_before_its_floor_or_while_little_is_known() -> None:
    condition = Slow(factor=3, at_least_seconds=10, least_runs=5)
    assert slow_after(condition, [1.0] * 4) is None
    assert slow_after(condition, [1.0] * 5) == 10
    assert slow_after(condition, [100.0] * 5) == 300


# ---------------------------------------------------------------- what is said


@pytest.mark.parametrize(
    ("kind", "details", "english", "chinese"),
    [
        ("failed", {"times": 3, "error": "Bad: luck"}, "failed 3 times in a row: Bad: luck", "连续失败 3 次"),
        ("late", {"late_seconds": 600.4}, "late by 10 minutes", "晚了 10 分钟"),
        (
            "slow",
            {"running_seconds": 90, "p99_seconds": 2.04, "execution_id": 4},
            "running for 1 minute",
            "执行 4",
        ),
        ("no_success", {"silent_seconds": 86_400}, "not succeeded for 1 day", "1 天 没有成功过"),
        ("parked", {"count": 2, "reason": "unknown_executor"}, "2 executions of digest are parked", "被搁置"),
        ("failed", {}, "failed ? times", "连续失败 ? 次"),
    ],
)
def test_every_kind_says_what_is_wrong(kind: str, details: dict[str, object], english: str, chinese: str) -> None:
    said = sentence(kind, "digest", details)
    assert english in said.en
    assert chinese in said.zh


@pytest.mark.parametrize("notice", list(Notice))
def test_every_notice_has_its_words(notice: Notice) -> None:
    said = sentence("failed", "digest", {"times": 3})
    texts = [
        compose(
            notice=notice,
            severity="critical",
            said=said,
            rule_name="r",
            opened_at=NOW,
            now=NOW + timedelta(hours=2),
            language=language,
        )
        for language in ("en", "zh")
    ]
    assert all(text.title and text.body and "\n" not in text.title for text in texts)
    assert texts[0] != texts[1]
    if notice in (Notice.REMINDER, Notice.RESOLVED):
        assert "2 hours" in texts[0].body


class Overheard(logging.Handler):
    """What reaches the handlers of an application. pytest's own would not do: it also hears loggers that keep
    what they log to themselves."""

    def __init__(self) -> None:
        super().__init__(logging.DEBUG)
        self.text = ""

    def emit(self, record: logging.LogRecord) -> None:
        self.text += record.getMessage() + "\n"


@pytest.mark.parametrize("url", ["nonsense://s3cret-key-0815", "json://", "slack://s3cret-key-0815"])
def test_what_apprise_logs_of_a_url_stays_inside(url: str) -> None:
    overheard, level = Overheard(), logging.root.level
    logging.root.addHandler(overheard)
    logging.root.setLevel(logging.DEBUG)
    try:
        with pytest.raises(InvalidRequest, match="apprise does not know"):
            check_url(url)
        check_url("json://127.0.0.1:9/s3cret-key-0815")
        with pytest.raises(ChannelRefused, match="json://"):
            send("json://127.0.0.1:9/s3cret-key-0815", "title", "body", "info")
        logging.getLogger("another").info("heard")
    finally:
        logging.root.removeHandler(overheard)
        logging.root.setLevel(level)
    assert "heard" in overheard.text
    assert "s3cret" not in overheard.text


@pytest.mark.parametrize(
    ("url", "secrets"),
    [
        ("mailto://ops:pa55word@example.org", ["pa55word"]),
        ("json://user:pa%24%24word@127.0.0.1:8080/hook/t0kenABC?key=v4lue", ["pa$$word", "t0kenABC", "v4lue"]),
        ("slack://T1JJ3T3L2/A1BRTD4JD/TIiajkdnlazkcOXrIdevi7FQ", ["TIiajkdnlazkcOXrIdevi7FQ", "A1BRTD4JD"]),
        ("feishu://0123456789abcdef", ["0123456789abcdef"]),
    ],
)
def test_no_part_of_a_url_that_may_be_a_key_is_shown(url: str, secrets: list[str]) -> None:
    text = without_secrets(f"sending to {url} failed: {' '.join(secrets)}", url)
    for secret in secrets:
        assert secret not in text
        assert secret not in masked(url)
    assert masked(url).startswith(url.partition("://")[0])
    assert masked("0123456789abcdef") == "******"
