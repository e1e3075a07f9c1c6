"""`contenthub db`: the schema of the database."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer

from app.cli import output
from app.cli.session import database_faults, load_settings
from app.core.config import Settings
from app.core.logging import configure_logging


class Engine(StrEnum):
    """The engines, as the command line names them."""

    EMBEDDED = "embedded"
    PGQUEUER = "pgqueuer"


app = typer.Typer(help="The schema of the database.", no_args_is_help=True)


@app.command()
def upgrade(as_json: output.JsonFlag = False) -> None:
    """Bring the schema to the revision of this version; what is stored stays."""
    settings = load_settings()
    configure_logging("WARNING")
    with database_faults(), output.working("Upgrading"):
        before, head = _revisions(settings)
        from app.factory import own_runtime, prepare_database  # needs SQLAlchemy, see session.py

        runtime = own_runtime(settings, role="cli")
        try:
            # Also where the schema is at head: what the engine keeps there, and the first account, may be missing.
            prepare_database(runtime)
        finally:
            runtime.close()
    if as_json:
        output.show_json({"before": before, "now": head})
    elif before == head:
        output.say(f"The schema is at {head} already.")
    else:
        output.say(f"Upgraded the schema from {before or 'nothing'} to {head}.", style="green")


@app.command(name="move-engine")
def move_engine(
    to: Annotated[Engine, typer.Argument(help="The engine that shall carry what waits.")],
    as_json: output.JsonFlag = False,
) -> None:
    """Prepare what waits for another engine; then set SCHEDULER_ENGINE and restart the nodes. Loses nothing, may
    be repeated, and may run while nodes are at work."""
    settings = load_settings()
    configure_logging("WARNING")
    with database_faults(), output.working("Moving"):
        from app.db.database import make_engine  # needs SQLAlchemy, see session.py
        from app.scheduler.engines import choice

        database = make_engine(settings)
        try:
            moved = choice.move_engine(settings, database, to=to.value)
        finally:
            database.dispose()
    if as_json:
        output.show_json({"engine": to.value, "moved": moved})
    else:
        done = "withdrew the jobs of" if to is Engine.EMBEDDED else "wrote jobs for"
        output.say(f"Moved: {done} {moved} waiting executions.", style="green")
        output.note(f"Now set SCHEDULER_ENGINE={to.value} and restart every node.")


@app.command()
def current(as_json: output.JsonFlag = False) -> None:
    """Show the revision of the schema, and the one this version needs."""
    with database_faults():
        found, head = _revisions(load_settings())
    if as_json:
        output.show_json({"current": found, "head": head, "is_current": found == head})
    elif found == head:
        output.say(f"{found} (up to date)")
    else:
        output.say(f"{found or 'no schema'}; this version needs {head}: run `contenthub db upgrade`")


def _revisions(settings: Settings) -> tuple[str | None, str | None]:
    from app.db.database import make_engine  # needs SQLAlchemy, see session.py
    from app.db.schema import current_revision, head_revision

    engine = make_engine(settings)
    try:
        return current_revision(engine), head_revision()
    finally:
        engine.dispose()
