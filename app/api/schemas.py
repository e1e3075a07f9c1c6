"""What the API takes and gives. Secrets in params and results are masked on the way out."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    PlainSerializer,
    StringConstraints,
    TypeAdapter,
    ValidationError,
    field_serializer,
    field_validator,
    model_validator,
)

from app.core.errors import InvalidRequest
from app.core.redaction import redact, redact_quotes
from app.models.execution_step import StepKind
from app.models.scheduled_task import ScheduledTask
from app.models.task_execution import ExecutionState
from app.scheduler.arming import next_run_of
from app.scheduler.attention import Kind, Severity
from app.scheduler.breaker import CircuitBreaker, Phase
from app.scheduler.definitions import Params
from app.scheduler.pace import Backfill, Pace
from app.scheduler.policies import MisfirePolicy, OverlapPolicy, RetryPolicy
from app.scheduler.rates import RateLimit
from app.scheduler.repeats import Repeats
from app.scheduler.schedules import DstPolicy, Moment, zone_of
from app.scheduler.statistics import Period, Summary
from app.scheduler.steps import NEVER
from app.scheduler.windows import Calendar, ClosedPolicy, RunWindow

Masked = Annotated[dict[str, Any], PlainSerializer(redact, return_type=dict[str, Any])]
MaskedOrNone = Annotated[dict[str, Any] | None, PlainSerializer(redact, return_type=dict[str, Any] | None)]

SearchText = Annotated[str, StringConstraints(max_length=200, pattern=r"^[^\x00]*$")]
"""What a list is searched for. PostgreSQL has no NUL in its text, and refuses to be asked for one."""


class _Answer(BaseModel):
    model_config = ConfigDict(from_attributes=True)


class ScheduleAnswer(_Answer):
    """A schedule as it is stored."""

    type: str = Field(examples=["cron"])
    expression: str = Field(
        examples=["0 9 * * 1-5"], description="cron: the expression; interval: seconds; at: ISO."
    )


class TaskAnswer(_Answer):
    """A stored task."""

    id: int
    name: str
    description: str
    task_type: str
    params: Masked
    schedule: ScheduleAnswer | None
    timezone: str
    dst_policy: DstPolicy
    start_at: datetime | None
    end_at: datetime | None
    jitter_seconds: float
    is_active: bool
    priority: int
    timeout_seconds: float | None
    retry: RetryPolicy | None
    misfire_policy: MisfirePolicy
    misfire_grace_seconds: float
    overlap_policy: OverlapPolicy
    concurrency_key: str | None
    concurrency_limit: int | None
    rate_limit: RateLimit | None
    run_window: RunWindow | None
    calendar: Calendar | None
    closed_policy: ClosedPolicy
    next_run_at: datetime | None = Field(
        description="When it runs next, its run window and calendar considered; null: it does not."
    )
    exhausted_at: datetime | None
    schedule_error: str | None
    last_run_at: datetime | None
    last_state: str | None
    declared_in_code: bool
    declaration_missing: bool
    version: int
    created_at: datetime
    updated_at: datetime

    @classmethod
    def of(cls, task: ScheduledTask) -> TaskAnswer:
        schedule = (
            ScheduleAnswer(type=task.schedule_type, expression=task.schedule_expression)
            if task.schedule_type is not None and task.schedule_expression is not None
            else None
        )
        columns = {name: getattr(task, name) for name in cls.model_fields if hasattr(task, name)}
        columns["next_run_at"] = next_run_of(task)
        for name, reader in _STORED_AS_JSON.items():
            try:
                columns[name] = reader.validate_python(columns[name])
            except ValidationError as error:
                # Plain SQL wrote it, or this process lacks what it takes (a package of holidays): one such task
                # must not hide all the others.
                columns[name] = None
                columns["schedule_error"] = columns["schedule_error"] or _unreadable(name, error)
        try:
            zone_of(task.timezone)
        except InvalidRequest as error:
            columns["schedule_error"] = columns["schedule_error"] or str(error)
        return cls(**columns, schedule=schedule, declared_in_code=task.declared is not None)


_STORED_AS_JSON: dict[str, TypeAdapter[Any]] = {
    "retry": TypeAdapter(RetryPolicy | None),
    "rate_limit": TypeAdapter(RateLimit | None),
    "run_window": TypeAdapter(RunWindow | None),
    "calendar": TypeAdapter(Calendar | None),
}


def _unreadable(name: str, error: ValidationError) -> str:
    """What is wrong with a stored value, in a sentence."""
    return f"{name} cannot be read: {error.errors(include_url=False)[0]['msg']}"


class TaskPage(BaseModel):
    items: list[TaskAnswer]
    next_cursor: str | None = Field(
        description="Send it as `cursor` to get the next page; null: this was the last."
    )


class ExecutionSummary(_Answer):
    """An execution as lists and events tell it: without its params and its result, which may be large."""

    id: int
    task_id: int | None
    task_name: str | None
    task_type: str
    state: ExecutionState
    reason: str | None
    trigger: str
    triggered_by: str | None
    scheduled_for: datetime | None
    first_fire_at: datetime | None
    fire_count: int
    run_at: datetime | None = Field(
        description="It starts no earlier; null: it waits for a signal or for others, not for a moment."
    )
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    attempt: int
    failures: int
    rescues: int
    owner: str | None
    timeout_seconds: float | None
    priority: int
    concurrency_key: str | None
    concurrency_limit: int | None
    idempotency_key: str | None
    cancel_requested_at: datetime | None
    message: str | None
    error: str | None
    duration_seconds: float | None
    progress: float | None
    progress_message: str | None
    parent_id: int | None = Field(description="The execution that spawned it.")
    child_key: str | None = Field(description="What its parent calls it.")
    trace_id: str | None = Field(
        description="Under this id a tracing backend shows what asked for the execution, and its attempts."
    )
    rate_limit: dict[str, Any] | None = Field(
        description="A rate limit of its own, with the bucket it draws on.", examples=[None]
    )
    waits_for: str | None = Field(
        description="The bucket or circuit that has put it off until `run_at`.", examples=["executor:publishing"]
    )
    due_at: datetime | None = Field(description="When it was due before it was put off.")

    @field_validator("run_at")
    @classmethod
    def _a_moment_that_comes(cls, run_at: datetime | None) -> datetime | None:
        return None if run_at is None or run_at >= NEVER else run_at


class ExecutionAnswer(ExecutionSummary):
    """An execution: one request to run something once, and what became of it."""

    params: Masked
    result: MaskedOrNone

    @model_validator(mode="after")
    def _quotes_no_secret(self) -> ExecutionAnswer:
        """What an executor returns may hold what it was given."""
        self.result = redact_quotes(self.result, self.params)
        return self


class EnqueuedAnswer(ExecutionAnswer):
    """The execution that stands for a request."""

    is_repeat: bool = Field(description="An earlier request stands for this one: nothing new was recorded.")


class AttemptAnswer(_Answer):
    """One try at an execution."""

    number: int
    node: str
    status: str
    reason: str | None
    started_at: datetime
    finished_at: datetime | None
    duration_seconds: float | None
    message: str | None
    error: str | None
    traceback: str | None


class StepAnswer(_Answer):
    """A step that finished, or a wait; one that is not over yet has no `finished_at`."""

    kind: StepKind
    name: str = Field(examples=["draft"])
    position: int | None = Field(description="Its place in the order of calls; null: called by a task of its own.")
    attempt: int
    started_at: datetime
    finished_at: datetime | None
    due_at: datetime | None = Field(description="When the wait ends by itself.")
    result: Any = Field(description="What it returned; of a signal: `payload`, or `timed_out`.")

    @field_serializer("result")
    def _masked(self, result: Any) -> Any:
        return redact({self.name: result})[self.name]


class SignalAnswer(_Answer):
    """A signal that an execution was sent; the first wait that has taken it set `consumed_at`."""

    id: int
    name: str = Field(examples=["approved"])
    payload: Any
    signalled_by: str | None
    signalled_at: datetime
    consumed_at: datetime | None

    @field_serializer("payload")
    def _masked(self, payload: Any) -> Any:
        return redact({self.name: payload})[self.name]


class SignalBody(BaseModel):
    """A signal to send."""

    model_config = ConfigDict(extra="forbid")

    name: str = Field(
        min_length=1,
        max_length=200,
        pattern=r"^[^#\x00-\x1f\x7f]+$",
        examples=["approved"],
        description="What its code waits for.",
    )
    payload: Any = Field(default=None, description="What the wait returns: any JSON.")


class RelativeAnswer(_Answer):
    """A parent or a child, in short."""

    id: int
    child_key: str | None
    task_type: str
    state: ExecutionState
    reason: str | None
    created_at: datetime
    finished_at: datetime | None


class ExecutionDetail(ExecutionAnswer):
    attempts: list[AttemptAnswer]
    steps: list[StepAnswer] = Field(description="The first 1000, in their order.")
    signals: list[SignalAnswer] = Field(description="The first 1000, in their order.")
    parent: RelativeAnswer | None
    children: list[RelativeAnswer] = Field(description="The last 200; list by `parent_id` for all.")
    child_count: int = Field(description="How many there are in all.")


class ExecutionPage(BaseModel):
    items: list[ExecutionSummary]
    next_cursor: str | None = Field(
        description="Send it as `cursor` to get the next page; null: this was the last."
    )


class LogAnswer(_Answer):
    """One kept log line."""

    id: int
    attempt: int
    logged_at: datetime
    level: str
    message: str


class LogPage(BaseModel):
    items: list[LogAnswer]
    after: int = Field(description="Send it as `after` to get what was logged since.")


class RunRequest(BaseModel):
    """Run a task now."""

    model_config = ConfigDict(extra="forbid")

    params: Params | None = Field(default=None, description="Instead of the stored ones, this once.")


class EnqueueRequest(BaseModel):
    """Run an executor once."""

    model_config = ConfigDict(
        extra="forbid",
        use_attribute_docstrings=True,
        json_schema_extra={
            "examples": [{"task_type": "content_generation", "params": {"account_id": 1, "topic": "人工智能"}}]
        },
    )

    task_type: str = Field(min_length=1, max_length=100)
    """The executor to run; `GET …/executors` lists them, with the schema of their params."""
    params: Params = {}
    """What the executor takes."""
    run_at: Moment | None = Field(default=None, description="Not before this moment; with its offset.")
    priority: int = Field(default=0, ge=-1000, le=1000, strict=True)
    """Higher goes first."""
    idempotency_key: str | None = Field(default=None, min_length=1, max_length=200)
    """A repeated request with the same key returns the first one's execution."""
    max_attempts: int | None = Field(default=None, ge=1, le=100, strict=True)
    """How often to try; by default what the executor declares."""
    timeout_seconds: float | None = Field(default=None, gt=0, le=7 * 86_400, strict=True, allow_inf_nan=False)
    """Time limit of an attempt; by default what the executor declares."""
    concurrency_key: str | None = Field(default=None, min_length=1, max_length=200)
    """Executions with the same key share a limit."""
    concurrency_limit: int | None = Field(default=None, ge=1, le=10_000, strict=True)
    """How many with that key may run at the same time; 1 where only the key is given."""
    rate_limit: RateLimit | None = Field(default=None, description="Beside that of the executor.")
    rate_limit_key: str | None = Field(
        default=None, min_length=1, max_length=200, description="Who names the same key shares the rate limit."
    )


