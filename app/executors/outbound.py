"""The way out: every HTTP request of an executor leaves through here.

An address that came in with a task's params must not reach what only this machine can reach (server-side
request forgery). So a guarded client resolves each host itself, refuses unless every address of it is public,
and connects to the very address it checked: a name that resolves differently a moment later (DNS rebinding)
gains nothing. Each hop of a redirect is a request of its own and is checked again. Addresses in settings are
the operator's word: they go through a client that is not guarded.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from email.utils import parsedate_to_datetime
from functools import cache
from http import HTTPStatus
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address
from math import ceil
from socket import SOCK_STREAM, gaierror
from typing import Annotated, cast

import httpx
from pydantic import AfterValidator

from app.core.errors import SchedulerError
from app.core.language import Said
from app.core.redaction import is_secret_key
from app.scheduler.context import find_current_execution
from app.scheduler.policies import LONGEST_RETRY_AFTER_SECONDS

Address = IPv4Address | IPv6Address
Resolver = Callable[[str, int], Awaitable[list[str]]]

MAX_REDIRECTS = 5
CONNECT_TIMEOUT_SECONDS = 10.0
_GLOBAL_UNICAST = IPv6Network("2000::/3")
_NAT64 = IPv6Network("64:ff9b::/96")  # RFC 6052
_TUNNELS = (IPv6Network("2002::/16"), IPv6Network("2001::/32"))  # 6to4, Teredo: an IPv4 address inside
_RELAY_ANYCAST = IPv4Network("192.88.99.0/24")  # RFC 7526
_BUSY = (HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.SERVICE_UNAVAILABLE)
_DEFAULT_PORTS = {"http": 80, "https": 443}


class AddressRefused(SchedulerError):
    """The host is, or resolves to, an address that is not on the public internet."""

    code = "address_refused"

    def __init__(self, host: str, address: str) -> None:
        self.host = host
        self.address = address
        where = host if host == address else f"{host} ({address})"
        super().__init__(
            f"{where} is not a public address; set HTTP_ALLOW_PRIVATE=true if tasks may reach internal hosts"
        )


OUTBOUND_ERRORS = (httpx.HTTPError, httpx.InvalidURL, AddressRefused, TimeoutError)
"""What an exchange can fail with through no fault of the code."""


def _web_url(url: str) -> str:
    try:
        parsed = httpx.URL(url)
        usable = parsed.scheme in _DEFAULT_PORTS and parsed.host != ""
    except httpx.InvalidURL as error:
        raise ValueError(Said(f"is no URL: {error}", f"不是地址：{error}")) from error
    if not usable:
        raise ValueError(
            Said("must be an absolute http:// or https:// URL", "须为完整的 http:// 或 https:// 地址")
        )
    if parsed.userinfo:
        raise ValueError(
            Said("must not hold user and password; send them in a header", "不能含用户名和密码；请用请求头发送")
        )
    return url


WebUrl = Annotated[str, AfterValidator(_web_url)]
"""A params field: an absolute http(s) URL without credentials, which would show up in logs."""


def is_public(address: Address) -> bool:
    """Whether `address` is unicast on the public internet (IANA special-purpose registries, RFC 6890).

    An IPv6 address that carries an IPv4 one (mapped, NAT64) is judged by the latter; tunnels are refused.
    """
    if isinstance(address, IPv6Address):
        if address.ipv4_mapped is not None:
            return is_public(address.ipv4_mapped)
        if address in _NAT64:
            return is_public(IPv4Address(int(address) & 0xFFFF_FFFF))
        if address not in _GLOBAL_UNICAST or any(address in tunnel for tunnel in _TUNNELS):
            return False
    elif address in _RELAY_ANYCAST:
        return False
    return address.is_global and not address.is_multicast and not address.is_reserved


async def resolve(host: str, port: int) -> list[str]:
    """Every address of `host`, in the resolver's order of preference. It also reads the spellings of an IPv4
    address that URLs smuggle (`2130706433`, `0177.0.0.1`, `127.1`).

    Raises:
        httpx.ConnectError: the name does not resolve.
    """
    try:
        found = await asyncio.get_running_loop().getaddrinfo(host, port, type=SOCK_STREAM)
    except (gaierror, UnicodeError) as error:
        raise httpx.ConnectError(f"cannot resolve {host}: {error}") from error
    return list(dict.fromkeys(cast("str", sockaddr[0]) for *_, sockaddr in found))


class GuardedTransport(httpx.AsyncBaseTransport):
    """Connects only to checked addresses; TLS still verifies the name that was asked for."""

    def __init__(self, inner: httpx.AsyncBaseTransport, resolver: Resolver = resolve) -> None:
        self._inner = inner
        self._resolver = resolver

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        port = request.url.port or _DEFAULT_PORTS.get(request.url.scheme)
        if port is None:
            raise httpx.UnsupportedProtocol(f"{request.url.scheme}: is not served; use http or https")
        host = request.url.raw_host.decode("ascii")
        *others, last = await self._public_addresses(host, port)
        for address in others:
            try:
                return await self._inner.handle_async_request(_pinned(request, host, address))
            except (httpx.ConnectError, httpx.ConnectTimeout):
                continue
        return await self._inner.handle_async_request(_pinned(request, host, last))

    async def aclose(self) -> None:
        await self._inner.aclose()

    async def _public_addresses(self, host: str, port: int) -> list[str]:
        addresses = await self._resolver(host, port)
        for address in addresses:
            if not is_public(ip_address(address)):
                raise AddressRefused(host, address)
        return addresses


def _pinned(request: httpx.Request, host: str, address: str) -> httpx.Request:
    """`request` to the address itself; its Host header and the name TLS verifies stay those of `host`."""
    return httpx.Request(
        request.method,
        request.url.copy_with(host=address),
        headers=request.headers,
        stream=request.stream,
        extensions={**request.extensions, "sni_hostname": host},
    )


def outbound_client(*, allow_private: bool) -> httpx.AsyncClient:
    """A client for one attempt. Proxies of the environment are ignored: a proxy would resolve names unguarded."""
    # No kept connections: the pool knows addresses only, and one may not serve two hosts behind the same address.
    limits = httpx.Limits(max_keepalive_connections=0)
    transport: httpx.AsyncBaseTransport = httpx.AsyncHTTPTransport(verify=_tls_context(), limits=limits)
    if not allow_private:
        transport = GuardedTransport(transport)
    return httpx.AsyncClient(
        transport=transport,
        trust_env=False,
        timeout=httpx.Timeout(None, connect=CONNECT_TIMEOUT_SECONDS),  # `fetch` bounds the whole exchange
        headers={"User-Agent": "ContentHub-Scheduler", **_trace_headers()},
    )


def _trace_headers() -> Mapping[str, str]:
    """Whoever is called goes on with the trace of the attempt that calls, if somebody traces it."""
    execution = find_current_execution()
    return execution.tracer.outgoing() if execution is not None else {}


@cache
def _tls_context() -> ssl.SSLContext:
    # Reading the certificate store takes tens of milliseconds; once a process is enough.
    return httpx.create_ssl_context()


@dataclass(frozen=True, slots=True)
class Fetched:
    """An answer, its body cut at the limit asked for."""

    status: int
    url: str
    """Where the last redirect led, without user, query and fragment: those may hold secrets."""
    headers: httpx.Headers
    body: bytes
    truncated: bool
    encoding: str

    @property
    def text(self) -> str:
        try:
            return self.body.decode(self.encoding, "replace")
        except LookupError:  # a charset such as "hex", which Python knows but which is no text encoding
            return self.body.decode("utf-8", "replace")

    @property
    def is_success(self) -> bool:
        return 200 <= self.status < 300


async def fetch(
    client: httpx.AsyncClient,
    request: httpx.Request,
    *,
    limit_bytes: int,
    timeout_seconds: float,
    follow_redirects: bool = False,
) -> Fetched:
    """Send `request` and read at most `limit_bytes` of the answer, all within `timeout_seconds`.

    On a redirect to another origin, headers that hold secrets stay behind.

    Raises:
        OUTBOUND_ERRORS: refused, unreachable, broken off, too slow, or redirected too often.
    """
    try:
        async with asyncio.timeout(timeout_seconds):
            for _ in range(MAX_REDIRECTS + 1):
                response = await client.send(request, stream=True)
                try:
                    if response.next_request is None or not follow_redirects:
                        return await _read(response, limit_bytes)
                    request = _without_secrets(request, response.next_request)
                finally:
                    await response.aclose()
    except TimeoutError:
        raise TimeoutError(f"no complete answer from {request.url.host} within {timeout_seconds:g} s") from None
    raise httpx.TooManyRedirects(f"more than {MAX_REDIRECTS} redirects", request=request)


async def _read(response: httpx.Response, limit_bytes: int) -> Fetched:
    body = bytearray()
    async for chunk in response.aiter_bytes():
        body += chunk
        if len(body) > limit_bytes:
            break
    return Fetched(
        status=response.status_code,
        url=presentable(response.request.url),
        headers=response.headers,
        body=bytes(body[:limit_bytes]),
        truncated=len(body) > limit_bytes,
        encoding=response.encoding or "utf-8",
    )


def presentable(url: httpx.URL | str) -> str:
    """`url` as it may be logged and stored: without user, query and fragment, where secrets travel."""
    return str(httpx.URL(url).copy_with(userinfo=b"", query=None, fragment=None))


def _without_secrets(request: httpx.Request, following: httpx.Request) -> httpx.Request:
    if _origin(request.url) != _origin(following.url):
        for name in [name for name in following.headers if is_secret_key(name)]:
            del following.headers[name]
    return following


def _origin(url: httpx.URL) -> tuple[str, str, int | None]:
    return url.scheme, url.host, url.port or _DEFAULT_PORTS.get(url.scheme)


def retry_after_seconds(answer: Fetched, now: datetime) -> float | None:
    """How long a busy receiver asks to wait (RFC 9110: seconds or a date), at most a day; None: it does not
    ask."""
    text = answer.headers.get("Retry-After", "").strip()
    if answer.status not in _BUSY or not text:
        return None
    if text.isascii() and text.isdigit():
        seconds = float(text)
    else:
        try:
            moment = parsedate_to_datetime(text)
        except ValueError:
            return None
        seconds = ceil((moment.astimezone(now.tzinfo) - now).total_seconds())
    return min(max(seconds, 0.0), LONGEST_RETRY_AFTER_SECONDS)
