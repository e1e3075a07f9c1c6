"""`contenthub`: the command line.

Exit codes: 0 success; 1 refused or failed, the sentence is on stderr; 2 wrong usage; 3 `task import --diff` found
differences; 130 Ctrl-C.
"""

from __future__ import annotations

import io
import sys
from importlib.metadata import PackageNotFoundError, version
from typing import Annotated, Any

import typer

from app.cli import (
    alert,
    approval,
    db,
    demo,
    doctor,
    execution,
    flow,
    mcp,
    node,
    output,
    pool,
    schedule,
    serve,
    task,
    token,
    worker,
)
from app.core.errors import SchedulerError


class CommandLine(typer.Typer):
    """A Typer whose refusals are sentences and exit code 1, not tracebacks."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        for stream in (sys.stdout, sys.stderr):
            if isinstance(stream, io.TextIOWrapper):
                # A terminal that knows no Chinese shows escapes instead of ending the command.
                stream.reconfigure(errors="backslashreplace")
        try:
            return super().__call__(*args, **kwargs)
        except SchedulerError as error:
            output.refuse(error)
            sys.exit(1)


app = CommandLine(
    name="contenthub",
    help="ContentHub Scheduler: tasks that fire, executions that are recorded.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)


def _show_version(wanted: bool) -> None:
    if wanted:
        try:
            typer.echo(version("contenthub-scheduler"))
        except PackageNotFoundError:
            typer.echo("0")
        raise typer.Exit


@app.callback()
def _main(
    _version: Annotated[
        bool, typer.Option("--version", help="Show the version.", callback=_show_version, is_eager=True)
    ] = False,
) -> None:
    """ContentHub Scheduler: tasks that fire, executions that are recorded."""


app.command()(serve.serve)
app.command()(worker.worker)
app.command()(demo.demo)
app.command()(mcp.mcp)
app.add_typer(task.app, name="task")
app.add_typer(execution.app, name="execution")
app.add_typer(approval.app, name="approval")
app.add_typer(pool.app, name="pool")
app.add_typer(schedule.app, name="schedule")
app.add_typer(flow.app, name="flow")
app.add_typer(node.app, name="node")
app.add_typer(alert.app, name="alert")
app.add_typer(doctor.app, name="doctor")
app.add_typer(token.app, name="token")
app.add_typer(db.app, name="db")

if __name__ == "__main__":
    app()
