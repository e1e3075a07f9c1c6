"""Alerts from their rule to the receiver: in virtual time, on both databases, from two processes."""

from __future__ import annotations

import asyncio
import json
import threading
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import insert, select, text, update
from sqlalchemy.orm import Session, sessionmaker

from app.core.config import Settings
from app.core.errors import Conflict, InvalidRequest, NotFound
from app.db.database import make_engine
from app.executors.alert_delivery import AlertDeliveryExecutor
from app.models.alerting import Alert
from app.models.scheduled_task import ScheduledTask
from app.models.task_execution import ExecutionState, TaskExecution
from app.scheduler.alerting.checking import look_at_due, settle
from app.scheduler.alerting.observing import DELIVERY
from app.scheduler.alerting.store import AlertStore, Openness
from app.scheduler.context import current_execution
from app.scheduler.runtime import Runtime
from app.services.scheduler_service import TaskExecutionResult
from app.testing.clock import VirtualClock
from app.testing.sandbox import Sandbox
from tests.integration.local_web import SECRET, Answer, LocalWeb, hook
from tests.support import Recorder, ended, running, until


def messages(web: LocalWeb) -> list[dict[str, Any]]:
    return [json.loads(received.body) for received in web.received]


def titles(web: LocalWeb) -> list[str]:
    return [message["title"] for message in messages(web)]


class Flaky:
    """An executor's run that fails while `broken`."""

    def __init__(self) -> None:
        self.broken = True

    def __call__(self, *_: Any) -> TaskExecutionResult:
        if self.broken:
            return TaskExecutionResult.failure_result("坏", "Bad: luck")
        return TaskExecutionResult.success_result("好")


@pytest.fixture
def box(scheduler_sandbox: Sandbox) -> Sandbox:
    scheduler_sandbox.register(AlertDeliveryExecutor(scheduler_sandbox.clock))
    return scheduler_sandbox


def alerts_of(box: Sandbox) -> AlertStore:
    return box._runtime.alerts


def deliveries(box: Sandbox) -> list[Any]:
    return [execution for execution in box.executions() if execution.task_type == DELIVERY]


# ---------------------------------------------------------------- in virtual time


def test_a_task_that_fails_thrice_is_told_once_and_its_recovery_too(box: Sandbox, web: LocalWeb) -> None:
    flaky = Flaky()
    box.register(Recorder("work", flaky))
    box.define_task("digest", "work", cron="*/10 * * * *")
    channel = alerts_of(box).create_channel({"name": "hook", "url": hook(web), "language": "en"})
    alerts_of(box).create_rule(
        {
            "name": "thrice",
            "condition": {"type": "failed", "times": 3},
            "channel_ids": [channel.id],
            "check_seconds": 60,
        }
    )
    box.advance(minutes=25)
    assert titles(web) == []
    box.advance(minutes=10)
    assert titles(web) == ["[warning] digest has failed 3 times in a row: Bad: luck"]
    box.advance(hours=5)
    assert len(web.received) == 1, "one notice for one incident"
    (alert,) = alerts_of(box).alerts()
    assert (alert.notices, alert.task_name, alert.resolved_at) == (1, "digest", None)
    flaky.broken = False
    box.advance(minutes=20)
    assert titles(web)[1:] == ["[over] digest has failed 33 times in a row: Bad: luck"]
    assert alerts_of(box).alerts() == []
    assert [execution.state for execution in deliveries(box)] == [ExecutionState.SUCCESS] * 2
    flaky.broken = True
    box.advance(hours=1)
    assert len(web.received) == 3, "the next incident is told again"


