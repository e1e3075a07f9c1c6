"""`contenthub pool`: contents that are ready, and when they go out."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from app.cli import output
from app.cli.session import opened

if TYPE_CHECKING:
    from app.models.content_pool import PoolEntry

app = typer.Typer(help="Contents that are ready, and when they go out.", no_args_is_help=True)

EntryId = Annotated[int, typer.Argument(metavar="ID", min=1, max=2**31 - 1, help="The entry's id.")]


@app.command("list")
def list_entries(
    states: Annotated[
        list[str] | None, typer.Option("--state", help="Only in this state; may be repeated.")
    ] = None,
    limit: Annotated[int, typer.Option("--limit", min=1, max=10_000, help="How many at most.")] = 20,
    as_json: output.JsonFlag = False,
) -> None:
    """List the pool, newest first."""
    with opened() as runtime:
        from app.models.content_pool import PoolState  # needs SQLAlchemy, see session.py
        from app.workflows.pool import Pool

        known = [state.value for state in PoolState]
        for state in states or ():
            if state not in known:
                raise typer.BadParameter(
                    f"{state!r} is unknown; the states are {', '.join(known)}", param_hint="--state"
                )
        found = Pool(runtime.sessions).page(limit=limit, states=[PoolState(state) for state in states or ()])
        zone = runtime.settings.scheduler_timezone
    if as_json:
        output.show_json([_record(entry, title) for entry, title in found])
    elif found:
        output.show_table(
            ("id", "content", "title", "priority", "not before", "state", "error"),
            [
                (
                    str(entry.id),
                    str(entry.content_id),
                    title,
                    str(entry.priority),
                    output.moment(entry.not_before, zone),
                    output.state(entry.state),
                    entry.error or "",
                )
                for entry, title in found
            ],
        )
    else:
        output.say("The pool is empty.")


@app.command()
def priority(
    entry_id: EntryId,
    value: Annotated[int, typer.Argument(min=-1000, max=1000, help="A higher one goes out first.")],
    as_json: output.JsonFlag = False,
) -> None:
    """Give an entry that waits another priority."""
    with opened() as runtime:
        from app.workflows.pool import Pool  # as above

        entry, title = Pool(runtime.sessions).change(entry_id, {"priority": value})
    _show(entry, title, f"Entry {entry_id} has the priority {value}.", as_json=as_json)


@app.command()
def withdraw(entry_id: EntryId, as_json: output.JsonFlag = False) -> None:
    """Take an entry out: it will not be published, unless it is added again."""
    with opened() as runtime:
        from app.workflows.pool import Pool  # as above

        entry, title = Pool(runtime.sessions).withdraw(entry_id)
    _show(entry, title, f"Withdrew entry {entry_id}.", as_json=as_json)


def _show(entry: PoolEntry, title: str, sentence: str, *, as_json: bool) -> None:
    if as_json:
        output.show_json(_record(entry, title))
    else:
        output.say(sentence, style="green")


def _record(entry: PoolEntry, title: str) -> dict[str, Any]:
    return {
        "id": entry.id,
        "content_id": entry.content_id,
        "title": title,
        "target": entry.target,
        "priority": entry.priority,
        "not_before": entry.not_before,
        "state": entry.state,
        "claimed_by": entry.claimed_by,
        "error": entry.error,
        "added_by": entry.added_by,
        "added_at": entry.added_at,
        "published_at": entry.published_at,
    }