class EnqueueOneRequest(EnqueueRequest):
    """Run an executor once."""

    repeats: Repeats | None = Field(
        default=None,
        description="What a repeated request does: debounce, throttle, once.",
        examples=[{"kind": "debounce", "key": "account-1", "seconds": 30}],
    )


class BulkRequest(BaseModel):
    """Many requests: all of them are recorded, or none."""

    model_config = ConfigDict(extra="forbid")

    items: list[EnqueueRequest] = Field(min_length=1, max_length=10_000)


class BulkItem(_Answer):
    """The execution that stands for an item."""

    id: int
    is_repeat: bool


class BulkAnswer(BaseModel):
    """What became of each item, in their order."""

    items: list[BulkItem]
    recorded: int = Field(description="How many are new.")


class BackfillRange(BaseModel):
    """A past range of a schedule."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "examples": [{"start": "2026-01-01T00:00:00+08:00", "end": "2026-02-01T00:00:00+08:00"}]
        },
    )

    start: Moment = Field(description="The first moment, with its offset.")
    end: Moment = Field(description="The moment before which it ends; not later than now.")


class BackfillRequest(BackfillRange):
    """Make up for the fires of a past range."""

    pace: Pace = Field(default=Pace(), description="By default one after the other.")


class KnownFire(_Answer):
    """A fire that the ledger has already."""

    scheduled_for: datetime
    execution_id: int
    state: str


class BackfillAnswer(BaseModel):
    """What a backfill would record, or has recorded."""

    count: int
    first: datetime | None
    last: datetime | None
    known_count: int = Field(description="Fires that the ledger has already; they stay as they are.")
    known: list[KnownFire] = Field(description="The first hundred of these.")
    closed: int = Field(description="Fires outside the task's window or on a closed day; they are left out.")
    execution_ids: list[int] = Field(description="What was recorded, oldest fire first; empty for a preview.")

    @classmethod
    def of(cls, backfill: Backfill) -> BackfillAnswer:
        return cls(
            count=len(backfill.fires),
            first=backfill.fires[0] if backfill.fires else None,
            last=backfill.fires[-1] if backfill.fires else None,
            known_count=len(backfill.known),
            known=[KnownFire.model_validate(known) for known in backfill.known[:100]],
            closed=backfill.closed,
            execution_ids=list(backfill.execution_ids),
        )


class BackfillCancelled(BaseModel):
    """What became of the rest of a task's backfills."""

    cancelled: int = Field(description="Executions that waited and are over now.")
    ending: int = Field(description="Executions under way that were asked to end.")


