"""`contenthub token`: who may call the API."""

from __future__ import annotations

from typing import Annotated

import typer

from app.cli import output
from app.cli.session import opened

app = typer.Typer(help="Who may call the API.", no_args_is_help=True)


@app.command()
def create(
    name: Annotated[str, typer.Argument(help="Whose token it is; unique.")],
    role: Annotated[
        str,
        typer.Option("--role", help="viewer reads; operator also changes and runs; admin also deletes."),
    ],
    as_json: output.JsonFlag = False,
) -> None:
    """Make a token and print it, this once: only its hash is stored."""
    with opened() as runtime:
        from app.models.api_token import create_token  # needs SQLAlchemy, see session.py

        with runtime.sessions() as session:
            token = create_token(session, name, role)
            session.commit()
    if as_json:
        output.show_json({"name": name, "role": role, "token": token})
    else:
        output.show_text(f"{token}\n")
        output.note("It is not shown again. Send it as: Authorization: Bearer …")


@app.command("list")
def list_all(as_json: output.JsonFlag = False) -> None:
    """List the tokens, without the tokens."""
    with opened() as runtime:
        from app.models.api_token import list_tokens  # as above

        with runtime.sessions() as session:
            tokens = list_tokens(session)
        zone = runtime.settings.scheduler_timezone
    if as_json:
        output.show_json(
            [
                {
                    "name": token.name,
                    "role": token.role,
                    "created_at": token.created_at,
                    "revoked_at": token.revoked_at,
                }
                for token in tokens
            ]
        )
    elif tokens:
        output.show_table(
            ("name", "role", "created", "revoked"),
            [
                (
                    token.name,
                    token.role,
                    output.moment(token.created_at, zone),
                    output.moment(token.revoked_at, zone),
                )
                for token in tokens
            ],
        )
    else:
        output.say("No tokens: the API answers only on this machine. Make one with `contenthub token create`.")


@app.command()
def revoke(
    name: Annotated[str, typer.Argument(help="Whose token.")],
    as_json: output.JsonFlag = False,
) -> None:
    """Make a token useless from now on."""
    with opened() as runtime:
        from app.models.api_token import any_token_exists, revoke_token  # as above

        with runtime.sessions() as session:
            revoke_token(session, name)
            session.commit()
            is_last = not any_token_exists(session)
    if is_last:
        output.note("No token is left: the API answers every request from this machine, and none from elsewhere.")
    if as_json:
        output.show_json({"name": name, "revoked": True})
    else:
        output.say(f"Revoked the token {name}.", style="green")
