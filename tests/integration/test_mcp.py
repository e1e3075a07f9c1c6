"""The scheduler as tools for agents: the official client, real processes, real servers."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import httpx
import httpx2
import pytest
from mcp import Client, MCPError, StdioServerParameters
from mcp.client.streamable_http import streamable_http_client

from tests.integration.command_line import ROOT, ContentHub, until
from tests.integration.test_cli_server import answers
from tests.support import daily_far_off, free_port

PARAMS = {"account_id": 1, "topic": "人工智能"}
READING = {
    "list_findings",
    "list_alerts",
    "list_approvals",
    "examine_schedules",
    "get_status",
    "list_executors",
    "list_nodes",
    "list_tasks",
    "get_task",
    "explain_task",
    "preview_task",
    "preview_definition",
    "list_changes",
    "list_fires",
    "get_statistics",
    "list_executions",
    "get_execution",
    "get_logs",
    "get_workflow",
    "list_pool",
}


@pytest.fixture
def contenthub(tmp_path: Path) -> ContentHub:
    return ContentHub(tmp_path, {"PUBLISH_DIRECTORY": str(tmp_path / "site")})


def command(contenthub: ContentHub, *arguments: str, **settings: str) -> StdioServerParameters:
    """`contenthub mcp` as an agent's configuration names it."""
    return StdioServerParameters(
        command=sys.executable,
        args=["-m", "app.cli.main", "mcp", *arguments],
        cwd=contenthub.folder,
        env={
            "PYTHONPATH": str(ROOT),
            "DATABASE_URL": f"sqlite:///{contenthub.folder}/contenthub.db",
            **contenthub.settings,
            **settings,
        },
    )


@contextmanager
def server(contenthub: ContentHub, **settings: str) -> Iterator[str]:
    """The address of a server with `/mcp`."""
    port = free_port()
    settings = {"MCP_ENABLED": "true", "LOG_LEVEL": "WARNING", **settings}
    with contenthub.started("serve", "--port", str(port), **settings) as process:
        url = f"http://127.0.0.1:{port}"
        until(lambda: answers(f"{url}/health/live"))
        yield url
        process.send_signal(signal.SIGTERM)
        process.wait(30)
        assert process.stderr is not None
        assert "Traceback" not in process.stderr.read()


@asynccontextmanager
async def connected(url: str, token: str = "", mode: str = "auto", **headers: str) -> AsyncIterator[Client]:
    """The official client, with a bearer token."""
    if token:
        headers["Authorization"] = f"Bearer {token}"
    async with (
        httpx2.AsyncClient(headers=headers) as http,
        Client(streamable_http_client(f"{url}/mcp", http_client=http), mode=mode) as client,
    ):
        yield client


async def call(client: Client, tool: str, **arguments: Any) -> Any:
    """The structured answer of a tool that succeeds."""
    result = await client.call_tool(tool, arguments)
    assert not result.is_error, result.content
    assert result.structured_content is not None
    assert json.loads(result.content[0].text) == result.structured_content
    return result.structured_content


async def refusal(client: Client, tool: str, **arguments: Any) -> str:
    """What a tool says that refuses."""
    result = await client.call_tool(tool, arguments)
    assert result.is_error, result
    return str(result.content[0].text)


async def over(client: Client, execution_id: int) -> Any:
    """The execution once it is over."""
    while True:
        found = await call(client, "get_execution", execution_id=execution_id)
        if found["state"] in ("success", "failed", "cancelled", "skipped"):
            return found
        await asyncio.sleep(0.1)


@pytest.fixture(params=["sqlite", "postgresql", "pgqueuer"])
def anywhere(request: pytest.FixtureRequest, contenthub: ContentHub) -> ContentHub:
    """On each kind of database, with each engine."""
    if request.param != "sqlite":
        contenthub.settings["DATABASE_URL"] = request.getfixturevalue("postgres_url")
        contenthub.settings["SCHEDULER_ENGINE"] = "pgqueuer" if request.param == "pgqueuer" else "embedded"
        contenthub("db", "upgrade")  # the database has our tables; not yet PgQueuer's, nor an account
    return contenthub


async def test_an_agent_without_a_server_creates_runs_and_reads(anywhere: ContentHub) -> None:
    contenthub, schedule = anywhere, daily_far_off()
    async with Client(command(contenthub)) as client:
        names = {tool.name for tool in (await client.list_tools()).tools}
        assert names > READING
        assert "delete_task" not in names, "an operator does not delete"
        task = await call(
            client,
            "create_task",
            name="digest",
            task_type="content_generation",
            params=PARAMS,
            schedule=schedule,
        )
        assert task["schedule"] == {"type": "cron", "expression": schedule}
        execution = await call(client, "run_task", task_id=task["id"])
        ended = await over(client, execution["id"])
        assert (ended["state"], ended["triggered_by"]) == ("success", "mcp")
        assert (await call(client, "list_executions", task_id=task["id"]))["items"][0]["id"] == execution["id"]
        assert "explanation" in await call(client, "explain_task", task_id=task["id"])
        logs = await call(client, "get_logs", execution_id=execution["id"])
        assert all(line["attempt"] == 1 for line in logs["items"])
    assert contenthub("node", "list", "--json").json == [], "the command has left when its input ended"


