"""What pydantic finds, as field errors for people, in each language."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import ValidationError

from app.core.errors import FieldError, sentence_of
from app.core.language import Said

PRINTABLE = r"^[^\x00-\x1f\x7f]+$"
"""One line of text."""

TOLD = 50
"""Errors that one refusal of many requests names, so that it does not outgrow what it refuses."""
_PATTERNS = {
    PRINTABLE: Said("write one line of text, without control characters", "请填写一行不含控制字符的文本"),
    r"^[^\x00]*$": Said("write text without NUL", "请填写不含 NUL 的文本"),
    r"^[^\x00]+$": Said("write text without NUL", "请填写不含 NUL 的文本"),
    r"^[^#\x00-\x1f\x7f]+$": Said(
        "write one line of text, without # and control characters", "请填写一行不含 # 和控制字符的文本"
    ),
    r"^([01]\d|2[0-3]):[0-5]\d$": Said(
        "write a time of day from 00:00 to 23:59, such as 09:30", "请填写 00:00 到 23:59 之间的时间，例如 09:30"
    ),
    r"^[A-Za-z_][\w.]*$": Said(
        "write the name of an exception's class, such as TimeoutError", "请填写异常类的名称，例如 TimeoutError"
    ),
    r"^[A-Za-z][A-Za-z0-9_]*$": Said(
        "write letters, digits and _, a letter first", "请填写字母、数字和 _，以字母开头"
    ),
    r"^[!#$%&'*+.^_`|~0-9A-Za-z-]{1,100}$": Said(
        "write the name of an HTTP header, such as X-Request-Id", "请填写 HTTP 头的名称，例如 X-Request-Id"
    ),
    r"^[\t\x20-\x7e]{0,4000}$": Said(
        "write at most 4,000 printable ASCII characters", "请填写最多 4,000 个可打印的 ASCII 字符"
    ),
}
_NUMBERS = {
    "int_type": Said(
        "write a whole number without a decimal point, such as 3; text, true and false are none",
        "须为不带小数点的整数，例如 3；不接受文本、true 和 false",
    ),
    "float_type": Said(
        "write a number, such as 2.5; text, true and false are none",
        "须为数字，例如 2.5；不接受文本、true 和 false",
    ),
}
_UNIONS = {
    "schedule": ("type", ("cron", "interval", "at")),
    "condition": ("type", ("failed", "late", "slow", "no_success", "parked")),
    "repeats": ("kind", ("debounce", "throttle", "once")),
}
"""Fields that hold one of several models: what tells them apart, and its values."""

_IN_CHINESE = {
    "missing": "必须填写",
    "extra_forbidden": "没有这个字段；请去掉",
    "none_required": "须为空",
    "string_type": "须为文本",
    "string_too_short": "至少 {min_length} 个字符",
    "string_too_long": "最多 {max_length} 个字符",
    "string_pattern_mismatch": "须符合格式 {pattern}",
    "string_unicode": "须为有效的 Unicode 文本",
    "int_parsing": "须为整数",
    "int_parsing_size": "整数过大",
    "int_from_float": "须为整数，不含小数部分",
    "float_parsing": "须为数字",
    "finite_number": "须为有限的数字",
    "bool_type": "须为 true 或 false",
    "bool_parsing": "须为 true 或 false",
    "greater_than": "须大于 {gt}",
    "greater_than_equal": "须不小于 {ge}",
    "less_than": "须小于 {lt}",
    "less_than_equal": "须不大于 {le}",
    "multiple_of": "须为 {multiple_of} 的倍数",
    "literal_error": "须为 {expected}",
    "enum": "须为 {expected}",
    "list_type": "须为列表",
    "tuple_type": "须为列表",
    "set_type": "须为列表",
    "dict_type": "须为对象",
    "mapping_type": "须为对象",
    "model_type": "须为对象",
    "model_attributes_type": "须为对象",
    "too_short": "至少 {min_length} 项，现有 {actual_length} 项",
    "too_long": "最多 {max_length} 项，现有 {actual_length} 项",
    "datetime_type": "须为日期和时间",
    "datetime_parsing": "须为日期和时间：{error}",
    "datetime_from_date_parsing": "须为日期和时间：{error}",
    "datetime_object_invalid": "须为日期和时间：{error}",
    "timezone_aware": "请注明时区",
    "date_type": "须为日期",
    "date_parsing": "须为日期，例如 2026-01-31",
    "date_from_datetime_parsing": "须为日期，例如 2026-01-31",
    "date_from_datetime_inexact": "须为不含时间的日期",
    "time_type": "须为时间",
    "time_parsing": "须为时间，例如 09:30",
    "time_delta_type": "须为时长",
    "time_delta_parsing": "须为时长",
    "uuid_type": "须为 UUID",
    "uuid_parsing": "须为 UUID",
    "url_type": "须为地址",
    "url_parsing": "须为地址：{error}",
    "url_scheme": "地址须以 {expected_schemes} 开头",
    "url_too_long": "地址最多 {max_length} 个字符",
    "json_type": "须为 JSON 文本",
    "json_invalid": "不是 JSON：{error}",
    "union_tag_invalid": "须为 {expected_tags}",
    "union_tag_not_found": "请注明 {discriminator}",
    "invalid_key": "键须为文本",
    "recursion_loop": "引用了自身",
}
"""pydantic's kinds of findings (its "Validation Errors" page) with the names of what they are told with."""


