"""`contenthub approval`: what waits for somebody's decision."""

from __future__ import annotations

import asyncio
from dataclasses import asdict
from datetime import timedelta
from typing import TYPE_CHECKING, Annotated

import typer

from app.cli import arguments, output
from app.cli.records import execution_record
from app.cli.session import opened

if TYPE_CHECKING:
    from app.models.task_execution import Execution
    from app.scheduler.runtime import Runtime

app = typer.Typer(help="What waits for somebody's decision.", no_args_is_help=True)

ApprovalId = Annotated[int, typer.Argument(metavar="ID", min=1, max=2**63 - 1, help="The approval's execution.")]
Comment = Annotated[str, typer.Option("--comment", help="Why; kept with the decision.")]
By = Annotated[str, typer.Option("--by", help="Who decides; kept with the decision.")]


@app.command("list")
def list_waiting(
    limit: Annotated[int, typer.Option("--limit", min=1, max=10_000, help="How many at most.")] = 50,
    as_json: output.JsonFlag = False,
) -> None:
    """List what waits for a decision, oldest first."""
    with opened() as runtime:
        from app.workflows.approvals import Approvals  # needs SQLAlchemy, see session.py

        found = Approvals(runtime).waiting(limit=limit)
        zone = runtime.settings.scheduler_timezone
    if as_json:
        output.show_json([asdict(question) for question in found])
    elif found:
        output.show_table(
            ("id", "title", "asked", "until", "approvers", "workflow"),
            [
                (
                    str(question.execution_id),
                    question.title,
                    output.moment(question.asked_at, zone),
                    output.moment(question.expires_at, zone),
                    ", ".join(question.approvers),
                    str(question.workflow_id or ""),
                )
                for question in found
            ],
        )
    else:
        output.say("Nothing waits for a decision.")


@app.command()
def approve(
    execution_id: ApprovalId, comment: Comment = "", by: By = "cli", as_json: output.JsonFlag = False
) -> None:
    """Approve; the execution goes on."""
    _decide(execution_id, approved=True, comment=comment, by=by, as_json=as_json)


@app.command()
def reject(
    execution_id: ApprovalId, comment: Comment = "", by: By = "cli", as_json: output.JsonFlag = False
) -> None:
    """Reject; the execution goes on with that, or fails, as its params say."""
    _decide(execution_id, approved=False, comment=comment, by=by, as_json=as_json)


def _decide(execution_id: int, *, approved: bool, comment: str, by: str, as_json: bool) -> None:
    with opened() as runtime:
        execution = asyncio.run(_decided(runtime, execution_id, approved=approved, comment=comment, by=by))
    if as_json:
        output.show_json(execution_record(execution))
    else:
        word = "Approved" if approved else "Rejected"
        output.say(f"{word} {execution_id}; a server goes on with it.", style="green")


async def _decided(runtime: Runtime, execution_id: int, *, approved: bool, comment: str, by: str) -> Execution:
    from app.workflows.approvals import Approvals, Via  # as above

    # Whoever may use this machine's database may decide anything.
    return await Approvals(runtime).decide(
        execution_id, approved=approved, comment=comment, by=by, via=Via.CLI, is_admin=True
    )


@app.command()
def link(
    execution_id: ApprovalId,
    name: Annotated[str, typer.Option("--for", help="Who is to use it.")] = "cli",
    lifetime: Annotated[str, typer.Option("--lifetime", help="How long it can be used.")] = "7d",
    as_json: output.JsonFlag = False,
) -> None:
    """Print a signed link: whoever has it can decide this one, once, without a token."""
    span = timedelta(seconds=arguments.duration(lifetime))
    with opened() as runtime:
        from app.workflows.links import ApprovalLinks  # as above

        url, made = ApprovalLinks(runtime).make(execution_id, by=name, made_by="cli", is_admin=True, lifetime=span)
        is_local = not runtime.settings.public_base_url
    if is_local:
        server = url.partition("/approvals/")[0]
        output.note(
            f"The server is taken to be at {server}; set PUBLIC_BASE_URL, or PORT as it is served, if it is not."
        )
    if as_json:
        output.show_json({"url": url, "name": made.by, "expires_at": made.until})
    else:
        output.show_text(f"{url}\n")
