"""Tasks as YAML: what is written is what is read, and an import is all or nothing."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from app.core.errors import InvalidRequest
from app.core.redaction import MASK, is_secret_key
from app.scheduler.definitions import TaskDefinition
from app.scheduler.policies import MisfirePolicy, OverlapPolicy, RetryPolicy
from app.scheduler.runtime import Runtime
from app.scheduler.schedules import AtSchedule, CronSchedule, DstPolicy, IntervalSchedule
from app.scheduler.task_files import (
    TaskChange,
    entry_of,
    field_changes,
    import_tasks,
    read_tasks,
    stored_definitions,
    write_tasks,
)
from tests.support import Recorder, running

TRICKY = [
    "no",
    "yes",
    "on",
    "null",
    "~",
    "",
    "1",
    "0o7",
    "010",
    "1e5",
    "1_0",
    "12:30",
    "2030-01-01",
    "<<",
    "- x",
    "#",
]


def new_year(year: int) -> datetime:
    return datetime(year, 1, 1)  # noqa: DTZ001 - hypothesis wants its bounds naive


# JSON as the database holds it; integers as SQLite and JavaScript agree on them.
texts = st.text(max_size=30) | st.sampled_from(TRICKY)
keys = texts.filter(lambda key: not is_secret_key(key))
json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False)
    | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(keys, inner, max_size=3),
    max_leaves=8,
)
zones = st.sampled_from(["UTC", "Asia/Shanghai", "America/New_York", "Europe/Berlin"])
years = {"min_value": new_year(2030), "max_value": new_year(2040)}
moments = st.datetimes(**years, timezones=st.sampled_from([UTC, ZoneInfo("Asia/Shanghai")]))
printable = st.text(st.characters(exclude_categories=["C"]), min_size=1, max_size=40)
seconds = st.floats(0.001, 80_000) | st.integers(1, 80_000)
schedules = (
    st.none()
    | st.sampled_from(["0 9 * * 1-5", "*/15 * * * * *", "@daily", "* * * * *"]).map(
        lambda text: CronSchedule(expression=text)
    )
    | st.floats(1, 10_000).map(lambda value: IntervalSchedule(seconds=value))
    | st.integers(1, 10_000).map(lambda value: IntervalSchedule(seconds=value))
    | (moments | st.datetimes(**years)).map(lambda at: AtSchedule(at=at))
)
retries = st.none() | st.builds(
    RetryPolicy,
    max_attempts=st.integers(1, 100),
    backoff_seconds=seconds,
    retry_on=st.none() | st.just(("TimeoutError", "http.Error")),
    on_node_lost=st.sampled_from(["retry", "fail"]),
)


@st.composite
def definitions(draw: st.DrawFn) -> TaskDefinition:
    key = draw(st.none() | st.just("shared"))
    return TaskDefinition(
        name=draw(printable.map(str.strip).filter(bool)),
        description=draw(texts),
        task_type="work",
        params=draw(st.dictionaries(keys, json_values, max_size=4)),
        schedule=draw(schedules),
        timezone=draw(zones),
        dst_policy=draw(st.sampled_from(DstPolicy)),
        start_at=draw(st.none() | st.just(datetime(2029, 1, 1, tzinfo=UTC))),
        end_at=draw(st.none() | st.datetimes(new_year(2041), new_year(2050), timezones=st.just(UTC))),
        jitter_seconds=draw(st.just(0) | seconds),
        is_active=draw(st.booleans()),
        priority=draw(st.integers(-1000, 1000)),
        timeout_seconds=draw(st.none() | seconds),
        retry=draw(retries),
        misfire_policy=draw(st.sampled_from(MisfirePolicy)),
        misfire_grace_seconds=draw(seconds),
        overlap_policy=draw(st.sampled_from(OverlapPolicy)),
        concurrency_key=key,
        concurrency_limit=draw(st.none() | st.integers(1, 10_000)) if key else None,
    )


def normal(definition: TaskDefinition) -> dict[str, Any]:
    """As it is stored: a moment without an offset has become one in UTC."""
    return definition.columns()


def apply(runtime: Runtime, wanted: list[TaskDefinition], **options: Any) -> list[TaskChange]:
    return import_tasks(wanted, database=runtime.engine, service=runtime.service, clock=runtime.clock, **options)


def task(name: str = "digest", **values: Any) -> TaskDefinition:
    return TaskDefinition.parse({"name": name, "task_type": "work", **values})


# too_slow: the first draw of a text builds hypothesis' table of Unicode, which takes seconds.
@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(definitions(), max_size=3, unique_by=lambda item: item.name))
def test_every_definition_reads_back_as_it_was_written(wanted: list[TaskDefinition]) -> None:
    read = read_tasks(write_tasks(wanted))
    assert [normal(item) for item in read] == [normal(item) for item in sorted(wanted, key=lambda item: item.name)]


@settings(
    max_examples=40,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(wanted=st.lists(definitions(), max_size=3, unique_by=lambda item: item.name))
async def test_importing_an_export_changes_nothing(database_url: str, wanted: list[TaskDefinition]) -> None:
    async with running(database_url, Recorder("work"), start=False) as (_, runtime):
        apply(runtime, wanted, prune=True)
        exported = write_tasks(stored_definitions(runtime.tasks))
        versions = {stored.name: stored.version for stored in runtime.tasks.page()}
        assert apply(runtime, read_tasks(exported), prune=True) == []
        assert {stored.name: stored.version for stored in runtime.tasks.page()} == versions
        assert versions.keys() == {item.name for item in wanted}


def test_a_file_has_tasks_in_order_of_name_and_leaves_defaults_out() -> None:
    written = write_tasks(
        [task("b", schedule="0 9 * * *"), task("a", schedule={"type": "interval", "seconds": 300})]
    )
    assert written == (
        "- name: a\n"
        "  task_type: work\n"
        "  schedule:\n"
        "    type: interval\n"
        "    seconds: 300\n"
        "  timezone: UTC\n"
        "- name: b\n"
        "  task_type: work\n"
        "  schedule: 0 9 * * *\n"
        "  timezone: UTC\n"
    )


def test_a_file_without_tasks_is_an_empty_list() -> None:
    assert write_tasks([]) == "[]\n"
    assert read_tasks("[]") == []


@pytest.mark.parametrize("word", TRICKY)
def test_a_word_in_quotes_is_text(word: str) -> None:
    (read,) = read_tasks(f"- {{name: a, task_type: work, params: {{word: {word!r}}}}}")
    assert read.params == {"word": word}


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("no", "no"),
        ("on", "on"),
        ("2030-01-01", "2030-01-01"),
        ("12:30", "12:30"),
        ("010", "010"),
        ("1_000", "1_000"),
        ("true", True),
        ("null", None),
        ("-5", -5),
        ("1e5", 1e5),
    ],
)
def test_plain_words_mean_what_they_mean_in_json_and_else_text(written: str, meant: object) -> None:
    (read,) = read_tasks(f"- name: a\n  task_type: work\n  params:\n    value: {written}\n")
    assert read.params == {"value": meant}
    assert type(read.params["value"]) is type(meant)


def test_a_task_without_a_zone_gets_the_one_that_is_given() -> None:
    (read,) = read_tasks("- {name: a, task_type: work}", default_timezone="Asia/Shanghai")
    assert read.timezone == "Asia/Shanghai"


@pytest.mark.parametrize(
    ("text", "field", "message"),
    [
        ("", "file", "must be a list"),
        ("name: a", "file", "must be a list"),
        ("- {name: a", "file", "line 1"),
        ("- [", "file", "line"),
        ("- {name: a, name: b}", "file", "the key 'name' is there twice"),
        ("- {1: a}", "file", "the key 1 is no text"),
        ("- &x {name: a}\n- *x", "file", "aliases are refused"),
        ("- !!python/object/apply:os.system [ls]", "file", "could not determine a constructor"),
        ("- " + "[" * 5000, "file", "nested too deeply"),
        ("- \x01", "file", "not allowed"),
        ("- a task", "tasks[#1]", "must be a mapping"),
        ("- {task_type: work}", "tasks[#1].name", "Field required"),
        ("- {name: a, task_type: work, colour: red}", "tasks[a].colour", "not permitted"),
        ("- {name: a, task_type: work, timezone: Mars}", "tasks[a].timezone", "no IANA time zone"),
        ("- {name: a, task_type: work, is_active: no}", "tasks[a].is_active", "bool"),
        ("- {name: a, task_type: work}\n- {name: a, task_type: work}", "tasks[a].name", "twice"),
    ],
)
def test_what_is_wrong_in_a_file_is_named_by_task_and_field(text: str, field: str, message: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        read_tasks(text)
    (error,) = refused.value.errors
    assert error.field == field
    assert message in error.message


def test_every_wrong_task_is_named_at_once() -> None:
    with pytest.raises(InvalidRequest) as refused:
        read_tasks("- {name: a}\n- {name: b, task_type: work, priority: high}")
    assert [error.field for error in refused.value.errors] == ["tasks[a].task_type", "tasks[b].priority"]


def test_a_secret_is_masked_in_a_file_and_in_a_difference() -> None:
    before, after = ({"params": {"token": secret, "url": "u"}} for secret in ("old", "new"))
    assert entry_of(task(params={"token": "old"}))["params"] == {"token": MASK}
    (change,) = field_changes(before, after)
    assert change.as_dict() == {"field": "params.token", "before": MASK, "after": MASK}


async def test_import_creates_updates_and_prunes_by_name(database_url: str) -> None:
    async with running(database_url, Recorder("work"), start=False) as (_, runtime):
        apply(runtime, [task("stays"), task("changes", schedule="0 9 * * *"), task("goes")])
        wanted = [task("stays"), task("changes", schedule="0 10 * * *"), task("comes")]
        shown = apply(runtime, wanted, prune=True, write=False)
        assert {stored.name for stored in runtime.tasks.page()} == {"stays", "changes", "goes"}
        done = apply(runtime, wanted, prune=True)
        assert shown == done
        assert [(change.task, change.action) for change in done] == [
            ("changes", "update"),
            ("comes", "create"),
            ("goes", "delete"),
        ]
        (field,) = done[0].fields
        assert (field.field, field.before, field.after) == ("schedule", "0 9 * * *", "0 10 * * *")
        assert {stored.name for stored in runtime.tasks.page()} == {"stays", "changes", "comes"}


async def test_one_refused_task_keeps_all_others_out(database_url: str) -> None:
    async with running(database_url, Recorder("work"), start=False) as (_, runtime):
        apply(runtime, [task("known", priority=1)])
        wanted = [
            task("new"),
            task("known", priority=2),
            TaskDefinition.parse({"name": "odd", "task_type": "nobody"}),
            task("late", schedule={"type": "at", "at": "2001-01-01T00:00:00Z"}),
        ]
        with pytest.raises(InvalidRequest) as refused:
            apply(runtime, wanted)
        assert [error.field for error in refused.value.errors] == [
            "tasks[odd].task_type",
            "tasks[late].schedule.at",
        ]
        assert [(stored.name, stored.priority) for stored in runtime.tasks.page()] == [("known", 1)]


async def test_a_masked_secret_keeps_what_is_stored_and_is_refused_where_nothing_is(database_url: str) -> None:
    async with running(database_url, Recorder("work"), start=False) as (_, runtime):
        apply(runtime, [task(params={"token": "s3cr3t", "url": "a"})])
        apply(runtime, [task(params={"token": MASK, "url": "b"})])
        assert runtime.tasks.find("digest").params == {"token": "s3cr3t", "url": "b"}
        with pytest.raises(InvalidRequest, match=r"tasks\[fresh\]\.params.*not stored here"):
            apply(runtime, [task("fresh", params={"token": MASK})])


async def test_a_change_of_the_description_leaves_the_next_fire_alone(database_url: str) -> None:
    async with running(database_url, Recorder("work"), start=False) as (_, runtime):
        every = {"type": "interval", "seconds": 3600}
        apply(runtime, [task(schedule=every)])
        armed = runtime.tasks.find("digest").next_run_at
        apply(runtime, [task(schedule=every, description="new words")])
        stored = runtime.tasks.find("digest")
        assert (stored.description, stored.next_run_at) == ("new words", armed)


async def test_a_task_named_like_an_id_is_not_taken_for_that_task(database_url: str) -> None:
    async with running(database_url, Recorder("work"), start=False) as (_, runtime):
        apply(runtime, [task("first")])
        apply(runtime, [task(str(runtime.tasks.find("first").id), priority=5)])
        assert runtime.tasks.find("first").priority == 0
        assert runtime.tasks.count()["total"] == 2


async def test_prune_leaves_what_the_code_declares(database_url: str) -> None:
    async with running(database_url, Recorder("work"), start=False) as (service, runtime):
        service.define_task("in-code", "work")
        service.start()
        apply(runtime, [task("by-hand")])
        assert [change.task for change in apply(runtime, [], prune=True)] == ["by-hand"]
        assert [stored.name for stored in runtime.tasks.page()] == ["in-code"]
