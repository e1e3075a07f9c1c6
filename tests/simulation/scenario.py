"""What a simulated world is made of: schedules, policies, and how often what goes wrong."""

from __future__ import annotations

import random
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

ZONES = (
    "UTC",
    "Europe/Berlin",
    "America/New_York",
    "Australia/Lord_Howe",  # changes by half an hour
    "Asia/Shanghai",
    "Africa/Casablanca",  # changes twice around Ramadan
    "Pacific/Chatham",  # 45 minutes off
)

EXPRESSIONS = (
    "30 2 * * 0",
    "15 1,2 * * 0",
    "0 0 * * 1",
    "45 2 1-7 * 6",
    "0 3 1,15 * *",
    "10 2 25-31 3,10 *",
    "59 23 * * 5",
    "0 12 * * 7",
    "*/20 2 28-31 3 0",
    "0 */8 * * 0",
    "5 */8 1-3 * *",
    "*/30 1-3 * 10,11 0",
    "0,30 2 * 4,9 0",
)


@dataclass(frozen=True, slots=True)
class Scenario:
    """The size of a world and the rates of its faults. Times are scaled up: a lease of hours instead of seconds
    makes a year a matter of thousands of steps, and leaves every order of events possible."""

    start: datetime = datetime(2030, 3, 7, tzinfo=UTC)
    """Within the month that follows, clocks change in five of the zones."""
    days: float = 31
    nodes: int = 4
    tasks: int = 100
    concurrency: int = 6
    lease: timedelta = timedelta(hours=9)
    max_rescues: int = 3
    longest_skew: timedelta = timedelta(minutes=20)
    crash_at_commit: float = 0.004
    lost_wake: float = 0.1
    between_crashes: timedelta = timedelta(days=4)
    between_pauses: timedelta = timedelta(days=3)
    between_operations: timedelta = timedelta(hours=5)


def schedule_of(rng: random.Random, now: datetime) -> dict[str, Any]:
    """The schedule of a task, drawn."""
    kind = rng.random()
    if kind < 0.75:
        return {"type": "cron", "expression": rng.choice(EXPRESSIONS)}
    if kind < 0.95:
        return {"type": "interval", "seconds": rng.choice([90_000, 200_000, 604_800, 100_000.25])}
    return {"type": "at", "at": now + timedelta(hours=rng.uniform(1, 600))}


def definition_of(rng: random.Random, number: int, now: datetime) -> dict[str, Any]:
    """A task definition, drawn."""
    key = rng.random() < 0.3
    return {
        "name": f"task-{number}",
        "task_type": "work",
        "schedule": schedule_of(rng, now),
        "timezone": rng.choice(ZONES),
        "dst_policy": rng.choice(["cron", "cron", "skip"]),
        "misfire_policy": rng.choice(["latest", "all", "skip"]),
        "misfire_grace_seconds": rng.choice([60.0, 3600.0, 20_000.0]),
        "overlap_policy": rng.choice(["skip", "queue", "allow", "cancel_running"]),
        "jitter_seconds": rng.choice([0.0, 0.0, 1800.0]),
        "priority": rng.choice([0, 0, 5]),
        "timeout_seconds": rng.choice([None, None, 10_000.0]),
        "retry": rng.choice(
            [
                None,
                {"max_attempts": 3, "backoff_seconds": 600},
                {"max_attempts": 5, "backoff_seconds": 60, "backoff_factor": 3, "jitter": 0.5},
                {"max_attempts": 2, "retry_on": ["ValueError"], "on_node_lost": "fail"},
            ]
        ),
        "concurrency_key": f"key-{rng.randrange(5)}" if key else None,
        "concurrency_limit": 2 if key else None,
    }
