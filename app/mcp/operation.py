"""A REST operation as something to call with named arguments: what it takes, what it gives, who may ask.

Everything is read from the function that serves the API, so a tool cannot take, give or allow anything else.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import NoneType, UnionType
from typing import Annotated, Any, Union, get_args, get_origin, get_type_hints

from fastapi import Request, Response
from fastapi.routing import APIRoute
from pydantic import BaseModel, ConfigDict, Strict, TypeAdapter, ValidationError, create_model
from starlette.concurrency import run_in_threadpool

from app.api.auth import Admin, Caller, Operator, RuntimeOf, Viewer
from app.api.problems import Forbidden
from app.core.errors import InvalidRequest
from app.core.language import Said
from app.core.security import Role
from app.core.validation import field_errors
from app.scheduler.runtime import Runtime

_ROLES = ((Viewer, Role.VIEWER), (Operator, Role.OPERATOR), (Admin, Role.ADMIN))
LIST_FIELD = "items"
"""Where a list is put: a tool's structured output is an object."""


@dataclass(frozen=True, slots=True)
class Operation:
    """One operation of the API."""

    endpoint: Callable[..., Any]
    name: str
    title: str
    description: str
    role: Role
    arguments: type[BaseModel]
    """Path, query, headers and the fields of the body, side by side."""
    _body: tuple[str, type[BaseModel]] | None
    _plain: tuple[str, ...]
    _runtime: str | None
    _caller: str
    _response: str | None
    _answer: TypeAdapter[Any] | None

    @classmethod
    def of(cls, route: APIRoute) -> Operation:
        """The operation that `route` serves.

        Raises:
            TypeError: it needs more of the HTTP request than named arguments.
        """
        return _Reader(route).operation()

    @property
    def reads_only(self) -> bool:
        """What a viewer may do changes nothing."""
        return self.role is Role.VIEWER

    def input_schema(self) -> dict[str, Any]:
        """JSON Schema of the arguments."""
        schema = self.arguments.model_json_schema()
        for of_the_body in ("title", "description", "examples"):
            schema.pop(of_the_body, None)
        return schema

    def output_schema(self) -> dict[str, Any] | None:
        """JSON Schema of what `call` returns; None: it returns nothing."""
        if self._answer is None:
            return None
        schema = self._answer.json_schema(mode="serialization")
        if schema.get("type") != "array":
            return schema
        definitions = schema.pop("$defs", {})
        return {
            "type": "object",
            "properties": {LIST_FIELD: schema},
            "required": [LIST_FIELD],
            **({"$defs": definitions} if definitions else {}),
        }

    async def call(self, runtime: Runtime, caller: Caller, arguments: Mapping[str, Any]) -> dict[str, Any] | None:
        """Carry it out for `caller` and return the answer as plain JSON, secrets masked.

        Raises:
            Forbidden: the caller's role does not allow it. InvalidRequest: `errors` names the wrong arguments.
            SchedulerError: whatever the operation itself refuses.
        """
        if caller.role < self.role:
            raise Forbidden(
                Said(
                    f"{self.name} needs the role {self.role.label}; {caller.name!r} has {caller.role.label}",
                    f"{self.name} 需要 {self.role.label} 角色；{caller.name!r} 的角色是 {caller.role.label}",
                )
            )
        given = self._checked(arguments)
        given[self._caller] = caller
        if self._runtime is not None:
            given[self._runtime] = runtime
        if self._response is not None:
            given[self._response] = Response()  # headers are for HTTP; what they say is in the answer too
        if inspect.iscoroutinefunction(self.endpoint):
            value = await self.endpoint(**given)
        else:
            value = await run_in_threadpool(self.endpoint, **given)
        if self._answer is None:
            return None
        plain = self._answer.dump_python(value, mode="json")
        return {LIST_FIELD: plain} if isinstance(plain, list) else plain

    def _checked(self, arguments: Mapping[str, Any]) -> dict[str, Any]:
        try:
            checked = self.arguments.model_validate(dict(arguments))
            given = {name: getattr(checked, name) for name in self._plain}
            if self._body is not None:
                # Anew, and only from what was sent: a change leaves alone what is not mentioned.
                name, model = self._body
                sent = {field: arguments[field] for field in model.model_fields if field in arguments}
                given[name] = model.model_validate(sent)
        except ValidationError as error:
            raise InvalidRequest(field_errors(error)) from None
        return given


class _Reader:
    """Reads a function that serves the API, parameter by parameter."""

    def __init__(self, route: APIRoute) -> None:
        self._route = route
        self._hints = get_type_hints(route.endpoint, include_extras=True)
        self._fields: dict[str, Any] = {}
        self._body: tuple[str, type[BaseModel]] | None = None
        self._special: dict[str, str] = {}
        self._role: Role | None = None

    def operation(self) -> Operation:
        route = self._route
        for parameter in inspect.signature(route.endpoint).parameters.values():
            self._read(parameter.name, self._hints[parameter.name], parameter.default)
        if self._role is None or "caller" not in self._special:
            raise TypeError(f"{route.name}: no parameter says which role it needs")
        body = self._body[1] if self._body else None
        plain = {name: field for name, field in self._fields.items() if not body or name not in body.model_fields}
        answer = self._hints["return"]
        return Operation(
            endpoint=route.endpoint,
            name=route.name,
            title=route.summary or route.name,
            description=" ".join((inspect.getdoc(route.endpoint) or "").split()),
            role=self._role,
            arguments=_arguments(route.name, body, plain),
            _body=self._body,
            _plain=tuple(plain),
            _runtime=self._special.get("runtime"),
            _caller=self._special["caller"],
            _response=self._special.get("response"),
            _answer=None if answer is NoneType else TypeAdapter(answer),
        )

    def _read(self, name: str, hint: Any, default: Any) -> None:
        for annotation, role in _ROLES:
            if hint == annotation:
                self._role = role
                self._special["caller"] = name
                return
        if hint == RuntimeOf:
            self._special["runtime"] = name
        elif hint is Response:
            self._special["response"] = name
        elif hint is Request:
            raise TypeError(f"{self._route.name}: it needs the HTTP request itself")
        elif (model := _model_in(hint)) is not None:
            self._body = (name, model)
        else:
            self._fields[name] = (_strict(hint), ... if default is inspect.Parameter.empty else default)


def _strict(hint: Any) -> Any:
    """As `hint`, but a number is written as one: what comes in a path or a query is text, an argument is JSON."""
    origin, arguments = get_origin(hint), get_args(hint)
    if hint is int or hint is float:
        return Annotated[hint, Strict()]
    if origin is Annotated:
        return Annotated[_strict(arguments[0]), *arguments[1:]]
    if origin in (Union, UnionType):
        return Union[tuple(map(_strict, arguments))]  # noqa: UP007 - of as many as there are
    if origin is list:
        return list[_strict(arguments[0])]  # type: ignore[misc]
    return hint


def _model_in(hint: Any) -> type[BaseModel] | None:
    """The model of a body: plain, annotated or optional."""
    if get_origin(hint) is Annotated:
        return _model_in(get_args(hint)[0])
    candidates = get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,)
    for candidate in candidates:
        if isinstance(candidate, type) and issubclass(candidate, BaseModel):
            return candidate
    return None


def _arguments(name: str, body: type[BaseModel] | None, plain: dict[str, Any]) -> type[BaseModel]:
    """A model of all arguments that refuses unknown ones, as the API refuses unknown parameters."""
    if body is None:
        return create_model(name, __config__=ConfigDict(extra="forbid"), **plain)
    return create_model(name, __base__=body, **plain)
