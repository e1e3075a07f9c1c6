"""The dashboard's questions, on a long history and with many open pages."""

from __future__ import annotations

import asyncio
import sqlite3
import time
from contextlib import closing
from pathlib import Path

from app.core.config import Settings
from app.db.schema import upgrade
from tests.benchmarks import probe
from tests.benchmarks.measure import MILLISECONDS, percentile, resident_mib
from tests.benchmarks.served import serving

API = "/api/v1/scheduler"
LISTS = {
    "executions": f"{API}/executions?limit=50",
    "failed": f"{API}/executions?limit=50&state=failed",
    "task": f"{API}/executions?limit=50&task_id=7",
    "search": f"{API}/executions?limit=50&search=refused",
    "attention": f"{API}/attention",
    "status": f"{API}/status",
}
_HISTORY = """
WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ?)
INSERT INTO task_executions
    (task_type, task_name, task_id, state, trigger, scheduled_for, run_at, created_at, started_at, finished_at,
     duration_seconds, attempt, error)
SELECT 'no_op', 'task ' || (i % 200), i % 200, iif(i % 100, 'success', 'failed'), 'schedule', made, made, made,
       made, made, (i % 1000) / 1000.0, 1, iif(i % 100, NULL, 'ConnectionError: refused')
FROM (
    SELECT i, datetime('now', '-' || ((? - i) * 2592000 / ?) || ' seconds') || printf('.%06d', i % 1000000) AS made
    FROM n
)
"""
"""A month of executions of two hundred tasks, one in a hundred failed."""


def _settings(folder: Path) -> Settings:
    return Settings(
        database_url=f"sqlite:///{folder / 'ours.db'}",
        sqlite_synchronous="NORMAL",
        publish_directory=folder / "site",
    )


async def lists(executions: int) -> probe.Figures:
    """p50 of each list, with that many executions stored."""
    with probe.workspace() as folder:
        settings = _settings(folder)
        upgrade(settings)
        with closing(sqlite3.connect(folder / "ours.db")) as connection:
            connection.execute(_HISTORY, (executions, executions, executions))
            connection.commit()
        async with serving(settings) as site:
            return {
                f"{name}_p50_ms": percentile(await site.ask(path, seconds=1.5), 50) * MILLISECONDS
                for name, path in LISTS.items()
            }


async def streams(streams: int) -> probe.Figures:
    """The API's latency, and the server's processor time a second and memory, with that many open pages."""
    with probe.workspace() as folder:
        settings = _settings(folder)
        upgrade(settings)
        async with serving(settings) as site, site.listened_to(streams):
            await asyncio.sleep(1)
            before, since = time.process_time(), time.monotonic()
            await asyncio.sleep(3)
            cpu = (time.process_time() - before) / (time.monotonic() - since)
            seconds = await site.ask(f"{API}/executions?limit=50", seconds=2)
            return {
                "p50_ms": percentile(seconds, 50) * MILLISECONDS,
                "p99_ms": percentile(seconds, 99) * MILLISECONDS,
                "cpu_a_second_ms": cpu * MILLISECONDS,
                "memory_mib": resident_mib(),
            }


if __name__ == "__main__":
    probe.main(lists, streams)
