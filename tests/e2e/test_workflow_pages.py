"""A workflow, from its start to what it publishes, in a real browser; alerts and the schedule doctor beside it."""

from __future__ import annotations

import re
from typing import Any

from playwright.sync_api import expect

from app.workflows.content_flow import content_flow, content_input
from tests.e2e.site import Site, Visit
from tests.integration.command_line import until


def start_flow(site: Site, topic: str) -> dict[str, Any]:
    """ContentHub's own flow; its draft is ready when this returns."""
    definition = content_flow().definition(content_input(topic, generator="feed", min_score=0))
    flow = site.api("POST", "executions", {"task_type": "workflow", "params": definition})
    asked: dict[str, Any] = until(
        lambda: next(
            (one for one in site.api("GET", "approvals")["items"] if one["workflow_id"] == flow["id"]), None
        )
    )
    return asked


def test_a_person_says_yes_and_the_content_goes_out(site: Site, visitor: Visit) -> None:
    asked = start_flow(site, "AI")
    person = visitor("operator")
    page = person.page
    person.go(f"executions/{asked['workflow_id']}")
    graph = page.get_by_role("region", name="Workflow").first
    expect(graph.locator("[data-workflow-step='draft']")).to_have_attribute("data-state", "success")
    expect(graph.locator("[data-workflow-step='publish']")).to_have_attribute("data-state", "waiting")

    page.get_by_role("navigation").get_by_role("link", name="Approvals").click()
    question = page.get_by_role("region", name=asked["title"])
    question.get_by_label("Comment").fill("reads well")
    question.get_by_role("button", name=re.compile("^Approve")).click()
    expect(question).to_have_count(0)

    person.go(f"executions/{asked['workflow_id']}")
    for step in ("approval", "pool", "publish"):
        expect(graph.locator(f"[data-workflow-step='{step}']")).to_have_attribute("data-state", "success")
    expect(page.locator("main").get_by_text("Succeeded").first).to_be_visible()
    assert site.ended(asked["workflow_id"])["state"] == "success"
    decided = site.ended(asked["execution_id"])["result"]["data"]
    assert (decided["approved"], decided["decided_by"], decided["comment"]) == (True, "the operator", "reads well")
    assert site.api("GET", "pool")["items"][0]["state"] == "published"
    assert list((site.contenthub.folder / "site").glob("**/*.html")), "the page is there"

    page.get_by_role("region", name="Children").get_by_role("link", name=re.compile("^approval")).click()
    expect(
        page.get_by_role("region", name="Details").get_by_text(f"workflow #{asked['workflow_id']}")
    ).to_be_visible()
    expect(page.get_by_role("region", name="Signals").get_by_text("decision")).to_be_visible()


def test_a_no_ends_the_flow_and_a_viewer_decides_nothing(site: Site, visitor: Visit) -> None:
    asked = start_flow(site, "AI")
    viewer = visitor("viewer")
    viewer.go("approvals")
    expect(viewer.page.get_by_role("region", name=asked["title"])).to_be_visible()
    expect(viewer.page.get_by_role("button", name=re.compile("^(Approve|Reject)"))).to_have_count(0)
    person = visitor("operator")
    person.go(f"executions/{asked['execution_id']}")
    person.page.get_by_role("button", name=re.compile("^Reject")).click()
    expect(person.page.get_by_role("button", name=re.compile("^Reject"))).to_have_count(0)
    assert site.ended(asked["execution_id"])["result"]["data"]["approved"] is False
    assert site.ended(asked["workflow_id"])["state"] == "success"


