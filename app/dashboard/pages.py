"""`/scheduler/`: the dashboard's page and its assets, and `/docs`, with the headers that keep foreign code out.

The page talks to the REST API and its event stream only; nothing here reads a table.
"""

from __future__ import annotations

import mimetypes
import secrets
from functools import partial
from pathlib import Path

from fastapi import FastAPI
from fastapi.responses import HTMLResponse, RedirectResponse, Response
from fastapi.staticfiles import StaticFiles
from starlette.datastructures import Headers
from starlette.types import Scope

STATIC = Path(__file__).parent / "static"
"""What Vite builds (see `build_hook.py`); not in git, in the wheel."""
HOW_TO_BUILD = "install the package again where npm's registry can be reached"
_ENCODINGS = (("br", ".br"), ("gzip", ".gz"))
_NONCE = "__CSP_NONCE__"
_NOT_BUILT = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>ContentHub Scheduler</title></head>
<body><h1>The dashboard was not built</h1>
<p>The installation could not reach the npm registry, so this server has the API only, without a dashboard and a
documentation to read; <a href="/openapi.json">openapi.json</a> describes it. To build both, install again where
npm can be reached: <code>pip install --force-reinstall --no-deps .</code></p>
<h1 lang="zh">仪表盘尚未构建</h1>
<p lang="zh">安装时无法访问 npm，因此本服务仅提供 API，没有仪表盘和文档页面；API 的描述见
<a href="/openapi.json">openapi.json</a>。请在可访问 npm 的环境中重新安装。</p></body></html>
"""


def install_dashboard(app: FastAPI) -> None:
    """Add the dashboard to `app`."""
    look = partial(app.api_route, methods=["GET", "HEAD"], include_in_schema=False)

    @look("/")
    def _root() -> RedirectResponse:
        return RedirectResponse("scheduler/")

    app.mount("/scheduler/assets", _Assets(directory=STATIC / "assets", check_dir=False), name="assets")

    @look("/scheduler")
    def _slash() -> RedirectResponse:
        return RedirectResponse("scheduler/")

    @look("/scheduler/{path:path}")
    def _page(path: str) -> Response:
        """Every address of the dashboard is the one page: the address is read in the browser."""
        return page("index.html")

    @look("/docs")
    def _docs() -> Response:
        return page("docs.html")


class _Assets(StaticFiles):
    """Files whose names change with their content: a browser need never ask again. Vite has compressed them."""

    async def get_response(self, path: str, scope: Scope) -> Response:
        accepted = Headers(scope=scope).get("accept-encoding", "")
        for encoding, suffix in _ENCODINGS:
            if encoding in accepted and self.lookup_path(path + suffix)[1] is not None:
                response = await super().get_response(path + suffix, scope)
                response.headers["Content-Type"] = mimetypes.guess_type(path)[0] or "application/octet-stream"
                response.headers["Content-Encoding"] = encoding
                break
        else:
            response = await super().get_response(path, scope)
        response.headers["Vary"] = "Accept-Encoding"
        response.headers["Cache-Control"] = "public, max-age=31536000, immutable"
        response.headers["X-Content-Type-Options"] = "nosniff"
        return response


def is_built() -> bool:
    """Whether there is a dashboard to serve."""
    return (STATIC / "index.html").is_file()


def page(name: str) -> Response:
    """A page that Vite built, with a nonce of its own for the styles that its components make."""
    built = is_built()
    nonce = secrets.token_urlsafe(16)
    text = (STATIC / name).read_text(encoding="utf-8").replace(_NONCE, nonce) if built else _NOT_BUILT
    return HTMLResponse(
        text,
        status_code=200 if built else 503,
        headers={
            "Content-Security-Policy": _policy(nonce),
            "Cache-Control": "no-store",
            "Referrer-Policy": "same-origin",
            "X-Content-Type-Options": "nosniff",
            "Cross-Origin-Opener-Policy": "same-origin",
        },
    )


def _policy(nonce: str) -> str:
    return "; ".join(
        (
            "default-src 'none'",
            "script-src 'self'",
            f"style-src 'self' 'nonce-{nonce}'",
            "img-src 'self' data:",
            "font-src 'self'",
            "connect-src 'self'",
            "manifest-src 'self'",
            "base-uri 'none'",
            "form-action 'none'",
            "frame-ancestors 'none'",
        )
    )
