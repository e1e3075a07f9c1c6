"""See an execution through: leave it to a server that runs, or run it here, and wait for its outcome."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from datetime import timedelta

import typer
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from app.cli import output
from app.cli.records import execution_record
from app.core.errors import Conflict
from app.models.node import Node
from app.models.task_execution import Execution, ExecutionState
from app.scheduler.nodes import host_identity, process_exists
from app.scheduler.runtime import Runtime

LOOK_SECONDS = 0.25
STAND_IN_SECONDS = 1.0

Record = Callable[[], Awaitable[Execution]]


def listening_nodes(runtime: Runtime) -> list[Node]:
    """The nodes that will run what is recorded now."""
    return [node for node in runtime.history.nodes() if is_listening(runtime, node)]


def is_listening(runtime: Runtime, node: Node) -> bool:
    """Whether a node is a server, was heard of within a lease and, if it is on this machine, has its process."""
    if node.role == "cli" or node.stopped_at is not None:
        return False
    silent = runtime.clock.now() - node.heartbeat_at
    if silent > timedelta(seconds=runtime.settings.scheduler_lease_seconds):
        return False
    return node.host != host_identity() or process_exists(node.pid)


def carry_out(runtime: Runtime, record: Record, *, detach: bool, timeout: float | None, as_json: bool) -> None:
    """Record an execution and, unless `detach`, wait for its outcome, which becomes the exit code: 0 only for
    success.

    Where no server listens, or the last one goes while we wait, it runs in this process; then Ctrl-C and
    `timeout` (seconds) cancel it. Where one does, they only end the waiting.
    """
    if detach:
        execution = asyncio.run(_recorded(record))
        _show_recorded(execution, has_server=bool(listening_nodes(runtime)), as_json=as_json)
        raise typer.Exit(int(execution.state is ExecutionState.SKIPPED))
    execution, in_time = asyncio.run(_carried_out(runtime, record, timeout))
    if in_time or execution.state is ExecutionState.SUCCESS:
        show_outcome(execution, as_json=as_json)
    else:
        if as_json:
            output.show_json(execution_record(execution))
        output.err.print(f"Error: execution {execution.id} {_given_up(execution, timeout or 0)}", style="red")
    raise typer.Exit(int(execution.state is not ExecutionState.SUCCESS))


def _given_up(execution: Execution, timeout: float) -> str:
    """What became of an execution that was not over in time."""
    late = f"was not over after {timeout:g} s; "
    if execution.state is ExecutionState.CANCELLED:
        return late + "it was cancelled"
    if execution.is_final:
        return late + f"it is {execution.state.value} now"
    if execution.cancel_requested_at is not None:
        return late + "it was asked to end, and ends as soon as its code lets go"
    return late + "it runs on in the server"


async def _recorded(record: Record) -> Execution:
    return await record()


async def _carried_out(runtime: Runtime, record: Record, timeout: float | None) -> tuple[Execution, bool]:
    """The execution, and whether it was over in time; where it was not, as it is once we have let go of it."""
    service = runtime.service
    if not listening_nodes(runtime):
        service.start()
    try:
        execution = await record()
        watching = asyncio.create_task(_stand_in(runtime, execution.id))
        try:
            async with asyncio.timeout(timeout):
                return await until_over(runtime, execution), True
        except TimeoutError:
            await _give_up(runtime, execution.id)
        except asyncio.CancelledError:
            await _give_up(runtime, execution.id)
            raise
        finally:
            watching.cancel()
            await asyncio.wait({watching})
    finally:
        if service.is_running:
            await service.drain()
    return await asyncio.to_thread(runtime.history.get, execution.id), False


async def _give_up(runtime: Runtime, execution_id: int) -> None:
    """Cancel an execution that runs here; one that a server has goes on there."""
    if runtime.is_running:
        with suppress(Conflict):  # it was over in that very moment
            await runtime.service.cancel(execution_id)


async def _stand_in(runtime: Runtime, execution_id: int) -> None:
    """Should the last server go while it has the execution, run it here."""
    while not runtime.is_running:
        await asyncio.sleep(STAND_IN_SECONDS)
        if not await asyncio.to_thread(listening_nodes, runtime):
            output.note(f"No server is running any more; execution {execution_id} goes on here.")
            runtime.ask_for([execution_id])
            runtime.service.start()


async def until_over(runtime: Runtime, execution: Execution) -> Execution:
    """Wait until an execution is over, or parked; shows how far it is while a person is looking."""
    waiting = asyncio.create_task(runtime.wait(execution.id, None))
    try:
        with _progress() as progress:
            bar = progress.add_task(_headline(execution), total=None)
            while not execution.is_final and execution.state is not ExecutionState.PARKED:
                await asyncio.wait({waiting}, timeout=LOOK_SECONDS)
                execution = await asyncio.to_thread(runtime.history.get, execution.id)
                progress.update(
                    bar,
                    description=_headline(execution),
                    total=None if execution.progress is None else 1.0,
                    completed=execution.progress or 0.0,
                )
    finally:
        waiting.cancel()
        await asyncio.wait({waiting})
    return execution


def _progress() -> Progress:
    return Progress(
        SpinnerColumn(),
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TimeElapsedColumn(),
        console=output.err,
        transient=True,
        disable=not output.err.is_terminal,
    )


def _headline(execution: Execution) -> str:
    name = execution.task_name or execution.task_type
    again = f", attempt {execution.attempt}" if execution.attempt > 1 else ""
    doing = f": {execution.progress_message}" if execution.progress_message else ""
    return output.printable(f"{name} {execution.state.value}{again}{doing}")


def _show_recorded(execution: Execution, *, has_server: bool, as_json: bool) -> None:
    if as_json:
        output.show_json(execution_record(execution))
    else:
        output.say(f"Recorded execution {execution.id} ({execution.state.value}).")
    if not has_server and not execution.is_final:
        output.note("No server is running; it starts when one does: `contenthub serve`")


def show_outcome(execution: Execution, *, as_json: bool) -> None:
    """How an execution ended: on stdout for success, on stderr for all else."""
    if as_json:
        output.show_json(execution_record(execution))
    if execution.state is ExecutionState.SUCCESS:
        if not as_json:
            took = f" in {execution.duration_seconds:.2f} s" if execution.duration_seconds is not None else ""
            output.say(f"Execution {execution.id} succeeded{took}: {execution.message}", style="green")
        return
    reason = f" ({execution.reason})" if execution.reason else ""
    why = execution.error or execution.message or _REMEDIES.get(execution.reason or "", "")
    output.err.print(
        output.printable(
            f"Error: execution {execution.id} is {execution.state.value}{reason}{': ' if why else ''}{why};"
            f" see `contenthub execution show {execution.id}`"
        ),
        style="red",
    )


_REMEDIES = {
    "overlap": "an earlier execution of the task is not over; wait for it, or cancel it",
    "unknown_executor": "no node has its executor; register it, or change the task's type",
    "invalid_params": "the executor refuses its params; mend them",
}
