"""Every page: for everybody (WCAG), on a telephone, light and dark, and small enough to be there at once."""

from __future__ import annotations

import gzip
import re
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import expect

from app.dashboard.pages import STATIC
from tests.e2e.screenshots import fill
from tests.e2e.site import Site, Visit

AXE = Path(__file__).parents[2] / "app/dashboard/ui/node_modules/axe-core/axe.min.js"
FIRST_PAGE_BYTES = 300_000
NAMES = (
    "overview",
    "tasks",
    "task",
    "task-new",
    "task-edit",
    "calendar",
    "executions",
    "execution",
    "workflow",
    "approval",
    "approvals",
    "alerts",
    "executors",
    "system",
    "not-found",
)
AXE_RUN = """async (script) => {
  (0, eval)(script);
  const rules = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa"];
  const {violations} = await window.axe.run(document, {runOnly: rules});
  const said = (node) => node.html + node.failureSummary;
  return violations.map((one) => [one.id, ...one.nodes.slice(0, 4).map(said)]);
}"""


@pytest.fixture(scope="module")
def pages(site: Site) -> dict[str, str]:
    """A site with something on it: the address of each page."""
    return fill(site)


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("name", [*NAMES, "sign-in"])
def test_a_page_passes_wcag_aa(visitor: Visit, pages: dict[str, str], name: str, scheme: str) -> None:
    # The page's own policy forbids what axe needs to be brought in.
    options: dict[str, Any] = {"color_scheme": scheme, "bypass_csp": True, "reduced_motion": "reduce"}
    person = visitor(None if name == "sign-in" else "admin", **options)
    person.page.goto(f"{person.url}/scheduler/{pages.get(name, '')}")
    person.page.locator("h1, main").first.wait_for()
    person.page.wait_for_timeout(800)
    assert person.page.evaluate(AXE_RUN, AXE.read_text()) == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_what_was_done_and_what_was_refused_is_told_for_everybody(
    visitor: Visit, pages: dict[str, str], scheme: str
) -> None:
    person = visitor("admin", color_scheme=scheme, bypass_csp=True, reduced_motion="reduce")
    page = person.page
    person.go(pages["task"])
    page.route("**/run", lambda route: route.abort())
    page.get_by_role("button", name="Run now").click()
    page.get_by_text("The server cannot be reached", exact=False).wait_for()
    page.unroute("**/run")
    page.get_by_role("button", name="Run now").click()
    page.get_by_text("Started execution", exact=False).wait_for()
    assert page.evaluate(AXE_RUN, AXE.read_text()) == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_what_is_paused_and_what_is_opened_is_for_everybody(
    visitor: Visit, site: Site, pages: dict[str, str], scheme: str
) -> None:
    assert pages
    body = {
        "name": "paused",
        "task_type": "content_generation",
        "params": site.write("paused"),
        "is_active": False,
    }
    if not site.api("GET", "tasks", search="paused")["items"]:
        site.api("POST", "tasks", {**body, "schedule": {"type": "cron", "expression": "0 9 * * *"}})
    person = visitor("admin", color_scheme=scheme, bypass_csp=True, reduced_motion="reduce")
    page = person.page
    person.go("tasks?search=paused")
    page.get_by_role("button", name="Actions: paused").click()
    page.get_by_role("menuitem", name="Delete").wait_for()
    page.wait_for_timeout(500)
    # Mantine's own: the element inside of a menu that takes the focus first stands among its items.
    found = page.evaluate(AXE_RUN, AXE.read_text())
    assert [one for one in found if one[0] != "aria-required-children"] == []
    page.get_by_role("menuitem", name="Delete").click()
    page.get_by_role("dialog").get_by_role("button", name="Delete").wait_for()
    page.wait_for_timeout(500)
    assert page.evaluate(AXE_RUN, AXE.read_text()) == []