class RateAnswer(_Answer):
    """A bucket of tokens."""

    key: str = Field(examples=["executor:publishing"])
    limit: int
    per_seconds: float
    burst: int
    available: int = Field(description="How many may start now.")
    next_at: datetime = Field(description="When the next one may start: now, or later.")
    waiting: int
    used_at: datetime


class KeyAnswer(_Answer):
    """A concurrency key."""

    key: str
    limit: int
    running: int
    waiting: int


class CircuitAnswer(_Answer):
    """The circuit breaker of an executor."""

    task_type: str
    phase: Phase
    failures: int = Field(description="Among the last `attempts`.")
    attempts: int
    since: datetime | None = Field(description="When it came into this phase.")
    probe_at: datetime | None = Field(description="When it tries again; null: it is closed.")
    waiting: int
    breaker: CircuitBreaker | None = Field(description="Its rules; null: this process knows none.")


class FlowAnswer(_Answer):
    """Everything that lets work through at a measure, busiest first."""

    rate_limits: list[RateAnswer]
    concurrency: list[KeyAnswer]
    circuits: list[CircuitAnswer]


class ExecutorAnswer(BaseModel):
    """A registered executor; its own `get_executor_info()` is in `info`."""

    type: str
    lane: str
    timeout_seconds: float | None
    max_attempts: int
    retry_on: list[str] | None = Field(description="Names of the errors worth a retry; null: all.")
    rate_limit: RateLimit | None
    circuit: CircuitAnswer | None = Field(description="Its circuit breaker; null: it has none.")
    info: dict[str, Any]


