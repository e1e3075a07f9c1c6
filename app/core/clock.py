"""The only place in the scheduler that knows what time it is."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import Protocol


class Clock(Protocol):
    """Time as the scheduler sees it; tests hand in a virtual one."""

    def now(self) -> datetime:
        """The present as an aware UTC datetime."""

    def monotonic(self) -> float:
        """Seconds from an arbitrary start, never stepping back."""


class SystemClock:
    """The machine's own clock."""

    def now(self) -> datetime:
        return datetime.now(UTC)

    def monotonic(self) -> float:
        return time.monotonic()
