"""What can go wrong when the API is asked, by what to do about it.

```
ApiError
├── Unreachable             no answer came: the server is down, or the address is wrong
├── UnexpectedAnswer        an answer that this client does not know: another version, or no ContentHub
├── Invalid                 a value is wrong; `fields` says which, and how to mend it
├── Unauthorized            no token, or one that is unknown or revoked
├── Forbidden               the token's role does not allow it
├── NotFound
├── Conflict                it is there, but not in that state
│   └── PreconditionFailed  it was changed since it was read
├── TooLarge                the request is larger than the server takes
└── Unavailable             try again later; `retry_after` seconds, where the server says
```
"""

from __future__ import annotations

import httpx
from pydantic import ValidationError

from app.api.problems import FieldProblem, Problem


class ApiError(Exception):
    """The API could not be asked, or refused. `problem` is its RFC 9457 document, where one came."""

    def __init__(self, sentence: str, problem: Problem | None = None) -> None:
        self.problem = problem
        super().__init__(sentence)

    @property
    def code(self) -> str | None:
        """The server's stable word for the problem, such as `invalid_params`."""
        return self.problem.type.rpartition(":")[2] if self.problem else None

    @property
    def fields(self) -> list[FieldProblem]:
        """The wrong fields, one entry each."""
        return self.problem.errors if self.problem else []


class Unreachable(ApiError):
    """No answer came. Whether the request was carried out is not known, unless the connection was refused."""


class UnexpectedAnswer(ApiError):
    """An answer that is neither what the operation gives nor a problem document."""


class Invalid(ApiError):
    """A value is wrong. Nothing was stored."""


class Unauthorized(ApiError):
    """No token, or one that is unknown or revoked."""


class Forbidden(ApiError):
    """The token's role does not allow it."""


class NotFound(ApiError):
    """There is no such thing."""


class Conflict(ApiError):
    """It is there, but not in the state, or under the name, that the request assumes."""


class PreconditionFailed(Conflict):
    """It was changed since it was read: read it again."""


class TooLarge(ApiError):
    """The request is larger than the server takes."""


class Unavailable(ApiError):
    """The server cannot serve now."""

    def __init__(self, sentence: str, problem: Problem | None = None, retry_after: float | None = None) -> None:
        self.retry_after = retry_after
        super().__init__(sentence, problem)


_BY_STATUS: dict[int, type[ApiError]] = {
    400: Invalid,
    401: Unauthorized,
    403: Forbidden,
    404: NotFound,
    409: Conflict,
    412: PreconditionFailed,
    413: TooLarge,
    422: Invalid,
}


def error_of(response: httpx.Response) -> ApiError:
    """The error that a failed response stands for."""
    after = response.headers.get("Retry-After", "")
    retry_after = float(after) if after.isdecimal() else None
    is_unavailable = response.status_code == httpx.codes.SERVICE_UNAVAILABLE
    try:
        problem = Problem.model_validate_json(response.content)
    except ValidationError:
        asked = f"{response.request.method} {response.request.url}"
        if is_unavailable:  # what stands before the server says so, in a form of its own
            return Unavailable(f"{asked} was answered with status 503; try again later", None, retry_after)
        return UnexpectedAnswer(
            f"{asked} was answered with status {response.status_code} and no problem document; is this the address"
            " of a ContentHub server?"
        )
    if is_unavailable:
        return Unavailable(problem.detail, problem, retry_after)
    return _BY_STATUS.get(response.status_code, ApiError)(problem.detail, problem)


def no_answer(request: httpx.Request, error: httpx.RequestError) -> ApiError:
    """The error of a request that got no answer, or one that cannot be read."""
    if isinstance(error, httpx.DecodingError):
        return UnexpectedAnswer(
            f"{request.method} {request.url} was answered with a body that cannot be decoded: {error}; is there a"
            " proxy in between?"
        )
    reason = str(error) or type(error).__name__
    return Unreachable(
        f"{request.method} {request.url} got no answer: {reason}; check the address and that the server runs"
    )
