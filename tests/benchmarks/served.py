"""A server of ours in this process, and somebody in another one who asks it."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import httpx
import uvicorn
from fastapi import FastAPI

from app.core.config import Settings
from app.core.logging import configure_logging
from app.factory import create_app

_CLIENT = """
import json, sys, time, httpx
seconds = []
with httpx.Client(base_url=sys.argv[1], timeout=60) as client:
    end = time.monotonic() + float(sys.argv[3])
    while time.monotonic() < end:
        asked = time.perf_counter()
        client.get(sys.argv[2]).raise_for_status()
        seconds.append(time.perf_counter() - asked)
print(json.dumps(seconds))
"""
_LISTENERS = """
import asyncio, sys, httpx

async def listen(client):
    async with client.stream("GET", "/api/v1/scheduler/events") as answer:
        async for _ in answer.aiter_lines():
            if not listen.ready:
                listen.count -= 1
                listen.ready = listen.count == 0
                if listen.ready:
                    print("ready", flush=True)

async def main():
    listen.count, listen.ready = int(sys.argv[2]), False
    limits = httpx.Limits(max_connections=None)
    async with httpx.AsyncClient(base_url=sys.argv[1], timeout=None, limits=limits) as client:
        await asyncio.gather(*(listen(client) for _ in range(int(sys.argv[2]))), return_exceptions=True)

asyncio.run(main())
"""


@dataclass(frozen=True, slots=True)
class Site:
    """The application that is served, and its address."""

    app: FastAPI
    address: str

    async def ask(self, path: str, *, seconds: float) -> list[float]:
        """Another process asks for `path` again and again for that long; how long each answer took."""
        asking = await asyncio.create_subprocess_exec(
            sys.executable, "-c", _CLIENT, self.address, path, str(seconds), stdout=subprocess.PIPE
        )
        answer, _ = await asking.communicate()
        found: list[float] = json.loads(answer)
        return found

    @asynccontextmanager
    async def listened_to(self, streams: int) -> AsyncIterator[None]:
        """Another process holds that many event streams open."""
        if not streams:
            yield
            return
        listening = await asyncio.create_subprocess_exec(
            sys.executable, "-c", _LISTENERS, self.address, str(streams), stdout=subprocess.PIPE
        )
        if listening.stdout is None or (await listening.stdout.readline()).strip() != b"ready":
            raise RuntimeError("the streams did not open")
        yield
        listening.kill()
        await listening.wait()


@asynccontextmanager
async def serving(settings: Settings) -> AsyncIterator[Site]:
    """Our application under uvicorn, on a port of the system's choice."""
    configure_logging("WARNING")
    app = create_app(settings)
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="error"))
    task = asyncio.create_task(server.serve())
    while not server.started:
        await asyncio.sleep(0.01)
    address = f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    async with httpx.AsyncClient(base_url=address) as client:
        await client.get("/health/live")
    yield Site(app, address)
    server.should_exit = True
    await task
