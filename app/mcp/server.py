"""The MCP server: the API's operations as tools, for whoever the transport says is asking."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from typing import Any

from loguru import logger
from mcp import MCPError
from mcp.server import Server, ServerRequestContext
from mcp.types import (
    INVALID_PARAMS,
    INVALID_REQUEST,
    CallToolRequestParams,
    CallToolResult,
    ListToolsResult,
    PaginatedRequestParams,
    TextContent,
)

from app.api.auth import Caller
from app.api.problems import DATABASE_FAULTS
from app.core.errors import SchedulerError, stack_of
from app.core.version import package_version
from app.mcp.tools import INSTRUCTIONS, offered_tools
from app.scheduler.runtime import Runtime

Identify = Callable[[ServerRequestContext[Any, Any]], Awaitable[Caller]]
"""Who is asking; raises SchedulerError where nobody may."""


def make_server(runtime: Runtime, identify: Identify) -> Server[Any]:
    """A server without a transport. Each request is answered for the caller that `identify` names, so a role that
    is taken away is gone with the next request."""
    tools = offered_tools()

    async def list_tools(
        context: ServerRequestContext[Any, Any], _params: PaginatedRequestParams | None
    ) -> ListToolsResult:
        try:
            caller = await identify(context)
        except SchedulerError as error:
            raise MCPError(INVALID_REQUEST, _sentences(error)) from error
        allowed = [tool for tool in tools.values() if tool.operation.role <= caller.role]
        return ListToolsResult(tools=[tool.described() for tool in allowed])

    async def call_tool(context: ServerRequestContext[Any, Any], params: CallToolRequestParams) -> CallToolResult:
        tool = tools.get(params.name)
        if tool is None:
            raise MCPError(INVALID_PARAMS, f"no tool is named {params.name!r}; see tools/list")
        try:
            caller = await identify(context)
            answer = await tool.operation.call(runtime, caller, params.arguments or {})
        except SchedulerError as error:
            return _refusal(_sentences(error))
        except DATABASE_FAULTS as error:
            logger.error("数据库错误: {}", error)
            return _refusal("the database did not answer; try again later")
        except Exception as error:  # noqa: BLE001 - one request; its fault must end neither the session nor say our insides
            logger.error("MCP 工具 {} 出错\n{}", params.name, stack_of(error))
            return _refusal("an unexpected error; the server's log has the details")
        text = json.dumps(answer, ensure_ascii=False) if answer is not None else "done"
        return CallToolResult(content=[TextContent(text=text)], structured_content=answer)

    return Server(
        "contenthub",
        title="ContentHub Scheduler",
        version=package_version(),
        instructions=INSTRUCTIONS,
        on_list_tools=list_tools,
        on_call_tool=call_tool,
        get_tool_input_schema=lambda name: tools[name].operation.input_schema() if name in tools else None,
    )


def _sentences(error: SchedulerError) -> str:
    """What was wrong and what to do, one line a field."""
    return "\n".join(f"{found.field}: {found.message}" for found in error.errors) or str(error)


def _refusal(text: str) -> CallToolResult:
    return CallToolResult(content=[TextContent(text=text)], is_error=True)
