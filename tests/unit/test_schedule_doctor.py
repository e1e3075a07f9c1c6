"""What the schedule doctor says of a timetable. Pure: no database."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime, timedelta
from itertools import count

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.scheduler.attention import Severity
from app.scheduler.doctor.clock_changes import clock_change_findings
from app.scheduler.doctor.findings import ScheduleFindingKind
from app.scheduler.doctor.herds import HERD, MAX_JITTER_SECONDS, find_herds, herd_findings, peak_around
from app.scheduler.doctor.load import (
    key_findings,
    lanes_findings,
    overlap_findings,
    rate_findings,
)
from app.scheduler.doctor.timetable import Timetable, Watched, tasks_on
from app.scheduler.rates import RateLimit, RateRule
from app.scheduler.schedules import DstPolicy
from app.scheduler.statistics import BOUNDS, Durations, Measured
from app.scheduler.triggers import AtTrigger, Bounded, CronTrigger, IntervalTrigger, ScheduleTrigger, jitter_of
from app.scheduler.windows import Calendar, ClosedPolicy, Hours, RunWindow, Weekday

NOW = datetime(2030, 1, 7, 8, 30, tzinfo=UTC)
MONTH = NOW + timedelta(days=30)
ids = count(1)


def watched(name: str = "a task", **more: object) -> Watched:
    plain = Watched(next(ids), name, "work", 0.0, "skip", None, None)
    return plain._replace(**more)  # type: ignore[arg-type]


def timetable(
    *tasks: tuple[ScheduleTrigger, Watched], since: datetime = NOW, until: datetime = MONTH
) -> Timetable:
    return Timetable.of(tasks, since, until)


def measured(seconds: float, runs: int = 20) -> Measured:
    bucket = next(number for number, bound in enumerate(BOUNDS) if seconds <= bound)
    return Measured(runs, seconds, Durations(Counter({bucket: runs}), seconds))


# ---------------------------------------------------------------- the walk

FIELDS = st.sampled_from(["*", "*/7", "0", "30", "5,35", "10-20"])
HOURS = st.sampled_from(["*", "*/3", "1", "2", "2,3", "9-17"])
ZONES = st.sampled_from(["UTC", "Asia/Shanghai", "Europe/Berlin", "America/New_York", "Australia/Lord_Howe"])
CRONS = st.builds(
    lambda minute, hour, days, zone, policy: CronTrigger(f"{minute} {hour} {days}", zone, policy),
    FIELDS,
    HOURS,
    st.sampled_from(["* * *", "* * 0", "*/2 * *", "31 2 *"]),
    ZONES,
    st.sampled_from(DstPolicy),
)
MOMENTS = st.datetimes(datetime(2029, 1, 1), datetime(2031, 1, 1), timezones=st.just(UTC))  # noqa: DTZ001
INTERVALS = st.builds(
    lambda seconds, anchor, first: IntervalTrigger(seconds, anchor, fire_at_anchor=first),
    st.floats(1, 100_000),
    MOMENTS,
    st.booleans(),
)
BOUNDED = st.builds(
    lambda trigger, start, days: Bounded(trigger, start, start + timedelta(days=days)),
    CRONS | INTERVALS,
    MOMENTS,
    st.integers(0, 40),
)
# Around the changes of clocks, where walking is hard.
STARTS = (
    st.sampled_from(
        [
            datetime(2030, 3, 30, 22, tzinfo=UTC),
            datetime(2030, 10, 26, 22, tzinfo=UTC),
            datetime(2030, 4, 6, 14, tzinfo=UTC),
        ]
    )
    | MOMENTS
)


@settings(max_examples=300, deadline=None)
@given(
    CRONS | INTERVALS | BOUNDED | st.builds(AtTrigger, MOMENTS), STARTS, st.integers(1, 72), st.integers(1, 200)
)
def test_walking_is_asking_for_one_fire_after_the_other(
    trigger: ScheduleTrigger, after: datetime, hours: int, limit: int
) -> None:
    until = after + timedelta(hours=hours)
    expected = []
    fire = trigger.next_after(after)
    while fire is not None and fire <= until and len(expected) < limit:
        expected.append(fire)
        fire = trigger.next_after(fire)
    assert trigger.walk(after, until, limit=limit) == expected


def test_an_every_second_schedule_is_looked_at_and_not_walked_to_the_end() -> None:
    table = Timetable.of([(IntervalTrigger(1, NOW), watched())], NOW, MONTH, budget=5_000)
    (rhythm,) = table.rhythms
    assert not rhythm.is_whole
    assert len(rhythm.fires) == 5_000
    assert table.fire_count == pytest.approx(30 * 86_400, abs=1)
    late = MONTH - timedelta(hours=1)
    assert len(rhythm.fires_in(late, late + timedelta(seconds=9))) == 10


OFFICE = Hours(RunWindow(opens="09:00", closes="17:00", days=(Weekday.MON, Weekday.TUE)), None, "Europe/Berlin")


@settings(max_examples=100, deadline=None)
@given(CRONS, STARTS, st.sampled_from(ClosedPolicy), st.sampled_from(["skip", "allow"]), st.integers(20, 400))
def test_starts_are_the_fires_as_far_as_the_hours_let_them(
    trigger: ScheduleTrigger, since: datetime, policy: ClosedPolicy, overlap: str, budget: int
) -> None:
    task = watched(hours=OFFICE, closed_policy=policy, overlap_policy=overlap)
    until = since + timedelta(days=9)
    (rhythm,) = Timetable.of([(trigger, task)], since, until, budget=budget).rhythms
    expected = []
    for fire in trigger.walk(since, rhythm.until, limit=100_000):
        opening = OFFICE.next_open(fire)
        assert opening is not None
        if opening == fire or (policy is ClosedPolicy.DEFER and opening <= rhythm.until):
            expected.append(opening)
    if overlap == "skip":
        expected = sorted(set(expected))
    assert rhythm.fires == expected


def test_what_is_closed_whenever_it_would_fire_never_fires() -> None:
    sundays = CronTrigger("0 12 * * 0", "Europe/Berlin")
    never, later, rarely = (
        watched("never", hours=OFFICE),
        watched("later", hours=OFFICE, closed_policy="defer"),
        watched("rarely", hours=Hours(None, Calendar(closed=(MONTH.date(),)), "UTC")),
    )
    table = timetable((sundays, never), (sundays, later), (CronTrigger("0 0 6 2 *"), rarely))
    assert [task.name for task in tasks_on(table.silent())] == ["never"]
    assert [len(rhythm.fires) for rhythm in table.rhythms] == [0, 4, 0]


# ---------------------------------------------------------------- herds


def test_tasks_that_wait_for_one_opening_are_a_herd_there_and_not_where_they_fire() -> None:
    table = timetable(
        *[
            (CronTrigger(f"{number} 3 * * *"), watched(hours=OFFICE, closed_policy="defer"))
            for number in range(60)
        ],
        *[(CronTrigger("0 4 * * *"), watched(hours=OFFICE)) for _ in range(60)],
    )
    (finding,) = herd_findings(table, lanes=16)
    assert finding.at == datetime(2030, 1, 8, 8, tzinfo=UTC)  # a Tuesday, nine o'clock in Berlin
    assert finding.peak_before == 60
    assert finding.peak_after is not None
    assert finding.peak_after < 10
    assert len(finding.tasks) == 60


def test_a_jitter_ends_with_the_window_for_the_doctor_too() -> None:
    table = timetable(
        *[
            (CronTrigger("59 16 * * *", "Europe/Berlin"), watched(hours=OFFICE, jitter_seconds=3600.0))
            for _ in range(60)
        ]
    )
    closing = datetime(2030, 1, 8, 16, tzinfo=UTC)
    assert peak_around(table, closing, {}, 3600) == 0
    assert peak_around(table, closing - timedelta(minutes=1), {}, 58) > 0


def starts_by_second(table: Timetable, jitters: dict[int, float]) -> Counter[int]:
    """Every start of the span, counted without any of the doctor's shortcuts."""
    found: Counter[int] = Counter()
    for rhythm in table.rhythms:
        for fire in rhythm.fires:
            for task in rhythm.tasks:
                jitter = jitters.get(task.id, task.jitter_seconds)
                found[int((fire + jitter_of(task.id, fire, jitter)).timestamp())] += 1
    return found


