"""`contenthub node`: the processes that run executions."""

from __future__ import annotations

from typing import Annotated

import typer

from app.cli import output
from app.cli.records import node_record
from app.cli.session import opened

app = typer.Typer(help="The processes that run executions.", no_args_is_help=True)


@app.callback()
def _group() -> None:
    """The processes that run executions."""


@app.command("list")
def list_nodes(
    everyone: Annotated[bool, typer.Option("--all", help="Also those that have stopped.")] = False,
    as_json: output.JsonFlag = False,
) -> None:
    """List the nodes, oldest first."""
    with opened() as runtime:
        from app.cli.follow import is_listening  # needs SQLAlchemy, see session.py

        nodes = [(node, is_listening(runtime, node)) for node in runtime.history.nodes(alive=not everyone)]
        running = runtime.history.running_by_node()
        zone = runtime.settings.scheduler_timezone
    if as_json:
        output.show_json(
            [node_record(node, running.get(node.id, 0)) | {"listening": listening} for node, listening in nodes]
        )
    elif nodes:
        output.show_table(
            ("id", "host", "pid", "role", "engine", "version", "running", "started", "heartbeat", "listens"),
            [
                (
                    node.id,
                    node.host.partition("/")[0],
                    str(node.pid),
                    node.role,
                    node.engine,
                    node.version,
                    str(running.get(node.id, 0)),
                    output.moment(node.started_at, zone),
                    output.moment(node.heartbeat_at, zone),
                    "yes" if listening else "no",
                )
                for node, listening in nodes
            ],
        )
    else:
        output.say("No nodes. `contenthub serve` starts one.")
