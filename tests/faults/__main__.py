"""`python -m tests.faults --minutes 10 --target sqlite --seed 1`: exit code 1 where a promise was broken."""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from tests.faults.run import CLIENTS, Report, run

TARGETS = ("sqlite", "postgres", "pgqueuer")


def show(console: Console, report: Report) -> None:
    """The report as a table, then every violation."""
    table = Table(title=f"{report.target}, seed {report.seed}", show_header=False)
    for name, value in report.as_dict().items():
        if name not in ("violations", "target", "seed"):
            table.add_row(name.replace("_", " "), json.dumps(value) if isinstance(value, dict) else str(value))
    table.add_row("violations", str(len(report.violations)))
    console.print(table)
    for violation in report.violations:
        console.print(f"[red]{violation}[/]")


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description=__doc__)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--target", choices=TARGETS, nargs="+", default=list(TARGETS))
    parser.add_argument("--processes", type=int, default=4, help="servers; pgqueuer has one more, two record only")
    parser.add_argument("--clients", type=int, default=CLIENTS, help="who enqueue, each as fast as it is answered")
    parser.add_argument("--only", nargs="+", metavar="FAULT", help="names of faults, such as kill, freeze")
    parser.add_argument("--keep", type=Path, metavar="FOLDER", help="leave the servers' log and diary there")
    parser.add_argument("--json", type=Path, metavar="FILE")
    arguments = parser.parse_args()
    console = Console()
    reports = []
    columns = (TextColumn("{task.description}"), BarColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console) as progress, tempfile.TemporaryDirectory() as scratch:
        for target in arguments.target:
            bar = progress.add_task(target, total=arguments.minutes * 60)
            report = run(
                target,
                (arguments.keep or Path(scratch)) / target,
                seconds=arguments.minutes * 60,
                seed=arguments.seed,
                processes=arguments.processes + (target == "pgqueuer"),
                clients=arguments.clients,
                only=tuple(arguments.only) if arguments.only else None,
                on_progress=lambda elapsed, now, bar=bar: progress.update(
                    bar, completed=elapsed, description=f"{now.target}: {sum(now.faults.values())} faults"
                ),
            )
            reports.append(report)
            show(progress.console, report)
    if arguments.json:
        arguments.json.write_text(json.dumps([report.as_dict() for report in reports], indent=2))
    return int(any(report.violations for report in reports))


if __name__ == "__main__":
    sys.exit(main())
