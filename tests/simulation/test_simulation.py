"""A month of a hundred schedules in which everything goes wrong; and the proof that the judge can say no."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from app.db.bulk import BulkUpdate
from app.scheduler import attempts, claims, executions
from app.scheduler.engines import pool
from app.scheduler.nodes import Lease
from tests.simulation.checker import Report, judge
from tests.simulation.scenario import Scenario
from tests.simulation.world import World

A_FEW_DAYS = Scenario(days=4, tasks=40)
ROUGH = Scenario(
    days=5,
    tasks=60,
    crash_at_commit=0.01,
    between_pauses=timedelta(hours=6),
    between_operations=timedelta(hours=2),
)


def played(seed: int, scenario: Scenario, **world: Any) -> Report:
    run = World(seed, scenario, **world)
    run.run()
    return judge(run)


@pytest.mark.timeout(300)
def test_a_month_of_a_hundred_schedules_keeps_every_promise() -> None:
    report = played(11, Scenario())
    assert report.violations == []
    assert report.fires > 800
    assert report.crashes > 20
    assert report.freezes > 5
    assert report.rescues > 10


def test_a_seed_replays_exactly() -> None:
    worlds = [World(seed, A_FEW_DAYS) for seed in (5, 5, 6)]
    for world in worlds:
        world.run()
    first, again, other = (world.fingerprint() for world in worlds)
    assert first == again != other


@pytest.mark.parametrize("seed", [2, 4, 8])
def test_rough_days_keep_every_promise(seed: int) -> None:
    assert played(seed, ROUGH).violations == []


# ---------------------------------------------------------------- the judge can say no


def without_the_fence(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever finishes an attempt writes its outcome, whoever owns it."""
    unguarded = BulkUpdate(
        {**attempts._FENCE, **attempts._OUTCOME},
        lambda given: attempts._with_outcome(given).where(attempts.executions.c.id == given["x_id"]),
    )
    monkeypatch.setattr(attempts, "_FINISH", unguarded)


def without_the_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is claimed together does not exclude each other."""
    monkeypatch.setattr(claims, "_within_limits", lambda _, candidates, gate, room: candidates[:room])


def without_the_burial(monkeypatch: pytest.MonkeyPatch) -> None:
    """A node that was declared dead goes on taking work, and nobody looks for what it took."""
    monkeypatch.setattr(Lease, "is_valid", True)
    for module in (claims, executions):
        monkeypatch.setattr(module, "is_buried", lambda *_: False)
    monkeypatch.setattr(pool, "left_behind", lambda _: [])


def without_the_end_of_the_unwanted(monkeypatch: pytest.MonkeyPatch) -> None:
    """What was asked to end, and came back to wait, is left as it is."""
    monkeypatch.setattr(claims, "_end_unwanted", lambda *_: 0)


def whole(_: pytest.MonkeyPatch) -> None:
    """Nothing is missing."""


@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    ("mutilate", "world", "complaint"),
    [
        (without_the_fence, {}, "had ended|moved from|successful attempts"),
        (without_the_limits, {}, "ran at once|started beside"),
        (without_the_burial, {}, "never ended"),
        (without_the_end_of_the_unwanted, {}, "never ended"),
        (whole, {"with_fire_constraint": False}, "was recorded 2 times"),
    ],
)
def test_the_judge_finds_what_is_missing(
    mutilate: Callable[[pytest.MonkeyPatch], None],
    world: dict[str, Any],
    complaint: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    mutilate(monkeypatch)
    found: list[str] = []
    for seed in range(6):
        found += played(seed, ROUGH, **world).violations
        if found:
            break
    assert any(part in line for part in complaint.split("|") for line in found), found
