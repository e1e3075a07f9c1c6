"""Time that stands still until somebody moves it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

START = datetime(2030, 1, 7, 9, tzinfo=UTC)
"""A Monday morning, far from every change of clocks."""


class VirtualClock:
    """A `Clock` moved by hand, in whole microseconds: a year of small steps adds up exactly."""

    def __init__(self, start: datetime = START) -> None:
        self._start = start.astimezone(UTC)
        self._microseconds = 0

    def now(self) -> datetime:
        return self._start + timedelta(microseconds=self._microseconds)

    def monotonic(self) -> float:
        return self._microseconds / 1_000_000

    def advance(self, seconds: float) -> None:
        """Let `seconds` pass. However few they are, time moves on: what waits for a moment reaches it."""
        if seconds > 0:
            self._microseconds += max(1, round(seconds * 1_000_000))
