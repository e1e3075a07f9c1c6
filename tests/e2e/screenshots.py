"""`python -m tests.e2e.screenshots`: every page, light and dark, Chinese and English, wide and narrow."""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Any

from playwright.sync_api import Browser
from rich.progress import track

from app.workflows.content_flow import content_flow, content_input
from tests.e2e.site import Site, chromium, serving, visit
from tests.integration.command_line import until

SCHEMES = ("light", "dark")
LANGUAGES = {"en": "en-GB", "zh": "zh-CN"}
WIDTHS = (1440, 375)
FEED = {"account_id": 1, "topic": "AI"}


def fill(site: Site) -> dict[str, str]:
    """A site on which things happen and go wrong; returns the address of each page by name."""
    morning = _task(site, "Morning digest", site.write("morning"), {"type": "cron", "expression": "0 9 * * 1-5"})
    _task(
        site,
        "晚间选题",
        site.write("选题"),
        {"type": "cron", "expression": "30 18,20 * * *"},
        zone="America/New_York",
    )
    beat = _task(site, "Every few seconds", FEED, {"type": "interval", "seconds": 3})
    broken = _task(site, "Broken writer", site.write("broken digest"), {"type": "interval", "seconds": 4})
    _task(site, "By hand only", site.write("by hand"), None)
    for number in range(12):
        site.ended(site.enqueue(f"story {number}"))
    site.api("POST", f"tasks/{morning}/run")
    site.api(
        "PATCH", f"tasks/{morning}", {"priority": 5, "description": "What the editors read with their coffee."}
    )
    failed = site.enqueue("broken once")
    site.ended(failed)
    site.enqueue("wait 600")
    site.enqueue("wait 900", priority=5)
    site.api("POST", f"tasks/{broken}/run")
    asked = [_flow(site, topic) for topic in ("AI", "开源")]
    site.api(
        "POST", f"executions/{asked[0]['execution_id']}/decision", {"approved": True, "comment": "reads well"}
    )
    site.ended(asked[0]["workflow_id"])
    failures = {
        "name": "Three failures in a row",
        "condition": {"type": "failed", "times": 1},
        "severity": "critical",
    }
    site.api("POST", "alert-rules", {**failures, "check_seconds": 10})
    site.api("POST", "alert-channels", {"name": "On call", "url": "json://127.0.0.1:9/on-call"})
    return {
        "overview": "",
        "tasks": "tasks",
        "task": f"tasks/{beat}",
        "task-new": "tasks/new?type=content_generation",
        "task-edit": f"tasks/{morning}/edit",
        "calendar": "calendar",
        "executions": "executions",
        "execution": f"executions/{failed}",
        "workflow": f"executions/{asked[0]['workflow_id']}",
        "approval": f"executions/{asked[1]['execution_id']}",
        "approvals": "approvals",
        "alerts": "alerts",
        "executors": "executors",
        "system": "system",
        "not-found": "nowhere",
    }


def _flow(site: Site, topic: str) -> dict[str, Any]:
    """ContentHub's own flow, up to its question."""
    definition = content_flow().definition(content_input(topic, generator="feed", min_score=0))
    flow = site.api("POST", "executions", {"task_type": "workflow", "params": definition})

    def question() -> Any:
        asked = site.api("GET", "approvals")["items"]
        return next((one for one in asked if one["workflow_id"] == flow["id"]), None)

    found: dict[str, Any] = until(question)
    return found


def _task(site: Site, name: str, params: dict[str, Any], schedule: Any, zone: str = "Asia/Shanghai") -> int:
    body = {
        "name": name,
        "task_type": "content_generation",
        "params": params,
        "schedule": schedule,
        "timezone": zone,
    }
    return int(site.api("POST", "tasks", body)["id"])


def take(browser: Browser, site: Site, pages: dict[str, str], folder: Path, only: list[str]) -> None:
    """One picture for each page, scheme, language and width."""
    folder.mkdir(parents=True, exist_ok=True)
    variants = [(scheme, language, width) for scheme in SCHEMES for language in LANGUAGES for width in WIDTHS]
    for scheme, language, width in track(variants, description="screenshots"):
        person = visit(
            browser,
            site,
            locale=LANGUAGES[language],
            color_scheme=scheme,
            timezone_id="Asia/Shanghai",
            viewport={"width": width, "height": 900 if width > 500 else 812},
        )
        page = person.page
        suffix = f"{scheme}-{language}-{width}.png"
        page.goto(f"{site.url}/scheduler/")
        page.locator("input").first.wait_for()
        if not only or "sign-in" in only:
            page.screenshot(path=folder / f"sign-in-{suffix}")
        page.locator("input").first.fill(site.tokens["admin"])
        page.locator("button[type=submit]").click()
        page.locator("button[type=submit]").wait_for(state="hidden")
        for name, path in pages.items():
            if only and name not in only:
                continue
            page.goto(f"{site.url}/scheduler/{path}")
            page.locator("main").wait_for()
            page.wait_for_timeout(1200)  # charts are drawn in, numbers arrive one after the other
            page.screenshot(path=folder / f"{name}-{suffix}", full_page=True)
        page.context.close()


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.e2e.screenshots", description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("screenshots"), help="a folder (git ignores the default)")
    parser.add_argument("--only", nargs="*", default=[], help="names of pages")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch, serving(Path(scratch)) as site, chromium() as browser:
        take(browser, site, fill(site), arguments.out, arguments.only)


if __name__ == "__main__":
    main()
