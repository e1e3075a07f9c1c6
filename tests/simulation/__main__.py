"""`python -m tests.simulation --seed 7 --days 365`: one long run, judged. Exit code 1: something was broken."""

from __future__ import annotations

import argparse
import json
import sys
import time
from dataclasses import asdict
from datetime import UTC, datetime, timedelta

from loguru import logger

from tests.simulation.checker import judge
from tests.simulation.scenario import Scenario
from tests.simulation.world import World


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__)
    parser.add_argument("--seed", type=int, default=1, help="the same seed plays the same run")
    parser.add_argument("--runs", type=int, default=1, help="this many seeds, from --seed on")
    parser.add_argument("--days", type=float, default=365)
    parser.add_argument("--tasks", type=int, default=100)
    parser.add_argument("--nodes", type=int, default=4)
    parser.add_argument("--lease-hours", type=float, default=24, help="the unit of everything that takes time")
    parser.add_argument("--trace", action="store_true", help="print what happened")
    wanted = parser.parse_args()
    logger.remove()
    scenario = Scenario(
        start=datetime(2030, 1, 1, tzinfo=UTC),
        days=wanted.days,
        tasks=wanted.tasks,
        nodes=wanted.nodes,
        lease=timedelta(hours=wanted.lease_hours),
    )
    broken = 0
    for seed in range(wanted.seed, wanted.seed + wanted.runs):
        began = time.perf_counter()
        world = World(seed, scenario)
        world.run()
        report = judge(world)
        broken += bool(report.violations)
        if wanted.trace:
            print("\n".join(world.trace))
        print(
            json.dumps(
                {"seed": seed, "seconds": round(time.perf_counter() - began, 1)}
                | asdict(report)
                | {"fingerprint": world.fingerprint()},
                indent=2,
            )
        )
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
