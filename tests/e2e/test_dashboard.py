"""What people do with the dashboard, in a real browser on real servers."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

import httpx
import pytest
from playwright.sync_api import Page, Route, expect

from tests.e2e.site import Site, Visit


def pick(page: Page, day: date, clock: str) -> None:
    """Choose a day of the month that an open picker shows, and a time of it."""
    page.get_by_role("button", name=f"{day.day} {day:%B %Y}", exact=True).click()
    for unit, value in zip(page.get_by_role("spinbutton").all(), clock.split(":"), strict=True):
        unit.fill(value)
    page.get_by_role("button", name="Done").click()


def test_a_person_makes_a_task_sees_it_fail_mends_it_and_pauses_it(site: Site, visitor: Visit) -> None:
    person = visitor("operator")
    page = person.page
    page.get_by_role("navigation").get_by_role("link", name="Tasks").click()
    page.get_by_role("link", name="New task").click()
    page.get_by_label("Name", exact=False).first.fill("Morning story")
    page.get_by_role("textbox", name="Executor").click()
    page.get_by_role("option", name="content_generation").click()
    page.get_by_label("Account Id").fill("1")
    page.get_by_label("Topic").fill("broken story")
    page.get_by_role("textbox", name="Generator").click()
    page.get_by_role("option", name="command").click()

    expression = page.get_by_label("Cron expression")
    expression.fill("61 * * * *")
    expect(page.get_by_text("minute '61' is wrong")).to_be_visible()
    expression.fill("0 9 * * 1-5")
    expect(page.get_by_test_id("description")).to_have_text("At 09:00, Monday through Friday")
    expect(page.get_by_role("region", name="What it will do").get_by_role("row")).to_have_count(11)
    expression.fill("*/2 * * * * *")
    expect(page.get_by_test_id("description")).to_have_text("Every 2 seconds")
    page.get_by_label("Attempts", exact=True).fill("1")
    page.get_by_role("button", name="Create").click()

    page.get_by_role("heading", level=1, name="Morning story").wait_for()
    runs = page.get_by_role("region", name="Executions")
    failed = runs.get_by_role("row").filter(has_text="Failed")
    expect(failed.nth(1)).to_be_visible()  # it fires, and nobody reloads the page
    failed.first.get_by_role("link").first.click()

    page.get_by_role("heading", level=1, name=re.compile(r"Morning story #\d+")).wait_for()
    expect(page.get_by_text("the writer is broken: broken story").first).to_be_visible()
    site.mend()
    page.get_by_role("button", name="Retry").click()
    expect(page.locator("main").get_by_text("Succeeded").first).to_be_visible()
    expect(page.get_by_text("Attempt 2 · Succeeded")).to_be_visible()

    page.get_by_role("region", name="Details").get_by_role("link", name="Morning story").click()
    page.get_by_role("button", name="Pause").click()
    expect(page.get_by_role("button", name="Resume")).to_be_visible()
    (task,) = site.api("GET", "tasks", search="Morning story")["items"]
    assert task["is_active"] is False


def test_what_a_form_gets_wrong_is_said_at_its_field(visitor: Visit) -> None:
    person = visitor("operator")
    person.go("tasks/new?type=content_generation")
    page = person.page
    page.get_by_role("button", name="Create").click()
    expect(page.get_by_label("Name", exact=False).first).to_have_attribute("aria-invalid", "true")
    page.get_by_label("Name", exact=False).first.fill("half done")
    page.get_by_role("button", name="Create").click()
    expect(page.get_by_role("alert")).to_be_visible()
    expect(
        page.get_by_role("region", name="Params").get_by_text(re.compile("required", re.IGNORECASE)).first
    ).to_be_visible()


def test_who_gives_up_a_form_is_where_they_came_from_or_at_the_tasks(visitor: Visit) -> None:
    person = visitor("operator")
    page = person.page
    person.go("tasks/new")  # by its address: there is nothing of ours to go back to
    page.get_by_role("button", name="Cancel").click()
    page.get_by_role("heading", level=1, name="Tasks").wait_for()
    person.go("tasks?search=nobody")
    page.get_by_role("link", name="New task").click()
    page.get_by_role("button", name="Cancel").click()
    page.wait_for_url("**/tasks?search=nobody")


def test_what_is_wrong_is_said_once_in_the_language_of_the_page_until_it_is_mended(visitor: Visit) -> None:
    person = visitor("operator")
    page = person.page
    page.get_by_role("button", name="Language").click()
    page.get_by_role("menuitem", name="中文").click()
    person.go("tasks/new?type=content_generation")
    page.get_by_label("名称").first.fill("半成品")
    page.get_by_label("Account Id").fill("1")
    page.get_by_role("button", name="创建").click()
    expect(page.get_by_role("alert")).to_contain_text("错误已标在对应的字段处。")
    topic = page.get_by_label("Topic")
    expect(topic).to_have_attribute("aria-invalid", "true")
    expect(page.get_by_text("必填。", exact=True)).to_have_count(1)
    expect(page.get_by_text(re.compile("required", re.IGNORECASE))).to_have_count(0)
    topic.fill("人工智能")
    expect(topic).to_have_attribute("aria-invalid", "false")
    expect(page.get_by_role("alert")).to_have_count(0)


def test_what_only_the_server_finds_wrong_is_in_the_language_of_the_page(site: Site, visitor: Visit) -> None:
    site.api("POST", "tasks", {"name": "已有", "task_type": "content_generation", "params": site.write("taken")})
    person = visitor("operator")
    page = person.page
    page.get_by_role("button", name="Language").click()
    page.get_by_role("menuitem", name="中文").click()
    person.go("tasks/new?type=content_generation")
    page.get_by_label("名称").first.fill("已有")
    page.get_by_label("Account Id").fill("1")
    page.get_by_label("Topic").fill("人工智能")
    page.get_by_label("Cron 表达式").fill("61 * * * *")
    expect(page.get_by_text("“分”字段 '61' 有误")).to_be_visible()
    page.get_by_label("Cron 表达式").fill("0 9 * * 1-5")
    page.get_by_role("button", name="创建").click()
    expect(page.get_by_text("名为 '已有' 的任务已存在；请换一个名称")).to_be_visible()


def test_a_form_starts_from_the_task_as_it_is_and_not_as_it_was_shown_before(site: Site, visitor: Visit) -> None:
    body = {"name": "shown before", "task_type": "content_generation", "params": site.write("before")}
    task = site.api("POST", "tasks", body)["id"]
    person = visitor("operator")
    page = person.page
    person.go(f"tasks/{task}")

    def choose(action: str) -> None:
        page.get_by_role("navigation").get_by_role("link", name="Tasks").click()
        page.get_by_role("heading", level=1, name="Tasks").wait_for()
        page.get_by_role("button", name="Actions: shown before").click()
        page.get_by_role("menuitem", name=action).click()

    choose("Pause")
    site.api("PATCH", f"tasks/{task}", {"priority": 77, "params": site.write("after")})
    choose("Edit")
    expect(page.get_by_label("Priority")).to_have_value("77")
    expect(page.get_by_role("switch", name="Fire from now on")).not_to_be_checked()
    page.get_by_label("Description").fill("seen again")
    page.get_by_role("button", name="Save").click()
    page.get_by_role("heading", level=1, name="shown before", exact=True).wait_for()

    site.api("PATCH", f"tasks/{task}", {"priority": 78})
    choose("Duplicate")
    expect(page.get_by_label("Priority")).to_have_value("78")
    expect(page.get_by_label("Topic")).to_have_value("after")


def test_a_number_is_what_was_typed(site: Site, visitor: Visit) -> None:
    body = {"name": "numbers", "task_type": "content_generation", "params": site.write("numbers")}
    more = {
        "schedule": {"type": "interval", "seconds": 900},
        "retry": {"max_attempts": 3},
        "timezone": "Asia/Kolkata",
    }
    task = site.api("POST", "tasks", body | more)["id"]
    person = visitor("operator")
    page = person.page
    person.go(f"tasks/{task}/edit")
    expect(page.get_by_role("textbox", name="Time zone")).to_have_value("Asia/Kolkata")
    typed = {"Grace (seconds)": "5", "Priority": "-5", "Attempts": "", "Every": ""}
    for label, text in typed.items():
        number = page.get_by_label(re.compile(rf"^{re.escape(label)}( \*)?$"))
        for _ in range(2):  # not all at once: what is left in between is kept
            number.press("End")
            number.press("Backspace")
        number.press_sequentially(text)
        expect(number).to_have_value(text)
    page.get_by_role("button", name="Save").click()
    expect(number).to_have_attribute("aria-invalid", "true")
    expect(page.get_by_role("alert")).to_contain_text("What is wrong is said at its field.")
    number.press_sequentially("7")
    page.get_by_role("button", name="Save").click()
    page.get_by_role("heading", level=1, name="numbers", exact=True).wait_for()
    kept = site.api("GET", f"tasks/{task}")
    assert kept["schedule"]["expression"] == str(7 * 60)
    assert (kept["misfire_grace_seconds"], kept["priority"], kept["retry"]) == (5, -5, None)


def test_another_executor_and_back_are_the_same_params(visitor: Visit) -> None:
    person = visitor("operator")
    page = person.page
    person.go("tasks/new?type=content_generation")
    page.get_by_label("Topic").fill("not lost")
    for name in ("http_request", "content_generation"):
        page.get_by_role("textbox", name="Executor").click()
        page.get_by_role("option", name=name, exact=True).click()
    expect(page.get_by_label("Topic")).to_have_value("not lost")


def test_a_task_that_was_made_while_the_answer_was_lost_is_the_one_that_was_asked_for(
    site: Site, visitor: Visit
) -> None:
    person = visitor("operator")
    page = person.page
    person.go("tasks/new?type=publish_due")
    page.get_by_label("Name", exact=False).first.fill("asked for twice")

    def lose(route: Route) -> None:
        route.fetch()
        route.abort()

    page.route("**/api/v1/scheduler/tasks", lose, times=1)
    page.get_by_role("button", name="Create").click()
    expect(page.get_by_role("alert")).to_contain_text("The server cannot be reached")
    page.get_by_role("button", name="Create").click()
    page.get_by_role("heading", level=1, name="asked for twice").wait_for()
    person.go("tasks/new?type=publish_due")
    page.get_by_label("Name", exact=False).first.fill("asked for twice")
    page.get_by_role("button", name="Create").click()
    expect(page.get_by_text("a task named 'asked for twice' exists", exact=False).first).to_be_visible()
    assert len(site.api("GET", "tasks", search="asked for twice")["items"]) == 1


def test_a_viewer_sees_everything_and_can_change_nothing(site: Site, visitor: Visit) -> None:
    definition = {"name": "hands off", "task_type": "content_generation", "params": site.write("hands off")}
    task = site.api("POST", "tasks", definition)["id"]
    execution = site.enqueue("for viewers")
    site.ended(execution)
    person = visitor("viewer")
    page = person.page
    for path in (f"tasks/{task}", "tasks", f"executions/{execution}", "executions", "executors", "system"):
        person.go(path)
        page.wait_for_load_state("networkidle")
        for name in (
            "Run now",
            "Run once",
            "Pause",
            "New task",
            "Retry",
            "Delete",
            "Cancel",
            "New token",
        ):
            expect(page.locator("main").get_by_role("button", name=name)).to_have_count(0)
            expect(page.locator("main").get_by_role("link", name=name, exact=True)).to_have_count(0)
    for path in ("tasks/new", f"tasks/{task}/edit"):
        page.goto(f"{person.url}/scheduler/{path}")
        expect(page.get_by_text("Only operators and admins may do this")).to_be_visible()
        expect(page.locator("main form")).to_have_count(0)
    person.go(f"executions/{execution}")
    page.get_by_role("button", name="Actions").click()
    expect(page.get_by_role("menuitem")).to_have_text(["Copy as cURL", "Copy as Python"])
    session = page.evaluate("fetch('/api/v1/scheduler/session').then((answer) => answer.json())")
    assert session["role"] == "viewer"
    refused = page.evaluate(
        "([path, token]) => fetch(path, {method: 'POST', headers: {'X-CSRF-Token': token}}).then((a) => a.status)",
        [f"/api/v1/scheduler/tasks/{task}/run", session["csrf_token"]],
    )
    assert refused == 403
    assert site.api("GET", "executions", task_id=task)["items"] == []


def test_two_windows_on_two_servers_agree(site: Site, visitor: Visit) -> None:
    """Who signed in on one server is known to the other, and each window shows at once what the other does."""
    definition = {"name": "shared", "task_type": "content_generation", "params": site.write("shared")}
    task = site.api("POST", "tasks", definition)["id"]
    here, there = visitor("operator"), visitor("operator", server=1)
    cookie = here.page.context.cookies()[0]
    answer = httpx.get(f"{site.urls[1]}/api/v1/scheduler/session", cookies={cookie["name"]: cookie["value"]})
    assert answer.json()["role"] == "operator"
    for person in (here, there):
        person.go(f"tasks/{task}")
    here.page.get_by_role("button", name="Run now").click()
    for person in (here, there):
        row = person.page.get_by_role("region", name="Executions").get_by_role("row").filter(has_text="Succeeded")
        expect(row).to_have_count(1)
    there.page.get_by_role("button", name="Pause").click()
    expect(here.page.get_by_role("button", name="Resume")).to_be_visible()


def test_many_tabs_share_one_stream_which_goes_on_when_the_tab_that_reads_it_is_closed(
    site: Site, visitor: Visit
) -> None:
    """A browser opens six connections to a server: with a stream for each tab the seventh would never be there."""
    person = visitor("viewer")
    expect(
        person.page.get_by_role("status").filter(has_text="Live")
    ).to_be_visible()  # with a stream that ends here
    asked: list[str] = []
    person.page.context.on("request", lambda request: asked.append(request.url))
    tabs = [person.page, *(person.page.context.new_page() for _ in range(7))]
    for tab in tabs:
        tab.goto(f"{person.url}/scheduler/executions")
        expect(tab.get_by_role("heading", level=1, name="Executions")).to_be_visible()
        expect(tab.get_by_role("status").filter(has_text="Live")).to_be_visible()
    execution = site.enqueue("for every tab")
    site.ended(execution)
    for tab in tabs:
        expect(tab.locator(f"[data-execution='{execution}']")).to_contain_text("Succeeded")
    assert len([url for url in asked if url.endswith("/events")]) == 1

    tabs[0].close()
    execution = site.enqueue("for those that are left")
    site.ended(execution)
    for tab in tabs[1:]:
        expect(tab.locator(f"[data-execution='{execution}']")).to_contain_text("Succeeded")


def test_a_list_has_the_newest_and_no_more_than_its_length(site: Site, visitor: Visit) -> None:
    definition = {"name": "often", "task_type": "content_generation", "params": site.write("often")}
    task = site.api("POST", "tasks", {**definition, "overlap_policy": "allow"})["id"]
    person = visitor("viewer")
    person.go(f"tasks/{task}")
    rows = person.page.get_by_role("region", name="Executions").locator("[data-execution]")
    ran = [site.api("POST", f"tasks/{task}/run")["id"] for _ in range(13)]
    expect(rows.first).to_have_attribute("data-execution", str(ran[-1]))
    expect(rows).to_have_count(10)


def test_a_double_click_acts_once(site: Site, visitor: Visit) -> None:
    definition = {"name": "clicked twice", "task_type": "content_generation", "params": site.write("twice")}
    task = site.api("POST", "tasks", definition)["id"]
    person = visitor("operator")
    page = person.page
    person.go(f"tasks/{task}")
    page.get_by_role("button", name="Run now").dblclick()
    expect(page.get_by_text("Started execution").first).to_be_visible()
    page.get_by_role("button", name="Pause").dblclick()
    expect(page.get_by_role("button", name="Resume")).to_be_visible()
    assert len(site.api("GET", "executions", task_id=task)["items"]) == 1
    assert site.api("GET", f"tasks/{task}")["is_active"] is False


def test_a_token_that_is_wrong_or_revoked_lets_nobody_in(site: Site, visitor: Visit) -> None:
    person = visitor()
    page = person.page
    page.goto(f"{site.url}/scheduler/tasks")
    person.give("chs_wrong")
    expect(
        page.get_by_text("token", exact=False)
        .filter(has_text=re.compile("unknown|not known|wrong|invalid", re.IGNORECASE))
        .first
    ).to_be_visible()
    made = site.contenthub("token", "create", "short lived", "--role", "viewer", "--json").json["token"]
    person.give(made)
    page.get_by_role("heading", level=1, name="Tasks").wait_for()
    expect(page.get_by_role("status").filter(has_text="Live")).to_be_visible()
    site.contenthub("token", "revoke", "short lived")
    # Nobody touches the page: it learns of it from its stream, which ends.
    expect(page.get_by_role("button", name="Sign in")).to_be_visible(timeout=20_000)
    person.noticed.clear()  # the browser reports the refusals


def test_a_page_that_was_open_while_the_server_was_away_recovers(site: Site, visitor: Visit) -> None:
    person = visitor("viewer")
    page = person.page
    person.go("executions")
    expect(page.get_by_role("status").filter(has_text="Live")).to_be_visible()
    page.context.set_offline(True)
    page.evaluate("window.dispatchEvent(new Event('offline'))")
    execution = site.enqueue("while away")
    site.ended(execution)
    page.context.set_offline(False)
    expect(page.locator(f"[data-execution='{execution}']")).to_contain_text("Succeeded")
    person.noticed.clear()  # the browser reports what it could not fetch meanwhile


def test_a_page_whose_code_cannot_be_fetched_says_so_and_comes_with_a_reload(visitor: Visit) -> None:
    person = visitor("viewer")
    page = person.page
    page.route("**/assets/system-*", lambda route: route.abort())
    navigation = page.get_by_role("navigation")
    navigation.get_by_role("link", name="System").click()
    expect(page.get_by_role("alert")).to_contain_text("The code of this page cannot be fetched")
    navigation.get_by_role("link", name="Executors").click()  # the rest works
    page.get_by_role("heading", level=1, name="Executors").wait_for()
    navigation.get_by_role("link", name="System").click()
    page.unroute("**/assets/system-*")
    page.get_by_role("button", name="Reload").click()
    page.get_by_role("heading", level=1, name="System").wait_for()
    person.noticed.clear()  # the browser reports what it could not fetch meanwhile


def test_the_code_of_all_pages_is_there_before_it_is_asked_for(visitor: Visit) -> None:
    person = visitor("viewer")
    page = person.page
    with page.expect_request("**/assets/system-*"):
        pass
    page.wait_for_load_state("networkidle")
    page.route("**/assets/**", lambda route: route.abort())
    page.get_by_role("navigation").get_by_role("link", name="Calendar").click()
    page.get_by_role("heading", level=1, name="Calendar").wait_for()


def test_the_api_is_documented_without_another_host(visitor: Visit) -> None:
    person = visitor()
    page = person.page
    page.goto(f"{person.url}/docs")
    page.get_by_role("button", name="GET /health/ready", exact=False).first.click()
    page.get_by_role("button", name="Try it out").click()
    page.get_by_role("button", name="Execute").click()
    expect(page.locator(".live-responses-table").get_by_text("200", exact=True)).to_be_visible()
    for scheme, ground in (("dark", "rgb(28, 32, 34)"), ("light", "rgba(0, 0, 0, 0)")):
        page.emulate_media(color_scheme=scheme)
        expect(page.locator("html")).to_have_css("background-color", ground)


PROBE = """<img src=x onerror="window.stolen='{0}'"><script>window.stolen='{0}'</script>{{{{7*7}}}}javascript:1"""


def test_hostile_text_stays_text(site: Site, visitor: Visit) -> None:
    """In every field that somebody can fill, and in what executors, clients and tokens say."""
    hostile = {
        "name": PROBE.format("name"),
        "description": PROBE.format("description"),
        "task_type": "content_generation",
        "params": site.write(f"broken {PROBE.format('params')}"),
        "schedule": {"type": "cron", "expression": "0 9 * * *"},
        "concurrency_key": PROBE.format("key"),
    }
    task = site.api("POST", "tasks", hostile)["id"]
    site.api("PATCH", f"tasks/{task}", {"description": PROBE.format("change")})
    (site.contenthub.folder / "mended").unlink(missing_ok=True)
    execution = site.api("POST", f"tasks/{task}/run")["id"]
    site.ended(execution)
    keyed = httpx.post(
        f"{site.url}/api/v1/scheduler/executions",
        json={"task_type": "content_generation", "params": site.write(PROBE.format("topic"))},
        headers={"Authorization": f"Bearer {site.tokens['admin']}", "Idempotency-Key": "<b>key</b>"},
    ).json()["id"]
    site.ended(keyed)
    site.contenthub("token", "create", PROBE.format("token")[:100], "--role", "viewer")
    person = visitor("admin")
    page = person.page
    paths = [
        "",
        "tasks",
        f"tasks/{task}",
        f"tasks/{task}/edit",
        f"tasks/new?from={task}",
        "calendar",
        "executions",
    ]
    paths += [f"executions?search={PROBE.format('search')}", f"executions/{execution}", f"executions/{keyed}"]
    for path in [*paths, "executors", "system"]:
        person.go(path)
        page.wait_for_load_state("load")
        page.wait_for_timeout(500)
        assert page.evaluate("window.stolen") is None, path
        assert page.locator("img[src=x]").count() == 0, path
    person.go(f"tasks/{task}")
    expect(page.get_by_role("heading", level=1)).to_have_text(PROBE.format("name"))


def test_text_from_right_to_left_turns_nothing_around_it(site: Site, visitor: Visit) -> None:
    turning = "\u202ekcehc\u2066"
    site.mend()
    body = {"name": f"to {turning}", "task_type": "content_generation", "params": site.write(turning)}
    task = site.api("POST", "tasks", body)["id"]
    execution = site.api("POST", f"tasks/{task}/run")["id"]
    site.ended(execution)
    person = visitor("viewer")
    page = person.page
    person.go(f"executions/{execution}")
    expect(page.get_by_role("heading", level=1)).to_have_text(f"to \\u202ekcehc\\u2066 #{execution}")
    expect(page.get_by_role("region", name="Params").locator("pre")).to_contain_text("\\u202ekcehc")
    expect(page.locator("dd a").first).to_have_css("unicode-bidi", "isolate")


@pytest.mark.parametrize("language", ["en-GB", "zh-CN"])
def test_it_speaks_the_browsers_language_and_can_be_told_another(visitor: Visit, language: str) -> None:
    person = visitor(locale=language)
    page = person.page
    page.goto(f"{person.url}/scheduler/")
    first = "Sign in" if language == "en-GB" else "登录"
    expect(page.get_by_role("button", name=first)).to_be_visible()
    assert page.locator("html").get_attribute("lang") == ("en" if language == "en-GB" else "zh-CN")
    page.locator("input").first.fill(person.site.tokens["viewer"])
    page.get_by_role("button", name=first).click()
    page.locator("h1").wait_for()
    page.get_by_role("button", name="Language" if language == "en-GB" else "语言").click()
    page.get_by_role("menuitem", name="中文" if language == "en-GB" else "English").click()
    expect(page.locator("h1")).to_have_text("总览" if language == "en-GB" else "Overview")
    page.reload()
    expect(page.locator("h1")).to_have_text("总览" if language == "en-GB" else "Overview")


def test_it_works_by_keyboard(site: Site, visitor: Visit) -> None:
    person = visitor("operator")
    page = person.page
    page.keyboard.press("Tab")
    expect(page.get_by_text("Skip to content")).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.locator("main")).to_be_focused()
    person.go("executors")
    run = page.get_by_role("button", name="Run once: content_generation")
    run.focus()
    page.keyboard.press("Enter")
    dialog = page.get_by_role("dialog")
    expect(dialog).to_be_visible()
    dialog.get_by_label("Account Id").fill("1")
    page.keyboard.press("Tab")
    page.keyboard.press("Escape")
    question = page.get_by_role("dialog", name="Leave without saving?")
    expect(question.get_by_role("button", name="Stay")).to_be_focused()
    page.keyboard.press("Enter")
    expect(question).to_be_hidden()
    expect(dialog.get_by_label("Account Id")).to_have_value("1")
    page.keyboard.press("Escape")
    expect(question.get_by_role("button", name="Stay")).to_be_focused()
    page.keyboard.press("Tab")
    expect(question.get_by_role("button", name="Leave")).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.get_by_role("dialog")).to_have_count(0)
    expect(run).to_be_focused()


def test_many_at_once(site: Site, visitor: Visit) -> None:
    """Bulk actions say what they did; what was picked, and nothing else, is changed."""
    (site.contenthub.folder / "mended").unlink(missing_ok=True)
    body = {"task_type": "content_generation", "schedule": {"type": "cron", "expression": "0 9 * * *"}}
    ids = [
        site.api("POST", "tasks", {**body, "name": f"bulk {n}", "params": site.write(f"broken {n}")})["id"]
        for n in range(3)
    ]
    person = visitor("admin")
    page = person.page
    person.go("tasks?search=bulk")
    for name in ("bulk 0", "bulk 1"):
        page.get_by_role("checkbox", name=f"Select {name}").check()
    chosen = page.get_by_role("region", name="2 selected")
    chosen.get_by_role("button", name="Run now").click()
    expect(page.get_by_text("2 done").first).to_be_visible()
    chosen.get_by_role("button", name="Pause").click()
    expect(page.get_by_role("row").filter(has_text="Paused")).to_have_count(2)
    assert [site.api("GET", f"tasks/{one}")["is_active"] for one in ids] == [False, False, True]

    runs = [site.api("GET", "executions", task_id=one)["items"][0]["id"] for one in ids[:2]]
    for run in runs:
        site.ended(run)
    site.mend()
    person.go("executions?state=failed&search=bulk")
    for run in runs:
        page.get_by_role("checkbox", name=f"Select #{run}").check()
    page.get_by_role("region", name="2 selected").get_by_role("button", name="Retry").click()
    expect(page.locator(f"[data-execution='{runs[0]}']")).to_have_count(0)  # it is no failure any more
    assert [site.ended(run)["state"] for run in runs] == ["success", "success"]

    person.go("tasks?search=bulk")
    page.get_by_role("checkbox", name="Select bulk 2").check()
    page.get_by_role("region", name="1 selected").get_by_role("button", name="Delete").click()
    page.get_by_role("dialog").get_by_role("button", name="Delete").click()
    expect(page.get_by_role("link", name="bulk 2", exact=True)).to_have_count(0)
    assert {one["name"] for one in site.api("GET", "tasks", search="bulk")["items"]} == {"bulk 0", "bulk 1"}


def test_what_is_no_longer_seen_is_not_acted_on(site: Site, visitor: Visit) -> None:
    failed = site.enqueue("broken and out of sight")
    (site.contenthub.folder / "mended").unlink(missing_ok=True)
    site.ended(failed)
    person = visitor("operator")
    page = person.page
    person.go(f"executions?trigger=api&until={datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}")
    page.get_by_role("checkbox", name="Select all").check()
    expect(page.get_by_role("region", name=re.compile("selected"))).to_be_visible()
    page.get_by_role("textbox", name="Search").fill("matches nothing")
    expect(page.get_by_text("No execution matches these filters.")).to_be_visible()
    expect(page.get_by_role("region", name=re.compile("selected"))).to_have_count(0)


def test_a_search_box_says_what_is_searched_for(visitor: Visit) -> None:
    person = visitor("viewer")
    page = person.page
    box = page.get_by_role("textbox", name="Search")
    for path, name in (("tasks", "Tasks"), ("executions", "Executions")):
        person.go(f"{path}?search=dup")
        expect(box).to_have_value("dup")
        page.get_by_role("navigation").get_by_role("link", name=name).click()
        page.wait_for_url(f"**/{path}")
        expect(box).to_have_value("")
        box.press_sequentially("again", delay=120)
        page.wait_for_url(f"**/{path}?search=again")
        expect(box).to_have_value("again")
    person.go("executions?trigger=api")
    box.fill("abc")
    page.get_by_role("button", name="Clear filters").click()
    page.wait_for_timeout(600)
    expect(page).to_have_url(f"{person.url}/scheduler/executions")
    expect(box).to_have_value("")


def test_a_token_is_made_shown_once_and_revoked(site: Site, visitor: Visit) -> None:
    person = visitor("admin")
    page = person.page
    person.go("system")
    page.get_by_role("button", name="New token").click()
    dialog = page.get_by_role("dialog")
    dialog.get_by_label("Name").fill("from the page")
    dialog.get_by_role("button", name="Create").click()
    token = dialog.locator("pre").inner_text()
    assert httpx.get(f"{site.url}/api/v1/scheduler/tasks", headers={"Authorization": f"Bearer {token}"}).is_success
    dialog.get_by_role("button", name="Close").last.click()
    row = page.get_by_role("row").filter(has_text="from the page")
    row.get_by_role("button", name="Revoke").click()
    page.get_by_role("dialog").get_by_role("button", name="Revoke").click()
    expect(row).to_contain_text("revoked")
    refused = httpx.get(f"{site.url}/api/v1/scheduler/tasks", headers={"Authorization": f"Bearer {token}"})
    assert refused.status_code == 401
    assert token not in page.content()


def test_hours_and_rate_of_a_task_are_set_seen_and_kept_and_its_past_is_made_up_for(
    site: Site, visitor: Visit
) -> None:
    site.mend()
    person = visitor("operator")
    page = person.page
    person.go("tasks/new?type=content_generation")
    page.get_by_label("Name", exact=False).first.fill("Office hours")
    page.get_by_label("Account Id").fill("1")
    page.get_by_label("Topic").fill("a digest")
    page.get_by_role("textbox", name="Generator").click()
    page.get_by_role("option", name="command").click()
    page.get_by_label("Cron expression").fill("0 9,20 * * *")
    hours = page.get_by_role("region", name="When it may fire")
    hours.get_by_label("From").fill("08:00")
    hours.get_by_label("Until").fill("18:00")
    hours.get_by_label("Closed on the holidays of (country)").fill("xx")
    page.get_by_label("Starts at most").fill("100")
    page.get_by_label("in (seconds)").fill("60")
    page.get_by_role("button", name="Create").click()
    expect(hours.get_by_text(re.compile("XX"))).to_be_visible()  # what the server says, at its field
    hours.get_by_label("Closed on the holidays of (country)").fill("")
    page.get_by_role("button", name="Create").click()

    page.get_by_role("heading", level=1, name="Office hours").wait_for()
    policies = page.get_by_role("region", name="Policies")
    expect(policies.get_by_text("100 in 60 s")).to_be_visible()
    expect(policies.get_by_text("08:00–18:00 · Skip it")).to_be_visible()

    page.get_by_role("button", name="Actions").click()
    page.get_by_role("menuitem", name="Edit").click()
    page.get_by_label("Description").fill("in the office")
    page.get_by_role("button", name="Save").click()
    expect(page.get_by_text("in the office").first).to_be_visible()
    (task,) = site.api("GET", "tasks", search="Office hours")["items"]
    assert task["run_window"] == {"opens": "08:00", "closes": "18:00", "days": []}
    assert (task["rate_limit"]["limit"], task["rate_limit"]["per_seconds"]) == (100, 60)

    page.get_by_role("button", name="Actions").click()
    page.get_by_role("menuitem", name="Make up for the past").click()
    dialog = page.get_by_role("dialog", name=re.compile("^Make up for the past of"))
    for inside in ("the calendar", "the time"):
        dialog.get_by_role("button", name="From", exact=False).click()
        done = page.get_by_role("button", name="Done")
        expect(done).to_be_visible()
        if inside == "the time":
            page.get_by_role("spinbutton").first.click()
        expect(page.locator("[data-mantine-stop-propagation]:focus")).to_have_count(1)  # the picker has the focus
        page.keyboard.press("Escape")
        expect(done).to_be_hidden()
        expect(dialog).to_be_visible()
    last_month = datetime.now(UTC).replace(day=1) - timedelta(days=1)
    for label, day in (("From", 1), ("Until", 4)):
        dialog.get_by_role("button", name=label, exact=False).click()
        page.get_by_role("button", name="Previous month").or_(
            page.locator("[data-direction='previous']")
        ).first.click()
        page.get_by_role("button", name=f"{day} {last_month:%B %Y}", exact=True).click()
        page.get_by_role("button", name="Done").click()
        expect(page.get_by_role("button", name="Done")).to_have_count(0)  # or the next click meets it closing
    dialog.get_by_role("button", name="Cancel").click()
    page.get_by_role("dialog", name="Leave without saving?").get_by_role("button", name="Stay").click()
    preview = dialog.get_by_role("region", name="Preview")
    expect(preview.get_by_text("3 fires would run")).to_be_visible()
    expect(preview.get_by_text("3 are left out: the task is closed then")).to_be_visible()
    dialog.get_by_role("button", name="Run 3 fires").click()
    page.get_by_role("heading", level=1, name="Executions").wait_for()
    expect(page.get_by_role("row").filter(has_text="Office hours").filter(has_text="Succeeded")).to_have_count(3)


@pytest.mark.parametrize("has_clipboard", [True, False], ids=["secure page", "plain http"])
def test_a_request_is_copied_and_does_the_same_again(site: Site, visitor: Visit, has_clipboard: bool) -> None:
    execution = site.enqueue("copied it's")
    site.ended(execution)
    person = visitor("operator")
    page = person.page
    if not has_clipboard:  # what a browser does with a page of another machine that came without TLS
        page.add_init_script("delete Navigator.prototype.clipboard")
    person.go(f"executions/{execution}")
    details = page.get_by_role("region", name="Details")
    expect(details.get_by_text("Ended")).to_be_visible()
    expect(details.get_by_text("Not before")).to_have_count(0)  # it was not put off
    page.get_by_role("button", name="Actions").click()
    page.get_by_role("menuitem", name="Copy as Python").click()
    expect(page.get_by_text("Copied", exact=True)).to_be_visible()
    page.evaluate("document.body.appendChild(document.createElement('textarea')).focus()")
    page.keyboard.press("Control+V")
    program = page.locator("body > textarea").input_value()
    environment = {**os.environ, "CONTENTHUB_TOKEN": site.tokens["operator"]}
    ran = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, check=True)
    again = site.ended(int(ran.stdout))
    assert (again["state"], again["params"]["topic"]) == ("success", "copied it's")


def test_an_address_that_somebody_has_spoilt(site: Site, visitor: Visit) -> None:
    """What an address says beside what its page knows is passed over; one that names no thing has no page."""
    ran = site.ended(site.enqueue("found by an address"))
    person = visitor("viewer")
    person.go("executions?state=bogus&since=yesterday&utm_source=mail&search=found by an address")
    expect(person.page.get_by_role("link", name=str(ran["id"]), exact=True)).to_be_visible()
    for path in ("executions/abc", "executions/0", "tasks/1e999", "nowhere"):
        person.page.goto(f"{person.url}/scheduler/{path}")
        expect(person.page.get_by_text("There is no such page.")).to_be_visible()


def test_executions_are_found_by_what_asked_for_them(site: Site, visitor: Visit) -> None:
    site.ended(site.enqueue("asked for by the API"))
    person = visitor("viewer")
    page = person.page
    person.go("executions")
    for name, trigger in (("Parent", "parent"), ("Backfill", "backfill"), ("Alert", "alert")):
        page.get_by_role("textbox", name="Asked for by").click()
        page.get_by_role("option", name=name).click()
        expect(page).to_have_url(re.compile(f"trigger={trigger}"))
        expect(page.get_by_role("row").filter(has_text="API")).to_have_count(0)


def test_an_executor_is_run_once_with_what_was_written_and_nothing_else(site: Site, visitor: Visit) -> None:
    person = visitor("operator")
    person.go("executors")
    page = person.page
    page.get_by_role("searchbox", name="Search").fill("HTTP")
    expect(page.get_by_role("button", name=re.compile("^Run once"))).to_have_count(1)
    card = page.get_by_role("region").filter(has=page.get_by_role("heading", name="http_request", exact=True))
    expect(card.get_by_text('"GET"')).to_have_css("text-transform", "none")  # a default is shown as it is
    card.get_by_role("button", name="Run once").click()
    dialog = page.get_by_role("dialog")
    dialog.get_by_label("Url").fill("http://127.0.0.1:9/nowhere")
    dialog.get_by_label("Json", exact=True).fill('{"any": [1, null')
    expect(dialog.get_by_text("This is not JSON.")).to_be_visible()
    expect(dialog.get_by_role("button", name="Run now")).to_be_disabled()
    dialog.get_by_label("Json", exact=True).fill('{"any": [1, null]}')
    dialog.get_by_role("button", name="Run now").click()
    page.get_by_role("heading", level=1, name=re.compile(r"http_request #\d+")).wait_for()
    (ran,) = site.api("GET", "executions", task_type="http_request")["items"]
    params = site.api("GET", f"executions/{ran['id']}")["params"]
    assert params == {"url": "http://127.0.0.1:9/nowhere", "json": {"any": [1, None]}}


def test_a_moment_among_the_params_is_picked_on_the_clock_of_the_browser(site: Site, visitor: Visit) -> None:
    person = visitor("operator", timezone_id="Asia/Shanghai")
    person.go("tasks/new?type=add_to_pool")
    page = person.page
    page.get_by_label("Name", exact=False).first.fill("Into the pool")
    page.get_by_label("Content Id").fill("7")
    page.get_by_role("radiogroup", name="Kind of schedule").get_by_text("None").click()
    expect(page.get_by_text("Your time (Asia/Shanghai)")).to_be_visible()
    page.get_by_label("Not Before").click()
    today = datetime.now(ZoneInfo("Asia/Shanghai"))
    pick(page, today, "23:30:15")
    expect(page.get_by_label("Not Before")).to_have_text(f"{today:%Y-%m-%d} 23:30:15")
    page.get_by_role("button", name="Create").click()

    page.get_by_role("heading", level=1, name="Into the pool").wait_for()
    (task,) = site.api("GET", "tasks", search="Into the pool")["items"]
    assert task["params"] == {"content_id": 7, "not_before": f"{today:%Y-%m-%d}T23:30:15+08:00"}
    person.go(f"tasks/{task['id']}/edit")
    expect(page.get_by_label("Not Before")).to_have_text(f"{today:%Y-%m-%d} 23:30:15")


def test_a_moment_of_a_task_is_chosen_and_shown_on_the_clock_of_the_task(site: Site, visitor: Visit) -> None:
    person = visitor("operator", timezone_id="America/New_York")
    page = person.page
    person.go("tasks/new?type=publish_due")
    page.get_by_label("Name", exact=False).first.fill("Only once")
    page.get_by_role("textbox", name="Time zone").fill("Asia/Shanghai")
    page.get_by_role("option", name="Asia/Shanghai").click()
    page.get_by_role("radiogroup", name="Kind of schedule").get_by_text("Once").click()
    at = page.get_by_label("Moment (Asia/Shanghai)")
    at.click()
    page.locator("[data-direction='next']").first.click()
    first = (datetime.now(UTC).replace(day=1) + timedelta(days=32)).replace(day=1)
    pick(page, first, "09:30:00")
    row = page.get_by_role("region", name="What it will do").get_by_role("row").nth(1)
    expect(row).to_contain_text("09:30:00")
    expect(row).to_contain_text(re.compile("20:30:00|21:30:00"))  # in New York, the evening before
    page.get_by_role("button", name="Create").click()

    page.get_by_role("heading", level=1, name="Only once").wait_for()
    (task,) = site.api("GET", "tasks", search="Only once")["items"]
    assert task["schedule"] == {"type": "at", "expression": f"{first:%Y-%m-%d}T01:30:00+00:00"}
    person.go(f"tasks/{task['id']}/edit")
    expect(at).to_have_text(f"{first:%Y-%m-%d} 09:30:00")


def test_the_bounds_of_a_task_are_set_seen_and_kept(site: Site, visitor: Visit) -> None:
    person = visitor("operator", timezone_id="Asia/Shanghai")
    page = person.page
    person.go("tasks/new?type=publish_due")
    page.get_by_label("Name", exact=False).first.fill("For a while")
    page.get_by_label("Cron expression").fill("30 2 * * *")
    page.get_by_label("Ends (Asia/Shanghai)").click()
    page.locator("[data-direction='next']").first.click()
    first = (datetime.now(UTC).replace(day=1) + timedelta(days=32)).replace(day=1)
    pick(page, first, "09:30:00")
    page.get_by_role("textbox", name="A cron time that a change of clocks skips").click()
    page.get_by_role("option", name="Is skipped").click()
    page.get_by_role("button", name="Create").click()

    page.get_by_role("heading", level=1, name="For a while").wait_for()
    expect(page.get_by_role("region", name="Policies")).to_contain_text("Ends (Asia/Shanghai)")
    (task,) = site.api("GET", "tasks", search="For a while")["items"]
    assert (task["start_at"], task["dst_policy"]) == (None, "skip")
    assert datetime.fromisoformat(task["end_at"]) == first.replace(hour=1, minute=30, second=0, microsecond=0)
    person.go(f"tasks/{task['id']}/edit")
    page.get_by_label("Description").fill("a little more")
    page.get_by_role("button", name="Save").click()
    page.get_by_role("heading", level=1, name="For a while").wait_for()
    kept = site.api("GET", f"tasks/{task['id']}")
    assert {name for name in task if kept[name] != task[name]} <= {"description", "version", "updated_at"}


def test_what_a_task_will_do_is_shown_with_its_hours_its_zone_and_its_origin(site: Site, visitor: Visit) -> None:
    definition = {
        "name": "counted",
        "task_type": "publish_due",
        "schedule": {"type": "interval", "seconds": 7 * 3600 + 1},
        "timezone": "UTC",
        "start_at": "2040-01-01T00:00:00Z",
    }
    task = site.api("POST", "tasks", definition)["id"]
    expected = site.api("GET", f"tasks/{task}/preview", count=10)["fires"]
    person = visitor("operator", timezone_id="UTC")
    page = person.page
    person.go(f"tasks/{task}/edit")
    rows = page.get_by_role("region", name="What it will do").get_by_role("row")
    expect(rows).to_have_count(11)
    for row, fire in zip(rows.all()[1:], expected, strict=True):
        expect(row).to_contain_text(f"{datetime.fromisoformat(fire):%Y, %H:%M:%S}")
    hours = page.get_by_role("region", name="When it may fire")
    hours.get_by_label("From").fill("10:00")
    hours.get_by_label("Until").fill("16:00")
    expect(page.get_by_text("are at closed times and are skipped")).to_be_visible()
    assert all("10:" <= text[-8:] < "16:" for text in rows.all_inner_texts()[1:])


def test_an_integer_of_64_bits_is_kept_by_a_browser_whose_numbers_have_53(site: Site, visitor: Visit) -> None:
    large = {"account_id": 9007199254740993}
    params = {"url": "http://127.0.0.1:9/nowhere", "json": large}
    task = site.api("POST", "tasks", {"name": "large", "task_type": "http_request", "params": params})["id"]
    person = visitor("operator")
    page = person.page
    person.go(f"tasks/{task}/edit")
    expect(page.get_by_label("Json", exact=True)).to_have_value(re.compile("9007199254740993"))
    with page.expect_request(lambda request: request.method == "PATCH") as asked:
        page.get_by_label("Priority").fill("5")
        page.get_by_role("button", name="Save").click()
    assert asked.value.post_data_json == {"priority": 5}
    page.get_by_role("heading", level=1, name="large").wait_for()
    expect(page.get_by_role("region", name="Params").first).to_contain_text("9007199254740993")

    person.go(f"tasks/{task}/edit")
    page.get_by_label("Url").fill("http://127.0.0.1:9/elsewhere")
    page.get_by_role("button", name="Save").click()
    page.get_by_role("heading", level=1, name="large").wait_for()
    params["url"] = "http://127.0.0.1:9/elsewhere"
    assert site.api("GET", f"tasks/{task}")["params"] == params

    page.get_by_role("button", name="Actions").click()
    page.get_by_role("menuitem", name="Run with other params").click()
    dialog = page.get_by_role("dialog")
    dialog.get_by_label("Timeout Seconds").fill("1")
    dialog.get_by_role("button", name="Run now").click()
    expect(dialog).to_be_hidden()
    (ran,) = site.api("GET", "executions", task_id=task)["items"]
    assert site.api("GET", f"executions/{ran['id']}")["params"] == {**params, "timeout_seconds": 1}


def test_an_execution_without_a_time_limit_of_its_own_tells_its_executors(site: Site, visitor: Visit) -> None:
    made = site.api("POST", "executions", {"task_type": "content_generation", "params": site.write("limit")})
    person = visitor("viewer")
    person.go(f"executions/{made['id']}")
    expect(person.page.get_by_text("10 m, its executor's")).to_be_visible()
