"""A schedule as a sentence."""

from __future__ import annotations

import calendar
import re

from cron_descriptor import (  # type: ignore[import-untyped]  # it ships no types
    DescriptionTypeEnum,
    ExpressionDescriptor,
    FormatError,
    Options,
)

from app.core.language import Language
from app.scheduler.schedules import (
    CRON_FIELD_SIZES,
    AtSchedule,
    CronSchedule,
    IntervalSchedule,
    Schedule,
    both_days_must_match,
    cron_fields,
    star_step,
    to_utc,
    zone_of,
)

_LOCALES = {"en": "en_US", "zh": "zh_CN"}
_CHINESE_NAMES = {
    **{name: f"星期{number}" for name, number in zip(calendar.day_name, "一二三四五六日", strict=True)},
    **{calendar.month_name[number]: f"{number}月" for number in range(1, 13)},
}
"""cron-descriptor takes these from the process's locale, whatever the language it is asked for."""
_NAME = re.compile("|".join(_CHINESE_NAMES))
_UNITS = (("day", "天", 86_400), ("hour", "小时", 3_600), ("minute", "分钟", 60))


def describe(schedule: Schedule, *, zone: str, language: Language = "en") -> str:
    """`schedule` as a sentence, times in 24 hours.

    Raises:
        InvalidRequest: the zone is unknown (names `timezone`).
    """
    match schedule:
        case CronSchedule():
            return _describe_cron(cron_fields(schedule.expression), language)
        case IntervalSchedule():
            return _describe_interval(schedule.seconds, language)
        case AtSchedule():
            moment = to_utc(schedule.at, zone, field="schedule.at").astimezone(zone_of(zone))
            if language == "zh":
                return f"一次，{moment:%Y-%m-%d %H:%M:%S}（{zone}）"
            return f"Once, on {moment:%Y-%m-%d} at {moment:%H:%M:%S} ({zone})"


def say_duration(seconds: float, language: Language = "en") -> str:
    """Seconds as days, hours, minutes and seconds."""
    microseconds = round(seconds * 1_000_000)
    parts = []
    for unit, chinese, size in _UNITS:
        amount, microseconds = divmod(microseconds, size * 1_000_000)
        if amount:
            parts.append(_amount(amount, unit, chinese, language))
    if microseconds or not parts:
        parts.append(_amount(microseconds / 1_000_000, "second", "秒", language))
    return " ".join(parts)


def _amount(amount: float, unit: str, chinese: str, language: Language) -> str:
    number = f"{amount:.6f}".rstrip("0").rstrip(".")
    return f"{number} {chinese}" if language == "zh" else f"{number} {unit}" + ("" if amount == 1 else "s")


def _describe_interval(seconds: float, language: Language) -> str:
    said = say_duration(seconds, language)
    return f"每 {said}" if language == "zh" else "Every " + re.sub(r"^1 (\w+)$", r"\1", said)


def _describe_cron(fields: tuple[str, ...], language: Language) -> str:
    *time, day, month, weekday = [
        _plain_field(field, size) for field, size in zip(fields, CRON_FIELD_SIZES, strict=True)
    ]
    if time[0] == "0":
        time = time[1:]
    restricted = day != "*" and weekday != "*"
    try:
        if restricted and both_days_must_match(fields):
            # cron-descriptor says "or" for every pair; Debian says "and" where one starts with a star.
            base = _say((*time, day, month, "*"), language)
            only = _say((*time, "*", "*", weekday), language, DescriptionTypeEnum.DAYOFWEEK)
            if language == "zh":
                return f"{base}，且仅限{only.removeprefix(', ').removeprefix('或').removeprefix('仅在 ')}"
            return f"{base}, and only {only.removeprefix(', ').removeprefix('only ')}"
        return _say((*time, day, month, weekday), language)
    except FormatError:  # valid cron that cron-descriptor has no words for, such as `*/5,7`
        matches = " ".join((*time, day, month, weekday))
        return f"当时钟符合 {matches} 时" if language == "zh" else f"Whenever the clock matches {matches}"


def _say(fields: tuple[str, ...], language: Language, part: DescriptionTypeEnum = DescriptionTypeEnum.FULL) -> str:
    options = Options(locale_code=_LOCALES[language], use_24hour_time_format=True)
    said: str = ExpressionDescriptor(" ".join(fields), options).get_description(part)
    return _NAME.sub(lambda name: _CHINESE_NAMES[name[0]], said) if language == "zh" else said


def _plain_field(field: str, size: int) -> str:
    """`field` without what cron-descriptor misreads: a list with `*` in it, a step as wide as the field."""
    terms = field.split(",")
    if "*" in terms:
        return "*"
    first = "1" if size in {12, 31} else "0"
    return ",".join(first if (step := star_step(term)) is not None and step >= size else term for term in terms)
