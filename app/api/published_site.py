"""`/site`: what `publishing` has written, beside the dashboard and on its address: no code in it may run."""

from __future__ import annotations

from pathlib import Path

from fastapi import FastAPI
from fastapi.staticfiles import StaticFiles
from starlette.responses import Response
from starlette.types import Scope

_HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; style-src 'unsafe-inline'; form-action 'none'; base-uri 'none'; "
        "frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
}


def install_site(app: FastAPI, folder: Path) -> None:
    """Add the folder to `app`. It need not be there yet: it is made at boot, by `prepare_database`."""
    app.mount("/site", _Site(directory=folder, html=True, check_dir=False), name="site")


class _Site(StaticFiles):
    async def get_response(self, path: str, scope: Scope) -> Response:
        response = await super().get_response(path, scope)
        response.headers.update(_HEADERS)
        return response
