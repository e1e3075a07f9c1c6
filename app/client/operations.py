"""Each operation of the API as a method. Generated: see `python -m app.client.generate`."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from datetime import datetime
from types import NoneType
from typing import Any, Literal

from app.api.alerts import AlertAnswer, AlertChannelAnswer, AlertPage, AlertRuleAnswer
from app.api.approvals import LinkAnswer, QuestionPage
from app.api.doctor import ScheduleReport
from app.api.pool import PoolAnswer, PoolPage
from app.api.schemas import (
    BackfillAnswer,
    BackfillCancelled,
    BulkAnswer,
    CalendarAnswer,
    EnqueuedAnswer,
    EnqueueRequest,
    ExecutionAnswer,
    ExecutionDetail,
    ExecutionPage,
    ExecutorAnswer,
    ExecutorStatistics,
    Explanation,
    FindingAnswer,
    FireAnswer,
    FlowAnswer,
    Health,
    LogPage,
    NewToken,
    NodeAnswer,
    PreviewAnswer,
    SettingAnswer,
    SignalAnswer,
    StatisticsAnswer,
    StatusAnswer,
    TaskAnswer,
    TaskChangePage,
    TaskPage,
    TaskRuns,
    TokenAnswer,
)
from app.api.session import SessionAnswer
from app.api.workflows import WorkflowGraph
from app.client.sending import UNSET, T, Unset, path_part
from app.models.content_pool import PoolState
from app.models.task_execution import ExecutionState
from app.scheduler.alerting.conditions import Failed, Late, NoSuccess, Parked, Slow
from app.scheduler.alerting.definitions import QuietSpan
from app.scheduler.alerting.store import Openness
from app.scheduler.pace import Pace
from app.scheduler.policies import MisfirePolicy, OverlapPolicy, RetryPolicy
from app.scheduler.rates import RateLimit
from app.scheduler.repeats import Debounce, Once, Throttle
from app.scheduler.schedules import AtSchedule, CronSchedule, DstPolicy, IntervalSchedule
from app.scheduler.statistics import Period
from app.scheduler.tasks import TaskOrder
from app.scheduler.windows import Calendar, ClosedPolicy, RunWindow


class Operations(ABC):
    """All operations, blocking."""

    @abstractmethod
    def _call(
        self,
        method: str,
        path: str,
        answer: type[T],
        *,
        query: Mapping[str, Any] = {},
        headers: Mapping[str, Any] = {},
        body: Any = None,
    ) -> T: ...

    def list_tasks(
        self,
        *,
        task_type: str | None = None,
        is_active: bool | None = None,
        last_state: ExecutionState | None = None,
        search: str | None = None,
        order: TaskOrder = TaskOrder.ID,
        cursor: str | None = None,
        limit: int = 50,
    ) -> TaskPage:
        """Tasks; by id: in the order they were made."""
        return self._call(
            "GET",
            "/api/v1/scheduler/tasks",
            TaskPage,
            query={
                "task_type": task_type,
                "is_active": is_active,
                "last_state": last_state,
                "search": search,
                "order": order,
                "cursor": cursor,
                "limit": limit,
            },
        )

    def create_task(
        self,
        name: str,
        task_type: str,
        *,
        description: str | Unset = UNSET,
        params: dict[str, Any] | Unset = UNSET,
        schedule: CronSchedule | IntervalSchedule | AtSchedule | Unset | None = UNSET,
        timezone: str | Unset = UNSET,
        dst_policy: DstPolicy | Unset = UNSET,
        start_at: datetime | Unset | None = UNSET,
        end_at: datetime | Unset | None = UNSET,
        jitter_seconds: float | Unset = UNSET,
        is_active: bool | Unset = UNSET,
        priority: int | Unset = UNSET,
        timeout_seconds: float | Unset | None = UNSET,
        retry: RetryPolicy | Unset | None = UNSET,
        misfire_policy: MisfirePolicy | Unset = UNSET,
        misfire_grace_seconds: float | Unset = UNSET,
        overlap_policy: OverlapPolicy | Unset = UNSET,
        concurrency_key: str | Unset | None = UNSET,
        concurrency_limit: int | Unset | None = UNSET,
        rate_limit: RateLimit | Unset | None = UNSET,
        run_window: RunWindow | Unset | None = UNSET,
        calendar: Calendar | Unset | None = UNSET,
        closed_policy: ClosedPolicy | Unset = UNSET,
    ) -> TaskAnswer:
        """Store a task and arm its schedule. Nothing is stored unless every field is right."""
        return self._call(
            "POST",
            "/api/v1/scheduler/tasks",
            TaskAnswer,
            body={
                "name": name,
                "description": description,
                "task_type": task_type,
                "params": params,
                "schedule": schedule,
                "timezone": timezone,
                "dst_policy": dst_policy,
                "start_at": start_at,
                "end_at": end_at,
                "jitter_seconds": jitter_seconds,
                "is_active": is_active,
                "priority": priority,
                "timeout_seconds": timeout_seconds,
                "retry": retry,
                "misfire_policy": misfire_policy,
                "misfire_grace_seconds": misfire_grace_seconds,
                "overlap_policy": overlap_policy,
                "concurrency_key": concurrency_key,
                "concurrency_limit": concurrency_limit,
                "rate_limit": rate_limit,
                "run_window": run_window,
                "calendar": calendar,
                "closed_policy": closed_policy,
            },
        )

    def preview_definition(
        self,
        *,
        name: str | Unset | None = UNSET,
        description: str | Unset | None = UNSET,
        task_type: str | Unset | None = UNSET,
        params: dict[str, Any] | Unset | None = UNSET,
        schedule: CronSchedule | IntervalSchedule | AtSchedule | Unset | None = UNSET,
        timezone: str | Unset | None = UNSET,
        dst_policy: DstPolicy | Unset | None = UNSET,
        start_at: datetime | Unset | None = UNSET,
        end_at: datetime | Unset | None = UNSET,
        jitter_seconds: float | Unset | None = UNSET,
        is_active: bool | Unset | None = UNSET,
        priority: int | Unset | None = UNSET,
        timeout_seconds: float | Unset | None = UNSET,
        retry: RetryPolicy | Unset | None = UNSET,
        misfire_policy: MisfirePolicy | Unset | None = UNSET,
        misfire_grace_seconds: float | Unset | None = UNSET,
        overlap_policy: OverlapPolicy | Unset | None = UNSET,
        concurrency_key: str | Unset | None = UNSET,
        concurrency_limit: int | Unset | None = UNSET,
        rate_limit: RateLimit | Unset | None = UNSET,
        run_window: RunWindow | Unset | None = UNSET,
        calendar: Calendar | Unset | None = UNSET,
        closed_policy: ClosedPolicy | Unset | None = UNSET,
        count: int = 10,
        language: Literal["en", "zh"] = "en",
        anchor: datetime | None = None,
    ) -> PreviewAnswer:
        """What a schedule would do, in words and moments; nothing is stored."""
        return self._call(
            "POST",
            "/api/v1/scheduler/tasks/preview",
            PreviewAnswer,
            query={"count": count, "language": language, "anchor": anchor},
            body={
                "name": name,
                "description": description,
                "task_type": task_type,
                "params": params,
                "schedule": schedule,
                "timezone": timezone,
                "dst_policy": dst_policy,
                "start_at": start_at,
                "end_at": end_at,
                "jitter_seconds": jitter_seconds,
                "is_active": is_active,
                "priority": priority,
                "timeout_seconds": timeout_seconds,
                "retry": retry,
                "misfire_policy": misfire_policy,
                "misfire_grace_seconds": misfire_grace_seconds,
                "overlap_policy": overlap_policy,
                "concurrency_key": concurrency_key,
                "concurrency_limit": concurrency_limit,
                "rate_limit": rate_limit,
                "run_window": run_window,
                "calendar": calendar,
                "closed_policy": closed_policy,
            },
        )

    def list_runs(self, task_id: Sequence[int], *, count: int = 12) -> list[TaskRuns]:
        """The last executions of each task, newest first."""
        return self._call(
            "GET", "/api/v1/scheduler/tasks/runs", list[TaskRuns], query={"task_id": task_id, "count": count}
        )

    def get_task(self, task_id: int) -> TaskAnswer:
        """One task; its version is in the ETag."""
        return self._call("GET", f"/api/v1/scheduler/tasks/{path_part(task_id)}", TaskAnswer)

    def update_task(
        self,
        task_id: int,
        *,
        name: str | Unset | None = UNSET,
        description: str | Unset | None = UNSET,
        task_type: str | Unset | None = UNSET,
        params: dict[str, Any] | Unset | None = UNSET,
        schedule: CronSchedule | IntervalSchedule | AtSchedule | Unset | None = UNSET,
        timezone: str | Unset | None = UNSET,
        dst_policy: DstPolicy | Unset | None = UNSET,
        start_at: datetime | Unset | None = UNSET,
        end_at: datetime | Unset | None = UNSET,
        jitter_seconds: float | Unset | None = UNSET,
        is_active: bool | Unset | None = UNSET,
        priority: int | Unset | None = UNSET,
        timeout_seconds: float | Unset | None = UNSET,
        retry: RetryPolicy | Unset | None = UNSET,
        misfire_policy: MisfirePolicy | Unset | None = UNSET,
        misfire_grace_seconds: float | Unset | None = UNSET,
        overlap_policy: OverlapPolicy | Unset | None = UNSET,
        concurrency_key: str | Unset | None = UNSET,
        concurrency_limit: int | Unset | None = UNSET,
        rate_limit: RateLimit | Unset | None = UNSET,
        run_window: RunWindow | Unset | None = UNSET,
        calendar: Calendar | Unset | None = UNSET,
        closed_policy: ClosedPolicy | Unset | None = UNSET,
        if_match: str | None = None,
    ) -> TaskAnswer:
        """Change the fields that are sent. Limits (`rate_limit`, `concurrency_key`, `concurrency_limit`) hold
        for what waits too, everything else from the next fire on. Masked secrets stay what they are; who
        changes params beside them and is no admin writes them anew. Send `If-Match` so that nobody's change
        in between is overwritten.
        """
        return self._call(
            "PATCH",
            f"/api/v1/scheduler/tasks/{path_part(task_id)}",
            TaskAnswer,
            headers={"if-match": if_match},
            body={
                "name": name,
                "description": description,
                "task_type": task_type,
                "params": params,
                "schedule": schedule,
                "timezone": timezone,
                "dst_policy": dst_policy,
                "start_at": start_at,
                "end_at": end_at,
                "jitter_seconds": jitter_seconds,
                "is_active": is_active,
                "priority": priority,
                "timeout_seconds": timeout_seconds,
                "retry": retry,
                "misfire_policy": misfire_policy,
                "misfire_grace_seconds": misfire_grace_seconds,
                "overlap_policy": overlap_policy,
                "concurrency_key": concurrency_key,
                "concurrency_limit": concurrency_limit,
                "rate_limit": rate_limit,
                "run_window": run_window,
                "calendar": calendar,
                "closed_policy": closed_policy,
            },
        )

    def delete_task(self, task_id: int, *, if_match: str | None = None) -> None:
        """Delete the task and cancel what waits; its history stays. One that the code declares comes back at
        the next start.
        """
        self._call(
            "DELETE", f"/api/v1/scheduler/tasks/{path_part(task_id)}", NoneType, headers={"if-match": if_match}
        )

    def run_task(self, task_id: int, *, params: dict[str, Any] | Unset | None = UNSET) -> ExecutionAnswer:
        """Fire the task now, under its own policies: it may be skipped because an earlier run is not over."""
        return self._call(
            "POST", f"/api/v1/scheduler/tasks/{path_part(task_id)}/run", ExecutionAnswer, body={"params": params}
        )

    def preview_backfill(self, task_id: int, start: datetime, end: datetime) -> BackfillAnswer:
        """Which fires of a past range a backfill would record, and which the ledger has already."""
        return self._call(
            "POST",
            f"/api/v1/scheduler/tasks/{path_part(task_id)}/backfill/preview",
            BackfillAnswer,
            body={"start": start, "end": end},
        )

    def backfill_task(
        self, task_id: int, start: datetime, end: datetime, *, pace: Pace | Unset = UNSET
    ) -> BackfillAnswer:
        """Record the fires of a past range that the ledger lacks and run them at a pace, oldest first."""
        return self._call(
            "POST",
            f"/api/v1/scheduler/tasks/{path_part(task_id)}/backfill",
            BackfillAnswer,
            body={"start": start, "end": end, "pace": pace},
        )

    def cancel_backfill(self, task_id: int) -> BackfillCancelled:
        """End what is left of the backfills of a task: what waits at once, what runs as soon as its code lets
        go. The schedule goes on.
        """
        return self._call(
            "POST", f"/api/v1/scheduler/tasks/{path_part(task_id)}/backfill/cancel", BackfillCancelled
        )

    def pause_task(self, task_id: int) -> TaskAnswer:
        """Stop firing; what is under way goes on."""
        return self._call("POST", f"/api/v1/scheduler/tasks/{path_part(task_id)}/pause", TaskAnswer)

    def resume_task(self, task_id: int) -> TaskAnswer:
        """Fire again from now on."""
        return self._call("POST", f"/api/v1/scheduler/tasks/{path_part(task_id)}/resume", TaskAnswer)

    def explain_task(
        self, task_id: int, *, at: datetime | None = None, language: Literal["en", "zh"] = "en"
    ) -> Explanation:
        """Why it ran, or did not, at that moment; without `at`: what it does next."""
        return self._call(
            "GET",
            f"/api/v1/scheduler/tasks/{path_part(task_id)}/explain",
            Explanation,
            query={"at": at, "language": language},
        )

    def list_changes(self, task_id: int, *, cursor: str | None = None, limit: int = 50) -> TaskChangePage:
        """Who changed the task, when, and what it was before; newest first. A deleted task's history remains."""
        return self._call(
            "GET",
            f"/api/v1/scheduler/tasks/{path_part(task_id)}/changes",
            TaskChangePage,
            query={"cursor": cursor, "limit": limit},
        )

    def preview_task(
        self, task_id: int, *, count: int = 10, language: Literal["en", "zh"] = "en"
    ) -> PreviewAnswer:
        """The task's next fires, in words and moments."""
        return self._call(
            "GET",
            f"/api/v1/scheduler/tasks/{path_part(task_id)}/preview",
            PreviewAnswer,
            query={"count": count, "language": language},
        )

    def list_executions(
        self,
        *,
        state: Sequence[ExecutionState] | None = None,
        task_id: int | None = None,
        parent_id: int | None = None,
        task_type: str | None = None,
        trigger: str | None = None,
        since: datetime | None = None,
        until: datetime | None = None,
        search: str | None = None,
        cursor: str | None = None,
        limit: int = 50,
    ) -> ExecutionPage:
        """Executions in short, newest first: ask for one to read its params and its result. A page of a search
        may hold fewer than `limit` and yet not be the last: go on while there is a `next_cursor`.
        """
        return self._call(
            "GET",
            "/api/v1/scheduler/executions",
            ExecutionPage,
            query={
                "state": state,
                "task_id": task_id,
                "parent_id": parent_id,
                "task_type": task_type,
                "trigger": trigger,
                "since": since,
                "until": until,
                "search": search,
                "cursor": cursor,
                "limit": limit,
            },
        )

    def enqueue_execution(
        self,
        task_type: str,
        *,
        params: dict[str, Any] | Unset = UNSET,
        run_at: datetime | Unset | None = UNSET,
        priority: int | Unset = UNSET,
        idempotency_key: str | Unset | None = UNSET,
        max_attempts: int | Unset | None = UNSET,
        timeout_seconds: float | Unset | None = UNSET,
        concurrency_key: str | Unset | None = UNSET,
        concurrency_limit: int | Unset | None = UNSET,
        rate_limit: RateLimit | Unset | None = UNSET,
        rate_limit_key: str | Unset | None = UNSET,
        repeats: Debounce | Throttle | Once | Unset | None = UNSET,
    ) -> EnqueuedAnswer:
        """Record a request; it is durable when this answers. A repeated `Idempotency-Key` returns the first
        one; what else a repeated request does, `repeats` says. The answer `is_repeat` where an earlier
        request stands for it.
        """
        return self._call(
            "POST",
            "/api/v1/scheduler/executions",
            EnqueuedAnswer,
            body={
                "task_type": task_type,
                "params": params,
                "run_at": run_at,
                "priority": priority,
                "idempotency_key": idempotency_key,
                "max_attempts": max_attempts,
                "timeout_seconds": timeout_seconds,
                "concurrency_key": concurrency_key,
                "concurrency_limit": concurrency_limit,
                "rate_limit": rate_limit,
                "rate_limit_key": rate_limit_key,
                "repeats": repeats,
            },
        )

    def enqueue_many(self, items: list[EnqueueRequest]) -> BulkAnswer:
        """Record up to 10,000 requests, all of them or none. A refusal names the items:
        `items.17.params.topic`.
        """
        return self._call("POST", "/api/v1/scheduler/executions/bulk", BulkAnswer, body={"items": items})

    def get_execution(self, execution_id: int) -> ExecutionDetail:
        """One execution with its attempts, its steps and signals, its parent and its children."""
        return self._call("GET", f"/api/v1/scheduler/executions/{path_part(execution_id)}", ExecutionDetail)

    def get_logs(self, execution_id: int, *, after: int = 0, limit: int = 500) -> LogPage:
        """The kept log lines, oldest first; ask again with `after` to follow them."""
        return self._call(
            "GET",
            f"/api/v1/scheduler/executions/{path_part(execution_id)}/logs",
            LogPage,
            query={"after": after, "limit": limit},
        )

    def cancel_execution(self, execution_id: int) -> ExecutionAnswer:
        """A waiting one is cancelled at once; a running one as soon as its code lets go. Its children go with
        it.
        """
        return self._call(
            "POST", f"/api/v1/scheduler/executions/{path_part(execution_id)}/cancel", ExecutionAnswer
        )

    def retry_execution(self, execution_id: int) -> ExecutionAnswer:
        """Run a failed, cancelled or parked execution again, as a further attempt: from the step that failed."""
        return self._call("POST", f"/api/v1/scheduler/executions/{path_part(execution_id)}/retry", ExecutionAnswer)

    def signal_execution(self, execution_id: int, name: str, *, payload: Any | Unset = UNSET) -> SignalAnswer:
        """What its code waits for, or will wait for: the signal is kept until then, and taken once."""
        return self._call(
            "POST",
            f"/api/v1/scheduler/executions/{path_part(execution_id)}/signals",
            SignalAnswer,
            body={"name": name, "payload": payload},
        )

    def get_workflow(self, execution_id: int) -> WorkflowGraph:
        """How far each step is; 404 where the execution is no workflow. `data` is null throughout where the
        params and results of the steps are too large to be shown together.
        """
        return self._call("GET", f"/api/v1/scheduler/executions/{path_part(execution_id)}/workflow", WorkflowGraph)

    def list_approvals(self, *, cursor: str | None = None, limit: int = 50) -> QuestionPage:
        """Approvals that nobody has decided yet, oldest first."""
        return self._call(
            "GET", "/api/v1/scheduler/approvals", QuestionPage, query={"cursor": cursor, "limit": limit}
        )

    def decide_approval(
        self, execution_id: int, *, approved: bool, comment: str | Unset = UNSET
    ) -> ExecutionAnswer:
        """Once; the execution goes on, and its result says who decided, when and what."""
        return self._call(
            "POST",
            f"/api/v1/scheduler/executions/{path_part(execution_id)}/decision",
            ExecutionAnswer,
            body={"approved": approved, "comment": comment},
        )

    def make_approval_link(
        self, execution_id: int, *, name: str | Unset | None = UNSET, lifetime_seconds: float | Unset = UNSET
    ) -> LinkAnswer:
        """Whoever has the link can decide this approval, once, without a token. Send it to nobody else."""
        return self._call(
            "POST",
            f"/api/v1/scheduler/approvals/{path_part(execution_id)}/links",
            LinkAnswer,
            body={"name": name, "lifetime_seconds": lifetime_seconds},
        )

    def list_pool(
        self, *, state: Sequence[PoolState] | None = None, cursor: str | None = None, limit: int = 50
    ) -> PoolPage:
        """Entries, newest first."""
        return self._call(
            "GET", "/api/v1/scheduler/pool", PoolPage, query={"state": state, "cursor": cursor, "limit": limit}
        )

    def change_pool_entry(
        self, entry_id: int, *, priority: int | Unset | None = UNSET, not_before: datetime | Unset | None = UNSET
    ) -> PoolAnswer:
        """Another priority or moment, while it waits."""
        return self._call(
            "PATCH",
            f"/api/v1/scheduler/pool/{path_part(entry_id)}",
            PoolAnswer,
            body={"priority": priority, "not_before": not_before},
        )

    def withdraw_pool_entry(self, entry_id: int) -> PoolAnswer:
        """It will not go out, unless it is added again."""
        return self._call("POST", f"/api/v1/scheduler/pool/{path_part(entry_id)}/withdraw", PoolAnswer)

    def get_flow(self) -> FlowAnswer:
        """Rate limits, concurrency keys and circuit breakers with their present level, busiest first."""
        return self._call("GET", "/api/v1/scheduler/flow", FlowAnswer)

    def reset_circuit(self, task_type: str) -> FlowAnswer:
        """Close the circuit of an executor: what waits for it may start at once, and its past is forgiven."""
        return self._call("POST", f"/api/v1/scheduler/flow/circuits/{path_part(task_type)}/reset", FlowAnswer)

    def list_findings(self) -> list[FindingAnswer]:
        """What a person should look at first, worst first: late fires, failing tasks, dead nodes …"""
        return self._call("GET", "/api/v1/scheduler/attention", list[FindingAnswer])

    def get_statistics(
        self, *, period: Period = Period.DAY, task_id: int | None = None, task_type: str | None = None
    ) -> StatisticsAnswer:
        """Executions that ended in the last hour, day or week, by state and step, with durations."""
        return self._call(
            "GET",
            "/api/v1/scheduler/statistics",
            StatisticsAnswer,
            query={"period": period, "task_id": task_id, "task_type": task_type},
        )

    def get_executor_statistics(self, *, period: Period = Period.DAY) -> list[ExecutorStatistics]:
        """What ended in the period, by executor type."""
        return self._call(
            "GET", "/api/v1/scheduler/statistics/executors", list[ExecutorStatistics], query={"period": period}
        )

    def list_fires(self, *, limit: int = 20, per_task: int | None = None) -> list[FireAnswer]:
        """The next fires of all active tasks, in order."""
        return self._call(
            "GET", "/api/v1/scheduler/fires", list[FireAnswer], query={"limit": limit, "per_task": per_task}
        )

    def get_calendar(self, *, hours: int = 168, limit: int = 200, minute: int = 0) -> CalendarAnswer:
        """The fires of each hour to come, by task; the first hour is the one that runs now."""
        return self._call(
            "GET",
            "/api/v1/scheduler/calendar",
            CalendarAnswer,
            query={"hours": hours, "limit": limit, "minute": minute},
        )

    def examine_schedules(self, *, days: int = 30, language: Literal["en", "zh"] = "en") -> ScheduleReport:
        """The coming days of all active tasks: herds and the jitter that levels them, fires where clocks
        change, runs that overlap, limits that cannot be kept, tasks that never fire.
        """
        return self._call(
            "GET", "/api/v1/scheduler/doctor/schedules", ScheduleReport, query={"days": days, "language": language}
        )

    def list_alerts(
        self,
        *,
        state: Openness = Openness.OPEN,
        rule_id: int | None = None,
        task_id: int | None = None,
        cursor: str | None = None,
        limit: int = 50,
        language: Literal["en", "zh"] = "en",
    ) -> AlertPage:
        """Alerts, newest first; by default those that are open."""
        return self._call(
            "GET",
            "/api/v1/scheduler/alerts",
            AlertPage,
            query={
                "state": state,
                "rule_id": rule_id,
                "task_id": task_id,
                "cursor": cursor,
                "limit": limit,
                "language": language,
            },
        )

    def get_alert(self, alert_id: int, *, language: Literal["en", "zh"] = "en") -> AlertAnswer:
        """One alert. Its deliveries are executions of `alert_delivery`."""
        return self._call(
            "GET", f"/api/v1/scheduler/alerts/{path_part(alert_id)}", AlertAnswer, query={"language": language}
        )

    def acknowledge_alert(self, alert_id: int, *, language: Literal["en", "zh"] = "en") -> AlertAnswer:
        """Somebody knows: no reminders from now on; its end is told all the same."""
        return self._call(
            "POST",
            f"/api/v1/scheduler/alerts/{path_part(alert_id)}/acknowledge",
            AlertAnswer,
            query={"language": language},
        )

    def list_alert_rules(self) -> list[AlertRuleAnswer]:
        """All rules, by name."""
        return self._call("GET", "/api/v1/scheduler/alert-rules", list[AlertRuleAnswer])

    def create_alert_rule(
        self,
        name: str,
        condition: Failed | Late | Slow | NoSuccess | Parked,
        *,
        task_id: int | Unset | None = UNSET,
        severity: Literal["warning", "critical"] | Unset = UNSET,
        channel_ids: list[int] | Unset = UNSET,
        remind_seconds: float | Unset | None = UNSET,
        notify_recovery: bool | Unset = UNSET,
        quiet_hours: QuietSpan | Unset | None = UNSET,
        check_seconds: float | Unset = UNSET,
        is_active: bool | Unset = UNSET,
    ) -> AlertRuleAnswer:
        """Store a rule. It is checked within seconds, by one of the nodes."""
        return self._call(
            "POST",
            "/api/v1/scheduler/alert-rules",
            AlertRuleAnswer,
            body={
                "name": name,
                "task_id": task_id,
                "condition": condition,
                "severity": severity,
                "channel_ids": channel_ids,
                "remind_seconds": remind_seconds,
                "notify_recovery": notify_recovery,
                "quiet_hours": quiet_hours,
                "check_seconds": check_seconds,
                "is_active": is_active,
            },
        )

    def get_alert_rule(self, rule_id: int) -> AlertRuleAnswer:
        """One rule."""
        return self._call("GET", f"/api/v1/scheduler/alert-rules/{path_part(rule_id)}", AlertRuleAnswer)

    def update_alert_rule(
        self,
        rule_id: int,
        *,
        name: str | Unset | None = UNSET,
        task_id: int | Unset | None = UNSET,
        condition: Failed | Late | Slow | NoSuccess | Parked | Unset | None = UNSET,
        severity: Literal["warning", "critical"] | Unset | None = UNSET,
        channel_ids: list[int] | Unset | None = UNSET,
        remind_seconds: float | Unset | None = UNSET,
        notify_recovery: bool | Unset | None = UNSET,
        quiet_hours: QuietSpan | Unset | None = UNSET,
        check_seconds: float | Unset | None = UNSET,
        is_active: bool | Unset | None = UNSET,
    ) -> AlertRuleAnswer:
        """Change the fields that are sent. A rule that is paused (`is_active: false`) closes its alerts."""
        return self._call(
            "PATCH",
            f"/api/v1/scheduler/alert-rules/{path_part(rule_id)}",
            AlertRuleAnswer,
            body={
                "name": name,
                "task_id": task_id,
                "condition": condition,
                "severity": severity,
                "channel_ids": channel_ids,
                "remind_seconds": remind_seconds,
                "notify_recovery": notify_recovery,
                "quiet_hours": quiet_hours,
                "check_seconds": check_seconds,
                "is_active": is_active,
            },
        )

    def delete_alert_rule(self, rule_id: int) -> None:
        """Delete the rule and close its alerts, which stay in the list."""
        self._call("DELETE", f"/api/v1/scheduler/alert-rules/{path_part(rule_id)}", NoneType)

    def silence_alert_rule(self, rule_id: int, until: datetime | None) -> AlertRuleAnswer:
        """Hold the rule's notices: alerts open and end, and what is still open afterwards is told then."""
        return self._call(
            "POST",
            f"/api/v1/scheduler/alert-rules/{path_part(rule_id)}/silence",
            AlertRuleAnswer,
            body={"until": until},
        )

    def list_alert_channels(self) -> list[AlertChannelAnswer]:
        """All channels, by name, without their URLs."""
        return self._call("GET", "/api/v1/scheduler/alert-channels", list[AlertChannelAnswer])

    def create_alert_channel(
        self,
        name: str,
        url: str,
        *,
        language: Literal["en", "zh"] | Unset = UNSET,
        is_active: bool | Unset = UNSET,
    ) -> AlertChannelAnswer:
        """Store a receiver by its apprise URL, which is never shown again."""
        return self._call(
            "POST",
            "/api/v1/scheduler/alert-channels",
            AlertChannelAnswer,
            body={"name": name, "url": url, "language": language, "is_active": is_active},
        )

    def get_alert_channel(self, channel_id: int) -> AlertChannelAnswer:
        """One channel, without its URL."""
        return self._call("GET", f"/api/v1/scheduler/alert-channels/{path_part(channel_id)}", AlertChannelAnswer)

    def update_alert_channel(
        self,
        channel_id: int,
        *,
        name: str | Unset | None = UNSET,
        url: str | Unset | None = UNSET,
        language: Literal["en", "zh"] | Unset | None = UNSET,
        is_active: bool | Unset | None = UNSET,
    ) -> AlertChannelAnswer:
        """Change the fields that are sent. A masked URL stays what it is."""
        return self._call(
            "PATCH",
            f"/api/v1/scheduler/alert-channels/{path_part(channel_id)}",
            AlertChannelAnswer,
            body={"name": name, "url": url, "language": language, "is_active": is_active},
        )

    def delete_alert_channel(self, channel_id: int) -> None:
        """Delete it; rules that used it go on without."""
        self._call("DELETE", f"/api/v1/scheduler/alert-channels/{path_part(channel_id)}", NoneType)

    def test_alert_channel(self, channel_id: int) -> ExecutionAnswer:
        """Send a test message; the execution says whether it was taken."""
        return self._call(
            "POST", f"/api/v1/scheduler/alert-channels/{path_part(channel_id)}/test", ExecutionAnswer
        )

    def list_executors(self) -> list[ExecutorAnswer]:
        """The registered executors, with the JSON Schema of their params where they declare one."""
        return self._call("GET", "/api/v1/scheduler/executors", list[ExecutorAnswer])

    def list_nodes(self, *, stopped_since: datetime | None = None) -> list[NodeAnswer]:
        """The processes that run an engine on this database."""
        return self._call(
            "GET", "/api/v1/scheduler/nodes", list[NodeAnswer], query={"stopped_since": stopped_since}
        )

    def get_status(self) -> StatusAnswer:
        """How this process and its database stand."""
        return self._call("GET", "/api/v1/scheduler/status", StatusAnswer)

    def get_session(self) -> SessionAnswer:
        """The caller, by whatever means."""
        return self._call("GET", "/api/v1/scheduler/session", SessionAnswer)

    def sign_in(self, token: str) -> SessionAnswer:
        """Exchange a token for a session cookie: signed, HttpOnly, SameSite=Strict."""
        return self._call("POST", "/api/v1/scheduler/session", SessionAnswer, body={"token": token})

    def sign_out(self) -> None:
        """Forget the cookie. Revoking the token ends all its sessions everywhere."""
        self._call("DELETE", "/api/v1/scheduler/session", NoneType)

    def list_settings(self) -> list[SettingAnswer]:
        """Every setting of this process, secrets masked."""
        return self._call("GET", "/api/v1/scheduler/settings", list[SettingAnswer])

    def list_api_tokens(self) -> list[TokenAnswer]:
        """All tokens, revoked ones too, oldest first."""
        return self._call("GET", "/api/v1/scheduler/tokens", list[TokenAnswer])

    def make_token(self, name: str, role: Literal["viewer", "operator", "admin"]) -> NewToken:
        """The answer is the only time that the token can be read."""
        return self._call("POST", "/api/v1/scheduler/tokens", NewToken, body={"name": name, "role": role})

    def end_token(self, name: str) -> None:
        """End a token and every browser session made with it."""
        self._call("DELETE", f"/api/v1/scheduler/tokens/{path_part(name)}", NoneType)

    def live(self) -> Health:
        """Answers while the event loop turns; asks nothing of the database."""
        return self._call("GET", "/health/live", Health)

    def ready(self) -> Health:
        """The database answers, and the scheduler runs where it is enabled."""
        return self._call("GET", "/health/ready", Health)


