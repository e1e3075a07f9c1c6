"""Measuring instruments that ours and the peers share, so that both are measured alike."""

from __future__ import annotations

import asyncio
import math
import multiprocessing
import sqlite3
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Self

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


class RowWatch:
    """Another process that reads a table of a SQLite file as it grows: what it sees is committed.

    Counts by the highest id, so the table must be filled from id 1 without gaps.
    """

    def __init__(self, rows: int, answer: Any) -> None:
        self._rows = rows
        self._answer = answer

    def moments(self, timeout: float) -> list[float]:
        """Wall-clock time at which each row was first visible, in order of ids; waits for all of them.

        Raises:
            TimeoutError: not all rows appeared in `timeout` seconds.
        """
        if not self._answer.poll(timeout):
            raise TimeoutError(f"fewer than {self._rows} rows in {timeout} s")
        sightings: list[tuple[float, int]] = self._answer.recv()
        moments: list[float] = []
        for moment, count in sightings:
            moments += [moment] * (count - len(moments))
        return moments


@contextmanager
def row_watch(database: Path, table: str, rows: int) -> Iterator[RowWatch]:
    """A `RowWatch` that is looking already, until `table` has `rows` rows."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    watcher = context.Process(target=_watch_rows, args=(database, table, rows, theirs), daemon=True)
    watcher.start()
    ours.recv()
    try:
        yield RowWatch(rows, ours)
    finally:
        watcher.terminate()
        watcher.join()


def _watch_rows(database: Path, table: str, rows: int, answer: Any) -> None:
    sightings: list[tuple[float, int]] = []
    seen = 0
    with closing(sqlite3.connect(database, isolation_level=None)) as connection:
        answer.send("looking")
        while seen < rows:
            count = connection.execute(f"SELECT coalesce(max(id), 0) FROM {table}").fetchone()[0]
            if count > seen:
                seen = count
                sightings.append((time.time(), count))
            time.sleep(2 * _TICK_SECONDS)
    answer.send(sightings)