def test_a_herd_at_nine_gets_a_jitter_that_levels_it() -> None:
    nine = CronTrigger("0 9 * * *", "Asia/Shanghai")
    table = timetable(*[(nine, watched(f"digest {number}")) for number in range(200)])
    (finding,) = herd_findings(table, lanes=16)
    assert (finding.kind, finding.severity) == (ScheduleFindingKind.HERD, Severity.WARNING)
    assert finding.peak_before == 200
    assert finding.peak_after is not None
    assert finding.peak_after <= 10
    assert "200 tasks fire at the same moment, 30 times, first at 2030-01-08T01:00:00+00:00" in finding.sentence.en
    assert "200 个任务在同一时刻触发" in finding.sentence.zh
    assert len(finding.jitter) == 200
    jitters = {one.task_id: one.proposed_seconds for one in finding.jitter}
    assert max(starts_by_second(table, jitters).values()) <= 1.5 * finding.peak_after


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.sampled_from(["0 9 * * *", "0 * * * *", "*/15 * * * *", "30 9 * * 1", "0 0 8 * *", "* * * * *"]),
            st.integers(1, 60),
            st.sampled_from([0.0, 0.0, 3.0, 60.0]),
        ),
        min_size=1,
        max_size=6,
    )
)
def test_a_proposed_jitter_lowers_the_peak_of_its_herd(groups: list[tuple[str, int, float]]) -> None:
    table = timetable(
        *[
            (CronTrigger(expression), watched(jitter_seconds=jitter))
            for expression, number, jitter in groups
            for _ in range(number)
        ],
        until=NOW + timedelta(days=1),  # every start of it is counted one by one below
    )
    plan: dict[int, float] = {}
    current = {task.id: task.jitter_seconds for rhythm in table.rhythms for task in rhythm.tasks}
    gaps = {task.id: rhythm.shortest_gap for rhythm in table.rhythms for task in rhythm.tasks}
    for finding in herd_findings(table, lanes=16):
        assert finding.peak_before is not None
        assert finding.peak_after is None or finding.peak_after < finding.peak_before
        assert (finding.peak_after is None) == (not finding.jitter)
        for one in finding.jitter:
            assert current[one.task_id] < one.proposed_seconds <= MAX_JITTER_SECONDS
            gap = gaps[one.task_id]
            assert gap is None or one.proposed_seconds <= gap / 2
        plan |= {one.task_id: one.proposed_seconds for one in finding.jitter}
    before, after = starts_by_second(table, {}), starts_by_second(table, plan)
    if plan:
        assert max(after.values()) < max(before.values())
    if max(before.values(), default=0) < HERD // 2:
        assert not plan


