"""`python -m tests.benchmarks`: every figure beside a peer or a limit measured in the same run.

Each measurement is a program of its own, repeated; medians are shown, with the ratio that matters and its aim.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import Progress
from rich.table import Table

Figures = dict[str, float]
_PACKAGE = "tests.benchmarks"


@dataclass(frozen=True, slots=True)
class Probe:
    """One program to run: its name in the report, its module, function and options."""

    name: str
    module: str
    function: str
    options: tuple[str, ...] = ()

    def run(self) -> Figures:
        """Raises RuntimeError with the program's last words if it fails."""
        command = [sys.executable, "-m", f"{_PACKAGE}.{self.module}", self.function, *self.options]
        ran = subprocess.run(command, capture_output=True, text=True, timeout=400, check=False)
        if ran.returncode:
            raise RuntimeError(f"{self.name}: {ran.stderr.strip().splitlines()[-1:]}")
        figures: Figures = json.loads(ran.stdout)
        return figures


@dataclass(frozen=True, slots=True)
class Ratio:
    """A comparison: what is divided by what, and what we aim at."""

    name: str
    of: Callable[[dict[str, Figures]], float]
    aim: str = ""


@dataclass(frozen=True, slots=True)
class Benchmark:
    name: str
    probes: tuple[Probe, ...]
    ratios: tuple[Ratio, ...]


def benchmarks(*, quick: bool) -> list[Benchmark]:
    """All benchmarks; `quick` makes them small enough for a first look."""
    jobs = 2_000 if quick else 10_000
    found = [
        Benchmark(
            "overhead",
            (
                Probe("ours, log level WARNING", "ours", "overhead", ("calls=20000", "level=WARNING")),
                Probe("ours, log level INFO", "ours", "overhead", ("calls=5000", "level=INFO")),
            ),
            (
                Ratio(
                    "execute_task ÷ bare await",
                    lambda f: (
                        f["ours, log level WARNING"]["execute_task_us"] / f["ours, log level WARNING"]["bare_us"]
                    ),
                ),
            ),
        )
    ]
    for synchronous in ("FULL", "NORMAL"):
        durable = f"synchronous={synchronous}"
        found.append(
            Benchmark(
                f"throughput {synchronous}",
                (
                    Probe("ours", "ours", "throughput", (f"jobs={jobs}", durable, "callers=256")),
                    Probe(
                        "Huey",
                        "peers.huey_queue",
                        "throughput",
                        (f"jobs={jobs // 5}", durable, "workers=2", "producers=1", "results=0"),
                    ),
                    Probe(
                        "DBOS",
                        "peers.dbos_queue",
                        "throughput",
                        (f"jobs={jobs // 20}", durable, "workers=16", "callers=8", "poll_seconds=0.01"),
                    ),
                    Probe(
                        "raw sqlite3, groups of 500",
                        "peers.raw_sqlite",
                        "group_commit",
                        ("rows=50000", "group=500", durable),
                    ),
                ),
                (
                    Ratio("ours ÷ Huey", lambda f: f["ours"]["rate"] / f["Huey"]["rate"], "≥ 3"),
                    Ratio("ours ÷ DBOS", lambda f: f["ours"]["rate"] / f["DBOS"]["rate"], "≥ 20"),
                    Ratio(
                        "ours ÷ raw rows", lambda f: f["ours"]["rate"] / f["raw sqlite3, groups of 500"]["rate"]
                    ),
                ),
            )
        )
    found.append(
        Benchmark(
            "latency",
            (
                Probe("ours", "ours", "latency", ("jobs=100", "synchronous=FULL")),
                Probe("Huey, polling each ms", "peers.huey_queue", "latency", ("jobs=100", "synchronous=FULL")),
            ),
            (
                Ratio(
                    "ours ÷ Huey, p50",
                    lambda f: f["ours"]["start_p50_ms"] / f["Huey, polling each ms"]["start_p50_ms"],
                ),
            ),
        )
    )
    found.extend(
        Benchmark(
            f"fires {tasks:,}",
            (
                Probe("ours", "ours", "fires", (f"tasks={tasks}",)),
                Probe("APScheduler", "peers.apscheduler_jobs", "fires", (f"jobs={tasks}", "stored=0")),
            ),
            (
                Ratio("fire p99, ms", lambda f: f["ours"]["fire_late_p99_ms"], "< 500"),
                Ratio("stall, ms", lambda f: f["ours"]["stall_ms"], "< 50"),
                Ratio("stall, ours ÷ APScheduler", lambda f: f["ours"]["stall_ms"] / f["APScheduler"]["stall_ms"]),
            ),
        )
        for tasks in (1, 1_000, 10_000)
    )
    most = 100_000 if quick else 1_000_000
    found.append(
        Benchmark(
            "footprint",
            tuple(
                Probe(f"{count:,} tasks", "ours", "footprint", (f"tasks={count}",)) for count in (0, 100_000, most)
            ),
            (
                Ratio(
                    f"memory, {most:,} ÷ 0 tasks",
                    lambda f: f[f"{most:,} tasks"]["memory_mib"] / f["0 tasks"]["memory_mib"],
                    "≈ 1",
                ),
            ),
        )
    )
    found.append(
        Benchmark(
            "api",
            (
                Probe("idle", "ours", "api_latency", ("blocked=0",)),
                Probe("ten executors in time.sleep(2)", "ours", "api_latency", ("blocked=10",)),
            ),
            (
                Ratio(
                    "p99, blocked ÷ idle",
                    lambda f: f["ten executors in time.sleep(2)"]["p99_ms"] / f["idle"]["p99_ms"],
                    "≤ 2",
                ),
            ),
        )
    )
    return found


