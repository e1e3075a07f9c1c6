"""PgQueuer by itself, tuned as our engine tunes it: what a job costs without a history."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta

import asyncpg
from pgqueuer.db import AsyncpgPoolDriver
from pgqueuer.models import Job
from pgqueuer.qm import QueueManager
from pgqueuer.queries import Queries

from app.scheduler.engines.pgqueuer_jobs import asyncpg_dsn
from tests.benchmarks import probe
from tests.benchmarks.measure import spread_ms
from tests.postgres import postgres_server

_BURST = 500


@asynccontextmanager
async def _worker(concurrency: int, started: asyncio.Queue[float]) -> AsyncIterator[Queries]:
    """A worker whose jobs put the moment they start into `started`."""
    with postgres_server() as server:
        async with asyncpg.create_pool(asyncpg_dsn(server.get_uri()), min_size=2, max_size=8) as pool:
            queries = Queries(AsyncpgPoolDriver(pool))
            await queries.install()
            manager = QueueManager(queries)

            @manager.entrypoint("no_op")
            async def _no_op(_job: Job) -> None:
                started.put_nowait(time.perf_counter())

            run = asyncio.create_task(
                manager.run(
                    dequeue_timeout=timedelta(seconds=5),
                    batch_size=concurrency // 2,
                    max_concurrent_tasks=concurrency,
                )
            )
            await asyncio.sleep(0.5)
            yield queries
            manager.shutdown.set()
            await run


async def throughput(jobs: int, concurrency: int) -> probe.Figures:
    """Enqueue in bursts of 500 while one worker runs them; done when every job has left the queue."""
    started: asyncio.Queue[float] = asyncio.Queue()
    async with _worker(concurrency, started) as queries:
        began = time.perf_counter()
        for first in range(0, jobs, _BURST):
            count = min(_BURST, jobs - first)
            await queries.enqueue(["no_op"] * count, [b"1"] * count, [0] * count)
        for _ in range(jobs):
            await started.get()
        while await queries.queue_size():
            await asyncio.sleep(0.01)
        return {"rate": jobs / (time.perf_counter() - began)}


async def latency(jobs: int, concurrency: int) -> probe.Figures:
    """One at a time on an idle worker: from the call of enqueue to the start of the job."""
    started: asyncio.Queue[float] = asyncio.Queue()
    seconds = []
    async with _worker(concurrency, started) as queries:
        for _ in range(jobs):
            asked = time.perf_counter()
            await queries.enqueue("no_op", b"1")
            seconds.append(await started.get() - asked)
            await asyncio.sleep(0.05)
    return spread_ms("start", seconds)


if __name__ == "__main__":
    probe.main(throughput, latency)
