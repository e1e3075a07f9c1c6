"""Which names of time zones are taken: those that mean the same on every machine and in every browser."""

from __future__ import annotations

from functools import lru_cache
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from app.core.language import Said

_OF_THE_MACHINE = ("localtime", "posixrules", "Factory", "posix/", "right/")
"""Files that lie beside the zones and are none: the machine's own zone, a placeholder, zones by other clocks."""


@lru_cache(maxsize=1024)
def zone_named(name: str) -> ZoneInfo:
    """The IANA zone `name`.

    Raises:
        ValueError: there is none; the message says what to write.
    """
    try:
        if not name.startswith(_OF_THE_MACHINE):
            return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        pass
    raise ValueError(
        Said(
            f"{name!r} is no IANA time zone; write one such as Asia/Shanghai or UTC",
            f"{name!r} 不是 IANA 时区；请填写例如 Asia/Shanghai 或 UTC",
        )
    )
