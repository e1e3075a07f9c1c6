"""Cursors: where the next page begins. Opaque to clients, so that their content may change."""

from __future__ import annotations

import base64
import binascii
from typing import Annotated

from fastapi import Query

from app.core.errors import InvalidRequest
from app.core.language import Said

_VERSION = "1:"

Cursor = Annotated[
    str | None, Query(max_length=100, description="`next_cursor` of the page before; without it: the first page.")
]
Limit = Annotated[int, Query(ge=1, le=500, description="How many at most.")]


def encode(key: int) -> str:
    """The cursor of a page that continues after `key`."""
    return base64.urlsafe_b64encode(f"{_VERSION}{key}".encode()).decode().rstrip("=")


def decode(cursor: str | None) -> int | None:
    """The key in a cursor; None: the first page.

    Raises:
        InvalidRequest: it was not made by `encode`.
    """
    if cursor is None:
        return None
    try:
        plain = base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True).decode("ascii")
    except (ValueError, binascii.Error, UnicodeError):
        plain = ""
    digits = plain.removeprefix(_VERSION)
    key = int(digits) if plain.startswith(_VERSION) and digits.isdecimal() and len(digits) < 20 else 0
    if not 0 < key < 2**63:
        raise InvalidRequest.of(
            "cursor",
            Said("use the next_cursor of the page before, as it is", "请原样使用上一页返回的 next_cursor"),
        )
    return key
