"""The fault harness, reduced: each kind of database for half a minute, and builds that must be found out."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.faults.run import run


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    yield tmp_path / "run"
    for log in (tmp_path / "run").rglob("servers.log"):
        print(log.read_text(errors="replace")[-20_000:])  # shown where the test fails


@pytest.mark.timeout(300)
@pytest.mark.parametrize("target", ["sqlite", "postgres", "pgqueuer"])
def test_no_promise_is_broken_whatever_happens(target: str, folder: Path) -> None:
    report = run(target, folder, seconds=25, seed=1, processes=5 if target == "pgqueuer" else 3)
    assert report.violations == []
    assert report.acknowledged > 50
    assert report.fires > 50
    assert report.steps > 5
    assert report.signals > 0
    assert report.workflows > 2
    assert sum(report.faults.values()) > 5


def is_found_out(broken: str, signs: tuple[str, ...], folder: Path, target: str, **how: Any) -> bool:
    """Whether the checker says one of `signs` of a build that is broken so.

    Chance decides whether a short run on a busy machine meets what is broken, so it has three.
    """
    for seed in (1, 2, 3):
        report = run(target, folder / str(seed), seed=seed, processes=3, broken=broken, **how)
        if any(sign in line for line in report.violations for sign in signs):
            return True
    return False


@pytest.mark.timeout(600)
def test_a_build_that_forgets_the_ledger_is_found_out(folder: Path) -> None:
    assert is_found_out("ledger", ("recorded twice",), folder, "postgres", seconds=8, only=("kill",))


@pytest.mark.timeout(600)
def test_a_build_without_the_fence_is_found_out(folder: Path) -> None:
    signs = ("effects of attempts", "successful attempts")
    assert is_found_out("fence", signs, folder, "sqlite", seconds=30, only=("freeze",))


@pytest.mark.timeout(600)
def test_a_build_that_forgets_its_steps_is_found_out(folder: Path) -> None:
    assert is_found_out("replay", ("ran again",), folder, "sqlite", seconds=8, only=("kill",))
