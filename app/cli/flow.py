"""`contenthub flow`: rate limits, concurrency keys and circuit breakers, and how full they are."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from app.cli import output
from app.cli.session import opened

if TYPE_CHECKING:
    from app.scheduler.flow_status import FlowStatus

app = typer.Typer(help="Rate limits, concurrency keys, circuit breakers.", no_args_is_help=True)


@app.callback()
def _group() -> None:
    """Rate limits, concurrency keys, circuit breakers."""


@app.command()
def show(as_json: output.JsonFlag = False) -> None:
    """Show what lets work through at a measure, and how full it is."""
    with opened(executors=True) as runtime:
        from app.api.schemas import FlowAnswer  # needs SQLAlchemy, see session.py

        found = runtime.flow()
        zone = runtime.settings.scheduler_timezone
    if as_json:
        output.show_json(FlowAnswer.model_validate(found).model_dump())
    else:
        _show(found, zone)


def _show(found: FlowStatus, zone: str) -> None:
    if found.circuits:
        output.say("Circuit breakers", style="bold")
        output.show_table(
            ("executor", "state", "failed", "since", "tries again", "waiting"),
            [
                (
                    circuit.task_type,
                    circuit.phase.value,
                    f"{circuit.failures} of {circuit.attempts}"
                    if circuit.attempts
                    else "",  # none since it opened
                    output.moment(circuit.since, zone),
                    output.moment(circuit.probe_at, zone),
                    str(circuit.waiting),
                )
                for circuit in found.circuits
            ],
        )
    if found.rate_limits:
        output.say("Rate limits", style="bold")
        output.show_table(
            ("bucket", "limit", "free now", "next", "waiting"),
            [
                (
                    rate.key,
                    f"{rate.limit} in {rate.per_seconds:g} s",
                    f"{rate.available} of {rate.burst}",
                    output.moment(rate.next_at, zone),
                    str(rate.waiting),
                )
                for rate in found.rate_limits
            ],
        )
    if found.concurrency:
        output.say("Concurrency keys", style="bold")
        output.show_table(
            ("key", "running", "waiting"),
            [(key.key, f"{key.running} of {key.limit}", str(key.waiting)) for key in found.concurrency],
        )
    if not (found.circuits or found.rate_limits or found.concurrency):
        output.say("Nothing is limited: no circuit breaker, no rate limit in use, no concurrency key.")


@app.command()
def reset(
    executor: Annotated[str, typer.Argument(metavar="EXECUTOR", help="Executor type, such as publishing.")],
    as_json: output.JsonFlag = False,
) -> None:
    """Close the circuit breaker of an executor: what waits for it may start at once."""
    with opened(executors=True) as runtime:
        import asyncio

        asyncio.run(runtime.commands.reset_circuit(executor))
    if as_json:
        output.show_json({"task_type": executor, "phase": "closed"})
    else:
        output.say(f"The circuit of {executor} is closed.", style="green")
