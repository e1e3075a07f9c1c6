"""What may go into a column: plain JSON and plain text, made from what Python code returns."""

from __future__ import annotations

import re
from typing import Any

from pydantic_core import PydanticSerializationError, from_json, to_json

from app.core.language import Said

LARGEST_RESULT = 16 * 1024 * 1024
"""Bytes of JSON that the result of an execution or of a step may have: who reads it has it in memory, whole and
more than once."""
_WRAPS = 8
"""Levels by which what was accepted may be wrapped before it is stored: it must be readable all the same."""
_OPEN, _CLOSE = b"[" * _WRAPS, b"]" * _WRAPS


def size_of(value: Any) -> int:
    """Bytes that plain JSON has."""
    return len(to_json(value))


def to_plain_json(value: Any, *, finite: bool = False, at_most: int | None = None) -> Any:
    """`value` as JSON reads it back: datetime, Decimal, UUID, Enum, Path, dataclass, pydantic model and bytes
    become strings or objects; NaN and infinities become the strings "NaN", "Infinity", "-Infinity", or are refused
    (`finite`: what is read again as it was written, such as params, must keep its types).

    Raises:
        ValueError: some part of `value` has no JSON form, and the message names its type; or it has more than
            `at_most` bytes.
    """
    try:
        written = _OPEN + to_json(value, inf_nan_mode="constants" if finite else "strings") + _CLOSE
    except (PydanticSerializationError, UnicodeEncodeError, RecursionError) as error:
        raise ValueError(str(error)) from error
    if at_most is not None and len(written) - 2 * _WRAPS > at_most:
        size = len(written) - 2 * _WRAPS
        raise ValueError(
            Said(
                f"it has {size:,} bytes, and at most {at_most:,} are stored",
                f"它有 {size:,} 字节，最多保存 {at_most:,} 字节",
            )
        )
    try:
        found = from_json(written, allow_inf_nan=False)
    except ValueError as error:
        is_number = finite and "recursion" not in str(error)
        raise ValueError(
            Said("NaN and infinities have no JSON form; write null", "NaN 和无穷大没有 JSON 形式；请填写 null")
            if is_number
            else str(error)
        ) from error
    for _ in range(_WRAPS):
        (found,) = found
    return found


def text_of(value: object) -> str:
    """`str(value)`; of an object that cannot say what it is, its type."""
    try:
        return str(value)
    except Exception:  # noqa: BLE001 - code of whoever made the object
        return f"<{type(value).__name__}>"


def shortened(text: str, limit: int) -> str:
    """`text`, if it is longer than `limit` characters cut there, saying how many are left out."""
    return text if len(text) <= limit else f"{text[:limit]}… ({len(text) - limit} characters left out)"


_UNSTORABLE = re.compile("[\x00\ud800-\udfff]")


def safe_text(value: str) -> str:
    """`value` with what UTF-8 or PostgreSQL refuse (lone surrogates, NUL) replaced by U+FFFD."""
    if value.isprintable():  # nearly every text; what cannot be stored is not printable
        return value
    return _UNSTORABLE.sub("\ufffd", value)