def test_the_jitter_leaves_a_run_time_to_end_before_the_next_fire() -> None:
    every_minute = CronTrigger("* * * * *")
    tasks = [watched() for _ in range(100)]
    table = timetable(*[(every_minute, task) for task in tasks], until=NOW + timedelta(days=1))
    (finding,) = herd_findings(table, lanes=16, durations={task.id: 40.0 for task in tasks})
    assert {one.proposed_seconds for one in finding.jitter} == {10.0}


def test_what_fires_every_few_seconds_is_no_herd() -> None:
    table = timetable(*[(IntervalTrigger(1, NOW), watched()) for _ in range(100)], until=NOW + timedelta(hours=1))
    assert find_herds(table) == []


# ---------------------------------------------------------------- changes of clocks


def test_fires_in_a_gap_and_in_a_fold_are_found_with_what_becomes_of_them() -> None:
    spring, autumn = datetime(2030, 3, 25, tzinfo=UTC), datetime(2030, 10, 20, tzinfo=UTC)
    half_past_two = CronTrigger("30 2 * * *", "Europe/Berlin")
    skipping = CronTrigger("30 2 * * *", "Europe/Berlin", DstPolicy.SKIP)
    elsewhere = CronTrigger("30 2 * * *", "Asia/Shanghai")
    tasks = [(half_past_two, watched("moved")), (skipping, watched("lost")), (elsewhere, watched("calm"))]
    gap = list(clock_change_findings(timetable(*tasks, since=spring, until=spring + timedelta(days=30))))
    assert {(found.kind, found.severity, found.tasks[0].name) for found in gap} == {
        (ScheduleFindingKind.DST_GAP, Severity.INFO, "moved"),
        (ScheduleFindingKind.DST_GAP, Severity.WARNING, "lost"),
    }
    (fold,) = clock_change_findings(timetable(tasks[0], since=autumn, until=autumn + timedelta(days=30)))
    assert fold.kind is ScheduleFindingKind.DST_FOLD
    assert fold.at == datetime(2030, 10, 27, 1, tzinfo=UTC)
    assert "first time only" in fold.sentence.en
    assert list(clock_change_findings(timetable(*tasks))) == []