@pytest.mark.parametrize("name", [*NAMES, "sign-in"])
def test_a_page_fits_a_telephone(visitor: Visit, pages: dict[str, str], name: str) -> None:
    person = visitor(None if name == "sign-in" else "admin", viewport={"width": 375, "height": 812})
    person.page.goto(f"{person.url}/scheduler/{pages.get(name, '')}")
    person.page.locator("h1, main").first.wait_for()
    person.page.wait_for_timeout(500)
    width = person.page.evaluate("document.documentElement.scrollWidth")
    assert width <= 375


def test_what_runs_is_seen_before_what_waits_and_the_suspended_are_counted(
    visitor: Visit, site: Site, pages: dict[str, str]
) -> None:
    assert pages
    later = (datetime.now(UTC) + timedelta(hours=1)).isoformat()
    for number in range(13):
        site.enqueue(f"later {number}", run_at=later)
    person = visitor("viewer")
    under_way = person.page.get_by_role("region", name="Under way")
    expect(under_way.get_by_role("row")).to_have_count(12)
    expect(under_way.get_by_role("row").first).to_contain_text("Running")
    under_way.get_by_role("link", name=re.compile("suspended: .* wait")).click()
    expect(person.page.get_by_role("row").filter(has_text="Suspended").first).to_be_visible()


CUT_OFF = """() => [...document.querySelectorAll("header *, main *")]
  .filter((one) => one.children.length === 0 && !one.closest(".mantine-ScrollArea-viewport, .clip"))
  .filter((one) => one.getBoundingClientRect().right > window.innerWidth)
  .concat([...document.querySelectorAll("header .clip")].filter((one) => one.scrollWidth > one.clientWidth))
  .map((one) => one.textContent)"""


def test_no_text_is_too_long_for_a_telephone(site: Site, visitor: Visit) -> None:
    """However long it goes on without a place to break at."""
    long = "unbroken" * 24
    body = {
        "name": long,
        "task_type": "content_generation",
        "params": site.write(f"broken {long}"),
        "schedule": {"type": "interval", "seconds": 3600},
    }
    task = site.api("POST", "tasks", body)["id"]
    failed = site.api("POST", f"tasks/{task}/run")["id"]
    site.ended(failed)
    asked = site.api("POST", "executions", {"task_type": "approval", "params": {"title": long, "details": long}})
    person = visitor("admin", viewport={"width": 375, "height": 812})
    paths = ["", "tasks", f"tasks/{task}", "calendar", f"executions/{failed}", f"executions/{asked['id']}"]
    for path in [*paths, "approvals"]:
        person.go(path)
        if path != "calendar":
            person.page.get_by_text("unbroken").first.wait_for()
        assert person.page.evaluate(CUT_OFF) == [], path


def test_the_first_page_is_small_and_comes_from_this_server_alone(visitor: Visit, pages: dict[str, str]) -> None:
    person = visitor()
    assert pages
    asked: set[str] = set()
    fresh = person.page
    fresh.on("request", lambda request: asked.add(request.url))
    fresh.goto(f"{person.url}/scheduler/")
    person.give(person.site.tokens["viewer"])
    fresh.get_by_role("heading", level=1, name="Overview").wait_for()
    fresh.wait_for_load_state("load")
    fresh.wait_for_timeout(1500)
    assets = {url for url in asked if "/assets/" in url}
    assert any("chart" in url for url in assets)
    on_disk = sum(_compressed(url) for url in assets)
    assert 100_000 < on_disk < FIRST_PAGE_BYTES, sorted((_compressed(url), url) for url in assets)


def _compressed(url: str) -> int:
    """What a browser that takes Brotli is sent for this asset."""
    file = STATIC / "assets" / url.rsplit("/", 1)[1]
    small = file.with_name(file.name + ".br")
    return small.stat().st_size if small.is_file() else file.stat().st_size


def test_compressed_assets_are_the_assets() -> None:
    for packed in (STATIC / "assets").glob("*.gz"):
        assert gzip.decompress(packed.read_bytes()) == packed.with_suffix("").read_bytes()
