"""`/session`: a browser signs in with a token and gets a signed cookie in exchange."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Request, Response
from pydantic import BaseModel, ConfigDict, Field

from app.api.auth import RuntimeOf, Viewer
from app.api.browser_session import COOKIE, SessionCookie, csrf_token
from app.api.problems import UnknownToken, documented
from app.core.security import Role
from app.models.api_token import find_token

router = APIRouter(prefix="/session", tags=["session"])


class SignIn(BaseModel):
    """What a browser signs in with."""

    model_config = ConfigDict(extra="forbid")

    token: Annotated[str, Field(min_length=1, max_length=200, description="Made by `contenthub token create`.")]


class SessionAnswer(BaseModel):
    """Who is signed in."""

    name: str = Field(examples=["alice"])
    role: str = Field(examples=["operator"])
    csrf_token: str | None = Field(
        description="Send it as `X-CSRF-Token` with every change; null: the caller has no session and needs none."
    )


@router.post("", summary="Sign in", responses=documented())
def sign_in(credentials: SignIn, request: Request, response: Response, runtime: RuntimeOf) -> SessionAnswer:
    """Exchange a token for a session cookie: signed, HttpOnly, SameSite=Strict."""
    with runtime.sessions() as session:
        token = find_token(session, credentials.token)
    if token is None:
        raise UnknownToken
    cookie = SessionCookie(runtime.settings).make(token)
    response.set_cookie(
        COOKIE,
        cookie,
        max_age=round(runtime.settings.session_hours * 3600),
        httponly=True,
        samesite="strict",
        secure=request.url.scheme == "https",
    )
    return SessionAnswer(
        name=token.name,
        role=Role.named(token.role).label,
        csrf_token=csrf_token(cookie, SessionCookie(runtime.settings).key_of(token)),
    )


@router.get("", summary="Who am I?", responses=documented())
def get_session(request: Request, caller: Viewer) -> SessionAnswer:
    """The caller, by whatever means."""
    return SessionAnswer(
        name=caller.name, role=caller.role.label, csrf_token=getattr(request.state, "csrf_token", None)
    )


@router.delete("", status_code=204, summary="Sign out", responses=documented())
def sign_out(response: Response) -> None:
    """Forget the cookie. Revoking the token ends all its sessions everywhere."""
    response.delete_cookie(COOKIE, httponly=True, samesite="strict")
