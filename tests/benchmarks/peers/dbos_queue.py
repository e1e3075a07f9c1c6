"""DBOS on SQLite, enqueue to done.

DBOS opens SQLite with a rollback journal; WAL is faster, so it is handed an engine in WAL mode with the wanted
durability, which its configuration allows.
"""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import sqlalchemy
from dbos import DBOS, DBOSConfig

from tests.benchmarks import probe
from tests.benchmarks.measure import spread_ms

_QUEUE = "benchmark"
_TIMEOUT_SECONDS = 300


@DBOS.workflow()
def _no_op() -> None:
    return None


_started_at: list[float] = []
_started = threading.Event()


@DBOS.workflow()
def _note_start() -> None:
    _started_at.append(time.perf_counter())
    _started.set()


@contextmanager
def _launched(database: Path, synchronous: str, workers: int, poll_seconds: float) -> Iterator[None]:
    config: DBOSConfig = {
        "name": "benchmark",
        "log_level": "ERROR",
        "system_database_engine": _engine(database, synchronous),
        "max_executor_threads": workers,
    }
    DBOS(config=config)
    DBOS.launch()
    DBOS.register_queue(_QUEUE, worker_concurrency=workers, polling_interval_sec=poll_seconds)
    try:
        yield
    finally:
        DBOS.destroy()


def _engine(database: Path, synchronous: str) -> sqlalchemy.Engine:
    engine = sqlalchemy.create_engine(f"sqlite:///{database}", pool_size=40)

    @sqlalchemy.event.listens_for(engine, "connect")
    def _prepare(connection: Any, _record: Any) -> None:
        connection.isolation_level = "IMMEDIATE"  # as DBOS does for the engines it makes itself
        connection.execute("PRAGMA busy_timeout=30000")
        connection.execute("PRAGMA foreign_keys=ON")
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute(f"PRAGMA synchronous={synchronous}")

    return engine


def throughput(jobs: int, synchronous: str, workers: int, callers: int, poll_seconds: float) -> probe.Figures:
    """`callers` threads enqueue `jobs` no-op workflows: workflows recorded as done a second."""
    with probe.workspace() as folder:
        database = folder / "dbos.db"
        with _launched(database, synchronous, workers, poll_seconds), ThreadPoolExecutor(callers) as threads:
            started = time.perf_counter()
            list(threads.map(lambda _: DBOS.enqueue_workflow(_QUEUE, _no_op), range(jobs)))
            _wait_until_done(database, jobs)
            elapsed = time.perf_counter() - started
    return {"rate": jobs / elapsed}


def _wait_until_done(database: Path, jobs: int) -> None:
    deadline = time.monotonic() + _TIMEOUT_SECONDS
    with closing(sqlite3.connect(database, isolation_level=None)) as connection:
        query = "SELECT count(*) FROM workflow_status WHERE status = 'SUCCESS'"
        while connection.execute(query).fetchone()[0] < jobs:
            if time.monotonic() > deadline:
                raise TimeoutError(f"DBOS did not finish {jobs} workflows in {_TIMEOUT_SECONDS} s")
            time.sleep(0.02)


def latency(jobs: int, synchronous: str, poll_seconds: float) -> probe.Figures:
    """One workflow at a time into an idle queue: enqueue to start."""
    seconds: list[float] = []
    with probe.workspace() as folder, _launched(folder / "dbos.db", synchronous, 4, poll_seconds):
        for _ in range(jobs):
            _started.clear()
            asked = time.perf_counter()
            DBOS.enqueue_workflow(_QUEUE, _note_start)
            if not _started.wait(_TIMEOUT_SECONDS):
                raise TimeoutError("DBOS did not start the workflow")
            seconds.append(_started_at[-1] - asked)
            time.sleep(0.01)
    return spread_ms("start", seconds)


if __name__ == "__main__":
    probe.main(throughput, latency)
