"""Measuring instruments that ours and the peers share, so that both are measured alike."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Sequence
from types import TracebackType
from typing import Self

import psutil

MILLISECONDS = 1e3
MICROSECONDS = 1e6
_TICK_SECONDS = 0.001


def percentile(values: Sequence[float], percent: float) -> float:
    """The nearest-rank percentile: the smallest value that `percent` % of all values do not exceed."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(len(ordered) * percent / 100) - 1)]


def spread_ms(name: str, seconds: Sequence[float]) -> dict[str, float]:
    """`name_p50_ms` and `name_p99_ms` of durations in seconds."""
    return {f"{name}_p{percent}_ms": percentile(seconds, percent) * MILLISECONDS for percent in (50, 99)}


def resident_mib() -> float:
    """Memory of this process that is in RAM, in MiB."""
    return float(psutil.Process().memory_info().rss) / 2**20


class LoopWatch:
    """Watches the running event loop: `longest_stall` is the most it was late to wake a sleeper, in seconds."""

    def __init__(self) -> None:
        self.longest_stall = 0.0

    async def __aenter__(self) -> Self:
        self._sleeper = asyncio.create_task(self._sleep_and_look())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._sleeper.cancel()
        await asyncio.gather(self._sleeper, return_exceptions=True)

    async def _sleep_and_look(self) -> None:
        asleep_since = time.perf_counter()
        while True:
            await asyncio.sleep(_TICK_SECONDS)
            awake = time.perf_counter()
            self.longest_stall = max(self.longest_stall, awake - asleep_since - _TICK_SECONDS)
            asleep_since = awake
