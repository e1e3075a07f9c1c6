"""What a schedule is: cron, interval or one moment, as a value and as two text columns.

A schedule says *what was asked for*; `app.scheduler.triggers` computes when it fires. Every refusal names the
rule that was broken and how to mend it. As models they raise pydantic's `ValidationError` (the API turns it
into a problem document that names the field); everything else here raises `InvalidRequest`.
"""

from __future__ import annotations

import math
import re
from datetime import UTC, datetime
from enum import StrEnum
from functools import lru_cache
from typing import Annotated, Literal
from zoneinfo import ZoneInfo

from cronsim import CronSim, CronSimError
from pydantic import AfterValidator, AwareDatetime, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from app.core.errors import InvalidRequest, sentence_of
from app.core.language import Said
from app.core.validation import message_of
from app.core.zones import zone_named

MIN_INTERVAL_SECONDS = 1
MAX_INTERVAL_SECONDS = 366 * 86_400
MAX_EXPRESSION_LENGTH = 200
"""As wide as the column `scheduled_tasks.schedule_expression`."""
FIRST_YEAR, LAST_YEAR = 1970, 9900
"""The calendar of schedules; the margin to `datetime.max` is what a search for the next fire may cross."""

MACROS = {
    "@hourly": "0 * * * *",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@weekly": "0 0 * * 0",
    "@monthly": "0 0 1 * *",
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
}
"""Debian's names (crontab(5)); `@reboot` is refused, a schedule has no machine to wait for."""

CRON_FIELDS = {
    "second": "0-59",
    "minute": "0-59",
    "hour": "0-23",
    "day-of-month": "1-31, L (last day) or LW (last weekday)",
    "month": "1-12 or JAN-DEC",
    "day-of-week": "0-7 or SUN-SAT (0 and 7 are Sunday), 5#2 (second Friday) or 5L (last Friday)",
}
"""The fields in order, and what each takes besides `*`, lists, ranges and `/step`."""
_IN_CHINESE = {
    "second": ("秒", "0-59"),
    "minute": ("分", "0-59"),
    "hour": ("时", "0-23"),
    "day-of-month": ("日", "1-31、L（最后一天）或 LW（最后一个工作日）"),
    "month": ("月", "1-12 或 JAN-DEC"),
    "day-of-week": ("星期", "0-7 或 SUN-SAT（0 和 7 是星期日）、5#2（第二个星期五）或 5L（最后一个星期五）"),
}
CRON_FIELD_SIZES = (60, 60, 24, 31, 12, 7)
"""How many values each field has."""

_ANY_DATE = datetime(2000, 1, 1)  # noqa: DTZ001 - cronsim parses an expression only together with a date


class DstPolicy(StrEnum):
    """What a cron schedule does where the clocks of its zone change."""

    CRON = "cron"
    """As Debian's cron: a fixed time that does not exist runs right after the gap, one that happens twice
    runs the first time; a schedule whose minute or hour starts with `*` follows real elapsed time."""
    SKIP = "skip"
    """A fire whose wall time does not exist is dropped; one that happens twice runs the first time."""


def normal_cron(expression: str) -> str:
    """`expression` with single spaces and macro names in lower case.

    Raises:
        ValueError: not POSIX cron; the sentence names the wrong field and what it takes.
    """
    words = expression.split()
    text = " ".join(words)
    if text.startswith("@"):
        text = text.lower()
    cron_fields(text)
    return text


