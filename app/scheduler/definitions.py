"""`TaskDefinition`: what a person or a program says a task shall be, checked field by field."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Annotated, Any

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    JsonValue,
    StringConstraints,
    ValidationError,
    model_validator,
)

from app.core.errors import InvalidRequest
from app.core.jsonable import to_plain_json
from app.core.language import Said
from app.core.validation import PRINTABLE, field_errors
from app.core.zones import zone_named
from app.models.scheduled_task import ScheduledTask
from app.scheduler.policies import MisfirePolicy, OverlapPolicy, RetryPolicy
from app.scheduler.rates import RateLimit
from app.scheduler.schedules import DstPolicy, Moment, Schedule, from_columns, to_columns
from app.scheduler.windows import Calendar, ClosedPolicy, Hours, RunWindow

_UNLIMITED_DAYS = 366 * 86_400


def _known_zone(name: str) -> str:
    zone_named(name)
    return name


def _cron_shorthand(value: object) -> object:
    return {"type": "cron", "expression": value} if isinstance(value, str) else value


Params = Annotated[dict[str, JsonValue], AfterValidator(partial(to_plain_json, finite=True))]
"""As they will be stored; what has no JSON form, such as a lone surrogate, is refused."""
ZoneName = Annotated[str, StringConstraints(min_length=1, max_length=64), AfterValidator(_known_zone)]
ShortText = Annotated[
    str, StringConstraints(strip_whitespace=True, min_length=1, max_length=200, pattern=PRINTABLE)
]


class TaskDefinition(BaseModel):
    """A task as it is asked for. Times are in seconds, moments carry their zone."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    name: ShortText
    """Unique among the tasks."""
    description: str = Field(default="", max_length=2000)
    """For people."""
    task_type: Annotated[str, StringConstraints(min_length=1, max_length=100, pattern=PRINTABLE)]
    """The executor that runs it."""
    params: Params = {}
    """What the executor takes."""
    schedule: Annotated[Schedule | None, BeforeValidator(_cron_shorthand)] = None
    """`{"type": "cron", "expression": "0 9 * * 1-5"}` (or just the expression),
    `{"type": "interval", "seconds": 300}`, `{"type": "at", "at": "2030-01-01T09:00:00+08:00"}`, or none."""
    timezone: ZoneName = "UTC"
    """IANA zone of the schedule."""
    dst_policy: DstPolicy = DstPolicy.CRON
    """Where the clocks change: `cron`, as Debian's cron does it, or `skip` what does not exist."""
    start_at: Moment | None = None
    """No fire before."""
    end_at: Moment | None = None
    """No fire after."""
    jitter_seconds: float = Field(default=0, ge=0, le=86_400, allow_inf_nan=False, strict=True)
    """Each run starts up to this much later than its fire, by a draw that is the same on every node."""
    is_active: bool = Field(default=True, strict=True)
    """False: paused."""
    priority: int = Field(default=0, ge=-1000, le=1000, strict=True)
    """Higher goes first."""
    timeout_seconds: float | None = Field(default=None, gt=0, le=7 * 86_400, allow_inf_nan=False, strict=True)
    """Time limit of an attempt; by default what the executor declares."""
    retry: RetryPolicy | None = None
    """When and how often a failed execution is tried again; by default what the executor declares."""
    misfire_policy: MisfirePolicy = MisfirePolicy.LATEST
    """What becomes of fires that came due while no node ran: `latest` runs one, `all` runs each, `skip` none."""
    misfire_grace_seconds: float = Field(default=60, ge=0, le=_UNLIMITED_DAYS, allow_inf_nan=False, strict=True)
    """A fire that is later than this counts as missed."""
    overlap_policy: OverlapPolicy = OverlapPolicy.SKIP
    """What a fire does while an earlier run is not over: `skip`, `queue`, `allow` or `cancel_running`."""
    concurrency_key: ShortText | None = None
    """Executions with the same key share a limit, whatever task they are of."""
    concurrency_limit: int | None = Field(default=None, ge=1, le=10_000, strict=True)
    """How many with that key may run at the same time; 1 where only the key is given."""
    rate_limit: RateLimit | None = None
    """Of this task alone, beside that of its executor."""
    run_window: RunWindow | None = None
    """Hours, in its zone, in which it may fire."""
    calendar: Calendar | None = None
    """Days on which it does not."""
    closed_policy: ClosedPolicy = ClosedPolicy.SKIP
    """What becomes of a fire outside of them."""

    @model_validator(mode="after")
    def _consistent(self) -> TaskDefinition:
        if self.start_at and self.end_at and self.end_at <= self.start_at:
            raise ValueError(Said("end_at must be later than start_at", "end_at 须晚于 start_at"))
        if self.concurrency_limit is not None and self.concurrency_key is None:
            raise ValueError(
                Said("concurrency_limit needs a concurrency_key", "concurrency_limit 需要同时填写 concurrency_key")
            )
        return self

    def hours(self) -> Hours | None:
        """When it may fire; None: always. Raises Unjudged: this process lacks the package of holidays."""
        if self.run_window is None and self.calendar is None:
            return None
        return Hours(self.run_window, self.calendar, self.timezone)

    @classmethod
    def parse(cls, values: Mapping[str, Any]) -> TaskDefinition:
        """A definition from plain values.

        Raises:
            InvalidRequest: `errors` names every wrong field.
        """
        try:
            return cls.model_validate(dict(values))
        except ValidationError as error:
            raise InvalidRequest(field_errors(error)) from None

    @classmethod
    def of(cls, task: ScheduledTask) -> TaskDefinition:
        """The definition a stored task has now.

        Raises:
            InvalidRequest: the stored columns (plain SQL may have written them) make no definition.
        """
        values = {name: getattr(task, name) for name in _PLAIN_FIELDS}
        if task.schedule_type is not None and task.schedule_expression is not None:
            values["schedule"] = from_columns(task.schedule_type, task.schedule_expression)
        return cls.parse(values)

    @classmethod
    def column_names(cls) -> tuple[str, ...]:
        """The names of the columns that hold a definition."""
        return (*_PLAIN_FIELDS, "schedule_type", "schedule_expression")

    def columns(self) -> dict[str, Any]:
        """The columns of `scheduled_tasks` that hold this definition."""
        values = {name: getattr(self, name) for name in _PLAIN_FIELDS}
        schedule_type, expression = (
            to_columns(self.schedule, zone=self.timezone) if self.schedule else (None, None)
        )
        return {
            **values,
            "retry": self.retry.model_dump(mode="json") if self.retry else None,
            "rate_limit": self.rate_limit.as_dict() if self.rate_limit else None,
            "run_window": self.run_window.model_dump(mode="json") if self.run_window else None,
            "calendar": self.calendar.model_dump(mode="json") if self.calendar else None,
            "closed_policy": self.closed_policy.value,
            "schedule_type": schedule_type,
            "schedule_expression": expression,
        }


_PLAIN_FIELDS = tuple(name for name in TaskDefinition.model_fields if name != "schedule")