async def test_a_refusal_names_the_field_and_the_remedy(contenthub: ContentHub) -> None:
    async with Client(command(contenthub)) as client:
        assert "hour '25' is wrong: it takes 0-23" in await refusal(
            client, "create_task", name="x", task_type="content_generation", params=PARAMS, schedule="0 25 * * *"
        )
        assert "registered: add_to_pool, " in await refusal(
            client, "enqueue_execution", task_type="nobody", params={}
        )
        assert (await refusal(client, "get_execution", execution_id=7)) == "execution 7 does not exist"
        assert (await refusal(client, "get_execution")).startswith("execution_id: ")
        assert (await refusal(client, "list_tasks", serach="x")).startswith("serach: ")
        assert (await refusal(client, "list_tasks", limit=10**9)).startswith("limit: ")
        assert (await refusal(client, "list_tasks", cursor="\x00")).startswith("cursor: ")
        assert "params.account_id" in await refusal(client, "enqueue_execution", task_type="content_generation")
        assert "delete_task needs the role admin" in await refusal(client, "delete_task", task_id=1)
        with pytest.raises(MCPError, match="no tool is named 'make_token'"):
            await client.call_tool("make_token", {})
        assert (await call(client, "list_executions"))["items"] == []


async def test_an_agent_acts_with_its_tokens_name_and_role_until_it_is_revoked(contenthub: ContentHub) -> None:
    token = contenthub("token", "create", "reader", "--role", "viewer", "--json").json["token"]
    async with Client(command(contenthub, CONTENTHUB_TOKEN=token)) as client:
        tools = (await client.list_tools()).tools
        assert {tool.name for tool in tools} == READING
        assert all(tool.annotations is not None and tool.annotations.read_only_hint for tool in tools)
        refused = await refusal(client, "run_task", task_id=1)
        assert refused == "run_task needs the role operator; 'reader' has viewer"
        contenthub("token", "revoke", "reader")
        assert "revoked" in await refusal(client, "list_tasks")
        with pytest.raises(MCPError, match="revoked"):
            await client.list_tools(cache_mode="refresh")


def test_wrong_ways_to_start_say_what_to_do(contenthub: ContentHub) -> None:
    assert "contenthub token create" in contenthub("mcp", "--token", "ch_wrong", code=1).err
    assert "--role and --token" in contenthub("mcp", "--token", "x", "--role", "viewer", code=2).err
    assert "'root' is not one of" in contenthub("mcp", "--role", "root", code=2).err


def test_an_agent_that_goes_away_ends_the_command(contenthub: ContentHub) -> None:
    ran = contenthub("mcp", stdin="this is no JSON\n")
    assert "Traceback" not in ran.err


async def test_a_run_asked_for_by_an_agent_goes_to_the_server_that_listens(contenthub: ContentHub) -> None:
    with server(contenthub):
        (node,) = contenthub("node", "list", "--json").json
        async with Client(command(contenthub)) as client:
            asked = await call(client, "enqueue_execution", task_type="content_generation", params=PARAMS)
            ended = await over(client, asked["id"])
    assert [attempt["node"] for attempt in ended["attempts"]] == [node["id"]]


@pytest.mark.parametrize("mode", ["auto", "legacy"])
async def test_over_http_roles_are_those_of_the_api(contenthub: ContentHub, mode: str) -> None:
    """By the stateless protocol of 2026 and by the older handshake."""
    tokens = {
        role: contenthub("token", "create", role, "--role", role, "--json").json["token"]
        for role in ("viewer", "operator", "admin")
    }
    with server(contenthub) as url:
        async with connected(url, tokens["viewer"], mode) as viewer:
            assert {tool.name for tool in (await viewer.list_tools()).tools} == READING
            assert "needs the role operator" in await refusal(viewer, "cancel_execution", execution_id=1)
            assert (await call(viewer, "get_status"))["running"] is True
            preview = await call(viewer, "preview_definition", schedule="0 9 * * 1-5", timezone="Asia/Shanghai")
            assert len(preview["fires"]) == 10
        async with connected(url, tokens["operator"], mode) as operator:
            task = await call(operator, "create_task", name="d", task_type="content_generation", params=PARAMS)
            paused = await call(operator, "pause_task", task_id=task["id"])
            assert paused["is_active"] is False
            stale = await refusal(operator, "update_task", task_id=task["id"], priority=1, if_match="1")
            assert "version" in stale
            changed = await call(operator, "update_task", task_id=task["id"], priority=1, if_match="2")
            assert (changed["priority"], changed["is_active"]) == (1, False)
            history = await call(operator, "list_changes", task_id=task["id"])
            assert [one["changed_by"] for one in history["items"]] == ["operator"] * 3
        async with connected(url, tokens["admin"], mode) as admin:
            done = await admin.call_tool("delete_task", {"task_id": task["id"]})
            assert (done.is_error, done.structured_content) == (False, None)
            assert (await call(admin, "list_tasks"))["items"] == []


