"""`/approvals/TOKEN`: the small page behind a signed link. GET shows the question, POST decides.

The link is the whole right: no cookie is read, so another site has nothing to ride on, and what only looks (a mail
scanner, a preview) decides nothing. The address is kept out of Referer headers and caches.
"""

from __future__ import annotations

import asyncio
import re
from typing import Any
from urllib.parse import parse_qs

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse
from jinja2 import Environment, PackageLoader, StrictUndefined

from app.api.approvals import LONGEST_COMMENT
from app.api.auth import RuntimeOf
from app.api.problems import language_of
from app.core.errors import Conflict, NotFound, NotPermitted, SchedulerError
from app.workflows.links import ApprovalLinks, LinkExpired, LinkInvalid

router = APIRouter(prefix="/approvals", include_in_schema=False)

_templates = Environment(
    loader=PackageLoader("app.api"),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
_HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; style-src 'unsafe-inline'; form-action 'self'; base-uri 'none'; "
        "frame-ancestors 'none'"
    ),
    "Cache-Control": "no-store",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Robots-Tag": "noindex",
}
_STATUS: dict[type[SchedulerError], int] = {
    LinkInvalid: 403,
    NotPermitted: 403,
    NotFound: 404,
    Conflict: 409,
    LinkExpired: 410,
}


@router.get("/{token}")
async def show_question(token: str, request: Request, runtime: RuntimeOf) -> HTMLResponse:
    """The question, and the two buttons."""
    links = ApprovalLinks(runtime)
    try:
        link, _, question = await asyncio.to_thread(links.read, token)
    except SchedulerError as error:
        return _refused(request, error)
    return _page(request, "question", question=question, name=link.by)


@router.post("/{token}")
async def decide_by_link(token: str, request: Request, runtime: RuntimeOf) -> HTMLResponse:
    """The decision of the one the link was made for."""
    body = (await request.body()).decode("utf-8", "replace")
    try:
        form = parse_qs(body, keep_blank_values=True, max_num_fields=10)
    except ValueError:
        form = {}
    decision = form.get("decision", [""])[0]
    if decision not in ("approve", "reject"):
        return _page(request, "refused", 422, reason="decision: approve / reject")
    comment = form.get("comment", [""])[0].replace("\r\n", "\n").strip()
    if len(comment) > LONGEST_COMMENT:
        return _page(request, "too_long", 422, length=len(comment), longest=LONGEST_COMMENT)
    try:
        await ApprovalLinks(runtime).decide(token, approved=decision == "approve", comment=comment)
    except SchedulerError as error:
        return _refused(request, error)
    return _page(request, "decided", approved=decision == "approve")


def _refused(request: Request, error: SchedulerError) -> HTMLResponse:
    status = next((_STATUS[kind] for kind in type(error).__mro__ if kind in _STATUS), 503)
    return _page(request, "refused", status, reason=error.said(language_of(request)))


def visible(text: str) -> str:
    """Characters that turn the direction of writing as their codes: what stands around a text is not its own."""
    return re.sub("[\u202a-\u202e\u2066-\u2069]", lambda turn: f"\\u{ord(turn[0]):x}", text)


_templates.filters["visible"] = visible


def _page(request: Request, shows: str, status: int = 200, **values: Any) -> HTMLResponse:
    zh = language_of(request) == "zh"
    text = _templates.get_template("decision.html").render(shows=shows, zh=zh, **values)
    return HTMLResponse(text, status, headers=_HEADERS)