# ---------------------------------------------------------------- more work than time


@pytest.mark.parametrize(
    ("seconds", "policy", "severity"),
    [(30, "skip", None), (90, "skip", Severity.ERROR), (90, "cancel_running", Severity.ERROR)],
)
def test_runs_longer_than_the_interval_overlap(seconds: float, policy: str, severity: Severity | None) -> None:
    task = watched(overlap_policy=policy)
    table = timetable((IntervalTrigger(60, NOW), task))
    found = [finding.severity for finding in overlap_findings(table, {task.id: measured(seconds)})]
    assert found == ([] if severity is None else [severity])


def test_a_slow_run_now_and_then_is_a_warning() -> None:
    task = watched()
    durations = Durations(Counter({BOUNDS.index(1): 18, BOUNDS.index(120): 2}), 120)
    (found,) = overlap_findings(
        timetable((IntervalTrigger(60, NOW), task)), {task.id: Measured(20, 12.0, durations)}
    )
    assert found.severity is Severity.WARNING


def test_a_concurrency_key_that_cannot_keep_up_is_named() -> None:
    tasks = [watched(concurrency_key="account-7", concurrency_limit=1) for _ in range(3)]
    table = timetable(*[(IntervalTrigger(60, NOW), task) for task in tasks])
    known = {task.id: measured(30) for task in tasks}
    (found,) = key_findings(table, known)
    assert found.severity is Severity.ERROR
    assert "account-7" in found.sentence.en
    assert {task.id for task in found.tasks} == {task.id for task in tasks}
    assert list(key_findings(table, {})) == []
    (tight,) = key_findings(table, {task.id: measured(18) for task in tasks})
    assert tight.severity is Severity.WARNING


def test_all_schedules_together_may_need_more_lanes_than_there_are() -> None:
    tasks = [watched() for _ in range(10)]
    table = timetable(*[(IntervalTrigger(60, NOW), task) for task in tasks])
    known = {task.id: measured(60) for task in tasks}
    (found,) = lanes_findings(table, known, 4)
    assert found.severity is Severity.ERROR
    assert list(lanes_findings(table, known, 40)) == []


def test_a_rate_limit_below_the_schedules_is_found() -> None:
    tasks = [watched() for _ in range(4)]
    table = timetable(*[(IntervalTrigger(10, NOW), task) for task in tasks])
    asked = frozenset(task.id for task in tasks)
    tight = RateRule("executor:work:1", RateLimit(20, per_seconds=60))
    wide = RateRule("wide", RateLimit(100, per_seconds=60))
    (found,) = rate_findings(table, {tight: asked, wide: asked})
    assert found.severity is Severity.ERROR
    assert "executor:work:1" in found.sentence.en
    assert "24" in found.sentence.en
