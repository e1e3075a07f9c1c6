"""Who is asking, and whether they may.

With tokens: a bearer token decides, or the cookie of a browser that signed in with one. While nobody has made one,
requests from this machine pass as admin and all others are refused. "From this machine" is narrow: a loopback
peer, no proxy in between, a loopback `Host` (a page of another site whose name was rebound to 127.0.0.1 has its
own), and on changes no foreign `Origin`.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated
from urllib.parse import urlsplit

from fastapi import Depends, Request, Security
from fastapi.security import APIKeyCookie, HTTPAuthorizationCredentials, HTTPBearer

from app.api.browser_session import COOKIE, CSRF_HEADER, SessionCookie, csrf_token, is_csrf_token
from app.api.problems import Forbidden, Unauthorized, UnknownToken
from app.core.language import Said
from app.core.security import Role
from app.models.api_token import ApiToken, any_token_exists, find_token
from app.scheduler.runtime import Runtime

_PROXIED = ("forwarded", "via", "x-real-ip", "x-forwarded-")
"""Beginnings of the headers by which a proxy gives itself away."""
_SAFE_METHODS = ("GET", "HEAD", "OPTIONS")

bearer = HTTPBearer(auto_error=False, description="A token made by `contenthub token create`.")
session_cookie = APIKeyCookie(
    name=COOKIE, auto_error=False, description=f"Made by signing in; changes need the header `{CSRF_HEADER}` too."
)


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks: the token's name, or `local` while there are no tokens."""

    name: str
    role: Role

    @property
    def lends_secrets(self) -> bool:
        """Whether stored secrets, which nobody is shown, may be sent along with params that this caller changed:
        an operator could read them so."""
        return self.role >= Role.ADMIN


def get_runtime(request: Request) -> Runtime:
    """The runtime of this application."""
    runtime: Runtime = request.app.state.runtime
    return runtime


RuntimeOf = Annotated[Runtime, Depends(get_runtime)]


def identify(
    request: Request,
    runtime: RuntimeOf,
    credentials: Annotated[HTTPAuthorizationCredentials | None, Security(bearer)],
    cookie: Annotated[str | None, Security(session_cookie)],
) -> Caller:
    """Raises Unauthorized; Forbidden: a browser's change without the proof that it comes from our own page."""
    with runtime.sessions() as session:
        if credentials is not None:
            token = find_token(session, credentials.credentials)
            if token is None:
                raise UnknownToken
            return Caller(token.name, Role.named(token.role))
        if cookie is not None:
            signer = SessionCookie(runtime.settings)
            token = signer.read(session, cookie)
            if token is not None:
                return _in_browser(request, cookie, token, signer.key_of(token))
        if any_token_exists(session):
            raise Unauthorized(
                Said("send a token: `Authorization: Bearer …`", "请携带令牌：`Authorization: Bearer …`")
            )
    if runtime.settings.allow_anonymous_loopback and is_local(request):
        return Caller("local", Role.ADMIN)
    raise Unauthorized(
        Said(
            "without tokens only this machine may ask; make a token with"
            " `contenthub token create NAME --role ROLE`",
            "没有令牌时只有本机可以访问；请用 `contenthub token create NAME --role ROLE` 创建令牌",
        )
    )


def _in_browser(request: Request, cookie: str, token: ApiToken, key: str) -> Caller:
    if request.method not in _SAFE_METHODS and not is_csrf_token(request.headers.get(CSRF_HEADER), cookie, key):
        raise Forbidden(
            Said(
                f"a change from a browser needs the header {CSRF_HEADER}; read it from GET …/session",
                f"浏览器发出的修改需要请求头 {CSRF_HEADER}；请从 GET …/session 读取它",
            )
        )
    request.state.csrf_token = csrf_token(cookie, key)
    return Caller(token.name, Role.named(token.role))


def is_local(request: Request) -> bool:
    """Whether a request comes from this machine, and not from a web page of somebody else."""
    if request.client is None or not _is_loopback(request.client.host):
        return False
    if any(header.startswith(_PROXIED) for header in request.headers):
        return False
    if not _is_loopback(_host_of(f"//{request.headers.get('host', '')}")):
        return False
    origin = request.headers.get("origin")
    if request.method in _SAFE_METHODS or origin is None:
        return True
    # Compared as text: an Origin has no path, and what no URL parser reads is nobody we know.
    return origin.partition("://")[2] == request.headers["host"]


def _host_of(url: str) -> str:
    try:
        return urlsplit(url).hostname or ""
    except ValueError:
        return ""


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def at_least(role: Role) -> Callable[[Caller], Caller]:
    """A dependency: the caller, who must have `role`."""

    def allowed(caller: Annotated[Caller, Depends(identify)]) -> Caller:
        if caller.role < role:
            raise Forbidden(
                Said(
                    f"this needs the role {role.label}; the token {caller.name!r} has {caller.role.label}",
                    f"此操作需要 {role.label} 角色；令牌 {caller.name!r} 的角色是 {caller.role.label}",
                )
            )
        return caller

    return allowed


Viewer = Annotated[Caller, Depends(at_least(Role.VIEWER))]
Operator = Annotated[Caller, Depends(at_least(Role.OPERATOR))]
Admin = Annotated[Caller, Depends(at_least(Role.ADMIN))]
