"""A real server with the dashboard, and a real browser in front of it."""

from __future__ import annotations

import json
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
from playwright.sync_api import Browser, Page, sync_playwright

from app.dashboard.pages import STATIC
from tests.integration.command_line import ContentHub, until
from tests.support import free_port

CHROMIUM = Path("/usr/bin/chromium")
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
PROGRAM = """
import json, pathlib, sys, time
wanted = json.load(sys.stdin)
topic = wanted["topic"]
if topic.startswith("wait "):
    time.sleep(float(topic.removeprefix("wait ")))
if topic.startswith("broken") and not pathlib.Path("mended").exists():
    sys.exit(f"the writer is broken: {topic}")
print(json.dumps({"title": topic, "body": f"# {topic}"}))
"""
"""What writes: broken until the file `mended` lies beside the database."""


@dataclass(slots=True)
class Site:
    """Servers on one database, and a token for each role."""

    contenthub: ContentHub
    urls: list[str]
    tokens: dict[str, str] = field(default_factory=dict)

    @property
    def url(self) -> str:
        return self.urls[0]

    def api(self, method: str, path: str, body: Any = None, *, role: str = "admin", **query: Any) -> Any:
        """What a script would ask."""
        answer = httpx.request(
            method,
            f"{self.url}/api/v1/scheduler/{path}",
            json=body,
            params=query,
            headers={"Authorization": f"Bearer {self.tokens[role]}"},
            timeout=30,
        )
        answer.raise_for_status()
        return answer.json() if answer.content else None

    def write(self, topic: str, **more: Any) -> dict[str, Any]:
        """Params of `content_generation` that run `PROGRAM`."""
        return {"account_id": 1, "topic": topic, "generator": "command", **more}

    def enqueue(self, topic: str, **request: Any) -> int:
        body = {"task_type": "content_generation", "params": self.write(topic), **request}
        return int(self.api("POST", "executions", body)["id"])

    def ended(self, execution_id: int) -> dict[str, Any]:
        def over() -> Any:
            found = self.api("GET", f"executions/{execution_id}")
            return found if found["finished_at"] else None

        ended: dict[str, Any] = until(over)
        return ended

    def mend(self) -> None:
        """From here on what is broken works."""
        (self.contenthub.folder / "mended").touch()


@contextmanager
def serving(
    folder: Path,
    *,
    servers: int = 1,
    roles: tuple[str, ...] = ("viewer", "operator", "admin"),
    **settings: str,
) -> Iterator[Site]:
    """`servers` processes on one SQLite file in `folder`, with a token for each of `roles`.

    Raises:
        RuntimeError: the dashboard has not been built.
    """
    if not (STATIC / "index.html").is_file():
        raise RuntimeError(
            "the dashboard is not built: run `pip install -e .` where npm's registry can be reached"
        )
    contenthub = ContentHub(
        folder,
        {
            "GENERATOR_COMMAND": json.dumps([sys.executable, "-c", PROGRAM]),
            "PUBLISH_DIRECTORY": str(folder / "site"),
            "SESSION_SECRET": "a secret that the servers share, 32 bytes",
            "LOG_LEVEL": "WARNING",
            **settings,
        },
    )
    contenthub("db", "upgrade")
    tokens = {
        role: contenthub("token", "create", f"the {role}", "--role", role, "--json").json["token"]
        for role in roles
    }
    with ExitStack() as stack:
        urls = []
        for _ in range(servers):
            port = free_port()
            server = stack.enter_context(contenthub.started("serve", "--port", str(port)))
            for stream in (server.stdout, server.stderr):
                threading.Thread(target=stream.read, daemon=True).start()  # type: ignore[union-attr]
            urls.append(f"http://127.0.0.1:{port}")
        for url in urls:
            until(lambda url=url: _answers(url))  # type: ignore[misc]
        yield Site(contenthub, urls, tokens)


def _answers(url: str) -> bool:
    with suppress(httpx.HTTPError):
        return httpx.get(f"{url}/health/ready").is_success
    return False


@contextmanager
def chromium() -> Iterator[Browser]:
    """Debian's Chromium, without a window.

    Raises:
        RuntimeError: it is not installed.
    """
    if not CHROMIUM.is_file():
        raise RuntimeError(f"no {CHROMIUM}: apt-get install chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser
        browser.close()


@dataclass(slots=True)
class Person:
    """Somebody at a browser window; `noticed` is what went wrong on their pages."""

    page: Page
    site: Site
    url: str
    noticed: list[str] = field(default_factory=list)

    def sign_in(self, role: str) -> None:
        self.page.goto(f"{self.url}/scheduler/")
        self.give(self.site.tokens[role])
        self.page.get_by_role("heading", level=1, name="Overview").wait_for()

    def give(self, token: str) -> None:
        """Type it into the form that asks for one, and send it."""
        self.page.get_by_role("textbox", name="Token").fill(token)
        self.page.get_by_role("button", name="Sign in").click()

    def go(self, path: str) -> None:
        self.page.goto(f"{self.url}/scheduler/{path}")
        self.page.get_by_role("heading", level=1).wait_for()


Visit = Callable[..., Person]


def visit(browser: Browser, site: Site, *, server: int = 0, **context: Any) -> Person:
    """A new window, with cookies of its own; everything it asks another host for, and every error, is noticed."""
    options = {"locale": "en-GB", "viewport": {"width": 1280, "height": 900}} | context
    page = browser.new_context(**options).new_page()
    page.set_default_timeout(30_000)
    person = Person(page, site, site.urls[server])
    page.on("console", lambda message: _notice(person, message))
    page.on("pageerror", lambda error: person.noticed.append(f"error: {error}"))
    page.on("request", lambda request: _notice_host(person, request.url))
    return person


def _notice(person: Person, message: Any) -> None:
    # The browser itself reports answers such as 401 and 404; they are asserted on where they matter.
    if message.type == "error" and "Failed to load resource" not in message.text:
        person.noticed.append(f"console: {message.text}")


def _notice_host(person: Person, url: str) -> None:
    if not url.startswith((person.url, "data:", "blob:")):
        person.noticed.append(f"another host: {url}")
