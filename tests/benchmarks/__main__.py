"""`python -m tests.benchmarks`: every figure beside a peer or a limit measured in the same run.

Each measurement is a program of its own, repeated; shown are the median, the extremes, the ratio of ours to it,
and whether the aims are met. An aim that is missed is a finding, not a failure: only a measurement that breaks
makes the exit code 1.
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
from rich.markup import escape
from rich.progress import Progress
from rich.table import Table

Figures = dict[str, float]
_PACKAGE = "tests.benchmarks"
_PROBE_TIMEOUT_SECONDS = 900
_UNITS = {"rate": "/s", "ms": "ms", "us": "µs", "mib": "MiB"}
"""Unit of a figure by the last word of its key."""


class BrokenProbe(Exception):
    """A measurement that gave no figures."""


@dataclass(frozen=True, slots=True)
class Probe:
    """One program to run: its name in the report, its module, function and options."""

    name: str
    module: str
    function: str
    options: tuple[str, ...] = ()

    def run(self) -> Figures:
        """Raises BrokenProbe with the program's last words."""
        command = [sys.executable, "-m", f"{_PACKAGE}.{self.module}", self.function, *self.options]
        try:
            ran = subprocess.run(
                command, capture_output=True, text=True, timeout=_PROBE_TIMEOUT_SECONDS, check=False
            )
        except subprocess.TimeoutExpired:
            raise BrokenProbe(f"{self.name}: not done in {_PROBE_TIMEOUT_SECONDS} s") from None
        if ran.returncode:
            raise BrokenProbe(f"{self.name}: {' '.join(ran.stderr.strip().splitlines()[-1:])}")
        figures: Figures = json.loads(ran.stdout)
        return figures


@dataclass(frozen=True, slots=True)
class Ratio:
    """A comparison: what is divided by what, and what we aim at (None: no aim, for orientation)."""

    name: str
    of: Callable[[dict[str, Figures]], float]
    at_least: float | None = None
    at_most: float | None = None

    def verdict(self, medians: dict[str, Figures]) -> dict[str, Any]:
        value = self.of(medians)
        if self.at_least is not None:
            return {"value": value, "aim": f"≥ {self.at_least:g}", "met": value >= self.at_least}
        if self.at_most is not None:
            return {"value": value, "aim": f"≤ {self.at_most:g}", "met": value <= self.at_most}
        return {"value": value, "aim": None, "met": None}


def _rate_ratio(one: str, other: str, at_least: float | None = None) -> Ratio:
    return Ratio(f"{one} ÷ {other}", lambda f: f[one]["rate"] / f[other]["rate"], at_least=at_least)


@dataclass(frozen=True, slots=True)
class Benchmark:
    name: str
    probes: tuple[Probe, ...]
    ratios: tuple[Ratio, ...]


_HUEY = {
    "Huey, result stored": ("producers=2", "results=1"),
    "Huey, result stored, one process": ("producers=0", "results=1"),
    "Huey at its fastest, no result": ("producers=2", "results=0"),
}
"""Ours stores each result and the whole history, and one process enqueues and runs. Two processes that enqueue,
and tasks that return None, of which nothing is stored, are the most that could be got out of Huey."""

_APSCHEDULER_STORED = (
    Probe("APScheduler, SQLite job store", "peers.apscheduler_jobs", "fires", ("jobs=1000", "stored=1")),
)
"""Once, at 1,000: each job takes it milliseconds to store."""


