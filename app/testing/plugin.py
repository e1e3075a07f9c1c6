"""The pytest plugin: the fixture `scheduler_sandbox`. pytest finds it by its entry point.

Nothing of the application is imported before a test asks for the fixture: pytest loads plugins before a project's
conftest has had a chance to set the environment.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from app.testing.sandbox import Sandbox


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line(
        "markers",
        "scheduler_sandbox(start=..., seed=0, **settings): the first moment of the sandbox (an aware datetime), "
        "the seed of its jitter, and fields of Settings",
    )


@pytest.fixture
def scheduler_sandbox(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Sandbox]:
    """A scheduler of this test's own, in virtual time. See `app.testing.sandbox.Sandbox`."""
    from app.testing.sandbox import Sandbox

    marker = request.node.get_closest_marker("scheduler_sandbox")
    with Sandbox.opened(tmp_path, **(marker.kwargs if marker is not None else {})) as box:
        yield box