@lru_cache(maxsize=4096)
def cron_fields(expression: str) -> tuple[str, ...]:
    """The six fields of a cron expression, seconds first ("0" where it has five), macros expanded.

    An expression of well-formed fields that no date fulfils (`0 0 31 2 *`) is valid: it never fires.

    Raises:
        ValueError: see `normal_cron`.
    """
    if len(expression) > MAX_EXPRESSION_LENGTH:
        raise ValueError(
            Said(
                f"a cron expression has at most {MAX_EXPRESSION_LENGTH} characters",
                f"cron 表达式最多 {MAX_EXPRESSION_LENGTH} 个字符",
            )
        )
    if not expression.isascii():
        raise ValueError(
            Said(
                "a cron expression is plain ASCII, such as `0 9 * * 1-5`",
                "cron 表达式只含 ASCII 字符，例如 `0 9 * * 1-5`",
            )
        )
    fields = _expanded(expression).split()
    if len(fields) == len(CRON_FIELDS) - 1:
        fields.insert(0, "0")
    if len(fields) != len(CRON_FIELDS):
        raise ValueError(
            Said(
                f"a cron expression has 5 fields (minute hour day-of-month month day-of-week), or 6 with seconds"
                f" first; this one has {len(fields)}",
                f"cron 表达式有 5 个字段（分 时 日 月 星期），或在最前面加上秒共 6 个；这里有 {len(fields)} 个",
            )
        )
    for position, (name, takes) in enumerate(CRON_FIELDS.items()):
        alone = ["*"] * len(CRON_FIELDS)
        alone[position] = fields[position]
        try:
            CronSim(" ".join(alone), _ANY_DATE)
        except CronSimError as error:
            called, can_be = _IN_CHINESE[name]
            raise ValueError(
                Said(
                    f"{name} {fields[position]!r} is wrong: it takes {takes}, `*`, lists, ranges and /step",
                    f"“{called}”字段 {fields[position]!r} 有误：可填写 {can_be}，以及 `*`、列表、范围和 /步长",
                )
            ) from error
    return tuple(fields)


def both_days_must_match(fields: tuple[str, ...]) -> bool:
    """Debian's rule (crontab(5)): a day field that starts with a star turns OR into AND."""
    return fields[3].startswith("*") or fields[5].startswith("*")


def star_step(term: str) -> int | None:
    """The step of a term such as `*/5`."""
    match = re.fullmatch(r"\*/(\d+)", term)
    return int(match[1]) if match else None


def _expanded(expression: str) -> str:
    if not expression.startswith("@"):
        return expression
    if expression == "@reboot":
        raise ValueError(
            Said(
                "@reboot is no time; enqueue the work when the application starts instead",
                "@reboot 不是时间；请在应用启动时提交该任务",
            )
        )
    if expression not in MACROS:
        raise ValueError(
            Said(
                f"{expression!r} is unknown; the names are {', '.join(MACROS)}",
                f"{expression!r} 未知；可用的名称是 {'、'.join(MACROS)}",
            )
        )
    return MACROS[expression]


def interval_seconds(value: object) -> float:
    """`value` as an interval's seconds, whole microseconds.

    Raises:
        ValueError: not a number (text and booleans are none here), not finite, or out of range.
    """
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError(  # noqa: TRY004 - pydantic takes a ValueError for a finding
            Said(
                "an interval is a number of seconds, such as 300; text and booleans are refused",
                "间隔是秒数，例如 300；不接受文本和布尔值",
            )
        )
    if not MIN_INTERVAL_SECONDS <= value <= MAX_INTERVAL_SECONDS:  # NaN fails here as well
        raise ValueError(
            Said(
                f"an interval is from {MIN_INTERVAL_SECONDS} to {MAX_INTERVAL_SECONDS} seconds (366 days);"
                f" write a number in that range, or use a cron schedule",
                f"间隔须为 {MIN_INTERVAL_SECONDS} 到 {MAX_INTERVAL_SECONDS} 秒（366 天）；"
                f"请填写此范围内的数，或使用 cron 计划",
            )
        )
    return round(float(value), 6)


def _moment(value: object) -> datetime:
    if isinstance(value, str):
        try:
            value = datetime.fromisoformat(value.strip())
        except ValueError as error:
            raise ValueError(
                Said(
                    f"{value!r} is no ISO 8601 moment; write one such as 2026-01-31T09:00:00+08:00",
                    f"{value!r} 不是 ISO 8601 时刻；请填写例如 2026-01-31T09:00:00+08:00",
                )
            ) from error
    if not isinstance(value, datetime):
        raise ValueError(  # noqa: TRY004 - as above
            Said(
                "a moment is ISO 8601 text such as 2026-01-31T09:00:00+08:00",
                "时刻须为 ISO 8601 文本，例如 2026-01-31T09:00:00+08:00",
            )
        )
    return _in_calendar(value)


def _in_calendar(value: datetime) -> datetime:
    if not FIRST_YEAR <= value.year <= LAST_YEAR:
        raise ValueError(
            Said(
                f"year {value.year} is outside {FIRST_YEAR} to {LAST_YEAR}; write a date in that range",
                f"年份 {value.year} 不在 {FIRST_YEAR} 到 {LAST_YEAR} 之间；请填写此范围内的日期",
            )
        )
    return value


