"""What a type checker makes of `current_execution()`."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = """
from app.scheduler.context import CurrentExecution

async def later() -> list[int]:
    return []
def now(topic: str) -> dict[str, str]:
    return {}

async def work(me: CurrentExecution) -> None:
    reveal_type(await me.step("later", later))
    reveal_type(await me.step("now", now, "topic", retries=2))
    await me.spawn("a", "work", {}, max_attempts=3, priority=5)
    await me.spawn("b", "work", {}, max_attemptss=3)
    await me.call("c", "work", priority="5")
"""


@pytest.mark.timeout(180)
def test_steps_keep_the_types_of_their_functions_and_children_have_typed_options(tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)
    # A process of its own: mypy raises the recursion limit of the one it runs in, which others test.
    mypy = [sys.executable, "-m", "mypy", "--strict", "--cache-dir", str(tmp_path), str(program)]
    said = subprocess.run(mypy, capture_output=True, text=True, check=False).stdout
    later, now, misspelt, wrong = [line for line in said.splitlines() if "Revealed" in line or "error:" in line]
    assert "list[int]" in later
    assert "dict[str, str]" in now
    assert "max_attemptss" in misspelt
    assert "priority" in wrong
