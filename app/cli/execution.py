"""`contenthub execution`: what ran, runs and waits."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any

import typer

from app.cli import arguments, output
from app.cli.records import (
    attempt_record,
    execution_record,
    execution_summary,
    log_record,
    relative_record,
    signal_record,
    step_record,
)
from app.cli.session import opened
from app.core.errors import InvalidRequest

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from rich.text import Text

    from app.models.task_attempt import ExecutionLog, TaskAttempt
    from app.models.task_execution import Execution
    from app.scheduler.runtime import Runtime

FOLLOW_SECONDS = 0.5
_PAGE = 500
_MOST_LISTED = 10_000

app = typer.Typer(help="What ran, runs and waits.", no_args_is_help=True)

ExecutionId = Annotated[int, typer.Argument(metavar="ID", min=1, max=2**63 - 1, help="The execution's id.")]


@app.command("list")
def list_executions(
    task: Annotated[str | None, typer.Option("--task", help="Only this task's; name or id.")] = None,
    states: Annotated[
        list[str] | None, typer.Option("--state", help="Only in this state; may be repeated.")
    ] = None,
    task_type: Annotated[str | None, typer.Option("--type", help="Only of this executor type.")] = None,
    trigger: Annotated[
        str | None, typer.Option("--trigger", help="schedule, catch_up, manual, api, code.")
    ] = None,
    parent: Annotated[
        int | None, typer.Option("--parent", min=1, max=2**63 - 1, help="Only children of this execution; its id.")
    ] = None,
    search: Annotated[str | None, typer.Option("--search", help="Part of task name, message or error.")] = None,
    limit: Annotated[int, typer.Option("--limit", min=1, max=_MOST_LISTED, help="How many at most.")] = 20,
    as_json: output.JsonFlag = False,
) -> None:
    """List executions, newest first."""
    with opened() as runtime:
        from app.models.task_execution import ExecutionState  # needs SQLAlchemy, see session.py

        known = [state.value for state in ExecutionState]
        for state in states or ():
            if state not in known:
                raise typer.BadParameter(
                    f"{state!r} is unknown; the states are {', '.join(known)}", param_hint="--state"
                )
        found = runtime.history.page(
            task_id=runtime.tasks.find(task).id if task is not None else None,
            states=[ExecutionState(state) for state in states or ()],
            task_type=task_type,
            trigger=trigger,
            parent_id=parent,
            search=search,
            limit=limit,
        )
        zone = runtime.settings.scheduler_timezone
    if as_json:
        output.show_json([execution_summary(execution) for execution in found])
    elif found:
        output.show_table(
            ("id", "task", "state", "reason", "trigger", "created", "took", "message"),
            [_row(execution, zone) for execution in found],
        )
    else:
        output.say("No executions.")


def _row(execution: Execution, zone: str) -> Sequence[str | Text]:
    return (
        str(execution.id),
        execution.task_name or execution.task_type,
        output.state(execution.state.value),
        execution.reason or "",
        execution.trigger,
        output.moment(execution.created_at, zone),
        _seconds(execution.duration_seconds),
        execution.error or execution.message or "",
    )


def _seconds(value: float | None) -> str:
    return f"{value:.2f} s" if value is not None else ""


@app.command()
def show(execution_id: ExecutionId, as_json: output.JsonFlag = False) -> None:
    """Show one execution with its attempts, its steps, signals and children, and its result."""
    with opened() as runtime:
        history = runtime.history
        execution = history.get(execution_id)
        attempts = history.attempts(execution_id)
        steps = [step_record(step) for step in history.steps(execution_id)]
        signals = [signal_record(signal) for signal in history.signals(execution_id)]
        children = [relative_record(child) for child in history.last_children(execution_id)]
        child_count = history.child_count(execution_id)
        zone = runtime.settings.scheduler_timezone
    if as_json:
        output.show_json(
            execution_record(execution)
            | {
                "attempts": [attempt_record(attempt) for attempt in attempts],
                "steps": steps,
                "signals": signals,
                "children": children,
                "child_count": child_count,
            }
        )
        return
    output.show_fields(_fields(execution, zone))
    _show_durable(steps, signals, zone)
    _show_children(execution_id, children, child_count, zone)
    if attempts:
        output.say("\nAttempts", style="bold")
        output.show_table(
            ("number", "status", "reason", "started", "took", "node", "error"),
            [_attempt_row(attempt, zone) for attempt in attempts],
        )
        if attempts[-1].traceback:
            output.say(f"\n{attempts[-1].traceback}", style="dim")


def _show_durable(steps: list[dict[str, Any]], signals: list[dict[str, Any]], zone: str) -> None:
    """What it has done for good and was told."""
    if steps:
        output.say("\nSteps", style="bold")
        output.show_table(
            ("kind", "name", "began", "over", "due", "result"),
            [
                (
                    step["kind"].value,
                    step["name"],
                    output.moment(step["started_at"], zone),
                    output.moment(step["finished_at"], zone),
                    output.moment(step["due_at"], zone),
                    output.plain(step["result"]) if step["finished_at"] else "",
                )
                for step in steps
            ],
        )
    if signals:
        output.say("\nSignals", style="bold")
        output.show_table(
            ("name", "payload", "by", "sent", "taken"),
            [
                (
                    signal["name"],
                    output.plain(signal["payload"]),
                    signal["signalled_by"] or "",
                    output.moment(signal["signalled_at"], zone),
                    output.moment(signal["consumed_at"], zone),
                )
                for signal in signals
            ],
        )


def _show_children(execution_id: int, children: list[dict[str, Any]], child_count: int, zone: str) -> None:
    if not children:
        return
    is_cut = child_count > len(children)
    output.say(f"\nChildren{f' (the last {len(children)} of {child_count})' if is_cut else ''}", style="bold")
    output.show_table(
        ("id", "key", "type", "state", "reason", "over"),
        [
            (
                str(child["id"]),
                child["child_key"] or "",
                child["task_type"],
                output.state(child["state"].value),
                child["reason"] or "",
                output.moment(child["finished_at"], zone),
            )
            for child in children
        ],
    )
    if is_cut:
        limit = min(child_count, _MOST_LISTED)
        output.say(f"More: contenthub execution list --parent {execution_id} --limit {limit}")


def _fields(execution: Execution, zone: str) -> list[tuple[str, str]]:
    record = execution_record(execution)
    for name, value in record.items():
        if hasattr(value, "astimezone"):
            record[name] = output.moment(value, zone)
    return [
        (name.replace("_", " "), value if isinstance(value, str) else output.plain(value))
        for name, value in record.items()
        if value not in (None, "", {})
    ]


def _attempt_row(attempt: TaskAttempt, zone: str) -> Sequence[str | Text]:
    return (
        str(attempt.number),
        output.state(attempt.status),
        attempt.reason or "",
        output.moment(attempt.started_at, zone),
        _seconds(attempt.duration_seconds),
        attempt.node,
        attempt.error or "",
    )


@app.command()
def logs(
    execution_id: ExecutionId,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on until the execution is over.")] = False,
    as_json: output.JsonFlag = False,
) -> None:
    """Show the kept log lines of an execution; with --json one object a line."""
    with opened() as runtime:
        zone = runtime.settings.scheduler_timezone
        runtime.history.get(execution_id)
        for line in _followed(runtime, execution_id) if follow else _lines(runtime, execution_id, after_id=0):
            if as_json:
                output.show_json_line(log_record(line))
            else:
                output.say(f"{output.moment(line.logged_at, zone)} | {line.level: <8} | {line.message}")


def _lines(runtime: Runtime, execution_id: int, *, after_id: int) -> Iterator[ExecutionLog]:
    while page := runtime.history.logs(execution_id, after_id=after_id, limit=_PAGE):
        yield from page
        after_id = page[-1].id


def _followed(runtime: Runtime, execution_id: int) -> Iterator[ExecutionLog]:
    after_id = 0
    is_over = False
    while not is_over:
        # Asked before the lines are read: what an execution says last is stored together with its end.
        execution = runtime.history.get(execution_id)
        is_over = execution.is_final or execution.state.value == "parked"
        for line in _lines(runtime, execution_id, after_id=after_id):
            after_id = line.id
            yield line
        if not is_over:
            time.sleep(FOLLOW_SECONDS)


@app.command()
def bulk(
    file: Annotated[str, typer.Argument(help="JSON lines, as POST /executions takes them; - for stdin.")],
    as_json: output.JsonFlag = False,
) -> None:
    """Record up to 10,000 requests from a file, a JSON object a line, all of them or none. A server runs them."""
    lines = arguments.json_lines(arguments.read_file(file))
    with opened(executors=True) as runtime:
        import asyncio

        try:
            recorded = asyncio.run(_enqueued(runtime, list(lines.values())))
        except InvalidRequest as error:
            raise _by_line(error, list(lines)) from None
    fresh = sum(not execution.is_repeat for execution in recorded)
    if as_json:
        answers = [{"id": execution.id, "is_repeat": execution.is_repeat} for execution in recorded]
        output.show_json({"items": answers, "recorded": fresh})
        return
    known = f"; {len(recorded) - fresh} had been recorded before" if fresh < len(recorded) else ""
    output.say(f"Recorded {fresh} executions{known}.", style="green")


def _by_line(error: InvalidRequest, numbers: list[int]) -> InvalidRequest:
    """The same, naming lines of the file: `line 12: params.topic` for `items.3.params.topic`."""
    found = []
    for item in error.errors:
        first, _, rest = item.field.partition(".")
        position, _, field = rest.partition(".")
        if first == "items" and position.isdecimal():
            found.append(replace(item, field=f"line {numbers[int(position)]}{f': {field}' if field else ''}"))
        else:
            found.append(item)
    return InvalidRequest(found)


async def _enqueued(runtime: Runtime, items: list[dict[str, Any]]) -> list[Execution]:
    return await runtime.service.enqueue_many(items, trigger="cli", triggered_by="cli")


@app.command()
def cancel(execution_id: ExecutionId, as_json: output.JsonFlag = False) -> None:
    """Cancel an execution: a waiting one at once, a running one as soon as its code lets go."""
    with opened() as runtime:
        import asyncio

        execution = asyncio.run(_cancelled(runtime, execution_id))
    if as_json:
        output.show_json(execution_record(execution))
    elif execution.is_final:
        output.say(f"Cancelled execution {execution.id}.", style="green")
    else:
        output.say(f"Asked execution {execution.id} to end; it is {execution.state.value} until its code lets go.")


async def _cancelled(runtime: Runtime, execution_id: int) -> Execution:
    return await runtime.service.cancel(execution_id)


@app.command()
def signal(
    execution_id: ExecutionId,
    name: Annotated[str, typer.Argument(metavar="NAME", help="What its code waits for.")],
    payload: Annotated[
        Any,
        typer.Option(
            "--payload",
            parser=arguments.json_value,
            metavar="JSON",
            help="JSON that the wait returns; nothing: null.",
        ),
    ] = None,
    as_json: output.JsonFlag = False,
) -> None:
    """Signal to an execution; kept until its code waits for it."""
    with opened() as runtime:
        import asyncio

        from app.workflows.approvals import refuse_bare_decision  # needs SQLAlchemy, see session.py

        refuse_bare_decision(runtime.history.get(execution_id), name)
        sent = asyncio.run(runtime.commands.signal(execution_id, name, payload, db=None, signalled_by="cli"))
    if as_json:
        output.show_json(signal_record(sent))
    else:
        output.say(f"Signalled {sent.name} to execution {execution_id}.", style="green")


@app.command()
def retry(
    execution_id: ExecutionId,
    detach: Annotated[
        bool, typer.Option("--detach", help="Put it back in line and return; a server runs it.")
    ] = False,
    timeout: Annotated[float | None, arguments.duration_option("--timeout", "How long to wait at most.")] = None,
    as_json: output.JsonFlag = False,
) -> None:
    """Run a failed, cancelled or parked execution again and wait for the outcome, as `task run` does."""
    with opened(executors=True) as runtime:
        from app.cli.follow import carry_out  # needs SQLAlchemy, see session.py

        carry_out(
            runtime,
            lambda: runtime.service.retry(execution_id),
            detach=detach,
            timeout=timeout,
            as_json=as_json,
        )