async def test_a_backfill_ends_no_row_of_failures_and_all_of_them_are_told(box: Sandbox, web: LocalWeb) -> None:
    began = box.now

    def only_the_past_works(*_: Any) -> TaskExecutionResult:
        scheduled_for = current_execution().scheduled_for
        if scheduled_for is not None and scheduled_for < began:
            return TaskExecutionResult.success_result("好")
        return TaskExecutionResult.failure_result("坏", "Bad: luck")

    box.register(Recorder("work", only_the_past_works))
    task = box.define_task("digest", "work", cron="*/10 * * * *")
    channel = alerts_of(box).create_channel({"name": "hook", "url": hook(web), "language": "en"})
    for times in (3, 5):
        condition = {"type": "failed", "times": times}
        rule = {"name": f"{times} times", "condition": condition, "channel_ids": [channel.id], "check_seconds": 60}
        alerts_of(box).create_rule(rule)
    await box.advance(minutes=35)
    await box.service.backfill(task.id, began - timedelta(hours=1), began)
    await box.advance(minutes=30)
    past = [one for one in box.executions(task) if one.trigger == "backfill"]
    assert {one.state for one in past} == {ExecutionState.SUCCESS}
    assert [one.last_state for one in [box.service.runtime.tasks.get(task.id)]] == ["failed"]
    assert titles(web) == [
        "[warning] digest has failed 3 times in a row: Bad: luck",
        "[warning] digest has failed 5 times in a row: Bad: luck",
    ]
    assert {alert.details["times"] for alert in alerts_of(box).alerts()} == {6}


def test_a_delivery_that_fails_is_tried_again_and_breeds_no_alert(box: Sandbox, web: LocalWeb) -> None:
    box.register(Recorder("work", Flaky()))
    box.define_task("digest", "work", cron="*/10 * * * *")
    url = hook(web, Answer(b"no", 500), Answer(b"no", 500), Answer())
    channel = alerts_of(box).create_channel({"name": "hook", "url": url})
    for kind in ("failed", "parked", "no_success", "late", "slow"):
        condition = {"type": kind} | ({"seconds": 3600} if kind in ("no_success", "late") else {})
        alerts_of(box).create_rule({"name": kind, "condition": condition, "channel_ids": [channel.id]})
    box.advance(minutes=30)
    assert len(web.received) == 3
    (delivery,) = deliveries(box)
    attempts = box.attempts(delivery)
    assert [attempt.status for attempt in attempts] == ["failed", "failed", "success"]
    assert "500" in (attempts[0].error or "") or "Internal Server Error" in (attempts[0].error or "")
    assert SECRET not in (attempts[0].error or "")
    assert {alert.task_name for alert in alerts_of(box).alerts()} == {"digest"}


def test_quiet_hours_hold_a_notice_to_their_end_but_not_a_critical_one(box: Sandbox, web: LocalWeb) -> None:
    box.register(Recorder("work", Flaky()))
    channel = alerts_of(box).create_channel({"name": "hook", "url": hook(web), "language": "en"})
    quiet = {"start": "22:00", "end": "08:00", "timezone": "UTC"}
    for severity in ("warning", "critical"):
        alerts_of(box).create_rule(
            {
                "name": severity,
                "condition": {"type": "failed"},
                "severity": severity,
                "check_seconds": 60,
                "quiet_hours": quiet,
                "channel_ids": [channel.id],
            }
        )
    box.advance_to(datetime(2030, 1, 7, 22, 30, tzinfo=UTC))
    box.define_task("nightly", "work", cron="0 23 * * *")
    box.advance_to(datetime(2030, 1, 8, 7, 59, tzinfo=UTC))
    assert titles(web) == ["[CRITICAL] nightly has failed: Bad: luck"]
    assert len(alerts_of(box).alerts()) == 2
    box.advance(minutes=2)
    assert titles(web)[1:] == ["[warning] nightly has failed: Bad: luck"]


def test_what_recovers_within_quiet_hours_was_never_told(box: Sandbox, web: LocalWeb) -> None:
    flaky = Flaky()
    box.register(Recorder("work", flaky))
    channel = alerts_of(box).create_channel({"name": "hook", "url": hook(web)})
    alerts_of(box).create_rule(
        {
            "name": "quiet",
            "condition": {"type": "failed"},
            "quiet_hours": {"start": "22:00", "end": "08:00"},
            "channel_ids": [channel.id],
            "check_seconds": 600,
        }
    )
    box.advance_to(datetime(2030, 1, 7, 22, 30, tzinfo=UTC))
    box.define_task("nightly", "work", cron="0 23,1 * * *")
    box.advance_to(datetime(2030, 1, 8, 0, 30, tzinfo=UTC))
    flaky.broken = False
    box.advance_to(datetime(2030, 1, 8, 12, tzinfo=UTC))
    assert web.received == []
    (alert,) = alerts_of(box).alerts(openness=Openness.ALL)
    assert (alert.resolution, alert.notices) == ("recovered", 0)


