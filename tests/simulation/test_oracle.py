"""The oracle is right: it agrees with a walk minute by minute, and so does production."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from app.scheduler.schedules import DstPolicy
from app.scheduler.triggers import CronTrigger
from tests.simulation.oracle import cron_fires, cron_fires_by_walking
from tests.simulation.scenario import EXPRESSIONS, ZONES


def days_of_change(zone: str) -> list[datetime]:
    """A moment three days before each change of clocks of 2030, and one in the middle of winter."""
    from zoneinfo import ZoneInfo

    info = ZoneInfo(zone)
    days = [datetime(2030, 1, 1, 12, tzinfo=UTC) + timedelta(days=day) for day in range(365)]
    changes = [
        day - timedelta(days=3)
        for day in days
        if day.astimezone(info).utcoffset() != (day + timedelta(days=1)).astimezone(info).utcoffset()
    ]
    return [datetime(2030, 1, 15, 7, 3, 11, tzinfo=UTC), *changes]


@pytest.mark.parametrize("zone", ZONES)
@pytest.mark.parametrize("skip", [False, True])
def test_oracle_walk_and_production_agree(zone: str, skip: bool) -> None:
    for start in days_of_change(zone):
        end = start + timedelta(days=6)
        for expression in EXPRESSIONS:
            walked = cron_fires_by_walking(expression, zone, start, end, skip=skip)
            assert cron_fires(expression, zone, start, end, skip=skip) == walked
            trigger = CronTrigger(expression, zone, DstPolicy.SKIP if skip else DstPolicy.CRON)
            produced = []
            fire = trigger.next_after(start)
            while fire is not None and fire < end:
                produced.append(fire)
                fire = trigger.next_after(fire)
            assert produced == walked, f"{expression} in {zone} from {start}"