def measure(benchmark: Benchmark, repeat: int, progress: Progress) -> dict[str, Any]:
    """Run the probes of a benchmark in turn, `repeat` times, so that a drift of the machine hits all alike."""
    samples: dict[str, list[Figures]] = {one.name: [] for one in benchmark.probes}
    bar = progress.add_task(benchmark.name, total=repeat * len(benchmark.probes))
    for _ in range(repeat):
        for one in benchmark.probes:
            samples[one.name].append(one.run())
            progress.advance(bar)
    medians = {
        name: {key: statistics.median(sample[key] for sample in taken) for key in taken[0]}
        for name, taken in samples.items()
    }
    ratios = {ratio.name: {"value": ratio.of(medians), "aim": ratio.aim} for ratio in benchmark.ratios}
    return {"benchmark": benchmark.name, "medians": medians, "ratios": ratios, "samples": samples}


def show(console: Console, report: dict[str, Any]) -> None:
    table = Table(title=report["benchmark"], title_justify="left")
    for heading in ("", "figure", "median"):
        table.add_column(heading)
    for name, figures in report["medians"].items():
        for key, value in figures.items():
            table.add_row(name, key, f"{value:,.2f}")
    table.add_section()
    for name, ratio in report["ratios"].items():
        table.add_row("ratio" if "÷" in name else "limit", name, f"{ratio['value']:,.2f}  {ratio['aim']}")
    console.print(table)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks", description=__doc__)
    parser.add_argument("--only", nargs="+", metavar="NAME", help="benchmarks whose names begin so")
    parser.add_argument("--quick", action="store_true", help="smaller, for a first look")
    parser.add_argument("--repeat", type=int, default=3, help="runs of each measurement")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all samples to a file")
    arguments = parser.parse_args()
    chosen = [
        benchmark
        for benchmark in benchmarks(quick=arguments.quick)
        if not arguments.only or benchmark.name.startswith(tuple(arguments.only))
    ]
    console = Console()
    reports = []
    with Progress(console=console) as progress:
        for benchmark in chosen:
            reports.append(measure(benchmark, arguments.repeat, progress))
            show(progress.console, reports[-1])
    if arguments.json:
        arguments.json.write_text(json.dumps(reports, indent=2))


if __name__ == "__main__":
    main()