Moment = Annotated[AwareDatetime, AfterValidator(_in_calendar)]
"""A moment with its offset. Further out, `astimezone()` overflows."""


def _cron_text(value: object) -> object:
    return normal_cron(value) if isinstance(value, str) else value


class _Value(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class CronSchedule(_Value):
    """Fires when the wall clock of the task's zone matches `expression`.

    POSIX rules as Debian's cron reads them: 0 and 7 are Sunday; with day-of-month *and* day-of-week set, either
    one matches, unless one of them starts with `*`.
    """

    type: Literal["cron"] = "cron"
    expression: Annotated[str, BeforeValidator(_cron_text)] = Field(
        max_length=MAX_EXPRESSION_LENGTH, examples=["0 9 * * 1-5", "*/30 * * * * *", "@daily"]
    )
    """5 fields, 6 with seconds first, or one of `MACROS`."""


class IntervalSchedule(_Value):
    """Fires every `seconds` of elapsed time, counted from an anchor, without drift."""

    type: Literal["interval"] = "interval"
    seconds: Annotated[float, BeforeValidator(interval_seconds)] = Field(
        examples=[300],
        json_schema_extra={"minimum": MIN_INTERVAL_SECONDS, "maximum": MAX_INTERVAL_SECONDS},
    )


class AtSchedule(_Value):
    """Fires once. A moment without an offset is wall time in the task's zone (see `to_utc`)."""

    type: Literal["at"] = "at"
    at: Annotated[datetime, BeforeValidator(_moment)] = Field(examples=["2026-01-31T09:00:00+08:00"])


Schedule = Annotated[CronSchedule | IntervalSchedule | AtSchedule, Field(discriminator="type")]


def zone_of(name: str) -> ZoneInfo:
    """The IANA zone `name`. Raises `InvalidRequest` naming `timezone`."""
    try:
        return zone_named(name)
    except ValueError as error:
        raise InvalidRequest.of("timezone", sentence_of(error)) from error


def to_utc(moment: datetime, zone: str, *, field: str) -> datetime:
    """`moment` in UTC; without an offset it is wall time in `zone`, read as PEP 495 says.

    A wall time that happens twice is the first one (the second with `fold=1`); one that does not exist is as
    much later as the clocks jumped: 02:30 in a gap from 02:00 to 03:00 is 03:30.

    Raises:
        InvalidRequest: the year is out of range (names `field`), or the zone unknown (names `timezone`).
    """
    try:
        _moment(moment)
    except ValueError as error:
        raise InvalidRequest.of(field, sentence_of(error)) from error
    return (moment if moment.tzinfo else moment.replace(tzinfo=zone_of(zone))).astimezone(UTC)


def to_columns(schedule: Schedule, *, zone: str) -> tuple[str, str]:
    """`schedule_type` and `schedule_expression`; `zone` gives a moment without an offset its meaning, once."""
    match schedule:
        case CronSchedule():
            return schedule.type, schedule.expression
        case IntervalSchedule():
            whole = math.floor(schedule.seconds)
            return schedule.type, str(whole if whole == schedule.seconds else schedule.seconds)
        case AtSchedule():
            return schedule.type, to_utc(schedule.at, zone, field="schedule").isoformat()


@lru_cache(maxsize=4096)
def from_columns(schedule_type: str, expression: str) -> Schedule:
    """The schedule stored in the two columns, by `to_columns` or by hand in SQL.

    Raises:
        InvalidRequest: naming `schedule`; the columns cannot be read.
    """
    try:
        match schedule_type:
            case "cron":
                return CronSchedule(expression=expression)
            case "interval":
                return IntervalSchedule(seconds=_stored_seconds(expression))
            case "at":
                return AtSchedule.model_validate({"at": expression})
    except ValidationError as error:
        raise InvalidRequest.of("schedule", message_of(error.errors()[0])) from error
    raise InvalidRequest.of(
        "schedule",
        Said(
            f"type {schedule_type!r} is unknown; write cron, interval or at",
            f"类型 {schedule_type!r} 未知；请填写 cron、interval 或 at",
        ),
    )


def _stored_seconds(expression: str) -> float:
    try:
        return float(expression)
    except ValueError as error:
        raise InvalidRequest.of(
            "schedule",
            Said(
                f"{expression!r} is no number of seconds; write one such as 300",
                f"{expression!r} 不是秒数；请填写例如 300",
            ),
        ) from error
