"""Several processes on one database: what a second, third and fourth add, and how they share due tasks."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime, timedelta

from sqlalchemy import Engine, text

from app.core.config import Settings
from app.core.logging import configure_logging
from app.db.database import make_engine
from app.db.schema import upgrade
from app.scheduler.runtime import build_service
from tests.benchmarks import probe
from tests.benchmarks.ours import NoOp
from tests.postgres import postgres_server

_JOBS = """
WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < :count)
INSERT INTO task_executions (task_type) SELECT 'no_op' FROM n
"""
_TASKS = """
WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < :count)
INSERT INTO scheduled_tasks (name, task_type, schedule_type, schedule_expression, next_run_at)
SELECT 'task ' || i, 'no_op', 'cron', '0 0 1 1 *', :due FROM n
"""


def throughput(jobs: int, processes: int, database: str) -> probe.Figures:
    """No-op executions a second, from a table full of them, until all are done."""
    with _deployment(database) as (url, engine), _nodes(url, processes):
        started = time.perf_counter()
        with engine.begin() as connection:
            connection.execute(text(_JOBS), {"count": jobs})
        _await(engine, "SELECT count(*) FROM task_executions WHERE state <> 'success'", lambda left: left == 0)
        return {"rate": jobs / (time.perf_counter() - started)}


def fires(tasks: int, processes: int, database: str) -> probe.Figures:
    """Fires recorded a second while all of `processes` compete for `tasks` tasks due at one instant.

    Raises:
        RuntimeError: a task fired twice, or not at all.
    """
    with _deployment(database) as (url, engine):
        due = datetime.now(UTC) + timedelta(seconds=3 + processes)
        with engine.begin() as connection:
            moment = due.strftime("%Y-%m-%d %H:%M:%S.%f") if database == "sqlite" else due
            connection.execute(text(_TASKS), {"count": tasks, "due": moment})
        with _nodes(url, processes):
            _await(engine, "SELECT count(*) FROM task_executions", lambda count: count >= tasks)
            elapsed = (datetime.now(UTC) - due).total_seconds()
            with engine.connect() as connection:
                fired = connection.scalar(text("SELECT count(DISTINCT task_id) FROM task_executions"))
                rows = connection.scalar(text("SELECT count(*) FROM task_executions"))
        if (fired, rows) != (tasks, tasks):
            raise RuntimeError(f"{tasks} tasks were due; {fired} fired, in {rows} rows")
        return {"rate": tasks / elapsed}


@contextmanager
def _deployment(database: str) -> Iterator[tuple[str, Engine]]:
    with ExitStack() as stack:
        if database == "sqlite":
            url = f"sqlite:///{stack.enter_context(probe.workspace()) / 'ours.db'}"
        else:
            url = stack.enter_context(postgres_server()).get_uri()
        settings = Settings(database_url=url)
        upgrade(settings)
        engine = make_engine(settings)
        stack.callback(engine.dispose)
        yield url, engine


@contextmanager
def _nodes(url: str, count: int) -> Iterator[None]:
    """That many processes with a node each; they are up when this goes on, and gone when it is left."""
    command = [sys.executable, "-m", "tests.benchmarks.processes", "node", f"url={url}"]
    started = [
        subprocess.Popen(command, stdin=subprocess.PIPE, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for _ in range(count)
    ]
    try:
        for process in started:
            while process.stderr is not None and process.stderr.readline().strip() != "up":
                if process.poll() is not None:
                    raise RuntimeError("a node did not start")
        yield
    finally:
        for process in started:
            process.communicate()  # its stdin is closed: that is its sign to go


async def node(url: str) -> probe.Figures:
    """One node, until stdin ends."""
    configure_logging("ERROR")
    service = build_service(Settings(database_url=url))
    service.register_executor(NoOp())
    service.start()
    print("up", file=sys.stderr, flush=True)
    await asyncio.to_thread(sys.stdin.read)
    await service.drain(0)
    return {}


def _await(engine: Engine, query: str, is_done: Callable[[int], bool]) -> None:
    """Ask until it is so."""
    with engine.connect() as connection:
        while not is_done(connection.scalar(text(query)) or 0):
            connection.rollback()
            time.sleep(0.02)


if __name__ == "__main__":
    probe.main(throughput, fires, node)
