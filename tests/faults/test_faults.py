"""The fault harness, reduced: each kind of database for half a minute, and builds that must be found out."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.run import Report, run


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    yield tmp_path / "run"
    log = tmp_path / "run" / "servers.log"
    if log.exists():
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


@pytest.mark.timeout(300)
def test_a_build_that_forgets_the_ledger_is_found_out(folder: Path) -> None:
    report = run("postgres", folder, seconds=8, seed=1, processes=3, only=("kill",), broken="ledger")
    assert [line for line in report.violations if "recorded twice" in line]


@pytest.mark.timeout(300)
def test_a_build_without_the_fence_is_found_out(folder: Path) -> None:
    report: Report = run("sqlite", folder, seconds=30, seed=1, processes=3, only=("freeze",), broken="fence")
    assert [line for line in report.violations if "effects of attempts" in line or "successful attempts" in line]


@pytest.mark.timeout(300)
def test_a_build_that_forgets_its_steps_is_found_out(folder: Path) -> None:
    report = run("sqlite", folder, seconds=8, seed=1, processes=3, only=("kill",), broken="replay")
    assert [line for line in report.violations if "ran again" in line]
