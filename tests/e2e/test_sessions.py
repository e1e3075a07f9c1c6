"""Who is signed in, and what becomes of what they were writing."""

from __future__ import annotations

import re
from pathlib import Path

from playwright.sync_api import Browser, Page, expect

from tests.e2e.site import Site, Visit, serving, visit


def make_token(page: Page, name: str, role: str) -> str:
    """Make one on the page System, and read it there."""
    page.get_by_role("button", name="New token").click()
    dialog = page.get_by_role("dialog", name="New token")
    dialog.get_by_label("Name").fill(name)
    dialog.get_by_role("textbox", name="Role").click()
    page.get_by_role("option", name=role).click()
    dialog.get_by_role("button", name="Create").click()
    return dialog.get_by_text(re.compile("^ch_")).inner_text()


def test_the_first_token_is_shown_and_the_window_goes_on_with_it(browser: Browser, tmp_path: Path) -> None:
    with serving(tmp_path, roles=()) as site:
        person = visit(browser, site)
        person.go("system")
        page = person.page
        token = make_token(page, "first", "viewer")
        with page.expect_response("**/status"):  # the page goes on asking, and nobody is anonymous any more
            pass
        expect(page.get_by_text(token)).to_be_visible()
        expect(page.get_by_text("Settings and tokens are for admins.")).to_be_visible()
        page.get_by_role("dialog").get_by_role("button", name="Close").last.click()
        person.go("tasks")
        expect(page.get_by_role("heading", level=1)).to_have_text("Tasks")
        assert person.noticed == []
        page.context.close()


def test_who_has_to_sign_in_again_finds_what_they_were_writing(site: Site, visitor: Visit) -> None:
    person = visitor("operator")
    page = person.page
    person.go("tasks/new")
    page.get_by_label("Name", exact=False).first.fill("half written")
    page.context.clear_cookies()
    page.get_by_role("button", name="Create").click()
    way_in = page.get_by_role("dialog", name="Sign in")
    expect(way_in).to_be_visible()
    page.keyboard.press("Escape")
    expect(way_in).to_be_visible()
    person.give(site.tokens["operator"])
    expect(way_in).to_be_hidden()
    expect(page.get_by_label("Name", exact=False).first).to_have_value("half written")
    expect(page).to_have_title(re.compile("^New task"))


def test_who_leaves_what_they_were_writing_is_asked(site: Site, visitor: Visit) -> None:
    person = visitor("operator")
    page = person.page
    person.go("tasks")
    page.get_by_role("link", name="New task").click()
    name = page.get_by_label("Name", exact=False).first
    name.fill("half written")
    question = page.get_by_role("dialog", name="Leave without saving?")
    for leave in (
        page.get_by_role("navigation").get_by_role("link", name="Calendar").click,
        page.get_by_role("button", name="Cancel").click,
        lambda: page.evaluate("history.back()"),
    ):
        leave()
        question.get_by_role("button", name="Stay").click()
        expect(question).to_be_hidden()
        expect(name).to_have_value("half written")
    page.get_by_role("navigation").get_by_role("link", name="Calendar").click()
    question.get_by_role("button", name="Leave").click()
    page.get_by_role("heading", level=1, name="Calendar").wait_for()

    person.go("executors")
    card = page.get_by_role("region").filter(has=page.get_by_role("heading", name="http_request", exact=True))
    card.get_by_role("button", name="Run once").click()
    url = page.get_by_role("dialog").get_by_label("Url")
    url.fill("http://127.0.0.1:9/nowhere")
    page.keyboard.press("Escape")
    expect(question).to_be_visible()
    page.keyboard.press("Escape")
    expect(question).to_be_hidden()
    expect(url).to_have_value("http://127.0.0.1:9/nowhere")
    page.keyboard.press("Escape")
    question.get_by_role("button", name="Leave").click()
    expect(page.get_by_role("dialog")).to_have_count(0)


def test_a_form_of_what_is_stored_is_left_and_saved_without_a_question(site: Site, visitor: Visit) -> None:
    params = {"url": "http://127.0.0.1:9/nowhere"}
    task = site.api("POST", "tasks", {"name": "left alone", "task_type": "http_request", "params": params})["id"]
    person = visitor("operator")
    page = person.page
    person.go(f"tasks/{task}/edit")
    expect(page.get_by_label("Url")).to_have_value(params["url"])
    page.get_by_role("button", name="Cancel").click()
    page.get_by_role("heading", level=1, name="Tasks").wait_for()
    person.go(f"tasks/{task}/edit")
    page.get_by_label("Description").fill("written")
    page.get_by_role("button", name="Save").click()
    page.get_by_role("heading", level=1, name="left alone").wait_for()


def test_who_cannot_sign_out_is_told(visitor: Visit) -> None:
    person = visitor("viewer")
    page = person.page
    person.go("tasks")
    page.context.set_offline(True)
    page.get_by_role("button", name="Sign out").click()
    expect(page.get_by_text("The server cannot be reached")).to_be_visible()
    page.context.set_offline(False)
    # Until it has seen that the network is back the browser breaks off what it is asked for.
    page.wait_for_function("fetch('/health/live').then(() => true, () => false)")
    page.get_by_role("button", name="Sign out").click()
    expect(page.get_by_role("textbox", name="Token")).to_be_visible()
    person.noticed.clear()  # the browser reports what it could not fetch meanwhile


def test_all_windows_of_a_browser_know_who_is_signed_in(site: Site, visitor: Visit) -> None:
    person = visitor("operator")
    task = site.api("POST", "tasks", {"name": "shared", "task_type": "publish_due"})["id"]
    person.go(f"tasks/{task}")
    other = person.page.context.new_page()
    other.goto(f"{person.url}/scheduler/")
    other.get_by_role("button", name="Sign out").click()
    expect(person.page.get_by_role("dialog", name="Sign in")).to_be_visible()
    other.get_by_role("textbox", name="Token").fill(site.tokens["admin"])
    other.get_by_role("button", name="Sign in").click()
    expect(person.page.get_by_role("dialog", name="Sign in")).to_be_hidden()
    person.page.get_by_role("button", name="Pause").click()
    expect(person.page.get_by_role("button", name="Resume")).to_be_visible()
    expect(person.page.get_by_text("X-CSRF-Token")).to_have_count(0)
