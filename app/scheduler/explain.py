"""Why a task ran, or did not, in a sentence: read from the fire ledger."""

from __future__ import annotations

from contextlib import suppress
from datetime import UTC, datetime, timedelta, tzinfo

from sqlalchemy import literal_column, select
from sqlalchemy.orm import Session, sessionmaker

from app.core.errors import InvalidRequest, NotFound, sentence_of
from app.core.language import Language, Said, in_language
from app.models.scheduled_task import ScheduledTask
from app.models.task_execution import WAITING_STATES, Execution, ExecutionState, TaskExecution
from app.scheduler.arming import next_run_of, trigger_of
from app.scheduler.schedules import zone_of
from app.scheduler.steps import NEVER
from app.scheduler.triggers import ScheduleTrigger
from app.scheduler.windows import ClosedPolicy, hours_of

executions = TaskExecution.__table__

_SKIP_REASONS = {
    "overlap": Said(
        "an earlier execution of the task was not over yet (overlap policy skip)",
        "该任务上一次执行尚未结束（重叠策略 skip）",
    ),
    "misfire": Said(
        "nobody could fire it in time, and it was later than its misfire grace (misfire policy skip)",
        "没有节点能及时触发，且已超过错过宽限（错过策略 skip）",
    ),
    "coalesced": Said(
        "it was missed, and one catch-up run stands for it and the fires after it",
        "它被错过，由一次补跑代表它及其后的触发",
    ),
    "calendar": Said(
        "the task is closed then, by its run window or its calendar (closed policy skip)",
        "按运行时段或日历，任务在那时不开放（关闭策略 skip）",
    ),
    "paused": Said("the task was paused before anybody had fired it", "在触发之前任务已被暂停"),
    "rescheduled": Said(
        "the task's schedule was changed before anybody had fired it", "在触发之前任务的计划已被修改"
    ),
}
_CLOSED_BY = {"calendar": Said("calendar", "日历"), "run_window": Said("run window", "时段")}
_WAIT_REASONS = {
    "rate_limited": Said("it waits for its rate limit", "它在等待限速放行"),
    "circuit_open": Said(
        "it waits because the circuit breaker of its executor is open", "它在等待，因为其执行器的熔断器已打开"
    ),
    "deferred": Said(
        "it waits until its task is open again (closed policy defer)", "它在等待任务重新开放（关闭策略 defer）"
    ),
}
_STATES = {
    ExecutionState.PENDING: Said("it waits for a free lane", "它在等待空闲的车道"),
    ExecutionState.RUNNING: Said("it is running", "它正在运行"),
    ExecutionState.SUSPENDED: Said(
        "it is suspended: it waits for its time, a signal or its children", "它已挂起，等待时刻、信号或子执行"
    ),
    ExecutionState.RETRYING: Said("it failed and will be tried again", "它失败了，将会重试"),
    ExecutionState.PARKED: Said(
        "it is parked until its executor or params are repaired", "它被搁置，直到执行器或参数修好"
    ),
    ExecutionState.SUCCESS: Said("it ran and succeeded", "它运行并成功了"),
    ExecutionState.FAILED: Said("it ran and failed", "它运行但失败了"),
    ExecutionState.CANCELLED: Said("it was cancelled", "它被取消了"),
}


def explain(
    sessions: sessionmaker[Session], task_id: int, at: datetime | None, now: datetime, language: Language = "en"
) -> str:
    """Why did task `task_id` run, or not run, at `at`; without `at`: what it will do next.

    Raises:
        NotFound: no such task. InvalidRequest: `at` names no zone.
    """
    if at is not None and at.tzinfo is None:
        raise InvalidRequest.of(
            "at",
            Said(
                "give the moment a zone, for example 2030-01-01T09:00:00+08:00",
                "请为时刻注明时区，例如 2030-01-01T09:00:00+08:00",
            ),
        )
    with sessions() as session:
        task = session.get(ScheduledTask, task_id)
        if task is None:
            raise NotFound("task", task_id)
        if at is None:
            outlook = _outlook(task)
            return Said(f"Task {_name(task)} {outlook.en}", f"任务 {_name(task)} {outlook.zh}").in_(language)
        entry = _ledger_entry(session, task_id, at)
    moment, name = _local(at, task), _name(task)
    if entry is not None:
        account = _account(entry, task)
        return Said(f"Task {name} at {moment}: {account.en}", f"任务 {name} 在 {moment}：{account.zh}").in_(
            language
        )
    absence = _absence(task, at, now)
    return Said(
        f"Task {name} has no fire recorded at {moment}: {absence.en}",
        f"任务 {name} 在 {moment} 没有触发记录：{absence.zh}",
    ).in_(language)


def _name(task: ScheduledTask) -> str:
    return f"{task.id} ({task.name})"


def _local(moment: datetime, task: ScheduledTask) -> str:
    zone: tzinfo
    try:
        zone = zone_of(task.timezone)
    except InvalidRequest:  # plain SQL has written it; that it cannot be read is for the account to say
        zone = UTC
    return moment.astimezone(zone).isoformat(timespec="seconds")