def benchmarks(*, quick: bool) -> list[Benchmark]:
    """All benchmarks; `quick` makes ours small enough for a first look.

    The peers' runs stay as long as they are: shortened further, their start would count against them.
    """
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
                    *(
                        Probe(
                            name, "peers.huey_queue", "throughput", ("jobs=2000", durable, "workers=1", *options)
                        )
                        for name, options in _HUEY.items()
                    ),
                    Probe(
                        "DBOS",
                        "peers.dbos_queue",
                        "throughput",
                        ("jobs=500", durable, "workers=16", "callers=8", "poll_seconds=0.01"),
                    ),
                    Probe(
                        "raw sqlite3, groups of 500",
                        "peers.raw_sqlite",
                        "group_commit",
                        ("rows=50000", "group=500", durable),
                    ),
                    Probe(
                        "raw sqlite3, one row a transaction",
                        "peers.raw_sqlite",
                        "one_row_a_transaction",
                        ("rows=3000", durable),
                    ),
                ),
                (
                    *(_rate_ratio("ours", name, at_least=3) for name in _HUEY),
                    _rate_ratio("ours", "DBOS", at_least=20),
                    _rate_ratio("ours", "raw sqlite3, groups of 500"),
                ),
            )
        )
    found.append(
        Benchmark(
            "latency",
            (
                Probe("ours", "ours", "latency", ("jobs=100", "synchronous=FULL")),
                Probe("Huey, polling each ms", "peers.huey_queue", "latency", ("jobs=100", "synchronous=FULL")),
                Probe(
                    "DBOS, polling each 10 ms",
                    "peers.dbos_queue",
                    "latency",
                    ("jobs=50", "synchronous=FULL", "poll_seconds=0.01"),
                ),
                Probe(
                    "raw sqlite3, one commit",
                    "peers.raw_sqlite",
                    "one_row_a_transaction",
                    ("rows=1000", "synchronous=FULL"),
                ),
            ),
            (
                Ratio(
                    "ours ÷ Huey, p50",
                    lambda f: f["ours"]["start_p50_ms"] / f["Huey, polling each ms"]["start_p50_ms"],
                ),
            ),
        )
    )
    found.append(_on_postgres(jobs))
    found.extend(
        Benchmark(
            f"fires {tasks:,}",
            (
                Probe("ours", "ours", "fires", (f"tasks={tasks}",)),
                Probe("APScheduler", "peers.apscheduler_jobs", "fires", (f"jobs={tasks}", "stored=0")),
                *(_APSCHEDULER_STORED if tasks == 1_000 and not quick else ()),
            ),
            (
                Ratio("fire recorded, p99 ÷ 500 ms", lambda f: f["ours"]["fire_late_p99_ms"] / 500, at_most=1),
                Ratio("stall ÷ 50 ms", lambda f: f["ours"]["stall_ms"] / 50, at_most=1),
                Ratio(
                    "start p99, ours ÷ APScheduler",
                    lambda f: f["ours"]["start_late_p99_ms"] / f["APScheduler"]["start_late_p99_ms"],
                ),
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
                Probe(f"{count:,} tasks", "ours", "footprint", (f"tasks={count}",))
                for count in sorted({0, 100_000, most})
            ),
            (
                Ratio(
                    f"memory, {most:,} ÷ 0 tasks",
                    lambda f: f[f"{most:,} tasks"]["memory_mib"] / f["0 tasks"]["memory_mib"],
                    at_most=1.1,
                ),
                Ratio(
                    f"start, {most:,} ÷ 0 tasks",
                    lambda f: f[f"{most:,} tasks"]["start_ms"] / f["0 tasks"]["start_ms"],
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
                    at_most=2,
                ),
            ),
        )
    )
    found.append(_telemetry(jobs))
    found += [
        _scaling(database, jobs, one_instant=2_000 if quick else 10_000) for database in ("sqlite", "postgres")
    ]
    found.append(_lists(10_000 if quick else 1_000_000))
    found.append(_streams(300))
    found.append(_suspended(5_000 if quick else 100_000, jobs))
    return found


def _scaling(database: str, jobs: int, one_instant: int) -> Benchmark:
    """One process beside two and four, on work that all of them may take."""
    done, fired = "{} processes, executions", "{} processes, fires"
    counts = (1, 2, 4)

    def more(name: str) -> Ratio:
        return Ratio(f"{name.format('4')} ÷ 1", lambda f: f[name.format(4)]["rate"] / f[name.format(1)]["rate"])

    return Benchmark(
        f"scaling {database}",
        (
            *(
                Probe(
                    done.format(count),
                    "processes",
                    "throughput",
                    (f"jobs={jobs}", f"processes={count}", f"database={database}"),
                )
                for count in counts
            ),
            *(
                Probe(
                    fired.format(count),
                    "processes",
                    "fires",
                    (f"tasks={one_instant}", f"processes={count}", f"database={database}"),
                )
                for count in counts
            ),
        ),
        (more(done), more(fired)),
    )