def test_reminders_come_until_somebody_knows(box: Sandbox, web: LocalWeb) -> None:
    box.register(Recorder("work", Flaky()))
    box.define_task("digest", "work", cron="*/10 * * * *")
    channel = alerts_of(box).create_channel({"name": "hook", "url": hook(web), "language": "zh"})
    alerts_of(box).create_rule(
        {
            "name": "r",
            "condition": {"type": "failed"},
            "remind_seconds": 3600,
            "check_seconds": 120,
            "channel_ids": [channel.id],
        }
    )
    box.advance(hours=3, minutes=30)
    assert [title.startswith("[警告] 仍未恢复") for title in titles(web)] == [False, True, True, True]
    (alert,) = alerts_of(box).alerts()
    alerts_of(box).acknowledge(alert.id, "ops")
    box.advance(hours=5)
    assert len(web.received) == 4


def test_a_silenced_rule_records_and_speaks_afterwards(box: Sandbox, web: LocalWeb) -> None:
    box.register(Recorder("work", Flaky()))
    box.define_task("digest", "work", cron="*/10 * * * *")
    channel = alerts_of(box).create_channel({"name": "hook", "url": hook(web)})
    rule = alerts_of(box).create_rule({"name": "r", "condition": {"type": "failed"}, "channel_ids": [channel.id]})
    alerts_of(box).silence_rule(rule.id, box.now + timedelta(hours=2))
    box.advance(hours=1)
    assert len(alerts_of(box).alerts()) == 1
    assert web.received == []
    box.advance(hours=1, minutes=2)
    assert len(web.received) == 1


def test_a_rule_that_is_paused_or_deleted_closes_its_alerts_and_tells_nobody(box: Sandbox, web: LocalWeb) -> None:
    box.register(Recorder("work", Flaky()))
    box.define_task("digest", "work", cron="*/10 * * * *")
    channel = alerts_of(box).create_channel({"name": "hook", "url": hook(web)})
    values = {"condition": {"type": "failed"}, "channel_ids": [channel.id]}
    paused = alerts_of(box).create_rule({"name": "paused", **values})
    deleted = alerts_of(box).create_rule({"name": "deleted", **values})
    box.advance(minutes=30)
    alerts_of(box).update_rule(paused.id, {"is_active": False})
    alerts_of(box).delete_rule(deleted.id)
    box.advance(hours=1)
    assert len(web.received) == 2
    resolved = alerts_of(box).alerts(openness=Openness.RESOLVED)
    assert {alert.resolution for alert in resolved} == {"rule_paused", "rule_deleted"}


def test_a_task_without_success_and_a_run_that_takes_too_long(box: Sandbox) -> None:
    seconds = 5.0

    async def work(*_: Any) -> None:
        await asyncio.sleep(seconds)

    box.register(Recorder("work", work))
    box.define_task("digest", "work", cron="0 * * * *")
    alerts_of(box).create_rule(
        {"name": "silent", "condition": {"type": "no_success", "seconds": 3 * 3600}, "check_seconds": 60}
    )
    slow = {"type": "slow", "factor": 3, "at_least_seconds": 10, "least_runs": 5}
    alerts_of(box).create_rule({"name": "slow", "condition": slow, "check_seconds": 60})
    box.advance(hours=8)
    assert alerts_of(box).alerts(openness=Openness.ALL) == []
    seconds = 6 * 3600.0
    box.advance(hours=1, minutes=5)
    (alert,) = alerts_of(box).alerts()
    assert alert.kind == "slow"
    assert alert.details["running_seconds"] == 300
    box.advance(hours=3)
    assert {alert.kind for alert in alerts_of(box).alerts()} == {"slow", "no_success"}
    seconds = 1.0
    box.advance(hours=5)
    assert alerts_of(box).alerts() == []


def test_a_parked_execution_is_told_until_it_is_mended(box: Sandbox) -> None:
    box.register(Recorder("work"))
    box.define_task("digest", "work", cron="0 * * * *")
    alerts_of(box).create_rule({"name": "parked", "condition": {"type": "parked"}})
    del box.service._executors["work"]
    box.advance(hours=2)
    (alert,) = alerts_of(box).alerts()
    assert (alert.task_name, alert.details["reason"]) == ("digest", "unknown_executor")
    box.register(Recorder("work"))
    box.advance(hours=1, minutes=1)
    assert alerts_of(box).alerts() == []


