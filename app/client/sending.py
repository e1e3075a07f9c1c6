"""Between a method call and HTTP: how requests are written and answers read, whichever way they travel."""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from functools import cache
from typing import Any, Final, TypeVar, cast
from urllib.parse import quote

import httpx
from pydantic import TypeAdapter, ValidationError
from pydantic_core import to_jsonable_python

from app.client.errors import UnexpectedAnswer, error_of

T = TypeVar("T")


class Unset(Enum):
    """The type of `UNSET`."""

    UNSET = "unset"


UNSET: Final = Unset.UNSET
"""Not sent at all: the server's default on creation, unchanged on change. None is sent, and means none."""


def path_part(value: int | str) -> str:
    """A value as one part of a path."""
    return quote(str(value), safe="")


def request_arguments(query: Mapping[str, Any], headers: Mapping[str, Any], body: Any) -> dict[str, Any]:
    """Keyword arguments of httpx's `build_request`; parameters that are None and UNSET fields stay away."""
    arguments: dict[str, Any] = {
        "params": {name: to_jsonable_python(value) for name, value in query.items() if value is not None},
        "headers": {name: str(value) for name, value in headers.items() if value is not None},
    }
    if isinstance(body, Mapping):
        body = {name: value for name, value in body.items() if value is not UNSET}
    if body is not None:
        arguments["json"] = to_jsonable_python(body)
    return arguments


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