class PreviewAnswer(BaseModel):
    """What a schedule will do."""

    fires: list[datetime] = Field(description="The next fires, with the offset of the task's zone.")
    description: str = Field(examples=["At 09:00, Monday through Friday"])
    warnings: list[str]


class Explanation(BaseModel):
    explanation: str = Field(examples=["Task 7 (daily) at 2030-01-07T09:00:00+08:00: it ran and succeeded."])


class NodeAnswer(_Answer):
    """A process that runs an engine."""

    id: str
    host: str
    pid: int
    role: str
    engine: str
    version: str
    started_at: datetime
    heartbeat_at: datetime
    stopped_at: datetime | None = Field(default=None, description="When it stopped, or was found dead.")
    found_dead: bool = Field(default=False, description="It did not say goodbye.")
    running: int = Field(default=0, description="Executions it is running now.")


class StatusAnswer(BaseModel):
    """How this process and its database stand."""

    running: bool
    node: str | None
    role: str
    version: str
    now: datetime
    last_tick_at: datetime | None
    next_fire_at: datetime | None
    tasks: dict[str, int]
    executions: dict[str, int]
    engine: dict[str, Any] | None
    journal: dict[str, int]
    database: str
    nodes: int


class Health(BaseModel):
    status: str = Field(examples=["ok"])