def _telemetry(jobs: int) -> Benchmark:
    """Executions that somebody hears of beside executions that nobody does."""
    nobody, metered, traced = "nobody hears", "metered (Prometheus)", "metered and traced (OTLP)"
    unsampled = "metered and traced, none sampled"

    def share(name: str) -> Ratio:
        return Ratio(f"{name} ÷ nobody", lambda f: f[name]["rate"] / f[nobody]["rate"])

    return Benchmark(
        "telemetry",
        tuple(
            Probe(name, "ours", "observed_throughput", (f"jobs={jobs}", f"by={by}"))
            for name, by in (
                (nobody, "nobody"),
                (metered, "prometheus"),
                (unsampled, "otlp_unsampled"),
                (traced, "otlp"),
            )
        ),
        tuple(share(name) for name in (metered, unsampled, traced)),
    )


def _lists(many: int) -> Benchmark:
    """The dashboard's lists: a long history beside a short one."""
    long, short = f"{many:,} executions", "1,000 executions"
    lists, summaries = ("executions", "failed", "task", "search"), ("attention", "status")

    def slower(name: str) -> Ratio:
        key = f"{name}_p50_ms"
        aim = 2 if name in lists else None  # who counts failures takes longer where more has failed
        return Ratio(f"{name}, long ÷ short", lambda f: f[long][key] / f[short][key], at_most=aim)

    return Benchmark(
        "lists",
        (
            Probe(long, "dashboard", "lists", (f"executions={many}",)),
            Probe(short, "dashboard", "lists", ("executions=1000",)),
        ),
        tuple(slower(name) for name in (*lists, *summaries)),
    )


def _streams(many: int) -> Benchmark:
    """Open pages: many beside none."""
    open_pages, none = f"{many} open pages", "no open page"
    return Benchmark(
        "streams",
        (
            Probe(open_pages, "dashboard", "streams", (f"streams={many}",)),
            Probe(none, "dashboard", "streams", ("streams=0",)),
        ),
        (
            Ratio("p50, open ÷ none", lambda f: f[open_pages]["p50_ms"] / f[none]["p50_ms"], at_most=2),
            Ratio("p99, open ÷ none", lambda f: f[open_pages]["p99_ms"] / f[none]["p99_ms"]),
            Ratio("memory, open ÷ none", lambda f: f[open_pages]["memory_mib"] / f[none]["memory_mib"]),
        ),
    )


def _suspended(many: int, jobs: int) -> Benchmark:
    """Very many executions that wait beside none, and steps beside plain executions."""
    waiting, none = f"{many:,} suspended", "none suspended"
    plain, one, ten = "plain executions", "one step each", "ten steps each"
    return Benchmark(
        "suspended",
        (
            Probe(waiting, "suspended", "suspended", (f"count={many}",)),
            Probe(none, "suspended", "suspended", ("count=0",)),
            *(
                Probe(name, "suspended", "stepping", (f"jobs={jobs}", f"steps={steps}"))
                for name, steps in ((plain, 0), (one, 1), (ten, 10))
            ),
        ),
        (
            Ratio("memory, suspended ÷ none", lambda f: f[waiting]["memory_mib"] / f[none]["memory_mib"]),
            Ratio(
                "p50 of others, suspended ÷ none", lambda f: f[waiting]["p50_ms"] / f[none]["p50_ms"], at_most=2
            ),
            Ratio("time, one step ÷ plain", lambda f: f[plain]["rate"] / f[one]["rate"]),
            Ratio("time, ten steps ÷ plain", lambda f: f[plain]["rate"] / f[ten]["rate"]),
        ),
    )