def test_a_rule_is_made_and_its_alert_acknowledged(site: Site, visitor: Visit) -> None:
    person = visitor("operator")
    page = person.page
    person.go("alerts")
    page.get_by_role("button", name="New rule").click()
    dialog = page.get_by_role("dialog")
    dialog.get_by_label("Name").fill("too often")
    dialog.get_by_label("Failures in a row").fill("1")
    page.keyboard.press("Escape")
    page.get_by_role("dialog", name="Leave without saving?").get_by_role("button", name="Stay").click()
    expect(dialog.get_by_label("Name")).to_have_value("too often")
    dialog.get_by_role("button", name="Create").click()
    expect(page.get_by_role("region", name="Rules").get_by_text("failed 1× in a row")).to_be_visible()

    rules = page.get_by_role("region", name="Rules")
    site.api("POST", "tasks", {"name": "Watched", "task_type": "content_generation", "params": site.write("x")})
    rules.get_by_role("button", name="Edit").click()
    dialog.get_by_role("textbox", name="Task").fill("atche")
    page.get_by_role("option", name="Watched").click()
    dialog.get_by_label("Quiet from").fill("22:00")
    dialog.get_by_label("Quiet until").fill("07:30")
    dialog.get_by_label("Say it again after").fill("3600")
    dialog.get_by_role("button", name="Save").click()
    expect(dialog).to_be_hidden()
    (rule,) = site.api("GET", "alert-rules")
    (watched,) = site.api("GET", "tasks", search="Watched")["items"]
    assert (rule["task_id"], rule["condition"]["times"]) == (watched["id"], 1)
    assert (rule["quiet_hours"]["start"], rule["quiet_hours"]["end"]) == ("22:00", "07:30")
    assert (rule["remind_seconds"], rule["notify_recovery"]) == (3600, True)
    expect(rules.get_by_role("link", name="Watched")).to_be_visible()
    rules.get_by_role("button", name="Edit").click()
    expect(dialog.get_by_role("textbox", name="Task")).to_have_value("Watched")
    page.keyboard.press("Escape")
    expect(page.get_by_role("dialog")).to_have_count(0)  # nothing was changed, so nothing is asked
    rules.get_by_role("button", name="Edit").click()
    dialog.get_by_role("button", name="any task", include_hidden=True).click()
    dialog.get_by_role("button", name="Save").click()
    expect(rules.get_by_text("any task")).to_be_visible()

    (site.contenthub.folder / "mended").unlink(missing_ok=True)
    task = site.api(
        "POST",
        "tasks",
        {
            "name": "fails",
            "task_type": "content_generation",
            "params": site.write("broken again"),
            "retry": {"max_attempts": 1},
        },
    )["id"]
    site.ended(site.api("POST", f"tasks/{task}/run")["id"])
    row = page.get_by_role("region", name="Open alerts").get_by_role("row").filter(has_text="fails")
    expect(row).to_be_visible(timeout=60_000)  # rules are looked at every half minute, the page reads as often
    person.go("")
    attention = page.get_by_role("list", name="Needs attention").get_by_role("listitem")
    unread = attention.filter(has_text="not acknowledged")
    unread.get_by_role("link", name="too often").first.click()
    row.get_by_role("button", name="Acknowledge").click()
    expect(row).to_contain_text("acknowledged by the operator")
    page.get_by_role("region", name="Rules").get_by_role("button", name="Delete").click()


def test_the_calendar_says_what_the_coming_month_will_hurt(site: Site, visitor: Visit) -> None:
    nine = {"task_type": "content_generation", "schedule": {"type": "cron", "expression": "0 9 * * *"}}
    for number in range(25):
        site.api(
            "POST", "tasks", {**nine, "name": f"herd {number}", "params": site.write("herd"), "is_active": True}
        )
    person = visitor("viewer")
    person.go("calendar")
    doctor = person.page.get_by_role("region", name="What the next 30 days will hurt")
    expect(doctor.get_by_text(re.compile("fire at the same moment"))).to_be_visible()
    expect(doctor.get_by_text(re.compile("the peak falls from"))).to_be_visible()
    doctor.get_by_role("link", name=re.compile("^herd")).first.click()
    expect(person.page.get_by_role("heading", level=1, name=re.compile("^herd"))).to_be_visible()


def test_the_calendar_has_a_fire_in_its_hour_where_clocks_are_half_an_hour_off(site: Site, visitor: Visit) -> None:
    midnight = {"schedule": {"type": "cron", "expression": "0 0 * * *"}, "timezone": "Asia/Kolkata"}
    body = {"name": "in Mumbai", "task_type": "content_generation", "params": site.write("Mumbai")}
    site.api("POST", "tasks", {**body, **midnight})
    person = visitor("viewer", timezone_id="Asia/Kolkata")
    person.go("calendar")
    person.page.get_by_role("button", name=re.compile(r" 0:00: [1-9]")).first.click()
    expect(person.page.get_by_role("link", name="in Mumbai")).to_be_visible()


def test_a_signal_is_sent_from_the_page(site: Site, visitor: Visit) -> None:
    asked = start_flow(site, "AI")
    person = visitor("operator")
    page = person.page
    person.go(f"executions/{asked['execution_id']}")
    page.get_by_role("button", name="Send a signal").click()
    dialog = page.get_by_role("dialog")
    dialog.get_by_label("Name").fill("note")
    dialog.get_by_label("Payload (JSON)").fill("{broken")
    dialog.get_by_role("button", name="Send a signal").click()
    expect(dialog.get_by_text("This is not JSON.")).to_be_visible()
    dialog.get_by_label("Payload (JSON)").fill('{"seen": true}')
    dialog.get_by_role("button", name="Send a signal").click()
    expect(page.get_by_role("region", name="Signals").get_by_text("note")).to_be_visible()
    site.api("POST", f"executions/{asked['workflow_id']}/cancel")