class ChangesAnswer(BaseModel):
    """What has changed since the event before."""

    executions: list[ExecutionSummary] = Field(description="As they are now, oldest first.")
    is_partial: bool = Field(description="More have changed than are told of: read the lists again.")
    tasks: bool = Field(description="Tasks were changed or fired.")
    nodes: bool = Field(description="Nodes came or went.")


class TaskChangeAnswer(_Answer):
    """One change of one task."""

    id: int
    task_id: int
    task_name: str
    version: int
    action: str = Field(examples=["update"], description="create, update, pause, resume or delete.")
    changed_by: str
    changed_at: datetime
    changes: Masked = Field(description="By column: `[before, after]`.")


class TaskChangePage(BaseModel):
    items: list[TaskChangeAnswer]
    next_cursor: str | None = Field(
        description="Send it as `cursor` to get the next page; null: this was the last."
    )


class RecentRun(_Answer):
    """An execution as a small bar."""

    id: int
    state: ExecutionState
    duration_seconds: float | None
    created_at: datetime


class TaskRuns(BaseModel):
    """The last executions of a task, newest first."""

    task_id: int
    runs: list[RecentRun]


class SummaryAnswer(BaseModel):
    """What happened in a period."""

    states: dict[str, int] = Field(examples=[{"success": 41, "failed": 1}])
    success_rate: float | None = Field(description="Of what ran to an end; null: nothing did.")
    p50_seconds: float | None
    p95_seconds: float | None
    p99_seconds: float | None

    @classmethod
    def of(cls, summary: Summary) -> SummaryAnswer:
        return cls(
            states=dict(summary.states),
            success_rate=summary.success_rate,
            p50_seconds=summary.durations.quantile(0.5),
            p95_seconds=summary.durations.quantile(0.95),
            p99_seconds=summary.durations.quantile(0.99),
        )


class PointAnswer(BaseModel):
    """One step of a series, from `at`."""

    at: datetime
    states: dict[str, int]


class StatisticsAnswer(BaseModel):
    """A period as a whole, and step by step without gaps."""

    period: Period
    since: datetime
    step_seconds: int
    summary: SummaryAnswer
    points: list[PointAnswer]


class ExecutorStatistics(SummaryAnswer):
    """How one executor did."""

    task_type: str


class FireAnswer(_Answer):
    """A fire to come."""

    at: datetime
    task_id: int
    task_name: str


class LoadAnswer(_Answer):
    """How often a task fires in each hour."""

    task_id: int
    task_name: str
    counts: tuple[int, ...]
    is_estimate: bool = Field(description="It fires too often to be counted one by one.")


class CalendarAnswer(BaseModel):
    """What fires when, hour by hour."""

    since: datetime
    hours: int
    tasks: list[LoadAnswer] = Field(description="Busiest first.")
    task_count: int = Field(description="How many tasks fire in the span; the calendar may hold fewer.")


class ExampleAnswer(_Answer):
    """One of the things found."""

    kind: str = Field(examples=["task"])
    id: int | str
    name: str


class FindingAnswer(_Answer):
    """Something to look at."""

    kind: Kind
    severity: Severity
    count: int
    examples: list[ExampleAnswer] = Field(description="The first few.")


class SettingAnswer(BaseModel):
    """A setting in effect; secrets are masked."""

    name: str = Field(examples=["SCHEDULER_CONCURRENCY"])
    value: Any
    is_default: bool


class TokenAnswer(_Answer):
    """A token, without what it is."""

    name: str
    role: str
    created_at: datetime
    revoked_at: datetime | None


class TokenRequest(BaseModel):
    """A token to make."""

    model_config = ConfigDict(extra="forbid")

    name: str = Field(min_length=1, max_length=100, pattern=r"^[^\x00-\x1f\x7f]+$")
    role: Literal["viewer", "operator", "admin"]


class NewToken(BaseModel):
    """A token, the only time it can be read."""

    name: str
    role: str
    token: str
