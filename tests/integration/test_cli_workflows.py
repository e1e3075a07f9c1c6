"""`contenthub approval`, `contenthub pool`, and the demo's flow: the real command line and a real server."""

from __future__ import annotations

import json
import re
import threading
from pathlib import Path
from typing import Any

import httpx
import pytest

from app.workflows.content_flow import content_flow, content_input
from tests.integration.command_line import ContentHub, until
from tests.support import free_port


@pytest.fixture
def contenthub(tmp_path: Path) -> ContentHub:
    return ContentHub(tmp_path)


def waiting(contenthub: ContentHub) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = contenthub("approval", "list", "--json").json
    return found


@pytest.mark.timeout(400)  # a dozen commands, each a process
def test_a_flow_is_approved_on_the_command_line(contenthub: ContentHub) -> None:
    port = free_port()
    with contenthub.started("serve", "--port", str(port), PUBLISH_DIRECTORY="site") as server:
        assert server.stderr is not None
        threading.Thread(target=server.stderr.read, daemon=True).start()
        until(lambda: is_up(port))
        params = json.dumps(content_flow().definition(content_input("AI", min_score=0)))
        contenthub("task", "create", "--name", "flow", "--type", "workflow", "--params", params)
        contenthub("task", "run", "flow", "--detach")
        (question,) = until(lambda: waiting(contenthub))
        approval_id = str(question["execution_id"])
        assert question["title"] in contenthub("approval", "list").out
        assert "decide" in contenthub("execution", "signal", approval_id, "decision", code=1).err
        made = contenthub("approval", "link", approval_id, "--for", "ann", "--lifetime", "1h", "--json")
        link = made.json
        assert "The server is taken to be at http://127.0.0.1:8000; set PUBLIC_BASE_URL, or PORT as" in made.err
        assert link["name"] == "ann"
        assert "/approvals/" in link["url"]
        contenthub("approval", "approve", approval_id, "--comment", "good", "--by", "bob")
        assert contenthub("approval", "reject", approval_id, code=1).err
        (entry,) = until(lambda: contenthub("pool", "list", "--state", "published", "--json").json)
        assert (contenthub.folder / "site" / f"content-{entry['content_id']}.html").exists()
        assert contenthub("pool", "withdraw", str(entry["id"]), code=1).err
        assert contenthub("pool", "priority", str(entry["id"]), "3", code=1).err
        result = contenthub("execution", "show", approval_id, "--json").json["result"]["data"]
        assert (result["decided_by"], result["via"], result["comment"]) == ("bob", "cli", "good")


def is_up(port: int) -> bool:
    try:
        return httpx.get(f"http://127.0.0.1:{port}/health/live").status_code == 200
    except httpx.TransportError:
        return False


def test_the_demo_says_where_to_decide_and_publishes_what_is_approved(contenthub: ContentHub) -> None:
    with contenthub.started("demo", "--data-dir", "demo", "--port", str(free_port())) as demo:
        assert demo.stdout is not None
        assert demo.stderr is not None
        threading.Thread(target=demo.stderr.read, daemon=True).start()
        lines: list[str] = []
        reader = threading.Thread(target=lambda: lines.extend(iter(demo.stdout.readline, "")), daemon=True)  # type: ignore[union-attr]
        reader.start()
        url = until(lambda: next(iter(re.findall(r"Decide: (\S+)", "".join(lines))), None))
        assert "数据中心：" in httpx.get(url).text
        site = contenthub.folder / "demo" / "site" / "index.html"
        assert "数据中心：" not in (site.read_text() if site.exists() else "")
        assert httpx.post(url, data={"decision": "approve"}).status_code == 200
        until(lambda: site.exists() and "数据中心：" in site.read_text())
        until(lambda: re.search(r"demo-review +success", "".join(lines)))
