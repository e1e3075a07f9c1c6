"""Errors as RFC 9457 problem documents: one mapping from the error tree, one shape for every failure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from loguru import logger
from pydantic import BaseModel, Field
from sqlalchemy.exc import InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from starlette.exceptions import HTTPException

from app.core.errors import (
    Conflict,
    ExecutorNotFound,
    FieldError,
    InvalidRequest,
    NotFound,
    NotPermitted,
    SchedulerError,
    SchedulerUnavailable,
    sentence_of,
)
from app.core.language import Language, Said, in_language, preferred
from app.core.validation import TOLD, field_error, first_of

PROBLEM_JSON = "application/problem+json"
DATABASE_FAULTS = (OperationalError, InterfaceError, PoolTimeout)
"""Only what trying again may mend: a statement that the database refuses is an error of ours, and a 500."""


class FieldProblem(BaseModel):
    """One wrong field."""

    field: str = Field(examples=["schedule.expression"])
    message: str
    kind: str = Field(description="Stable word for what is wrong.")


class Problem(BaseModel):
    """RFC 9457 problem document."""

    type: str = Field(examples=["urn:contenthub:problem:invalid_request"])
    title: str = Field(examples=["Unprocessable Content"])
    status: int = Field(examples=[422])
    detail: str
    instance: str = Field(description="The path that was asked for.")
    errors: list[FieldProblem] = []


class PreconditionFailed(Conflict):
    """`If-Match` names another version than the stored one."""

    code = "precondition_failed"


class Unauthorized(SchedulerError):
    """No token, or one that is not known."""

    code = "unauthorized"


class UnknownToken(Unauthorized):
    """The token is not known, or was revoked."""

    def __init__(self) -> None:
        super().__init__(
            Said(
                "the token is not known or has been revoked; make one with `contenthub token create`",
                "令牌不存在或已被撤销；请用 `contenthub token create` 创建新的令牌",
            )
        )


class Forbidden(SchedulerError):
    """The token's role does not allow this."""

    code = "forbidden"


class TooLarge(SchedulerError):
    """The body is larger than the server takes."""

    code = "too_large"


_STATUS: dict[type[SchedulerError], int] = {
    InvalidRequest: 422,
    ExecutorNotFound: 422,
    NotFound: 404,
    PreconditionFailed: 412,
    Conflict: 409,
    Unauthorized: 401,
    Forbidden: 403,
    NotPermitted: 403,
    TooLarge: 413,
    SchedulerUnavailable: 503,
}
_UNEXPECTED = Said("an unexpected error; the server's log has the details", "发生意外错误；详情见服务器日志")
_HEADERS = {401: {"WWW-Authenticate": "Bearer"}, 503: {"Retry-After": "5"}}


def language_of(request: Request) -> Language:
    """The language in which whoever asks wants to be answered."""
    return preferred(request.headers.get("accept-language", ""))


def problem(
    request: Request,
    status: int,
    code: str,
    detail: str,
    errors: tuple[FieldError, ...] = (),
    headers: dict[str, str] | None = None,
) -> JSONResponse:
    """A problem document as a response, its sentences in the language of `Accept-Language`."""
    language = language_of(request)
    body = Problem(
        type=f"urn:contenthub:problem:{code}",
        title=HTTPStatus(status).phrase,
        status=status,
        detail=in_language(detail, language),
        instance=request.url.path,
        errors=[
            FieldProblem(field=error.field, message=in_language(error.message, language), kind=error.kind)
            for error in errors
        ],
    )
    return JSONResponse(
        body.model_dump(),
        status,
        {**_HEADERS.get(status, {}), "Content-Language": language, "Vary": "Accept-Language", **(headers or {})},
        media_type=PROBLEM_JSON,
    )


def of_error(request: Request, error: SchedulerError) -> JSONResponse:
    """The problem document of an error of the scheduler."""
    status = next((_STATUS[kind] for kind in type(error).__mro__ if kind in _STATUS), 500)
    return problem(request, status, error.code, sentence_of(error), error.errors)


def install_problems(app: FastAPI) -> None:
    """Answer every failure of `app` with a problem document."""

    @app.exception_handler(SchedulerError)
    async def _scheduler(request: Request, error: SchedulerError) -> JSONResponse:
        return of_error(request, error)

    @app.exception_handler(RequestValidationError)
    async def _validation(request: Request, error: RequestValidationError) -> JSONResponse:
        found = error.errors()
        errors = [field_error(_location_of(item), item) for item in found[:TOLD]]
        return of_error(request, InvalidRequest(first_of(errors, len(found))))

    @app.exception_handler(HTTPException)
    async def _http(request: Request, error: HTTPException) -> JSONResponse:
        code = HTTPStatus(error.status_code).phrase.lower().replace(" ", "_")
        return problem(request, error.status_code, code, str(error.detail), headers=dict(error.headers or {}))

    async def _database(request: Request, error: Exception) -> JSONResponse:
        logger.error("数据库错误: {}", error)
        return of_error(
            request,
            SchedulerUnavailable(
                Said("the database did not answer; try again later", "数据库没有响应；请稍后重试")
            ),
        )

    for fault in DATABASE_FAULTS:
        app.add_exception_handler(fault, _database)

    @app.exception_handler(Exception)
    async def _unexpected(request: Request, _error: Exception) -> JSONResponse:
        # Starlette logs the stack; the caller learns nothing of our insides.
        return problem(request, 500, "internal_error", _UNEXPECTED)


def _location_of(error: Mapping[str, Any]) -> Sequence[int | str]:
    """Where in the body, or among the parameters, FastAPI found something; nowhere, if the body is no JSON."""
    location: Sequence[int | str] = () if error["type"] == "json_invalid" else error["loc"][1:]
    return location


def documented(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The `responses` of an operation that may answer with these problems, beside 401, 403, 422 and 503."""
    return {
        status: {
            "description": HTTPStatus(status).phrase,
            "content": {PROBLEM_JSON: {"schema": {"$ref": "#/components/schemas/Problem"}}},
        }
        for status in sorted({400, 401, 403, 413, 422, 503, *statuses})
    }