# ---------------------------------------------------------------- on both databases


@pytest.fixture
def store(sessions: sessionmaker[Session], monkeypatch: pytest.MonkeyPatch) -> AlertStore:
    return AlertStore(sessions, VirtualClock(), lambda: None)


def failing_task(sessions: sessionmaker[Session], name: str = "digest") -> int:
    now = VirtualClock().now()
    with sessions() as session:
        task = ScheduledTask(name=name, task_type="work", last_state="failed", last_run_at=now)
        session.add(task)
        session.flush()
        session.execute(
            insert(TaskExecution.__table__).values(
                task_id=task.id, task_type="work", state="failed", error="Bad: luck", finished_at=now
            )
        )
        session.commit()
        return task.id


def check(sessions: sessionmaker[Session], now: datetime) -> list[Any]:
    with sessions() as session:
        looks = look_at_due(session, now)
    with sessions() as session:
        recorded = settle(session.connection(), looks, now=now, owner_of=lambda _: None, carry=lambda *_: None)
        session.commit()
    return recorded


def test_two_nodes_that_look_at_the_same_time_tell_once(
    sessions: sessionmaker[Session], store: AlertStore
) -> None:
    failing_task(sessions)
    channels = [store.create_channel({"name": name, "url": f"json://{name}.example.org"}).id for name in "ab"]
    store.create_rule({"name": "r", "condition": {"type": "failed"}, "channel_ids": channels})
    now = VirtualClock().now() + timedelta(minutes=1)
    with sessions() as one, sessions() as other:
        looks = [look_at_due(one, now), look_at_due(other, now)]
    assert all(len(look) == 1 for look in looks)
    told = []
    for look in looks:
        with sessions() as session:
            told += settle(session.connection(), look, now=now, owner_of=lambda _: None, carry=lambda *_: None)
            session.commit()
    assert [execution.params["channel_id"] for execution in told] == channels
    assert [execution.params["notice"] for execution in told] == ["opened", "opened"]
    with sessions() as session:
        assert len(session.scalars(select(Alert)).all()) == 1


def test_an_alert_and_its_deliveries_are_one_transaction(
    sessions: sessionmaker[Session], store: AlertStore
) -> None:
    failing_task(sessions)
    channel = store.create_channel({"name": "a", "url": "json://example.org"})
    store.create_rule({"name": "r", "condition": {"type": "failed"}, "channel_ids": [channel.id]})
    now = VirtualClock().now() + timedelta(minutes=1)
    with sessions() as session:
        looks = look_at_due(session, now)
    with sessions() as session:
        settle(session.connection(), looks, now=now, owner_of=lambda _: None, carry=lambda *_: None)
        session.rollback()
    assert store.alerts() == []
    assert len(check(sessions, now)) == 1, "the check is still due"


def test_the_open_alert_of_a_subject_is_unique(sessions: sessionmaker[Session], store: AlertStore) -> None:
    failing_task(sessions)
    store.create_rule({"name": "r", "condition": {"type": "failed"}})
    check(sessions, VirtualClock().now() + timedelta(minutes=1))
    (alert,) = store.alerts()
    columns = ("rule_id", "rule_name", "kind", "severity", "subject", "details", "opened_at")
    copy = {name: getattr(alert, name) for name in columns}
    with sessions() as session, pytest.raises(Exception, match=r"(?i)unique"):
        session.execute(insert(Alert.__table__).values(copy))
    with sessions() as session:
        session.execute(insert(Alert.__table__).values({**copy, "resolved_at": alert.opened_at}))
        session.commit()


def test_a_rule_that_plain_sql_has_broken_harms_no_other(
    sessions: sessionmaker[Session], store: AlertStore, log_records: list[Any]
) -> None:
    failing_task(sessions)
    with sessions() as session:
        for name, kind, condition in (("broken", "failed", '{"times": "many"}'), ("plain", "failed", "{}")):
            session.execute(
                text("INSERT INTO alert_rules (name, kind, condition) VALUES (:name, :kind, :condition)"),
                {"name": name, "kind": kind, "condition": condition},
            )
        session.execute(
            text("INSERT INTO alert_rules (name, kind, quiet_from, quiet_until) VALUES ('q', 'failed', 'x', 'y')")
        )
        session.commit()
    check(sessions, datetime(2100, 1, 1, tzinfo=UTC))
    assert [alert.rule_name for alert in store.alerts()] == ["plain"]
    assert sum("无法解析" in record["message"] for record in log_records) == 2
    check(sessions, datetime(2100, 1, 1, tzinfo=UTC))
    assert sum("无法解析" in record["message"] for record in log_records) == 2, "its check has been made"


