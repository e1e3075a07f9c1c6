"""`contenthub task`: the stored tasks."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from pydantic import ValidationError

from app.cli import arguments, output
from app.cli.records import task_record
from app.cli.session import opened
from app.core.errors import InvalidRequest
from app.scheduler.policies import MisfirePolicy, OverlapPolicy
from app.scheduler.schedules import DstPolicy, to_utc
from app.scheduler.windows import ClosedPolicy

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.text import Text

    from app.models.scheduled_task import ScheduledTask
    from app.scheduler.pace import Backfill, Pace
    from app.scheduler.task_files import TaskChange

DIFFERENCES = 3
"""Exit code of `task import --diff` where something would change."""
_PAGE = 500
_RECENT = 5

app = typer.Typer(help="The stored tasks.", no_args_is_help=True)

TaskName = Annotated[str, typer.Argument(metavar="NAME", help="The task's name, or its id.")]
Params = Annotated[
    dict[str, Any] | None,
    typer.Option(
        "--params", help="JSON object, or @file, or @- for stdin.", metavar="JSON", parser=arguments.json_object
    ),
]


class Activity(StrEnum):
    """Which tasks to list."""

    ALL = "all"
    ACTIVE = "active"
    PAUSED = "paused"


@app.command("list")
def list_tasks(
    task_type: Annotated[str | None, typer.Option("--type", help="Only tasks of this executor type.")] = None,
    activity: Annotated[
        Activity, typer.Option("--state", help="Only active, or only paused tasks.")
    ] = Activity.ALL,
    search: Annotated[str | None, typer.Option("--search", help="Only tasks whose name contains this.")] = None,
    limit: Annotated[int, typer.Option("--limit", min=1, help="How many tasks at most.")] = 1000,
    as_json: output.JsonFlag = False,
) -> None:
    """List the stored tasks, oldest first."""
    active = None if activity is Activity.ALL else activity is Activity.ACTIVE
    found: list[ScheduledTask] = []
    with opened() as runtime:
        while len(found) < limit:
            page = runtime.tasks.page(
                after_id=found[-1].id if found else 0,
                limit=min(_PAGE, limit - len(found)),
                task_type=task_type,
                is_active=active,
                search=search,
            )
            found += page
            if not page:
                break
        is_more = len(found) == limit and bool(
            runtime.tasks.page(
                after_id=found[-1].id, limit=1, task_type=task_type, is_active=active, search=search
            )
        )
    if as_json:
        output.show_json([task_record(task) for task in found])
    elif found:
        output.show_table(
            ("id", "name", "type", "schedule", "next run", "last run", "last state"),
            [_row(task) for task in found],
        )
    else:
        output.say("No tasks. Make one with `contenthub task create`.")
    if is_more:
        output.note(f"Only the first {limit} are listed; --limit shows more.")


def _row(task: ScheduledTask) -> Sequence[str | Text]:
    return (
        str(task.id),
        task.name,
        task.task_type,
        _schedule_words(task),
        _next_run(task),
        output.moment(task.last_run_at, task.timezone),
        output.state(task.last_state),
    )


def _schedule_words(task: ScheduledTask) -> str:
    match task.schedule_type:
        case None:
            return ""
        case "interval":
            return f"every {task.schedule_expression} s"
        case "at":
            return f"at {task.schedule_expression}"
        case _:
            return f"{task.schedule_expression} ({task.timezone})"


def _next_run(task: ScheduledTask) -> str:
    if task.schedule_error is not None:
        return "schedule unreadable"
    if not task.is_active:
        return "paused"
    if task.exhausted_at is not None:
        return "over"
    from app.scheduler.arming import next_run_of  # with SQLAlchemy, see session.py

    runs_at = next_run_of(task)
    if task.next_run_at is not None and runs_at is None:
        return "never: closed at every fire"
    return output.moment(runs_at, task.timezone)


@app.command()
def show(name: TaskName, as_json: output.JsonFlag = False) -> None:
    """Show one task: its definition, its next fire, its latest executions."""
    with opened() as runtime:
        task = runtime.tasks.find(name)
        recent = runtime.history.page(task_id=task.id, limit=_RECENT)
    if as_json:
        output.show_json(task_record(task))
        return
    output.show_fields(_fields(task))
    if recent:
        output.say("\nLatest executions", style="bold")
        output.show_table(
            ("id", "state", "reason", "trigger", "created", "message"),
            [
                (
                    str(execution.id),
                    output.state(execution.state.value),
                    execution.reason or "",
                    execution.trigger,
                    output.moment(execution.created_at, task.timezone),
                    execution.error or execution.message or "",
                )
                for execution in recent
            ],
        )


def _fields(task: ScheduledTask) -> list[tuple[str, str]]:
    record = task_record(task)
    record["schedule"] = _schedule_words(task)
    record["next_run_at"] = _next_run(task)
    for name in ("start_at", "end_at", "last_run_at", "exhausted_at", "created_at", "updated_at"):
        record[name] = output.moment(record[name], task.timezone)
    return [
        (name.replace("_", " "), value if isinstance(value, str) else output.plain(value))
        for name, value in record.items()
        if value not in (None, "", {})
    ]


@app.command()
def create(
    name: Annotated[str, typer.Option("--name", help="Unique name.")],
    task_type: Annotated[str, typer.Option("--type", help="Executor type, such as content_generation.")],
    params: Params = None,
    cron: Annotated[str | None, typer.Option("--cron", help='Cron expression, such as "0 9 * * 1-5".')] = None,
    every: Annotated[
        float | None, arguments.duration_option("--every", "Interval: 30s, 5m, 1h30m, 2d, 1w.")
    ] = None,
    at: Annotated[
        str | None, typer.Option("--at", help="One moment, ISO 8601; without an offset in --timezone.")
    ] = None,
    timezone: Annotated[
        str | None, typer.Option("--timezone", help="IANA zone; by default SCHEDULER_TIMEZONE.")
    ] = None,
    description: Annotated[str | None, typer.Option("--description")] = None,
    start_at: Annotated[str | None, typer.Option("--start-at", help="No fires before; ISO 8601.")] = None,
    end_at: Annotated[str | None, typer.Option("--end-at", help="No fires after; ISO 8601.")] = None,
    dst_policy: Annotated[DstPolicy | None, typer.Option("--dst-policy")] = None,
    jitter: Annotated[float | None, arguments.duration_option("--jitter", "Start up to this much later.")] = None,
    timeout: Annotated[float | None, arguments.duration_option("--timeout", "Time limit of an attempt.")] = None,
    max_attempts: Annotated[
        int | None, typer.Option("--max-attempts", help="Attempts, the first included; by default the executor's.")
    ] = None,
    backoff: Annotated[
        float | None, arguments.duration_option("--backoff", "Pause before the first retry; it doubles.")
    ] = None,
    retry_on: Annotated[
        list[str] | None, typer.Option("--retry-on", help="Error name worth a retry; may be repeated.")
    ] = None,
    misfire: Annotated[
        MisfirePolicy | None, typer.Option("--misfire", help="What becomes of missed fires.")
    ] = None,
    misfire_grace: Annotated[
        float | None, arguments.duration_option("--misfire-grace", "A fire later than this counts as missed.")
    ] = None,
    overlap: Annotated[
        OverlapPolicy | None, typer.Option("--overlap", help="What a fire does while an execution runs.")
    ] = None,
    priority: Annotated[int | None, typer.Option("--priority", help="-1000 to 1000; higher goes first.")] = None,
    concurrency_key: Annotated[
        str | None, typer.Option("--concurrency-key", help="Executions with one key share a limit.")
    ] = None,
    concurrency_limit: Annotated[int | None, typer.Option("--concurrency-limit")] = None,
    rate_limit: Annotated[
        str | None, typer.Option("--rate-limit", help="10/60s, 10/60s/account_id for each value of a param.")
    ] = None,
    window: Annotated[
        str | None, typer.Option("--window", help="When it may fire: 'mon-fri 09:00-18:00', 22:00-06:00.")
    ] = None,
    calendar: Annotated[
        str | None, typer.Option("--calendar", help="When it does not: holidays of CN or DE-BY, dates; commas.")
    ] = None,
    when_closed: Annotated[
        ClosedPolicy | None, typer.Option("--when-closed", help="What becomes of a fire outside of these.")
    ] = None,
    paused: Annotated[bool, typer.Option("--paused", help="Store it, but do not fire it yet.")] = False,
    as_json: output.JsonFlag = False,
) -> None:
    """Create a task. Durations are 30s, 5m, 1h30m, 2d; a number alone is seconds."""
    retry = {
        "max_attempts": max_attempts,
        "backoff_seconds": backoff,
        "retry_on": retry_on or None,
    }
    values = {
        "name": name,
        "task_type": task_type,
        "params": params,
        "schedule": _schedule(cron, every, at),
        "timezone": timezone,
        "description": description,
        "start_at": start_at,
        "end_at": end_at,
        "dst_policy": dst_policy,
        "jitter_seconds": jitter,
        "timeout_seconds": timeout,
        "retry": _given(retry) or None,
        "misfire_policy": misfire,
        "misfire_grace_seconds": misfire_grace,
        "overlap_policy": overlap,
        "priority": priority,
        "concurrency_key": concurrency_key,
        "concurrency_limit": concurrency_limit,
        "rate_limit": arguments.rate_limit(rate_limit) if rate_limit is not None else None,
        "run_window": arguments.run_window(window) if window is not None else None,
        "calendar": arguments.calendar(calendar) if calendar is not None else None,
        "closed_policy": when_closed,
        "is_active": False if paused else None,
    }
    with opened(executors=True) as runtime:
        task = runtime.tasks.create(runtime.definition(_given(values)), by="cli")
    if as_json:
        output.show_json(task_record(task))
        return
    when = f"; it runs next at {_next_run(task)}" if task.next_run_at is not None else ""
    output.say(f"Created task {task.id} ({task.name}){when}.", style="green")


def _given(values: dict[str, Any]) -> dict[str, Any]:
    """What was typed; the rest keeps the defaults of `TaskDefinition`."""
    return {name: value for name, value in values.items() if value is not None}


def _schedule(cron: str | None, every: float | None, at: str | None) -> dict[str, Any] | None:
    given = _given({"--cron": cron, "--every": every, "--at": at})
    if len(given) > 1:
        raise typer.BadParameter("a task has one schedule: give one of them", param_hint=" and ".join(given))
    if cron is not None:
        return {"type": "cron", "expression": cron}
    if every is not None:
        return {"type": "interval", "seconds": every}
    return {"type": "at", "at": at} if at is not None else None


@app.command()
def run(
    name: TaskName,
    params: Params = None,
    detach: Annotated[bool, typer.Option("--detach", help="Record it and return; a server runs it.")] = False,
    timeout: Annotated[float | None, arguments.duration_option("--timeout", "How long to wait at most.")] = None,
    as_json: output.JsonFlag = False,
) -> None:
    """Run a task now, under its own policies, and wait for the outcome: exit code 0 is success.

    Where no server runs, the command runs it itself; then Ctrl-C and --timeout cancel it.
    """
    with opened(executors=True) as runtime:
        from app.cli.follow import carry_out  # needs SQLAlchemy, see session.py

        task = runtime.tasks.find(name)
        carry_out(
            runtime,
            lambda: runtime.service.run_now(task.id, params, triggered_by="cli"),
            detach=detach,
            timeout=timeout,
            as_json=as_json,
        )


@app.command()
def backfill(
    name: TaskName,
    start: Annotated[
        datetime | None,
        arguments.moment_option("--from", "ISO 8601; without an offset in the task's zone."),
    ] = None,
    end: Annotated[
        datetime | None,
        arguments.moment_option("--to", "Until before this moment; by default now."),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what it would do, and record nothing.")] = False,
    at_once: Annotated[int | None, typer.Option("--at-once", help="How many run together; by default 1.")] = None,
    every: Annotated[
        float | None, arguments.duration_option("--every", "Start one every 30s, 5m … instead.")
    ] = None,
    cancel: Annotated[
        bool, typer.Option("--cancel", help="End what is left of the task's backfills instead.")
    ] = False,
    as_json: output.JsonFlag = False,
) -> None:
    """Run the fires a task would have had in a past range, but for those its ledger has. A server runs them."""
    if cancel:
        if start is not None or end is not None or dry_run or at_once is not None or every is not None:
            raise typer.BadParameter("it ends all of them: give nothing else with it", param_hint="--cancel")
        _cancel_backfill(name, as_json=as_json)
        return
    if start is None:
        raise typer.BadParameter("say from when on the past is made up for", param_hint="--from")
    with opened(executors=True) as runtime:
        import asyncio

        from app.api.schemas import BackfillAnswer  # as above

        task = runtime.tasks.find(name)
        since = to_utc(start, task.timezone, field="--from")
        until = to_utc(end, task.timezone, field="--to") if end is not None else runtime.clock.now()
        if dry_run:
            found = runtime.preview_backfill(task.id, since, until)
        else:
            pace = _pace(at_once, every)
            found = asyncio.run(runtime.service.backfill(task.id, since, until, pace=pace, triggered_by="cli"))
    if as_json:
        output.show_json(BackfillAnswer.of(found).model_dump())
        return
    _show_backfill(found, task, dry_run=dry_run)


def _cancel_backfill(name: str, *, as_json: bool) -> None:
    with opened(executors=True) as runtime:
        import asyncio

        from app.api.schemas import BackfillCancelled  # as above

        task = runtime.tasks.find(name)
        called_off = asyncio.run(runtime.service.cancel_backfill(task.id))
    if as_json:
        found = BackfillCancelled(cancelled=len(called_off.ended), ending=len(called_off.asked))
        output.show_json(found.model_dump())
        return
    output.say(f"Cancelled {len(called_off.ended)} waiting executions of {task.name}'s backfills.", style="green")
    if called_off.asked:
        output.say(f"{len(called_off.asked)} under way were asked to end.")


def _pace(at_once: int | None, every: float | None) -> Pace:
    from app.core.validation import field_errors  # as above
    from app.scheduler.pace import Pace

    try:
        return Pace(at_once=at_once, every_seconds=every)
    except ValidationError as error:
        raise InvalidRequest(field_errors(error)) from None


def _show_backfill(found: Backfill, task: ScheduledTask, *, dry_run: bool) -> None:
    count = len(found.fires)
    span = (
        f" from {output.moment(found.fires[0], task.timezone)} to {output.moment(found.fires[-1], task.timezone)}"
        if found.fires
        else ""
    )
    output.say(f"{'Would record' if dry_run else 'Recorded'} {count} fires of {task.name}{span}.", style="green")
    if found.known:
        output.say(f"{len(found.known)} are in the ledger already and stay as they are.")
    if found.closed:
        output.say(f"{found.closed} are outside its window or on closed days and are left out.")


@app.command()
def pause(name: TaskName, as_json: output.JsonFlag = False) -> None:
    """Stop firing a task; what is under way goes on."""
    with opened(executors=True) as runtime:
        task = runtime.tasks.pause(runtime.tasks.find(name).id, by="cli")
    _show_change(task, f"Paused task {task.id} ({task.name}).", as_json=as_json)


@app.command()
def resume(name: TaskName, as_json: output.JsonFlag = False) -> None:
    """Fire a task again from now on; fires of the pause are not made up."""
    with opened(executors=True) as runtime:
        task = runtime.tasks.resume(runtime.tasks.find(name).id, by="cli")
    _show_change(
        task, f"Resumed task {task.id} ({task.name}); next run: {_next_run(task) or 'none'}.", as_json=as_json
    )


def _show_change(task: ScheduledTask, sentence: str, *, as_json: bool) -> None:
    if as_json:
        output.show_json(task_record(task))
    else:
        output.say(sentence, style="green")


@app.command()
def delete(
    name: TaskName,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    as_json: output.JsonFlag = False,
) -> None:
    """Delete a task and cancel what waits of it; its history and running executions stay."""
    with opened() as runtime:
        task = runtime.tasks.find(name)
        if not yes:
            typer.confirm(f"Delete task {task.id} ({output.printable(task.name)})?", abort=True, err=True)
        runtime.tasks.delete(task.id, by="cli")
        comes_back = task.declared is not None and not task.declaration_missing
    _show_change(task, f"Deleted task {task.id} ({task.name}).", as_json=as_json)
    if comes_back:
        output.note("The code declares it: it comes back at the next start, unless it is taken out there.")


@app.command()
def explain(
    name: TaskName,
    at: Annotated[
        datetime | None,
        arguments.moment_option(
            "--at", "ISO 8601 moment; without an offset in the task's zone. By default: what next?"
        ),
    ] = None,
    as_json: output.JsonFlag = False,
) -> None:
    """Say why a task ran, or did not run, at a moment."""
    with opened() as runtime:
        task = runtime.tasks.find(name)
        moment = to_utc(at, task.timezone, field="at") if at is not None else None
        sentence = runtime.explain(task.id, moment)
    if as_json:
        output.show_json({"task": task.name, "at": moment, "explanation": sentence})
    else:
        output.say(sentence)


@app.command("export")
def export_tasks(
    file: Annotated[Path | None, typer.Argument(help="Where to write; by default stdout.")] = None,
    as_json: output.JsonFlag = False,
) -> None:
    """Write all tasks as YAML, in order of name; defaults are left out, secrets read ******."""
    with opened() as runtime:
        from app.scheduler.task_files import entry_of, stored_definitions, write_tasks  # as above

        definitions = list(stored_definitions(runtime.tasks))
    if as_json:
        output.show_json([entry_of(item) for item in sorted(definitions, key=lambda item: item.name)])
        return
    text = write_tasks(definitions)
    if file is None or str(file) == "-":
        output.show_text(text)
        return
    try:
        file.write_text(text, encoding="utf-8")
    except OSError as error:
        raise typer.BadParameter(f"{file} cannot be written: {error}", param_hint="FILE") from None
    output.say(f"Wrote {len(definitions)} tasks to {file}.", style="green")


@app.command("import")
def import_file(
    file: Annotated[str, typer.Argument(help="YAML file, as `task export` writes it; - for stdin.")],
    diff: Annotated[
        bool, typer.Option("--diff", help="Show what would change and write nothing: exit code 3 if anything.")
    ] = False,
    prune: Annotated[
        bool, typer.Option("--prune", help="Delete tasks that the file does not name, but none declared in code.")
    ] = False,
    as_json: output.JsonFlag = False,
) -> None:
    """Create and update tasks by name, all or none. A secret written ****** keeps its stored value."""
    text = arguments.read_file(file)
    with opened(executors=True) as runtime, output.working("Importing"):
        from app.scheduler.task_files import import_tasks, read_tasks  # as above

        changes = import_tasks(
            read_tasks(text, default_timezone=runtime.settings.scheduler_timezone),
            database=runtime.engine,
            service=runtime.service,
            clock=runtime.clock,
            prune=prune,
            write=not diff,
        )
    if as_json:
        output.show_json({"written": not diff, "changes": [change.as_dict() for change in changes]})
    else:
        _show_changes(changes, written=not diff)
    raise typer.Exit(DIFFERENCES if diff and changes else 0)


def _show_changes(changes: Sequence[TaskChange], *, written: bool) -> None:
    signs = {"create": ("+", "green"), "update": ("~", "yellow"), "delete": ("-", "red")}
    for change in changes:
        sign, style = signs[change.action]
        output.say(f"{sign} {change.task}", style=style)
        for field in change.fields if change.action == "update" else ():
            output.say(f"    {field.field}: {output.plain(field.before)} → {output.plain(field.after)}")
    counts = {action: sum(change.action == action for change in changes) for action in signs}
    words = {"create": "created", "update": "updated", "delete": "deleted"}
    told = ", ".join(f"{counts[action]} {words[action]}" for action in signs if counts[action])
    if not changes:
        output.say("No changes.")
    else:
        output.say(f"{told}." if written else f"Would be: {told}. Nothing was written.")
