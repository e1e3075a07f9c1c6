"""`contenthub db`: the schema of the database."""

from __future__ import annotations

import typer

from app.cli import output
from app.cli.session import database_faults, load_settings
from app.core.config import Settings
from app.core.logging import configure_logging

app = typer.Typer(help="The schema of the database.", no_args_is_help=True)


@app.command()
def upgrade(as_json: output.JsonFlag = False) -> None:
    """Bring the schema to the revision of this version; what is stored stays."""
    settings = load_settings()
    configure_logging("WARNING")
    with database_faults(), output.working("Upgrading"):
        before, head = _revisions(settings)
        if before != head:
            from app.factory import create_service, prepare_database  # needs SQLAlchemy, see session.py
            from app.scheduler.runtime import runtime_of

            runtime = runtime_of(create_service(settings, role="cli"))
            try:
                prepare_database(runtime)
            finally:
                runtime.close()
    if as_json:
        output.show_json({"before": before, "now": head})
    elif before == head:
        output.say(f"The schema is at {head} already.")
    else:
        output.say(f"Upgraded the schema from {before or 'nothing'} to {head}.", style="green")


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