def test_late_fires_and_late_runs(sessions: sessionmaker[Session], store: AlertStore) -> None:
    now = VirtualClock().now()
    long_ago = now - timedelta(minutes=10)
    with sessions() as session:
        unfired = ScheduledTask(name="unfired", task_type="work", next_run_at=long_ago)
        waiting = ScheduledTask(name="waiting", task_type="work")
        paused = ScheduledTask(name="paused", task_type="work", next_run_at=long_ago, is_active=False)
        made_up_for = ScheduledTask(name="made up for", task_type="work")  # at its pace, which is not late
        put_off = ScheduledTask(
            name="put off", task_type="work"
        )  # by a circuit, to a moment that is still to come
        session.add_all([unfired, waiting, paused, made_up_for, put_off])
        session.flush()
        run = {"task_type": "work", "state": "pending", "run_at": long_ago}
        session.execute(insert(TaskExecution.__table__).values(task_id=waiting.id, **run))
        session.execute(insert(TaskExecution.__table__).values(task_id=made_up_for.id, trigger="backfill", **run))
        tried_again = {"run_at": now + timedelta(hours=3), "due_at": long_ago, "waits_for": "circuit:work"}
        session.execute(insert(TaskExecution.__table__).values(task_id=put_off.id, **(run | tried_again)))
        session.commit()
    store.create_rule({"name": "late", "condition": {"type": "late", "seconds": 300}})
    check(sessions, now)
    assert {alert.task_name for alert in store.alerts()} == {"unfired", "waiting", "put off"}
    assert {alert.details["late_seconds"] for alert in store.alerts()} == {600}


def test_a_rule_of_one_task_looks_at_no_other(sessions: sessionmaker[Session], store: AlertStore) -> None:
    failing_task(sessions, "one")
    other = failing_task(sessions, "other")
    store.create_rule({"name": "r", "condition": {"type": "failed"}, "task_id": other})
    check(sessions, VirtualClock().now())
    assert [alert.task_id for alert in store.alerts()] == [other]
    with sessions() as session:
        session.delete(session.get(ScheduledTask, other))
        session.commit()
    check(sessions, VirtualClock().now() + timedelta(minutes=1))
    assert store.alerts() == []


def test_what_cannot_be_a_rule_or_a_channel_is_refused_by_name(
    sessions: sessionmaker[Session], store: AlertStore
) -> None:
    def refused(make: Any, values: dict[str, Any]) -> str:
        with pytest.raises(InvalidRequest) as caught:
            make(values)
        assert SECRET not in str(caught.value)
        return caught.value.errors[0].field

    assert refused(store.create_channel, {"name": "a", "url": f"nonsense://{SECRET}"}) == "url"
    assert refused(store.create_channel, {"name": "a", "url": SECRET}) == "url"
    assert refused(store.create_channel, {"name": "", "url": "json://example.org"}) == "name"
    failed = {"type": "failed"}
    assert refused(store.create_rule, {"name": "r", "condition": failed, "channel_ids": [7]}) == "channel_ids"
    assert refused(store.create_rule, {"name": "r", "condition": failed, "task_id": 7}) == "task_id"
    assert refused(store.create_rule, {"name": "r", "condition": {"type": "late", "seconds": -1}}).startswith(
        "condition"
    )
    quiet = {"start": "22:00", "end": "22:00"}
    assert refused(store.create_rule, {"name": "r", "condition": failed, "quiet_hours": quiet}).startswith("quiet")
    store.create_rule({"name": "taken", "condition": failed})
    with pytest.raises(Conflict, match="taken"):
        store.create_rule({"name": "taken", "condition": failed})
    with pytest.raises(NotFound):
        store.delete_rule(99)


# ---------------------------------------------------------------- real nodes


