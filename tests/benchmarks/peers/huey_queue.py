"""Huey's `SqliteHuey`, enqueue to done.

Its `fsync=True` is SQLite's `synchronous=FULL`, `fsync=False` is `OFF` (weaker than NORMAL), unset is SQLite's own
default, FULL; NORMAL has no name there, so a storage class of four lines asks for it. A task leaves the queue
before it runs: a consumer that is killed loses it, which no figure here shows.
"""

from __future__ import annotations

import itertools
import multiprocessing
import sqlite3
import threading
import time
from pathlib import Path
from typing import Any

from huey import SqliteHuey
from huey.consumer import Consumer
from huey.signals import SIGNAL_COMPLETE
from huey.storage import SqliteStorage

from tests.benchmarks import probe
from tests.benchmarks.measure import spread_ms

_POLL_SECONDS = 0.001
_TIMEOUT_SECONDS = 120


class _NormalSqliteStorage(SqliteStorage):  # type: ignore[misc]  # Huey is untyped
    def _create_connection(self) -> sqlite3.Connection:
        connection: sqlite3.Connection = super()._create_connection()
        connection.execute("PRAGMA synchronous=NORMAL")
        return connection


def _huey(database: Path, synchronous: str) -> Any:
    if synchronous == "NORMAL":
        return SqliteHuey(filename=str(database), storage_class=_NormalSqliteStorage, timeout=60)
    return SqliteHuey(filename=str(database), fsync=synchronous == "FULL", timeout=60)


def _no_op() -> None:
    # None is not stored as a result: the fastest that Huey can be asked for.
    return None


def _no_op_with_result() -> bool:
    return True


# Huey finds a task by module and name; the producers import this module under another one.
_no_op.__module__ = _no_op_with_result.__module__ = "benchmark"


def _consumer(huey: Any, workers: int) -> Consumer:
    return Consumer(
        huey, workers=workers, periodic=False, initial_delay=_POLL_SECONDS, backoff=1.0, max_delay=_POLL_SECONDS
    )


def throughput(jobs: int, synchronous: str, workers: int, producers: int, results: int) -> probe.Figures:
    """`producers` processes enqueue while one consumer of `workers` threads runs: jobs done a second.

    `producers=0`: the consumer's own process enqueues, as an application with an embedded scheduler does.
    `results=1` stores each task's result, as a caller needs who wants to know that it is done.
    """
    function = _no_op_with_result if results else _no_op
    with probe.workspace() as folder:
        database = folder / "huey.db"
        huey = _huey(database, synchronous)
        task = huey.task()(function)
        all_done = threading.Event()
        completed = itertools.count(1)

        @huey.signal(SIGNAL_COMPLETE)  # type: ignore[untyped-decorator]  # sent after the result is stored
        def _count(*_: Any) -> None:
            if next(completed) == jobs:
                all_done.set()

        context = multiprocessing.get_context("spawn")
        gate = context.Barrier(producers + 1)
        senders = [
            context.Process(
                target=_enqueue, args=(database, synchronous, jobs // max(producers, 1), results, gate)
            )
            for _ in range(producers)
        ]
        for sender in senders:
            sender.start()
        consumer = _consumer(huey, workers)
        consumer.start()
        gate.wait()
        started = time.perf_counter()
        for _ in range(0 if producers else jobs):
            task()
        if not all_done.wait(_TIMEOUT_SECONDS):
            raise TimeoutError(f"Huey did not finish {jobs} jobs in {_TIMEOUT_SECONDS} s")
        elapsed = time.perf_counter() - started
        for sender in senders:
            sender.join()
        consumer.stop(graceful=True)
        huey.storage.close()
    return {"rate": jobs / elapsed}


def _enqueue(database: Path, synchronous: str, jobs: int, results: int, gate: Any) -> None:
    huey = _huey(database, synchronous)
    task = huey.task()(_no_op_with_result if results else _no_op)
    gate.wait()
    for _ in range(jobs):
        task()


def latency(jobs: int, synchronous: str) -> probe.Figures:
    """One job at a time into an idle queue that is polled every millisecond: enqueue to start."""
    started_at: list[float] = []
    started = threading.Event()
    seconds: list[float] = []

    def note_start() -> None:
        started_at.append(time.perf_counter())
        started.set()

    with probe.workspace() as folder:
        huey = _huey(folder / "huey.db", synchronous)
        task = huey.task()(note_start)
        consumer = _consumer(huey, workers=1)
        consumer.start()
        for _ in range(jobs):
            started.clear()
            asked = time.perf_counter()
            task()
            if not started.wait(_TIMEOUT_SECONDS):
                raise TimeoutError("Huey did not start the job")
            seconds.append(started_at[-1] - asked)
            time.sleep(0.01)
        consumer.stop(graceful=True)
        huey.storage.close()
    return spread_ms("start", seconds)


if __name__ == "__main__":
    probe.main(throughput, latency)