class AsyncOperations(ABC):
    """All operations, to await."""

    @abstractmethod
    async def _call(
        self,
        method: str,
        path: str,
        answer: type[T],
        *,
        query: Mapping[str, Any] = {},
        headers: Mapping[str, Any] = {},
        body: Any = None,
    ) -> T: ...

    async def list_tasks(
        self,
        *,
        task_type: str | None = None,
        is_active: bool | None = None,
        last_state: ExecutionState | None = None,
        search: str | None = None,
        order: TaskOrder = TaskOrder.ID,
        cursor: str | None = None,
        limit: int = 50,
    ) -> TaskPage:
        """Tasks; by id: in the order they were made."""
        return await self._call(
            "GET",
            "/api/v1/scheduler/tasks",
            TaskPage,
            query={
                "task_type": task_type,
                "is_active": is_active,
                "last_state": last_state,
                "search": search,
                "order": order,
                "cursor": cursor,
                "limit": limit,
            },
        )

    async def create_task(
        self,
        name: str,
        task_type: str,
        *,
        description: str | Unset = UNSET,
        params: dict[str, Any] | Unset = UNSET,
        schedule: CronSchedule | IntervalSchedule | AtSchedule | Unset | None = UNSET,
        timezone: str | Unset = UNSET,
        dst_policy: DstPolicy | Unset = UNSET,
        start_at: datetime | Unset | None = UNSET,
        end_at: datetime | Unset | None = UNSET,
        jitter_seconds: float | Unset = UNSET,
        is_active: bool | Unset = UNSET,
        priority: int | Unset = UNSET,
        timeout_seconds: float | Unset | None = UNSET,
        retry: RetryPolicy | Unset | None = UNSET,
        misfire_policy: MisfirePolicy | Unset = UNSET,
        misfire_grace_seconds: float | Unset = UNSET,
        overlap_policy: OverlapPolicy | Unset = UNSET,
        concurrency_key: str | Unset | None = UNSET,
        concurrency_limit: int | Unset | None = UNSET,
        rate_limit: RateLimit | Unset | None = UNSET,
        run_window: RunWindow | Unset | None = UNSET,
        calendar: Calendar | Unset | None = UNSET,
        closed_policy: ClosedPolicy | Unset = UNSET,
    ) -> TaskAnswer:
        """Store a task and arm its schedule. Nothing is stored unless every field is right."""
        return await self._call(
            "POST",
            "/api/v1/scheduler/tasks",
            TaskAnswer,
            body={
                "name": name,
                "description": description,
                "task_type": task_type,
                "params": params,
                "schedule": schedule,
                "timezone": timezone,
                "dst_policy": dst_policy,
                "start_at": start_at,
                "end_at": end_at,
                "jitter_seconds": jitter_seconds,
                "is_active": is_active,
                "priority": priority,
                "timeout_seconds": timeout_seconds,
                "retry": retry,
                "misfire_policy": misfire_policy,
                "misfire_grace_seconds": misfire_grace_seconds,
                "overlap_policy": overlap_policy,
                "concurrency_key": concurrency_key,
                "concurrency_limit": concurrency_limit,
                "rate_limit": rate_limit,
                "run_window": run_window,
                "calendar": calendar,
                "closed_policy": closed_policy,
            },
        )

    async def preview_definition(
        self,
        *,
        name: str | Unset | None = UNSET,
        description: str | Unset | None = UNSET,
        task_type: str | Unset | None = UNSET,
        params: dict[str, Any] | Unset | None = UNSET,
        schedule: CronSchedule | IntervalSchedule | AtSchedule | Unset | None = UNSET,
        timezone: str | Unset | None = UNSET,
        dst_policy: DstPolicy | Unset | None = UNSET,
        start_at: datetime | Unset | None = UNSET,
        end_at: datetime | Unset | None = UNSET,
        jitter_seconds: float | Unset | None = UNSET,
        is_active: bool | Unset | None = UNSET,
        priority: int | Unset | None = UNSET,
        timeout_seconds: float | Unset | None = UNSET,
        retry: RetryPolicy | Unset | None = UNSET,
        misfire_policy: MisfirePolicy | Unset | None = UNSET,
        misfire_grace_seconds: float | Unset | None = UNSET,
        overlap_policy: OverlapPolicy | Unset | None = UNSET,
        concurrency_key: str | Unset | None = UNSET,
        concurrency_limit: int | Unset | None = UNSET,
        rate_limit: RateLimit | Unset | None = UNSET,
        run_window: RunWindow | Unset | None = UNSET,
        calendar: Calendar | Unset | None = UNSET,
        closed_policy: ClosedPolicy | Unset | None = UNSET,
        count: int = 10,
        language: Literal["en", "zh"] = "en",
        anchor: datetime | None = None,
    ) -> PreviewAnswer:
        """What a schedule would do, in words and moments; nothing is stored."""
        return await self._call(
            "POST",
            "/api/v1/scheduler/tasks/preview",
            PreviewAnswer,
            query={"count": count, "language": language, "anchor": anchor},
            body={
                "name": name,
                "description": description,
                "task_type": task_type,
                "params": params,
                "schedule": schedule,
                "timezone": timezone,
                "dst_policy": dst_policy,
                "start_at": start_at,
                "end_at": end_at,
                "jitter_seconds": jitter_seconds,
                "is_active": is_active,
                "priority": priority,
                "timeout_seconds": timeout_seconds,
                "retry": retry,
                "misfire_policy": misfire_policy,
                "misfire_grace_seconds": misfire_grace_seconds,
                "overlap_policy": overlap_policy,
                "concurrency_key": concurrency_key,
                "concurrency_limit": concurrency_limit,
                "rate_limit": rate_limit,
                "run_window": run_window,
                "calendar": calendar,
                "closed_policy": closed_policy,
            },
        )

    async def list_runs(self, task_id: Sequence[int], *, count: int = 12) -> list[TaskRuns]:
        """The last executions of each task, newest first."""
        return await self._call(
            "GET", "/api/v1/scheduler/tasks/runs", list[TaskRuns], query={"task_id": task_id, "count": count}
        )

    async def get_task(self, task_id: int) -> TaskAnswer:
        """One task; its version is in the ETag."""
        return await self._call("GET", f"/api/v1/scheduler/tasks/{path_part(task_id)}", TaskAnswer)

    async def update_task(
        self,
        task_id: int,
        *,
        name: str | Unset | None = UNSET,
        description: str | Unset | None = UNSET,
        task_type: str | Unset | None = UNSET,
        params: dict[str, Any] | Unset | None = UNSET,
        schedule: CronSchedule | IntervalSchedule | AtSchedule | Unset | None = UNSET,
        timezone: str | Unset | None = UNSET,
        dst_policy: DstPolicy | Unset | None = UNSET,
        start_at: datetime | Unset | None = UNSET,
        end_at: datetime | Unset | None = UNSET,
        jitter_seconds: float | Unset | None = UNSET,
        is_active: bool | Unset | None = UNSET,
        priority: int | Unset | None = UNSET,
        timeout_seconds: float | Unset | None = UNSET,
        retry: RetryPolicy | Unset | None = UNSET,
        misfire_policy: MisfirePolicy | Unset | None = UNSET,
        misfire_grace_seconds: float | Unset | None = UNSET,
        overlap_policy: OverlapPolicy | Unset | None = UNSET,
        concurrency_key: str | Unset | None = UNSET,
        concurrency_limit: int | Unset | None = UNSET,
        rate_limit: RateLimit | Unset | None = UNSET,
        run_window: RunWindow | Unset | None = UNSET,
        calendar: Calendar | Unset | None = UNSET,
        closed_policy: ClosedPolicy | Unset | None = UNSET,
        if_match: str | None = None,
    ) -> TaskAnswer:
        """Change the fields that are sent. Limits (`rate_limit`, `concurrency_key`, `concurrency_limit`) hold
        for what waits too, everything else from the next fire on. Masked secrets stay what they are; who
        changes params beside them and is no admin writes them anew. Send `If-Match` so that nobody's change
        in between is overwritten.
        """
        return await self._call(
            "PATCH",
            f"/api/v1/scheduler/tasks/{path_part(task_id)}",
            TaskAnswer,
            headers={"if-match": if_match},
            body={
                "name": name,
                "description": description,
                "task_type": task_type,
                "params": params,
                "schedule": schedule,
                "timezone": timezone,
                "dst_policy": dst_policy,
                "start_at": start_at,
                "end_at": end_at,
                "jitter_seconds": jitter_seconds,
                "is_active": is_active,
                "priority": priority,
                "timeout_seconds": timeout_seconds,
                "retry": retry,
                "misfire_policy": misfire_policy,
                "misfire_grace_seconds": misfire_grace_seconds,
                "overlap_policy": overlap_policy,
                "concurrency_key": concurrency_key,
                "concurrency_limit": concurrency_limit,
                "rate_limit": rate_limit,
                "run_window": run_window,
                "calendar": calendar,
                "closed_policy": closed_policy,
            },
        )

    async def delete_task(self, task_id: int, *, if_match: str | None = None) -> None:
        """Delete the task and cancel what waits; its history stays. One that the code declares comes back at
        the next start.
        """
        await self._call(
            "DELETE", f"/api/v1/scheduler/tasks/{path_part(task_id)}", NoneType, headers={"if-match": if_match}
        )

    async def run_task(self, task_id: int, *, params: dict[str, Any] | Unset | None = UNSET) -> ExecutionAnswer:
        """Fire the task now, under its own policies: it may be skipped because an earlier run is not over."""
        return await self._call(
            "POST", f"/api/v1/scheduler/tasks/{path_part(task_id)}/run", ExecutionAnswer, body={"params": params}
        )

    async def preview_backfill(self, task_id: int, start: datetime, end: datetime) -> BackfillAnswer:
        """Which fires of a past range a backfill would record, and which the ledger has already."""
        return await self._call(
            "POST",
            f"/api/v1/scheduler/tasks/{path_part(task_id)}/backfill/preview",
            BackfillAnswer,
            body={"start": start, "end": end},
        )

    async def backfill_task(
        self, task_id: int, start: datetime, end: datetime, *, pace: Pace | Unset = UNSET
    ) -> BackfillAnswer:
        """Record the fires of a past range that the ledger lacks and run them at a pace, oldest first."""
        return await self._call(
            "POST",
            f"/api/v1/scheduler/tasks/{path_part(task_id)}/backfill",
            BackfillAnswer,
            body={"start": start, "end": end, "pace": pace},
        )

    async def cancel_backfill(self, task_id: int) -> BackfillCancelled:
        """End what is left of the backfills of a task: what waits at once, what runs as soon as its code lets
        go. The schedule goes on.
        """
        return await self._call(
            "POST", f"/api/v1/scheduler/tasks/{path_part(task_id)}/backfill/cancel", BackfillCancelled
        )

    async def pause_task(self, task_id: int) -> TaskAnswer:
        """Stop firing; what is under way goes on."""
        return await self._call("POST", f"/api/v1/scheduler/tasks/{path_part(task_id)}/pause", TaskAnswer)

    async def resume_task(self, task_id: int) -> TaskAnswer:
        """Fire again from now on."""
        return await self._call("POST", f"/api/v1/scheduler/tasks/{path_part(task_id)}/resume", TaskAnswer)

    async def explain_task(
        self, task_id: int, *, at: datetime | None = None, language: Literal["en", "zh"] = "en"
    ) -> Explanation:
        """Why it ran, or did not, at that moment; without `at`: what it does next."""
        return await self._call(
            "GET",
            f"/api/v1/scheduler/tasks/{path_part(task_id)}/explain",
            Explanation,
            query={"at": at, "language": language},
        )

    async def list_changes(self, task_id: int, *, cursor: str | None = None, limit: int = 50) -> TaskChangePage:
        """Who changed the task, when, and what it was before; newest first. A deleted task's history remains."""
        return await self._call(
            "GET",
            f"/api/v1/scheduler/tasks/{path_part(task_id)}/changes",
            TaskChangePage,
            query={"cursor": cursor, "limit": limit},
        )

    async def preview_task(
        self, task_id: int, *, count: int = 10, language: Literal["en", "zh"] = "en"
    ) -> PreviewAnswer:
        """The task's next fires, in words and moments."""
        return await self._call(
            "GET",
            f"/api/v1/scheduler/tasks/{path_part(task_id)}/preview",
            PreviewAnswer,
            query={"count": count, "language": language},
        )

    async def list_executions(
        self,
        *,
        state: Sequence[ExecutionState] | None = None,
        task_id: int | None = None,
        parent_id: int | None = None,
        task_type: str | None = None,
        trigger: str | None = None,
        since: datetime | None = None,
        until: datetime | None = None,
        search: str | None = None,
        cursor: str | None = None,
        limit: int = 50,
    ) -> ExecutionPage:
        """Executions in short, newest first: ask for one to read its params and its result. A page of a search
        may hold fewer than `limit` and yet not be the last: go on while there is a `next_cursor`.
        """
        return await self._call(
            "GET",
            "/api/v1/scheduler/executions",
            ExecutionPage,
            query={
                "state": state,
                "task_id": task_id,
                "parent_id": parent_id,
                "task_type": task_type,
                "trigger": trigger,
                "since": since,
                "until": until,
                "search": search,
                "cursor": cursor,
                "limit": limit,
            },
        )

    async def enqueue_execution(
        self,
        task_type: str,
        *,
        params: dict[str, Any] | Unset = UNSET,
        run_at: datetime | Unset | None = UNSET,
        priority: int | Unset = UNSET,
        idempotency_key: str | Unset | None = UNSET,
        max_attempts: int | Unset | None = UNSET,
        timeout_seconds: float | Unset | None = UNSET,
        concurrency_key: str | Unset | None = UNSET,
        concurrency_limit: int | Unset | None = UNSET,
        rate_limit: RateLimit | Unset | None = UNSET,
        rate_limit_key: str | Unset | None = UNSET,
        repeats: Debounce | Throttle | Once | Unset | None = UNSET,
    ) -> EnqueuedAnswer:
        """Record a request; it is durable when this answers. A repeated `Idempotency-Key` returns the first
        one; what else a repeated request does, `repeats` says. The answer `is_repeat` where an earlier
        request stands for it.
        """
        return await self._call(
            "POST",
            "/api/v1/scheduler/executions",
            EnqueuedAnswer,
            body={
                "task_type": task_type,
                "params": params,
                "run_at": run_at,
                "priority": priority,
                "idempotency_key": idempotency_key,
                "max_attempts": max_attempts,
                "timeout_seconds": timeout_seconds,
                "concurrency_key": concurrency_key,
                "concurrency_limit": concurrency_limit,
                "rate_limit": rate_limit,
                "rate_limit_key": rate_limit_key,
                "repeats": repeats,
            },
        )

    async def enqueue_many(self, items: list[EnqueueRequest]) -> BulkAnswer:
        """Record up to 10,000 requests, all of them or none. A refusal names the items:
        `items.17.params.topic`.
        """
        return await self._call("POST", "/api/v1/scheduler/executions/bulk", BulkAnswer, body={"items": items})

    async def get_execution(self, execution_id: int) -> ExecutionDetail:
        """One execution with its attempts, its steps and signals, its parent and its children."""
        return await self._call("GET", f"/api/v1/scheduler/executions/{path_part(execution_id)}", ExecutionDetail)

    async def get_logs(self, execution_id: int, *, after: int = 0, limit: int = 500) -> LogPage:
        """The kept log lines, oldest first; ask again with `after` to follow them."""
        return await self._call(
            "GET",
            f"/api/v1/scheduler/executions/{path_part(execution_id)}/logs",
            LogPage,
            query={"after": after, "limit": limit},
        )

    async def cancel_execution(self, execution_id: int) -> ExecutionAnswer:
        """A waiting one is cancelled at once; a running one as soon as its code lets go. Its children go with
        it.
        """
        return await self._call(
            "POST", f"/api/v1/scheduler/executions/{path_part(execution_id)}/cancel", ExecutionAnswer
        )

    async def retry_execution(self, execution_id: int) -> ExecutionAnswer:
        """Run a failed, cancelled or parked execution again, as a further attempt: from the step that failed."""
        return await self._call(
            "POST", f"/api/v1/scheduler/executions/{path_part(execution_id)}/retry", ExecutionAnswer
        )

    async def signal_execution(
        self, execution_id: int, name: str, *, payload: Any | Unset = UNSET
    ) -> SignalAnswer:
        """What its code waits for, or will wait for: the signal is kept until then, and taken once."""
        return await self._call(
            "POST",
            f"/api/v1/scheduler/executions/{path_part(execution_id)}/signals",
            SignalAnswer,
            body={"name": name, "payload": payload},
        )

    async def get_workflow(self, execution_id: int) -> WorkflowGraph:
        """How far each step is; 404 where the execution is no workflow. `data` is null throughout where the
        params and results of the steps are too large to be shown together.
        """
        return await self._call(
            "GET", f"/api/v1/scheduler/executions/{path_part(execution_id)}/workflow", WorkflowGraph
        )

    async def list_approvals(self, *, cursor: str | None = None, limit: int = 50) -> QuestionPage:
        """Approvals that nobody has decided yet, oldest first."""
        return await self._call(
            "GET", "/api/v1/scheduler/approvals", QuestionPage, query={"cursor": cursor, "limit": limit}
        )

    async def decide_approval(
        self, execution_id: int, *, approved: bool, comment: str | Unset = UNSET
    ) -> ExecutionAnswer:
        """Once; the execution goes on, and its result says who decided, when and what."""
        return await self._call(
            "POST",
            f"/api/v1/scheduler/executions/{path_part(execution_id)}/decision",
            ExecutionAnswer,
            body={"approved": approved, "comment": comment},
        )

    async def make_approval_link(
        self, execution_id: int, *, name: str | Unset | None = UNSET, lifetime_seconds: float | Unset = UNSET
    ) -> LinkAnswer:
        """Whoever has the link can decide this approval, once, without a token. Send it to nobody else."""
        return await self._call(
            "POST",
            f"/api/v1/scheduler/approvals/{path_part(execution_id)}/links",
            LinkAnswer,
            body={"name": name, "lifetime_seconds": lifetime_seconds},
        )

    async def list_pool(
        self, *, state: Sequence[PoolState] | None = None, cursor: str | None = None, limit: int = 50
    ) -> PoolPage:
        """Entries, newest first."""
        return await self._call(
            "GET", "/api/v1/scheduler/pool", PoolPage, query={"state": state, "cursor": cursor, "limit": limit}
        )

    async def change_pool_entry(
        self, entry_id: int, *, priority: int | Unset | None = UNSET, not_before: datetime | Unset | None = UNSET
    ) -> PoolAnswer:
        """Another priority or moment, while it waits."""
        return await self._call(
            "PATCH",
            f"/api/v1/scheduler/pool/{path_part(entry_id)}",
            PoolAnswer,
            body={"priority": priority, "not_before": not_before},
        )

    async def withdraw_pool_entry(self, entry_id: int) -> PoolAnswer:
        """It will not go out, unless it is added again."""
        return await self._call("POST", f"/api/v1/scheduler/pool/{path_part(entry_id)}/withdraw", PoolAnswer)

    async def get_flow(self) -> FlowAnswer:
        """Rate limits, concurrency keys and circuit breakers with their present level, busiest first."""
        return await self._call("GET", "/api/v1/scheduler/flow", FlowAnswer)

    async def reset_circuit(self, task_type: str) -> FlowAnswer:
        """Close the circuit of an executor: what waits for it may start at once, and its past is forgiven."""
        return await self._call(
            "POST", f"/api/v1/scheduler/flow/circuits/{path_part(task_type)}/reset", FlowAnswer
        )

    async def list_findings(self) -> list[FindingAnswer]:
        """What a person should look at first, worst first: late fires, failing tasks, dead nodes …"""
        return await self._call("GET", "/api/v1/scheduler/attention", list[FindingAnswer])

    async def get_statistics(
        self, *, period: Period = Period.DAY, task_id: int | None = None, task_type: str | None = None
    ) -> StatisticsAnswer:
        """Executions that ended in the last hour, day or week, by state and step, with durations."""
        return await self._call(
            "GET",
            "/api/v1/scheduler/statistics",
            StatisticsAnswer,
            query={"period": period, "task_id": task_id, "task_type": task_type},
        )

    async def get_executor_statistics(self, *, period: Period = Period.DAY) -> list[ExecutorStatistics]:
        """What ended in the period, by executor type."""
        return await self._call(
            "GET", "/api/v1/scheduler/statistics/executors", list[ExecutorStatistics], query={"period": period}
        )

    async def list_fires(self, *, limit: int = 20, per_task: int | None = None) -> list[FireAnswer]:
        """The next fires of all active tasks, in order."""
        return await self._call(
            "GET", "/api/v1/scheduler/fires", list[FireAnswer], query={"limit": limit, "per_task": per_task}
        )

    async def get_calendar(self, *, hours: int = 168, limit: int = 200, minute: int = 0) -> CalendarAnswer:
        """The fires of each hour to come, by task; the first hour is the one that runs now."""
        return await self._call(
            "GET",
            "/api/v1/scheduler/calendar",
            CalendarAnswer,
            query={"hours": hours, "limit": limit, "minute": minute},
        )

    async def examine_schedules(self, *, days: int = 30, language: Literal["en", "zh"] = "en") -> ScheduleReport:
        """The coming days of all active tasks: herds and the jitter that levels them, fires where clocks
        change, runs that overlap, limits that cannot be kept, tasks that never fire.
        """
        return await self._call(
            "GET", "/api/v1/scheduler/doctor/schedules", ScheduleReport, query={"days": days, "language": language}
        )

    async def list_alerts(
        self,
        *,
        state: Openness = Openness.OPEN,
        rule_id: int | None = None,
        task_id: int | None = None,
        cursor: str | None = None,
        limit: int = 50,
        language: Literal["en", "zh"] = "en",
    ) -> AlertPage:
        """Alerts, newest first; by default those that are open."""
        return await self._call(
            "GET",
            "/api/v1/scheduler/alerts",
            AlertPage,
            query={
                "state": state,
                "rule_id": rule_id,
                "task_id": task_id,
                "cursor": cursor,
                "limit": limit,
                "language": language,
            },
        )

    async def get_alert(self, alert_id: int, *, language: Literal["en", "zh"] = "en") -> AlertAnswer:
        """One alert. Its deliveries are executions of `alert_delivery`."""
        return await self._call(
            "GET", f"/api/v1/scheduler/alerts/{path_part(alert_id)}", AlertAnswer, query={"language": language}
        )

    async def acknowledge_alert(self, alert_id: int, *, language: Literal["en", "zh"] = "en") -> AlertAnswer:
        """Somebody knows: no reminders from now on; its end is told all the same."""
        return await self._call(
            "POST",
            f"/api/v1/scheduler/alerts/{path_part(alert_id)}/acknowledge",
            AlertAnswer,
            query={"language": language},
        )

    async def list_alert_rules(self) -> list[AlertRuleAnswer]:
        """All rules, by name."""
        return await self._call("GET", "/api/v1/scheduler/alert-rules", list[AlertRuleAnswer])

    async def create_alert_rule(
        self,
        name: str,
        condition: Failed | Late | Slow | NoSuccess | Parked,
        *,
        task_id: int | Unset | None = UNSET,
        severity: Literal["warning", "critical"] | Unset = UNSET,
        channel_ids: list[int] | Unset = UNSET,
        remind_seconds: float | Unset | None = UNSET,
        notify_recovery: bool | Unset = UNSET,
        quiet_hours: QuietSpan | Unset | None = UNSET,
        check_seconds: float | Unset = UNSET,
        is_active: bool | Unset = UNSET,
    ) -> AlertRuleAnswer:
        """Store a rule. It is checked within seconds, by one of the nodes."""
        return await self._call(
            "POST",
            "/api/v1/scheduler/alert-rules",
            AlertRuleAnswer,
            body={
                "name": name,
                "task_id": task_id,
                "condition": condition,
                "severity": severity,
                "channel_ids": channel_ids,
                "remind_seconds": remind_seconds,
                "notify_recovery": notify_recovery,
                "quiet_hours": quiet_hours,
                "check_seconds": check_seconds,
                "is_active": is_active,
            },
        )

    async def get_alert_rule(self, rule_id: int) -> AlertRuleAnswer:
        """One rule."""
        return await self._call("GET", f"/api/v1/scheduler/alert-rules/{path_part(rule_id)}", AlertRuleAnswer)

    async def update_alert_rule(
        self,
        rule_id: int,
        *,
        name: str | Unset | None = UNSET,
        task_id: int | Unset | None = UNSET,
        condition: Failed | Late | Slow | NoSuccess | Parked | Unset | None = UNSET,
        severity: Literal["warning", "critical"] | Unset | None = UNSET,
        channel_ids: list[int] | Unset | None = UNSET,
        remind_seconds: float | Unset | None = UNSET,
        notify_recovery: bool | Unset | None = UNSET,
        quiet_hours: QuietSpan | Unset | None = UNSET,
        check_seconds: float | Unset | None = UNSET,
        is_active: bool | Unset | None = UNSET,
    ) -> AlertRuleAnswer:
        """Change the fields that are sent. A rule that is paused (`is_active: false`) closes its alerts."""
        return await self._call(
            "PATCH",
            f"/api/v1/scheduler/alert-rules/{path_part(rule_id)}",
            AlertRuleAnswer,
            body={
                "name": name,
                "task_id": task_id,
                "condition": condition,
                "severity": severity,
                "channel_ids": channel_ids,
                "remind_seconds": remind_seconds,
                "notify_recovery": notify_recovery,
                "quiet_hours": quiet_hours,
                "check_seconds": check_seconds,
                "is_active": is_active,
            },
        )

    async def delete_alert_rule(self, rule_id: int) -> None:
        """Delete the rule and close its alerts, which stay in the list."""
        await self._call("DELETE", f"/api/v1/scheduler/alert-rules/{path_part(rule_id)}", NoneType)

    async def silence_alert_rule(self, rule_id: int, until: datetime | None) -> AlertRuleAnswer:
        """Hold the rule's notices: alerts open and end, and what is still open afterwards is told then."""
        return await self._call(
            "POST",
            f"/api/v1/scheduler/alert-rules/{path_part(rule_id)}/silence",
            AlertRuleAnswer,
            body={"until": until},
        )

    async def list_alert_channels(self) -> list[AlertChannelAnswer]:
        """All channels, by name, without their URLs."""
        return await self._call("GET", "/api/v1/scheduler/alert-channels", list[AlertChannelAnswer])

    async def create_alert_channel(
        self,
        name: str,
        url: str,
        *,
        language: Literal["en", "zh"] | Unset = UNSET,
        is_active: bool | Unset = UNSET,
    ) -> AlertChannelAnswer:
        """Store a receiver by its apprise URL, which is never shown again."""
        return await self._call(
            "POST",
            "/api/v1/scheduler/alert-channels",
            AlertChannelAnswer,
            body={"name": name, "url": url, "language": language, "is_active": is_active},
        )

    async def get_alert_channel(self, channel_id: int) -> AlertChannelAnswer:
        """One channel, without its URL."""
        return await self._call(
            "GET", f"/api/v1/scheduler/alert-channels/{path_part(channel_id)}", AlertChannelAnswer
        )

    async def update_alert_channel(
        self,
        channel_id: int,
        *,
        name: str | Unset | None = UNSET,
        url: str | Unset | None = UNSET,
        language: Literal["en", "zh"] | Unset | None = UNSET,
        is_active: bool | Unset | None = UNSET,
    ) -> AlertChannelAnswer:
        """Change the fields that are sent. A masked URL stays what it is."""
        return await self._call(
            "PATCH",
            f"/api/v1/scheduler/alert-channels/{path_part(channel_id)}",
            AlertChannelAnswer,
            body={"name": name, "url": url, "language": language, "is_active": is_active},
        )

    async def delete_alert_channel(self, channel_id: int) -> None:
        """Delete it; rules that used it go on without."""
        await self._call("DELETE", f"/api/v1/scheduler/alert-channels/{path_part(channel_id)}", NoneType)

    async def test_alert_channel(self, channel_id: int) -> ExecutionAnswer:
        """Send a test message; the execution says whether it was taken."""
        return await self._call(
            "POST", f"/api/v1/scheduler/alert-channels/{path_part(channel_id)}/test", ExecutionAnswer
        )

    async def list_executors(self) -> list[ExecutorAnswer]:
        """The registered executors, with the JSON Schema of their params where they declare one."""
        return await self._call("GET", "/api/v1/scheduler/executors", list[ExecutorAnswer])

    async def list_nodes(self, *, stopped_since: datetime | None = None) -> list[NodeAnswer]:
        """The processes that run an engine on this database."""
        return await self._call(
            "GET", "/api/v1/scheduler/nodes", list[NodeAnswer], query={"stopped_since": stopped_since}
        )

    async def get_status(self) -> StatusAnswer:
        """How this process and its database stand."""
        return await self._call("GET", "/api/v1/scheduler/status", StatusAnswer)

    async def get_session(self) -> SessionAnswer:
        """The caller, by whatever means."""
        return await self._call("GET", "/api/v1/scheduler/session", SessionAnswer)

    async def sign_in(self, token: str) -> SessionAnswer:
        """Exchange a token for a session cookie: signed, HttpOnly, SameSite=Strict."""
        return await self._call("POST", "/api/v1/scheduler/session", SessionAnswer, body={"token": token})

    async def sign_out(self) -> None:
        """Forget the cookie. Revoking the token ends all its sessions everywhere."""
        await self._call("DELETE", "/api/v1/scheduler/session", NoneType)

    async def list_settings(self) -> list[SettingAnswer]:
        """Every setting of this process, secrets masked."""
        return await self._call("GET", "/api/v1/scheduler/settings", list[SettingAnswer])

    async def list_api_tokens(self) -> list[TokenAnswer]:
        """All tokens, revoked ones too, oldest first."""
        return await self._call("GET", "/api/v1/scheduler/tokens", list[TokenAnswer])

    async def make_token(self, name: str, role: Literal["viewer", "operator", "admin"]) -> NewToken:
        """The answer is the only time that the token can be read."""
        return await self._call("POST", "/api/v1/scheduler/tokens", NewToken, body={"name": name, "role": role})

    async def end_token(self, name: str) -> None:
        """End a token and every browser session made with it."""
        await self._call("DELETE", f"/api/v1/scheduler/tokens/{path_part(name)}", NoneType)

    async def live(self) -> Health:
        """Answers while the event loop turns; asks nothing of the database."""
        return await self._call("GET", "/health/live", Health)

    async def ready(self) -> Health:
        """The database answers, and the scheduler runs where it is enabled."""
        return await self._call("GET", "/health/ready", Health)
