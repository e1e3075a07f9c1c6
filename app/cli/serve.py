"""`contenthub serve`: the API and the scheduler in one server."""

from __future__ import annotations

import ipaddress
import os
import socket
from typing import Annotated

import typer

from app.cli import output
from app.cli.session import load_settings, opened
from app.core.config import misspelt_settings
from app.core.errors import InvalidRequest

CONNECTION_GRACE_SECONDS = 5
"""How long open requests may take once the server is told to stop; then the scheduler drains."""


def serve(
    host: Annotated[str | None, typer.Option("--host", help="Address to listen on; by default HOST.")] = None,
    port: Annotated[int | None, typer.Option("--port", min=0, max=65_535, help="Port; by default PORT.")] = None,
    workers: Annotated[int, typer.Option("--workers", min=1, max=64, help="Processes; each is a node.")] = 1,
) -> None:
    """Serve the API and run the scheduler until Ctrl-C; brings the database schema up to date first."""
    # Into the environment, not into a Settings: the workers are processes of their own and read it there.
    for name, value in (("HOST", host), ("PORT", port)):
        if value is not None:
            os.environ[name] = str(value)
    settings = load_settings()
    _refuse_taken(settings.host, settings.port)
    with opened(executors=True, upgrade=True) as runtime:
        from app.factory import make_site_folder  # with SQLAlchemy and FastAPI, see session.py
        from app.models.api_token import any_token_exists

        make_site_folder(settings)
        if settings.scheduler_enabled:
            runtime.check_declarations()  # the server would refuse them with a stack
        with runtime.sessions() as session:
            has_tokens = any_token_exists(session)
    if not has_tokens and not is_loopback(settings.host):
        raise InvalidRequest.of(
            "host",
            f"{settings.host} can be reached from other machines, and no API token exists;"
            " make one with `contenthub token create NAME --role admin`, or listen on 127.0.0.1",
        )
    for name, setting in misspelt_settings().items():
        output.note(f"{name} is no setting" + (f"; did you mean {setting}?" if setting else "."))
    address = f"http://{_in_url(settings.host)}:{settings.port}"
    output.note(f"Dashboard: {address}/scheduler/")
    say_if_not_built()
    output.note(f"API: {address}/docs   Ctrl-C stops.")
    if not has_tokens:
        output.note("No API token exists: only requests from this machine are answered.")

    import uvicorn  # with FastAPI, see session.py

    uvicorn.run(
        "app.main:app",
        host=settings.host,
        port=settings.port,
        workers=workers,
        log_level=settings.log_level.lower(),
        timeout_graceful_shutdown=CONNECTION_GRACE_SECONDS,
    )


def _refuse_taken(host: str, port: int) -> None:
    """The server itself would find out only once the scheduler runs, and has fired what was due.

    Raises:
        InvalidRequest: there is no such address on this machine, or another process listens there.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    except OSError as error:
        raise InvalidRequest.of("host", f"{host!r} is unknown; write an address of this machine") from error
    with socket.socket(family, kind, protocol) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(address)
        except OSError as error:
            raise InvalidRequest.of(
                "port", f"{port} of {host} cannot be listened on: {error.strerror}; choose another with --port"
            ) from error


def say_if_not_built() -> None:
    """Tell whoever looks for the dashboard that this installation has none, and why."""
    from app.dashboard.pages import HOW_TO_BUILD, is_built  # with FastAPI, see session.py

    if not is_built():
        output.note(f"The dashboard was not built; the API works without it. Remedy: {HOW_TO_BUILD}.")


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches a server that listens on `host`."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _in_url(host: str) -> str:
    return f"[{host}]" if ":" in host else host
