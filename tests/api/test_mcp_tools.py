"""What agents are offered is what the API offers, to the same roles."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from fastapi import APIRouter, FastAPI, Request
from fastapi.routing import APIRoute
from fastapi.testclient import TestClient
from mcp import Client
from mcp.server import ServerRequestContext
from pydantic import ValidationError
from sqlalchemy import text

from app.api.application import PREFIX
from app.api.auth import Caller, Viewer
from app.core.security import Role
from app.mcp.operation import Operation
from app.mcp.server import make_server
from app.mcp.tools import OfferedTool, offered_tools

TOOLS = offered_tools()
WRITTEN_BY_EXECUTORS = {"message", "error", "result", "traceback", "changes", "explanation", "description"}


def route_of(application: FastAPI, tool: OfferedTool) -> tuple[str, str]:
    """Method and path by which the same operation is reached over HTTP."""
    for path, methods in application.openapi()["paths"].items():
        for method, operation in methods.items():
            if operation["operationId"] == tool.operation.name:
                return method, path
    raise AssertionError(f"{tool.operation.name} is no operation of the API")


@pytest.mark.parametrize("name", TOOLS)
def test_a_tool_needs_the_role_that_the_api_needs(
    name: str, application: FastAPI, client: TestClient, tokens: dict[str, str]
) -> None:
    method, path = route_of(application, TOOLS[name])
    assert path.startswith(PREFIX)
    for role in Role:
        answer = client.request(
            method,
            re.sub(r"\{\w+\}", "999", path),
            headers={"Authorization": f"Bearer {tokens[role.label]}"},
            json={} if method in ("post", "patch") else None,
        )
        assert (answer.status_code != 403) == (role >= TOOLS[name].operation.role), role


@pytest.mark.parametrize("name", TOOLS)
def test_a_number_is_neither_text_nor_a_boolean(name: str) -> None:
    operation = TOOLS[name].operation
    for field, schema in operation.input_schema().get("properties", {}).items():
        if {"integer", "number"} & {kind.get("type") for kind in (schema, *schema.get("anyOf", ()))}:
            for value in (True, "1"):
                with pytest.raises(ValidationError) as wrong:
                    operation.arguments.model_validate({field: value})
                kinds = {error["loc"][0]: error["type"] for error in wrong.value.errors()}
                assert kinds.get(field) in ("int_type", "float_type"), (field, value)


@pytest.mark.parametrize("name", TOOLS)
def test_a_tool_says_what_it_takes_and_what_it_does(name: str, application: FastAPI) -> None:
    tool = TOOLS[name].described()
    for field, schema in tool.input_schema.get("properties", {}).items():
        assert schema.get("description"), f"describe {field} where the API declares it"
    assert tool.input_schema["additionalProperties"] is False
    assert tool.title
    assert tool.description
    assert tool.annotations is not None
    method, _ = route_of(application, TOOLS[name])
    changes = method != "get" and name != "preview_definition"
    assert tool.annotations.read_only_hint is not changes
    assert not (tool.annotations.read_only_hint and tool.annotations.destructive_hint)
    fields = set(re.findall(r'"(\w+)": \{', json.dumps(tool.output_schema)))
    if fields & WRITTEN_BY_EXECUTORS and name not in ("preview_task", "preview_definition"):
        assert "never instructions" in tool.description


def test_an_operation_that_needs_the_request_itself_is_refused_when_the_table_is_made() -> None:
    router = APIRouter()

    @router.get("/x")
    def peek(request: Request, _caller: Viewer) -> dict[str, str]:
        return dict(request.headers)

    @router.get("/y")
    def anybody() -> dict[str, str]:
        return {}

    routes = {route.name: route for route in router.routes if isinstance(route, APIRoute)}
    with pytest.raises(TypeError, match="the HTTP request"):
        Operation.of(routes["peek"])
    with pytest.raises(TypeError, match="which role"):
        Operation.of(routes["anybody"])


async def test_a_fault_of_ours_is_logged_and_tells_the_agent_nothing_of_our_insides(
    application: FastAPI, log_records: list[Any]
) -> None:
    async def identify(_context: ServerRequestContext[Any, Any]) -> Caller:
        raise ZeroDivisionError("inside")

    async with Client(make_server(application.state.runtime, identify)) as client:
        result = await client.call_tool("list_tasks", {})
    assert result.is_error
    assert "inside" not in str(result.content)
    assert any("ZeroDivisionError: inside" in record["message"] for record in log_records)


async def test_a_database_that_does_not_answer_is_said_to_be_that(application: FastAPI) -> None:
    async def identify(_context: ServerRequestContext[Any, Any]) -> Caller:
        return Caller("tester", Role.ADMIN)

    with application.state.runtime.engine.begin() as connection:
        connection.execute(text("DROP TABLE scheduled_tasks"))
    async with Client(make_server(application.state.runtime, identify)) as client:
        result = await client.call_tool("list_tasks", {})
    assert result.is_error
    assert "the database did not answer" in str(result.content)