async def test_two_nodes_on_one_database_send_one_notice(
    database_url: str, web: LocalWeb, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.scheduler.runtime.ALERT_SECONDS", 0.2)
    executors = (Recorder("work", Flaky()), AlertDeliveryExecutor())
    async with (
        running(database_url, *executors) as (service, runtime),
        running(database_url, *executors) as (_, other),
    ):
        channel = runtime.alerts.create_channel({"name": "hook", "url": hook(web)})
        task = runtime.tasks.create(runtime.definition({"name": "digest", "task_type": "work"}))
        rule = runtime.alerts.create_rule(
            {"name": "r", "condition": {"type": "failed"}, "channel_ids": [channel.id], "check_seconds": 5}
        )
        await ended(runtime, (await service.run_now(task.id)).id)
        for _ in range(10):  # make it due again and again for both
            _due_now(runtime, rule.id)
            await asyncio.sleep(0.3)
        await until(lambda: web.received)
        assert len(web.received) == 1
        (alert,) = other.alerts.alerts()
        assert alert.notices == 1
        (delivery,) = [one for one in runtime.history.page() if one.task_type == DELIVERY]
        assert (await ended(runtime, delivery.id)).state is ExecutionState.SUCCESS
        assert SECRET not in str(delivery)


def _due_now(runtime: Runtime, rule_id: int) -> None:
    from app.models.alerting import AlertRule

    with runtime.engine.begin() as connection:
        connection.execute(
            update(AlertRule).where(AlertRule.id == rule_id).values(next_check_at=runtime.clock.now())
        )


@pytest.fixture(params=["sqlite_url", "pgqueuer_url"])
def url_of_an_engine(request: pytest.FixtureRequest) -> str:
    found: str = request.getfixturevalue(request.param)
    return found


async def test_a_delivery_waits_for_no_hung_work_at_its_first_try_or_a_later_one(
    url_of_an_engine: str, web: LocalWeb, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.scheduler.runtime.ALERT_SECONDS", 0.2)
    let_go = threading.Event()
    executors = (
        Recorder("hung", lambda *_: let_go.wait(60) and None),
        Recorder("hung_too", lambda *_: asyncio.sleep(60), lane="loop"),
        AlertDeliveryExecutor(),
    )
    limits = {"scheduler_concurrency": 2, "scheduler_loop_concurrency": 1}
    async with running(url_of_an_engine, *executors, **limits) as (service, runtime):
        try:
            url = hook(web, Answer(b"no", 500), Answer())
            channel = runtime.alerts.create_channel({"name": "hook", "url": url, "language": "en"})
            task = runtime.tasks.create(
                runtime.definition({"name": "digest", "task_type": "hung", "overlap_policy": "allow"})
            )
            for _ in range(3):
                await service.run_now(task.id)
            await service.enqueue("hung_too")
            await until(lambda: len(runtime.history.page(states=[ExecutionState.RUNNING])) >= 2)
            rule = runtime.alerts.create_rule(
                {"name": "r", "condition": {"type": "late", "seconds": 0.1}, "channel_ids": [channel.id]}
            )
            await asyncio.sleep(0.2)
            _due_now(runtime, rule.id)
            await until(lambda: len(web.received) == 2, 30)
            assert titles(web)[1].startswith("[warning] digest is late by ")
            (delivery,) = [one for one in runtime.history.page() if one.task_type == DELIVERY]
            assert (await ended(runtime, delivery.id)).state is ExecutionState.SUCCESS
            assert len(runtime.history.page(states=[ExecutionState.RUNNING])) >= 2
        finally:
            let_go.set()


def test_old_alerts_go_with_old_history(settings: Settings, sessions: sessionmaker[Session]) -> None:
    from app.scheduler.retention import prune

    now = VirtualClock().now()
    row = {"rule_id": 1, "rule_name": "r", "kind": "failed", "severity": "warning", "details": {}}
    engine = make_engine(settings)
    with engine.begin() as connection:
        for number, resolved in enumerate((now - timedelta(days=40), now - timedelta(days=1), None)):
            connection.execute(
                insert(Alert.__table__).values(
                    **row, subject=f"task:{number}", opened_at=now - timedelta(days=50), resolved_at=resolved
                )
            )
        prune(connection, now=now, keep_days=30)
        assert sorted(connection.scalars(select(Alert.subject))) == ["task:1", "task:2"]
    engine.dispose()