def test_over_http_nobody_is_let_in_who_may_not_use_the_api(contenthub: ContentHub) -> None:
    listing = {"jsonrpc": "2.0", "id": 1, "method": "tools/list", "params": {}}
    headers = {"Accept": "application/json, text/event-stream"}
    with server(contenthub) as url:

        def ask(**more: str) -> httpx.Response:
            return httpx.post(f"{url}/mcp", json=listing, headers={**headers, **more})

        assert ask().status_code == 200, "from this machine, while nobody has a token"
        assert ask(Host="evil.example").status_code == 401
        assert ask(Origin="https://evil.example").status_code == 401
        assert ask(**{"X-Forwarded-For": "10.0.0.1"}).status_code == 401
        contenthub("token", "create", "ops", "--role", "admin")
        refused = ask()
        assert refused.status_code == 401
        assert refused.json()["type"] == "urn:contenthub:problem:unauthorized"
        assert ask(Authorization="Bearer ch_wrong").status_code == 401
        assert httpx.get(f"{url}/mcp").status_code == 405
        assert httpx.post(f"{url}/mcp", content=b"x" * 2_000_000).status_code == 413


def test_without_the_setting_there_is_no_such_path(contenthub: ContentHub) -> None:
    with server(contenthub, MCP_ENABLED="false") as url:
        assert httpx.post(f"{url}/mcp", json={}).status_code == 404


async def test_secrets_stay_hidden_from_agents(contenthub: ContentHub) -> None:
    secret = "t0p-s3cret"
    contenthub.settings["HTTP_ALLOW_PRIVATE"] = "true"
    params = {"url": "http://127.0.0.1:9/", "headers": {"Authorization": secret}}
    async with Client(command(contenthub)) as client:
        task = await call(client, "create_task", name="call", task_type="http_request", params=params)
        execution = await call(client, "run_task", task_id=task["id"])
        ended = await over(client, execution["id"])
        assert ended["state"] == "failed"
        told = [task, ended, await call(client, "get_logs", execution_id=execution["id"])]
        told += [await call(client, "list_changes", task_id=task["id"]), await call(client, "list_tasks")]
    assert secret not in json.dumps(told)
    assert "******" in json.dumps(task)


async def test_what_runs_when_the_agent_goes_is_handed_back(contenthub: ContentHub) -> None:
    """An agent's client gives a server two seconds to leave, then kills it."""
    contenthub.settings["GENERATOR_COMMAND"] = json.dumps(["sleep", "600"])
    endless = {**PARAMS, "generator": "command"}
    async with Client(command(contenthub)) as client:
        asked = await call(client, "enqueue_execution", task_type="content_generation", params=endless)
        while (await call(client, "get_execution", execution_id=asked["id"]))["state"] != "running":
            await asyncio.sleep(0.1)
    assert contenthub("node", "list", "--json").json == []
    left = contenthub("execution", "show", str(asked["id"]), "--json").json
    assert (left["state"], left["reason"]) == ("pending", "handed_back")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_a_signal_ends_the_command_although_its_input_is_open(
    contenthub: ContentHub, number: signal.Signals
) -> None:
    hello = {"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": {"name": "x", "version": "1"}}
    request = {"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": hello}
    asking = {"jsonrpc": "2.0", "id": 2, "method": "tools/call", "params": {"name": "get_status", "arguments": {}}}
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "app.cli.main", "mcp"),
        cwd=contenthub.folder,
        env={**os.environ, **(command(contenthub).env or {})},
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    for message in (request, {"jsonrpc": "2.0", "method": "notifications/initialized"}, asking):
        process.stdin.write(json.dumps(message).encode() + b"\n")
    await process.stdout.readline()
    status = json.loads(await process.stdout.readline())
    assert status["result"]["structuredContent"]["running"] is True
    process.send_signal(number)
    assert await asyncio.wait_for(process.wait(), 30) == 128 + number
    assert contenthub("node", "list", "--json").json == []
