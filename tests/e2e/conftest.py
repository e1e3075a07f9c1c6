"""For each module a browser and a site of its own."""

from __future__ import annotations

import os
from collections.abc import Iterator
from functools import partial

import pytest
from playwright.sync_api import Browser

from tests.e2e.site import CHROMIUM, Person, Site, Visit, chromium, serving, visit


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """The browser. Where it is missing these tests are skipped, but not in CI.

    Closed with its module: while it is open an event loop runs in this thread, and no other test may have one.
    """
    if not CHROMIUM.is_file() and "CI" not in os.environ:
        pytest.skip(f"no {CHROMIUM}; Debian has it: apt-get install chromium")
    with chromium() as found:
        yield found


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """Two servers on one database."""
    with serving(tmp_path_factory.mktemp("site"), servers=2) as found:
        yield found


@pytest.fixture
def visitor(browser: Browser, site: Site) -> Iterator[Visit]:
    """Opens windows; at the end nothing may have gone wrong in any of them."""
    people: list[Person] = []

    def open_window(role: str | None = None, **options: object) -> Person:
        person = visit(browser, site, **options)
        people.append(person)
        if role is not None:
            person.sign_in(role)
        return person

    yield partial(open_window)
    for person in people:
        person.page.context.close()
    assert [trouble for person in people for trouble in person.noticed] == []
