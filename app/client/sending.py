"""Between a method call and HTTP: how requests are written and answers read, whichever way they travel."""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from functools import cache
from typing import Any, Final, TypeVar, cast
from urllib.parse import quote

import httpx
from pydantic import TypeAdapter, ValidationError

from app.client.errors import Invalid, UnexpectedAnswer, error_of
from app.core.jsonable import to_plain_json
from app.core.redaction import revealed

T = TypeVar("T")


class Unset(Enum):
    """The type of `UNSET`."""

    UNSET = "unset"


UNSET: Final = Unset.UNSET
"""Not sent at all: the server's default on creation, unchanged on change. None is sent, and means none."""


def path_part(value: int | str) -> str:
    """A value as one part of a path.

    Raises:
        Invalid: no address can hold it.
    """
    try:
        return quote(str(value), safe="")
    except UnicodeEncodeError as error:
        raise Invalid(f"{value!r} cannot be part of an address: it is no valid Unicode text") from error


def authorization(token: str | None) -> dict[str, str]:
    """The header that shows `token`; the end of line that a file or a terminal has put behind it is left out.

    Raises:
        ValueError: no token looks like that. The sentence does not quote it.
    """
    token = (token or "").strip()
    if not (token.isascii() and token.isprintable()):
        raise ValueError(
            "token: it holds control characters or letters that no token has;"
            " give it as `contenthub token create` has printed it"
        )
    return {"Authorization": f"Bearer {token}"} if token else {}


def request_arguments(query: Mapping[str, Any], headers: Mapping[str, Any], body: Any) -> dict[str, Any]:
    """Keyword arguments of httpx's `build_request`; parameters that are None and UNSET fields stay away. What a
    `SecretStr` in the body holds is sent: the server hides it.

    Raises:
        Invalid: a value cannot be sent.
    """
    arguments: dict[str, Any] = {
        "params": {name: _plain(name, value) for name, value in query.items() if value is not None},
        "headers": {name: _header(name, value) for name, value in headers.items() if value is not None},
    }
    if isinstance(body, Mapping):
        sent = {name: value for name, value in body.items() if value is not UNSET}
        arguments["json"] = {name: _plain(name, revealed(value)) for name, value in sent.items()}
    elif body is not None:
        arguments["json"] = _plain("the request", revealed(body))
    return arguments


def _plain(name: str, value: Any) -> Any:
    try:
        return to_plain_json(value, finite=True)
    except ValueError as error:
        raise Invalid(f"{name} has no JSON form: {error}") from error


def _header(name: str, value: Any) -> str:
    text = str(value)
    if not (text.isascii() and text.isprintable()):
        raise Invalid(f"the header {name} takes printable ASCII alone")
    return text


def answer_of(response: httpx.Response, kind: type[T]) -> T:
    """The answer in a response.

    Raises:
        ApiError: the response is a failure. UnexpectedAnswer: its form is not known here.
    """
    if not response.is_success:
        raise error_of(response)
    if kind is type(None):
        return kind()
    try:
        answer: T = _reader(cast("Any", kind)).validate_json(response.content)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"]) or "its body"
        asked = f"{response.request.method} {response.request.url}"
        raise UnexpectedAnswer(
            f"{asked} was answered in a form that this client does not know ({where}: {first['msg']});"
            " are client and server of the same version?"
        ) from error
    return answer


@cache
def _reader(kind: Any) -> TypeAdapter[Any]:
    return TypeAdapter(kind)
