"""Pages say how things are: what is gone, skipped, further back, or somebody else's."""

from __future__ import annotations

import re

from playwright.sync_api import Route, expect

from tests.e2e.site import Site, Visit


def make(site: Site, name: str, **definition: object) -> int:
    return int(site.api("POST", "tasks", {"name": name, "task_type": "publish_due", **definition})["id"])


def test_a_task_that_somebody_deletes_is_not_shown_as_if_alive(site: Site, visitor: Visit) -> None:
    task = make(site, "short lived")
    person = visitor("operator")
    page = person.page
    person.go(f"tasks/{task}")
    expect(page.get_by_role("status").filter(has_text="Live")).to_be_visible()
    site.api("DELETE", f"tasks/{task}")
    expect(page.get_by_role("alert")).to_contain_text(f"task {task} does not exist")
    expect(page.get_by_role("button", name="Run now")).to_have_count(0)


def test_a_run_that_is_skipped_is_not_said_to_have_started(site: Site, visitor: Visit) -> None:
    definition = {"task_type": "content_generation", "params": site.write("wait 60"), "overlap_policy": "skip"}
    task = make(site, "one at a time", **definition)
    person = visitor("operator")
    page = person.page
    person.go(f"tasks/{task}")
    page.get_by_role("button", name="Run now").click()
    expect(page.get_by_text(re.compile(r"^Started execution \d+$"))).to_be_visible()
    page.get_by_role("button", name="Run now").click()
    expect(page.get_by_text(re.compile(r"^Execution \d+ was skipped: an earlier run"))).to_be_visible()
    for execution in site.api("GET", "executions", task_id=task, state="running")["items"]:
        site.api("POST", f"executions/{execution['id']}/cancel")


def test_the_history_of_a_task_goes_back_to_its_beginning_in_the_language_of_the_page(
    site: Site, visitor: Visit
) -> None:
    task = make(site, "changed often", schedule="0 9 * * *")
    for priority in range(1, 52):
        site.api("PATCH", f"tasks/{task}", {"priority": priority})
    site.api("PATCH", f"tasks/{task}", {"timezone": "Asia/Shanghai", "schedule": "0 10 * * *"})
    person = visitor("viewer")
    page = person.page
    page.get_by_role("button", name="Language").click()
    page.get_by_role("menuitem", name="中文").click()
    person.go(f"tasks/{task}")
    history = page.get_by_role("region", name="变更记录")
    expect(history).to_contain_text("时区")
    expect(history.get_by_text("timezone")).to_have_count(0)
    expect(history.get_by_text("创建", exact=False)).to_have_count(0)
    history.get_by_role("button", name="加载更多").click()
    expect(history.get_by_text("创建", exact=False)).to_have_count(1)


def test_the_rest_of_what_needs_attention_is_a_link_away(site: Site, visitor: Visit) -> None:
    for number in range(7):
        params = site.write(f"broken {number}")
        task = make(
            site, f"failing {number}", task_type="content_generation", params=params, retry={"max_attempts": 1}
        )
        site.ended(site.api("POST", f"tasks/{task}/run")["id"])
    person = visitor("viewer")
    page = person.page
    page.get_by_role("list", name="Needs attention").get_by_role("link", name="2 more").click()
    page.get_by_role("heading", level=1, name="Tasks").wait_for()
    expect(page.get_by_role("row").filter(has_text="failing")).to_have_count(7)


def test_an_error_turns_nothing_around_it_wherever_it_is_told(site: Site, visitor: Visit) -> None:
    execution = site.enqueue("broken \u202estory", max_attempts=1)
    site.ended(execution)
    person = visitor("viewer")
    person.go(f"executions/{execution}")
    expect(person.page.get_by_role("alert").or_(person.page.get_by_text("\\u202e")).first).to_be_visible()
    assert "\u202e" not in person.page.locator("main").inner_text()


def test_a_node_that_lives_is_alive_also_where_the_clock_of_the_browser_is_wrong(visitor: Visit) -> None:
    person = visitor("viewer")
    page = person.page
    page.add_init_script("{ const now = Date.now; Date.now = () => now() + 90_000; }")
    person.go("system")
    nodes = page.get_by_role("region", name="Nodes")
    expect(nodes.get_by_text("Alive").first).to_be_visible()
    expect(nodes.get_by_text("Silent")).to_have_count(0)


def test_runs_are_shown_of_every_task(site: Site, visitor: Visit) -> None:
    for number in range(101):
        last = make(site, f"one of many {number}")
    site.ended(site.api("POST", f"tasks/{last}/run")["id"])
    person = visitor("viewer")
    page = person.page
    person.go("tasks?search=one of many")
    for _ in range(2):
        page.get_by_role("button", name="Load more").click()
    row = page.get_by_role("row").filter(has_text="one of many 100")
    expect(row.get_by_role("link", name=re.compile("^Last runs, one of many 100"))).to_be_visible()


def test_a_task_whose_making_was_not_answered_is_made_once(site: Site, visitor: Visit) -> None:
    person = visitor("operator")
    page = person.page
    person.go("tasks/new?type=publish_due")
    page.get_by_label("Name", exact=False).first.fill("made once")

    def lose(route: Route) -> None:
        if route.request.method == "POST":
            route.fetch()
            route.abort()
        else:
            route.continue_()

    page.route("**/scheduler/tasks", lose)
    page.get_by_role("button", name="Create").click()
    expect(page.get_by_role("alert")).to_contain_text("cannot be reached")
    page.unroute("**/scheduler/tasks")
    page.get_by_role("button", name="Create").click()
    page.get_by_role("heading", level=1, name="made once").wait_for()
    person.noticed.clear()
