"""`contenthub schedule`: what a cron expression will do, before it does it. Needs no database."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

import typer

from app.cli import arguments, output
from app.cli.session import load_settings
from app.core.clock import SystemClock
from app.scheduler.preview import preview as preview_of
from app.scheduler.schedules import DstPolicy, from_columns, to_utc

app = typer.Typer(help="Schedules, before they are stored.", no_args_is_help=True)


@app.callback()
def _group() -> None:
    """Schedules, before they are stored."""


@app.command()
def preview(
    expression: Annotated[str, typer.Argument(help='Cron expression, such as "0 9 * * 1-5" or @daily.')],
    timezone: Annotated[
        str | None, typer.Option("--timezone", help="IANA zone; by default SCHEDULER_TIMEZONE.")
    ] = None,
    after: Annotated[
        datetime | None,
        arguments.moment_option("--from", "ISO 8601 moment to look from; by default now."),
    ] = None,
    count: Annotated[int, typer.Option("--count", help="How many fires.")] = 10,
    dst_policy: Annotated[
        DstPolicy, typer.Option("--dst-policy", help="What to do where the clocks change.")
    ] = DstPolicy.CRON,
    as_json: output.JsonFlag = False,
) -> None:
    """Show the next fires of a cron expression, a description, and what may surprise."""
    zone = timezone if timezone is not None else load_settings().scheduler_timezone
    found = preview_of(
        from_columns("cron", expression),
        zone=zone,
        dst_policy=dst_policy,
        after=to_utc(after, zone, field="from") if after is not None else SystemClock().now(),
        count=count,
    )
    if as_json:
        output.show_json(found.as_dict())
        return
    output.say(f"{found.description} ({zone})", style="bold")
    for fire in found.fires:
        output.say(f"  {fire:%a} {fire.isoformat(sep=' ')}")
    for warning in found.warnings:
        output.note(f"Warning: {warning}")
