"""Plain APScheduler: many jobs due at the same instant, on the application's loop."""

from __future__ import annotations

import asyncio
import time
from datetime import UTC, datetime, timedelta

from apscheduler.jobstores.sqlalchemy import SQLAlchemyJobStore
from apscheduler.schedulers.asyncio import AsyncIOScheduler

from tests.benchmarks import probe
from tests.benchmarks.measure import MILLISECONDS, LoopWatch, spread_ms

_started_at: list[float] = []


async def _note_start() -> None:
    _started_at.append(time.time())


async def fires(jobs: int, stored: int) -> probe.Figures:
    """`jobs` jobs due at one instant: how late each starts, and the longest stall of the loop."""
    with probe.workspace() as folder:
        scheduler = AsyncIOScheduler(timezone="UTC")
        if stored:
            scheduler.add_jobstore(SQLAlchemyJobStore(f"sqlite:///{folder / 'jobs.db'}"))
        # The job store commits each job as it is added, all of which must be over when they fall due.
        due = datetime.now(UTC) + timedelta(seconds=2 + jobs / (30 if stored else 2000))
        for number in range(jobs):
            scheduler.add_job(_note_start, "date", run_date=due, misfire_grace_time=None, id=str(number))
        scheduler.start()
        spare = (due - datetime.now(UTC)).total_seconds() - 0.3
        if spare < 0:
            raise TimeoutError(f"the jobs were added {-spare:.1f} s too late to be measured")
        await asyncio.sleep(spare)
        async with LoopWatch() as watch:
            while len(_started_at) < jobs:
                await asyncio.sleep(0.01)
        scheduler.shutdown(wait=False)
        await asyncio.sleep(0)
    late = [moment - due.timestamp() for moment in _started_at]
    return {**spread_ms("start_late", late), "stall_ms": watch.longest_stall * MILLISECONDS}


if __name__ == "__main__":
    probe.main(fires)