def field_errors(error: ValidationError) -> list[FieldError]:
    """pydantic's findings as field errors: the dotted path, the sentence, pydantic's stable kind."""
    return [field_error(item["loc"], item) for item in error.errors(include_url=False, include_input=False)]


def field_error(location: Sequence[int | str], finding: Mapping[str, Any]) -> FieldError:
    """One finding of pydantic for people: `("schedule", "cron", "expression")` is `schedule.expression`, for a
    union's tag is no field; the message says what to write.

    A rule about several fields has no location; its message begins with the field it is about.
    """
    parts = [str(part) for part in location]
    kind = str(finding["type"])
    message = message_of(finding)
    discriminator, tags = _UNIONS.get(parts[0] if parts else "", ("", ()))
    if len(parts) > 2 and parts[1] in tags:
        del parts[1]
    elif len(parts) == 1 and tags and kind in ("union_tag_not_found", "union_tag_invalid"):
        parts.append(discriminator)
        message = Said(f"write which one it is: {', '.join(tags)}", f"请注明是哪一种：{'、'.join(tags)}")
    first = message.partition(" ")[0]
    named = ".".join(parts) or (first if first.isidentifier() and first.islower() else "body")
    return FieldError(named, message, kind)


def first_of(errors: Sequence[FieldError], total: int) -> list[FieldError]:
    """The first `TOLD` of `total` errors, and a last one that says how many are left out."""
    shown = list(errors[:TOLD])
    if total > len(shown) > 0:
        left = total - len(shown)
        shown.append(
            FieldError(
                shown[0].field.partition(".")[0],
                Said(f"{left} more are wrong; mend these first", f"另有 {left} 处有误；请先修改以上各处"),
                "more",
            )
        )
    return shown


def message_of(finding: Mapping[str, Any]) -> str:
    """The sentence of one of pydantic's findings: a validator's own as it wrote it, a pattern as what it means."""
    told: Mapping[str, Any] = finding.get("ctx", {})
    kind = str(finding["type"])
    if kind == "value_error" and "error" in told:
        return sentence_of(told["error"])
    if kind == "string_pattern_mismatch" and told["pattern"] in _PATTERNS:
        return _PATTERNS[told["pattern"]]
    if kind in _NUMBERS:
        return _NUMBERS[kind]
    # JSON has lists; which Python type holds one is no matter of whoever writes it.
    english = str(finding["msg"]).replace("Tuple should", "List should")
    chinese = _IN_CHINESE.get(kind)
    if chinese is None:
        return english
    return Said(english, chinese.format_map({name: _in_chinese(value) for name, value in told.items()}))


def _in_chinese(value: object) -> str:
    return str(value).replace(" or ", " 或 ").replace(", ", "、")