def _outlook(task: ScheduledTask) -> Said:
    if task.schedule_type is None:
        return Said("has no schedule; it runs when asked to.", "没有计划，只在被要求时运行。")
    if task.schedule_error is not None:
        return Said(
            f"does not fire because its schedule cannot be read: {task.schedule_error}",
            f"不会触发，因为它的计划无法解析：{task.schedule_error}",
        )
    if not task.is_active:
        return Said("is paused; resume it and it fires again.", "已暂停；恢复后会再次触发。")
    if task.exhausted_at is not None:
        since = _local(task.exhausted_at, task)
        return Said(f"has no fire left since {since}.", f"自 {since} 起不再有触发。")
    if task.next_run_at is None:
        return Said(
            "has just been stored; the clock sets its first fire within a second.",
            "刚刚存入；时钟会在一秒内安排第一次触发。",
        )
    next_fire = _local(task.next_run_at, task)
    closed = _closed_then(task, task.next_run_at)
    return Said(f"fires next at {next_fire}{closed.en}.", f"下一次在 {next_fire} 触发{closed.zh}。")


def _closed_then(task: ScheduledTask, fire: datetime) -> Said:
    """What its window and calendar make of a fire to come."""
    try:
        hours = hours_of(task.run_window, task.calendar, task.timezone)
    except InvalidRequest as error:
        why = sentence_of(error)
        return Said(
            f", if it is open then, which cannot be told here: {why}",
            f"（若那时开放；这里无法判断：{in_language(why, 'zh')}）",
        )
    closed_by = None if hours is None else hours.closed_by(fire)
    if hours is None or closed_by is None:
        return Said("", "")
    by = _CLOSED_BY[closed_by]
    runs_at = hours.next_open(fire) if task.closed_policy == ClosedPolicy.DEFER else None
    if runs_at is not None:
        then = _local(runs_at, task)
        return Said(
            f", but is closed then by its {by.en}, so that fire will run at {then}",
            f"，但那时按{by.zh}不开放，将推迟到 {then} 运行",
        )
    following = next_run_of(task)
    after = (
        Said("; it is closed at every fire to come", "；今后每次触发时都不开放")
        if following is None
        else Said(f"; it runs next at {_local(following, task)}", f"；下一次运行在 {_local(following, task)}")
    )
    return Said(
        f", but is closed then by its {by.en}, so that fire will be skipped{after.en}",
        f"，但那时按{by.zh}不开放，该次触发将被跳过{after.zh}",
    )


def _to_come(task: ScheduledTask, at: datetime) -> Said:
    """What will be at a moment to come: whether its schedule fires then, and whether it is open."""
    trigger = trigger_of(task)
    fires = _fire_in_second(trigger, at) is not None
    plan = (
        Said("that moment is still to come; it fires then", "那个时刻还没有到；它将在那时触发")
        if fires and task.is_active
        else Said("that moment is still to come; it does not fire then", "那个时刻还没有到；它在那时不触发")
    )
    hours = hours_of(task.run_window, task.calendar, task.timezone)
    closed_by = None if hours is None else hours.closed_by(at)
    if closed_by is None:
        return plan
    by = _CLOSED_BY[closed_by]
    if fires and task.is_active:
        fate = (
            Said("the fire waits for the next opening", "该次触发推迟到下一次开放")
            if task.closed_policy == ClosedPolicy.DEFER
            else Said("the fire will be skipped", "该次触发将被跳过")
        )
        return Said(
            f"{plan.en}, but is closed by its {by.en}: {fate.en}", f"{plan.zh}，但按{by.zh}不开放：{fate.zh}"
        )
    return Said(f"{plan.en}, and is closed by its {by.en}", f"{plan.zh}，并且按{by.zh}不开放")


def _ledger_entry(session: Session, task_id: int, at: datetime) -> Execution | None:
    """The ledger row of the fire at that very second, or the skipped row that stands for it."""
    second = at.replace(microsecond=0)
    following = second + timedelta(seconds=1)
    row = session.execute(
        select(executions)
        .where(
            executions.c.task_id == task_id,
            executions.c.scheduled_for >= second,
            executions.c.scheduled_for < following,
        )
        .order_by(executions.c.scheduled_for)
        .limit(1)
    ).first()
    if row is None:
        row = session.execute(
            select(executions)
            .where(
                executions.c.task_id == task_id,
                executions.c.fire_count > literal_column("1"),  # word for word as in the index on spans
                # An interval fires within a second, and is told and asked about by whole ones.
                executions.c.first_fire_at < following,
                executions.c.scheduled_for >= second,
            )
            .order_by(executions.c.scheduled_for)
            .limit(1)
        ).first()
    return Execution.from_row(row) if row is not None else None


