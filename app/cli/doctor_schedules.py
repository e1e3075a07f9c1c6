"""`contenthub doctor schedules`: what the coming days of all schedules will hurt."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from app.cli import output
from app.cli.session import opened
from app.core.language import Language

if TYPE_CHECKING:
    from app.scheduler.doctor.findings import Finding
    from app.scheduler.runtime import Runtime

_NAMED = 5
_LEVELS = {"error": "fail", "warning": "warn", "info": "ok"}


def schedules(
    days: Annotated[int, typer.Option("--days", min=1, max=366, help="How far to look ahead.")] = 30,
    language: Annotated[Language, typer.Option("--language", help="Of the sentences: en or zh.")] = "en",
    apply_jitter: Annotated[
        bool, typer.Option("--apply-jitter", help="Set the proposed jitter, after asking.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    as_json: output.JsonFlag = False,
) -> None:
    """Play the coming days of all active tasks and say what will hurt; exit code 1 if anything surely does."""
    with opened(executors=True) as runtime:
        with output.working("Playing the schedules"):
            report = runtime.examine_schedules(days)
        if as_json:
            from app.api.doctor import ScheduleReport  # with FastAPI, see session.py

            output.show_json(ScheduleReport.of(report, language, named=None).model_dump())
        else:
            output.say(
                f"{report.task_count} active tasks, about {report.fire_count:,} fires up to"
                f" {output.moment(report.until, runtime.settings.scheduler_timezone)}",
                style="bold",
            )
            for finding in report.findings:
                _show(finding, language)
            if not report.findings:
                output.say("Nothing will hurt.", style="green")
            for note in report.notes:
                output.note(note.in_(language))
        if apply_jitter:
            _apply(runtime, report.findings, ask=not yes)
    raise typer.Exit(int(any(finding.severity == "error" for finding in report.findings)))


def _show(finding: Finding, language: Language) -> None:
    level = output.state(_LEVELS[finding.severity])
    level.pad_right(5 - len(level.plain))
    output.out.print(level, output.printable(f"{finding.kind}: {finding.sentence.in_(language)}"))
    names = ", ".join(f"{task.name} ({task.id})" for task in finding.tasks[:_NAMED])
    more = len(finding.tasks) - _NAMED
    if names:
        output.say(f"       {names}{f' and {more} more' if more > 0 else ''}", style="dim")
    output.say(f"       → {finding.remedy.in_(language)}", style="bold")


def _apply(runtime: Runtime, findings: tuple[Finding, ...], *, ask: bool) -> None:
    wanted = {one.task_id: one.proposed_seconds for finding in findings for one in finding.jitter}
    if not wanted:
        output.note("No jitter is proposed.")
        return
    if ask and not typer.confirm(f"Set jitter_seconds of {len(wanted)} tasks?", err=True):
        output.note("Nothing was changed.")
        return
    for task_id, seconds in wanted.items():
        runtime.tasks.update(task_id, {"jitter_seconds": seconds}, by="cli")
    output.note(f"Set the jitter of {len(wanted)} tasks.")