def _on_postgres(jobs: int) -> Benchmark:
    """Both engines on PostgreSQL beside PgQueuer by itself."""
    rate, start = "{}, end to end", "{}, idle"
    callers, lanes = "callers=256", "concurrency=16"
    return Benchmark(
        "postgres",
        (
            Probe(
                rate.format("pgqueuer engine"),
                "ours",
                "postgres_throughput",
                (f"jobs={jobs}", "engine=pgqueuer", callers),
            ),
            Probe(
                rate.format("embedded engine"),
                "ours",
                "postgres_throughput",
                (f"jobs={jobs}", "engine=embedded", callers),
            ),
            Probe(rate.format("raw PgQueuer"), "peers.raw_pgqueuer", "throughput", (f"jobs={jobs}", lanes)),
            Probe(start.format("pgqueuer engine"), "ours", "postgres_latency", ("jobs=100", "engine=pgqueuer")),
            Probe(start.format("embedded engine"), "ours", "postgres_latency", ("jobs=100", "engine=embedded")),
            Probe(start.format("raw PgQueuer"), "peers.raw_pgqueuer", "latency", ("jobs=100", lanes)),
        ),
        (
            Ratio(
                "pgqueuer engine ÷ raw PgQueuer",
                lambda f: f[rate.format("pgqueuer engine")]["rate"] / f[rate.format("raw PgQueuer")]["rate"],
                at_least=0.7,
            ),
            Ratio(
                "embedded engine ÷ raw PgQueuer",
                lambda f: f[rate.format("embedded engine")]["rate"] / f[rate.format("raw PgQueuer")]["rate"],
            ),
            Ratio(
                "idle p50, pgqueuer engine ÷ raw PgQueuer",
                lambda f: (
                    f[start.format("pgqueuer engine")]["start_p50_ms"]
                    / f[start.format("raw PgQueuer")]["start_p50_ms"]
                ),
                at_most=2,
            ),
        ),
    )


def measure(benchmark: Benchmark, repeat: int, progress: Progress) -> dict[str, Any]:
    """Run the probes of a benchmark in turn, `repeat` times, so that a drift of the machine hits all alike.

    Raises:
        BrokenProbe: one of them failed.
    """
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
    ratios = {ratio.name: ratio.verdict(medians) for ratio in benchmark.ratios}
    return {"benchmark": benchmark.name, "medians": medians, "ratios": ratios, "samples": samples}


def show(console: Console, report: dict[str, Any]) -> None:
    """A table of one benchmark: each figure with the ratio of the first probe's to it, then the aims."""
    first = next(iter(report["medians"].values()))
    table = Table(title=report["benchmark"], title_justify="left")
    for heading in ("", "figure"):
        table.add_column(heading)
    for heading in ("median", "min", "max", "first ÷ it"):
        table.add_column(heading, justify="right")
    for name, figures in report["medians"].items():
        for key, median in figures.items():
            taken = [sample[key] for sample in report["samples"][name]]
            ratio = f"{first[key] / median:.2f}" if key in first and first is not figures else ""
            unit = _UNITS[key.rsplit("_", 1)[-1]]
            table.add_row(name, key, f"{median:,.2f} {unit}", f"{min(taken):,.2f}", f"{max(taken):,.2f}", ratio)
    table.add_section()
    for name, ratio in report["ratios"].items():
        met = {True: "[green]met[/]", False: "[red]missed[/]", None: ""}[ratio["met"]]
        table.add_row(name, ratio["aim"] and f"aim {ratio['aim']}", f"{ratio['value']:,.2f}", met)
    console.print(table)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks", description=__doc__)
    parser.add_argument("--only", nargs="+", metavar="NAME", help="benchmarks whose names begin so")
    parser.add_argument("--quick", action="store_true", help="smaller, for a first look")
    parser.add_argument("--repeat", type=int, default=3, help="runs of each measurement")
    parser.add_argument("--json", metavar="FILE", help="write all samples to a file; - prints them")
    arguments = parser.parse_args()
    chosen = [
        benchmark
        for benchmark in benchmarks(quick=arguments.quick)
        if not arguments.only or benchmark.name.startswith(tuple(arguments.only))
    ]
    console = Console(stderr=arguments.json == "-")
    reports: list[dict[str, Any]] = []
    broken = False
    with Progress(console=console) as progress:
        for benchmark in chosen:
            try:
                reports.append(measure(benchmark, arguments.repeat, progress))
            except BrokenProbe as error:
                broken = True
                progress.console.print(f"[red]{benchmark.name}[/]: {escape(str(error))}")
            else:
                show(progress.console, reports[-1])
    if arguments.json == "-":
        print(json.dumps(reports, indent=2))
    elif arguments.json:
        Path(arguments.json).write_text(json.dumps(reports, indent=2))
    return int(broken)


if __name__ == "__main__":
    sys.exit(main())