def _account(entry: Execution, task: ScheduledTask) -> Said:
    if entry.state is ExecutionState.SKIPPED:
        plain = entry.reason or "skipped"
        why = _SKIP_REASONS.get(plain, Said(plain, plain))
        if entry.fire_count > 1 and entry.first_fire_at is not None and entry.scheduled_for is not None:
            first, last = _local(entry.first_fire_at, task), _local(entry.scheduled_for, task)
            return Said(
                f"it was skipped, one of {entry.fire_count} fires from {first} to {last}: {why.en}."
                f" Execution {entry.id}.",
                f"它被跳过，是 {first} 至 {last} 的 {entry.fire_count} 次触发之一：{why.zh}。执行 {entry.id}。",
            )
        return Said(f"it was skipped: {why.en}. Execution {entry.id}.", f"它被跳过：{why.zh}。执行 {entry.id}。")
    state = _STATES[entry.state]
    if entry.state in WAITING_STATES and entry.reason in _WAIT_REASONS:
        until, state = _local(entry.run_at, task), _WAIT_REASONS[entry.reason]
        state = Said(f"{state.en}, until {until}", f"{state.zh}，直到 {until}")
    english, chinese = f"{state.en}, as execution {entry.id}", f"{state.zh}，即执行 {entry.id}"
    if entry.started_at is not None:
        started = _local(entry.started_at, task)
        english, chinese = f"{english}, started {started}", f"{chinese}，开始于 {started}"
    if entry.state is ExecutionState.SUSPENDED:
        if entry.run_at < NEVER:
            due = _local(entry.run_at, task)
            english, chinese = f"{english}; it goes on at {due} at the latest", f"{chinese}；最迟 {due} 继续"
    elif entry.reason:
        english, chinese = f"{english}, reason {entry.reason}", f"{chinese}，原因 {entry.reason}"
    if entry.error:
        english, chinese = f"{english}, error: {entry.error}", f"{chinese}，错误：{entry.error}"
    return Said(f"{english}.", f"{chinese}。")


def _absence(task: ScheduledTask, at: datetime, now: datetime) -> Said:
    """Why the ledger has no row for that moment: the first cause that applies."""
    if task.schedule_type is None:
        return Said("it has no schedule; it runs only when asked to.", "它没有计划，只在被要求时运行。")
    with suppress(InvalidRequest):  # what follows says what cannot be read
        at = _fire_in_second(trigger_of(task), at) or at
    if at > now:
        outlook = _outlook(task)
        try:
            then = _to_come(task, at)
        except InvalidRequest:  # the outlook says what cannot be read
            then = Said("that moment is still to come", "那个时刻还没有到")
        return Said(f"{then.en}. It {outlook.en}", f"{then.zh}。它{outlook.zh}")
    if at < task.created_at:
        made = _local(task.created_at, task)
        return Said(f"the task was made later, at {made}.", f"任务在那之后才创建，于 {made}。")
    if task.schedule_error is not None:
        error = task.schedule_error
        return Said(f"its schedule cannot be read: {error}", f"它的计划无法解析：{error}")
    trigger = trigger_of(task)
    changed = _local(task.updated_at, task)
    if trigger is not None and _fire_in_second(trigger, at) is None:
        nearby = _neighbours(trigger, at, task)
        return Said(f"its schedule does not fire then.{nearby.en}", f"它的计划在那时不触发。{nearby.zh}")
    if not task.is_active and at >= task.updated_at:
        return Said(f"it is paused; it was last changed at {changed}.", f"它已暂停，最后修改于 {changed}。")
    if at < task.updated_at:
        return Said(
            f"the task was changed later, at {changed}; before that it was paused or had another schedule.",
            f"任务后来于 {changed} 修改过；在那之前它是暂停的，或计划不同。",
        )
    if task.next_run_at is not None and task.next_run_at <= at:
        return Said(
            "it is due, and no running scheduler has fired it yet: start one, it will catch up.",
            "它已到期，但还没有运行中的调度器触发它：请启动一个，它会补上。",
        )
    return Said(
        "its record is older than the retention, or has been deleted.", "它的记录已超过保留期，或已被删除。"
    )


def _fire_in_second(trigger: ScheduleTrigger | None, at: datetime) -> datetime | None:
    """The fire in the second that `at` names: that of an interval is anywhere within it."""
    second = at.replace(microsecond=0)
    fire = trigger.next_after(second - timedelta(microseconds=1)) if trigger is not None else None
    return fire if fire is not None and fire < second + timedelta(seconds=1) else None


def _neighbours(trigger: ScheduleTrigger, at: datetime, task: ScheduledTask) -> Said:
    before, after = trigger.last_at_or_before(at), trigger.next_after(at)
    names: list[Said] = []
    if before is not None:
        names.append(Said(f"the fire before is {_local(before, task)}", f"之前一次是 {_local(before, task)}"))
    if after is not None:
        names.append(Said(f"the fire after is {_local(after, task)}", f"之后一次是 {_local(after, task)}"))
    if not names:
        return Said("", "")
    return Said(f" Nearby: {', '.join(name.en for name in names)}.", f"{'，'.join(name.zh for name in names)}。")
