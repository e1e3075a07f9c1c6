"""kill -9 in the middle of a workflow, again and again: it finishes, and what had finished is not run again."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from random import Random

import pytest

from app.models.task_execution import ExecutionState
from app.workflows import Flow, chain, group, start, step
from tests.integration.command_line import ROOT
from tests.integration.workflow_node import executor
from tests.integration.workflow_support import workflows
from tests.support import until

KILLS = 4


def flow() -> Flow:
    names = {name: step("work", {"name": name}, id=name) for name in ("a", "b", "c", "d", "end")}
    each = step("work", {"name": "each{{ index }}"}, id="each", for_each="input.items", limit=3)
    return chain(names["a"], group(names["b"], chain(names["c"], names["d"])), each, names["end"])


@contextmanager
def node(database_url: str, diary: Path) -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.integration.workflow_node", database_url, str(diary)],
        cwd=ROOT,
        env={**os.environ, "SQLITE_SYNCHRONOUS": "NORMAL"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        yield process
    finally:
        process.kill()
        process.wait()


@pytest.mark.timeout(240)
async def test_a_workflow_whose_nodes_are_killed_finishes(database_url: str, tmp_path: Path) -> None:
    diary = tmp_path / "diary"
    chance = Random(7)

    def lines() -> list[str]:
        return diary.read_text().splitlines() if diary.exists() else []

    async with workflows(database_url, executor(diary), scheduler_enabled=False) as (service, runtime):
        await service.drain()  # this process only asks and looks
        execution = await start(flow(), {"items": list(range(9))}, service=service)
        for kill in range(KILLS):
            before = len(lines())
            with node(database_url, diary) as process:
                await until(lambda: len(lines()) > before, seconds=60)  # noqa: B023 - called before it changes
                await asyncio.sleep(chance.uniform(0, 0.3))
                assert process.poll() is None, f"node {kill} ended by itself"
                process.send_signal(signal.SIGKILL)
                process.wait()
        with node(database_url, diary):
            await until(lambda: runtime.history.get(execution.id).is_final, seconds=90)
        stored = runtime.history.get(execution.id)
        children = runtime.history.children(execution.id)
    assert stored.state is ExecutionState.SUCCESS, stored.error
    assert len(children) == 14
    written = Counter(lines())
    names = {"a", "b", "c", "d", "end", *(f"each{number}" for number in range(9))}
    assert {line.split()[1] for line in written} == names
    for name in names:
        # A run that was cut off is run again; one whose end is recorded never is. A kill may fall between the
        # last line of a run and its record, so of `KILLS` kills each may repeat what ran at that moment.
        assert 1 <= written[f"end {name}"] <= written[f"begin {name}"] <= 1 + KILLS
    repeated = sum(written.values()) - 2 * len(names)
    assert repeated <= KILLS * 2 * 3, "more was run again than was running when a node was killed"
